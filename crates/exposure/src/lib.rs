//! What the network shows to the outside: the NEF (TS 29.522, TS 33.501 clause 12) and the CAPIF core function (TS 29.222,
//! TS 33.122).
//!
//! Start from [`Config`] and [`start`]; [`Running`] is what was configured, at work. One process may run either or both;
//! both then open the same way and stop together.

#![forbid(unsafe_code)]

pub mod capif;
mod config;
mod counts;
mod error;
pub mod nef;
mod running;

pub use config::Config;
pub use counts::DurableCounts;
pub use error::ExposureError;
pub use running::{Running, start};
