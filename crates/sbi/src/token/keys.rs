//! The public keys that a verifier trusts.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use openssl::bn::BigNumContext;
use openssl::ec::PointConversionForm;
use openssl::nid::Nid;
use openssl::pkey::{HasPublic, PKey, PKeyRef};
use openssl::sha::sha256;
use openssl::x509::X509;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{JoseHeader, KEYS_MAX, TokenError, provider};

/// Public keys of one or more authorization servers, at most [`KEYS_MAX`], each under its `kid`.
#[derive(Debug, Clone)]
pub struct TokenKeys {
    keys: Vec<NamedKey>,
}

#[derive(Debug, Clone)]
struct NamedKey {
    kid: String,
    key: PublicKey,
}

impl TokenKeys {
    /// The keys of a JSON Web Key Set (RFC 7517 clause 5).
    ///
    /// Taken are those that can verify ES256: `kty` EC, `crv` P-256, `use` and `alg` absent or right. Others are passed
    /// over. A key without `kid` goes by its thumbprint (RFC 7638).
    ///
    /// # Errors
    /// [`TokenError::Key`] when no key is left, there are too many, or two have one `kid`.
    pub fn from_jwks(json: &[u8]) -> Result<Self, TokenError> {
        let set: KeySet = serde_json::from_slice(json).map_err(|_| TokenError::Key("not a JSON Web Key Set"))?;
        let keys = set.keys.into_iter().filter_map(|value| serde_json::from_value::<WebKey>(value).ok());
        let keys: Vec<_> = keys.filter(WebKey::verifies_es256).take(KEYS_MAX + 1).collect();
        keys.into_iter().map(WebKey::named).collect::<Result<Vec<_>, _>>().and_then(Self::new)
    }

    /// The keys of a PEM file: public keys, or certificates whose keys are meant; validity and issuers of such
    /// certificates are not looked at. Each goes by its thumbprint (RFC 7638).
    ///
    /// # Errors
    /// [`TokenError::Key`] when a block is no P-256 key, there is none, or there are too many.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TokenError> {
        let text = std::str::from_utf8(pem).map_err(|_| TokenError::Key("not PEM"))?;
        let blocks = text.split(BEGIN).skip(1).take(KEYS_MAX + 1);
        let keys = blocks.map(|block| {
            let key = PublicKey::from_pem_block(&format!("{BEGIN}{block}"))?;
            Ok(NamedKey { kid: key.thumbprint(), key })
        });
        keys.collect::<Result<Vec<_>, _>>().and_then(Self::new)
    }

    /// The keys of a file in either form.
    ///
    /// # Errors
    /// [`TokenError::Unreadable`], or as [`TokenKeys::from_jwks`] and [`TokenKeys::from_pem`].
    pub fn from_file(path: &Path) -> Result<Self, TokenError> {
        let octets = std::fs::read(path).map_err(|source| TokenError::Unreadable { path: path.to_owned(), source })?;
        if octets.trim_ascii_start().starts_with(b"{") { Self::from_jwks(&octets) } else { Self::from_pem(&octets) }
    }

    /// The claims of a token that one of these keys has signed. None of them is checked.
    ///
    /// A token with a `kid` must be signed by the key of that name; one without, by any of the keys.
    ///
    /// # Errors
    /// Any [`TokenError`] about tokens.
    pub fn verify<T: DeserializeOwned>(&self, token: &str) -> Result<T, TokenError> {
        let header = JoseHeader::of_token(token)?;
        let candidates = self.keys.iter().filter(|named| header.kid.as_ref().is_none_or(|kid| *kid == named.kid));
        let mut refusal = TokenError::UnknownKey;
        for candidate in candidates {
            match candidate.key.claims(token) {
                Err(TokenError::Signature) => refusal = TokenError::Signature,
                verdict => return verdict,
            }
        }
        Err(refusal)
    }

    fn new(keys: Vec<NamedKey>) -> Result<Self, TokenError> {
        if keys.is_empty() {
            return Err(TokenError::Key("there is none"));
        }
        if keys.len() > KEYS_MAX {
            return Err(TokenError::Key("there are too many"));
        }
        let twice = |at: usize, named: &NamedKey| keys.iter().skip(at + 1).any(|other| other.kid == named.kid);
        if keys.iter().enumerate().any(|(at, named)| twice(at, named)) {
            return Err(TokenError::Key("two have the same name"));
        }
        provider::install();
        Ok(Self { keys })
    }
}

