//! The handshake of DTLS 1.2 with a pre-shared key (RFC 6347 4.2, RFC 4279, RFC 5489, RFC 7627).
//!
//! ```text
//! client                                          server
//! ClientHello                    ──────────▶
//!                                ◀──────────      HelloVerifyRequest        (Listener: nothing is kept)
//! ClientHello + cookie           ──────────▶                                ProvenHello::accept
//!                                ◀──────────      ServerHello, ServerKeyExchange?, ServerHelloDone
//! ·· the driver gives the key ··
//! ClientKeyExchange, CCS, Finished ────────▶      ·· the driver gives the key ··
//!                                ◀──────────      CCS, Finished
//! application data               ◀─────────▶
//! ```
//!
//! ChangeCipherSpec says nothing that the epoch does not; it is sent and otherwise ignored, so that its loss or late
//! arrival changes nothing.

mod client;
mod schedule;
mod server;

pub(crate) use client::Client;
pub(crate) use server::{Negotiated, Server};
