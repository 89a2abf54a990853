//! The public key that an invoker or a provider function comes with.
//!
//! TS 29.222 has it as a string without a form. Taken are, in PEM: a SubjectPublicKeyInfo (`PUBLIC KEY`), or a certificate
//! signing request (`CERTIFICATE REQUEST`, PKCS #10), which proves besides that its sender holds the private key; of a request
//! only the key is taken over, never a name.

use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Public};
use openssl::x509::X509Req;

/// A key that is fit for a certificate: EC P-256 or P-384, RSA of 2048 to 8192 bits, Ed25519.
#[derive(Debug, Clone)]
pub struct SubjectKey(pub(crate) PKey<Public>);

/// Why a text is no such key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSubjectKey {
    /// Neither form, or longer than 16 KiB.
    #[error("neither a PEM public key nor a PEM certificate signing request")]
    Form,
    /// The request's signature is not by its key.
    #[error("the certificate signing request is not signed by its key")]
    Signature,
    /// Of another kind, or too weak.
    #[error("not EC P-256 or P-384, RSA of 2048 to 8192 bits, or Ed25519")]
    Kind,
}

impl SubjectKey {
    /// Reads either form.
    ///
    /// # Errors
    /// [`InvalidSubjectKey`].
    pub fn parse(text: &str) -> Result<Self, InvalidSubjectKey> {
        let text = text.trim();
        if text.len() > TEXT_OCTETS_MAX {
            return Err(InvalidSubjectKey::Form);
        }
        let key = if text.starts_with(REQUEST) || text.starts_with(NEW_REQUEST) {
            let request = X509Req::from_pem(text.as_bytes()).map_err(|_| InvalidSubjectKey::Form)?;
            let key = request.public_key().map_err(|_| InvalidSubjectKey::Kind)?;
            // Before the signature: a huge key makes its check dear.
            if !is_fit(&key) {
                return Err(InvalidSubjectKey::Kind);
            }
            if !request.verify(&key).unwrap_or(false) {
                return Err(InvalidSubjectKey::Signature);
            }
            key
        } else if text.starts_with(PUBLIC_KEY) {
            PKey::public_key_from_pem(text.as_bytes()).map_err(|_| InvalidSubjectKey::Form)?
        } else {
            return Err(InvalidSubjectKey::Form);
        };
        if is_fit(&key) { Ok(Self(key)) } else { Err(InvalidSubjectKey::Kind) }
    }
}

fn is_fit(key: &PKey<Public>) -> bool {
    match key.id() {
        Id::EC => key.ec_key().is_ok_and(|key| {
            let named = matches!(key.group().curve_name(), Some(Nid::X9_62_PRIME256V1 | Nid::SECP384R1));
            named && key.check_key().is_ok()
        }),
        Id::RSA => (2_048..=8_192).contains(&key.bits()),
        Id::ED25519 => true,
        _ => false,
    }
}

const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----";
const REQUEST: &str = "-----BEGIN CERTIFICATE REQUEST-----";
const NEW_REQUEST: &str = "-----BEGIN NEW CERTIFICATE REQUEST-----";
/// RSA of 8192 bits in a request with some attributes takes about 4 KiB.
const TEXT_OCTETS_MAX: usize = 16_384;

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use openssl::ec::{EcGroup, EcKey};
    use openssl::hash::MessageDigest;
    use openssl::pkey::Private;
    use openssl::rsa::Rsa;
    use openssl::x509::X509ReqBuilder;
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn ec(curve: Nid) -> PKey<Private> {
        PKey::from_ec_key(EcKey::generate(&EcGroup::from_curve_name(curve).unwrap()).unwrap()).unwrap()
    }

    fn public(key: &PKey<Private>) -> String {
        String::from_utf8(key.public_key_to_pem().unwrap()).unwrap()
    }

    fn request(key: &PKey<Private>, signer: &PKey<Private>) -> String {
        let mut builder = X509ReqBuilder::new().unwrap();
        builder.set_pubkey(key).unwrap();
        builder.sign(signer, MessageDigest::sha256()).unwrap();
        String::from_utf8(builder.build().to_pem().unwrap()).unwrap()
    }

    #[test]
    fn a_fit_key_is_taken_in_either_form() {
        for key in
            [ec(Nid::X9_62_PRIME256V1), ec(Nid::SECP384R1), PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap()]
        {
            assert!(SubjectKey::parse(&public(&key)).unwrap().0.public_eq(&key));
            assert!(SubjectKey::parse(&request(&key, &key)).unwrap().0.public_eq(&key));
        }
        assert!(SubjectKey::parse(&public(&PKey::generate_ed25519().unwrap())).is_ok());
    }

    #[test]
    fn a_weak_key_a_request_of_another_and_a_private_key_are_refused() {
        let (key, other) = (ec(Nid::X9_62_PRIME256V1), ec(Nid::X9_62_PRIME256V1));
        let refused = |text: &str| SubjectKey::parse(text).unwrap_err();
        assert_eq!(refused(&public(&ec(Nid::SECP256K1))), InvalidSubjectKey::Kind);
        assert_eq!(refused(&public(&PKey::from_rsa(Rsa::generate(1024).unwrap()).unwrap())), InvalidSubjectKey::Kind);
        assert_eq!(refused(&request(&key, &other)), InvalidSubjectKey::Signature);
        let private = String::from_utf8(key.private_key_to_pem_pkcs8().unwrap()).unwrap();
        assert_eq!(refused(&private), InvalidSubjectKey::Form);
        assert_eq!(refused(""), InvalidSubjectKey::Form);
        assert_eq!(refused(&"-----BEGIN PUBLIC KEY-----".repeat(1_000)), InvalidSubjectKey::Form);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_text_makes_the_parser_panic(
            label in prop_oneof![Just("PUBLIC KEY"), Just("CERTIFICATE REQUEST")],
            octets in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            let body = openssl::base64::encode_block(&octets);
            let _ = SubjectKey::parse(&format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n"));
        }
    }
}
