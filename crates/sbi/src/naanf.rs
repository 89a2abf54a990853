//! Naanf_AKMA (TS 29.535 clause 5.1, types of TS 29.522 clause 5.13): types and client, which is a
//! [`transport::KeySource`] too.

mod consumer;
mod key_source;
mod selection;
mod service_disable;
mod superseding;

pub(crate) use key_source::key_source_error;
pub use key_source::{GPSI_NOT_AVAILABLE, GPSI_NOT_YET_KNOWN};

use akma::{AKid, AfId, Gpsi, KAf, KAkma, Supi, UeId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::client::SbiClient;
use crate::coding::{hex_key, resource};
use crate::error::SbiError;
use crate::features::SupportedFeatures;
use crate::services;

pub use consumer::{
    DisableMetrics, DisableSubscription, NotificationSection, RecentlyDisabled, SERVICE_DISABLE_PATH, ServiceDisabled,
    notification_door,
};
pub use selection::AnchorRoute;
use selection::Anchors;
pub use service_disable::{
    FEATURES, InvalidNotificationUri, NotificationUri, ServiceDisableNotif, feature, notify_service_disabled,
};
pub use superseding::Superseding;

/// Path of the API below its root.
pub const API_PATH: &str = "/naanf-akma/v1";

/// AKMA key material of one UE, as AUSF registers it (TS 29.535 AkmaKeyInfo).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "AkmaKeyInfoMembers", into = "AkmaKeyInfoMembers")]
pub struct AkmaKeyInfo {
    /// Features the sender supports.
    pub supp_feat: Option<SupportedFeatures>,
    /// The UE: exactly one of `supi` and `gpsi` in JSON.
    pub ue_id: UeId,
    /// The A-KID.
    pub a_kid: AKid,
    /// K_AKMA, 64 hexadecimal digits in JSON.
    pub k_akma: KAkma,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AkmaKeyInfoMembers {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    supp_feat: Option<SupportedFeatures>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    supi: Option<Supi>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gpsi: Option<Gpsi>,
    #[serde(rename = "aKId")]
    a_kid: AKid,
    #[serde(with = "hex_key")]
    k_akma: KAkma,
}

impl TryFrom<AkmaKeyInfoMembers> for AkmaKeyInfo {
    type Error = &'static str;

    fn try_from(members: AkmaKeyInfoMembers) -> Result<Self, Self::Error> {
        let ue_id = match (members.supi, members.gpsi) {
            (Some(supi), None) => UeId::Supi(supi),
            (None, Some(gpsi)) => UeId::Gpsi(gpsi),
            // In serde's own words, so that the refusal becomes MANDATORY_IE_MISSING.
            (None, None) => return Err("missing field `supi`"),
            (Some(_), Some(_)) => return Err("both supi and gpsi"),
        };
        Ok(Self { supp_feat: members.supp_feat, ue_id, a_kid: members.a_kid, k_akma: members.k_akma })
    }
}

impl From<AkmaKeyInfo> for AkmaKeyInfoMembers {
    fn from(info: AkmaKeyInfo) -> Self {
        let (supi, gpsi) = match info.ue_id {
            UeId::Supi(supi) => (Some(supi), None),
            UeId::Gpsi(gpsi) => (None, Some(gpsi)),
        };
        Self { supp_feat: info.supp_feat, supi, gpsi, a_kid: info.a_kid, k_akma: info.k_akma }
    }
}

/// An application function's request for K_AF (TS 29.522 AkmaAfKeyRequest).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AkmaAfKeyRequest {
    /// Features the sender supports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supp_feat: Option<SupportedFeatures>,
    /// Who asks, and for which Ua* protocol: `<FQDN>:<ten hexadecimal digits>`.
    pub af_id: AfId,
    /// The A-KID the UE showed.
    #[serde(rename = "aKId")]
    pub a_kid: AKid,
    /// Whether the key is wanted without any identity of the UE.
    #[serde(default, skip_serializing_if = "is_false")]
    pub anon_ind: bool,
    /// Where to be told that AKMA is no longer to be used under this A-KID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notif_uri: Option<NotificationUri>,
}

impl AkmaAfKeyRequest {
    /// A request that asks for the UE's identity, too.
    #[must_use]
    pub fn new(af_id: AfId, a_kid: AKid) -> Self {
        Self { supp_feat: None, af_id, a_kid, anon_ind: false, notif_uri: None }
    }

    /// The same, asking to be notified at `uri` ([`ServiceDisableNotif`]). The answer's `supp_feat` has
    /// [`feature::SERVICE_DISABLE_NOTIFICATION`] where the AAnF will.
    #[must_use]
    pub fn with_notifications(self, uri: NotificationUri) -> Self {
        let supp_feat = Some(SupportedFeatures::of(&[feature::SERVICE_DISABLE_NOTIFICATION]));
        Self { supp_feat, notif_uri: Some(uri), ..self }
    }
}

/// K_AF and what belongs to it (TS 29.522 AkmaAfKeyData).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AkmaAfKeyData {
    /// Features both sides support.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supp_feat: Option<SupportedFeatures>,
    /// The UE's GPSI; only when the SUPI is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpsi: Option<Gpsi>,
    /// When K_AF ceases to be valid.
    #[serde(with = "time::serde::rfc3339")]
    pub expiry: OffsetDateTime,
    /// K_AF, 64 hexadecimal digits in JSON.
    #[serde(with = "hex_key")]
    pub kaf: KAf,
    /// The UE's SUPI; only for functions of the operator's own domain that may see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supi: Option<Supi>,
}

