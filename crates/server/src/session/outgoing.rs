//! Deliveries to the peer: in one request each; several small ones in one request, if the peer takes aggregates (TS 23.554
//! clause 8.4.3); or, if the peer takes less at once, in one request for each segment (8.5.2).
//!
//! An aggregate's messages are deliveries of their own: each is acknowledged or refused by what the one answer says of it.
//!
//! A message that is segmented here is one delivery: its segments go out one after the other as the window allows, before
//! anything else of its priority or a lower one does; it is acknowledged when every segment is, refused when one is, and
//! sent again as a whole if the connection is lost in between. Only one message of a priority at a time has segments that
//! are not sent yet, so that a window smaller than the number of segments holds nothing up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coap::{Code, ConnectionError, ExchangeId, Failure, Request, Response};
use message::segmentation::segment;
use message::{
    Address, AggregatedMessage, AggregatedReport, DeliveryStatus, DeliveryStatusReport, FailureCause, IndividualReport,
    Message, MessageId, MessageResponse, Priority, SegmentationSetId, UeMessage,
};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use uuid::Uuid;

use super::requests::JSON;
use super::{Ended, Session};
use crate::core::Core;
use crate::delivery::{Dispatch, Schedule};
use crate::inbox;
use crate::log_budget::Topic;
use crate::registry::Party;

/// How long a recipient that answered 4.29 or 5.xx is left alone if it does not say, and at most.
const PAUSE_DEFAULT: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A message that goes out in segments.
#[derive(Debug)]
pub(super) struct Train {
    tag: u64,
    /// Segments that are not acknowledged, those not sent yet included.
    open: usize,
}

/// What goes into one request, in the order it goes out.
#[derive(Debug)]
pub(super) struct Wagon {
    tag: u64,
    priority: Priority,
    load: Load,
}

#[derive(Debug)]
enum Load {
    /// A message, report or notice as it is.
    Whole(Bytes),
    /// One segment of a message; the last of its train that is acknowledged acknowledges the message.
    Segment(Box<Message>),
    /// Several messages or reports, and the one that says them all.
    Aggregate(Vec<Part>, Vec<u8>),
}

/// One message of an aggregate.
#[derive(Debug)]
struct Part {
    tag: u64,
    message_id: MessageId,
    body: Bytes,
}

/// A request of ours that carries a delivery, or several.
#[derive(Debug)]
pub(super) struct Sent {
    exchange: ExchangeId,
    /// The first or only delivery.
    tag: u64,
    /// All of an aggregate's; empty otherwise.
    parts: Vec<(u64, MessageId)>,
    pub(super) at: Instant,
}

impl Session {
    /// Sends what the pipeline has, as far as the windows allow; nothing to an address that is not proven, where deliveries
    /// only wait for their deadlines.
    pub(super) fn dispatch(&mut self) -> bool {
        // Something has to come from there first, which brings us back here.
        if self.asleep {
            return false;
        }
        if !std::mem::take(&mut self.look) || self.ending.is_some() {
            return false;
        }
        let Some(registered) = &self.registered else { return false };
        let (party, generation) = (Arc::clone(&registered.party), registered.generation);
        let limits = &self.core.limits;
        let window_max = match self.carrier.is_datagram() {
            _ if !self.may_deliver() => 0,
            true => limits.datagram_window,
            false => limits.delivery_window,
        };
        let mut progress = false;
        while self.carrier.unsent_octets() < self.core.limits.outbound_octets_max {
            let room = self.sent.len() < window_max;
            if room && let Some(next) = self.waiting.front() {
                progress = true;
                // What is more urgent does not wait for the end of a long message.
                let urgent = self.core.dispatch_above(&party, generation, next.priority);
                match urgent {
                    Some(dispatch) => self.load(&party, generation, dispatch),
                    None => self.send_next(&party, generation),
                }
                continue;
            }
            // What is under way is counted here, by the request. Without room this only asks for the next deadline.
            let window = if room { usize::MAX } else { 0 };
            match self.core.dispatch(&party, generation, window, Schedule::Stream) {
                Ok(dispatch) => {
                    progress = true;
                    self.load(&party, generation, dispatch);
                }
                Err(deadline) => {
                    self.pipeline_deadline = deadline;
                    // Come again when it is proven.
                    self.look = !self.may_deliver();
                    return progress;
                }
            }
        }
        // Come again when some of it is written.
        self.look = true;
        progress
    }

