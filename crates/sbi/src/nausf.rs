//! Nausf_UEAuthentication (TS 29.509 clause 6.1): types and client.

use std::collections::BTreeMap;

use akma::{HresStar, KSeaf, Msk, ResStar, RoutingIndicator, ServingNetworkName, Supi};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::client::SbiClient;
use crate::coding::{HexOctets, base64_nullable, hex_key, hex_key_option, resource};
pub use crate::common::{AuthType, Link, SupiOrSuci};
use crate::error::SbiError;
pub use crate::nudm::ResynchronizationInfo;
use crate::services;

/// Path of the API below its root.
pub const API_PATH: &str = "/nausf-auth/v1";
/// Relation in `_links` under which a 5G AKA context names its confirmation resource.
pub const LINK_5G_AKA: &str = "5g-aka";
/// Relation in `_links` under which an EAP context names its session resource.
pub const LINK_EAP_SESSION: &str = "eap-session";

/// A request to authenticate a UE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthenticationInfo {
    /// The UE.
    pub supi_or_suci: SupiOrSuci,
    /// The network it is in.
    pub serving_network_name: ServingNetworkName,
    /// After a synchronisation failure: what the USIM answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resynchronization_info: Option<ResynchronizationInfo>,
    /// The UE's routing indicator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing_indicator: Option<RoutingIndicator>,
    /// Features the sender supports, a hexadecimal bitmask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supported_features: Option<String>,
}

/// An authentication under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UEAuthenticationCtx {
    /// The method.
    pub auth_type: AuthType,
    /// The challenge.
    #[serde(rename = "5gAuthData")]
    pub five_g_auth_data: FiveGAuthData,
    /// Where to go on: [`LINK_5G_AKA`] or [`LINK_EAP_SESSION`].
    #[serde(rename = "_links")]
    pub links: BTreeMap<String, Link>,
    /// The network the UE is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving_network_name: Option<ServingNetworkName>,
}

/// The challenge of [`UEAuthenticationCtx`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FiveGAuthData {
    /// A 5G AKA vector.
    Av5gAka(Av5gAka),
    /// An EAP packet, base64 in JSON.
    EapPayload(#[serde(with = "base64_nullable")] Option<Vec<u8>>),
}

/// What the serving network needs for 5G AKA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Av5gAka {
    /// RAND.
    pub rand: HexOctets<16>,
    /// HXRES*.
    #[serde(with = "hex_key")]
    pub hxres_star: HresStar,
    /// AUTN.
    pub autn: HexOctets<16>,
}

/// The serving network's confirmation of 5G AKA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfirmationData {
    /// RES*, null when the UE gave none. The member itself is mandatory.
    #[serde(with = "hex_key_option")]
    pub res_star: Option<ResStar>,
    /// Features the sender supports, a hexadecimal bitmask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supported_features: Option<String>,
}

/// How 5G AKA ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfirmationDataResponse {
    /// The result.
    pub auth_result: AuthResult,
    /// After success: who the UE is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supi: Option<Supi>,
    /// After success: K_SEAF.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "hex_key_option")]
    pub kseaf: Option<KSeaf>,
}

/// One EAP packet in either direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EapSession {
    /// The packet, base64 in JSON; null for none. The member itself is mandatory.
    #[serde(with = "base64_nullable")]
    pub eap_payload: Option<Vec<u8>>,
    /// After success: K_SEAF.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "hex_key_option")]
    pub k_seaf: Option<KSeaf>,
    /// While it goes on: where to send the next packet.
    #[serde(default, rename = "_links", skip_serializing_if = "BTreeMap::is_empty")]
    pub links: BTreeMap<String, Link>,
    /// The result, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_result: Option<AuthResult>,
    /// After success: who the UE is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supi: Option<Supi>,
    /// Features the sender supports, a hexadecimal bitmask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supported_features: Option<String>,
    /// MSK, where the serving network asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "hex_key_option")]
    pub msk: Option<Msk>,
}

impl EapSession {
    /// A session message that carries a packet and nothing else.
    #[must_use]
    pub fn packet(eap_payload: Vec<u8>) -> Self {
        Self {
            eap_payload: Some(eap_payload),
            k_seaf: None,
            links: BTreeMap::new(),
            auth_result: None,
            supi: None,
            supported_features: None,
            msk: None,
        }
    }
}

/// The result of an authentication; a closed enumeration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AuthResult {
    /// The UE is who it says it is.
    AuthenticationSuccess,
    /// It is not, or did not prove it.
    AuthenticationFailure,
    /// More messages are to come.
    AuthenticationOngoing,
}

/// Request to forget a UE's security context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeregistrationInfo {
    /// The UE.
    pub supi: Supi,
    /// Features the sender supports, a hexadecimal bitmask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supported_features: Option<String>,
}

/// Asks an authentication server function, in the place of an AMF.
#[derive(Debug, Clone)]
pub struct NausfClient {
    http: SbiClient,
    root: String,
}

impl NausfClient {
    /// A client of the AUSF at `root`, for example `https://ausf.example:8443`.
    #[must_use]
    pub fn new(http: SbiClient, root: impl Into<String>) -> Self {
        Self { http: http.for_service(services::AUSF, services::NAUSF_AUTH.service), root: root.into() }
    }

