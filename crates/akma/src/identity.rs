//! Subscription identities: SUPI, GPSI, and either of them (TS 29.571, TS 23.003).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, Fqdn};

/// The longest identity accepted behind the prefix, in octets: the limit of an NAI (RFC 7542 2.3).
pub const NAI_OCTETS_MAX: usize = 253;

const IMSI_DIGITS: std::ops::RangeInclusive<usize> = 5..=15;

/// A subscription permanent identifier in the form of TS 29.571: `imsi-…`, `nai-…`, `gci-…` or `gli-…`.
///
/// It identifies a person's subscription for life. So it has no `Display`, its `Debug` hides the value, and it
/// must not leave the operator's domain (TS 33.501 5.9.2.3).
///
/// What enters key derivation is [`kdf_value`](Self::kdf_value), never [`as_str`](Self::as_str).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Supi {
    text: Arc<str>,
    kind: SupiKind,
}

/// The SUPI types of TS 23.501 5.9.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SupiKind {
    /// An IMSI, 5 to 15 decimal digits.
    Imsi,
    /// A network-specific identifier, an NAI.
    Nai,
    /// A global cable identifier, in NAI form.
    Gci,
    /// A global line identifier, in NAI form.
    Gli,
}

impl Supi {
    /// The SUPI of an IMSI given as bare digits.
    ///
    /// # Errors
    /// [`Error::InvalidSupi`] when it has not 5 to 15 decimal digits.
    pub fn from_imsi(digits: &str) -> Result<Self, Error> {
        check_imsi(digits)?;
        Ok(Self { text: format!("imsi-{digits}").into(), kind: SupiKind::Imsi })
    }

    /// The SUPI of a network-specific identifier given as a bare NAI, `username@realm`.
    ///
    /// # Errors
    /// [`Error::InvalidSupi`] when it is no such NAI.
    pub fn from_nai(nai: &str) -> Result<Self, Error> {
        check_nai(nai)?;
        Ok(Self { text: format!("nai-{nai}").into(), kind: SupiKind::Nai })
    }

    /// The form of TS 29.571, with its prefix. For JSON and URIs; not for key derivation.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Which type of SUPI this is.
    pub fn kind(&self) -> SupiKind {
        self.kind
    }

    /// The value that enters key derivation, TS 33.501 A.7.0: the bare IMSI digits, or the NAI; no prefix.
    pub fn kdf_value(&self) -> &str {
        // Each prefix is four or five ASCII octets ending in the first hyphen.
        self.text.split_once('-').map_or("", |(_, value)| value)
    }

    /// The IMSI digits, if the SUPI is an IMSI.
    pub fn imsi(&self) -> Option<&str> {
        (self.kind == SupiKind::Imsi).then(|| self.kdf_value())
    }

    /// The NAI's username and realm, if the SUPI is not an IMSI.
    pub fn nai(&self) -> Option<(&str, &str)> {
        if self.kind == SupiKind::Imsi { None } else { self.kdf_value().rsplit_once('@') }
    }
}

impl FromStr for Supi {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (prefix, value) = text.split_once('-').ok_or(Error::InvalidSupi("it has no prefix"))?;
        let kind = match prefix {
            "imsi" => SupiKind::Imsi,
            "nai" => SupiKind::Nai,
            "gci" => SupiKind::Gci,
            "gli" => SupiKind::Gli,
            _ => return Err(Error::InvalidSupi("its prefix is none of imsi, nai, gci, gli")),
        };
        match kind {
            SupiKind::Imsi => check_imsi(value)?,
            _ => check_nai(value)?,
        }
        Ok(Self { text: text.into(), kind })
    }
}

impl fmt::Debug for Supi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Supi({:?}, redacted)", self.kind)
    }
}

/// A generic public subscription identifier in the form of TS 29.571: `msisdn-…` or `extid-…@…`.
///
/// Its `Debug` hides the value: an MSISDN is a telephone number.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gpsi(Arc<str>);

