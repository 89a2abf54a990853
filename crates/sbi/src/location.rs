//! Locations of TS 29.122 in a group's document. The message service keeps them and looks at none of them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// LocationInfo (TS 29.122 clause 5.3.2.3.5). What other specifications define of it is kept as it came.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LocationInfo {
    /// Minutes since it was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_of_location_info: Option<u32>,
    /// Cell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cell_id: Option<String>,
    /// eNodeB.
    #[serde(rename = "enodeBId", skip_serializing_if = "Option::is_none")]
    pub enode_b_id: Option<String>,
    /// Routing area.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routing_area_id: Option<String>,
    /// Tracking area.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracking_area_id: Option<String>,
    /// Network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plmn_id: Option<String>,
    /// Trusted WLAN access network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub twan_id: Option<String>,
    /// UserLocation of TS 29.571.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_location: Option<Value>,
    /// GeographicArea of TS 29.572.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub geographic_area: Option<Value>,
    /// CivicAddress of TS 29.572.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub civic_address: Option<Value>,
    /// PositioningMethod of TS 29.572.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position_method: Option<Value>,
    /// AccuracyFulfilmentIndicator of TS 29.572.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos_fulfil_ind: Option<Value>,
    /// VelocityEstimate of TS 29.572.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ue_velocity: Option<Value>,
    /// LdrType of TS 29.572.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ldr_type: Option<Value>,
    /// MinorLocationQoS of TS 29.572.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub achieved_qos: Option<Value>,
    /// Application layer ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rel_app_layer_id: Option<String>,
    /// RangeDirection of TS 29.572.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range_direction: Option<Value>,
    /// 2DRelativeLocation of TS 29.572.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub two_d_rel_loc: Option<Value>,
    /// 3DRelativeLocation of TS 29.572.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub three_d_rel_loc: Option<Value>,
    /// VelocityEstimate of TS 29.572.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rel_velocity: Option<Value>,
    /// Cumulative event report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up_cum_evt_rep: Option<UpCumEvtRep>,
}

/// UpCumEvtRep of TS 29.122.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpCumEvtRep {
    /// Reports so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_loc_rep_stat: Option<u64>,
}

/// LocationArea5G of TS 29.122. What other specifications define of it is kept as it came.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocationArea5G {
    /// GeographicArea of TS 29.572.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub geographic_areas: Option<Vec<Value>>,
    /// CivicAddress of TS 29.572.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub civic_addresses: Option<Vec<Value>>,
    /// NetworkAreaInfo of TS 29.554.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nw_area_info: Option<Value>,
}
