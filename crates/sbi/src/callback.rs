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
        && !uri.path().split('/').any(|segment| matches!(segment, "." | ".."));
    well_formed && (prefixes.is_empty() || prefixes.iter().any(|prefix| is_below(target, prefix)))
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
