//! Service disable notifications for application functions outside (TS 29.522 clause 5.13, Rel-18): the AAnF tells us, and we
//! tell them.
//!
//! ```text
//! AF ── retrieve, notifUri ──► NEF ── retrieve-applicationkey, notifUri of ours that names the AF's ──► AAnF
//! AF ◄── POST notifUri {aKId} ── NEF ◄── POST {aKId} ── AAnF, which tries again until we were answered
//! ```
//!
//! Nothing is kept here: our URI bears the AF and its URI, and the AAnF keeps ours with the key, durable and bounded, and
//! repeats itself where an AF is away.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::extract::{FromRequest, Request, State};
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use sbi::audit::subject;
use sbi::naanf::{
    AkmaAfKeyRequest, NotificationSection, NotificationUri, ServiceDisableNotif, feature, notify_service_disabled,
};
use sbi::{Json, Path, PeerIdentity, ProblemDetails, SbiClient, cause};

use super::caller::Caller;
use super::msgin5g::told_outside;
use super::refusal;
use super::service::{Refused, Service, refuse};

/// Path of the door on the inside; what follows names the AF and its URI.
const PATH: &str = "/akma-notifications/v1/relay";
const ACTION: &str = "service-disable";

/// What relaying takes.
pub(crate) struct Relay {
    section: NotificationSection,
    root: OnceLock<String>,
    outside: SbiClient,
}

/// Whom a notification is for: coded into the last segment of our URI.
#[derive(Debug, PartialEq, Eq)]
struct Destination {
    af_id: String,
    uri: NotificationUri,
}

impl Destination {
    /// An AF's name has no space, and neither has a URI.
    fn coded(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{} {}", self.af_id, self.uri))
    }

    fn parse(coded: &str) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(coded).ok()?).ok()?;
        let (af_id, uri) = text.split_once(' ')?;
        Some(Self { af_id: af_id.to_owned(), uri: uri.parse().ok()? })
    }
}

/// The URI of the application function that the last segment of one of our URIs bears, if it bears one; for tools that test
/// the reader.
#[must_use]
pub fn relayed_to(segment: &str) -> Option<NotificationUri> {
    Destination::parse(segment).map(|destination| destination.uri)
}

impl Relay {
    /// Relays to AFs with `outside`.
    pub(crate) fn new(section: NotificationSection, outside: SbiClient) -> Self {
        let root = section.root.clone().map_or_else(OnceLock::new, OnceLock::from);
        Self { section, root, outside }
    }

    /// Says where we listen, unless the configuration says what others are to call.
    pub(crate) fn listens_at(&self, address: SocketAddr) {
        self.root.get_or_init(|| format!("https://{address}"));
    }

    /// What to ask the AAnF: with a URI of ours where the AF left one of its own. One that says what features it has, and not
    /// that it is told, leaves none; so does one whose URI does not go into ours.
    ///
    /// # Errors
    /// The AF may not have us send to its URI.
    pub(crate) fn ask(
        &self,
        caller: &Caller,
        peer: &PeerIdentity,
        request: &AkmaAfKeyRequest,
    ) -> Result<Option<NotificationUri>, Refused> {
        let told = request.supp_feat.is_none_or(|features| features.has(feature::SERVICE_DISABLE_NOTIFICATION));
        let Some(uri) = request.notif_uri.as_ref().filter(|_| told) else { return Ok(None) };
        if !caller.af.may_name(uri.as_str(), peer) {
            return Err(refuse(
                "notification_uri",
                ProblemDetails::forbidden(refusal::NOTIFICATION_URI_NOT_ALLOWED)
                    .with_invalid_param("/notifUri", "not among the caller's own"),
            ));
        }
        let destination = Destination { af_id: caller.af.id().to_owned(), uri: uri.clone() };
        let root = self.root.get().map(|root| root.trim_end_matches('/'));
        Ok(root.and_then(|root| format!("{root}{PATH}/{}", destination.coded()).parse().ok()))
    }
}

/// What the AAnF may tell; nobody else may tell anything.
pub(crate) fn router(service: Arc<Service>) -> Router {
    Router::new().route(&format!("{PATH}/{{destination}}"), post(take)).with_state(service)
}

async fn take(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<PeerIdentity>,
    Path(destination): Path<String>,
    request: Request,
) -> Response {
    let since = Instant::now();
    let outcome = relay(&service, &peer, &destination, request).await;
    service.answer(subject(&peer), ACTION, since, outcome)
}

async fn relay(
    service: &Service,
    peer: &PeerIdentity,
    destination: &str,
    request: Request,
) -> Result<(&'static str, StatusCode), Refused> {
    let not_found = || refuse("unknown", ProblemDetails::not_found(cause::RESOURCE_URI_STRUCTURE_NOT_FOUND));
    let relay = service.akma.as_ref().and_then(|akma| akma.relay.as_ref()).ok_or_else(not_found)?;
    if !relay.section.notifier.iter().any(|notifier| notifier.names(peer)) {
        return Err(refuse("requester_not_allowed", ProblemDetails::forbidden(refusal::REQUESTER_NOT_ALLOWED)));
    }
    let notification = Json::<ServiceDisableNotif>::from_request(request, &()).await;
    let Json(notification) = notification.map_err(|problem| refuse("malformed", problem))?;
    let destination = Destination::parse(destination).ok_or_else(not_found)?;
    // Its entry may have changed since it asked.
    let af = service.afs.current().find(&destination.af_id).filter(|af| af.may_still_name(destination.uri.as_str()));
    let af = af.ok_or_else(not_found)?;
    let told = notify_service_disabled(&relay.outside, &destination.uri, &notification).await;
    told.map_err(|error| told_outside(service, &error))?;
    tracing::info!(target: "security", a_kid = %notification.a_kid, af = af.id(), "AKMA disabled, told outside");
    Ok(("notified", StatusCode::NO_CONTENT))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_destination_is_read_as_it_was_written() {
        let uri = "https://af.example.com:8443/akma-notifications/v1/service-disabled".parse().unwrap();
        let destination = Destination { af_id: "weather".to_owned(), uri };
        let coded = destination.coded();
        assert!(coded.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_".contains(&octet)));
        assert_eq!(Destination::parse(&coded), Some(destination));
    }

    #[test]
    fn what_is_no_destination_is_none() {
        for text in ["", "weather", "weather http://af.example.com/", "weather https://user@af.example.com/"] {
            assert_eq!(Destination::parse(&URL_SAFE_NO_PAD.encode(text)), None, "{text}");
        }
        assert_eq!(Destination::parse("no base64!"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,80}") {
            let _ = Destination::parse(&text);
            let _ = Destination::parse(&URL_SAFE_NO_PAD.encode(&text));
        }
    }
}
