//! HTTP Digest with K_AF (TS 33.535 Annex B.1.2, TS 24.109 clause K.2): the words of RFC 7616, both ends.
//!
//! ```text
//! UE                                             application function
//!  request ─────────────────────────────────────▶
//!         ◀───────────────── 401, [`Challenge`]   realm: [`digest_realm`]
//!  request, [`Credentials`] ────────────────────▶ K_AF of the user name, which is the A-KID;
//!                                                 [`Credentials::verify`] with its [`DigestPassword`]
//! ```
//!
//! SHA-256 only, and quality of protection always: `auth-int`, which covers the body, or `auth`. Neither the session variant
//! (`-sess`) nor hashed user names are taken, since nothing in AKMA asks for them. Whether a nonce is good, and a count new, is
//! its issuer's to say.
//!
//! Three things are INFERRED, since no text of B.1.2 that was seen gives them; they are decided here and nowhere else: the realm
//! ([`digest_realm`]) and the text of K_AF ([`DigestPassword`]), as in GBA, and the Ua* protocol identifier
//! ([`DigestUaProtocol`]).

mod parameters;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::af_id::{Fqdn, UaProtocolId};
use crate::keys::KAf;
use parameters::{Parameters, quoted};

/// The product token by which a UE says in `User-Agent` that it speaks this (TS 24.109 clause K.2).
pub const DIGEST_PRODUCT_TOKEN: &str = "3gpp-akma";

/// Octets of a header that is read at all.
pub const DIGEST_HEADER_OCTETS_MAX: usize = 2048;

const REALM_PREFIX: &str = "3GPP-bootstrapping-akma@";
const ALGORITHM: &str = "SHA-256";

/// The realm of the application function of that name. INFERRED: `3GPP-bootstrapping-akma`, which B.1.2 gives, then `@` and the
/// name, as in GBA. The UE compares the name with that of its TLS peer.
#[must_use]
pub fn digest_realm(fqdn: &Fqdn) -> String {
    format!("{REALM_PREFIX}{fqdn}")
}

/// Which Ua* protocol identifier K_AF has here. INFERRED, and both ends must agree: TS 33.220 clause H.3 lists HTTP Digest as
/// `0100000002`, to be used where it is not inside another protocol of the list, and has `010001` with a cipher suite for TLS
/// with a certificate and a shared key (TS 33.222 clause 5.3), of which B.1.2 is the AKMA form. By its letter the second is
/// meant. The first is the default all the same: it names what K_AF does, does not change with a suite that a proxy before the
/// server may have chosen, and one key serves all of a device's connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DigestUaProtocol {
    /// `0100000002`.
    #[default]
    HttpDigest,
    /// `010001` and the cipher suite of the TLS connection that the request comes over, of TLS 1.3 as of TLS 1.2.
    CipherSuite,
}

impl DigestUaProtocol {
    /// The identifier on a connection with this cipher suite.
    #[must_use]
    pub const fn identifier(self, cipher_suite: u16) -> UaProtocolId {
        match self {
            Self::HttpDigest => UaProtocolId::HTTP_DIGEST,
            Self::CipherSuite => UaProtocolId::tls_1_2(cipher_suite),
        }
    }
}

/// K_AF as a password. INFERRED: the 32 octets in base64 (RFC 4648 clause 4, with padding), as Ks_NAF in GBA. Wiped when
/// dropped, printed by nothing.
#[derive(Clone)]
pub struct DigestPassword(Zeroizing<String>);

impl DigestPassword {
    /// The text, for a stack that computes the digest itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&KAf> for DigestPassword {
    fn from(k_af: &KAf) -> Self {
        Self(Zeroizing::new(STANDARD.encode(k_af.expose())))
    }
}

impl fmt::Debug for DigestPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestPassword(..)")
    }
}

/// Quality of protection (RFC 7616 clause 3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qop {
    /// Method and URI are covered.
    Auth,
    /// The body is, too.
    AuthInt,
}

