//! The consumer's side of Naanf_AKMA_ServiceDisableNotification (TS 33.535 clause 7.1, TS 29.535 clause 4.2.2.5): what an
//! application function leaves with its questions for K_AF, and the door at which it is then told.
//!
//! ```text
//! question for K_AF ── notifUri ──► AAnF ── 200, suppFeat 1: it will be told
//!                                     ├─── 200 without: it will not; re-validation finds out
//!                                     └─── 403 NOTIFICATION_URI_NOT_ALLOWED: asked again without, for a while
//! AAnF ── POST notifUri {aKId} ──► its certificate is a notifier's ──► sessions of the A-KID end ──► 204
//!                                     └─── anybody else's: 403
//! ```
//!
//! Access tokens are not for notifications (TS 33.501 clause 13.4.1): the certificate decides.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use akma::AKid;
use axum::extract::{FromRequest, Request, State};
use axum::routing::post;
use axum::{Extension, Router};
use http::StatusCode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};

use super::{AkmaAfKeyData, AkmaAfKeyRequest, NotificationUri, ServiceDisableNotif, feature};
use crate::audit::{Audit, subject};
use crate::error::SbiError;
use crate::extract::Json;
use crate::peer::PeerName;
use crate::problem::ProblemDetails;
use transport::profile::PeerIdentity;

/// Path of the door below the root of the function's API (INFERRED: TS 29.535 leaves it to the consumer).
pub const SERVICE_DISABLE_PATH: &str = "/akma-notifications/v1/service-disabled";

/// How long a function that was refused its URI asks without one.
const REFUSED_PAUSE: Duration = Duration::from_secs(600);

/// Functions of which it is remembered that they refused; the one whose refusal is oldest is asked with the URI again.
const REFUSING_ROOTS_MAX: usize = 64;

/// 403 of an AAnF: the URI is not one at which the caller may be notified. TS 29.535 defines no cause; this is ours.
const NOTIFICATION_URI_NOT_ALLOWED: &str = "NOTIFICATION_URI_NOT_ALLOWED";
/// 403: the peer is no notifier.
const NOTIFIER_NOT_ALLOWED: &str = "NOTIFIER_NOT_ALLOWED";
/// The action in the audit.
const ACTION: &str = "service-disable";

/// A section of a function's configuration: that it wants to be told, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotificationSection {
    /// The root under which the AAnF, or the NEF, finds this function's API, `https://...`. None: the address that it
    /// listens on, which must then be one that others can connect to.
    #[serde(default)]
    pub root: Option<String>,
    /// Whose notifications are taken: names in the certificates of the AAnFs, or of the NEF. At least one.
    pub notifier: Vec<PeerName>,
}

impl NotificationSection {
    /// What is wrong with it, if anything: the key, and why.
    #[must_use]
    pub fn fault(&self) -> Option<(&'static str, &'static str)> {
        if self.root.as_ref().is_some_and(|root| uri_below(root).is_none()) {
            return Some(("root", "must be an https URI"));
        }
        if self.notifier.is_empty() || self.notifier.iter().any(PeerName::is_empty) {
            return Some(("notifier", "needs nf_instance_id or dns_name"));
        }
        None
    }
}

fn uri_below(root: &str) -> Option<NotificationUri> {
    format!("{}{SERVICE_DISABLE_PATH}", root.trim_end_matches('/')).parse().ok()
}

/// What a function leaves with its questions for K_AF, so that it is told. Clones are the same; the default wants nothing.
#[derive(Debug, Clone, Default)]
pub struct DisableSubscription(Arc<Subscription>);

#[derive(Debug, Default)]
struct Subscription {
    uri: OnceLock<NotificationUri>,
    /// Who refused the URI last, and when: the roots of anchor functions, or of a NEF.
    refused: Mutex<HashMap<Box<str>, Instant>>,
    metrics: DisableMetrics,
}

/// Counters of a consumer; clones count into the same.
#[derive(Debug, Clone, Default)]
pub struct DisableMetrics {
    wanted: Family<Vec<(&'static str, &'static str)>, Counter>,
    taken: Family<Vec<(&'static str, &'static str)>, Counter>,
    ended: Counter,
}

