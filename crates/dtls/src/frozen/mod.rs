//! Idle sessions as small values, in memory and sealed for a restart.

mod form;

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::codec::{Malformed, Read, Reader};
use crate::config::{ClientConfig, ServerConfig};
use crate::connection::Connection;
use crate::connection::core::{Config, Core};
use crate::connection_id::ConnectionId;
use crate::crypto;
use crate::error::Error;
use crate::frozen::form::{Secrets, State, put_epochs, put_keys};
#[cfg(doc)]
use crate::limits::{FROZEN_OCTETS_MAX, SEALED_RECORDS_MAX, SEALED_RECORDS_MAX_DTLS13};
use crate::limits::{SEALED_ATTACHED_OCTETS_MAX, SEALED_OPENED_MAX, SEALED_STARTS_MAX_DTLS13};
use crate::record::protection::Secret;
use crate::suite::{CipherSuite, ProtocolVersion};

/// An idle session: keys, counters, replay window, Connection IDs, the peer's address; no more than
/// [`FROZEN_OCTETS_MAX`] octets. It is wiped when dropped and cannot be copied, so that no nonce repeats.
pub struct Frozen {
    octets: Zeroizing<Box<[u8]>>,
}

impl Connection {
    /// Makes the session a small value.
    ///
    /// # Errors
    /// The session as it was, if anything is under way ([`Error::NotIdle`]): it is not established, datagrams or events
    /// wait to be polled, a server still holds its last flight ([`Connection::poll_timeout`] tells until when), or a new
    /// address waits for a decision.
    pub fn freeze(self) -> Result<Frozen, (Box<Self>, Error)> {
        if !self.is_idle() {
            return Err((Box::new(self), Error::NotIdle));
        }
        let state = self.cipher_suite().map(|suite| State {
            role: self.role(),
            restored: self.is_restored(),
            own_id: self.core.own_id,
            peer_id: self.core.peer_id,
            peer: self.core.peer,
            suite,
        });
        let frozen = match (state, &self.core.keys, &self.core.epochs) {
            (Some(state), Some(keys), _) => state.encode(|out| put_keys(out, keys)),
            (Some(state), None, Some(epochs)) => state.encode(|out| put_epochs(out, epochs, self.core.message_numbers)),
            _ => None,
        };
        frozen.ok_or_else(|| (Box::new(self), Error::NotIdle))
    }

    /// As [`Frozen::stored`], for a session that was thawed before its sealed form was stored.
    ///
    /// # Errors
    /// [`Error::FrozenForm`] if the form is another session's, or of a write key that was updated since; [`Error::Closed`].
    pub fn stored(&mut self, sealing: &Sealing) -> Result<(), Error> {
        match (&mut self.core.keys, &mut self.core.epochs) {
            (Some(keys), _) => sealing.confirm(&keys.write.key, &mut keys.write_sequence_end),
            (None, Some(epochs)) => {
                let write = epochs.write_mut().ok_or(Error::Closed)?;
                sealing.confirm(write.secret.expose(), &mut write.sequence_end)
            }
            (None, None) => Err(Error::Closed),
        }
    }
}

impl Frozen {
    /// What the peer writes into its records: how the session is found again.
    pub fn connection_id(&self) -> ConnectionId {
        self.state().map(|state| state.own_id).unwrap_or(ConnectionId::EMPTY)
    }

