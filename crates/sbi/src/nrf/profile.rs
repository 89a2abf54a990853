//! What a network function says of itself (TS 29.510 clauses 6.1.6.2.2, 6.1.6.2.3).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::management::NFType;

/// An enumeration that 3GPP keeps open: known names, and any other as it came.
macro_rules! extensible {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$inner])* #[serde(rename = $text)] $variant,)*
            /// A name that is not known here.
            #[serde(untagged)]
            Other(String),
        }
    };
}

pub(super) use extensible;

extensible! {
    /// Whether an instance, or a service of one, can be used (TS 29.510 NFStatus, NFServiceStatus).
    NFStatus {
        /// It can.
        Registered = "REGISTERED",
        /// It gave no sign of life in time.
        Suspended = "SUSPENDED",
        /// It works, and is not to be found by discovery.
        Undiscoverable = "UNDISCOVERABLE",
        /// It is tried out.
        CanaryRelease = "CANARY_RELEASE",
    }
}

/// The profile of a network function (TS 29.510 NFProfile).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NFProfile {
    /// Who it is.
    pub nf_instance_id: Uuid,
    /// What it is.
    pub nf_type: NFType,
    /// Whether it can be used.
    pub nf_status: NFStatus,
    /// Seconds between signs of life; the NRF decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heart_beat_timer: Option<u32>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fqdn: Option<String>,
    /// Its addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ipv4_addresses: Vec<Ipv4Addr>,
    /// Its addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ipv6_addresses: Vec<Ipv6Addr>,
    /// NF types that may use it; all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_nf_types: Vec<NFType>,
    /// The services it offers: the older of two forms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nf_services: Vec<NFService>,
    /// The services it offers, by service instance ID: the newer form.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nf_service_list: BTreeMap<String, NFService>,
    /// What is special to an AAnF, by a key without meaning.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aanf_info_list: BTreeMap<String, AanfInfo>,
    /// Whatever else came, `customInfo` among it.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl NFProfile {
    /// A profile without services that can be used.
    #[must_use]
    pub fn new(nf_instance_id: Uuid, nf_type: NFType) -> Self {
        Self {
            nf_instance_id,
            nf_type,
            nf_status: NFStatus::Registered,
            heart_beat_timer: None,
            fqdn: None,
            ipv4_addresses: Vec::new(),
            ipv6_addresses: Vec::new(),
            allowed_nf_types: Vec::new(),
            nf_services: Vec::new(),
            nf_service_list: BTreeMap::new(),
            aanf_info_list: BTreeMap::new(),
            rest: Map::new(),
        }
    }

    /// Its services, in both forms.
    pub fn services(&self) -> impl Iterator<Item = &NFService> {
        self.nf_services.iter().chain(self.nf_service_list.values())
    }

    /// The same, to change.
    pub fn services_mut(&mut self) -> impl Iterator<Item = &mut NFService> {
        self.nf_services.iter_mut().chain(self.nf_service_list.values_mut())
    }

    /// Whether the schema is kept where types do not say it: an address is needed, a heartbeat timer is not 0, a service
    /// list's keys are those of its services.
    #[must_use]
    pub fn fault(&self) -> Option<(&'static str, &'static str)> {
        if self.fqdn.is_none() && self.ipv4_addresses.is_empty() && self.ipv6_addresses.is_empty() {
            return Some(("/fqdn", "one of fqdn, ipv4Addresses, ipv6Addresses is needed"));
        }
        if self.fqdn.as_deref().is_some_and(|fqdn| !is_fqdn(fqdn)) {
            return Some(("/fqdn", "not a fully qualified domain name"));
        }
        if self.heart_beat_timer == Some(0) {
            return Some(("/heartBeatTimer", "must be 1 or more"));
        }
        if self.nf_service_list.iter().any(|(key, service)| *key != service.service_instance_id) {
            return Some(("/nfServiceList", "a key is not the service instance ID of its service"));
        }
        if self.services().any(|service| service.versions.is_empty()) {
            return Some(("/nfServices", "a service without a version"));
        }
        let indicators = self.aanf_info_list.values().flat_map(|info| &info.routing_indicators);
        if indicators.into_iter().any(|indicator| !is_routing_indicator(indicator)) {
            return Some(("/aanfInfoList", "a routing indicator has 1 to 4 digits"));
        }
        None
    }

    /// Whether NF type `consumer` may use the function as such.
    #[must_use]
    pub fn allows(&self, consumer: &NFType) -> bool {
        self.allowed_nf_types.is_empty() || self.allowed_nf_types.contains(consumer)
    }

    /// Whether NF type `consumer` may use `service` of this function: what the service says goes before what the function
    /// says.
    #[must_use]
    pub fn service_allows(&self, service: &NFService, consumer: &NFType) -> bool {
        if service.allowed_nf_types.is_empty() {
            self.allows(consumer)
        } else {
            service.allowed_nf_types.contains(consumer)
        }
    }

    /// Whether an AAnF serves subscribers with this routing indicator: all, if its profile names none.
    #[must_use]
    pub fn serves_routing_indicator(&self, indicator: &str) -> bool {
        let mut named = self.aanf_info_list.values().flat_map(|info| &info.routing_indicators).peekable();
        named.peek().is_none() || named.any(|own| own == indicator)
    }
}

