//! The APIs of TS 29.538 for Application Servers outside the domain (TS 33.501 clause Y.3), mapped to the MSGin5G Server
//! inside.
//!
//! ```text
//! AS outside ─▶ registration, messages, topics ─▶ MSGin5G Server      (on the AS's behalf, with the NEF's certificate)
//! AS outside ◀─ deliveries                     ◀─ MSGin5G Server      (at `{target root}/nef-msgin5g/v1/{AS Service ID}`)
//! ```
//!
//! Nothing is answered before the other side has answered: success is passed on, silence is a failure that may be tried
//! again. So what TS 23.554's acceptance means holds across the NEF, and the NEF keeps no message. What it keeps is who is
//! registered and where they are delivered to, on disk before the registration is answered.

mod deliveries;
mod messages;
mod records;
mod registration;
mod resume;
mod topics;

use std::sync::{Arc, OnceLock};

use axum::Router;
use message::{Address, AsServiceId};
use sbi::nrf::NrfClient;
use sbi::{PeerIdentity, PeerName, ProblemDetails, SbiClient, SbiClientConfig, path_segment, services};
use url::Url;

pub(crate) use deliveries::{router as inside_router, told_outside};
pub(crate) use records::Records;
pub(crate) use resume::resume;

use super::af::Af;
use super::caller::Caller;
use super::config::{Config, MsGin5gConfig};
use super::refusal;
use super::service::{Refused, Service, refuse};
use crate::error::ExposureError;

/// Path of what the MSGin5G Server calls.
const INSIDE_PATH: &str = "/nef-msgin5g/v1";

/// The MSGin5G Server inside, and who is registered there through us.
pub(crate) struct MsGin5g {
    /// To the server, by API.
    registrations: SbiClient,
    messages: SbiClient,
    topics: SbiClient,
    /// To Application Servers.
    outside: SbiClient,
    url: String,
    server_name: PeerName,
    /// Root of what the server calls; known once we listen.
    target_root: OnceLock<String>,
    pub(crate) records: Records,
    topic_list_subscriptions_per_as_max: usize,
}

impl MsGin5g {
    pub(crate) fn new(
        config: &MsGin5gConfig,
        nef: &Config,
        nrf: Option<&NrfClient>,
        records: Records,
    ) -> Result<Self, ExposureError> {
        let server = SbiClient::new(SbiClientConfig { tls: nef.inside.clone(), limits: config.requests.clone() })?;
        let server = NrfClient::authorized(nrf, server);
        let outside =
            SbiClient::new(SbiClientConfig { tls: nef.tls.clone(), limits: nef.requests.clone() })?.for_callbacks();
        let target_root = config.target_root.clone().map_or_else(OnceLock::new, OnceLock::from);
        Ok(Self {
            registrations: server.for_service(services::AF, services::MSGS_ASREGISTRATION.service),
            messages: server.for_service(services::AF, services::MSGS_MSGDELIVERY.service),
            topics: server.for_service(services::AF, services::MSGS_TOPICLISTEVENT.service),
            outside,
            url: config.url.trim_end_matches('/').to_owned(),
            server_name: config.server.clone(),
            target_root,
            records,
            topic_list_subscriptions_per_as_max: config.topic_list_subscriptions_per_as_max,
        })
    }

    /// Says where we listen, unless the configuration says what others are to call.
    pub(crate) fn listens_at(&self, address: std::net::SocketAddr) {
        self.target_root.get_or_init(|| format!("https://{address}"));
    }

    /// Where the server delivers what is for this AS.
    fn target_of(&self, id: &AsServiceId) -> String {
        let root = self.target_root.get().map(String::as_str).unwrap_or_default();
        format!("{}{INSIDE_PATH}/{}", root.trim_end_matches('/'), path_segment(id.as_str()))
    }

    fn operation(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// The resource that a `Location` of the server names; none of another server's.
    fn resource(&self, location: Option<&str>) -> Option<String> {
        let root = Url::parse(&self.url).ok()?;
        let resource = root.join(location?).ok()?;
        (resource.origin() == root.origin()).then(|| resource.to_string())
    }

    fn is_server(&self, peer: &PeerIdentity) -> bool {
        self.server_name.names(peer)
    }
}

/// What application functions outside may ask.
pub(crate) fn router() -> Router<Arc<Service>> {
    Router::new().merge(registration::router()).merge(messages::router()).merge(topics::router())
}

impl Service {
    /// The MSGin5G Server, which is there if these routes are.
    fn msgin5g(&self) -> Result<&MsGin5g, Refused> {
        self.msgin5g.as_ref().ok_or_else(|| refuse("not_served", ProblemDetails::internal()))
    }

    /// Checks that the caller may be this Application Server and has registered it.
    fn registered(&self, caller: &Caller, originator: &Address) -> Result<AsServiceId, Refused> {
        let id = may_be(&caller.af, originator)?;
        let registered = self.msgin5g()?.records.registration(&id).is_some_and(|held| held.af_id == caller.af.id());
        if registered {
            Ok(id)
        } else {
            Err(refuse("not_registered", ProblemDetails::forbidden(refusal::NOT_REGISTERED)))
        }
    }
}

/// Checks that an address is that of an Application Server which the caller may be.
fn may_be(af: &Af, originator: &Address) -> Result<AsServiceId, Refused> {
    originator
        .as_application_server()
        .filter(|id| af.may_be(id))
        .ok_or_else(|| refuse("originator_not_allowed", ProblemDetails::forbidden(refusal::ORIGINATOR_NOT_ALLOWED)))
}

/// Lets a change finish even when the caller leaves: server and records change together.
async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, Refused>> + Send + 'static,
) -> Result<T, Refused> {
    tokio::spawn(change).await.unwrap_or_else(|_| Err(refuse("failed", ProblemDetails::internal())))
}