    /// Starts an authentication. The answer's links are made absolute.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn authenticate(&self, request: &AuthenticationInfo) -> Result<UEAuthenticationCtx, SbiError> {
        let uri = resource(&self.root, &format!("{API_PATH}/ue-authentications"));
        let mut context: UEAuthenticationCtx = self.http.post(&uri, request).await?.into_body()?;
        make_absolute(&uri, &mut context.links)?;
        Ok(context)
    }

    /// Confirms 5G AKA at the context's [`LINK_5G_AKA`].
    ///
    /// # Errors
    /// [`SbiError::Malformed`] when the context has no such link; else any but those of starting.
    pub async fn confirm_5g_aka(
        &self,
        context: &UEAuthenticationCtx,
        res_star: Option<ResStar>,
    ) -> Result<ConfirmationDataResponse, SbiError> {
        let uri = link(&context.links, LINK_5G_AKA)?;
        self.http.put(uri, &ConfirmationData { res_star, supported_features: None }).await?.into_body()
    }

    /// Sends the UE's next EAP packet to [`LINK_EAP_SESSION`] of `links`, which are those of the context or of the
    /// last answer. The answer's links are made absolute.
    ///
    /// # Errors
    /// [`SbiError::Malformed`] when there is no such link; else any but those of starting.
    pub async fn eap_session(
        &self,
        links: &BTreeMap<String, Link>,
        eap_payload: Vec<u8>,
    ) -> Result<EapSession, SbiError> {
        let uri = link(links, LINK_EAP_SESSION)?;
        let mut session: EapSession = self.http.post(uri, &EapSession::packet(eap_payload)).await?.into_body()?;
        make_absolute(uri, &mut session.links)?;
        Ok(session)
    }

    /// Tells AUSF that the UE is gone, so that it forgets the security context.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn deregister(&self, supi: &Supi) -> Result<(), SbiError> {
        let uri = resource(&self.root, &format!("{API_PATH}/ue-authentications/deregister"));
        let request = DeregistrationInfo { supi: supi.clone(), supported_features: None };
        self.http.post::<_, serde_json::Value>(&uri, &request).await.map(drop)
    }
}

fn link<'a>(links: &'a BTreeMap<String, Link>, relation: &str) -> Result<&'a str, SbiError> {
    links.get(relation).map(|link| link.href.as_str()).ok_or_else(|| SbiError::Malformed(format!("no link {relation}")))
}

/// Resolves links against the resource they came from. A link may lead to another server, which then has to show
/// a certificate of the same authority; it may not lead out of `https`.
fn make_absolute(base: &str, links: &mut BTreeMap<String, Link>) -> Result<(), SbiError> {
    let base = Url::parse(base).map_err(|_| SbiError::InvalidUri)?;
    for link in links.values_mut() {
        let target = base.join(&link.href).map_err(|_| SbiError::Malformed("a link that is no URI".to_owned()))?;
        if target.scheme() != "https" {
            return Err(SbiError::Malformed("a link that is not https".to_owned()));
        }
        link.href = target.into();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_context_is_spelled_as_in_29_509() {
        let value = json!({
            "authType": "5G_AKA",
            "5gAuthData": {
                "rand": "23553cbe9637a89d218ae64dae47bf35",
                "hxresStar": "000102030405060708090a0b0c0d0e0f",
                "autn": "55f328b43577b9b94a9ffac354dfafb3"
            },
            "_links": {"5g-aka": {"href": "https://ausf.example/nausf-auth/v1/ue-authentications/1/5g-aka-confirmation"}},
            "servingNetworkName": "5G:mnc001.mcc001.3gppnetwork.org"
        });
        let context: UEAuthenticationCtx = serde_json::from_value(value.clone()).unwrap();
        assert!(matches!(context.five_g_auth_data, FiveGAuthData::Av5gAka(_)));
        assert_eq!(serde_json::to_value(&context).unwrap(), value);
    }

    #[test]
    fn an_eap_challenge_is_base64() {
        let value = json!({
            "authType": "EAP_AKA_PRIME", "5gAuthData": "AQIABA==", "_links": {"eap-session": {"href": "/x"}}
        });
        let context: UEAuthenticationCtx = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(context.five_g_auth_data, FiveGAuthData::EapPayload(Some(vec![1, 2, 0, 4])));
        assert_eq!(serde_json::to_value(&context).unwrap(), value);
    }

    #[test]
    fn res_star_may_be_null_but_must_be_there() {
        assert!(serde_json::from_value::<ConfirmationData>(json!({"resStar": null})).unwrap().res_star.is_none());
        assert!(serde_json::from_value::<ConfirmationData>(json!({})).is_err());
        assert!(serde_json::from_value::<EapSession>(json!({})).is_err());
    }

    #[test]
    fn results_are_spelled_as_in_29_509() {
        let response =
            ConfirmationDataResponse { auth_result: AuthResult::AuthenticationFailure, supi: None, kseaf: None };
        assert_eq!(serde_json::to_value(response).unwrap(), json!({"authResult": "AUTHENTICATION_FAILURE"}));
    }

    #[test]
    fn links_are_resolved_against_their_resource_and_stay_in_https() {
        let mut links = BTreeMap::from([("5g-aka".to_owned(), Link { href: "/nausf-auth/v1/x".to_owned() })]);
        make_absolute("https://ausf.example:8443/nausf-auth/v1/ue-authentications", &mut links).unwrap();
        assert_eq!(links["5g-aka"].href, "https://ausf.example:8443/nausf-auth/v1/x");
        let mut links = BTreeMap::from([("5g-aka".to_owned(), Link { href: "http://elsewhere/".to_owned() })]);
        assert!(make_absolute("https://ausf.example/", &mut links).is_err());
    }
}
