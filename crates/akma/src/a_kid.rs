//! The AKMA key identifier: its text form, and the TLS PSK identity that carries it (TS 33.535 6.1, B.1.3).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::identity::serde_as_text;
use crate::{ATid, Error, HomeNetwork, RoutingIndicator};

/// An A-KID: the name under which a UE's K_AKMA is known, until its next primary authentication.
///
/// Opaque to everyone but UE, AUSF and AAnF, because the standards leave its text to the implementer: 1 to 253
/// printable ASCII characters without spaces, not starting with `;` or `.`, which an NAI cannot do (RFC 7542 2.2)
/// and which would be mistaken for the separator of a PSK identity.
/// It is a pseudonym; it may be logged. Clones share its text: a server holds it in several places for each peer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AKid(Arc<str>);

impl AKid {
    /// The longest A-KID, in octets: the limit of an NAI (RFC 7542 2.3).
    pub const OCTETS_MAX: usize = 253;

    /// The A-KID of these parts, in the [default format](AKidFormat::default).
    pub fn format(routing_indicator: &RoutingIndicator, a_tid: &ATid, home_network: &HomeNetwork) -> Self {
        AKidFormat::default().format(routing_indicator, a_tid, home_network)
    }

    /// The parts of an A-KID in the [default format](AKidFormat::default).
    ///
    /// # Errors
    /// [`Error::AKidParts`] when it has another format.
    pub fn parts(&self) -> Result<AKidParts, Error> {
        AKidFormat::default().parts(self)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The routing indicator that the username begins with, which selects the AAnF (TS 33.535 6.7); `None` where none
    /// does. Nothing else of the A-KID is looked at, so the form of the A-TID and the realm do not matter.
    pub fn routing_indicator(&self) -> Option<RoutingIndicator> {
        let (digits, _) = self.0.split_once(AKidFormat::DELIMITER)?;
        digits.parse().ok()
    }
}

impl FromStr for AKid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.is_empty() || text.len() > Self::OCTETS_MAX {
            return Err(Error::InvalidAKid("it is empty or longer than 253 octets"));
        }
        if !text.bytes().all(|octet| octet.is_ascii_graphic()) {
            return Err(Error::InvalidAKid("it holds other than printable ASCII without spaces"));
        }
        if text.starts_with([';', '.']) {
            return Err(Error::InvalidAKid("it starts with a separator"));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for AKid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AKid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AKid({})", self.0)
    }
}

serde_as_text!(AKid, |a_kid: &AKid| a_kid.0.clone());

/// What an A-KID tells: the routing indicator selects the AAnF, the A-TID names the key, the realm the home network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AKidParts {
    /// The routing indicator of the subscription.
    pub routing_indicator: RoutingIndicator,
    /// The temporary identifier.
    pub a_tid: ATid,
    /// The home network; its MNC has three digits, as in the domain name.
    pub home_network: HomeNetwork,
}

/// How an A-KID is written: the one place where the decisions left open by the standards are taken.
///
/// TS 33.535 6.1 says only that it is an NAI whose username holds the routing indicator and the A-TID, and whose
/// realm names the home network. The form of the A-TID, the delimiter and the realm's first label are ours. By
/// default `<RID>.<A-TID in lower-case hexadecimal>@5gc.mnc<MNC>.mcc<MCC>.3gppnetwork.org`.
///
/// UE, AUSF and AAnF of one network must agree; nobody else reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AKidFormat {
    /// How the 32 octets of the A-TID become text.
    pub a_tid_encoding: ATidEncoding,
    /// What comes before `.mnc<MNC>.mcc<MCC>.3gppnetwork.org` in the realm: domain labels.
    pub realm_prefix: String,
}

/// The text form of the A-TID inside the A-KID.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ATidEncoding {
    /// 64 lower-case hexadecimal digits.
    #[default]
    Hex,
    /// 43 characters of base64url without padding (RFC 4648 5).
    Base64Url,
}

impl Default for AKidFormat {
    fn default() -> Self {
        Self { a_tid_encoding: ATidEncoding::Hex, realm_prefix: "5gc".to_owned() }
    }
}

impl AKidFormat {
    /// Between the routing indicator and the A-TID.
    pub const DELIMITER: char = '.';

