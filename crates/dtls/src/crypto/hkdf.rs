//! HKDF with SHA-256 and the labels of TLS 1.3 (RFC 5869, RFC 8446 7.1, RFC 9147 5.9).

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use crate::codec::{put_u16, put_vector8};
use crate::error::Error;

/// Octets of every secret and hash here.
pub(crate) const HASH_OCTETS: usize = 32;

/// What goes before each label, so that no secret of one protocol is one of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Labels {
    Dtls13,
    /// For the examples of RFC 8448.
    #[cfg(test)]
    Tls13,
}

impl Labels {
    fn prefix(self) -> &'static [u8] {
        match self {
            Self::Dtls13 => b"dtls13",
            #[cfg(test)]
            Self::Tls13 => b"tls13 ",
        }
    }
}

/// A secret that stays in one place on the heap and is wiped there.
pub(crate) type Secret = Box<Zeroizing<[u8; HASH_OCTETS]>>;

/// HKDF-Extract, which is HMAC. The library's own keeps the salt, which is a secret here, on the heap and does not wipe it.
pub(crate) fn extract(salt: &[u8], input: &[u8]) -> Secret {
    let mut secret = Secret::default();
    let code = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, salt), input);
    for (to, from) in secret.iter_mut().zip(code.as_ref()) {
        *to = *from;
    }
    secret
}

/// A secret as a key of HKDF-Expand, made for one use: it is wiped when dropped, but not where it was moved from.
pub(crate) fn expandable(secret: &[u8]) -> Prk {
    Prk::new_less_safe(HKDF_SHA256, secret)
}

/// HKDF-Expand-Label, as long as `out`.
pub(crate) fn expand_label(
    secret: &Prk,
    labels: Labels,
    label: &[u8],
    context: &[u8],
    out: &mut [u8],
) -> Result<(), Error> {
    let mut info = Vec::with_capacity(4 + labels.prefix().len() + label.len() + context.len());
    put_u16(&mut info, u16::try_from(out.len()).map_err(|_| Error::Cryptography)?);
    put_vector8(&mut info, &[labels.prefix(), label].concat());
    put_vector8(&mut info, context);
    let info = [info.as_slice()];
    secret.expand(&info, Octets(out.len())).and_then(|okm| okm.fill(out)).map_err(|_| Error::Cryptography)
}

struct Octets(usize);

impl KeyType for Octets {
    fn len(&self) -> usize {
        self.0
    }
}
