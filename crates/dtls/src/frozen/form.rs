//! What a frozen session is made of, and how it is written: as short as can be, since a server has a million of them. Numbers
//! have as many octets as they need, and what is as it is in most sessions has none.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use zeroize::Zeroizing;

use crate::codec::{Malformed, Read, Reader, put_number, put_u16, put_vector8};
use crate::connection::Role;
use crate::connection_id::ConnectionId;
use crate::frozen::Frozen;
use crate::limits::{FROZEN_OCTETS_MAX, REPLAY_WINDOW_RECORDS, SEALED_RECORDS_MAX, SEALED_RECORDS_MAX_DTLS13};
use crate::record::epochs::{ClientFinished, Epochs, ReadEpoch, WriteEpoch};
use crate::record::protection::{Direction, Keys};
use crate::record::replay::ReplayWindow;
use crate::suite::{CipherSuite, ProtocolVersion};
use crate::v13::schedule::TrafficSecret;

/// The first octet: this form, and flags.
const FORM: u8 = 0b1010_0000;
const FORM_MASK: u8 = 0b1111_0000;
const SERVER: u8 = 1;
const RESTORED: u8 = 2;

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
        out.push(FORM | flags([(SERVER, self.role == Role::Server), (RESTORED, self.restored)]));
        put_u16(&mut out, self.suite.code());
        put_vector8(&mut out, self.own_id.as_bytes());
        put_vector8(&mut out, self.peer_id.as_bytes());
        put_address(&mut out, &self.peer);
        put_secrets(&mut out)?;
        debug_assert!(out.len() <= FROZEN_OCTETS_MAX);
        Some(Frozen { octets: Zeroizing::new(Box::from(out.as_slice())) })
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Read<Self> {
        let first = reader.u8()?;
        if first & FORM_MASK != FORM {
            return Err(Malformed);
        }
        let role = if first & SERVER != 0 { Role::Server } else { Role::Client };
        let restored = first & RESTORED != 0;
        let suite = CipherSuite::from_code(reader.u16()?).ok_or(Malformed)?;
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
    let limited = keys.write_sequence_end != keys.suite.aead().records_max();
    out.push(flags([(LIMITED, limited)]));
    put_write(out, keys.write_sequence, keys.write_sequence_end, limited);
    put_window(out, &keys.window, keys.unauthentic);
    Some(())
}

fn read_keys(reader: &mut Reader<'_>, suite: CipherSuite) -> Read<Keys> {
    let write = direction(reader, suite)?;
    let read = direction(reader, suite)?;
    let mut keys = Keys::new(suite, write, read);
    let limited = reader.u8()? & LIMITED != 0;
    read_write(reader, &mut keys.write_sequence, &mut keys.write_sequence_end, limited)?;
    (keys.window, keys.unauthentic) = read_window(reader)?;
    Ok(keys)
}

/// Flags of the secrets. The key writes less than its AEAD allows.
const LIMITED: u8 = 1;
/// With DTLS 1.3.
const SEALED: u8 = 2;
const SEALED_FORM_STALE: u8 = 4;
const CLIENT_FINISHED: u8 = 8;
const SEQUENCE_FIRST: u8 = 16;

fn flags<const N: usize>(flags: [(u8, bool); N]) -> u8 {
    flags.into_iter().filter(|(_, set)| *set).fold(0, |all, (flag, _)| all | flag)
}

/// The epochs that are written and read with, of the latter also the one before, if it is still held. None of the
/// handshake.
pub(super) fn put_epochs(out: &mut Vec<u8>, epochs: &Epochs, (next_send, next_receive): (u16, u16)) -> Option<()> {
    let write = epochs.write()?;
    let limited = write.sequence_end != epochs.sequence_end_of_key();
    out.push(flags([
        (LIMITED, limited),
        (SEALED, epochs.sealed),
        (SEALED_FORM_STALE, epochs.sealed_form_stale),
        (CLIENT_FINISHED, epochs.client_finished.is_some()),
        (SEQUENCE_FIRST, epochs.sequence_first > 0),
    ]));
    put_number(out, next_send.into());
    put_number(out, next_receive.into());
    if let Some(ClientFinished { sequence, answers }) = epochs.client_finished {
        put_number(out, sequence.into());
        out.push(answers);
    }
    if epochs.sequence_first > 0 {
        put_number(out, epochs.sequence_first);
    }
    put_number(out, write.epoch);
    out.extend_from_slice(write.secret.expose());
    put_write(out, write.sequence, write.sequence_end, limited);
    let (present, before) = epochs.reads_held().split_last()?;
    put_number(out, present.epoch);
    for (read, behind) in std::iter::once(present).chain(before.iter().rev()).zip(0..) {
        if read.epoch.checked_add(behind)? != present.epoch {
            return None;
        }
        out.extend_from_slice(read.secret.expose());
        put_window(out, &read.window, read.unauthentic);
    }
    Some(())
}

