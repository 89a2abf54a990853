//! The one task of a client.
//!
//! ```text
//!             ┌────────────── pause, drawn with jitter ◄──────────────┐
//!             ▼                                                       │
//!   keys ──► TCP ──► TLS-PSK ──► REG ──► registered ──► lost ─────────┤
//!    ▲                 │          │       │     ▲                     │
//!    └── not taken ────┘          └─ refused ───│─────────────────────┘
//!                                         │     │ 5.03, 4.29: again later
//!                 application ── MSG ─────┤◄────┘
//!                 application ◄── MSG, IMDN ── accept ──► journal ──► 2.04, IMDN and SEGCONFIR owed
//! ```
//!
//! Keys that are about to expire are replaced beside the connection that was made with them: the next one is open and its
//! registration answered before the earlier is left ([`renewal`]).
//!
//! Registration: TS 23.554 clause 8.2.1. Messages: clause 8.3. Aggregation: 8.4. Segments: 8.5. Topics: 8.8. Everything
//! unanswered when a connection is lost is sent again on the next one, with the same Message ID.

mod answers;
mod arrivals;
mod decisions;
mod link;
mod renewal;
mod sending;

use std::{sync::Arc, time::Duration};

use coap::{ConnectionError, ConnectionEvent, ExchangeId, Failure, Request};
use message::{Deregistration, UeMessage};
use time::OffsetDateTime;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};
use transport::TlsVersion;

use crate::{
    aggregation::Aggregator,
    backoff::Backoff,
    bundle::Bundles,
    config::ClientConfig,
    error::ClientError,
    establish::{Attempt, Establisher, Keys},
    hand_over::HandOvers,
    incoming::{Decision, Incoming},
    journal::{Journal, Record},
    journal_writer::JournalWriter,
    reassembly::Reassembly,
    requests::{Requests, Windows},
    session::{Session, SessionEvent},
    status::{ClientState, ClientStatus},
    subscriptions::Subscriptions,
};
use arrivals::{Content, Place};
use link::{Link, LinkEvent, Phase};
use renewal::Renewal;
pub(crate) use sending::{Command, Unsent};

/// Content-Format of JSON (RFC 7252 clause 12.3).
const JSON: u16 = 50;

/// The longest that a server can send its client away for: whatever it says, it may have changed its mind by then.
const AWAY_MAX: Duration = Duration::from_secs(3600);

/// How the application ends the client; not queued behind messages.
#[derive(Debug)]
pub(crate) enum End {
    Deregister { answer: oneshot::Sender<Result<(), ClientError>> },
    Close,
}

/// How the client comes to its end.
enum Ending {
    /// It does not.
    None,
    /// De-registration is to be asked for, or was.
    Deregister { exchange: Option<ExchangeId>, deadline: Instant, answer: oneshot::Sender<Result<(), ClientError>> },
    /// What is under way is waited for.
    Close { deadline: Instant },
}

/// How a connection is left.
#[derive(Clone, Copy, Debug)]
enum Farewell {
    /// In good order, and at once.
    Release,
    /// Once the server has taken the next one in its place: until then the UE is connected to it.
    WhenReplaced,
}

/// The state of a running client.
pub(crate) struct Driver {
    config: Arc<ClientConfig>,
    path: String,
    path_segments: Vec<String>,
    establisher: Establisher,
    keys: Keys,
    link: Link,
    /// The next connection, with newer keys, while the earlier serves on.
    renewal: Option<Renewal>,
    backoff: Backoff,
    /// Pauses before newer keys are tried again, while the earlier connection serves on.
    renewal_backoff: Backoff,
    /// Until when the server does not want to be met, as it said on a next connection that came to nothing.
    away_until: Option<Instant>,
    commands: mpsc::Receiver<Command>,
    ends: mpsc::Receiver<End>,
    decisions: mpsc::Receiver<Decision>,
    decision_sender: mpsc::Sender<Decision>,
    to_application: mpsc::Sender<Incoming>,
    requests: Requests<ExchangeId>,
    aggregator: Option<Aggregator<Unsent>>,
    subscriptions: Subscriptions,
    hand_overs: HandOvers<Place>,
    bundles: Bundles<ExchangeId, Content>,
    reassembly: Reassembly<Place>,
    journal: Option<JournalWriter>,
    status: watch::Sender<ClientStatus>,
    ending: Ending,
}