impl Qop {
    /// As it stands in a header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::AuthInt => "auth-int",
        }
    }
}

/// What is wrong with a header. Says nothing of what stood there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// Another scheme than Digest.
    #[error("the scheme is not Digest")]
    OtherScheme,
    /// It breaks the grammar of RFC 9110 clause 11, is longer than [`DIGEST_HEADER_OCTETS_MAX`], or has a parameter twice.
    #[error("it is malformed: {0}")]
    Malformed(&'static str),
    /// A parameter that must be there is not.
    #[error("it lacks {0}")]
    Missing(&'static str),
    /// Another algorithm than SHA-256; none at all stands for MD5.
    #[error("the algorithm is not SHA-256")]
    OtherAlgorithm,
    /// No quality of protection, or another than `auth` and `auth-int`.
    #[error("the quality of protection is neither auth nor auth-int")]
    OtherProtection,
}

/// What an application function asks with: the value of `WWW-Authenticate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// See [`digest_realm`].
    pub realm: String,
    /// To be given back.
    pub nonce: String,
    /// What may be chosen from, `auth-int` first if it is there.
    pub qop: Vec<Qop>,
    /// The digest was right, or may have been: only the nonce was not good any more.
    pub stale: bool,
}

impl Challenge {
    /// Reads a header's value.
    ///
    /// # Errors
    /// [`DigestError`].
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let mut parameters = Parameters::parse(text)?;
        if !parameters.take("algorithm").is_some_and(|value| value.eq_ignore_ascii_case(ALGORITHM)) {
            return Err(DigestError::OtherAlgorithm);
        }
        let offered = parameters.required("qop")?;
        let offers = |qop: Qop| offered.split(',').any(|one| one.trim().eq_ignore_ascii_case(qop.as_str()));
        let qop: Vec<Qop> = [Qop::AuthInt, Qop::Auth].into_iter().filter(|qop| offers(*qop)).collect();
        if qop.is_empty() {
            return Err(DigestError::OtherProtection);
        }
        let stale = parameters.take("stale").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        Ok(Self { realm: parameters.required("realm")?, nonce: parameters.required("nonce")?, qop, stale })
    }

    /// Whether the realm names the application function that the UE meant to reach.
    #[must_use]
    pub fn is_of(&self, fqdn: &Fqdn) -> bool {
        self.realm
            .strip_prefix(REALM_PREFIX)
            .and_then(|name| name.parse::<Fqdn>().ok())
            .is_some_and(|name| name == *fqdn)
    }
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let qop: Vec<_> = self.qop.iter().map(|qop| qop.as_str()).collect();
        write!(
            f,
            "Digest realm={}, qop=\"{}\", algorithm={ALGORITHM}, nonce={}",
            quoted(&self.realm),
            qop.join(", "),
            quoted(&self.nonce)
        )?;
        if self.stale { f.write_str(", stale=true") } else { Ok(()) }
    }
}

/// What a request is that a digest covers.
#[derive(Debug, Clone, Copy)]
pub struct Covered<'a> {
    /// The method.
    pub method: &'a str,
    /// The request target, as it stands in the request.
    pub uri: &'a str,
    /// The body; empty if there is none.
    pub body: &'a [u8],
}

/// What a UE proves itself with: the value of `Authorization`.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The A-KID, not looked into here.
    pub username: String,
    /// The realm of the challenge.
    pub realm: String,
    /// The nonce of the challenge.
    pub nonce: String,
    /// The request target that the digest covers: compare it with the request's.
    pub uri: String,
    /// What the digest covers.
    pub qop: Qop,
    /// How often the nonce was used, this time included.
    pub count: u32,
    cnonce: String,
    response: [u8; 32],
}

