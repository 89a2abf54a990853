//! What is stored, and how it is coded on disk.
//!
//! Messages and deduplication records, of which there may be millions, have a fixed head and the rest as it came;
//! registrations and application servers are JSON. Each begins with an octet that names its coding.

use std::fmt;

use message::{Address, AsServiceId, MessageId, Priority, UeServiceId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use time::OffsetDateTime;

use crate::StoreError;

/// Where a stored message is in its recipient's queue: by priority, HIGH first, then in the order of acceptance.
///
/// No two messages of a store ever have the same acceptance number, removed ones and restarts included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    priority: Priority,
    sequence: u64,
}

impl Position {
    pub(crate) fn new(priority: Priority, sequence: u64) -> Self {
        Self { priority, sequence }
    }

    /// The message's priority.
    #[must_use]
    pub fn priority(self) -> Priority {
        self.priority
    }

    /// The acceptance number: greater for every message accepted later, whoever its recipient is.
    #[must_use]
    pub fn sequence(self) -> u64 {
        self.sequence
    }
}

/// What a stored body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoredKind {
    /// A message (TS 23.554 clause 8.3.2).
    Message,
    /// A delivery status report (TS 23.554 clause 8.3.5).
    DeliveryStatusReport,
}

/// A message to be stored.
#[derive(Clone)]
pub struct NewStoredMessage {
    /// Whom it waits for.
    pub recipient: Address,
    /// On whose account it is kept ([`crate::StoreLimits::messages_per_originator_max`]); `None` for what the server
    /// itself has to say.
    pub originator: Option<Address>,
    /// Its originator's name for it, by which [`crate::Store::find_stored`] finds it while it waits, so that it can be
    /// updated or discarded (TS 23.554 clause 8.3.6.1). `None`, or no originator: it cannot be found by name.
    pub message_id: Option<MessageId>,
    /// Where in the recipient's queue.
    pub priority: Priority,
    /// When it is to be reported as expired instead of delivered; kept to the microsecond, rounded down.
    pub expires_at: Option<OffsetDateTime>,
    /// What `body` is.
    pub kind: StoredKind,
    /// The message as the caller codes it, at most [`crate::StoreLimits::body_octets_max`].
    pub body: Vec<u8>,
    /// Made durable together with the message.
    pub deduplication: Option<DeduplicationRecord>,
}

impl fmt::Debug for NewStoredMessage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("NewStoredMessage")
            .field("recipient", &self.recipient)
            .field("originator", &self.originator)
            .field("message_id", &self.message_id)
            .field("priority", &self.priority)
            .field("expires_at", &self.expires_at)
            .field("kind", &self.kind)
            .field("body_octets", &self.body.len())
            .field("deduplication", &self.deduplication)
            .finish()
    }
}

/// A message that waits for its recipient.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// Whom it waits for.
    pub recipient: Address,
    /// Where in the recipient's queue, its priority included; names the message in
    /// [`crate::Store::remove_messages`].
    pub position: Position,
    /// When it is to be reported as expired instead of delivered.
    pub expires_at: Option<OffsetDateTime>,
    /// What `body` is.
    pub kind: StoredKind,
    /// The message as it was handed in.
    pub body: Vec<u8>,
}

impl fmt::Debug for StoredMessage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("StoredMessage")
            .field("recipient", &self.recipient)
            .field("position", &self.position)
            .field("expires_at", &self.expires_at)
            .field("kind", &self.kind)
            .field("body_octets", &self.body.len())
            .finish()
    }
}

/// That a message was answered, and how, so that the same message gets the same answer again.
#[derive(Clone, PartialEq, Eq)]
pub struct DeduplicationRecord {
    /// Who sent the message.
    pub originator: Address,
    /// Its name, unique for its originator.
    pub message_id: MessageId,
    /// SHA-256 over the content, as the caller defines it: the same name with other content is an error.
    pub digest: [u8; 32],
    /// The answer, as the caller codes it.
    pub answer: Vec<u8>,
    /// When the record may be forgotten; kept to the microsecond, rounded down.
    pub expires_at: OffsetDateTime,
}