    /// The peer's address: how a session without Connection ID is found again.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.state().map(|state| state.peer).ok()
    }

    /// Which version the session speaks.
    pub fn version(&self) -> ProtocolVersion {
        self.state().map_or(ProtocolVersion::Dtls12, |state| state.suite.version())
    }

    /// Its cipher suite.
    pub fn cipher_suite(&self) -> Option<CipherSuite> {
        self.state().map(|state| state.suite).ok()
    }

    /// Octets that it takes.
    pub fn len(&self) -> usize {
        self.octets.len()
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// Says that a sealed form of this session is stored, durably and in place of any older one. From now on the session
    /// may send [`SEALED_RECORDS_MAX`] records from where it was sealed; until now, only what the form stored before
    /// allows.
    ///
    /// # Errors
    /// [`Error::FrozenForm`] if the form is another session's, or of a write key that was updated since, which changes
    /// nothing.
    pub fn stored(&mut self, sealing: &Sealing) -> Result<(), Error> {
        let (state, mut secrets) = self.decode().map_err(|_| Error::FrozenForm)?;
        let (write_key, _, sequence_end) = secrets.write_mut().ok_or(Error::FrozenForm)?;
        sealing.confirm(write_key, sequence_end)?;
        *self = state.freeze(&secrets).ok_or(Error::FrozenForm)?;
        Ok(())
    }

    /// The session of a server. If it fails, the session is lost.
    ///
    /// # Errors
    /// [`Error::Config`]; [`Error::FrozenForm`] if it is a client's.
    pub fn thaw_server(self, config: Arc<ServerConfig>, now: Instant) -> Result<Connection, Error> {
        self.thaw(Config::Server(config), now)
    }

    /// The session of a client. If it fails, the session is lost.
    ///
    /// # Errors
    /// [`Error::Config`]; [`Error::FrozenForm`] if it is a server's.
    pub fn thaw_client(self, config: Arc<ClientConfig>, now: Instant) -> Result<Connection, Error> {
        self.thaw(Config::Client(config), now)
    }

    fn thaw(self, config: Config, now: Instant) -> Result<Connection, Error> {
        config.check()?;
        let (state, secrets) = self.decode().map_err(|_| Error::FrozenForm)?;
        if state.role != config.role() {
            return Err(Error::FrozenForm);
        }
        let mut core = Core::new(config, state.peer, now, 0, 0);
        core.handshake = None;
        core.established = true;
        core.own_id = state.own_id;
        core.peer_id = state.peer_id;
        match secrets {
            Secrets::V12(keys) => {
                core.renewal_advised = keys.is_half_exhausted();
                core.keys = Some(Box::new(keys));
            }
            Secrets::V13(epochs, message_numbers) => {
                let read_epoch = epochs.read().filter(|read| read.window.next > 0).map(|read| read.epoch);
                core.epochs = Some(Box::new(epochs));
                core.message_numbers = message_numbers;
                if let Some(epoch) = read_epoch {
                    core.note_epoch(now, epoch);
                }
            }
        }
        Ok(Connection::established(core, state.restored))
    }

    fn decode(&self) -> Read<(State, Secrets)> {
        State::decode(&self.octets)
    }

    /// What is kept besides the keys, without making them ready.
    fn state(&self) -> Read<State> {
        State::read(&mut Reader::new(&self.octets))
    }
}

impl fmt::Debug for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frozen").field("octets", &self.octets.len()).finish_non_exhaustive()
    }
}

/// Seals frozen sessions for a restart of the server, and opens them after it. Each start of the server has a number, larger
/// than any before.
///
/// A server that stops hands its sessions over ([`SealingKey::hand_over`]). Nothing is written with a session's keys between
/// that and its opening, and only the next start opens it, once: so it goes on as it was, over any number of starts, with
/// all the records that its keys allow.
///
/// A server that may be killed seals its sessions while they go on ([`SealingKey::seal`]). Such a form is older than the
/// session it was made of, so its counters must not be used as they stand. A session that was sealed may send [`SEALED_RECORDS_MAX`] records
/// more, with DTLS 1.3 [`SEALED_RECORDS_MAX_DTLS13`], in the epoch in which it was sealed and in each further one; opened
/// `n` starts later, its counter is advanced by `n` times as many; in one start it opens once. So no nonce
/// repeats, however often the server starts and whatever a store loses, as long as
///
/// - there is one `SealingKey` for each start, and no two starts have the same number;
/// - the store never gives back a form that is older than one which it has said to be stored, which is when the driver
///   calls [`Frozen::stored`] or [`Connection::stored`].
///
/// A form that was not stored, or not yet, costs nothing: the session goes on under the limit of the one before.
///
/// What was handed over takes the place of what was stored before, and raises no limit.
///
/// Records that came after a session was sealed can be replayed to the restored one, which says so by
/// [`Connection::is_restored`].
pub struct SealingKey {
    key: LessSafeKey,
    start: u32,
    /// The nonces of the forms that were opened.
    opened: Mutex<HashSet<[u8; 12]>>,
    opened_max: usize,
}

