//! `published-apis/v1` and `service-apis/v1` (TS 29.222 clauses 8.1 and 8.2): what a service API is and where it is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::exposing_function::{AefLocation, IpAddrRange, PublishedApiPath, ServiceKpis};
use super::{non_empty, some_non_empty};

/// A service API, as published.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceApiDescription {
    /// `{apiName}` of its URIs.
    pub api_name: String,
    /// The core function's identifier of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_id: Option<String>,
    /// Where it is active; everywhere if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_status: Option<ApiStatus>,
    /// Who exposes it, and how.
    #[serde(default, deserialize_with = "some_non_empty", skip_serializing_if = "Option::is_none")]
    pub aef_profiles: Option<Vec<AefProfile>>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Features of this API, the publishing one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supported_features: Option<String>,
    /// With which other provider domains it is shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shareable_info: Option<ShareableInformation>,
    /// Its category.
    #[serde(default, rename = "serviceAPICategory", skip_serializing_if = "Option::is_none")]
    pub service_api_category: Option<String>,
    /// Features of the service API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_supp_feats: Option<String>,
    /// Core functions where it is published already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pub_api_path: Option<PublishedApiPath>,
    /// Core function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ccf_id: Option<String>,
    /// The provider's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_prov_name: Option<String>,
}

impl ServiceApiDescription {
    /// The profiles, none if absent.
    #[must_use]
    pub fn profiles(&self) -> &[AefProfile] {
        self.aef_profiles.as_deref().unwrap_or_default()
    }

    /// Whether it is active at `aef_id`.
    #[must_use]
    pub fn is_active_at(&self, aef_id: &str) -> bool {
        self.api_status.as_ref().is_none_or(|status| status.aef_ids.iter().any(|active| active == aef_id))
    }
}

/// What PATCH changes in a [`ServiceApiDescription`]; absent members stay.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceApiDescriptionPatch {
    /// As in the description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_status: Option<ApiStatus>,
    /// As in the description; replaces all.
    #[serde(default, deserialize_with = "some_non_empty", skip_serializing_if = "Option::is_none")]
    pub aef_profiles: Option<Vec<AefProfile>>,
    /// As in the description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// As in the description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shareable_info: Option<ShareableInformation>,
    /// As in the description.
    #[serde(default, rename = "serviceAPICategory", skip_serializing_if = "Option::is_none")]
    pub service_api_category: Option<String>,
    /// As in the description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_supp_feats: Option<String>,
    /// As in the description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pub_api_path: Option<PublishedApiPath>,
    /// As in the description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ccf_id: Option<String>,
}

/// Where a service API is active.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiStatus {
    /// API exposing functions.
    pub aef_ids: Vec<String>,
}

/// With whom a service API is shared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShareableInformation {
    /// Whether it is.
    pub is_shareable: bool,
    /// Provider domains.
    #[serde(default, deserialize_with = "some_non_empty", skip_serializing_if = "Option::is_none")]
    pub capif_prov_doms: Option<Vec<String>>,
}

/// How one API exposing function exposes a service API. Exactly one of domain name and interfaces.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AefProfile {
    /// The function.
    pub aef_id: String,
    /// Versions of the API.
    #[serde(deserialize_with = "non_empty")]
    pub versions: Vec<Version>,
    /// `HTTP_2` and its like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// `JSON` and its like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_format: Option<String>,
    /// Methods of CAPIF-2e at every interface that names none of its own.
    #[serde(default, deserialize_with = "some_non_empty", skip_serializing_if = "Option::is_none")]
    pub security_methods: Option<Vec<SecurityMethod>>,
    /// Domain, where interfaces are not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_name: Option<String>,
    /// Interfaces.
    #[serde(default, deserialize_with = "some_non_empty", skip_serializing_if = "Option::is_none")]
    pub interface_descriptions: Option<Vec<InterfaceDescription>>,
    /// Where the function is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aef_location: Option<AefLocation>,
    /// What it promises.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_kpis: Option<ServiceKpis>,
    /// Which UEs it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ue_ip_range: Option<IpAddrRange>,
}

impl AefProfile {
    /// The interfaces, none if absent.
    #[must_use]
    pub fn interfaces(&self) -> &[InterfaceDescription] {
        self.interface_descriptions.as_deref().unwrap_or_default()
    }

