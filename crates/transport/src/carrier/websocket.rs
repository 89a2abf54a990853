//! CoAP over WebSocket (RFC 8323 clause 4).

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use coap::{Connection, ConnectionError, StreamConfig, StreamConnection};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::{Carrier, Received, Sent};
use crate::websocket::{ClientOpening, ServerOpening, UpgradeError, UpgradeRefusal, WebSocket};

/// Limits on the opening handshake of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpeningLimits {
    /// Octets of the request. One more is answered 431.
    pub request_octets_max: usize,
    /// How long the request may take from the end of the TLS handshake. Then it is answered 408.
    pub request_timeout: Duration,
}

/// Why a connection did not become a WebSocket.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpeningError {
    /// The request was not what it must be; the peer was told, and the connection closed.
    #[error("{0}")]
    Refused(UpgradeRefusal),
    /// The peer closed the connection.
    #[error("the peer left before its request was whole")]
    Closed,
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[from] io::Error),
}

/// A stream that protects what it carries, WebSocket on it, and CoAP over that.
#[derive(Debug)]
pub struct WebSocketCarrier<S> {
    stream: S,
    websocket: WebSocket,
    machine: StreamConnection,
    /// What the stream has not taken yet.
    outbound: Bytes,
    /// What it has taken may not have left.
    unflushed: bool,
    /// The code to close with, once the machine's last words are out.
    close_code: Option<u16>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketCarrier<S> {
    /// Answers the peer's opening handshake.
    ///
    /// # Errors
    /// [`OpeningError`]; the connection is closed.
    pub async fn accept(mut stream: S, limits: &OpeningLimits, config: StreamConfig) -> Result<Self, OpeningError> {
        let asked = timeout(limits.request_timeout, answer(&mut stream, limits.request_octets_max)).await;
        match asked.unwrap_or(Err(OpeningError::Refused(UpgradeRefusal::TimedOut))) {
            Ok(()) => Ok(Self::new(stream, WebSocket::server(octets_max(&config)), config)),
            Err(error) => {
                if let OpeningError::Refused(refusal) = error {
                    // Whether or not the peer hears it.
                    let _ = timeout(LAST_WORDS_MAX, refuse(&mut stream, refusal)).await;
                }
                Err(error)
            }
        }
    }

    /// Asks the peer, by the name of `authority` (host, and port unless it is 443), for CoAP over WebSocket. How long that
    /// may take is the caller's to say.
    ///
    /// # Errors
    /// [`UpgradeError`].
    pub async fn connect(mut stream: S, authority: &str, config: StreamConfig) -> Result<Self, UpgradeError> {
        let (mut opening, request) = ClientOpening::new(authority)?;
        stream.write_all(&request).await?;
        stream.flush().await?;
        let mut octets = [0; OPENING_READ_OCTETS];
        let early = loop {
            let taken = match stream.read(&mut octets).await? {
                0 => return Err(UpgradeError::Closed),
                count => opening.receive(octets.get(..count).unwrap_or_default())?,
            };
            if let Some(early) = taken {
                break early;
            }
        };
        let mut carrier = Self::new(stream, WebSocket::client(octets_max(&config)), config);
        carrier.take(&early).map_err(|_| UpgradeError::Answer("what follows it is not CoAP over WebSocket"))?;
        Ok(carrier)
    }

    fn new(stream: S, websocket: WebSocket, config: StreamConfig) -> Self {
        Self {
            stream,
            websocket,
            machine: StreamConnection::over_websocket(config),
            outbound: Bytes::new(),
            unflushed: false,
            close_code: None,
        }
    }
}

impl<S> WebSocketCarrier<S> {
    /// Gives the machine the messages in what has come.
    fn take(&mut self, mut octets: &[u8]) -> Result<(), ConnectionError> {
        loop {
            match self.websocket.receive(&mut octets) {
                Ok(Some(message)) => {
                    if let Err(error) = self.machine.receive(&message) {
                        self.close_code = Some(CODE_PROTOCOL);
                        return Err(error);
                    }
                }
                Ok(None) => return Ok(()),
                Err(error) => {
                    self.machine.abort(error.as_str());
                    self.close_code = Some(error.close_code());
                    return Err(ConnectionError::Malformed(error.as_str()));
                }
            }
        }
    }

