//! Messages to JSON: no white space, members in the order written here.

use std::fmt::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::aggregation::{AggregatedMessage, IndividualMessage};
use crate::date;
use crate::identity::{Address, MessageId, MessagingTopic, SegmentationSetId};
use crate::member::{self, message_type};
use crate::model::{
    AggregatedReport, DeliveryStatus, DeliveryStatusReport, Deregistration, IndividualReport, IndividualResponse,
    Message, MessageResponse, Priority, Registration, RegistrationResponse, SegmentConfirmation, SegmentParameters,
    SegmentRecovery, StoredMessageUpdate, TopicSubscription, TopicSubscriptionResponse, TopicUnsubscription,
};
use crate::profile::ClientProfile;

/// What the members of a message take without its payload, most of the time.
const MEMBERS_OCTETS: usize = 384;

pub(super) fn registration(registration: &Registration) -> Vec<u8> {
    let mut out = String::with_capacity(MEMBERS_OCTETS);
    let mut object = Object::begin(&mut out);
    object.text(member::MESSAGE_TYPE, message_type::REGISTRATION);
    object.text(member::UE_SERVICE_ID, registration.ue_service_id.as_str());
    if let Some(profile) = &registration.client_profile {
        let mut inner = object.object(member::CLIENT_PROFILE);
        inner.client_profile(profile);
        inner.end();
    }
    object.end();
    out.into_bytes()
}

pub(super) fn client_profile(profile: &ClientProfile) -> Vec<u8> {
    let mut out = String::with_capacity(MEMBERS_OCTETS);
    let mut object = Object::begin(&mut out);
    object.client_profile(profile);
    object.end();
    out.into_bytes()
}

pub(super) fn deregistration(deregistration: &Deregistration) -> Vec<u8> {
    let mut out = String::with_capacity(MEMBERS_OCTETS);
    let mut object = Object::begin(&mut out);
    object.text(member::MESSAGE_TYPE, message_type::DEREGISTRATION);
    object.text(member::UE_SERVICE_ID, deregistration.ue_service_id.as_str());
    object.end();
    out.into_bytes()
}

pub(super) fn message(message: &Message) -> Vec<u8> {
    let mut out = String::with_capacity(MEMBERS_OCTETS + message.payload.len().div_ceil(3) * 4);
    let mut object = Object::begin(&mut out);
    object.text(member::MESSAGE_TYPE, message_type::MESSAGE);
    object.address(member::ORIGINATOR, &message.originator);
    object.address(member::DESTINATION, &message.destination);
    if let Some(recipient) = &message.recipient {
        object.address(member::RECIPIENT, recipient);
    }
    object.text(member::MESSAGE_ID, message.message_id.as_str());
    if let Some(application_id) = &message.application_id {
        object.text(member::APPLICATION_ID, application_id.as_str());
    }
    if message.delivery_status_required {
        object.flag(member::DELIVERY_STATUS_REQUIRED, true);
    }
    object.flag(member::STORE_AND_FORWARD, message.store_and_forward);
    object.store_and_forward_parameters(message.expiration_time);
    if message.priority != Priority::default() {
        object.text(member::PRIORITY, message.priority.as_str());
    }
    if let Some(segment) = &message.segment {
        object.flag(member::SEGMENTED, true);
        object.segment(segment);
    }
    if let Some(latency) = message.latency {
        object.number(member::LATENCY, latency);
    }
    if !message.payload.is_empty() {
        object.base64(member::PAYLOAD, &message.payload);
    }
    object.end();
    out.into_bytes()
}

/// What the members of one element of a list take without its payload, most of the time.
const ELEMENT_OCTETS: usize = 192;

pub(super) fn aggregated_message(message: &AggregatedMessage) -> Vec<u8> {
    let payload = message.payload_octets().div_ceil(3) * 4;
    let mut out = String::with_capacity(MEMBERS_OCTETS + message.messages.len() * ELEMENT_OCTETS + payload);
    let mut object = Object::begin(&mut out);
    object.text(member::MESSAGE_TYPE, message_type::MESSAGE);
    object.address(member::ORIGINATOR, &message.originator);
    object.address(member::DESTINATION, &message.destination);
    if let Some(recipient) = &message.recipient {
        object.address(member::RECIPIENT, recipient);
    }
    object.text(member::MESSAGE_ID, message.message_id.as_str());
    object.number(member::INDIVIDUAL_MESSAGE_COUNT, u32::try_from(message.messages.len()).unwrap_or(u32::MAX));
    object.objects(member::INDIVIDUAL_MESSAGES, &message.messages, individual_message);
    object.end();
    out.into_bytes()
}