    /// Nothing goes to an address that is not proven, nor under a key that is not checked.
    fn may_deliver(&self) -> bool {
        self.carrier.may_ask() && !self.unchecked
    }

    /// Makes requests of what the pipeline gave. They go before what waits already, which is less urgent.
    fn load(&mut self, party: &Arc<Party>, generation: u64, dispatch: Dispatch) {
        let (tag, priority) = (dispatch.tag, dispatch.priority);
        if let Some(octets) = dispatch.segment_octets {
            match segments_of(&self.core, &dispatch, octets) {
                Ok(segments) => {
                    self.trains.push(Train { tag, open: segments.len() });
                    for segment in segments.into_iter().rev() {
                        let load = Load::Segment(Box::new(segment));
                        self.waiting.push_front(Wagon { tag, priority, load });
                    }
                }
                Err(cause) => self.core.refused(party, generation, tag, cause),
            }
            return;
        }
        if dispatch.along.is_empty() {
            return self.send(party, generation, Wagon { tag, priority, load: Load::Whole(dispatch.body) });
        }
        let all: Vec<_> = std::iter::once((tag, dispatch.body)).chain(dispatch.along).collect();
        match aggregate_of(&self.core, &all) {
            Some((parts, body)) => {
                let load = Load::Aggregate(parts, body);
                self.send(party, generation, Wagon { tag, priority, load });
            }
            None => {
                for (tag, body) in all.into_iter().rev() {
                    self.waiting.push_front(Wagon { tag, priority, load: Load::Whole(body) });
                }
            }
        }
    }

    fn send_next(&mut self, party: &Arc<Party>, generation: u64) {
        if let Some(wagon) = self.waiting.pop_front() {
            self.send(party, generation, wagon);
        }
    }

    fn send(&mut self, party: &Arc<Party>, generation: u64, wagon: Wagon) {
        let Wagon { tag, priority, load } = wagon;
        let (body, parts) = match load {
            Load::Whole(body) => (body.to_vec(), Vec::new()),
            Load::Segment(segment) => (segment.encode(), Vec::new()),
            Load::Aggregate(parts, body) => (body, parts),
        };
        let now = Instant::now();
        let path = Arc::clone(&self.path);
        let request = Request::post(&path).content_format(JSON).payload(body);
        match self.coap().request(&request, now.into_std()) {
            Ok(exchange) => {
                if !parts.is_empty() {
                    self.core.metrics.aggregate_sent();
                }
                let parts = parts.into_iter().map(|part| (part.tag, part.message_id)).collect();
                self.sent.push_back(Sent { exchange, tag, parts, at: now });
            }
            // One by one, then.
            Err(ConnectionError::MessageTooLargeForPeer { .. }) if !parts.is_empty() => {
                for part in parts.into_iter().rev() {
                    self.waiting.push_front(Wagon { tag: part.tag, priority, load: Load::Whole(part.body) });
                }
            }
            Err(ConnectionError::MessageTooLargeForPeer { .. }) => {
                self.drop_train(tag);
                self.core.refused(party, generation, tag, FailureCause::PayloadTooLarge);
            }
            Err(_) => {
                let until = Instant::now() + PAUSE_DEFAULT;
                let others = parts.iter().map(|part| part.tag).filter(|other| *other != tag);
                for tag in std::iter::once(tag).chain(others) {
                    self.drop_train(tag);
                    self.core.postponed(party, generation, tag, until);
                }
            }
        }
    }

    /// The recipient's answer to a delivery.
    pub(super) fn take_response(&mut self, exchange: ExchangeId, response: &Response) {
        let Some((party, generation, sent)) = self.landed(exchange) else { return };
        let code = response.code;
        if code.is_success() {
            let response = response_in(&response.payload, &self.core);
            for (tag, message_id) in sent.tags() {
                match response.as_ref().and_then(|response| refusal_of(response, message_id)) {
                    Some(cause) => {
                        self.drop_train(tag);
                        self.core.refused(&party, generation, tag, cause);
                    }
                    None if self.all_acknowledged(tag) => self.core.acknowledged(&party, generation, tag),
                    None => {}
                }
            }
            return;
        }
        let later = code == Code::TOO_MANY_REQUESTS || code.class() == 5;
        if !later && self.core.log_budget.admits(Topic::DeliveryRefused) {
            tracing::info!(recipient = %party.address, %code, "delivery refused by the recipient");
        }
        let pause = response.max_age.map_or(PAUSE_DEFAULT, |seconds| Duration::from_secs(seconds.into()));
        let until = Instant::now() + pause.clamp(Duration::from_secs(1), PAUSE_MAX);
        for (tag, _) in sent.tags() {
            self.drop_train(tag);
            if later {
                self.core.postponed(&party, generation, tag, until);
            } else {
                self.core.refused(&party, generation, tag, FailureCause::TargetRefused);
            }
        }
    }

