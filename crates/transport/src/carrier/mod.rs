//! What carries CoAP with one peer: the machine of its protocol, and the I/O that moves octets between it and the network.
//!
//! Whoever has sessions (the server, the client) sees one trait, whatever is below: a TLS connection
//! ([`StreamCarrier`]), a WebSocket on one ([`WebSocketCarrier`]), a DTLS session ([`DatagramCarrier`]), or what else is a
//! [`Carrier`]. It is used as `Box<dyn Carrier>`: a session's code exists once however
//! many carriers there are, and what differs from carrier to carrier, the larger part of an idle session's memory, is
//! allocated for itself, in its own size. The calls through the table are few for each message.
//!
//! Deadlines, the machine's and the carrier's own, are the session's to keep: [`Carrier::poll_timeout`].

mod address_proof;
mod datagram;
mod stream;
mod websocket;

use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use coap::{Connection, ConnectionError, ConnectionEvent};
use dtls::SealingKey;

pub use address_proof::ADDRESS_AMPLIFICATION_MAX;
pub(crate) use address_proof::{AddressProof, Token};
pub use datagram::{DatagramCarrier, DatagramLink, LinkReceived};
pub use stream::StreamCarrier;
pub use websocket::{OpeningError, OpeningLimits, WebSocketCarrier};

/// CoAP with one peer and its I/O.
///
/// Drive it as [`Connection`] says, with [`Carrier::poll_receive`] in the place of [`Connection::receive`] and
/// [`Carrier::poll_send`] in that of [`Connection::poll_transmit`]: after anything else, take the events, then send.
pub trait Carrier: Send {
    /// The machine.
    fn coap(&self) -> &dyn Connection;

    /// The machine, to be given requests, answers and the time.
    fn coap_mut(&mut self) -> &mut dyn Connection;

    /// The next thing that happened. A carrier may keep for itself what is between it and its peer only.
    fn poll_event(&mut self) -> Option<ConnectionEvent> {
        self.coap_mut().poll_event()
    }

    /// Gives the machine what has come from the peer, in bounded measure; ready once something has. Where it has not, the
    /// task is woken when it does.
    fn poll_receive(&mut self, context: &mut Context<'_>, now: Instant) -> Poll<Received>;

    /// Sends what the machine has for the peer, as far as the network takes it; where it does not take all, the task is
    /// woken when it takes more.
    ///
    /// # Errors
    /// The connection is broken.
    fn poll_send(&mut self, context: &mut Context<'_>) -> io::Result<Sent>;

    /// Octets on their way out that the network has not taken, those that the machine still has included.
    fn unsent_octets(&self) -> usize;

    /// Whether nothing is on its way out.
    fn is_sent(&self) -> bool;

    /// Sends the last word of what is below CoAP (close_notify), after which nothing can be sent; ready when it is out, or
    /// cannot be.
    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// When [`Carrier::handle_timeout`] is to be called.
    fn poll_timeout(&self) -> Option<Instant> {
        self.coap().poll_timeout()
    }

    /// Does what is due. Look for events, and send.
    fn handle_timeout(&mut self, now: Instant) {
        self.coap_mut().handle_timeout(now);
    }

    /// Whether requests of ours may go out. Not while they would go to an address that the peer has not proven.
    fn may_ask(&self) -> bool {
        true
    }

    /// Whether each message goes for itself. Then nothing tells that a peer is gone but that it answers nothing, and it may
    /// be asleep: it is not asked for signs of life.
    fn is_datagram(&self) -> bool {
        false
    }

    /// Gives back the memory that only something under way needs, and says whether it did: nothing was under way. It is used
    /// on as if nothing had happened; the next call that needs that memory takes it again.
    fn rest(&mut self, _now: Instant) -> bool {
        false
    }

    /// Whether [`Carrier::rest`] can ever do it.
    fn can_rest(&self) -> bool {
        false
    }

    /// What another start of this program goes on with, of a connection that rests, and what is attached to it. From then on
    /// the peer hears nothing and is not heard, also when the connection is dropped. None if it cannot; then it is as it was.
    fn seal(&mut self, _now: Instant, _key: &SealingKey, _attached: &[u8]) -> Option<Vec<u8>> {
        None
    }

    /// Goes on here. Nobody will ever open what [`Carrier::seal`] returned, or nonces repeat.
    fn unseal(&mut self) {}
}

/// What came of [`Carrier::poll_receive`].
#[derive(Debug)]
pub enum Received {
    /// The machine got something: look for events.
    Something,
    /// The same, and nothing vouches that the peer sent it: it is no sign of life.
    Unverified,
    /// As [`Received::Something`], and then what ends the connection ([`ConnectionError::is_fatal`]).
    Offence(ConnectionError),
    /// The peer has sent its last.
    End,
    /// The connection is broken.
    Broken(io::Error),
}

/// What came of [`Carrier::poll_send`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// The network took something.
    pub progress: bool,
    /// It does not take the rest yet.
    pub blocked: bool,
}
