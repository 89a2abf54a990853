//! AAnFs found by the subscriber's routing indicator (TS 33.535 clause 6.7, TS 29.510 AanfInfo) instead of configured.

use std::sync::Arc;

use akma::{AKid, AfId, RoutingIndicator};
use transport::{BoxFuture, KeySource, KeySourceError, ProvenKey};

use super::BY_DISCOVERY;
use super::management::NFType;
use super::registration::NrfClient;
use crate::client::SbiClient;
use crate::error::SbiError;
use crate::naanf::{AnchorRoute, NaanfClient};

/// The AAnF that serves a subscriber, as the NRF says.
#[derive(Debug, Clone)]
pub struct AanfSelection {
    nrf: NrfClient,
    http: SbiClient,
    aanf: NFType,
}

impl AanfSelection {
    /// AAnFs that `nrf` finds, asked with `http`.
    ///
    /// # Errors
    /// None in practice: the type's name is sound.
    pub fn new(nrf: NrfClient, http: SbiClient) -> Result<Self, SbiError> {
        let aanf = AANF.parse().map_err(|_| SbiError::InvalidRequest("no NF type".to_owned()))?;
        Ok(Self { nrf, http, aanf })
    }

    /// The AAnF for subscribers with this routing indicator; `None` when the NRF knows none.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn of(&self, indicator: &RoutingIndicator) -> Result<Option<NaanfClient>, SbiError> {
        let roots = self.nrf.roots(&self.aanf, SERVICE, Some(indicator.as_str())).await?;
        Ok(roots.into_iter().next().map(|root| self.client(root)))
    }

    /// Every AAnF that the NRF knows.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn all(&self) -> Result<Vec<NaanfClient>, SbiError> {
        let roots = self.nrf.roots(&self.aanf, SERVICE, None).await?;
        Ok(roots.into_iter().map(|root| self.client(root)).collect())
    }

    /// What was found for this routing indicator does not answer: the next question goes to the NRF.
    pub fn forget(&self, indicator: &RoutingIndicator) {
        self.nrf.forget_roots(&self.aanf, SERVICE, Some(indicator.as_str()));
    }

    fn client(&self, root: String) -> NaanfClient {
        NaanfClient::new(self.http.clone(), root)
    }

    /// K_AF from the AAnF at `root`, or that of one of `routes`; or, where `root` is [`BY_DISCOVERY`], from the one that `nrf` finds.
    ///
    /// # Errors
    /// [`SbiError::InvalidRequest`] when discovery is wanted and there is no NRF.
    pub fn key_source(
        root: &str,
        routes: &[AnchorRoute],
        http: SbiClient,
        nrf: Option<&NrfClient>,
    ) -> Result<Arc<dyn KeySource>, SbiError> {
        if root != BY_DISCOVERY {
            return Ok(Arc::new(NaanfClient::selecting(http, root, routes.to_vec())));
        }
        let nrf = nrf.ok_or_else(|| SbiError::InvalidRequest("aanf is \"nrf\", and there is no [nrf]".to_owned()))?;
        Ok(Arc::new(Self::new(nrf.clone(), http)?))
    }

    async fn ask(&self, af_id: AfId, a_kid: AKid) -> Result<Option<ProvenKey>, KeySourceError> {
        // Both are about one A-KID, which any stranger may choose.
        let parts =
            a_kid.parts().map_err(|_| KeySourceError::Refused("no routing indicator in the A-KID".to_owned()))?;
        let indicator = parts.routing_indicator;
        let aanf = self.of(&indicator).await.map_err(|error| KeySourceError::Unavailable(error.to_string()))?;
        let Some(aanf) = aanf else {
            return Err(KeySourceError::Refused("no AAnF serves the A-KID's routing indicator".to_owned()));
        };
        let answer = aanf.retrieve(af_id, a_kid).await;
        if matches!(answer, Err(KeySourceError::Unavailable(_))) {
            self.forget(&indicator);
        }
        answer
    }
}

impl KeySource for AanfSelection {
    fn retrieve(&self, af_id: AfId, a_kid: AKid) -> BoxFuture<'_, Result<Option<ProvenKey>, KeySourceError>> {
        Box::pin(self.ask(af_id, a_kid))
    }
}

const AANF: &str = "AANF";
const SERVICE: &str = "naanf-akma";