impl Driver {
    pub(crate) fn new(
        config: Arc<ClientConfig>,
        establisher: Establisher,
        journal: Option<(Journal, Vec<Record>)>,
        (commands, ends): (mpsc::Receiver<Command>, mpsc::Receiver<End>),
        status: watch::Sender<ClientStatus>,
    ) -> (Self, mpsc::Receiver<Incoming>) {
        let limits = &config.limits;
        // Each undecided thing has a place in both channels: neither can be full.
        let (decision_sender, decisions) = mpsc::channel(limits.unaccepted_max);
        let (to_application, from_server) = mpsc::channel(limits.unaccepted_max);
        let path_segments = config.path_segments();
        let mut driver = Self {
            path: path_segments.join("/"),
            path_segments,
            keys: Keys::default(),
            link: Link::attempt(&establisher, Keys::default()),
            renewal: None,
            backoff: Backoff::new(limits.backoff_first(), limits.backoff_max()),
            renewal_backoff: Backoff::new(limits.backoff_first(), limits.backoff_max()),
            away_until: None,
            commands,
            ends,
            decisions,
            decision_sender,
            to_application,
            requests: Requests::new(Windows {
                messages_max: limits.unanswered_max,
                reports_sent_max: limits.reports_unanswered_max,
                segments_sent_max: limits.segments_unanswered_max,
                kept_max: limits.segmented_kept_max,
            }),
            aggregator: config.aggregation.clone().map(Aggregator::new),
            subscriptions: Subscriptions::default(),
            hand_overs: HandOvers::new(limits.unaccepted_max, limits.remembered_max),
            bundles: Bundles::new(),
            reassembly: Reassembly::new(limits, config.state_dir.is_some()),
            journal: None,
            status,
            ending: Ending::None,
            establisher,
            config,
        };
        if let Some((journal, records)) = journal {
            driver.recall(records);
            driver.journal = Some(JournalWriter::new(journal));
        }
        (driver, from_server)
    }

    /// Runs until the client is closed or nobody holds it any more.
    pub(crate) async fn run(mut self) {
        loop {
            self.leave_if_released();
            // One moment for both: what is not sent as due is due later, or waits for something else to happen.
            let now = Instant::now();
            self.pump(now);
            self.publish();
            if self.has_ended() {
                break;
            }
            let due = self.next_due(now);
            let room = self.has_room() && matches!(self.ending, Ending::None);
            tokio::select! {
                event = self.link.event() => self.on_link(event),
                event = Renewal::event(&mut self.renewal) => self.on_renewal(event),
                command = self.commands.recv(), if room => self.on_command(command),
                Some(end) = self.ends.recv() => self.on_end(end),
                Some(decision) = self.decisions.recv() => self.on_decision(decision),
                batch = written(&mut self.journal) => self.on_batch(batch),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.on_due(),
            }
        }
        self.end().await;
    }

    fn on_end(&mut self, end: End) {
        match (end, &self.ending) {
            (End::Deregister { answer }, Ending::None) => {
                let deadline = Instant::now() + self.config.limits.registration_timeout();
                self.ending = Ending::Deregister { exchange: None, deadline, answer };
                self.flush_aggregates();
            }
            (End::Close, Ending::None) => self.close(),
            // It is ending already. Whoever wants to de-register hears so when its place to answer is gone.
            (End::Deregister { .. } | End::Close, _) => {}
        }
    }

    fn close(&mut self) {
        let deadline = Instant::now() + self.config.limits.close_timeout();
        self.ending = Ending::Close { deadline };
        self.flush_aggregates();
    }

