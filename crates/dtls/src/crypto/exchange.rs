//! The ephemeral key exchange on X25519 and P-256.

use aws_lc_rs::agreement::{self, ECDH_P256, PrivateKey, UnparsedPublicKey, X25519};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::suite::Group;

/// Our half of an exchange.
pub(crate) struct KeyShare {
    group: Group,
    private: PrivateKey,
    public: Vec<u8>,
}

impl KeyShare {
    pub(crate) fn generate(group: Group) -> Result<Self, Error> {
        let private = PrivateKey::generate(algorithm(group)).map_err(|_| Error::Random)?;
        let public = private.compute_public_key().map_err(|_| Error::Random)?.as_ref().to_vec();
        Ok(Self { group, private, public })
    }

    pub(crate) fn group(&self) -> Group {
        self.group
    }

    /// 32 octets, or an uncompressed point of 65.
    pub(crate) fn public(&self) -> &[u8] {
        &self.public
    }

    /// The shared secret with the peer's public key, which is checked: a point not on the curve, or one whose secret is
    /// all zeros (RFC 8422 5.11), is refused.
    pub(crate) fn agree(&self, peer: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let octets = match self.group {
            Group::X25519 => 32,
            Group::P256 => 65,
        };
        // Only what was negotiated: the uncompressed form.
        if peer.len() != octets || (self.group == Group::P256 && peer.first() != Some(&4)) {
            return Err(Error::PublicKey);
        }
        let peer = UnparsedPublicKey::new(algorithm(self.group), peer);
        agreement::agree(&self.private, peer, Error::PublicKey, |secret| Ok(Zeroizing::new(secret.to_vec())))
    }
}

fn algorithm(group: Group) -> &'static agreement::Algorithm {
    match group {
        Group::X25519 => &X25519,
        Group::P256 => &ECDH_P256,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn both_sides_agree_on_each_group() {
        for group in Group::ALL {
            let (left, right) = (KeyShare::generate(group).unwrap(), KeyShare::generate(group).unwrap());
            assert_eq!(left.agree(right.public()).unwrap(), right.agree(left.public()).unwrap());
        }
    }

    #[test]
    fn bad_points_are_refused() {
        let x25519 = KeyShare::generate(Group::X25519).unwrap();
        let mut low_order = [0; 32];
        assert_eq!(x25519.agree(&low_order).unwrap_err(), Error::PublicKey);
        low_order[0] = 1;
        assert_eq!(x25519.agree(&low_order).unwrap_err(), Error::PublicKey);
        assert_eq!(x25519.agree(&[9; 31]).unwrap_err(), Error::PublicKey);

        let p256 = KeyShare::generate(Group::P256).unwrap();
        let mut point = KeyShare::generate(Group::P256).unwrap().public().to_vec();
        *point.last_mut().unwrap() ^= 1;
        assert_eq!(p256.agree(&point).unwrap_err(), Error::PublicKey);
        assert_eq!(p256.agree(&[0]).unwrap_err(), Error::PublicKey);
        let mut compressed = vec![2];
        compressed.extend_from_slice(&p256.public()[1..33]);
        assert_eq!(p256.agree(&compressed).unwrap_err(), Error::PublicKey);
    }
}
