//! Record protection of DTLS 1.3 (RFC 9147 4): keys by epoch, record numbers hidden and found again.

use zeroize::Zeroizing;

use crate::connection_id::ConnectionId;
use crate::crypto::aead::{Aead, AeadKey, NONCE_OCTETS};
use crate::crypto::mask::{MaskKey, SAMPLE_OCTETS};
use crate::error::Error;
use crate::limits::{
    FINISHED_ANSWERS_MAX, RECORD_CONTENT_OCTETS_MAX, SEALED_RECORDS_MAX_DTLS13, SEALED_STARTS_MAX_DTLS13,
};
use crate::record::ContentType;
use crate::record::protection::{Dropped, Opened};
use crate::record::replay::ReplayWindow;
use crate::record::unified::{self, Form, SEQUENCE_END, Unified};
use crate::suite::CipherSuite;
use crate::v13::schedule::TrafficSecret;

/// The epoch of the handshake's protected part.
pub(crate) const HANDSHAKE: u64 = 2;
/// The first epoch of application data.
pub(crate) const APPLICATION: u64 = 3;
/// The last epoch (RFC 9147 4.2.1, so that nothing that counts them runs over).
const EPOCH_MAX: u64 = (1 << 48) - 1;

/// What names a record (RFC 9147 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RecordNumber {
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
}

/// One direction's keys of one epoch. They stay in one place, so that nothing of them is left where epochs are moved.
struct EpochKeys {
    key: AeadKey,
    iv: Zeroizing<[u8; NONCE_OCTETS]>,
    mask: MaskKey,
}

impl EpochKeys {
    fn new(aead: Aead, secret: &TrafficSecret) -> Result<Box<Self>, Error> {
        let octets = secret.keys(aead)?;
        Ok(Box::new(Self {
            key: AeadKey::new(aead, &octets.key).ok_or(Error::Cryptography)?,
            iv: octets.iv,
            mask: MaskKey::new(aead, &octets.mask).ok_or(Error::Cryptography)?,
        }))
    }

    /// RFC 8446 5.3: the sequence number over the end of the fixed part.
    fn nonce(&self, sequence: u64) -> [u8; NONCE_OCTETS] {
        let mut nonce = *self.iv;
        for (to, from) in nonce.iter_mut().skip(4).zip(sequence.to_be_bytes()) {
            *to ^= from;
        }
        nonce
    }
}

/// What records are written with.
pub(crate) struct WriteEpoch {
    pub(crate) epoch: u64,
    pub(crate) secret: TrafficSecret,
    keys: Box<EpochKeys>,
    /// Of the next record.
    pub(crate) sequence: u64,
    /// The first one that may not be written: the AEAD's limit, or where a sealed copy would go on.
    pub(crate) sequence_end: u64,
}

/// What records are read with.
pub(crate) struct ReadEpoch {
    pub(crate) epoch: u64,
    pub(crate) secret: TrafficSecret,
    keys: Box<EpochKeys>,
    pub(crate) window: ReplayWindow,
    /// Records that did not authenticate.
    pub(crate) unauthentic: u64,
}

/// Everything that protects a session of DTLS 1.3.
pub(crate) struct Epochs {
    pub(crate) suite: CipherSuite,
    /// Ascending; the last is what is written with.
    writes: Vec<WriteEpoch>,
    /// Ascending, at most [`READ_EPOCHS_MAX`].
    reads: Vec<ReadEpoch>,
    /// Where each further epoch's numbers begin: further on in a session that comes from a sealed form, since the one that
    /// was sealed may have had that epoch too.
    pub(crate) sequence_first: u64,
    /// Whether there is a sealed form, so that no epoch has more than [`SEALED_RECORDS_MAX_DTLS13`] records.
    pub(crate) sealed: bool,
    /// Whether either direction has gone on to another epoch since, so that the sealed form is of no use.
    pub(crate) sealed_form_stale: bool,
    /// On a server: what it still acknowledges of the handshake when that epoch is not read any more.
    pub(crate) client_finished: Option<ClientFinished>,
}

/// The client's Finished, which was taken. If no ACK of it arrives, the client sends it again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientFinished {
    /// Of the newest record of [`HANDSHAKE`] in which it came whole.
    pub(crate) sequence: u16,
    /// ACKs that may still answer what cannot be opened, at least one.
    pub(crate) answers: u8,
}

