//! K_AF for a connecting peer, asked of the key server with the discipline that an open port demands.
//!
//! A question is an A-KID and a Ua* protocol. Its way, each step a possible end:
//!
//! 1. the answer is remembered (unknown: briefly; found: only if configured);
//! 2. the same question is in flight: wait for its answer, if not too many wait already, from this source or in all;
//! 3. this source has asked too often lately, or too often for A-KIDs that are not known: busy;
//! 4. too many questions are in flight, from this source or in all: busy;
//! 5. the circuit breaker is open: unavailable;
//! 6. ask, in a task of its own, so that a peer that gives up does not take the answer from those who joined.
//!
//! Of a peer that has proven itself before, only the last two hold, and that no more of these are asked about than have a place:
//! its question is asked anew, and nothing that strangers do at its address, or with its A-KID, keeps it from that.
//!
//! A key server that says that we ask too much (429) is not one that fails: whoever asked is told to come back, and the
//! breaker stays as it is. For how long such a server is left alone is its `Retry-After`, which the client that asks heeds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use akma::{AKid, AfId, Fqdn};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::admission::{Admission, Full, Slot, Source};
use crate::breaker::Breaker;
use crate::expiring::later;
use crate::key_source::{FoundKey, KeyRequest, KeySource, KeySourceError, LookupRefusal, ProvenKey};
use crate::limit::{Limit, LimitFault};
use crate::log_throttle::LogThrottle;
use crate::lookup_rate::{LookupRate, Spent};
use crate::metrics::TransportMetrics;
use crate::remembered::{ByAKid, Question, Remembered};

/// Every limit of [`KeyLookup`], with the answer when it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LookupLimits {
    /// Lookups in flight in all; and as many besides for peers that have proven themselves before, in which strangers have no
    /// part. One more gets [`LookupRefusal::Busy`].
    pub in_flight_max: usize,
    /// Lookups in flight that one source (an IPv4 address, an IPv6 /64) started. One more gets
    /// [`LookupRefusal::Busy`].
    pub in_flight_per_source_max: usize,
    /// Questions that one source may put to the key server in a second, with ten seconds' worth at once. One more gets
    /// [`LookupRefusal::Busy`].
    pub per_second_per_source_max: u32,
    /// The same of questions that find no key: invented, superseded or expired A-KIDs. A source that has used them up gets
    /// [`LookupRefusal::Busy`], whatever it asks.
    pub unknown_per_second_per_source_max: u32,
    /// Sources whose questions are counted. Those beyond have together what one has.
    pub rate_sources_max: usize,
    /// Handshakes that wait for one lookup besides the one that started it. One more gets
    /// [`LookupRefusal::Busy`].
    pub joiners_max: usize,
    /// The same, of one source. One more gets [`LookupRefusal::Busy`]: who knows an A-KID does not keep its UE out.
    pub joiners_per_source_max: usize,
    /// How long the key server may take, in milliseconds; then [`LookupRefusal::TimedOut`].
    pub timeout_ms: u64,
    /// How long "unknown" is remembered, in milliseconds; meanwhile [`LookupRefusal::Unknown`] without asking.
    /// It protects the key server from a device in a retry loop. An A-TID cannot be guessed, so nobody can plant
    /// an "unknown" for somebody's next A-KID. 0 turns it off.
    pub negative_cache_ms: u64,
    /// Entries of "unknown" remembered; beyond, the oldest is forgotten.
    pub negative_cache_entries_max: usize,
    /// How long a found K_AF is reused for new connections, in seconds, never beyond its expiry. 0, the default,
    /// asks for each connection (only concurrent ones share an answer): anything above lets an A-KID that a newer
    /// authentication has superseded connect for that long.
    pub positive_cache_seconds: u64,
    /// Found keys remembered; beyond, the one nearest its expiry is forgotten.
    pub positive_cache_entries_max: usize,
    /// Failures in a row that open the circuit breaker. While open: [`LookupRefusal::Unavailable`] at once.
    pub breaker_failures: u32,
    /// How long the breaker stays open, in milliseconds; then one lookup at a time probes.
    pub breaker_open_ms: u64,
}

