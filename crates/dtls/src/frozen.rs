//! Idle sessions as small values, in memory and sealed for a restart.

use std::collections::HashSet;
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::codec::{Malformed, Read, Reader, put_u16, put_u48, put_vector8};
use crate::config::{ClientConfig, ServerConfig};
use crate::connection::core::{Config, Core};
use crate::connection::{Connection, Role};
use crate::connection_id::ConnectionId;
use crate::crypto;
use crate::error::Error;
use crate::limits::{
    FROZEN_OCTETS_MAX, SEALED_OPENED_MAX, SEALED_RECORDS_MAX, SEALED_RECORDS_MAX_DTLS13, SEALED_STARTS_MAX_DTLS13,
};
use crate::record::epochs::{Epochs, ReadEpoch, WriteEpoch};
use crate::record::protection::{Direction, Keys, Secret};
use crate::record::replay::ReplayWindow;
use crate::suite::{CipherSuite, ProtocolVersion};
use crate::v13::schedule::TrafficSecret;

/// An idle session: keys, counters, replay window, Connection IDs, the peer's address; no more than
/// [`FROZEN_OCTETS_MAX`] octets. It is wiped when dropped and cannot be copied, so that no nonce repeats.
pub struct Frozen {
    octets: Zeroizing<Box<[u8]>>,
}

const FORM_DTLS12: u8 = 1;
const FORM_DTLS13: u8 = 2;
const ROLE_CLIENT: u8 = 0;
const ROLE_SERVER: u8 = 1;

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
    /// [`Error::FrozenForm`] if the form is another session's; [`Error::Closed`].
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
    /// [`Error::FrozenForm`] if the form is another session's, which changes nothing.
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

/// What is kept besides the keys.
struct State {
    role: Role,
    restored: bool,
    own_id: ConnectionId,
    peer_id: ConnectionId,
    peer: SocketAddr,
    suite: CipherSuite,
}

/// The keys and counters, by version.
enum Secrets {
    V12(Keys),
    V13(Epochs, (u16, u16)),
}

impl Secrets {
    /// The write key, which no other session has, the number of the next record, and the first that may not be written.
    fn write_mut(&mut self) -> Option<(&[u8], &mut u64, &mut u64)> {
        match self {
            Self::V12(keys) => Some((&keys.write.key, &mut keys.write_sequence, &mut keys.write_sequence_end)),
            Self::V13(epochs, _) => {
                let write = epochs.write_mut()?;
                Some((write.secret.expose(), &mut write.sequence, &mut write.sequence_end))
            }
        }
    }

    /// Records after a session was sealed, for each start.
    fn sealed_records_max(&self) -> u64 {
        match self {
            Self::V12(_) => SEALED_RECORDS_MAX,
            Self::V13(..) => SEALED_RECORDS_MAX_DTLS13,
        }
    }

    /// The most records that one key may write.
    fn records_max(&self) -> u64 {
        match self {
            Self::V12(keys) => keys.suite.aead().records_max(),
            Self::V13(epochs, _) => epochs.sequence_end_of_key(),
        }
    }
}

impl State {
    fn freeze(&self, secrets: &Secrets) -> Option<Frozen> {
        match secrets {
            Secrets::V12(keys) => self.encode(|out| put_keys(out, keys)),
            Secrets::V13(epochs, message_numbers) => self.encode(|out| put_epochs(out, epochs, *message_numbers)),
        }
    }

    fn encode(&self, put_secrets: impl FnOnce(&mut Vec<u8>) -> Option<()>) -> Option<Frozen> {
        // As large as it can become, so that it never moves and leaves keys behind.
        let mut out = Zeroizing::new(Vec::with_capacity(FROZEN_OCTETS_MAX));
        out.push(match self.suite.version() {
            ProtocolVersion::Dtls12 => FORM_DTLS12,
            ProtocolVersion::Dtls13 => FORM_DTLS13,
        });
        out.push(match self.role {
            Role::Client => ROLE_CLIENT,
            Role::Server => ROLE_SERVER,
        });
        out.push(u8::from(self.restored));
        put_u16(&mut out, self.suite.code());
        put_vector8(&mut out, self.own_id.as_bytes());
        put_vector8(&mut out, self.peer_id.as_bytes());
        put_address(&mut out, &self.peer);
        put_secrets(&mut out)?;
        debug_assert!(out.len() <= FROZEN_OCTETS_MAX);
        Some(Frozen { octets: Zeroizing::new(Box::from(out.as_slice())) })
    }

    fn read(reader: &mut Reader<'_>) -> Read<Self> {
        let version = match reader.u8()? {
            FORM_DTLS12 => ProtocolVersion::Dtls12,
            FORM_DTLS13 => ProtocolVersion::Dtls13,
            _ => return Err(Malformed),
        };
        let role = match reader.u8()? {
            ROLE_CLIENT => Role::Client,
            ROLE_SERVER => Role::Server,
            _ => return Err(Malformed),
        };
        let restored = reader.u8()? != 0;
        let suite = CipherSuite::from_code(reader.u16()?).filter(|suite| suite.is_of(version)).ok_or(Malformed)?;
        let own_id = ConnectionId::new(reader.vector8()?).map_err(|_| Malformed)?;
        let peer_id = ConnectionId::new(reader.vector8()?).map_err(|_| Malformed)?;
        let peer = read_address(reader)?;
        Ok(Self { role, restored, own_id, peer_id, peer, suite })
    }

