//! An accepted session.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Instant;

use dtls::SealingKey;

use super::peer::{Ending, Inbound};
use super::table::Entry;
use crate::carrier::{DatagramLink, LinkReceived};
use crate::metrics::InProgress;
use crate::psk_server::ProvenPeer;

/// A session whose peer is proven, and who that is.
pub struct DtlsSession {
    link: DtlsLink,
    peer: ProvenPeer,
    source: SocketAddr,
}

/// A session's application data, in and out, one datagram each. Dropping it ends the session; the peer is told, unless it is
/// sealed.
pub struct DtlsLink {
    entry: Entry,
    _counted: InProgress,
}

impl DtlsLink {
    pub(super) fn new(entry: Entry, counted: InProgress) -> Self {
        Self { entry, _counted: counted }
    }
}

impl DtlsSession {
    pub(super) fn new(entry: Entry, peer: ProvenPeer, source: SocketAddr, counted: InProgress) -> Self {
        Self { link: DtlsLink { entry, _counted: counted }, peer, source }
    }

    /// The session without its peer, which who has many of them keeps elsewhere.
    pub fn into_link(self) -> (DtlsLink, ProvenPeer) {
        (self.link, self.peer)
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &ProvenPeer {
        &self.peer
    }

    /// Where the peer was during the handshake.
    pub fn source(&self) -> SocketAddr {
        self.source
    }

    /// Whether the peer is found by a Connection ID, from whatever address it comes.
    pub fn has_connection_id(&self) -> bool {
        self.link.entry.peer.has_connection_id()
    }
}

impl DatagramLink for DtlsLink {
    fn datagram_octets_max(&self) -> usize {
        self.entry.peer.payload_octets_max()
    }

    fn poll_receive(&mut self, context: &mut Context<'_>, _now: Instant) -> Poll<LinkReceived> {
        self.entry.peer.poll_inbound(context).map(|inbound| match inbound {
            Inbound::Datagram(datagram) => LinkReceived::Datagram(datagram),
            Inbound::Moved => LinkReceived::Moved,
            Inbound::Ended(Ending::Dtls(dtls::Closed::Failed(error))) => LinkReceived::Broken(io::Error::other(error)),
            Inbound::Ended(_) => LinkReceived::End,
        })
    }

    fn send(&mut self, now: Instant, payload: &[u8]) -> io::Result<()> {
        // What could not be sent is as lost as what the network loses; the end of the session is told above.
        self.entry.peer.send(now, payload);
        Ok(())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.entry.peer.poll_timeout()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.entry.peer.handle_timeout(now);
    }

    fn close(&mut self, now: Instant) {
        self.entry.peer.close(now);
    }

    fn freeze(&mut self) -> bool {
        self.entry.freeze()
    }

    fn can_freeze(&self) -> bool {
        self.entry.peer.has_connection_id()
    }

    fn seal(&mut self, key: &SealingKey, attached: &[u8]) -> Option<Vec<u8>> {
        self.entry.peer.seal(key, attached)
    }

    fn unseal(&mut self) {
        self.entry.peer.unseal();
    }
}

impl fmt::Debug for DtlsLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DtlsLink").finish_non_exhaustive()
    }
}

impl fmt::Debug for DtlsSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DtlsSession").field("peer", &self.peer).finish_non_exhaustive()
    }
}
