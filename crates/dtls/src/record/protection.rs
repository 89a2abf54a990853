//! Record protection of DTLS 1.2 with AEAD suites (RFC 6347 4.1.2, RFC 5288, RFC 6655, RFC 7905), and with Connection ID
//! (RFC 9146 5.3).

use zeroize::Zeroizing;

use crate::codec::{put_u16, put_u48};
use crate::connection_id::ConnectionId;
use crate::crypto::aead::{Aead, AeadKey, NONCE_OCTETS};
use crate::error::Error;
use crate::limits::RECORD_CONTENT_OCTETS_MAX;
use crate::record::replay::ReplayWindow;
use crate::record::{ContentType, HEADER_OCTETS, Record, put_header};
use crate::suite::{CipherSuite, ProtocolVersion};

/// The one protected epoch of DTLS 1.2 without renegotiation.
pub(crate) const EPOCH: u16 = 1;

/// Secret octets that stay in one place when what holds them is moved, and are wiped there.
pub(crate) type Secret = Zeroizing<Box<[u8]>>;

/// One direction's key and the fixed part of its nonces, kept as octets to be frozen.
pub(crate) struct Direction {
    pub(crate) key: Secret,
    pub(crate) iv: Secret,
    ready: AeadKey,
}

impl Direction {
    /// `None` if `key` or `iv` has another length than the AEAD's.
    pub(crate) fn new(aead: Aead, key: &[u8], iv: &[u8]) -> Option<Self> {
        if iv.len() != aead.fixed_iv_octets() {
            return None;
        }
        let ready = AeadKey::new(aead, key)?;
        Some(Self { key: Zeroizing::new(Box::from(key)), iv: Zeroizing::new(Box::from(iv)), ready })
    }

    /// Fixed part and explicit part; or, of ChaCha20-Poly1305, their exclusive or (RFC 7905 2).
    fn nonce(&self, aead: Aead, explicit: [u8; 8]) -> [u8; NONCE_OCTETS] {
        let mut nonce = [0; NONCE_OCTETS];
        for (to, from) in nonce.iter_mut().zip(self.iv.iter()) {
            *to = *from;
        }
        let chained = aead.explicit_nonce_octets() == 0;
        for (to, from) in nonce.iter_mut().skip(4).zip(explicit) {
            *to = if chained { *to ^ from } else { from };
        }
        nonce
    }
}

/// Everything that protects an established session.
pub(crate) struct Keys {
    pub(crate) suite: CipherSuite,
    pub(crate) write: Direction,
    pub(crate) read: Direction,
    /// Of the next record.
    pub(crate) write_sequence: u64,
    /// The first one that may not be written: the AEAD's limit, or where a sealed copy would go on.
    pub(crate) write_sequence_end: u64,
    pub(crate) window: ReplayWindow,
    /// Records that did not authenticate.
    pub(crate) unauthentic: u64,
}

/// A record that came and is authentic.
pub(crate) struct Opened {
    pub(crate) content_type: ContentType,
    pub(crate) content: Vec<u8>,
    /// Newer than any before.
    pub(crate) newest: bool,
}

/// Why a record was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    Replayed,
    Unauthentic,
    /// The key has seen too many that were not authentic.
    KeyExhausted,
}

impl Keys {
    pub(crate) fn new(suite: CipherSuite, write: Direction, read: Direction) -> Self {
        Self {
            suite,
            write,
            read,
            write_sequence: 0,
            write_sequence_end: suite.aead().records_max(),
            window: ReplayWindow::default(),
            unauthentic: 0,
        }
    }

    /// Octets of a record beyond its content.
    pub(crate) fn overhead(suite: CipherSuite, peer_id: &ConnectionId) -> usize {
        let aead = suite.aead();
        let inner_type = usize::from(!peer_id.is_empty());
        HEADER_OCTETS + peer_id.len() + aead.explicit_nonce_octets() + inner_type + aead.tag_octets()
    }

