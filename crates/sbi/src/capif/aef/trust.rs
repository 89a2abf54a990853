//! What the core function says about an invoker, believed for a time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use akma::AefPsk;
use http::{Method, StatusCode};
use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};
use transport::LogThrottle;

use super::AefConfig;
use super::beliefs::{Beliefs, Known};
use super::counts::Counts;
use super::guard::Refusal;
use super::questions::{Cause, Questions};
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
    beliefs: Mutex<Beliefs>,
    questions: Questions<Result<Known, Refusal>>,
    pub(super) counts: Counts,
    issuer: String,
    logs: mpsc::Sender<InvocationLog>,
    logs_to_send: tokio::sync::Mutex<mpsc::Receiver<InvocationLog>>,
}

/// What an invoker may do here.
#[derive(Default)]
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

impl Trust {
    pub(super) fn new(config: &AefConfig, counts: Counts) -> Self {
        let (logs, logs_to_send) = mpsc::channel(config.limits.logs_waiting_max);
        Self {
            registration: watch::Sender::new(None),
            beliefs: Mutex::new(Beliefs::new(config)),
            questions: Questions::new(&config.limits),
            counts,
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

    /// What `id` may do: as it was said not long ago, or asked now. Its certificate or key names it.
    pub(super) async fn of(&self, id: &str) -> Result<Arc<TrustedInvoker>, Refusal> {
        let believed = self.beliefs().about(id);
        let known = match believed {
            Some(known) => known,
            None => self.question(id, Cause::Proven).await?,
        };
        trusted(known)
    }

    /// What `id`, which somebody at `source` named, may do, asked now: for a key, which changes with each agreement.
    pub(super) async fn of_now(&self, id: &str, source: IpAddr) -> Result<Arc<TrustedInvoker>, Refusal> {
        let cause = {
            let mut beliefs = self.beliefs();
            match (beliefs.is_unknown(id), beliefs.has(id)) {
                (true, _) => return trusted(Known::Unknown),
                (false, false) => Cause::Stranger(source),
                (false, true) if beliefs.may_ask(id) => Cause::Handshake(source),
                // Asked a moment ago, and again and again.
                (false, true) => return beliefs.about(id).ok_or(Refusal::Unavailable).and_then(trusted),
            }
        };
        trusted(self.question(id, cause).await?)
    }

    /// Forgets what is believed about `id`.
    pub(super) fn forget(&self, id: &str) {
        self.beliefs().forget(id);
    }

    /// Believes it no longer, since it leads to a refusal. Whether it is worth asking again.
    pub(super) fn doubt(&self, id: &str) -> bool {
        self.beliefs().doubt(id)
    }

    /// Asks about everybody whose calls are counted, so that the counts of those who are gone are dropped.
    pub(super) async fn sweep(&self) {
        for id in self.counts.invokers() {
            // Who cannot be asked about now is asked about the next time.
            let _ = self.question(&id, Cause::Proven).await;
        }
    }

    async fn question(&self, id: &str, cause: Cause) -> Result<Known, Refusal> {
        if id.len() > ID_OCTETS_MAX {
            return Ok(Known::Unknown);
        }
        let ask = || async {
            let permit = self.questions.admit(cause)?;
            let asked_when = self.beliefs().forgotten();
            let known = self.ask(id).await?;
            if let Known::Trusted(_) = known {
                permit.known();
            }
            self.beliefs().learn(id, &known, asked_when);
            Ok(known)
        };
        self.questions.joined(id, ask).await
    }

    fn beliefs(&self) -> MutexGuard<'_, Beliefs> {
        self.beliefs.lock().unwrap_or_else(PoisonError::into_inner)
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
            Err(SbiError::Problem(problem)) if problem.status == Some(404) => {
                if problem.cause.as_deref() == Some(INVOKER_NOT_FOUND) {
                    self.counts.drop_invoker(id).await;
                }
                return Ok(Known::Unknown);
            }
            Err(error) => return Err(unanswered(error)),
        };
        let mut invoker = TrustedInvoker::default();
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

fn trusted(known: Known) -> Result<Arc<TrustedInvoker>, Refusal> {
    match known {
        Known::Trusted(invoker) => Ok(invoker),
        Known::Unknown => Err(Refusal::Forbidden("INVOKER_NOT_TRUSTED")),
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

/// What the core function says of an invoker that is off-boarded, and not only without a security context for here.
const INVOKER_NOT_FOUND: &str = "INVOKER_NOT_FOUND";
/// An API invoker ID is a UUID.
const ID_OCTETS_MAX: usize = 128;
