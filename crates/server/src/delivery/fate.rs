//! From a pipeline's decisions to their effects: the disk, the carriers, and those who wait for an answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use message::{Address, FailureCause, INDIVIDUAL_MESSAGES_MAX, MessageId, Priority};
use store::Position;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::pipeline::{Aside, Gathering, Pipeline, Schedule, Take};
use super::{Answer, Asker, Delivery, Kind};
use crate::core::Core;
use crate::inbox;
use crate::mailbox::{CloseReason, Letter, Mailbox};
use crate::registry::{Party, PartyState};
use crate::sync::lock;

/// What a carrier sends: copied out, so that nobody holds the pipeline while it is put on the wire.
#[derive(Debug)]
pub(crate) struct Dispatch {
    pub(crate) tag: u64,
    pub(crate) kind: Kind,
    pub(crate) priority: Priority,
    pub(crate) body: Bytes,
    /// Set if it has more octets of payload than the recipient takes at once: how many those are.
    pub(crate) segment_octets: Option<usize>,
    /// What may go out together with it, in this order, under the tag of each.
    pub(crate) along: Vec<(u64, Bytes)>,
}

/// A message on disk that failed: what its report needs.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    pub(crate) kind: Kind,
    pub(crate) originator: Address,
    pub(crate) message_id: MessageId,
    pub(crate) report_wanted: bool,
    pub(crate) position: Position,
    pub(crate) cause: FailureCause,
}

/// Answers to give once no lock is held.
type Answers = Vec<(Option<Asker>, Answer)>;

impl Core {
    /// Takes a delivery in for `party`: it is queued, on its way to disk, or answered when this returns.
    pub(crate) fn deliver(self: &Arc<Self>, party: &Arc<Party>, delivery: Delivery) {
        let mut state = lock(&party.state);
        if state.gone {
            drop(state);
            return self.answer(delivery.asker, Answer::Failed(FailureCause::UnknownTarget));
        }
        let (closed, mut answers) = self.keep_window(party, &mut state);
        let accepted = state.pipeline().accept(delivery, &self.limits);
        // A carrier that is told nothing now does not know when the window opens.
        let carrier = if accepted.is_none() || closed { state.carrier.clone() } else { None };
        answers.extend(accepted.and_then(|aside| self.carry_out_one(party, &mut state, aside)));
        drop(state);
        if let Some(carrier) = carrier {
            carrier.knock();
        }
        self.answer_all(answers);
    }

    /// The next thing to send to `party`, if it still belongs to the carrier of this generation. If there is nothing now:
    /// when [`Core::lapse`] is due.
    pub(crate) fn dispatch(
        self: &Arc<Self>,
        party: &Arc<Party>,
        generation: u64,
        window: usize,
        schedule: Schedule,
    ) -> Result<Dispatch, Option<Instant>> {
        let utc = OffsetDateTime::now_utc();
        self.dispatch_by(party, generation, utc, |pipeline| pipeline.take(utc, window, schedule))
    }

    /// The next thing to send to `party` on a stream before what is of this priority, if there is any.
    pub(crate) fn dispatch_above(
        self: &Arc<Self>,
        party: &Arc<Party>,
        generation: u64,
        priority: Priority,
    ) -> Option<Dispatch> {
        if priority == Priority::High {
            return None;
        }
        let utc = OffsetDateTime::now_utc();
        self.dispatch_by(party, generation, utc, |pipeline| pipeline.take_above(utc, Schedule::Stream, priority)).ok()
    }

    fn dispatch_by(
        self: &Arc<Self>,
        party: &Arc<Party>,
        generation: u64,
        utc: OffsetDateTime,
        take: impl Fn(&mut Pipeline) -> Take<'_>,
    ) -> Result<Dispatch, Option<Instant>> {
        loop {
            let mut guard = lock(&party.state);
            let state = &mut *guard;
            if state.generation == generation {
                let (_, answers) = self.keep_window(party, state);
                if !answers.is_empty() {
                    drop(guard);
                    self.answer_all(answers);
                    continue;
                }
            }
            let segment_octets = state.segment_octets(party, &self.limits);
            let aggregates = state.takes_aggregates();
            let gathering = segment_octets.filter(|_| aggregates).and_then(|octets| self.gathering(octets));
            let pipeline = state.pipeline_of(generation).ok_or(None)?;
            pipeline.gather(gathering);
            let expired = match take(pipeline) {
                Take::Send(tag, delivery) => {
                    let mut dispatch = Dispatch {
                        tag,
                        kind: delivery.kind,
                        priority: delivery.priority,
                        body: delivery.body.clone(),
                        segment_octets: segment_octets.filter(|octets| delivery.payload_octets > *octets),
                        along: Vec::new(),
                    };
                    let mut awaited = Vec::new();
                    awaited.extend(delivery.awaited());
                    if let Some(octets) = segment_octets.filter(|_| aggregates && delivery.aggregable) {
                        let (kind, originator, priority) =
                            (delivery.kind, delivery.originator.clone(), delivery.priority);
                        let mut room = octets.saturating_sub(delivery.payload_octets);
                        while dispatch.along.len() + 1 < INDIVIDUAL_MESSAGES_MAX
                            && let Some((tag, delivery)) = pipeline.take_along(utc, (kind, &originator, priority), room)
                        {
                            room = room.saturating_sub(delivery.payload_octets);
                            dispatch.along.push((tag, delivery.body.clone()));
                            awaited.extend(delivery.awaited());
                        }
                    }
                    for key in awaited {
                        state.await_report(key, self.awaited_max(party));
                    }
                    inbox::start_disk_work(self, party, state);
                    return Ok(dispatch);
                }
                Take::Expired(delivery) => delivery,
                Take::Nothing => {
                    let deadline = pipeline.next_deadline(&self.limits);
                    inbox::start_disk_work(self, party, state);
                    return Err(deadline);
                }
            };
            drop(guard);
            self.answer(expired.asker, Answer::Failed(FailureCause::Expired));
        }
    }

