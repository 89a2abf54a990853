//! Records and messages of DTLS 1.3 as they come (RFC 9147 4, 5, 7, 8, 9).

use std::net::SocketAddr;
use std::time::Instant;

use crate::codec::{Malformed, Read, Reader, put_vector16};
use crate::connection::{Connection, Disposition, Event, Machine, Role, Stop};
use crate::connection_id::ConnectionId;
use crate::error::{Error, Failure};
use crate::handshake::reassembly::Taken;
use crate::handshake::{Fragment, Message, MessageType};
use crate::limits::HANDSHAKE_MESSAGE_OCTETS_MAX;
use crate::record::ContentType;
use crate::record::epochs::{APPLICATION, HANDSHAKE, RecordNumber};
use crate::record::protection::{Dropped, Opened};
use crate::record::unified::{self, Unified};
use crate::v13::ack;

/// Whether a KeyUpdate asks for one (RFC 8446 4.6.3).
const UPDATE_NOT_REQUESTED: u8 = 0;
const UPDATE_REQUESTED: u8 = 1;

/// How the IDs of a NewConnectionId are meant (RFC 9147 9).
const CID_IMMEDIATE: u8 = 0;
const CID_SPARE: u8 = 1;

/// A record's disposition and what follows it.
type Handled<'a> = (Result<Disposition, Stop>, &'a [u8]);

impl Connection {
    /// Makes a new write key (RFC 9147 8), and with `request` asks the peer for one of its own. The old one is used until
    /// the peer has acknowledged that. Before a key has written half of what it may, and when the peer is heard after half of
    /// the records that may fail to authenticate have, it happens without being asked for.
    ///
    /// A peer that does not acknowledge it in [`crate::SessionConfig::handshake_timeout`] ends the session with
    /// [`Error::HandshakeTimeout`]: do it while the peer is awake.
    ///
    /// # Errors
    /// [`Error::NoKeyUpdate`] with DTLS 1.2, [`Error::NotEstablished`], [`Error::Closed`], [`Error::UpdatePending`];
    /// [`Error::WriteKeyExhausted`] if it was restored from sealed forms over more than
    /// [`crate::limits::SEALED_STARTS_MAX_DTLS13`] starts of the server; [`Error::MessageNumbers`]. They change nothing.
    pub fn update_keys(&mut self, now: Instant, request: bool) -> Result<(), Error> {
        match self.machine {
            Machine::Established if self.core.epochs.is_none() => return Err(Error::NoKeyUpdate),
            Machine::Established => {}
            Machine::Closed => return Err(Error::Closed),
            _ => return Err(Error::NotEstablished),
        }
        if self.core.awaits_acknowledgement() {
            return Err(Error::UpdatePending);
        }
        if !self.may_update_keys() {
            return Err(Error::WriteKeyExhausted);
        }
        self.send_key_update(now, if request { UPDATE_REQUESTED } else { UPDATE_NOT_REQUESTED })
    }

    fn may_update_keys(&self) -> bool {
        self.core.epochs.as_ref().is_some_and(|epochs| epochs.may_advance_write())
    }

    fn send_key_update(&mut self, now: Instant, request: u8) -> Result<(), Error> {
        self.core.send_post_handshake(now, MessageType::KEY_UPDATE, vec![request])
    }

    /// Whether a KeyUpdate could go out that nobody waits for.
    fn is_free_to_update_keys(&self) -> bool {
        self.core.established
            && !self.core.awaits_acknowledgement()
            && self.may_update_keys()
            && self.core.has_message_numbers()
    }

    /// After a record was sent: a key that has written half of what it may is to be followed by another.
    pub(super) fn update_keys_when_due(&mut self, now: Instant) {
        let due = self.core.epochs.as_ref().is_some_and(|epochs| epochs.write_is_half_exhausted());
        if due && self.is_free_to_update_keys() {
            // It has a number.
            let _ = self.send_key_update(now, UPDATE_NOT_REQUESTED);
        }
    }

    /// A record did not authenticate: after half of those that may, it is told. The peer may be asleep, and is asked for
    /// another key when it is heard.
    fn note_forgery13(&mut self) {
        if self.read_is_half_exhausted() && self.core.established && !self.core.renewal_advised {
            self.core.renewal_advised = true;
            self.core.push_event(Event::RenewalAdvised);
        }
    }

    /// The peer was heard: after half of the forgeries that its key stands, it is asked for another one, once.
    fn renew_read_key_when_due(&mut self, now: Instant) {
        if self.read_is_half_exhausted() && !self.core.renewal_asked && self.is_free_to_update_keys() {
            self.core.renewal_asked = true;
            // It has a number.
            let _ = self.send_key_update(now, UPDATE_REQUESTED);
        }
    }