impl Gpsi {
    /// The form of TS 29.571, with its prefix.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Gpsi {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(digits) = text.strip_prefix("msisdn-") {
            if !is_digits(digits) || !IMSI_DIGITS.contains(&digits.len()) {
                return Err(Error::InvalidGpsi("an MSISDN has 5 to 15 decimal digits"));
            }
        } else if let Some(external) = text.strip_prefix("extid-") {
            let (local, domain) =
                external.split_once('@').ok_or(Error::InvalidGpsi("an external identifier has an @"))?;
            if local.is_empty() || domain.is_empty() || domain.contains('@') {
                return Err(Error::InvalidGpsi("an external identifier is local@domain"));
            }
            if external.len() > NAI_OCTETS_MAX || !is_printable(external) {
                return Err(Error::InvalidGpsi("it is too long or holds spaces or control characters"));
            }
        } else {
            return Err(Error::InvalidGpsi("its prefix is neither msisdn nor extid"));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Debug for Gpsi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gpsi(redacted)")
    }
}

/// The UE ID of TS 33.501 Y.2: what the AAnF tells an application function about the UE, a SUPI or a GPSI.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UeId {
    /// Told inside the operator's domain only.
    Supi(Supi),
    /// Told to functions that may not see the SUPI.
    Gpsi(Gpsi),
}

impl UeId {
    /// The form of TS 29.571, with its prefix.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Supi(supi) => supi.as_str(),
            Self::Gpsi(gpsi) => gpsi.as_str(),
        }
    }

    /// The SUPI, if it is one.
    pub fn supi(&self) -> Option<&Supi> {
        match self {
            Self::Supi(supi) => Some(supi),
            Self::Gpsi(_) => None,
        }
    }

    /// The GPSI, if it is one.
    pub fn gpsi(&self) -> Option<&Gpsi> {
        match self {
            Self::Supi(_) => None,
            Self::Gpsi(gpsi) => Some(gpsi),
        }
    }
}

impl FromStr for UeId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once('-').map(|(prefix, _)| prefix) {
            Some("imsi" | "nai" | "gci" | "gli") => text.parse().map(Self::Supi),
            Some("msisdn" | "extid") => text.parse().map(Self::Gpsi),
            _ => Err(Error::InvalidUeId),
        }
    }
}

impl From<Supi> for UeId {
    fn from(supi: Supi) -> Self {
        Self::Supi(supi)
    }
}

impl From<Gpsi> for UeId {
    fn from(gpsi: Gpsi) -> Self {
        Self::Gpsi(gpsi)
    }
}

/// Serialises a type as its text, and reads it back through `FromStr`.
macro_rules! serde_as_text {
    ($type:ty, $text:expr) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let text: fn(&$type) -> _ = $text;
                serializer.serialize_str(text(self).as_ref())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_as_text;

serde_as_text!(Supi, |supi: &Supi| supi.text.clone());
serde_as_text!(Gpsi, |gpsi: &Gpsi| gpsi.0.clone());
serde_as_text!(UeId, |ue_id: &UeId| ue_id.as_str().to_owned());

/// Whether the text is one or more ASCII decimal digits.
pub(crate) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit())
}

fn is_printable(text: &str) -> bool {
    !text.chars().any(|character| character.is_control() || character.is_whitespace())
}

fn check_imsi(digits: &str) -> Result<(), Error> {
    if is_digits(digits) && IMSI_DIGITS.contains(&digits.len()) {
        Ok(())
    } else {
        Err(Error::InvalidSupi("an IMSI has 5 to 15 decimal digits"))
    }
}

/// TS 23.003 28.7.2, 28.15.2, 28.16.2: always `username@realm`.
fn check_nai(nai: &str) -> Result<(), Error> {
    if nai.len() > NAI_OCTETS_MAX || !is_printable(nai) {
        return Err(Error::InvalidSupi("the NAI is too long or holds spaces or control characters"));
    }
    let (username, realm) = nai.rsplit_once('@').ok_or(Error::InvalidSupi("an NAI is username@realm"))?;
    if username.is_empty() || username.contains('@') {
        return Err(Error::InvalidSupi("an NAI has one username and one @"));
    }
    realm.parse::<Fqdn>().map_err(|_| Error::InvalidSupi("the NAI's realm is not a domain name"))?;
    Ok(())
}
