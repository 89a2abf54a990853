//! The server's part in segmentation (TS 23.554 clause 8.5): segments that their recipient can take are forwarded as they
//! came, and what the two clients tell each other about them with them; others are put together here.
//!
//! ```text
//!  segment of a UE ──▶ for a UE, and it fits ──────────────▶ forwarded, a delivery of its own
//!                 └──▶ for an AS, group, topic, area, or    ┌ not all here ─▶ SEGMENT_HELD; after a while SEGREC,
//!                      for a UE that takes less at once ──▶ ┤                 at last a failure report
//!                                                           └ all here ─────▶ SEGCONFIR, and routed as a whole message,
//!                                                                             whose answer the last segment gets
//! ```
//!
//! Nothing is promised about a message before it is complete, so what is held here need not survive a crash: the sender
//! has no answer for the last segment, sends that again, and is asked for the others.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use message::segmentation::{Insert, Overdue, Reassembler, ReassemblyLimits, SetKey};
use message::{
    Address, AddressType, FailureCause, Message, MessageId, SegmentConfirmation, SegmentParameters, SegmentRecovery,
    SegmentationSetId,
};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use crate::core::Core;
use crate::deduplication::{Key, Late};
use crate::delivery::{Answer, Asker, Collector, Delivery, Reply};
use crate::inbox;
use crate::limits::Limits;
use crate::registry::Party;
use crate::sync::lock;

/// How often it is looked for segments that stay away.
const RECOVERY_TICK: Duration = Duration::from_millis(250);

/// Failure reports of messages given up at once that are put on disk at once.
const REPORTS_MAX: usize = 64;

/// The longest that a message may take to come together, in times that its segments may take one by one: one that trickles
/// in holds its memory no longer, whatever it does.
const LIFETIME_WAITS: u64 = 24;

/// Segments that wait for the others of their messages.
#[derive(Debug)]
pub(crate) struct Segments {
    reassembler: Mutex<Reassembler>,
    /// What the reassembler's times count from.
    began: Instant,
}

