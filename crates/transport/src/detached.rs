//! A TLS 1.3 connection after its handshake, without OpenSSL's connection object.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use openssl::ssl::SslRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tracing::warn;

use crate::log_throttle::LogThrottle;
use crate::psk::server_psk;
use crate::record_layer::{Inbound, Outbound, RecordError, Suite, Taken};

/// What an open connection keeps. While nothing is under way that is two directions' keys and a socket.
pub(crate) struct Detached {
    socket: TcpStream,
    inbound: Inbound,
    outbound: Outbound,
    /// Records that the socket has not taken, from `sent` on: one of data at most, and what answers the peer.
    unsent: Vec<u8>,
    sent: usize,
    /// The peer asked for a KeyUpdate of ours. Asking again before it has left changes nothing.
    update_owed: bool,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// close_notify is under way; the peer may go on sending.
    Closing,
    /// A fatal alert went either way.
    Failed,
}

impl Detached {
    /// Takes the keys out of a handshake that is done; `early` is what was read beyond it. `None` where OpenSSL has to go on
    /// by itself: another version or suite.
    pub(crate) fn keys_of(ssl: &SslRef) -> Option<(Inbound, Outbound)> {
        let suite = Suite::from_code(u16::from_be_bytes(ssl.current_cipher()?.protocol_id()))?;
        let (client, server) = server_psk(ssl)?.take_traffic_secrets()?;
        Some((Inbound::new(suite, client).ok()?, Outbound::new(suite, server).ok()?))
    }

    pub(crate) fn new(socket: TcpStream, (mut inbound, outbound): (Inbound, Outbound), early: &[u8]) -> Self {
        inbound.receive(early);
        Self { socket, inbound, outbound, unsent: Vec::new(), sent: 0, update_owed: false, phase: Phase::Open }
    }

    /// Changes the key after this many records.
    pub(crate) fn with_records_per_key(mut self, records: u64) -> Self {
        self.outbound = self.outbound.with_records_per_key(records);
        self
    }

    /// Answers the peer's KeyUpdate, unless records before it have not left; then the next write does.
    fn pay(&mut self) -> Result<(), RecordError> {
        if self.update_owed && self.unsent.is_empty() && self.phase == Phase::Open {
            self.outbound.key_update(&mut self.unsent)?;
            self.update_owed = false;
            self.send_some();
        }
        Ok(())
    }

    /// Sends what the socket takes now, without waiting for more: the reader may not take the writer's wake-up away.
    fn send_some(&mut self) {
        while let Some(left) = self.unsent.get(self.sent..).filter(|left| !left.is_empty()) {
            match self.socket.try_write(left) {
                Ok(octets) if octets > 0 => self.sent += octets,
                _ => return,
            }
        }
        self.all_sent();
    }

    /// Waits until the socket has taken everything.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(left) = self.unsent.get(self.sent..).filter(|left| !left.is_empty()) {
            match Pin::new(&mut self.socket).poll_write(cx, left) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(octets)) => self.sent += octets,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.all_sent();
        Poll::Ready(Ok(()))
    }

    fn all_sent(&mut self) {
        (self.unsent, self.sent) = (Vec::new(), 0);
    }

    /// Tells the peer, as far as its socket listens, and ends.
    fn fail(&mut self, error: RecordError) -> io::Error {
        if let (Some(alert), Phase::Open) = (error.alert(), self.phase) {
            // If memory is short the peer is not told; the connection ends all the same.
            let _ = self.outbound.alert(alert, &mut self.unsent);
            self.send_some();
        }
        self.phase = Phase::Failed;
        if matches!(error, RecordError::BadMac)
            && let Some(unlogged) = BAD_RECORDS.admit()
        {
            let source = self.socket.peer_addr().ok().map(tracing::field::display);
            warn!(target: "security", source, unlogged, "record not authentic, connection ended");
        }
        let kind = match error {
            RecordError::PeerAlert(_) | RecordError::Ended => io::ErrorKind::ConnectionAborted,
            RecordError::OpenSsl(_) | RecordError::Exhausted => io::ErrorKind::Other,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}

static BAD_RECORDS: LogThrottle = LogThrottle::new();

impl AsyncRead for Detached {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.phase == Phase::Failed {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        loop {
            match this.inbound.look() {
                Ok(Taken::Content) => {
                    let octets = this.inbound.content().len().min(buf.remaining());
                    buf.put_slice(this.inbound.content().get(..octets).unwrap_or_default());
                    this.inbound.consume(octets);
                    return Poll::Ready(Ok(()));
                }
                Ok(Taken::Closed) => return Poll::Ready(Ok(())),
                Ok(Taken::UpdateRequested) => {
                    this.update_owed = true;
                    if let Err(error) = this.pay() {
                        return Poll::Ready(Err(this.fail(error)));
                    }
                    continue;
                }
                Ok(Taken::Nothing) => {}
                Err(error) => return Poll::Ready(Err(this.fail(error))),
            }
            let mut chunk = [MaybeUninit::<u8>::uninit(); READ_OCTETS];
            let mut chunk = ReadBuf::uninit(&mut chunk);
            match Pin::new(&mut this.socket).poll_read(cx, &mut chunk) {
                // Whoever cuts the connection could otherwise cut what is said on it short.
                Poll::Ready(Ok(())) if chunk.filled().is_empty() => {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                Poll::Ready(Ok(())) => this.inbound.receive(chunk.filled()),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl AsyncWrite for Detached {
    /// Takes one record's worth; the socket has it when [`poll_flush`](Self::poll_flush) says so.
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.phase != Phase::Open {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        match this.poll_send(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
        if octets.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if let Err(error) = this.pay() {
            return Poll::Ready(Err(this.fail(error)));
        }
        match this.outbound.data(octets, &mut this.unsent) {
            Ok(taken) => {
                this.send_some();
                Poll::Ready(Ok(taken))
            }
            Err(error) => Poll::Ready(Err(this.fail(error))),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.phase == Phase::Open {
            this.phase = Phase::Closing;
            if let Err(error) = this.outbound.close(&mut this.unsent) {
                return Poll::Ready(Err(this.fail(error)));
            }
        }
        match this.poll_send(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut this.socket).poll_shutdown(cx),
            other => other,
        }
    }
}

/// What is read at once.
const READ_OCTETS: usize = 4_096;
