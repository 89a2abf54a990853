//! DTLS with external PSK and Connection ID, client and server, no I/O.
//!
//! DTLS 1.2 (RFC 6347) with the PSK suites of RFC 4279, RFC 5487, RFC 6655, RFC 8442 and RFC 7905, extended master secret
//! (RFC 7627) required. DTLS 1.3 (RFC 9147) with external PSK and an ephemeral exchange (psk_dhe_ke). Connection IDs both
//! ways (RFC 9146) with both. The suites of [`SessionConfig::cipher_suites`] say which versions are spoken; where both are,
//! a client offers both, a server takes 1.3 from a client that offers it, and a downgrade is noticed. Renegotiation,
//! compression, resumption, tickets, 0-RTT, middlebox compatibility and certificates do not exist here.
//!
//! Start from [`Listener`], which answers a server's unknown peers, and [`Connection`], one session of either side.
//!
//! # Driving it
//!
//! Nothing here opens a socket, reads a clock or starts a task. Give a [`Connection`] what comes by
//! [`Connection::handle_datagram`]. After that, and after every other call: poll [`Connection::poll_event`] until `None`
//! and [`Connection::poll_transmit`] until `None`, sending each datagram as it is, then ask [`Connection::poll_timeout`]
//! and call [`Connection::handle_timeout`] when that time has come. Times passed in never go back. A call that comes when
//! it may not is an error or does nothing; no order of calls and no datagram makes it panic.
//!
//! A handshake stops at [`Event::KeyNeeded`] until [`Connection::provide_key`] or [`Connection::refuse_key`]; meanwhile
//! nothing blocks, and what the peer sends on is kept within limits. A client of DTLS 1.3 needs its key for the first
//! ClientHello, so it asks at once; it asks again if the server then wants 1.2. [`KeyRequest::version`] tells for which. After [`Event::Closed`] the session does nothing
//! more; send what is left in `poll_transmit` and drop it.
//!
//! A server finds the session of a datagram by [`ConnectionId::of_datagram`] and, if it has none, by the source address.
//! What no session has, and what a session answers with [`Disposition::NewClientHello`], goes to
//! [`Listener::handle_datagram`], which keeps nothing until the address is proven. A client that starts anew from the
//! address of a session keeps that one alive until the new one is [`Event::Established`] (RFC 6347 4.2.8): until then,
//! offer each datagram to the new one and, if that ignores it, to the old.
//!
//! ```
//! use std::net::SocketAddr;
//! use std::sync::Arc;
//! use std::time::Instant;
//!
//! use dtls::{
//!     ClientConfig, Connection, ConnectionId, Event, Incoming, Listener, PresharedKey, ProtocolVersion, ServerConfig,
//! };
//!
//! /// Carries datagrams until both are silent; returns the application data that came out.
//! fn run(now: Instant, from: SocketAddr, client: &mut Connection, server: &mut Connection) -> Vec<Vec<u8>> {
//!     let key = PresharedKey::new(&[7; 32]).unwrap();
//!     let mut received = Vec::new();
//!     loop {
//!         let mut silent = true;
//!         for side in [&mut *client, &mut *server] {
//!             while let Some(event) = side.poll_event() {
//!                 match event {
//!                     Event::KeyNeeded(_request) => side.provide_key(now, &key).unwrap(),
//!                     Event::ApplicationData { payload, .. } => received.push(payload),
//!                     _ => {}
//!                 }
//!             }
//!         }
//!         while let Some(transmit) = client.poll_transmit() {
//!             silent = false;
//!             server.handle_datagram(now, from, &transmit.payload);
//!         }
//!         while let Some(transmit) = server.poll_transmit() {
//!             silent = false;
//!             client.handle_datagram(now, client.peer_address(), &transmit.payload);
//!         }
//!         if silent {
//!             return received;
//!         }
//!     }
//! }
//!
//! # fn main() -> Result<(), dtls::Error> {
//! let now = Instant::now();
//! let (here, there) = ("192.0.2.1:40000".parse().unwrap(), "192.0.2.2:5684".parse().unwrap());
//! let listener = Listener::new(Arc::new(ServerConfig::default()), now)?;
//! let mut client = Connection::client(Arc::new(ClientConfig::new(b"meter-7")), now, there)?;
//! let Some(Event::KeyNeeded(request)) = client.poll_event() else { panic!() };
//! assert_eq!(request.version, ProtocolVersion::Dtls13);
//! client.provide_key(now, &PresharedKey::new(&[7; 32])?)?;
//!
//! // The first ClientHello is answered with a cookie, and nothing is kept.
//! let hello = client.poll_transmit().unwrap();
//! let Incoming::Reply(reply) = listener.handle_datagram(now, here, &hello.payload) else { panic!() };
//! client.handle_datagram(now, there, &reply.payload);
//! // The second one proves the address.
//! let hello = client.poll_transmit().unwrap();
//! let Incoming::Hello(proven) = listener.handle_datagram(now, here, &hello.payload) else { panic!() };
//! let mut server = proven.accept(now, ConnectionId::random(8)?)?;
//!
//! run(now, here, &mut client, &mut server);
//! client.send(now, b"21.5")?;
//! assert_eq!(run(now, here, &mut client, &mut server), [b"21.5"]);
//!
//! // In a while the handshake is let go. Idle, it is a small value, found again by its Connection ID.
//! while let Some(then) = server.poll_timeout() {
//!     server.handle_timeout(then);
//! }
//! let frozen = server.freeze().unwrap();
//! client.send(now, b"22.0")?;
//! let datagram = client.poll_transmit().unwrap().payload;
//! assert_eq!(ConnectionId::of_datagram(&datagram, 8), Some(frozen.connection_id()));
//! let mut server = frozen.thaw_server(Arc::new(ServerConfig::default()), now)?;
//! server.handle_datagram(now, here, &datagram);
//! assert!(matches!(server.poll_event(), Some(Event::ApplicationData { payload, .. }) if payload == b"22.0"));
//! # Ok(())
//! # }
//! ```
//!
//! # Limits
//!
//! What a deployment chooses is in [`SessionConfig`]; everything else is in [`limits`], each with what happens when it is
//! reached. Nothing is allocated by the size that a peer announces beyond them.
#![forbid(unsafe_code)]

mod alert;
mod codec;
mod config;
mod connection;
mod connection_id;
mod cookie;
mod crypto;
mod error;
mod frozen;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
mod key;
pub mod limits;
mod listener;
mod record;
mod suite;
mod v12;
mod v13;

pub use alert::Alert;
pub use config::{AddressChange, ClientConfig, ServerConfig, SessionConfig, UnknownIdentity};
pub use connection::{Closed, Connection, Disposition, Established, Event, Role, Transmit};
pub use connection_id::ConnectionId;
pub use error::Error;
pub use frozen::{Frozen, HandedOver, Sealing, SealingKey};
pub use key::{KeyLog, KeyRefusal, KeyRequest, PresharedKey};
pub use listener::{Incoming, Listener, ProvenHello};
pub use suite::{CipherSuite, Group, ProtocolVersion};
