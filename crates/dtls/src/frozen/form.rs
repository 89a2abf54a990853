//! What a frozen session is made of, and how it is written.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use zeroize::Zeroizing;

use crate::codec::{Malformed, Read, Reader, put_u16, put_u48, put_vector8};
use crate::connection::Role;
use crate::connection_id::ConnectionId;
use crate::frozen::Frozen;
use crate::limits::{FROZEN_OCTETS_MAX, SEALED_RECORDS_MAX, SEALED_RECORDS_MAX_DTLS13};
use crate::record::epochs::{ClientFinished, Epochs, ReadEpoch, WriteEpoch};
use crate::record::protection::{Direction, Keys};
use crate::record::replay::ReplayWindow;
use crate::suite::{CipherSuite, ProtocolVersion};
use crate::v13::schedule::TrafficSecret;

const FORM_DTLS12: u8 = 1;
const FORM_DTLS13: u8 = 2;
const ROLE_CLIENT: u8 = 0;
const ROLE_SERVER: u8 = 1;

/// What is kept besides the keys.
pub(super) struct State {
    pub(super) role: Role,
    pub(super) restored: bool,
    pub(super) own_id: ConnectionId,
    pub(super) peer_id: ConnectionId,
    pub(super) peer: SocketAddr,
    pub(super) suite: CipherSuite,
}

/// The keys and counters, by version.
pub(super) enum Secrets {
    V12(Keys),
    V13(Epochs, (u16, u16)),
}

impl Secrets {
    /// The write key, which no other session has, the number of the next record, and the first that may not be written.
    pub(super) fn write_mut(&mut self) -> Option<(&[u8], &mut u64, &mut u64)> {
        match self {
            Self::V12(keys) => Some((&keys.write.key, &mut keys.write_sequence, &mut keys.write_sequence_end)),
            Self::V13(epochs, _) => {
                let write = epochs.write_mut()?;
                Some((write.secret.expose(), &mut write.sequence, &mut write.sequence_end))
            }
        }
    }

    /// Records after a session was sealed, for each start.
    pub(super) fn sealed_records_max(&self) -> u64 {
        match self {
            Self::V12(_) => SEALED_RECORDS_MAX,
            Self::V13(..) => SEALED_RECORDS_MAX_DTLS13,
        }
    }

    /// The most records that one key may write.
    pub(super) fn records_max(&self) -> u64 {
        match self {
            Self::V12(keys) => keys.suite.aead().records_max(),
            Self::V13(epochs, _) => epochs.sequence_end_of_key(),
        }
    }
}

impl State {
    pub(super) fn freeze(&self, secrets: &Secrets) -> Option<Frozen> {
        match secrets {
            Secrets::V12(keys) => self.encode(|out| put_keys(out, keys)),
            Secrets::V13(epochs, message_numbers) => self.encode(|out| put_epochs(out, epochs, *message_numbers)),
        }
    }

    pub(super) fn encode(&self, put_secrets: impl FnOnce(&mut Vec<u8>) -> Option<()>) -> Option<Frozen> {
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

    pub(super) fn read(reader: &mut Reader<'_>) -> Read<Self> {
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

    pub(super) fn decode(octets: &[u8]) -> Read<(Self, Secrets)> {
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

pub(super) fn put_keys(out: &mut Vec<u8>, keys: &Keys) -> Option<()> {
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

/// Flags of a session of DTLS 1.3.
const SEALED: u8 = 1;
const SEALED_FORM_STALE: u8 = 2;
const CLIENT_FINISHED: u8 = 4;

/// The epochs that are written and read with, of the latter also the one before, if it is still held.
pub(super) fn put_epochs(out: &mut Vec<u8>, epochs: &Epochs, (next_send, next_receive): (u16, u16)) -> Option<()> {
    put_u16(out, next_send);
    put_u16(out, next_receive);
    let flags = [
        (SEALED, epochs.sealed),
        (SEALED_FORM_STALE, epochs.sealed_form_stale),
        (CLIENT_FINISHED, epochs.client_finished.is_some()),
    ];
    out.push(flags.into_iter().filter(|(_, set)| *set).fold(0, |flags, (flag, _)| flags | flag));
    if let Some(ClientFinished { sequence, answers }) = epochs.client_finished {
        put_u16(out, sequence);
        out.push(answers);
    }
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
    let flags = reader.u8()?;
    let client_finished = match flags & CLIENT_FINISHED {
        0 => None,
        _ => Some(ClientFinished { sequence: reader.u16()?, answers: reader.u8()? }),
    };
    let sequence_first = reader.u48()?;
    let (epoch, secret) = (reader.u48()?, TrafficSecret::of_octets(&reader.array()?));
    let mut write = WriteEpoch::new(suite, epoch, secret).map_err(|_| Malformed)?;
    write.sequence = reader.u48()?;
    write.sequence_end = reader.u48()?;
    let mut epochs = Epochs::new(suite, write, read_epoch(reader, suite)?);
    while !reader.is_empty() {
        epochs.add_read(read_epoch(reader, suite)?);
    }
    (epochs.sealed, epochs.sealed_form_stale) = (flags & SEALED != 0, flags & SEALED_FORM_STALE != 0);
    epochs.sequence_first = sequence_first;
    epochs.client_finished = client_finished;
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
