//! CoAP with one peer under OSCORE over datagrams.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Instant;

use coap::oscore::{OscoreConnection, OscoreError, Provenance};
use coap::{Connection, ConnectionEvent, DatagramConnection, Unbound};
use openssl::rand::rand_bytes;
use tracing::{debug, info};

use super::metrics::{ContextInUse, OscoreMetrics};
use super::tables::Arrived;
use crate::carrier::{Carrier, Received, Sent};
use crate::log_throttle::LogThrottle;

/// Datagrams taken in one go.
const DATAGRAMS_AT_ONCE: usize = 16;

/// Where datagrams of one peer come from and go to.
pub trait DatagramSocket: Send {
    /// The next datagram, and its source; none when there will be no more.
    ///
    /// # Errors
    /// The way to the peer is broken.
    fn poll_datagram(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Arrived>>>;

    /// Sends one, if the network takes it.
    ///
    /// # Errors
    /// The way to the peer is broken. That one datagram cannot be sent is no error: it is lost.
    fn send(&mut self, datagram: &[u8], to: SocketAddr) -> io::Result<()>;

    /// Where the peer is.
    fn peer(&self) -> SocketAddr;

    /// The peer was seen elsewhere.
    fn moved(&mut self, to: SocketAddr);
}

/// A [`Carrier`] over datagrams in clear, whose messages are protected.
///
/// The peer is where its newest verified request came from; what claims to be from it and is from elsewhere is looked at
/// before anything of it is remembered. At a new address it has to answer a protected Ping before requests go there
/// ([`Carrier::may_ask`]), or a response that is more than three times as large as its request (RFC 9175 2.4).
pub struct OscoreDatagramCarrier<S> {
    machine: OscoreConnection<DatagramConnection>,
    socket: S,
    metrics: OscoreMetrics,
    replayed: u32,
    /// Pings to the new address that are not answered. The last answer is the proof.
    proofs_awaited: u32,
    _in_use: ContextInUse,
}

impl<S: DatagramSocket> OscoreDatagramCarrier<S> {
    pub(super) fn new(machine: OscoreConnection<DatagramConnection>, socket: S, metrics: OscoreMetrics) -> Self {
        let in_use = metrics.context_begins();
        Self { machine, socket, metrics, replayed: 0, proofs_awaited: 0, _in_use: in_use }
    }

    /// True if it was given to the machine.
    fn take(&mut self, datagram: &[u8], source: SocketAddr, now: Instant) -> bool {
        let peer = self.socket.peer();
        match self.machine.provenance(datagram) {
            Provenance::Proven => {
                if source != peer {
                    self.follow(source, now);
                }
            }
            Provenance::Unknown if source == peer => {}
            Provenance::Unknown => {
                self.metrics.refused("from_elsewhere");
                return false;
            }
            Provenance::Forged(error) => {
                self.refuse(datagram, source, error);
                return false;
            }
        }
        // Its only error is that it is closed, which the session knows.
        let _ = self.machine.receive(datagram, now);
        let replayed = self.machine.counters().requests_replayed;
        if replayed != self.replayed {
            self.replayed = replayed;
            self.metrics.refused("replay");
            if let Some(unlogged) = REPLAYED.admit() {
                info!(target: "security", %source, unlogged, "replayed OSCORE request refused");
            }
        }
        true
    }

    fn follow(&mut self, source: SocketAddr, now: Instant) {
        self.metrics.address_changed();
        debug!(target: "security", from = %self.socket.peer(), to = %source, "OSCORE peer is at another address");
        self.socket.moved(source);
        let mut echo = [0; coap::ECHO_OCTETS];
        if rand_bytes(&mut echo).is_ok() {
            self.machine.outer_mut().challenge_address(echo);
            if self.machine.ping(now).is_ok() {
                self.proofs_awaited += 1;
            }
        }
    }

    fn refuse(&mut self, datagram: &[u8], source: SocketAddr, error: OscoreError) {
        self.metrics.refused("forged");
        if let Some(unlogged) = FORGED.admit() {
            info!(target: "security", %source, %error, unlogged, "OSCORE request refused");
        }
        if let (Some(request), Some(answer)) = (Unbound::parse(datagram), error.answer()) {
            let answer = bounded(request.answer(&answer, random_message_id()), datagram.len());
            if let Some(answer) = answer {
                // Whether or not it arrives.
                let _ = self.socket.send(&answer, source);
            }
        }
    }
}

/// An answer to somebody who has proven nothing, if it is no more than three times what was asked (RFC 9175 2.4).
pub(super) fn bounded(answer: Vec<u8>, request_octets: usize) -> Option<Vec<u8>> {
    (answer.len() <= request_octets.saturating_mul(AMPLIFICATION_MAX)).then_some(answer)
}

/// The same for what no association counts.
pub(super) fn random_message_id() -> u16 {
    let mut octets = [0; 2];
    // A repeated one is at worst taken for a copy of another refusal.
    let _ = rand_bytes(&mut octets);
    u16::from_be_bytes(octets)
}

/// RFC 9175 2.4.
const AMPLIFICATION_MAX: usize = 3;

impl<S: DatagramSocket> Carrier for OscoreDatagramCarrier<S> {
    fn coap(&self) -> &dyn Connection {
        &self.machine
    }

    fn coap_mut(&mut self) -> &mut dyn Connection {
        &mut self.machine
    }

    fn poll_event(&mut self) -> Option<ConnectionEvent> {
        let event = self.machine.poll_event();
        if matches!(event, Some(ConnectionEvent::Pong { .. })) && self.proofs_awaited > 0 {
            self.proofs_awaited -= 1;
            if self.proofs_awaited == 0 {
                self.machine.outer_mut().address_proven();
            }
        }
        event
    }

    fn poll_receive(&mut self, context: &mut Context<'_>, now: Instant) -> Poll<Received> {
        let mut something = false;
        for _ in 0..DATAGRAMS_AT_ONCE {
            match self.socket.poll_datagram(context) {
                Poll::Ready(Ok(Some((datagram, source)))) => something |= self.take(&datagram, source, now),
                Poll::Ready(Ok(None)) => return Poll::Ready(Received::End),
                Poll::Ready(Err(error)) => return Poll::Ready(Received::Broken(error)),
                Poll::Pending if something => return Poll::Ready(Received::Something),
                Poll::Pending => return Poll::Pending,
            }
        }
        if something {
            return Poll::Ready(Received::Something);
        }
        // Nothing of use, and there may be more.
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_send(&mut self, _context: &mut Context<'_>) -> io::Result<Sent> {
        let mut progress = false;
        while let Some(datagram) = self.machine.poll_transmit() {
            self.socket.send(&datagram, self.socket.peer())?;
            progress = true;
        }
        Ok(Sent { progress, blocked: false })
    }

    fn unsent_octets(&self) -> usize {
        self.machine.transmit_octets()
    }

    fn is_sent(&self) -> bool {
        self.machine.transmit_octets() == 0
    }

    fn may_ask(&self) -> bool {
        self.machine.outer().is_address_proven()
    }

    fn is_datagram(&self) -> bool {
        true
    }

    /// Nothing says that a context is over.
    fn poll_close(&mut self, _context: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

impl<S> fmt::Debug for OscoreDatagramCarrier<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OscoreDatagramCarrier").field("machine", &self.machine).finish_non_exhaustive()
    }
}

static REPLAYED: LogThrottle = LogThrottle::new();
static FORGED: LogThrottle = LogThrottle::new();
