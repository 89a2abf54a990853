//! SEAL user profile retrieval, SS_UserProfileRetrieval (TS 29.549 clause 7.3.2): types and client.
//!
//! TS 33.501 clause Y.2 has the MSGin5G Server ask by UE ID for the UE Service IDs that go with it. No member of
//! this API is a SUPI or GPSI, so this is the one place that says how it carries them: `valUeId` is the UE ID in the
//! form of TS 29.571, and `profileInformation` the JSON text `{"ueServiceIds":[...]}`.

use std::collections::BTreeSet;

use akma::UeId;
use message::UeServiceId;
use serde::{Deserialize, Serialize};
use url::form_urlencoded;

use crate::client::SbiClient;
use crate::coding::resource;
use crate::error::SbiError;
use crate::extract::parse_json;
use crate::nrf::{NrfClient, ProducerRoot};
use crate::problem::{ProblemDetails, cause};
use crate::services;

/// Path of the API below its root.
pub const API_PATH: &str = "/ss-upr/v1";
/// The VAL service ID of MSGin5G.
pub const VAL_SERVICE_ID: &str = "msgin5g";

/// A profile and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProfileDoc {
    /// The profile, a text of the service's own; see [`ProfileInformation`].
    pub profile_information: String,
    /// Whose it is.
    pub val_tgt_ue: ValTargetUe,
}

/// A VAL user or a VAL UE: exactly one of two members in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "ValTargetUeMembers", into = "ValTargetUeMembers")]
pub enum ValTargetUe {
    /// A VAL user, which for MSGin5G is a UE Service ID (TS 23.554 clause 8.1.2).
    ValUserId(String),
    /// A VAL UE, which for MSGin5G is a UE ID.
    ValUeId(String),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ValTargetUeMembers {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    val_user_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    val_ue_id: Option<String>,
}

impl TryFrom<ValTargetUeMembers> for ValTargetUe {
    type Error = &'static str;

    fn try_from(members: ValTargetUeMembers) -> Result<Self, Self::Error> {
        match (members.val_user_id, members.val_ue_id) {
            (Some(user), None) => Ok(Self::ValUserId(user)),
            (None, Some(ue)) => Ok(Self::ValUeId(ue)),
            (None, None) => Err("missing field `valUeId`"),
            (Some(_), Some(_)) => Err("both valUserId and valUeId"),
        }
    }
}

impl From<ValTargetUe> for ValTargetUeMembers {
    fn from(target: ValTargetUe) -> Self {
        match target {
            ValTargetUe::ValUserId(user) => Self { val_user_id: Some(user), val_ue_id: None },
            ValTargetUe::ValUeId(ue) => Self { val_user_id: None, val_ue_id: Some(ue) },
        }
    }
}

/// What `profileInformation` holds for MSGin5G, as JSON text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProfileInformation {
    /// The UE Service IDs associated with the UE ID.
    pub ue_service_ids: BTreeSet<UeServiceId>,
}

/// The query of `GET /val-services`. Extract it with [`ProfileQuery::parse`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileQuery {
    /// Of which service a profile is wanted; any if `None`.
    pub val_service_id: Option<String>,
    /// Whose profile is wanted.
    pub val_tgt_ue: ValTargetUe,
}

impl ProfileQuery {
    /// Reads the raw query of a URI. `val-tgt-ue` is the JSON text of a [`ValTargetUe`], URL-encoded.
    ///
    /// # Errors
    /// 400 with cause MANDATORY_QUERY_PARAM_MISSING or MANDATORY_QUERY_PARAM_INCORRECT; a parameter given twice is
    /// incorrect.
    pub fn parse(query: &str) -> Result<Self, ProblemDetails> {
        let incorrect = |reason| {
            ProblemDetails::bad_request(cause::MANDATORY_QUERY_PARAM_INCORRECT)
                .with_invalid_param(format!("query {TARGET_PARAMETER}"), reason)
        };
        let (mut service, mut target) = (None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let slot = match &*name {
                SERVICE_PARAMETER => &mut service,
                TARGET_PARAMETER => &mut target,
                _ => continue,
            };
            if slot.replace(value.into_owned()).is_some() {
                return Err(incorrect("a parameter given twice"));
            }
        }
        let target = target.ok_or_else(|| {
            ProblemDetails::bad_request(cause::MANDATORY_QUERY_PARAM_MISSING)
                .with_invalid_param(format!("query {TARGET_PARAMETER}"), "missing")
        })?;
        let val_tgt_ue = parse_json(target.as_bytes()).map_err(|_| incorrect("not the JSON text of a ValTargetUe"))?;
        Ok(Self { val_service_id: service, val_tgt_ue })
    }

    /// The query string, without `?`.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if let Some(service) = &self.val_service_id {
            query.append_pair(SERVICE_PARAMETER, service);
        }
        // Two texts always code.
        query.append_pair(TARGET_PARAMETER, &serde_json::to_string(&self.val_tgt_ue).unwrap_or_default());
        query.finish()
    }
}

