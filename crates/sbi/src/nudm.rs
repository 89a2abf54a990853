//! Nudm_UEAuthentication (TS 29.503 clause 6.3) and the identifier translation of Nudm_SubscriberDataManagement
//! (TS 29.503 clause 6.1): types and client.

use akma::{CkPrime, Gpsi, IkPrime, KAusf, Res, ResStar, RoutingIndicator, ServingNetworkName, Supi};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::client::SbiClient;
use crate::coding::{HexOctets, hex_key, path_segment, resource};
pub use crate::common::{AuthType, SupiOrSuci};
use crate::error::SbiError;
use crate::nrf::{NrfClient, ProducerRoot};
use crate::services;

/// Path of Nudm_UEAuthentication below its root.
pub const UEAU_API_PATH: &str = "/nudm-ueau/v1";
/// Path of Nudm_SubscriberDataManagement below its root.
pub const SDM_API_PATH: &str = "/nudm-sdm/v2";

/// What a USIM answered when it found a sequence number out of range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResynchronizationInfo {
    /// RAND of the challenge refused.
    pub rand: HexOctets<16>,
    /// AUTS.
    pub auts: HexOctets<14>,
}

/// AUSF's request for a vector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthenticationInfoRequest {
    /// Features the sender supports, a hexadecimal bitmask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supported_features: Option<String>,
    /// The network the UE is in.
    pub serving_network_name: ServingNetworkName,
    /// After a synchronisation failure: what the USIM answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resynchronization_info: Option<ResynchronizationInfo>,
    /// Which AUSF asks: its NF instance ID.
    pub ausf_instance_id: String,
}

/// UDM's answer with a vector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthenticationInfoResult {
    /// The method.
    pub auth_type: AuthType,
    /// Features both sides support, a hexadecimal bitmask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supported_features: Option<String>,
    /// The vector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication_vector: Option<AuthenticationVector>,
    /// Who the UE is, when the request had a SUCI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supi: Option<Supi>,
    /// Whether the subscription allows AKMA (TS 33.535 clause 6.1).
    #[serde(default)]
    pub akma_ind: bool,
    /// The UE's routing indicator, which enters the A-KID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing_id: Option<RoutingIndicator>,
}

/// An authentication vector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "avType")]
pub enum AuthenticationVector {
    /// For 5G AKA.
    #[serde(rename = "5G_HE_AKA")]
    FiveGHeAka(Av5GHeAka),
    /// For EAP-AKA'.
    #[serde(rename = "EAP_AKA_PRIME")]
    EapAkaPrime(AvEapAkaPrime),
}

/// A home environment vector of 5G AKA (TS 33.501 clause 6.1.3.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Av5GHeAka {
    /// RAND.
    pub rand: HexOctets<16>,
    /// XRES*.
    #[serde(with = "hex_key")]
    pub xres_star: ResStar,
    /// AUTN.
    pub autn: HexOctets<16>,
    /// K_AUSF.
    #[serde(with = "hex_key")]
    pub kausf: KAusf,
}

/// A vector of EAP-AKA' (TS 33.501 clause 6.1.3.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AvEapAkaPrime {
    /// RAND.
    pub rand: HexOctets<16>,
    /// XRES, 4 to 16 octets.
    #[serde(with = "hex_key")]
    pub xres: Res,
    /// AUTN.
    pub autn: HexOctets<16>,
    /// CK'.
    #[serde(with = "hex_key")]
    pub ck_prime: CkPrime,
    /// IK'.
    #[serde(with = "hex_key")]
    pub ik_prime: IkPrime,
}

/// The outcome of an authentication, as AUSF reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthEvent {
    /// Which AUSF reports: its NF instance ID.
    pub nf_instance_id: String,
    /// Whether the UE proved itself.
    pub success: bool,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub time_stamp: OffsetDateTime,
    /// The method.
    pub auth_type: AuthType,
    /// The network the UE was in.
    pub serving_network_name: ServingNetworkName,
    /// Set in an update: the result no longer holds.
    #[serde(default)]
    pub auth_removal_ind: bool,
}

/// What the identifiers of a subscription translate to (TS 29.503 IdTranslationResult).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdTranslationResult {
    /// The SUPI.
    pub supi: Supi,
    /// A GPSI of the subscription, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpsi: Option<Gpsi>,
}

/// Asks a UDM.
#[derive(Debug, Clone)]
pub struct NudmClient {
    ueau: SbiClient,
    sdm: SbiClient,
    ueau_root: ProducerRoot,
    sdm_root: ProducerRoot,
}

impl NudmClient {
    /// A client of the UDM at `root`, for example `https://udm.example:8443`.
    #[must_use]
    pub fn new(http: SbiClient, root: impl Into<String>) -> Self {
        let root = ProducerRoot::fixed(root);
        Self::at(http, root.clone(), root)
    }

