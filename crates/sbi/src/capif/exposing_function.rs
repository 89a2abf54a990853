//! What a provider says of an exposing function besides where it listens: where it stands, what it promises, whom it serves
//! (TS 29.222 clause 8.2.4.2).

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::some_non_empty;

/// Core functions where a service API is published already.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedApiPath {
    /// Their identifiers.
    #[serde(default, deserialize_with = "some_non_empty", skip_serializing_if = "Option::is_none")]
    pub ccf_ids: Option<Vec<String>>,
}

/// Where an exposing function stands.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AefLocation {
    /// CivicAddress of TS 29.572, as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub civic_addr: Option<Value>,
    /// GeographicArea of TS 29.572, as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub geo_area: Option<Value>,
    /// Its data centre.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dc_id: Option<String>,
}

/// What an exposing function promises. For people: nothing here measures it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceKpis {
    /// Requests per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_req_rate: Option<u64>,
    /// Seconds until an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_restime: Option<u64>,
    /// Per cent of the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability: Option<u64>,
    /// Computing, as `1 GFLOPS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aval_comp: Option<String>,
    /// Graphical computing, as `1 GFLOPS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aval_gra_comp: Option<String>,
    /// Memory, as `1 GB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aval_mem: Option<String>,
    /// Storage, as `1 GB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aval_stor: Option<String>,
    /// Bandwidth in kbit/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub con_band: Option<u64>,
}

/// The addresses of the UEs that an exposing function serves. At least one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpAddrRange {
    /// IPv4.
    #[serde(default, deserialize_with = "some_non_empty", skip_serializing_if = "Option::is_none")]
    pub ue_ipv4_addr_ranges: Option<Vec<AddressRange<Ipv4Addr>>>,
    /// IPv6.
    #[serde(default, deserialize_with = "some_non_empty", skip_serializing_if = "Option::is_none")]
    pub ue_ipv6_addr_ranges: Option<Vec<AddressRange<Ipv6Addr>>>,
}

impl IpAddrRange {
    /// Whether it keeps the schema's `anyOf`.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        self.ue_ipv4_addr_ranges.is_some() || self.ue_ipv6_addr_ranges.is_some()
    }
}

/// Ipv4AddressRange and Ipv6AddressRange of TS 29.571: from the first to the last address, both of them in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressRange<A> {
    /// The first address.
    pub start: A,
    /// The last.
    pub end: A,
}

/// WebsockNotifConfig of TS 29.122: notifications over WebSocket, which are not delivered here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebsockNotifConfig {
    /// Where the WebSocket is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub websocket_uri: Option<String>,
    /// Whether one is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_websocket_uri: Option<bool>,
}
