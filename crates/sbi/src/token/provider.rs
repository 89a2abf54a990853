//! `jsonwebtoken`'s signing and verifying, done by OpenSSL: ES256 and nothing else.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{self, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey};
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::ecdsa::EcdsaSig;
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private, Public};
use openssl::sha::sha256;

/// Gives `jsonwebtoken` its cryptography. To be called before it is used; more than once does no harm.
pub(super) fn install() {
    // Only an earlier call of ours can have been first: nothing else here uses the crate.
    let _ = PROVIDER.install_default();
}

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| match (algorithm, key.family()) {
        (Algorithm::ES256, AlgorithmFamily::Ec) => Ok(Box::new(Es256Signer(private_key(key)?))),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    },
    verifier_factory: |algorithm, key| match (algorithm, key.family()) {
        (Algorithm::ES256, AlgorithmFamily::Ec) => Ok(Box::new(Es256Verifier(public_key(key)?))),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    },
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key: |_| Err(ErrorKind::InvalidAlgorithm.into()),
        rsa_pub_components_from_public_key: |_| Err(ErrorKind::InvalidAlgorithm.into()),
        ec_pub_components_from_private_key: |_, _| Err(ErrorKind::InvalidAlgorithm.into()),
        ed_pub_components_from_private_key: |_, _| Err(ErrorKind::InvalidAlgorithm.into()),
        compute_digest: |_, _| Err(ErrorKind::InvalidAlgorithm.into()),
    },
};

struct Es256Signer(EcKey<Private>);

impl Signer<Vec<u8>> for Es256Signer {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        signed(message, &self.0).map_err(signature::Error::from_source)
    }
}

impl JwtSigner for Es256Signer {
    fn algorithm(&self) -> Algorithm {
        Algorithm::ES256
    }
}

struct Es256Verifier(EcKey<Public>);

impl Verifier<Vec<u8>> for Es256Verifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        match verified(message, signature, &self.0) {
            Ok(true) => Ok(()),
            _ => {
                forget_errors();
                Err(signature::Error::new())
            }
        }
    }
}

impl JwtVerifier for Es256Verifier {
    fn algorithm(&self) -> Algorithm {
        Algorithm::ES256
    }
}

fn private_key(key: &EncodingKey) -> Result<EcKey<Private>, Error> {
    PKey::private_key_from_pkcs8(key.as_bytes())
        .and_then(|key| key.ec_key())
        .map_err(|_| ErrorKind::InvalidEcdsaKey.into())
}

fn public_key(key: &DecodingKey) -> Result<EcKey<Public>, Error> {
    point(key.try_get_as_bytes()?).map_err(|_| ErrorKind::InvalidEcdsaKey.into())
}

/// Empties OpenSSL's error queue of this thread. What a refused signature or certificate leaves there, the next read on a
/// TLS connection of the same thread would take for its own fault, and close.
pub(crate) fn forget_errors() {
    drop(ErrorStack::get());
}

/// The key of an uncompressed point of P-256 (SEC 1 clause 2.3.4); OpenSSL refuses one that is not on the curve.
pub(super) fn point(sec1: &[u8]) -> Result<EcKey<Public>, ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let mut context = BigNumContext::new()?;
    let point = EcPoint::from_bytes(&group, sec1, &mut context)?;
    EcKey::from_public_key(&group, &point)
}

/// `R || S`, each in 32 octets (RFC 7518 clause 3.4).
fn signed(message: &[u8], key: &EcKey<Private>) -> Result<Vec<u8>, ErrorStack> {
    let signature = EcdsaSig::sign(&sha256(message), key)?;
    let mut octets = signature.r().to_vec_padded(32)?;
    octets.extend(signature.s().to_vec_padded(32)?);
    Ok(octets)
}

fn verified(message: &[u8], signature: &[u8], key: &EcKey<Public>) -> Result<bool, ErrorStack> {
    if signature.len() != 64 {
        return Ok(false);
    }
    let (r, s) = signature.split_at(32);
    EcdsaSig::from_private_components(BigNum::from_slice(r)?, BigNum::from_slice(s)?)?.verify(&sha256(message), key)
}
