//! One MSGin5G-1 connection's life (TS 24.538 clause 6.3, RFC 8323).
//!
//! ```text
//! TLS-PSK done ─▶ CSMs ─▶ REG ─▶ association asked ─▶ 2.01 ─▶ MSG, IMDN both ways ─▶ DEREG ─▶ 2.02 ─┐
//!                  │       └─ refused: 4.03, 5.03, may try again               │                    │
//!                  │                                            K_AF expired, key or association    │
//!        no REG in time                                         withdrawn: Abort                    │
//!                  └──────────────────────────┬────────────────────────────────┴────────────────────┘
//!                                           closed: what it did not acknowledge is stored or failed
//! ```
//!
//! A session is one task, one state machine and one buffer in each direction; it holds no more memory than what is on the
//! way, because a server has many and most are silent. It never waits for anything but its own socket, mailbox, timer and
//! the one procedure (registration, de-registration, re-validation) that may be under way.
//!
//! A peer that reads nothing stops being read from once `outbound_octets_max` wait for it, and is closed after
//! `write_timeout_seconds`.

mod ending;
mod outgoing;
mod pace;
mod procedure;
mod requests;
mod resting;
mod topics;

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use coap::{
    Connection, ConnectionEvent, DatagramConfig, DatagramLimits, ExchangeId, Failure, StreamConfig, StreamLimits,
    Transmission,
};
use message::{Address, MessageId};
use tokio::time::{Instant, Sleep, sleep_until};
use transport::{Carrier, ProvenPeer, Received};

pub(crate) use ending::Ended;
use ending::Ending;
use outgoing::{Sent, Train, Wagon};
use pace::Pace;
use procedure::Procedure;
pub(crate) use procedure::{fingerprint, profile_of};
pub(crate) use resting::{Arrived, Resting};

use crate::core::Core;
use crate::limits::Limits;
use crate::mailbox::{CloseReason, Letter, Mailbox};
use crate::registry::Party;

/// Turns of the loop before other tasks get theirs.
const TURNS_MAX: usize = 16;

/// Room for the options and header of one CoAP message beside its payload.
pub(crate) const COAP_OVERHEAD_OCTETS: u32 = 1024;

/// The UE Service ID registered on a connection.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) party: Arc<Party>,
    pub(crate) generation: u64,
}

/// A request of the peer that waits for its answer, and what the answer names.
#[derive(Debug)]
struct Unanswered {
    exchange: ExchangeId,
    originator: Address,
    message_id: MessageId,
}

/// See the module.
pub(crate) struct Session {
    core: Arc<Core>,
    carrier: Box<dyn Carrier>,
    mailbox: Arc<Mailbox>,
    peer: Box<ProvenPeer>,
    source: std::net::IpAddr,
    path: Arc<str>,
    registered: Option<Registered>,
    procedure: Option<Procedure>,
    /// Of registrations and de-registrations.
    pace: Pace,
    /// There is a newer A-KID of the UE: this one is to be asked about once the procedure is over.
    doubted: bool,
    unanswered: Vec<Unanswered>,
    sent: VecDeque<Sent>,
    /// Messages that go out in segments and are not acknowledged.
    trains: Vec<Train>,
    /// What the pipeline gave and the window has not let out yet: the rest of one message's segments, or of what was
    /// meant to go out in one.
    waiting: VecDeque<Wagon>,
    /// Since when the carrier takes nothing.
    blocked_since: Option<Instant>,
    /// The UE acknowledged nothing and counts as away until something comes from it.
    asleep: bool,
    /// It went on after a restart, and nobody was asked yet whether key and association are still good: nothing is taken from
    /// its UE or delivered to it before.
    unchecked: bool,
    /// Something of the peer called it, and is to be handled.
    record_came: bool,
    /// The pipeline may have something to send.
    look: bool,
    pipeline_deadline: Option<Instant>,
    /// When K_AF expires.
    expires: Option<Instant>,
    register_by: Option<Instant>,
    revalidate_at: Instant,
    /// When a connection that cannot be re-validated ends.
    revalidate_by: Instant,
    heard_at: Instant,
    pinged_at: Option<Instant>,
    ending: Option<Ending>,
    timer: Pin<Box<Sleep>>,
    timer_at: Instant,
    /// Whoever runs it takes it up again after it rested.
    may_rest: bool,
    /// Not before this is looked again whether it may rest.
    rest_retry_at: Instant,
    /// How often its carrier did not rest since something came.
    rest_refusals: u32,
}

