//! CoAP over datagrams (RFC 7252).

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use coap::{Connection, ConnectionEvent, DatagramConfig, DatagramConnection, ECHO_OCTETS};

use super::{Carrier, Received, Sent};

/// What protects and moves datagrams to and from one peer.
pub trait DatagramLink: Send {
    /// Octets that [`DatagramLink::send`] takes at once.
    fn datagram_octets_max(&self) -> usize;

    /// What has come, one by one; where nothing has, the task is woken when something does.
    fn poll_receive(&mut self, context: &mut Context<'_>, now: Instant) -> Poll<LinkReceived>;

    /// Sends a datagram at once, or loses it.
    ///
    /// # Errors
    /// The link is broken.
    fn send(&mut self, now: Instant, payload: &[u8]) -> io::Result<()>;

    /// When [`DatagramLink::handle_timeout`] is to be called.
    fn poll_timeout(&self) -> Option<Instant>;

    /// Does what is due.
    fn handle_timeout(&mut self, now: Instant);

    /// Says the last word; nothing can be sent after it.
    fn close(&mut self, now: Instant);

    /// Gives back what only something under way needs, and says whether it did; then nothing waits to be received. Whatever
    /// comes next finds the link as it was.
    fn freeze(&mut self) -> bool {
        false
    }
}

/// What came of [`DatagramLink::poll_receive`].
#[derive(Debug)]
pub enum LinkReceived {
    /// The content of a datagram.
    Datagram(Vec<u8>),
    /// What comes from here on comes from another address, which nobody has proven, and what is sent goes there.
    Moved,
    /// The peer has ended it.
    End,
    /// The link is broken.
    Broken(io::Error),
}

/// CoAP over a link of datagrams.
///
/// A new address of the peer has to be proven (RFC 9146 clause 6) before requests go there ([`Carrier::may_ask`]) and
/// before an answer that is much larger than its request does (RFC 9175 clause 2.4). The proof is an answer to a ping that
/// is sent there, or the peer's own repetition of an Echo option.
pub struct DatagramCarrier<L> {
    link: L,
    machine: DatagramConnection,
    prove_addresses: bool,
    /// Pings to the new address that are not answered. The last answer is the proof.
    proofs_awaited: u32,
}

impl<L: DatagramLink> DatagramCarrier<L> {
    /// A fresh association. `prove_addresses`: whether a new address is to be proven.
    ///
    /// # Errors
    /// The system has no random number.
    pub fn new(link: L, config: Arc<DatagramConfig>, prove_addresses: bool) -> io::Result<Self> {
        let seed = u64::from_be_bytes(random()?);
        Ok(Self { link, machine: DatagramConnection::new(config, seed), prove_addresses, proofs_awaited: 0 })
    }

    /// The peer's address is another one.
    fn challenge(&mut self, now: Instant) -> io::Result<()> {
        self.machine.challenge_address(random::<ECHO_OCTETS>()?);
        if self.machine.ping(now).is_ok() {
            self.proofs_awaited += 1;
        }
        Ok(())
    }
}

fn random<const OCTETS: usize>() -> io::Result<[u8; OCTETS]> {
    let mut octets = [0; OCTETS];
    openssl::rand::rand_bytes(&mut octets).map_err(io::Error::other)?;
    Ok(octets)
}

impl<L: DatagramLink> Carrier for DatagramCarrier<L> {
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
                self.machine.address_proven();
            }
        }
        event
    }

    fn poll_receive(&mut self, context: &mut Context<'_>, now: Instant) -> Poll<Received> {
        loop {
            let received = match self.link.poll_receive(context, now) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(LinkReceived::Datagram(datagram)) => match self.machine.receive(&datagram, now) {
                    Ok(()) => Received::Something,
                    Err(error) => Received::Offence(error),
                },
                Poll::Ready(LinkReceived::Moved) if self.prove_addresses => match self.challenge(now) {
                    Ok(()) => continue,
                    Err(error) => Received::Broken(error),
                },
                Poll::Ready(LinkReceived::Moved) => continue,
                Poll::Ready(LinkReceived::End) => Received::End,
                Poll::Ready(LinkReceived::Broken(error)) => Received::Broken(error),
            };
            return Poll::Ready(received);
        }
    }

    fn poll_send(&mut self, _context: &mut Context<'_>) -> io::Result<Sent> {
        let mut progress = false;
        while let Some(datagram) = self.machine.poll_transmit() {
            self.link.send(Instant::now(), &datagram)?;
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

    fn poll_close(&mut self, _context: &mut Context<'_>) -> Poll<()> {
        self.link.close(Instant::now());
        Poll::Ready(())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        [self.machine.poll_timeout(), self.link.poll_timeout()].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.machine.handle_timeout(now);
        self.link.handle_timeout(now);
    }

    fn may_ask(&self) -> bool {
        self.machine.is_address_proven()
    }

    fn is_datagram(&self) -> bool {
        true
    }

    fn rest(&mut self, now: Instant) -> bool {
        // An address that is to be proven is something under way.
        self.proofs_awaited == 0 && self.machine.is_address_proven() && self.machine.rest(now) && self.link.freeze()
    }
}