    /// A client of the UDM that stands as `root` in the configuration ([`ProducerRoot`]).
    ///
    /// # Errors
    /// As [`ProducerRoot::new`].
    pub fn found(http: SbiClient, root: &str, nrf: Option<&NrfClient>) -> Result<Self, SbiError> {
        let of = |service| ProducerRoot::new(root, services::UDM, service, nrf);
        Ok(Self::at(http, of(services::NUDM_UEAU.service)?, of(services::NUDM_SDM.service)?))
    }

    fn at(http: SbiClient, ueau_root: ProducerRoot, sdm_root: ProducerRoot) -> Self {
        let http = http.inside_domain();
        Self {
            ueau: http.for_service(services::UDM, services::NUDM_UEAU.service),
            sdm: http.for_service(services::UDM, services::NUDM_SDM.service),
            ueau_root,
            sdm_root,
        }
    }

    /// GenerateAuthData: the next vector of a subscription.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn generate_auth_data(
        &self,
        ue: &SupiOrSuci,
        request: &AuthenticationInfoRequest,
    ) -> Result<AuthenticationInfoResult, SbiError> {
        let path = format!("{UEAU_API_PATH}/{}/security-information/generate-auth-data", path_segment(ue.as_str()));
        let root = self.ueau_root.current().await?;
        let answer = self.ueau.post(&resource(&root, &path), request).await;
        self.ueau_root.forget(&answer);
        answer?.into_body()
    }

    /// ConfirmAuth: reports an authentication; returns the URI of the event, by which it can be removed.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn confirm_auth(&self, supi: &Supi, event: &AuthEvent) -> Result<Option<String>, SbiError> {
        let path = format!("{UEAU_API_PATH}/{}/auth-events", path_segment(supi.as_str()));
        let root = self.ueau_root.current().await?;
        let answer = self.ueau.post::<_, AuthEvent>(&resource(&root, &path), event).await;
        self.ueau_root.forget(&answer);
        Ok(answer?.location)
    }

    /// DeleteAuth: withdraws the event `event_id` of `supi`.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn delete_auth(&self, supi: &Supi, event_id: &str, event: &AuthEvent) -> Result<(), SbiError> {
        let path = format!("{UEAU_API_PATH}/{}/auth-events/{}", path_segment(supi.as_str()), path_segment(event_id));
        let root = self.ueau_root.current().await?;
        let answer = self.ueau.put::<_, serde_json::Value>(&resource(&root, &path), event).await;
        self.ueau_root.forget(&answer);
        answer.map(drop)
    }

    /// GetSupiOrGpsi: the identifiers that go with `supi`; `None` when UDM does not know it.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn id_translation(&self, supi: &Supi) -> Result<Option<IdTranslationResult>, SbiError> {
        let path = format!("{SDM_API_PATH}/{}/id-translation-result", path_segment(supi.as_str()));
        let root = self.sdm_root.current().await?;
        let mut answer = self.sdm.get(&resource(&root, &path)).await;
        if let Some(root) = self.sdm_root.elsewhere(&root, &answer).await {
            answer = self.sdm.get(&resource(&root, &path)).await;
        }
        match answer {
            Ok(response) => response.into_body().map(Some),
            Err(SbiError::Problem(problem)) if problem.status == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_vector_is_told_by_its_type() {
        let value = json!({
            "authType": "5G_AKA",
            "authenticationVector": {
                "avType": "5G_HE_AKA",
                "rand": "23553cbe9637a89d218ae64dae47bf35",
                "xresStar": "000102030405060708090a0b0c0d0e0f",
                "autn": "55f328b43577b9b94a9ffac354dfafb3",
                "kausf": "474698caf02cc715db2ec0726510cfee6caa5bb1a649cb01224f2e23af94de1b"
            },
            "supi": "imsi-001010000000001", "akmaInd": true, "routingId": "17"
        });
        let result: AuthenticationInfoResult = serde_json::from_value(value.clone()).unwrap();
        assert!(result.akma_ind);
        assert_eq!(serde_json::to_value(&result).unwrap(), value);
        assert!(!format!("{result:?}").contains("474698"));
    }

    #[test]
    fn akma_is_not_allowed_unless_it_is_said() {
        let result: AuthenticationInfoResult = serde_json::from_value(json!({"authType": "EAP_TLS"})).unwrap();
        assert!(!result.akma_ind);
        assert_eq!(result.auth_type, AuthType::Other("EAP_TLS".to_owned()));
    }

    #[test]
    fn auts_has_fourteen_octets() {
        let auts = |digits: usize| json!({"rand": "0".repeat(32), "auts": "0".repeat(digits)});
        assert!(serde_json::from_value::<ResynchronizationInfo>(auts(28)).is_ok());
        assert!(serde_json::from_value::<ResynchronizationInfo>(auts(26)).is_err());
    }
}
