//! Types that several APIs share (TS 29.571).

use std::fmt;
use std::str::FromStr;

use akma::Supi;
use serde::{Deserialize, Serialize};

/// A SUPI, or a SUCI that still has to be de-concealed (TS 29.571 SupiOrSuci), as its text.
///
/// Not printed: a SUCI of the null scheme is as good as a SUPI.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SupiOrSuci(String);

impl SupiOrSuci {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a SUCI.
    #[must_use]
    pub fn is_suci(&self) -> bool {
        self.0.starts_with(SUCI_PREFIX)
    }

    /// The SUPI, unless it is a SUCI.
    #[must_use]
    pub fn supi(&self) -> Option<Supi> {
        self.0.parse().ok()
    }
}

impl FromStr for SupiOrSuci {
    type Err = InvalidSupiOrSuci;

    fn from_str(text: &str) -> Result<Self, InvalidSupiOrSuci> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for SupiOrSuci {
    type Error = InvalidSupiOrSuci;

    fn try_from(text: String) -> Result<Self, InvalidSupiOrSuci> {
        let suci = text.starts_with(SUCI_PREFIX)
            && text.len() <= SUCI_OCTETS_MAX
            && !text.chars().any(|character| character.is_control() || character.is_whitespace());
        if suci || text.parse::<Supi>().is_ok() { Ok(Self(text)) } else { Err(InvalidSupiOrSuci) }
    }
}

impl From<SupiOrSuci> for String {
    fn from(value: SupiOrSuci) -> Self {
        value.0
    }
}

impl From<Supi> for SupiOrSuci {
    fn from(supi: Supi) -> Self {
        Self(supi.as_str().to_owned())
    }
}

impl fmt::Debug for SupiOrSuci {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_suci() { "Suci(redacted)" } else { "Supi(redacted)" })
    }
}

/// The text is neither a SUPI nor a SUCI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither a SUPI nor a SUCI")]
pub struct InvalidSupiOrSuci;

/// How a UE is authenticated (TS 29.503 AuthType, TS 29.509 AuthType).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AuthType {
    /// 5G AKA (TS 33.501 clause 6.1.3.2).
    #[serde(rename = "5G_AKA")]
    FiveGAka,
    /// EAP-AKA' (TS 33.501 clause 6.1.3.1).
    #[serde(rename = "EAP_AKA_PRIME")]
    EapAkaPrime,
    /// A method of the open enumeration that this implementation does not speak.
    #[serde(untagged)]
    Other(String),
}

/// A link to a resource (TS 29.571 Link).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Where it leads: an absolute URI, or a path on the same server.
    pub href: String,
}

const SUCI_PREFIX: &str = "suci-";
/// Profile B of a long NAI in hexadecimal stays well below.
const SUCI_OCTETS_MAX: usize = 2048;