    fn gathering(&self, payload_octets_max: usize) -> Option<Gathering> {
        let wait = Duration::from_millis(self.limits.aggregation_wait_milliseconds);
        (!wait.is_zero()).then_some(Gathering { wait, payload_octets_max })
    }

    /// The recipient acknowledged what was sent under `tag`: the one place where *delivered* is said.
    pub(crate) fn acknowledged(self: &Arc<Self>, party: &Arc<Party>, generation: u64, tag: u64) {
        let Some(delivery) = self.landed(party, generation, |pipeline| pipeline.acknowledge(tag)) else { return };
        self.metrics.delivered(delivery.kind, delivery.position.is_some(), delivery.accepted_at.elapsed());
        self.answer(delivery.asker, Answer::Delivered);
        self.fan_out.lines.kick(&party.address);
    }

    /// The recipient refused it for good.
    pub(crate) fn refused(self: &Arc<Self>, party: &Arc<Party>, generation: u64, tag: u64, cause: FailureCause) {
        let Some(delivery) = self.landed(party, generation, |pipeline| pipeline.refuse(tag)) else { return };
        match delivery.position {
            None => self.answer(delivery.asker, Answer::Failed(cause)),
            Some(position) => inbox::spawn_burial(self, party, Failed::of(&delivery, position, cause)),
        }
    }

    /// The recipient cannot take it, nor anything else, before `until`.
    pub(crate) fn postponed(self: &Arc<Self>, party: &Arc<Party>, generation: u64, tag: u64, until: Instant) {
        if let Some(delivery) = self.landed(party, generation, |pipeline| pipeline.postpone(tag, until)) {
            self.answer(delivery.asker, Answer::Failed(FailureCause::TargetUnreachable));
        }
    }

    fn landed(
        self: &Arc<Self>,
        party: &Arc<Party>,
        generation: u64,
        landing: impl FnOnce(&mut Pipeline) -> Option<Delivery>,
    ) -> Option<Delivery> {
        let mut guard = lock(&party.state);
        let state = &mut *guard;
        let pipeline = state.pipeline_of(generation)?;
        let delivery = landing(pipeline);
        let asides = pipeline.settle();
        let answers = self.carry_out(party, state, asides);
        inbox::start_disk_work(self, party, state);
        drop(guard);
        self.answer_all(answers);
        delivery
    }

    /// Does what time asks for, and returns when to come again.
    pub(crate) fn lapse(self: &Arc<Self>, party: &Arc<Party>, generation: u64) -> Option<Instant> {
        let mut guard = lock(&party.state);
        let state = &mut *guard;
        let pipeline = state.pipeline_of(generation)?;
        let asides = pipeline.lapse(Instant::now(), &self.limits);
        let next = pipeline.next_deadline(&self.limits);
        let answers = self.carry_out(party, state, asides);
        inbox::start_disk_work(self, party, state);
        drop(guard);
        self.answer_all(answers);
        next
    }

    /// The carrier of this generation is gone. Nothing happens if a newer one took over.
    pub(crate) fn detach(self: &Arc<Self>, party: &Arc<Party>, generation: u64) {
        self.detach_for(party, generation, None);
    }

    /// The same, of a carrier whose session lasts and may carry again ([`Party::rouse`]): it dozes from the moment on in which
    /// it does not carry any more, so that whoever takes its place, or removes the party, finds it.
    pub(crate) fn detach_dozing(self: &Arc<Self>, party: &Arc<Party>, generation: u64, mailbox: &Arc<Mailbox>) {
        self.detach_for(party, generation, Some(mailbox));
    }