    /// Nothing that the peer answered came back; what came, if anything, is not the peer's word, and decides nothing
    /// (RFC 8613 clause 8.4). Over datagrams the UE counts as away; a stream on which others speak is of no more use.
    pub(super) fn take_no_response(&mut self, failure: Failure) {
        let forged = matches!(failure, Failure::NotVerified | Failure::NotProtected(_));
        if forged && self.core.log_budget.admits(Topic::Forged) {
            tracing::warn!(target: "security", a_kid = %self.peer.a_kid, ?failure, "answer to a delivery is not the UE's");
        }
        if self.carrier.is_datagram() {
            self.fall_asleep();
        } else {
            self.abort(Ended::NotVerified);
        }
    }

    pub(super) fn take_unusable_response(&mut self, exchange: ExchangeId) {
        if let Some((party, generation, sent)) = self.landed(exchange) {
            for (tag, _) in sent.tags() {
                self.drop_train(tag);
                self.core.refused(&party, generation, tag, FailureCause::TargetRefused);
            }
        }
    }

    /// One request under this tag was acknowledged: whether that was all of its delivery.
    fn all_acknowledged(&mut self, tag: u64) -> bool {
        let Some(train) = self.trains.iter_mut().find(|train| train.tag == tag) else { return true };
        train.open = train.open.saturating_sub(1);
        if train.open > 0 {
            return false;
        }
        self.drop_train(tag);
        true
    }

    /// What comes back of this message's segments from now on decides nothing any more; the rest is not sent.
    fn drop_train(&mut self, tag: u64) {
        if self.trains.iter().any(|train| train.tag == tag) {
            self.trains.retain(|train| train.tag != tag);
            self.waiting.retain(|wagon| wagon.tag != tag);
        }
        if self.trains.is_empty() && self.waiting.is_empty() {
            (self.trains, self.waiting) = (Vec::new(), VecDeque::new());
        }
    }

    /// Nothing sent on this connection is waited for any more.
    pub(super) fn forget_sent(&mut self) {
        (self.trains, self.waiting) = (Vec::new(), VecDeque::new());
        let now = Instant::now().into_std();
        for sent in self.sent.drain(..) {
            self.carrier.coap_mut().cancel(sent.exchange, now);
        }
    }

    /// The UE acknowledges nothing, over datagrams: it counts as away, what it did not acknowledge is stored or failed, and
    /// its session waits for it to wake.
    pub(super) fn fall_asleep(&mut self) {
        let Some(registered) = self.registered.as_ref().filter(|_| !self.asleep && self.ending.is_none()) else {
            return;
        };
        let (party, generation) = (Arc::clone(&registered.party), registered.generation);
        tracing::debug!(ue = %party.address, "acknowledges nothing, counts as away");
        self.asleep = true;
        self.pipeline_deadline = None;
        self.forget_sent();
        self.core.detach_dozing(&party, generation, &self.mailbox);
    }

    /// Something came from the UE.
    pub(super) fn wake_up(&mut self) {
        if !std::mem::take(&mut self.asleep) {
            return;
        }
        let Some(registered) = &mut self.registered else { return };
        // Before anything may be handed over directly: what is on disk goes first.
        if self.core.store.pending_count(&registered.party.address) > 0 {
            inbox::found_on_disk(&self.core, &registered.party);
        }
        match registered.party.rouse(&self.mailbox, registered.generation) {
            Some(generation) => {
                registered.generation = generation;
                let party = Arc::clone(&registered.party);
                tracing::debug!(ue = %party.address, generation, "is there again");
                self.core.woken(&party.address);
                self.core.fan_out.lines.kick(&party.address);
                self.look = true;
            }
            None => self.abort(Ended::Replaced),
        }
    }