impl fmt::Debug for DeduplicationRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DeduplicationRecord")
            .field("originator", &self.originator)
            .field("message_id", &self.message_id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// A registered UE (TS 23.554 clause 8.2.1).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationRecord {
    /// The UE's name in the message service.
    pub ue_service_id: UeServiceId,
    /// The UE ID proven when it registered: SUPI or GPSI in the form of TS 29.571. Never printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ue_id: Option<String>,
    /// The GPSI that the AAnF told beside a SUPI, in the form of TS 29.571. Never printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpsi: Option<String>,
    /// The A-KID of the connection it registered on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub a_kid: Option<String>,
    /// The largest payload the client takes at once, in octets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment_size: Option<u32>,
    /// What else its client said of itself (TS 23.554 table 8.2.1-1), as the caller codes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_profile: Option<serde_json::Value>,
    /// When it registered.
    #[serde(with = "time::serde::rfc3339")]
    pub registered_at: OffsetDateTime,
}

impl fmt::Debug for RegistrationRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RegistrationRecord")
            .field("ue_service_id", &self.ue_service_id)
            .field("a_kid", &self.a_kid)
            .field("segment_size", &self.segment_size)
            .field("registered_at", &self.registered_at)
            .finish_non_exhaustive()
    }
}

/// A registered application server (TS 29.538 clause 5.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplicationServerRecord {
    /// The server's name in the message service.
    pub as_service_id: AsServiceId,
    /// Where messages for it go.
    pub target_uri: String,
    /// The identity in the certificate it registered with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_identity: Option<String>,
    /// What it said about itself, as it came (AsProfile and whatever else of TS 29.538 the caller keeps).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<serde_json::Value>,
    /// When it registered.
    #[serde(with = "time::serde::rfc3339")]
    pub registered_at: OffsetDateTime,
}

/// The head of a message's value; the body follows.
pub(crate) struct MessageHead<'a> {
    pub(crate) kind: StoredKind,
    pub(crate) expires_us: Option<u64>,
    /// As [`crate::keys::address_key`] makes it.
    pub(crate) originator_key: Option<&'a [u8]>,
    /// Only with an originator: the message is in the index of names.
    pub(crate) message_id: Option<&'a [u8]>,
}

pub(crate) fn encode_message(head: &MessageHead, body: &[u8]) -> Result<Vec<u8>, StoreError> {
    let kind = match head.kind {
        StoredKind::Message => KIND_MESSAGE,
        StoredKind::DeliveryStatusReport => KIND_DELIVERY_STATUS_REPORT,
    };
    let originator_key = head.originator_key.unwrap_or_default();
    let message_id = head.message_id.filter(|_| head.originator_key.is_some());
    let coding = match (head.originator_key, message_id) {
        (Some(_), Some(_)) => CODING_3,
        (Some(_), None) => CODING_2,
        (None, _) => CODING_1,
    };
    let octets = MESSAGE_HEAD_OCTETS + originator_key.len() + message_id.map_or(0, |id| 1 + id.len()) + body.len();
    let mut value = Vec::with_capacity(octets);
    value.extend_from_slice(&[coding, kind]);
    value.extend_from_slice(&head.expires_us.unwrap_or(NEVER_US).to_be_bytes());
    value.extend_from_slice(originator_key);
    if let Some(message_id) = message_id {
        value.push(u8::try_from(message_id.len()).map_err(|_| StoreError::TooLarge)?);
        value.extend_from_slice(message_id);
    }
    value.extend_from_slice(body);
    Ok(value)
}

pub(crate) fn decode_message(value: &[u8]) -> Result<(MessageHead<'_>, &[u8]), StoreError> {
    let corrupt = |reason| StoreError::Corrupt { table: crate::keys::MESSAGES, reason };
    let (coding, rest) = value.split_first().ok_or(corrupt("empty"))?;
    if ![CODING_1, CODING_2, CODING_3].contains(coding) {
        return Err(corrupt("unknown coding"));
    }
    let (kind, rest) = rest.split_first().ok_or(corrupt("too short"))?;
    let kind = match *kind {
        KIND_MESSAGE => StoredKind::Message,
        KIND_DELIVERY_STATUS_REPORT => StoredKind::DeliveryStatusReport,
        _ => return Err(corrupt("unknown kind")),
    };
    let (expires, mut body) = rest.split_first_chunk().ok_or(corrupt("too short"))?;
    let expires_us = Some(u64::from_be_bytes(*expires)).filter(|us| *us != NEVER_US);
    let mut head = MessageHead { kind, expires_us, originator_key: None, message_id: None };
    if *coding != CODING_1 {
        let (key, rest) = crate::keys::split_address_key(body).ok_or(corrupt("no originator"))?;
        (head.originator_key, body) = (Some(key), rest);
    }
    if *coding == CODING_3 {
        let (length, rest) = body.split_first().ok_or(corrupt("no Message ID"))?;
        let (id, rest) = rest.split_at_checked(usize::from(*length)).ok_or(corrupt("no Message ID"))?;
        (head.message_id, body) = (Some(id), rest);
    }
    Ok((head, body))
}

