//! Names of networks: home network, routing indicator, serving network name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Error;
use crate::identity::{is_digits, serde_as_text};

/// A home network by MCC and MNC.
///
/// In a configuration: a table with the members `mcc` (three digits) and `mnc` (two or three), both text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "HomeNetworkText")]
pub struct HomeNetwork {
    mcc: String,
    mnc: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HomeNetworkText {
    mcc: String,
    mnc: String,
}

impl TryFrom<HomeNetworkText> for HomeNetwork {
    type Error = Error;

    fn try_from(text: HomeNetworkText) -> Result<Self, Error> {
        Self::new(&text.mcc, &text.mnc)
    }
}

impl HomeNetwork {
    /// A home network of a three-digit MCC and a two- or three-digit MNC.
    ///
    /// # Errors
    /// [`Error::InvalidHomeNetwork`] for anything else.
    pub fn new(mcc: &str, mnc: &str) -> Result<Self, Error> {
        if !is_digits(mcc) || mcc.len() != 3 || !is_digits(mnc) || !(2..=3).contains(&mnc.len()) {
            return Err(Error::InvalidHomeNetwork);
        }
        Ok(Self { mcc: mcc.to_owned(), mnc: mnc.to_owned() })
    }

    /// The mobile country code, three digits.
    pub fn mcc(&self) -> &str {
        &self.mcc
    }

    /// The mobile network code as given, two or three digits.
    pub fn mnc(&self) -> &str {
        &self.mnc
    }

    /// The name of this network as serving network, TS 24.501 9.12.1: `5G:mnc001.mcc001.3gppnetwork.org`.
    pub fn serving_network_name(&self) -> ServingNetworkName {
        ServingNetworkName(format!("5G:mnc{:0>3}.mcc{}.3gppnetwork.org", self.mnc, self.mcc))
    }

    /// The home network domain, TS 23.003 28.2: `5gc.mnc001.mcc001.3gppnetwork.org`.
    pub fn realm(&self) -> String {
        format!("5gc.mnc{:0>3}.mcc{}.3gppnetwork.org", self.mnc, self.mcc)
    }

    /// Reads `<label>.mnc001.mcc001.3gppnetwork.org`. A domain name always shows three MNC digits, so a network with
    /// a two-digit MNC comes back with the padding zero: compare with [`has_same_realm`](Self::has_same_realm).
    ///
    /// # Errors
    /// [`Error::InvalidHomeNetwork`] when the text is no such domain.
    pub fn from_realm(realm: &str, label: &str) -> Result<Self, Error> {
        let (mnc, mcc) = realm
            .strip_prefix(label)
            .and_then(|rest| rest.strip_prefix(".mnc"))
            .and_then(|rest| rest.strip_suffix(".3gppnetwork.org"))
            .and_then(|rest| rest.split_once(".mcc"))
            .ok_or(Error::InvalidHomeNetwork)?;
        if mnc.len() != 3 {
            return Err(Error::InvalidHomeNetwork);
        }
        Self::new(mcc, mnc)
    }

    /// Whether both have the same domain: `01` and `001` do.
    pub fn has_same_realm(&self, other: &Self) -> bool {
        self.realm() == other.realm()
    }
}

/// The routing indicator of TS 23.003 2.2B, one to four decimal digits; `0` where a subscription has none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoutingIndicator(String);

impl RoutingIndicator {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for RoutingIndicator {
    /// `0`: none was assigned.
    fn default() -> Self {
        Self("0".to_owned())
    }
}

impl FromStr for RoutingIndicator {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if is_digits(text) && text.len() <= 4 { Ok(Self(text.to_owned())) } else { Err(Error::InvalidRoutingIndicator) }
    }
}

impl fmt::Display for RoutingIndicator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The serving network name of TS 24.501 9.12.1, to which every key of a primary authentication is bound.
///
/// `5G:mnc<3>.mcc<3>.3gppnetwork.org`, with `:<NID>` for a stand-alone non-public network, or `5G:NSWO`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServingNetworkName(String);

impl ServingNetworkName {
    /// The name, as it enters key derivation.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServingNetworkName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        const NID_DIGITS: usize = 11;
        let identifier = text.strip_prefix("5G:").ok_or(Error::InvalidServingNetworkName)?;
        if identifier != "NSWO" {
            let (domain, nid) = match identifier.split_once(':') {
                Some((domain, nid)) => (domain, Some(nid)),
                None => (identifier, None),
            };
            // The network part is the home network domain without its service label.
            HomeNetwork::from_realm(&format!(".{domain}"), "").map_err(|_| Error::InvalidServingNetworkName)?;
            let is_nid = |nid: &str| {
                nid.len() == NID_DIGITS && nid.bytes().all(|octet| matches!(octet, b'0'..=b'9' | b'A'..=b'F'))
            };
            if nid.is_some_and(|nid| !is_nid(nid)) {
                return Err(Error::InvalidServingNetworkName);
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ServingNetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

serde_as_text!(RoutingIndicator, |indicator: &RoutingIndicator| indicator.0.clone());
serde_as_text!(ServingNetworkName, |name: &ServingNetworkName| name.0.clone());