impl DisableMetrics {
    /// Adds the counters to `registry`: `akma_disable_subscriptions_total{result}` (`kept`, `not_kept`, `refused`),
    /// `akma_disable_notifications_total{result}` (`ended`, `nothing_to_end`, `not_allowed`, `malformed`),
    /// `akma_disable_ended_total`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("akma_disable");
        registry.register(
            "subscriptions",
            "Answers with K_AF, by whether the AAnF will tell that AKMA is disabled",
            self.wanted.clone(),
        );
        registry.register(
            "notifications",
            "Notifications that AKMA is disabled, by what came of them",
            self.taken.clone(),
        );
        registry.register("ended", "Sessions ended by them", self.ended.clone());
    }

    fn wanted(&self, result: &'static str) {
        self.wanted.get_or_create(&vec![("result", result)]).inc();
    }

    fn taken(&self, result: &'static str) {
        self.taken.get_or_create(&vec![("result", result)]).inc();
    }
}

impl DisableSubscription {
    /// One that is to be told at the door below `section`'s root or, where it names none, below `https://` and `listens_at`.
    /// It holds for all clones from now on; only the first counts.
    pub fn open(&self, section: &NotificationSection, listens_at: SocketAddr) {
        let own = format!("https://{listens_at}");
        if let Some(uri) = uri_below(section.root.as_deref().unwrap_or(&own)) {
            self.0.uri.get_or_init(|| uri);
        }
    }

    /// Counts into this.
    #[must_use]
    pub fn metrics(&self) -> &DisableMetrics {
        &self.0.metrics
    }

    /// The same question to the function at `root`, with the URI if there is one and that did not refuse it lately.
    pub(crate) fn ask(&self, root: &str, request: AkmaAfKeyRequest) -> AkmaAfKeyRequest {
        let paused = self.refused().get(root).is_some_and(|at| at.elapsed() < REFUSED_PAUSE);
        match self.0.uri.get() {
            Some(uri) if !paused => request.with_notifications(uri.clone()),
            _ => request,
        }
    }

    /// The question to ask the function at `root` instead if this error of its is about the URI alone.
    pub(crate) fn ask_again(
        &self,
        root: &str,
        request: &AkmaAfKeyRequest,
        error: &SbiError,
    ) -> Option<AkmaAfKeyRequest> {
        let (_own, _asked) = (self.0.uri.get()?, request.notif_uri.as_ref()?);
        error.problem().filter(|problem| problem.has_cause(NOTIFICATION_URI_NOT_ALLOWED))?;
        let first = self.note_refusal(root);
        self.0.metrics.wanted("refused");
        if first {
            tracing::error!(
                target: "security", root,
                "it may not notify here: that AKMA is disabled is found by re-validation only"
            );
        }
        Some(AkmaAfKeyRequest { supp_feat: None, notif_uri: None, ..request.clone() })
    }

    /// Whether it is the first of this root.
    fn note_refusal(&self, root: &str) -> bool {
        let mut refused = self.refused();
        if refused.len() >= REFUSING_ROOTS_MAX && !refused.contains_key(root) {
            let oldest = refused.iter().min_by_key(|(_, at)| **at).map(|(root, _)| root.clone());
            oldest.map(|oldest| refused.remove(&oldest));
        }
        refused.insert(root.into(), Instant::now()).is_none()
    }

    /// Counts whether the answer says that we will be told.
    pub(crate) fn answered(&self, request: &AkmaAfKeyRequest, answer: &AkmaAfKeyData) {
        if request.notif_uri.is_some() {
            let feature = feature::SERVICE_DISABLE_NOTIFICATION;
            let kept = answer.supp_feat.is_some_and(|features| features.has(feature));
            self.0.metrics.wanted(if kept { "kept" } else { "not_kept" });
        }
    }