fn read_epochs(reader: &mut Reader<'_>, suite: CipherSuite) -> Read<(Epochs, (u16, u16))> {
    let flags = reader.u8()?;
    let message_numbers = (small(reader)?, small(reader)?);
    let client_finished = match flags & CLIENT_FINISHED {
        0 => None,
        _ => Some(ClientFinished { sequence: small(reader)?, answers: reader.u8()? }),
    };
    let sequence_first = if flags & SEQUENCE_FIRST != 0 { reader.number()? } else { 0 };
    let (epoch, secret) = (reader.number()?, TrafficSecret::of_octets(&reader.array()?));
    let mut write = WriteEpoch::new(suite, epoch, secret).map_err(|_| Malformed)?;
    read_write(reader, &mut write.sequence, &mut write.sequence_end, flags & LIMITED != 0)?;
    let present = reader.number()?;
    let read = read_epoch(reader, suite, present)?;
    let before = match reader.is_empty() {
        true => None,
        false => Some(read_epoch(reader, suite, present.checked_sub(1).ok_or(Malformed)?)?),
    };
    let mut epochs = match before {
        None => Epochs::new(suite, write, read),
        Some(before) => {
            let mut epochs = Epochs::new(suite, write, before);
            epochs.add_read(read);
            epochs
        }
    };
    (epochs.sealed, epochs.sealed_form_stale) = (flags & SEALED != 0, flags & SEALED_FORM_STALE != 0);
    epochs.sequence_first = sequence_first;
    epochs.client_finished = client_finished;
    Ok((epochs, message_numbers))
}

fn small(reader: &mut Reader<'_>) -> Read<u16> {
    u16::try_from(reader.number()?).map_err(|_| Malformed)
}

fn read_epoch(reader: &mut Reader<'_>, suite: CipherSuite, epoch: u64) -> Read<ReadEpoch> {
    let secret = TrafficSecret::of_octets(&reader.array()?);
    let mut read = ReadEpoch::new(suite, epoch, secret).map_err(|_| Malformed)?;
    (read.window, read.unauthentic) = read_window(reader)?;
    Ok(read)
}

/// The next number, and the end where it is another than that of the key.
fn put_write(out: &mut Vec<u8>, sequence: u64, sequence_end: u64, limited: bool) {
    put_number(out, sequence);
    if limited {
        put_number(out, sequence_end);
    }
}

fn read_write(reader: &mut Reader<'_>, sequence: &mut u64, sequence_end: &mut u64, limited: bool) -> Read<()> {
    *sequence = reader.number()?;
    if limited {
        *sequence_end = reader.number()?;
    }
    Ok(())
}

/// Of the window what was not taken, which is nothing most often.
fn put_window(out: &mut Vec<u8>, window: &ReplayWindow, unauthentic: u64) {
    put_number(out, window.next);
    let missing = !window.taken & window_mask(window.next);
    let octets = missing.to_be_bytes();
    let first = octets.iter().position(|octet| *octet != 0).unwrap_or(octets.len());
    put_vector8(out, octets.get(first..).unwrap_or_default());
    put_number(out, unauthentic);
}

fn read_window(reader: &mut Reader<'_>) -> Read<(ReplayWindow, u64)> {
    let next = reader.number()?;
    let missing = reader.vector8()?;
    if missing.len() > size_of::<u128>() {
        return Err(Malformed);
    }
    let missing = missing.iter().fold(0, |missing, octet| missing << 8 | u128::from(*octet));
    let window = ReplayWindow { next, taken: !missing & window_mask(next) };
    Ok((window, reader.number()?))
}

/// The bits of records that there can have been.
fn window_mask(next: u64) -> u128 {
    if next < REPLAY_WINDOW_RECORDS { (1 << next) - 1 } else { u128::MAX }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever has come in whatever order.
        #[test]
        fn a_window_is_read_as_it_was_written(numbers in prop::collection::vec((0_u64..300, any::<bool>()), 0..200), unauthentic in 0_u64..1 << 36) {
            let (mut window, mut base) = (ReplayWindow::default(), 0);
            for (offset, jump) in numbers {
                base += if jump { offset } else { 0 };
                let sequence = base.saturating_sub(offset);
                if window.is_fresh(sequence) {
                    window.take(sequence);
                }
            }
            let mut out = Vec::new();
            put_window(&mut out, &window, unauthentic);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(read_window(&mut reader), Ok((window, unauthentic)));
            prop_assert!(reader.is_empty());
        }
    }

    #[test]
    fn a_window_without_holes_takes_no_room() {
        let mut window = ReplayWindow::default();
        for sequence in 0..1_000 {
            window.take(sequence);
            let mut out = Vec::new();
            put_window(&mut out, &window, 0);
            assert!(out.len() <= 4, "{}", out.len());
        }
    }
}