/// A sealed form that is to be stored. When it is, say so to its session: [`Frozen::stored`], [`Connection::stored`].
/// Dropping it changes nothing.
#[must_use]
pub struct Sealing {
    octets: Vec<u8>,
    /// Of the session, to know it again.
    write_key: Secret,
    /// The first record that its copy could send.
    end: u64,
}

impl Sealing {
    /// What to store, at most [`crate::limits::SEALED_OCTETS_MAX`] octets and what is attached.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// Raises the limit of the session with this key.
    fn confirm(&self, write_key: &[u8], sequence_end: &mut u64) -> Result<(), Error> {
        if !crypto::equal(&self.write_key, write_key) {
            return Err(Error::FrozenForm);
        }
        // Never back: a form sealed later may be stored already.
        *sequence_end = (*sequence_end).max(self.end);
        Ok(())
    }
}

/// A session that was handed over ([`SealingKey::hand_over`]), of which nothing can be used while its form may be opened.
#[derive(Debug)]
pub struct HandedOver(Frozen);

impl HandedOver {
    /// The session, as it was: its form is stored nowhere, and nobody will ever open it. Else nonces repeat.
    pub fn take_back(self) -> Frozen {
        self.0
    }
}

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealing").field("octets", &self.octets.len()).finish_non_exhaustive()
    }
}

const SEALED_FORM: u8 = 4;
/// The same, of a session that did not go on.
const HANDED_OVER_FORM: u8 = 5;
/// Octets of the session, before it: what follows it is attached.
const SEALED_LENGTH_OCTETS: usize = 2;
/// Form, start, nonce: in clear, and authentic.
const SEALED_HEADER_OCTETS: usize = 1 + 4 + 12;

impl SealingKey {
    /// With a key of 32 random octets that only this server has, and the number of this start of it.
    ///
    /// # Errors
    /// [`Error::Cryptography`], never met.
    pub fn new(key: &[u8; 32], start: u32) -> Result<Self, Error> {
        let key = UnboundKey::new(&AES_256_GCM_SIV, key).map_err(|_| Error::Cryptography)?;
        Ok(Self { key: LessSafeKey::new(key), start, opened: Mutex::default(), opened_max: SEALED_OPENED_MAX })
    }

    /// The sealed form of a session. From now on the session may send [`SEALED_RECORDS_MAX`] records, or as many as are
    /// left since it was sealed and stored before; more once this form is [`Frozen::stored`]. Then it ends with
    /// [`Error::WriteKeyExhausted`].
    ///
    /// # Errors
    /// [`Error::Random`], which changes nothing.
    pub fn seal(&self, frozen: &mut Frozen) -> Result<Sealing, Error> {
        self.seal_with(frozen, &[])
    }

    /// As [`SealingKey::seal`], with what is to be known of the session besides: it is encrypted with it, and neither opens
    /// without the other. The form has as many octets more.
    ///
    /// # Errors
    /// [`Error::Random`], or [`Error::FrozenForm`] if more than [`SEALED_ATTACHED_OCTETS_MAX`] octets are attached; these
    /// change nothing.
    pub fn seal_with(&self, frozen: &mut Frozen, attached: &[u8]) -> Result<Sealing, Error> {
        let (state, mut secrets) = frozen.decode().map_err(|_| Error::FrozenForm)?;
        let (records_max, more) = (secrets.records_max(), secrets.sealed_records_max());
        let (write_key, sequence, sequence_end) = secrets.write_mut().ok_or(Error::FrozenForm)?;
        let write_key: Secret = Zeroizing::new(Box::from(write_key));
        let end = sequence.saturating_add(more).min(records_max);
        // The store may have this form or the one before: the session stays below what either would go on with.
        *sequence_end = (*sequence_end).min(end);
        if let Secrets::V13(epochs, _) = &mut secrets {
            (epochs.sealed, epochs.sealed_form_stale) = (true, false);
        }
        let renewed = state.freeze(&secrets).ok_or(Error::FrozenForm)?;
        let octets = self.encrypt(SEALED_FORM, &renewed, attached)?;
        *frozen = renewed;
        Ok(Sealing { octets, write_key, end })
    }

