//! One connection: octets between the socket and the CoAP state machine, and signs of life.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use coap::{Release, StreamConfig, StreamConnection, StreamEvent, StreamLimits};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    time::{Instant, sleep_until, timeout, timeout_at},
};
use transport::ClientStream;

use crate::limits::ClientLimits;

/// Room for reading from the socket.
const READ_OCTETS: usize = 8_192;
/// Requests of the server beyond those that wait for the application, which are answered at once.
const REQUESTS_BESIDES: usize = 16;
/// What a CoAP message has besides its payload: header, token, options.
const FRAME_OCTETS_MAX: u32 = 1_024;
/// How long the server may take to close its side after ours.
const LINGER: Duration = Duration::from_secs(1);

/// What happens on a connection.
#[derive(Debug)]
pub(crate) enum SessionEvent {
    /// A CoAP event.
    Stream(StreamEvent),
    /// Everything that waited to be written is written.
    Written,
    /// The connection is over.
    Closed(String),
}

/// An open connection.
pub(crate) struct Session {
    pub(crate) coap: StreamConnection,
    reader: ReadHalf<ClientStream>,
    writer: WriteHalf<ClientStream>,
    inbound: BytesMut,
    writing: Bytes,
    /// When the server was last heard of.
    heard: Instant,
    /// When it was asked for a sign of life.
    pinged: Option<Instant>,
    keep_alive: Duration,
    pong_timeout: Duration,
    /// Why no more is read.
    ended: Option<String>,
    /// When it was opened.
    pub(crate) opened: Instant,
}

impl Session {
    pub(crate) fn new(stream: ClientStream, limits: &ClientLimits) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        let octets_max = u32::try_from(limits.message_octets_max).unwrap_or(u32::MAX);
        let config = StreamConfig {
            max_message_size_own: octets_max.saturating_add(FRAME_OCTETS_MAX),
            limits: StreamLimits {
                // Segments and reports are sent besides the application's messages, and a registration.
                requests_outstanding_max: limits
                    .unanswered_max
                    .saturating_add(limits.segments_unanswered_max)
                    .saturating_add(limits.reports_unanswered_max)
                    .saturating_add(2),
                peer_requests_outstanding_max: limits.unaccepted_max.saturating_add(REQUESTS_BESIDES),
                transmit_octets_max: limits.outbound_octets_max,
                ..StreamLimits::default()
            },
        };
        let now = Instant::now();
        Self {
            coap: StreamConnection::new(config),
            reader,
            writer,
            inbound: BytesMut::new(),
            writing: Bytes::new(),
            heard: now,
            pinged: None,
            keep_alive: limits.keep_alive(),
            pong_timeout: limits.pong_timeout(),
            ended: None,
            opened: now,
        }
    }

    /// The next event. May be dropped and called again at any time without losing anything.
    pub(crate) async fn event(&mut self) -> SessionEvent {
        loop {
            if let Some(event) = self.coap.poll_event() {
                return SessionEvent::Stream(event);
            }
            if let Some(reason) = self.ended.take() {
                self.send_last_words().await;
                return SessionEvent::Closed(reason);
            }
            if self.writing.is_empty()
                && let Some(octets) = self.coap.poll_transmit()
            {
                self.writing = octets.into();
            }
            self.inbound.reserve(READ_OCTETS);
            let wake = self.pinged.map_or(self.heard + self.keep_alive, |pinged| pinged + self.pong_timeout);
            tokio::select! {
                read = self.reader.read_buf(&mut self.inbound) => self.take(read),
                written = self.writer.write_buf(&mut self.writing), if !self.writing.is_empty() => match written {
                    Ok(_) if self.writing.is_empty() => return SessionEvent::Written,
                    Ok(_) => {}
                    Err(error) => self.ended = Some(error.to_string()),
                },
                () = sleep_until(wake) => self.ask_for_life(),
            }
        }
    }

    fn take(&mut self, read: std::io::Result<usize>) {
        match read {
            Ok(0) => self.ended = Some("the server closed it".into()),
            Ok(_) => {
                self.heard = Instant::now();
                self.pinged = None;
                let octets = self.inbound.split();
                if let Err(error) = self.coap.receive(&octets) {
                    self.ended = Some(error.to_string());
                }
            }
            Err(error) => self.ended = Some(error.to_string()),
        }
    }

    fn ask_for_life(&mut self) {
        if self.pinged.is_some() {
            self.ended = Some("the server gave no sign of life".into());
        } else if let Err(error) = self.coap.ping() {
            self.ended = Some(error.to_string());
        } else {
            self.pinged = Some(Instant::now());
        }
    }

    /// Tells the server what it did wrong, as far as it still listens (RFC 8323 clause 5.6).
    async fn send_last_words(&mut self) {
        let words = async {
            self.writer.write_all_buf(&mut self.writing).await?;
            if let Some(octets) = self.coap.poll_transmit() {
                self.writer.write_all(&octets).await?;
            }
            self.writer.shutdown().await
        };
        // The connection is over whether or not they arrive.
        let _ = timeout(LINGER, words).await;
    }

    /// Whether nothing waits to be written.
    pub(crate) fn is_written(&self) -> bool {
        self.writing.is_empty() && self.coap.transmit_octets() == 0
    }

    /// Ends the connection in good order (RFC 8323 clause 5.5): what was written arrives, then both sides close.
    pub(crate) async fn finish(mut self, deadline: Instant) {
        // Fails only on a connection that is over already.
        let _ = self.coap.release(&Release::default());
        let closing = async {
            while !self.is_written() {
                if let SessionEvent::Closed(_) = self.event().await {
                    return;
                }
            }
            // Closing with unread octets resets the connection and may take our last words along.
            let _ = self.writer.shutdown().await;
            let drained = async {
                while matches!(self.reader.read_buf(&mut self.inbound).await, Ok(1..)) {
                    self.inbound.clear()
                }
            };
            let _ = timeout(LINGER, drained).await;
        };
        let _ = timeout_at(deadline, closing).await;
    }
}