    fn read_is_half_exhausted(&self) -> bool {
        self.core.epochs.as_ref().is_some_and(|epochs| epochs.read_is_half_exhausted())
    }

    /// Whether the session was sealed and has updated a key since: the stored form is of no use any more, as a session
    /// restored from it would neither read the peer nor be read. Seal it anew as soon as it is idle, which says so here.
    /// Never with DTLS 1.2.
    pub fn is_sealed_form_stale(&self) -> bool {
        self.core.epochs.as_ref().is_some_and(|epochs| epochs.sealed_form_stale)
    }

    /// Whether it is, or may become, a session of DTLS 1.3.
    pub(super) fn is_13(&self) -> bool {
        self.core.epochs.is_some() || matches!(self.machine, Machine::Client13(_) | Machine::Server13(_))
    }

    /// Whether the peer has no reason to say anything in clear.
    pub(super) fn peer_has_keys13(&self) -> bool {
        let heard = |window: u64| window > 0;
        self.core.epochs.as_ref().is_some_and(|epochs| {
            self.role() == Role::Client || epochs.read().is_some_and(|read| heard(read.window.next))
        })
    }

    /// Refuses an identity that is too long.
    pub(super) fn check_identity(&mut self, now: Instant) {
        let outcome = match &mut self.machine {
            Machine::Server13(server) => server.check_identity(&mut self.core, now),
            _ => Ok(()),
        };
        if let Err(failure) = outcome {
            self.fail(failure, false);
        }
    }

