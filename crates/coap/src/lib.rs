//! CoAP over reliable transports (RFC 8323), no I/O.
//!
//! Start from [`StreamConnection`], one connection, and [`StreamEvent`], what happens on it. Requests go both ways: build
//! ours with [`Request::post`], answer the peer's with a [`Response`].
//!
//! # Driving it
//!
//! The connection opens no socket and reads no clock. Give it what comes from the peer with
//! [`StreamConnection::receive`], in pieces of any size. After that, and after every other call, poll
//! [`StreamConnection::poll_event`] until `None`, then send what [`StreamConnection::poll_transmit`] returns as soon as
//! the transport takes it, in order. An error of `receive` ends the connection: send what is still to be transmitted (the
//! Abort), and close. Time-outs are the driver's: [`StreamConnection::cancel`] a request that took too long. After a
//! Release of either side, close once [`StreamConnection::is_settled`].
//!
//! ```
//! use coap::{Code, Request, Response, StreamConfig, StreamConnection, StreamEvent};
//!
//! let mut client = StreamConnection::new(StreamConfig::default());
//! let mut server = StreamConnection::new(StreamConfig::default());
//!
//! let exchange = client.request(Request::post("msgin5g").content_format(50).payload(&b"{}"[..]))?;
//! while let Some(octets) = client.poll_transmit() {
//!     server.receive(&octets)?;
//! }
//! while let Some(event) = server.poll_event() {
//!     if let StreamEvent::Request { request } = event {
//!         assert_eq!(request.path, ["msgin5g"]);
//!         server.respond(request.exchange, Response::new(Code::CHANGED))?;
//!     }
//! }
//! while let Some(octets) = server.poll_transmit() {
//!     client.receive(&octets)?;
//! }
//! assert!(matches!(client.poll_event(), Some(StreamEvent::PeerReady { .. })));
//! assert_eq!(
//!     client.poll_event(),
//!     Some(StreamEvent::Response { exchange, response: Response::new(Code::CHANGED) })
//! );
//! # Ok::<(), coap::StreamError>(())
//! ```
//!
//! # Limits
//!
//! All are in [`StreamConfig`] and [`StreamLimits`], with what happens when they are reached. Observe (RFC 7641) goes both
//! ways: ask with [`RequestBuilder::observe`]; serve it with [`Response::with_observe`] and
//! [`StreamConnection::notify`] once [`StreamLimits::peer_observations_max`] is set. Block-wise transfer (RFC 7959) is not
//! served: a Block option is answered 4.02.
#![forbid(unsafe_code)]

mod code;
mod connection;
mod error;
mod frame;
mod limits;
mod message;
mod signal;

pub use code::Code;
pub use connection::{StreamConnection, StreamCounters, StreamEvent};
pub use error::StreamError;
pub use limits::{
    BASE_MESSAGE_SIZE, DIAGNOSTIC_OCTETS_MAX, StreamConfig, StreamLimits, TOKEN_OCTETS_MAX,
    TOO_MANY_REQUESTS_MAX_AGE_SECONDS,
};
pub use message::{ExchangeId, Observe, Request, RequestBuilder, Response};
pub use signal::Release;
