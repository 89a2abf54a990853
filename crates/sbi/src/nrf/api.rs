//! The operations of an NRF, one request each.

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::discovery::{DiscoveryQuery, SearchResult};
use super::management::SubscriptionData;
use super::patch::PatchItem;
use super::profile::NFProfile;
use super::token_request::{AccessTokenErr, AccessTokenReq, AccessTokenRsp};
use super::{DISCOVERY_PATH, MANAGEMENT_PATH, TOKEN_PATH};
use crate::assertion::{AssertionSigner, CLIENT_CREDENTIALS};
use crate::client::{SbiClient, interpret, json_of};
use crate::coding::{path_segment, resource};
use crate::error::SbiError;

/// Asks an NRF.
#[derive(Debug, Clone)]
pub struct NrfApi {
    http: SbiClient,
    root: String,
    credentials: Option<AssertionSigner>,
}

impl NrfApi {
    /// A client of the NRF at `root`, for example `https://nrf.example:8443`. Its requests carry no access token: who
    /// asks is in the certificate.
    #[must_use]
    pub fn new(http: SbiClient, root: impl Into<String>) -> Self {
        Self { http, root: root.into(), credentials: None }
    }

    /// Has token requests carry a client credentials assertion.
    #[must_use]
    pub fn with_credentials(self, credentials: Option<AssertionSigner>) -> Self {
        Self { credentials, ..self }
    }

    /// NFRegister: puts the whole profile there. Gives it back as the NRF has it, with its heartbeat timer.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn register(&self, profile: &NFProfile) -> Result<NFProfile, SbiError> {
        self.http.put(&self.instance(profile.nf_instance_id), profile).await?.into_body()
    }

    /// NFUpdate as a sign of life (TS 29.510 clause 5.2.2.3.2). Gives the profile if the NRF sends it.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting; [`SbiError::Problem`] with 404 when the NRF does not know the instance.
    pub async fn heart_beat(&self, nf_instance_id: Uuid) -> Result<Option<NFProfile>, SbiError> {
        self.update(nf_instance_id, &[PatchItem::replace("/nfStatus", json!("REGISTERED"))]).await
    }

    /// NFUpdate of parts of the profile. Gives the profile if the NRF sends it.
    ///
    /// # Errors
    /// As [`NrfApi::heart_beat`].
    pub async fn update(&self, nf_instance_id: Uuid, items: &[PatchItem]) -> Result<Option<NFProfile>, SbiError> {
        Ok(self.http.patch_items(&self.instance(nf_instance_id), items).await?.body)
    }

    /// NFDeregister.
    ///
    /// # Errors
    /// As [`NrfApi::heart_beat`].
    pub async fn deregister(&self, nf_instance_id: Uuid) -> Result<(), SbiError> {
        self.http.delete::<Value>(&self.instance(nf_instance_id)).await.map(drop)
    }

    /// NFProfileRetrieval.
    ///
    /// # Errors
    /// As [`NrfApi::heart_beat`].
    pub async fn profile(&self, nf_instance_id: Uuid) -> Result<NFProfile, SbiError> {
        self.http.get(&self.instance(nf_instance_id)).await?.into_body()
    }

    /// NFStatusSubscribe. Gives the subscription as the NRF has it, with its name.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn subscribe(&self, subscription: &SubscriptionData) -> Result<SubscriptionData, SbiError> {
        let uri = resource(&self.root, &format!("{MANAGEMENT_PATH}/subscriptions"));
        self.http.post(&uri, subscription).await?.into_body()
    }

    /// NFStatusUnSubscribe.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn unsubscribe(&self, subscription_id: &str) -> Result<(), SbiError> {
        let path = format!("{MANAGEMENT_PATH}/subscriptions/{}", path_segment(subscription_id));
        self.http.delete::<Value>(&resource(&self.root, &path)).await.map(drop)
    }

    /// NFDiscover.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn discover(&self, query: &DiscoveryQuery) -> Result<SearchResult, SbiError> {
        let uri = resource(&self.root, &format!("{DISCOVERY_PATH}/nf-instances?{}", query.encode()));
        self.http.get(&uri).await?.into_body()
    }

    /// AccessToken Get.
    ///
    /// # Errors
    /// [`SbiError::NrfRefused`] with the error's name where the NRF refuses as RFC 6749 has it; else any but those of
    /// starting.
    pub async fn token(&self, request: &AccessTokenReq) -> Result<AccessTokenRsp, SbiError> {
        let mut headers = HeaderMap::new();
        if let Some(credentials) = &self.credentials {
            headers.insert(&CLIENT_CREDENTIALS, credentials.assertion(NRF)?);
        }
        let uri = resource(&self.root, TOKEN_PATH);
        let (parts, body) = self.http.post_form(&uri, request.encode(), headers).await?;
        if matches!(parts.status, StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED)
            && let Ok(refusal) = json_of::<AccessTokenErr>(&parts.headers, &body)
        {
            return Err(SbiError::NrfRefused { reason: refusal.error.as_str().to_owned(), transient: false });
        }
        interpret(parts.status, &parts.headers, &body, |octets| json_of(&parts.headers, octets))?.into_body()
    }

    fn instance(&self, nf_instance_id: Uuid) -> String {
        resource(&self.root, &format!("{MANAGEMENT_PATH}/nf-instances/{nf_instance_id}"))
    }
}

/// NF type that assertions are meant for.
const NRF: &str = "NRF";