    /// Takes the first record of `datagram`, which has the unified header, and returns what follows it. `None`: the rest is
    /// of no use. `first`: nothing goes before it in its datagram.
    pub(super) fn handle_unified<'a>(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &'a [u8],
        first: bool,
    ) -> Option<Handled<'a>> {
        if self.core.keys.is_some() {
            return None;
        }
        if self.core.epochs.is_none() {
            // Where it ends depends on what is not negotiated yet.
            let kept = source == self.core.peer && self.is_13() && self.core.keep_early(datagram);
            let disposition = if kept { Disposition::Taken } else { Disposition::Ignored };
            return Some((Ok(disposition), &[]));
        }
        let (record, rest) = unified::split(datagram, self.core.own_id.len())?;
        let octets = datagram.get(..datagram.len() - rest.len()).unwrap_or_default();
        // Once negotiated, a datagram without our Connection ID is nobody's; those after the first may leave it out.
        let ours = record.connection_id == Some(self.core.own_id.as_bytes());
        let left_out = record.connection_id.is_none() && (self.core.own_id.is_empty() || !first);
        if !ours && !left_out {
            return None;
        }
        Some((self.handle_ciphertext(now, source, &record, octets), rest))
    }

    fn handle_ciphertext(
        &mut self,
        now: Instant,
        source: SocketAddr,
        record: &Unified<'_>,
        octets: &[u8],
    ) -> Result<Disposition, Stop> {
        let may_move = self.core.established && !self.core.own_id.is_empty();
        if source != self.core.peer && !may_move {
            return Ok(Disposition::Ignored);
        }
        let Some(epochs) = &mut self.core.epochs else { return Ok(Disposition::Ignored) };
        if !epochs.reads(record.epoch_bits()) {
            self.core.answer_unreadable(record.epoch_bits(), octets.len());
            let kept = !self.core.established && self.core.keep_early(octets);
            return Ok(if kept { Disposition::Taken } else { Disposition::Ignored });
        }
        let (number, opened) = match epochs.open(record) {
            Ok(opened) => opened,
            Err(Dropped::KeyExhausted) => return Err(Error::ReadKeyExhausted.into()),
            Err(Dropped::Unauthentic) => {
                self.note_forgery13();
                return Err(Stop::Forged);
            }
            Err(Dropped::Replayed) => return Ok(Disposition::Ignored),
        };
        if self.core.established {
            self.core.note_source(source, opened.newest, octets.len());
            self.core.note_epoch(now, number.epoch);
        }
        let newest = opened.newest;
        let disposition = self.handle_opened13(now, source, number, opened)?;
        if newest {
            self.renew_read_key_when_due(now);
        }
        Ok(disposition)
    }

    fn handle_opened13(
        &mut self,
        now: Instant,
        source: SocketAddr,
        number: RecordNumber,
        opened: Opened,
    ) -> Result<Disposition, Failure> {
        let Opened { content_type, content, .. } = opened;
        match content_type {
            ContentType::APPLICATION_DATA if self.core.established && number.epoch >= APPLICATION => {
                self.core.note_application_data(now);
                self.core.push_event(Event::ApplicationData { payload: content, source });
                Ok(Disposition::Taken)
            }
            ContentType::HANDSHAKE => {
                // What comes after the handshake says, as data do, that it is done.
                if self.core.established && number.epoch >= APPLICATION {
                    self.core.note_application_data(now);
                }
                self.handle_fragments13(now, number, &content)
            }
            ContentType::ALERT => Ok(self.handle_alert(&content)),
            ContentType::ACK => self.handle_ack(now, &content),
            _ => Err(Error::UnexpectedMessage.into()),
        }
    }

    fn handle_ack(&mut self, now: Instant, content: &[u8]) -> Result<Disposition, Failure> {
        let numbers = ack::parse(content).map_err(|_| Error::Malformed("ACK"))?;
        let arrived = self.core.take_acknowledgement(now, &numbers);
        if arrived.contains(&MessageType::KEY_UPDATE)
            && let Some(epochs) = &mut self.core.epochs
        {
            epochs.advance_write()?;
        }
        Ok(Disposition::Taken)
    }

    pub(super) fn handle_fragments13(
        &mut self,
        now: Instant,
        number: RecordNumber,
        content: &[u8],
    ) -> Result<Disposition, Failure> {
        let (mut new, mut again, mut owed) = (false, false, false);
        let mut reader = Reader::new(content);
        while !reader.is_empty() {
            let fragment = match Fragment::read(&mut reader) {
                Ok(fragment) => fragment,
                // In clear somebody else may have written it.
                Err(_) if number.epoch == 0 => break,
                Err(_) => return Err(Error::Malformed("handshake message").into()),
            };
            if !self.expects(&fragment, number.epoch) {
                if number.epoch == 0 {
                    continue;
                }
                return Err(Error::UnexpectedMessage.into());
            }
            if number.epoch > 0 && fragment.sequence == u16::MAX {
                return Err(Error::MessageNumbers.into());
            }
            // It could never be acknowledged, and nothing could follow it.
            if self.core.established && fragment.message_octets > HANDSHAKE_MESSAGE_OCTETS_MAX {
                return Err(Error::IllegalParameter("length of a message").into());
            }
            match self.core.open_handshake(now).reassembler.insert(&fragment) {
                Taken::Dropped => owed = true,
                Taken::Old => again = true,
                Taken::Repeated => {
                    again = true;
                    if number.epoch < APPLICATION {
                        self.core.retransmit_on_duplicate(now);
                    }
                }
                Taken::New => {
                    new = true;
                    self.handle_messages(now)?;
                    owed |= fragment.message_type == MessageType::KEY_UPDATE && self.core.lacks(fragment.sequence);
                    if !self.is_13() {
                        // The server wanted DTLS 1.2.
                        self.handle_fragments(now, 0, reader.rest())?;
                        return Ok(Disposition::Taken);
                    }
                }
            }
            let whole = fragment.data.len() == fragment.message_octets;
            if number.epoch == HANDSHAKE && fragment.message_type == MessageType::FINISHED && whole {
                self.core.note_finished(number);
            }
        }
        // An ACK of a KeyUpdate says that the next epoch can be read, and one of what was dropped would be a lie.
        if !(owed && number.epoch >= APPLICATION) {
            self.acknowledge_fragments(now, number, new, again);
        }
        if new {
            self.replay_early(now);
        }
        self.core.settle();
        Ok(if new || again { Disposition::Taken } else { Disposition::Ignored })
    }

    /// Whether a message may come in this epoch.
    fn expects(&self, fragment: &Fragment<'_>, epoch: u64) -> bool {
        let reassembler = self.core.handshake.as_ref().map(|handshake| &handshake.reassembler);
        match (epoch, fragment.message_type) {
            // Before the keys the client knows one message that comes next; everything else in clear can only be old.
            (0, MessageType::SERVER_HELLO | MessageType::HELLO_VERIFY_REQUEST | MessageType::CLIENT_HELLO) => {
                let client = self.role() == Role::Client;
                let next = reassembler.map_or(0, |reassembler| reassembler.next());
                let open = client && self.core.epochs.is_none();
                client != (fragment.message_type == MessageType::CLIENT_HELLO)
                    && !self.core.established
                    && (fragment.sequence < next || (open && fragment.sequence == next))
            }
            (HANDSHAKE, message_type) => {
                matches!(message_type, MessageType::ENCRYPTED_EXTENSIONS | MessageType::FINISHED)
            }
            (APPLICATION.., message_type) => matches!(
                message_type,
                MessageType::NEW_SESSION_TICKET
                    | MessageType::KEY_UPDATE
                    | MessageType::REQUEST_CONNECTION_ID
                    | MessageType::NEW_CONNECTION_ID
            ),
            // In clear anything may be written by anybody, and DTLS 1.2 has more messages.
            _ => false,
        }
    }

    /// RFC 9147 7.1: at once what no flight of ours answers or what shows a loss, soon what is a part of a flight.
    fn acknowledge_fragments(&mut self, now: Instant, number: RecordNumber, new: bool, again: bool) {
        // A server's flight answers a ClientHello; in clear nothing is acknowledged.
        let answered = number.epoch == 0 && self.role() == Role::Server;
        if !(new || again) || answered {
            return;
        }
        if self.core.established {
            // The client's Finished answers the server's flight; that of the server before has been answered too.
            let finished = self.role() == Role::Client && number.epoch <= HANDSHAKE;
            if finished {
                self.core.forget_to_acknowledge();
            } else {
                self.core.note_to_acknowledge(number);
                self.core.acknowledge();
            }
            return;
        }
        if self.core.epochs.is_none() && self.core.awaits_acknowledgement() {
            // A HelloRetryRequest, which the second ClientHello answers, or a part of a ServerHello.
            return;
        }
        self.core.note_to_acknowledge(number);
        let gap = self.core.handshake.as_ref().is_some_and(|handshake| handshake.reassembler.has_gap());
        if gap {
            self.core.acknowledge();
        } else {
            self.core.acknowledge_soon(now);
        }
    }

    /// A message after the handshake.
    pub(super) fn handle_post_handshake(&mut self, now: Instant, message: &Message) -> Result<bool, Failure> {
        match message.message_type {
            // Nothing is resumed here (RFC 8446 4.6.1).
            MessageType::NEW_SESSION_TICKET if self.role() == Role::Client => {}
            MessageType::KEY_UPDATE => self.handle_key_update(now, &message.body)?,
            MessageType::REQUEST_CONNECTION_ID if !self.core.own_id.is_empty() => {
                if message.body.len() != 1 {
                    return Err(Error::Malformed("RequestConnectionId").into());
                }
                // RFC 9147 9 allows any number of IDs; all of one server's have their sessions' only one. An answer that is
                // under way answers this one too.
                let mut body = Vec::new();
                put_vector16(&mut body, &[]);
                body.push(CID_SPARE);
                self.core.send_post_handshake(now, MessageType::NEW_CONNECTION_ID, body)?;
            }
            MessageType::NEW_CONNECTION_ID if !self.core.peer_id.is_empty() => {
                let (first, usage) =
                    new_connection_id(&message.body).map_err(|_| Error::Malformed("NewConnectionId"))?;
                match (usage, first) {
                    (CID_SPARE, _) => {}
                    // An empty one would be none, which is not negotiated here.
                    (CID_IMMEDIATE, Some(id)) if !id.is_empty() => {
                        let id = ConnectionId::new(id).map_err(|_| Error::IllegalParameter("Connection ID"))?;
                        self.core.peer_id = id;
                    }
                    _ => return Err(Error::IllegalParameter("NewConnectionId").into()),
                }
            }
            _ => return Err(Error::UnexpectedMessage.into()),
        }
        Ok(true)
    }

    fn handle_key_update(&mut self, now: Instant, body: &[u8]) -> Result<(), Failure> {
        let requested = match body {
            [UPDATE_NOT_REQUESTED] => false,
            [UPDATE_REQUESTED] => true,
            [_] => return Err(Error::IllegalParameter("KeyUpdate").into()),
            _ => return Err(Error::Malformed("KeyUpdate").into()),
        };
        self.core.previous_until = None;
        self.core.renewal_advised = false;
        self.core.renewal_asked = false;
        if let Some(epochs) = &mut self.core.epochs {
            epochs.advance_read()?;
        }
        // One that is under way does what is asked for (RFC 9147 8).
        if requested && !self.core.awaits(MessageType::KEY_UPDATE) {
            if !self.may_update_keys() {
                return Err(Error::WriteKeyExhausted.into());
            }
            self.send_key_update(now, UPDATE_NOT_REQUESTED)?;
        }
        Ok(())
    }
}

/// The first of the IDs, and how they are meant.
fn new_connection_id(body: &[u8]) -> Read<(Option<&[u8]>, u8)> {
    let mut reader = Reader::new(body);
    let mut list = Reader::new(reader.vector16()?);
    let usage = reader.u8()?;
    reader.end()?;
    let mut first = None;
    while !list.is_empty() {
        let id = list.vector8()?;
        first = first.or(Some(id));
    }
    if usage > CID_SPARE {
        return Err(Malformed);
    }
    Ok((first, usage))
}

#[cfg(test)]
mod tests;
