//! ACKs of DTLS 1.3 (RFC 9147 7), messages after the handshake, and what is let go when.

use std::time::Instant;

use crate::connection::Role;
use crate::connection::core::{Core, NEWEST_EPOCH};
use crate::error::Error;
use crate::handshake::MessageType;
use crate::handshake::flight::Flight;
use crate::limits::{ACK_DELAY_DIVISOR, ACK_RECORDS_MAX, FINISHED_HELD_INTERVALS, PREVIOUS_EPOCH_HELD, TRANSMITS_MAX};
use crate::record::ContentType;
use crate::record::epochs::{ClientFinished, Epochs, RecordNumber};
use crate::record::unified::Form;
use crate::v13::ack;

/// The epoch of the handshake's protected part, as flights have it.
const EPOCH_HANDSHAKE: u16 = 2;

impl Core {
    /// A record with a part of the handshake came.
    pub(crate) fn note_to_acknowledge(&mut self, number: RecordNumber) {
        if let Some(handshake) = &mut self.handshake {
            handshake.to_acknowledge.retain(|noted| *noted != number);
            if handshake.to_acknowledge.len() >= ACK_RECORDS_MAX {
                handshake.to_acknowledge.remove(0);
            }
            handshake.to_acknowledge.push(number);
        }
    }

    /// Acknowledges in a while, unless the rest of the flight comes before.
    pub(crate) fn acknowledge_soon(&mut self, now: Instant) {
        let delay = self.config.session().retransmit_first / ACK_DELAY_DIVISOR;
        if let Some(handshake) = &mut self.handshake
            && handshake.acknowledge_at.is_none()
        {
            handshake.acknowledge_at = Some(now + delay);
        }
    }

    pub(crate) fn acknowledge_when_due(&mut self, now: Instant) {
        let due = self.handshake.as_ref().and_then(|handshake| handshake.acknowledge_at).is_some_and(|at| at <= now);
        if due {
            self.acknowledge();
        }
    }

    /// Acknowledges what is noted. Left out without keys, or if the driver does not send: the peer sends again.
    pub(crate) fn acknowledge(&mut self) {
        let Some(handshake) = &mut self.handshake else { return };
        handshake.acknowledge_at = None;
        let numbers = std::mem::take(&mut handshake.to_acknowledge);
        if numbers.is_empty() || self.epochs.is_none() || self.transmits.len() >= TRANSMITS_MAX {
            return;
        }
        let mut datagram = Vec::new();
        self.put_record(&mut datagram, NEWEST_EPOCH, ContentType::ACK, &ack::encode(&numbers));
        self.queue(datagram);
    }

    /// The client's Finished came whole in this record, perhaps again.
    pub(crate) fn note_finished(&mut self, number: RecordNumber) {
        let is_server = self.config.role() == Role::Server;
        if let Some(epochs) = self.epochs.as_mut().filter(|_| is_server && self.established) {
            epochs.client_finished = ClientFinished::of(number.sequence);
        }
    }

    /// A record came for which there is no key. Under one of the handshake it is most likely the client's Finished: none of our
    /// ACKs has arrived, and the client ends the session if none does (RFC 9147 5.8.1). So it is answered with an ACK of the
    /// Finished that was taken, which is true whatever came. Anybody can write such a record: the answer goes to the peer,
    /// is no larger than what came, one for a datagram, and so many in all.
    pub(crate) fn answer_unreadable(&mut self, epoch_bits: u8, record_octets: usize) {
        let Some(epochs) = &mut self.epochs else { return };
        let octets = Epochs::overhead(epochs.suite, &self.peer_id, Form::WITH_LENGTH) + ack::octets(1);
        if !self.established || octets > record_octets || !self.transmits.is_empty() {
            return;
        }
        let Some(number) = epochs.answer_finished(epoch_bits) else { return };
        let mut datagram = Vec::with_capacity(octets);
        self.put_record(&mut datagram, NEWEST_EPOCH, ContentType::ACK, &ack::encode(&[number]));
        self.queue(datagram);
    }

    /// Our flight says what an ACK would.
    pub(crate) fn forget_to_acknowledge(&mut self) {
        if let Some(handshake) = &mut self.handshake {
            handshake.to_acknowledge.clear();
            handshake.acknowledge_at = None;
        }
    }

    /// The peer acknowledges these records. Returns the types of the messages that have arrived whole, and all before them.
    pub(crate) fn take_acknowledgement(&mut self, now: Instant, numbers: &[RecordNumber]) -> Vec<MessageType> {
        let Some(flight) = self.handshake.as_mut().and_then(|handshake| handshake.flight.as_mut()) else {
            return Vec::new();
        };
        let arrived = flight.acknowledge(numbers);
        let all = flight.has_all_arrived();
        if self.established && !arrived.is_empty() && !all {
            // What is left has its time from here on.
            self.await_acknowledgement(now);
        }
        if all {
            self.end_flight();
            if self.established && self.config.role() == Role::Client {
                self.drop_handshake_keys();
            }
            self.settle();
        } else {
            // The rest was lost, as it seems.
            self.retransmit_on_duplicate(now);
        }
        arrived
    }

