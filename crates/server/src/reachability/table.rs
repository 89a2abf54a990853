//! Who is to be woken, and how far that has come. No I/O: times come in, jobs for the NEF come out.
//!
//! ```text
//!              window opens, pause over                201                       validity over, FAILURE, EXPIRED, ...
//!  Waiting ───────────────────────────▶ Asking ──────────────────▶ Triggered ─────────────────────────┐
//!   ▲  ▲                                 │  │ monitoring: 201                                         │
//!   │  │ NEF away, association unanswered│  └─────────▶ Monitored ─ report, or waited long enough ─┐  │
//!   │  └─────────────────────────────────┘                                                         │  │
//!   ├──────────────────────────────────────────────────────────────────────────────────────────────┘  │
//!   ├────────────────────────────────────── attempts left: back-off ──────────────────────────────────┤
//!   └─── something more was stored ─── Resting ◀──── no attempts left, or not allowed ─────────────────┘
//! ```
//!
//! A UE that connects leaves the table whatever its state; what the NEF still holds for it is withdrawn.
//! The driving contract: after every call that may change what is due, the owner takes jobs by [`Table::next`] until it
//! yields nothing, and comes again no later than [`Table::next_due`]. Every job ends with one `..._ended` call.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use message::{Address, CommunicationAvailability};
use sbi::ResourceId;
use sbi::device_triggering::DeliveryResult;
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use crate::limits::Limits;

/// The unguessable last segment of a notification destination: 122 random bits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Token(Uuid);

impl Token {
    fn new() -> Self {
        Self(Uuid::new_v4())
    }

    /// Reads what a path names.
    pub(super) fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.simple())
    }
}

/// Which of the two APIs a resource or a notification belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    Triggering,
    Monitoring,
}

/// Now, on the clock that timers run by and on that of the day.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Instant,
    pub(super) utc: OffsetDateTime,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self { now: Instant::now(), utc: OffsetDateTime::now_utc() }
    }
}

/// Why a UE is to be woken.
#[derive(Debug, Clone)]
pub(super) struct Want {
    /// A message of high priority waits.
    pub(super) urgent: bool,
    /// When the last of what waits expires.
    pub(super) expires_at: OffsetDateTime,
    pub(super) availability: Option<CommunicationAvailability>,
    /// How long it may still come by itself.
    pub(super) delay: Duration,
}

/// Something to ask of the NEF.
#[derive(Debug)]
pub(super) enum Job {
    Ask(Ask),
    Withdraw(Service, ResourceId),
}

/// A request about one UE.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) address: Address,
    pub(super) service: Service,
    pub(super) token: Token,
    pub(super) urgent: bool,
    /// How long a trigger is worth anything.
    pub(super) validity_seconds: u32,
    series: u64,
}

/// How a request for a trigger, or a subscription, ended.
#[derive(Debug)]
pub(super) enum Asked {
    /// The NEF has it. For a subscription: whether reports follow, and whether one came at once.
    Taken { resource: Option<ResourceId>, reports_follow: bool, reachable: bool },
    /// The NEF has it, and is done with it already.
    Failed,
    /// The NEF refused it, or answered what means nothing.
    Refused,
    /// No answer in time: the NEF may have it.
    InDoubt,
    /// The NEF is away or overloaded; it may have said for how long.
    Unavailable(Option<Duration>),
    /// The UE may not be triggered by the identifier that it named, or by none.
    NotAllowed,
    /// Whether it may is not known now.
    Undecided,
    /// There is nobody to wake, or nothing to wake it for.
    Needless,
}

impl Asked {
    /// Whether the NEF may have sent a trigger.
    fn may_have_triggered(&self) -> bool {
        matches!(self, Self::Taken { .. } | Self::Failed | Self::Refused | Self::InDoubt)
    }
}

/// How often a UE is monitored, by configuration.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Monitoring {
    /// Reports of one subscription; none is asked for if 0.
    pub(super) reports: u32,
}

/// The table holds as many UEs as it may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TableFull;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Waiting,
    Asking(Service),
    Monitored,
    Triggered,
    Resting { wanted: bool },
}

#[derive(Debug)]
struct Outstanding {
    token: Token,
    resource: Option<ResourceId>,
    /// Reports that may still come.
    reports_left: u32,
}

