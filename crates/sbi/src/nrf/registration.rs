//! A function's life at the NRF: registered, giving signs of life, registered anew when forgotten, gone when it stops.
//!
//! ```text
//! register ──ok──► every heartbeat timer: sign of life ──404──► register
//!    │  ▲                                     │
//!    └──┴── failure: wait, twice as long each time, and again
//! stop ──► deregister, within its time
//! ```
//!
//! The function works without all this: what the NRF does for it is found and authorised by others, and gets it tokens.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::Map;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use transport::profile::CertificateFiles;
use uuid::Uuid;

use super::api::NrfApi;
use super::config::{NrfConfig, NrfLimits};
use super::discovery::{DiscoveryQuery, SearchResult, api_root};
use super::kept::{Found, Kept};
use super::management::NFType;
use super::profile::{AanfInfo, IpEndPoint, NFProfile, NFService, NFServiceVersion, NFStatus, is_fqdn};
use crate::admin::Health;
use crate::assertion::AssertionSigner;
use crate::client::{SbiClient, SbiClientConfig};
use crate::error::SbiError;
use crate::own_certificate::OwnCertificate;

/// What a function says of itself; address and name come from its configuration and certificate.
#[derive(Debug, Clone, Default)]
pub struct OwnFunction {
    /// The services it offers.
    pub services: Vec<OwnService>,
    /// Whether they want access tokens.
    pub oauth2_required: bool,
    /// An AAnF: routing indicators of the subscribers it serves, all if empty.
    pub routing_indicators: Vec<String>,
}

/// One service of an [`OwnFunction`].
#[derive(Debug, Clone)]
pub struct OwnService {
    /// Its name in TS 29.510, for example `naanf-akma`.
    pub name: &'static str,
    /// Version of its API in URIs: `v1`.
    pub version: &'static str,
    /// Where it listens.
    pub listen: SocketAddr,
    /// NF types that may use it; all if empty.
    pub consumers: &'static [&'static str],
}

/// A function's client of its NRF. Cheap to clone; clones share registration, tokens and discoveries.
///
/// Give it to [`SbiClient::with_tokens`] for requests with access tokens.
#[derive(Clone)]
pub struct NrfClient {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) api: NrfApi,
    pub(super) nf_instance_id: Uuid,
    pub(super) nf_type: NFType,
    pub(super) limits: NrfLimits,
    pub(super) tokens: Kept<Arc<str>>,
    pub(super) metrics: NrfMetrics,
    pub(super) without_token: BTreeSet<String>,
    with_tokens: bool,
    register: bool,
    fqdn: Option<String>,
    api_root: Option<url::Url>,
    discoveries: Kept<Arc<SearchResult>>,
    tasks: TaskTracker,
}

impl std::fmt::Debug for NrfClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NrfClient").field("nf_instance_id", &self.shared.nf_instance_id).finish_non_exhaustive()
    }
}

