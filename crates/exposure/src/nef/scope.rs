//! Scopes of application functions' tokens. TS 29.522 defines one, TS 29.538 another; the rest are named after their APIs
//! in the same way (INFERRED).

/// `3gpp-akma`, all of it but the GPSI.
pub const AKMA: &str = "3gpp-akma";
/// The GPSI in the answer (TS 29.522 clause A.16).
pub const GPSI_ACCESS: &str = "nnef-akma:gpsi-access";
/// `msgs-asregistration`.
pub const AS_REGISTRATION: &str = "msgs-asregistration";
/// `msgs-msgdelivery`.
pub const MESSAGE_DELIVERY: &str = "msgs-msgdelivery";
/// `msgs-topiclistevent` (TS 29.538).
pub const TOPIC_LIST_EVENT: &str = "msgs-topiclistevent";

/// The scope that a request to this path needs, and the path's name in audit events.
pub(crate) fn of_path(path: &str) -> Option<&'static str> {
    let api = path.strip_prefix('/')?.split('/').next()?;
    [AKMA, AS_REGISTRATION, MESSAGE_DELIVERY, TOPIC_LIST_EVENT].into_iter().find(|scope| *scope == api)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_api_has_the_scope_of_its_name_and_nothing_else_has_one() {
        assert_eq!(of_path("/3gpp-akma/v1/retrieve"), Some(AKMA));
        assert_eq!(of_path("/msgs-msgdelivery/v1/deliver-report"), Some(MESSAGE_DELIVERY));
        for other in ["", "/", "3gpp-akma", "/3gpp-akma2/v1", "/nnef-akma:gpsi-access/v1", "/oauth2/token"] {
            assert_eq!(of_path(other), None, "{other}");
        }
    }
}