    /// Whether it keeps the schema's `oneOf` and `anyOf`, here and in what it consists of.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        !self.aef_id.is_empty()
            && self.domain_name.is_some() != self.interface_descriptions.is_some()
            && self.interfaces().iter().all(InterfaceDescription::is_well_formed)
            && self.ue_ip_range.as_ref().is_none_or(IpAddrRange::is_well_formed)
    }

    /// The methods at `interface`; of the profile where the interface names none, or where there is none.
    #[must_use]
    pub fn methods<'a>(&'a self, interface: Option<&'a InterfaceDescription>) -> &'a [SecurityMethod] {
        interface
            .and_then(|interface| interface.security_methods.as_deref())
            .or(self.security_methods.as_deref())
            .unwrap_or_default()
    }

    /// Where `method` is spoken: the first interface that has it. For both ends the same one, so that they derive the same
    /// AEF_PSK.
    #[must_use]
    pub fn interface_for(&self, method: &SecurityMethod) -> Option<&InterfaceDescription> {
        self.interfaces().iter().find(|interface| self.methods(Some(interface)).contains(method))
    }
}

/// A version of a service API.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// `v1` and its like.
    pub api_version: String,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<String>,
    /// Its resources.
    #[serde(default, deserialize_with = "some_non_empty", skip_serializing_if = "Option::is_none")]
    pub resources: Option<Vec<Resource>>,
    /// Operations that belong to no resource.
    #[serde(default, deserialize_with = "some_non_empty", skip_serializing_if = "Option::is_none")]
    pub cust_operations: Option<Vec<CustomOperation>>,
}

impl Version {
    pub(crate) fn has_communication_type(&self, wanted: &str) -> bool {
        let resources = self.resources.iter().flatten();
        let operations = self.cust_operations.iter().flatten();
        resources
            .map(|resource| &resource.comm_type)
            .chain(operations.map(|operation| &operation.comm_type))
            .any(|comm_type| comm_type == wanted)
    }
}

/// A resource of a service API.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// Its name.
    pub resource_name: String,
    /// `REQUEST_RESPONSE` or `SUBSCRIBE_NOTIFY`.
    pub comm_type: String,
    /// Below the API's root.
    pub uri: String,
    /// A custom operation of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cust_op_name: Option<String>,
    /// Custom operations of it.
    #[serde(default, deserialize_with = "some_non_empty", skip_serializing_if = "Option::is_none")]
    pub cust_operations: Option<Vec<CustomOperation>>,
    /// HTTP methods.
    #[serde(default, deserialize_with = "some_non_empty", skip_serializing_if = "Option::is_none")]
    pub operations: Option<Vec<String>>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// An operation beyond create, read, update and delete.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CustomOperation {
    /// `REQUEST_RESPONSE` or `SUBSCRIBE_NOTIFY`.
    pub comm_type: String,
    /// Last segment of its URI.
    pub cust_op_name: String,
    /// HTTP methods.
    #[serde(default, deserialize_with = "some_non_empty", skip_serializing_if = "Option::is_none")]
    pub operations: Option<Vec<String>>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Where an API is reached. Exactly one of the three addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InterfaceDescription {
    /// IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4_addr: Option<Ipv4Addr>,
    /// IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_addr: Option<Ipv6Addr>,
    /// Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fqdn: Option<String>,
    /// TCP port; 443 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Path before the API's name; with a leading slash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_prefix: Option<String>,
    /// Methods of CAPIF-2e here; those of the profile if absent.
    #[serde(default, deserialize_with = "some_non_empty", skip_serializing_if = "Option::is_none")]
    pub security_methods: Option<Vec<SecurityMethod>>,
}

impl InterfaceDescription {
    /// Whether it has exactly one address, and a prefix that begins with a slash.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        let addresses = [self.ipv4_addr.is_some(), self.ipv6_addr.is_some(), self.fqdn.is_some()];
        addresses.into_iter().filter(|there| *there).count() == 1
            && self.api_prefix.as_ref().is_none_or(|prefix| prefix.starts_with('/'))
            && self.fqdn.as_ref().is_none_or(|fqdn| fqdn.parse::<akma::Fqdn>().is_ok())
    }

    /// An interface at `address`.
    #[must_use]
    pub fn at(address: std::net::SocketAddr) -> Self {
        let mut interface = Self { port: Some(address.port()), ..Self::default() };
        match address.ip() {
            IpAddr::V4(address) => interface.ipv4_addr = Some(address),
            IpAddr::V6(address) => interface.ipv6_addr = Some(address),
        }
        interface
    }

    /// Host as it stands in a URI: name in lower case, IPv4 address, IPv6 address in brackets.
    #[must_use]
    pub fn host(&self) -> String {
        match (self.ipv4_addr, self.ipv6_addr, &self.fqdn) {
            (Some(address), _, _) => address.to_string(),
            (None, Some(address), _) => format!("[{address}]"),
            (None, None, Some(fqdn)) => fqdn.to_ascii_lowercase(),
            (None, None, None) => String::new(),
        }
    }

    /// `host:port` and the prefix: the interface information that enters AEF_PSK (TS 33.122 clause A.1), and what tells one
    /// interface from another. The port always stands there.
    #[must_use]
    pub fn information(&self) -> String {
        format!("{}:{}{}", self.host(), self.port.unwrap_or(443), self.prefix())
    }

    /// `https://host:port/prefix`, without a trailing slash.
    #[must_use]
    pub fn root(&self) -> String {
        format!("https://{}", self.information())
    }

    fn prefix(&self) -> &str {
        self.api_prefix.as_deref().unwrap_or_default().trim_end_matches('/')
    }
}

