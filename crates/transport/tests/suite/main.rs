//! Drives the public API over real sockets: our client, other people's clients, and octets made by hand.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

mod datagram_limits;
mod datagrams;
mod floods;
mod foreign;
mod freezing;
mod handshake;
mod limits;
mod lookup;
mod oscore;
mod profile;
mod records;
mod refusals;
mod reload;
mod revocation;
mod scene;
