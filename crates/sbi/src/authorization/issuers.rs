//! Trusted issuers, their keys, and the tokens that were verified already.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::sha::sha256;
use serde::Deserialize;
use transport::LogThrottle;

use super::config::{InvalidAuthorization, IssuerConfig};
use super::refusal::Refusal;
use crate::file_version::FileVersion;
use crate::token::{AccessTokenClaims, JoseHeader, TokenError, TokenKeys};

/// Every trusted issuer.
#[derive(Debug)]
pub(super) struct Issuers {
    issuers: Vec<Issuer>,
}

#[derive(Debug)]
struct Issuer {
    nf_instance_id: String,
    path: PathBuf,
    state: Mutex<Known>,
}

/// What is known of one issuer.
#[derive(Debug)]
struct Known {
    keys: Arc<TokenKeys>,
    version: FileVersion,
    looked_at: Instant,
    /// By the token's SHA-256. Only form, issuer and signature are settled by being here; the claims are checked every time.
    verified: HashMap<[u8; 32], Arc<AccessTokenClaims>>,
}

impl Issuers {
    pub(super) fn open(configs: &[IssuerConfig]) -> Result<Self, InvalidAuthorization> {
        let open = |config: &IssuerConfig| {
            let fault = |error: TokenError| {
                let what = match &error {
                    TokenError::Unreadable { source, .. } => source.to_string(),
                    error => format!("{error}; {WANTED}"),
                };
                InvalidAuthorization(format!(
                    "issuer {}: keys {}: {what}",
                    config.nf_instance_id,
                    config.keys.display()
                ))
            };
            let version = version(&config.keys).map_err(fault)?;
            let keys = Arc::new(TokenKeys::from_file(&config.keys).map_err(fault)?);
            let state = Known { keys, version, looked_at: Instant::now(), verified: HashMap::new() };
            Ok(Issuer {
                nf_instance_id: config.nf_instance_id.clone(),
                path: config.keys.clone(),
                state: Mutex::new(state),
            })
        };
        Ok(Self { issuers: configs.iter().map(open).collect::<Result<_, _>>()? })
    }

    /// The claims of a token whose issuer is trusted and whose signature is right.
    pub(super) fn verify(&self, token: &str) -> Result<Arc<AccessTokenClaims>, Refusal> {
        let hash = sha256(token.as_bytes());
        if let Some(claims) = self.issuers.iter().find_map(|issuer| issuer.known(&hash)) {
            return Ok(claims);
        }
        JoseHeader::of_token(token)?;
        let claimed = claimed_issuer(token)?;
        let mut issuers = self.issuers.iter();
        let issuer =
            issuers.find(|issuer| issuer.nf_instance_id.eq_ignore_ascii_case(&claimed)).ok_or(Refusal::Issuer)?;
        issuer.verify(token, hash)?.ok_or(Refusal::Issuer)
    }
}

impl Issuer {
    /// The claims of a token that was verified before, under keys that still stand.
    fn known(&self, hash: &[u8; 32]) -> Option<Arc<AccessTokenClaims>> {
        let mut known = self.lock();
        if known.looked_at.elapsed() >= LOOK_INTERVAL {
            self.look(&mut known);
        }
        known.verified.get(hash).cloned()
    }

    /// The claims of a token whose signature is right, whatever its form; `None` where they name another issuer.
    fn verify(&self, token: &str, hash: [u8; 32]) -> Result<Option<Arc<AccessTokenClaims>>, TokenError> {
        let keys = Arc::clone(&self.lock().keys);
        let (claims, keys) = match keys.verify::<AccessTokenClaims>(token) {
            Ok(claims) => (claims, keys),
            // The issuer may have a new key since the file was last looked at.
            Err(error @ (TokenError::UnknownKey | TokenError::Signature)) => {
                let fresh = {
                    let mut known = self.lock();
                    self.look(&mut known);
                    Arc::clone(&known.keys)
                };
                if Arc::ptr_eq(&fresh, &keys) {
                    return Err(error);
                }
                (fresh.verify::<AccessTokenClaims>(token)?, fresh)
            }
            Err(error) => return Err(error),
        };
        // The signed claims decide, not what was read ahead of the signature.
        if !claims.iss.eq_ignore_ascii_case(&self.nf_instance_id) {
            return Ok(None);
        }
        let claims = Arc::new(claims);
        let mut known = self.lock();
        // Not under keys that were taken away meanwhile.
        if Arc::ptr_eq(&known.keys, &keys) {
            if known.verified.len() >= VERIFIED_MAX {
                known.verified.clear();
            }
            known.verified.insert(hash, Arc::clone(&claims));
        }
        Ok(Some(claims))
    }

    /// Reads the file again if it is another. One that cannot be used leaves the keys as they are.
    fn look(&self, known: &mut Known) {
        known.looked_at = Instant::now();
        let read = version(&self.path).and_then(|version| {
            if version == known.version {
                return Ok(None);
            }
            TokenKeys::from_file(&self.path).map(|keys| Some((version, keys)))
        });
        match read {
            Ok(None) => {}
            Ok(Some((version, keys))) => {
                tracing::info!(target: "security", issuer = self.nf_instance_id, "keys of the issuer read again");
                known.keys = Arc::new(keys);
                known.version = version;
                known.verified.clear();
            }
            Err(error) => {
                if let Some(unlogged) = NOT_READ.admit() {
                    tracing::error!(target: "security", issuer = self.nf_instance_id, %error, unlogged,
                        "keys of the issuer cannot be read again, the earlier ones stay");
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn version(path: &Path) -> Result<FileVersion, TokenError> {
    FileVersion::of(path).map_err(|source| TokenError::Unreadable { path: path.to_owned(), source })
}

/// Whose token it says it is, read ahead of the signature to know which keys to try.
fn claimed_issuer(token: &str) -> Result<String, TokenError> {
    #[derive(Deserialize)]
    struct Issued {
        iss: String,
    }
    let payload = token.split('.').nth(1).ok_or(TokenError::Malformed)?;
    let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice::<Issued>(&payload).map(|issued| issued.iss).map_err(|_| TokenError::Claims)
}

static NOT_READ: LogThrottle = LogThrottle::new();

/// What a file of keys is to be.
const WANTED: &str = "it must be a JSON Web Key Set, or PEM public keys or certificates, of keys on P-256 (ES256)";
/// How long keys are used before the file is looked at again. A token that does not verify has it looked at anyway.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Tokens remembered of one issuer; one more, and all are forgotten, and verified anew when they come again.
const VERIFIED_MAX: usize = 4_096;