impl Credentials {
    /// Reads a header's value.
    ///
    /// # Errors
    /// [`DigestError`].
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let mut parameters = Parameters::parse(text)?;
        if !parameters.take("algorithm").is_some_and(|value| value.eq_ignore_ascii_case(ALGORITHM)) {
            return Err(DigestError::OtherAlgorithm);
        }
        let qop = match parameters.take("qop").as_deref() {
            Some("auth") => Qop::Auth,
            Some("auth-int") => Qop::AuthInt,
            _ => return Err(DigestError::OtherProtection),
        };
        if parameters.take("userhash").is_some_and(|value| !value.eq_ignore_ascii_case("false")) {
            return Err(DigestError::Malformed("the user name is hashed"));
        }
        let mut response = [0; 32];
        let digits = parameters.required("response")?;
        if digits.bytes().any(|octet| octet.is_ascii_uppercase()) {
            return Err(DigestError::Malformed("response"));
        }
        hex::decode_to_slice(&digits, &mut response).map_err(|_| DigestError::Malformed("response"))?;
        Ok(Self {
            username: parameters.required("username")?,
            realm: parameters.required("realm")?,
            nonce: parameters.required("nonce")?,
            uri: parameters.required("uri")?,
            qop,
            count: count(&parameters.required("nc")?)?,
            cnonce: parameters.required("cnonce")?,
            response,
        })
    }

    /// The credentials that prove `username` for one request, in answer to `challenge`. `cnonce` is to be random.
    #[must_use]
    pub fn prove(
        username: &str,
        password: &DigestPassword,
        (realm, nonce, count): (&str, &str, u32),
        qop: Qop,
        cnonce: &str,
        covered: &Covered<'_>,
    ) -> Self {
        let mut credentials = Self {
            username: username.to_owned(),
            realm: realm.to_owned(),
            nonce: nonce.to_owned(),
            uri: covered.uri.to_owned(),
            qop,
            count,
            cnonce: cnonce.to_owned(),
            response: [0; 32],
        };
        credentials.response = credentials.expected(password.expose(), covered);
        credentials
    }

    /// Whether whoever made these holds the password, and the digest covers this request. Compares in constant time. The URI
    /// that enters is the request's own.
    #[must_use]
    pub fn verify(&self, password: &DigestPassword, covered: &Covered<'_>) -> bool {
        self.expected(password.expose(), covered).ct_eq(&self.response).into()
    }

    /// RFC 7616 clause 3.4.1.
    fn expected(&self, password: &str, covered: &Covered<'_>) -> [u8; 32] {
        let secret = Zeroizing::new(hex_of(&[&self.username, ":", &self.realm, ":", password]));
        let request = match self.qop {
            Qop::Auth => hex_of(&[covered.method, ":", covered.uri]),
            Qop::AuthInt => {
                hex_of(&[covered.method, ":", covered.uri, ":", &hex::encode(Sha256::digest(covered.body))])
            }
        };
        let count = format!("{:08x}", self.count);
        let mut hash = Sha256::new();
        for part in [secret.as_str(), &self.nonce, &count, &self.cnonce, self.qop.as_str()] {
            hash.update(part);
            hash.update(":");
        }
        hash.update(request);
        hash.finalize().into()
    }
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Digest username={}, realm={}, uri={}, algorithm={ALGORITHM}, nonce={}, nc={:08x}, cnonce={}, qop={}, \
             response=\"{}\"",
            quoted(&self.username),
            quoted(&self.realm),
            quoted(&self.uri),
            quoted(&self.nonce),
            self.count,
            quoted(&self.cnonce),
            self.qop.as_str(),
            hex::encode(self.response)
        )
    }
}

impl fmt::Debug for Credentials {
    /// Without the digest, which guesses could be compared with.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).field("qop", &self.qop).finish_non_exhaustive()
    }
}

fn hex_of(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

/// `nc`: eight hexadecimal digits, lower case, from 1.
fn count(text: &str) -> Result<u32, DigestError> {
    let digits = text.len() == 8 && text.bytes().all(|octet| octet.is_ascii_digit() || (b'a'..=b'f').contains(&octet));
    match u32::from_str_radix(text, 16) {
        Ok(count) if digits && count > 0 => Ok(count),
        _ => Err(DigestError::Malformed("nc")),
    }
}

#[cfg(test)]
mod tests;
