//! MSGin5G Configuration Function (TS 33.501 clause Y.2): knows which UE Service IDs go with which UE ID, and tells
//! MSGin5G Servers over `ss-upr` (TS 29.549 clause 7.3.2).
//!
//! Start from [`Config`] and [`start`]; [`Running`] is the function at work. What it answers, and when, is
//! `docs/reference/configuration-function.md`. Its clients are [`sbi::ss_upr::SsUprClient`] and
//! [`sbi::association::AssociationClient`].
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
mod config;
mod error;
mod metrics;
mod running;
mod service;

pub use config::{Config, TableLimits};
pub use error::ConfigurationError;
pub use running::{Running, start};
pub use service::refusal;