fn individual_message(object: &mut Object<'_>, message: &IndividualMessage) {
    object.text(member::MESSAGE_ID, message.message_id.as_str());
    if let Some(application_id) = &message.application_id {
        object.text(member::APPLICATION_ID, application_id.as_str());
    }
    if message.delivery_status_required {
        object.flag(member::DELIVERY_STATUS_REQUIRED, true);
    }
    if message.store_and_forward {
        object.flag(member::STORE_AND_FORWARD, true);
    }
    object.store_and_forward_parameters(message.expiration_time);
    if message.priority != Priority::default() {
        object.text(member::PRIORITY, message.priority.as_str());
    }
    if !message.payload.is_empty() {
        object.base64(member::PAYLOAD, &message.payload);
    }
}

pub(super) fn message_response(response: &MessageResponse) -> Vec<u8> {
    let mut out = String::with_capacity(MEMBERS_OCTETS + response.individual.len() * ELEMENT_OCTETS);
    let mut object = Object::begin(&mut out);
    object.text(member::MESSAGE_TYPE, message_type::MESSAGE_RESPONSE);
    object.address(member::ORIGINATOR, &response.originator);
    object.text(member::MESSAGE_ID, response.message_id.as_str());
    object.fate(response.status.as_ref(), response.failure_cause.as_deref());
    if !response.individual.is_empty() {
        object.objects(member::INDIVIDUAL_RESPONSES, &response.individual, individual_response);
    }
    object.end();
    out.into_bytes()
}

fn individual_response(object: &mut Object<'_>, response: &IndividualResponse) {
    object.text(member::MESSAGE_ID, response.message_id.as_str());
    object.fate(response.status.as_ref(), response.failure_cause.as_deref());
}

pub(super) fn delivery_status_report(report: &DeliveryStatusReport) -> Vec<u8> {
    let mut out = String::with_capacity(MEMBERS_OCTETS);
    let mut object = Object::begin(&mut out);
    object.text(member::MESSAGE_TYPE, message_type::DELIVERY_STATUS_REPORT);
    object.address(member::ORIGINATOR, &report.originator);
    object.address(member::DESTINATION, &report.destination);
    object.text(member::MESSAGE_ID, report.message_id.as_str());
    object.text(member::DELIVERY_STATUS, report.delivery_status.as_str());
    object.failure_cause(report.failure_cause.as_deref());
    object.end();
    out.into_bytes()
}

pub(super) fn aggregated_report(report: &AggregatedReport) -> Vec<u8> {
    let mut out = String::with_capacity(MEMBERS_OCTETS + report.reports.len() * ELEMENT_OCTETS);
    let mut object = Object::begin(&mut out);
    object.text(member::MESSAGE_TYPE, message_type::DELIVERY_STATUS_REPORT);
    object.address(member::ORIGINATOR, &report.originator);
    object.address(member::DESTINATION, &report.destination);
    object.objects(member::INDIVIDUAL_REPORTS, &report.reports, individual_report);
    object.end();
    out.into_bytes()
}

fn individual_report(object: &mut Object<'_>, report: &IndividualReport) {
    object.address(member::ORIGINATOR, &report.originator);
    object.text(member::MESSAGE_ID, report.message_id.as_str());
    object.text(member::DELIVERY_STATUS, report.delivery_status.as_str());
    object.failure_cause(report.failure_cause.as_deref());
}

pub(super) fn segment_recovery(recovery: &SegmentRecovery) -> Vec<u8> {
    let SegmentRecovery { originator, destination, message_id, set_id, missing } = recovery;
    let mut out = String::with_capacity(MEMBERS_OCTETS + missing.len() * 5);
    let mut object = Object::begin(&mut out);
    object.text(member::MESSAGE_TYPE, message_type::SEGMENT_RECOVERY);
    object.set(originator, destination, message_id, set_id);
    object.array(member::MISSING_SEGMENTS, missing, |out, number| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{number}");
    });
    object.end();
    out.into_bytes()
}

pub(super) fn segment_confirmation(confirmation: &SegmentConfirmation) -> Vec<u8> {
    let SegmentConfirmation { originator, destination, message_id, set_id } = confirmation;
    let mut out = String::with_capacity(MEMBERS_OCTETS);
    let mut object = Object::begin(&mut out);
    object.text(member::MESSAGE_TYPE, message_type::SEGMENT_CONFIRMATION);
    object.set(originator, destination, message_id, set_id);
    object.end();
    out.into_bytes()
}

