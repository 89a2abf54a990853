//! Nnrf_AccessToken (TS 29.510 clause 6.3, RFC 6749 clauses 4.4, 5): request, answer and refusal.

use serde::{Deserialize, Serialize};
use url::form_urlencoded;
use uuid::Uuid;

use super::management::NFType;
use crate::token::PlmnId;

/// What a token is asked for (TS 29.510 AccessTokenReq), as far as it is evaluated here; a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessTokenReq {
    /// `nfInstanceId`: who asks.
    pub nf_instance_id: Uuid,
    /// `nfType`: what asks.
    pub nf_type: Option<NFType>,
    /// `targetNfType`: the type of the producer.
    pub target_nf_type: Option<NFType>,
    /// `targetNfInstanceId`: the one producer.
    pub target_nf_instance_id: Option<Uuid>,
    /// `scope`: names separated by a space each, in the order given.
    pub scope: Vec<String>,
    /// `requesterFqdn`: a name of who asks.
    pub requester_fqdn: Option<String>,
    /// `targetNfSetId`: the set that the producer belongs to.
    pub target_nf_set_id: Option<String>,
    /// `requesterPlmn`: the PLMN of who asks.
    pub requester_plmn: Option<PlmnId>,
    /// `targetPlmn`: the PLMN of the producer.
    pub target_plmn: Option<PlmnId>,
    /// Other parameters of TS 29.510 that the form has. They say more of who asks, or narrow the token down, in ways not
    /// evaluated here. Parameters that TS 29.510 does not have are ignored (RFC 6749 clause 3.2).
    pub others: Vec<&'static str>,
}

impl AccessTokenReq {
    /// A request for a token good for all producers of a type, or with `target_nf_instance_id` for one.
    #[must_use]
    pub fn new(nf_instance_id: Uuid, scope: &str) -> Self {
        Self {
            nf_instance_id,
            nf_type: None,
            target_nf_type: None,
            target_nf_instance_id: None,
            scope: scope.split(' ').map(str::to_owned).collect(),
            requester_fqdn: None,
            target_nf_set_id: None,
            requester_plmn: None,
            target_plmn: None,
            others: Vec::new(),
        }
    }

    /// Reads a form.
    ///
    /// # Errors
    /// `unsupported_grant_type`, `invalid_scope` where the scope is not spelled as one, else `invalid_request`: a parameter
    /// is missing, wrong, or there twice (RFC 6749 clause 3.2).
    pub fn parse(form: &[u8]) -> Result<Self, AccessTokenErr> {
        let mut read: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(form) {
            if read.len() == PARAMETERS_MAX {
                return Err(invalid("too many parameters"));
            }
            // TS 29.510 sends this list as a parameter for each element.
            if name != NSI_LIST && read.iter().any(|(earlier, _)| *earlier == name) {
                return Err(invalid("a parameter given twice"));
            }
            read.push((name.into_owned(), value.into_owned()));
        }
        let mut take = |name: &str| {
            let at = read.iter().position(|(given, _)| given == name)?;
            Some(read.swap_remove(at).1)
        };
        match take("grant_type").as_deref() {
            Some(CLIENT_CREDENTIALS) => {}
            Some(_) => return Err(TokenErrorCode::UnsupportedGrantType.because("only client_credentials")),
            None => return Err(invalid("grant_type is missing")),
        }
        let id = take("nfInstanceId").ok_or_else(|| invalid("nfInstanceId is missing"))?;
        let scope = take("scope").ok_or_else(|| invalid("scope is missing"))?;
        if !is_scope(&scope) {
            return Err(TokenErrorCode::InvalidScope.because("not spelled as a scope"));
        }
        let mut request = Self::new(id.parse().map_err(|_| invalid("nfInstanceId is no UUID"))?, &scope);
        let mut nf_type = |name: &str| match take(name) {
            Some(text) => text.parse().map(Some).map_err(|_| invalid("an NF type is none")),
            None => Ok(None),
        };
        request.nf_type = nf_type("nfType")?;
        request.target_nf_type = nf_type("targetNfType")?;
        request.target_nf_instance_id = match take("targetNfInstanceId") {
            Some(id) => Some(id.parse().map_err(|_| invalid("targetNfInstanceId is no UUID"))?),
            None => None,
        };
        request.requester_fqdn = take("requesterFqdn");
        request.target_nf_set_id = take("targetNfSetId");
        let mut plmn = |name: &str| match take(name) {
            Some(text) => serde_json::from_str(&text).map(Some).map_err(|_| invalid("a PLMN is none")),
            None => Ok(None),
        };
        request.requester_plmn = plmn("requesterPlmn")?;
        request.target_plmn = plmn("targetPlmn")?;
        request.others = OTHERS.into_iter().filter(|other| read.iter().any(|(name, _)| name == other)).collect();
        Ok(request)
    }

