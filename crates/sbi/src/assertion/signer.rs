//! The consumer's side: assertions about itself.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use openssl::x509::X509;
use transport::LogThrottle;
use transport::profile::{CertificateFiles, ProfileError};
use uuid::Uuid;

use super::{AssertionAudience, AssertionClaims, LOOK_INTERVAL};
use crate::error::SbiError;
use crate::file_version::FileVersion;
use crate::own_certificate::OwnCertificate;
use crate::token::{PublicKey, TokenSigner};

/// Makes assertions with a function's own key, each good for one audience and for a minute.
///
/// Certificate and key are read again when they change, within [`LOOK_INTERVAL`]; a pair that cannot be used, such as a new
/// certificate beside an old key, leaves the earlier pair in use. Clones share what they have read.
#[derive(Debug, Clone)]
pub struct AssertionSigner {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    nf_instance_id: Uuid,
    files: CertificateFiles,
    current: RwLock<Arc<Pair>>,
    looked: Mutex<Looked>,
}

/// A key, and the certificates that speak for it.
#[derive(Debug)]
struct Pair {
    signer: TokenSigner,
    chain: Vec<Vec<u8>>,
}

/// The last look at the files.
#[derive(Debug)]
struct Looked {
    at: Instant,
    /// What the current pair was read from; `None` after a failure, so that the next look tries again.
    versions: Option<[Option<FileVersion>; 2]>,
}

impl AssertionSigner {
    /// With the key and certificate of `files`. The key must be on P-256, the certificate that of `nf_instance_id`.
    ///
    /// # Errors
    /// [`SbiError::Tls`] for a file that cannot be read, or a key that is not the certificate's; [`SbiError::InvalidRequest`]
    /// for a key that cannot sign ES256.
    pub fn new(nf_instance_id: Uuid, files: &CertificateFiles) -> Result<Self, SbiError> {
        // Versions first: a file that is replaced while it is read counts as changed at the next look.
        let versions = Some(versions(files));
        let current = RwLock::new(Arc::new(Pair::read(files)?));
        let looked = Mutex::new(Looked { at: Instant::now(), versions });
        Ok(Self { shared: Arc::new(Shared { nf_instance_id, files: files.clone(), current, looked }) })
    }

    /// One for now and for functions of `nf_type`, as the value of the header.
    ///
    /// # Errors
    /// [`SbiError::InvalidRequest`] when it cannot be signed.
    pub fn assertion(&self, nf_type: &str) -> Result<HeaderValue, SbiError> {
        let pair = self.shared.current();
        let iat = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = AssertionClaims {
            sub: self.shared.nf_instance_id.to_string(),
            aud: AssertionAudience::Several(vec![nf_type.to_owned()]),
            iat,
            exp: iat.saturating_add(LIFETIME.as_secs()),
        };
        let text = pair
            .signer
            .sign_with_certificates(&claims, &pair.chain)
            .map_err(|error| SbiError::InvalidRequest(error.to_string()))?;
        let mut value = HeaderValue::try_from(text)
            .map_err(|_| SbiError::InvalidRequest("the assertion is no header value".to_owned()))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl Shared {
    /// The pair to sign with; looks at the files first, where that is due.
    fn current(&self) -> Arc<Pair> {
        // Whoever holds the lock is looking.
        if let Ok(mut looked) = self.looked.try_lock()
            && looked.at.elapsed() >= LOOK_INTERVAL
        {
            looked.at = Instant::now();
            self.look(&mut looked);
        }
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn look(&self, looked: &mut Looked) {
        let found = versions(&self.files);
        if looked.versions == Some(found) {
            return;
        }
        let certificate = self.files.certificate.display();
        match Pair::read(&self.files) {
            Ok(pair) => {
                looked.versions = Some(found);
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pair);
                tracing::info!(target: "security", %certificate, "certificate and key of assertions taken anew");
            }
            Err(error) => {
                looked.versions = None;
                if let Some(unlogged) = NOT_READ.admit() {
                    tracing::error!(target: "security", %certificate, %error, unlogged,
                        "changed certificate and key cannot sign assertions, the earlier ones stay");
                }
            }
        }
    }
}

impl Pair {
    fn read(files: &CertificateFiles) -> Result<Self, SbiError> {
        let path = &files.key;
        let pem = std::fs::read(path).map_err(|source| ProfileError::Unreadable { path: path.clone(), source })?;
        let pem = zeroize::Zeroizing::new(pem);
        let signer = TokenSigner::from_pem(&pem)
            .map_err(|error| SbiError::InvalidRequest(format!("client credentials assertion: {error}")))?;
        let chain = OwnCertificate::read(files)?.chain;
        let certified = chain
            .first()
            .and_then(|der| X509::from_der(der).ok())
            .and_then(|certificate| certificate.public_key().ok())
            .and_then(|key| PublicKey::from_openssl(&*key).ok());
        if certified.is_none_or(|key| key.thumbprint() != signer.key_id()) {
            let (certificate, key) = (files.certificate.clone(), files.key.clone());
            return Err(ProfileError::KeyMismatch { certificate, key }.into());
        }
        Ok(Self { signer, chain })
    }
}

fn versions(files: &CertificateFiles) -> [Option<FileVersion>; 2] {
    [&files.certificate, &files.key].map(|path| FileVersion::of(path).ok())
}

static NOT_READ: LogThrottle = LogThrottle::new();
/// How long one is good; short, because it can be shown by whoever has it.
const LIFETIME: Duration = Duration::from_secs(60);