impl AkmaAfKeyData {
    /// The UE's identity, the SUPI where both are given; `None` for an anonymous request.
    #[must_use]
    pub fn ue_id(&self) -> Option<UeId> {
        self.supi.clone().map(UeId::Supi).or_else(|| self.gpsi.clone().map(UeId::Gpsi))
    }
}

/// Request to forget the AKMA context of a UE (TS 29.535 CtxRemove; its description makes `supi` mandatory).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CtxRemove {
    /// The UE.
    pub supi: Supi,
}

/// Asks an AKMA anchor function, or that of several which serves the A-KID's routing indicator.
#[derive(Debug, Clone)]
pub struct NaanfClient {
    registrar: SbiClient,
    requester: SbiClient,
    anchors: Anchors,
    /// Where we are told of AKMA disabled, with what is asked as a [`transport::KeySource`].
    subscription: DisableSubscription,
}

impl NaanfClient {
    /// A client of the AAnF at `root`, for example `https://aanf.example:8443`.
    #[must_use]
    pub fn new(http: SbiClient, root: impl Into<String>) -> Self {
        Self::selecting(http, root, Vec::new())
    }

    /// A client of several AAnFs: of that of `routes` which serves the routing indicator of an A-KID, and else of the one
    /// at `root`.
    #[must_use]
    pub fn selecting(http: SbiClient, root: impl Into<String>, routes: Vec<AnchorRoute>) -> Self {
        let http = http.inside_domain();
        Self {
            registrar: http.for_service(services::AANF, services::NAANF_ANCHORKEY),
            requester: http.for_service(services::AANF, services::NAANF_APPLICATIONKEY_SUPI),
            anchors: Anchors { general: root.into(), routes },
            subscription: DisableSubscription::default(),
        }
    }

    /// The same client, whose tokens do not ask for the SUPI: for a consumer that the AAnF gives no SUPI anyway.
    #[must_use]
    pub fn without_supi(self) -> Self {
        Self { requester: self.requester.for_service(services::AANF, services::NAANF_APPLICATIONKEY), ..self }
    }

    /// The same client, whose questions as a [`transport::KeySource`] ask for notifications as `subscription` says.
    #[must_use]
    pub fn subscribing(self, subscription: DisableSubscription) -> Self {
        Self { subscription, ..self }
    }

