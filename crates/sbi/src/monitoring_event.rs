//! Event monitoring through the NEF, `3gpp-monitoring-event/v1` (TS 29.122 clause 5.3, TS 23.502 clause 4.15): types and
//! client, as far as the reachability of a UE goes (TS 23.554 clause 8.9.2).

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::client::SbiClient;
use crate::error::SbiError;
use crate::services;
use crate::t8::{Collection, Device, ResourceId, deleted};

/// Path of the API below its root.
pub const API_PATH: &str = "/3gpp-monitoring-event/v1";

/// What is to be reported about a device (TS 29.122 MonitoringEventSubscription, as far as one device's reachability
/// needs). At least one of `maximum_number_of_reports` and `monitor_expire_time` is mandatory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MonitoringEventSubscription {
    /// The resource; only in answers.
    #[serde(default, rename = "self", skip_serializing_if = "Option::is_none")]
    pub self_link: Option<String>,
    /// Features of the API that both sides support, a hexadecimal bitmask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supported_features: Option<String>,
    /// Whom it is about.
    #[serde(flatten)]
    pub device: Device,
    /// Where reports go: an absolute URI.
    pub notification_destination: String,
    /// What is to be reported.
    pub monitoring_type: MonitoringType,
    /// After so many reports it ends; 1 without an expiry is a one-time check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum_number_of_reports: Option<u32>,
    /// When it ends at the latest.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub monitor_expire_time: Option<OffsetDateTime>,
    /// What the device is to be reachable for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachability_type: Option<ReachabilityType>,
}

/// A kind of event (TS 29.122 MonitoringType, an open enumeration).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MonitoringType {
    /// The device can be reached.
    #[serde(rename = "UE_REACHABILITY")]
    UeReachability,
    /// Any of the others.
    #[serde(untagged)]
    Other(String),
}

/// What a device is reachable for (TS 29.122 ReachabilityType, an open enumeration).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ReachabilityType {
    /// A short message, which is how triggers travel.
    Sms,
    /// Data.
    Data,
    /// A value of a later release.
    #[serde(untagged)]
    Other(String),
}

/// The NEF reports (TS 29.122 MonitoringNotification, as far as one device's reachability needs). Without a report in it,
/// it tests whether notifications arrive (TestNotification).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MonitoringNotification {
    /// The resource that the reports belong to.
    pub subscription: String,
    /// The reports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub monitoring_event_reports: Vec<MonitoringEventReport>,
    /// The NEF ends the subscription.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_ind: Option<bool>,
}

/// One report (TS 29.122 MonitoringEventReport, as far as reachability goes).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MonitoringEventReport {
    /// What happened.
    pub monitoring_type: MonitoringType,
    /// What the device is reachable for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachability_type: Option<ReachabilityType>,
    /// When.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub event_time: Option<OffsetDateTime>,
    /// Until when the device is expected to stay reachable.
    #[serde(
        default,
        rename = "maxUEAvailabilityTime",
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub max_ue_availability_time: Option<OffsetDateTime>,
    /// How the device sleeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_status_info: Option<IdleStatusInfo>,
}

impl MonitoringEventReport {
    /// Whether it says that the device can be reached.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        self.monitoring_type == MonitoringType::UeReachability
    }
}

/// How a device sleeps (TS 29.122 IdleStatusInfo).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdleStatusInfo {
    /// For how long it listens after it was active, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_time: Option<u32>,
    /// The length of its extended discontinuous reception cycle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edrx_cycle_length: Option<f64>,
    /// After how long it shows itself at the latest, in seconds.
    #[serde(default, rename = "periodicAUTimer", skip_serializing_if = "Option::is_none")]
    pub periodic_au_timer: Option<u32>,
}

/// What the NEF answers to a subscription.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscribed {
    /// By which it can be ended; none after an immediate report (200), which leaves nothing behind, or if the NEF did not
    /// name it in a form that can be used.
    pub subscription: Option<ResourceId>,
    /// Whether reports follow.
    pub reports_follow: bool,
    /// What it reports at once.
    pub reports: Vec<MonitoringEventReport>,
}

