//! The machine from outside: an in-memory pair under virtual time, and foreign peers over real sockets.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, unreachable_pub)]

mod address;
mod capture;
mod frozen;
mod handshake;
mod interop;
mod network;
mod scene;
