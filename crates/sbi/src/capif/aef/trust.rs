//! What the core function says about an invoker, believed for a time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use akma::AefPsk;
use http::{Method, StatusCode};
use time::OffsetDateTime;
use tokio::sync::{Semaphore, mpsc, watch};
use transport::LogThrottle;

use super::AefConfig;
use super::guard::Refusal;
use super::registration::Registration;
use crate::SbiError;
use crate::capif::logging::{InvocationLog, Log};
use crate::capif::policy::{AccessControlPolicyList, ApiInvokerPolicy};
use crate::capif::publish::SecurityMethod;
use crate::capif::security::{AccessTokenClaims, AuthorizationInfo, ServiceSecurity};
use crate::coding::path_segment;

/// The answers, and whom they came from.
pub(super) struct Trust {
    registration: watch::Sender<Option<Arc<Registration>>>,
    invokers: Mutex<Invokers>,
    counts: Mutex<HashMap<(String, String), Count>>,
    questions: Semaphore,
    believed: Duration,
    invokers_max: usize,
    issuer: String,
    logs: mpsc::Sender<InvocationLog>,
    logs_to_send: tokio::sync::Mutex<mpsc::Receiver<InvocationLog>>,
}

#[derive(Default)]
struct Invokers {
    known: HashMap<String, Belief>,
    /// In the order they came, for when there are too many.
    order: VecDeque<String>,
}

struct Belief {
    known: Known,
    asked_at: Instant,
    /// A refusal made us doubt it, and no answer has come since.
    in_doubt: bool,
    /// How often that was so since when, a second at most.
    doubts: (Instant, u32),
}

#[derive(Clone)]
enum Known {
    Trusted(Arc<TrustedInvoker>),
    Unknown,
}

/// What an invoker may do here.
pub(super) struct TrustedInvoker {
    grants: Vec<Grant>,
    names: Vec<String>,
    /// Serial number of the certificate that counts; in entries without AEF_PSK.
    serials: Vec<String>,
    policies: HashMap<String, ApiInvokerPolicy>,
}

struct Grant {
    api_names: Vec<String>,
    method: SecurityMethod,
    key: Option<AefPsk>,
}

impl TrustedInvoker {
    /// The methods agreed upon for `api_name`.
    pub(super) fn methods<'a>(&'a self, api_name: &'a str) -> impl Iterator<Item = &'a SecurityMethod> {
        self.grants
            .iter()
            .filter(move |grant| grant.api_names.iter().any(|name| name == api_name))
            .map(|grant| &grant.method)
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether `serial` is the certificate that counts.
    pub(super) fn has_certificate(&self, serial: &str) -> bool {
        self.serials.iter().any(|known| known == serial)
    }

    pub(super) fn aef_psk(&self) -> Option<&AefPsk> {
        self.grants.iter().find_map(|grant| grant.key.as_ref())
    }

    pub(super) fn policy(&self, api_name: &str) -> Option<&ApiInvokerPolicy> {
        self.policies.get(api_name)
    }
}

/// Calls of one API by one invoker.
#[derive(Default)]
struct Count {
    total: u64,
    second: i64,
    in_second: u64,
}

impl Trust {
    pub(super) fn new(config: &AefConfig) -> Self {
        let (logs, logs_to_send) = mpsc::channel(config.limits.logs_waiting_max);
        Self {
            registration: watch::Sender::new(None),
            invokers: Mutex::default(),
            counts: Mutex::default(),
            questions: Semaphore::new(config.limits.questions_max),
            believed: Duration::from_secs(config.check_interval_seconds),
            invokers_max: config.limits.invokers_max,
            issuer: config.issuer.clone(),
            logs,
            logs_to_send: tokio::sync::Mutex::new(logs_to_send),
        }
    }

    pub(super) fn begin(&self, registration: Registration) {
        self.registration.send_replace(Some(Arc::new(registration)));
    }

    pub(super) async fn registered(&self) {
        // The sender lives as long as this does.
        let _ = self.registration.subscribe().wait_for(Option::is_some).await;
    }

    pub(super) fn registration(&self) -> Option<Arc<Registration>> {
        self.registration.borrow().clone()
    }

    /// What `id` may do: as it was said not long ago, or asked now.
    pub(super) async fn of(&self, id: &str) -> Result<Arc<TrustedInvoker>, Refusal> {
        if id.len() > ID_OCTETS_MAX {
            return Err(Refusal::Forbidden("INVOKER_NOT_TRUSTED"));
        }
        let known = self.believed_about(id);
        let known = match known {
            Some(known) => known,
            None => {
                let _slot = self.questions.try_acquire().map_err(|_| Refusal::Unavailable)?;
                let asked = self.ask(id).await?;
                self.remember(id, asked.clone());
                asked
            }
        };
        match known {
            Known::Trusted(invoker) => Ok(invoker),
            Known::Unknown => Err(Refusal::Forbidden("INVOKER_NOT_TRUSTED")),
        }
    }

    /// Forgets what is believed about `id`.
    pub(super) fn forget(&self, id: &str) {
        self.invokers().known.remove(id);
    }

