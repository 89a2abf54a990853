//! From the pre-shared key to the traffic secrets (RFC 8446 7.1, with the labels of RFC 9147 5.9).

use aws_lc_rs::{digest, hmac};
use zeroize::Zeroizing;

use crate::connection::Role;
use crate::crypto::aead::{Aead, NONCE_OCTETS};
use crate::crypto::hkdf::{HASH_OCTETS, Labels, Secret, expand_label, expandable, extract};
use crate::error::Error;

pub(crate) type Hash = [u8; HASH_OCTETS];

/// The early secret: that of the pre-shared key alone.
pub(crate) struct Early {
    labels: Labels,
    secret: Secret,
}

impl Early {
    pub(crate) fn new(psk: &[u8]) -> Self {
        Self::with_labels(Labels::Dtls13, psk)
    }

    fn with_labels(labels: Labels, psk: &[u8]) -> Self {
        Self { labels, secret: extract(&[0; HASH_OCTETS], psk) }
    }

    /// The binder of an external key over the hash of what comes before the binders (RFC 8446 4.2.11.2).
    pub(crate) fn binder(&self, transcript_hash: &Hash) -> Result<Hash, Error> {
        self.binder_of(b"ext binder", transcript_hash)
    }

    fn binder_of(&self, label: &[u8], transcript_hash: &Hash) -> Result<Hash, Error> {
        derive(&self.secret, self.labels, label, &empty_hash())?.finished(transcript_hash)
    }

    /// The handshake secret, with the ephemeral exchange's.
    pub(crate) fn handshake(&self, shared: &[u8]) -> Result<Handshake, Error> {
        Ok(Handshake { labels: self.labels, secret: next(&self.secret, self.labels, shared)? })
    }
}

/// The handshake secret.
pub(crate) struct Handshake {
    labels: Labels,
    secret: Secret,
}

impl Handshake {
    /// What `role` protects its part of the handshake with; over ClientHello to ServerHello.
    pub(crate) fn traffic(&self, role: Role, transcript_hash: &Hash) -> Result<TrafficSecret, Error> {
        let label: &[u8] = match role {
            Role::Client => b"c hs traffic",
            Role::Server => b"s hs traffic",
        };
        derive(&self.secret, self.labels, label, transcript_hash)
    }

    pub(crate) fn master(&self) -> Result<Master, Error> {
        Ok(Master { labels: self.labels, secret: next(&self.secret, self.labels, &[0; HASH_OCTETS])? })
    }
}

/// The master secret.
pub(crate) struct Master {
    labels: Labels,
    secret: Secret,
}

impl Master {
    /// What `role` protects application data with at first; over ClientHello to the server's Finished.
    pub(crate) fn traffic(&self, role: Role, transcript_hash: &Hash) -> Result<TrafficSecret, Error> {
        let label: &[u8] = match role {
            Role::Client => b"c ap traffic",
            Role::Server => b"s ap traffic",
        };
        derive(&self.secret, self.labels, label, transcript_hash)
    }
}

/// A secret that one direction's keys of one epoch are made of. It stays in one place and is wiped there.
pub(crate) struct TrafficSecret {
    labels: Labels,
    octets: Secret,
}

/// The keys of one epoch and direction: of the AEAD, its nonces, and the masks.
pub(crate) struct Octets {
    pub(crate) key: Zeroizing<Vec<u8>>,
    pub(crate) iv: Zeroizing<[u8; NONCE_OCTETS]>,
    pub(crate) mask: Zeroizing<Vec<u8>>,
}

impl TrafficSecret {
    pub(crate) fn of_octets(octets: &Hash) -> Self {
        Self { labels: Labels::Dtls13, octets: Box::new(Zeroizing::new(*octets)) }
    }

    pub(crate) fn expose(&self) -> &[u8] {
        self.octets.as_slice()
    }

    /// The content of Finished, or a binder (RFC 8446 4.4.4).
    pub(crate) fn finished(&self, transcript_hash: &Hash) -> Result<Hash, Error> {
        let mut key = Zeroizing::new([0; HASH_OCTETS]);
        self.expand(b"finished", key.as_mut())?;
        let code = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()), transcript_hash);
        code.as_ref().try_into().map_err(|_| Error::Cryptography)
    }

    /// That of the next epoch (RFC 8446 7.2).
    pub(crate) fn next(&self) -> Result<Self, Error> {
        let mut next = Self { labels: self.labels, octets: Secret::default() };
        self.expand(b"traffic upd", next.octets.as_mut_slice())?;
        Ok(next)
    }

    /// RFC 8446 7.3, RFC 9147 4.2.3.
    pub(crate) fn keys(&self, aead: Aead) -> Result<Octets, Error> {
        let mut octets = Octets {
            key: Zeroizing::new(vec![0; aead.key_octets()]),
            iv: Zeroizing::new([0; NONCE_OCTETS]),
            mask: Zeroizing::new(vec![0; aead.key_octets()]),
        };
        self.expand(b"key", &mut octets.key)?;
        self.expand(b"iv", octets.iv.as_mut())?;
        self.expand(b"sn", &mut octets.mask)?;
        Ok(octets)
    }

    fn expand(&self, label: &[u8], out: &mut [u8]) -> Result<(), Error> {
        expand_label(&expandable(self.octets.as_slice()), self.labels, label, &[], out)
    }

    #[cfg(test)]
    fn is(&self, other: &Self) -> bool {
        crate::crypto::equal(self.expose(), other.expose())
    }
}