    /// Writes an A-KID.
    ///
    /// A realm prefix from configuration is to be checked once with [`check`](Self::check).
    pub fn format(&self, routing_indicator: &RoutingIndicator, a_tid: &ATid, home_network: &HomeNetwork) -> AKid {
        let a_tid_text = match self.a_tid_encoding {
            ATidEncoding::Hex => a_tid.to_hex(),
            ATidEncoding::Base64Url => Zeroizing::new(URL_SAFE_NO_PAD.encode(a_tid.expose())),
        };
        let text = format!(
            "{routing_indicator}{}{}@{}.mnc{:0>3}.mcc{}.3gppnetwork.org",
            Self::DELIMITER,
            *a_tid_text,
            self.realm_prefix,
            home_network.mnc(),
            home_network.mcc()
        );
        AKid(text.into())
    }

    /// Whether the realm prefix is made of domain labels and leaves room for the rest.
    ///
    /// # Errors
    /// [`Error::InvalidFqdn`] when it is not.
    pub fn check(&self) -> Result<(), Error> {
        const PREFIX_OCTETS_MAX: usize = 63;
        if self.realm_prefix.len() > PREFIX_OCTETS_MAX || self.realm_prefix.ends_with('.') {
            return Err(Error::InvalidFqdn("the A-KID's realm prefix is longer than 63 octets or ends in a dot"));
        }
        self.realm_prefix.parse::<crate::Fqdn>().map(|_| ())
    }

    /// Takes an A-KID of this format apart.
    ///
    /// # Errors
    /// [`Error::AKidParts`] when it has another format.
    pub fn parts(&self, a_kid: &AKid) -> Result<AKidParts, Error> {
        let (username, realm) = a_kid.0.split_once('@').ok_or(Error::AKidParts("it has no @"))?;
        let (routing_indicator, a_tid) =
            username.split_once(Self::DELIMITER).ok_or(Error::AKidParts("no dot follows the routing indicator"))?;
        let routing_indicator =
            routing_indicator.parse().map_err(|_| Error::AKidParts("it does not start with a routing indicator"))?;
        let a_tid = self.a_tid(a_tid).ok_or(Error::AKidParts("the A-TID is not 32 octets in the expected form"))?;
        let home_network = HomeNetwork::from_realm(realm, &self.realm_prefix)
            .map_err(|_| Error::AKidParts("the realm names no home network"))?;
        Ok(AKidParts { routing_indicator, a_tid, home_network })
    }

    fn a_tid(&self, text: &str) -> Option<ATid> {
        match self.a_tid_encoding {
            // Lower case only: two texts for one key would be two cache entries, and two chances to be mistaken.
            ATidEncoding::Hex if text.bytes().any(|octet| octet.is_ascii_uppercase()) => None,
            ATidEncoding::Hex => ATid::from_hex(text).ok(),
            ATidEncoding::Base64Url => {
                let octets = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).ok()?);
                Some(ATid::from_bytes(octets.as_slice().try_into().ok()?))
            }
        }
    }
}

/// The TLS PSK identity of TS 33.535 B.1.3: the prefix `3GPP-AKMA`, a separator, the A-KID.
pub struct PskIdentity;

/// What stands between prefix and A-KID. The visible text of TS 24.109 K.3 names nothing; the relatives of AKMA use
/// `;` and `.`. So all three are read, and which is sent is configurable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Separator {
    /// `;`, what we send.
    #[default]
    Semicolon,
    /// `.`.
    Dot,
    /// Nothing.
    None,
}

impl Separator {
    fn as_str(self) -> &'static str {
        match self {
            Self::Semicolon => ";",
            Self::Dot => ".",
            Self::None => "",
        }
    }
}

impl PskIdentity {
    /// The static prefix, also the TLS 1.2 identity hint (TS 24.109 K.3.2).
    pub const PREFIX: &'static str = "3GPP-AKMA";
    /// The longest identity that is read, in octets.
    pub const OCTETS_MAX: usize = Self::PREFIX.len() + 1 + AKid::OCTETS_MAX;

    /// The octets to send as PSK identity.
    pub fn encode(a_kid: &AKid, separator: Separator) -> Vec<u8> {
        [Self::PREFIX, separator.as_str(), a_kid.as_str()].concat().into_bytes()
    }

    /// The A-KID in a received PSK identity, whichever separator it uses.
    ///
    /// # Errors
    /// [`Error::InvalidPskIdentity`] when the prefix is missing or what follows is no A-KID.
    pub fn parse(identity: &[u8]) -> Result<AKid, Error> {
        let rest = identity.strip_prefix(Self::PREFIX.as_bytes()).ok_or(Error::InvalidPskIdentity)?;
        let a_kid = rest.strip_prefix(b";").or_else(|| rest.strip_prefix(b".")).unwrap_or(rest);
        let a_kid = std::str::from_utf8(a_kid).map_err(|_| Error::InvalidPskIdentity)?;
        a_kid.parse().map_err(|_| Error::InvalidPskIdentity)
    }
}