impl ClientFinished {
    /// None for a number that no honest client comes to.
    pub(crate) fn of(sequence: u64) -> Option<Self> {
        Some(Self { sequence: u16::try_from(sequence).ok()?, answers: FINISHED_ANSWERS_MAX })
    }
}

/// The handshake's, the present and the one before: no two have the same low bits.
const READ_EPOCHS_MAX: usize = 3;

impl WriteEpoch {
    pub(crate) fn new(suite: CipherSuite, epoch: u64, secret: TrafficSecret) -> Result<Self, Error> {
        let keys = EpochKeys::new(suite.aead(), &secret)?;
        Ok(Self { epoch, secret, keys, sequence: 0, sequence_end: sequence_end(suite) })
    }
}

impl ReadEpoch {
    pub(crate) fn new(suite: CipherSuite, epoch: u64, secret: TrafficSecret) -> Result<Self, Error> {
        let keys = EpochKeys::new(suite.aead(), &secret)?;
        Ok(Self { epoch, secret, keys, window: ReplayWindow::default(), unauthentic: 0 })
    }

    fn is_half_exhausted(&self, aead: Aead) -> bool {
        self.unauthentic >= aead.unauthentic_max() / 2
    }
}

fn sequence_end(suite: CipherSuite) -> u64 {
    suite.aead().records_max().min(SEQUENCE_END)
}

impl Epochs {
    pub(crate) fn new(suite: CipherSuite, write: WriteEpoch, read: ReadEpoch) -> Self {
        Self {
            suite,
            writes: vec![write],
            reads: vec![read],
            sequence_first: 0,
            sealed: false,
            sealed_form_stale: false,
            client_finished: None,
        }
    }

    /// What is written with.
    pub(crate) fn write(&self) -> Option<&WriteEpoch> {
        self.writes.last()
    }

    pub(crate) fn write_mut(&mut self) -> Option<&mut WriteEpoch> {
        self.writes.last_mut()
    }

    /// The newest of what is read with.
    pub(crate) fn read(&self) -> Option<&ReadEpoch> {
        self.reads.last()
    }

    /// All that is read with, from the oldest on.
    pub(crate) fn reads_held(&self) -> &[ReadEpoch] {
        &self.reads
    }

    pub(crate) fn add_write(&mut self, write: WriteEpoch) {
        self.writes.push(write);
    }

    pub(crate) fn add_read(&mut self, read: ReadEpoch) {
        if self.reads.len() >= READ_EPOCHS_MAX {
            self.reads.remove(0);
        }
        self.reads.push(read);
    }

    /// Whether the keys of the handshake are still there.
    pub(crate) fn holds_handshake(&self) -> bool {
        self.reads.first().is_some_and(|read| read.epoch == HANDSHAKE)
    }

    pub(crate) fn drop_handshake(&mut self) {
        self.writes.retain(|write| write.epoch != HANDSHAKE);
        self.reads.retain(|read| read.epoch != HANDSHAKE);
    }

    /// Whether the peer's epoch before the present one is still read.
    pub(crate) fn holds_previous(&self) -> bool {
        self.reads.len() > 1
    }

    pub(crate) fn drop_previous(&mut self) {
        let before = self.reads.len().saturating_sub(1);
        self.reads.drain(..before);
    }

    /// The peer says that it goes on to its next epoch.
    pub(crate) fn advance_read(&mut self) -> Result<(), Error> {
        let Some(read) = self.reads.last().filter(|read| read.epoch < EPOCH_MAX) else {
            return Err(Error::ReadKeyExhausted);
        };
        let next = ReadEpoch::new(self.suite, read.epoch + 1, read.secret.next()?)?;
        // Of those before, only one: a KeyUpdate comes once the one before was used.
        self.drop_previous();
        self.add_read(next);
        self.sealed_form_stale |= self.sealed;
        Ok(())
    }

    /// Whether the peer would find the numbers of a further epoch.
    pub(crate) fn may_advance_write(&self) -> bool {
        self.sequence_first <= SEALED_RECORDS_MAX_DTLS13 * SEALED_STARTS_MAX_DTLS13
    }

    /// The peer has acknowledged that we go on to our next epoch.
    pub(crate) fn advance_write(&mut self) -> Result<(), Error> {
        let Some(write) = self.writes.last().filter(|write| write.epoch < EPOCH_MAX) else {
            return Err(Error::WriteKeyExhausted);
        };
        if !self.may_advance_write() {
            return Err(Error::WriteKeyExhausted);
        }
        let mut next = WriteEpoch::new(self.suite, write.epoch + 1, write.secret.next()?)?;
        next.sequence = self.sequence_first;
        if self.sealed {
            let end = self.sequence_first.saturating_add(SEALED_RECORDS_MAX_DTLS13);
            next.sequence_end = next.sequence_end.min(end);
        }
        self.writes = vec![next];
        self.sealed_form_stale |= self.sealed;
        Ok(())
    }