    /// Believes it no longer, since it leads to a refusal; but an invoker that is refused again and again makes us ask so often
    /// and no more. Whether it is worth asking again.
    pub(super) fn doubt(&self, id: &str) -> bool {
        let mut invokers = self.invokers();
        let Some(belief) = invokers.known.get_mut(id) else { return false };
        if belief.doubts.0.elapsed() >= Duration::from_secs(1) {
            belief.doubts = (Instant::now(), 0);
        }
        let worth = belief.doubts.1 < DOUBTS_PER_SECOND_MAX;
        if worth {
            belief.doubts.1 += 1;
            belief.in_doubt = true;
        }
        worth
    }

    /// What `id` may do, asked now: for a key, which changes with each agreement.
    pub(super) async fn of_now(&self, id: &str) -> Result<Arc<TrustedInvoker>, Refusal> {
        self.forget(id);
        self.of(id).await
    }

    fn believed_about(&self, id: &str) -> Option<Known> {
        let invokers = self.invokers();
        let Belief { known, asked_at, in_doubt, .. } = invokers.known.get(id)?;
        let believed = match known {
            Known::Trusted(_) => self.believed,
            Known::Unknown => UNKNOWN_BELIEVED.min(self.believed),
        };
        (!in_doubt && asked_at.elapsed() < believed).then(|| known.clone())
    }

    fn remember(&self, id: &str, known: Known) {
        let mut invokers = self.invokers();
        let now = Instant::now();
        let doubts = invokers.known.get(id).map_or((now, 0), |before| before.doubts);
        let belief = Belief { known, asked_at: now, in_doubt: false, doubts };
        if invokers.known.insert(id.to_owned(), belief).is_none() {
            invokers.order.push_back(id.to_owned());
        }
        while invokers.known.len() > self.invokers_max || invokers.order.len() > self.invokers_max.saturating_mul(2) {
            let Some(oldest) = invokers.order.pop_front() else { break };
            invokers.known.remove(&oldest);
        }
    }

    fn invokers(&self) -> MutexGuard<'_, Invokers> {
        self.invokers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, id: &str) -> Result<Known, Refusal> {
        let registration = self.registration().ok_or(Refusal::Unavailable)?;
        let uri = format!(
            "{}/capif-security/v1/trustedInvokers/{}?authenticationInfo=true&authorizationInfo=true",
            registration.root,
            path_segment(id)
        );
        let context: ServiceSecurity = match registration.client.get(&uri).await {
            Ok(answer) => answer.into_body().map_err(unanswered)?,
            Err(SbiError::Problem(problem)) if problem.status == Some(404) => return Ok(Known::Unknown),
            Err(error) => return Err(unanswered(error)),
        };
        let mut invoker =
            TrustedInvoker { grants: Vec::new(), names: Vec::new(), serials: Vec::new(), policies: HashMap::new() };
        for entry in context.security_info {
            let Some(method) = entry.sel_security_method else { continue };
            let authorization = entry.authorization_info.as_deref().unwrap_or("{}");
            let authorization: AuthorizationInfo = serde_json::from_str(authorization)
                .map_err(|_| unanswered(SbiError::Malformed("authorizationInfo".to_owned())))?;
            let authentication = zeroize::Zeroizing::new(entry.authentication_info.unwrap_or_default());
            let key = match method {
                SecurityMethod::Psk => Some(
                    AefPsk::from_hex(&authentication)
                        .map_err(|_| unanswered(SbiError::Malformed("authenticationInfo".to_owned())))?,
                ),
                _ => {
                    invoker.serials.push(authentication.to_string());
                    None
                }
            };
            invoker.names = authorization.names;
            invoker.grants.push(Grant { api_names: authorization.api_names, method, key });
        }
        self.ask_policies(&registration, id, &mut invoker).await?;
        Ok(Known::Trusted(Arc::new(invoker)))
    }

    async fn ask_policies(
        &self,
        registration: &Registration,
        id: &str,
        invoker: &mut TrustedInvoker,
    ) -> Result<(), Refusal> {
        for (api_name, api_id) in &registration.api_ids {
            if invoker.methods(api_name).next().is_none() {
                continue;
            }
            let uri = format!(
                "{}/access-control-policy/v1/accessControlPolicyList/{}?aef-id={}&api-invoker-id={}",
                registration.root,
                path_segment(api_id),
                path_segment(&registration.aef_id),
                path_segment(id)
            );
            let list: AccessControlPolicyList = match registration.client.get(&uri).await {
                Ok(answer) => answer.into_body().map_err(unanswered)?,
                Err(SbiError::Problem(problem)) if problem.status == Some(404) => continue,
                Err(error) => return Err(unanswered(error)),
            };
            let policy = list.api_invoker_policies.into_iter().find(|policy| policy.api_invoker_id == id);
            if let Some(policy) = policy {
                invoker.policies.insert(api_name.clone(), policy);
            }
        }
        Ok(())
    }

