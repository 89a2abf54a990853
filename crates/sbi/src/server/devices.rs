//! Connections of devices: TLS with the server's certificate alone, HTTP/2 or HTTP/1.1 inside.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use openssl::ssl::{Ssl, SslVersion};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};
use tokio_openssl::SslStream;
use transport::TlsVersion;
use transport::profile::ReloadingContext;

use super::{Holder, Peer, PeerService, Refusal, Shared, abused, serve_http2};
use crate::answers::Answers;

/// How a device's connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceTls {
    /// The version.
    pub version: TlsVersion,
    /// The cipher suite's IANA name.
    pub cipher: &'static str,
    /// The cipher suite's IANA number.
    pub suite: u16,
}

pub(crate) fn tls_of(stream: &SslStream<TcpStream>) -> Option<DeviceTls> {
    let version = match stream.ssl().version2()? {
        SslVersion::TLS1_3 => TlsVersion::Tls13,
        _ => TlsVersion::Tls12,
    };
    let cipher = stream.ssl().current_cipher()?;
    Some(DeviceTls { version, cipher: cipher.standard_name()?, suite: u16::from_be_bytes(cipher.protocol_id()) })
}

/// A connection whose client has begun to speak.
pub(super) async fn accept(stream: TcpStream, tls: &ReloadingContext) -> Result<SslStream<TcpStream>, Refusal> {
    stream.set_nodelay(true).map_err(|error| Refusal::new("socket", error))?;
    let ssl = Ssl::new(&tls.current()).map_err(|error| Refusal::new("tls", error))?;
    let mut stream = SslStream::new(ssl, stream).map_err(|error| Refusal::new("tls", error))?;
    Pin::new(&mut stream).accept().await.map_err(|error| Refusal::new("tls", error))?;
    match Pin::new(&mut stream).peek(&mut [0]).await {
        Ok(1) => Ok(stream),
        Ok(_) => Err(Refusal::new("closed", "the client left without a request")),
        Err(error) => Err(Refusal::new("tls", error)),
    }
}

pub(super) async fn serve(
    stream: SslStream<TcpStream>,
    source: SocketAddr,
    peer: Peer,
    holder: Holder,
    shared: &Arc<Shared>,
) {
    let http2 = stream.ssl().selected_alpn_protocol() == Some(b"h2");
    // Answers that last have no time of their own: a peer that takes nothing of them is found here.
    let stream = TimedWrites::new(stream, Duration::from_secs(shared.limits.answer_timeout_seconds));
    if http2 {
        serve_http2(stream, source, peer, holder, shared).await;
    } else {
        serve_http1(stream, source, peer, holder, shared).await;
    }
}

async fn serve_http1<S>(stream: S, source: SocketAddr, peer: Peer, holder: Holder, shared: &Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &shared.limits;
    let answers = Arc::new(Answers::default());
    let service = PeerService { source, peer, holder, answers: Arc::clone(&answers), shared: Arc::clone(shared) };
    let octets_max = usize::try_from(limits.header_list_bytes_max).unwrap_or(usize::MAX).max(HEADER_OCTETS_LEAST);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // From the end of one answer to the end of the next request's head.
        .header_read_timeout(Duration::from_secs(limits.keepalive_interval_seconds))
        .max_buf_size(octets_max)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = answers.overdue(Duration::from_secs(limits.answer_timeout_seconds)) => {
            return abused(shared, source, "answers_not_taken");
        }
        () = shared.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match timeout(Duration::from_secs(limits.drain_timeout_seconds), connection).await {
                Ok(ended) => ended,
                Err(_) => {
                    tracing::warn!(%source, "requests still under way after the drain time, connection closed");
                    return;
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%source, %error, "connection ended");
    }
}

/// Headers of one HTTP/1.1 request; one more gets 431.
const HEADERS_MAX: usize = 64;
/// Less than this hyper does not take for a head.
const HEADER_OCTETS_LEAST: usize = 8192;

/// A stream that fails once its peer has taken nothing for some time although there is something to take.
struct TimedWrites<S> {
    inner: S,
    limit: Duration,
    blocked: Option<Pin<Box<Sleep>>>,
}

impl<S> TimedWrites<S> {
    fn new(inner: S, limit: Duration) -> Self {
        Self { inner, limit, blocked: None }
    }

    fn watch<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.blocked = None;
            return polled;
        }
        let limit = self.limit;
        let blocked = self.blocked.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(blocked.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedWrites<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedWrites<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(context, octets);
        self.watch(context, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(context);
        self.watch(context, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(context);
        self.watch(context, polled)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up_and_a_slow_one_is_not() {
        let (near, mut far) = tokio::io::duplex(16);
        let mut stream = TimedWrites::new(near, Duration::from_secs(10));
        stream.write_all(&[0; 16]).await.unwrap();
        for _ in 0..3 {
            let (written, _) = tokio::join!(stream.write_all(&[0; 16]), async {
                sleep(Duration::from_secs(9)).await;
                far.read_exact(&mut [0; 16]).await.unwrap();
            });
            written.unwrap();
        }
        assert_eq!(stream.write_all(&[0; 16]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