impl Default for LookupLimits {
    fn default() -> Self {
        Self {
            in_flight_max: 1_024,
            in_flight_per_source_max: 64,
            per_second_per_source_max: 5_000,
            unknown_per_second_per_source_max: 50,
            rate_sources_max: 65_536,
            joiners_max: 64,
            joiners_per_source_max: 4,
            timeout_ms: 3_000,
            negative_cache_ms: 2_000,
            negative_cache_entries_max: 4_096,
            positive_cache_seconds: 0,
            positive_cache_entries_max: 4_096,
            breaker_failures: 8,
            breaker_open_ms: 2_000,
        }
    }
}

impl LookupLimits {
    /// The limit that makes no sense, and what it must be.
    #[must_use]
    pub fn fault(&self) -> Option<LimitFault> {
        Limit::fault([
            Limit::count("in_flight_max", self.in_flight_max),
            Limit::count("in_flight_per_source_max", self.in_flight_per_source_max),
            Limit::number("per_second_per_source_max", self.per_second_per_source_max.into()),
            Limit::number("unknown_per_second_per_source_max", self.unknown_per_second_per_source_max.into()),
            Limit::count("rate_sources_max", self.rate_sources_max).or_none(),
            Limit::count("joiners_max", self.joiners_max).or_none(),
            Limit::count("joiners_per_source_max", self.joiners_per_source_max).or_none(),
            Limit::milliseconds("timeout_ms", self.timeout_ms),
            Limit::milliseconds("negative_cache_ms", self.negative_cache_ms).or_none(),
            Limit::count("negative_cache_entries_max", self.negative_cache_entries_max).or_none(),
            Limit::seconds("positive_cache_seconds", self.positive_cache_seconds).or_none(),
            Limit::count("positive_cache_entries_max", self.positive_cache_entries_max).or_none(),
            Limit::number("breaker_failures", self.breaker_failures.into()),
            Limit::milliseconds("breaker_open_ms", self.breaker_open_ms).or_none(),
        ])
    }
}

/// Asks a [`KeySource`] for K_AF, once per question however many ask, and never more than [`LookupLimits`] allow.
pub struct KeyLookup {
    shared: Arc<Shared>,
}

impl KeyLookup {
    /// A lookup for the application function named `fqdn`.
    pub fn new(source: Arc<dyn KeySource>, fqdn: Fqdn, limits: LookupLimits, metrics: TransportMetrics) -> Self {
        let state = State {
            in_flight: ByAKid::default(),
            flights_begun: 0,
            found: Remembered::new(limits.positive_cache_entries_max),
            unknown: Remembered::new(limits.negative_cache_entries_max),
            breaker: Breaker::new(limits.breaker_failures, Duration::from_millis(limits.breaker_open_ms)),
            rate: LookupRate::new(
                limits.per_second_per_source_max,
                limits.unknown_per_second_per_source_max,
                limits.rate_sources_max,
            ),
        };
        let strangers = Admission::new(limits.in_flight_max, limits.in_flight_per_source_max);
        // Whoever has proven itself has one question at a time, whatever address it shares.
        let proven = Admission::new(limits.in_flight_max, limits.in_flight_max);
        let state = Mutex::new(state);
        Self { shared: Arc::new(Shared { source, fqdn, limits, metrics, strangers, proven, state }) }
    }

    /// K_AF for this peer. Runs on a Tokio runtime; may be dropped at any time.
    ///
    /// # Errors
    /// [`LookupRefusal`]; anything undecided is a refusal.
    pub async fn resolve(&self, request: KeyRequest) -> Result<FoundKey, LookupRefusal> {
        self.ask(&request, Asker::Stranger).await
    }