impl NrfClient {
    /// A client for a function of type `nf_type` with this certificate. Nothing is sent yet.
    ///
    /// # Errors
    /// [`SbiError::Tls`] for an unusable certificate or key; [`SbiError::InvalidRequest`] when there is no NF instance ID,
    /// neither in the section nor in the certificate, or the key cannot sign assertions.
    pub fn new(config: &NrfConfig, tls: &CertificateFiles, nf_type: &str) -> Result<Self, SbiError> {
        let nf_type = nf_type.parse().map_err(|_| SbiError::InvalidRequest("no NF type".to_owned()))?;
        let certificate = OwnCertificate::read(tls)?.identity;
        let certified = certificate.nf_instance_id.and_then(|id| id.parse().ok());
        let nf_instance_id = config.nf_instance_id.or(certified).ok_or_else(|| {
            SbiError::InvalidRequest("no NF instance ID: none in the certificate, and no nrf.nf_instance_id".to_owned())
        })?;
        let credentials = if config.cca { Some(AssertionSigner::new(nf_instance_id, tls)?) } else { None };
        let http = SbiClient::new(SbiClientConfig { tls: tls.clone(), limits: config.requests.clone() })?;
        let limits = config.limits.clone();
        let refusals_last = Duration::from_millis(limits.refusal_milliseconds);
        let shared = Shared {
            api: NrfApi::new(http, config.root.clone()).with_credentials(credentials),
            nf_instance_id,
            nf_type,
            tokens: Kept::new(limits.tokens_max, refusals_last),
            discoveries: Kept::new(limits.discoveries_max, refusals_last),
            limits,
            metrics: NrfMetrics::default(),
            without_token: config.without_token.clone(),
            with_tokens: config.tokens,
            register: config.register,
            fqdn: certificate.dns_names.into_iter().find(|name| is_fqdn(name)),
            api_root: config.api_root.as_deref().and_then(|root| root.parse().ok()),
            tasks: TaskTracker::new(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The same where the section is there.
    ///
    /// # Errors
    /// As [`NrfClient::new`].
    pub fn optional(
        config: Option<&NrfConfig>,
        tls: &CertificateFiles,
        nf_type: &str,
    ) -> Result<Option<Self>, SbiError> {
        config.map(|config| Self::new(config, tls, nf_type)).transpose()
    }

    /// The plain operations.
    #[must_use]
    pub fn api(&self) -> &NrfApi {
        &self.shared.api
    }

    /// Own NF instance ID.
    #[must_use]
    pub fn nf_instance_id(&self) -> Uuid {
        self.shared.nf_instance_id
    }

    /// `http` with access tokens, unless the configuration says that requests carry none.
    #[must_use]
    pub fn authorize(&self, http: SbiClient) -> SbiClient {
        if self.shared.with_tokens { http.with_tokens(Arc::new(self.clone())) } else { http }
    }

    /// [`NrfClient::authorize`] where there is an NRF; else `http` as it is.
    #[must_use]
    pub fn authorized(nrf: Option<&Self>, http: SbiClient) -> SbiClient {
        match nrf {
            Some(nrf) => nrf.authorize(http),
            None => http,
        }
    }

    /// Adds `nrf_registered` and `nrf_requests_total{operation,result}` to `registry`.
    pub fn register_metrics(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("nrf");
        registry.register(
            "registered",
            "Whether the NRF has the function's profile",
            self.shared.metrics.registered.clone(),
        );
        registry.register("requests", "Requests to the NRF, by result", self.shared.metrics.requests.clone());
    }

    /// Registers the function and keeps it registered until `shutdown` is cancelled, in the background; [`Health`] tells
    /// how it goes without calling the function not ready.
    pub fn keep_registered(&self, own: &OwnFunction, health: Health, shutdown: CancellationToken) {
        if self.shared.register {
            let profile = self.shared.profile(own);
            let shared = Arc::clone(&self.shared);
            self.shared.tasks.spawn(async move { live(&shared, &profile, &health, &shutdown).await });
        }
        self.shared.tasks.close();
    }

    /// Waits until the function has left the NRF, after the token of [`NrfClient::keep_registered`] was cancelled.
    pub async fn stopped(&self) {
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// The functions that an NRF finds, kept as long as it says they are valid.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn discover(&self, query: &DiscoveryQuery) -> Result<Arc<SearchResult>, SbiError> {
        let (shared, key) = (&self.shared, query.encode());
        once(&shared.discoveries, &key, shared.wait(), async || {
            let result = shared.counted("discovery", shared.api.discover(query)).await?;
            let validity = u64::from(result.validity_period).min(shared.limits.discovery_lifetime_max_seconds);
            let mut lifetime = Duration::from_secs(validity);
            if result.nf_instances.is_empty() {
                // Who is not there yet is looked for again as soon as after a refusal.
                lifetime = lifetime.min(Duration::from_millis(shared.limits.refusal_milliseconds));
            }
            Ok((Arc::new(result), lifetime, lifetime))
        })
        .await
    }

    /// API roots of service `service` of all functions of `nf_type` that serve `routing_indicator`, if one is given, those
    /// to be preferred first (TS 29.510 `priority`: lower values).
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn roots(
        &self,
        nf_type: &NFType,
        service: &str,
        routing_indicator: Option<&str>,
    ) -> Result<Vec<String>, SbiError> {
        let result = self.discover(&self.query(nf_type, service, routing_indicator)).await?;
        let mut found: Vec<&NFProfile> = result.nf_instances.iter().collect();
        let priority = |profile: &&NFProfile| profile.rest.get("priority").and_then(serde_json::Value::as_u64);
        found.sort_by_key(|profile| priority(profile).unwrap_or(u64::MAX));
        Ok(found.into_iter().filter_map(|profile| api_root(profile, service)).collect())
    }

    /// Has the next [`NrfClient::roots`] with the same arguments ask again: what it gave does not answer.
    pub fn forget_roots(&self, nf_type: &NFType, service: &str, routing_indicator: Option<&str>) {
        let key = self.query(nf_type, service, routing_indicator).encode();
        self.shared.discoveries.forget(&key, tokio::time::Instant::now(), |_| true);
    }

    fn query(&self, nf_type: &NFType, service: &str, routing_indicator: Option<&str>) -> DiscoveryQuery {
        DiscoveryQuery {
            service_names: vec![service.to_owned()],
            requester_nf_instance_id: Some(self.shared.nf_instance_id),
            routing_indicator: routing_indicator.map(str::to_owned),
            ..DiscoveryQuery::new(nf_type.clone(), self.shared.nf_type.clone())
        }
    }
}

impl Shared {
    pub(super) fn wait(&self) -> Duration {
        Duration::from_millis(self.limits.token_wait_milliseconds)
    }

    pub(super) async fn counted<T>(
        &self,
        operation: &'static str,
        request: impl Future<Output = Result<T, SbiError>>,
    ) -> Result<T, SbiError> {
        let answer = request.await;
        let result = match &answer {
            Ok(_) => "success",
            Err(SbiError::NrfRefused { .. } | SbiError::Problem(_)) => "refused",
            Err(_) => "failed",
        };
        self.metrics.requests.get_or_create(&RequestLabels { operation, result }).inc();
        answer
    }

    fn profile(&self, own: &OwnFunction) -> NFProfile {
        let mut profile = NFProfile::new(self.nf_instance_id, self.nf_type.clone());
        profile.heart_beat_timer = Some(self.limits.heart_beat_seconds);
        profile.fqdn.clone_from(&self.fqdn);
        if let Some(host) = self.api_root.as_ref().and_then(url::Url::host) {
            match host {
                url::Host::Domain(name) => profile.fqdn = Some(name.to_owned()),
                url::Host::Ipv4(address) => profile.ipv4_addresses.push(address),
                url::Host::Ipv6(address) => profile.ipv6_addresses.push(address),
            }
        }
        for (number, service) in own.services.iter().enumerate() {
            let service = self.service(number, service, own.oauth2_required);
            for at in &service.ip_end_points {
                let known = &mut profile.ipv4_addresses;
                known.extend(at.ipv4_address.filter(|address| !known.contains(address)));
                let known = &mut profile.ipv6_addresses;
                known.extend(at.ipv6_address.filter(|address| !known.contains(address)));
            }
            profile.nf_services.push(service);
        }
        if !own.routing_indicators.is_empty() {
            let info = AanfInfo { routing_indicators: own.routing_indicators.clone(), rest: Map::new() };
            profile.aanf_info_list.insert("0".to_owned(), info);
        }
        profile
    }

    fn service(&self, number: usize, own: &OwnService, oauth2_required: bool) -> NFService {
        let mut at = IpEndPoint { port: Some(own.listen.port()), ..IpEndPoint::default() };
        let mut prefix = None;
        if let Some(root) = &self.api_root {
            at.port = root.port_or_known_default();
            match root.host() {
                Some(url::Host::Ipv4(address)) => at.ipv4_address = Some(address),
                Some(url::Host::Ipv6(address)) => at.ipv6_address = Some(address),
                _ => {}
            }
            prefix = Some(root.path().trim_matches('/').to_owned()).filter(|prefix| !prefix.is_empty());
        } else {
            // An address that stands for all of the machine's is none to send to: then the name counts.
            match own.listen.ip() {
                IpAddr::V4(address) => at.ipv4_address = Some(address).filter(|address| !address.is_unspecified()),
                IpAddr::V6(address) => at.ipv6_address = Some(address).filter(|address| !address.is_unspecified()),
            }
        }
        let version = own.version;
        NFService {
            service_instance_id: format!("{}-{number}", own.name),
            service_name: own.name.to_owned(),
            versions: vec![NFServiceVersion {
                api_version_in_uri: version.to_owned(),
                api_full_version: format!("{}.0.0", version.trim_start_matches('v')),
                rest: Map::new(),
            }],
            scheme: "https".to_owned(),
            nf_service_status: NFStatus::Registered,
            fqdn: None,
            ip_end_points: vec![at],
            api_prefix: prefix,
            allowed_nf_types: own.consumers.iter().filter_map(|name| name.parse().ok()).collect(),
            oauth2_required: Some(oauth2_required),
            rest: Map::new(),
        }
    }
}

/// Answers a question from what is kept, or asks it, one caller at a time.
pub(super) async fn once<V: Clone>(
    kept: &Kept<V>,
    key: &str,
    wait: Duration,
    ask: impl AsyncFnOnce() -> Result<(V, Duration, Duration), SbiError>,
) -> Result<V, SbiError> {
    let (found, turn) = kept.find(key, tokio::time::Instant::now());
    let known = |found| match found {
        Found::Good(value) | Found::Ageing(value) => Some(Ok(value)),
        Found::Refused(error) => Some(Err(error)),
        Found::Nothing => None,
    };
    if let Some(answer) = known(found) {
        return answer;
    }
    let _turn = timeout(wait, turn.lock()).await.map_err(|_| SbiError::TimedOut)?;
    // Whoever had the turn before has most likely got it.
    if let Some(answer) = known(kept.find(key, tokio::time::Instant::now()).0) {
        return answer;
    }
    let answer = ask().await;
    let now = tokio::time::Instant::now();
    match answer {
        Ok((value, refresh_after, lifetime)) => {
            kept.keep(key, value.clone(), refresh_after, lifetime, now);
            Ok(value)
        }
        Err(error) => {
            let (reason, transient) = match error {
                SbiError::NrfRefused { reason, transient } => (reason, transient),
                error => (error.to_string(), error.is_transient()),
            };
            kept.refuse(key, reason.clone(), transient, now);
            Err(SbiError::NrfRefused { reason, transient })
        }
    }
}

async fn live(shared: &Shared, profile: &NFProfile, health: &Health, shutdown: &CancellationToken) {
    let mut registered = false;
    tokio::select! {
        () = stay_registered(shared, profile, health, &mut registered) => {}
        () = shutdown.cancelled() => {}
    }
    if !registered {
        return;
    }
    let limit = Duration::from_millis(shared.limits.deregistration_timeout_milliseconds);
    let left = timeout(limit, shared.counted("deregistration", shared.api.deregister(shared.nf_instance_id))).await;
    match left.unwrap_or(Err(SbiError::TimedOut)) {
        Ok(()) => tracing::info!("left the NRF"),
        Err(error) => tracing::warn!(%error, "the NRF was not told that this function stops"),
    }
    shared.metrics.registered.set(0);
}

async fn stay_registered(shared: &Shared, profile: &NFProfile, health: &Health, registered: &mut bool) {
    let mut waits = Waits::new(&shared.limits);
    health.degraded(HEALTH_CHECK, "not registered yet");
    loop {
        // From here on the NRF may know the function, whatever comes back.
        *registered = true;
        let answer = shared.counted("registration", shared.api.register(profile)).await;
        let timer = match answer {
            Ok(taken) => shared.heart_beat(&taken),
            Err(error) => {
                tracing::warn!(%error, "the NRF does not register this function");
                health.degraded(HEALTH_CHECK, format!("not registered: {error}"));
                sleep(waits.next()).await;
                continue;
            }
        };
        waits.start_anew();
        tracing::info!(nf_instance_id = %shared.nf_instance_id, heart_beat = timer.as_secs(), "registered at the NRF");
        health.ready(HEALTH_CHECK);
        shared.metrics.registered.set(1);
        give_signs_of_life(shared, health, timer, &mut waits).await;
        shared.metrics.registered.set(0);
        health.degraded(HEALTH_CHECK, "the NRF has forgotten this function; registering anew");
    }
}

/// Until the NRF does not know the function.
async fn give_signs_of_life(shared: &Shared, health: &Health, mut timer: Duration, waits: &mut Waits) {
    let mut wait = timer;
    loop {
        sleep(wait).await;
        match shared.counted("heartbeat", shared.api.heart_beat(shared.nf_instance_id)).await {
            Ok(profile) => {
                timer = profile.map_or(timer, |profile| shared.heart_beat(&profile));
                wait = timer;
                waits.start_anew();
                health.ready(HEALTH_CHECK);
            }
            Err(SbiError::Problem(problem)) if problem.status == Some(404) => {
                tracing::warn!("the NRF does not know this function any more");
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "the NRF did not take a sign of life");
                health.degraded(HEALTH_CHECK, format!("no sign of life taken: {error}"));
                wait = waits.next().min(timer);
            }
        }
    }
}

impl Shared {
    fn heart_beat(&self, profile: &NFProfile) -> Duration {
        let seconds = profile.heart_beat_timer.unwrap_or(self.limits.heart_beat_seconds);
        Duration::from_secs(u64::from(seconds.clamp(1, self.limits.heart_beat_max_seconds.max(1))))
    }
}

/// How long to wait after failures: twice as long each time up to a limit, and by chance up to half as long less, so that
/// functions that lost the same NRF do not all come back at once.
struct Waits {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Waits {
    fn new(limits: &NrfLimits) -> Self {
        let min = Duration::from_millis(limits.retry_min_milliseconds);
        let max = Duration::from_millis(limits.retry_max_milliseconds).max(min);
        Self { min, max, next: min }
    }

    fn start_anew(&mut self) {
        self.next = self.min;
    }

    fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(self.max);
        wait.mul_f64(rand::random_range(0.5..=1.0))
    }
}

/// What the operator sees of it.
#[derive(Default)]
pub(super) struct NrfMetrics {
    registered: Gauge,
    requests: Family<RequestLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    operation: &'static str,
    result: &'static str,
}

/// Name of the line in the readiness report.
const HEALTH_CHECK: &str = "nrf";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_limit_and_start_anew() {
        let limits = NrfLimits { retry_min_milliseconds: 100, retry_max_milliseconds: 300, ..NrfLimits::default() };
        let mut waits = Waits::new(&limits);
        for most in [100, 200, 300, 300] {
            let wait = waits.next();
            let most = Duration::from_millis(most);
            assert!(wait >= most / 2 && wait <= most, "{wait:?} {most:?}");
        }
        waits.start_anew();
        assert!(waits.next() <= Duration::from_millis(100));
    }
}