    /// Sends a message after the handshake, again and again until it is acknowledged. Of each type one at a time, so that no
    /// peer makes a flight grow; the first that waits has `handshake_timeout`, and the next has it from then on.
    ///
    /// # Errors
    /// [`Error::MessageNumbers`]
    pub(crate) fn send_post_handshake(
        &mut self,
        now: Instant,
        message_type: MessageType,
        body: Vec<u8>,
    ) -> Result<(), Error> {
        if self.awaits(message_type) {
            return Ok(());
        }
        if !self.has_message_numbers() {
            return Err(Error::MessageNumbers);
        }
        self.open_handshake(now);
        if !self.awaits_acknowledgement() {
            self.await_acknowledgement(now);
        }
        let first = self.config.session().retransmit_first;
        let item = self.message(NEWEST_EPOCH, message_type, body);
        if let Some(handshake) = &mut self.handshake {
            match &mut handshake.flight {
                Some(flight) => flight.push(item),
                None => handshake.flight = Some(Flight::new(vec![item], first, true, now)),
            }
        }
        self.queue_flight();
        Ok(())
    }

    fn await_acknowledgement(&mut self, now: Instant) {
        let until = now + self.config.session().handshake_timeout;
        if let Some(handshake) = &mut self.handshake {
            handshake.until = until;
        }
    }

    /// Whether there is a number for a further message of ours.
    pub(crate) fn has_message_numbers(&self) -> bool {
        let next = self.handshake.as_ref().map_or(self.message_numbers.0, |handshake| handshake.next_send);
        next < u16::MAX
    }

    /// Whether a message of this type of ours, or one before it, waits for its ACK.
    pub(crate) fn awaits(&self, message_type: MessageType) -> bool {
        let flight = self.handshake.as_ref().and_then(|handshake| handshake.flight.as_ref());
        flight.is_some_and(|flight| flight.awaits(message_type))
    }

    /// Whether the peer's message of this number was not handled yet.
    pub(crate) fn lacks(&self, sequence: u16) -> bool {
        self.handshake.as_ref().is_some_and(|handshake| handshake.reassembler.next() <= sequence)
    }

    /// Whether a message of ours waits for its ACK.
    pub(crate) fn awaits_acknowledgement(&self) -> bool {
        self.handshake.as_ref().is_some_and(|handshake| handshake.flight.is_some())
    }

    /// Something of an epoch after the handshake came: the peer has what we sent last in it.
    pub(crate) fn note_application_data(&mut self, now: Instant) {
        if !self.epochs.as_ref().is_some_and(|epochs| epochs.holds_handshake()) {
            return;
        }
        match self.config.role() {
            // Our ACK of its Finished may still be lost: the client asks for it again in a while or never.
            Role::Server => {
                let until = now + self.config.session().retransmit_first * FINISHED_HELD_INTERVALS;
                if let Some(handshake) = self.handshake.as_mut().filter(|handshake| handshake.flight.is_none()) {
                    handshake.until = handshake.until.min(until);
                }
            }
            Role::Client => {
                if let Some(flight) = self.handshake.as_mut().and_then(|handshake| handshake.flight.as_mut()) {
                    flight.acknowledge_epoch(EPOCH_HANDSHAKE);
                    if flight.has_all_arrived() {
                        self.end_flight();
                    }
                }
                self.drop_handshake_keys();
                self.settle();
            }
        }
    }

    fn drop_handshake_keys(&mut self) {
        if let Some(epochs) = &mut self.epochs {
            epochs.drop_handshake();
        }
    }

    /// Lets everything go that only a handshake needs, if nothing of it is under way.
    pub(crate) fn settle(&mut self) {
        let idle = self.handshake.as_ref().is_some_and(|handshake| {
            handshake.flight.is_none() && handshake.to_acknowledge.is_empty() && handshake.reassembler.is_empty()
        });
        let held = self.epochs.as_ref().is_some_and(|epochs| epochs.holds_handshake());
        if self.established && idle && !held {
            self.let_handshake_go();
        }
    }

    pub(crate) fn let_handshake_go(&mut self) {
        if let Some(handshake) = self.handshake.take() {
            self.message_numbers = (handshake.next_send, handshake.reassembler.next());
        }
        self.drop_handshake_keys();
    }

    /// A record of the present epoch came: the one before is read for a while only.
    pub(crate) fn note_epoch(&mut self, now: Instant, epoch: u64) {
        let Some(epochs) = &self.epochs else { return };
        let is_present = epochs.read().is_some_and(|read| read.epoch == epoch);
        let holds_previous = epochs.holds_previous() && !epochs.holds_handshake();
        if is_present && holds_previous && self.previous_until.is_none() {
            self.previous_until = Some(now + PREVIOUS_EPOCH_HELD);
        }
    }

    pub(crate) fn drop_previous_when_due(&mut self, now: Instant) {
        if self.previous_until.is_some_and(|until| until <= now) {
            self.previous_until = None;
            if let Some(epochs) = &mut self.epochs {
                epochs.drop_previous();
            }
        }
    }
}