    /// The sealed form of a session for the next start of the server, with what is to be known of it besides, as with
    /// [`SealingKey::seal_with`]. The session is gone here, unless it is taken back before the form is stored; if the form
    /// does not come to the next start, it is lost.
    ///
    /// # Errors
    /// The session as it was, and those of [`SealingKey::seal_with`].
    pub fn hand_over(&self, frozen: Frozen, attached: &[u8]) -> Result<(Vec<u8>, HandedOver), (Frozen, Error)> {
        match self.encrypt(HANDED_OVER_FORM, &frozen, attached) {
            Ok(form) => Ok((form, HandedOver(frozen))),
            Err(error) => Err((frozen, error)),
        }
    }

    fn encrypt(&self, form: u8, frozen: &Frozen, attached: &[u8]) -> Result<Vec<u8>, Error> {
        if attached.len() > SEALED_ATTACHED_OCTETS_MAX {
            return Err(Error::FrozenForm);
        }
        let mut nonce = [0; 12];
        crypto::random(&mut nonce)?;
        let length = u16::try_from(frozen.octets.len()).map_err(|_| Error::FrozenForm)?;
        let data_octets = SEALED_LENGTH_OCTETS + frozen.octets.len() + attached.len();
        let mut out = Vec::with_capacity(SEALED_HEADER_OCTETS + data_octets + 16);
        out.push(form);
        out.extend_from_slice(&self.start.to_be_bytes());
        out.extend_from_slice(&nonce);
        let header = out.clone();
        // Of its full size at once: what it grew out of would not be wiped.
        let mut data = Zeroizing::new(Vec::with_capacity(data_octets));
        data.extend_from_slice(&length.to_be_bytes());
        data.extend_from_slice(&frozen.octets);
        data.extend_from_slice(attached);
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&header), data.as_mut_slice())
            .map_err(|_| Error::Cryptography)?;
        out.extend_from_slice(&data);
        out.extend_from_slice(tag.as_ref());
        Ok(out)
    }

    /// The session of a sealed form. One that was handed over goes on as it was. Else its counters are advanced, the session
    /// may then send [`SEALED_RECORDS_MAX`] records, and the form in the store stays good for the next start. Each form opens
    /// once.
    ///
    /// # Errors
    /// [`Error::FrozenForm`] if it is not of this key or was changed; [`Error::SealedNow`] if it was sealed by this start
    /// of the server or a later one; [`Error::WriteKeyExhausted`] if no records are left, or if it was sealed more than
    /// [`SEALED_STARTS_MAX_DTLS13`] starts ago with DTLS 1.3; [`Error::HandedOverEarlier`]; [`Error::OpenedBefore`];
    /// [`Error::OpenedTooMany`].
    pub fn open(&self, sealed: &[u8]) -> Result<Frozen, Error> {
        self.open_with(sealed).map(|(frozen, _)| frozen)
    }

    /// As [`SealingKey::open`], with what was attached ([`SealingKey::seal_with`]).
    ///
    /// # Errors
    /// Those of [`SealingKey::open`].
    pub fn open_with(&self, sealed: &[u8]) -> Result<(Frozen, Zeroizing<Vec<u8>>), Error> {
        let (header, ciphertext) = sealed.split_first_chunk::<SEALED_HEADER_OCTETS>().ok_or(Error::FrozenForm)?;
        let (form, start, nonce) = sealed_header(header).map_err(|_| Error::FrozenForm)?;
        let mut data = Zeroizing::new(ciphertext.to_vec());
        let plain = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(header), &mut data)
            .map_err(|_| Error::FrozenForm)?;
        let (length, plain) = plain.split_first_chunk::<SEALED_LENGTH_OCTETS>().ok_or(Error::FrozenForm)?;
        let (plain, attached) = plain.split_at_checked(u16::from_be_bytes(*length).into()).ok_or(Error::FrozenForm)?;
        let (mut state, mut secrets) = State::decode(plain).map_err(|_| Error::FrozenForm)?;
        let starts = self.start.checked_sub(start).filter(|starts| *starts > 0).ok_or(Error::SealedNow)?;
        if form == HANDED_OVER_FORM {
            if starts > 1 {
                return Err(Error::HandedOverEarlier);
            }
            self.note_opened(nonce)?;
            let frozen = Frozen { octets: Zeroizing::new(Box::from(plain)) };
            return Ok((frozen, Zeroizing::new(attached.to_vec())));
        }
        let (records_max, more) = (secrets.records_max(), secrets.sealed_records_max());
        let advance = u64::from(starts) * more;
        if matches!(secrets, Secrets::V13(..)) && u64::from(starts) > SEALED_STARTS_MAX_DTLS13 {
            return Err(Error::WriteKeyExhausted);
        }
        let (_, sequence, sequence_end) = secrets.write_mut().ok_or(Error::FrozenForm)?;
        *sequence = sequence.saturating_add(advance);
        if *sequence >= records_max {
            return Err(Error::WriteKeyExhausted);
        }
        *sequence_end = sequence.saturating_add(more).min(records_max);
        if let Secrets::V13(epochs, _) = &mut secrets {
            // What was sealed may have gone on to further epochs: their numbers are not repeated either.
            epochs.sequence_first = epochs.sequence_first.saturating_add(advance);
        }
        state.restored = true;
        self.note_opened(nonce)?;
        Ok((state.freeze(&secrets).ok_or(Error::FrozenForm)?, Zeroizing::new(attached.to_vec())))
    }

    /// Remembers that the form with `nonce` is opened.
    fn note_opened(&self, nonce: [u8; 12]) -> Result<(), Error> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.contains(&nonce) {
            return Err(Error::OpenedBefore);
        }
        if opened.len() >= self.opened_max {
            return Err(Error::OpenedTooMany);
        }
        opened.insert(nonce);
        Ok(())
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealingKey").field("start", &self.start).finish_non_exhaustive()
    }
}

