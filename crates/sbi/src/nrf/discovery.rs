//! Nnrf_NFDiscovery (TS 29.510 clause 6.2): what is asked, what is answered, and the root of a service in the answer.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::form_urlencoded;
use uuid::Uuid;

use super::management::NFType;
use super::profile::{NFProfile, NFService, NFStatus, is_fqdn, is_routing_indicator};
use crate::problem::{ProblemDetails, cause};

/// The query of `GET /nf-instances`, as far as it is evaluated here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveryQuery {
    /// `target-nf-type`: what is looked for.
    pub target_nf_type: NFType,
    /// `requester-nf-type`: what asks.
    pub requester_nf_type: NFType,
    /// `service-names`: services of which at least one is wanted; any if empty.
    pub service_names: Vec<String>,
    /// `target-nf-instance-id`: the one instance wanted.
    pub target_nf_instance_id: Option<Uuid>,
    /// `requester-nf-instance-id`: who asks.
    pub requester_nf_instance_id: Option<Uuid>,
    /// `routing-indicator`: of the subscriber to be served.
    pub routing_indicator: Option<String>,
    /// `limit`: how many instances the answer may hold; 1 or more.
    pub limit: Option<usize>,
    /// Names of other parameters of TS 29.510 that the query has: they can make no difference here. An NRF that finds
    /// instances must not fail for them (TS 29.510 clause 6.2.3.2.3.1).
    pub ignored: Vec<String>,
}

impl DiscoveryQuery {
    /// A query for instances of `target`, asked by a `requester`.
    #[must_use]
    pub fn new(target: NFType, requester: NFType) -> Self {
        Self {
            target_nf_type: target,
            requester_nf_type: requester,
            service_names: Vec::new(),
            target_nf_instance_id: None,
            requester_nf_instance_id: None,
            routing_indicator: None,
            limit: None,
            ignored: Vec::new(),
        }
    }

    /// Reads the raw query of a URI.
    ///
    /// # Errors
    /// 400 with cause MANDATORY_QUERY_PARAM_MISSING, MANDATORY_QUERY_PARAM_INCORRECT, OPTIONAL_QUERY_PARAM_INCORRECT, or
    /// INVALID_QUERY_PARAM where a parameter comes twice.
    pub fn parse(query: &str) -> Result<Self, ProblemDetails> {
        let mut read: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if read.len() == PARAMETERS_MAX {
                return Err(refused(cause::INVALID_QUERY_PARAM, &name, "too many parameters"));
            }
            if read.iter().any(|(earlier, _)| *earlier == name) {
                return Err(refused(cause::INVALID_QUERY_PARAM, &name, "given twice"));
            }
            read.push((name.into_owned(), value.into_owned()));
        }
        let mut take = |name: &str| {
            let at = read.iter().position(|(given, _)| given == name)?;
            Some(read.swap_remove(at).1)
        };
        let mut nf_type = |name: &str| {
            let text = take(name).ok_or_else(|| refused(cause::MANDATORY_QUERY_PARAM_MISSING, name, "missing"))?;
            text.parse().map_err(|_| refused(cause::MANDATORY_QUERY_PARAM_INCORRECT, name, "no NF type"))
        };
        let mut query = Self::new(nf_type(TARGET_NF_TYPE)?, nf_type(REQUESTER_NF_TYPE)?);
        let wrong = |name: &str, reason| refused(OPTIONAL_QUERY_PARAM_INCORRECT, name, reason);
        if let Some(names) = take(SERVICE_NAMES) {
            query.service_names = names.split(',').map(str::to_owned).collect();
            if query.service_names.iter().any(String::is_empty) {
                return Err(wrong(SERVICE_NAMES, "an empty name"));
            }
        }
        let mut instance = |name: &str| match take(name) {
            Some(id) => id.parse().map(Some).map_err(|_| wrong(name, "no UUID")),
            None => Ok(None),
        };
        query.target_nf_instance_id = instance(TARGET_NF_INSTANCE_ID)?;
        query.requester_nf_instance_id = instance(REQUESTER_NF_INSTANCE_ID)?;
        query.routing_indicator = take(ROUTING_INDICATOR);
        if query.routing_indicator.as_deref().is_some_and(|indicator| !is_routing_indicator(indicator)) {
            return Err(wrong(ROUTING_INDICATOR, "not 1 to 4 digits"));
        }
        if let Some(limit) = take(LIMIT) {
            let limit = limit.parse().ok().filter(|limit| *limit > 0);
            query.limit = Some(limit.ok_or_else(|| wrong(LIMIT, "not a number of 1 or more"))?);
        }
        query.ignored = read.into_iter().map(|(name, _)| name).collect();
        Ok(query)
    }

    /// The query string, without `?`.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair(TARGET_NF_TYPE, self.target_nf_type.as_str());
        query.append_pair(REQUESTER_NF_TYPE, self.requester_nf_type.as_str());
        if !self.service_names.is_empty() {
            query.append_pair(SERVICE_NAMES, &self.service_names.join(","));
        }
        if let Some(id) = self.target_nf_instance_id {
            query.append_pair(TARGET_NF_INSTANCE_ID, &id.to_string());
        }
        if let Some(id) = self.requester_nf_instance_id {
            query.append_pair(REQUESTER_NF_INSTANCE_ID, &id.to_string());
        }
        if let Some(indicator) = &self.routing_indicator {
            query.append_pair(ROUTING_INDICATOR, indicator);
        }
        if let Some(limit) = self.limit {
            query.append_pair(LIMIT, &limit.to_string());
        }
        query.finish()
    }

    /// `profile` as this query's answer has it: only the services that are wanted, may be used by the requester and can be
    /// used. `None` if it does not match.
    #[must_use]
    pub fn select(&self, profile: &NFProfile) -> Option<NFProfile> {
        let wanted_instance = self.target_nf_instance_id.is_none_or(|id| id == profile.nf_instance_id);
        let wanted_region = self.routing_indicator.as_deref().is_none_or(|indicator| {
            // Of the types served here, only an AAnF is chosen by it (TS 29.510 AanfInfo).
            profile.nf_type.as_str() != AANF || profile.serves_routing_indicator(indicator)
        });
        let usable = profile.nf_type == self.target_nf_type
            && profile.nf_status == NFStatus::Registered
            && wanted_instance
            && wanted_region;
        if !usable {
            return None;
        }
        let mut found = profile.clone();
        let wanted = |service: &NFService| {
            (self.service_names.is_empty() || self.service_names.contains(&service.service_name))
                && service.nf_service_status == NFStatus::Registered
                && profile.service_allows(service, &self.requester_nf_type)
        };
        found.nf_services.retain(|service| wanted(service));
        found.nf_service_list.retain(|_, service| wanted(service));
        // The timer is between the function and the NRF: the schema of the answer has none.
        found.heart_beat_timer = None;
        let services = found.services().next().is_some();
        let as_such = self.service_names.is_empty() && profile.allows(&self.requester_nf_type);
        (services || as_such).then_some(found)
    }
}