    /// Appends a protected record. With a Connection ID of the peer the type goes inside (RFC 9146 4).
    pub(crate) fn seal(
        &mut self,
        peer_id: &ConnectionId,
        content_type: ContentType,
        content: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        if self.write_sequence >= self.write_sequence_end {
            return Err(Error::WriteKeyExhausted);
        }
        let sequence = self.write_sequence;
        self.write_sequence += 1;
        #[cfg(test)]
        crate::record::written::note(&self.write.key, sequence..self.write_sequence);
        let aead = self.suite.aead();
        let with_id = !peer_id.is_empty();
        let inner_octets = content.len() + usize::from(with_id);
        let octets = aead.explicit_nonce_octets() + inner_octets + aead.tag_octets();
        let outer_type = if with_id { ContentType::TLS12_CID } else { content_type };
        let version = ProtocolVersion::DTLS_1_2_CODE;
        put_header(out, outer_type, version, EPOCH, sequence, peer_id.as_bytes(), octets);
        let explicit = explicit_nonce(sequence);
        if aead.explicit_nonce_octets() > 0 {
            out.extend_from_slice(&explicit);
        }
        let from = out.len();
        out.extend_from_slice(content);
        if with_id {
            out.push(content_type.0);
        }
        let aad = additional_data(outer_type, version, EPOCH, sequence, peer_id.as_bytes(), inner_octets);
        // Refused for lengths only that no record has.
        self.write.ready.seal(self.write.nonce(aead, explicit), &aad, out, from).ok_or(Error::WriteKeyExhausted)
    }

    /// Opens a record whose Connection ID was found to be ours.
    pub(crate) fn open(&mut self, record: &Record<'_>) -> Result<Opened, Dropped> {
        if !self.window.is_fresh(record.sequence) {
            return Err(Dropped::Replayed);
        }
        if self.unauthentic >= self.suite.aead().unauthentic_max() {
            return Err(Dropped::KeyExhausted);
        }
        let Some((content_type, content)) = self.decrypt(record) else {
            self.unauthentic += 1;
            return Err(Dropped::Unauthentic);
        };
        Ok(Opened { content_type, content, newest: self.window.take(record.sequence) })
    }

    /// Whether half of the records have failed to authenticate that may.
    pub(crate) fn is_half_exhausted(&self) -> bool {
        self.unauthentic >= self.suite.aead().unauthentic_max() / 2
    }

    fn decrypt(&self, record: &Record<'_>) -> Option<(ContentType, Vec<u8>)> {
        let aead = self.suite.aead();
        let (explicit, ciphertext) = match aead.explicit_nonce_octets() {
            0 => (explicit_nonce(record.sequence), record.fragment),
            _ => {
                let (explicit, ciphertext) = record.fragment.split_first_chunk::<8>()?;
                (*explicit, ciphertext)
            }
        };
        let inner_octets = ciphertext.len().checked_sub(aead.tag_octets())?;
        let aad = additional_data(
            record.content_type,
            record.version,
            record.epoch,
            record.sequence,
            record.connection_id,
            inner_octets,
        );
        let mut content = ciphertext.to_vec();
        self.read.ready.open(self.read.nonce(aead, explicit), &aad, &mut content)?;
        let content_type = if record.content_type == ContentType::TLS12_CID {
            // The padding's zeros follow the type.
            let last = content.iter().rposition(|octet| *octet != 0)?;
            let inner = ContentType(*content.get(last)?);
            content.truncate(last);
            inner
        } else {
            record.content_type
        };
        (content.len() <= RECORD_CONTENT_OCTETS_MAX).then_some((content_type, content))
    }
}

/// Epoch and sequence number, which never repeat under one key.
fn explicit_nonce(sequence: u64) -> [u8; 8] {
    ((u64::from(EPOCH) << 48) | sequence).to_be_bytes()
}

