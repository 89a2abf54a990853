//! An AAnF as the source of K_AF for TLS-PSK (TS 33.535 clause 6.2, TS 29.535).

use std::time::SystemTime;

use akma::{AKid, AfId};
use http::StatusCode;
use transport::{BoxFuture, KeySource, KeySourceError, ProvenKey};

use super::{AkmaAfKeyData, AkmaAfKeyRequest, NaanfClient};
use crate::error::SbiError;
use crate::problem::cause;

impl KeySource for NaanfClient {
    fn retrieve(&self, af_id: AfId, a_kid: AKid) -> BoxFuture<'_, Result<Option<ProvenKey>, KeySourceError>> {
        Box::pin(async move {
            let answer = self.retrieve_and_subscribe(&AkmaAfKeyRequest::new(af_id, a_kid)).await;
            Ok(answer.map_err(key_source_error)?.map(ProvenKey::from))
        })
    }
}

impl NaanfClient {
    /// [`NaanfClient::retrieve_applicationkey`], with the wish to be told of AKMA disabled.
    pub(crate) async fn retrieve_and_subscribe(
        &self,
        request: &AkmaAfKeyRequest,
    ) -> Result<Option<AkmaAfKeyData>, SbiError> {
        let root = self.root_of(&request.a_kid);
        let request = self.subscription.ask(root, request.clone());
        let mut answer = self.retrieve_applicationkey(&request).await;
        if let Err(error) = &answer
            && let Some(request) = self.subscription.ask_again(root, &request, error)
        {
            answer = self.retrieve_applicationkey(&request).await;
        }
        if let Ok(Some(data)) = &answer {
            self.subscription.answered(&request, data);
        }
        answer
    }
}

impl From<AkmaAfKeyData> for ProvenKey {
    fn from(data: AkmaAfKeyData) -> Self {
        Self { expires_at: Some(SystemTime::from(data.expiry)), ue_id: data.ue_id(), gpsi: data.gpsi, k_af: data.kaf }
    }
}

/// Cause of a 503 that is about one UE; TS 29.535 defines none: its GPSI is needed, and UDM has not told it yet. Others are
/// served.
pub const GPSI_NOT_YET_KNOWN: &str = "GPSI_NOT_YET_KNOWN";
/// 403: the GPSI of this UE is needed, and UDM refuses to tell it. Asking again is of no use before an operator changes that; the
/// key is to be had without identity (`anonInd`).
pub const GPSI_NOT_AVAILABLE: &str = "GPSI_NOT_AVAILABLE";
/// Causes of a 403 that are about one A-KID; TS 29.535 defines none. Authenticating anew is the remedy for each, or nothing is.
const K_AF_EXPIRED: &str = "K_AF_EXPIRED";
const TOO_MANY_APPLICATION_KEYS: &str = "TOO_MANY_APPLICATION_KEYS";
const AKMA_DISABLED: &str = "AKMA_DISABLED";

/// What an AAnF's refusal says, and of whom.
///
/// | Answer | Of whom | |
/// |---|---|---|
/// | 400; 403 and 404 with a cause that is about an A-KID; 404 with any other | the A-KID, which any stranger may choose | refused |
/// | 503 `GPSI_NOT_YET_KNOWN`, 403 `GPSI_NOT_AVAILABLE` | the UE, for now or until an operator changes something | not yet |
/// | none: too many requests of ours are under way, or the AAnF asked to be left alone and is | us | not asked |
/// | 429 | how often we ask | too many |
/// | 404 of a path that is none there, 403 with any other cause, 401, 5xx, nonsense, silence | the AAnF, or what it allows us | unavailable |
///
/// The last is not told to UEs as theirs: one that authenticated anew because our certificate or AF_ID is not in the AAnF's
/// policy, or its root is wrong here, would do so for ever.
pub(crate) fn key_source_error(error: SbiError) -> KeySourceError {
    let reason = error.to_string();
    match &error {
        SbiError::Problem(problem) => match problem.status_code() {
            StatusCode::NOT_FOUND if problem.has_cause(cause::RESOURCE_URI_STRUCTURE_NOT_FOUND) => {
                KeySourceError::Unavailable(reason)
            }
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => KeySourceError::Refused(reason),
            StatusCode::FORBIDDEN if problem.has_cause(K_AF_EXPIRED) => KeySourceError::Expired,
            StatusCode::FORBIDDEN
                if [TOO_MANY_APPLICATION_KEYS, AKMA_DISABLED].iter().any(|of| problem.has_cause(of)) =>
            {
                KeySourceError::Refused(reason)
            }
            StatusCode::FORBIDDEN if problem.has_cause(GPSI_NOT_AVAILABLE) => KeySourceError::NotYet(reason),
            StatusCode::SERVICE_UNAVAILABLE if problem.has_cause(GPSI_NOT_YET_KNOWN) => KeySourceError::NotYet(reason),
            StatusCode::TOO_MANY_REQUESTS => KeySourceError::TooMany(reason),
            _ => KeySourceError::Unavailable(reason),
        },
        SbiError::Overloaded | SbiError::Paused { .. } => KeySourceError::NotAsked(reason),
        SbiError::Malformed(_) => KeySourceError::Malformed(reason),
        _ => KeySourceError::Unavailable(reason),
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
        for problem in [
            ProblemDetails::new(StatusCode::SERVICE_UNAVAILABLE),
            ProblemDetails::overloaded(1),
            ProblemDetails::not_found(cause::RESOURCE_URI_STRUCTURE_NOT_FOUND),
        ] {
            assert!(matches!(told(problem), KeySourceError::Unavailable(_)));
        }
    }

    #[test]
    fn what_passes_for_one_ue_is_no_failure_of_the_aanf() {
        let not_yet = ProblemDetails::unavailable(GPSI_NOT_YET_KNOWN, 1);
        assert!(matches!(told(not_yet), KeySourceError::NotYet(_)));
        assert!(matches!(told(ProblemDetails::forbidden(GPSI_NOT_AVAILABLE)), KeySourceError::NotYet(_)));
        assert!(matches!(key_source_error(SbiError::Overloaded), KeySourceError::NotAsked(_)), "it was not asked");
        assert!(matches!(key_source_error(SbiError::TimedOut), KeySourceError::Unavailable(_)));
        assert!(matches!(key_source_error(SbiError::Paused { seconds: 3 }), KeySourceError::NotAsked(_)), "nor now");
        for cause in ["NF_CONGESTION_RISK", GPSI_NOT_YET_KNOWN] {
            let slow_down = ProblemDetails::new(StatusCode::TOO_MANY_REQUESTS).with_cause(cause);
            assert!(matches!(told(slow_down), KeySourceError::TooMany(_)), "it works");
        }
    }

    #[test]
    fn what_a_new_authentication_cures_is_a_refusal_of_the_a_kid() {
        assert_eq!(told(ProblemDetails::forbidden(K_AF_EXPIRED)), KeySourceError::Expired);
        for problem in [
            ProblemDetails::forbidden(TOO_MANY_APPLICATION_KEYS),
            ProblemDetails::forbidden(AKMA_DISABLED),
            ProblemDetails::bad_request("MANDATORY_IE_INCORRECT"),
            ProblemDetails::not_found("ROUTING_INDICATOR_NOT_SERVED"),
        ] {
            assert!(matches!(told(problem), KeySourceError::Refused(_)));
        }
    }
}