    /// Naanf_AKMA_AnchorKey_Register: stores a UE's key material in place of any older.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn register_anchorkey(&self, info: &AkmaKeyInfo) -> Result<AkmaKeyInfo, SbiError> {
        self.registrar.post(&self.uri(&info.a_kid, "register-anchorkey"), info).await?.into_body()
    }

    /// Naanf_AKMA_ApplicationKey_Get: K_AF, or `None` when the A-KID is unknown.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting; [`SbiError::Problem`] with 403 when the AF_ID is not ours to ask for,
    /// or K_AF has expired.
    pub async fn retrieve_applicationkey(&self, request: &AkmaAfKeyRequest) -> Result<Option<AkmaAfKeyData>, SbiError> {
        let response = self.requester.post(&self.uri(&request.a_kid, "retrieve-applicationkey"), request).await?;
        if response.status == http::StatusCode::NO_CONTENT { Ok(None) } else { response.into_body().map(Some) }
    }

    /// Naanf_AKMA_Context_Remove: forgets a UE's key material. No error when there was none. No routing indicator comes
    /// with it, so every AAnF is asked, the others too when one fails.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting; the first one.
    pub async fn remove_context(&self, supi: &Supi) -> Result<(), SbiError> {
        let request = CtxRemove { supi: supi.clone() };
        let mut outcome = Ok(());
        for root in self.anchors.all() {
            let uri = resource(root, &format!("{API_PATH}/remove-context"));
            let removed = self.registrar.post::<_, serde_json::Value>(&uri, &request).await.map(drop);
            outcome = outcome.and(removed);
        }
        outcome
    }

    /// The root of the general AAnF.
    pub(crate) fn general_root(&self) -> &str {
        &self.anchors.general
    }

    /// The root of the AAnF that is asked about this A-KID.
    fn root_of(&self, a_kid: &AKid) -> &str {
        self.anchors.root(a_kid)
    }

    fn uri(&self, a_kid: &AKid, operation: &str) -> String {
        resource(self.root_of(a_kid), &format!("{API_PATH}/{operation}"))
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::extract::parse_json;
    use crate::problem::cause;

    const KEY: &str = "176cdc89b8bc8634d912bf84cb7ed7b85afe1b8802afa110d1100a881df659a3";

    fn parsed(value: serde_json::Value) -> Result<AkmaKeyInfo, crate::ProblemDetails> {
        parse_json(value.to_string().as_bytes())
    }

    #[test]
    fn key_info_has_exactly_one_identity() {
        let info = parsed(json!({"supi": "imsi-001010000000001", "aKId": "1.a@b", "kAkma": KEY})).unwrap();
        assert_eq!(info.ue_id.as_str(), "imsi-001010000000001");
        assert!(parsed(json!({"gpsi": "msisdn-491700000001", "aKId": "1.a@b", "kAkma": KEY})).is_ok());

        let none = parsed(json!({"aKId": "1.a@b", "kAkma": KEY})).unwrap_err();
        assert!(none.has_cause(cause::MANDATORY_IE_MISSING));
        let both =
            json!({"supi": "imsi-001010000000001", "gpsi": "msisdn-491700000001", "aKId": "1.a@b", "kAkma": KEY});
        assert!(parsed(both).unwrap_err().has_cause(cause::MANDATORY_IE_INCORRECT));
    }

    #[test]
    fn key_info_is_written_as_it_is_read() {
        let value = json!({"supi": "imsi-001010000000001", "aKId": "1.a@b", "kAkma": KEY});
        assert_eq!(serde_json::to_value(parsed(value.clone()).unwrap()).unwrap(), value);
    }

    #[test]
    fn a_short_key_is_named_and_not_repeated() {
        let problem = parsed(json!({"supi": "imsi-001010000000001", "aKId": "1.a@b", "kAkma": "abcd"})).unwrap_err();
        assert_eq!(problem.invalid_params[0].param, "/kAkma");
        assert!(!serde_json::to_string(&problem).unwrap().contains("abcd"));
    }

    #[test]
    fn key_data_is_spelled_as_in_29_522() {
        let data: AkmaAfKeyData = serde_json::from_value(
            json!({"kaf": KEY, "expiry": "2026-12-01T00:00:00Z", "gpsi": "msisdn-491700000001"}),
        )
        .unwrap();
        assert_eq!(data.ue_id().unwrap().as_str(), "msisdn-491700000001");
        assert_eq!(serde_json::to_value(&data).unwrap()["expiry"], "2026-12-01T00:00:00Z");
        assert!(!format!("{data:?}").contains("176cdc"));
    }

    #[test]
    fn a_notification_uri_that_is_none_is_named() {
        let request = json!({"afId": "msgin5g.example.com:0100000007", "aKId": "1.a@b", "notifUri": "http://here"});
        let problem = parse_json::<AkmaAfKeyRequest>(request.to_string().as_bytes()).unwrap_err();
        assert_eq!(problem.invalid_params[0].param, "/notifUri");
    }

    #[test]
    fn anonymity_is_off_unless_asked_for() {
        let request: AkmaAfKeyRequest =
            serde_json::from_value(json!({"afId": "msgin5g.example.com:0100000007", "aKId": "1.a@b"})).unwrap();
        assert!(!request.anon_ind);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn whatever_is_accepted_is_written_and_read_back_the_same(
            supi in ".{0,24}", a_kid in ".{0,24}", key in "[0-9a-fA-F]{62,66}",
        ) {
            let text = json!({"supi": supi, "aKId": a_kid, "kAkma": key}).to_string();
            if let Ok(info) = parse_json::<AkmaKeyInfo>(text.as_bytes()) {
                let again = serde_json::to_vec(&info).unwrap();
                prop_assert_eq!(parse_json::<AkmaKeyInfo>(&again).unwrap(), info);
            }
        }
    }
}
