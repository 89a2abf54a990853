//! Client credentials assertions (TS 33.501 clause 13.3.8): who asks, signed by itself, for where the TLS connection does
//! not say it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use serde_json::json;
use transport::profile::{CertificateFiles, ProfileError};
use uuid::Uuid;

use super::own_certificate::OwnCertificate;
use crate::error::SbiError;
use crate::token::TokenSigner;

/// Makes assertions with a function's own key, good for the NRF only and for a minute.
#[derive(Debug, Clone)]
pub struct ClientCredentials {
    nf_instance_id: Uuid,
    signer: TokenSigner,
    chain: Vec<Vec<u8>>,
}

/// How long one is good; short, because it can be shown by whoever has it.
const ASSERTION_LIFETIME: Duration = Duration::from_secs(60);
/// Name of the header (TS 29.500 clause 5.2.3.2.11).
pub(super) const HEADER: &str = "3gpp-sbi-client-credentials";

impl ClientCredentials {
    /// With the key and certificate of `files`. The key must be on P-256, the certificate that of `nf_instance_id`.
    ///
    /// # Errors
    /// [`SbiError::Tls`] for a file that cannot be read, [`SbiError::InvalidRequest`] for a key that cannot sign ES256.
    pub fn new(nf_instance_id: Uuid, files: &CertificateFiles) -> Result<Self, SbiError> {
        let path = &files.key;
        let pem = std::fs::read(path).map_err(|source| ProfileError::Unreadable { path: path.clone(), source })?;
        let pem = zeroize::Zeroizing::new(pem);
        let signer = TokenSigner::from_pem(&pem)
            .map_err(|error| SbiError::InvalidRequest(format!("client credentials assertion: {error}")))?;
        Ok(Self { nf_instance_id, signer, chain: OwnCertificate::read(files)?.chain })
    }

    /// One for now, as the value of the header `3gpp-Sbi-Client-Credentials`.
    ///
    /// # Errors
    /// [`SbiError::InvalidRequest`] when it cannot be signed.
    pub fn assertion(&self) -> Result<HeaderValue, SbiError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = json!({
            "sub": self.nf_instance_id,
            "iat": now,
            "exp": now.saturating_add(ASSERTION_LIFETIME.as_secs()),
            "aud": ["NRF"],
        });
        let text = self
            .signer
            .sign_with_certificates(&claims, &self.chain)
            .map_err(|error| SbiError::InvalidRequest(error.to_string()))?;
        let mut value = HeaderValue::try_from(text)
            .map_err(|_| SbiError::InvalidRequest("the assertion is no header value".to_owned()))?;
        value.set_sensitive(true);
        Ok(value)
    }
}
