//! Transmission: turns (NSTART, PROBING_RATE), retransmission, Message IDs (RFC 7252 4.2 to 4.8).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::wire::{self, Type};
use super::{DatagramConnection, count};
use crate::event::{ConnectionEvent, Failure};
use crate::limits::Transmission;
use crate::message::ExchangeId;

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The request with that token.
    Request(u32),
    Response,
    /// A notification to the peer that observes with that request.
    Notification(ExchangeId),
    Ping,
}

/// A message of ours that has its own Message ID: all but acknowledgements and Resets.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) message_id: u16,
    pub(super) datagram: Vec<u8>,
    pub(super) purpose: Purpose,
    pub(super) confirmable: bool,
    attempts: u8,
    timeout: Duration,
    /// When it is sent again or given up; none before it is sent.
    due: Option<Instant>,
}

/// Message IDs are handed out in blocks of 4096, and a block once its earlier use is an EXCHANGE_LIFETIME ago.
pub(super) const ID_BLOCK_BITS: u32 = 12;

/// What is being sent.
#[derive(Debug, Default)]
pub(super) struct Sending {
    /// Sent, and not acknowledged or answered.
    in_flight: Vec<Outgoing>,
    /// Before their turn.
    waiting: VecDeque<Outgoing>,
    /// Until when nothing that asks for no acknowledgement is sent, unless something comes from the peer.
    probe_at: Option<Instant>,
    /// Blocks of Message IDs in use, each with its last use, oldest first.
    id_blocks: VecDeque<(u16, Instant)>,
}

impl Sending {
    pub(super) fn is_empty(&self) -> bool {
        !self.is_under_way() && self.id_blocks.is_empty()
    }

    /// With nothing to send, and Message IDs that may not be used yet.
    pub(super) fn of(id_blocks: Box<[(u16, Instant)]>) -> Self {
        Self { id_blocks: id_blocks.into_vec().into(), ..Self::default() }
    }

    /// Message IDs that may not be used yet.
    pub(super) fn take_id_blocks(&mut self) -> Box<[(u16, Instant)]> {
        std::mem::take(&mut self.id_blocks).into_iter().collect()
    }

    /// What was sent and not acknowledged.
    pub(super) fn in_flight(&self) -> Vec<Vec<u8>> {
        self.in_flight
            .iter()
            .filter(|outgoing| outgoing.confirmable)
            .map(|outgoing| outgoing.datagram.clone())
            .collect()
    }

    pub(super) fn is_under_way(&self) -> bool {
        !self.in_flight.is_empty() || !self.waiting.is_empty()
    }

    /// Something came from the peer: it is there.
    pub(super) fn heard(&mut self) {
        self.probe_at = None;
    }

    pub(super) fn pings(&self) -> usize {
        self.all().filter(|outgoing| outgoing.purpose == Purpose::Ping).count()
    }

    /// Responses that are to be acknowledged and were not, those included that wait for their turn.
    pub(super) fn unacknowledged_responses(&self) -> usize {
        self.all().filter(|outgoing| outgoing.purpose == Purpose::Response && outgoing.confirmable).count()
    }

    /// Responses that ask for no acknowledgement and wait for a Message ID.
    pub(super) fn waiting_responses(&self) -> usize {
        self.waiting.iter().filter(|outgoing| outgoing.purpose == Purpose::Response && !outgoing.confirmable).count()
    }

    fn all(&self) -> impl Iterator<Item = &Outgoing> {
        self.in_flight.iter().chain(&self.waiting)
    }

    pub(super) fn ping(&mut self) {
        self.enqueue(wire::empty(Type::Confirmable, 0), Purpose::Ping, true);
    }

    /// Appends to what waits. The datagram's Message ID is given to it when its turn comes.
    pub(super) fn enqueue(&mut self, datagram: Vec<u8>, purpose: Purpose, confirmable: bool) {
        self.waiting.push_back(Outgoing::new(datagram, purpose, confirmable));
    }

    /// The same before all else.
    pub(super) fn enqueue_first(&mut self, datagram: Vec<u8>, purpose: Purpose, confirmable: bool) {
        self.waiting.push_front(Outgoing::new(datagram, purpose, confirmable));
    }

    /// Takes back what was to be sent for that purpose.
    pub(super) fn forget(&mut self, purpose: Purpose) {
        self.in_flight.retain(|outgoing| outgoing.purpose != purpose);
        self.waiting.retain(|outgoing| outgoing.purpose != purpose);
    }