    fn detach_for(self: &Arc<Self>, party: &Arc<Party>, generation: u64, sleeper: Option<&Arc<Mailbox>>) {
        let mut guard = lock(&party.state);
        let state = &mut *guard;
        if state.generation != generation || state.carrier.take().is_none() {
            return;
        }
        state.sleeper = sleeper.cloned();
        let asides = state.pipeline_if_any().map(Pipeline::detach).unwrap_or_default();
        let answers = self.carry_out(party, state, asides);
        inbox::start_disk_work(self, party, state);
        drop(guard);
        self.answer_all(answers);
    }

    /// Every carrier counts as gone, though its connection lasts: what it did not acknowledge is stored or failed, and
    /// answered.
    pub(crate) fn detach_all(self: &Arc<Self>) {
        for shard in 0..self.registry.shards() {
            for party in self.registry.shard_parties(shard) {
                let generation = lock(&party.state).generation;
                self.detach(&party, generation);
            }
        }
    }

    /// The party is no more: its carrier ends unless it is `but`, what waits in memory for it fails. What is on disk for it
    /// is left to [`inbox::clear`].
    pub(crate) fn dissolve(self: &Arc<Self>, party: &Arc<Party>, but: Option<&Arc<Mailbox>>) {
        self.registry.remove(party);
        self.segments.forget(&party.address);
        let mut state = lock(&party.state);
        state.gone = true;
        state.generation += 1;
        let carrier = state.carrier.take().or_else(|| state.sleeper.take());
        let failed = state.pipeline_if_any().map(Pipeline::dissolve).unwrap_or_default();
        drop(state);
        if let Some(carrier) = carrier.filter(|carrier| but.is_none_or(|but| !Arc::ptr_eq(but, carrier))) {
            carrier.post(Letter::Close(CloseReason::Deregistered));
        }
        for delivery in failed {
            self.answer(delivery.asker, Answer::Failed(FailureCause::UnknownTarget));
        }
    }

    /// Outside the windows in which its client can be reached (TS 23.554 table 8.2.1-3) a UE counts as away, though its
    /// connection lasts. What waits for it in memory is decided on; the window's opening starts delivery.
    fn keep_window(&self, party: &Arc<Party>, state: &mut PartyState) -> (bool, Answers) {
        let closed = state.carrier.as_ref().and(state.closed_until(OffsetDateTime::now_utc(), Instant::now()));
        let Some(until) = closed else { return (false, Vec::new()) };
        let pipeline = state.pipeline();
        pipeline.hold_until(until);
        let asides = pipeline.settle();
        (true, self.carry_out(party, state, asides))
    }

    fn carry_out(&self, party: &Arc<Party>, state: &mut PartyState, asides: Vec<Aside>) -> Answers {
        asides.into_iter().filter_map(|aside| self.carry_out_one(party, state, aside)).collect()
    }

    /// Hands a delivery to the disk's writer, or says what to answer. The party's lock is held, so that the order on disk
    /// is the pipeline's.
    fn carry_out_one(
        &self,
        party: &Arc<Party>,
        state: &mut PartyState,
        aside: Aside,
    ) -> Option<(Option<Asker>, Answer)> {
        match aside {
            Aside::Store(delivery) => {
                let refused = self.inbox.submit(party, delivery)?;
                state.pipeline().store_ended(refused.priority, false);
                Some((refused.asker, Answer::Failed(FailureCause::Overloaded)))
            }
            Aside::Fail(delivery, cause) => Some((delivery.asker, Answer::Failed(cause))),
            Aside::Tell(asker, cause) => Some((Some(asker), Answer::Failed(cause))),
        }
    }

    /// Tells everybody who waits for this message.
    pub(crate) fn answer(self: &Arc<Self>, asker: Option<Asker>, answer: Answer) {
        match asker {
            Some(Asker::Sender { party, key }) => {
                self.metrics.answered(&answer);
                lock(&party.recent).complete(key, answer);
                self.request_closed();
            }
            Some(Asker::Part(collector, index)) => collector.ended(self, index, answer),
            None => {}
        }
    }

    fn answer_all(self: &Arc<Self>, answers: impl IntoIterator<Item = (Option<Asker>, Answer)>) {
        for (asker, answer) in answers {
            self.answer(asker, answer);
        }
    }

    fn awaited_max(&self, party: &Party) -> usize {
        if party.is_application_server() {
            self.limits.remembered_per_application_server_max
        } else {
            self.limits.reports_awaited_max
        }
    }
}

impl Failed {
    pub(crate) fn of(delivery: &Delivery, position: Position, cause: FailureCause) -> Self {
        Self {
            kind: delivery.kind,
            originator: delivery.originator.clone(),
            message_id: delivery.message_id.clone(),
            report_wanted: delivery.report_wanted,
            position,
            cause,
        }
    }
}