/// The same message with another expiry; everything else, its coding included, stays as it was.
pub(crate) fn with_expiry(value: &[u8], expires_us: Option<u64>) -> Result<Vec<u8>, StoreError> {
    let mut changed = value.to_vec();
    let place = changed.get_mut(2..MESSAGE_HEAD_OCTETS);
    let place = place.ok_or(StoreError::Corrupt { table: crate::keys::MESSAGES, reason: "too short" })?;
    place.copy_from_slice(&expires_us.unwrap_or(NEVER_US).to_be_bytes());
    Ok(changed)
}

pub(crate) fn encode_deduplication(record: &DeduplicationRecord) -> Vec<u8> {
    let mut value = Vec::with_capacity(1 + 8 + record.digest.len() + record.answer.len());
    value.push(CODING_1);
    value.extend_from_slice(&microseconds(record.expires_at).to_be_bytes());
    value.extend_from_slice(&record.digest);
    value.extend_from_slice(&record.answer);
    value
}

/// Reads back everything but the key's part.
pub(crate) fn decode_deduplication(
    originator: &Address,
    message_id: &MessageId,
    value: &[u8],
) -> Result<DeduplicationRecord, StoreError> {
    let corrupt = |reason| StoreError::Corrupt { table: crate::keys::DEDUPLICATION, reason };
    let (coding, rest) = value.split_first().ok_or(corrupt("empty"))?;
    if *coding != CODING_1 {
        return Err(corrupt("unknown coding"));
    }
    let (expires, rest) = rest.split_first_chunk().ok_or(corrupt("too short"))?;
    let (digest, answer) = rest.split_first_chunk().ok_or(corrupt("too short"))?;
    Ok(DeduplicationRecord {
        originator: originator.clone(),
        message_id: message_id.clone(),
        digest: *digest,
        answer: answer.to_vec(),
        expires_at: from_microseconds(u64::from_be_bytes(*expires)),
    })
}

pub(crate) fn encode_json<T: Serialize>(table: &'static str, record: &T) -> Result<Vec<u8>, StoreError> {
    let mut value = vec![CODING_JSON_1];
    serde_json::to_writer(&mut value, record)
        .map_err(|_| StoreError::Corrupt { table, reason: "the record cannot be written as JSON" })?;
    Ok(value)
}

pub(crate) fn decode_json<T: DeserializeOwned>(table: &'static str, value: &[u8]) -> Result<T, StoreError> {
    match value.split_first() {
        Some((&CODING_JSON_1, json)) => {
            serde_json::from_slice(json).map_err(|_| StoreError::Corrupt { table, reason: "not the record's JSON" })
        }
        Some(_) => Err(StoreError::Corrupt { table, reason: "unknown coding" }),
        None => Err(StoreError::Corrupt { table, reason: "empty" }),
    }
}

/// Microseconds since 1970, rounded down; times before that count as then.
pub(crate) fn microseconds(time: OffsetDateTime) -> u64 {
    let microseconds = time.unix_timestamp_nanos().div_euclid(1_000);
    u64::try_from(microseconds.max(0)).unwrap_or(NEVER_US - 1)
}

pub(crate) fn from_microseconds(microseconds: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(microseconds) * 1_000)
        .unwrap_or_else(|_| time::PrimitiveDateTime::MAX.assume_utc())
}

