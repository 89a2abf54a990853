//! Device triggering through the NEF, `3gpp-device-triggering/v1` (TS 29.122 clause 5.7, TS 23.502 clause 4.13.2): types
//! and client.

use serde::{Deserialize, Serialize};

use crate::client::SbiClient;
use crate::coding::base64_octets;
use crate::error::SbiError;
use crate::services;
use crate::t8::{Collection, Device, ResourceId, deleted};

/// Path of the API below its root.
pub const API_PATH: &str = "/3gpp-device-triggering/v1";

/// A device trigger: what is asked for, and what the NEF answers (TS 29.122 DeviceTriggering).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceTriggering {
    /// The resource; only in answers.
    #[serde(default, rename = "self", skip_serializing_if = "Option::is_none")]
    pub self_link: Option<String>,
    /// Whom to trigger.
    #[serde(flatten)]
    pub device: Device,
    /// Features of the API that both sides support, a hexadecimal bitmask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supported_features: Option<String>,
    /// How long the network may try, in seconds.
    pub validity_period: u32,
    /// Whether it goes before others.
    pub priority: Priority,
    /// The application on the device: a port of TS 23.040 clause 9.2.3.24.4.
    pub application_port_id: u16,
    /// The port the trigger comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_src_port_id: Option<u16>,
    /// What the application gets; base64 in JSON.
    #[serde(with = "base64_octets")]
    pub trigger_payload: Vec<u8>,
    /// Where reports go: an absolute URI.
    pub notification_destination: String,
    /// What became of it; only in answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_result: Option<DeliveryResult>,
}

/// How urgent a trigger is (TS 29.122 Priority, an open enumeration).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Priority {
    /// Like any other.
    #[serde(rename = "NO_PRIORITY")]
    NoPriority,
    /// Before others.
    #[serde(rename = "PRIORITY")]
    Priority,
    /// A value of a later release.
    #[serde(untagged)]
    Other(String),
}

/// What became of a trigger (TS 29.122 DeliveryResult, an open enumeration).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DeliveryResult {
    /// The device has it.
    Success,
    /// An error that is not said more of.
    Unknown,
    /// It cannot be delivered, for good.
    Failure,
    /// The NEF has taken it.
    Triggered,
    /// The validity period ended first.
    Expired,
    /// Nothing confirms that the device has it.
    Unconfirmed,
    /// Another took its place.
    Replaced,
    /// It was taken back.
    Terminate,
    /// A value of a later release.
    #[serde(untagged)]
    Other(String),
}

impl DeliveryResult {
    /// Whether the network is done with this trigger and the device did not get it. A value that is not known says
    /// nothing.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Unknown | Self::Failure | Self::Expired | Self::Terminate)
    }
}

/// The NEF reports on a trigger (TS 29.122 DeviceTriggeringDeliveryReportNotification).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceTriggeringDeliveryReportNotification {
    /// The resource that the report is about.
    pub transaction: String,
    /// What became of it.
    pub result: DeliveryResult,
}

/// What the NEF answers to a request for a trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Triggered {
    /// By which the trigger can be taken back, if the NEF named it in a form that can be used.
    pub transaction: Option<ResourceId>,
    /// What became of it already.
    pub result: Option<DeliveryResult>,
}

/// The members of an answer that are of any use; more is not asked of it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    #[serde(default, rename = "self")]
    self_link: Option<String>,
    #[serde(default)]
    delivery_result: Option<DeliveryResult>,
}

/// Asks a NEF (or SCEF) to trigger devices.
#[derive(Debug, Clone)]
pub struct DeviceTriggeringClient {
    http: SbiClient,
    transactions: Collection,
}

impl DeviceTriggeringClient {
    /// A client of the NEF at `root`, for example `https://nef.example:8443`, which knows the caller as `scs_as_id`.
    #[must_use]
    pub fn new(http: SbiClient, root: &str, scs_as_id: &str) -> Self {
        Self {
            http: http.for_service(services::NEF, services::DEVICE_TRIGGERING),
            transactions: Collection::new(root, API_PATH, scs_as_id, "transactions"),
        }
    }

    /// Requests a trigger.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn trigger(&self, request: &DeviceTriggering) -> Result<Triggered, SbiError> {
        let response = self.http.post::<_, Answer>(self.transactions.uri(), request).await?;
        let link = response.body.as_ref().and_then(|answer| answer.self_link.as_deref());
        let transaction = self.transactions.created(&response, link);
        let result = response.body.and_then(|answer| answer.delivery_result);
        Ok(Triggered { transaction, result })
    }

    /// Takes a trigger back (TS 23.682 clause 5.2.2). One that is over already counts as taken back.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn withdraw(&self, transaction: &ResourceId) -> Result<(), SbiError> {
        deleted(self.http.delete::<serde::de::IgnoredAny>(&self.transactions.resource(transaction)).await)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use akma::Gpsi;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::extract::parse_json;

    #[test]
    fn a_trigger_is_spelled_as_in_29_122() {
        let value = json!({
            "msisdn": "491700000001", "validityPeriod": 3600, "priority": "NO_PRIORITY", "applicationPortId": 5684,
            "triggerPayload": "AQI=", "notificationDestination": "https://server.example/notifications/1"
        });
        let trigger = DeviceTriggering {
            self_link: None,
            device: "msisdn-491700000001".parse::<Gpsi>().unwrap().into(),
            supported_features: None,
            validity_period: 3600,
            priority: Priority::NoPriority,
            application_port_id: 5684,
            app_src_port_id: None,
            trigger_payload: vec![1, 2],
            notification_destination: "https://server.example/notifications/1".to_owned(),
            delivery_result: None,
        };
        assert_eq!(serde_json::to_value(&trigger).unwrap(), value);
        assert_eq!(serde_json::from_value::<DeviceTriggering>(value).unwrap(), trigger);
    }

    #[test]
    fn results_are_an_open_enumeration() {
        for (text, result) in [
            ("SUCCESS", DeliveryResult::Success),
            ("UNCONFIRMED", DeliveryResult::Unconfirmed),
            ("TERMINATE", DeliveryResult::Terminate),
            ("SEEN", DeliveryResult::Other("SEEN".to_owned())),
        ] {
            let body = json!({"transaction": "/transactions/1", "result": text});
            let report: DeviceTriggeringDeliveryReportNotification = serde_json::from_value(body).unwrap();
            assert_eq!(report.result, result);
        }
        assert!(!DeliveryResult::Other("SEEN".to_owned()).is_failure());
        assert!(DeliveryResult::Expired.is_failure());
    }

    #[test]
    fn a_report_without_its_mandatory_members_is_refused() {
        for body in
            [r#"{"transaction":"/1"}"#, r#"{"result":"SUCCESS"}"#, r#"{"transaction":7,"result":"SUCCESS"}"#, "[]"]
        {
            assert!(parse_json::<DeviceTriggeringDeliveryReportNotification>(body.as_bytes()).is_err(), "{body}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_octets_make_the_report_parser_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_json::<DeviceTriggeringDeliveryReportNotification>(&body);
            let _ = parse_json::<DeviceTriggering>(&body);
        }

        #[test]
        fn a_report_survives_its_coding(transaction in ".{0,40}", result in "[A-Z_]{1,20}") {
            let text = json!({"transaction": transaction, "result": result});
            let report: DeviceTriggeringDeliveryReportNotification = serde_json::from_value(text.clone()).unwrap();
            prop_assert_eq!(serde_json::to_value(report).unwrap(), text);
        }
    }
}
