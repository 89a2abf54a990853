//! Any body that a NEF notifies with, or answers with, is read or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sbi::device_triggering::{DeviceTriggering, DeviceTriggeringDeliveryReportNotification};
use sbi::monitoring_event::{MonitoringEventSubscription, MonitoringNotification};
use sbi::{ResourceId, parse_json};

fuzz_target!(|body: &[u8]| {
    if let Ok(report) = parse_json::<DeviceTriggeringDeliveryReportNotification>(body) {
        let _ = ResourceId::of_uri(&report.transaction, "transactions");
    }
    if let Ok(notification) = parse_json::<MonitoringNotification>(body) {
        let _ = ResourceId::of_uri(&notification.subscription, "subscriptions");
    }
    let _ = parse_json::<DeviceTriggering>(body);
    let _ = parse_json::<MonitoringEventSubscription>(body);
});