#[derive(Debug)]
struct Watch {
    /// Tells this watch from an earlier one of the same UE.
    series: u64,
    urgent: bool,
    expires_at: OffsetDateTime,
    availability: Option<CommunicationAvailability>,
    step: Step,
    due: Option<Instant>,
    attempts: u32,
    trigger: Option<Outstanding>,
    monitoring: Option<Outstanding>,
    /// Monitoring was tried.
    monitored: bool,
    /// A report came before the answer to the request it belongs to.
    reported_early: bool,
    /// When it was triggered last.
    triggered_at: Option<Instant>,
}

/// Whom a token belongs to, or belonged.
#[derive(Debug)]
struct Destination {
    service: Service,
    address: Address,
    series: u64,
}

/// What a notification was about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Notified {
    /// Something that this server waits for.
    Awaited(Address),
    /// Something that is over.
    Over,
    /// Nothing that this server knows.
    Unknown,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Table {
    watches: HashMap<Address, Watch>,
    due: BTreeSet<(Instant, Address)>,
    destinations: HashMap<Token, Destination>,
    /// Tokens of what is over, oldest first: the NEF's last words on them are answered as if they mattered.
    over: VecDeque<Token>,
    withdrawals: VecDeque<(Service, ResourceId)>,
    /// When UEs that have left the table were triggered last, oldest first, as far as that still matters.
    lately: HashMap<Address, Instant>,
    lately_order: VecDeque<(Instant, Address)>,
    in_flight: usize,
    nef_failures: u32,
    nef_paused_until: Option<Instant>,
    next_series: u64,
}

impl Table {
    /// UEs in it.
    pub(super) fn len(&self) -> usize {
        self.watches.len()
    }

    /// Something is stored for a UE that is away.
    pub(super) fn wanted(
        &mut self,
        address: &Address,
        want: Want,
        at: Moment,
        limits: &Limits,
    ) -> Result<(), TableFull> {
        if let Some(watch) = self.watches.get_mut(address) {
            watch.urgent |= want.urgent;
            watch.expires_at = watch.expires_at.max(want.expires_at);
            watch.availability = want.availability;
            if let Step::Resting { wanted } = &mut watch.step {
                *wanted = true;
            }
            return Ok(());
        }
        if self.watches.len() >= limits.triggers_watched_max {
            return Err(TableFull);
        }
        self.next_series += 1;
        let watch = Watch {
            series: self.next_series,
            urgent: want.urgent,
            expires_at: want.expires_at,
            availability: want.availability,
            step: Step::Waiting,
            due: None,
            attempts: 0,
            trigger: None,
            monitoring: None,
            monitored: false,
            reported_early: false,
            triggered_at: None,
        };
        let interval = Duration::from_secs(limits.trigger_interval_seconds);
        let again = self.lately.get(address).map_or(at.now, |last| *last + interval);
        let due = again.max(at.now + want.delay).max(opening(&watch, at).unwrap_or(at.now));
        self.watches.insert(address.clone(), watch);
        self.set_step(address, Step::Waiting, Some(due));
        Ok(())
    }

    /// The UE is there, or is no more. True if something is to be withdrawn.
    pub(super) fn settled(&mut self, address: &Address, limits: &Limits) -> bool {
        let Some(mut watch) = self.watches.remove(address) else { return false };
        if let Some(triggered_at) = watch.triggered_at {
            self.remember(address, triggered_at, limits);
        }
        if let Some(due) = watch.due {
            self.due.remove(&(due, address.clone()));
        }
        self.end(Service::Triggering, watch.trigger.take(), limits);
        self.end(Service::Monitoring, watch.monitoring.take(), limits);
        !self.withdrawals.is_empty()
    }

    /// The next thing to ask of the NEF, if there is one now.
    pub(super) fn next(&mut self, monitoring: Monitoring, at: Moment, limits: &Limits) -> Option<Job> {
        // One that fails is tried by one request at a time until one is answered.
        let window = if self.nef_failures > 0 { 1 } else { limits.triggers_in_flight_max };
        if self.in_flight >= window || self.nef_paused_until.is_some_and(|until| until > at.now) {
            return None;
        }
        while let Some(address) = self.due.first().filter(|(due, _)| *due <= at.now).map(|(_, address)| address.clone())
        {
            if let Some(ask) = self.fall_due(&address, monitoring, at, limits) {
                self.in_flight += 1;
                return Some(Job::Ask(ask));
            }
        }
        let (service, resource) = self.withdrawals.pop_front()?;
        self.in_flight += 1;
        Some(Job::Withdraw(service, resource))
    }

