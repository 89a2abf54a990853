//! Networks by address and prefix length.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An IPv4 or IPv6 network, `192.0.2.0/24` in text; the bits beyond the prefix are zero.
///
/// None is wider than the widest that an operator can have for itself: 10.0.0.0/8 (RFC 1918), and fc00::/7 (RFC 4193). What is
/// wider has strangers in it, and a handful of such would be everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Not a network in text.
#[derive(Debug, Error)]
#[error(
    "not a network: an address, a slash and a prefix length of at least 8 (IPv4) or 7 (IPv6), the bits beyond it zero"
)]
pub struct InvalidNetwork;

impl Network {
    /// Whether the address is in it. An IPv4 address in an IPv6 one is taken for what it is.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(32 - u32::from(self.prefix)).unwrap_or_default() == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(128 - u32::from(self.prefix)).unwrap_or_default() == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let (address, prefix) = text.split_once('/').ok_or(InvalidNetwork)?;
        let address: IpAddr = address.parse().map_err(|_| InvalidNetwork)?;
        let prefix: u8 = prefix.parse().map_err(|_| InvalidNetwork)?;
        let beyond = match address {
            IpAddr::V4(address) if (IPV4_PREFIX_MIN..=32).contains(&prefix) => {
                address.to_bits().checked_shl(u32::from(prefix)).unwrap_or_default() == 0
            }
            IpAddr::V6(address) if (IPV6_PREFIX_MIN..=128).contains(&prefix) => {
                address.to_bits().checked_shl(u32::from(prefix)).unwrap_or_default() == 0
            }
            _ => false,
        };
        if beyond { Ok(Self { address, prefix }) } else { Err(InvalidNetwork) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl TryFrom<String> for Network {
    type Error = InvalidNetwork;

    fn try_from(text: String) -> Result<Self, InvalidNetwork> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

/// Shortest prefix of an IPv4 network.
const IPV4_PREFIX_MIN: u8 = 8;
/// Shortest prefix of an IPv6 network.
const IPV6_PREFIX_MIN: u8 = 7;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn within(network: &str, address: &str) -> bool {
        network.parse::<Network>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn an_address_is_in_the_network_whose_prefix_it_has() {
        assert!(within("192.0.2.0/24", "192.0.2.255"));
        assert!(!within("192.0.2.0/24", "192.0.3.0"));
        assert!(within("192.0.2.0/24", "::ffff:192.0.2.7"));
        assert!(within("192.0.2.7/32", "192.0.2.7") && !within("192.0.2.7/32", "192.0.2.6"));
        assert!(within("10.0.0.0/8", "10.255.0.1") && !within("10.0.0.0/8", "11.0.0.1"));
        assert!(within("fc00::/7", "fdff::1") && !within("fc00::/7", "fe80::1"));
        assert!(within("2001:db8::/32", "2001:db8:ffff::1") && !within("2001:db8::/32", "2001:db9::1"));
        assert!(!within("2001:db8::/32", "192.0.2.1"));
    }

    #[test]
    fn everybody_is_no_network_nor_is_a_share_of_everybody() {
        for text in
            ["0.0.0.0/1", "128.0.0.0/1", "192.0.0.0/2", "10.0.0.0/7", "::/1", "8000::/1", "2000::/3", "fc00::/6"]
        {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        for text in ["0.0.0.0/0", "::/0", "192.0.2.1/24", "192.0.2.0", "192.0.2.0/33", "a/8", "192.0.2.0/-1"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