/// How a session's task ends.
pub(crate) enum Life {
    Ended(Ended),
    /// It is idle, and goes on when it is called.
    Rests(Box<Resting>),
}

/// Runs a connection to its end.
pub(crate) async fn run(
    core: Arc<Core>,
    carrier: Box<dyn Carrier>,
    peer: ProvenPeer,
    source: std::net::IpAddr,
    path: Arc<str>,
    mailbox: Arc<Mailbox>,
) -> Ended {
    let mut session = Session::new(core, carrier, peer, source, path, mailbox);
    // Nobody takes it up again.
    session.may_rest = false;
    match run_until_rest(session).await {
        Life::Ended(ended) => ended,
        Life::Rests(_) => Ended::Broken,
    }
}

/// Runs a session until it ends or rests.
pub(crate) async fn run_until_rest(session: Session) -> Life {
    let mut present = Present(Some(session));
    let ended = poll_fn(|context| match &mut present.0 {
        Some(session) => session.poll(context),
        None => Poll::Ready(None),
    })
    .await;
    match (ended, &mut present.0) {
        (Some(ended), Some(session)) => {
            session.close(ended).await;
            Life::Ended(ended)
        }
        _ => match present.0.take().and_then(Session::into_resting) {
            Some(resting) => Life::Rests(Box::new(resting)),
            None => Life::Ended(Ended::Broken),
        },
    }
}

/// A session while it has a task. If that did not get to its close, because something in it panicked, its UE is left away
/// and not connected to nobody.
struct Present(Option<Session>);

impl Drop for Present {
    fn drop(&mut self) {
        if let Some(session) = &mut self.0 {
            session.leave_all();
        }
    }
}

/// How CoAP is spoken over a stream.
pub(crate) fn stream_config(limits: &Limits) -> StreamConfig {
    let message_octets = u32::try_from(limits.message_octets_max).unwrap_or(u32::MAX);
    StreamConfig {
        max_message_size_own: message_octets.saturating_add(COAP_OVERHEAD_OCTETS),
        limits: StreamLimits {
            requests_outstanding_max: limits.delivery_window.saturating_add(1),
            // Ours is reached first, and says more than a code.
            peer_requests_outstanding_max: limits.requests_per_connection_max.saturating_mul(2),
            transmit_octets_max: limits.outbound_octets_max.saturating_mul(2),
            ..StreamLimits::default()
        },
    }
}

/// How CoAP is spoken over datagrams of `datagram_octets`, with what is kept for one peer.
pub(crate) fn datagram_config(limits: &Limits, datagram_octets: usize) -> DatagramConfig {
    let message_octets = u32::try_from(limits.message_octets_max).unwrap_or(u32::MAX);
    let datagram_octets_max = datagram_octets.saturating_sub(DTLS_OVERHEAD_OCTETS).min(COAP_DATAGRAM_OCTETS);
    // The next smaller power of two is what counts.
    let block_octets = datagram_octets_max.saturating_sub(BLOCK_OVERHEAD_OCTETS).clamp(16, 1024);
    DatagramConfig {
        max_message_size_own: message_octets,
        max_message_size_peer: message_octets,
        transmission: Transmission { nstart: limits.datagram_window, ..Transmission::default() },
        limits: DatagramLimits {
            requests_outstanding_max: limits.datagram_window.saturating_add(1),
            // Ours is reached first, and says more than a code.
            peer_requests_outstanding_max: limits.requests_per_connection_max.saturating_mul(2),
            // One of the largest, or many small ones.
            requests_octets_max: limits.message_octets_max.saturating_add(8_192),
            transmit_octets_max: 65_536,
            message_ids_max: 1_024,
            answers_octets_max: 16_384,
            datagram_octets_max,
            block_octets_max: u16::try_from(block_octets).unwrap_or(1_024),
            assemblies_max: 1,
            responses_kept_max: 1,
            responses_held_max: 2,
            responses_octets_max: 16_384,
            ..DatagramLimits::default()
        },
    }
}

