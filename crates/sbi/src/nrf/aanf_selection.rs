//! AAnFs found by the subscriber's routing indicator (TS 33.535 clause 6.7, TS 29.510 AanfInfo) instead of configured.

use std::sync::Arc;

use akma::{AKid, AfId, RoutingIndicator};
use transport::{BoxFuture, KeySource, KeySourceError, ProvenKey};

use super::management::NFType;
use super::producer_root::split;
use super::registration::NrfClient;
use crate::client::SbiClient;
use crate::error::SbiError;
use crate::naanf::{AkmaAfKeyData, AkmaAfKeyRequest, AnchorRoute, DisableSubscription, NaanfClient, key_source_error};
use crate::problem::ProblemDetails;

/// The AAnF that serves a subscriber, as the NRF says.
#[derive(Debug, Clone)]
pub struct AanfSelection {
    nrf: NrfClient,
    http: SbiClient,
    aanf: NFType,
    /// Asked while the NRF finds none.
    configured: Option<String>,
    supi: bool,
    subscription: DisableSubscription,
}

impl AanfSelection {
    /// AAnFs that `nrf` finds, asked with `http`.
    ///
    /// # Errors
    /// None in practice: the type's name is sound.
    pub fn new(nrf: NrfClient, http: SbiClient) -> Result<Self, SbiError> {
        let aanf = AANF.parse().map_err(|_| SbiError::InvalidRequest("no NF type".to_owned()))?;
        Ok(Self { nrf, http, aanf, configured: None, supi: true, subscription: DisableSubscription::default() })
    }

    /// AAnFs by what stands as a root in the configuration, if the NRF is to find them ([`super::ProducerRoot`]).
    ///
    /// # Errors
    /// [`SbiError::InvalidRequest`] when there is no NRF.
    pub fn of_root(root: &str, http: &SbiClient, nrf: Option<&NrfClient>) -> Result<Option<Self>, SbiError> {
        let (true, configured) = split(root) else { return Ok(None) };
        let nrf = nrf.ok_or_else(|| SbiError::InvalidRequest("aanf is \"nrf\", and there is no [nrf]".to_owned()))?;
        let configured = configured.map(str::to_owned);
        Ok(Some(Self { configured, ..Self::new(nrf.clone(), http.clone())? }))
    }

    /// The same, whose tokens do not ask for the SUPI ([`NaanfClient::without_supi`]).
    #[must_use]
    pub fn without_supi(self) -> Self {
        Self { supi: false, ..self }
    }

    /// The AAnF for subscribers with this routing indicator; `None` when the NRF knows none.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn of(&self, indicator: &RoutingIndicator) -> Result<Option<NaanfClient>, SbiError> {
        let found = self.nrf.roots(&self.aanf, SERVICE, Some(indicator.as_str())).await;
        let root = match (found, &self.configured) {
            (Ok(roots), configured) => roots.into_iter().next().or_else(|| configured.clone()),
            (Err(_), Some(configured)) => Some(configured.clone()),
            (Err(error), None) => return Err(error),
        };
        Ok(root.map(|root| self.client(root)))
    }

    /// Every AAnF that the NRF knows.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn all(&self) -> Result<Vec<NaanfClient>, SbiError> {
        let mut roots = match (self.nrf.roots(&self.aanf, SERVICE, None).await, &self.configured) {
            (Err(error), None) => return Err(error),
            (found, _) => found.unwrap_or_default(),
        };
        // It may have what was registered while the NRF found none.
        roots.extend(self.configured.iter().filter(|root| !roots.contains(root)).cloned().collect::<Vec<_>>());
        Ok(roots.into_iter().map(|root| self.client(root)).collect())
    }

    /// What was found for this routing indicator does not answer: the next question goes to the NRF.
    pub fn forget(&self, indicator: &RoutingIndicator) {
        self.nrf.forget_roots(&self.aanf, SERVICE, Some(indicator.as_str()));
    }

    /// Naanf_AKMA_ApplicationKey_Get at the AAnF that serves the A-KID, or `None` when the A-KID is unknown. The question is put
    /// once more where the AAnF is somewhere else than it was.
    ///
    /// # Errors
    /// As [`NaanfClient::retrieve_applicationkey`]; 404 `ROUTING_INDICATOR_NOT_SERVED` when no AAnF serves the A-KID.
    pub async fn retrieve_applicationkey(&self, request: &AkmaAfKeyRequest) -> Result<Option<AkmaAfKeyData>, SbiError> {
        let not_served = || SbiError::Problem(Box::new(ProblemDetails::not_found("ROUTING_INDICATOR_NOT_SERVED")));
        let indicator = request.a_kid.routing_indicator().ok_or_else(not_served)?;
        let aanf = self.of(&indicator).await?.ok_or_else(not_served)?;
        let answer = aanf.retrieve_and_subscribe(request).await;
        if !matches!(answer, Err(SbiError::Unreachable(_) | SbiError::TimedOut)) {
            return answer;
        }
        self.forget(&indicator);
        match self.of(&indicator).await {
            // Fixing an expiry twice comes to the same.
            Ok(Some(again)) if again.general_root() != aanf.general_root() => {
                again.retrieve_and_subscribe(request).await
            }
            _ => answer,
        }
    }

    fn client(&self, root: String) -> NaanfClient {
        let client = NaanfClient::new(self.http.clone(), root).subscribing(self.subscription.clone());
        if self.supi { client } else { client.without_supi() }
    }

    /// K_AF from the AAnF at `root`, or that of one of `routes`; or, where `root` says so ([`super::ProducerRoot`]), from the
    /// one that `nrf` finds. Each is asked for notifications as `subscription` says.
    ///
    /// # Errors
    /// [`SbiError::InvalidRequest`] when discovery is wanted and there is no NRF.
    pub fn key_source(
        root: &str,
        routes: &[AnchorRoute],
        http: SbiClient,
        nrf: Option<&NrfClient>,
        subscription: &DisableSubscription,
    ) -> Result<Arc<dyn KeySource>, SbiError> {
        let subscription = subscription.clone();
        match Self::of_root(root, &http, nrf)? {
            Some(selection) => Ok(Arc::new(Self { subscription, ..selection })),
            None => Ok(Arc::new(NaanfClient::selecting(http, root, routes.to_vec()).subscribing(subscription))),
        }
    }

    async fn ask(&self, af_id: AfId, a_kid: AKid) -> Result<Option<ProvenKey>, KeySourceError> {
        let answer = self.retrieve_applicationkey(&AkmaAfKeyRequest::new(af_id, a_kid)).await;
        Ok(answer.map_err(key_source_error)?.map(ProvenKey::from))
    }
}

impl KeySource for AanfSelection {
    fn retrieve(&self, af_id: AfId, a_kid: AKid) -> BoxFuture<'_, Result<Option<ProvenKey>, KeySourceError>> {
        Box::pin(self.ask(af_id, a_kid))
    }
}

const AANF: &str = "AANF";
const SERVICE: &str = "naanf-akma";