    fn refused(&self) -> std::sync::MutexGuard<'_, HashMap<Box<str>, Instant>> {
        self.0.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever has sessions that live by K_AF.
pub trait ServiceDisabled: Send + Sync {
    /// AKMA is not to be used any more under this A-KID: ends every session proven by it, and lets none that is on its way
    /// stay. Returns how many it ended.
    fn service_disabled(&self, a_kid: &AKid) -> usize;
}

/// A-KIDs under which AKMA was disabled lately, for whoever has handshakes under way: a session that comes of one is to end as
/// it begins. Where one had to be forgotten before its time, a session whose key was asked for before that was told is to be asked
/// about. Who enables AKMA again for an application function has its UEs wait for as long as this is remembered.
#[derive(Debug)]
pub struct RecentlyDisabled {
    /// With the number under which it was told last.
    entries: HashMap<AKid, u64>,
    /// In the order in which they were told.
    order: VecDeque<(AKid, u64, Instant)>,
    told: u64,
    /// When the newest was told of those that were forgotten before their time.
    forgotten_at: Option<Instant>,
    remembered_for: Duration,
}

impl Default for RecentlyDisabled {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            order: VecDeque::new(),
            told: 0,
            forgotten_at: None,
            remembered_for: Self::REMEMBERED_FOR_MIN,
        }
    }
}

impl RecentlyDisabled {
    /// How many are remembered; the oldest is forgotten first.
    pub const A_KIDS_MAX: usize = 65_536;
    /// For how long, at least: longer than a look-up and the rest of a handshake may take by default.
    pub const REMEMBERED_FOR_MIN: Duration = Duration::from_secs(60);

    /// Remembers each for the longest that a key may be on its way into a session, or for [`Self::REMEMBERED_FOR_MIN`] if that
    /// is longer.
    pub fn remember_for(&mut self, longest: Duration) {
        self.remembered_for = longest.max(Self::REMEMBERED_FOR_MIN);
    }

    /// Remembers one from now on.
    pub fn insert(&mut self, a_kid: &AKid, now: Instant) {
        self.forget_old(now);
        self.told += 1;
        self.order.push_back((a_kid.clone(), self.told, now));
        self.entries.insert(a_kid.clone(), self.told);
        while self.order.len() > Self::A_KIDS_MAX {
            self.forgotten_at = self.order.front().map(|(.., at)| *at);
            self.forget_oldest();
        }
    }

    /// Whether it is remembered.
    pub fn contains(&mut self, a_kid: &AKid, now: Instant) -> bool {
        self.forget_old(now);
        self.entries.contains_key(a_kid)
    }

    /// Whether some were forgotten that were told after the AAnF was asked for a key at this time: that one may be among them.
    pub fn forgot_since(&self, asked_at: Instant) -> bool {
        self.forgotten_at.is_some_and(|at| asked_at <= at)
    }

    fn forget_old(&mut self, now: Instant) {
        let remembered_for = self.remembered_for;
        while self.order.front().is_some_and(|(_, _, at)| now.saturating_duration_since(*at) >= remembered_for) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((a_kid, told, _)) = self.order.pop_front() else { return };
        // One that was told again since stays.
        if self.entries.get(&a_kid) == Some(&told) {
            self.entries.remove(&a_kid);
        }
        if self.order.is_empty() {
            (self.entries, self.order) = (HashMap::new(), VecDeque::new());
        }
    }
}

/// The door.
#[derive(Clone)]
struct Door {
    notifiers: Arc<[PeerName]>,
    consumer: Arc<dyn ServiceDisabled>,
    audit: Audit,
    metrics: DisableMetrics,
}

/// The route at [`SERVICE_DISABLE_PATH`]: 204 for a notifier, also where there is nothing to end, since the AAnF repeats
/// itself; 403 NOTIFIER_NOT_ALLOWED for anybody else, before the body is looked at.
pub fn notification_door(
    section: &NotificationSection,
    subscription: &DisableSubscription,
    consumer: Arc<dyn ServiceDisabled>,
    audit: &Audit,
) -> Router {
    let metrics = subscription.metrics().clone();
    let door = Door { notifiers: section.notifier.clone().into(), consumer, audit: audit.clone(), metrics };
    Router::new().route(SERVICE_DISABLE_PATH, post(take)).with_state(door)
}

