//! CoAP over DTLS: what the workloads ask of a server, and the devices that ask.

mod flood;
mod libcoap;
mod link;

use std::future::Future;

use dtls::{CipherSuite, ClientConfig, Group};

pub(crate) use flood::Flood;
pub(crate) use libcoap::Libcoap;
pub(crate) use link::{KeyOf, Link};

use crate::BenchError;
use crate::process::Process;

/// A server that takes CoAP over DTLS.
pub(crate) trait DatagramPeer: Sync {
    /// Its name in the figures.
    fn name(&self) -> &'static str;

    /// The process whose time and memory count.
    fn process(&self) -> Process;

    /// The versions that it speaks.
    fn versions(&self) -> &'static [Dtls];

    /// Where it listens.
    fn address(&self) -> std::net::SocketAddr;

    /// A handshake of `device`, completed on both sides, and nothing else.
    fn handshake(&self, device: usize, dtls: Dtls) -> impl Future<Output = Result<Link, BenchError>> + Send;

    /// What the server wants of a device before it may ask.
    fn admit(&self, link: &mut Link, device: usize) -> impl Future<Output = Result<(), BenchError>> + Send;

    /// One request with a payload, answered at once.
    fn ask(&self, link: &mut Link, device: usize) -> impl Future<Output = Result<(), BenchError>> + Send;
}

/// DTLS version; in both the key exchange is ephemeral with X25519, and both sides prove themselves by the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dtls {
    /// `psk_dhe_ke`, TLS_AES_128_GCM_SHA256.
    V1_3,
    /// TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256.
    V1_2,
}

impl Dtls {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Dtls::V1_3 => "DTLS 1.3",
            Dtls::V1_2 => "DTLS 1.2",
        }
    }

    /// A client that names itself `identity` and offers this version only.
    pub(crate) fn client(self, identity: &[u8]) -> ClientConfig {
        let mut config = ClientConfig::new(identity);
        config.session.cipher_suites = match self {
            Dtls::V1_3 => vec![CipherSuite::Aes128Gcm],
            Dtls::V1_2 => vec![CipherSuite::EcdhePskChacha20Poly1305],
        };
        config.session.groups = vec![Group::X25519];
        config
    }
}