fn sealed_header(header: &[u8]) -> Read<(u8, u32, [u8; 12])> {
    let mut reader = Reader::new(header);
    let form = reader.u8()?;
    if ![SEALED_FORM, HANDED_OVER_FORM].contains(&form) {
        return Err(Malformed);
    }
    Ok((form, u32::from_be_bytes(reader.array()?), reader.array()?))
}

#[cfg(test)]
mod restarts;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;
    use crate::connection::Role;
    use crate::connection::{Closed, Disposition, Event};
    use crate::limits::{FROZEN_OCTETS_MAX, SEALED_RECORDS_MAX, SEALED_RECORDS_MAX_DTLS13};
    use crate::record::ContentType;
    use crate::record::epochs::{ClientFinished, Epochs, ReadEpoch, WriteEpoch};
    use crate::record::protection::{Direction, Keys};
    use crate::v13::schedule::TrafficSecret;

    const SUITE: CipherSuite = CipherSuite::PskAes128Ccm8;

    /// Both directions have the same key, so that the peer's records are made of it too.
    fn keys() -> Keys {
        let direction = || Direction::new(SUITE.aead(), &[1; 16], &[2; 4]).unwrap();
        Keys::new(SUITE, direction(), direction())
    }

    fn own_id() -> ConnectionId {
        ConnectionId::new(b"own").unwrap()
    }

    fn frozen(peer: &str, keys: &Keys) -> Frozen {
        let (own_id, peer_id, peer) = (own_id(), ConnectionId::EMPTY, peer.parse().unwrap());
        let state = State { role: Role::Server, restored: false, own_id, peer_id, peer, suite: SUITE };
        state.encode(|out| put_keys(out, keys)).unwrap()
    }

    fn from_peer(peer: &mut Keys) -> Vec<u8> {
        let mut datagram = Vec::new();
        peer.seal(&own_id(), ContentType::APPLICATION_DATA, b"data", &mut datagram).unwrap();
        datagram
    }

    #[test]
    fn half_of_the_forgeries_that_a_key_stands_advise_a_renewal_once() {
        let mut keys = keys();
        let half = SUITE.aead().unauthentic_max() / 2;
        keys.unauthentic = half - 2;
        let mut connection = thaw(frozen("192.0.2.1:1", &keys));
        let mut forged = from_peer(&mut keys);
        *forged.last_mut().unwrap() ^= 1;
        let now = Instant::now();
        let forge = |connection: &mut Connection| {
            let source = connection.peer_address();
            assert_eq!(connection.handle_datagram(now, source, &forged), Disposition::Ignored);
            connection.poll_event()
        };
        assert_eq!(forge(&mut connection), None);
        assert_eq!(forge(&mut connection), Some(Event::RenewalAdvised));
        assert_eq!(forge(&mut connection), None);
        // Frozen and thawed it does not say so again.
        let frozen = connection.freeze().unwrap();
        let mut connection = thaw(frozen);
        assert_eq!(forge(&mut connection), None);
        assert!(connection.is_established());
    }

    #[test]
    fn of_a_datagram_one_record_counts_as_a_forgery_and_what_follows_it_is_not_read() {
        let mut keys = keys();
        let mut connection = thaw(frozen("192.0.2.1:1", &keys));
        let mut forged = from_peer(&mut keys);
        *forged.last_mut().unwrap() ^= 1;
        let datagram = [forged.clone(), forged, from_peer(&mut keys)].concat();
        let source = connection.peer_address();
        assert_eq!(connection.handle_datagram(Instant::now(), source, &datagram), Disposition::Ignored);
        assert_eq!(connection.core.keys.as_ref().unwrap().unauthentic, 1);
        assert_eq!(connection.poll_event(), None);
    }

    #[test]
    fn a_probe_with_a_used_up_key_ends_the_session() {
        let mut keys = keys();
        keys.write_sequence_end = 0;
        let mut connection = thaw(frozen("192.0.2.1:1", &keys));
        let (now, elsewhere) = (Instant::now(), SocketAddr::from(([192, 0, 2, 2], 2)));
        let moved = from_peer(&mut Keys::new(SUITE, keys.read, keys.write));
        connection.handle_datagram(now, elsewhere, &moved);
        while connection.poll_event().is_some() {}
        assert_eq!(connection.probe(now, b"echo"), Err(Error::WriteKeyExhausted));
        assert!(connection.is_closed());
        assert_eq!(connection.poll_event(), Some(Event::Closed(Closed::Failed(Error::WriteKeyExhausted))));
    }

    #[test]
    fn an_address_is_kept_with_its_scope() {
        for peer in ["192.0.2.1:5684", "[2001:db8::1]:5684", "[fe80::1%7]:5684"] {
            let frozen = frozen(peer, &keys());
            assert!(frozen.len() <= FROZEN_OCTETS_MAX);
            assert_eq!(frozen.peer_address(), Some(peer.parse().unwrap()));
            assert_eq!(thaw(frozen).peer_address(), peer.parse().unwrap());
        }
    }

    /// The same session, that has sent all records before `sequence`.
    fn advanced(frozen: &Frozen, sequence: u64) -> Frozen {
        let (state, mut secrets) = frozen.decode().unwrap();
        let (_, next, _) = secrets.write_mut().unwrap();
        assert!(*next <= sequence);
        *next = sequence;
        state.freeze(&secrets).unwrap()
    }

    fn thaw(frozen: Frozen) -> Connection {
        frozen.thaw_server(Arc::new(ServerConfig::default()), Instant::now()).unwrap()
    }

    #[test]
    fn a_form_that_is_not_stored_allows_no_record_more() {
        let sealing = SealingKey::new(&[3; 32], 1).unwrap();
        let mut session = frozen("192.0.2.1:1", &keys());
        let first = sealing.seal(&mut session).unwrap();
        session.stored(&first).unwrap();
        let mut session = advanced(&session, SEALED_RECORDS_MAX - 1);
        // The store fails.
        let _ = sealing.seal(&mut session).unwrap();
        let mut connection = thaw(session);
        let now = Instant::now();
        assert_eq!(connection.send(now, b"the last one"), Ok(()));
        assert_eq!(connection.send(now, b"one more"), Err(Error::WriteKeyExhausted));
        // The next start finds the first form: it goes on where the session would have.
        let opened = SealingKey::new(&[3; 32], 2).unwrap().open(first.octets()).unwrap();
        assert_eq!(*opened.decode().unwrap().1.write_mut().unwrap().1, SEALED_RECORDS_MAX);
    }

    #[test]
    fn a_first_form_limits_the_session_before_it_is_stored() {
        let mut session = frozen("192.0.2.1:1", &keys());
        let sealed = SealingKey::new(&[3; 32], 1).unwrap().seal(&mut session).unwrap();
        let mut connection = thaw(advanced(&session, SEALED_RECORDS_MAX));
        assert_eq!(connection.send(Instant::now(), b"x"), Err(Error::WriteKeyExhausted));
        assert_eq!(connection.stored(&sealed), Err(Error::Closed));
    }

    #[test]
    fn a_form_that_is_stored_late_or_out_of_order_allows_what_the_newest_does() {
        let sealing = SealingKey::new(&[3; 32], 1).unwrap();
        let mut session = frozen("192.0.2.1:1", &keys());
        let first = sealing.seal(&mut session).unwrap();
        let mut session = advanced(&session, SEALED_RECORDS_MAX - 1);
        let second = sealing.seal(&mut session).unwrap();
        let mut connection = thaw(advanced(&session, SEALED_RECORDS_MAX));
        connection.stored(&second).unwrap();
        connection.stored(&first).unwrap();
        assert_eq!(connection.send(Instant::now(), b"x"), Ok(()));
        connection.poll_transmit();
        let (_, mut secrets) = connection.freeze().unwrap().decode().unwrap();
        assert_eq!(*secrets.write_mut().unwrap().2, 2 * SEALED_RECORDS_MAX - 1);
    }

    #[test]
    fn a_form_of_another_session_confirms_nothing() {
        let other = Direction::new(SUITE.aead(), &[9; 16], &[2; 4]).unwrap();
        let mut other = frozen("192.0.2.1:1", &Keys::new(SUITE, other, keys().read));
        let sealed = SealingKey::new(&[3; 32], 1).unwrap().seal(&mut other).unwrap();
        let mut session = frozen("192.0.2.1:1", &keys());
        assert_eq!(session.stored(&sealed), Err(Error::FrozenForm));
        assert_eq!(thaw(session).stored(&sealed), Err(Error::FrozenForm));
    }

    #[test]
    fn no_more_forms_are_opened_than_can_be_remembered() {
        let before = SealingKey::new(&[3; 32], 1).unwrap();
        let sealed: Vec<Sealing> = (0..3).map(|_| before.seal(&mut frozen("192.0.2.1:1", &keys())).unwrap()).collect();
        let mut now = SealingKey::new(&[3; 32], 2).unwrap();
        now.opened_max = 2;
        assert!(now.open(sealed[0].octets()).is_ok());
        assert!(now.open(sealed[1].octets()).is_ok());
        assert_eq!(now.open(sealed[2].octets()).unwrap_err(), Error::OpenedTooMany);
        assert_eq!(now.open(sealed[0].octets()).unwrap_err(), Error::OpenedBefore);
    }

    fn frozen13() -> Frozen {
        let suite = CipherSuite::Aes128Gcm;
        let secret = || TrafficSecret::of_octets(&[7; 32]);
        let (write, read) = (WriteEpoch::new(suite, 3, secret()), ReadEpoch::new(suite, 3, secret()));
        let epochs = Epochs::new(suite, write.unwrap(), read.unwrap());
        let (own_id, peer_id, peer) = (own_id(), ConnectionId::EMPTY, "192.0.2.1:1".parse().unwrap());
        let state = State { role: Role::Server, restored: false, own_id, peer_id, peer, suite };
        state.freeze(&Secrets::V13(epochs, (5, 6))).unwrap()
    }

    /// Which numbers a session may write in its present epoch and the next one.
    fn numbers(frozen: &Frozen) -> Vec<(u64, std::ops::Range<u64>)> {
        let (_, Secrets::V13(mut epochs, message_numbers)) = frozen.decode().unwrap() else { panic!() };
        assert_eq!(message_numbers, (5, 6));
        let range = |epochs: &Epochs| {
            let write = epochs.write().unwrap();
            (write.epoch, write.sequence..write.sequence_end)
        };
        let present = range(&epochs);
        epochs.advance_write().unwrap();
        vec![present, range(&epochs)]
    }

    #[test]
    fn no_start_of_the_server_writes_a_number_of_dtls_1_3_that_another_may_have_written() {
        let mut session = frozen13();
        let sealed = SealingKey::new(&[3; 32], 1).unwrap().seal(&mut session).unwrap();
        session.stored(&sealed).unwrap();
        let mut written = numbers(&session);
        let last = 1 + u32::try_from(SEALED_STARTS_MAX_DTLS13).unwrap();
        for start in 2..=last {
            let opened = SealingKey::new(&[3; 32], start).unwrap().open(sealed.octets()).unwrap();
            for (epoch, range) in numbers(&opened) {
                assert_eq!(range.end - range.start, SEALED_RECORDS_MAX_DTLS13);
                // The peer finds the number from 16 bits.
                assert!(range.end <= 1 << 15);
                let overlaps = |(of, other): &(u64, std::ops::Range<u64>)| {
                    *of == epoch && range.start < other.end && other.start < range.end
                };
                assert!(!written.iter().any(overlaps), "start {start}, epoch {epoch}: {range:?} of {written:?}");
                written.push((epoch, range));
            }
        }
        let error = SealingKey::new(&[3; 32], last + 1).unwrap().open(sealed.octets()).unwrap_err();
        assert_eq!(error, Error::WriteKeyExhausted);
    }

    #[test]
    fn a_session_of_dtls_1_3_restored_too_often_keeps_its_write_key() {
        let mut session = frozen13();
        for start in 1..=SEALED_STARTS_MAX_DTLS13 as u32 + 1 {
            let (before, after) = (SealingKey::new(&[3; 32], start), SealingKey::new(&[3; 32], start + 1));
            let connection = thaw(session);
            assert!(connection.core.epochs.as_ref().unwrap().may_advance_write());
            session = connection.freeze().unwrap();
            let sealed = before.unwrap().seal(&mut session).unwrap();
            session = after.unwrap().open(sealed.octets()).unwrap();
        }
        let mut connection = thaw(session);
        assert_eq!(connection.update_keys(Instant::now(), false), Err(Error::WriteKeyExhausted));
        assert_eq!(connection.send(Instant::now(), b"x"), Ok(()));
    }

    #[test]
    fn the_largest_session_fits_the_limits() {
        let suite = CipherSuite::Chacha20Poly1305;
        let secret = || TrafficSecret::of_octets(&[7; 32]);
        let (write, read) = (WriteEpoch::new(suite, 3, secret()), ReadEpoch::new(suite, 3, secret()));
        let mut epochs = Epochs::new(suite, write.unwrap(), read.unwrap());
        // Two are read with: a peer has updated its key just now.
        epochs.advance_read().unwrap();
        epochs.client_finished = ClientFinished::of(1);
        let id = ConnectionId::new(&[1; 32]).unwrap();
        let peer = "[fe80::1%7]:5684".parse().unwrap();
        let state = State { role: Role::Server, restored: false, own_id: id, peer_id: id, peer, suite };
        let mut session = state.freeze(&Secrets::V13(epochs, (0, 0))).unwrap();
        assert!(session.len() <= FROZEN_OCTETS_MAX, "{}", session.len());
        let sealed = SealingKey::new(&[3; 32], 1).unwrap().seal(&mut session).unwrap();
        assert!(sealed.octets().len() <= crate::limits::SEALED_OCTETS_MAX);
        let connection = thaw(session);
        assert_eq!(connection.core.epochs.as_ref().unwrap().reads_held().len(), 2);
        assert_eq!(connection.version(), Some(ProtocolVersion::Dtls13));
    }
}