/// Asks a SEAL configuration management server, or our Configuration Function, in the place of an MSGin5G Server.
#[derive(Debug, Clone)]
pub struct SsUprClient {
    http: SbiClient,
    root: ProducerRoot,
}

impl SsUprClient {
    /// A client of the server at `root`, for example `https://configuration.example:8443`.
    #[must_use]
    pub fn new(http: SbiClient, root: impl Into<String>) -> Self {
        Self::at(&http, ProducerRoot::fixed(root))
    }

    /// A client of the server that stands as `root` in the configuration ([`ProducerRoot`]): at the NRF it is an application
    /// function that offers `ss-upr` (TS 29.510 has no type and no service name for it, and leaves both open).
    ///
    /// # Errors
    /// As [`ProducerRoot::new`].
    pub fn found(http: &SbiClient, root: &str, nrf: Option<&NrfClient>) -> Result<Self, SbiError> {
        Ok(Self::at(http, ProducerRoot::new(root, services::AF, services::SS_UPR.service, nrf)?))
    }

    fn at(http: &SbiClient, root: ProducerRoot) -> Self {
        Self { http: http.for_service(services::AF, services::SS_UPR.service), root }
    }

    /// The UE Service IDs that `ue_id` may register; none when the server does not know it.
    ///
    /// # Errors
    /// [`SbiError::Malformed`] when a profile of this UE is not ours to read; else any but those of starting.
    pub async fn ue_service_ids(&self, ue_id: &UeId) -> Result<BTreeSet<UeServiceId>, SbiError> {
        let asked = ValTargetUe::ValUeId(ue_id.as_str().to_owned());
        let query = ProfileQuery { val_service_id: Some(VAL_SERVICE_ID.to_owned()), val_tgt_ue: asked.clone() };
        let uri = |root: &str| resource(root, &format!("{API_PATH}/val-services?{}", query.encode()));
        let root = self.root.current().await?;
        let mut answer = self.http.get(&uri(&root)).await;
        if let Some(root) = self.root.elsewhere(&root, &answer).await {
            answer = self.http.get(&uri(&root)).await;
        }
        let profiles: Vec<ProfileDoc> = match answer {
            Ok(response) => response.into_body()?,
            Err(SbiError::Problem(problem)) if problem.status == Some(404) => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut ue_service_ids = BTreeSet::new();
        // A profile of anybody else says nothing about this UE, whatever made the server send it.
        for profile in profiles.iter().filter(|profile| profile.val_tgt_ue == asked) {
            let information: ProfileInformation = parse_json(profile.profile_information.as_bytes())
                .map_err(|_| SbiError::Malformed("profileInformation holds no ueServiceIds".to_owned()))?;
            ue_service_ids.extend(information.ue_service_ids);
        }
        Ok(ue_service_ids)
    }
}

const SERVICE_PARAMETER: &str = "val-service-id";
const TARGET_PARAMETER: &str = "val-tgt-ue";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_query_carries_json_and_survives_encoding() {
        let query = ProfileQuery {
            val_service_id: Some("msgin5g".to_owned()),
            val_tgt_ue: ValTargetUe::ValUeId("nai-a&b=c@example.com".to_owned()),
        };
        let text = query.encode();
        assert!(text.starts_with("val-service-id=msgin5g&val-tgt-ue=%7B%22valUeId%22"), "{text}");
        assert_eq!(ProfileQuery::parse(&text).unwrap(), query);
    }

    #[test]
    fn a_query_without_target_or_with_a_wrong_one_is_refused() {
        assert!(ProfileQuery::parse("").unwrap_err().has_cause(cause::MANDATORY_QUERY_PARAM_MISSING));
        for wrong in [
            "val-tgt-ue=imsi-001010000000001",
            "val-tgt-ue=%7B%7D",
            "val-tgt-ue=%7B%22valUeId%22%3A7%7D",
            "val-tgt-ue=%7B%22valUeId%22%3A%22a%22%2C%22valUserId%22%3A%22b%22%7D",
            "val-tgt-ue=%7B%22valUeId%22%3A%22a%22%7D&val-tgt-ue=%7B%22valUeId%22%3A%22b%22%7D",
        ] {
            let problem = ProfileQuery::parse(wrong).unwrap_err();
            assert!(problem.has_cause(cause::MANDATORY_QUERY_PARAM_INCORRECT), "{wrong}");
        }
    }

    #[test]
    fn a_profile_is_spelled_as_in_29_549() {
        let value = json!({
            "profileInformation": "{\"ueServiceIds\":[\"meter-7@lab.example\"]}",
            "valTgtUe": {"valUeId": "msisdn-491700000001"}
        });
        let profile: ProfileDoc = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(profile).unwrap(), value);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_query_makes_the_parser_panic(query in ".{0,100}") {
            let _ = ProfileQuery::parse(&query);
        }
    }
}
