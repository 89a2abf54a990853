//! The server as AKMA Application Function: K_AF from the AAnF (TS 33.535 clause 6.2, TS 29.535).

use std::time::SystemTime;

use akma::{AKid, AfId};
use http::StatusCode;
use sbi::SbiError;
use sbi::naanf::{AkmaAfKeyRequest, NaanfClient};
use transport::{BoxFuture, KeySource, KeySourceError, ProvenKey};

/// Asks an AAnF, or whatever answers as one.
#[derive(Debug, Clone)]
pub(crate) struct AnchorFunction(NaanfClient);

impl AnchorFunction {
    pub(crate) fn new(client: NaanfClient) -> Self {
        Self(client)
    }
}

impl KeySource for AnchorFunction {
    fn retrieve(&self, af_id: AfId, a_kid: AKid) -> BoxFuture<'_, Result<Option<ProvenKey>, KeySourceError>> {
        Box::pin(async move {
            let request = AkmaAfKeyRequest::new(af_id, a_kid);
            let answer = self.0.retrieve_applicationkey(&request).await.map_err(key_source_error)?;
            Ok(answer.map(|data| ProvenKey {
                expires_at: Some(SystemTime::from(data.expiry)),
                ue_id: data.ue_id(),
                k_af: data.kaf,
            }))
        })
    }
}

/// A refusal is about one A-KID, which any stranger may choose; everything else is about the AAnF.
fn key_source_error(error: SbiError) -> KeySourceError {
    match &error {
        SbiError::Problem(problem)
            if matches!(
                problem.status_code(),
                StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND
            ) =>
        {
            KeySourceError::Refused(error.to_string())
        }
        SbiError::Malformed(_) => KeySourceError::Malformed(error.to_string()),
        _ => KeySourceError::Unavailable(error.to_string()),
    }
}
