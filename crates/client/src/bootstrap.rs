//! A UE that starts from nothing but its USIM and the Configuration Function's address (TS 23.554 clause 8.1, TS 24.546
//! clauses 6.2.3.3 and C.3.1, TS 24.538 clause 7.2).
//!
//! ```text
//! keys ─▶ TCP ─▶ TLS-PSK with the function's K_AF ─▶ GET ue-configurations, Observe ─▶ document ─▶ kept, told
//!  ▲                                                                                   │
//!  └──────────── pause ◀── lost, refused ◀──────────────── a new document when it changes
//! ```
//!
//! The Configuration Function is an application function of its own: K_AF is derived for its name, not for the server's.
//! It tells a UE about itself only, whatever is asked (TS 33.501 clause Y.2).

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use akma::Fqdn;
use coap::{Code, ConnectionEvent, ExchangeId, Observe, Request, RequestBuilder, Response};
use message::{DecodeLimits, ErrorBody, UeServiceId};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use transport::{PskClientConfig, PskConnector};

use crate::{
    backoff::Backoff,
    config::Transport,
    error::ClientError,
    establish::{Establisher, Keys, Reach},
    key_source::{KeySource, replace_private},
    limits::ClientLimits,
    session::{Session, SessionEvent},
    ue_configuration::UeConfiguration,
};

/// Content-Format of XML (IANA's CoAP Content-Formats).
const XML: u16 = 41;
/// The resource (TS 24.546 clause C.3.1.2.1) of the MSGin5G service. INFERRED: the service identifier, `msgin5g`.
const RESOURCE: &str = "su-uc/v1/val-services/msgin5g/ue-configurations";
/// The argument that picks one of several associations. INFERRED.
const UE_SERVICE_ID_ARGUMENT: &str = "ue-service-id";
/// How long a document is taken as fresh where the function does not say (RFC 7252 clause 5.10.5).
const MAX_AGE_DEFAULT: Duration = Duration::from_secs(60);
/// The longest that a document is taken as fresh, whatever the function says.
const MAX_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Shortest pause between two questions to a function that does not let itself be observed.
const ASK_AGAIN_MIN: Duration = Duration::from_secs(10);
/// Largest file of a kept document, in octets: the document, and twice that for its escapes.
const KEPT_OCTETS_MAX: u64 = 65_536;

/// Where a UE learns who it is and where its server is. Start from [`ConfigurationFunction::new`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConfigurationFunction {
    /// Where it listens for CoAP over TLS: `host:port`.
    pub address: String,
    /// Its name, for SNI and AF_ID.
    pub fqdn: Fqdn,
    /// Which UE Service ID is wanted, where the UE has several. Without it the function chooses.
    pub ue_service_id: Option<UeServiceId>,
    /// TLS versions and time-out.
    pub tls: PskClientConfig,
    /// Limits; those of the client that have to do with a connection count here, too. The answer to a question has as
    /// long as that to a registration.
    pub limits: ClientLimits,
}

/// What the Configuration Function answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetrievedConfiguration {
    /// What it says.
    pub configuration: UeConfiguration,
    /// The document, as it came.
    pub document: Vec<u8>,
    /// For how long it need not be asked for again.
    pub fresh_for: Duration,
}

impl ConfigurationFunction {
    /// The function at `address` (`host:port`), whose name is `fqdn`.
    pub fn new(address: impl Into<String>, fqdn: Fqdn) -> Self {
        Self {
            address: address.into(),
            fqdn,
            ue_service_id: None,
            tls: PskClientConfig::default(),
            limits: ClientLimits::default(),
        }
    }

    /// Asks once.
    ///
    /// # Errors
    /// Those of a connection ([`ClientError::Keys`], [`ClientError::KeysRefused`], [`ClientError::Unreachable`] and the
    /// like), [`ClientError::ConfigurationRefused`] if the function has nothing for this UE, and
    /// [`ClientError::UeConfiguration`] if what it has cannot be read.
    pub async fn retrieve(&self, source: Arc<dyn KeySource>) -> Result<RetrievedConfiguration, ClientError> {
        let (session, _) = self.connect(&self.establisher(source)?, Keys::default()).await;
        let mut session = session?;
        let result = self.ask_once(&mut session).await;
        let deadline = Instant::now() + self.limits.close_timeout();
        tokio::spawn(session.finish(deadline));
        result
    }

