//! An AAnF as the source of K_AF for TLS-PSK (TS 33.535 clause 6.2, TS 29.535).

use std::time::SystemTime;

use akma::{AKid, AfId};
use http::StatusCode;
use transport::{BoxFuture, KeySource, KeySourceError, ProvenKey};

use super::{AkmaAfKeyRequest, NaanfClient};
use crate::error::SbiError;

impl KeySource for NaanfClient {
    fn retrieve(&self, af_id: AfId, a_kid: AKid) -> BoxFuture<'_, Result<Option<ProvenKey>, KeySourceError>> {
        Box::pin(async move {
            let request = AkmaAfKeyRequest::new(af_id, a_kid);
            let answer = self.retrieve_applicationkey(&request).await.map_err(key_source_error)?;
            Ok(answer.map(|data| ProvenKey {
                expires_at: Some(SystemTime::from(data.expiry)),
                ue_id: data.ue_id(),
                gpsi: data.gpsi,
                k_af: data.kaf,
            }))
        })
    }
}

/// Causes of a 403 that are about one A-KID; TS 29.535 defines none. Authenticating anew is the remedy for both.
const K_AF_EXPIRED: &str = "K_AF_EXPIRED";
const TOO_MANY_APPLICATION_KEYS: &str = "TOO_MANY_APPLICATION_KEYS";

/// A refusal is about one A-KID, which any stranger may choose; everything else is about the AAnF, or about what it allows
/// us: a UE that authenticated anew because our certificate or AF_ID is not in its policy would do so for ever.
pub(crate) fn key_source_error(error: SbiError) -> KeySourceError {
    match &error {
        SbiError::Problem(problem) => match problem.status_code() {
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => KeySourceError::Refused(error.to_string()),
            StatusCode::FORBIDDEN if problem.has_cause(K_AF_EXPIRED) => KeySourceError::Expired,
            StatusCode::FORBIDDEN if problem.has_cause(TOO_MANY_APPLICATION_KEYS) => {
                KeySourceError::Refused(error.to_string())
            }
            _ => KeySourceError::Unavailable(error.to_string()),
        },
        SbiError::Malformed(_) => KeySourceError::Malformed(error.to_string()),
        _ => KeySourceError::Unavailable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::ProblemDetails;

    fn told(problem: ProblemDetails) -> KeySourceError {
        key_source_error(SbiError::Problem(Box::new(problem)))
    }

    #[test]
    fn what_the_aanf_does_not_allow_us_is_no_fault_of_the_a_kid() {
        for cause in ["REQUESTER_NOT_ALLOWED", "AF_ID_NOT_ALLOWED", "UNSPECIFIED"] {
            assert!(matches!(told(ProblemDetails::forbidden(cause)), KeySourceError::Unavailable(_)), "{cause}");
        }
        assert!(matches!(told(ProblemDetails::new(StatusCode::SERVICE_UNAVAILABLE)), KeySourceError::Unavailable(_)));
    }

    #[test]
    fn what_a_new_authentication_cures_is_a_refusal_of_the_a_kid() {
        assert_eq!(told(ProblemDetails::forbidden(K_AF_EXPIRED)), KeySourceError::Expired);
        for problem in [
            ProblemDetails::forbidden(TOO_MANY_APPLICATION_KEYS),
            ProblemDetails::bad_request("MANDATORY_IE_INCORRECT"),
            ProblemDetails::not_found("ROUTING_INDICATOR_NOT_SERVED"),
        ] {
            assert!(matches!(told(problem), KeySourceError::Refused(_)));
        }
    }
}
