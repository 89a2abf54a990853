//! The AKMA anchor function and, as the floor of what an answer over HTTP/2 costs, nghttpd: each in a process of its own,
//! asked by the same client.

mod domain;
mod producer;
mod ues;

pub(crate) use domain::Domain;
pub(crate) use producer::{Producer, STATE};
pub(crate) use ues::Ues;
