//! The key of one connection, where OpenSSL's callbacks find it: in the connection's ex_data.
//!
//! Locks are held for a copy only, never while OpenSSL runs.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use akma::KAf;
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{Ssl, SslRef};

use crate::record_layer::TrafficSecret;

/// The server's side: filled when the lookup has answered, emptied when the handshake is done. On the way it collects what
/// TLS 1.3 comes to.
#[derive(Default)]
pub(crate) struct ServerPsk {
    key: Mutex<Option<(Vec<u8>, KAf)>>,
    traffic: Mutex<TrafficSecrets>,
}

/// The application traffic secrets of TLS 1.3 (RFC 8446 clause 7.1), as OpenSSL tells them by its key log.
#[derive(Default)]
struct TrafficSecrets {
    client: Option<TrafficSecret>,
    server: Option<TrafficSecret>,
}

impl ServerPsk {
    pub(crate) fn fill(&self, identity: Vec<u8>, key: KAf) {
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = Some((identity, key));
    }

    pub(crate) fn clear(&self) {
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Keeps a line of the key log (`LABEL client-random secret`) if it is one of the two.
    pub(crate) fn collect(&self, line: &str) {
        let mut words = line.split(' ');
        let (label, secret) = (words.next(), words.nth(1));
        let mut traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        let place = match label {
            Some("CLIENT_TRAFFIC_SECRET_0") => &mut traffic.client,
            Some("SERVER_TRAFFIC_SECRET_0") => &mut traffic.server,
            _ => return,
        };
        *place = secret.and_then(TrafficSecret::from_hex);
    }

    /// The client's and the server's secret, if both are known. They are forgotten here.
    pub(crate) fn take_traffic_secrets(&self) -> Option<(TrafficSecret, TrafficSecret)> {
        let mut traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        traffic.client.take().zip(traffic.server.take())
    }

    /// The key, if it was looked up for exactly this identity.
    pub(crate) fn key_of(&self, identity: &[u8]) -> Option<KAf> {
        let slot = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        slot.as_ref().filter(|(known, _)| known == identity).map(|(_, key)| key.clone())
    }
}

/// The client's side: keys for each Ua* protocol that may be negotiated.
pub(crate) struct ClientPsk {
    identity: Vec<u8>,
    keys: Mutex<ClientKeys>,
}

/// K_AF by Ua* protocol.
#[derive(Default)]
pub(crate) struct ClientKeys {
    pub(crate) tls13: Option<KAf>,
    /// By cipher suite.
    pub(crate) tls12: Vec<(u16, KAf)>,
}

impl ClientPsk {
    pub(crate) fn new(identity: Vec<u8>, keys: ClientKeys) -> Self {
        Self { identity, keys: Mutex::new(keys) }
    }

    pub(crate) fn identity(&self) -> &[u8] {
        &self.identity
    }

    pub(crate) fn clear(&self) {
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = ClientKeys::default();
    }

    pub(crate) fn tls13_key(&self) -> Option<KAf> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).tls13.clone()
    }

    pub(crate) fn tls12_key(&self, suite: u16) -> Option<KAf> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.tls12.iter().find(|(of, _)| *of == suite).map(|(_, key)| key.clone())
    }
}

/// Ties a key slot to a connection to accept.
pub(crate) fn attach_server_psk(ssl: &mut Ssl, psk: Arc<ServerPsk>) -> Result<(), ErrorStack> {
    ssl.set_ex_data(index(&SERVER_INDEX)?, psk);
    Ok(())
}

/// The key slot of an accepted connection.
pub(crate) fn server_psk(ssl: &SslRef) -> Option<&Arc<ServerPsk>> {
    ssl.ex_data(index(&SERVER_INDEX).ok()?)
}

/// Ties identity and keys to a connection to make.
pub(crate) fn attach_client_psk(ssl: &mut Ssl, psk: Arc<ClientPsk>) -> Result<(), ErrorStack> {
    ssl.set_ex_data(index(&CLIENT_INDEX)?, psk);
    Ok(())
}

/// Identity and keys of a connection that is being made.
pub(crate) fn client_psk(ssl: &SslRef) -> Option<&Arc<ClientPsk>> {
    ssl.ex_data(index(&CLIENT_INDEX).ok()?)
}

static SERVER_INDEX: OnceLock<Index<Ssl, Arc<ServerPsk>>> = OnceLock::new();
static CLIENT_INDEX: OnceLock<Index<Ssl, Arc<ClientPsk>>> = OnceLock::new();

fn index<T: 'static + Send + Sync>(cell: &OnceLock<Index<Ssl, Arc<T>>>) -> Result<Index<Ssl, Arc<T>>, ErrorStack> {
    if let Some(index) = cell.get() {
        return Ok(*index);
    }
    // Two threads may both get here; the loser's index stays unused, which costs a few octets once.
    let index = Ssl::new_ex_index()?;
    Ok(*cell.get_or_init(|| index))
}
