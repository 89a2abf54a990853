//! The network exposure function (TS 29.522, TS 33.501 clauses 5.9.2.3 and 12): what application functions outside the
//! operator's domain may ask, and nothing else.
//!
//! ```text
//! outside ─ mutual TLS ─▶ /oauth2/token          certificate of an entry       ─▶ token bound to it
//!           + token    ─▶ 3gpp-akma              entry's FQDNs                 ─▶ AAnF
//!                      ─▶ msgs-* of TS 29.538    entry's AS Service IDs, ...   ─▶ MSGin5G Server
//! inside  ─ mutual TLS ─▶ nef-msgin5g            the MSGin5G Server            ─▶ target outside
//! ```
//!
//! Start from [`Config`] and [`start`]. What is answered, and when, is `docs/reference/nef.md`.

mod af;
mod akma;
mod caller;
mod capif;
mod config;
mod disable_relay;
mod msgin5g;
pub mod refusal;
mod running;
pub mod scope;
mod service;
mod token;
mod translation;

pub use config::{AfConfig, AkmaConfig, Config, MsGin5gConfig, PolicyFile, TokenConfig};
pub use disable_relay::relayed_to;
pub use running::{Running, start};
pub use token::is_token_request;