    /// Whether nothing is left to be done. What the application has not accepted goes back to the server: nobody can
    /// accept it any more.
    fn has_ended(&self) -> bool {
        match &self.ending {
            Ending::None | Ending::Deregister { .. } => false,
            Ending::Close { deadline } => {
                let idle = self.journal.as_ref().is_none_or(JournalWriter::is_idle);
                let under_way = self.requests.calls() + self.requests.reports() > 0;
                let decided = self.decisions.is_empty();
                *deadline <= Instant::now() || (idle && decided && (!self.link.is_registered() || !under_way))
            }
        }
    }

    async fn end(mut self) {
        self.requests.close();
        let deadline = Instant::now() + self.config.limits.close_timeout();
        let next = self.renewal.take().and_then(Renewal::into_session);
        for session in self.link.take_session().into_iter().chain(next) {
            Box::pin(session.finish(deadline)).await;
        }
        // A batch under way is left to its end: the file stays whole and its lock is released with it.
        while let Some(journal) = &mut self.journal
            && !journal.is_idle()
        {
            let batch = journal.written().await;
            self.settle(batch);
        }
        // Only now may another client use the state directory.
        drop(self.journal.take());
        self.status.send_modify(|status| status.state = ClientState::Closed);
    }

    /// The server wants to end the connection (RFC 8323 clause 5.5): what is under way is finished first, so that what
    /// the application is about to accept need not come again.
    fn leave_if_released(&mut self) {
        let Link::Up { session, phase: Phase::Released { hold_off, deadline } } = &self.link else { return };
        if *deadline <= Instant::now() || (session.is_settled() && session.is_written()) {
            let hold_off = *hold_off;
            self.disconnect(ClientError::Disconnected("the server ended it".into()), hold_off);
        }
    }

    /// Sends what is ready to be sent.
    fn pump(&mut self, now: Instant) {
        self.send_deregistration();
        while let Link::Up { session, phase: Phase::Registered } = &mut self.link
            && let Some((place, body)) = self.requests.next_ready(now)
        {
            let request = Request::post(&self.path).content_format(JSON).payload(body);
            match session.request(&request) {
                Ok(exchange) => self.requests.sent(place, exchange),
                Err(ConnectionError::MessageTooLargeForPeer { octets, octets_max }) => {
                    let size = |octets: u64| usize::try_from(octets).unwrap_or(usize::MAX);
                    let error = ClientError::TooLarge { octets: size(octets), octets_max: size(octets_max.into()) };
                    if !self.requests.split(place.number) {
                        self.fail(place.number, &error);
                    }
                }
                // Full, released or closed: it stays ready, for when something was written or for the next connection.
                Err(_) => break,
            }
        }
    }

    fn send_deregistration(&mut self) {
        let Ending::Deregister { exchange: exchange @ None, .. } = &mut self.ending else { return };
        let Link::Up { session, phase: Phase::Registered } = &mut self.link else { return };
        let ue_service_id = self.config.ue_service_id.clone();
        let body = UeMessage::Deregistration(Deregistration { ue_service_id }).encode();
        let request = Request::post(&self.path).content_format(JSON).payload(body);
        *exchange = session.request(&request).ok();
    }

    /// When something has to be done that no event brings about.
    fn next_due(&self, now: Instant) -> Option<Instant> {
        let ending = match &self.ending {
            Ending::None => None,
            Ending::Deregister { deadline, .. } | Ending::Close { deadline } => Some(*deadline),
        };
        let next = self.renewal.as_ref().and_then(Renewal::deadline);
        let phase = match &self.link {
            Link::Up { phase: Phase::Registering { deadline, .. } | Phase::Released { deadline, .. }, .. } => {
                Some(*deadline)
            }
            _ => None,
        };
        let is_registered = self.link.is_registered();
        let renewal = self.keys.renew_at.filter(|_| is_registered && self.may_replace_keys());
        let subscriptions = self.subscriptions.next_due().filter(|_| is_registered);
        let aggregates = self.aggregator.as_ref().and_then(Aggregator::next_due);
        let segments = self.reassembly.next_due();
        let due = [self.requests.next_due(now), ending, phase, next, renewal, subscriptions, aggregates, segments];
        due.into_iter().flatten().min()
    }

