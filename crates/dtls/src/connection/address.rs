//! The peer's address and its changes (RFC 9146 6).

use std::net::SocketAddr;

use crate::config::AddressChange;
use crate::connection::core::Core;
use crate::connection::{Event, Transmit};
use crate::error::Error;
use crate::limits::{PROBE_OCTETS_FACTOR, TRANSMITS_MAX};

/// A new address of the peer, not proven.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    address: SocketAddr,
    /// What may still be sent there.
    octets_allowed: usize,
}

impl Core {
    /// An authentic record of `octets` octets came from `source`. Only called with a Connection ID of
    /// ours, or for the peer's address.
    pub(crate) fn note_source(&mut self, source: SocketAddr, newest: bool, octets: usize) {
        if source == self.peer {
            if newest {
                self.candidate = None;
            }
            return;
        }
        if let Some(candidate) = self.candidate.as_mut().filter(|candidate| candidate.address == source) {
            candidate.octets_allowed =
                candidate.octets_allowed.saturating_add(octets.saturating_mul(PROBE_OCTETS_FACTOR));
            return;
        }
        if !newest {
            return;
        }
        match self.config.session().address_change {
            AddressChange::Ignore => {}
            // Nothing moves that the driver would not hear of; the peer's next record tries again.
            AddressChange::Follow => {
                if self.push_event(Event::PeerAddressChanged { address: source, followed: true }) {
                    self.peer = source;
                }
            }
            AddressChange::Ask => {
                if self.push_event(Event::PeerAddressChanged { address: source, followed: false }) {
                    let octets_allowed = octets.saturating_mul(PROBE_OCTETS_FACTOR);
                    self.candidate = Some(Candidate { address: source, octets_allowed });
                }
            }
        }
    }

    pub(crate) fn follow(&mut self, address: SocketAddr) -> Result<(), Error> {
        self.decline(address)?;
        self.peer = address;
        Ok(())
    }

    pub(crate) fn decline(&mut self, address: SocketAddr) -> Result<(), Error> {
        match self.candidate {
            Some(candidate) if candidate.address == address => {
                self.candidate = None;
                Ok(())
            }
            _ => Err(Error::NoSuchAddress),
        }
    }

    pub(crate) fn probe(&mut self, payload: &[u8]) -> Result<(), Error> {
        let candidate = self.candidate.ok_or(Error::NoSuchAddress)?;
        let octets = self.application_octets(payload.len());
        let octets_left = candidate.octets_allowed.checked_sub(octets).ok_or(Error::ProbeTooLarge)?;
        if self.transmits.len() >= TRANSMITS_MAX {
            return Err(Error::TransmitQueueFull);
        }
        let datagram = self.application_datagram(payload)?;
        self.candidate = Some(Candidate { octets_allowed: octets_left, ..candidate });
        self.transmits.push_back(Transmit { destination: candidate.address, payload: datagram });
        Ok(())
    }
}
