//! Messages to JSON: no white space, members in the order written here.

use std::fmt::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::date;
use crate::identity::Address;
use crate::member::{self, message_type};
use crate::model::{
    DeliveryStatusReport, Deregistration, Message, MessageResponse, Priority, Registration, RegistrationResponse,
    SegmentParameters,
};

/// What the members of a message take without its payload, most of the time.
const MEMBERS_OCTETS: usize = 384;

pub(super) fn registration(registration: &Registration) -> Vec<u8> {
    let mut out = String::with_capacity(MEMBERS_OCTETS);
    let mut object = Object::begin(&mut out);
    object.text(member::MESSAGE_TYPE, message_type::REGISTRATION);
    object.text(member::UE_SERVICE_ID, registration.ue_service_id.as_str());
    if let Some(profile) = &registration.client_profile {
        let mut inner = object.object(member::CLIENT_PROFILE);
        if let Some(segment_size) = profile.segment_size {
            inner.number(member::SEGMENT_SIZE, segment_size);
        }
        inner.end();
    }
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
    object.text(member::MESSAGE_ID, message.message_id.as_str());
    if let Some(application_id) = &message.application_id {
        object.text(member::APPLICATION_ID, application_id.as_str());
    }
    if message.delivery_status_required {
        object.flag(member::DELIVERY_STATUS_REQUIRED, true);
    }
    object.flag(member::STORE_AND_FORWARD, message.store_and_forward);
    if let Some(expiration_time) = message.expiration_time {
        let mut inner = object.object(member::STORE_AND_FORWARD_PARAMETERS);
        inner.date(member::EXPIRATION_TIME, expiration_time);
        inner.end();
    }
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

pub(super) fn message_response(response: &MessageResponse) -> Vec<u8> {
    let mut out = String::with_capacity(MEMBERS_OCTETS);
    let mut object = Object::begin(&mut out);
    object.text(member::MESSAGE_TYPE, message_type::MESSAGE_RESPONSE);
    object.address(member::ORIGINATOR, &response.originator);
    object.text(member::MESSAGE_ID, response.message_id.as_str());
    if let Some(status) = &response.status {
        object.text(member::STATUS, status.as_str());
    }
    object.failure_cause(response.failure_cause.as_deref());
    object.end();
    out.into_bytes()
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
