//! Naanf_AKMA_ServiceDisableNotification (TS 33.535 clause 7.1, TS 29.535 clause 4.2.2.5, Rel-18): the AAnF tells a
//! consumer, at the URI which that left when it asked for K_AF, that AKMA is no longer to be used under an A-KID.

use std::fmt;
use std::str::FromStr;

use akma::AKid;
use http::Uri;
use serde::{Deserialize, Serialize};

use crate::client::SbiClient;
use crate::error::SbiError;
use crate::features::SupportedFeatures;

/// Features of Naanf_AKMA, for `suppFeat`.
pub mod feature {
    /// The consumer may leave a `notifUri` and is told there of a service disabled. Which number TS 29.535 clause 5.1.8
    /// gives it is not known to us: 1 is a decision of ours.
    pub const SERVICE_DISABLE_NOTIFICATION: u32 = 1;
}

/// The features of Naanf_AKMA that are implemented here.
pub const FEATURES: SupportedFeatures = SupportedFeatures::of(&[feature::SERVICE_DISABLE_NOTIFICATION]);

/// The body of a notification (TS 29.535 ServiceDisableNotif).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceDisableNotif {
    /// The A-KID under which AKMA is not to be used any more.
    #[serde(rename = "aKId")]
    pub a_kid: AKid,
}

/// Where a consumer wants to be notified: an absolute `https` URI of at most [`NotificationUri::OCTETS_MAX`] octets,
/// with a host, without user information or fragment, whose path has no dot segments. Whether its host is one that the
/// consumer may name is for the AAnF's policy to say.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NotificationUri(Box<str>);

impl NotificationUri {
    /// The longest URI.
    pub const OCTETS_MAX: usize = 512;
    /// The port where the URI names none.
    pub const PORT_DEFAULT: u16 = 443;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host, in lower case; an IPv6 address in brackets.
    #[must_use]
    pub fn host(&self) -> String {
        self.uri().host().unwrap_or_default().to_ascii_lowercase()
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.uri().port_u16().unwrap_or(Self::PORT_DEFAULT)
    }

    /// The path, at least `/`.
    #[must_use]
    pub fn path(&self) -> String {
        self.uri().path().to_owned()
    }

    /// Whether it lies at or below `prefix`: same host and port, and a path that goes on at a segment's border.
    #[must_use]
    pub fn is_below(&self, prefix: &Self) -> bool {
        let (path, stem) = (self.path(), prefix.path());
        let stem = stem.trim_end_matches('/');
        let below = path.strip_prefix(stem).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.host() == prefix.host() && self.port() == prefix.port() && below
    }

    /// It was read as one before.
    fn uri(&self) -> Uri {
        self.0.parse().unwrap_or_default()
    }
}

impl FromStr for NotificationUri {
    type Err = InvalidNotificationUri;

    fn from_str(text: &str) -> Result<Self, InvalidNotificationUri> {
        if text.len() > Self::OCTETS_MAX || text.contains('#') {
            return Err(InvalidNotificationUri);
        }
        let uri: Uri = text.parse().map_err(|_| InvalidNotificationUri)?;
        let host = uri.host().filter(|host| !host.is_empty() && *host != "[]");
        let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        // What follows the host must be a port, if anything: `host:` and `host:x` are no ports.
        let port = authority.rsplit_once(']').map_or(authority, |(_, rest)| rest).rsplit_once(':');
        let port_is_sound = port.is_none_or(|(_, port)| port.parse::<u16>().is_ok_and(|port| port != 0));
        let dot = |segment: &str| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
        if uri.scheme_str() != Some("https")
            || host.is_none()
            || authority.contains('@')
            || !port_is_sound
            || uri.path().split('/').any(dot)
        {
            return Err(InvalidNotificationUri);
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for NotificationUri {
    type Error = InvalidNotificationUri;

    fn try_from(text: String) -> Result<Self, InvalidNotificationUri> {
        text.parse()
    }
}

impl From<NotificationUri> for String {
    fn from(uri: NotificationUri) -> Self {
        uri.0.into()
    }
}

impl fmt::Display for NotificationUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is not an absolute https URI, is too long, or holds what such a URI here must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an https URI for notifications")]
pub struct InvalidNotificationUri;

/// Notifies the consumer at `uri`. Any success status is its consent (TS 29.535: 204).
///
/// # Errors
/// Any [`SbiError`] but those of starting; [`SbiError::is_transient`] says whether trying again makes sense.
pub async fn notify_service_disabled(
    http: &SbiClient,
    uri: &NotificationUri,
    notification: &ServiceDisableNotif,
) -> Result<(), SbiError> {
    http.post_any(uri.as_str(), notification).await.map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn uri(text: &str) -> NotificationUri {
        text.parse().unwrap()
    }

    #[test]
    fn only_plain_https_uris_are_taken() {
        for right in ["https://af.example.com", "https://af.example.com:8443/a/b?c=d", "https://[2001:db8::1]:443/"] {
            assert_eq!(uri(right).as_str(), right);
        }
        let long = format!("https://af.example.com/{}", "a".repeat(NotificationUri::OCTETS_MAX));
        for wrong in [
            "http://af.example.com/",
            "af.example.com",
            "/path",
            "https:///path",
            "https://user@af.example.com/",
            "https://af.example.com:/",
            "https://af.example.com:0/",
            "https://af.example.com:99999/",
            "https://af.example.com/#there",
            "https://af.example.com/a/../b",
            "https://af.example.com/a/%2E%2e/b",
            "https://af.example.com/a b",
            "",
            &long,
        ] {
            assert_eq!(wrong.parse::<NotificationUri>(), Err(InvalidNotificationUri), "{wrong}");
        }
    }

    #[test]
    fn a_prefix_ends_at_a_segment_and_holds_host_and_port() {
        let prefix = uri("https://AF.example.com/naanf/");
        for below in
            ["https://af.example.com/naanf", "https://af.example.com:443/naanf/x?y", "https://af.example.com/naanf/"]
        {
            assert!(uri(below).is_below(&prefix), "{below}");
        }
        for beside in [
            "https://af.example.com/naanfx",
            "https://af.example.com/",
            "https://af.example.com:444/naanf/x",
            "https://x.af.example.com/naanf/x",
            "https://af.example.com.evil.example/naanf/x",
        ] {
            assert!(!uri(beside).is_below(&prefix), "{beside}");
        }
        assert!(uri("https://af.example.com/anything").is_below(&uri("https://af.example.com")));
    }

    #[test]
    fn a_notification_is_spelled_as_in_29_535() {
        let notification = ServiceDisableNotif { a_kid: "0.a@example.com".parse().unwrap() };
        assert_eq!(serde_json::to_string(&notification).unwrap(), r#"{"aKId":"0.a@example.com"}"#);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn what_is_taken_is_below_itself_and_names_a_host(text in "https://[a-z0-9.:@\\[\\]%/#?-]{0,30}|.{0,20}") {
            if let Ok(uri) = text.parse::<NotificationUri>() {
                prop_assert!(!uri.host().is_empty() && uri.port() != 0);
                prop_assert!(uri.is_below(&uri));
                prop_assert_eq!(uri.as_str(), text);
            }
        }
    }
}