/// The answer of a discovery (TS 29.510 SearchResult).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SearchResult {
    /// Seconds for which it may be used again.
    pub validity_period: u32,
    /// What was found.
    pub nf_instances: Vec<NFProfile>,
    /// How many there are, where `limit` cut the list short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_nf_inst_complete: Option<u32>,
    /// Parameters of the query that made no difference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored_query_params: Vec<String>,
    /// Whatever else came.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// The API root of service `name` of a discovered function, `https://authority[/prefix]`; `None` where it does not offer the
/// service over TLS, or says no address. An address is preferred over a name: it needs no DNS, and both must be in the
/// function's certificate.
#[must_use]
pub fn api_root(profile: &NFProfile, name: &str) -> Option<String> {
    let service = profile
        .services()
        .find(|service| service.service_name == name && service.nf_service_status == NFStatus::Registered)?;
    if service.scheme != "https" {
        return None;
    }
    let end_point = service.ip_end_points.first();
    let address = end_point
        .and_then(|at| at.ipv4_address.map(IpAddr::from).or_else(|| at.ipv6_address.map(IpAddr::from)))
        .or_else(|| profile.ipv4_addresses.first().copied().map(IpAddr::from))
        .or_else(|| profile.ipv6_addresses.first().copied().map(IpAddr::from));
    let host = match address {
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => format!("[{address}]"),
        None => service.fqdn.as_ref().or(profile.fqdn.as_ref()).filter(|name| is_fqdn(name))?.clone(),
    };
    let port = end_point.and_then(|at| at.port).map(|port| format!(":{port}")).unwrap_or_default();
    let prefix = service.api_prefix.as_deref().unwrap_or_default().trim_matches('/');
    let sound = prefix.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-._~/".contains(&octet));
    match prefix {
        _ if !sound => None,
        "" => Some(format!("https://{host}{port}")),
        prefix => Some(format!("https://{host}{port}/{prefix}")),
    }
}

fn refused(cause: &str, name: &str, reason: &str) -> ProblemDetails {
    // A name may come from the query: as much of it as tells what was meant.
    let name: String = name.chars().take(NAME_CHARS_MAX).collect();
    ProblemDetails::bad_request(cause).with_invalid_param(format!("query {name}"), reason)
}

