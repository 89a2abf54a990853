//! Who a message is from and for, and how it is told apart from others (TS 23.554 clause 6).
//!
//! Every identity is checked once, where it enters, and then shared: the types hold an `Arc<str>`, so that handing
//! one to the registry, the deduplication table and an answer copies no text.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::IdentityError;

/// Longest service identity (UE Service ID, AS Service ID, Group Service ID, Broadcast Area ID, Messaging Topic), in
/// octets. TS 23.554 sets none; ours is that of one label-bearing name, and fits every CoAP option.
pub const SERVICE_ID_OCTETS_MAX: usize = 255;

/// Longest Message ID, in octets. A UUID is 36.
pub const MESSAGE_ID_OCTETS_MAX: usize = 128;

/// Longest Application ID, in octets.
pub const APPLICATION_ID_OCTETS_MAX: usize = 255;

/// Longest Segmentation set identifier, in octets.
pub const SEGMENTATION_SET_ID_OCTETS_MAX: usize = 128;

/// Longest address type this implementation carries without knowing it, in octets.
pub const ADDRESS_TYPE_OCTETS_MAX: usize = 32;

/// Printable ASCII without space: identities are compared octet by octet, so nothing that can look alike and differ
/// (Unicode forms, invisible characters) may enter one.
fn check_visible_ascii(text: &str, octets_max: usize) -> Result<(), IdentityError> {
    check_length(text, octets_max)?;
    if text.bytes().all(|octet| octet.is_ascii_graphic()) { Ok(()) } else { Err(IdentityError::NotPrintable) }
}

/// Any text without control characters.
fn check_text(text: &str, octets_max: usize) -> Result<(), IdentityError> {
    check_length(text, octets_max)?;
    if text.chars().any(char::is_control) { Err(IdentityError::NotPrintable) } else { Ok(()) }
}

fn check_length(text: &str, octets_max: usize) -> Result<(), IdentityError> {
    if text.is_empty() {
        Err(IdentityError::Empty)
    } else if text.len() > octets_max {
        Err(IdentityError::TooLong { octets_max })
    } else {
        Ok(())
    }
}

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident, $check:ident, $octets_max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and takes it over.
            pub fn new(text: &str) -> Result<Self, IdentityError> {
                $check(text, $octets_max)?;
                Ok(Self(text.into()))
            }

            /// The identity as it goes over the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdentityError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), &*self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a string")
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                        $name::new(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Visitor)
            }
        }
    };
}

identity!(
    /// UE Service ID (TS 23.554 clause 6): names a UE to the message service. Printable ASCII without space,
    /// 1 to [`SERVICE_ID_OCTETS_MAX`] octets.
    UeServiceId,
    check_visible_ascii,
    SERVICE_ID_OCTETS_MAX
);

identity!(
    /// AS Service ID (TS 23.554 clause 6): names an Application Server to the message service. Printable ASCII
    /// without space, 1 to [`SERVICE_ID_OCTETS_MAX`] octets.
    AsServiceId,
    check_visible_ascii,
    SERVICE_ID_OCTETS_MAX
);

identity!(
    /// The identity inside an [`Address`], whatever its type. Printable ASCII without space, 1 to
    /// [`SERVICE_ID_OCTETS_MAX`] octets.
    ServiceAddress,
    check_visible_ascii,
    SERVICE_ID_OCTETS_MAX
);

identity!(
    /// Message ID (TS 23.554 table 8.3.2-1): the originator's name for one message. Printable ASCII without space,
    /// 1 to [`MESSAGE_ID_OCTETS_MAX`] octets; a UUID is customary.
    MessageId,
    check_visible_ascii,
    MESSAGE_ID_OCTETS_MAX
);

identity!(
    /// Application ID (TS 23.554 table 8.3.2-1): which application at the recipient the payload is for. Text without
    /// control characters, 1 to [`APPLICATION_ID_OCTETS_MAX`] octets.
    ApplicationId,
    check_text,
    APPLICATION_ID_OCTETS_MAX
);

identity!(
    /// Segmentation set identifier (TS 23.554 clause 8.5): names the set that a segment belongs to. Printable ASCII
    /// without space, 1 to [`SEGMENTATION_SET_ID_OCTETS_MAX`] octets.
    SegmentationSetId,
    check_visible_ascii,
    SEGMENTATION_SET_ID_OCTETS_MAX
);

identity!(
    /// Messaging Topic (TS 23.554 clause 8.8): opaque, compared octet by octet. Printable ASCII without space, 1 to
    /// [`SERVICE_ID_OCTETS_MAX`] octets.
    MessagingTopic,
    check_visible_ascii,
    SERVICE_ID_OCTETS_MAX
);

impl From<&MessagingTopic> for ServiceAddress {
    fn from(topic: &MessagingTopic) -> Self {
        Self(Arc::clone(&topic.0))
    }
}

impl From<&UeServiceId> for ServiceAddress {
    fn from(id: &UeServiceId) -> Self {
        Self(Arc::clone(&id.0))
    }
}

impl From<&AsServiceId> for ServiceAddress {
    fn from(id: &AsServiceId) -> Self {
        Self(Arc::clone(&id.0))
    }
}

