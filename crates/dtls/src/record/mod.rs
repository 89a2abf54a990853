//! Records (RFC 6347 4.1, RFC 9146 4): taking a datagram apart. What protects them is in [`protection`]. The
//! protected records of DTLS 1.3 are in [`unified`] and [`epochs`].

pub(crate) mod epochs;
pub(crate) mod protection;
pub(crate) mod replay;
pub(crate) mod unified;
#[cfg(test)]
pub(crate) mod written;

use crate::codec::{Reader, put_u16, put_u48};
use crate::limits::RECORD_CONTENT_OCTETS_MAX;

/// What a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContentType(pub(crate) u8);

impl ContentType {
    pub(crate) const CHANGE_CIPHER_SPEC: Self = Self(20);
    pub(crate) const ALERT: Self = Self(21);
    pub(crate) const HANDSHAKE: Self = Self(22);
    pub(crate) const APPLICATION_DATA: Self = Self(23);
    pub(crate) const TLS12_CID: Self = Self(25);
    pub(crate) const ACK: Self = Self(26);
}

/// Octets of a record's header without Connection ID.
pub(crate) const HEADER_OCTETS: usize = 13;
/// What a protected record may be longer than its content (RFC 5246 6.2.3).
pub(crate) const EXPANSION_OCTETS_MAX: usize = 2048;

/// One record as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) content_type: ContentType,
    pub(crate) version: u16,
    pub(crate) epoch: u16,
    pub(crate) sequence: u64,
    pub(crate) connection_id: &'a [u8],
    pub(crate) fragment: &'a [u8],
}

/// The first record of `datagram` and what follows it. `None` if there is none: the rest of a datagram that is out of
/// step is dropped. Records of type tls12_cid have a Connection ID of `connection_id_octets` octets.
pub(crate) fn split(datagram: &[u8], connection_id_octets: usize) -> Option<(Record<'_>, &[u8])> {
    let mut reader = Reader::new(datagram);
    let content_type = ContentType(reader.u8().ok()?);
    let version = reader.u16().ok()?;
    let epoch = reader.u16().ok()?;
    let sequence = reader.u48().ok()?;
    let connection_id = match content_type {
        ContentType::TLS12_CID if connection_id_octets > 0 => reader.take(connection_id_octets).ok()?,
        ContentType::CHANGE_CIPHER_SPEC
        | ContentType::ALERT
        | ContentType::HANDSHAKE
        | ContentType::APPLICATION_DATA
        | ContentType::ACK => &[],
        _ => return None,
    };
    // Both versions of DTLS of this generation: a first ClientHello may say 1.0.
    if version >> 8 != 0xfe {
        return None;
    }
    let fragment = reader.vector16().ok()?;
    if fragment.len() > RECORD_CONTENT_OCTETS_MAX + EXPANSION_OCTETS_MAX {
        return None;
    }
    Some((Record { content_type, version, epoch, sequence, connection_id, fragment }, reader.rest()))
}

/// Writes the header of a record with `octets` octets after it.
pub(crate) fn put_header(
    out: &mut Vec<u8>,
    content_type: ContentType,
    version: u16,
    epoch: u16,
    sequence: u64,
    connection_id: &[u8],
    octets: usize,
) {
    out.push(content_type.0);
    put_u16(out, version);
    put_u16(out, epoch);
    put_u48(out, sequence);
    out.extend_from_slice(connection_id);
    debug_assert!(octets <= usize::from(u16::MAX));
    put_u16(out, u16::try_from(octets).unwrap_or(u16::MAX));
}
