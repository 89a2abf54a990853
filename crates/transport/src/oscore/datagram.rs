//! CoAP with one peer under OSCORE over datagrams.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Instant;

use coap::oscore::{OscoreConnection, OscoreError, Provenance};
use coap::{Connection, DatagramConnection, TOKEN_OCTETS_MAX, Unbound};
use openssl::rand::rand_bytes;
use tracing::{debug, info};

use super::elsewhere::Elsewhere;
use super::metrics::{ContextInUse, OscoreMetrics};
use super::tables::Arrived;
use crate::carrier::{ADDRESS_AMPLIFICATION_MAX, AddressProof, Carrier, Received, Sent};
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

    /// The peer was seen elsewhere. What is sent goes there; what comes from there without saying whose it is may still be
    /// another's.
    fn moved(&mut self, to: SocketAddr);

    /// The peer is asked at its address under this token: what answers with it is this peer's.
    fn asked(&mut self, token: [u8; TOKEN_OCTETS_MAX]);

    /// The peer may be where it is asked under this token, too.
    fn asked_elsewhere(&mut self, token: [u8; TOKEN_OCTETS_MAX]);

    /// What answers with that token is nobody's any more.
    fn not_asked(&mut self, token: &[u8; TOKEN_OCTETS_MAX]);

    /// The peer has proven its address: what comes from there without saying whose it is is this peer's from now on. True if
    /// it was another's.
    fn proven(&mut self) -> bool;

    /// Whether what comes from the peer's address without saying whose it is is this peer's.
    fn is_known(&self) -> bool;
}

/// A [`Carrier`] over datagrams in clear, whose messages are protected.
///
/// The peer is where its newest verified request came from; what claims to be from it and is from elsewhere is looked at
/// before anything of it is remembered. At a new address it has to answer a protected question before requests go there
/// ([`Carrier::may_ask`]), or a response that is more than three times as large as its request (RFC 9175 2.4), and before
/// what comes from there counts as its own.
pub struct OscoreDatagramCarrier<S> {
    machine: OscoreConnection<DatagramConnection>,
    socket: S,
    metrics: OscoreMetrics,
    proof: AddressProof,
    elsewhere: Elsewhere,
    _in_use: ContextInUse,
}

/// What a datagram was.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Taken {
    /// The machine was not given it.
    No,
    /// Nothing vouches for it.
    Unverified,
    /// It is the peer's.
    Verified,
}

impl<S: DatagramSocket> OscoreDatagramCarrier<S> {
    pub(super) fn new(machine: OscoreConnection<DatagramConnection>, socket: S, metrics: OscoreMetrics) -> Self {
        let in_use = metrics.context_begins();
        let (proof, elsewhere) = (AddressProof::default(), Elsewhere::default());
        Self { machine, socket, metrics, proof, elsewhere, _in_use: in_use }
    }

    fn take(&mut self, datagram: &[u8], source: SocketAddr, now: Instant) -> io::Result<Taken> {
        let peer = self.socket.peer();
        if source != peer
            && let Some(message_id) = self.elsewhere.answered(&mut self.machine, datagram, source)
        {
            self.arrive(source, message_id, now);
            return Ok(Taken::Verified);
        }
        let provenance = self.machine.provenance(datagram, now);
        let authentic = match &provenance {
            Provenance::Proven => {
                // Also where it was before, if another has proven to be there since, or where it begins.
                if source != peer || (self.proof.is_proven() && !self.socket.is_known()) {
                    self.follow(source, now)?;
                }
                true
            }
            Provenance::Copy | Provenance::Unknown if source == peer => false,
            Provenance::Copy | Provenance::Unknown => {
                self.metrics.refused("from_elsewhere");
                if let Some(unlogged) = FROM_ELSEWHERE.admit() {
                    info!(target: "security", %source, reason = "from_elsewhere", unlogged, "OSCORE datagram dropped");
                }
                if provenance == Provenance::Copy {
                    self.ask_elsewhere(datagram, source, now)?;
                }
                return Ok(Taken::No);
            }
            Provenance::Forged(error) => {
                self.refuse(datagram, source, error);
                return Ok(Taken::No);
            }
        };
        if let Some(token) = self.proof.heard(&mut self.machine, datagram.len(), authentic, now)? {
            self.socket.asked(token);
        }
        let before = self.verified();
        // Its only error is that it is closed, which the session knows.
        let _ = self.machine.receive_judged(datagram, &provenance, now);
        if self.proof.settle(&mut self.machine, now) {
            self.is_proven(source);
        }
        Ok(if self.verified() == before { Taken::Unverified } else { Taken::Verified })
    }

    /// Messages of the peer's.
    fn verified(&self) -> u64 {
        let counters = self.machine.counters();
        u64::from(counters.requests_verified) + u64::from(counters.responses_verified)
    }