fn additional_data(
    content_type: ContentType,
    version: u16,
    epoch: u16,
    sequence: u64,
    connection_id: &[u8],
    inner_octets: usize,
) -> Vec<u8> {
    let mut aad = Vec::with_capacity(HEADER_OCTETS + 10 + connection_id.len());
    if content_type == ContentType::TLS12_CID {
        // RFC 9146 5.3: what was the sequence number is all ones, so that no record without ID has the same data.
        aad.extend_from_slice(&[0xff; 8]);
        aad.push(ContentType::TLS12_CID.0);
        aad.push(u8::try_from(connection_id.len()).unwrap_or(u8::MAX));
        aad.push(ContentType::TLS12_CID.0);
        put_u16(&mut aad, version);
        put_u16(&mut aad, epoch);
        put_u48(&mut aad, sequence);
        aad.extend_from_slice(connection_id);
    } else {
        put_u16(&mut aad, epoch);
        put_u48(&mut aad, sequence);
        aad.push(content_type.0);
        put_u16(&mut aad, version);
    }
    put_u16(&mut aad, u16::try_from(inner_octets).unwrap_or(u16::MAX));
    aad
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;
    use crate::record::split;

    fn keys(suite: CipherSuite) -> Keys {
        let aead = suite.aead();
        let direction = || Direction::new(aead, &[1; 32][..aead.key_octets()], &[2; 12][..aead.fixed_iv_octets()]);
        Keys::new(suite, direction().unwrap(), direction().unwrap())
    }

    fn sealed(keys: &mut Keys, id: &ConnectionId, content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        keys.seal(id, ContentType::APPLICATION_DATA, content, &mut out).unwrap();
        assert_eq!(out.len(), Keys::overhead(keys.suite, id) + content.len());
        out
    }

    #[test]
    fn the_additional_data_of_a_record_with_connection_id_are_those_of_rfc_9146() {
        let aad = additional_data(ContentType::TLS12_CID, 0xfefd, 1, 5, &[0xaa, 0xbb], 7);
        assert_eq!(hex::encode(aad), "ffffffffffffffff190219fefd0001000000000005aabb0007");
        let aad = additional_data(ContentType::APPLICATION_DATA, 0xfefd, 1, 5, &[], 7);
        assert_eq!(hex::encode(aad), "000100000000000517fefd0007");
    }

    #[test]
    fn a_read_key_ends_after_as_many_forgeries_as_its_aead_allows() {
        for suite in CipherSuite::DTLS12 {
            let mut keys = keys(suite);
            let mut datagram = sealed(&mut keys, &ConnectionId::EMPTY, b"x");
            *datagram.last_mut().unwrap() ^= 1;
            let (record, _) = split(&datagram, 0).unwrap();
            keys.unauthentic = suite.aead().unauthentic_max() - 1;
            assert!(matches!(keys.open(&record), Err(Dropped::Unauthentic)));
            assert!(matches!(keys.open(&record), Err(Dropped::KeyExhausted)));
        }
    }

    #[test]
    fn a_write_key_ends_after_as_many_records_as_its_aead_allows() {
        for suite in CipherSuite::DTLS12 {
            let mut keys = keys(suite);
            keys.write_sequence = suite.aead().records_max() - 1;
            sealed(&mut keys, &ConnectionId::EMPTY, b"x");
            let error = keys.seal(&ConnectionId::EMPTY, ContentType::ALERT, b"xx", &mut Vec::new());
            assert_eq!(error, Err(Error::WriteKeyExhausted));
        }
    }

    #[test]
    fn padding_is_taken_off_and_padding_alone_is_dropped() {
        let id = ConnectionId::new(b"id").unwrap();
        for (inner, content) in
            [(&b"data\x17\0\0\0"[..], Some(&b"data"[..])), (&b"\x17"[..], Some(&b""[..])), (&b"\0\0"[..], None)]
        {
            let mut keys = keys(CipherSuite::PskAes128Ccm8);
            // The last octet takes the place of the type that `seal` writes.
            let (last, before) = inner.split_last().unwrap();
            let mut datagram = Vec::new();
            keys.seal(&id, ContentType(*last), before, &mut datagram).unwrap();
            let (record, _) = split(&datagram, 2).unwrap();
            let opened = keys.open(&record).ok();
            assert_eq!(opened.as_ref().map(|opened| opened.content.as_slice()), content);
            assert!(opened.is_none_or(|opened| opened.content_type == ContentType::APPLICATION_DATA));
        }
    }
}
