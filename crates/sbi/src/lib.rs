//! HTTP/2 with mutual TLS between network functions (TS 29.500, TS 33.501 clause 13.1), and the 3GPP APIs spoken
//! over it, typed and spelled as in their OpenAPI files.
//!
//! Start from [`SbiServer`], which serves an [`axum::Router`] and tells handlers who asks, and [`SbiClient`], which
//! the API clients ([`naanf::NaanfClient`], [`nausf::NausfClient`], [`nudm::NudmClient`], [`ss_upr::SsUprClient`],
//! [`ss_gm::SsGmClient`], [`association::AssociationClient`], [`device_triggering::DeviceTriggeringClient`],
//! [`monitoring_event::MonitoringEventClient`]) are built on. Whatever is refused, on either side, is a [`ProblemDetails`].
//!
//! ```no_run
//! use axum::{Extension, Router, routing::post};
//! use sbi::naanf::CtxRemove;
//! use sbi::{CertificateFiles, Json, PeerIdentity, ProblemDetails, SbiServer, SbiServerConfig, ServerLimits};
//! use tokio_util::sync::CancellationToken;
//!
//! async fn remove_context(
//!     Extension(peer): Extension<PeerIdentity>,
//!     Json(request): Json<CtxRemove>,
//! ) -> Result<http::StatusCode, ProblemDetails> {
//!     if peer.nf_instance_id.is_none() {
//!         return Err(ProblemDetails::forbidden("NF_UNKNOWN"));
//!     }
//!     // ... forget `request.supi` ...
//!     Ok(http::StatusCode::NO_CONTENT)
//! }
//!
//! # async fn example() -> Result<(), sbi::SbiError> {
//! let config = SbiServerConfig {
//!     listen: ([127, 0, 0, 1], 8443).into(),
//!     tls: CertificateFiles {
//!         certificate: "aanf.pem".into(),
//!         key: "aanf.key".into(),
//!         ca: "ca.pem".into(),
//!         crl: Some("ca.crl".into()),
//!     },
//!     limits: ServerLimits::default(),
//! };
//! let router = Router::new().route("/naanf-akma/v1/remove-context", post(remove_context));
//! let shutdown = CancellationToken::new();
//! let server = SbiServer::start(config, router, shutdown.clone()).await?;
//! // ... until
//! shutdown.cancel();
//! server.stopped().await;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

pub mod admin;
mod answers;
pub mod assertion;
pub mod association;
pub mod audit;
pub mod authorization;
pub mod callback;
pub mod capif;
mod client;
pub mod client_credentials;
mod coding;
mod common;
mod connections;
mod correlation;
mod deadline;
mod device_client;
pub mod device_triggering;
mod error;
mod event_stream;
mod extract;
mod features;
mod file_version;
pub mod files;
mod flood_guard;
pub mod location;
mod merge_patch;
mod metrics;
pub mod monitoring_event;
pub mod naanf;
pub mod nausf;
pub mod nef_akma;
pub mod nrf;
pub mod nudm;
mod objects;
pub mod openapi;
mod own_certificate;
mod pauses;
mod peer;
pub mod policy;
mod problem;
mod redirect;
mod retry_after;
mod server;
pub mod services;
mod slots;
pub mod ss_gm;
pub mod ss_upr;
mod t8;
#[cfg(feature = "testing")]
pub mod testing;
pub mod token;
mod token_source;

pub use client::{ClientLimits, SbiClient, SbiClientConfig, SbiResponse};
pub use coding::{HexOctets, path_segment, resource};
pub use common::{AuthType, InvalidSupiOrSuci, Link, SupiOrSuci};
pub use device_client::{DeviceBody, DeviceConnection, DeviceConnector, DeviceRequest, DeviceResponse};
pub use error::SbiError;
pub use event_stream::{EventStream, EventStreamError, ServerSentEvent};
pub use extract::{HalJson, Json, Path, Query, WholeBody, parse_json};
pub use features::{InvalidFeatures, SupportedFeatures};
pub use merge_patch::merge_patch;
pub use metrics::{OperationMetrics, ServerMetrics};
pub use peer::PeerName;
pub use problem::{InvalidParam, PROBLEM_JSON, ProblemDetails, cause};
pub use server::{DeviceTls, LongAnswer, PskPeer, SbiServer, SbiServerConfig, ServerLimits, read_body};
pub use t8::{Device, ResourceId};
pub use token_source::{TokenSource, TokenTarget};
pub use transport::capif::Tls12Session;
pub use transport::profile::{CertificateFiles, PeerIdentity};
pub use transport::{Limit, LimitFault};
