//! One UE's connection to `su-uc` (TS 24.546 clause C.3, RFC 8323).
//!
//! ```text
//! TLS-PSK done ─▶ CSMs ─▶ GET ─▶ 2.05 ─▶ notifications (RFC 7641) while associations change ─┐
//!                  │       └─ refused: 4.xx, may try again                                     │
//!                  │                   K_AF expired, A-KID withdrawn, AKMA disabled: Abort     │
//!      no request for long: Release                   the function stops: Release              │
//!                  └──────────────────────────┬────────────────────────────────────────────────┘
//!                                           closed
//! ```
//!
//! A connection is one task that does one thing at a time: a peer that reads nothing is waited for, and meanwhile nothing
//! is read from it.

use std::net::IpAddr;
use std::time::{Duration, Instant as StdInstant, SystemTime};

use coap::{
    Code, ExchangeId, Observe, Release, Request, Response, StreamConfig, StreamConnection, StreamEvent, StreamLimits,
};
use http::StatusCode;
use message::UeServiceId;
use sbi::ss_upr::VAL_SERVICE_ID;
use sbi::{ProblemDetails, cause};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use transport::{KeyRequest, LogThrottle, LookupRefusal, ProvenPeer};

use crate::changes::Watch;
use crate::coap_listener::Shared;
use crate::service::refusal;
use crate::ue_configuration::{XML, pick};

/// Content-Format of JSON (RFC 7252 section 12.3).
const JSON: u16 = 50;
/// The one resource (TS 24.546 clause C.3.1.2.1), up to the VAL service ID.
const PATH: [&str; 5] = ["su-uc", "v1", "val-services", VAL_SERVICE_ID, "ue-configurations"];
/// The query that picks one of several associations (INFERRED).
const UE_SERVICE_ID_QUERY: &str = "ue-service-id=";
/// Octets read at once. The answers to all requests that go into them fit what may wait to be sent.
const READ_OCTETS: usize = 2048;
/// The largest message taken: a GET is far smaller, and nobody may send anything else.
const MESSAGE_OCTETS_MAX: u32 = coap::BASE_MESSAGE_SIZE;
/// How long the last octets of a connection may take.
const LAST_OCTETS: Duration = Duration::from_secs(1);
/// Shortest time between two questions about one connection's key while there is no answer.
const REVALIDATION_PAUSE: Duration = Duration::from_secs(5);

/// A UE may ask for what is not its own as often as it likes.
static REFUSED: LogThrottle = LogThrottle::new();

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The peer closed it.
    ByPeer,
    /// The socket failed.
    Broken,
    /// The peer broke RFC 8323.
    Malformed,
    /// The peer left what was written for it unread.
    NotReading,
    /// The peer did not answer a ping.
    Silent,
    /// No request for long.
    Idle,
    /// K_AF is past its lifetime.
    KeyExpired,
    /// The A-KID is not known any more.
    KeyWithdrawn,
    /// AKMA was disabled for the UE or for this function.
    ServiceDisabled,
    /// Its key could not be asked for too long.
    NotRevalidated,
    /// Its A-KID has as many connections as it may.
    TooMany,
    /// The function stops.
    Stopped,
}

impl Ended {
    /// For the peer's log, and a label of ours.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ByPeer => "closed by the peer",
            Self::Broken => "connection broken",
            Self::Malformed => "malformed CoAP",
            Self::NotReading => "peer does not read",
            Self::Silent => "peer is silent",
            Self::Idle => "no request for long",
            Self::KeyExpired => "K_AF expired",
            Self::KeyWithdrawn => "A-KID no longer valid",
            Self::ServiceDisabled => "AKMA disabled",
            Self::NotRevalidated => "key cannot be checked",
            Self::TooMany => "too many connections of this A-KID",
            Self::Stopped => "function stops",
        }
    }
}

/// A request that observes, and what its UE knows.
struct Observation {
    exchange: ExchangeId,
    wanted: Option<UeServiceId>,
    told: UeServiceId,
    document: String,
}

/// The answer to a GET.
struct Found {
    wanted: Option<UeServiceId>,
    told: UeServiceId,
    document: String,
}

/// The label of a UE that may not be who it asks to be, or is nobody.
const NOT_ASSOCIATED: &str = "not_associated";
/// The label of a UE that the AAnF does not name.
const NOBODY: &str = "nobody";
/// Name of the operation in metrics and audit.
const UE_CONFIGURATION: &str = "ue-configuration";