    fn on_due(&mut self) {
        let now = Instant::now();
        let exchanges = self.requests.expire(now);
        self.cancel(exchanges);
        self.send_due_aggregates(now);
        self.chase_segments(now);
        self.renew_subscriptions();
        if matches!(&self.ending, Ending::Deregister { deadline, .. } if *deadline <= now) {
            let error = self.status.borrow().last_error.clone();
            self.deregistered(Err(error.unwrap_or_else(|| ClientError::Disconnected("no answer".into()))));
        }
        if matches!(&self.link, Link::Up { phase: Phase::Registering { deadline, .. }, .. } if *deadline <= now) {
            self.disconnect(ClientError::Disconnected("no answer to the registration".into()), Duration::ZERO);
        }
        if self.renewal.as_ref().and_then(Renewal::deadline).is_some_and(|deadline| deadline <= now) {
            self.give_up_renewal("no answer to the registration", Duration::ZERO, true);
        }
        if self.link.is_registered() && self.may_replace_keys() && self.keys.renew_at.is_some_and(|when| when <= now) {
            self.replace_keys();
        }
    }

    fn on_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Pause => self.link = Link::attempt(&self.establisher, self.keys.clone()),
            LinkEvent::Attempted(attempt) => self.on_attempt(*attempt),
            LinkEvent::Session(SessionEvent::Written) => {}
            LinkEvent::Session(SessionEvent::Closed(reason)) => {
                let hold_off = self.link.hold_off();
                self.disconnect(ClientError::Disconnected(reason), hold_off);
            }
            LinkEvent::Session(SessionEvent::Coap(event)) => self.on_coap(event),
        }
    }

    fn on_attempt(&mut self, attempt: Attempt) {
        self.keys = attempt.keys;
        match attempt.result {
            Ok(secured) => {
                self.note_connection(secured.version, secured.cipher);
                self.register(Session::new(secured.carrier, &self.config.limits));
            }
            Err(error) => self.disconnect(error, Duration::ZERO),
        }
    }

    fn note_connection(&self, version: TlsVersion, cipher: &'static str) {
        tracing::info!(%version, cipher, "connected");
        self.status.send_modify(|status| {
            status.tls_version = Some(version.to_string());
            status.cipher = Some(cipher);
        });
    }

    fn register(&mut self, mut session: Session) {
        let body = self.config.registration();
        match session.request(&Request::post(&self.path).content_format(JSON).payload(body)) {
            Ok(exchange) => {
                let deadline = Instant::now() + self.config.limits.registration_timeout();
                self.link = Link::Up { session: Box::new(session), phase: Phase::Registering { exchange, deadline } };
            }
            Err(error) => self.disconnect(ClientError::Protocol(error.to_string()), Duration::ZERO),
        }
    }

    fn on_coap(&mut self, event: ConnectionEvent) {
        match event {
            ConnectionEvent::Request { request } => self.on_request(request),
            ConnectionEvent::Response { exchange, response } => self.on_response(exchange, Some(response)),
            // What the server itself answered, though not as it should.
            ConnectionEvent::Failed { exchange, failure: Failure::Unusable | Failure::TooLarge } => {
                self.on_response(exchange, None);
            }
            ConnectionEvent::Failed { failure, .. } => self.on_no_response(failure),
            ConnectionEvent::Released { release } => {
                let hold_off = Duration::from_secs(release.hold_off_seconds.unwrap_or(0).into()).min(AWAY_MAX);
                let deadline = Instant::now() + self.config.limits.close_timeout();
                if let Link::Up { phase, .. } = &mut self.link {
                    *phase = Phase::Released { hold_off, deadline };
                }
                if !hold_off.is_zero() {
                    self.abandon_attempt();
                }
            }
            ConnectionEvent::Aborted { diagnostic, .. } => {
                let error = ClientError::Disconnected(format!("the server aborted it: {diagnostic}"));
                let hold_off = self.link.hold_off();
                self.disconnect(error, hold_off);
            }
            _ => {}
        }
    }

    /// The server has not answered; what came, if anything, is not its word and decides nothing (RFC 8613 clause 8.4). What
    /// waits for its answer is sent again on the next connection, whose keys are agreed upon anew.
    fn on_no_response(&mut self, failure: Failure) {
        if matches!(failure, Failure::NotVerified | Failure::NotProtected(_)) {
            tracing::warn!(target: "security", ?failure, "an answer is not the server's");
        }
        let hold_off = self.link.hold_off();
        self.disconnect(ClientError::Disconnected(format!("no answer of the server: {failure:?}")), hold_off);
    }

    /// The connection is gone, or there was none: pauses, then tries again. `pause_min` is what the server asked for.
    fn disconnect(&mut self, error: ClientError, pause_min: Duration) {
        let away = self.away_until.map(|until| until.saturating_duration_since(Instant::now()));
        let pause_min = pause_min.max(away.unwrap_or_default());
        if self.link.lived() >= Some(self.config.limits.stable_after()) {
            self.backoff.reset();
        }
        let pause = self.backoff.pause(rand::random()).max(pause_min);
        tracing::warn!(%error, pause_milliseconds = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX), "not connected");
        self.leave(Link::Waiting { until: Instant::now() + pause }, Farewell::Release);
        self.status.send_modify(|status| {
            status.state = ClientState::Waiting;
            status.tls_version = None;
            status.cipher = None;
            status.registered_since = None;
            status.last_error = Some(error);
        });
        // The next connection is one to the server that asked to be left alone.
        if pause_min.is_zero() { self.take_renewal_over() } else { self.abandon_renewal() }
    }

    fn leave(&mut self, next: Link, farewell: Farewell) {
        let deadline = Instant::now() + self.config.limits.close_timeout();
        if let Some(session) = std::mem::replace(&mut self.link, next).into_session() {
            // Its last words need no more of this client's attention.
            match farewell {
                Farewell::Release => drop(tokio::spawn(session.finish(deadline))),
                Farewell::WhenReplaced => drop(tokio::spawn(session.outlive(deadline))),
            }
        }
        self.requests.disconnected();
        self.hand_overs.disconnected();
        self.bundles.disconnected();
        self.reassembly.disconnected(Instant::now());
        if let Ending::Deregister { exchange, .. } = &mut self.ending {
            *exchange = None;
        }
    }

    fn registered(&mut self) {
        if let Link::Up { phase, .. } = &mut self.link {
            *phase = Phase::Registered;
        }
        self.renewal_backoff.reset();
        self.away_until = None;
        tracing::info!(ue_service_id = %self.config.ue_service_id, "registered");
        self.reassembly.resume(Instant::now());
        if self.status.borrow().registrations > 0 {
            self.subscriptions.registered_again(Instant::now());
        }
        self.status.send_modify(|status| {
            status.state = ClientState::Registered;
            status.registered_since = Some(OffsetDateTime::now_utc());
            status.registrations += 1;
            status.last_error = None;
        });
    }

    /// De-registration is over, and so is the client.
    fn deregistered(&mut self, result: Result<(), ClientError>) {
        if let Ending::Deregister { answer, .. } = std::mem::replace(&mut self.ending, Ending::None) {
            // Whoever asked may have stopped waiting.
            let _ = answer.send(result);
        }
        self.close();
    }

    /// Tells watchers what changed.
    fn publish(&self) {
        let waiting = self.aggregator.as_ref().map_or(0, Aggregator::messages);
        let (unanswered, unaccepted) = (self.requests.calls() + waiting, self.hand_overs.undecided());
        self.status.send_if_modified(|status| {
            let a_kid = self.keys.a_kid();
            let changed =
                (status.unanswered, status.unaccepted, status.a_kid.as_ref()) != (unanswered, unaccepted, a_kid);
            if changed {
                status.unanswered = unanswered;
                status.unaccepted = unaccepted;
                status.a_kid = a_kid.cloned();
            }
            changed
        });
    }
}

async fn written(journal: &mut Option<JournalWriter>) -> crate::journal_writer::Batch {
    match journal {
        Some(journal) => journal.written().await,
        None => std::future::pending().await,
    }
}
