//! MSGin5G Configuration Function (TS 33.501 clause Y.2): knows which UE Service IDs go with which UE ID, and tells
//! MSGin5G Servers over `ss-upr` (TS 29.549 clause 7.3.2), and the UE itself over `su-uc` (TS 24.546 clause C.3). It is a
//! SEAL group management server, too: `ss-gm` (TS 29.549 clause 7.2).
//!
//! Start from [`Config`] and [`start`]; [`Running`] is the function at work. What it answers, and when, is
//! `docs/reference/configuration-function.md`. Its clients are [`sbi::ss_upr::SsUprClient`],
//! [`sbi::ss_gm::SsGmClient`] and [`sbi::association::AssociationClient`].
//!
//! ```no_run
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example(config: configuration::Config) -> Result<(), configuration::ConfigurationError> {
//! let shutdown = CancellationToken::new();
//! let running = configuration::start(config, shutdown.clone()).await?;
//! println!("associations at https://{}", running.local_addr());
//! shutdown.cancel();
//! running.stopped().await;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod associations;
mod changes;
mod coap_limits;
mod coap_listener;
mod config;
mod error;
mod group_service;
mod groups;
mod locks;
mod metrics;
mod running;
mod service;
mod ue_configuration;
mod ue_session;

pub use coap_limits::CoapLimits;
pub use config::{CoapConfig, Config, PolicyFile, TableLimits};
pub use error::ConfigurationError;
pub use group_service::check_group_patch;
pub use running::{Running, start};
pub use service::refusal;
pub use ue_session::check_ue_configuration_query;