    /// The form.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", CLIENT_CREDENTIALS);
        form.append_pair("nfInstanceId", &self.nf_instance_id.to_string());
        if let Some(nf_type) = &self.nf_type {
            form.append_pair("nfType", nf_type.as_str());
        }
        if let Some(nf_type) = &self.target_nf_type {
            form.append_pair("targetNfType", nf_type.as_str());
        }
        if let Some(id) = self.target_nf_instance_id {
            form.append_pair("targetNfInstanceId", &id.to_string());
        }
        form.append_pair("scope", &self.scope.join(" "));
        if let Some(fqdn) = &self.requester_fqdn {
            form.append_pair("requesterFqdn", fqdn);
        }
        if let Some(set) = &self.target_nf_set_id {
            form.append_pair("targetNfSetId", set);
        }
        for (name, plmn) in [("requesterPlmn", &self.requester_plmn), ("targetPlmn", &self.target_plmn)] {
            if let Some(plmn) = plmn {
                // Two texts always code.
                form.append_pair(name, &serde_json::to_string(plmn).unwrap_or_default());
            }
        }
        form.finish()
    }
}

/// A token (TS 29.510 AccessTokenRsp). The token is not printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessTokenRsp {
    /// The token, a JWS in compact form.
    pub access_token: String,
    /// `Bearer`.
    pub token_type: String,
    /// Seconds for which it is good from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
    /// What it is good for, where that is not what was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

impl std::fmt::Debug for AccessTokenRsp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessTokenRsp")
            .field("expires_in", &self.expires_in)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// Why there is no token (TS 29.510 AccessTokenErr, RFC 6749 clause 5.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessTokenErr {
    /// For a program.
    pub error: TokenErrorCode,
    /// For a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_description: Option<String>,
    /// More for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_uri: Option<String>,
}

/// The names of RFC 6749 clause 5.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenErrorCode {
    /// A parameter is missing, wrong or there twice.
    InvalidRequest,
    /// Who asks is not who it says.
    InvalidClient,
    /// Not used with client credentials.
    InvalidGrant,
    /// Who asks may not get tokens this way.
    UnauthorizedClient,
    /// Another grant than client credentials.
    UnsupportedGrantType,
    /// The scope is unknown, or not for who asks.
    InvalidScope,
}

impl TokenErrorCode {
    /// The refusal with this code, and `reason` for a person.
    #[must_use]
    pub fn because(self, reason: &str) -> AccessTokenErr {
        AccessTokenErr { error: self, error_description: Some(reason.to_owned()), error_uri: None }
    }

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::InvalidGrant => "invalid_grant",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::InvalidScope => "invalid_scope",
        }
    }
}

fn invalid(reason: &str) -> AccessTokenErr {
    TokenErrorCode::InvalidRequest.because(reason)
}

/// TS 29.510: names of letters, digits, `_`, `:` and `-`, a space between two.
fn is_scope(text: &str) -> bool {
    let name = |name: &str| {
        !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"_:-".contains(&octet))
    };
    text.split(' ').count() <= SCOPES_MAX && text.split(' ').all(name)
}