impl Segments {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let wait_milliseconds = limits.reassembly_wait_seconds.saturating_mul(1000);
        Arc::new(Self {
            reassembler: Mutex::new(Reassembler::new(ReassemblyLimits {
                sets_per_peer_max: limits.reassembly_sets_per_originator_max,
                octets_per_peer_max: limits.reassembly_octets_per_originator_max,
                sets_max: limits.reassembly_sets_max,
                octets_max: limits.reassembly_octets_max,
                payload_octets_max: limits.message_payload_octets_max,
                wait_milliseconds,
                recoveries_max: limits.reassembly_recoveries_max,
                lifetime_milliseconds_max: wait_milliseconds.saturating_mul(LIFETIME_WAITS),
                // Late repeats are known by the answer to the whole message; once that is forgotten they are new.
                completed_max: 0,
                completed_milliseconds: 0,
            })),
            began: Instant::now(),
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The whole message was answered. Unless something was promised about it, it is kept for a repetition of any of its
    /// segments, as long as sets are.
    pub(crate) fn answered(&self, set: &SetKey, answer: &Answer) {
        if answer.is_promise() {
            lock(&self.reassembler).remove(set);
        }
    }

    /// Nothing of this originator is waited for any more.
    pub(crate) fn forget(&self, originator: &Address) {
        lock(&self.reassembler).remove_peer(originator);
    }

    /// Messages in segments, and the octets they count for.
    pub(crate) fn held(&self) -> (usize, usize) {
        let reassembler = lock(&self.reassembler);
        (reassembler.sets(), reassembler.octets())
    }
}

/// What one client has to tell another about segments of a message.
pub(crate) enum Notice {
    Recovery(SegmentRecovery),
    Confirmation(SegmentConfirmation),
}

impl Notice {
    pub(crate) fn originator(&self) -> &Address {
        match self {
            Self::Recovery(recovery) => &recovery.originator,
            Self::Confirmation(confirmation) => &confirmation.originator,
        }
    }

    pub(crate) fn message_id(&self) -> &MessageId {
        match self {
            Self::Recovery(recovery) => &recovery.message_id,
            Self::Confirmation(confirmation) => &confirmation.message_id,
        }
    }

    fn destination(&self) -> &Address {
        match self {
            Self::Recovery(recovery) => &recovery.destination,
            Self::Confirmation(confirmation) => &confirmation.destination,
        }
    }

    fn encode(&self) -> Bytes {
        match self {
            Self::Recovery(recovery) => recovery.encode().into(),
            Self::Confirmation(confirmation) => confirmation.encode().into(),
        }
    }
}

/// Who waits for the answer to something that is not remembered: saying it twice is meant twice.
#[derive(Debug)]
struct Once(Mutex<Option<Reply>>);

impl Collector for Once {
    fn ended(&self, core: &Arc<Core>, _: usize, answer: Answer) {
        core.request_closed();
        core.metrics.answered(&answer);
        if let Some(reply) = lock(&self.0).take() {
            reply.give(answer);
        }
    }
}

/// Waits for whether a confirmation that was told again has arrived.
#[derive(Debug)]
struct ToldAgain {
    to: Arc<Party>,
    confirmation: Key,
}

impl Collector for ToldAgain {
    fn ended(&self, _: &Arc<Core>, _: usize, answer: Answer) {
        if !matches!(answer, Answer::Delivered) {
            lock(&self.to.recent).not_told(self.confirmation);
        }
    }
}

impl Core {
    /// Whether this segment goes on as it is: to a UE that can take it (8.5.4), unless others of its message are here, or
    /// were until it was whole.
    pub(crate) fn forwards(&self, from: &Party, message: &Message, segment: &SegmentParameters) -> bool {
        if message.destination.addr_type != AddressType::Ue {
            return false;
        }
        // To nobody: that is found out where it is taken in.
        let Some(to) = self.registry.find(&message.destination) else { return true };
        let fits = lock(&to.state).segment_octets(&to, &self.limits).is_none_or(|most| message.payload.len() <= most);
        let set = SetKey { originator: message.originator.clone(), set_id: segment.set_id.clone() };
        fits && !lock(&self.segments.reassembler).holds(&set)
            && !lock(&from.recent).was_completed(Key::set(&message.message_id, segment))
    }

    /// Keeps a segment of `from` until its message is whole, and takes that in.
    pub(crate) fn reassemble(self: &Arc<Self>, from: &Arc<Party>, message: Message, reply: Reply) {
        let (Some(set), Some(segment)) = (SetKey::of(&message), &message.segment) else {
            return self.refuse(reply, FailureCause::Malformed);
        };
        let of_set = Key::set(&message.message_id, segment);
        let late = lock(&from.recent).is_late(of_set, reply);
        let reply = match late {
            Late::No(reply) => reply,
            Late::Joined => return,
            Late::Answered(reply, answer) => return reply.give(answer),
            Late::TooMany(reply) => return self.refuse(reply, FailureCause::TooMany),
        };
        let has_recipient = match message.destination.addr_type {
            AddressType::Group | AddressType::Topic => Ok(()),
            _ => self.target(&message.destination).map(drop),
        };
        if let Err(cause) = has_recipient {
            return self.refuse(reply, cause);
        }
        let inserted = lock(&self.segments.reassembler).insert(message, self.segments.now());
        match inserted {
            Insert::Held => {
                self.metrics.segment_held();
                reply.give(Answer::Held);
            }
            Insert::Duplicate => reply.give(Answer::Held),
            Insert::Refused(cause) => {
                self.metrics.reassembly_failed(cause);
                self.refuse(reply, cause);
            }
            Insert::Complete(whole) => {
                self.metrics.reassembled();
                self.confirm(from, &whole, &set);
                let key = Key::message(&whole.message_id);
                let segments = Arc::clone(&self.segments);
                self.take_in(from, *whole, Reply::Reassembled(Box::new(reply), segments, set));
                lock(&from.recent).completed(of_set, key, Instant::now());
            }
        }
    }

    /// SEGCONFIR to the UE whose message is whole. In the name of whom the message is for: the originator knows no other
    /// (INFERRED).
    fn confirm(self: &Arc<Self>, from: &Arc<Party>, whole: &Message, set: &SetKey) {
        self.tell(
            from,
            &Notice::Confirmation(SegmentConfirmation {
                originator: whole.destination.clone(),
                destination: whole.originator.clone(),
                message_id: whole.message_id.clone(),
                set_id: set.set_id.clone(),
            }),
        );
    }

    /// A forwarded segment was repeated, and goes nowhere: its recipient does not say again that it has all of them, so that
    /// is said here, in its name. The originator counts the message delivered by it (8.5.4).
    pub(crate) fn confirm_again(self: &Arc<Self>, from: &Arc<Party>, message: &Message, segment: &SegmentParameters) {
        let confirmation = Key::confirmation(&message.destination, &message.message_id, &segment.set_id);
        if !from.is_ue() || !lock(&from.recent).tells_again(confirmation, segment.number, Instant::now()) {
            return;
        }
        let notice = Notice::Confirmation(SegmentConfirmation {
            originator: message.destination.clone(),
            destination: message.originator.clone(),
            message_id: message.message_id.clone(),
            set_id: segment.set_id.clone(),
        });
        let told = ToldAgain { to: Arc::clone(from), confirmation };
        self.deliver(from, self.notice(&notice, Some(Asker::Part(Arc::new(told), 0))));
    }

    /// An AS has no operation to be told by (TS 29.538).
    fn tell(self: &Arc<Self>, to: &Arc<Party>, notice: &Notice) {
        if to.is_ue() {
            self.deliver(to, self.notice(notice, None));
        }
    }

    /// Asks for segments that stayed away; gives up those that stayed away for too long.
    fn recover(self: &Arc<Self>) {
        let mut to_report = Vec::new();
        let overdue = lock(&self.segments.reassembler).due(self.segments.now());
        for overdue in overdue {
            match overdue {
                Overdue::Missing { key, message, missing } if !missing.is_empty() => {
                    self.metrics.segments_asked_for();
                    let Some(originator) = self.registry.find(&key.originator) else { continue };
                    self.tell(
                        &originator,
                        &Notice::Recovery(SegmentRecovery {
                            originator: message.destination,
                            destination: key.originator,
                            message_id: message.message_id,
                            set_id: key.set_id,
                            missing,
                        }),
                    );
                }
                Overdue::Missing { .. } => {}
                Overdue::Failed { key, message } => {
                    let cause = FailureCause::SegmentsMissing;
                    tracing::info!(
                        originator = %key.originator, message_id = %message.message_id, %cause, "segments given up"
                    );
                    self.metrics.reassembly_failed(cause);
                    if message.delivery_status_required {
                        to_report.push((key.originator, message.destination, message.message_id));
                    }
                }
            }
        }
        if to_report.is_empty() {
            return;
        }
        // The disk may take its time for them, while segments of others stay away.
        let core = Arc::clone(self);
        self.tasks.spawn(async move {
            let reports = stream::iter(to_report);
            reports
                .for_each_concurrent(REPORTS_MAX, |(originator, recipient, message_id)| {
                    let core = Arc::clone(&core);
                    async move {
                        let cause = FailureCause::SegmentsMissing;
                        inbox::report_failure(&core, &recipient, &originator, &message_id, cause).await;
                    }
                })
                .await;
        });
    }

    /// Forwards SEGREC or SEGCONFIR of `from`, or refuses it. Only UEs are told: an AS gets messages whole.
    pub(crate) fn route_notice(self: &Arc<Self>, from: &Arc<Party>, notice: &Notice, reply: Reply) {
        if *notice.originator() != from.address {
            return self.refuse_forged(from, notice.originator(), reply);
        }
        if let Err(cause) = self.within_rate(from) {
            return self.refuse(reply, cause);
        }
        let to = match self.target(notice.destination()) {
            Ok(to) if to.is_ue() => to,
            Ok(_) => return self.refuse(reply, FailureCause::TargetTypeNotSupported),
            Err(cause) => return self.refuse(reply, cause),
        };
        if !self.request_opened() {
            return self.refuse(reply, FailureCause::Overloaded);
        }
        self.note(from, &to, notice);
        let asker = Asker::Part(Arc::new(Once(Mutex::new(Some(reply)))), 0);
        self.deliver(&to, self.notice(notice, Some(asker)));
    }

    /// Remembers for `to`, whose segments the notice is about, what it means for their repetition. A confirmation also if
    /// `to` is away, and does not get it.
    fn note(&self, from: &Party, to: &Party, notice: &Notice) {
        let key = |message_id, set_id: &SegmentationSetId, number| {
            let segment = SegmentParameters { set_id: set_id.clone(), total_count: None, number, last: false };
            Key::segment(message_id, &segment)
        };
        match notice {
            Notice::Recovery(SegmentRecovery { message_id, set_id, missing, .. }) => {
                lock(&to.recent).missed(missing.iter().map(|number| key(message_id, set_id, *number)));
            }
            Notice::Confirmation(SegmentConfirmation { message_id, set_id, .. }) => {
                let confirmation = Key::confirmation(&from.address, message_id, set_id);
                // Some count from 0.
                let first = [0, 1].map(|number| key(message_id, set_id, number));
                let entries_max = self.limits.remembered_per_ue_max;
                lock(&to.recent).confirmed(confirmation, &first, Instant::now(), entries_max);
            }
        }
    }

    fn notice(&self, notice: &Notice, asker: Option<Asker>) -> Delivery {
        let expires_at = OffsetDateTime::now_utc().saturating_add(self.reassembly_wait());
        Delivery::notice(notice.originator().clone(), notice.message_id().clone(), notice.encode(), expires_at, asker)
    }
}

/// Looks after segments that stay away, until the server stops.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        tokio::select! {
            () = sleep(RECOVERY_TICK) => core.recover(),
            () = core.stopped.cancelled() => return,
        }
    }
}