    /// [`KeyLookup::resolve`] for a peer that has proven itself before, whose A-KID is to be good still: what is remembered is
    /// forgotten, a question under way is not joined, and strangers have no part in how often, nor in how many at once.
    ///
    /// # Errors
    /// [`LookupRefusal`]; anything undecided is a refusal.
    pub async fn revalidate(&self, request: KeyRequest) -> Result<ProvenKey, LookupRefusal> {
        self.ask(&request, Asker::Proven).await.map(|found| found.key)
    }

    async fn ask(&self, request: &KeyRequest, asker: Asker) -> Answer {
        let answer = match self.shared.consider(request, asker) {
            Step::Answered(answer) => answer,
            Step::Begun(waiting) => wait(waiting).await,
            Step::Joined(waiting, _place) => wait(waiting).await,
        };
        // K_AF may have expired between the key server's answer and this moment, or the clock may have stepped.
        let answer = answer.and_then(|found| {
            if found.key.is_valid_at(SystemTime::now()) { Ok(found) } else { Err(LookupRefusal::Expired) }
        });
        self.shared.metrics.lookup_ended(match &answer {
            Ok(_) => "found",
            Err(refusal) => refusal.label(),
        });
        answer
    }

    /// Forgets what is remembered about an A-KID: call it when the key server says that the A-KID is no longer
    /// good. A lookup in flight still answers those who wait for it, but nobody joins it any more, and its answer
    /// is not remembered.
    pub fn forget(&self, a_kid: &AKid) {
        self.shared.state().forget(a_kid);
    }

    /// The metrics given at the start.
    pub fn metrics(&self) -> &TransportMetrics {
        &self.shared.metrics
    }
}

type Answer = Result<FoundKey, LookupRefusal>;
type Waiting = watch::Receiver<Option<Answer>>;

struct Shared {
    source: Arc<dyn KeySource>,
    fqdn: Fqdn,
    limits: LookupLimits,
    metrics: TransportMetrics,
    /// Places of questions under way, of those who are nobody yet.
    strangers: Arc<Admission>,
    /// Of those who have proven themselves before.
    proven: Arc<Admission>,
    state: Mutex<State>,
}

struct State {
    in_flight: ByAKid<Flight>,
    flights_begun: u64,
    found: Remembered<FoundKey>,
    unknown: Remembered<()>,
    breaker: Breaker,
    rate: LookupRate,
}

impl State {
    fn forget(&mut self, a_kid: &AKid) {
        self.found.forget(a_kid);
        self.unknown.forget(a_kid);
        drop(self.in_flight.forget(a_kid));
    }
}

struct Flight {
    number: u64,
    answer: watch::Sender<Option<Answer>>,
    /// Places of those who join.
    joiners: Arc<Admission>,
}

/// Who makes us ask.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asker {
    Stranger,
    Proven,
}

enum Step {
    Answered(Answer),
    Begun(Waiting),
    Joined(Waiting, Slot),
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Steps 1 to 5 of the module's flow; the sixth starts a task.
    fn consider(self: &Arc<Self>, request: &KeyRequest, asker: Asker) -> Step {
        let question = Question { a_kid: request.a_kid.clone(), protocol: request.protocol };
        let now = Instant::now();
        let stranger = (asker == Asker::Stranger).then(|| Source::from(request.source));
        let mut state = self.state();
        if asker == Asker::Proven {
            state.forget(&request.a_kid);
        }
        if let Some(found) = state.found.live(&question, now) {
            return Step::Answered(Ok(found.clone()));
        }
        if state.unknown.live(&question, now).is_some() {
            return Step::Answered(Err(LookupRefusal::Unknown));
        }
        if let Some(flight) = state.in_flight.find(&question) {
            return match flight.joiners.admit(request.source) {
                Ok(place) => Step::Joined(flight.answer.subscribe(), place),
                Err(Full::Source) => self.at_limit(request, "joiners_per_source_max"),
                Err(Full::All) => self.at_limit(request, "joiners_max"),
            };
        }
        let slot = match self.place(request, asker) {
            Ok(slot) => slot,
            Err(limit) => return self.at_limit(request, limit),
        };
        match stranger.map_or(Ok(()), |source| state.rate.admit(source, now)) {
            Ok(()) => {}
            Err(Spent::Unknown) => return self.at_limit(request, "unknown_per_second_per_source_max"),
            Err(Spent::All) => return self.at_limit(request, "per_second_per_source_max"),
        }
        if !state.breaker.admit(now) {
            return Step::Answered(Err(LookupRefusal::Unavailable));
        }
        let (answer, waiting) = watch::channel(None);
        state.flights_begun += 1;
        let number = state.flights_begun;
        let joiners = Admission::new(self.limits.joiners_max, self.limits.joiners_per_source_max);
        state.in_flight.insert(&question, Flight { number, answer: answer.clone(), joiners });
        drop(state);
        let shared = Arc::clone(self);
        let lookup = Lookup { shared, question, stranger, number, answer, settled: false, _slot: slot };
        tokio::spawn(lookup.run());
        Step::Begun(waiting)
    }