const CLIENT_CREDENTIALS: &str = "client_credentials";
const NSI_LIST: &str = "targetNsiList";
/// What else TS 29.510 lets a request have.
const OTHERS: [&str; 9] = [
    "requesterPlmnList",
    "requesterSnssaiList",
    "requesterSnpnList",
    "targetSnpn",
    "targetSnssaiList",
    NSI_LIST,
    "targetNfServiceSetId",
    "hnrfAccessTokenUri",
    "sourceNfInstanceId",
];
/// Parameters of one request.
const PARAMETERS_MAX: usize = 64;
/// Names in one scope.
const SCOPES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "4947a69a-f61b-4bc1-b9da-47c9c5d14b64";

    #[test]
    fn a_request_survives_encoding() {
        let request = AccessTokenReq {
            nf_type: Some("AUSF".parse().unwrap()),
            target_nf_type: Some("AANF".parse().unwrap()),
            target_nf_instance_id: Some(Uuid::from_u128(7)),
            requester_fqdn: Some("ausf.example".to_owned()),
            target_nf_set_id: Some("set1.aanfset.5gc.mnc001.mcc001".to_owned()),
            target_plmn: Some(PlmnId { mcc: "001".to_owned(), mnc: "01".to_owned() }),
            ..AccessTokenReq::new(ID.parse().unwrap(), "naanf-akma naanf-akma:anchorkey")
        };
        assert_eq!(AccessTokenReq::parse(request.encode().as_bytes()).unwrap(), request);
    }

    #[test]
    fn forms_are_refused_with_the_names_of_rfc_6749() {
        let sound = format!("grant_type=client_credentials&nfInstanceId={ID}&scope=naanf-akma");
        assert!(AccessTokenReq::parse(sound.as_bytes()).is_ok());
        for (form, code) in [
            (sound.replace("client_credentials", "password"), TokenErrorCode::UnsupportedGrantType),
            (sound.replace("grant_type", "grant"), TokenErrorCode::InvalidRequest),
            (sound.replace(ID, "me"), TokenErrorCode::InvalidRequest),
            (sound.replace("&scope=naanf-akma", ""), TokenErrorCode::InvalidRequest),
            (sound.replace("naanf-akma", ""), TokenErrorCode::InvalidScope),
            (sound.replace("naanf-akma", "a++b"), TokenErrorCode::InvalidScope),
            (sound.replace("naanf-akma", "%22"), TokenErrorCode::InvalidScope),
            (format!("{sound}&scope=other"), TokenErrorCode::InvalidRequest),
            (format!("{sound}&targetNfType=%00"), TokenErrorCode::InvalidRequest),
            (String::new(), TokenErrorCode::InvalidRequest),
        ] {
            assert_eq!(AccessTokenReq::parse(form.as_bytes()).unwrap_err().error, code, "{form}");
        }
        let lists = format!("{sound}&targetNsiList=1&targetNsiList=2");
        assert_eq!(AccessTokenReq::parse(lists.as_bytes()).unwrap().others, ["targetNsiList"]);
    }

    #[test]
    fn error_names_are_spelled_as_in_rfc_6749() {
        for code in [
            TokenErrorCode::InvalidRequest,
            TokenErrorCode::InvalidClient,
            TokenErrorCode::InvalidGrant,
            TokenErrorCode::UnauthorizedClient,
            TokenErrorCode::UnsupportedGrantType,
            TokenErrorCode::InvalidScope,
        ] {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }

    #[test]
    fn a_token_is_not_printed() {
        let answer: AccessTokenRsp =
            serde_json::from_str(r#"{"access_token":"secret","token_type":"Bearer","expires_in":600}"#).unwrap();
        assert!(!format!("{answer:?}").contains("secret"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn no_form_makes_the_parser_panic_and_what_is_accepted_means_the_same_when_written(
            form in prop::collection::vec(any::<u8>(), 0..100), scope in ".{0,20}", fqdn in ".{0,8}",
        ) {
            let _ = AccessTokenReq::parse(&form);
            let mut text = form_urlencoded::Serializer::new(String::new());
            text.append_pair("grant_type", CLIENT_CREDENTIALS).append_pair("nfInstanceId", ID);
            text.append_pair("scope", &scope).append_pair("requesterFqdn", &fqdn);
            if let Ok(request) = AccessTokenReq::parse(text.finish().as_bytes()) {
                prop_assert_eq!(AccessTokenReq::parse(request.encode().as_bytes()).unwrap(), request);
            }
        }
    }
}