/// What a CoAP message should not exceed (RFC 7252 clause 4.6).
const COAP_DATAGRAM_OCTETS: usize = 1_152;
/// What DTLS adds to it at most: header, Connection ID, nonce, tag.
const DTLS_OVERHEAD_OCTETS: usize = 80;
/// What a message has besides its block.
const BLOCK_OVERHEAD_OCTETS: usize = 128;

impl Session {
    pub(crate) fn new(
        core: Arc<Core>,
        carrier: Box<dyn Carrier>,
        peer: ProvenPeer,
        source: std::net::IpAddr,
        path: Arc<str>,
        mailbox: Arc<Mailbox>,
    ) -> Self {
        let now = Instant::now();
        Self {
            expires: expiry_instant(peer.expires_at, now),
            register_by: Some(now + core.limits.registration_timeout()),
            revalidate_at: now,
            revalidate_by: now,
            heard_at: now,
            timer: Box::pin(sleep_until(now)),
            timer_at: now,
            core,
            carrier,
            mailbox,
            peer: Box::new(peer),
            source,
            path,
            registered: None,
            procedure: None,
            pace: Pace::new(now),
            doubted: false,
            unanswered: Vec::new(),
            sent: VecDeque::new(),
            trains: Vec::new(),
            waiting: VecDeque::new(),
            blocked_since: None,
            asleep: false,
            unchecked: false,
            record_came: false,
            look: false,
            pipeline_deadline: None,
            pinged_at: None,
            ending: None,
            may_rest: true,
            rest_retry_at: now,
            rest_refusals: 0,
        }
    }