    /// The claims of `token`, if this core function signed it for `id`, it has not expired, and it is for this AEF and API.
    pub(super) fn check_token(&self, token: &str, id: &str, api_name: &str) -> Result<(), Refusal> {
        let registration = self.registration().ok_or(Refusal::Unavailable)?;
        let claims: AccessTokenClaims =
            registration.keys.verify(token).map_err(|error| Refusal::InvalidToken(error.reason()))?;
        let now = OffsetDateTime::now_utc().unix_timestamp();
        if claims.iss != self.issuer {
            return Err(Refusal::InvalidToken("token_issuer"));
        }
        if claims.client_id != id {
            return Err(Refusal::InvalidToken("token_subject"));
        }
        if i64::try_from(claims.exp).unwrap_or(0) <= now {
            return Err(Refusal::InvalidToken("token_expired"));
        }
        let scope: crate::capif::scope::CapifScope =
            claims.scope.parse().map_err(|_| Refusal::InvalidToken("token_claims"))?;
        if scope.includes(&registration.aef_id, api_name) { Ok(()) } else { Err(Refusal::InsufficientScope) }
    }

    /// Counts a call of `api_name` by `id`, if the policy allows one more.
    pub(super) fn count(&self, id: &str, api_name: &str, policy: &ApiInvokerPolicy) -> Result<(), Refusal> {
        let now = OffsetDateTime::now_utc();
        let ranges = &policy.allowed_invocation_time_range_list;
        if !ranges.is_empty() && !ranges.iter().any(|range| range.includes(now)) {
            return Err(Refusal::Forbidden("OUTSIDE_ALLOWED_TIME"));
        }
        if policy.allowed_total_invocations.is_none() && policy.allowed_invocations_per_second.is_none() {
            return Ok(());
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (id.to_owned(), api_name.to_owned());
        if !counts.contains_key(&key) && counts.len() >= self.invokers_max {
            return Err(Refusal::Unavailable);
        }
        let count = counts.entry(key).or_default();
        if policy.allowed_total_invocations.is_some_and(|max| count.total >= max) {
            return Err(Refusal::Forbidden("INVOCATIONS_USED_UP"));
        }
        if count.second != now.unix_timestamp() {
            count.second = now.unix_timestamp();
            count.in_second = 0;
        }
        if policy.allowed_invocations_per_second.is_some_and(|max| count.in_second >= max) {
            return Err(Refusal::TooMany);
        }
        count.total = count.total.saturating_add(1);
        count.in_second = count.in_second.saturating_add(1);
        Ok(())
    }

    /// Has the core function log a call.
    pub(super) fn log(&self, id: &str, api_name: &str, method: &Method, status: StatusCode, took: Duration) {
        let Some(registration) = self.registration() else { return };
        let Some((_, api_id)) = registration.api_ids.iter().find(|(name, _)| name == api_name) else { return };
        let call = Log {
            api_id: api_id.clone(),
            api_name: api_name.to_owned(),
            api_version: "v1".to_owned(),
            resource_name: api_name.to_owned(),
            uri: None,
            protocol: "HTTP_2".to_owned(),
            operation: Some(method.to_string()),
            result: status.as_u16().to_string(),
            invocation_time: Some(OffsetDateTime::now_utc()),
            invocation_latency: Some(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
            input_parameters: None,
            output_parameters: None,
            src_interface: None,
            dest_interface: None,
            fwd_interface: None,
        };
        let log = InvocationLog {
            aef_id: registration.aef_id.clone(),
            api_invoker_id: id.to_owned(),
            logs: vec![call],
            supported_features: None,
        };
        if self.logs.try_send(log).is_err()
            && let Some(unlogged) = NOT_LOGGED.admit()
        {
            tracing::warn!(target: "security", unlogged, "too many log entries wait for the CAPIF core function, one is dropped");
        }
    }

    /// Sends what is to be logged, for ever.
    pub(super) async fn send_logs(&self) {
        let mut waiting = self.logs_to_send.lock().await;
        while let Some(log) = waiting.recv().await {
            let Some(registration) = self.registration() else { continue };
            let uri =
                format!("{}/api-invocation-logs/v1/{}/logs", registration.root, path_segment(&registration.aef_id));
            if let Err(error) = registration.client.post::<_, serde_json::Value>(&uri, &log).await
                && let Some(unlogged) = NOT_SENT.admit()
            {
                tracing::warn!(target: "security", %error, unlogged, "the CAPIF core function did not take a log entry");
            }
        }
    }
}

fn unanswered(error: SbiError) -> Refusal {
    if let Some(unlogged) = UNANSWERED.admit() {
        tracing::warn!(target: "security", %error, unlogged, "the CAPIF core function cannot say whom it trusts");
    }
    Refusal::Unavailable
}

static NOT_LOGGED: LogThrottle = LogThrottle::new();
static NOT_SENT: LogThrottle = LogThrottle::new();
static UNANSWERED: LogThrottle = LogThrottle::new();

/// How long it is believed that there is no context: an invoker may be about to agree on one.
const UNKNOWN_BELIEVED: Duration = Duration::from_secs(1);
/// How often refusals of one invoker make us ask about it again.
const DOUBTS_PER_SECOND_MAX: u32 = 10;
/// An API invoker ID is a UUID.
const ID_OCTETS_MAX: usize = 128;
