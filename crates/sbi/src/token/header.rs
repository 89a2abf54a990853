//! The header of a token (RFC 7515 clause 4), read before anything else is done with it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{TOKEN_BYTES_MAX, TokenError};

/// What of the header matters. A member twice is an error; members that are not listed mean nothing.
#[derive(Deserialize)]
pub(crate) struct JoseHeader {
    alg: String,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default)]
    pub(crate) kid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    jwk: bool,
    #[serde(default, deserialize_with = "present")]
    jku: bool,
    #[serde(default, deserialize_with = "present")]
    x5u: bool,
    /// Standard base64 of DER, the signer's certificate first (RFC 7515 clause 4.1.6).
    #[serde(default)]
    pub(crate) x5c: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    crit: bool,
    #[serde(default, deserialize_with = "present")]
    enc: bool,
    #[serde(default, deserialize_with = "present")]
    zip: bool,
    #[serde(default, deserialize_with = "present")]
    b64: bool,
}

impl JoseHeader {
    /// The header of an access token.
    pub(crate) fn of_token(token: &str) -> Result<Self, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let header = Self::read(token)?;
        if header.x5c.is_some() { Err(TokenError::KeyInToken) } else { Ok(header) }
    }

    /// The header of whatever is signed, `x5c` allowed; its length is the caller's business.
    pub(crate) fn read(token: &str) -> Result<Self, TokenError> {
        let mut parts = token.split('.');
        let (Some(header), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(TokenError::Malformed);
        };
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| TokenError::Malformed)?;
        let header: Self = serde_json::from_slice(&header).map_err(|_| TokenError::Malformed)?;
        header.check().map(|()| header)
    }

    fn check(&self) -> Result<(), TokenError> {
        let typ = self.typ.as_deref().map(|typ| typ.strip_prefix("application/").unwrap_or(typ));
        let of_known_type = typ.is_none_or(|typ| TYPES.iter().any(|known| typ.eq_ignore_ascii_case(known)));
        if self.alg != "ES256" {
            Err(TokenError::Algorithm)
        } else if self.jwk || self.jku || self.x5u {
            Err(TokenError::KeyInToken)
        } else if self.crit || self.enc || self.zip || self.b64 || !of_known_type {
            Err(TokenError::Extension)
        } else {
            Ok(())
        }
    }
}

/// A member whose presence is enough to know.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// RFC 7519 clause 5.1 and RFC 9068 clause 2.1.
const TYPES: [&str; 2] = ["JWT", "at+jwt"];
