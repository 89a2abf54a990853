//! What an access token of the NRF says.

use serde::{Deserialize, Serialize};

/// For whom a token is good (TS 29.510 clause 6.3.5.2.4): all producers of a type, or the instances named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// An NF type, for example `AANF`; a string in JSON.
    NfType(String),
    /// NF instance IDs; an array in JSON.
    Instances(Vec<String>),
}

impl Audience {
    /// Whether a producer of this type and instance is meant. Types compare with case, instance IDs without.
    #[must_use]
    pub fn includes(&self, nf_type: &str, nf_instance_id: &str) -> bool {
        match self {
            Self::NfType(audience) => audience == nf_type,
            Self::Instances(audience) => audience.iter().any(|id| id.eq_ignore_ascii_case(nf_instance_id)),
        }
    }
}

/// AccessTokenClaims of TS 29.510, and the registered claims `nbf`, `iat` and `jti` that an NRF may add.
///
/// A claim twice is an error; claims that are not listed here mean nothing and are passed over (RFC 7519 clause 4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessTokenClaims {
    /// NF instance ID of the NRF that issued it.
    pub iss: String,
    /// NF instance ID of the consumer it was issued to.
    pub sub: String,
    /// For whom it is good.
    pub aud: Audience,
    /// Scopes, separated by spaces.
    pub scope: String,
    /// When it ceases to be good, in seconds since 1970.
    pub exp: u64,
    /// From when it is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// When it was issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iat: Option<u64>,
    /// Its own identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// PLMN of the consumer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer_plmn_id: Option<PlmnId>,
    /// SNPN of the consumer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer_snpn_id: Option<PlmnIdNid>,
    /// PLMN whose producers it is good for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer_plmn_id: Option<PlmnId>,
    /// SNPN whose producers it is good for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer_snpn_id: Option<PlmnIdNid>,
    /// Slices whose producers it is good for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer_snssai_list: Option<Vec<Snssai>>,
    /// Network slice instances whose producers it is good for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer_nsi_list: Option<Vec<String>>,
    /// NF set whose producers it is good for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer_nf_set_id: Option<String>,
    /// NF service set whose producers it is good for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer_nf_service_set_id: Option<String>,
    /// NF instance on whose behalf the consumer asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_nf_instance_id: Option<String>,
}

impl AccessTokenClaims {
    /// The five claims that every token has.
    #[must_use]
    pub fn new(
        iss: impl Into<String>,
        sub: impl Into<String>,
        aud: Audience,
        scope: impl Into<String>,
        exp: u64,
    ) -> Self {
        Self {
            iss: iss.into(),
            sub: sub.into(),
            aud,
            scope: scope.into(),
            exp,
            nbf: None,
            iat: None,
            jti: None,
            consumer_plmn_id: None,
            consumer_snpn_id: None,
            producer_plmn_id: None,
            producer_snpn_id: None,
            producer_snssai_list: None,
            producer_nsi_list: None,
            producer_nf_set_id: None,
            producer_nf_service_set_id: None,
            source_nf_instance_id: None,
        }
    }

    /// The scopes one by one.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.scope.split(' ').filter(|scope| !scope.is_empty())
    }
}

/// A PLMN (TS 29.571 PlmnId).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PlmnId {
    /// Mobile country code, three digits.
    pub mcc: String,
    /// Mobile network code, two or three digits.
    pub mnc: String,
}

/// A PLMN with a network identifier (TS 29.571 PlmnIdNid).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PlmnIdNid {
    /// Mobile country code, three digits.
    pub mcc: String,
    /// Mobile network code, two or three digits.
    pub mnc: String,
    /// Network identifier, eleven hexadecimal digits; absent for a PLMN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nid: Option<String>,
}

/// A network slice (TS 29.571 Snssai).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Snssai {
    /// Slice or service type.
    pub sst: u8,
    /// Slice differentiator, six hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sd: Option<String>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_are_spelled_as_in_29_510_and_absent_ones_are_left_out() {
        let mut claims = AccessTokenClaims::new("nrf", "me", Audience::NfType("AANF".to_owned()), "naanf-akma", 7);
        let minimal = json!({"iss": "nrf", "sub": "me", "aud": "AANF", "scope": "naanf-akma", "exp": 7});
        assert_eq!(serde_json::to_value(&claims).unwrap(), minimal);
        claims.aud = Audience::Instances(vec!["a".to_owned()]);
        claims.producer_nf_set_id = Some("set1.aanfset.5gc.mnc001.mcc001".to_owned());
        let value = serde_json::to_value(&claims).unwrap();
        assert_eq!(value.get("aud"), Some(&json!(["a"])));
        assert!(value.get("producerNfSetId").is_some());
        assert_eq!(serde_json::from_value::<AccessTokenClaims>(value).unwrap(), claims);
    }

    #[test]
    fn a_claim_that_is_there_twice_is_refused() {
        let text = r#"{"iss":"a","sub":"b","sub":"c","aud":"AANF","scope":"s","exp":7}"#;
        assert!(serde_json::from_str::<AccessTokenClaims>(text).is_err());
    }

    #[test]
    fn an_audience_names_a_type_or_instances() {
        let instances = Audience::Instances(vec!["AAAA".to_owned()]);
        assert!(instances.includes("AANF", "aaaa"));
        assert!(!instances.includes("AAAA", "bbbb"), "a type is not taken for an instance");
        assert!(Audience::NfType("AANF".to_owned()).includes("AANF", "bbbb"));
        assert!(!Audience::NfType("aanf".to_owned()).includes("AANF", "bbbb"));
        assert!(!Audience::NfType("bbbb".to_owned()).includes("AANF", "bbbb"), "an instance is not taken for a type");
        assert!(!Audience::Instances(vec![]).includes("AANF", "bbbb"));
    }
}