    fn follow(&mut self, source: SocketAddr, now: Instant) -> io::Result<()> {
        let from = self.socket.peer();
        if source != from {
            self.metrics.address_changed();
            debug!(target: "security", %from, to = %source, "OSCORE peer is at another address");
            self.socket.moved(source);
        }
        self.ask_nowhere_else();
        let token = self.proof.moved(&mut self.machine, 0, now)?;
        self.socket.asked(token);
        Ok(())
    }

    /// Nothing but a copy has come from there: the peer is asked, and stays where it is.
    fn ask_elsewhere(&mut self, datagram: &[u8], source: SocketAddr, now: Instant) -> io::Result<()> {
        let Some(copy) = Unbound::parse(datagram) else { return Ok(()) };
        let question = self.elsewhere.ask(&mut self.machine, &copy, source, now)?;
        for token in &question.dropped {
            self.socket.not_asked(token);
        }
        if let Some(token) = question.token {
            self.socket.asked_elsewhere(token);
        }
        // Whether or not it arrives.
        let _ = question.datagram.map(|datagram| self.socket.send(&datagram, source));
        Ok(())
    }

    /// The peer has answered from where a copy came.
    fn arrive(&mut self, source: SocketAddr, message_id: u16, now: Instant) {
        let from = self.socket.peer();
        self.metrics.address_changed();
        debug!(target: "security", %from, to = %source, "OSCORE peer is at another address");
        self.ask_nowhere_else();
        self.socket.moved(source);
        self.proof = AddressProof::default();
        self.is_proven(source);
        self.machine.is_elsewhere(message_id, now);
    }

    fn ask_nowhere_else(&mut self) {
        for token in self.elsewhere.clear() {
            self.socket.not_asked(&token);
        }
    }

    fn is_proven(&mut self, source: SocketAddr) {
        if self.socket.proven() {
            self.metrics.displaced();
            if let Some(unlogged) = DISPLACED.admit() {
                info!(target: "security", %source, unlogged, "OSCORE session displaced at its address");
            }
        }
    }

    fn refuse(&mut self, datagram: &[u8], source: SocketAddr, error: &OscoreError) {
        let reason = if *error == OscoreError::Replay { "replay" } else { "forged" };
        self.metrics.refused(reason);
        if let Some(unlogged) = FORGED.admit() {
            info!(target: "security", %source, reason, %error, unlogged, "OSCORE request refused");
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
    (answer.len() <= request_octets.saturating_mul(ADDRESS_AMPLIFICATION_MAX)).then_some(answer)
}

/// The same for what no association counts.
pub(super) fn random_message_id() -> u16 {
    let mut octets = [0; 2];
    // A repeated one is at worst taken for a copy of another refusal.
    let _ = rand_bytes(&mut octets);
    u16::from_be_bytes(octets)
}

impl<S: DatagramSocket> Carrier for OscoreDatagramCarrier<S> {
    fn coap(&self) -> &dyn Connection {
        &self.machine
    }

    fn coap_mut(&mut self) -> &mut dyn Connection {
        &mut self.machine
    }

    fn poll_receive(&mut self, context: &mut Context<'_>, now: Instant) -> Poll<Received> {
        let mut taken = Taken::No;
        for _ in 0..DATAGRAMS_AT_ONCE {
            match self.socket.poll_datagram(context) {
                Poll::Ready(Ok(Some((datagram, source)))) => match self.take(&datagram, source, now) {
                    Ok(what) => taken = taken.max(what),
                    Err(error) => return Poll::Ready(Received::Broken(error)),
                },
                Poll::Ready(Ok(None)) => return Poll::Ready(Received::End),
                Poll::Ready(Err(error)) => return Poll::Ready(Received::Broken(error)),
                Poll::Pending if taken == Taken::No => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        match taken {
            Taken::Verified => Poll::Ready(Received::Something),
            Taken::Unverified => Poll::Ready(Received::Unverified),
            // Nothing of use, and there may be more.
            Taken::No => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn poll_send(&mut self, _context: &mut Context<'_>) -> io::Result<Sent> {
        let mut progress = false;
        while let Some(datagram) = self.machine.poll_transmit() {
            // What is too much for an address that is not proven is as lost as what the network loses.
            if self.proof.admits(datagram.len()) {
                self.socket.send(&datagram, self.socket.peer())?;
            }
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

    fn poll_timeout(&self) -> Option<Instant> {
        [self.machine.poll_timeout(), self.proof.poll_timeout()].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.proof.handle_timeout(&mut self.machine, now);
        self.machine.handle_timeout(now);
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

static FORGED: LogThrottle = LogThrottle::new();
static FROM_ELSEWHERE: LogThrottle = LogThrottle::new();
static DISPLACED: LogThrottle = LogThrottle::new();