/// The members of an answer that are of any use: of a MonitoringEventSubscription (201), a MonitoringEventReport or
/// MonitoringEventReports (200).
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    #[serde(default, rename = "self")]
    self_link: Option<String>,
    #[serde(default)]
    notification_destination: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    monitoring_type: Option<MonitoringType>,
    #[serde(default)]
    monitoring_event_report: Option<MonitoringEventReport>,
    #[serde(default)]
    monitoring_event_reports: Vec<MonitoringEventReport>,
    #[serde(default)]
    reachability_type: Option<ReachabilityType>,
    #[serde(default, rename = "maxUEAvailabilityTime", with = "time::serde::rfc3339::option")]
    max_ue_availability_time: Option<OffsetDateTime>,
    #[serde(default)]
    idle_status_info: Option<IdleStatusInfo>,
}

impl Answer {
    fn into_reports(self) -> Vec<MonitoringEventReport> {
        let mut reports = self.monitoring_event_reports;
        reports.extend(self.monitoring_event_report);
        // A subscription has a destination, a report has none.
        if let (Some(monitoring_type), None) = (self.monitoring_type, self.notification_destination) {
            reports.push(MonitoringEventReport {
                monitoring_type,
                reachability_type: self.reachability_type,
                event_time: None,
                max_ue_availability_time: self.max_ue_availability_time,
                idle_status_info: self.idle_status_info,
            });
        }
        reports
    }
}

/// Subscribes at a NEF (or SCEF) to events of devices.
#[derive(Debug, Clone)]
pub struct MonitoringEventClient {
    http: SbiClient,
    subscriptions: Collection,
}

impl MonitoringEventClient {
    /// A client of the NEF at `root`, for example `https://nef.example:8443`, which knows the caller as `scs_as_id`.
    #[must_use]
    pub fn new(http: SbiClient, root: &str, scs_as_id: &str) -> Self {
        Self {
            http: http.for_service(services::NEF, services::MONITORING_EVENT),
            subscriptions: Collection::new(root, API_PATH, scs_as_id, "subscriptions"),
        }
    }