/// A P-256 key that verifies.
#[derive(Debug, Clone)]
pub(crate) struct PublicKey {
    key: DecodingKey,
    x: [u8; 32],
    y: [u8; 32],
}

impl PublicKey {
    fn from_coordinates(x: [u8; 32], y: [u8; 32]) -> Result<Self, TokenError> {
        let sec1 = [&[0x04][..], &x, &y].concat();
        provider::point(&sec1).map_err(|_| TokenError::Key("the point is not on the curve"))?;
        Ok(Self { key: DecodingKey::from_ec_der(&sec1), x, y })
    }

    pub(crate) fn from_openssl<T: HasPublic>(key: &PKeyRef<T>) -> Result<Self, TokenError> {
        const NOT_P256: TokenError = TokenError::Key("not on P-256");
        let key = key.ec_key().map_err(|_| NOT_P256)?;
        if key.group().curve_name() != Some(Nid::X9_62_PRIME256V1) {
            return Err(NOT_P256);
        }
        let octets = BigNumContext::new()
            .and_then(|mut context| {
                key.public_key().to_bytes(key.group(), PointConversionForm::UNCOMPRESSED, &mut context)
            })
            .map_err(|_| NOT_P256)?;
        match octets.as_slice() {
            [0x04, coordinates @ ..] if coordinates.len() == 64 => {
                let (x, y) = coordinates.split_at(32);
                Self::from_coordinates(x.try_into().map_err(|_| NOT_P256)?, y.try_into().map_err(|_| NOT_P256)?)
            }
            _ => Err(NOT_P256),
        }
    }

    fn from_pem_block(block: &str) -> Result<Self, TokenError> {
        if block.contains("PRIVATE KEY") {
            return Err(TokenError::Key("a private key where a public one belongs"));
        }
        let key = if block.starts_with(BEGIN_CERTIFICATE) {
            X509::from_pem(block.as_bytes()).and_then(|certificate| certificate.public_key())
        } else {
            PKey::public_key_from_pem(block.as_bytes())
        };
        Self::from_openssl(&*key.map_err(|_| TokenError::Key("not a PEM public key or certificate"))?)
    }

    /// The claims, if this key has signed them. The header must have been looked at before.
    pub(crate) fn claims<T: DeserializeOwned>(&self, token: &str) -> Result<T, TokenError> {
        provider::install();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        let decoded = jsonwebtoken::decode(token, &self.key, &validation);
        decoded.map(|data| data.claims).map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature | ErrorKind::Base64(_) => TokenError::Signature,
            _ => TokenError::Claims,
        })
    }

    /// RFC 7638: SHA-256 of the required members in their order, in base64url.
    pub(crate) fn thumbprint(&self) -> String {
        let (x, y) = self.coordinates();
        URL_SAFE_NO_PAD.encode(sha256(format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#).as_bytes()))
    }

    /// The coordinates as JWK members.
    pub(crate) fn coordinates(&self) -> (String, String) {
        (URL_SAFE_NO_PAD.encode(self.x), URL_SAFE_NO_PAD.encode(self.y))
    }
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct WebKey {
    kty: String,
    crv: String,
    x: String,
    y: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default, rename = "use")]
    used_for: Option<String>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default)]
    d: Option<serde::de::IgnoredAny>,
}

impl WebKey {
    fn verifies_es256(&self) -> bool {
        self.kty == "EC"
            && self.crv == "P-256"
            && self.used_for.as_deref().is_none_or(|used_for| used_for == "sig")
            && self.alg.as_deref().is_none_or(|alg| alg == "ES256")
    }

    fn named(self) -> Result<NamedKey, TokenError> {
        if self.d.is_some() {
            return Err(TokenError::Key("a private key where a public one belongs"));
        }
        let octets = |text: &str| URL_SAFE_NO_PAD.decode(text).ok().and_then(|octets| octets.try_into().ok());
        let (Some(x), Some(y)) = (octets(&self.x), octets(&self.y)) else {
            return Err(TokenError::Key("a coordinate is not 32 octets in base64url"));
        };
        let key = PublicKey::from_coordinates(x, y)?;
        Ok(NamedKey { kid: self.kid.unwrap_or_else(|| key.thumbprint()), key })
    }
}

const BEGIN: &str = "-----BEGIN ";
const BEGIN_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