    /// A place for one more question under way, or the limit that is reached.
    fn place(&self, request: &KeyRequest, asker: Asker) -> Result<Slot, &'static str> {
        match asker {
            Asker::Stranger => self.strangers.admit(request.source).map_err(|full| match full {
                Full::Source => "in_flight_per_source_max",
                Full::All => "in_flight_max",
            }),
            Asker::Proven => self.proven.admit(request.source).map_err(|_| "revalidations_in_flight"),
        }
    }

    fn at_limit(&self, request: &KeyRequest, limit: &'static str) -> Step {
        self.metrics.lookup_at_limit(limit);
        if let Some(unlogged) = AT_LIMIT.admit() {
            warn!(target: "security", source = %request.source, limit, unlogged, "key lookup refused at a limit");
        }
        Step::Answered(Err(LookupRefusal::Busy))
    }

    /// What an answer teaches: the breaker, the caches. Ends the flight.
    fn settle(&self, question: &Question, stranger: Option<Source>, number: u64, answer: &Answer, health: Health) {
        let now = Instant::now();
        let mut state = self.state();
        if let Some(source) = stranger
            && matches!(answer, Err(LookupRefusal::Unknown | LookupRefusal::Expired))
        {
            state.rate.found_none(source, now);
        }
        let forgotten = state.in_flight.find(question).is_none_or(|flight| flight.number != number);
        if !forgotten {
            state.in_flight.remove(question);
        }
        let was_closed = state.breaker.is_closed();
        match health {
            Health::Works => state.breaker.success(),
            Health::Fails => state.breaker.failure(now),
            Health::Unknown => state.breaker.no_news(now),
        }
        let closed = state.breaker.is_closed();
        self.metrics.breaker_is_open(!closed);
        match answer {
            _ if forgotten => {}
            Ok(found) => state.found.insert(question, found.clone(), self.reusable_until(&found.key, now), now),
            Err(LookupRefusal::Unknown) => {
                let expiry = later(now, Duration::from_millis(self.limits.negative_cache_ms));
                state.unknown.insert(question, (), expiry, now);
            }
            Err(_) => {}
        }
        drop(state);
        match (was_closed, closed) {
            (true, false) => warn!(target: "security", "the key server fails; connections are refused for a while"),
            (false, true) => info!(target: "security", "the key server answers again"),
            _ => {}
        }
    }

    fn reusable_until(&self, key: &ProvenKey, now: Instant) -> Instant {
        let reuse = Duration::from_secs(self.limits.positive_cache_seconds);
        let valid = key.expires_at.map(|expiry| expiry.duration_since(SystemTime::now()).unwrap_or_default());
        later(now, valid.map_or(reuse, |valid| valid.min(reuse)))
    }
}

/// What an answer says of the key server.
#[derive(Clone, Copy)]
enum Health {
    Works,
    Fails,
    /// It was not asked.
    Unknown,
}

