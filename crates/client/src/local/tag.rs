//! Message IDs of several applications under one originator.
//!
//! To the server all of them are one UE, and one Message ID of a UE is one message. So that no application can use
//! another's, or get the report on another's message, each gets a part of the space: the client puts a tag of the
//! Application ID before the application's own Message ID, and takes it off in what comes back. The tag alone says whose
//! report it is, also after a restart. INFERRED: no clause says how Message IDs of several applications are kept apart.

use message::{ApplicationId, MESSAGE_ID_OCTETS_MAX, MessageId};
use sha2::{Digest, Sha256};

/// Octets of a tag as text: hexadecimal digits.
const TAG_DIGITS: usize = 16;
/// Between the tag and the application's Message ID.
const SEPARATOR: char = '.';

/// Longest Message ID that an application may choose, in octets.
pub const APPLICATION_MESSAGE_ID_OCTETS_MAX: usize = MESSAGE_ID_OCTETS_MAX - TAG_DIGITS - 1;

/// Stands for an Application ID in Message IDs: the first 64 bits of its SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tag(u64);

impl Tag {
    pub(super) fn of(application: &ApplicationId) -> Self {
        let digest = Sha256::digest(application.as_str().as_bytes());
        Self(digest.iter().take(8).fold(0, |tag, octet| (tag << 8) | u64::from(*octet)))
    }

    /// The Message ID under which the server knows an application's message; none if the application's is too long.
    pub(super) fn put_on(self, message_id: &MessageId) -> Option<MessageId> {
        format!("{:016x}{SEPARATOR}{}", self.0, message_id.as_str()).parse().ok()
    }

    /// The tag and the application's Message ID; none if no application of this client gave it.
    pub(super) fn take_off(message_id: &MessageId) -> Option<(Self, MessageId)> {
        let (tag, own) = message_id.as_str().split_once(SEPARATOR)?;
        let digits = tag.len() == TAG_DIGITS && tag.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        let tag = if digits { u64::from_str_radix(tag, 16).ok()? } else { return None };
        Some((Self(tag), own.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_id_may_be_as_long_as_the_tag_leaves_room_for() {
        let tag = Tag::of(&"metering".parse().unwrap());
        let longest: MessageId = "x".repeat(APPLICATION_MESSAGE_ID_OCTETS_MAX).parse().unwrap();
        assert_eq!(tag.put_on(&longest).unwrap().as_str().len(), MESSAGE_ID_OCTETS_MAX);
        let longer: MessageId = "x".repeat(APPLICATION_MESSAGE_ID_OCTETS_MAX + 1).parse().unwrap();
        assert_eq!(tag.put_on(&longer), None);
    }

    #[test]
    fn message_ids_of_others_have_no_tag() {
        for other in [
            "1",
            "6f1f64c2-7d7a-4b7e-9c1e-3f3c8ad3b5a1",
            "0123456789abcdef",
            "0123456789ABCDEF.1",
            "+123456789abcdef.1",
        ] {
            assert_eq!(Tag::take_off(&other.parse().unwrap()), None, "{other}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn taking_off_undoes_putting_on(application in "[a-z ]{1,20}", id in "[!-~]{1,111}") {
            let tag = Tag::of(&application.parse().unwrap());
            let id: MessageId = id.parse().unwrap();
            prop_assert_eq!(Tag::take_off(&tag.put_on(&id).unwrap()), Some((tag, id)));
        }
    }
}
