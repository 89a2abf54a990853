//! One connection: CoAP with the server over whatever carries it, and signs of life.

use std::{future::poll_fn, task::Poll, time::Duration};

use coap::{Connection, ConnectionError, ConnectionEvent, ExchangeId, Release, RequestBuilder, Response};
use coap::{DatagramConfig, DatagramLimits, Failure, StreamConfig, StreamLimits, Transmission};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use transport::{Carrier, Received};

use crate::limits::ClientLimits;

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
    Coap(ConnectionEvent),
    /// Everything that waited to be written is written.
    Written,
    /// The connection is over.
    Closed(String),
}

/// An open connection.
pub(crate) struct Session {
    carrier: Box<dyn Carrier>,
    /// When the server was last heard of.
    heard: Instant,
    /// When it was asked for a sign of life.
    pinged: Option<Instant>,
    keep_alive: Duration,
    pong_timeout: Duration,
    /// Everything that waited was written, and nobody has heard so.
    written: bool,
    /// Why no more is read.
    ended: Option<String>,
    /// When it was opened.
    pub(crate) opened: Instant,
}

/// How CoAP is spoken over a stream.
pub(crate) fn stream_config(limits: &ClientLimits) -> StreamConfig {
    let octets_max = u32::try_from(limits.message_octets_max).unwrap_or(u32::MAX);
    StreamConfig {
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
    }
}

/// How CoAP is spoken over datagrams.
pub(crate) fn datagram_config(limits: &ClientLimits) -> DatagramConfig {
    let octets_max = u32::try_from(limits.message_octets_max).unwrap_or(u32::MAX);
    let stream = stream_config(limits).limits;
    DatagramConfig {
        max_message_size_own: octets_max,
        max_message_size_peer: octets_max,
        // A server that has restarted knows the session no more and says nothing: after three transmissions without an
        // acknowledgement, half a minute at most, another session is made.
        transmission: Transmission { max_retransmit: 2, ..Transmission::default() },
        limits: DatagramLimits {
            requests_outstanding_max: stream.requests_outstanding_max,
            peer_requests_outstanding_max: stream.peer_requests_outstanding_max,
            transmit_octets_max: limits.outbound_octets_max,
            ..DatagramLimits::default()
        },
    }
}

impl Session {
    pub(crate) fn new(carrier: Box<dyn Carrier>, limits: &ClientLimits) -> Self {
        let now = Instant::now();
        Self {
            carrier,
            heard: now,
            pinged: None,
            written: false,
            keep_alive: limits.keep_alive(),
            pong_timeout: limits.pong_timeout(),
            ended: None,
            opened: now,
        }
    }

    /// Asks the server.
    pub(crate) fn request(&mut self, request: &RequestBuilder<'_>) -> Result<ExchangeId, ConnectionError> {
        self.coap().request(request, Instant::now().into_std())
    }

    /// Answers the server.
    pub(crate) fn respond(&mut self, exchange: ExchangeId, response: &Response) -> Result<(), ConnectionError> {
        self.coap().respond(exchange, response, Instant::now().into_std())
    }

    /// Gives up waiting for an answer.
    pub(crate) fn cancel(&mut self, exchange: ExchangeId) {
        self.coap().cancel(exchange, Instant::now().into_std());
    }

    fn coap(&mut self) -> &mut dyn Connection {
        self.carrier.coap_mut()
    }

    /// The next event. May be dropped and called again at any time without losing anything.
    pub(crate) async fn event(&mut self) -> SessionEvent {
        loop {
            if let Some(event) = self.carrier.poll_event() {
                if self.carrier.is_datagram() && is_silence(&event) && self.ended.is_none() {
                    self.ended = Some("the server acknowledges nothing".into());
                }
                return SessionEvent::Coap(event);
            }
            if let Some(reason) = self.ended.take() {
                self.send_last_words().await;
                return SessionEvent::Closed(reason);
            }
            if std::mem::take(&mut self.written) {
                return SessionEvent::Written;
            }
            let alive = self.pinged.map_or(self.heard + self.keep_alive, |pinged| pinged + self.pong_timeout);
            let machine = self.carrier.poll_timeout().map(Instant::from_std);
            let wake = machine.map_or(alive, |at| at.min(alive));
            tokio::select! {
                () = poll_fn(|context| self.poll_io(context)) => {}
                () = sleep_until(wake) => {
                    let now = Instant::now();
                    if machine.is_some_and(|at| at <= now) {
                        self.carrier.handle_timeout(now.into_std());
                    }
                    if alive <= now {
                        self.ask_for_life();
                    }
                }
            }
        }
    }

