//! From a decoded message to a delivery: who may send it, was it seen before, whom is it for.
//!
//! Nothing here waits: a message is queued, on its way to disk, or answered when these functions return, so that the
//! messages of one connection are accepted in the order they came in.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use message::{Address, AddressType, DeliveryStatusReport, FailureCause, Message, MessageId, SEGMENTS_MAX};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::core::Core;
use crate::deduplication::{self, Begin, ContentDigest, Key};
use crate::delivery::{Answer, Asker, Delivery, Reply, segment_name};
use crate::fan_out::{self, FanOut, Fresh};
use crate::log_budget::Topic;
use crate::policy::word;
use crate::registry::Party;
use crate::sync::lock;

impl Core {
    /// Takes a message of `from` in, or refuses it. Whoever calls has proven to be `from`.
    pub(crate) fn route_message(self: &Arc<Self>, from: &Arc<Party>, message: Message, reply: Reply) {
        if message.originator != from.address {
            return self.refuse_forged(from, &message.originator, reply);
        }
        // Only a server says whom a copy is for (TS 23.554 table 8.3.3-1).
        if message.recipient.is_some() {
            return self.refuse(reply, FailureCause::Malformed);
        }
        if let Err(cause) = self.within_rate(from) {
            return self.refuse(reply, cause);
        }
        match &message.segment {
            Some(segment) if !self.forwards(from, &message, segment) => self.reassemble(from, message, reply),
            _ => self.take_in(from, message, reply),
        }
    }

    /// Takes in a whole message, or a segment that its recipient puts together.
    pub(crate) fn take_in(self: &Arc<Self>, from: &Arc<Party>, mut message: Message, reply: Reply) {
        if matches!(message.destination.addr_type, AddressType::Group | AddressType::Topic) {
            return self.fan_out(from, message, reply);
        }
        let to = match self.target(&message.destination) {
            Ok(to) => to,
            Err(cause) => return self.refuse(reply, cause),
        };
        if message.destination.addr_type == AddressType::Bc
            && let Err(cause) = self.broadcast.admits(self, &message.destination, &message.originator)
        {
            return self.refuse(reply, cause);
        }
        if self.too_large_for(&to, message.payload.len()) {
            return self.refuse(reply, FailureCause::PayloadTooLarge);
        }
        // The message as its sender said it, before its expiry is brought within our bounds.
        let body = Bytes::from(message.encode());
        let digest = deduplication::digest(&body);
        let (key, name) = match &message.segment {
            None => (Key::message(&message.message_id), message.message_id.clone()),
            Some(segment) => (Key::segment(&message.message_id, segment), segment_name(&message.message_id, segment)),
        };
        let Some(asker) = self.begin(from, key, digest, Some(&name), reply) else {
            if let Some(segment) = &message.segment
                && lock(&from.recent).digest(key) == Some(digest)
            {
                self.confirm_again(from, &message, segment);
            }
            return;
        };

        let now = OffsetDateTime::now_utc();
        if message.expiration_time.is_some_and(|at| at <= now) {
            return self.answer(Some(asker), Answer::Failed(FailureCause::Expired));
        }
        let expires_at = self.expiry(&message, now);
        let unchanged = !message.store_and_forward || message.expiration_time == expires_at;
        message.expiration_time = expires_at;
        let body = if unchanged { body } else { Bytes::from(message.encode()) };
        self.deliver(&to, Delivery::message(&message, body, Some(asker)));
    }

    /// Takes a delivery status report of `from` in, or refuses it: only the recipient of a message reports on it.
    pub(crate) fn route_report(self: &Arc<Self>, from: &Arc<Party>, report: DeliveryStatusReport, reply: Reply) {
        if report.originator != from.address {
            return self.refuse_forged(from, &report.originator, reply);
        }
        if let Err(cause) = self.within_rate(from) {
            return self.refuse(reply, cause);
        }
        let to = match self.target(&report.destination) {
            Ok(to) => to,
            Err(cause) => return self.refuse(reply, cause),
        };
        let key = Key::report(report.destination.addr.as_str(), &report.message_id);
        if !lock(&from.state).may_report(key, Instant::now(), Duration::from_secs(self.limits.expiry_max_seconds)) {
            if self.log_budget.admits(Topic::ReportForged) {
                tracing::warn!(
                    target: "security", originator = %from.address, destination = %report.destination,
                    message_id = %report.message_id, "report on a message that its sender did not get"
                );
            }
            return self.refuse(reply, FailureCause::OriginatorNotAllowed);
        }
        let body = Bytes::from(report.encode());
        let Some(asker) = self.begin(from, key, deduplication::digest(&body), None, reply) else { return };
        let Err(asker) = fan_out::take_report(self, &report, asker) else { return };
        let expires_at = OffsetDateTime::now_utc().saturating_add(self.expiry_default());
        let delivery = Delivery::report(report.originator, report.message_id, body, expires_at, Some(asker));
        self.deliver(&to, delivery);
    }

    /// Takes in a message for a group or to a Messaging Topic: whole, and its originator is who it says.
    fn fan_out(self: &Arc<Self>, from: &Arc<Party>, mut message: Message, reply: Reply) {
        let served = match message.destination.addr_type {
            AddressType::Group => self.groups.are_served(),
            _ => self.topics.are_served(),
        };
        if !served {
            return self.refuse(reply, FailureCause::TargetTypeNotSupported);
        }
        if message.payload.len() > self.limits.message_payload_octets_max {
            return self.refuse(reply, FailureCause::PayloadTooLarge);
        }
        let digest = deduplication::digest(&message.encode());
        let key = Key::message(&message.message_id);
        let Some(asker) = self.begin(from, key, digest, Some(&message.message_id), reply) else { return };
        let now = OffsetDateTime::now_utc();
        if message.expiration_time.is_some_and(|at| at <= now) {
            return self.answer(Some(asker), Answer::Failed(FailureCause::Expired));
        }
        message.expiration_time = self.expiry(&message, now);
        FanOut::submit(self, Fresh { message, asker, digest, accepted_at: Instant::now() });
    }

