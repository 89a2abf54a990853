//! The tables' names and the layout of their keys.
//!
//! Keys are compared as octets, so numbers are big-endian and everything of varying length has its length before it:
//! no recipient's keys lie between another's.

use message::{Address, MessageId, Priority};

use crate::StoreError;
use crate::record::Position;

pub(crate) const MESSAGES: &str = "messages";
pub(crate) const MESSAGE_EXPIRY: &str = "message_expiry";
pub(crate) const DEDUPLICATION: &str = "deduplication";
pub(crate) const DEDUPLICATION_EXPIRY: &str = "deduplication_expiry";
pub(crate) const REGISTRATIONS: &str = "registrations";
pub(crate) const APPLICATION_SERVERS: &str = "application_servers";
pub(crate) const MESSAGE_NAMES: &str = "message_names";
pub(crate) const JOBS: &str = "jobs";
pub(crate) const JOB_MEMBERS: &str = "job_members";
pub(crate) const SUBSCRIPTIONS: &str = "subscriptions";
pub(crate) const TOPIC_LIST_SUBSCRIPTIONS: &str = "topic_list_subscriptions";
pub(crate) const META: &str = "meta";

pub(crate) const META_LAYOUT: &[u8] = b"layout";
pub(crate) const META_NEXT_SEQUENCE: &[u8] = b"next_sequence";

/// `length of type | type | length of address | address`.
pub(crate) fn address_key(address: &Address) -> Result<Vec<u8>, StoreError> {
    let mut key = Vec::with_capacity(2 + 32 + 255);
    for part in [address.addr_type.as_str(), address.addr.as_str()] {
        key.push(u8::try_from(part.len()).map_err(|_| StoreError::TooLarge)?);
        key.extend_from_slice(part.as_bytes());
    }
    Ok(key)
}

/// The address at the front of `key`, and what follows it.
pub(crate) fn split_address<'a>(table: &'static str, key: &'a [u8]) -> Result<(Address, &'a [u8]), StoreError> {
    let corrupt = || StoreError::Corrupt { table, reason: "the key is not an address" };
    let (addr_type, rest) = split_text(key).ok_or_else(corrupt)?;
    let (addr, rest) = split_text(rest).ok_or_else(corrupt)?;
    let addr_type = addr_type.parse().map_err(|_| corrupt())?;
    let addr = addr.parse().map_err(|_| corrupt())?;
    Ok((Address { addr_type, addr }, rest))
}

/// The octets of the address at the front of `key`, and what follows it.
pub(crate) fn split_address_key(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, rest) = split_text(key)?;
    let (_, rest) = split_text(rest)?;
    key.split_at_checked(key.len() - rest.len())
}

