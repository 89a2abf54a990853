//! Ua* transports of MSGin5G-1 and the one TLS profile of every interface.

pub mod profile;