    /// The next octets for the stream: what WebSocket has to say, then messages, then Close if it is time for that.
    fn fill(&mut self) {
        while self.websocket.transmit_octets() < BATCH_OCTETS {
            let Some(message) = self.machine.poll_transmit() else { break };
            self.websocket.send(message);
        }
        if self.machine.transmit_octets() == 0
            && let Some(code) = self.close_code.take()
        {
            self.websocket.close(code);
        }
        self.outbound = self.websocket.poll_transmit().unwrap_or_default().into();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketCarrier<S> {
    fn poll_write(&mut self, context: &mut Context<'_>) -> io::Result<Sent> {
        let mut progress = false;
        loop {
            if self.outbound.is_empty() {
                self.fill();
                if self.outbound.is_empty() {
                    break;
                }
            }
            match Pin::new(&mut self.stream).poll_write(context, &self.outbound) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    self.outbound.advance(count);
                    (progress, self.unflushed) = (true, true);
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(Sent { progress, blocked: true }),
            }
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
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Carrier for WebSocketCarrier<S> {
    fn coap(&self) -> &dyn Connection {
        &self.machine
    }

    fn coap_mut(&mut self) -> &mut dyn Connection {
        &mut self.machine
    }

    fn poll_receive(&mut self, context: &mut Context<'_>, _now: Instant) -> Poll<Received> {
        let mut octets = [MaybeUninit::<u8>::uninit(); READ_OCTETS];
        let mut buffer = ReadBuf::uninit(&mut octets);
        match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Received::Broken(error)),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => return Poll::Ready(Received::End),
            Poll::Ready(Ok(())) => {}
        }
        if let Err(offence) = self.take(buffer.filled()) {
            return Poll::Ready(Received::Offence(offence));
        }
        if !self.websocket.is_closed() {
            return Poll::Ready(Received::Something);
        }
        // The peer's Close is answered as far as the stream takes it now; nobody waits for more of this connection.
        if let Ok(Sent { blocked: false, .. }) = self.poll_write(context) {
            let _ = Pin::new(&mut self.stream).poll_shutdown(context);
        }
        Poll::Ready(Received::End)
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> io::Result<Sent> {
        self.poll_write(context)
    }

    fn unsent_octets(&self) -> usize {
        self.outbound.len() + self.websocket.transmit_octets() + self.machine.transmit_octets()
    }

    fn is_sent(&self) -> bool {
        self.unsent_octets() == 0 && !self.unflushed && self.close_code.is_none()
    }

    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.close_code.get_or_insert(CODE_NORMAL);
        match self.poll_write(context) {
            Ok(Sent { blocked: true, .. }) => Poll::Pending,
            // Whether or not it can be said: the connection is over.
            _ => Pin::new(&mut self.stream).poll_shutdown(context).map(drop),
        }
    }
}

/// Reads the request and answers it with 101.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    request_octets_max: usize,
) -> Result<(), OpeningError> {
    let mut opening = ServerOpening::new(request_octets_max);
    let mut octets = [0; OPENING_READ_OCTETS];
    loop {
        let answer = match stream.read(&mut octets).await? {
            0 => return Err(OpeningError::Closed),
            count => opening.receive(octets.get(..count).unwrap_or_default()).map_err(OpeningError::Refused)?,
        };
        if let Some(answer) = answer {
            stream.write_all(&answer).await?;
            stream.flush().await?;
            return Ok(());
        }
    }
}

async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, refusal: UpgradeRefusal) -> io::Result<()> {
    stream.write_all(&refusal.response()).await?;
    stream.shutdown().await?;
    // Closing with unread octets resets the connection, and may take the answer along.
    let mut octets = [0; OPENING_READ_OCTETS];
    while stream.read(&mut octets).await? > 0 {}
    Ok(())
}

/// The largest message of a peer, which is the largest frame.
fn octets_max(config: &StreamConfig) -> usize {
    // The machine takes no less than this, whatever was configured.
    usize::try_from(config.max_message_size_own.max(coap::BASE_MESSAGE_SIZE)).unwrap_or(usize::MAX)
}

/// Octets read at once: a TLS record's worth is more than a message.
const READ_OCTETS: usize = 8_192;

/// The same in the opening handshake.
const OPENING_READ_OCTETS: usize = 1_024;

/// Octets of frames that are written at once: what fits into a TLS record.
const BATCH_OCTETS: usize = 16_384;

/// How long a refused peer may take to read why, and to leave.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);

/// RFC 6455 7.4.1.
const CODE_NORMAL: u16 = 1000;
const CODE_PROTOCOL: u16 = 1002;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::future::poll_fn;

    use coap::{Code, ConnectionEvent, Request, Response};
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const LIMITS: OpeningLimits = OpeningLimits { request_octets_max: 1_024, request_timeout: Duration::from_secs(5) };

    async fn pair(octets: usize) -> (WebSocketCarrier<DuplexStream>, WebSocketCarrier<DuplexStream>) {
        let (near, far) = duplex(octets);
        let (client, server) = tokio::join!(
            WebSocketCarrier::connect(near, "server.example:8443", StreamConfig::default()),
            WebSocketCarrier::accept(far, &LIMITS, StreamConfig::default()),
        );
        (client.unwrap(), server.unwrap())
    }

    /// Sends what there is, and waits for what comes.
    async fn receive(carrier: &mut impl Carrier) -> Received {
        poll_fn(|context| {
            if let Err(error) = carrier.poll_send(context) {
                return Poll::Ready(Received::Broken(error));
            }
            carrier.poll_receive(context, Instant::now())
        })
        .await
    }

