//! What K_AF is bound to: the application function's name and the Ua* protocol (TS 33.535 A.4, TS 33.220 Annex H).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Error;
use crate::identity::serde_as_text;

/// A fully qualified domain name: lower case, no trailing dot, letters, digits and hyphens.
///
/// UE and network must feed the same octets into K_AF, and no clause states a case rule; so both sides normalise
/// here (a decision of ours).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fqdn(String);

impl Fqdn {
    /// The longest name, in octets (RFC 1035 2.3.4, without the root's dot).
    pub const OCTETS_MAX: usize = 253;
    /// The longest label, in octets (RFC 1035 2.3.4).
    pub const LABEL_OCTETS_MAX: usize = 63;

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Fqdn {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() || name.len() > Self::OCTETS_MAX {
            return Err(Error::InvalidFqdn("it is empty or longer than 253 octets"));
        }
        for label in name.split('.') {
            if label.is_empty() || label.len() > Self::LABEL_OCTETS_MAX {
                return Err(Error::InvalidFqdn("a label is empty or longer than 63 octets"));
            }
            if label.starts_with('-') || label.ends_with('-') {
                return Err(Error::InvalidFqdn("a label starts or ends with a hyphen"));
            }
            if !label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-') {
                return Err(Error::InvalidFqdn("a label holds other than letters, digits and hyphens"));
            }
        }
        let last = name.rsplit('.').next().unwrap_or(name);
        if last.bytes().all(|octet| octet.is_ascii_digit()) {
            return Err(Error::InvalidFqdn("it is an IP address"));
        }
        Ok(Self(name.to_ascii_lowercase()))
    }
}

impl fmt::Display for Fqdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A Ua* security protocol identifier, TS 33.220 Annex H: five octets, the first naming the organisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UaProtocolId([u8; 5]);

impl UaProtocolId {
    /// HTTP Digest with K_AF, TS 33.220 H.3.
    pub const HTTP_DIGEST: Self = Self([1, 0, 0, 0, 2]);
    /// Shared-key TLS 1.3, TS 33.220 H.3; ours for DTLS 1.3 too. One value for every cipher suite, since the key must
    /// exist before a suite is chosen. That it applies to AKMA unchanged is a decision of ours.
    pub const TLS_1_3: Self = Self([1, 0, 0, 0, 7]);

    /// TLS 1.2 (and DTLS 1.2) with the negotiated cipher suite, TS 33.220 H.3: `01 00 01 yy zz`. The same form is for TLS of any
    /// version with a certificate and HTTP Digest inside, if [`DigestUaProtocol::CipherSuite`](crate::DigestUaProtocol) says so.
    pub const fn tls_1_2(cipher_suite: u16) -> Self {
        let [high, low] = cipher_suite.to_be_bytes();
        Self([1, 0, 1, high, low])
    }

    /// The identifier of these octets.
    pub const fn from_bytes(octets: [u8; 5]) -> Self {
        Self(octets)
    }

    /// The octets.
    pub const fn to_bytes(self) -> [u8; 5] {
        self.0
    }

    /// The cipher suite, if this is an identifier of TLS 1.2.
    pub const fn tls_1_2_cipher_suite(self) -> Option<u16> {
        match self.0 {
            [1, 0, 1, high, low] => Some(u16::from_be_bytes([high, low])),
            _ => None,
        }
    }
}

impl FromStr for UaProtocolId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut octets = [0; 5];
        hex::decode_to_slice(text, &mut octets).map_err(|_| Error::InvalidUaProtocolId)?;
        Ok(Self(octets))
    }
}

impl fmt::Display for UaProtocolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// AF_ID, TS 33.535 A.4: the application function's domain name and the Ua* protocol identifier.
///
/// As text (the `afId` of TS 29.535 JSON): the name, a colon, ten lower-case hexadecimal digits. No clause says how
/// the five octets ride in the text; this form is a decision of ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AfId {
    fqdn: Fqdn,
    protocol: UaProtocolId,
}

impl AfId {
    /// The AF_ID of this name and protocol.
    pub fn new(fqdn: Fqdn, protocol: UaProtocolId) -> Self {
        Self { fqdn, protocol }
    }

    /// The application function's name.
    pub fn fqdn(&self) -> &Fqdn {
        &self.fqdn
    }

    /// The Ua* protocol.
    pub fn protocol(&self) -> UaProtocolId {
        self.protocol
    }

    /// The octets that enter K_AF: the name, then the five octets; nothing between.
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.fqdn.0.as_bytes(), &self.protocol.0].concat()
    }
}

impl FromStr for AfId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (fqdn, protocol) = text.rsplit_once(':').ok_or(Error::InvalidAfId)?;
        let fqdn = fqdn.parse().map_err(|_| Error::InvalidAfId)?;
        let protocol = protocol.parse().map_err(|_| Error::InvalidAfId)?;
        Ok(Self { fqdn, protocol })
    }
}

impl fmt::Display for AfId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.fqdn, self.protocol)
    }
}

serde_as_text!(Fqdn, |fqdn: &Fqdn| fqdn.0.clone());
serde_as_text!(UaProtocolId, UaProtocolId::to_string);
serde_as_text!(AfId, AfId::to_string);
