//! `capif-security/v1` and `aef-security/v1` (TS 29.222 clauses 8.5 and 9.1): which method secures an invoker's calls, tokens,
//! and their end.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::exposing_function::WebsockNotifConfig;
use super::publish::{InterfaceDescription, SecurityMethod};
use super::{non_empty, some_non_empty};

/// A security context: per interface, the methods an invoker prefers and the one that was chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSecurity {
    /// One entry per interface.
    #[serde(deserialize_with = "non_empty")]
    pub security_info: Vec<SecurityInformation>,
    /// Where the invoker is told of a revocation.
    pub notification_destination: String,
    /// Not supported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_test_notification: Option<bool>,
    /// Not supported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub websock_notif_config: Option<WebsockNotifConfig>,
    /// Features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supported_features: Option<String>,
}

/// One entry of a [`ServiceSecurity`]. Exactly one of interface and AEF. Not printed: it may hold AEF_PSK.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecurityInformation {
    /// The interface, or
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface_details: Option<InterfaceDescription>,
    /// the API exposing function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aef_id: Option<String>,
    /// One service API there; all of them if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_id: Option<String>,
    /// The invoker's wishes, the dearest first.
    #[serde(deserialize_with = "non_empty")]
    pub pref_security_methods: Vec<SecurityMethod>,
    /// The core function's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sel_security_method: Option<SecurityMethod>,
    /// For the AEF: AEF_PSK in hex with method PSK, else the serial number of the invoker's certificate in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication_info: Option<String>,
    /// For the AEF: JSON text of [`AuthorizationInfo`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_info: Option<String>,
    /// Grant types of the invoker.
    #[serde(default, deserialize_with = "some_non_empty", skip_serializing_if = "Option::is_none")]
    pub grant_type: Option<Vec<String>>,
}

impl SecurityInformation {
    /// A wish for the APIs of `aef_id`.
    #[must_use]
    pub fn for_aef(aef_id: &str, api_id: Option<&str>, preferred: Vec<SecurityMethod>) -> Self {
        Self {
            interface_details: None,
            aef_id: Some(aef_id.to_owned()),
            api_id: api_id.map(str::to_owned),
            pref_security_methods: preferred,
            sel_security_method: None,
            authentication_info: None,
            authorization_info: None,
            grant_type: None,
        }
    }

    /// Whether it has exactly one of interface and AEF.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        self.interface_details.is_some() != self.aef_id.is_some()
            && self.interface_details.as_ref().is_none_or(InterfaceDescription::is_well_formed)
    }
}

impl fmt::Debug for SecurityInformation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecurityInformation")
            .field("aef_id", &self.aef_id)
            .field("api_id", &self.api_id)
            .field("sel_security_method", &self.sel_security_method)
            .finish_non_exhaustive()
    }
}

/// What `authorizationInfo` holds, as JSON text: the standard has a string without a form.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizationInfo {
    /// Names of the service APIs at this AEF that the entry covers.
    pub api_names: Vec<String>,
    /// Names that the operator tied to the invoker's onboarding credential.
    pub names: Vec<String>,
}

/// The end of an authorization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecurityNotification {
    /// Whose.
    pub api_invoker_id: String,
    /// At which AEF; at all of them if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aef_id: Option<String>,
    /// For which service APIs.
    #[serde(deserialize_with = "non_empty")]
    pub api_ids: Vec<String>,
    /// `OVERLIMIT_USAGE` or `UNEXPECTED_REASON`.
    pub cause: String,
}

/// `UNEXPECTED_REASON`: off-boarded, unpublished, or withdrawn by its AEF.
pub const UNEXPECTED_REASON: &str = "UNEXPECTED_REASON";

/// The form of a token request.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AccessTokenReq {
    /// `client_credentials`; nothing else is supported.
    #[serde(default)]
    pub grant_type: String,
    /// The API invoker ID.
    #[serde(default)]
    pub client_id: String,
    /// Not looked at: the invoker's certificate proves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<String>,
    /// A [`super::scope::CapifScope`]; all that the context has with method OAUTH if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

/// A token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessTokenRsp {
    /// JWS of [`AccessTokenClaims`].
    pub access_token: String,
    /// `Bearer`.
    pub token_type: String,
    /// Seconds.
    pub expires_in: u64,
    /// What it is good for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

impl fmt::Debug for AccessTokenRsp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessTokenRsp").field("scope", &self.scope).finish_non_exhaustive()
    }
}

/// Claims of a token. TS 29.222 demands `iss`, TS 33.122 clause C.2.2 `client_id`; both are there, and both are checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessTokenClaims {
    /// The core function.
    pub iss: String,
    /// The API invoker ID.
    pub client_id: String,
    /// A [`super::scope::CapifScope`].
    pub scope: String,
    /// Seconds since 1970 (RFC 7519), although TS 29.222 types it as a duration.
    pub exp: u64,
    /// Seconds since 1970.
    #[serde(default)]
    pub iat: u64,
}

/// Why there is no token (RFC 6749 clause 5.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessTokenErr {
    /// `invalid_scope` and its like.
    pub error: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_description: Option<String>,
}

/// `check-authentication` of the AEF.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckAuthenticationReq {
    /// Who.
    pub api_invoker_id: String,
    /// Features.
    pub supported_features: String,
}

/// `revoke-authorization` of the AEF.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevokeAuthorizationReq {
    /// What ends.
    pub revoke_info: SecurityNotification,
    /// Features.
    pub supported_features: String,
}

/// Answer of both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AefSecurityRsp {
    /// Features.
    pub supported_features: String,
}
