//! The SEAL UE configuration document of a UE (TS 24.546 clause 7.2, extended by TS 24.538 clause 7.2.3).
//!
//! The elements are those of TS 24.538; that the whole document is in its namespace, and how `anyExt` is used, is ours
//! (INFERRED), and stands here alone.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::SocketAddr;

use message::UeServiceId;

/// Content-Format of the document (application/xml, RFC 7252 section 12.3).
pub(crate) const XML: u16 = 41;
/// Namespace of the document (TS 24.538 clause 7.2.4.2).
const NAMESPACE: &str = "urn:3gpp:ns:seal:MSGin5GUEConfig:1.0";
/// Namespace of what is our own in it.
const OWN_NAMESPACE: &str = "urn:msgin5g:ue-configuration:1.0";

/// What the documents of all UEs have in common.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    /// `<MSGin5G-Server-address>`.
    pub(crate) server_address: String,
    /// Where to connect instead of looking the server's name up.
    pub(crate) connect_address: Option<SocketAddr>,
    /// `<Segment-size>`, octets.
    pub(crate) segment_size: Option<u32>,
}

impl Template {
    /// The document of the UE that is `ue_service_id`.
    pub(crate) fn document(&self, ue_service_id: &UeServiceId) -> String {
        let mut rest = String::new();
        if let Some(octets) = self.segment_size {
            rest.push_str(&format!("    <Segment-size>{octets}</Segment-size>\n"));
        }
        if let Some(address) = self.connect_address {
            rest.push_str(&format!(
                "    <anyExt>\n      <Connect-address xmlns=\"{OWN_NAMESPACE}\">{address}</Connect-address>\n    </anyExt>\n"
            ));
        }
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <seal-UE-configuration xmlns=\"{NAMESPACE}\">\n  <on-network>\n    \
             <MSGin5G-Server-address>{}</MSGin5G-Server-address>\n    \
             <MSGin5G-UE-Service-id>{}</MSGin5G-UE-Service-id>\n\
             {rest}  </on-network>\n</seal-UE-configuration>\n",
            escaped(&self.server_address),
            escaped(ue_service_id.as_str()),
        )
    }
}

/// Which UE Service ID a UE is told: the one it asked for, if it may have it; else the one it was told before, as long as
/// it may have it; else the first (INFERRED).
pub(crate) fn pick<'a>(
    associated: &'a BTreeSet<UeServiceId>,
    wanted: Option<&UeServiceId>,
    before: Option<&UeServiceId>,
) -> Option<&'a UeServiceId> {
    match wanted {
        Some(wanted) => associated.get(wanted),
        None => before.and_then(|before| associated.get(before)).or_else(|| associated.first()),
    }
}

/// Text as character data of an element (XML 1.0 section 2.4). What it is given has no control character.
fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>']) {
        return Cow::Borrowed(text);
    }
    // The ampersand first: it is in what the others become.
    Cow::Owned(text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn id(text: &str) -> UeServiceId {
        text.parse().unwrap()
    }

    #[test]
    fn the_document_is_the_one_of_the_reference() {
        let template = Template {
            server_address: "coaps+tcp://msgin5g.example.com:5684/msgin5g".to_owned(),
            connect_address: Some("192.0.2.1:5684".parse().unwrap()),
            segment_size: Some(2048),
        };
        let reference = include_str!("../../../docs/reference/configuration-function.md");
        let example = reference.split("```xml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        assert_eq!(template.document(&id("meter-7@lab.example")), example);
    }

    #[test]
    fn what_is_not_configured_is_left_out() {
        let template = Template {
            server_address: "coaps+tcp://a.example/x".to_owned(),
            connect_address: None,
            segment_size: None,
        };
        let document = template.document(&id("a"));
        assert!(!document.contains("Segment-size") && !document.contains("anyExt"), "{document}");
        assert!(document.contains("<MSGin5G-UE-Service-id>a</MSGin5G-UE-Service-id>\n  </on-network>"), "{document}");
    }

    #[test]
    fn a_ue_keeps_the_identity_it_was_told_while_it_may() {
        let associated: BTreeSet<UeServiceId> = ["a", "b", "c"].map(id).into();
        let pick = |wanted: Option<&str>, before: Option<&str>| {
            pick(&associated, wanted.map(id).as_ref(), before.map(id).as_ref()).map(UeServiceId::as_str)
        };
        assert_eq!(pick(None, None), Some("a"));
        assert_eq!(pick(None, Some("b")), Some("b"));
        assert_eq!(pick(None, Some("gone")), Some("a"));
        assert_eq!(pick(Some("c"), Some("b")), Some("c"));
        assert_eq!(pick(Some("other"), Some("b")), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_identity_can_leave_its_element(text in "[!-~]{1,255}") {
            let escaped = escaped(&text).into_owned();
            prop_assert!(!escaped.contains(['<', '>']));
            prop_assert_eq!(escaped.replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"), text);
        }
    }
}
