//! What both sides and all states share: records out, flights, the transcript, what waits for the driver.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::alert::Alert;
use crate::config::{ClientConfig, ServerConfig, SessionConfig};
use crate::connection::address::Candidate;
use crate::connection::{Established, Event, Role, Transmit};
use crate::connection_id::ConnectionId;
use crate::error::Error;
use crate::handshake::flight::{Flight, FlightItem, Sent};
use crate::handshake::hello::RANDOM_OCTETS;
use crate::handshake::reassembly::{Ranges, Reassembler};
use crate::handshake::transcript::Transcript;
use crate::handshake::{self, Message, MessageType};
use crate::limits::{
    DATAGRAM_FALLBACK_TIMEOUTS, DATAGRAM_OCTETS_FALLBACK, EARLY_RECORD_OCTETS_MAX, EARLY_RECORDS_MAX, EVENTS_MAX,
    FINAL_FLIGHT_HELD, TRANSMITS_MAX,
};
use crate::record::epochs::{Epochs, RecordNumber};
use crate::record::protection::Keys;
use crate::record::unified::Form;
use crate::record::{self, ContentType};
use crate::suite::{CipherSuite, Group, ProtocolVersion};

/// Where the session's settings live.
pub(crate) enum Config {
    Client(Arc<ClientConfig>),
    Server(Arc<ServerConfig>),
}

impl Config {
    pub(crate) fn session(&self) -> &SessionConfig {
        match self {
            Self::Client(config) => &config.session,
            Self::Server(config) => &config.session,
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        match self {
            Self::Client(config) => config.check(),
            Self::Server(config) => config.check(),
        }
    }

    pub(crate) fn role(&self) -> Role {
        match self {
            Self::Client(_) => Role::Client,
            Self::Server(_) => Role::Server,
        }
    }
}

pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) peer: SocketAddr,
    /// A new address of the peer that waits for a decision.
    pub(crate) candidate: Option<Candidate>,
    /// What the peer writes into its records; empty: nothing.
    pub(crate) own_id: ConnectionId,
    /// What we write into ours.
    pub(crate) peer_id: ConnectionId,
    /// Of the next record of epoch 0.
    pub(crate) plain_sequence: u64,
    /// Whether records in clear say 1.2 whatever they carry: a ClientHello after a HelloRetryRequest (RFC 9147 4).
    pub(crate) plain_version_settled: bool,
    /// Of DTLS 1.2.
    pub(crate) keys: Option<Box<Keys>>,
    /// Of DTLS 1.3.
    pub(crate) epochs: Option<Box<Epochs>>,
    /// The next message's numbers, ours and the peer's, while `handshake` is not there.
    pub(crate) message_numbers: (u16, u16),
    /// Until when the peer's epoch before the present one is read.
    pub(crate) previous_until: Option<Instant>,
    pub(crate) established: bool,
    /// Whether [`Event::RenewalAdvised`] was told.
    pub(crate) renewal_advised: bool,
    /// Whether the peer was asked for another key because of forgeries, and has not made one yet.
    pub(crate) renewal_asked: bool,
    /// While the handshake lasts; while a last flight is held; while a message after the handshake is under way.
    pub(crate) handshake: Option<Box<HandshakeIo>>,
    pub(crate) transmits: VecDeque<Transmit>,
    pub(crate) events: VecDeque<Event>,
}

/// What only a handshake needs.
pub(crate) struct HandshakeIo {
    pub(crate) reassembler: Reassembler,
    transcript: Transcript,
    pub(crate) next_send: u16,
    pub(crate) flight: Option<Flight>,
    /// When the handshake is given up or, once established, the last flight.
    pub(crate) until: Instant,
    /// Protected records that came before their key.
    pub(crate) early: Vec<Vec<u8>>,
    /// Records to be acknowledged.
    pub(crate) to_acknowledge: Vec<RecordNumber>,
    /// When they are.
    pub(crate) acknowledge_at: Option<Instant>,
}

impl HandshakeIo {
    fn new(next_send: u16, next_receive: u16, until: Instant) -> Self {
        Self {
            reassembler: Reassembler::starting_at(next_receive),
            transcript: Transcript::new(),
            next_send,
            flight: None,
            until,
            early: Vec::new(),
            to_acknowledge: Vec::new(),
            acknowledge_at: None,
        }
    }
}

/// The epoch of a message that goes under the newest key.
pub(crate) const NEWEST_EPOCH: u16 = u16::MAX;