async fn take(
    State(door): State<Door>,
    peer: Option<Extension<PeerIdentity>>,
    request: Request,
) -> Result<StatusCode, ProblemDetails> {
    let peer = peer.map(|Extension(peer)| peer).unwrap_or_default();
    if !door.notifiers.iter().any(|notifier| notifier.names(&peer)) {
        door.metrics.taken("not_allowed");
        door.audit.refused(subject(&peer), ACTION, "not_allowed");
        return Err(ProblemDetails::forbidden(NOTIFIER_NOT_ALLOWED));
    }
    let body = Json::<ServiceDisableNotif>::from_request(request, &()).await;
    let Json(ServiceDisableNotif { a_kid }) = body.inspect_err(|problem| {
        door.metrics.taken("malformed");
        door.audit.answered(subject(&peer), ACTION, "malformed", Some(problem));
    })?;
    let ended = door.consumer.service_disabled(&a_kid);
    let result = if ended > 0 { "ended" } else { "nothing_to_end" };
    door.metrics.taken(result);
    door.metrics.ended.inc_by(u64::try_from(ended).unwrap_or(u64::MAX));
    door.audit.allowed(subject(&peer), ACTION, result);
    tracing::info!(target: "security", %a_kid, ended, "AKMA disabled");
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::SupportedFeatures;

    const ROOT: &str = "https://aanf.example";

    fn section(root: &str) -> NotificationSection {
        let notifier = PeerName { dns_name: Some("aanf.example".to_owned()), ..PeerName::default() };
        NotificationSection { root: Some(root.to_owned()), notifier: vec![notifier] }
    }

    fn question() -> AkmaAfKeyRequest {
        AkmaAfKeyRequest::new("af.example.com:0100000007".parse().unwrap(), "0.a@example.com".parse().unwrap())
    }

    fn refused(cause: &str) -> SbiError {
        SbiError::Problem(Box::new(ProblemDetails::forbidden(cause)))
    }

    #[test]
    fn who_wants_nothing_leaves_nothing() {
        let subscription = DisableSubscription::default();
        assert_eq!(subscription.ask(ROOT, question()), question());
        assert!(subscription.ask_again(ROOT, &question(), &refused(NOTIFICATION_URI_NOT_ALLOWED)).is_none());
    }

    #[test]
    fn the_uri_is_below_the_root_or_the_address_and_only_the_first_counts() {
        let address = "127.0.0.1:8443".parse().unwrap();
        let subscription = DisableSubscription::default();
        let clone = subscription.clone();
        subscription.open(&section("https://af.example.com/below/"), address);
        subscription.open(&section("https://elsewhere.example.com"), address);
        let uri = clone.ask(ROOT, question()).notif_uri.unwrap();
        assert_eq!(uri.as_str(), "https://af.example.com/below/akma-notifications/v1/service-disabled");
        let own = DisableSubscription::default();
        own.open(&NotificationSection { root: None, ..section("") }, address);
        assert!(own.ask(ROOT, question()).notif_uri.unwrap().as_str().starts_with("https://127.0.0.1:8443/akma"));
    }

    #[test]
    fn a_uri_that_is_refused_is_left_out_for_a_while_and_nothing_else_makes_that() {
        let subscription = DisableSubscription::default();
        subscription.open(&section("https://af.example.com"), "127.0.0.1:1".parse().unwrap());
        let asked = subscription.ask(ROOT, question());
        assert!(subscription.ask_again(ROOT, &asked, &refused("K_AF_EXPIRED")).is_none());
        assert!(subscription.ask(ROOT, question()).notif_uri.is_some());
        let again = subscription.ask_again(ROOT, &asked, &refused(NOTIFICATION_URI_NOT_ALLOWED)).unwrap();
        assert_eq!(again, question());
        assert_eq!(subscription.ask(ROOT, question()), question());
    }

    #[test]
    fn an_aanf_that_refuses_the_uri_keeps_it_from_no_other() {
        let subscription = DisableSubscription::default();
        subscription.open(&section("https://af.example.com"), "127.0.0.1:1".parse().unwrap());
        let asked = subscription.ask(ROOT, question());
        assert!(subscription.ask_again(ROOT, &asked, &refused(NOTIFICATION_URI_NOT_ALLOWED)).is_some());
        assert!(subscription.ask(ROOT, question()).notif_uri.is_none());
        assert!(subscription.ask("https://aanf-2.example", question()).notif_uri.is_some());
        // Of more than are remembered the oldest refusal is forgotten.
        for number in 0..REFUSING_ROOTS_MAX {
            let root = format!("https://aanf-{number}.example");
            assert!(subscription.ask_again(&root, &asked, &refused(NOTIFICATION_URI_NOT_ALLOWED)).is_some());
        }
        assert_eq!(subscription.refused().len(), REFUSING_ROOTS_MAX);
        assert!(subscription.ask(ROOT, question()).notif_uri.is_some());
        assert!(subscription.ask("https://aanf-2.example", question()).notif_uri.is_none());
    }

    #[test]
    fn what_somebody_else_leaves_is_not_taken_from_its_question() {
        let uri: NotificationUri = "https://relay.example".parse().unwrap();
        let asked = question().with_notifications(uri);
        let refusal = refused(NOTIFICATION_URI_NOT_ALLOWED);
        assert!(DisableSubscription::default().ask_again(ROOT, &asked, &refusal).is_none());
    }

    #[test]
    fn of_what_was_disabled_the_oldest_is_forgotten_and_everything_in_time() {
        let a_kid = |number: usize| -> AKid { format!("0.{number}@example.com").parse().unwrap() };
        let (mut recently, now) = (RecentlyDisabled::default(), Instant::now());
        for number in 0..=RecentlyDisabled::A_KIDS_MAX {
            recently.insert(&a_kid(number), now);
        }
        assert!(!recently.contains(&a_kid(0), now));
        assert!(recently.forgot_since(now) && !recently.forgot_since(now + Duration::from_secs(1)));
        assert!(recently.contains(&a_kid(1), now) && recently.contains(&a_kid(RecentlyDisabled::A_KIDS_MAX), now));
        assert!(!recently.contains(&a_kid(1), now + RecentlyDisabled::REMEMBERED_FOR_MIN));
        assert!(recently.entries.is_empty() && recently.order.is_empty());
    }

    #[test]
    fn what_was_disabled_again_is_remembered_from_then_on_and_as_long_as_the_longest_handshake() {
        let (mut recently, now, second) = (RecentlyDisabled::default(), Instant::now(), Duration::from_secs(1));
        let a_kid: AKid = "0.a@example.com".parse().unwrap();
        recently.remember_for(second);
        recently.insert(&a_kid, now);
        recently.insert(&a_kid, now + 30 * second);
        assert!(recently.contains(&a_kid, now + 89 * second), "no less than the least");
        assert!(!recently.contains(&a_kid, now + 90 * second));
        recently.remember_for(3600 * second);
        recently.insert(&a_kid, now + 100 * second);
        assert!(recently.contains(&a_kid, now + 3699 * second));
        assert!(!recently.contains(&a_kid, now + 3700 * second));
    }

    #[test]
    fn a_section_names_a_notifier_and_an_https_root() {
        assert_eq!(section("https://af.example.com").fault(), None);
        assert_eq!(section("http://af.example.com").fault().unwrap().0, "root");
        let nobody = NotificationSection { root: None, notifier: Vec::new() };
        assert_eq!(nobody.fault().unwrap().0, "notifier");
        let nameless = NotificationSection { root: None, notifier: vec![PeerName::default()] };
        assert_eq!(nameless.fault().unwrap().0, "notifier");
    }

    #[test]
    fn a_question_with_a_uri_says_that_notifications_are_supported() {
        let subscription = DisableSubscription::default();
        subscription.open(&section("https://af.example.com"), "127.0.0.1:1".parse().unwrap());
        let features = SupportedFeatures::of(&[feature::SERVICE_DISABLE_NOTIFICATION]);
        assert_eq!(subscription.ask(ROOT, question()).supp_feat, Some(features));
    }
}