/// One question put to the key server.
struct Lookup {
    shared: Arc<Shared>,
    question: Question,
    /// Whose allowance pays if no key is found.
    stranger: Option<Source>,
    number: u64,
    answer: watch::Sender<Option<Answer>>,
    settled: bool,
    _slot: Slot,
}

impl Lookup {
    async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let _in_flight = shared.metrics.lookup_begins();
        let begun = Instant::now();
        let af_id = AfId::new(shared.fqdn.clone(), self.question.protocol);
        let retrieval = shared.source.retrieve(af_id, self.question.a_kid.clone());
        let limit = Duration::from_millis(shared.limits.timeout_ms);
        let (answer, health) = match tokio::time::timeout(limit, retrieval).await {
            Ok(Ok(Some(key))) if key.is_valid_at(SystemTime::now()) => {
                (Ok(FoundKey { key, asked_at: begun }), Health::Works)
            }
            Ok(Ok(Some(_))) => (Err(LookupRefusal::Expired), Health::Works),
            Ok(Err(KeySourceError::Expired)) => (Err(LookupRefusal::Expired), Health::Works),
            Ok(Ok(None)) => (Err(LookupRefusal::Unknown), Health::Works),
            Ok(Err(KeySourceError::Refused(reason))) => {
                debug!(target: "security", a_kid = %self.question.a_kid, reason, "the key server refuses a request");
                (Err(LookupRefusal::Unknown), Health::Works)
            }
            Ok(Err(KeySourceError::NotYet(reason))) => {
                debug!(target: "security", a_kid = %self.question.a_kid, reason, "the key server has no answer yet");
                (Err(LookupRefusal::Unavailable), Health::Works)
            }
            Ok(Err(error @ KeySourceError::NotAsked(_))) => {
                if let Some(unlogged) = FAILED.admit() {
                    warn!(target: "security", %error, unlogged, "key lookup refused at a limit");
                }
                (Err(LookupRefusal::Busy), Health::Unknown)
            }
            Ok(Err(error @ KeySourceError::TooMany(_))) => {
                if let Some(unlogged) = SLOWED.admit() {
                    warn!(target: "security", %error, unlogged, "the key server wants fewer questions");
                }
                (Err(LookupRefusal::Busy), Health::Works)
            }
            Ok(Err(error)) => {
                if let Some(unlogged) = FAILED.admit() {
                    warn!(target: "security", %error, unlogged, "key lookup failed");
                }
                (Err(LookupRefusal::Unavailable), Health::Fails)
            }
            Err(_) => {
                if let Some(unlogged) = TOO_SLOW.admit() {
                    let timeout_ms = shared.limits.timeout_ms;
                    warn!(target: "security", timeout_ms, unlogged, "the key server took too long");
                }
                (Err(LookupRefusal::TimedOut), Health::Fails)
            }
        };
        shared.metrics.lookup_took(begun.elapsed());
        // The flight ends before the answer is out: nobody can join it later and get an old answer.
        self.settled = true;
        shared.settle(&self.question, self.stranger, self.number, &answer, health);
        self.answer.send_replace(Some(answer));
    }
}

impl Drop for Lookup {
    /// A key source that panics, or a runtime that shuts down, must not leave a flight that never lands.
    fn drop(&mut self) {
        if !self.settled {
            let answer = Err(LookupRefusal::Unavailable);
            self.shared.settle(&self.question, self.stranger, self.number, &answer, Health::Fails);
            self.answer.send_replace(Some(answer));
        }
    }
}

static AT_LIMIT: LogThrottle = LogThrottle::new();
static FAILED: LogThrottle = LogThrottle::new();
static SLOWED: LogThrottle = LogThrottle::new();
static TOO_SLOW: LogThrottle = LogThrottle::new();

async fn wait(mut waiting: Waiting) -> Answer {
    match waiting.wait_for(Option::is_some).await {
        Ok(answer) => answer.clone().unwrap_or(Err(LookupRefusal::Unavailable)),
        Err(_) => Err(LookupRefusal::Unavailable),
    }
}