    /// The configuration to start with: the one kept in `kept` while it is fresh, else what the function says now, which
    /// is then kept; or, if the function cannot be reached, the last one that was kept, however old.
    ///
    /// # Errors
    /// As [`ConfigurationFunction::retrieve`], if nothing is kept or the function refuses.
    pub async fn obtain(&self, source: Arc<dyn KeySource>, kept: &Path) -> Result<UeConfiguration, ClientError> {
        let known = KeptConfiguration::load(kept, self);
        if let Some(known) = &known
            && known.is_fresh(OffsetDateTime::now_utc())
        {
            return Ok(known.configuration.clone());
        }
        match (self.retrieve(source).await, known) {
            (Ok(retrieved), _) => {
                self.keep(kept, &retrieved)?;
                Ok(retrieved.configuration)
            }
            (Err(error), Some(known)) if !error.is_final() => {
                tracing::warn!(%error, "the Configuration Function gives no answer; going by what it said before");
                Ok(known.configuration)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Keeps what the function answered, for [`ConfigurationFunction::obtain`] and [`ConfigurationFunction::kept`].
    ///
    /// # Errors
    /// [`ClientError::State`].
    pub fn keep(&self, path: &Path, retrieved: &RetrievedConfiguration) -> Result<(), ClientError> {
        KeptConfiguration::store(path, self, retrieved)
            .map_err(|source| ClientError::State { path: path.to_owned(), source: Arc::new(source) })
    }

    /// The configuration that is kept in `path`, however old; none if there is none, or another function's.
    #[must_use]
    pub fn kept(&self, path: &Path) -> Option<UeConfiguration> {
        KeptConfiguration::load(path, self).map(|kept| kept.configuration)
    }

    /// Follows the configuration from now on: observes it (RFC 7641), connects again when the connection is lost, keeps
    /// every document in `kept`. Runs until the result is dropped. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// [`ClientError::Configuration`].
    pub fn follow(
        &self,
        source: Arc<dyn KeySource>,
        kept: Option<PathBuf>,
    ) -> Result<FollowedConfiguration, ClientError> {
        let establisher = self.establisher(source)?;
        let (sender, receiver) = watch::channel(None);
        let follower = Follower {
            function: self.clone(),
            establisher,
            kept,
            backoff: Backoff::new(self.limits.backoff_first(), self.limits.backoff_max()),
            keys: Keys::default(),
            sender,
        };
        Ok(FollowedConfiguration { receiver, task: tokio::spawn(follower.run()) })
    }

    fn establisher(&self, source: Arc<dyn KeySource>) -> Result<Establisher, ClientError> {
        if let Some(member) = self.limits.zero_member() {
            return Err(ClientError::Configuration(format!("limits.{member} must not be zero")));
        }
        let connector =
            PskConnector::new(self.tls.clone()).map_err(|error| ClientError::Configuration(format!("TLS: {error}")))?;
        let reach = Reach {
            address: self.address.clone(),
            transport: Transport::Tcp,
            tls: self.tls.clone(),
            fqdn: self.fqdn.clone(),
            authenticate_after: None,
            limits: self.limits.clone(),
        };
        Ok(Establisher { reach: Arc::new(reach), source, connector, https: None })
    }

    async fn connect(&self, establisher: &Establisher, keys: Keys) -> (Result<Session, ClientError>, Keys) {
        let attempt = establisher.clone().attempt(keys).await;
        (attempt.result.map(|secured| Session::new(secured.carrier, &self.limits)), attempt.keys)
    }

    async fn ask_once(&self, session: &mut Session) -> Result<RetrievedConfiguration, ClientError> {
        let exchange = self.ask(session, None)?;
        let deadline = Instant::now() + self.limits.registration_timeout();
        let waiting = async {
            loop {
                if let Some(response) = answer_to(exchange, session.event().await)? {
                    return read(&response);
                }
            }
        };
        let in_time = timeout_at(deadline, waiting).await;
        in_time.unwrap_or_else(|_| Err(ClientError::Disconnected("no answer in time".into())))
    }

    fn ask(&self, session: &mut Session, observe: Option<Observe>) -> Result<ExchangeId, ClientError> {
        let argument = self.ue_service_id.as_ref().map(|id| format!("{UE_SERVICE_ID_ARGUMENT}={}", id.as_str()));
        let arguments: Vec<&str> = argument.iter().map(String::as_str).collect();
        let mut request: RequestBuilder<'_> = Request::get(RESOURCE).accept(XML).query(&arguments);
        if let Some(observe) = observe {
            request = request.observe(observe);
        }
        session.request(&request).map_err(|error| ClientError::Protocol(error.to_string()))
    }
}

/// A configuration that is followed. Dropping it ends that.
#[derive(Debug)]
pub struct FollowedConfiguration {
    receiver: watch::Receiver<Option<UeConfiguration>>,
    task: JoinHandle<()>,
}

impl FollowedConfiguration {
    /// Waits until the function says something else than `known`.
    pub async fn changed_from(&mut self, known: &UeConfiguration) -> UeConfiguration {
        let changed = self.receiver.wait_for(|now| now.as_ref().is_some_and(|now| now != known)).await;
        match changed.ok().and_then(|now| now.clone()) {
            Some(changed) => changed,
            // It runs as long as this is there, so there is nothing that could still come.
            None => std::future::pending().await,
        }
    }
}

impl Drop for FollowedConfiguration {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task that follows.
struct Follower {
    function: ConfigurationFunction,
    establisher: Establisher,
    kept: Option<PathBuf>,
    backoff: Backoff,
    keys: Keys,
    sender: watch::Sender<Option<UeConfiguration>>,
}

impl Follower {
    async fn run(mut self) {
        loop {
            let (session, keys) = self.function.connect(&self.establisher, std::mem::take(&mut self.keys)).await;
            self.keys = keys;
            let error = match session {
                Ok(mut session) => {
                    let error = self.observe(&mut session).await;
                    let deadline = Instant::now() + self.function.limits.close_timeout();
                    tokio::spawn(session.finish(deadline));
                    error
                }
                Err(error) => error,
            };
            let pause = self.backoff.pause(rand::random());
            let pause_milliseconds = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(%error, pause_milliseconds, "the UE configuration is not followed");
            sleep(pause).await;
        }
    }

    /// Observes on one connection until that ends, or there is nothing to observe any more.
    async fn observe(&mut self, session: &mut Session) -> ClientError {
        let mut exchange = match self.function.ask(session, Some(Observe::Register)) {
            Ok(exchange) => exchange,
            Err(error) => return error,
        };
        let mut due = Some(Instant::now() + self.function.limits.registration_timeout());
        let mut waiting_for_answer = true;
        loop {
            let event = tokio::select! {
                event = session.event() => event,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if waiting_for_answer {
                        return ClientError::Disconnected("no answer in time".into());
                    }
                    match self.function.ask(session, Some(Observe::Register)) {
                        Ok(next) => exchange = next,
                        Err(error) => return error,
                    }
                    waiting_for_answer = true;
                    due = Some(Instant::now() + self.function.limits.registration_timeout());
                    continue;
                }
            };
            let response = match answer_to(exchange, event) {
                Ok(Some(response)) => response,
                Ok(None) => continue,
                Err(error) => return error,
            };
            let retrieved = match read(&response) {
                Ok(retrieved) => retrieved,
                Err(error) => return error,
            };
            self.backoff.reset();
            waiting_for_answer = false;
            // Not observed: asked again when it may have changed.
            due = (!response.observe).then(|| Instant::now() + retrieved.fresh_for.max(ASK_AGAIN_MIN));
            self.take(retrieved);
        }
    }

    fn take(&self, retrieved: RetrievedConfiguration) {
        if let Some(path) = &self.kept
            && let Err(error) = self.function.keep(path, &retrieved)
        {
            tracing::warn!(%error, "the UE configuration is not kept");
        }
        self.sender.send_if_modified(|known| {
            let changed = known.as_ref() != Some(&retrieved.configuration);
            if changed {
                tracing::info!(ue_service_id = %retrieved.configuration.ue_service_id,
                    server = %retrieved.configuration.server, "UE configuration");
                *known = Some(retrieved.configuration);
            }
            changed
        });
    }
}

/// The response to `exchange`, if that is what happened.
fn answer_to(exchange: ExchangeId, event: SessionEvent) -> Result<Option<Response>, ClientError> {
    match event {
        SessionEvent::Coap(ConnectionEvent::Response { exchange: answered, response }) if answered == exchange => {
            Ok(Some(response))
        }
        SessionEvent::Coap(ConnectionEvent::Failed { exchange: answered, .. }) if answered == exchange => {
            Err(ClientError::Protocol("to the question for the UE configuration".into()))
        }
        SessionEvent::Coap(ConnectionEvent::Released { .. }) => {
            Err(ClientError::Disconnected("the Configuration Function ended it".into()))
        }
        SessionEvent::Coap(ConnectionEvent::Aborted { diagnostic, .. }) => {
            Err(ClientError::Disconnected(format!("the Configuration Function aborted it: {diagnostic}")))
        }
        SessionEvent::Closed(reason) => Err(ClientError::Disconnected(reason)),
        SessionEvent::Coap(_) | SessionEvent::Written => Ok(None),
    }
}

fn read(response: &Response) -> Result<RetrievedConfiguration, ClientError> {
    if response.code != Code::CONTENT {
        return Err(refusal(response));
    }
    if response.content_format.is_some_and(|format| format != XML) {
        return Err(ClientError::Protocol("the UE configuration is no XML".into()));
    }
    let configuration = UeConfiguration::parse(&response.payload)?;
    let fresh_for = response.max_age.map_or(MAX_AGE_DEFAULT, |seconds| Duration::from_secs(seconds.into()));
    Ok(RetrievedConfiguration {
        configuration,
        document: response.payload.clone(),
        fresh_for: fresh_for.min(MAX_AGE_MAX),
    })
}

/// What problem details (TS 24.546 clause C.1.3) have to say here.
#[derive(Deserialize)]
struct Problem {
    cause: Option<String>,
}

fn refusal(response: &Response) -> ClientError {
    let problem = serde_json::from_slice::<Problem>(&response.payload).ok().and_then(|problem| problem.cause);
    let failure = || ErrorBody::decode(&response.payload, &DecodeLimits::default()).ok()?.failure_cause;
    let cause = problem.or_else(failure).filter(|cause| is_plain(cause)).unwrap_or_default();
    ClientError::ConfigurationRefused {
        code: response.code.to_string(),
        cause,
        temporary: response.code.class() == 5 || response.code == Code::TOO_MANY_REQUESTS,
    }
}

/// Whether a cause may be shown as it is.
fn is_plain(cause: &str) -> bool {
    cause.len() <= 64 && cause.bytes().all(|octet| octet.is_ascii_graphic())
}

/// A document that is kept between runs.
#[derive(Serialize, Deserialize)]
struct KeptFile {
    /// Whose it is.
    address: String,
    fqdn: Fqdn,
    #[serde(default)]
    ue_service_id: Option<UeServiceId>,
    /// Until when it need not be asked for again, RFC 3339.
    fresh_until: String,
    document: String,
}

struct KeptConfiguration {
    configuration: UeConfiguration,
    fresh_until: OffsetDateTime,
}

impl KeptConfiguration {
    /// What cannot be read counts as not there: it can be had again.
    fn load(path: &Path, function: &ConfigurationFunction) -> Option<Self> {
        if std::fs::metadata(path).ok()?.len() > KEPT_OCTETS_MAX {
            return None;
        }
        let kept: KeptFile = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        let same = (&kept.address, &kept.fqdn, &kept.ue_service_id)
            == (&function.address, &function.fqdn, &function.ue_service_id);
        if !same {
            return None;
        }
        let configuration = UeConfiguration::parse(kept.document.as_bytes()).ok()?;
        let fresh_until = OffsetDateTime::parse(&kept.fresh_until, &Rfc3339).ok()?;
        Some(Self { configuration, fresh_until })
    }

    fn store(path: &Path, function: &ConfigurationFunction, retrieved: &RetrievedConfiguration) -> std::io::Result<()> {
        let fresh_until = OffsetDateTime::now_utc() + retrieved.fresh_for;
        let kept = KeptFile {
            address: function.address.clone(),
            fqdn: function.fqdn.clone(),
            ue_service_id: function.ue_service_id.clone(),
            fresh_until: fresh_until.format(&Rfc3339).map_err(std::io::Error::other)?,
            document: String::from_utf8_lossy(&retrieved.document).into_owned(),
        };
        replace_private(path, &serde_json::to_vec(&kept).map_err(std::io::Error::other)?)
    }

    /// A clock that was set back makes nothing fresh for longer than a document can be.
    fn is_fresh(&self, now: OffsetDateTime) -> bool {
        now < self.fresh_until && self.fresh_until - now <= MAX_AGE_MAX
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DOCUMENT: &str = "<seal-UE-configuration><on-network>\
        <MSGin5G-Server-address>coaps+tcp://msgin5g.example/m</MSGin5G-Server-address>\
        <MSGin5G-UE-Service-id>a@b</MSGin5G-UE-Service-id></on-network></seal-UE-configuration>";

    fn function() -> ConfigurationFunction {
        ConfigurationFunction::new("127.0.0.1:1", "configuration.example".parse().unwrap())
    }

    fn retrieved(fresh_for: Duration) -> RetrievedConfiguration {
        let response = Response::new(Code::CONTENT).with_content_format(XML).with_payload(DOCUMENT);
        RetrievedConfiguration { fresh_for, ..read(&response).unwrap() }
    }

    #[test]
    fn what_is_kept_is_read_again_and_is_its_own_functions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state").join("ue-configuration.json");
        assert_eq!(function().kept(&path), None);
        function().keep(&path, &retrieved(Duration::from_secs(60))).unwrap();
        assert_eq!(function().kept(&path).unwrap().ue_service_id.as_str(), "a@b");
        let kept = KeptConfiguration::load(&path, &function()).unwrap();
        let now = OffsetDateTime::now_utc();
        assert!(kept.is_fresh(now) && !kept.is_fresh(now + Duration::from_secs(61)));
        assert!(!kept.is_fresh(now - MAX_AGE_MAX - Duration::from_secs(60)), "the clock was set back");
        let mut other = function();
        other.ue_service_id = Some("c@d".parse().unwrap());
        assert_eq!(other.kept(&path), None);
        std::fs::write(&path, "{").unwrap();
        assert_eq!(function().kept(&path), None);
    }

    #[test]
    fn a_refusal_tells_its_cause_and_whether_waiting_helps() {
        let body = r#"{"title":"Not Found","status":404,"cause":"NOT_ASSOCIATED"}"#;
        let error = read(&Response::new(Code::NOT_FOUND).with_payload(body)).unwrap_err();
        assert!(error.is_final() && error.to_string().contains("NOT_ASSOCIATED"), "{error}");
        let error = read(&Response::new(Code::SERVICE_UNAVAILABLE)).unwrap_err();
        assert!(!error.is_final());
        let error = read(&Response::new(Code::FORBIDDEN).with_payload("{\"cause\":\"\\u001b[31m\"}")).unwrap_err();
        assert!(!error.to_string().contains('\u{1b}'));
        let json = Response::new(Code::CONTENT).with_content_format(50).with_payload(DOCUMENT);
        assert!(matches!(read(&json), Err(ClientError::Protocol(_))));
        let long = Response::new(Code::CONTENT).with_max_age(u32::MAX).with_payload(DOCUMENT);
        assert_eq!(read(&long).unwrap().fresh_for, MAX_AGE_MAX);
    }
}