/// NF type of an AKMA anchor function.
const AANF: &str = "AANF";
const TARGET_NF_TYPE: &str = "target-nf-type";
const REQUESTER_NF_TYPE: &str = "requester-nf-type";
const SERVICE_NAMES: &str = "service-names";
const TARGET_NF_INSTANCE_ID: &str = "target-nf-instance-id";
const REQUESTER_NF_INSTANCE_ID: &str = "requester-nf-instance-id";
const ROUTING_INDICATOR: &str = "routing-indicator";
const LIMIT: &str = "limit";
/// TS 29.500 table 5.2.7.2-1.
const OPTIONAL_QUERY_PARAM_INCORRECT: &str = "OPTIONAL_QUERY_PARAM_INCORRECT";
/// Parameters of one query; TS 29.510 has some 160.
const PARAMETERS_MAX: usize = 200;
/// Characters of a parameter's name repeated in an answer.
const NAME_CHARS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn profile() -> NFProfile {
        serde_json::from_value(json!({
            "nfInstanceId": "4947a69a-f61b-4bc1-b9da-47c9c5d14b64", "nfType": "AANF", "nfStatus": "REGISTERED",
            "fqdn": "aanf.example", "heartBeatTimer": 10, "aanfInfoList": {"0": {"routingIndicators": ["0", "678"]}},
            "nfServices": [
                {"serviceInstanceId": "1", "serviceName": "naanf-akma", "scheme": "https",
                 "nfServiceStatus": "REGISTERED", "versions": [{"apiVersionInUri": "v1", "apiFullVersion": "1.0.0"}],
                 "ipEndPoints": [{"ipv4Address": "192.0.2.1", "port": 8443}], "allowedNfTypes": ["AUSF", "AF"]},
                {"serviceInstanceId": "2", "serviceName": "other", "scheme": "https", "nfServiceStatus": "REGISTERED",
                 "versions": [{"apiVersionInUri": "v1", "apiFullVersion": "1.0.0"}]}
            ]
        }))
        .unwrap()
    }

    fn query(change: impl FnOnce(&mut DiscoveryQuery)) -> DiscoveryQuery {
        let mut query = DiscoveryQuery::new("AANF".parse().unwrap(), "AF".parse().unwrap());
        change(&mut query);
        query
    }

    #[test]
    fn a_query_survives_encoding() {
        let query = query(|query| {
            query.service_names = vec!["naanf-akma".to_owned(), "3gpp-akma".to_owned()];
            query.routing_indicator = Some("678".to_owned());
            query.target_nf_instance_id = Some(Uuid::from_u128(7));
            query.requester_nf_instance_id = Some(Uuid::from_u128(8));
            query.limit = Some(3);
        });
        assert_eq!(DiscoveryQuery::parse(&query.encode()).unwrap(), query);
    }

    #[test]
    fn wrong_parameters_are_named_and_others_of_the_api_noted() {
        let both = "target-nf-type=AANF&requester-nf-type=AF";
        for (text, cause) in [
            ("requester-nf-type=AF".to_owned(), cause::MANDATORY_QUERY_PARAM_MISSING),
            ("target-nf-type=%20&requester-nf-type=AF".to_owned(), cause::MANDATORY_QUERY_PARAM_INCORRECT),
            (format!("{both}&limit=0"), OPTIONAL_QUERY_PARAM_INCORRECT),
            (format!("{both}&routing-indicator=12345"), OPTIONAL_QUERY_PARAM_INCORRECT),
            (format!("{both}&target-nf-instance-id=me"), OPTIONAL_QUERY_PARAM_INCORRECT),
            (format!("{both}&service-names=a,,b"), OPTIONAL_QUERY_PARAM_INCORRECT),
            (format!("{both}&limit=1&limit=1"), cause::INVALID_QUERY_PARAM),
        ] {
            assert!(DiscoveryQuery::parse(&text).unwrap_err().has_cause(cause), "{text}");
        }
        let read = DiscoveryQuery::parse(&format!("{both}&preferred-locality=here")).unwrap();
        assert_eq!(read.ignored, ["preferred-locality"]);
    }

    #[test]
    fn only_what_the_requester_may_use_is_found() {
        let all = query(|_| {}).select(&profile()).unwrap();
        assert_eq!((all.services().count(), all.heart_beat_timer), (2, None));
        let amf = DiscoveryQuery::new("AANF".parse().unwrap(), "AMF".parse().unwrap());
        assert_eq!(amf.select(&profile()).unwrap().services().count(), 1);
        let named = query(|query| query.service_names = vec!["naanf-akma".to_owned()]);
        assert_eq!(named.select(&profile()).unwrap().services().count(), 1);
        let suspended = NFProfile { nf_status: NFStatus::Suspended, ..profile() };
        assert_eq!(named.select(&suspended), None);
        assert_eq!(query(|query| query.routing_indicator = Some("9".to_owned())).select(&profile()), None);
        assert_eq!(query(|query| query.service_names = vec!["none".to_owned()]).select(&profile()), None);
    }

    #[test]
    fn the_root_of_a_service_has_address_port_and_prefix() {
        let mut found = profile();
        assert_eq!(api_root(&found, "naanf-akma").unwrap(), "https://192.0.2.1:8443");
        assert_eq!(api_root(&found, "other").unwrap(), "https://aanf.example");
        found.nf_services[0].api_prefix = Some("/core/one/".to_owned());
        assert_eq!(api_root(&found, "naanf-akma").unwrap(), "https://192.0.2.1:8443/core/one");
        found.nf_services[0].api_prefix = Some("x@evil".to_owned());
        assert_eq!(api_root(&found, "naanf-akma"), None);
        found.nf_services[0].scheme = "http".to_owned();
        assert_eq!(api_root(&found, "naanf-akma"), None);
        assert_eq!(api_root(&found, "nothing"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_query_makes_the_parser_panic(query in ".{0,100}") {
            let _ = DiscoveryQuery::parse(&query);
            let _ = DiscoveryQuery::parse(&format!("target-nf-type=AANF&requester-nf-type=AF&{query}"));
        }
    }
}
