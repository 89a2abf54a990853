//! Attempts, acknowledgements and reports: how a message that was let in gets to its recipient, and what its sender is
//! told. The service's promises rest on this module and on [`crate::inbox`].
//!
//! # The flow (TS 23.554 clauses 8.3.2 to 8.3.6)
//!
//! ```text
//!  session | api                routing                   pipeline of the recipient                carrier
//!  MSG, IMDN, POST  ──────▶  who may send it?  ──────▶  ┌ HIGH   fetched ◀─┐ waiting ┐  take  ┌ session: CoAP request
//!                            seen before?               ├ MIDDLE fetched ◀─┤ waiting ├──────▶ ┤
//!                            whom for?                  └ LOW    fetched ◀─┤ waiting ┘        └ courier: POST to the AS
//!                                                          store ──▶ inbox ┘ (disk)                   │
//!  MSGRESP, Ack     ◀──────  everybody who asked  ◀────────────────────────  acknowledge  ◀───────────┘
//! ```
//!
//! Every registered UE and AS has one [`Pipeline`], a state machine without I/O behind one lock. A message enters it
//! once, by [`Pipeline::accept`], which decides on the spot: hand over directly, put on disk, or refuse.
//!
//! What comes in is not always what goes out. Aggregates are taken apart before they get here ([`crate::aggregate`]),
//! segments that their recipient cannot take are put together ([`crate::segments`]), messages to many are copies made by
//! a job that collects their answers ([`crate::fan_out`]). On the way out the session cuts what its peer does not take at
//! once, and puts together what its peer takes together (`session::outgoing`). In between, in the pipeline and on disk, one
//! message is one delivery.
//!
//! # Why an answer can be relied on
//!
//! * *Delivered* is said in one place, on the recipient's own acknowledgement: a 2.xx of its client (session), a 2xx of
//!   the AS without `DELY_FAILED` (courier). Nothing on the way counts as it, in particular no write to a socket. A message
//!   that went out in segments is acknowledged when every one of them is; one that went out with others, by what the
//!   one answer says of it.
//! * *Stored* is said in one place, by the writer of [`crate::inbox`] after the store says that the disk has the
//!   message and the record of its Message ID, which travel in one commit.
//! * *Held*, of a segment, is no promise. What is put together in memory is promised as a whole, once it is whole.
//! * Everything else is an answer with a cause. A message whose latency bound passes is answered before its fate is known:
//!   it has failed for its sender, although the recipient may have it or get it; it is not stored any more. A message whose
//!   carrier is lost before it acknowledged is not known to be delivered: it goes to disk if the sender allowed that, else
//!   it fails, although the recipient may have it.
//!
//! # Why once
//!
//! On the wire a message may travel more than once: acknowledged deliveries are removed from disk in batches, so a crash
//! between acknowledgement and removal delivers again, and a lost connection leaves open what arrived. Every copy
//! carries the same originator and Message ID, by which the recipient's library tells them; segments of one message carry
//! the same set identifier in every attempt. Towards the sender [`crate::deduplication`] gives a repeated request the first
//! one's answer, a segment of a message that is whole that message's.
//!
//! # Why in order (originator, recipient, priority)
//!
//! One originator's requests are decoded and accepted in the order of its connection. For one recipient and one
//! priority (a *lane*) the order of acceptance is kept because
//!
//! 1. what is on disk goes before what waits in memory, and nothing is put on disk while something older waits in memory
//!    or is directly under way ([`Pipeline::accept`], [`Pipeline::lapse`]);
//! 2. what waits in memory stays there until everything on disk or on its way to it has been sent
//!    ([`Pipeline::take`]);
//! 3. the writers put messages of one recipient on disk in the order handed to them, and they are handed over under the
//!    pipeline's lock;
//! 4. a UE gets requests on one stream, which keeps their order whatever the window; an AS gets the next message of an
//!    originator only after it answered the one before, because HTTP/2 streams have no order among each other;
//! 5. a message's segments go out one after the other with nothing of their priority in between, and an aggregate holds what would have
//!    followed each other;
//! 6. what goes to disk for its latency has nothing older of its originator before it ([`Pipeline::lapse`]);
//! 7. when a carrier is lost, what was under way and unacknowledged goes back before what waited
//!    ([`Pipeline::detach`], [`Pipeline::attach`]).
//!
//! Outside its windows a UE's pipeline rests as it does after "not now": what may be stored is, and reading from disk
//! begins with the next window. An originator that changes a stored message's expiry changes nothing of its place; one
//! that discards it claims it first, so that it is either on its way or gone.
//!
//! A higher lane is served first whenever there is a choice. One slow recipient fills its own queue and nothing else:
//! carriers take from it at their own pace, and senders are answered when their message's fate is known, without
//! anybody waiting in between.

mod fate;
mod pipeline;
#[cfg(test)]
mod pipeline_tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coap::ExchangeId;
use message::segmentation::SetKey;
use message::{
    Address, AggregatedMessage, DecodeLimits, DeliveryStatus, FailureCause, Message, MessageId, Priority,
    SegmentParameters, UeMessage,
};
use sha2::{Digest, Sha256};
use store::Position;
use time::OffsetDateTime;
use tokio::sync::oneshot;
use tokio::time::Instant;