/// A label for the metrics, and the refusal that goes with it.
type Refused = (&'static str, Response);

/// What others tell a connection.
pub(crate) struct Orders {
    /// Cancelled when AKMA is disabled under the A-KID.
    pub(crate) disabled: CancellationToken,
    /// Changes when the A-KID is to be asked about at once: the UE came with another one.
    pub(crate) doubted: watch::Receiver<()>,
}

struct Session<'a, S> {
    shared: &'a Shared,
    stream: S,
    machine: StreamConnection,
    peer: ProvenPeer,
    source: IpAddr,
    orders: Orders,
    observations: Vec<Observation>,
    watch: Option<Watch>,
    /// The connection ends for this reason once everything is written.
    ending: Option<Ended>,
    asked_at: Instant,
    heard_at: Instant,
    pinged_at: Option<Instant>,
    revalidate_at: Instant,
    /// When a connection that cannot be re-validated ends.
    revalidate_by: Instant,
}

/// Serves a connection to its end; `refused` ends it at once.
pub(crate) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Shared,
    stream: S,
    peer: ProvenPeer,
    source: IpAddr,
    refused: Option<Ended>,
    orders: Orders,
) -> Ended {
    let mut session = Session::new(shared, stream, peer, source, orders);
    if let Some(reason) = refused {
        session.abort(reason);
    }
    let ended = match session.serve().await {
        Ok(ended) | Err(ended) => ended,
    };
    tracing::debug!(a_kid = %session.peer.a_kid, reason = ended.as_str(), "connection ended");
    if !matches!(ended, Ended::ByPeer | Ended::Broken | Ended::NotReading) {
        let _ = timeout(LAST_OCTETS, session.stream.shutdown()).await;
    }
    ended
}

