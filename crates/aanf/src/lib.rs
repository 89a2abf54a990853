//! AKMA Anchor Function (TS 33.535 clause 4.2.1, TS 29.535): keeps the latest AKMA context of each UE, and gives
//! authorised application functions K_AF.
//!
//! Start from [`Config`] and [`start`]; [`Running`] is the function at work. What it answers, and when, is
//! `docs/reference/aanf.md`.
//!
//! ```no_run
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example(config: aanf::Config) -> Result<(), aanf::AanfError> {
//! let shutdown = CancellationToken::new();
//! let running = aanf::start(config, shutdown.clone()).await?;
//! println!("Naanf_AKMA at https://{}", running.local_addr());
//! shutdown.cancel();
//! running.stopped().await;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod config;
mod contexts;
mod disabled_afs;
mod error;
mod metrics;
mod notifier;
mod outbox;
mod policy;
mod provisioning;
mod running;
mod seal;
mod service;
mod translation;

pub use config::{
    AfConfig, Config, KafLifetime, NotificationConfig, PolicyFile, TableLimits, UaProtocolPrefix, UdmConfig,
};
pub use error::AanfError;
pub use provisioning::PROVISIONING_PATH;
pub use running::{Running, start};
pub use service::refusal;
