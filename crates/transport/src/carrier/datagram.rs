//! CoAP over datagrams (RFC 7252).

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use coap::{Connection, DatagramConfig, DatagramConnection};
use dtls::SealingKey;
use zeroize::Zeroizing;

use super::address_proof::{AddressProof, QUESTION_OCTETS, random};
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

    /// Whether [`DatagramLink::freeze`] can ever do it.
    fn can_freeze(&self) -> bool {
        false
    }

    /// What another start of this program goes on with, and what is attached to it. From then on the peer hears nothing and is
    /// not heard, also when the link is dropped. None if it cannot; then it is as it was.
    fn seal(&mut self, _key: &SealingKey, _attached: &[u8]) -> Option<Vec<u8>> {
        None
    }

    /// Goes on here. Nobody will ever open what [`DatagramLink::seal`] returned, or nonces repeat.
    fn unseal(&mut self) {}
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
/// A new address of the peer has to be proven (`address_proof`) before requests go there ([`Carrier::may_ask`]) and
/// before an answer that is much larger than its request does (RFC 9175 clause 2.4).
pub struct DatagramCarrier<L> {
    link: L,
    machine: DatagramConnection,
    prove_addresses: bool,
    proof: AddressProof,
}

impl<L: DatagramLink> DatagramCarrier<L> {
    /// A fresh association. `prove_addresses`: whether a new address is to be proven.
    ///
    /// # Errors
    /// The system has no random number.
    pub fn new(link: L, config: Arc<DatagramConfig>, prove_addresses: bool) -> io::Result<Self> {
        let seed = u64::from_be_bytes(random()?);
        let machine = DatagramConnection::new(config, seed);
        Ok(Self { link, machine, prove_addresses, proof: AddressProof::default() })
    }

    /// An association that another start of this program has sealed ([`Carrier::seal`]), of which `sealed` was attached to the
    /// link; with what was attached besides. None if that is nothing that was.
    ///
    /// # Errors
    /// The system has no random number.
    pub fn restored(
        link: L,
        config: Arc<DatagramConfig>,
        prove_addresses: bool,
        sealed: &[u8],
        now: Instant,
    ) -> io::Result<Option<(Self, &[u8])>> {
        let seed = u64::from_be_bytes(random()?);
        let split = sealed.split_first_chunk();
        let split = split.and_then(|(octets, rest)| rest.split_at_checked(u16::from_be_bytes(*octets).into()));
        let Some((memories, attached)) = split else { return Ok(None) };
        let machine = DatagramConnection::recalling(config, seed, memories, now);
        let proof = AddressProof::default();
        Ok(machine.map(|machine| (Self { link, machine, prove_addresses, proof }, attached)))
    }

    /// Gives the machine what came.
    fn take(&mut self, datagram: &[u8], now: Instant) -> Received {
        if let Err(error) = self.proof.heard(&mut self.machine, datagram.len(), true, now) {
            return Received::Broken(error);
        }
        let received = self.machine.receive(datagram, now);
        self.proof.settle(&mut self.machine, now);
        match received {
            Ok(()) => Received::Something,
            Err(error) => Received::Offence(error),
        }
    }
}

impl<L: DatagramLink> Carrier for DatagramCarrier<L> {
    fn coap(&self) -> &dyn Connection {
        &self.machine
    }

    fn coap_mut(&mut self) -> &mut dyn Connection {
        &mut self.machine
    }

    fn poll_receive(&mut self, context: &mut Context<'_>, now: Instant) -> Poll<Received> {
        loop {
            let received = match self.link.poll_receive(context, now) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(LinkReceived::Datagram(datagram)) => self.take(&datagram, now),
                Poll::Ready(LinkReceived::Moved) if self.prove_addresses => {
                    match self.proof.moved(&mut self.machine, QUESTION_OCTETS, now) {
                        Ok(_) => continue,
                        Err(error) => Received::Broken(error),
                    }
                }
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
            // What is too much for an address that is not proven is as lost as what the network loses.
            if self.proof.admits(datagram.len()) {
                self.link.send(Instant::now(), &datagram)?;
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

    fn poll_close(&mut self, _context: &mut Context<'_>) -> Poll<()> {
        self.link.close(Instant::now());
        Poll::Ready(())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        [self.machine.poll_timeout(), self.link.poll_timeout(), self.proof.poll_timeout()].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.proof.handle_timeout(&mut self.machine, now);
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
        self.proof.is_proven() && self.machine.is_address_proven() && self.machine.rest(now) && self.link.freeze()
    }

    fn can_rest(&self) -> bool {
        self.link.can_freeze()
    }

    fn seal(&mut self, now: Instant, key: &SealingKey, attached: &[u8]) -> Option<Vec<u8>> {
        if !self.rest(now) {
            return None;
        }
        // What is remembered of earlier messages goes along: a copy of one is answered alike after a restart, too.
        let memories = Zeroizing::new(self.machine.memories(now)?);
        let octets = u16::try_from(memories.len()).ok()?;
        let all = Zeroizing::new([&octets.to_be_bytes(), memories.as_slice(), attached].concat());
        self.link.seal(key, &all)
    }

    fn unseal(&mut self) {
        self.link.unseal();
    }
}