impl<S> Drop for Session<'_, S> {
    fn drop(&mut self) {
        self.shared.service.metrics.observations(-(i64::try_from(self.observations.len()).unwrap_or_default()));
    }
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Session<'a, S> {
    fn new(shared: &'a Shared, stream: S, peer: ProvenPeer, source: IpAddr, orders: Orders) -> Self {
        let now = Instant::now();
        let limits = StreamLimits {
            peer_observations_max: shared.limits.observations_per_connection_max,
            ..StreamLimits::default()
        };
        let revalidation = jittered(shared.limits.revalidation());
        Self {
            machine: StreamConnection::new(StreamConfig { max_message_size_own: MESSAGE_OCTETS_MAX, limits }),
            shared,
            stream,
            peer,
            source,
            orders,
            observations: Vec::new(),
            watch: None,
            ending: None,
            asked_at: now,
            heard_at: now,
            pinged_at: None,
            revalidate_at: now + revalidation,
            revalidate_by: now + revalidation + shared.limits.revalidation_grace(),
        }
    }

    async fn serve(&mut self) -> Result<Ended, Ended> {
        let mut octets = [0; READ_OCTETS];
        loop {
            self.write().await?;
            if let Some(reason) = self.ending
                && (self.machine.is_closed() || self.machine.is_settled())
            {
                return Ok(reason);
            }
            let deadline = self.next_deadline();
            let watch = &mut self.watch;
            let changed = async {
                match watch {
                    Some(watch) => watch.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                read = self.stream.read(&mut octets) => match read {
                    Ok(0) => return Err(self.ending.unwrap_or(Ended::ByPeer)),
                    Ok(count) => self.receive(octets.get(..count).unwrap_or_default()),
                    Err(_) => return Err(self.ending.unwrap_or(Ended::Broken)),
                },
                () = changed => self.notify_all(),
                () = sleep_until(deadline) => self.when_due().await?,
                () = self.orders.disabled.cancelled(), if self.ending.is_none() => self.abort(Ended::ServiceDisabled),
                Ok(()) = self.orders.doubted.changed(), if self.ending.is_none() => self.revalidate().await,
                () = self.shared.stopping.cancelled(), if self.ending.is_none() => self.release(Ended::Stopped),
            }
        }
    }

    async fn write(&mut self) -> Result<(), Ended> {
        while let Some(octets) = self.machine.poll_transmit() {
            let stream = &mut self.stream;
            let written = timeout(self.shared.limits.write_timeout(), async {
                stream.write_all(&octets).await?;
                stream.flush().await
            });
            match written.await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(self.ending.unwrap_or(Ended::Broken)),
                Err(_) => return Err(Ended::NotReading),
            }
        }
        Ok(())
    }

    fn receive(&mut self, octets: &[u8]) {
        self.heard_at = Instant::now();
        self.pinged_at = None;
        let result = self.machine.receive(octets);
        while let Some(event) = self.machine.poll_event() {
            match event {
                StreamEvent::Request { request } => self.take_request(&request),
                StreamEvent::ObservationEnded { exchange } => self.forget(exchange),
                StreamEvent::Released { .. } | StreamEvent::Aborted { .. } => self.end(Ended::ByPeer),
                _ => {}
            }
        }
        if let Err(error) = result {
            tracing::debug!(a_kid = %self.peer.a_kid, %error, "malformed CoAP, connection aborted");
            self.end(Ended::Malformed);
        }
    }

    fn take_request(&mut self, request: &Request) {
        let since = StdInstant::now();
        self.asked_at = Instant::now();
        if request.observe == Some(Observe::Register)
            && self.watch.is_none()
            && let Some(ue_id) = &self.peer.ue_id
        {
            // Before the state is read, so that no change after it is missed.
            self.watch = Some(self.shared.service.changes.watch(ue_id));
        }
        let (label, response, found) = match self.find(request) {
            Ok(found) => ("found", self.content(&found.document).with_observe(), Some(found)),
            Err((label, response)) => (label, response, None),
        };
        self.shared.service.metrics.answered(UE_CONFIGURATION, label, since);
        if let Err(error) = self.machine.respond(request.exchange, response) {
            tracing::info!(a_kid = %self.peer.a_kid, %error, "answer cannot be sent");
            let _ = self.machine.respond(request.exchange, Response::new(Code::INTERNAL));
        }
        if let Some(Found { wanted, told, document }) = found
            && self.machine.is_observed(request.exchange)
        {
            self.shared.service.metrics.observations(1);
            self.observations.push(Observation { exchange: request.exchange, wanted, told, document });
        }
        self.unwatch();
    }

    /// The document that a request is for.
    fn find(&self, request: &Request) -> Result<Found, Refused> {
        if !request.path.iter().map(String::as_str).eq(PATH) {
            return Err(("other_path", problem(Code::NOT_FOUND, StatusCode::NOT_FOUND, None)));
        }
        if request.method != Code::GET {
            let response = problem(Code::METHOD_NOT_ALLOWED, StatusCode::METHOD_NOT_ALLOWED, None);
            return Err(("not_allowed", response));
        }
        if request.accept.is_some_and(|accept| accept != XML) {
            return Err(("not_acceptable", problem(Code::NOT_ACCEPTABLE, StatusCode::NOT_ACCEPTABLE, None)));
        }
        let wanted = wanted(&request.query)?;
        let found = self.look_up(wanted.as_ref(), None);
        self.tell(wanted.as_ref(), &found);
        let (told, document) = found.inspect_err(|(label, _)| {
            if *label == NOT_ASSOCIATED
                && let Some(ue_service_id) = &wanted
                && let Some(unlogged) = REFUSED.admit()
            {
                tracing::warn!(target: "security", a_kid = %self.peer.a_kid, %ue_service_id, unlogged,
                    "configuration refused: not associated");
            }
        })?;
        Ok(Found { wanted, told, document })
    }

    /// What the UE is told now; what it was told `before` counts while it may be that.
    fn look_up(
        &self,
        wanted: Option<&UeServiceId>,
        before: Option<&UeServiceId>,
    ) -> Result<(UeServiceId, String), Refused> {
        let service = &self.shared.service;
        let Some(ue_id) = &self.peer.ue_id else {
            if let Some(unlogged) = REFUSED.admit() {
                tracing::warn!(
                    target: "security", a_kid = %self.peer.a_kid, unlogged, "the AAnF does not tell whose A-KID this is"
                );
            }
            let response = problem(Code::FORBIDDEN, StatusCode::FORBIDDEN, Some(refusal::REQUESTER_NOT_ALLOWED));
            return Err((NOBODY, response));
        };
        let associated = service.associations.of_ue(ue_id).map_err(|error| {
            let (label, problem) = service.fault(&error);
            let overloaded = problem.status_code() == StatusCode::SERVICE_UNAVAILABLE;
            let code = if overloaded { Code::SERVICE_UNAVAILABLE } else { Code::INTERNAL };
            (label, coded(code, &problem).with_max_age(service.retry_after_seconds))
        })?;
        match pick(&associated, wanted, before) {
            Some(told) => Ok((told.clone(), self.shared.template.document(told))),
            None => {
                let response = problem(Code::NOT_FOUND, StatusCode::NOT_FOUND, Some(refusal::NOT_ASSOCIATED));
                Err((NOT_ASSOCIATED, response))
            }
        }
    }

    /// Tells the audit of what was looked up. The UE ID is not named there.
    fn tell(&self, wanted: Option<&UeServiceId>, found: &Result<(UeServiceId, String), Refused>) {
        let (audit, a_kid) = (&self.shared.service.audit, self.peer.a_kid.as_str());
        let wanted = wanted.map_or("", UeServiceId::as_str);
        match found {
            Ok((told, _)) => audit.allowed_for(a_kid, UE_CONFIGURATION, told.as_str(), "associated"),
            Err((reason @ (NOT_ASSOCIATED | NOBODY), _)) => {
                audit.refused_for(a_kid, UE_CONFIGURATION, wanted, *reason);
            }
            Err((reason, _)) => audit.failed(a_kid, UE_CONFIGURATION, *reason),
        }
    }

    fn content(&self, document: &str) -> Response {
        let max_age = self.shared.limits.max_age_seconds;
        Response::new(Code::CONTENT).with_content_format(XML).with_max_age(max_age).with_payload(document)
    }

    /// The UE's associations have changed: whoever knows another document is told.
    fn notify_all(&mut self) {
        for mut observation in std::mem::take(&mut self.observations) {
            let found = self.look_up(observation.wanted.as_ref(), Some(&observation.told));
            if !found.as_ref().is_ok_and(|(_, document)| *document == observation.document) {
                self.tell(observation.wanted.as_ref().or(Some(&observation.told)), &found);
            }
            let told = match found {
                Ok((_, document)) if document == observation.document => Ok(()),
                Ok((told, document)) => {
                    let notified = self.machine.notify(observation.exchange, self.content(&document));
                    self.shared.service.metrics.notified();
                    (observation.told, observation.document) = (told, document);
                    notified
                }
                Err((_, refusal)) => {
                    self.shared.service.metrics.notified();
                    self.machine.notify(observation.exchange, refusal)
                }
            };
            if told.is_err() {
                // What cannot be told ends the observation, so that the UE does not go by what was.
                let _ = self.machine.notify(observation.exchange, Response::new(Code::INTERNAL));
            }
            if self.machine.is_observed(observation.exchange) {
                self.observations.push(observation);
            } else {
                self.shared.service.metrics.observations(-1);
            }
        }
        self.unwatch();
    }

    fn forget(&mut self, exchange: ExchangeId) {
        let before = self.observations.len();
        self.observations.retain(|observation| observation.exchange != exchange);
        if self.observations.len() < before {
            self.shared.service.metrics.observations(-1);
        }
        self.unwatch();
    }

    fn unwatch(&mut self) {
        if self.observations.is_empty() {
            self.watch = None;
            self.asked_at = Instant::now();
        }
    }

    /// The earliest of everything that may be due.
    fn next_deadline(&self) -> Instant {
        let limits = &self.shared.limits;
        let alive = match (self.observations.is_empty(), self.pinged_at) {
            (true, _) => self.asked_at + limits.idle_timeout(),
            (false, Some(pinged_at)) => pinged_at + limits.pong_timeout(),
            (false, None) => self.heard_at + limits.idle_ping(),
        };
        let deadline = alive.min(self.revalidate_at);
        let expires = self.lifetime_left().and_then(|left| Instant::now().checked_add(left));
        expires.map_or(deadline, |expires| deadline.min(expires))
    }

    /// How long K_AF is still valid; anew each time, as the clock of the day may have been set.
    fn lifetime_left(&self) -> Option<Duration> {
        Some(self.peer.expires_at?.duration_since(SystemTime::now()).unwrap_or_default())
    }

    async fn when_due(&mut self) -> Result<(), Ended> {
        let (limits, now) = (&self.shared.limits, Instant::now());
        if let Some(reason) = self.ending {
            return Err(reason);
        }
        if self.lifetime_left().is_some_and(|left| left.is_zero()) {
            tracing::info!(target: "security", a_kid = %self.peer.a_kid, "K_AF expired, connection ended");
            self.abort(Ended::KeyExpired);
        } else if self.observations.is_empty() && self.asked_at + limits.idle_timeout() <= now {
            self.release(Ended::Idle);
        } else if self.pinged_at.is_some_and(|at| at + limits.pong_timeout() <= now) {
            self.abort(Ended::Silent);
        } else if self.revalidate_at <= now {
            self.revalidate().await;
        } else if self.pinged_at.is_none() && self.heard_at + limits.idle_ping() <= now {
            self.pinged_at = Some(now);
            // At most one is under way, which is always allowed.
            let _ = self.machine.ping();
        }
        Ok(())
    }

    /// Asks whether the A-KID still stands (TS 33.535 clause 5.2): it may have been superseded, or AKMA withdrawn.
    async fn revalidate(&mut self) {
        let keys = &self.shared.keys;
        let request = KeyRequest { a_kid: self.peer.a_kid.clone(), protocol: self.peer.protocol, source: self.source };
        let answer = Box::pin(keys.revalidate(request)).await;
        let (limits, now) = (&self.shared.limits, Instant::now());
        match answer {
            Ok(key) if key.ue_id == self.peer.ue_id => {
                self.revalidate_at = now + jittered(limits.revalidation());
                self.revalidate_by = self.revalidate_at + limits.revalidation_grace();
            }
            Ok(_) | Err(LookupRefusal::Unknown | LookupRefusal::Expired) => {
                tracing::info!(target: "security", a_kid = %self.peer.a_kid, "A-KID no longer valid, connection ended");
                self.abort(Ended::KeyWithdrawn);
            }
            Err(_) if self.revalidate_by <= now => self.abort(Ended::NotRevalidated),
            Err(_) => self.revalidate_at = now + REVALIDATION_PAUSE,
        }
    }

    /// Ends at once, with an Abort for the peer to read.
    fn abort(&mut self, reason: Ended) {
        self.machine.abort(reason.as_str());
        self.end(reason);
    }

    /// Ends in good order (RFC 8323 section 5.5).
    fn release(&mut self, reason: Ended) {
        let _ = self.machine.release(&Release::default());
        self.end(reason);
    }

    fn end(&mut self, reason: Ended) {
        self.ending.get_or_insert(reason);
    }
}

