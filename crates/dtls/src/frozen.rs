//! Idle sessions as small values, in memory and sealed for a restart.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
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
use crate::limits::{FROZEN_OCTETS_MAX, SEALED_RECORDS_MAX};
use crate::record::protection::{Direction, Keys};
use crate::suite::{CipherSuite, ProtocolVersion};

/// An idle session: keys, counters, replay window, Connection IDs, the peer's address; no more than
/// [`FROZEN_OCTETS_MAX`] octets. It is wiped when dropped and cannot be copied, so that no nonce repeats.
pub struct Frozen {
    octets: Zeroizing<Box<[u8]>>,
}

const FORM_DTLS12: u8 = 1;
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
        let restored = self.is_restored();
        let frozen = self.core.keys.as_ref().and_then(|keys| {
            let state = State {
                role: self.role(),
                restored,
                own_id: self.core.own_id,
                peer_id: self.core.peer_id,
                peer: self.core.peer,
                suite: keys.suite,
            };
            state.encode(keys)
        });
        frozen.ok_or_else(|| (Box::new(self), Error::NotIdle))
    }
}

impl Frozen {
    /// What the peer writes into its records: how the session is found again.
    pub fn connection_id(&self) -> ConnectionId {
        self.decode().map(|(state, _)| state.own_id).unwrap_or(ConnectionId::EMPTY)
    }