pub(crate) const MESSAGE_HEAD_OCTETS: usize = 1 + 1 + 8;
const CODING_1: u8 = 1;
/// A message with its originator's key between head and body.
const CODING_2: u8 = 2;
/// As [`CODING_2`], with the Message ID, its length before it, between originator and body: it is found by name.
const CODING_3: u8 = 3;
const CODING_JSON_1: u8 = b'j';
const KIND_MESSAGE: u8 = 1;
const KIND_DELIVERY_STATUS_REPORT: u8 = 2;
pub(crate) const NEVER_US: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;
    use time::macros::datetime;

    #[test]
    fn times_outside_the_range_kept_become_its_ends() {
        assert_eq!(microseconds(datetime!(1960-01-01 0:00 UTC)), 0);
        let last = time::PrimitiveDateTime::MAX.assume_utc();
        assert_eq!(from_microseconds(microseconds(last)).unix_timestamp(), last.unix_timestamp());
        assert_eq!(from_microseconds(u64::MAX), last);
        assert_eq!(microseconds(datetime!(1970-01-01 0:00:00.000_001_999 UTC)), 1);
    }

    #[test]
    fn a_coding_of_a_later_version_is_not_guessed_at() {
        let head = MessageHead { kind: StoredKind::Message, expires_us: None, originator_key: None, message_id: None };
        let mut value = encode_message(&head, b"body").unwrap();
        value[0] = 9;
        assert!(matches!(decode_message(&value), Err(StoreError::Corrupt { reason: "unknown coding", .. })));
        value[0] = CODING_1;
        value[1] = 9;
        assert!(matches!(decode_message(&value), Err(StoreError::Corrupt { reason: "unknown kind", .. })));
        let json = decode_json::<RegistrationRecord>("registrations", b"J{}");
        assert!(matches!(json, Err(StoreError::Corrupt { reason: "unknown coding", .. })));
    }

    #[test]
    fn a_message_comes_back_with_and_without_its_originator_and_name() {
        let key = crate::keys::address_key(&Address::ue(&"a".parse().unwrap())).unwrap();
        for (originator_key, message_id) in
            [(None, None), (Some(key.as_slice()), None), (Some(&key), Some(&b"m-1"[..]))]
        {
            let head =
                MessageHead { kind: StoredKind::DeliveryStatusReport, expires_us: Some(7), originator_key, message_id };
            let value = encode_message(&head, b"body").unwrap();
            for (value, expires_us) in [(&value, Some(7)), (&with_expiry(&value, None).unwrap(), None)] {
                let (head, body) = decode_message(value).unwrap();
                assert_eq!(
                    (head.kind, head.expires_us, head.originator_key, head.message_id, body),
                    (StoredKind::DeliveryStatusReport, expires_us, originator_key, message_id, &b"body"[..])
                );
            }
        }
    }

    #[test]
    fn a_name_without_an_originator_is_not_kept() {
        let head =
            MessageHead { kind: StoredKind::Message, expires_us: None, originator_key: None, message_id: Some(b"m-1") };
        let value = encode_message(&head, b"body").unwrap();
        let (head, body) = decode_message(&value).unwrap();
        assert_eq!((head.message_id, body), (None, &b"body"[..]));
    }

    proptest! {
        #[test]
        fn any_octets_decode_or_are_refused(value in proptest::collection::vec(any::<u8>(), 0..80)) {
            let originator = Address::ue(&"a".parse().unwrap());
            let message_id = "1".parse().unwrap();
            if let Ok((head, body)) = decode_message(&value) {
                prop_assert_eq!(encode_message(&head, body).unwrap(), value.clone());
            }
            let _ = decode_deduplication(&originator, &message_id, &value);
            let _ = decode_json::<RegistrationRecord>("registrations", &value);
        }

        #[test]
        fn a_deduplication_record_comes_back(answer in proptest::collection::vec(any::<u8>(), 0..40), at in 0..1_u64 << 55) {
            let record = DeduplicationRecord {
                originator: Address::ue(&"a".parse().unwrap()),
                message_id: "1".parse().unwrap(),
                digest: [3; 32],
                answer,
                expires_at: from_microseconds(at),
            };
            let decoded = decode_deduplication(&record.originator, &record.message_id, &encode_deduplication(&record));
            prop_assert_eq!(decoded.unwrap(), record);
        }
    }
}