/// The UE Service ID that the Uri-Query options of a `su-uc` request pick, if they pick one; for tools that write or test
/// UEs.
///
/// # Errors
/// The code of the refusal.
pub fn check_ue_configuration_query(query: &[String]) -> Result<Option<UeServiceId>, Code> {
    wanted(query).map_err(|(_, response)| response.code)
}

/// The UE Service ID that a query picks.
fn wanted(query: &[String]) -> Result<Option<UeServiceId>, Refused> {
    let invalid = || ("invalid", problem(Code::BAD_REQUEST, StatusCode::BAD_REQUEST, Some(cause::INVALID_QUERY_PARAM)));
    let mut picked = query.iter().filter_map(|argument| argument.strip_prefix(UE_SERVICE_ID_QUERY));
    match (picked.next(), picked.next()) {
        (None, _) => Ok(None),
        (Some(text), None) => text.parse().map(Some).map_err(|_| invalid()),
        (Some(_), Some(_)) => Err(invalid()),
    }
}

/// A refusal in problem details (TS 24.546 clause C.1.3).
fn problem(code: Code, status: StatusCode, cause: Option<&str>) -> Response {
    let problem = ProblemDetails::new(status);
    match cause {
        Some(cause) => coded(code, &problem.with_cause(cause)),
        None => coded(code, &problem),
    }
}

fn coded(code: Code, problem: &ProblemDetails) -> Response {
    // Texts and numbers always code.
    Response::new(code).with_content_format(JSON).with_payload(serde_json::to_vec(problem).unwrap_or_default())
}

/// Spreads what would otherwise happen at once for everybody who connected at once: within a tenth either way.
fn jittered(duration: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let share = (RandomState::new().hash_one(0_u8) % 2001) as f64 / 10_000.0;
    duration.mul_f64(0.9 + share)
}