    /// When [`Table::next`] may yield something again.
    pub(super) fn next_due(&self, limits: &Limits) -> Option<Instant> {
        if self.in_flight >= if self.nef_failures > 0 { 1 } else { limits.triggers_in_flight_max } {
            return None;
        }
        let due = self.due.first().map(|(due, _)| *due);
        let withdrawal = self.nef_paused_until.filter(|_| !self.withdrawals.is_empty());
        let earliest = due.into_iter().chain(withdrawal).min()?;
        Some(self.nef_paused_until.map_or(earliest, |until| until.max(earliest)))
    }

    /// Does what time asks for with one watch that is due. Each branch gives it a later due time or takes it out.
    fn fall_due(&mut self, address: &Address, monitoring: Monitoring, at: Moment, limits: &Limits) -> Option<Ask> {
        let watch = self.watches.get(address)?;
        match watch.step {
            Step::Waiting | Step::Monitored if watch.expires_at <= at.utc => {
                self.settled(address, limits);
                None
            }
            Step::Waiting | Step::Monitored => match opening(watch, at) {
                Some(opening) => {
                    self.set_step(address, Step::Waiting, Some(opening));
                    None
                }
                None => self.begin_asking(address, monitoring, at, limits),
            },
            Step::Triggered => {
                self.attempt_failed(address, at, limits);
                None
            }
            Step::Resting { wanted: true } => {
                let watch = self.watches.get_mut(address)?;
                (watch.attempts, watch.monitored) = (0, false);
                self.set_step(address, Step::Waiting, Some(at.now));
                None
            }
            Step::Resting { wanted: false } | Step::Asking(_) => {
                self.settled(address, limits);
                None
            }
        }
    }

    fn begin_asking(&mut self, address: &Address, monitoring: Monitoring, at: Moment, limits: &Limits) -> Option<Ask> {
        let watch = self.watches.get_mut(address)?;
        let service =
            if monitoring.reports > 0 && !watch.monitored { Service::Monitoring } else { Service::Triggering };
        let token = Token::new();
        let reports_left = if service == Service::Monitoring { monitoring.reports } else { u32::MAX };
        let outstanding = Outstanding { token: token.clone(), resource: None, reports_left };
        let slot = match service {
            Service::Triggering => &mut watch.trigger,
            Service::Monitoring => &mut watch.monitoring,
        };
        let earlier = slot.replace(outstanding);
        watch.reported_early = false;
        let ask = Ask {
            address: address.clone(),
            service,
            token: token.clone(),
            urgent: watch.urgent,
            validity_seconds: validity(watch, at.utc, limits),
            series: watch.series,
        };
        let destination = Destination { service, address: address.clone(), series: watch.series };
        self.destinations.insert(token, destination);
        self.end(service, earlier, limits);
        self.set_step(address, Step::Asking(service), None);
        Some(ask)
    }