    fn decode(octets: &[u8]) -> Read<(Self, Secrets)> {
        let mut reader = Reader::new(octets);
        let state = Self::read(&mut reader)?;
        let secrets = match state.suite.version() {
            ProtocolVersion::Dtls12 => Secrets::V12(read_keys(&mut reader, state.suite)?),
            ProtocolVersion::Dtls13 => {
                let (epochs, message_numbers) = read_epochs(&mut reader, state.suite)?;
                Secrets::V13(epochs, message_numbers)
            }
        };
        reader.end()?;
        Ok((state, secrets))
    }
}

fn put_keys(out: &mut Vec<u8>, keys: &Keys) -> Option<()> {
    for direction in [&keys.write, &keys.read] {
        out.extend_from_slice(&direction.key);
        out.extend_from_slice(&direction.iv);
    }
    put_u48(out, keys.write_sequence);
    put_u48(out, keys.write_sequence_end);
    put_window(out, &keys.window, keys.unauthentic);
    Some(())
}

fn read_keys(reader: &mut Reader<'_>, suite: CipherSuite) -> Read<Keys> {
    let write = direction(reader, suite)?;
    let read = direction(reader, suite)?;
    let mut keys = Keys::new(suite, write, read);
    keys.write_sequence = reader.u48()?;
    keys.write_sequence_end = reader.u48()?;
    (keys.window, keys.unauthentic) = read_window(reader)?;
    Ok(keys)
}

/// The epochs that are written and read with, of the latter also the one before, if it is still held.
fn put_epochs(out: &mut Vec<u8>, epochs: &Epochs, (next_send, next_receive): (u16, u16)) -> Option<()> {
    put_u16(out, next_send);
    put_u16(out, next_receive);
    out.push(u8::from(epochs.sealed));
    put_u48(out, epochs.sequence_first);
    let write = epochs.write()?;
    put_u48(out, write.epoch);
    out.extend_from_slice(write.secret.expose());
    put_u48(out, write.sequence);
    put_u48(out, write.sequence_end);
    for read in epochs.reads_held() {
        put_u48(out, read.epoch);
        out.extend_from_slice(read.secret.expose());
        put_window(out, &read.window, read.unauthentic);
    }
    Some(())
}

fn read_epochs(reader: &mut Reader<'_>, suite: CipherSuite) -> Read<(Epochs, (u16, u16))> {
    let message_numbers = (reader.u16()?, reader.u16()?);
    let sealed = reader.u8()? != 0;
    let sequence_first = reader.u48()?;
    let (epoch, secret) = (reader.u48()?, TrafficSecret::of_octets(&reader.array()?));
    let mut write = WriteEpoch::new(suite, epoch, secret).map_err(|_| Malformed)?;
    write.sequence = reader.u48()?;
    write.sequence_end = reader.u48()?;
    let mut epochs = Epochs::new(suite, write, read_epoch(reader, suite)?);
    while !reader.is_empty() {
        epochs.add_read(read_epoch(reader, suite)?);
    }
    (epochs.sealed, epochs.sequence_first) = (sealed, sequence_first);
    Ok((epochs, message_numbers))
}

fn read_epoch(reader: &mut Reader<'_>, suite: CipherSuite) -> Read<ReadEpoch> {
    let (epoch, secret) = (reader.u48()?, TrafficSecret::of_octets(&reader.array()?));
    let mut read = ReadEpoch::new(suite, epoch, secret).map_err(|_| Malformed)?;
    (read.window, read.unauthentic) = read_window(reader)?;
    Ok(read)
}

fn put_window(out: &mut Vec<u8>, window: &ReplayWindow, unauthentic: u64) {
    put_u48(out, window.next);
    out.extend_from_slice(&window.taken.to_be_bytes());
    put_u48(out, unauthentic);
}

fn read_window(reader: &mut Reader<'_>) -> Read<(ReplayWindow, u64)> {
    let window = ReplayWindow { next: reader.u48()?, taken: u128::from_be_bytes(reader.array()?) };
    Ok((window, reader.u48()?))
}

/// Everything that makes two addresses the same: of IPv6 the scope too, without which a link-local one leads nowhere.
fn put_address(out: &mut Vec<u8>, address: &SocketAddr) {
    match address {
        SocketAddr::V4(address) => put_vector8(out, &address.ip().octets()),
        SocketAddr::V6(address) => {
            let mut octets = [0; ADDRESS_V6_OCTETS];
            let parts =
                [&address.ip().octets()[..], &address.flowinfo().to_be_bytes(), &address.scope_id().to_be_bytes()];
            for (to, from) in octets.iter_mut().zip(parts.into_iter().flatten()) {
                *to = *from;
            }
            put_vector8(out, &octets);
        }
    }
    put_u16(out, address.port());
}