pub(crate) use fate::{Dispatch, Failed};
pub(crate) use pipeline::{Batch, DiskWork, Fetch, Pipeline, Schedule};

use crate::aggregate::Aggregate;
use crate::core::Core;
use crate::deduplication::Key;
use crate::mailbox::{Letter, Mailbox};
use crate::registry::{OpenRequest, Party};
use crate::segments::Segments;

/// What a sender is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The recipient has it.
    Delivered,
    /// The disk has it.
    Stored,
    /// A segment that waits in memory for the others of its message: no promise yet. The segment that completes the
    /// message gets the message's answer.
    Held,
    /// What was stored is no more, as its originator wished (TS 23.554 8.3.6.1).
    Discarded,
    /// The messages of an aggregate fared differently: each one's own answer, in their order.
    Individually(Arc<[(MessageId, Answer)]>),
    /// Neither, and why. The cause decides the code: 2.04 with `DELY_FAILED` for a message that was taken and could not
    /// be delivered, 4.xx and 5.xx for one that was not taken.
    Failed(FailureCause),
}

impl Answer {
    /// True if the message was taken: a repetition gets this answer again.
    pub(crate) fn is_promise(&self) -> bool {
        match self {
            Self::Delivered | Self::Stored | Self::Discarded | Self::Individually(_) => true,
            Self::Held => false,
            Self::Failed(cause) => cause.http_status() == 200,
        }
    }

    /// As it stands in a response: the delivery status, and the cause of a failure.
    pub(crate) fn status(&self) -> (Option<DeliveryStatus>, Option<String>) {
        match self {
            Self::Delivered | Self::Discarded => (None, None),
            Self::Stored => (Some(DeliveryStatus::Stored), None),
            Self::Held => (Some(DeliveryStatus::segment_held()), None),
            Self::Individually(_) => (Some(DeliveryStatus::Failed), None),
            Self::Failed(cause) => (Some(DeliveryStatus::Failed), Some((*cause).into())),
        }
    }
}

/// Who waits for an answer, and where.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A request on a connection.
    Session(Arc<Mailbox>, ExchangeId, OpenRequest),
    /// A request on the API.
    Api(oneshot::Sender<Answer>),
    /// One message of an aggregate.
    Individual(Arc<Aggregate>, usize),
    /// The last segment of a message that was put together here.
    Reassembled(Box<Reply>, Arc<Segments>, SetKey),
}

impl Reply {
    /// Gives the answer. One who has left meanwhile is not missed: the message's fate does not depend on it.
    pub(crate) fn give(self, answer: Answer) {
        match self {
            Self::Session(mailbox, exchange, open) => {
                // First: whoever reads the answer may ask again at once.
                drop(open);
                mailbox.post(Letter::Answer(exchange, answer));
            }
            Self::Api(sender) => drop(sender.send(answer)),
            Self::Individual(aggregate, index) => aggregate.answered(index, answer),
            Self::Reassembled(reply, segments, set) => {
                segments.answered(&set, &answer);
                reply.give(answer);
            }
        }
    }
}

/// Where the answer to a delivery goes.
#[derive(Debug)]
pub(crate) enum Asker {
    /// To everybody who waits under this key with this originator.
    Sender { party: Arc<Party>, key: Key },
    /// To whoever puts the answers to several deliveries together. The number is this delivery's among them.
    Part(Arc<dyn Collector>, usize),
}

/// Takes the answers to several deliveries that belong together: the copies of one message, the messages of one aggregate.
pub(crate) trait Collector: Send + Sync + fmt::Debug {
    /// The fate of the delivery with this number is known. Called once for each delivery, in any order, from any task,
    /// with no lock of the delivery side held, possibly before the `deliver` that it came of has returned. Must not wait.
    fn ended(&self, core: &Arc<Core>, index: usize, answer: Answer);

    /// Whether the delivery with this number may be put on disk now. If not it ends with `OVERLOADED`.
    fn may_store(&self, _: &Core, _index: usize) -> bool {
        true
    }
}

/// What is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A message (TS 23.554 8.3.3).
    Message,
    /// A delivery status report (8.3.5). Always storable.
    Report,
    /// What those who cut messages into segments and put them together have to tell each other (8.5). Never storable.
    Notice,
}

