//! From the pre-shared key to the record keys (RFC 5246 8.1, 6.3; RFC 4279 2; RFC 5489 2; RFC 7627 4).

use zeroize::Zeroizing;

use crate::codec::{Reader, put_vector16};
use crate::connection::Role;
use crate::crypto::prf::prf;
use crate::error::Error;
use crate::handshake::hello::RANDOM_OCTETS;
use crate::key::PresharedKey;
use crate::record::protection::{Direction, Keys};
use crate::suite::CipherSuite;

const MASTER_OCTETS: usize = 48;
/// Octets of a Finished.
pub(crate) const VERIFY_OCTETS: usize = 12;

/// The master secret.
pub(crate) struct Master(Zeroizing<[u8; MASTER_OCTETS]>);

impl Master {
    /// The extended master secret over `session_hash`. `shared` is the ephemeral exchange's secret; without one, as many
    /// zeros as the key has octets (RFC 4279 2).
    pub(crate) fn derive(key: &PresharedKey, shared: Option<&[u8]>, session_hash: &[u8; 32]) -> Result<Self, Error> {
        let psk = key.expose();
        let zeros = Zeroizing::new(vec![0; psk.len()]);
        let other = shared.unwrap_or(&zeros);
        let mut premaster = Zeroizing::new(Vec::with_capacity(4 + other.len() + psk.len()));
        put_vector16(&mut premaster, other);
        put_vector16(&mut premaster, psk);
        let mut master = Zeroizing::new([0; MASTER_OCTETS]);
        prf(&premaster, b"extended master secret", (session_hash, &[]), master.as_mut())?;
        Ok(Self(master))
    }

    pub(crate) fn expose(&self) -> &[u8] {
        self.0.as_ref()
    }

    /// What `role` puts into its Finished, over the messages before it.
    pub(crate) fn verify_data(&self, role: Role, transcript_hash: &[u8; 32]) -> Result<[u8; VERIFY_OCTETS], Error> {
        let label: &[u8] = match role {
            Role::Client => b"client finished",
            Role::Server => b"server finished",
        };
        let mut out = [0; VERIFY_OCTETS];
        prf(self.0.as_ref(), label, (transcript_hash, &[]), &mut out)?;
        Ok(out)
    }

    /// The record keys, from the point of view of `role`.
    pub(crate) fn keys(
        &self,
        suite: CipherSuite,
        role: Role,
        client_random: &[u8; RANDOM_OCTETS],
        server_random: &[u8; RANDOM_OCTETS],
    ) -> Result<Keys, Error> {
        let aead = suite.aead();
        let mut block = Zeroizing::new(vec![0; 2 * (aead.key_octets() + aead.fixed_iv_octets())]);
        prf(self.0.as_ref(), b"key expansion", (server_random, client_random), &mut block)?;
        let mut reader = Reader::new(&block);
        let mut part = |octets| reader.take(octets).map_err(|_| Error::Cryptography);
        let (client_key, server_key) = (part(aead.key_octets())?, part(aead.key_octets())?);
        let (client_iv, server_iv) = (part(aead.fixed_iv_octets())?, part(aead.fixed_iv_octets())?);
        let client = Direction::new(aead, client_key, client_iv).ok_or(Error::Cryptography)?;
        let server = Direction::new(aead, server_key, server_iv).ok_or(Error::Cryptography)?;
        Ok(match role {
            Role::Client => Keys::new(suite, client, server),
            Role::Server => Keys::new(suite, server, client),
        })
    }
}