/// A service of a network function (TS 29.510 NFService).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NFService {
    /// Tells services of one function apart.
    pub service_instance_id: String,
    /// Which service, for example `naanf-akma`.
    pub service_name: String,
    /// Its versions.
    pub versions: Vec<NFServiceVersion>,
    /// `https`, or `http`.
    pub scheme: String,
    /// Whether it can be used.
    pub nf_service_status: NFStatus,
    /// Its name, where it is not the function's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fqdn: Option<String>,
    /// Where it listens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_end_points: Vec<IpEndPoint>,
    /// What stands in its URIs between authority and API name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_prefix: Option<String>,
    /// NF types that may use it; those of the function if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_nf_types: Vec<NFType>,
    /// Whether it wants an access token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth2_required: Option<bool>,
    /// Whatever else came.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A version of a service's API (TS 29.510 NFServiceVersion).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NFServiceVersion {
    /// As in the URI: `v1`.
    pub api_version_in_uri: String,
    /// In full: `1.0.0`.
    pub api_full_version: String,
    /// Whatever else came.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// An address and port (TS 29.510 IpEndPoint).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpEndPoint {
    /// The address, if it is of this family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4_address: Option<Ipv4Addr>,
    /// The address, if it is of this family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_address: Option<Ipv6Addr>,
    /// The port; that of the scheme if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Whatever else came, `transport` among it.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// What is special to an AAnF (TS 29.510 AanfInfo).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AanfInfo {
    /// Routing indicators of the subscribers it serves; all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routing_indicators: Vec<String>,
    /// Whatever else came.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// TS 29.571 Fqdn.
pub(super) fn is_fqdn(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    (4..=253).contains(&text.len()) && text.contains('.') && text.split('.').all(label)
}

pub(super) fn is_routing_indicator(text: &str) -> bool {
    (1..=4).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn value() -> Value {
        json!({
            "nfInstanceId": "4947a69a-f61b-4bc1-b9da-47c9c5d14b64", "nfType": "AANF", "nfStatus": "REGISTERED",
            "heartBeatTimer": 60, "fqdn": "aanf.5gc.mnc001.mcc001.3gppnetwork.org", "ipv4Addresses": ["192.0.2.1"],
            "plmnList": [{"mcc": "001", "mnc": "01"}], "customInfo": {"site": "here"}, "priority": 7,
            "aanfInfoList": {"0": {"routingIndicators": ["0", "678"]}},
            "nfServices": [{
                "serviceInstanceId": "akma", "serviceName": "naanf-akma", "scheme": "https",
                "nfServiceStatus": "REGISTERED", "apiPrefix": "core", "oauth2Required": true, "capacity": 3,
                "versions": [{"apiVersionInUri": "v1", "apiFullVersion": "1.0.0", "expiry": "2030-01-01T00:00:00Z"}],
                "ipEndPoints": [{"ipv4Address": "192.0.2.1", "port": 8443, "transport": "TCP"}],
                "allowedNfTypes": ["AUSF", "AF", "NEF"]
            }]
        })
    }

    #[test]
    fn a_profile_survives_a_round_trip_with_what_is_not_known_here() {
        let profile: NFProfile = serde_json::from_value(value()).unwrap();
        assert_eq!(profile.fault(), None);
        assert_eq!(profile.rest.get("customInfo"), Some(&json!({"site": "here"})));
        assert_eq!(serde_json::to_value(profile).unwrap(), value());
    }

    #[test]
    fn a_profile_without_an_address_is_at_fault() {
        let mut wrong = value();
        let members = wrong.as_object_mut().unwrap();
        members.remove("fqdn");
        members.remove("ipv4Addresses");
        assert_eq!(serde_json::from_value::<NFProfile>(wrong).unwrap().fault().unwrap().0, "/fqdn");
    }

    #[test]
    fn routing_indicators_select_an_aanf_and_none_selects_all() {
        let mut profile: NFProfile = serde_json::from_value(value()).unwrap();
        assert!(profile.serves_routing_indicator("678"));
        assert!(!profile.serves_routing_indicator("9"));
        profile.aanf_info_list.clear();
        assert!(profile.serves_routing_indicator("9"));
    }

    #[test]
    fn a_status_or_type_of_a_later_release_is_kept() {
        let mut later = value();
        later["nfStatus"] = json!("RESTING");
        later["nfType"] = json!("X_FUNCTION");
        let profile: NFProfile = serde_json::from_value(later.clone()).unwrap();
        assert_eq!(profile.nf_status, NFStatus::Other("RESTING".to_owned()));
        assert_eq!(serde_json::to_value(profile).unwrap(), later);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn whatever_is_accepted_is_written_and_read_back_the_same(
            fqdn in ".{0,24}", name in "[a-z-]{0,12}", extra in "[a-zA-Z]{1,8}", timer in any::<u32>(),
        ) {
            let mut value = value();
            value["fqdn"] = json!(fqdn);
            value["heartBeatTimer"] = json!(timer);
            value["nfServices"][0]["serviceName"] = json!(name);
            value.as_object_mut().unwrap().entry(extra).or_insert(json!(1));
            if let Ok(profile) = serde_json::from_value::<NFProfile>(value) {
                let again = serde_json::to_value(&profile).unwrap();
                prop_assert_eq!(serde_json::from_value::<NFProfile>(again).unwrap(), profile);
            }
        }
    }
}