    /// Ready when something came or was written.
    fn poll_io(&mut self, context: &mut std::task::Context<'_>) -> Poll<()> {
        let sent = match self.carrier.poll_send(context) {
            Ok(sent) => sent,
            Err(error) => {
                self.ended = Some(error.to_string());
                return Poll::Ready(());
            }
        };
        self.written |= sent.progress && !sent.blocked;
        let now = Instant::now();
        match self.carrier.poll_receive(context, now.into_std()) {
            Poll::Ready(received) => {
                self.take(received, now);
                Poll::Ready(())
            }
            Poll::Pending if sent.progress => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        }
    }

    fn take(&mut self, received: Received, now: Instant) {
        self.ended = match received {
            // No sign of life, since anybody can send it.
            Received::Unverified => return,
            Received::Something => None,
            Received::Offence(error) => Some(error.to_string()),
            Received::End => Some("the server closed it".into()),
            Received::Broken(error) => Some(error.to_string()),
        };
        (self.heard, self.pinged) = (now, None);
    }

    fn ask_for_life(&mut self) {
        let now = Instant::now();
        if self.pinged.is_some() {
            self.ended = Some("the server gave no sign of life".into());
        } else if let Err(error) = self.coap().ping(now.into_std()) {
            self.ended = Some(error.to_string());
        } else {
            self.pinged = Some(now);
        }
    }

    /// Tells the server what it did wrong, as far as it still listens (RFC 8323 clause 5.6).
    async fn send_last_words(&mut self) {
        // The connection is over whether or not they arrive.
        let _ = timeout(LINGER, self.close()).await;
    }

    /// Closes our side, once everything is written.
    async fn close(&mut self) {
        poll_fn(|context| match self.carrier.poll_send(context) {
            Ok(sent) if sent.blocked => Poll::Pending,
            Ok(_) => self.carrier.poll_close(context),
            Err(_) => Poll::Ready(()),
        })
        .await;
    }

    /// Whether nothing waits to be written.
    pub(crate) fn is_written(&self) -> bool {
        self.carrier.is_sent()
    }

    /// Whether nothing is under way in either direction.
    pub(crate) fn is_settled(&self) -> bool {
        self.carrier.coap().is_settled()
    }

    /// Stays until the server ends it or `deadline`, then ends it in good order. What comes on it meanwhile is left for the
    /// server to send again on the connection that takes its place.
    pub(crate) async fn outlive(mut self, deadline: Instant) {
        let ended = async {
            loop {
                if let SessionEvent::Closed(_)
                | SessionEvent::Coap(ConnectionEvent::Released { .. } | ConnectionEvent::Aborted { .. }) =
                    self.event().await
                {
                    return;
                }
            }
        };
        let _ = timeout_at(deadline, ended).await;
        self.finish(Instant::now() + LINGER).await;
    }

    /// Ends the connection in good order (RFC 8323 clause 5.5): what was written arrives, then both sides close.
    pub(crate) async fn finish(mut self, deadline: Instant) {
        // Fails only on a connection that is over already.
        let _ = self.coap().release(&Release::default());
        let closing = async {
            while !self.is_written() {
                if let SessionEvent::Closed(_) = self.event().await {
                    return;
                }
            }
            // Closing with unread octets resets the connection and may take our last words along.
            self.close().await;
            let drained = poll_fn(|context| {
                loop {
                    match self.carrier.poll_receive(context, Instant::now().into_std()) {
                        Poll::Ready(Received::Something | Received::Unverified | Received::Offence(_)) => {
                            while self.carrier.poll_event().is_some() {}
                        }
                        Poll::Ready(Received::End | Received::Broken(_)) => return Poll::Ready(()),
                        Poll::Pending => return Poll::Pending,
                    }
                }
            });
            let _ = timeout(LINGER, drained).await;
        };
        let _ = timeout_at(deadline, closing).await;
    }
}

/// What a peer that is gone causes, over datagrams.
fn is_silence(event: &ConnectionEvent) -> bool {
    let silence = |failure: &Failure| matches!(failure, Failure::NotAcknowledged | Failure::NoAnswer | Failure::Reset);
    matches!(event, ConnectionEvent::Failed { failure, .. } if silence(failure))
}
