//! The MSGin5G Server (TS 23.554, TS 24.538, TS 29.538), secured as TS 33.501 Annex Y demands.
//!
//! Start from [`Config`], what an operator writes, and [`start`], which runs it until a token is cancelled. UEs come over
//! CoAP on TLS-PSK keyed by AKMA, or over HTTPS with HTTP Digest, Application Servers over HTTP/2 with mutual TLS; the AAnF, the Configuration Function and
//! the store are what [`Config`] names.
//!
//! ```no_run
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config: server::Config = toml::from_str(&std::fs::read_to_string("server.toml")?)?;
//! let shutdown = CancellationToken::new();
//! let running = server::start(config, shutdown.clone()).await?;
//! println!("UEs connect to {}", running.coap_address());
//! // ... until
//! shutdown.cancel();
//! running.stopped().await;
//! # Ok(())
//! # }
//! ```
//!
//! A message's way is one direction, each step one typed value: `session | api → routing → delivery → session |
//! application_server | inbox`. What the service promises and why it holds is argued at the top of `delivery`. Limits and
//! their answers: [`Limits`].

#![forbid(unsafe_code)]

mod aggregate;
mod api;
mod application_server;
mod association;
mod broadcast;
mod config;
mod core;
mod datagram_listener;
mod deduplication;
mod delivery;
mod descriptors;
mod destinations;
mod error;
mod fan_out;
mod groups;
mod hibernation;
mod http_ue;
mod inbox;
mod invokers;
mod limits;
mod listener;
mod log_budget;
mod mailbox;
mod metrics;
mod oscore;
mod policy;
mod reachability;
mod registry;
mod routing;
mod sealed;
mod segments;
mod server;
mod session;
mod sessions;
mod stored_update;
mod sync;
#[cfg(test)]
mod tests;
mod topics;

pub use association::{AssociationError, AssociationSource};
pub use broadcast::BroadcastAreaSection;
pub use config::{
    AdminSection, AfSection, AkmaSection, ApiSection, ApplicationServerSection, CoapsSection, Config,
    ConfigurationFunctionSection, ExposureSection, PolicyFile, ServerSection, StoreSection, TlsSection,
    WebSocketSection,
};
pub use destinations::{BroadcastSection, GroupManagementSection, TopicServerSection};
pub use error::ServerError;
pub use groups::{Group, GroupError, GroupSource};
pub use http_ue::{DeviceLimits, HttpsSection};
pub use limits::Limits;
pub use message::{IdentityPattern, InvalidPattern, PATTERN_OCTETS_MAX};
pub use oscore::OscoreSection;
pub use policy::TopicSection;
pub use server::{Running, start};