    /// Answers each request with its payload, until the peer leaves.
    async fn echo(mut carrier: impl Carrier) {
        while matches!(receive(&mut carrier).await, Received::Something) {
            while let Some(event) = carrier.poll_event() {
                if let ConnectionEvent::Request { request } = event {
                    let answer = Response::new(Code::CONTENT).with_payload(request.payload);
                    carrier.coap_mut().respond(request.exchange, &answer, Instant::now()).unwrap();
                }
            }
        }
    }

    async fn answer_to(client: &mut impl Carrier, payload: &[u8]) -> Vec<u8> {
        client.coap_mut().request(&Request::post("x").payload(payload), Instant::now()).unwrap();
        loop {
            while let Some(event) = client.poll_event() {
                if let ConnectionEvent::Response { response, .. } = event {
                    return response.payload.to_vec();
                }
            }
            assert!(matches!(receive(client).await, Received::Something));
        }
    }

    #[tokio::test]
    async fn messages_cross_both_ways_however_little_the_stream_takes_at_once() {
        for octets in [5, 200, 100_000] {
            let (mut client, server) = pair(octets).await;
            let serving = tokio::spawn(echo(server));
            // Before the peer's CSM a message has at most 1152 octets.
            assert_eq!(answer_to(&mut client, b"hello").await, b"hello");
            let large: Vec<u8> = (0..60_000_u32).map(|octet| (octet % 251) as u8).collect();
            assert_eq!(answer_to(&mut client, &large).await, large);
            assert!(client.is_sent());
            poll_fn(|context| client.poll_close(context)).await;
            // The server answers Close with Close, and leaves.
            while !matches!(receive(&mut client).await, Received::End) {}
            serving.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_does_not_end_is_refused_in_time() {
        let (mut near, far) = duplex(1_024);
        near.write_all(b"GET /.well-known/coap HTTP/1.1\r\n").await.unwrap();
        let refused = tokio::spawn(WebSocketCarrier::accept(far, &LIMITS, StreamConfig::default()));
        let mut answer = String::new();
        near.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        drop(near);
        assert!(matches!(refused.await.unwrap(), Err(OpeningError::Refused(UpgradeRefusal::TimedOut))));
    }

    #[tokio::test]
    async fn a_peer_that_leaves_before_its_request_is_whole_is_told_nothing() {
        let (mut near, far) = duplex(1_024);
        near.write_all(b"GET /").await.unwrap();
        near.shutdown().await.unwrap();
        let refused = WebSocketCarrier::accept(far, &LIMITS, StreamConfig::default()).await;
        assert!(matches!(refused, Err(OpeningError::Closed)));
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.unwrap();
        assert!(answer.is_empty());
    }

    #[tokio::test]
    async fn a_client_tells_what_it_was_refused_with_and_takes_no_answer_of_another_protocol() {
        let connect = |says: &'static [u8]| async move {
            let (near, mut far) = duplex(1_024);
            let server = async {
                far.write_all(says).await.unwrap();
                far.shutdown().await.unwrap();
                far
            };
            let (client, _) =
                tokio::join!(WebSocketCarrier::connect(near, "server.example", StreamConfig::default()), server);
            client.unwrap_err().to_string()
        };
        let refused = connect(b"HTTP/1.1 404 Not Found\r\n\r\nnot here").await;
        assert!(refused.contains("404") && refused.contains("not here"), "{refused}");
        let csm = connect(b"\x00\xe1\r\n\r\n").await;
        assert!(csm.contains("not of HTTP/1.1"), "{csm}");
        assert!(connect(b"HTTP/1.1 101 x\r\n").await.contains("closed"));
    }

    /// What a session does with an offence, and what the peer reads of it.
    #[tokio::test]
    async fn an_offence_is_answered_with_an_abort_and_a_close_and_nothing_after_them() {
        let (near, far) = duplex(65_536);
        let opening = async {
            let (mut opening, request) = ClientOpening::new("server.example").unwrap();
            let mut near = near;
            near.write_all(&request).await.unwrap();
            let mut octets = [0; 1_024];
            let count = near.read(&mut octets).await.unwrap();
            assert!(opening.receive(octets.get(..count).unwrap()).unwrap().is_some());
            near
        };
        let (mut near, server) = tokio::join!(opening, WebSocketCarrier::accept(far, &LIMITS, StreamConfig::default()));
        let mut server = server.unwrap();
        near.write_all(b"\x81\x80\0\0\0\0").await.unwrap();
        let Received::Offence(offence) = receive(&mut server).await else { panic!("nothing wrong?") };
        assert_eq!(offence, ConnectionError::Malformed("WebSocket text frame"));
        assert!(offence.is_fatal() && server.coap().is_closed());
        poll_fn(|context| server.poll_close(context)).await;
        assert!(server.is_sent());
        let mut last = Vec::new();
        near.read_to_end(&mut last).await.unwrap();
        assert!(last.windows(20).any(|window| window == b"WebSocket text frame"), "{last:x?}");
        assert!(last.ends_with(&[0x88, 0x02, 0x03, 0xeb]), "{last:x?}");
    }
}
