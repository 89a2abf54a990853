//! The consumer's side: assertions about itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use transport::profile::{CertificateFiles, ProfileError};
use uuid::Uuid;

use super::{AssertionAudience, AssertionClaims};
use crate::error::SbiError;
use crate::own_certificate::OwnCertificate;
use crate::token::TokenSigner;

/// Makes assertions with a function's own key, each good for one audience and for a minute.
#[derive(Debug, Clone)]
pub struct AssertionSigner {
    nf_instance_id: Uuid,
    signer: TokenSigner,
    chain: Vec<Vec<u8>>,
}

impl AssertionSigner {
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

    /// One for now and for functions of `nf_type`, as the value of the header.
    ///
    /// # Errors
    /// [`SbiError::InvalidRequest`] when it cannot be signed.
    pub fn assertion(&self, nf_type: &str) -> Result<HeaderValue, SbiError> {
        let iat = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = AssertionClaims {
            sub: self.nf_instance_id.to_string(),
            aud: AssertionAudience::Several(vec![nf_type.to_owned()]),
            iat,
            exp: iat.saturating_add(LIFETIME.as_secs()),
        };
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

/// How long one is good; short, because it can be shown by whoever has it.
const LIFETIME: Duration = Duration::from_secs(60);
