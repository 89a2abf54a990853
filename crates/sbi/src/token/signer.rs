//! The key of an authorization server.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::PKey;
use serde::Serialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::{PublicKey, TokenError, provider};

/// A P-256 private key that signs tokens with ES256. It zeroizes on drop and prints nothing of itself.
#[derive(Debug, Clone)]
pub struct TokenSigner {
    key: EncodingKey,
    public: PublicKey,
    key_id: String,
}

impl TokenSigner {
    /// A new key as PEM, PKCS#8.
    ///
    /// # Errors
    /// [`TokenError::Key`] when OpenSSL has no randomness or memory.
    pub fn generate_pem() -> Result<String, TokenError> {
        let generated = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)
            .and_then(|group| EcKey::generate(&group))
            .and_then(PKey::from_ec_key)
            .and_then(|key| key.private_key_to_pem_pkcs8());
        let pem = generated.map_err(|_| TokenError::Key("it cannot be generated"))?;
        String::from_utf8(pem).map_err(|_| TokenError::Key("it cannot be generated"))
    }

    /// The key in PEM, PKCS#8 or SEC 1.
    ///
    /// # Errors
    /// [`TokenError::Key`] when it is not an unencrypted private key on P-256.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TokenError> {
        let key = PKey::private_key_from_pem(pem).map_err(|_| TokenError::Key("not a PEM private key"))?;
        let public = PublicKey::from_openssl(&*key)?;
        let der = Zeroizing::new(key.private_key_to_pkcs8().map_err(|_| TokenError::Key("not a PEM private key"))?);
        provider::install();
        Ok(Self { key: EncodingKey::from_ec_der(&der), key_id: public.thumbprint(), public })
    }

    /// The `kid` of the tokens: the key's thumbprint (RFC 7638).
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The public key as a JSON Web Key Set (RFC 7517).
    #[must_use]
    pub fn jwks(&self) -> serde_json::Value {
        let (x, y) = self.public.coordinates();
        json!({"keys": [
            {"kty": "EC", "crv": "P-256", "x": x, "y": y, "use": "sig", "alg": "ES256", "kid": self.key_id}
        ]})
    }

    /// A token with these claims, in compact serialisation (RFC 7515 clause 7.1).
    ///
    /// # Errors
    /// [`TokenError::NotSigned`].
    pub fn sign<T: Serialize>(&self, claims: &T) -> Result<String, TokenError> {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.key_id.clone());
        jsonwebtoken::encode(&header, claims, &self.key).map_err(|_| TokenError::NotSigned)
    }

    /// The same for a client credentials assertion (TS 33.501 clause 13.3.8): the header carries the certificates, DER,
    /// the signer's first, in place of a `kid`.
    ///
    /// # Errors
    /// [`TokenError::NotSigned`].
    pub fn sign_with_certificates<T: Serialize>(
        &self,
        claims: &T,
        certificates: &[Vec<u8>],
    ) -> Result<String, TokenError> {
        use base64::Engine;
        let mut header = Header::new(Algorithm::ES256);
        let encode = |der: &Vec<u8>| base64::engine::general_purpose::STANDARD.encode(der);
        header.x5c = Some(certificates.iter().map(encode).collect());
        jsonwebtoken::encode(&header, claims, &self.key).map_err(|_| TokenError::NotSigned)
    }
}