/// Derive-Secret.
fn derive(secret: &Secret, labels: Labels, label: &[u8], transcript_hash: &Hash) -> Result<TrafficSecret, Error> {
    let mut derived = TrafficSecret { labels, octets: Secret::default() };
    expand_label(&expandable(secret.as_slice()), labels, label, transcript_hash, derived.octets.as_mut_slice())?;
    Ok(derived)
}

/// The next secret of the chain, with what is new in it.
fn next(secret: &Secret, labels: Labels, input: &[u8]) -> Result<Secret, Error> {
    let salt = derive(secret, labels, b"derived", &empty_hash())?;
    Ok(extract(salt.expose(), input))
}

fn empty_hash() -> Hash {
    hash(&[])
}

/// SHA-256.
pub(crate) fn hash(octets: &[u8]) -> Hash {
    let mut hash = [0; HASH_OCTETS];
    for (to, from) in hash.iter_mut().zip(digest::digest(&digest::SHA256, octets).as_ref()) {
        *to = *from;
    }
    hash
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn octets(hex: &str) -> Hash {
        hex::decode(hex.replace(' ', "")).unwrap().try_into().unwrap()
    }

    /// RFC 8448 4, "Resumed 0-RTT Handshake": a handshake with a pre-shared key and an ephemeral exchange.
    #[test]
    fn the_key_schedule_of_rfc_8448_holds() {
        let psk = octets("4ecd0eb6ec3b4d87f5d6028f922ca4c5851a277fd41311c9e62d2c9492e1c4f3");
        let early = Early::with_labels(Labels::Tls13, &psk);
        let before_binders = octets("63224b2e4573f2d3454ca84b9d009a04f6be9e05711a8396473aefa01e924a14");
        assert_eq!(
            early.binder_of(b"res binder", &before_binders).unwrap(),
            octets("3add4fb2d8fdf822a0ca3cf7678ef5e88dae990141c5924d57bb6fa31b9e5f9d")
        );
        let shared = octets("f44194756ff9ec9d25180635d66ea6824c6ab3bf179977be37f723570e7ccb2e");
        let handshake = early.handshake(&shared).unwrap();
        let hellos = octets("f736cb34fe25e701551bee6fd24c1cc7102a7daf9405cb15d97aafe16f757d03");
        let client = handshake.traffic(Role::Client, &hellos).unwrap();
        let server = handshake.traffic(Role::Server, &hellos).unwrap();
        assert_eq!(client.expose(), octets("2faac08f851d35fea3604fcb4de82dc62c9b164a70974d0462e27f1ab278700f"));
        assert_eq!(server.expose(), octets("fe927ae271312e8bf0275b581c54eef020450dc4ecffaa05a1a35d27518e7803"));
        let keys = server.keys(Aead::Aes128Gcm).unwrap();
        assert_eq!(hex::encode(&*keys.key), "27c6bdc0a3dcea39a47326d79bc9e4ee");
        assert_eq!(hex::encode(*keys.iv), "9569ecdd4d0536705e9ef725");
        let master = handshake.master().unwrap();
        let finished = octets("b0aeffc46a2cfe33114e6fd7d51f9f04b1ca3c497dab08934a774a9d9ad7dbf3");
        assert_eq!(
            master.traffic(Role::Client, &finished).unwrap().expose(),
            octets("2abbf2b8e381d23dbebe1dd2a7d16a8bf484cb4950d23fb7fb7fa8547062d9a1")
        );
        assert_eq!(
            master.traffic(Role::Server, &finished).unwrap().expose(),
            octets("cc21f1bf8feb7dd5fa505bd9c4b468a9984d554a993dc49e6d285598fb672691")
        );
    }

    #[test]
    fn the_labels_of_dtls_make_other_secrets() {
        let [dtls, tls] = [Labels::Dtls13, Labels::Tls13].map(|labels| Early::with_labels(labels, &[7; 32]));
        assert_ne!(dtls.binder(&[1; 32]).unwrap(), tls.binder(&[1; 32]).unwrap());
        // An external key's binder is not a resumption's.
        assert_ne!(dtls.binder(&[1; 32]).unwrap(), dtls.binder_of(b"res binder", &[1; 32]).unwrap());
    }

    #[test]
    fn each_epoch_has_keys_of_its_own() {
        let first = TrafficSecret::of_octets(&[7; 32]);
        let second = first.next().unwrap();
        assert!(!first.is(&second) && first.is(&TrafficSecret::of_octets(&[7; 32])));
        let (first, second) = (first.keys(Aead::Aes128Ccm).unwrap(), second.keys(Aead::Aes128Ccm).unwrap());
        assert_ne!(*first.key, *second.key);
        assert_ne!(*first.iv, *second.iv);
        assert_ne!(*first.mask, *second.mask);
    }
}
