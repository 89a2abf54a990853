//! Every message model and procedure of the service over real sockets: the plain case, somebody away, a crash in the middle,
//! what is forbidden, what is at its limit, and what is hostile.
//!
//! Real programs: a lab, a second MSGin5G Server beside it with a configuration of its own, UEs that share no code with ours
//! (`tests/foreign`), and on HTTP/2 with mutual TLS a Broadcast Message Gateway, a network exposure function and Application
//! Servers that hold the server to its contracts.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code, reason = "the tests of faults use the rest")]
#[path = "../faults/neighbour.rs"]
mod neighbour;

mod aggregates;
mod broadcast;
mod configuration;
mod crashes;
mod delivery;
mod forbidden;
mod groups;
mod limits;
mod peer;
mod reports;
mod segments;
mod sleeping;
mod topics;
mod wire;
mod world;