    /// Takes out what was sent with that Message ID and not acknowledged.
    pub(super) fn settle(&mut self, message_id: u16) -> Option<Purpose> {
        let place = self.in_flight.iter().position(|outgoing| outgoing.message_id == message_id)?;
        Some(self.in_flight.remove(place).purpose)
    }

    /// What that Message ID was sent for, if it is not acknowledged.
    pub(super) fn purpose(&self, message_id: u16) -> Option<Purpose> {
        self.in_flight.iter().find(|outgoing| outgoing.message_id == message_id).map(|outgoing| outgoing.purpose)
    }

    /// Whether a message for that purpose is to be acknowledged and was not.
    pub(super) fn is_unacknowledged(&self, purpose: Purpose) -> bool {
        self.all().any(|outgoing| outgoing.purpose == purpose && outgoing.confirmable)
    }

    /// Whether something for that purpose has been sent and not acknowledged.
    pub(super) fn is_in_flight(&self, purpose: Purpose) -> bool {
        self.in_flight.iter().any(|outgoing| outgoing.purpose == purpose)
    }

    /// Changes what is sent for a purpose before it is its turn; false if nothing waits for it.
    pub(super) fn replace_waiting(&mut self, purpose: Purpose, datagram: &[u8]) -> bool {
        let waiting = self.waiting.iter_mut().find(|outgoing| outgoing.purpose == purpose);
        waiting.map(|outgoing| outgoing.datagram = datagram.to_vec()).is_some()
    }

    /// `address_held`: the peer's address is to be proven.
    pub(super) fn next_due(
        &self,
        transmission: &Transmission,
        next_message_id: u16,
        address_held: bool,
    ) -> Option<Instant> {
        let due = self.in_flight.iter().filter_map(|outgoing| outgoing.due).min();
        let lifetime = transmission.exchange_lifetime();
        let block = next_message_id >> ID_BLOCK_BITS;
        let held = self.id_blocks.iter().rev().skip(1).find(|(used, _)| *used == block);
        let held = held.map(|(_, used)| *used + lifetime);
        let may_go = |outgoing: &&Outgoing| !address_held || outgoing.is_bounded();
        let with_room = self.waiting.iter().filter(may_go).filter(|outgoing| self.has_room(outgoing, transmission));
        let turn = with_room.filter_map(|outgoing| self.probe_at.filter(|_| outgoing.is_probe()).max(held)).min();
        let forgotten = self.id_blocks.back().filter(|_| !self.is_under_way()).map(|(_, used)| *used + lifetime);
        [due, turn, forgotten].into_iter().flatten().min()
    }

    /// Whether NSTART lets it go.
    fn has_room(&self, outgoing: &Outgoing, transmission: &Transmission) -> bool {
        !outgoing.takes_turn() || self.in_flight.len() < transmission.nstart.max(1)
    }

    /// Forgets Message IDs that may be used again.
    pub(super) fn expire(&mut self, now: Instant, lifetime: Duration) {
        while self.id_blocks.pop_front_if(|(_, used)| *used + lifetime <= now).is_some() {}
    }

    /// The next message whose turn it is. What has to wait for its pace holds up nothing else.
    fn next(
        &mut self,
        now: Instant,
        transmission: &Transmission,
        next_message_id: &mut u16,
        address_held: bool,
    ) -> Option<Outgoing> {
        let place = self.waiting.iter().position(|outgoing| {
            let too_fast = outgoing.is_probe() && self.probe_at.is_some_and(|at| at > now);
            let may_go = !address_held || outgoing.is_bounded();
            may_go && self.has_room(outgoing, transmission) && !too_fast
        })?;
        let message_id = self.take_message_id(now, transmission.exchange_lifetime(), next_message_id)?;
        let mut outgoing = self.waiting.remove(place)?;
        outgoing.set_message_id(message_id);
        Some(outgoing)
    }

    /// A Message ID that was not used for an EXCHANGE_LIFETIME (RFC 7252 4.4); none if there is none.
    pub(super) fn take_message_id(&mut self, now: Instant, lifetime: Duration, next: &mut u16) -> Option<u16> {
        self.expire(now, lifetime);
        let block = *next >> ID_BLOCK_BITS;
        if let Some((_, used)) = self.id_blocks.back_mut().filter(|(current, _)| *current == block) {
            *used = now;
        } else if self.id_blocks.iter().any(|(used, _)| *used == block) {
            return None;
        } else {
            self.id_blocks.push_back((block, now));
        }
        let message_id = *next;
        *next = next.wrapping_add(1);
        Some(message_id)
    }
}

