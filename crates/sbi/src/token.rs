//! Access tokens of the 5G core: JSON Web Tokens (RFC 7519) signed with ES256, as TS 29.510 clause 6.3.5.2.4 and
//! TS 33.501 clause 13.4.1 have them.
//!
//! [`TokenSigner`] is an authorization server's key, [`TokenKeys`] what a verifier trusts, [`AccessTokenClaims`] what a
//! token of the NRF says. Verification here is of form, algorithm, key and signature; what the claims entitle to is
//! [`crate::authorization`]'s business.
//!
//! Only `ES256` is known. No key is ever taken from a token: one that brings a key, or says where to fetch one, is
//! refused, as is one with critical extensions (RFC 8725 clauses 3.1, 3.10).
//!
//! ```
//! use sbi::token::{TokenError, TokenKeys, TokenSigner};
//!
//! let signer = TokenSigner::from_pem(TokenSigner::generate_pem()?.as_bytes())?;
//! let token = signer.sign(&serde_json::json!({"sub": "somebody"}))?;
//! let keys = TokenKeys::from_jwks(signer.jwks().to_string().as_bytes())?;
//! assert_eq!(keys.verify::<serde_json::Value>(&token)?["sub"], "somebody");
//!
//! let other = TokenSigner::from_pem(TokenSigner::generate_pem()?.as_bytes())?;
//! assert!(TokenKeys::from_jwks(other.jwks().to_string().as_bytes())?.verify::<serde_json::Value>(&token).is_err());
//! # Ok::<(), TokenError>(())
//! ```

mod claims;
mod header;
mod keys;
mod provider;
mod signer;

use std::path::PathBuf;

use thiserror::Error;

pub use claims::{AccessTokenClaims, Audience, PlmnId, PlmnIdNid, Snssai};
pub use keys::TokenKeys;
pub use signer::TokenSigner;

pub(crate) use header::JoseHeader;
pub(crate) use keys::PublicKey;

/// Octets of a token, or of an assertion without its certificates; a longer one is refused unread.
pub const TOKEN_BYTES_MAX: usize = 8_192;
/// Keys of one [`TokenKeys`]; a file with more is refused.
pub const KEYS_MAX: usize = 16;

/// Why a token was refused, or a key cannot be used. None holds anything of the token or of a private key.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Longer than [`TOKEN_BYTES_MAX`].
    #[error("the token is longer than {TOKEN_BYTES_MAX} octets")]
    TooLong,
    /// Not three base64url parts, or its header is no JSON object that means something.
    #[error("not a signed JSON Web Token")]
    Malformed,
    /// Its algorithm is not ES256: an authorization server of another profile, or somebody trying `none` or HMAC.
    #[error("the token's algorithm is not ES256")]
    Algorithm,
    /// It brings its own key (`jwk`, `x5c`), or says where to fetch one (`jku`, `x5u`).
    #[error("the token names its own key")]
    KeyInToken,
    /// It has critical extensions (`crit`), of which none is understood here, or is of a type that is no token.
    #[error("the token has critical extensions, or is of another type")]
    Extension,
    /// Its `kid` is of no trusted key: a rotated key that is not known here yet, or a stranger's.
    #[error("the token's key is not trusted")]
    UnknownKey,
    /// The signature does not verify: the token was changed, or is another's.
    #[error("the token's signature is wrong")]
    Signature,
    /// The signature is right, but the claims are not what they should be, or a claim is there twice.
    #[error("the token's claims cannot be read")]
    Claims,
    /// The certificates of an assertion lead to no trusted authority, or name another NF instance.
    #[error("the certificate of the assertion is not trusted")]
    Certificate,
    /// The file is missing or may not be read by this user.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file named in the configuration.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Not a P-256 key in the form expected, none at all, or more than [`KEYS_MAX`]; or two with one `kid`.
    #[error("no usable P-256 key: {0}")]
    Key(&'static str),
    /// The claims could not be coded, or OpenSSL did not sign.
    #[error("the token could not be signed")]
    NotSigned,
}

impl TokenError {
    /// The refusal in one word, for audit events and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLong => "token_too_long",
            Self::Malformed => "token_malformed",
            Self::Algorithm => "token_algorithm",
            Self::KeyInToken => "token_brings_key",
            Self::Extension => "token_extension",
            Self::UnknownKey => "token_key_unknown",
            Self::Signature => "token_signature",
            Self::Claims => "token_claims",
            Self::Certificate => "assertion_certificate",
            Self::Unreadable { .. } | Self::Key(_) => "no_key",
            Self::NotSigned => "not_signed",
        }
    }
}