    /// Subscribes.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn subscribe(&self, request: &MonitoringEventSubscription) -> Result<Subscribed, SbiError> {
        let response = self.http.post::<_, Answer>(self.subscriptions.uri(), request).await?;
        let link = response.body.as_ref().and_then(|answer| answer.self_link.as_deref());
        let reports_follow = response.status == http::StatusCode::CREATED;
        let subscription = self.subscriptions.created(&response, link).filter(|_| reports_follow);
        let reports = response.body.unwrap_or_default().into_reports();
        Ok(Subscribed { subscription, reports_follow, reports })
    }

    /// Ends a subscription. One that is over already counts as ended.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn unsubscribe(&self, subscription: &ResourceId) -> Result<(), SbiError> {
        deleted(self.http.delete::<serde::de::IgnoredAny>(&self.subscriptions.resource(subscription)).await)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use akma::Gpsi;
    use proptest::prelude::*;
    use serde_json::json;
    use time::macros::datetime;

    use super::*;
    use crate::extract::parse_json;

    #[test]
    fn a_subscription_is_spelled_as_in_29_122() {
        let value = json!({
            "externalId": "meter-7@example.com", "notificationDestination": "https://server.example/notifications/1",
            "monitoringType": "UE_REACHABILITY", "maximumNumberOfReports": 1, "reachabilityType": "SMS"
        });
        let mut subscription = MonitoringEventSubscription {
            self_link: None,
            supported_features: None,
            device: "extid-meter-7@example.com".parse::<Gpsi>().unwrap().into(),
            notification_destination: "https://server.example/notifications/1".to_owned(),
            monitoring_type: MonitoringType::UeReachability,
            maximum_number_of_reports: Some(1),
            monitor_expire_time: None,
            reachability_type: Some(ReachabilityType::Sms),
        };
        assert_eq!(serde_json::to_value(&subscription).unwrap(), value);
        assert_eq!(serde_json::from_value::<MonitoringEventSubscription>(value).unwrap(), subscription);
        subscription.monitor_expire_time = Some(datetime!(2026-12-01 00:00 UTC));
        let value = serde_json::to_value(&subscription).unwrap();
        assert_eq!(value.get("monitorExpireTime"), Some(&json!("2026-12-01T00:00:00Z")));
    }

    #[test]
    fn a_notification_with_all_that_a_sleeping_device_tells_is_read() {
        let notification: MonitoringNotification = serde_json::from_value(json!({
            "subscription": "https://nef.example/3gpp-monitoring-event/v1/as-1/subscriptions/1",
            "monitoringEventReports": [{
                "monitoringType": "UE_REACHABILITY", "reachabilityType": "DATA", "msisdn": "491700000001",
                "maxUEAvailabilityTime": "2026-12-01T00:00:00Z",
                "idleStatusInfo": {"activeTime": 20, "edrxCycleLength": 20.48, "periodicAUTimer": 3600}
            }, {"monitoringType": "LOSS_OF_CONNECTIVITY"}]
        }))
        .unwrap();
        let [reachable, lost] = &notification.monitoring_event_reports[..] else { panic!() };
        assert!(reachable.is_reachable() && !lost.is_reachable());
        assert_eq!(reachable.max_ue_availability_time, Some(datetime!(2026-12-01 00:00 UTC)));
        assert_eq!(reachable.idle_status_info.as_ref().unwrap().periodic_au_timer, Some(3600));
    }

    #[test]
    fn a_test_notification_is_one_without_reports() {
        let notification: MonitoringNotification = serde_json::from_value(json!({"subscription": "/1"})).unwrap();
        assert!(notification.monitoring_event_reports.is_empty());
    }

    #[test]
    fn a_notification_without_its_mandatory_members_is_refused() {
        for body in [
            "{}",
            r#"{"subscription":7}"#,
            r#"{"subscription":"/1","monitoringEventReports":[{}]}"#,
            r#"{"subscription":"/1","monitoringEventReports":{"monitoringType":"UE_REACHABILITY"}}"#,
        ] {
            assert!(parse_json::<MonitoringNotification>(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn the_reports_of_every_form_of_answer_are_found() {
        let report = json!({"monitoringType": "UE_REACHABILITY"});
        for (answer, count) in [
            (report.clone(), 1),
            (json!({"monitoringEventReports": [report.clone(), report.clone()]}), 2),
            (json!({"monitoringType": "UE_REACHABILITY", "notificationDestination": "/1"}), 0),
            (
                json!({
                    "monitoringType": "UE_REACHABILITY", "notificationDestination": "/1",
                    "monitoringEventReport": report
                }),
                1,
            ),
        ] {
            let read: Answer = serde_json::from_value(answer.clone()).unwrap();
            assert_eq!(read.into_reports().len(), count, "{answer}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_octets_make_the_notification_parser_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_json::<MonitoringNotification>(&body);
            let _ = parse_json::<MonitoringEventSubscription>(&body);
            let _ = parse_json::<Answer>(&body);
        }

        #[test]
        fn a_notification_survives_its_coding(
            subscription in ".{0,40}",
            kinds in proptest::collection::vec("[A-Z_]{1,20}", 1..4),
        ) {
            let reports: Vec<_> = kinds.iter().map(|kind| json!({"monitoringType": kind})).collect();
            let text = json!({"subscription": subscription, "monitoringEventReports": reports});
            let notification: MonitoringNotification = serde_json::from_value(text.clone()).unwrap();
            prop_assert_eq!(serde_json::to_value(notification).unwrap(), text);
        }
    }
}
