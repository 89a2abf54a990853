//! Ua* transports of MSGin5G-1, and the one TLS profile of every interface.
//!
//! Start from [`PskAcceptor`], which proves a UE by K_AF while the handshake waits for the key, and from
//! [`PskConnector`], its other end (TS 33.535 Annex B.1.3). [`profile`] holds the certificate side (TS 33.210 clause
//! 6.2) for the service-based interfaces.
//!
//! OpenSSL asks for a pre-shared key by a call that cannot wait. So the acceptor reads the handshake's octets itself
//! ([`handshake_sniffer`]), takes the PSK identity out of them, and lets OpenSSL see them only when [`KeyLookup`] has
//! the key. A peer that never gets that far costs a socket and a few hundred octets. Every limit stands in
//! [`HandshakeLimits`] and [`LookupLimits`], with the answer given when it is reached.
//!
//! ```no_run
//! use std::sync::Arc;
//! use akma::{AKid, AfId};
//! use transport::{
//!     BoxFuture, KeyLookup, KeySource, KeySourceError, LookupLimits, ProvenKey, PskAcceptor, PskServerConfig,
//!     TransportMetrics,
//! };
//!
//! struct Aanf;
//!
//! impl KeySource for Aanf {
//!     fn retrieve(&self, af_id: AfId, a_kid: AKid) -> BoxFuture<'_, Result<Option<ProvenKey>, KeySourceError>> {
//!         Box::pin(async move { Err(KeySourceError::Unavailable(format!("who asks {af_id} about {a_kid}?"))) })
//!     }
//! }
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let fqdn: akma::Fqdn = "msgin5g.example.com".parse()?;
//! let lookup = KeyLookup::new(Arc::new(Aanf), fqdn.clone(), LookupLimits::default(), TransportMetrics::default());
//! let acceptor = PskAcceptor::new(PskServerConfig::new(fqdn), Arc::new(lookup))?;
//! let listener = tokio::net::TcpListener::bind("[::]:5684").await?;
//! loop {
//!     let (socket, source) = listener.accept().await?;
//!     let acceptor = acceptor.clone();
//!     tokio::spawn(async move {
//!         // What went wrong is logged and counted by the acceptor.
//!         if let Ok(stream) = acceptor.accept(socket, source).await {
//!             println!("{} is there", stream.peer().a_kid);
//!         }
//!     });
//! }
//! # }
//! ```

mod admission;
mod alert;
mod authorities;
mod breaker;
pub mod capif;
mod carrier;
mod client_hello;
mod detached;
mod expiring;
mod ffi;
mod found_key;
mod gate;
mod handshake;
mod handshake_error;
mod handshake_io;
pub mod handshake_sniffer;
mod key_lookup;
mod key_source;
mod limit;
mod log_throttle;
mod lookup_rate;
mod metrics;
mod nf_types;
pub mod oscore;
mod peer_identity;
pub mod profile;
mod psk;
mod psk_api;
mod psk_client;
mod psk_profile;
mod psk_server;
pub mod record_layer;
mod reload;
mod remembered;
#[cfg(feature = "testing")]
pub mod testing;
mod trust;
mod ua_dtls;
pub mod websocket;

pub use admission::Source;
pub use carrier::{
    ADDRESS_AMPLIFICATION_MAX, Carrier, DatagramCarrier, DatagramLink, LinkReceived, OpeningError, OpeningLimits,
    Received, Sent, StreamCarrier, WebSocketCarrier,
};
pub use expiring::Expiring;
pub use handshake_error::HandshakeError;
pub use key_lookup::{KeyLookup, LookupLimits};
pub use key_source::{BoxFuture, FoundKey, KeyRequest, KeySource, KeySourceError, LookupRefusal, ProvenKey};
pub use limit::{Limit, LimitFault};
pub use log_throttle::LogThrottle;
pub use metrics::TransportMetrics;
pub use nf_types::nf_types_of_certificate;
pub use psk_api::{ApiKeySource, ApiPskAcceptor, ApiPskStream, connect_api_psk};
pub use psk_client::{ClientHandshakeError, ClientStream, OfferedVersions, PskClientConfig, PskConnector};
pub use psk_profile::TlsVersion;
pub use psk_server::{HandshakeLimits, ProvenPeer, PskAcceptor, PskServerConfig, SecuredStream};
pub use ua_dtls::{
    DtlsArrival, DtlsClientConfig, DtlsClientSession, DtlsConnector, DtlsError, DtlsLimits, DtlsLink, DtlsListener,
    DtlsServerConfig, DtlsSession, DtlsSocket, RestoredSession, SealingKey,
};