    pub(crate) fn target(&self, destination: &Address) -> Result<Arc<Party>, FailureCause> {
        match destination.addr_type {
            AddressType::Ue | AddressType::As | AddressType::Bc => {
                self.registry.find(destination).ok_or(FailureCause::UnknownTarget)
            }
            _ => Err(FailureCause::TargetTypeNotSupported),
        }
    }

    /// Refuses an originator that sends more a second than it may (TS 22.262 leaves the limit to the operator).
    pub(crate) fn within_rate(&self, from: &Party) -> Result<(), FailureCause> {
        let Some(rate) = self.limits.rate_of(from.is_application_server()) else { return Ok(()) };
        if lock(&from.recent).admits(rate, Instant::now()) { Ok(()) } else { Err(FailureCause::RateExceeded) }
    }

    /// What a UE does not take at once goes to it in segments (TS 23.554 8.5.2), of which there is a greatest number.
    pub(crate) fn too_large_for(&self, to: &Party, payload_octets: usize) -> bool {
        let segments = match lock(&to.state).segment_octets(to, &self.limits) {
            Some(octets) => payload_octets.div_ceil(octets),
            None => 1,
        };
        segments > SEGMENTS_MAX as usize || payload_octets > self.limits.message_payload_octets_max
    }

    /// When a message is worth nothing any more. One that may be stored always has an end.
    fn expiry(&self, message: &Message, now: OffsetDateTime) -> Option<OffsetDateTime> {
        if !message.store_and_forward {
            return message.expiration_time;
        }
        let latest = now.saturating_add(self.expiry_max());
        let wanted = message.expiration_time.unwrap_or_else(|| now.saturating_add(self.expiry_default()));
        Some(wanted.min(latest))
    }

    /// Enters the message into what its originator sent lately. None if that answers it.
    fn begin(
        self: &Arc<Self>,
        from: &Arc<Party>,
        key: Key,
        digest: ContentDigest,
        on_disk: Option<&MessageId>,
        reply: Reply,
    ) -> Option<Asker> {
        if !self.request_opened() {
            self.refuse(reply, FailureCause::Overloaded);
            return None;
        }
        let now = Instant::now();
        let entries_max = if from.is_application_server() {
            self.limits.remembered_per_application_server_max
        } else {
            self.limits.remembered_per_ue_max
        };
        let (begin, ask_disk) = {
            let mut recent = lock(&from.recent);
            let begin = recent.begin(key, digest, reply, now, entries_max, self.limits.remembered());
            (begin, now < self.ask_disk_until || recent.forgot_stored_since(now - self.remembered_stored()))
        };
        match begin {
            Begin::New => {
                let asker = Asker::Sender { party: Arc::clone(from), key };
                match on_disk.filter(|_| ask_disk).and_then(|message_id| self.answer_on_disk(from, message_id, digest))
                {
                    Some(answer) => {
                        self.answer(Some(asker), answer);
                        None
                    }
                    None => Some(asker),
                }
            }
            Begin::Joined => {
                self.request_closed();
                None
            }
            Begin::Answered(reply, answer) => {
                self.request_closed();
                self.metrics.repeated();
                reply.give(answer);
                None
            }
            Begin::Conflict(reply) => {
                self.request_closed();
                self.refuse(reply, FailureCause::MessageIdReused);
                None
            }
            Begin::TooMany(reply) => {
                self.request_closed();
                self.refuse(reply, FailureCause::TooMany);
                None
            }
        }
    }

    /// What the disk knows of a message that memory does not: asked only after a restart, or when memory had to forget.
    ///
    /// The embedded store answers at once. An engine that does not gets no waiting here, where order is kept: the message
    /// is refused, and its repetition asks again.
    fn answer_on_disk(&self, from: &Party, message_id: &MessageId, digest: ContentDigest) -> Option<Answer> {
        match self.store.deduplication_lookup(&from.address, message_id).now_or_never() {
            Some(Ok(None)) => None,
            Some(Ok(Some(record))) if record.expires_at <= OffsetDateTime::now_utc() => None,
            Some(Ok(Some(record))) if record.digest == digest => Some(Answer::Stored),
            Some(Ok(Some(_))) => Some(Answer::Failed(FailureCause::MessageIdReused)),
            Some(Err(error)) => {
                tracing::error!(originator = %from.address, %error, "deduplication record not read");
                Some(Answer::Failed(FailureCause::StorageFailed))
            }
            None => Some(Answer::Failed(FailureCause::Overloaded)),
        }
    }

    pub(crate) fn refuse_forged(&self, from: &Party, claimed: &Address, reply: Reply) {
        if self.log_budget.admits(Topic::Forged) {
            tracing::warn!(target: "security", sender = %from.address, %claimed, "forged originator refused");
        }
        self.metrics.forged();
        self.audit.refused_for(&from.address.to_string(), "send", &claimed.to_string(), word::NOT_YOURS);
        self.refuse(reply, FailureCause::OriginatorNotAllowed);
    }

    /// Refuses a request that never became a delivery.
    pub(crate) fn refuse(&self, reply: Reply, cause: FailureCause) {
        self.metrics.answered(&Answer::Failed(cause));
        reply.give(Answer::Failed(cause));
    }
}