    /// A request that [`Table::next`] asked for has ended.
    pub(super) fn ask_ended(&mut self, ask: &Ask, asked: Asked, at: Moment, limits: &Limits) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.note_nef(&asked, at.now, limits);
        let awaited = self.watches.get(&ask.address).is_some_and(|watch| watch.series == ask.series);
        if !awaited {
            // The UE came meanwhile: what the NEF holds is needless.
            if ask.service == Service::Triggering && asked.may_have_triggered() {
                self.remember(&ask.address, at.now, limits);
            }
            if let Asked::Taken { resource: Some(resource), .. } = asked {
                self.withdraw_later(ask.service, resource, limits);
            }
            return;
        }
        match ask.service {
            Service::Monitoring => self.monitoring_ended(&ask.address, asked, at, limits),
            Service::Triggering => self.trigger_ended(&ask.address, asked, ask.validity_seconds, at, limits),
        }
    }

    /// A withdrawal has ended, one way or the other; it is not tried again.
    pub(super) fn withdrawal_ended(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    fn note_nef(&mut self, asked: &Asked, now: Instant, limits: &Limits) {
        let wanted = match asked {
            Asked::Unavailable(wanted) => *wanted,
            Asked::InDoubt => None,
            Asked::Taken { .. } | Asked::Failed | Asked::Refused => {
                self.nef_failures = 0;
                self.nef_paused_until = None;
                return;
            }
            // The NEF was not asked.
            Asked::NotAllowed | Asked::Undecided | Asked::Needless => return,
        };
        let longest = Duration::from_secs(limits.backoff_max_seconds);
        let first = Duration::from_millis(limits.backoff_first_milliseconds);
        let pause = doubled(first, self.nef_failures, longest).max(wanted.unwrap_or_default().min(longest));
        self.nef_failures = self.nef_failures.saturating_add(1);
        self.nef_paused_until = Some(now + pause);
    }

    fn monitoring_ended(&mut self, address: &Address, asked: Asked, at: Moment, limits: &Limits) {
        let Some(watch) = self.watches.get_mut(address) else { return };
        match asked {
            Asked::Taken { resource, reports_follow, reachable } => {
                watch.monitored = true;
                let reachable = reachable || watch.reported_early;
                if let Some(outstanding) = &mut watch.monitoring {
                    outstanding.resource = resource;
                }
                let over = !reports_follow || watch.monitoring.as_ref().is_none_or(|one| one.reports_left == 0);
                if over {
                    let ended = watch.monitoring.take();
                    self.end(Service::Monitoring, ended, limits);
                }
                let wait = Duration::from_secs(limits.reachability_wait_seconds);
                let (step, due) = if reachable || !reports_follow {
                    (Step::Waiting, at.now)
                } else {
                    (Step::Monitored, at.now + wait)
                };
                self.set_step(address, step, Some(due));
            }
            // A network that does not monitor can trigger all the same.
            Asked::Failed | Asked::Refused | Asked::InDoubt => {
                watch.monitored = true;
                let ended = watch.monitoring.take();
                self.end(Service::Monitoring, ended, limits);
                self.set_step(address, Step::Waiting, Some(at.now));
            }
            other => {
                let ended = watch.monitoring.take();
                self.end(Service::Monitoring, ended, limits);
                self.not_asked(address, other, at, limits);
            }
        }
    }

    fn trigger_ended(&mut self, address: &Address, asked: Asked, validity_seconds: u32, at: Moment, limits: &Limits) {
        let Some(watch) = self.watches.get_mut(address) else { return };
        match asked {
            Asked::Taken { resource, .. } => {
                watch.attempts = watch.attempts.saturating_add(1);
                watch.triggered_at = Some(at.now);
                if let Some(outstanding) = &mut watch.trigger {
                    outstanding.resource = resource.filter(|_| !watch.reported_early);
                }
                // A report that overtook the answer has ended it: nothing is outstanding any more.
                if watch.trigger.is_none() {
                    return self.attempt_failed(address, at, limits);
                }
                let wait = Duration::from_secs(if watch.reported_early {
                    limits.trigger_connect_seconds.min(validity_seconds.into())
                } else {
                    validity_seconds.into()
                });
                self.set_step(address, Step::Triggered, Some(at.now + wait));
            }
            Asked::Failed | Asked::Refused | Asked::InDoubt => {
                watch.attempts = watch.attempts.saturating_add(1);
                watch.triggered_at = Some(at.now);
                self.attempt_failed(address, at, limits);
            }
            other => {
                let ended = watch.trigger.take();
                self.end(Service::Triggering, ended, limits);
                self.not_asked(address, other, at, limits);
            }
        }
    }

    /// The request had no effect at the NEF, so that it is no attempt.
    fn not_asked(&mut self, address: &Address, asked: Asked, at: Moment, limits: &Limits) {
        match asked {
            Asked::NotAllowed => self.rest(address, at.now, limits),
            Asked::Needless => drop(self.settled(address, limits)),
            Asked::Undecided => {
                let pause = Duration::from_secs(limits.trigger_backoff_first_seconds);
                self.set_step(address, Step::Waiting, Some(at.now + pause));
            }
            _ => {
                let opening = self.watches.get(address).and_then(|watch| opening(watch, at));
                self.set_step(address, Step::Waiting, Some(opening.unwrap_or(at.now)));
            }
        }
    }

    /// The device did not come: again after a pause, as long as there are attempts.
    fn attempt_failed(&mut self, address: &Address, at: Moment, limits: &Limits) {
        let Some(watch) = self.watches.get_mut(address) else { return };
        // The NEF is done with it, or its validity is over: nothing is left to withdraw.
        let ended = watch.trigger.take().map(|outstanding| Outstanding { resource: None, ..outstanding });
        let (attempts, expired) = (watch.attempts, watch.expires_at <= at.utc);
        self.end(Service::Triggering, ended, limits);
        if expired {
            self.settled(address, limits);
        } else if attempts >= limits.trigger_attempts_max {
            self.rest(address, at.now, limits);
        } else {
            let first = Duration::from_secs(limits.trigger_backoff_first_seconds);
            let longest = Duration::from_secs(limits.trigger_backoff_max_seconds);
            let pause = doubled(first, attempts.saturating_sub(1), longest);
            self.set_step(address, Step::Waiting, Some(at.now + pause));
        }
    }

    fn rest(&mut self, address: &Address, now: Instant, limits: &Limits) {
        let Some(watch) = self.watches.get_mut(address) else { return };
        let ended = watch.monitoring.take();
        self.end(Service::Monitoring, ended, limits);
        let pause = Duration::from_secs(limits.trigger_rest_seconds);
        self.set_step(address, Step::Resting { wanted: false }, Some(now + pause));
    }

    /// The NEF reports on a trigger.
    pub(super) fn trigger_reported(
        &mut self,
        token: &Token,
        result: &DeliveryResult,
        at: Moment,
        limits: &Limits,
    ) -> Notified {
        let (address, current) = match self.destination(token, Service::Triggering) {
            Ok(found) => found,
            Err(notified) => return notified,
        };
        let Some(watch) = self.watches.get_mut(&address).filter(|_| current) else { return Notified::Over };
        let asking = watch.step == Step::Asking(Service::Triggering);
        if *result == DeliveryResult::Success {
            watch.reported_early = asking;
            // The device has it: nothing is left to withdraw.
            if let Some(outstanding) = &mut watch.trigger {
                outstanding.resource = None;
            }
            let wait = at.now + Duration::from_secs(limits.trigger_connect_seconds);
            if watch.step == Step::Triggered && watch.due.is_some_and(|due| due > wait) {
                self.set_step(&address, Step::Triggered, Some(wait));
            }
        } else if result.is_failure() && asking {
            let ended = watch.trigger.take().map(|outstanding| Outstanding { resource: None, ..outstanding });
            self.end(Service::Triggering, ended, limits);
        } else if result.is_failure() {
            self.attempt_failed(&address, at, limits);
        }
        Notified::Awaited(address)
    }

    /// The NEF reports on a UE's reachability: so many reports that it is reachable, and whether that was all.
    pub(super) fn reachability_reported(
        &mut self,
        token: &Token,
        reports: u32,
        cancelled: bool,
        at: Moment,
        limits: &Limits,
    ) -> Notified {
        let (address, current) = match self.destination(token, Service::Monitoring) {
            Ok(found) => found,
            Err(notified) => return notified,
        };
        let Some(watch) = self.watches.get_mut(&address).filter(|_| current) else { return Notified::Over };
        let (step, mut ended) = (watch.step, None);
        if let Some(outstanding) = &mut watch.monitoring {
            outstanding.reports_left = outstanding.reports_left.saturating_sub(reports);
            if cancelled {
                outstanding.reports_left = 0;
            }
            // Until the request is answered, its answer ends it.
            if outstanding.reports_left == 0 && step != Step::Asking(Service::Monitoring) {
                outstanding.resource = None;
                ended = watch.monitoring.take();
            }
        }
        watch.reported_early |= step == Step::Asking(Service::Monitoring) && reports > 0;
        self.end(Service::Monitoring, ended, limits);
        let at_once = match step {
            Step::Monitored => reports > 0 || cancelled,
            Step::Waiting => reports > 0,
            _ => false,
        };
        if at_once {
            self.set_step(&address, Step::Waiting, Some(at.now));
        }
        Notified::Awaited(address)
    }

    /// Whether a destination was made for this service, and is not forgotten.
    pub(super) fn knows(&self, token: &Token, service: Service) -> bool {
        self.destinations.get(token).is_some_and(|found| found.service == service)
    }

    /// Whose destination it is, and whether that is still waited for.
    fn destination(&self, token: &Token, service: Service) -> Result<(Address, bool), Notified> {
        let found = self.destinations.get(token).filter(|found| found.service == service);
        let found = found.ok_or(Notified::Unknown)?;
        let current = self.watches.get(&found.address).is_some_and(|watch| {
            let outstanding = match service {
                Service::Triggering => &watch.trigger,
                Service::Monitoring => &watch.monitoring,
            };
            watch.series == found.series && outstanding.as_ref().is_some_and(|outstanding| outstanding.token == *token)
        });
        Ok((found.address.clone(), current))
    }

    /// What was outstanding is over: it is withdrawn if the NEF holds it, and its token is remembered for a while.
    fn end(&mut self, service: Service, outstanding: Option<Outstanding>, limits: &Limits) {
        let Some(Outstanding { token, resource, .. }) = outstanding else { return };
        self.over.push_back(token);
        while self.over.len() > limits.notifications_over_max {
            if let Some(oldest) = self.over.pop_front() {
                self.destinations.remove(&oldest);
            }
        }
        if let Some(resource) = resource {
            self.withdraw_later(service, resource, limits);
        }
    }

    /// Remembers when a UE that leaves the table was triggered, so that one that keeps coming and going does not have a
    /// trigger sent each time.
    fn remember(&mut self, address: &Address, triggered_at: Instant, limits: &Limits) {
        self.lately.insert(address.clone(), triggered_at);
        self.lately_order.push_back((triggered_at, address.clone()));
        let interval = Duration::from_secs(limits.trigger_interval_seconds);
        while let Some((at, _)) = self.lately_order.front() {
            if self.lately_order.len() <= limits.triggers_watched_max && *at + interval > triggered_at {
                return;
            }
            if let Some((at, address)) = self.lately_order.pop_front()
                && self.lately.get(&address) == Some(&at)
            {
                self.lately.remove(&address);
            }
        }
    }

    fn withdraw_later(&mut self, service: Service, resource: ResourceId, limits: &Limits) {
        // What is not withdrawn ends by itself.
        if self.withdrawals.len() < limits.triggers_watched_max {
            self.withdrawals.push_back((service, resource));
        }
    }

    fn set_step(&mut self, address: &Address, step: Step, due: Option<Instant>) {
        let Some(watch) = self.watches.get_mut(address) else { return };
        if let Some(earlier) = std::mem::replace(&mut watch.due, due) {
            self.due.remove(&(earlier, address.clone()));
        }
        watch.step = step;
        if let Some(due) = due {
            self.due.insert((due, address.clone()));
        }
    }
}

