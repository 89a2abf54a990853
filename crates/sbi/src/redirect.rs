//! Where a 307 or 308 sends a request (TS 29.500 clause 6.10.9, RFC 9110 clause 15.4), and whether it may go there.

use http::header::LOCATION;
use http::{HeaderMap, StatusCode, Uri};
use url::Url;

use crate::callback::has_dot_segments;
use crate::error::SbiError;

/// The URI that an answer sends the request for `asked` on to; `None` when it does not.
///
/// # Errors
/// [`SbiError::Redirected`] when the place is no `https` URI, or at neither `asked`'s authority nor one in `allowed`.
pub(crate) fn target(
    status: StatusCode,
    headers: &HeaderMap,
    asked: &Uri,
    first: &str,
    allowed: &[String],
) -> Result<Option<Uri>, SbiError> {
    if !matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT) {
        return Ok(None);
    }
    let Some(location) = headers.get(LOCATION) else { return Ok(None) };
    let refuse = |reason: &str| SbiError::Redirected(reason.to_owned());
    let asked = Url::parse(&asked.to_string()).map_err(|_| SbiError::InvalidUri)?;
    let mut place = location
        .to_str()
        .ok()
        .and_then(|location| asked.join(location).ok())
        .ok_or_else(|| refuse("to what is no URI"))?;
    if place.scheme() != "https" {
        return Err(refuse("to another scheme than https"));
    }
    if !place.username().is_empty() || place.password().is_some() {
        return Err(refuse("to a URI with credentials"));
    }
    place.set_fragment(None);
    let uri: Uri = place.as_str().parse().map_err(|_| refuse("to what is no URI"))?;
    let authority = authority(&uri).ok_or_else(|| refuse("to nobody"))?;
    let known = authority == first || allowed.iter().any(|known| names(known, &authority));
    if known { Ok(Some(uri)) } else { Err(refuse("to a host that is not allowed")) }
}

/// Host and port, in lower case, as they are compared: `aanf.example.com:443`.
pub(crate) fn authority(uri: &Uri) -> Option<String> {
    let host = uri.host().filter(|host| !host.is_empty())?;
    Some(format!("{}:{}", host.to_ascii_lowercase(), uri.port_u16().unwrap_or(HTTPS_PORT)))
}

/// Whether `place`, which comes from [`target`], is `uri` or below it. Who may send notifications below a URI may do so below
/// whatever is below that, so a check of `uri` by prefix holds for `place`, too.
pub(crate) fn is_below(place: &Uri, uri: &Uri) -> bool {
    let path = uri.path().trim_end_matches('/');
    let rest = place.path().strip_prefix(path);
    !has_dot_segments(place.path()) && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether `known`, `host` or `host:port`, is `authority`. Without a port it is the default one.
fn names(known: &str, authority: &str) -> bool {
    let known = known.to_ascii_lowercase();
    known == authority || format!("{known}:{HTTPS_PORT}") == authority
}

pub(crate) const HTTPS_PORT: u16 = 443;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn sent_to(location: &str) -> Result<Option<String>, SbiError> {
        let headers = HeaderMap::from_iter([(LOCATION, HeaderValue::try_from(location).unwrap())]);
        let asked = "https://a.example.com:8443/x/v1/y?z=1".parse().unwrap();
        let allowed = ["B.example.com".to_owned(), "c.example.com:9443".to_owned()];
        let target = target(StatusCode::TEMPORARY_REDIRECT, &headers, &asked, "a.example.com:8443", &allowed);
        target.map(|uri| uri.map(|uri| uri.to_string()))
    }

    #[test]
    fn the_own_authority_and_those_allowed_are_gone_to() {
        for (location, uri) in [
            ("https://a.example.com:8443/other", "https://a.example.com:8443/other"),
            ("https://A.EXAMPLE.com:8443/other#part", "https://a.example.com:8443/other"),
            ("/other?z=2", "https://a.example.com:8443/other?z=2"),
            ("https://b.example.com/x", "https://b.example.com/x"),
            ("https://b.example.com:443/x", "https://b.example.com/x"),
            ("https://c.example.com:9443/x", "https://c.example.com:9443/x"),
        ] {
            assert_eq!(sent_to(location).unwrap().as_deref(), Some(uri), "{location}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for location in [
            "http://a.example.com:8443/other",
            "https://a.example.com/other",
            "https://b.example.com:8443/x",
            "https://c.example.com/x",
            "https://evil.example.com/x",
            "//evil.example.com:8443/x",
            "https://a.example.com:8443@evil.example.com/x",
            "https://user@a.example.com:8443/x",
            "https://b.example.com.evil.example.com/x",
            "ftp://a.example.com:8443/x",
            "https://",
        ] {
            assert!(matches!(sent_to(location), Err(SbiError::Redirected(_))), "{location}");
        }
    }

    #[test]
    fn only_307_and_308_with_a_place_lead_on() {
        let asked: Uri = "https://a.example.com/x".parse().unwrap();
        let there = HeaderMap::from_iter([(LOCATION, HeaderValue::from_static("/y"))]);
        for status in [200_u16, 201, 300, 301, 302, 303] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(target(status, &there, &asked, "a.example.com:443", &[]).unwrap(), None);
        }
        let nowhere = HeaderMap::new();
        assert_eq!(target(StatusCode::PERMANENT_REDIRECT, &nowhere, &asked, "a.example.com:443", &[]).unwrap(), None);
    }

    #[test]
    fn below_a_uri_are_its_own_path_and_what_goes_on_from_it() {
        let below = |place: &str, uri: &str| {
            is_below(
                &format!("https://a.example{place}").parse().unwrap(),
                &format!("https://a.example{uri}").parse().unwrap(),
            )
        };
        for (place, uri) in
            [("/in", "/in"), ("/in/", "/in"), ("/in/x?y=1", "/in"), ("/in/x", "/in/"), ("/anything", "/")]
        {
            assert!(below(place, uri), "{place} {uri}");
        }
        for (place, uri) in [
            ("/", "/in"),
            ("/inner", "/in"),
            ("/other/in", "/in"),
            ("/IN", "/in"),
            ("/in/%2e%2E/other", "/in"),
            ("/in/.%2e/other", "/in"),
            ("/in%2f..", "/in"),
        ] {
            assert!(!below(place, uri), "{place} {uri}");
        }
    }

    proptest! {
        #[test]
        fn no_location_leads_to_a_stranger(location in "[ -~]{0,60}") {
            if let Ok(Some(uri)) = sent_to(&location) {
                let authority = authority(&uri.parse().unwrap()).unwrap();
                prop_assert!(
                    ["a.example.com:8443", "b.example.com:443", "c.example.com:9443"].contains(&authority.as_str())
                );
                prop_assert!(uri.starts_with("https://"));
            }
        }
    }
}