/// A message or report on its way to one recipient.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) kind: Kind,
    pub(crate) originator: Address,
    pub(crate) message_id: MessageId,
    pub(crate) priority: Priority,
    /// May be put on disk if it cannot be delivered now.
    pub(crate) storable: bool,
    /// The originator wants to know what became of it.
    pub(crate) report_wanted: bool,
    /// When it is worth nothing any more. Always set on what is storable.
    pub(crate) expires_at: Option<OffsetDateTime>,
    /// The JSON of MSGin5G-1, as it is sent to a UE and kept on disk.
    pub(crate) body: Bytes,
    /// Who waits for the answer. None once it was given, as for everything that comes from the disk.
    pub(crate) asker: Option<Asker>,
    pub(crate) accepted_at: Instant,
    /// When its sender wants an answer at the latest (TS 29.538 `latency`).
    pub(crate) answer_by: Option<Instant>,
    /// Where it lies on disk, if it does.
    pub(crate) position: Option<Position>,
    /// Octets of its payload; 0 for a report.
    pub(crate) payload_octets: usize,
    /// Set on a segment: the name under which its answer is remembered on disk, because a message's segments share
    /// their Message ID.
    pub(crate) segment_name: Option<Box<MessageId>>,
    /// May go to its recipient together with others (8.4.3).
    pub(crate) aggregable: bool,
}

impl Delivery {
    /// A message, as it is sent to a UE in `body`. Storable if the message says so; then it must have an expiration time.
    pub(crate) fn message(message: &Message, body: Bytes, asker: Option<Asker>) -> Self {
        let now = Instant::now();
        Self {
            kind: Kind::Message,
            originator: message.originator.clone(),
            message_id: message.message_id.clone(),
            priority: message.priority,
            storable: message.store_and_forward,
            report_wanted: message.delivery_status_required,
            expires_at: message.expiration_time,
            body,
            asker,
            accepted_at: now,
            answer_by: message.latency.map(|milliseconds| now + Duration::from_millis(milliseconds.into())),
            position: None,
            payload_octets: message.payload.len(),
            segment_name: message.segment.as_ref().map(|segment| Box::new(segment_name(&message.message_id, segment))),
            // A copy for a member of a group names the group, which an aggregate of others does not.
            aggregable: message.recipient.is_none() && AggregatedMessage::accepts(message).is_ok(),
        }
    }

    /// Its time runs since its message was accepted, which may be a while ago.
    pub(crate) fn count_from(&mut self, message: &Message, accepted_at: Instant) {
        self.answer_by = message.latency.map(|milliseconds| accepted_at + Duration::from_millis(milliseconds.into()));
    }

    /// True if its sender was told already that it is safe: whoever puts the answers together looks after it.
    pub(crate) fn is_promised(&self) -> bool {
        self.storable && matches!(self.asker, Some(Asker::Part(..)))
    }

    /// A report of `originator` on the message of this name, as it is sent to a UE in `body`.
    pub(crate) fn report(
        originator: Address,
        message_id: MessageId,
        body: Bytes,
        expires_at: OffsetDateTime,
        asker: Option<Asker>,
    ) -> Self {
        Self {
            kind: Kind::Report,
            originator,
            message_id,
            priority: Priority::default(),
            storable: true,
            report_wanted: false,
            expires_at: Some(expires_at),
            body,
            asker,
            accepted_at: Instant::now(),
            answer_by: None,
            position: None,
            payload_octets: 0,
            segment_name: None,
            aggregable: true,
        }
    }

    /// A word of `originator` on the segments of a message of this name, as it is sent to a UE in `body`: worth nothing
    /// once its time is over.
    pub(crate) fn notice(
        originator: Address,
        message_id: MessageId,
        body: Bytes,
        expires_at: OffsetDateTime,
        asker: Option<Asker>,
    ) -> Self {
        Self {
            kind: Kind::Notice,
            priority: Priority::High,
            storable: false,
            aggregable: false,
            ..Self::report(originator, message_id, body, expires_at, asker)
        }
    }

    /// The name under which its answer is remembered on disk.
    pub(crate) fn record_name(&self) -> &MessageId {
        self.segment_name.as_deref().unwrap_or(&self.message_id)
    }

    /// The key under which its recipient's report is to be expected, if one was asked for.
    pub(crate) fn awaited(&self) -> Option<Key> {
        self.report_wanted.then(|| Key::report(self.originator.addr.as_str(), &self.message_id))
    }

    /// Gives a stored message another expiry, as its recipient is to see it, too.
    pub(crate) fn renew(&mut self, expires_at: OffsetDateTime) {
        self.expires_at = Some(expires_at);
        if let Ok(UeMessage::Message(mut message)) = UeMessage::decode(&self.body, &UNBOUNDED) {
            message.expiration_time = Some(expires_at);
            self.body = message.encode().into();
        }
    }

    /// True once `now` is past its expiration time.
    pub(crate) fn is_expired(&self, now: OffsetDateTime) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// For what was let in once already.
const UNBOUNDED: DecodeLimits = DecodeLimits {
    message_octets_max: usize::MAX,
    payload_octets_max: usize::MAX,
    depth_max: 8,
    segments_max: u32::MAX,
};

/// Within its originator's names, and never one that an originator chooses by accident.
pub(crate) fn segment_name(message_id: &MessageId, segment: &SegmentParameters) -> MessageId {
    let mut hash = Sha256::new();
    for part in [message_id.as_str(), segment.set_id.as_str()] {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hash.update(segment.number.to_be_bytes());
    let name = hash.finalize().iter().fold("segment-".to_owned(), |name, octet| format!("{name}{octet:02x}"));
    name.parse().unwrap_or_else(|_| message_id.clone())
}
