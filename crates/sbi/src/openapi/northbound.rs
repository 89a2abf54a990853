//! The APIs of a NEF (TS 29.122) that the MSGin5G Server asks by, with the notifications that it serves.

use super::api::{Api, delete, post};
use super::common::{date_time, duration_seconds, supported_features, uri};
use super::schema::{
    Schema, boolean, format, list_of_some, number, object, open_enumeration, optional, required, text, unsigned,
};
use crate::device_triggering::{
    self, DeliveryResult, DeviceTriggering, DeviceTriggeringDeliveryReportNotification, Priority,
};
use crate::monitoring_event::{
    self, IdleStatusInfo, MonitoringEventReport, MonitoringEventSubscription, MonitoringNotification, MonitoringType,
    ReachabilityType,
};

/// TS29122_DeviceTriggering, asked of the NEF.
#[must_use]
pub fn device_triggering() -> Api {
    let report = object(
        "DeviceTriggeringDeliveryReportNotification",
        vec![required("transaction", uri("https://nef.example/transactions/1")), required("result", delivery_result())],
    );
    let notification = post("", "Report on a trigger")
        .takes(report.of::<DeviceTriggeringDeliveryReportNotification>())
        .answers_nothing();
    Api::new("DeviceTriggering", "TS29122_DeviceTriggering", device_triggering::API_PATH)
        .consumed()
        .with(
            post("/{scsAsId}/transactions", "Trigger a device")
                .at("scsAsId", text("msgin5g"))
                .takes(trigger())
                .answers(201, trigger())
                .with_location()
                .calls_back("notificationDestination", "{$request.body#/notificationDestination}", notification),
        )
        .with(
            delete("/{scsAsId}/transactions/{transactionId}", "Take a trigger back")
                .at("scsAsId", text("msgin5g"))
                .at("transactionId", text("1"))
                .answers_nothing(),
        )
}

fn trigger() -> Schema {
    object(
        "DeviceTriggering",
        vec![
            optional("self", uri("https://nef.example/transactions/1")),
            optional("externalId", text("meter-7@example.com")),
            optional("msisdn", text("491700000001")),
            optional("supportedFeatures", supported_features()),
            required("validityPeriod", duration_seconds()),
            required("priority", open_enumeration(&["NO_PRIORITY", "PRIORITY"]).of::<Priority>()),
            required("applicationPortId", unsigned(5684)),
            optional("appSrcPortId", unsigned(5684)),
            required("triggerPayload", format("byte", "AQIABA==")),
            required("notificationDestination", uri("https://server.example/notifications/triggers/1")),
            optional("deliveryResult", delivery_result()),
        ],
    )
    .exactly_one(&["externalId", "msisdn"])
    .of::<DeviceTriggering>()
}

fn delivery_result() -> Schema {
    open_enumeration(&["SUCCESS", "UNKNOWN", "FAILURE", "TRIGGERED", "EXPIRED", "UNCONFIRMED", "REPLACED", "TERMINATE"])
        .of::<DeliveryResult>()
}

/// TS29122_MonitoringEvent, asked of the NEF as far as reachability goes.
#[must_use]
pub fn monitoring_event() -> Api {
    let notification = object(
        "MonitoringNotification",
        vec![
            required("subscription", uri("https://nef.example/subscriptions/1")),
            optional("monitoringEventReports", list_of_some(report())),
            optional("cancelInd", boolean()),
        ],
    );
    let notification = post("", "Report an event").takes(notification.of::<MonitoringNotification>()).answers_nothing();
    Api::new("MonitoringEvent", "TS29122_MonitoringEvent", monitoring_event::API_PATH)
        .consumed()
        .with(
            post("/{scsAsId}/subscriptions", "Ask to be told of reachability")
                .at("scsAsId", text("msgin5g"))
                .takes(subscription())
                .answers(200, report())
                .answers(201, subscription())
                .with_location()
                .calls_back("notificationDestination", "{$request.body#/notificationDestination}", notification),
        )
        .with(
            delete("/{scsAsId}/subscriptions/{subscriptionId}", "End it")
                .at("scsAsId", text("msgin5g"))
                .at("subscriptionId", text("1"))
                .answers_nothing(),
        )
}

fn subscription() -> Schema {
    object(
        "MonitoringEventSubscription",
        vec![
            optional("self", uri("https://nef.example/subscriptions/1")),
            optional("supportedFeatures", supported_features()),
            optional("externalId", text("meter-7@example.com")),
            optional("msisdn", text("491700000001")),
            required("notificationDestination", uri("https://server.example/notifications/reachability/1")),
            required("monitoringType", monitoring_type()),
            optional("maximumNumberOfReports", unsigned(1)),
            optional("monitorExpireTime", date_time()),
            optional("reachabilityType", reachability_type()),
        ],
    )
    .exactly_one(&["externalId", "msisdn"])
    .of::<MonitoringEventSubscription>()
}

fn report() -> Schema {
    let idle = object(
        "IdleStatusInfo",
        vec![
            optional("activeTime", duration_seconds()),
            optional("edrxCycleLength", number()),
            optional("periodicAUTimer", duration_seconds()),
        ],
    );
    object(
        "MonitoringEventReport",
        vec![
            required("monitoringType", monitoring_type()),
            optional("reachabilityType", reachability_type()),
            optional("eventTime", date_time()),
            optional("maxUEAvailabilityTime", date_time()),
            optional("idleStatusInfo", idle.of::<IdleStatusInfo>()),
        ],
    )
    .of::<MonitoringEventReport>()
}

fn monitoring_type() -> Schema {
    open_enumeration(&["UE_REACHABILITY"]).of::<MonitoringType>()
}

fn reachability_type() -> Schema {
    open_enumeration(&["SMS", "DATA"]).of::<ReachabilityType>()
}
