//! Ua* transports of MSGin5G-1 and the one TLS profile of every interface.

mod admission;
mod alert;
mod breaker;
mod client_hello;
mod expiring;
mod ffi;
mod gate;
mod handshake;
mod handshake_error;
pub mod handshake_sniffer;
mod key_lookup;
mod key_source;
mod metrics;
pub mod profile;
mod psk;
mod psk_client;
mod psk_profile;
mod psk_server;

pub use handshake_error::HandshakeError;
pub use key_lookup::{KeyLookup, LookupLimits};
pub use key_source::{BoxFuture, KeyRequest, KeySource, KeySourceError, LookupRefusal, ProvenKey};
pub use metrics::TransportMetrics;
pub use psk_client::{ClientHandshakeError, ClientStream, OfferedVersions, PskClientConfig, PskConnector};
pub use psk_profile::TlsVersion;
pub use psk_server::{HandshakeLimits, ProvenPeer, PskAcceptor, PskServerConfig, SecuredStream};