/// When the window opens that a closed schedule waits for. None: it is open, there is no schedule, or it is over and says
/// nothing about now.
fn opening(watch: &Watch, at: Moment) -> Option<Instant> {
    let opens = watch.availability.as_ref()?.next_open(at.utc)?;
    let wait = Duration::try_from(opens - at.utc).ok().filter(|wait| !wait.is_zero())?;
    // The clock of the day may be set meanwhile: looked at again then.
    Some(at.now + wait.min(LOOK_AGAIN))
}

/// A trigger is worth something until the window closes, and until the last message expires.
fn validity(watch: &Watch, utc: OffsetDateTime, limits: &Limits) -> u32 {
    let closes = watch.availability.as_ref().and_then(|availability| availability.open_until(utc));
    let until = closes.map_or(watch.expires_at, |closes| closes.min(watch.expires_at));
    let seconds = u64::try_from((until - utc).whole_seconds()).unwrap_or(0);
    u32::try_from(seconds.min(limits.trigger_validity_seconds)).unwrap_or(u32::MAX).max(1)
}

/// `first`, doubled so many times, at most `longest`, less up to a half at random: what failed together does not come back
/// together.
fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    let doubled = first.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX)).min(longest);
    let share = f64::from(Uuid::new_v4().as_bytes().first().copied().unwrap_or(0)) / 510.0;
    doubled.mul_f64(1.0 - share)
}

/// Longest sleep until a window opens.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