/// Address, flow information, scope.
const ADDRESS_V6_OCTETS: usize = 16 + 4 + 4;

fn read_address(reader: &mut Reader<'_>) -> Read<SocketAddr> {
    let octets = reader.vector8()?;
    let port = reader.u16()?;
    if let Ok(four) = <[u8; 4]>::try_from(octets) {
        return Ok(SocketAddr::from((four, port)));
    }
    let mut parts = Reader::new(octets);
    let address = Ipv6Addr::from(parts.array::<16>()?);
    let (flow, scope) = (u32::from_be_bytes(parts.array()?), u32::from_be_bytes(parts.array()?));
    parts.end()?;
    Ok(SocketAddr::V6(SocketAddrV6::new(address, port, flow, scope)))
}

fn direction(reader: &mut Reader<'_>, suite: CipherSuite) -> Read<Direction> {
    let aead = suite.aead();
    let (key, iv) = (reader.take(aead.key_octets())?, reader.take(aead.fixed_iv_octets())?);
    Direction::new(aead, key, iv).ok_or(Malformed)
}

/// Seals frozen sessions for a restart of the server, and opens them after it.
///
/// A stored form is older than the session it was made of, so its counters must not be used as they stand. Each start of
/// the server has a number, larger than any before. A session that was sealed may send [`SEALED_RECORDS_MAX`] records
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
    /// What to store, at most [`crate::limits::SEALED_OCTETS_MAX`] octets.
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

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealing").field("octets", &self.octets.len()).finish_non_exhaustive()
    }
}

const SEALED_FORM: u8 = 1;
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
        let (state, mut secrets) = frozen.decode().map_err(|_| Error::FrozenForm)?;
        let (records_max, more) = (secrets.records_max(), secrets.sealed_records_max());
        let (write_key, sequence, sequence_end) = secrets.write_mut().ok_or(Error::FrozenForm)?;
        let write_key: Secret = Zeroizing::new(Box::from(write_key));
        let end = sequence.saturating_add(more).min(records_max);
        // The store may have this form or the one before: the session stays below what either would go on with.
        *sequence_end = (*sequence_end).min(end);
        if let Secrets::V13(epochs, _) = &mut secrets {
            epochs.sealed = true;
        }
        let renewed = state.freeze(&secrets).ok_or(Error::FrozenForm)?;

        let mut nonce = [0; 12];
        crypto::random(&mut nonce)?;
        let mut out = Vec::with_capacity(SEALED_HEADER_OCTETS + renewed.octets.len() + 16);
        out.push(SEALED_FORM);
        out.extend_from_slice(&self.start.to_be_bytes());
        out.extend_from_slice(&nonce);
        let header = out.clone();
        let mut data = Zeroizing::new(renewed.octets.to_vec());
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&header), &mut data)
            .map_err(|_| Error::Cryptography)?;
        out.extend_from_slice(&data);
        out.extend_from_slice(tag.as_ref());
        *frozen = renewed;
        Ok(Sealing { octets: out, write_key, end })
    }

    /// The session of a sealed form, with its counters advanced. Each form opens once; the session may then send
    /// [`SEALED_RECORDS_MAX`] records, and the form in the store stays good for the next start.
    ///
    /// # Errors
    /// [`Error::FrozenForm`] if it is not of this key or was changed; [`Error::SealedNow`] if it was sealed by this start
    /// of the server or a later one; [`Error::WriteKeyExhausted`] if no records are left, or if it was sealed more than
    /// [`SEALED_STARTS_MAX_DTLS13`] starts ago with DTLS 1.3; [`Error::OpenedBefore`];
    /// [`Error::OpenedTooMany`].
    pub fn open(&self, sealed: &[u8]) -> Result<Frozen, Error> {
        let (header, ciphertext) = sealed.split_first_chunk::<SEALED_HEADER_OCTETS>().ok_or(Error::FrozenForm)?;
        let (start, nonce) = sealed_header(header).map_err(|_| Error::FrozenForm)?;
        let mut data = Zeroizing::new(ciphertext.to_vec());
        let plain = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(header), &mut data)
            .map_err(|_| Error::FrozenForm)?;
        let (mut state, mut secrets) = State::decode(plain).map_err(|_| Error::FrozenForm)?;
        let starts = self.start.checked_sub(start).filter(|starts| *starts > 0).ok_or(Error::SealedNow)?;
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
        state.freeze(&secrets).ok_or(Error::FrozenForm)
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

fn sealed_header(header: &[u8]) -> Read<(u32, [u8; 12])> {
    let mut reader = Reader::new(header);
    if reader.u8()? != SEALED_FORM {
        return Err(Malformed);
    }
    Ok((u32::from_be_bytes(reader.array()?), reader.array()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;
    use crate::connection::{Closed, Disposition, Event};
    use crate::record::ContentType;

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
}
