//! What the northbound APIs of TS 29.122 share (clause 5.2): how a device is named, and how a resource is found again.

use akma::Gpsi;
use serde::{Deserialize, Serialize};

use crate::client::SbiResponse;
use crate::coding::{path_segment, resource};
use crate::error::SbiError;

/// A device as a northbound API names it: exactly one of `externalId` and `msisdn` in JSON. Never a SUPI, which stays in
/// the operator's domain (TS 33.501 clause 5.9.2.3). Not printed: an MSISDN is a telephone number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "DeviceMembers", into = "DeviceMembers")]
pub struct Device(Gpsi);

impl Device {
    /// The device as TS 29.571 writes it, with its prefix.
    #[must_use]
    pub fn gpsi(&self) -> &Gpsi {
        &self.0
    }
}

impl From<Gpsi> for Device {
    fn from(gpsi: Gpsi) -> Self {
        Self(gpsi)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeviceMembers {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    external_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    msisdn: Option<String>,
}

impl TryFrom<DeviceMembers> for Device {
    type Error = &'static str;

    fn try_from(members: DeviceMembers) -> Result<Self, Self::Error> {
        let text = match (members.external_id, members.msisdn) {
            (Some(external_id), None) => format!("{EXTERNAL_ID_PREFIX}{external_id}"),
            (None, Some(msisdn)) => format!("{MSISDN_PREFIX}{msisdn}"),
            // In serde's own words, so that the refusal becomes MANDATORY_IE_MISSING.
            (None, None) => return Err("missing field `externalId`"),
            (Some(_), Some(_)) => return Err("both externalId and msisdn"),
        };
        text.parse().map(Self).map_err(|_| "no external identifier or MSISDN")
    }
}

impl From<Device> for DeviceMembers {
    fn from(device: Device) -> Self {
        let text = device.0.as_str();
        let msisdn = text.strip_prefix(MSISDN_PREFIX).map(str::to_owned);
        let external_id = text.strip_prefix(EXTERNAL_ID_PREFIX).map(str::to_owned);
        Self { external_id, msisdn }
    }
}

/// The identifier that the NEF gave a resource: the last segment of its URI. Where the resource is found again is put
/// together from the configured API root, so that no answer can send a later request anywhere else.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResourceId(String);

impl ResourceId {
    /// Takes the identifier out of a `Location` or `self`: what follows `/{collection}/`, one segment.
    #[must_use]
    pub fn of_uri(uri: &str, collection: &str) -> Option<Self> {
        if uri.len() > URI_OCTETS_MAX {
            return None;
        }
        let (rest, id) = uri.rsplit_once('/')?;
        let unreserved = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'~' | b'.' | b'%');
        let usable = !id.is_empty() && id != "." && id != ".." && id.bytes().all(unreserved);
        (usable && rest.rsplit('/').next() == Some(collection)).then(|| Self(id.to_owned()))
    }

    /// As it stands in the URI.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where the resources of one SCS/AS are: `{root}{api}/{scsAsId}/{collection}`.
#[derive(Debug, Clone)]
pub(crate) struct Collection {
    uri: String,
    name: &'static str,
}

impl Collection {
    pub(crate) fn new(root: &str, api: &str, scs_as_id: &str, name: &'static str) -> Self {
        Self { uri: resource(root, &format!("{api}/{}/{name}", path_segment(scs_as_id))), name }
    }

    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    pub(crate) fn resource(&self, id: &ResourceId) -> String {
        format!("{}/{}", self.uri, id.as_str())
    }

    /// The identifier of what an answer says was created.
    pub(crate) fn created<T>(&self, response: &SbiResponse<T>, link: Option<&str>) -> Option<ResourceId> {
        let uri = response.location.as_deref().or(link)?;
        ResourceId::of_uri(uri, self.name)
    }
}

/// A deletion of what is not there has done what it was to do.
pub(crate) fn deleted<T>(result: Result<SbiResponse<T>, SbiError>) -> Result<(), SbiError> {
    match result {
        Ok(_) => Ok(()),
        Err(SbiError::Problem(problem)) if problem.status == Some(404) => Ok(()),
        Err(error) => Err(error),
    }
}

const MSISDN_PREFIX: &str = "msisdn-";
const EXTERNAL_ID_PREFIX: &str = "extid-";
/// A `Location` longer than this is not read.
const URI_OCTETS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_device_is_named_by_exactly_one_member() {
        for (gpsi, value) in [
            ("msisdn-491700000001", json!({"msisdn": "491700000001"})),
            ("extid-meter-7@example.com", json!({"externalId": "meter-7@example.com"})),
        ] {
            let device = Device::from(gpsi.parse::<Gpsi>().unwrap());
            assert_eq!(serde_json::to_value(&device).unwrap(), value);
            assert_eq!(serde_json::from_value::<Device>(value).unwrap(), device);
        }
        for wrong in [
            json!({}),
            json!({"msisdn": "491700000001", "externalId": "a@b"}),
            json!({"msisdn": "imsi-001010000000001"}),
            json!({"externalId": "nobody"}),
            json!({"msisdn": 491_700_000_001_u64}),
        ] {
            assert!(serde_json::from_value::<Device>(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_identifier_is_the_last_segment_of_its_collection_and_nothing_that_leads_elsewhere() {
        let id = |uri| ResourceId::of_uri(uri, "transactions").map(|id| id.as_str().to_owned());
        for uri in [
            "https://nef.example/3gpp-device-triggering/v1/as-1/transactions/7a-%2F",
            "/3gpp-device-triggering/v1/as-1/transactions/7a-%2F",
            "https://elsewhere.example/transactions/7a-%2F",
        ] {
            assert_eq!(id(uri).as_deref(), Some("7a-%2F"), "{uri}");
        }
        for uri in [
            "",
            "7",
            "https://nef.example/transactions/",
            "https://nef.example/transactions/..",
            "https://nef.example/transactions/a?b",
            "https://nef.example/transactions/a#b",
            "https://nef.example/subscriptions/7",
            "https://nef.example/transactions/a/b",
        ] {
            assert_eq!(id(uri), None, "{uri}");
        }
        assert_eq!(id(&format!("/transactions/{}", "a".repeat(URI_OCTETS_MAX))), None);
    }

    #[test]
    fn a_collection_is_below_the_configured_root_whatever_the_scs_as_is_called() {
        let collection = Collection::new("https://nef.example/", "/api/v1", "a/../b", "transactions");
        assert_eq!(collection.uri(), "https://nef.example/api/v1/a%2F..%2Fb/transactions");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_uri_makes_an_identifier_with_a_way_out(uri in ".{0,80}") {
            if let Some(id) = ResourceId::of_uri(&uri, "transactions") {
                prop_assert!(!id.as_str().contains(['/', '?', '#']));
            }
        }
    }
}
