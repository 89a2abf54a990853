//! The Configuration Function's provisioning API: which UE ID goes with which UE Service IDs (TS 33.501 clause Y.2).
//!
//! 3GPP leaves provisioning to the operator, so this API is our own. Below its root:
//!
//! | Request | Answer |
//! |---|---|
//! | `PUT {API_PATH}/associations/{ueId}/{ueServiceId}` | 201 added, 204 there already |
//! | `DELETE {API_PATH}/associations/{ueId}/{ueServiceId}` | 204, also when it was not there |
//! | `DELETE {API_PATH}/associations/{ueId}` | 204, all of the UE ID's are gone |
//! | `GET {API_PATH}/associations/{ueId}` | 200 [`UeAssociations`], empty when there are none |
//! | `GET {API_PATH}/associations?ue-service-id=&after=&limit=` | 200 [`AssociationPage`] |

use std::collections::BTreeSet;

use akma::UeId;
use message::UeServiceId;
use serde::{Deserialize, Serialize};
use url::form_urlencoded;

use crate::client::SbiClient;
use crate::coding::{path_segment, resource};
use crate::error::SbiError;
use crate::services;

/// Path of the API below its root.
pub const API_PATH: &str = "/msgin5g-configuration/v1";

/// One UE ID with one UE Service ID.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Association {
    /// SUPI or GPSI.
    pub ue_id: UeId,
    /// A UE Service ID that the UE may register.
    pub ue_service_id: UeServiceId,
}

/// All UE Service IDs of one UE ID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UeAssociations {
    /// SUPI or GPSI.
    pub ue_id: UeId,
    /// What it may register.
    pub ue_service_ids: BTreeSet<UeServiceId>,
}

/// Part of all associations, in a fixed order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssociationPage {
    /// The associations.
    pub associations: Vec<Association>,
    /// Give it as `after` to get the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The query of `GET /associations`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PageQuery {
    /// Only associations with this UE Service ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ue_service_id: Option<UeServiceId>,
    /// Where the page before ended: its `next`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How many at most; the server has a limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Provisions associations at a Configuration Function.
#[derive(Debug, Clone)]
pub struct AssociationClient {
    http: SbiClient,
    root: String,
}

impl AssociationClient {
    /// A client of the Configuration Function at `root`, for example `https://configuration.example:8443`.
    #[must_use]
    pub fn new(http: SbiClient, root: impl Into<String>) -> Self {
        Self { http: http.for_service(services::AF, services::CONFIGURATION.service), root: root.into() }
    }

    /// Adds an association; `false` when it was there already. It is on disk when this returns.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn associate(&self, ue_id: &UeId, ue_service_id: &UeServiceId) -> Result<bool, SbiError> {
        let uri = self.association(ue_id, ue_service_id);
        let response = self.http.put::<_, serde_json::Value>(&uri, &serde_json::json!({})).await?;
        Ok(response.status == http::StatusCode::CREATED)
    }

    /// Removes an association, if it is there.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn dissociate(&self, ue_id: &UeId, ue_service_id: &UeServiceId) -> Result<(), SbiError> {
        self.http.delete::<serde_json::Value>(&self.association(ue_id, ue_service_id)).await.map(drop)
    }

    /// Removes all associations of a UE ID.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn dissociate_all(&self, ue_id: &UeId) -> Result<(), SbiError> {
        self.http.delete::<serde_json::Value>(&self.ue(ue_id)).await.map(drop)
    }

    /// The UE Service IDs of a UE ID.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn of_ue(&self, ue_id: &UeId) -> Result<BTreeSet<UeServiceId>, SbiError> {
        let associations: UeAssociations = self.http.get(&self.ue(ue_id)).await?.into_body()?;
        Ok(associations.ue_service_ids)
    }

    /// One page of all associations.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn page(&self, query: &PageQuery) -> Result<AssociationPage, SbiError> {
        let mut parameters = form_urlencoded::Serializer::new(String::new());
        if let Some(ue_service_id) = &query.ue_service_id {
            parameters.append_pair("ue-service-id", ue_service_id.as_str());
        }
        if let Some(after) = &query.after {
            parameters.append_pair("after", after);
        }
        if let Some(limit) = query.limit {
            parameters.append_pair("limit", &limit.to_string());
        }
        let uri = resource(&self.root, &format!("{API_PATH}/associations?{}", parameters.finish()));
        self.http.get(&uri).await?.into_body()
    }

    fn ue(&self, ue_id: &UeId) -> String {
        resource(&self.root, &format!("{API_PATH}/associations/{}", path_segment(ue_id.as_str())))
    }

    fn association(&self, ue_id: &UeId, ue_service_id: &UeServiceId) -> String {
        format!("{}/{}", self.ue(ue_id), path_segment(ue_service_id.as_str()))
    }
}
