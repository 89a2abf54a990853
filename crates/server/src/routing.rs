//! From a decoded message to a delivery: who may send it, was it seen before, whom is it for.
//!
//! Nothing here waits: a message is queued, on its way to disk, or answered when these functions return, so that the
//! messages of one connection are accepted in the order they came in.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use message::{Address, AddressType, DeliveryStatusReport, FailureCause, Message, MessageId, Priority};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::core::Core;
use crate::deduplication::{self, Begin, ContentDigest, Key};
use crate::delivery::{Answer, Asker, Delivery, Kind, Reply};
use crate::log_budget::Topic;
use crate::registry::Party;
use crate::sync::lock;

impl Core {
    /// Takes a message of `from` in, or refuses it. Whoever calls has proven to be `from`.
    pub(crate) fn route_message(self: &Arc<Self>, from: &Arc<Party>, mut message: Message, reply: Reply) {
        if message.originator != from.address {
            return self.refuse_forged(from, &message.originator, reply);
        }
        if matches!(message.destination.addr_type, AddressType::Group | AddressType::Topic) {
            return self.fan_out(from, message, reply);
        }
        let to = match self.target(&message.destination) {
            Ok(to) => to,
            Err(cause) => return self.refuse(reply, cause),
        };
        if self.too_large_for(&to, message.payload.len()) {
            return self.refuse(reply, FailureCause::PayloadTooLarge);
        }
        // The message as its sender said it, before its expiry is brought within our bounds.
        let body = Bytes::from(message.encode());
        let digest = deduplication::digest(&body);
        let key = Key::message(&message.message_id);
        let Some(asker) = self.begin(from, key, digest, Some(&message.message_id), reply) else { return };

        let now = OffsetDateTime::now_utc();
        if message.expiration_time.is_some_and(|at| at <= now) {
            return self.answer(Some(asker), Answer::Failed(FailureCause::Expired));
        }
        let expires_at = self.expiry(&message, now);
        let unchanged = !message.store_and_forward || message.expiration_time == expires_at;
        message.expiration_time = expires_at;
        let delivery = Delivery {
            kind: Kind::Message,
            priority: message.priority,
            storable: message.store_and_forward,
            report_wanted: message.delivery_status_required,
            expires_at,
            body: if unchanged { body } else { Bytes::from(message.encode()) },
            originator: message.originator,
            message_id: message.message_id,
            asker: Some(asker),
            accepted_at: Instant::now(),
            position: None,
        };
        self.deliver(&to, delivery);
    }

    /// Takes a delivery status report of `from` in, or refuses it: only the recipient of a message reports on it.
    pub(crate) fn route_report(self: &Arc<Self>, from: &Arc<Party>, report: DeliveryStatusReport, reply: Reply) {
        if report.originator != from.address {
            return self.refuse_forged(from, &report.originator, reply);
        }
        let to = match self.target(&report.destination) {
            Ok(to) => to,
            Err(cause) => return self.refuse(reply, cause),
        };
        let key = Key::report(report.destination.addr.as_str(), &report.message_id);
        if !lock(&from.state).may_report(key) {
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
        let delivery = Delivery {
            kind: Kind::Report,
            originator: report.originator,
            message_id: report.message_id,
            priority: Priority::default(),
            storable: true,
            report_wanted: false,
            expires_at: Some(OffsetDateTime::now_utc().saturating_add(self.expiry_default())),
            body,
            asker: Some(asker),
            accepted_at: Instant::now(),
            position: None,
        };
        self.deliver(&to, delivery);
    }

    /// Takes in a message for a group or to a Messaging Topic: whole, and its originator is who it says.
    fn fan_out(self: &Arc<Self>, _from: &Arc<Party>, _message: Message, reply: Reply) {
        self.refuse(reply, FailureCause::TargetTypeNotSupported);
    }

    pub(crate) fn target(&self, destination: &Address) -> Result<Arc<Party>, FailureCause> {
        match destination.addr_type {
            AddressType::Ue | AddressType::As | AddressType::Bc => {
                self.registry.find(destination).ok_or(FailureCause::UnknownTarget)
            }
            _ => Err(FailureCause::TargetTypeNotSupported),
        }
    }

    /// A UE may take less at once than this server (TS 23.554 8.5.1).
    fn too_large_for(&self, to: &Party, payload_octets: usize) -> bool {
        let segment_size = lock(&to.state).segment_size.and_then(|octets| usize::try_from(octets).ok());
        payload_octets > segment_size.unwrap_or(usize::MAX).min(self.limits.payload_octets_max)
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

    fn refuse_forged(&self, from: &Party, claimed: &Address, reply: Reply) {
        if self.log_budget.admits(Topic::Forged) {
            tracing::warn!(target: "security", sender = %from.address, %claimed, "forged originator refused");
        }
        self.metrics.forged();
        self.refuse(reply, FailureCause::OriginatorNotAllowed);
    }

    /// Refuses a request that never became a delivery.
    pub(crate) fn refuse(&self, reply: Reply, cause: FailureCause) {
        self.metrics.answered(&Answer::Failed(cause));
        reply.give(Answer::Failed(cause));
    }
}
