//! CoAP over a byte stream (RFC 8323).

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf, Bytes};
use coap::{Connection, StreamConfig, StreamConnection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Carrier, Received, Sent};

/// Octets read at once: a TLS record's worth is more than a message.
const READ_OCTETS: usize = 8_192;

/// A stream that protects what it carries, and CoAP over it. It has no read buffer: what comes goes to the machine at
/// once.
#[derive(Debug)]
pub struct StreamCarrier<S, M = StreamConnection> {
    stream: S,
    machine: M,
    /// What the stream has not taken yet.
    outbound: Bytes,
    /// What it has taken may not have left.
    unflushed: bool,
}

impl<S> StreamCarrier<S> {
    /// A fresh connection.
    pub fn new(stream: S, config: StreamConfig) -> Self {
        Self { stream, machine: StreamConnection::new(config), outbound: Bytes::new(), unflushed: false }
    }
}

impl<S, M> StreamCarrier<S, M> {
    /// A connection that the machine has begun: all octets that came before were given to it.
    pub(crate) fn with_machine(stream: S, machine: M) -> Self {
        Self { stream, machine, outbound: Bytes::new(), unflushed: false }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send, M: Connection + Send> Carrier for StreamCarrier<S, M> {
    fn coap(&self) -> &dyn Connection {
        &self.machine
    }

    fn coap_mut(&mut self) -> &mut dyn Connection {
        &mut self.machine
    }

    fn poll_receive(&mut self, context: &mut Context<'_>, now: Instant) -> Poll<Received> {
        let mut octets = [MaybeUninit::<u8>::uninit(); READ_OCTETS];
        let mut buffer = ReadBuf::uninit(&mut octets);
        match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Received::Broken(error)),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => Poll::Ready(Received::End),
            Poll::Ready(Ok(())) => Poll::Ready(match self.machine.receive(buffer.filled(), now) {
                Ok(()) => Received::Something,
                Err(error) => Received::Offence(error),
            }),
        }
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> io::Result<Sent> {
        let mut progress = false;
        loop {
            if self.outbound.is_empty() {
                match self.machine.poll_transmit() {
                    Some(octets) => self.outbound = octets.into(),
                    None => break,
                }
            }
            match Pin::new(&mut self.stream).poll_write(context, &self.outbound) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    self.outbound.advance(count);
                    progress = true;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(Sent { progress, blocked: true }),
            }
        }
        if progress {
            self.outbound = Bytes::new();
            self.unflushed = true;
        }
        if self.unflushed {
            match Pin::new(&mut self.stream).poll_flush(context) {
                Poll::Ready(result) => {
                    result?;
                    self.unflushed = false;
                }
                Poll::Pending => return Ok(Sent { progress, blocked: true }),
            }
        }
        Ok(Sent { progress, blocked: false })
    }

    fn unsent_octets(&self) -> usize {
        self.outbound.len() + self.machine.transmit_octets()
    }

    fn is_sent(&self) -> bool {
        self.outbound.is_empty() && !self.unflushed && self.machine.transmit_octets() == 0
    }

    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // Whether or not it can be said: the connection is over.
        Pin::new(&mut self.stream).poll_shutdown(context).map(drop)
    }
}