impl Outgoing {
    fn new(datagram: Vec<u8>, purpose: Purpose, confirmable: bool) -> Self {
        Self { message_id: 0, datagram, purpose, confirmable, attempts: 0, timeout: Duration::ZERO, due: None }
    }

    fn set_message_id(&mut self, message_id: u16) {
        self.message_id = message_id;
        wire::set_message_id(&mut self.datagram, message_id);
    }

    /// Whether it is one of the interactions that NSTART counts: all but responses that ask for no acknowledgement.
    fn takes_turn(&self) -> bool {
        self.confirmable || matches!(self.purpose, Purpose::Request(_))
    }

    /// Whether its size follows from what the peer sent: it may go to an address that is not proven.
    fn is_bounded(&self) -> bool {
        !self.confirmable && self.purpose == Purpose::Response
    }

    /// Whether PROBING_RATE holds for it.
    fn is_probe(&self) -> bool {
        !self.confirmable && matches!(self.purpose, Purpose::Request(_))
    }
}

impl DatagramConnection {
    /// Sends what has its turn. While the peer's address is to be proven that is nothing but what answers it.
    pub(super) fn pump(&mut self, now: Instant) {
        let held = self.unproven.is_some();
        loop {
            let Some(active) = &mut self.active else { return };
            let transmission = &self.config.transmission;
            let next = active.sending.next(now, transmission, &mut self.next_message_id, held);
            let Some(outgoing) = next else { return };
            self.transmit_first(outgoing, now);
        }
    }

    /// The Message ID of a message that is sent whatever is in flight; none where the address is to be proven, or none is free.
    pub(super) fn message_id_at_once(&mut self, now: Instant) -> Option<u16> {
        if self.unproven.is_some() {
            return None;
        }
        let lifetime = self.config.transmission.exchange_lifetime();
        let mut next = self.next_message_id;
        let message_id = self.active().sending.take_message_id(now, lifetime, &mut next);
        self.next_message_id = next;
        self.settle();
        message_id
    }

    /// Sends such a message.
    pub(super) fn transmit_at_once(
        &mut self,
        datagram: Vec<u8>,
        message_id: u16,
        purpose: Purpose,
        confirmable: bool,
        now: Instant,
    ) {
        let mut outgoing = Outgoing::new(datagram, purpose, confirmable);
        outgoing.set_message_id(message_id);
        self.transmit_first(outgoing, now);
    }

    fn transmit_first(&mut self, mut outgoing: Outgoing, now: Instant) {
        let transmission = self.config.transmission;
        self.transmit(outgoing.datagram.clone());
        if let Purpose::Request(token) = outgoing.purpose {
            self.await_answer(token, now + transmission.max_transmit_wait());
        }
        if !outgoing.takes_turn() {
            return;
        }
        let unit = (self.random() & 0xffff) as f64 / 65_536.0;
        outgoing.timeout = transmission.ack_timeout.mul_f64(1.0 + (transmission.ack_random_factor() - 1.0) * unit);
        outgoing.due = Some(now + outgoing.timeout);
        if outgoing.is_probe() {
            let octets = u32::try_from(outgoing.datagram.len()).unwrap_or(u32::MAX);
            let pause = Duration::from_secs(1) * octets / transmission.probing_octets_per_second.max(1);
            self.active().sending.probe_at = Some(now + pause);
        }
        self.active().sending.in_flight.push(outgoing);
    }

    /// Sends again what was not acknowledged, or gives it up. To an address that is to be proven nothing is sent again, but
    /// it counts as if the network had lost it.
    pub(super) fn retransmit(&mut self, now: Instant) {
        let attempts_max = self.config.transmission.max_retransmit;
        let due = |outgoing: &Outgoing| outgoing.due.is_some_and(|due| due <= now);
        let over: Vec<Outgoing> = self
            .active()
            .sending
            .in_flight
            .extract_if(.., |outgoing| due(outgoing) && (!outgoing.confirmable || outgoing.attempts >= attempts_max))
            .collect();
        for outgoing in over {
            // One that asks for no acknowledgement makes place for the next, and its response may still come.
            if outgoing.confirmable {
                self.give_up(outgoing.purpose);
            }
        }
        let again: Vec<u16> =
            self.active().sending.in_flight.iter().filter(|outgoing| due(outgoing)).map(|due| due.message_id).collect();
        for message_id in again {
            self.replace_notification(message_id, now);
        }
        let mut copies = Vec::new();
        for outgoing in &mut self.active().sending.in_flight {
            if due(outgoing) {
                outgoing.attempts += 1;
                outgoing.timeout *= 2;
                outgoing.due = Some(now + outgoing.timeout);
                copies.push(outgoing.datagram.clone());
            }
        }
        if self.unproven.is_some() {
            copies.clear();
        }
        for datagram in copies {
            count(&mut self.counters.retransmissions);
            self.transmit(datagram);
        }
    }