    /// Whether half of the records are written that one key may write.
    pub(crate) fn write_is_half_exhausted(&self) -> bool {
        self.write().is_some_and(|write| write.sequence >= sequence_end(self.suite) / 2)
    }

    /// Whether half of the records have failed to authenticate that may.
    pub(crate) fn read_is_half_exhausted(&self) -> bool {
        self.read().is_some_and(|read| read.is_half_exhausted(self.suite.aead()))
    }

    /// Whether any record failed to authenticate.
    pub(crate) fn has_unauthentic(&self) -> bool {
        self.reads.iter().any(|read| read.unauthentic > 0)
    }

    /// The most that one key may write.
    pub(crate) fn sequence_end_of_key(&self) -> u64 {
        sequence_end(self.suite)
    }

    /// Octets of a record beyond its content.
    pub(crate) fn overhead(suite: CipherSuite, peer_id: &ConnectionId, form: Form) -> usize {
        form.octets(peer_id.len()) + 1 + suite.aead().tag_octets()
    }

    /// Octets up to which a content is padded.
    pub(crate) fn content_octets_min(suite: CipherSuite) -> usize {
        SAMPLE_OCTETS.saturating_sub(suite.aead().tag_octets() + 1)
    }

    /// Appends a protected record of `epoch`, or else of the newest.
    pub(crate) fn seal(
        &mut self,
        epoch: Option<u64>,
        peer_id: &ConnectionId,
        form: Form,
        content_type: ContentType,
        content: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<RecordNumber, Error> {
        let aead = self.suite.aead();
        let write = match epoch {
            Some(epoch) => self.writes.iter_mut().find(|write| write.epoch == epoch),
            None => self.writes.last_mut(),
        };
        let write = write.ok_or(Error::WriteKeyExhausted)?;
        if write.sequence >= write.sequence_end {
            return Err(Error::WriteKeyExhausted);
        }
        let number = RecordNumber { epoch: write.epoch, sequence: write.sequence };
        write.sequence += 1;
        #[cfg(test)]
        crate::record::written::note(write.secret.expose(), number.sequence..write.sequence);
        // A sample must be there to make the mask of (RFC 9147 4.2.3).
        let inner_octets = content.len().max(Self::content_octets_min(self.suite)) + 1;
        let start = out.len();
        let octets = inner_octets + aead.tag_octets();
        let place = unified::put_header(out, form, peer_id.as_bytes(), number.epoch, number.sequence, octets);
        let aad = out.get(start..).unwrap_or_default().to_vec();
        let from = out.len();
        out.extend_from_slice(content);
        out.push(content_type.0);
        out.resize(from + inner_octets, 0);
        // Refused for lengths only that no record has.
        write.keys.key.seal(write.keys.nonce(number.sequence), &aad, out, from).ok_or(Error::WriteKeyExhausted)?;
        let mask = write.keys.mask.mask(out.get(from..).unwrap_or_default()).ok_or(Error::WriteKeyExhausted)?;
        for (octet, mask) in out.iter_mut().skip(place.start).take(place.len()).zip(mask) {
            *octet ^= mask;
        }
        Ok(number)
    }

    /// The number of the client's Finished, if a record with these bits, for which there is no key, may be it once more; one
    /// answer less is left then. From [`HANDSHAKE`] + 4 on the bits are another epoch's.
    pub(crate) fn answer_finished(&mut self, epoch_bits: u8) -> Option<RecordNumber> {
        let recent = self.read().is_some_and(|read| read.epoch < HANDSHAKE + 4);
        if u64::from(epoch_bits) != HANDSHAKE || !recent || self.reads(epoch_bits) {
            return None;
        }
        let finished = self.client_finished?;
        let answers = finished.answers.checked_sub(1).filter(|answers| *answers > 0);
        self.client_finished = answers.map(|answers| ClientFinished { answers, ..finished });
        Some(RecordNumber { epoch: HANDSHAKE, sequence: finished.sequence.into() })
    }

    /// Whether there is a key for a record with these bits.
    pub(crate) fn reads(&self, epoch_bits: u8) -> bool {
        self.reads.iter().any(|read| is_epoch(read, epoch_bits))
    }

    /// Opens a record whose Connection ID was found to be ours.
    pub(crate) fn open(&mut self, record: &Unified<'_>) -> Result<(RecordNumber, Opened), Dropped> {
        let aead = self.suite.aead();
        let newest = self.reads.last().map(|read| read.epoch);
        let Some(read) = self.reads.iter_mut().rev().find(|read| is_epoch(read, record.epoch_bits())) else {
            return Err(Dropped::Unauthentic);
        };
        let mask = read.keys.mask.mask(record.ciphertext).ok_or(Dropped::Unauthentic)?;
        let (header, low, bits) = record.unmasked(mask);
        let sequence = unified::reconstruct(read.window.next, low, bits);
        if !read.window.is_fresh(sequence) {
            return Err(Dropped::Replayed);
        }
        if read.unauthentic >= aead.unauthentic_max() {
            // An epoch that the peer has left is not read any more; without the present one there is nothing to go on with.
            let present = newest == Some(read.epoch);
            return Err(if present { Dropped::KeyExhausted } else { Dropped::Unauthentic });
        }
        let mut content = record.ciphertext.to_vec();
        let inner = read.keys.key.open(read.keys.nonce(sequence), &header, &mut content);
        let Some((content_type, content)) = inner.and_then(|()| content_of(content)) else {
            read.unauthentic += 1;
            return Err(Dropped::Unauthentic);
        };
        let newest = read.window.take(sequence) && newest == Some(read.epoch);
        Ok((RecordNumber { epoch: read.epoch, sequence }, Opened { content_type, content, newest }))
    }

    #[cfg(test)]
    pub(crate) fn exhaust_oldest_read(&mut self) {
        let limit = self.suite.aead().unauthentic_max();
        self.reads.iter_mut().take(1).for_each(|read| read.unauthentic = limit);
    }

    #[cfg(test)]
    pub(crate) fn read_mut(&mut self) -> Option<&mut ReadEpoch> {
        self.reads.last_mut()
    }
}

fn is_epoch(read: &ReadEpoch, bits: u8) -> bool {
    read.epoch & 3 == u64::from(bits)
}

/// Type and content: the padding's zeros follow the type.
fn content_of(mut inner: Vec<u8>) -> Option<(ContentType, Vec<u8>)> {
    let last = inner.iter().rposition(|octet| *octet != 0)?;
    let content_type = ContentType(*inner.get(last)?);
    inner.truncate(last);
    (inner.len() <= RECORD_CONTENT_OCTETS_MAX).then_some((content_type, inner))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::record::unified::split;

    fn epochs(suite: CipherSuite) -> Epochs {
        let secret = || TrafficSecret::of_octets(&[7; 32]);
        Epochs::new(
            suite,
            WriteEpoch::new(suite, APPLICATION, secret()).unwrap(),
            ReadEpoch::new(suite, APPLICATION, secret()).unwrap(),
        )
    }

    fn sealed(epochs: &mut Epochs, id: &ConnectionId, form: Form, content: &[u8]) -> (RecordNumber, Vec<u8>) {
        let mut out = Vec::new();
        let number = epochs.seal(None, id, form, ContentType::APPLICATION_DATA, content, &mut out).unwrap();
        (number, out)
    }

    #[test]
    fn no_changed_octet_of_a_record_is_accepted() {
        let id = ConnectionId::new(b"id").unwrap();
        for suite in CipherSuite::DTLS13 {
            for form in [Form::ALONE, Form::WITH_LENGTH, Form { long_sequence: false, length: true }] {
                for id in [ConnectionId::EMPTY, id] {
                    let mut epochs = epochs(suite);
                    let (number, record) = sealed(&mut epochs, &id, form, b"");
                    for at in 0..record.len() {
                        for bit in 0..8 {
                            let mut changed = record.clone();
                            changed[at] ^= 1 << bit;
                            // A Connection ID is compared before, but is authentic too.
                            let accepted =
                                split(&changed, id.len()).is_some_and(|(record, _)| epochs.open(&record).is_ok());
                            assert!(!accepted, "{suite:?} {form:?} {at} {bit}");
                        }
                    }
                    let (record, _) = split(&record, id.len()).unwrap();
                    assert_eq!(epochs.open(&record).unwrap().0, number);
                    assert!(matches!(epochs.open(&record), Err(Dropped::Replayed)));
                }
            }
        }
    }

    proptest! {
        /// Over epochs, each record is taken once, as long as its epoch is read and it is not far behind.
        #[test]
        fn each_record_is_taken_once_over_epochs(
            suite in 0_usize..4,
            steps in prop::collection::vec((0_u8..8, 0_usize..40), 1..120),
        ) {
            let suite = CipherSuite::DTLS13[suite];
            let (mut writer, mut reader) = (epochs(suite), epochs(suite));
            let mut sent: Vec<(RecordNumber, Vec<u8>)> = Vec::new();
            let mut taken = HashSet::new();
            for (step, back) in steps {
                match step {
                    0 => {
                        writer.advance_write().unwrap();
                        reader.advance_read().unwrap();
                    }
                    1..=4 => sent.push(sealed(&mut writer, &ConnectionId::EMPTY, Form::ALONE, &[step])),
                    _ => {
                        let Some((number, datagram)) = sent.len().checked_sub(1 + back).map(|at| &sent[at]) else { continue };
                        let (record, _) = split(datagram, 0).unwrap();
                        let present = reader.read().unwrap().epoch;
                        let readable = number.epoch + 1 >= present;
                        let opened = reader.open(&record);
                        prop_assert_eq!(opened.is_ok(), readable && !taken.contains(&(number.epoch, number.sequence)));
                        if let Ok((opened, _)) = opened {
                            prop_assert_eq!(opened, *number);
                            taken.insert((number.epoch, number.sequence));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_read_key_ends_after_as_many_forgeries_as_its_aead_allows() {
        for suite in CipherSuite::DTLS13 {
            let mut epochs = epochs(suite);
            let (_, mut datagram) = sealed(&mut epochs, &ConnectionId::EMPTY, Form::ALONE, b"x");
            *datagram.last_mut().unwrap() ^= 1;
            let (record, _) = split(&datagram, 0).unwrap();
            epochs.read_mut().unwrap().unauthentic = suite.aead().unauthentic_max() - 1;
            assert!(matches!(epochs.open(&record), Err(Dropped::Unauthentic)));
            assert!(matches!(epochs.open(&record), Err(Dropped::KeyExhausted)));
            // The next epoch's key counts anew.
            epochs.advance_read().unwrap();
            epochs.advance_write().unwrap();
            let (_, datagram) = sealed(&mut epochs, &ConnectionId::EMPTY, Form::ALONE, b"x");
            assert!(epochs.open(&split(&datagram, 0).unwrap().0).is_ok());
        }
    }

    #[test]
    fn a_write_key_ends_after_as_many_records_as_its_aead_allows() {
        for suite in CipherSuite::DTLS13 {
            let mut epochs = epochs(suite);
            epochs.write_mut().unwrap().sequence = sequence_end(suite) - 1;
            sealed(&mut epochs, &ConnectionId::EMPTY, Form::ALONE, b"x");
            let id = ConnectionId::EMPTY;
            let error = epochs.seal(None, &id, Form::ALONE, ContentType::ALERT, b"xx", &mut Vec::new());
            assert_eq!(error, Err(Error::WriteKeyExhausted));
            epochs.advance_write().unwrap();
            sealed(&mut epochs, &ConnectionId::EMPTY, Form::ALONE, b"x");
        }
    }

    #[test]
    fn padding_is_taken_off_and_padding_alone_is_dropped() {
        assert_eq!(content_of(b"data\x17\0\0".to_vec()), Some((ContentType::APPLICATION_DATA, b"data".to_vec())));
        assert_eq!(content_of(b"\x17".to_vec()), Some((ContentType::APPLICATION_DATA, Vec::new())));
        assert_eq!(content_of(b"\0\0".to_vec()), None);
        assert_eq!(content_of(Vec::new()), None);
        let mut too_long = vec![1; RECORD_CONTENT_OCTETS_MAX + 1];
        too_long.push(23);
        assert_eq!(content_of(too_long), None);
    }

    #[test]
    fn a_short_record_is_padded_to_a_sample_and_a_shorter_one_is_dropped() {
        let suite = CipherSuite::Aes128Ccm8;
        let mut epochs = epochs(suite);
        let (_, datagram) = sealed(&mut epochs, &ConnectionId::EMPTY, Form::ALONE, b"");
        assert_eq!(datagram.len(), Form::ALONE.octets(0) + SAMPLE_OCTETS);
        let (record, _) = split(&datagram[..datagram.len() - 1], 0).unwrap();
        assert!(matches!(epochs.open(&record), Err(Dropped::Unauthentic)));
        assert!(epochs.open(&split(&datagram, 0).unwrap().0).is_ok());
    }
}