/// A method of CAPIF-2e (TS 33.122 clause 6.5.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SecurityMethod {
    /// TLS with AEF_PSK.
    #[serde(rename = "PSK")]
    Psk,
    /// TLS with the invoker's certificate.
    #[serde(rename = "PKI")]
    Pki,
    /// TLS with the invoker's certificate and an access token.
    #[serde(rename = "OAUTH")]
    Oauth,
    /// One of a later release; never chosen.
    #[serde(untagged)]
    Other(String),
}

/// What a discovery finds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DiscoveredApis {
    /// The APIs, each with the profiles that match.
    #[serde(
        rename = "serviceAPIDescriptions",
        default,
        deserialize_with = "some_non_empty",
        skip_serializing_if = "Option::is_none"
    )]
    pub service_api_descriptions: Option<Vec<ServiceApiDescription>>,
}

/// The query of a discovery.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DiscoveryQuery {
    /// Who asks.
    pub api_invoker_id: String,
    /// `{apiName}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_name: Option<String>,
    /// Version of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Communication type of a resource or operation of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comm_type: Option<String>,
    /// Protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// API exposing function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aef_id: Option<String>,
    /// Data format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_format: Option<String>,
    /// Category.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_cat: Option<String>,
    /// JSON text of an AefLocation. Preferred, not demanded: profiles there come first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preferred_aef_loc: Option<String>,
    /// Provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub req_api_prov_name: Option<String>,
    /// Features of the discovery API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supported_features: Option<String>,
    /// Features that the service API must have, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_supported_features: Option<String>,
}

impl DiscoveryQuery {
    /// `api` as this query finds it: with the profiles that match, or `None` when nothing of it does.
    #[must_use]
    pub fn find(&self, api: &ServiceApiDescription) -> Option<ServiceApiDescription> {
        let is = |wanted: &Option<String>, has: Option<&str>| {
            wanted.as_ref().is_none_or(|wanted| has.is_some_and(|has| has == wanted))
        };
        let suits = is(&self.api_name, Some(&api.api_name))
            && is(&self.api_cat, api.service_api_category.as_deref())
            && is(&self.req_api_prov_name, api.api_prov_name.as_deref())
            && self
                .api_supported_features
                .as_ref()
                .is_none_or(|wanted| has_features(api.api_supp_feats.as_deref().unwrap_or_default(), wanted));
        let mut profiles: Vec<AefProfile> = api
            .profiles()
            .iter()
            .filter(|profile| {
                suits
                    && api.is_active_at(&profile.aef_id)
                    && is(&self.aef_id, Some(&profile.aef_id))
                    && is(&self.protocol, profile.protocol.as_deref())
                    && is(&self.data_format, profile.data_format.as_deref())
                    && profile.versions.iter().any(|version| {
                        is(&self.api_version, Some(&version.api_version))
                            && self.comm_type.as_ref().is_none_or(|wanted| version.has_communication_type(wanted))
                    })
            })
            .cloned()
            .collect();
        let wanted = self.preferred_aef_loc.as_ref().and_then(|text| serde_json::from_str::<AefLocation>(text).ok());
        if let Some(wanted) = wanted {
            profiles.sort_by_key(|profile| profile.aef_location.as_ref() != Some(&wanted));
        }
        if profiles.is_empty() {
            return None;
        }
        Some(ServiceApiDescription { aef_profiles: Some(profiles), ..api.clone() })
    }
}

/// Whether hexadecimal `has` includes every bit of hexadecimal `wanted` (TS 29.571 SupportedFeatures).
fn has_features(has: &str, wanted: &str) -> bool {
    let digit = |text: &str, at: usize| text.chars().rev().nth(at).and_then(|digit| digit.to_digit(16)).unwrap_or(0);
    wanted.len() <= FEATURE_DIGITS_MAX
        && (0..wanted.len()).all(|at| {
            let wanted = digit(wanted, at);
            digit(has, at) & wanted == wanted
        })
}

