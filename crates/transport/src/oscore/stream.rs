//! CoAP with one peer under OSCORE over a stream.

use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use coap::oscore::OscoreConnection;
use coap::{Connection, StreamConnection};
use tokio::io::{AsyncRead, AsyncWrite};

use super::metrics::ContextInUse;
use crate::carrier::{Carrier, Received, Sent, StreamCarrier};

/// A [`Carrier`] over a stream in clear, whose messages are protected. Signalling messages are not (RFC 8613 4.3).
#[derive(Debug)]
pub struct OscoreStreamCarrier<S> {
    inner: StreamCarrier<S, OscoreConnection<StreamConnection>>,
    /// What came while the peer was being proven has not been looked at.
    unseen: bool,
    _in_use: ContextInUse,
}

impl<S> OscoreStreamCarrier<S> {
    pub(super) fn with_machine(stream: S, machine: OscoreConnection<StreamConnection>, in_use: ContextInUse) -> Self {
        Self { inner: StreamCarrier::with_machine(stream, machine), unseen: true, _in_use: in_use }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Carrier for OscoreStreamCarrier<S> {
    fn coap(&self) -> &dyn Connection {
        self.inner.coap()
    }

    fn coap_mut(&mut self) -> &mut dyn Connection {
        self.inner.coap_mut()
    }

    fn poll_receive(&mut self, context: &mut Context<'_>, now: Instant) -> Poll<Received> {
        if std::mem::take(&mut self.unseen) {
            return Poll::Ready(Received::Something);
        }
        self.inner.poll_receive(context, now)
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> io::Result<Sent> {
        self.inner.poll_send(context)
    }

    fn unsent_octets(&self) -> usize {
        self.inner.unsent_octets()
    }

    fn is_sent(&self) -> bool {
        self.inner.is_sent()
    }

    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.inner.poll_close(context)
    }
}