pub(super) fn topic_subscription(subscription: &TopicSubscription) -> Vec<u8> {
    let mut out = String::with_capacity(MEMBERS_OCTETS);
    let mut object = Object::begin(&mut out);
    object.text(member::MESSAGE_TYPE, message_type::TOPIC_SUBSCRIPTION);
    object.address(member::ORIGINATOR, &subscription.originator);
    object.topics(&subscription.topics);
    if let Some(expiration_time) = subscription.expiration_time {
        object.date(member::EXPIRATION_TIME, expiration_time);
    }
    object.end();
    out.into_bytes()
}

pub(super) fn topic_unsubscription(unsubscription: &TopicUnsubscription) -> Vec<u8> {
    let mut out = String::with_capacity(MEMBERS_OCTETS);
    let mut object = Object::begin(&mut out);
    object.text(member::MESSAGE_TYPE, message_type::TOPIC_UNSUBSCRIPTION);
    object.address(member::ORIGINATOR, &unsubscription.originator);
    object.topics(&unsubscription.topics);
    object.end();
    out.into_bytes()
}

pub(super) fn topic_subscription_response(response: &TopicSubscriptionResponse) -> Vec<u8> {
    let mut out = String::with_capacity(MEMBERS_OCTETS);
    let mut object = Object::begin(&mut out);
    object.text(member::MESSAGE_TYPE, message_type::TOPIC_SUBSCRIPTION_RESPONSE);
    object.address(member::ORIGINATOR, &response.originator);
    object.text(member::SUBSCRIPTION_STATUS, &response.status);
    if let Some(expiration_time) = response.expiration_time {
        object.date(member::EXPIRATION_TIME, expiration_time);
    }
    object.failure_cause(response.failure_cause.as_deref());
    object.end();
    out.into_bytes()
}

pub(super) fn stored_message_update(update: &StoredMessageUpdate) -> Vec<u8> {
    let mut out = String::with_capacity(MEMBERS_OCTETS);
    let mut object = Object::begin(&mut out);
    object.text(member::MESSAGE_TYPE, message_type::STORED_MESSAGE_UPDATE);
    object.address(member::ORIGINATOR, &update.originator);
    object.text(member::MESSAGE_ID, update.message_id.as_str());
    object.store_and_forward_parameters(update.expiration_time);
    object.end();
    out.into_bytes()
}

pub(super) fn registration_response(response: &RegistrationResponse) -> Vec<u8> {
    let mut out = String::with_capacity(MEMBERS_OCTETS);
    let mut object = Object::begin(&mut out);
    object.text(member::UE_SERVICE_ID, response.ue_service_id.as_str());
    object.failure_cause(response.failure_cause.as_deref());
    object.end();
    out.into_bytes()
}

pub(super) fn error_body(failure_cause: Option<&str>) -> Vec<u8> {
    let mut out = String::with_capacity(64);
    let mut object = Object::begin(&mut out);
    object.failure_cause(failure_cause);
    object.end();
    out.into_bytes()
}

/// An object being written.
struct Object<'o> {
    out: &'o mut String,
    empty: bool,
}

impl<'o> Object<'o> {
    fn begin(out: &'o mut String) -> Self {
        out.push('{');
        Self { out, empty: true }
    }

    fn end(self) {
        self.out.push('}');
    }

    fn name(&mut self, name: &'static str) {
        self.out.push_str(if self.empty { "\"" } else { ",\"" });
        self.empty = false;
        self.out.push_str(name);
        self.out.push_str("\":");
    }

    fn text(&mut self, name: &'static str, text: &str) {
        self.name(name);
        write_string(self.out, text);
    }

    fn flag(&mut self, name: &'static str, flag: bool) {
        self.name(name);
        self.out.push_str(if flag { "true" } else { "false" });
    }

    fn number(&mut self, name: &'static str, number: u32) {
        self.name(name);
        // Writing to a String cannot fail.
        let _ = write!(self.out, "{number}");
    }

    fn date(&mut self, name: &'static str, date: time::OffsetDateTime) {
        self.name(name);
        self.out.push('"');
        date::write(self.out, date);
        self.out.push('"');
    }

    fn base64(&mut self, name: &'static str, octets: &[u8]) {
        self.name(name);
        self.out.push('"');
        STANDARD.encode_string(octets, self.out);
        self.out.push('"');
    }