fn split_text(key: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = key.split_first()?;
    let (text, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

/// `recipient | priority | sequence`: a recipient's messages are neighbours, in the order they are to be delivered.
pub(crate) fn message_key(recipient_key: &[u8], position: Position) -> Vec<u8> {
    let mut key = Vec::with_capacity(recipient_key.len() + POSITION_OCTETS);
    key.extend_from_slice(recipient_key);
    key.push(priority_octet(position.priority()));
    key.extend_from_slice(&position.sequence().to_be_bytes());
    key
}

/// A message key's recipient part and position.
pub(crate) fn split_message_key(key: &[u8]) -> Result<(&[u8], Position), StoreError> {
    let corrupt = || StoreError::Corrupt { table: MESSAGES, reason: "the key is not a message's" };
    let (rest, sequence) = key.split_last_chunk().ok_or_else(corrupt)?;
    let (priority, recipient_key) = rest.split_last().ok_or_else(corrupt)?;
    let priority = PRIORITIES.into_iter().find(|known| priority_octet(*known) == *priority).ok_or_else(corrupt)?;
    Ok((recipient_key, Position::new(priority, u64::from_be_bytes(*sequence))))
}

/// `originator | message ID`.
pub(crate) fn deduplication_key(originator: &Address, message_id: &MessageId) -> Result<Vec<u8>, StoreError> {
    let mut key = address_key(originator)?;
    key.extend_from_slice(message_id.as_str().as_bytes());
    Ok(key)
}

/// `originator | length of Message ID | Message ID`: what an originator has waiting under one name are neighbours.
pub(crate) fn name_prefix(originator_key: &[u8], message_id: &[u8]) -> Result<Vec<u8>, StoreError> {
    let mut key = Vec::with_capacity(originator_key.len() + 1 + message_id.len() + POSITION_OCTETS);
    key.extend_from_slice(originator_key);
    key.push(u8::try_from(message_id.len()).map_err(|_| StoreError::TooLarge)?);
    key.extend_from_slice(message_id);
    Ok(key)
}

/// `name | priority | sequence`, for the recipient's key as value.
pub(crate) fn name_key(mut name_prefix: Vec<u8>, position: Position) -> Vec<u8> {
    name_prefix.push(priority_octet(position.priority()));
    name_prefix.extend_from_slice(&position.sequence().to_be_bytes());
    name_prefix
}

/// The position at the end of a [`name_key`].
pub(crate) fn position_of_name(key: &[u8]) -> Result<Position, StoreError> {
    let corrupt = |_| StoreError::Corrupt { table: MESSAGE_NAMES, reason: "the key has no position" };
    split_message_key(key).map(|(_, position)| position).map_err(corrupt)
}

/// `length of topic | topic | subscriber`: a topic's subscribers are neighbours.
pub(crate) fn subscription_key(topic: &str, subscriber_key: &[u8]) -> Result<Vec<u8>, StoreError> {
    let mut key = Vec::with_capacity(1 + topic.len() + subscriber_key.len());
    key.push(u8::try_from(topic.len()).map_err(|_| StoreError::TooLarge)?);
    key.extend_from_slice(topic.as_bytes());
    key.extend_from_slice(subscriber_key);
    Ok(key)
}

/// A subscription key's topic and subscriber.
pub(crate) fn split_subscription_key(key: &[u8]) -> Result<(&[u8], &[u8]), StoreError> {
    let corrupt = || StoreError::Corrupt { table: SUBSCRIPTIONS, reason: "the key is not a subscription's" };
    let (topic, subscriber_key) = split_text(key).ok_or_else(corrupt)?;
    Ok((topic.as_bytes(), subscriber_key))
}

/// `job | member's place`.
pub(crate) fn job_member_key(job: u64, member: u32) -> [u8; 12] {
    let mut key = [0; 12];
    let (first, last) = key.split_at_mut(8);
    first.copy_from_slice(&job.to_be_bytes());
    last.copy_from_slice(&member.to_be_bytes());
    key
}

/// A [`job_member_key`]'s place.
pub(crate) fn member_of(key: &[u8]) -> Result<u32, StoreError> {
    let place = key.get(8..).and_then(|place| place.try_into().ok());
    place.map(u32::from_be_bytes).ok_or(StoreError::Corrupt { table: JOB_MEMBERS, reason: "the key is not a member's" })
}

/// `expiry time in microseconds | key of the table that this is an index of`.
pub(crate) fn expiry_key(expires_us: u64, of: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(8 + of.len());
    key.extend_from_slice(&expires_us.to_be_bytes());
    key.extend_from_slice(of);
    key
}

/// An expiry key's time and the key it stands for.
pub(crate) fn split_expiry_key<'a>(table: &'static str, key: &'a [u8]) -> Result<(u64, &'a [u8]), StoreError> {
    let (expires, of) = key.split_first_chunk().ok_or(StoreError::Corrupt { table, reason: "the key is too short" })?;
    Ok((u64::from_be_bytes(*expires), of))
}

pub(crate) fn priority_octet(priority: Priority) -> u8 {
    match priority {
        Priority::High => 0,
        Priority::Middle => 1,
        Priority::Low => 2,
    }
}

/// In the order they are delivered.
pub(crate) const PRIORITIES: [Priority; 3] = [Priority::High, Priority::Middle, Priority::Low];
const POSITION_OCTETS: usize = 1 + 8;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use message::AddressType;
    use proptest::prelude::*;

    fn any_address() -> impl Strategy<Value = Address> {
        ("[A-Z]{1,32}", "[!-~]{1,255}").prop_map(|(addr_type, addr)| Address {
            addr_type: addr_type.parse().unwrap(),
            addr: addr.parse().unwrap(),
        })
    }

    #[test]
    fn an_address_type_too_long_for_a_key_is_refused() {
        let addr_type = AddressType::Other("X".repeat(256));
        let address = Address { addr_type, addr: "a".parse().unwrap() };
        assert!(matches!(address_key(&address), Err(StoreError::TooLarge)));
    }

    proptest! {
        #[test]
        fn keys_come_apart_as_they_were_put_together(address in any_address(), sequence: u64, expires: u64) {
            let recipient_key = address_key(&address).unwrap();
            for priority in PRIORITIES {
                let position = Position::new(priority, sequence);
                let key = message_key(&recipient_key, position);
                prop_assert_eq!(split_message_key(&key).unwrap(), (recipient_key.as_slice(), position));
                let expiry = expiry_key(expires, &key);
                prop_assert_eq!(split_expiry_key(MESSAGE_EXPIRY, &expiry).unwrap(), (expires, key.as_slice()));
            }
            let more = [recipient_key.as_slice(), b"more"].concat();
            prop_assert_eq!(split_address_key(&more).unwrap(), (recipient_key.as_slice(), &b"more"[..]));
            prop_assert_eq!(split_address(MESSAGES, &recipient_key).unwrap(), (address, &[][..]));
        }

        #[test]
        fn no_recipients_keys_lie_between_anothers(a in any_address(), b in any_address()) {
            let (a, b) = (address_key(&a).unwrap(), address_key(&b).unwrap());
            prop_assert!(a == b || (!a.starts_with(&b) && !b.starts_with(&a)));
        }

        #[test]
        fn any_octets_come_apart_or_are_refused(key in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = split_address(MESSAGES, &key);
            let _ = split_address_key(&key);
            let _ = split_message_key(&key);
            let _ = split_expiry_key(MESSAGE_EXPIRY, &key);
        }
    }
}