const FEATURE_DIGITS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn api() -> ServiceApiDescription {
        serde_json::from_value(json!({
            "apiName": "3gpp-akma", "serviceAPICategory": "security", "apiSuppFeats": "5",
            "aefProfiles": [
                {"aefId": "a", "versions": [{"apiVersion": "v1", "resources":
                    [{"resourceName": "r", "commType": "REQUEST_RESPONSE", "uri": "/retrieve"}]}],
                 "protocol": "HTTP_2", "dataFormat": "JSON", "domainName": "x.example"},
                {"aefId": "b", "versions": [{"apiVersion": "v2"}], "protocol": "HTTP_1_1",
                 "interfaceDescriptions": [{"ipv4Addr": "192.0.2.1", "port": 8443, "apiPrefix": "/p/"}]},
            ],
        }))
        .unwrap()
    }

    fn found(query: serde_json::Value) -> Vec<String> {
        let mut query = query;
        query.as_object_mut().unwrap().insert("api-invoker-id".to_owned(), json!("i"));
        let query: DiscoveryQuery = serde_json::from_value(query).unwrap();
        query.find(&api()).map_or_else(Vec::new, |api| api.profiles().iter().map(|p| p.aef_id.clone()).collect())
    }

    #[test]
    fn a_discovery_leaves_the_profiles_that_match_every_filter() {
        for (query, aefs) in [
            (json!({}), vec!["a", "b"]),
            (json!({"api-name": "3gpp-akma"}), vec!["a", "b"]),
            (json!({"api-name": "other"}), vec![]),
            (json!({"api-version": "v2"}), vec!["b"]),
            (json!({"comm-type": "REQUEST_RESPONSE"}), vec!["a"]),
            (json!({"protocol": "HTTP_1_1", "api-version": "v1"}), vec![]),
            (json!({"aef-id": "b"}), vec!["b"]),
            (json!({"data-format": "JSON"}), vec!["a"]),
            (json!({"api-cat": "security"}), vec!["a", "b"]),
            (json!({"api-cat": "other"}), vec![]),
            (json!({"req-api-prov-name": "p"}), vec![]),
            (json!({"api-supported-features": "4"}), vec!["a", "b"]),
            (json!({"api-supported-features": "2"}), vec![]),
        ] {
            assert_eq!(found(query.clone()), aefs, "{query}");
        }
    }

    #[test]
    fn an_api_is_not_found_where_it_is_inactive() {
        let api = ServiceApiDescription { api_status: Some(ApiStatus { aef_ids: vec!["b".to_owned()] }), ..api() };
        let query = DiscoveryQuery { api_invoker_id: "i".to_owned(), ..DiscoveryQuery::default() };
        assert_eq!(query.find(&api).unwrap().profiles().len(), 1);
    }

    #[test]
    fn a_profile_and_an_interface_have_exactly_one_address() {
        assert!(api().profiles().iter().all(AefProfile::is_well_formed));
        for wrong in [
            json!({"aefId": "a", "versions": [{"apiVersion": "v1"}]}),
            json!({"aefId": "a", "versions": [{"apiVersion": "v1"}], "domainName": "x",
                "interfaceDescriptions": [{"fqdn": "x.example"}]}),
            json!({"aefId": "a", "versions": [{"apiVersion": "v1"}], "interfaceDescriptions": [{"port": 1}]}),
            json!({"aefId": "a", "versions": [{"apiVersion": "v1"}], "interfaceDescriptions":
                [{"fqdn": "x.example", "ipv4Addr": "192.0.2.1"}]}),
        ] {
            assert!(!serde_json::from_value::<AefProfile>(wrong.clone()).unwrap().is_well_formed(), "{wrong}");
        }
        assert!(serde_json::from_value::<AefProfile>(json!({"aefId": "a", "versions": []})).is_err());
    }

    #[test]
    fn interface_information_is_host_port_and_prefix() {
        let api = api();
        let interface = &api.profiles().last().unwrap().interfaces().first().unwrap();
        assert_eq!(interface.information(), "192.0.2.1:8443/p");
        assert_eq!(interface.root(), "https://192.0.2.1:8443/p");
        let name = InterfaceDescription { fqdn: Some("NEF.example".to_owned()), ..InterfaceDescription::default() };
        assert_eq!(name.information(), "nef.example:443");
    }

    #[test]
    fn a_security_method_of_a_later_release_is_kept_as_it_is() {
        for text in ["PSK", "PKI", "OAUTH", "NEW"] {
            let method: SecurityMethod = serde_json::from_value(json!(text)).unwrap();
            assert_eq!(serde_json::to_value(&method).unwrap(), json!(text));
            assert_eq!(matches!(method, SecurityMethod::Other(_)), text == "NEW");
        }
    }
}
