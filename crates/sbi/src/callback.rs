//! Where others ask us to send to: `targetUri`, `notificationURI` and the like.

use std::net::IpAddr;

use http::Uri;

use crate::PeerIdentity;

/// Longest URI taken, in octets.
pub const CALLBACK_URI_OCTETS_MAX: usize = 1024;

/// Whether `target` is an https URI without credentials, query or fragment, below one of the allowed prefixes, if there are
/// any.
#[must_use]
pub fn is_well_formed_below(target: &str, prefixes: &[String]) -> bool {
    if target.len() > CALLBACK_URI_OCTETS_MAX || target.contains(['#', '?', '@']) {
        return false;
    }
    let Ok(uri) = target.parse::<Uri>() else { return false };
    let well_formed = uri.scheme_str() == Some("https")
        && uri.host().is_some_and(|host| !host.is_empty())
        && !has_dot_segments(uri.path());
    well_formed && (prefixes.is_empty() || prefixes.iter().any(|prefix| is_below(target, prefix)))
}

/// Whether a path has a segment that means another place, as it stands or percent-encoded: who reads it may take it for one.
pub(crate) fn has_dot_segments(path: &str) -> bool {
    path.split('/').any(|segment| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | ".."))
}

fn is_below(target: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    target.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether the certificate names the host of `target`: an AS is not to send the server to others' doors.
#[must_use]
pub fn is_own(target: &str, identity: &PeerIdentity) -> bool {
    let Ok(uri) = target.parse::<Uri>() else { return false };
    let host = uri.host().unwrap_or_default();
    match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(address) => identity.ip_addresses.contains(&address),
        Err(_) => identity.dns_names.iter().any(|name| name.eq_ignore_ascii_case(host)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callback_is_an_https_uri_below_a_prefix() {
        let prefixes = ["https://as.example/in/".to_owned()];
        for well in ["https://as.example/in", "https://as.example/in/", "https://as.example/in/x.y/..z"] {
            assert!(is_well_formed_below(well, &prefixes), "{well}");
        }
        for wrong in [
            "http://as.example/in",
            "https://as.example/inner",
            "https://as.example.evil.example/in",
            "https://as.example/in/../out",
            "https://as.example/in/%2e%2E/out",
            "https://as.example/in/.%2e/out",
            "https://as.example/in/%2E/x",
            "https://user@as.example/in",
            "https://as.example/in?x=1",
            "https://as.example/in#x",
            "https://",
        ] {
            assert!(!is_well_formed_below(wrong, &prefixes), "{wrong}");
        }
        assert!(is_well_formed_below("https://anywhere.example/", &[]));
    }
}
