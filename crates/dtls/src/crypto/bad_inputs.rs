//! Bad inputs of the kinds that Project Wycheproof collects: what no peer may get past the primitives, tried at the
//! functions that the handshake and the records call.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::aead::{Aead, AeadKey, NONCE_OCTETS};
use super::exchange::KeyShare;
use crate::error::Error;
use crate::suite::Group;

const AEADS: [Aead; 4] = [Aead::Aes128Gcm, Aead::Aes128Ccm, Aead::Aes128Ccm8, Aead::Chacha20Poly1305];

/// Points of small order on Curve25519 and its twist, also with the bit set that RFC 7748 clause 5 masks, and in forms that
/// are not reduced: the secret would be all zeros whatever our key is.
const X25519_LOW_ORDER: [&str; 12] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b880",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f11d7",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
];

/// The prime of P-256, and its generator's coordinates.
const P256_PRIME: &str = "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff";
const P256_X: &str = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296";
const P256_Y: &str = "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";

fn octets(hex: &str) -> Vec<u8> {
    hex::decode(hex).unwrap()
}

#[test]
fn points_of_small_order_and_of_other_lengths_are_refused_on_x25519() {
    let ours = KeyShare::generate(Group::X25519).unwrap();
    for point in X25519_LOW_ORDER {
        assert_eq!(ours.agree(&octets(point)).unwrap_err(), Error::PublicKey, "{point}");
    }
    let good = KeyShare::generate(Group::X25519).unwrap().public().to_vec();
    for bad in [good[..31].to_vec(), [&good[..], &[0]].concat(), Vec::new()] {
        assert_eq!(ours.agree(&bad).unwrap_err(), Error::PublicKey, "{} octets", bad.len());
    }
}

#[test]
fn what_is_no_uncompressed_point_of_p_256_is_refused() {
    let ours = KeyShare::generate(Group::P256).unwrap();
    let point = |form: u8, x: &str, y: &str| [&[form], &octets(x)[..], &octets(y)].concat();
    let zero = "00".repeat(32);
    let good = point(4, P256_X, P256_Y);
    ours.agree(&good).unwrap();
    // On the curve y^2 = x^3 - 3x + b' for other b', which is how invalid curve attacks come.
    let mut off_the_curve = good.clone();
    off_the_curve[64] ^= 1;
    let cases = [
        ("at infinity", vec![0]),
        ("infinity in 65 octets", point(0, &zero, &zero)),
        ("zero and zero", point(4, &zero, &zero)),
        ("x is the prime", point(4, P256_PRIME, P256_Y)),
        ("y is the prime", point(4, P256_X, P256_PRIME)),
        ("all ones", point(4, &"ff".repeat(32), &"ff".repeat(32))),
        ("x and y exchanged", point(4, P256_Y, P256_X)),
        ("off the curve", off_the_curve),
        ("compressed", good[..33].to_vec()),
        ("compressed, named so", [&[3], &good[1..33]].concat()),
        ("hybrid", point(7, P256_X, P256_Y)),
        ("without its form", good[1..].to_vec()),
        ("an octet more", [&good[..], &[0]].concat()),
        ("nothing", Vec::new()),
    ];
    for (what, point) in cases {
        assert_eq!(ours.agree(&point).unwrap_err(), Error::PublicKey, "{what}");
    }
}

#[test]
fn a_single_changed_bit_anywhere_is_not_authentic() {
    for aead in AEADS {
        let key = AeadKey::new(aead, &[7; 32][..aead.key_octets()]).unwrap();
        for octets in [0, 1, 15, 16, 17, 33] {
            let (nonce, aad) = ([3; NONCE_OCTETS], [5; 13]);
            let mut sealed = vec![9; octets];
            key.seal(nonce, &aad, &mut sealed, 0).unwrap();
            assert_eq!(sealed.len(), octets + aead.tag_octets());
            let opens = |nonce, aad: &[u8], data: &[u8]| key.open(nonce, aad, &mut data.to_vec()).is_some();
            assert!(opens(nonce, &aad, &sealed));
            for bit in 0..sealed.len() * 8 {
                let mut changed = sealed.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(!opens(nonce, &aad, &changed), "{aead:?}: bit {bit} of {octets} octets");
            }
            for bit in 0..aad.len() * 8 {
                let mut changed = aad;
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(!opens(nonce, &changed, &sealed), "{aead:?}: bit {bit} of the additional data");
            }
            for bit in 0..NONCE_OCTETS * 8 {
                let mut changed = nonce;
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(!opens(changed, &aad, &sealed), "{aead:?}: bit {bit} of the nonce");
            }
        }
    }
}

#[test]
fn a_tag_that_is_cut_extended_or_of_one_value_throughout_is_not_authentic() {
    for aead in AEADS {
        let key = AeadKey::new(aead, &[7; 32][..aead.key_octets()]).unwrap();
        let mut sealed = b"measured".to_vec();
        key.seal([3; NONCE_OCTETS], &[], &mut sealed, 0).unwrap();
        let opens = |data: &[u8]| key.open([3; NONCE_OCTETS], &[], &mut data.to_vec()).is_some();
        for length in 0..sealed.len() {
            assert!(!opens(&sealed[..length]), "{aead:?}: {length} octets");
        }
        assert!(!opens(&[&sealed[..], &[0]].concat()));
        for value in [0, 0xff] {
            let tag = vec![value; aead.tag_octets()];
            assert!(!opens(&[&sealed[..8], &tag].concat()), "{aead:?}: a tag of {value:#x}");
        }
    }
}

#[test]
fn keys_of_other_lengths_make_no_key() {
    for aead in AEADS {
        for length in [0, 1, 15, 16, 17, 24, 31, 32, 33].into_iter().filter(|length| *length != aead.key_octets()) {
            assert!(AeadKey::new(aead, &[7; 33][..length]).is_none(), "{aead:?}: {length} octets");
        }
    }
}

/// RFC 8439 clause 2.8.2.
#[test]
fn the_example_of_chacha20_poly1305_in_rfc_8439_holds() {
    let key = AeadKey::new(Aead::Chacha20Poly1305, &(0x80..0xa0).collect::<Vec<u8>>()).unwrap();
    let nonce: [u8; NONCE_OCTETS] = octets("070000004041424344454647").try_into().unwrap();
    let text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
    let mut sealed = text.to_vec();
    key.seal(nonce, &octets("50515253c0c1c2c3c4c5c6c7"), &mut sealed, 0).unwrap();
    assert_eq!(sealed[..16], octets("d31a8d34648e60db7b86afbc53ef7ec2"));
    assert_eq!(sealed[text.len()..], octets("1ae10b594f09e26a7e902ecbd0600691"));
}
