//! Ua* transports of MSGin5G-1 and the one TLS profile of every interface.

mod key_lookup;
mod key_source;
mod metrics;
pub mod profile;
mod psk_client;
mod psk_server;

pub use key_lookup::{KeyLookup, LookupLimits};
pub use key_source::{BoxFuture, KeyRequest, KeySource, KeySourceError, LookupRefusal, ProvenKey};
pub use metrics::TransportMetrics;
pub use psk_client::{ClientHandshakeError, ClientStream, OfferedVersions, PskClientConfig, PskConnector};
pub use psk_server::{
    HandshakeError, HandshakeLimits, ProvenPeer, PskAcceptor, PskServerConfig, SecuredStream, TlsVersion,
};
