//! `3gpp-akma` (TS 29.522 clause 5.13, TS 33.535 clause 6.3): K_AF for application functions outside the domain.
//!
//! The SUPI stays inside, whatever the AAnF tells (TS 33.501 clause 5.9.2.3); the GPSI goes out where the token's scope and
//! the caller's entry both say so. A `notifUri` is relayed: [`super::disable_relay`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use akma::Gpsi;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use http::StatusCode;
use sbi::naanf::{AkmaAfKeyData, AkmaAfKeyRequest, NaanfClient, feature};
use sbi::nrf::{AanfSelection, NrfClient};
use sbi::nudm::NudmClient;
use sbi::{Json, PeerIdentity, ProblemDetails, SbiClient, SbiClientConfig, SbiError, SupportedFeatures};

use super::caller::Caller;
use super::config::{AkmaConfig, Config};
use super::disable_relay::Relay;
use super::refusal;
use super::service::{Refused, Service, refuse};
use super::translation::Translation;
use crate::error::ExposureError;

/// The AKMA anchor function, and who translates for it.
pub(crate) struct Akma {
    aanf: Aanf,
    translation: Option<Translation>,
    pub(crate) relay: Option<Relay>,
}

/// Which AAnF is asked.
enum Aanf {
    /// One of those in the configuration.
    Configured(NaanfClient),
    /// The one that the NRF finds.
    Found(AanfSelection),
}

impl Aanf {
    async fn retrieve(&self, request: &AkmaAfKeyRequest) -> Result<Option<AkmaAfKeyData>, SbiError> {
        match self {
            Self::Configured(aanf) => aanf.retrieve_applicationkey(request).await,
            Self::Found(selection) => selection.retrieve_applicationkey(request).await,
        }
    }
}

impl Akma {
    pub(crate) fn new(config: &AkmaConfig, nef: &Config, nrf: Option<&NrfClient>) -> Result<Self, ExposureError> {
        let client = SbiClient::new(SbiClientConfig { tls: nef.inside.clone(), limits: config.requests.clone() })?;
        let client = NrfClient::authorized(nrf, client);
        let pause = Duration::from_millis(config.udm_pause_milliseconds);
        let translation = match &config.udm {
            Some(udm) => Some(Translation::new(NudmClient::found(client.clone(), udm, nrf)?, pause)),
            None => None,
        };
        // The SUPI is of use for its translation only.
        let supi = translation.is_some();
        let aanf = match AanfSelection::of_root(&config.aanf, &client, nrf)? {
            Some(selection) => Aanf::Found(if supi { selection } else { selection.without_supi() }),
            None => {
                let aanf = NaanfClient::selecting(client, &config.aanf, config.aanf_routes.clone());
                Aanf::Configured(if supi { aanf } else { aanf.without_supi() })
            }
        };
        let outside = || {
            let client = SbiClientConfig { tls: nef.tls.clone(), limits: nef.requests.clone() };
            Ok::<_, SbiError>(SbiClient::new(client)?.for_callbacks())
        };
        let relay = match &config.notifications {
            Some(section) => Some(Relay::new(section.clone(), outside()?)),
            None => None,
        };
        Ok(Self { aanf, translation, relay })
    }

    /// What the caller may see of the UE's identity.
    async fn gpsi_of(&self, data: &AkmaAfKeyData) -> Option<Gpsi> {
        match (&data.gpsi, &data.supi, &self.translation) {
            (Some(gpsi), ..) => Some(gpsi.clone()),
            (None, Some(supi), Some(translation)) => translation.gpsi(supi).await,
            _ => None,
        }
    }
}

pub(crate) fn router() -> Router<Arc<Service>> {
    Router::new().route("/3gpp-akma/v1/retrieve", post(retrieve))
}

async fn retrieve(
    State(service): State<Arc<Service>>,
    Extension(caller): Extension<Caller>,
    Extension(peer): Extension<PeerIdentity>,
    Json(request): Json<AkmaAfKeyRequest>,
) -> Response {
    let since = Instant::now();
    let outcome = match &service.akma {
        Some(akma) => key(&service, akma, &caller, &peer, &request).await,
        None => Err(refuse("not_served", ProblemDetails::not_found(sbi::cause::RESOURCE_URI_STRUCTURE_NOT_FOUND))),
    };
    let outcome = outcome.map(|data| match data {
        Some(data) => (if data.gpsi.is_some() { "key_and_gpsi" } else { "key" }, Json(data).into_response()),
        None => ("unknown_a_kid", StatusCode::NO_CONTENT.into_response()),
    });
    service.answer(caller.af.id(), ACTION, since, outcome)
}

async fn key(
    service: &Service,
    akma: &Akma,
    caller: &Caller,
    peer: &PeerIdentity,
    request: &AkmaAfKeyRequest,
) -> Result<Option<AkmaAfKeyData>, Refused> {
    if !caller.af.owns(&request.af_id) {
        return Err(refuse("af_id_not_allowed", ProblemDetails::forbidden(refusal::AF_ID_NOT_ALLOWED)));
    }
    let relayed = match &akma.relay {
        Some(relay) => relay.ask(caller, peer, request)?,
        None => None,
    };
    let plainly = AkmaAfKeyRequest { supp_feat: None, notif_uri: None, ..request.clone() };
    let mut answer = match relayed {
        Some(uri) => akma.aanf.retrieve(&plainly.clone().with_notifications(uri)).await,
        None => akma.aanf.retrieve(&plainly).await,
    };
    if let Err(SbiError::Problem(problem)) = &answer
        && problem.has_cause(refusal::NOTIFICATION_URI_NOT_ALLOWED)
    {
        // Ours, which is no fault of the AF's.
        tracing::error!("the AAnF may not notify us: application functions are not told that AKMA is disabled");
        answer = akma.aanf.retrieve(&plainly).await;
    }
    let Some(data) = answer.map_err(|error| service.told_inside(&error))? else { return Ok(None) };
    let wants_gpsi = !request.anon_ind && caller.gpsi_scope && caller.af.may_see_gpsi();
    let gpsi = if wants_gpsi { akma.gpsi_of(&data).await } else { None };
    let told = data.supp_feat.is_some_and(|features| features.has(feature::SERVICE_DISABLE_NOTIFICATION));
    let features: &[u32] = if told { &[feature::SERVICE_DISABLE_NOTIFICATION] } else { &[] };
    let asked_for = request.supp_feat.is_some() || request.notif_uri.is_some();
    let supp_feat = asked_for.then(|| SupportedFeatures::of(features));
    Ok(Some(AkmaAfKeyData { supp_feat, gpsi, expiry: data.expiry, kaf: data.kaf, supi: None }))
}

const ACTION: &str = "3gpp-akma:retrieve";