    fn object(&mut self, name: &'static str) -> Object<'_> {
        self.name(name);
        Object::begin(self.out)
    }

    fn address(&mut self, name: &'static str, address: &Address) {
        let mut inner = self.object(name);
        inner.text(member::ADDRESS_TYPE, address.addr_type.as_str());
        inner.text(member::ADDRESS, address.addr.as_str());
        inner.end();
    }

    fn segment(&mut self, segment: &SegmentParameters) {
        let mut inner = self.object(member::SEGMENT_PARAMETERS);
        inner.text(member::SEGMENTATION_SET_ID, segment.set_id.as_str());
        if let Some(total_count) = segment.total_count {
            inner.number(member::TOTAL_SEGMENT_COUNT, total_count);
        }
        inner.number(member::SEGMENT_NUMBER, segment.number);
        if segment.last {
            inner.flag(member::LAST_SEGMENT_FLAG, true);
        }
        inner.end();
    }

    /// Writes each of `items` with `write`.
    fn array<T>(&mut self, name: &'static str, items: &[T], write: impl Fn(&mut String, &T)) {
        self.name(name);
        self.out.push('[');
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                self.out.push(',');
            }
            write(self.out, item);
        }
        self.out.push(']');
    }

    fn objects<T>(&mut self, name: &'static str, items: &[T], members: impl Fn(&mut Object<'_>, &T)) {
        self.array(name, items, |out, item| {
            let mut inner = Object::begin(out);
            members(&mut inner, item);
            inner.end();
        });
    }

    fn topics(&mut self, topics: &[MessagingTopic]) {
        self.array(member::MESSAGING_TOPICS, topics, |out, topic| write_string(out, topic.as_str()));
    }

    fn set(&mut self, originator: &Address, destination: &Address, message_id: &MessageId, set_id: &SegmentationSetId) {
        self.address(member::ORIGINATOR, originator);
        self.address(member::DESTINATION, destination);
        self.text(member::MESSAGE_ID, message_id.as_str());
        self.text(member::SEGMENTATION_SET_ID, set_id.as_str());
    }

    fn client_profile(&mut self, profile: &ClientProfile) {
        if let Some(segment_size) = profile.segment_size {
            self.number(member::SEGMENT_SIZE, segment_size);
        }
        if let Some(aggregation) = profile.aggregation {
            self.flag(member::AGGREGATION_SUPPORTED, aggregation);
        }
        if let Some(triggering) = &profile.triggering {
            let mut inner = self.object(member::TRIGGERING_INFORMATION);
            if let Some(ue_identifier) = &triggering.ue_identifier {
                inner.text(member::UE_IDENTIFIER, ue_identifier);
            }
            if !triggering.ports.is_empty() {
                inner.array(member::PORTS, &triggering.ports, |out, port| {
                    let _ = write!(out, "{port}");
                });
            }
            if let Some(protocol) = &triggering.protocol {
                inner.text(member::PROTOCOL, protocol);
            }
            inner.end();
        }
        if let Some(availability) = &profile.availability {
            let mut inner = self.object(member::COMMUNICATION_AVAILABILITY);
            inner.date(member::SCHEDULED_TIME, availability.start);
            inner.number(member::COMMUNICATION_DURATION, availability.duration_seconds);
            if let Some(interval_seconds) = availability.interval_seconds {
                inner.number(member::PERIODIC_INTERVAL, interval_seconds);
            }
            inner.end();
        }
    }

    fn store_and_forward_parameters(&mut self, expiration_time: Option<time::OffsetDateTime>) {
        if let Some(expiration_time) = expiration_time {
            let mut inner = self.object(member::STORE_AND_FORWARD_PARAMETERS);
            inner.date(member::EXPIRATION_TIME, expiration_time);
            inner.end();
        }
    }

    fn fate(&mut self, status: Option<&DeliveryStatus>, failure_cause: Option<&str>) {
        if let Some(status) = status {
            self.text(member::STATUS, status.as_str());
        }
        self.failure_cause(failure_cause);
    }

    fn failure_cause(&mut self, cause: Option<&str>) {
        if let Some(cause) = cause {
            self.text(member::FAILURE_CAUSE, cause);
        }
    }
}

/// A JSON string (RFC 8259 section 7). Runs that need no escaping are copied whole.
fn write_string(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|octet| octet < 0x20 || octet == b'"' || octet == b'\\') {
        // What is looked for is ASCII, so both cuts are between characters.
        let (run, tail) = rest.split_at(at);
        out.push_str(run);
        let mut tail = tail.chars();
        if let Some(character) = tail.next() {
            let _ = match character {
                '"' => write!(out, "\\\""),
                '\\' => write!(out, "\\\\"),
                _ => write!(out, "\\u{:04x}", u32::from(character)),
            };
        }
        rest = tail.as_str();
    }
    out.push_str(rest);
    out.push('"');
}
