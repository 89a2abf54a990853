//! Application Clients on the UE (MSGin5G-5; TS 23.554 clause 8.11, TS 24.538 clauses 6.4.2 and A.3).
//!
//! ```text
//! application ─CoAP─▶ connection ─ permitted? ─▶ Client::send ─▶ server
//! application ◀─CoAP─ connection ◀─ desk ◀─ IncomingStream ◀──── server
//! ```
//!
//! `policy` says who may be which application and what it may do, `wire` is what is said, `tag` keeps Message IDs of
//! applications apart, `desk` knows who is there. `docs/reference/msgin5g-5.md` says it all from outside.

mod bucket;
mod connection;
mod desk;
mod interface;
mod limits;
mod policy;
mod socket;
mod tag;
mod wire;

pub use interface::ApplicationInterface;
pub use limits::LocalLimits;
pub use policy::{
    ApplicationConfig, ApplicationToken, ApplicationsConfig, DestinationPattern, TOKEN_OCTETS_MAX, TOKEN_OCTETS_MIN,
    WhenAway,
};
pub use socket::SocketAccess;
pub use tag::APPLICATION_MESSAGE_ID_OCTETS_MAX;
pub use wire::check_application_request;
