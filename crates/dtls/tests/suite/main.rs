//! The machine from outside: an in-memory pair under virtual time, and foreign peers over real sockets.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, unreachable_pub)]

mod address;
mod calls;
mod capture;
mod dtls13;
mod frozen;
mod handshake;
mod hello13;
mod hostile;
mod interop;
mod listener;
mod network;
mod scene;
mod tinydtls;
mod wolfssl;
