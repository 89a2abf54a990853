//! CoAP over streams and WebSocket messages (RFC 8323) and over datagrams (RFC 7252), no I/O.
//!
//! Start from [`StreamConnection`] or [`DatagramConnection`], CoAP with one peer, and [`ConnectionEvent`], what happens on
//! it. Requests go both ways: build ours with [`Request::post`], answer the peer's with a [`Response`]. Whoever drives
//! either takes it as a [`Connection`].
//!
//! # Driving it
//!
//! A connection opens no socket and reads no clock. Give it what comes from the peer with [`Connection::receive`]: octets
//! of a stream in pieces of any size, or one datagram. After that, and after every other call, poll
//! [`Connection::poll_event`] until `None`, then send what [`Connection::poll_transmit`] returns as soon as the transport
//! takes it, in order. When the time of [`Connection::poll_timeout`] has come, call [`Connection::handle_timeout`], and
//! poll again; ask for it anew after each call.
//!
//! Over a stream, an error of `receive` ends the connection: send what is still to be transmitted (the Abort), and close.
//! There, time-outs of requests are the driver's: [`Connection::cancel`] one that took too long. After a Release of either
//! side, close once [`Connection::is_settled`].
//!
//! Over datagrams, no datagram ends anything, and each request is answered or [`ConnectionEvent::Failed`] in the time that
//! [`Transmission`] gives. What protects the datagrams (DTLS) is below this, and says who the peer is.
//!
//! ```
//! use coap::{Code, ConnectionEvent, Request, Response, StreamConfig, StreamConnection};
//!
//! let mut client = StreamConnection::new(StreamConfig::default());
//! let mut server = StreamConnection::new(StreamConfig::default());
//!
//! let exchange = client.request(Request::post("msgin5g").content_format(50).payload(&b"{}"[..]))?;
//! while let Some(octets) = client.poll_transmit() {
//!     server.receive(&octets)?;
//! }
//! while let Some(event) = server.poll_event() {
//!     if let ConnectionEvent::Request { request } = event {
//!         assert_eq!(request.path, ["msgin5g"]);
//!         server.respond(request.exchange, Response::new(Code::CHANGED))?;
//!     }
//! }
//! while let Some(octets) = server.poll_transmit() {
//!     client.receive(&octets)?;
//! }
//! assert!(matches!(client.poll_event(), Some(ConnectionEvent::PeerReady { .. })));
//! assert_eq!(
//!     client.poll_event(),
//!     Some(ConnectionEvent::Response { exchange, response: Response::new(Code::CHANGED) })
//! );
//! # Ok::<(), coap::ConnectionError>(())
//! ```
//!
//! The same over datagrams, through the trait; the first is lost.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Instant;
//! use coap::{Code, Connection, ConnectionEvent, DatagramConfig, DatagramConnection, Request, Response};
//!
//! let config = Arc::new(DatagramConfig::default());
//! let client: &mut dyn Connection = &mut DatagramConnection::new(Arc::clone(&config), 1);
//! let server: &mut dyn Connection = &mut DatagramConnection::new(config, 2);
//!
//! let start = Instant::now();
//! let exchange = client.request(&Request::get("x"), start)?;
//! client.poll_transmit();
//! let later = client.poll_timeout().expect("a confirmable message waits for its acknowledgement");
//! client.handle_timeout(later);
//! server.receive(&client.poll_transmit().expect("sent again"), later)?;
//! if let Some(ConnectionEvent::Request { request }) = server.poll_event() {
//!     server.respond(request.exchange, &Response::new(Code::CONTENT), later)?;
//! }
//! client.receive(&server.poll_transmit().expect("the answer"), later)?;
//! assert_eq!(
//!     client.poll_event(),
//!     Some(ConnectionEvent::Response { exchange, response: Response::new(Code::CONTENT) })
//! );
//! # Ok::<(), coap::ConnectionError>(())
//! ```
//!
//! # Limits
//!
//! All are in [`StreamConfig`] and [`StreamLimits`], [`DatagramConfig`], [`Transmission`] and [`DatagramLimits`], with what
//! happens when they are reached. Observe (RFC 7641) goes both ways: ask with [`RequestBuilder::observe`]; serve it with
//! [`Response::with_observe`] and [`Connection::notify`] once `peer_observations_max` is set. Over datagrams, what is
//! larger than one of them goes block-wise (RFC 7959), which the application does not see; over streams, block-wise
//! transfer is not served: a Block option is answered 4.02.
//!
//! # OSCORE
//!
//! [`oscore`] protects messages from end to end (RFC 8613), keyed by AKMA, apart from any transport.
#![forbid(unsafe_code)]

mod block;
mod code;
mod connection;
mod datagram;
mod error;
mod event;
mod exchanges;
mod frame;
mod limits;
mod message;
pub mod oscore;
mod signal;
mod transfer;

pub use code::Code;
pub use connection::{StreamConnection, StreamCounters};
pub use datagram::{DatagramConnection, DatagramCounters, ECHO_OCTETS, Unbound};
pub use error::{ConnectionError, StreamError};
pub use event::{ConnectionEvent, Failure, StreamEvent};
pub use exchanges::Connection;
pub use limits::{
    BASE_MESSAGE_SIZE, DIAGNOSTIC_OCTETS_MAX, DatagramConfig, DatagramLimits, StreamConfig, StreamLimits,
    TOKEN_OCTETS_MAX, TOO_MANY_REQUESTS_MAX_AGE_SECONDS, Transmission,
};
pub use message::{ExchangeId, Observe, Request, RequestBuilder, Response};
pub use signal::Release;