/// What kind of thing an [`Address`] names (TS 29.538 AddressType).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressType {
    /// `UE`: a UE Service ID.
    Ue,
    /// `AS`: an AS Service ID.
    As,
    /// `GROUP`: a Group Service ID.
    Group,
    /// `BC`: a Broadcast Area ID.
    Bc,
    /// `TOPIC`: a Messaging Topic.
    Topic,
    /// A type added after TS 29.538 18.4.0: the enumeration is extensible. Printable ASCII, at most
    /// [`ADDRESS_TYPE_OCTETS_MAX`] octets.
    Other(String),
}

impl AddressType {
    /// The spelling of TS 29.538.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Ue => "UE",
            Self::As => "AS",
            Self::Group => "GROUP",
            Self::Bc => "BC",
            Self::Topic => "TOPIC",
            Self::Other(text) => text,
        }
    }
}

impl FromStr for AddressType {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "UE" => Self::Ue,
            "AS" => Self::As,
            "GROUP" => Self::Group,
            "BC" => Self::Bc,
            "TOPIC" => Self::Topic,
            _ => {
                check_visible_ascii(text, ADDRESS_TYPE_OCTETS_MAX)?;
                Self::Other(text.to_owned())
            }
        })
    }
}

impl fmt::Display for AddressType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for AddressType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for AddressType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Where a message comes from or goes to (TS 29.538 Address).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address {
    /// What `addr` names.
    #[serde(rename = "addrType")]
    pub addr_type: AddressType,
    /// The identity.
    pub addr: ServiceAddress,
}

impl Address {
    /// The address of a UE.
    #[must_use]
    pub fn ue(id: &UeServiceId) -> Self {
        Self { addr_type: AddressType::Ue, addr: id.into() }
    }

    /// The address of an Application Server.
    #[must_use]
    pub fn application_server(id: &AsServiceId) -> Self {
        Self { addr_type: AddressType::As, addr: id.into() }
    }

    /// The address of a Messaging Topic.
    #[must_use]
    pub fn topic(topic: &MessagingTopic) -> Self {
        Self { addr_type: AddressType::Topic, addr: topic.into() }
    }

    /// The Messaging Topic, if this is the address of one.
    #[must_use]
    pub fn as_topic(&self) -> Option<MessagingTopic> {
        (self.addr_type == AddressType::Topic).then(|| MessagingTopic(Arc::clone(&self.addr.0)))
    }

    /// The UE Service ID, if this is the address of a UE.
    #[must_use]
    pub fn as_ue(&self) -> Option<UeServiceId> {
        (self.addr_type == AddressType::Ue).then(|| UeServiceId(Arc::clone(&self.addr.0)))
    }

    /// The AS Service ID, if this is the address of an Application Server.
    #[must_use]
    pub fn as_application_server(&self) -> Option<AsServiceId> {
        (self.addr_type == AddressType::As).then(|| AsServiceId(Arc::clone(&self.addr.0)))
    }
}

impl fmt::Display for Address {
    /// `UE:meter-7@lab.example`, for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.addr_type, self.addr)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_service_identity_is_visible_ascii_of_one_to_255_octets() {
        assert!("meter-7@lab.example".parse::<UeServiceId>().is_ok());
        assert!("x".repeat(255).parse::<UeServiceId>().is_ok());
        assert_eq!("".parse::<UeServiceId>(), Err(IdentityError::Empty));
        assert_eq!("x".repeat(256).parse::<UeServiceId>(), Err(IdentityError::TooLong { octets_max: 255 }));
        for bad in ["a b", "a\tb", "a\u{7f}", "m\u{e9}ter", "a\u{200b}b", "a\nb"] {
            assert_eq!(bad.parse::<AsServiceId>(), Err(IdentityError::NotPrintable), "{bad:?}");
        }
    }

    #[test]
    fn an_application_id_may_be_any_text_without_control_characters() {
        assert!("Zähler Nord".parse::<ApplicationId>().is_ok());
        assert_eq!("a\u{0}".parse::<ApplicationId>(), Err(IdentityError::NotPrintable));
    }

    #[test]
    fn an_address_gives_back_the_identity_of_its_own_type_only() {
        let ue: UeServiceId = "meter-7".parse().unwrap();
        let address = Address::ue(&ue);
        assert_eq!(address.as_ue(), Some(ue));
        assert_eq!(address.as_application_server(), None);
        let server: AsServiceId = "billing".parse().unwrap();
        let address = Address::application_server(&server);
        assert_eq!(address.as_application_server(), Some(server));
        assert_eq!(address.as_ue(), None);
        let topic: MessagingTopic = "alerts/fire".parse().unwrap();
        let address = Address::topic(&topic);
        assert_eq!(address.as_topic(), Some(topic));
        assert_eq!((address.as_ue(), address.as_application_server()), (None, None));
    }

    #[test]
    fn an_address_type_of_a_later_release_is_kept_as_it_came() {
        let later: AddressType = "AREA".parse().unwrap();
        assert_eq!(later, AddressType::Other("AREA".into()));
        assert_eq!(later.as_str(), "AREA");
        assert!("X".repeat(33).parse::<AddressType>().is_err());
    }

    #[test]
    fn serde_refuses_what_from_str_refuses() {
        assert!(serde_json::from_str::<UeServiceId>("\"a b\"").is_err());
        assert!(serde_json::from_str::<Address>(r#"{"addrType":"UE","addr":""}"#).is_err());
        let address: Address = serde_json::from_str(r#"{"addrType":"GROUP","addr":"g"}"#).unwrap();
        assert_eq!(serde_json::to_string(&address).unwrap(), r#"{"addrType":"GROUP","addr":"g"}"#);
    }
}