    /// RFC 7641 4.5.2: what is sent again is the newest state, under a Message ID of its own.
    fn replace_notification(&mut self, message_id: u16, now: Instant) {
        let lifetime = self.config.transmission.exchange_lifetime();
        let Some(active) = &mut self.active else { return };
        let Some(Purpose::Notification(exchange)) = active.sending.purpose(message_id) else { return };
        if !active.observations.has_newer(exchange) {
            return;
        }
        let Some(fresh) = active.sending.take_message_id(now, lifetime, &mut self.next_message_id) else { return };
        let Some(newer) = active.observations.take_newer(exchange) else { return };
        let in_flight = &mut active.sending.in_flight;
        if let Some(outgoing) = in_flight.iter_mut().find(|outgoing| outgoing.message_id == message_id) {
            outgoing.datagram = newer;
            outgoing.set_message_id(fresh);
        }
    }

    /// MAX_RETRANSMIT is reached, or the peer rejected it.
    fn give_up(&mut self, purpose: Purpose) {
        match purpose {
            Purpose::Request(token) => self.fail_request(token, Failure::NotAcknowledged),
            Purpose::Response => count(&mut self.counters.undelivered),
            Purpose::Notification(exchange) => {
                count(&mut self.counters.undelivered);
                self.end_peer_observation(exchange);
            }
            Purpose::Ping => {}
        }
    }

    /// What waits for its turn and has no time-out before that.
    pub(super) fn give_up_waiting(&mut self) {
        let waiting = std::mem::take(&mut self.active().sending.waiting);
        let (requests, others): (VecDeque<_>, VecDeque<_>) =
            waiting.into_iter().partition(|outgoing| matches!(outgoing.purpose, Purpose::Request(_)));
        self.active().sending.waiting = requests;
        for outgoing in others {
            self.give_up(outgoing.purpose);
        }
    }

    /// An empty Acknowledgement.
    pub(super) fn take_acknowledgement(&mut self, message_id: u16, now: Instant) {
        let settled = self.active.as_mut().and_then(|active| active.sending.settle(message_id));
        match settled {
            Some(Purpose::Request(token)) => {
                let wait = self.config.transmission.max_transmit_wait();
                self.await_answer(token, now + wait);
            }
            Some(Purpose::Notification(exchange)) => self.send_newer(exchange),
            Some(Purpose::Response) => {}
            // Not what RFC 7252 4.3 says, but a sign of life.
            Some(Purpose::Ping) => self.push_event(ConnectionEvent::Pong { custody: false }),
            None => count(&mut self.counters.ignored),
        }
    }

    pub(super) fn take_reset(&mut self, message_id: u16) {
        let settled = self.active.as_mut().and_then(|active| active.sending.settle(message_id));
        match settled {
            Some(Purpose::Request(token)) => self.fail_request(token, Failure::Reset),
            Some(Purpose::Ping) => self.push_event(ConnectionEvent::Pong { custody: false }),
            Some(purpose) => self.give_up(purpose),
            None => count(&mut self.counters.ignored),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn message_ids_come_round_after_exchange_lifetime_and_no_sooner() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let lifetime = Transmission::default().exchange_lifetime();
        let (mut sending, mut next) = (Sending::default(), 60_000);
        let mut used = Vec::new();
        while let Some(id) = sending.take_message_id(start, lifetime, &mut next) {
            used.push(id);
        }
        // All but the rest of the block that was begun in its middle.
        assert!(used.len() > 61_000, "{}", used.len());
        used.sort_unstable();
        used.dedup();
        assert!(used.len() > 61_000, "none twice");
        assert_eq!(sending.take_message_id(start + lifetime - second, lifetime, &mut next), None);
        sending.enqueue(wire::empty(Type::Confirmable, 0), Purpose::Ping, true);
        assert_eq!(
            sending.next_due(&Transmission::default(), next, false),
            Some(start + lifetime),
            "then it has its turn"
        );
        assert!(sending.take_message_id(start + lifetime, lifetime, &mut next).is_some());
    }
}