    /// The peer's address: how a session without Connection ID is found again.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.decode().map(|(state, _)| state.peer).ok()
    }

    /// Which version the session speaks.
    pub fn version(&self) -> ProtocolVersion {
        ProtocolVersion::Dtls12
    }

    /// Octets that it takes.
    pub fn len(&self) -> usize {
        self.octets.len()
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// The session of a server.
    ///
    /// # Errors
    /// [`Error::FrozenForm`] if it is a client's.
    pub fn thaw_server(self, config: Arc<ServerConfig>, now: Instant) -> Result<Connection, Error> {
        self.thaw(Config::Server(config), now)
    }

    /// The session of a client.
    ///
    /// # Errors
    /// [`Error::FrozenForm`] if it is a server's.
    pub fn thaw_client(self, config: Arc<ClientConfig>, now: Instant) -> Result<Connection, Error> {
        self.thaw(Config::Client(config), now)
    }

    fn thaw(self, config: Config, now: Instant) -> Result<Connection, Error> {
        let (state, keys) = self.decode().map_err(|_| Error::FrozenForm)?;
        if state.role != config.role() {
            return Err(Error::FrozenForm);
        }
        let mut core = Core::new(config, state.peer, now, 0, 0);
        core.handshake = None;
        core.established = true;
        core.own_id = state.own_id;
        core.peer_id = state.peer_id;
        core.keys = Some(Box::new(keys));
        Ok(Connection::established(core, state.restored))
    }

    fn decode(&self) -> Read<(State, Keys)> {
        State::decode(&self.octets)
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

impl State {
    fn encode(&self, keys: &Keys) -> Option<Frozen> {
        // As large as it can become, so that it never moves and leaves keys behind.
        let mut out = Zeroizing::new(Vec::with_capacity(FROZEN_OCTETS_MAX));
        out.push(FORM_DTLS12);
        out.push(match self.role {
            Role::Client => ROLE_CLIENT,
            Role::Server => ROLE_SERVER,
        });
        out.push(u8::from(self.restored));
        put_u16(&mut out, self.suite.code());
        put_vector8(&mut out, self.own_id.as_bytes());
        put_vector8(&mut out, self.peer_id.as_bytes());
        match self.peer.ip() {
            IpAddr::V4(address) => put_vector8(&mut out, &address.octets()),
            IpAddr::V6(address) => put_vector8(&mut out, &address.octets()),
        }
        put_u16(&mut out, self.peer.port());
        for direction in [&keys.write, &keys.read] {
            out.extend_from_slice(direction.key.get(..self.suite.aead().key_octets())?);
            out.extend_from_slice(direction.iv.get(..self.suite.aead().fixed_iv_octets())?);
        }
        put_u48(&mut out, keys.write_sequence);
        put_u48(&mut out, keys.write_sequence_end);
        out.extend_from_slice(&keys.window.next.to_be_bytes());
        out.extend_from_slice(&keys.window.taken.to_be_bytes());
        out.extend_from_slice(&keys.unauthentic.to_be_bytes());
        debug_assert!(out.len() <= FROZEN_OCTETS_MAX);
        Some(Frozen { octets: Zeroizing::new(Box::from(out.as_slice())) })
    }

    fn decode(octets: &[u8]) -> Read<(Self, Keys)> {
        let mut reader = Reader::new(octets);
        if reader.u8()? != FORM_DTLS12 {
            return Err(Malformed);
        }
        let role = match reader.u8()? {
            ROLE_CLIENT => Role::Client,
            ROLE_SERVER => Role::Server,
            _ => return Err(Malformed),
        };
        let restored = reader.u8()? != 0;
        let suite = CipherSuite::from_code(reader.u16()?).ok_or(Malformed)?;
        let own_id = ConnectionId::new(reader.vector8()?).map_err(|_| Malformed)?;
        let peer_id = ConnectionId::new(reader.vector8()?).map_err(|_| Malformed)?;
        let address = reader.vector8()?;
        let address = match (<[u8; 4]>::try_from(address), <[u8; 16]>::try_from(address)) {
            (Ok(four), _) => IpAddr::from(four),
            (_, Ok(six)) => IpAddr::from(six),
            _ => return Err(Malformed),
        };
        let peer = SocketAddr::new(address, reader.u16()?);
        let write = direction(&mut reader, suite)?;
        let read = direction(&mut reader, suite)?;
        let mut keys = Keys::new(suite, write, read);
        keys.write_sequence = reader.u48()?;
        keys.write_sequence_end = reader.u48()?;
        keys.window.next = u64::from_be_bytes(reader.array()?);
        keys.window.taken = u128::from_be_bytes(reader.array()?);
        keys.unauthentic = u64::from_be_bytes(reader.array()?);
        reader.end()?;
        Ok((Self { role, restored, own_id, peer_id, peer, suite }, keys))
    }
}

fn direction(reader: &mut Reader<'_>, suite: CipherSuite) -> Read<Direction> {
    let (mut key, mut iv) = (Zeroizing::new([0; _]), Zeroizing::new([0; _]));
    let aead = suite.aead();
    key.get_mut(..aead.key_octets()).ok_or(Malformed)?.copy_from_slice(reader.take(aead.key_octets())?);
    iv.get_mut(..aead.fixed_iv_octets()).ok_or(Malformed)?.copy_from_slice(reader.take(aead.fixed_iv_octets())?);
    Direction::new(aead, key, iv).ok_or(Malformed)
}

/// Seals frozen sessions for a restart of the server, and opens them after it.
///
/// A stored form is older than the session it was made of, so its counters must not be used as they stand. Each start of
/// the server has a number, larger than any before. A session that was sealed may send [`SEALED_RECORDS_MAX`] records
/// more; opened `n` starts later, its counter is advanced by `n` times as many. So no nonce repeats, however often the
/// server starts, as long as a store never gives back an older form than it was given last.
///
/// Records that came after a session was sealed can be replayed to the restored one, which says so by
/// [`Connection::is_restored`].
pub struct SealingKey {
    key: LessSafeKey,
    start: u32,
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
        Ok(Self { key: LessSafeKey::new(key), start })
    }

    /// The sealed form of a session, at most [`crate::limits::SEALED_OCTETS_MAX`] octets. From now on the session may
    /// send [`SEALED_RECORDS_MAX`] records until it is sealed anew; then it ends with [`Error::WriteKeyExhausted`].
    ///
    /// # Errors
    /// [`Error::Random`].
    pub fn seal(&self, frozen: &mut Frozen) -> Result<Vec<u8>, Error> {
        let (state, mut keys) = frozen.decode().map_err(|_| Error::FrozenForm)?;
        keys.write_sequence_end = sealed_end(&keys);
        let renewed = state.encode(&keys).ok_or(Error::FrozenForm)?;

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
        Ok(out)
    }

    /// The session of a sealed form, with its counters advanced.
    ///
    /// # Errors
    /// [`Error::FrozenForm`] if it is not of this key or was changed; [`Error::SealedNow`] if it was sealed by this start
    /// of the server or a later one; [`Error::WriteKeyExhausted`] if no records are left.
    pub fn open(&self, sealed: &[u8]) -> Result<Frozen, Error> {
        let (header, ciphertext) = sealed.split_first_chunk::<SEALED_HEADER_OCTETS>().ok_or(Error::FrozenForm)?;
        let (start, nonce) = sealed_header(header).map_err(|_| Error::FrozenForm)?;
        let mut data = Zeroizing::new(ciphertext.to_vec());
        let plain = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(header), &mut data)
            .map_err(|_| Error::FrozenForm)?;
        let (mut state, mut keys) = State::decode(plain).map_err(|_| Error::FrozenForm)?;
        let starts = self.start.checked_sub(start).filter(|starts| *starts > 0).ok_or(Error::SealedNow)?;
        keys.write_sequence = keys.write_sequence.saturating_add(u64::from(starts) * SEALED_RECORDS_MAX);
        if keys.write_sequence >= keys.suite.aead().records_max() {
            return Err(Error::WriteKeyExhausted);
        }
        keys.write_sequence_end = sealed_end(&keys);
        state.restored = true;
        state.encode(&keys).ok_or(Error::FrozenForm)
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealingKey").field("start", &self.start).finish_non_exhaustive()
    }
}

fn sealed_end(keys: &Keys) -> u64 {
    (keys.write_sequence + SEALED_RECORDS_MAX).min(keys.suite.aead().records_max())
}

fn sealed_header(header: &[u8]) -> Read<(u32, [u8; 12])> {
    let mut reader = Reader::new(header);
    if reader.u8()? != SEALED_FORM {
        return Err(Malformed);
    }
    Ok((u32::from_be_bytes(reader.array()?), reader.array()?))
}
