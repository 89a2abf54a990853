//! What the handlers share, and how each decision is told.

use std::sync::Arc;
use std::time::Instant;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use sbi::audit::Audit;
use sbi::naanf::GPSI_NOT_YET_KNOWN;
use sbi::policy::Rules;
use sbi::{InvalidParam, OperationMetrics, ProblemDetails, SbiError, cause};

use super::af::Afs;
use super::akma::Akma;
use super::msgin5g::MsGin5g;
use super::refusal;
use super::token::Tokens;

/// The function's parts.
pub(crate) struct Service {
    pub(crate) afs: Arc<Rules<Afs>>,
    pub(crate) tokens: Tokens,
    pub(crate) audit: Audit,
    pub(crate) operations: OperationMetrics,
    pub(crate) akma: Option<Akma>,
    pub(crate) msgin5g: Option<MsGin5g>,
    pub(crate) retry_after_seconds: u32,
}

/// A refusal: the word for audit and metrics, and the answer.
pub(crate) type Refused = (&'static str, Box<ProblemDetails>);

impl Service {
    /// Tells and counts that `subject` may do `action`.
    pub(crate) fn allowed(&self, subject: &str, action: &'static str, reason: &'static str, since: Instant) {
        self.audit.allowed(subject, action, reason);
        self.operations.answered(action, reason, since);
    }

    /// Tells and counts that it may not.
    pub(crate) fn refused(&self, subject: &str, action: &'static str, reason: &'static str, since: Instant) {
        self.audit.refused(subject, action, reason);
        self.operations.answered(action, reason, since);
    }

    /// The answer to a request of `subject`, told and counted.
    pub(crate) fn answer<T: IntoResponse>(
        &self,
        subject: &str,
        action: &'static str,
        since: Instant,
        outcome: Result<(&'static str, T), Refused>,
    ) -> Response {
        match outcome {
            Ok((reason, answer)) => {
                self.allowed(subject, action, reason, since);
                answer.into_response()
            }
            Err((reason, problem)) => {
                if problem.status_code().is_server_error() {
                    self.audit.failed(subject, action, reason);
                    self.operations.answered(action, reason, since);
                } else {
                    self.refused(subject, action, reason, since);
                }
                problem.into_response()
            }
        }
    }

    /// What an application function is told of a refusal by a function inside, or of its silence: status, cause and the
    /// members at fault. Our own trouble inside (credentials, redirections, nonsense) is a fault of ours.
    pub(crate) fn told_inside(&self, error: &SbiError) -> Refused {
        let SbiError::Problem(problem) = error else {
            return match Silence::of(error) {
                Silence::Away => {
                    tracing::warn!(%error, "no answer from inside");
                    self.inside_unavailable(None)
                }
                Silence::NotAllowed => {
                    tracing::error!(%error, "the NRF does not let this function ask inside");
                    refuse("inside_not_allowed", ProblemDetails::forbidden(refusal::INSIDE_NOT_ALLOWED))
                }
                Silence::Malformed => {
                    tracing::error!(%error, "unusable answer from inside");
                    refuse("inside_malformed", ProblemDetails::internal())
                }
            };
        };
        match problem.status_code() {
            status @ (StatusCode::BAD_REQUEST
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::TOO_MANY_REQUESTS) => {
                let mut told = ProblemDetails::new(status);
                told.cause = problem.cause.clone().filter(|cause| is_cause(cause));
                told.invalid_params = members_at_fault(&problem.invalid_params);
                told.retry_after_seconds = problem.retry_after_seconds;
                refuse("inside_refused", told)
            }
            // About one UE: an application function must not take it for the function inside.
            StatusCode::SERVICE_UNAVAILABLE if problem.has_cause(GPSI_NOT_YET_KNOWN) => {
                let seconds = problem.retry_after_seconds.unwrap_or(self.retry_after_seconds);
                refuse("inside_not_yet", ProblemDetails::unavailable(GPSI_NOT_YET_KNOWN, seconds))
            }
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                tracing::warn!(%error, "overloaded inside");
                self.inside_unavailable(problem.retry_after_seconds)
            }
            _ => {
                tracing::error!(%error, "refused inside");
                refuse("inside_failed", ProblemDetails::internal())
            }
        }
    }

    /// Says nothing of the NEF itself: whoever is told goes on to ask for what other functions inside do.
    fn inside_unavailable(&self, seconds: Option<u32>) -> Refused {
        let seconds = seconds.unwrap_or(self.retry_after_seconds);
        refuse("inside_unavailable", ProblemDetails::unavailable(refusal::INSIDE_UNAVAILABLE, seconds))
    }

    /// A fault of the own database.
    pub(crate) fn told_store(&self, error: &store::StoreError) -> Refused {
        tracing::error!(%error, "the state was not written");
        match error {
            store::StoreError::Overloaded => refuse("overloaded", ProblemDetails::overloaded(self.retry_after_seconds)),
            store::StoreError::DiskFull => {
                let problem = ProblemDetails::new(StatusCode::INTERNAL_SERVER_ERROR);
                refuse("disk_full", problem.with_cause(cause::INSUFFICIENT_RESOURCES))
            }
            _ => refuse("failed", ProblemDetails::internal()),
        }
    }
}

/// Why a function inside refused nothing and answered nothing.
#[derive(Debug, PartialEq, Eq)]
enum Silence {
    /// It is to be asked again: it is away, or the NRF does not know it, or us, just now.
    Away,
    /// The NRF gives no token for it, and will not before an operator changes that.
    NotAllowed,
    /// Its answer is none.
    Malformed,
}

impl Silence {
    fn of(error: &SbiError) -> Self {
        match error {
            // An NRF that has started anew says so of whoever has not registered again yet.
            SbiError::NrfRefused { reason, .. } if reason == INVALID_CLIENT => Self::Away,
            SbiError::NrfRefused { transient: false, .. } => Self::NotAllowed,
            error if error.is_transient() => Self::Away,
            _ => Self::Malformed,
        }
    }
}

/// RFC 6749 clause 5.2.
const INVALID_CLIENT: &str = "invalid_client";

/// A refusal under its word.
pub(crate) fn refuse(reason: &'static str, problem: ProblemDetails) -> Refused {
    (reason, Box::new(problem))
}

/// Whether a text is a cause and nothing else: identities and sentences have no place there.
fn is_cause(text: &str) -> bool {
    text.len() <= CAUSE_OCTETS_MAX
        && text.bytes().all(|octet| octet.is_ascii_uppercase() || octet == b'_' || octet.is_ascii_digit())
}

const CAUSE_OCTETS_MAX: usize = 64;

/// Which members are at fault. What a function inside says is wrong with them may repeat what is in them, a SUPI as well.
fn members_at_fault(told_inside: &[InvalidParam]) -> Vec<InvalidParam> {
    told_inside.iter().map(|at_fault| InvalidParam { param: at_fault.param.clone(), reason: None }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_member_at_fault_its_name_alone_is_told_outside() {
        let reason = Some("imsi-001010000000001 is not known".to_owned());
        let told = members_at_fault(&[InvalidParam { param: "/aKId".to_owned(), reason }]);
        assert_eq!(told, [InvalidParam { param: "/aKId".to_owned(), reason: None }]);
    }

    #[test]
    fn what_the_nrf_refuses_for_good_is_not_told_as_something_to_ask_for_again() {
        let nrf = |reason: &str, transient| SbiError::NrfRefused { reason: reason.to_owned(), transient };
        assert_eq!(Silence::of(&nrf("invalid_scope", false)), Silence::NotAllowed);
        assert_eq!(Silence::of(&nrf("unauthorized_client", false)), Silence::NotAllowed);
        assert_eq!(Silence::of(&nrf("invalid_client", false)), Silence::Away);
        assert_eq!(Silence::of(&nrf("the NRF knows no such producer", true)), Silence::Away);
        assert_eq!(Silence::of(&SbiError::TimedOut), Silence::Away);
        assert_eq!(Silence::of(&SbiError::Malformed("no JSON".to_owned())), Silence::Malformed);
    }

    #[test]
    fn a_cause_is_a_word_in_capitals() {
        assert!(is_cause("AF_ID_NOT_ALLOWED") && is_cause("A1"));
        assert!(!is_cause("imsi-001010000000001") && !is_cause("NOT ALLOWED") && !is_cause(&"A".repeat(65)));
    }
}
