//! The socket as OpenSSL sees it: during the handshake two buffers that the acceptor fills and empties, afterwards
//! the socket itself.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Wraps the transport `S`. Once the handshake is over and what was read ahead is used up, it holds nothing.
pub(crate) struct Gate<S> {
    /// `None` once it was taken out, for a connection that goes on without OpenSSL.
    transport: Option<S>,
    buffers: Option<Box<Buffers>>,
}

#[derive(Default)]
struct Buffers {
    /// Released by the acceptor, not read by OpenSSL yet.
    inbound: Vec<u8>,
    inbound_read: usize,
    /// Written by OpenSSL, not sent yet. A few hundred octets: no certificates on this port.
    outbound: Vec<u8>,
    open: bool,
}

impl<S> Gate<S> {
    pub(crate) fn new(transport: S) -> Self {
        Self { transport: Some(transport), buffers: Some(Box::default()) }
    }

    /// Lets octets of the peer through to OpenSSL.
    pub(crate) fn release(&mut self, octets: &[u8]) {
        let buffers = self.buffers.get_or_insert_default();
        buffers.inbound.extend_from_slice(octets);
    }

    /// What OpenSSL has to say.
    pub(crate) fn take_outbound(&mut self) -> Vec<u8> {
        self.buffers.as_mut().map(|buffers| std::mem::take(&mut buffers.outbound)).unwrap_or_default()
    }

    /// # Errors
    /// `NotConnected` where it was taken out.
    pub(crate) fn transport(&mut self) -> io::Result<&mut S> {
        self.transport.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Takes the transport out, with what was released and OpenSSL has not read.
    pub(crate) fn take(&mut self) -> Option<(S, Vec<u8>)> {
        let transport = self.transport.take()?;
        let unread = self.buffers.take().map(|mut buffers| buffers.inbound.split_off(buffers.inbound_read));
        Some((transport, unread.unwrap_or_default()))
    }

    /// The handshake is over: from here on OpenSSL talks to the transport.
    pub(crate) fn open(&mut self) {
        if let Some(buffers) = &mut self.buffers {
            buffers.open = true;
            if buffers.inbound.len() == buffers.inbound_read {
                self.buffers = None;
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(buffers) = &mut this.buffers else { return Pin::new(this.transport()?).poll_read(cx, buf) };
        let unread = buffers.inbound.get(buffers.inbound_read..).unwrap_or_default();
        if unread.is_empty() {
            // The acceptor drives the handshake and needs no wake-up from here.
            return if buffers.open { Pin::new(this.transport()?).poll_read(cx, buf) } else { Poll::Pending };
        }
        let octets = unread.len().min(buf.remaining());
        buf.put_slice(unread.get(..octets).unwrap_or_default());
        buffers.inbound_read += octets;
        if buffers.inbound_read == buffers.inbound.len() {
            if buffers.open {
                this.buffers = None;
            } else {
                buffers.inbound.clear();
                buffers.inbound_read = 0;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match &mut this.buffers {
            Some(buffers) if !buffers.open => {
                buffers.outbound.extend_from_slice(octets);
                Poll::Ready(Ok(octets.len()))
            }
            _ => Pin::new(this.transport()?).poll_write(cx, octets),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &this.buffers {
            Some(buffers) if !buffers.open => Poll::Ready(Ok(())),
            _ => Pin::new(this.transport()?).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().transport()?).poll_shutdown(cx)
    }
}
