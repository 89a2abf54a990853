//! The client against a server that the test plays: real sockets, real TLS-PSK, every answer chosen by the test.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod alerts;
mod application;
mod applications;
mod bootstrap;
mod connection;
mod receiving;
mod segments;
mod sending;
mod server;
mod several;