impl Core {
    /// For a handshake that starts with message `next_send` of ours and `next_receive` of the peer.
    pub(crate) fn new(config: Config, peer: SocketAddr, now: Instant, next_send: u16, next_receive: u16) -> Self {
        let until = now + config.session().handshake_timeout;
        Self {
            config,
            peer,
            candidate: None,
            own_id: ConnectionId::EMPTY,
            peer_id: ConnectionId::EMPTY,
            plain_sequence: 0,
            plain_version_settled: false,
            keys: None,
            epochs: None,
            message_numbers: (0, 0),
            previous_until: None,
            established: false,
            renewal_advised: false,
            renewal_asked: false,
            handshake: Some(Box::new(HandshakeIo::new(next_send, next_receive, until))),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The version of an established session.
    pub(crate) fn version(&self) -> ProtocolVersion {
        if self.epochs.is_some() { ProtocolVersion::Dtls13 } else { ProtocolVersion::Dtls12 }
    }

    /// What a message after the handshake needs, if it is not there.
    pub(crate) fn open_handshake(&mut self, now: Instant) -> &mut HandshakeIo {
        let until = now + self.config.session().handshake_timeout;
        let (next_send, next_receive) = self.message_numbers;
        self.handshake.get_or_insert_with(|| Box::new(HandshakeIo::new(next_send, next_receive, until)))
    }

    pub(crate) fn transcript_add(&mut self, message: &Message) {
        if let Some(handshake) = &mut self.handshake {
            handshake.transcript.add(message);
        }
    }

    /// Forgets what was exchanged before the ClientHello that counts.
    pub(crate) fn transcript_restart(&mut self) {
        if let Some(handshake) = &mut self.handshake {
            handshake.transcript = Transcript::new();
        }
    }

    pub(crate) fn transcript_hash(&self) -> [u8; 32] {
        self.handshake.as_ref().map(|handshake| handshake.transcript.hash()).unwrap_or_default()
    }

    /// Our next message, which the transcript takes in.
    pub(crate) fn message(&mut self, epoch: u16, message_type: MessageType, body: Vec<u8>) -> FlightItem {
        let sequence = self.handshake.as_mut().map_or(0, |handshake| {
            let sequence = handshake.next_send;
            // After the handshake its user looks before; a handshake that begins so late comes to nothing.
            handshake.next_send = sequence.saturating_add(1);
            sequence
        });
        let message = Message { message_type, sequence, body };
        self.transcript_add(&message);
        FlightItem::Handshake { epoch, message }
    }

    /// Sends a flight, which takes the place of the one before. `timed`: again and again until [`Core::end_flight`].
    pub(crate) fn send_flight(&mut self, now: Instant, items: Vec<FlightItem>, timed: bool) {
        let first = self.config.session().retransmit_first;
        if let Some(handshake) = &mut self.handshake {
            handshake.flight = Some(Flight::new(items, first, timed, now));
        }
        self.queue_flight();
    }

    /// The peer's next flight is here.
    pub(crate) fn end_flight(&mut self) {
        if let Some(handshake) = &mut self.handshake {
            handshake.flight = None;
        }
    }

    /// Sends the flight again if its timer has run out.
    pub(crate) fn retransmit_when_due(&mut self, now: Instant) {
        let flight = self.handshake.as_mut().and_then(|handshake| handshake.flight.as_mut());
        if flight.is_some_and(|flight| flight.is_due(now)) {
            self.queue_flight();
        }
    }

    /// The peer sent its flight again, so ours was lost.
    pub(crate) fn retransmit_on_duplicate(&mut self, now: Instant) {
        let flight = self.handshake.as_mut().and_then(|handshake| handshake.flight.as_mut());
        if flight.is_some_and(|flight| flight.is_due_on_duplicate(now)) {
            self.queue_flight();
        }
    }

    /// Queues the flight's datagrams, in records that have never been used. If the driver does not send, what finds no room
    /// is left out: its timer goes on.
    pub(crate) fn queue_flight(&mut self) {
        let Some(flight) = self.handshake.as_mut().and_then(|handshake| handshake.flight.as_mut()) else { return };
        let mut octets_max = self.config.session().datagram_octets_max;
        let whole = flight.contains(MessageType::CLIENT_HELLO);
        if flight.timeouts >= DATAGRAM_FALLBACK_TIMEOUTS && !whole {
            octets_max = octets_max.min(DATAGRAM_OCTETS_FALLBACK);
        }
        let items = std::mem::take(&mut flight.items);
        let missing: Vec<Ranges> = items
            .iter()
            .enumerate()
            .map(|(at, item)| match item {
                FlightItem::Handshake { message, .. } => flight.missing(at, message.body.len()),
                FlightItem::ChangeCipherSpec => Ranges::new(),
            })
            .collect();
        let mut sent = Vec::new();
        let mut datagram = Vec::new();
        for (at, (item, missing)) in items.iter().zip(missing).enumerate() {
            match item {
                FlightItem::ChangeCipherSpec => {
                    self.pack(&mut datagram, octets_max, 0, ContentType::CHANGE_CIPHER_SPEC, &[1]);
                }
                FlightItem::Handshake { epoch, message } => {
                    for part in missing {
                        self.pack_message(&mut datagram, octets_max, (at, *epoch, message), part, &mut sent);
                    }
                }
            }
        }
        self.queue(datagram);
        if let Some(flight) = self.handshake.as_mut().and_then(|handshake| handshake.flight.as_mut()) {
            flight.items = items;
            sent.into_iter().for_each(|sent| flight.note_sent(sent));
        }
    }

    /// A part of a message in as many fragments as the path wants.
    fn pack_message(
        &mut self,
        datagram: &mut Vec<u8>,
        octets_max: usize,
        (item, epoch, message): (usize, u16, &Message),
        (start, end): (usize, usize),
        sent: &mut Vec<Sent>,
    ) {
        let overhead = self.overhead(epoch) + handshake::HEADER_OCTETS;
        let mut offset = start;
        while self.transmits.len() < TRANSMITS_MAX {
            let left = end - offset;
            let mut room = octets_max.saturating_sub(datagram.len() + overhead);
            if room < left.min(FRAGMENT_OCTETS_WORTH) || datagram.len() + overhead > octets_max {
                self.queue(std::mem::take(datagram));
                room = octets_max.saturating_sub(overhead).max(1);
                if self.transmits.len() >= TRANSMITS_MAX {
                    return;
                }
            }
            let octets = left.min(room);
            let mut content = Vec::with_capacity(handshake::HEADER_OCTETS + octets);
            message.put_fragment(offset, octets, &mut content);
            let number = self.put_record(datagram, epoch, ContentType::HANDSHAKE, &content);
            sent.extend(number.map(|number| Sent { number, item, start: offset, end: offset + octets }));
            offset += octets;
            if offset >= end {
                return;
            }
        }
    }

    fn pack(
        &mut self,
        datagram: &mut Vec<u8>,
        octets_max: usize,
        epoch: u16,
        content_type: ContentType,
        content: &[u8],
    ) {
        if datagram.len() + self.overhead(epoch) + content.len() > octets_max {
            self.queue(std::mem::take(datagram));
        }
        if self.transmits.len() < TRANSMITS_MAX {
            self.put_record(datagram, epoch, content_type, content);
        }
    }

    /// Octets of a record beyond its content.
    pub(crate) fn overhead(&self, epoch: u16) -> usize {
        match (&self.keys, &self.epochs) {
            (Some(keys), _) if epoch > 0 => Keys::overhead(keys.suite, &self.peer_id),
            (_, Some(epochs)) if epoch > 0 => Epochs::overhead(epochs.suite, &self.peer_id, Form::WITH_LENGTH),
            _ => record::HEADER_OCTETS,
        }
    }

    /// Octets of a datagram of application data beyond them.
    pub(crate) fn application_overhead(&self) -> usize {
        match &self.epochs {
            // The least that a record has, for the shortest payloads (RFC 9147 4.2.3).
            Some(epochs) => Epochs::overhead(epochs.suite, &self.peer_id, Form::ALONE),
            None => self.overhead(record::protection::EPOCH),
        }
    }

    /// Octets of a datagram of application data.
    pub(crate) fn application_octets(&self, payload_octets: usize) -> usize {
        let octets_min = self.epochs.as_ref().map_or(0, |epochs| Epochs::content_octets_min(epochs.suite));
        self.application_overhead() + payload_octets.max(octets_min)
    }

    /// A record, and its number with DTLS 1.3. Without key, or with one that is used up, there is none: the session is
    /// ending.
    pub(crate) fn put_record(
        &mut self,
        datagram: &mut Vec<u8>,
        epoch: u16,
        content_type: ContentType,
        content: &[u8],
    ) -> Option<RecordNumber> {
        if epoch > 0 {
            let before = datagram.len();
            let sealed = match (&mut self.keys, &mut self.epochs) {
                (Some(keys), _) => keys.seal(&self.peer_id, content_type, content, datagram).map(|()| None),
                (None, Some(epochs)) => {
                    let epoch = (epoch != NEWEST_EPOCH).then_some(u64::from(epoch));
                    epochs.seal(epoch, &self.peer_id, Form::WITH_LENGTH, content_type, content, datagram).map(Some)
                }
                (None, None) => return None,
            };
            if sealed.is_err() {
                datagram.truncate(before);
            }
            return sealed.ok().flatten();
        }
        // RFC 6347 4.1: what comes before the version is known says 1.0, so that old servers read on.
        let is_client_hello =
            content_type == ContentType::HANDSHAKE && content.first() == Some(&MessageType::CLIENT_HELLO.0);
        let version = if is_client_hello && !self.plain_version_settled {
            ProtocolVersion::DTLS_1_0_CODE
        } else {
            ProtocolVersion::DTLS_1_2_CODE
        };
        record::put_header(datagram, content_type, version, 0, self.plain_sequence, &[], content.len());
        datagram.extend_from_slice(content);
        let number = RecordNumber { epoch: 0, sequence: self.plain_sequence };
        self.plain_sequence = self.plain_sequence.wrapping_add(1);
        Some(number)
    }

    /// Queues a datagram to the peer's address.
    pub(crate) fn queue(&mut self, payload: Vec<u8>) {
        if !payload.is_empty() {
            self.transmits.push_back(Transmit { destination: self.peer, payload });
        }
    }

    /// Queues an alert, in clear if there is no key that the peer could have.
    pub(crate) fn queue_alert(&mut self, alert: Alert, protected: bool) {
        let protected = protected && (self.keys.is_some() || self.epochs.is_some());
        let epoch = if protected { NEWEST_EPOCH } else { 0 };
        let mut datagram = Vec::new();
        self.put_record(&mut datagram, epoch, ContentType::ALERT, &alert.encode());
        self.queue(datagram);
    }

    /// A datagram of application data.
    pub(crate) fn application_datagram(&mut self, payload: &[u8]) -> Result<Vec<u8>, Error> {
        if let Some(epochs) = &mut self.epochs {
            let octets = Epochs::overhead(epochs.suite, &self.peer_id, Form::ALONE) + payload.len();
            let mut datagram = Vec::with_capacity(octets);
            epochs.seal(None, &self.peer_id, Form::ALONE, ContentType::APPLICATION_DATA, payload, &mut datagram)?;
            return Ok(datagram);
        }
        let keys = self.keys.as_mut().ok_or(Error::NotEstablished)?;
        let mut datagram = Vec::with_capacity(Keys::overhead(keys.suite, &self.peer_id) + payload.len());
        keys.seal(&self.peer_id, ContentType::APPLICATION_DATA, payload, &mut datagram)?;
        Ok(datagram)
    }

    /// Keeps a protected record until its key is there.
    pub(crate) fn keep_early(&mut self, record: &[u8]) -> bool {
        match &mut self.handshake {
            Some(handshake) if handshake.early.len() < EARLY_RECORDS_MAX && record.len() <= EARLY_RECORD_OCTETS_MAX => {
                handshake.early.push(record.to_vec());
                true
            }
            _ => false,
        }
    }

    pub(crate) fn install_keys(&mut self, keys: Keys) {
        self.keys = Some(Box::new(keys));
    }

    /// The handshake is done. A server holds its last flight for a while.
    pub(crate) fn establish(&mut self, cipher_suite: CipherSuite, group: Option<Group>, now: Instant) {
        self.established = true;
        match self.config.role() {
            // Its Finished is still to be acknowledged.
            Role::Client if self.epochs.is_some() => {}
            Role::Client => self.handshake = None,
            Role::Server => {
                if let Some(handshake) = &mut self.handshake {
                    handshake.until = now + FINAL_FLIGHT_HELD;
                    if self.epochs.is_none() {
                        handshake.early = Vec::new();
                    }
                }
            }
        }
        self.events.push_back(Event::Established(Established {
            version: self.version(),
            cipher_suite,
            group,
            connection_id: self.own_id,
            peer_connection_id: self.peer_id,
        }));
    }

    /// Queues an event; those that may come any number of times only if there is room. Returns whether it did.
    pub(crate) fn push_event(&mut self, event: Event) -> bool {
        let repeats = matches!(event, Event::ApplicationData { .. } | Event::PeerAddressChanged { .. });
        let room = self.events.len() < EVENTS_MAX || !repeats;
        if room {
            self.events.push_back(event);
        }
        room
    }

    /// A record did not authenticate.
    pub(crate) fn note_forgery(&mut self) {
        let half = self.keys.as_ref().is_some_and(|keys| keys.is_half_exhausted());
        if half && self.established && !self.renewal_advised {
            self.renewal_advised = true;
            self.push_event(Event::RenewalAdvised);
        }
    }

    pub(crate) fn log_master(&self, client_random: &[u8; RANDOM_OCTETS], master: &[u8]) {
        if let Some(key_log) = &self.config.session().key_log {
            key_log.log("CLIENT_RANDOM", client_random, master);
        }
    }
}

/// A fragment with fewer octets than this goes into a datagram of its own instead, unless it is the last.
const FRAGMENT_OCTETS_WORTH: usize = 32;