    /// Ready with none when it rests.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Ended>> {
        if std::mem::take(&mut self.record_came) {
            self.wake_up();
            self.take_events();
        }
        for _ in 0..TURNS_MAX {
            let mut progress = self.poll_mailbox(context);
            progress |= self.poll_procedure(context);
            progress |= match self.poll_read(context) {
                Ok(progress) => progress,
                Err(ended) => return Poll::Ready(Some(ended)),
            };
            progress |= self.dispatch();
            match self.poll_write(context) {
                Ok(wrote) => progress |= wrote,
                Err(_) => return Poll::Ready(Some(self.ended(Ended::Broken))),
            }
            if let Some(ended) = self.check_ending() {
                return Poll::Ready(Some(ended));
            }
            if !progress {
                if self.rests(Instant::now()) {
                    return Poll::Ready(None);
                }
                match self.poll_timer(context) {
                    Ok(true) => {}
                    Ok(false) => return Poll::Pending,
                    Err(ended) => return Poll::Ready(Some(ended)),
                }
            }
        }
        // A peer that is never silent does not outrun its deadlines.
        if let Err(ended) = self.poll_timer(context) {
            return Poll::Ready(Some(ended));
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes the letters, and the mark that the pipeline is worth a look.
    fn poll_mailbox(&mut self, context: &mut Context<'_>) -> bool {
        if self.mailbox.poll_ready(context).is_pending() {
            return false;
        }
        self.look = true;
        while let Some(letter) = self.mailbox.take() {
            match letter {
                Letter::Answer(exchange, answer) => self.answer(exchange, answer),
                Letter::Topics(exchange, answer) => self.answer_topics(exchange, answer),
                Letter::Revalidate => self.revalidate(Instant::now()),
                Letter::Close(reason) => self.close_ordered(reason),
            }
        }
        true
    }

    fn close_ordered(&mut self, reason: CloseReason) {
        match reason {
            CloseReason::Replaced => self.abort(Ended::Replaced),
            CloseReason::TooMany => self.abort(Ended::TooMany),
            CloseReason::Deregistered => self.abort(Ended::Deregistered),
            CloseReason::ServiceDisabled => self.abort(Ended::ServiceDisabled),
            CloseReason::Stopping => {
                let carries = |registered: &Registered| registered.party.is_carried_by(registered.generation);
                if !self.registered.as_ref().is_some_and(carries) {
                    // What this peer did not acknowledge was given up; nobody waits for it any more.
                    self.forget_sent();
                }
                self.release(Ended::Stopped, self.core.limits.drain_timeout());
            }
        }
    }

    /// Reads unless too much waits to be written; handles what came.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Result<bool, Ended> {
        if self.unchecked {
            // It waits for the answer, as whatever came with it does.
            return Ok(false);
        }
        if self.carrier.unsent_octets() >= self.core.limits.outbound_octets_max || self.carrier.coap().is_closed() {
            return Ok(false);
        }
        let now = Instant::now();
        let offence = match self.carrier.poll_receive(context, now.into_std()) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Received::Broken(_)) => return Err(self.ended(Ended::Broken)),
            Poll::Ready(Received::End) => return Err(self.ended(Ended::ByPeer)),
            Poll::Ready(Received::Unverified) => {
                // Anybody can send that: it is no sign of life, and wakes nobody.
                self.take_events();
                return Ok(true);
            }
            Poll::Ready(Received::Something) => None,
            Poll::Ready(Received::Offence(error)) => Some(error),
        };
        self.heard_at = now;
        self.rest_refusals = 0;
        self.pinged_at = None;
        self.wake_up();
        self.take_events();
        if let Some(error) = offence {
            tracing::info!(a_kid = %self.peer.a_kid, %error, "malformed CoAP, connection aborted");
            self.begin_ending(Ended::Malformed, self.core.limits.write_timeout());
        }
        Ok(true)
    }

    fn take_events(&mut self) {
        if self.unchecked {
            return;
        }
        while let Some(event) = self.carrier.poll_event() {
            self.handle(event);
        }
    }

    fn handle(&mut self, event: ConnectionEvent) {
        match event {
            ConnectionEvent::Request { request } => self.take_request(request),
            ConnectionEvent::Response { exchange, response } => self.take_response(exchange, &response),
            // What the UE itself answered, though not as it should.
            ConnectionEvent::Failed { exchange, failure: Failure::Unusable | Failure::TooLarge } => {
                self.take_unusable_response(exchange);
            }
            ConnectionEvent::Failed { failure, .. } => self.take_no_response(failure),
            ConnectionEvent::Unreachable => self.fall_asleep(),
            ConnectionEvent::Released { .. } => self.released_by_peer(),
            ConnectionEvent::Aborted { diagnostic, .. } => {
                tracing::debug!(a_kid = %self.peer.a_kid, diagnostic, "connection aborted by the peer");
                self.begin_ending(Ended::ByPeer, Duration::ZERO);
            }
            _ => {}
        }
    }

    /// Writes until the carrier takes no more.
    fn poll_write(&mut self, context: &mut Context<'_>) -> std::io::Result<bool> {
        let sent = self.carrier.poll_send(context)?;
        if sent.progress || !sent.blocked {
            self.blocked_since = None;
        }
        if sent.blocked {
            self.blocked_since.get_or_insert_with(Instant::now);
        }
        Ok(sent.progress)
    }

    fn coap(&mut self) -> &mut dyn Connection {
        self.carrier.coap_mut()
    }

    /// Waits for the next deadline; true if something was due.
    fn poll_timer(&mut self, context: &mut Context<'_>) -> Result<bool, Ended> {
        let deadline = self.next_turn().unwrap_or_else(|| Instant::now() + IDLE_TICK);
        // Deadlines mostly move away: the timer is set anew for an earlier one, or when it fires.
        if deadline < self.timer_at {
            self.timer_at = deadline;
            self.timer.as_mut().reset(deadline);
        }
        if self.timer.as_mut().poll(context).is_pending() {
            return Ok(false);
        }
        let now = Instant::now();
        let due = deadline <= now;
        if due {
            self.when_due(now)?;
        }
        self.timer_at = self.next_turn().unwrap_or_else(|| now + IDLE_TICK).max(now + TIMER_STEP);
        let timer_at = self.timer_at;
        self.timer.as_mut().reset(timer_at);
        Ok(true)
    }
}

/// Nothing is due twice within this, whatever the reason that it was not done the first time.
const TIMER_STEP: Duration = Duration::from_millis(5);

/// How far ahead the timer is set when nothing is due.
const IDLE_TICK: Duration = Duration::from_secs(3600);

/// Spreads what would otherwise happen at once for everybody who connected at once: within a tenth either way.
fn jittered(duration: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let share = (RandomState::new().hash_one(0_u8) % 2001) as f64 / 10_000.0;
    duration.mul_f64(0.9 + share)
}

/// K_AF's expiry on the clock that timers run by.
fn expiry_instant(expires_at: Option<SystemTime>, now: Instant) -> Option<Instant> {
    expires_at.map(|at| now + at.duration_since(SystemTime::now()).unwrap_or_default())
}