    fn landed(&mut self, exchange: ExchangeId) -> Option<(Arc<Party>, u64, Sent)> {
        let index = self.sent.iter().position(|sent| sent.exchange == exchange)?;
        let sent = self.sent.remove(index)?;
        if self.sent.is_empty() && self.sent.capacity() > 16 {
            self.sent = VecDeque::new();
        }
        self.look = true;
        let registered = self.registered.as_ref()?;
        Some((Arc::clone(&registered.party), registered.generation, sent))
    }
}

impl Sent {
    /// Every delivery it carries; those of an aggregate with their names.
    fn tags(&self) -> impl Iterator<Item = (u64, Option<&MessageId>)> {
        let only = self.parts.is_empty().then_some((self.tag, None));
        only.into_iter().chain(self.parts.iter().map(|(tag, message_id)| (*tag, Some(message_id))))
    }
}

/// None if they do not go into one after all.
fn aggregate_of(core: &Core, all: &[(u64, Bytes)]) -> Option<(Vec<Part>, Vec<u8>)> {
    let (mut messages, mut reports) = (Vec::new(), Vec::new());
    let mut parts = Vec::with_capacity(all.len());
    for (tag, body) in all {
        let message_id = match UeMessage::decode(body, &core.stored_limits) {
            Ok(UeMessage::Message(message)) => {
                messages.push(*message);
                messages.last()?.message_id.clone()
            }
            Ok(UeMessage::DeliveryStatusReport(report)) => {
                reports.push(report);
                reports.last()?.message_id.clone()
            }
            _ => return None,
        };
        parts.push(Part { tag: *tag, message_id, body: body.clone() });
    }
    let body = match (messages.is_empty(), reports.first()) {
        (false, None) => {
            let name = Uuid::new_v4().to_string().parse().ok()?;
            AggregatedMessage::aggregate(name, &messages).ok()?.encode()
        }
        (true, Some(first)) => {
            let (originator, destination) = (first.originator.clone(), first.destination.clone());
            let reports = reports.into_iter().map(individual_report).collect();
            AggregatedReport { originator, destination, reports }.encode()
        }
        _ => return None,
    };
    Some((parts, body))
}

fn individual_report(report: DeliveryStatusReport) -> IndividualReport {
    IndividualReport {
        originator: report.originator,
        message_id: report.message_id,
        delivery_status: report.delivery_status,
        failure_cause: report.failure_cause,
    }
}

fn segments_of(core: &Core, dispatch: &Dispatch, octets: usize) -> Result<Vec<Message>, FailureCause> {
    let Ok(UeMessage::Message(message)) = UeMessage::decode(&dispatch.body, &core.stored_limits) else {
        return Err(FailureCause::Internal);
    };
    let set_id = set_id(&message.originator, &message.message_id, octets).ok_or(FailureCause::Internal)?;
    // It may have registered anew, for less than what was checked when the message was accepted.
    segment(&message, set_id, octets).map_err(|_| FailureCause::PayloadTooLarge)
}

/// The same for every attempt at a message, so that segments of an earlier attempt count; another one if the recipient's
/// segment size changed meanwhile, because then the segments are others. INFERRED: TS 23.554 says nothing on how the
/// identifier is chosen.
fn set_id(originator: &Address, message_id: &MessageId, octets: usize) -> Option<SegmentationSetId> {
    let mut hash = Sha256::new();
    for part in [originator.addr_type.as_str(), originator.addr.as_str(), message_id.as_str(), &octets.to_string()] {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(16).map(|octet| format!("{octet:02x}")).collect::<String>().parse().ok()
}

/// What a client says in the payload of a 2.04. Most say nothing there.
fn response_in(payload: &[u8], core: &Core) -> Option<MessageResponse> {
    if payload.is_empty() {
        return None;
    }
    MessageResponse::decode(payload, &core.decode_limits).ok()
}

/// A client may refuse in words, as the server does: all it was sent, or the messages of an aggregate that it names.
fn refusal_of(response: &MessageResponse, message_id: Option<&MessageId>) -> Option<FailureCause> {
    let own = response.individual.iter().find(|individual| Some(&individual.message_id) == message_id);
    let status = match own {
        Some(individual) => &individual.status,
        None if response.individual.is_empty() => &response.status,
        None => &None,
    };
    (*status == Some(DeliveryStatus::Failed)).then_some(FailureCause::TargetRefused)
}
