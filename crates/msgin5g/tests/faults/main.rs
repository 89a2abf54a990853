//! What a UE is told when a function that the server depends on is broken, and what becomes of a proof that ends.
//!
//! Real programs on real sockets: a lab, a second MSGin5G Server beside it whose AKMA anchor function or Configuration
//! Function is somebody else, and UEs that share no code with ours (`tests/foreign`).
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "../common/mod.rs"]
mod common;

mod anchor_function;
mod carriers;
mod configuration_function;
mod descriptors;
mod disabling;
mod disk;
mod neighbour;
mod renewal;
mod stop;
mod withdrawal;
