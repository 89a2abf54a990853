//! The pseudorandom function of TLS 1.2 with SHA-256 (RFC 5246 5).

use aws_lc_rs::tls_prf::{P_SHA256, Secret};

use crate::error::Error;

/// `PRF(secret, label, seed)`, where `seed` is two parts one after the other, as long as `out`.
pub(crate) fn prf(secret: &[u8], label: &[u8], seed: (&[u8], &[u8]), out: &mut [u8]) -> Result<(), Error> {
    let derived = Secret::new(&P_SHA256, secret)
        .and_then(|secret| secret.derive_with_seed_concatination(label, seed.0, seed.1, out.len()))
        .map_err(|_| Error::Cryptography)?;
    out.copy_from_slice(derived.as_ref());
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::prf;

    /// The vector for SHA-256 that was published on the list of the IETF's TLS working group.
    #[test]
    fn the_published_vector_holds() {
        let secret = hex::decode("9bbe436ba940f017b17652849a71db35").unwrap();
        let seed = hex::decode("a0ba9f936cda311827a6f796ffd5198c").unwrap();
        let mut out = [0; 100];
        prf(&secret, b"test label", (&seed, &[]), &mut out).unwrap();
        assert_eq!(
            hex::encode(out),
            "e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a6b301791e90d35c9c9a46b4e14baf9af0fa022f7077def\
             17abfd3797c0564bab4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff70187347b66"
        );
    }

    #[test]
    fn a_seed_in_parts_is_the_seed() {
        let (mut whole, mut parts) = ([0; 48], [0; 48]);
        prf(b"secret", b"label", (b"abcdef", b""), &mut whole).unwrap();
        prf(b"secret", b"label", (b"ab", b"cdef"), &mut parts).unwrap();
        assert_eq!(whole, parts);
    }
}
