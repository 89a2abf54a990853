//! The way through CAPIF-2e: what was agreed with the core function, and the connections that go with it.
//!
//! ```text
//! nothing agreed ──negotiate──▶ agreed ──refused as not agreed, no token, no handshake──▶ nothing agreed, and once more
//! ```

use std::sync::Arc;

use http::Method;
use sbi::capif::connection::{Connection, Content};
use sbi::capif::invoker::{Agreement, Invoker};
use sbi::capif::publish::SecurityMethod;
use sbi::client_credentials::ClientCredentials;
use sbi::{ClientLimits, SbiClient, SbiClientConfig, SbiError, SbiResponse, resource};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::sync::Mutex;

use crate::access::Service;

/// An API invoker and what it agreed upon.
pub(crate) struct ByCapif {
    invoker: Invoker,
    methods: Vec<SecurityMethod>,
    aef_id: Option<String>,
    limits: ClientLimits,
    agreed: Mutex<Option<Arc<Agreed>>>,
}

/// A line to each service.
struct Agreed {
    registration: Line,
    delivery: Line,
    /// None where the exposing function has no such API for this invoker.
    topics: Option<Line>,
}

/// A line as agreed upon.
enum Line {
    /// PKI and OAUTH: the invoker's certificate, and tokens with OAUTH.
    Certificate { http: SbiClient, root: String },
    /// PSK: one connection, opened when it is needed.
    Psk { agreement: Agreement, connection: Mutex<Option<Connection>> },
}

impl ByCapif {
    pub(crate) fn new(
        invoker: Invoker,
        methods: Vec<SecurityMethod>,
        aef_id: Option<String>,
        limits: ClientLimits,
    ) -> Self {
        Self { invoker, methods, aef_id, limits, agreed: Mutex::default() }
    }

    pub(crate) async fn post<B, T>(&self, service: Service, path: &str, body: &B) -> Result<SbiResponse<T>, SbiError>
    where
        B: Serialize + Sync,
        T: DeserializeOwned,
    {
        let agreed = self.agreed().await?;
        match agreed.line(service)?.post(&self.invoker, path, body).await {
            Err(error) if is_about_the_agreement(&error) => {
                tracing::info!(%error, "what was agreed upon with the CAPIF core function does not hold");
                self.agree_again(&agreed).await?.line(service)?.post(&self.invoker, path, body).await
            }
            outcome => outcome,
        }
    }

    pub(crate) async fn delete(&self, service: Service, path: &str) -> Result<(), SbiError> {
        let agreed = self.agreed().await?;
        match agreed.line(service)?.delete(&self.invoker, path).await {
            Err(error) if is_about_the_agreement(&error) => {
                self.agree_again(&agreed).await?.line(service)?.delete(&self.invoker, path).await
            }
            outcome => outcome,
        }
    }

    /// What is agreed upon; whoever comes while it is being negotiated waits for it.
    async fn agreed(&self) -> Result<Arc<Agreed>, SbiError> {
        let mut agreed = self.agreed.lock().await;
        if let Some(agreed) = &*agreed {
            return Ok(Arc::clone(agreed));
        }
        let fresh = Arc::new(self.negotiate().await?);
        *agreed = Some(Arc::clone(&fresh));
        Ok(fresh)
    }

    /// The same in place of `stale`, unless another request has brought that about already.
    async fn agree_again(&self, stale: &Arc<Agreed>) -> Result<Arc<Agreed>, SbiError> {
        let mut agreed = self.agreed.lock().await;
        if agreed.as_ref().is_some_and(|agreed| Arc::ptr_eq(agreed, stale)) {
            *agreed = None;
        }
        drop(agreed);
        self.agreed().await
    }

    async fn negotiate(&self) -> Result<Agreed, SbiError> {
        let agreements = match self.agree_on(&Service::ALL).await {
            Err(error) if is_not_for_us(&error) => self.agree_on(&Service::NEEDED).await,
            outcome => outcome,
        }?;
        let http = SbiClient::new(SbiClientConfig { tls: self.invoker.files().clone(), limits: self.limits.clone() })?;
        // One token is for all that was agreed upon.
        let tokens = ClientCredentials::new(http.clone(), self.invoker.token_endpoint(), self.invoker.id(), None);
        let with_tokens = http.clone().with_tokens(Arc::new(tokens));
        let line = |agreement: Agreement| match agreement.method {
            SecurityMethod::Psk => Line::Psk { agreement, connection: Mutex::default() },
            SecurityMethod::Oauth => Line::Certificate { http: with_tokens.for_service(AEF, ""), root: agreement.root },
            _ => Line::Certificate { http: http.clone(), root: agreement.root },
        };
        let mut lines = agreements.into_iter().map(line);
        match (lines.next(), lines.next()) {
            (Some(registration), Some(delivery)) => Ok(Agreed { registration, delivery, topics: lines.next() }),
            _ => Err(SbiError::Malformed("no agreement for each API".to_owned())),
        }
    }

    async fn agree_on(&self, services: &[Service]) -> Result<Vec<Agreement>, SbiError> {
        let names: Vec<_> = services.iter().map(|service| service.name()).collect();
        self.invoker.negotiate_all(&names, self.aef_id.as_deref(), &self.methods).await
    }
}

impl Agreed {
    fn line(&self, service: Service) -> Result<&Line, SbiError> {
        match service {
            Service::Registration => Ok(&self.registration),
            Service::Delivery => Ok(&self.delivery),
            Service::Topics => {
                let none = || SbiError::Problem(Box::new(sbi::ProblemDetails::not_found(NOT_PUBLISHED)));
                self.topics.as_ref().ok_or_else(none)
            }
        }
    }
}

impl Line {
    async fn post<B, T>(&self, invoker: &Invoker, path: &str, body: &B) -> Result<SbiResponse<T>, SbiError>
    where
        B: Serialize + Sync,
        T: DeserializeOwned,
    {
        match self {
            Self::Certificate { http, root } => http.post(&resource(root, path), body).await,
            Self::Psk { agreement, connection } => {
                by_psk(invoker, agreement, connection, Method::POST, path, &Content::json(body)?).await
            }
        }
    }

    async fn delete(&self, invoker: &Invoker, path: &str) -> Result<(), SbiError> {
        match self {
            Self::Certificate { http, root } => http.delete::<IgnoredAny>(&resource(root, path)).await.map(drop),
            Self::Psk { agreement, connection } => {
                let content = Content::Empty;
                let answer: Result<SbiResponse<IgnoredAny>, _> =
                    by_psk(invoker, agreement, connection, Method::DELETE, path, &content).await;
                answer.map(drop)
            }
        }
    }
}

/// A request by AEF_PSK. One whose connection breaks is sent again on a new one: the server answers a message that it knows as
/// it did before.
async fn by_psk<T: DeserializeOwned>(
    invoker: &Invoker,
    agreement: &Agreement,
    connection: &Mutex<Option<Connection>>,
    method: Method,
    path: &str,
    content: &Content,
) -> Result<SbiResponse<T>, SbiError> {
    let open = connection.lock().await.clone();
    if let Some(mut open) = open {
        match open.request(method.clone(), path, None, content.clone()).await {
            Err(SbiError::Unreachable(_)) => *connection.lock().await = None,
            answer => return typed(answer?),
        }
    }
    let mut open = invoker.connect_to(agreement).await.map_err(no_handshake)?;
    *connection.lock().await = Some(open.clone());
    typed(open.request(method, path, None, content.clone()).await?)
}

fn typed<T: DeserializeOwned>(answer: sbi::capif::connection::Answer) -> Result<SbiResponse<T>, SbiError> {
    let answer = answer.success()?;
    let (status, location) = (answer.status, answer.location.clone());
    let body = if answer.body.is_empty() { None } else { Some(answer.into_json()?) };
    Ok(SbiResponse { status, location, body })
}

/// The API exposing function does not take AEF_PSK, or is not there: the former is mended by another agreement.
fn no_handshake(error: SbiError) -> SbiError {
    match error {
        SbiError::Unreachable(reason) => {
            tracing::debug!(reason, "no connection by AEF_PSK");
            SbiError::Problem(Box::new(
                sbi::ProblemDetails::new(http::StatusCode::SERVICE_UNAVAILABLE).with_cause(NO_CONNECTION_BY_PSK),
            ))
        }
        other => other,
    }
}

/// Whether another agreement may help.
fn is_about_the_agreement(error: &SbiError) -> bool {
    let Some(problem) = error.problem() else { return false };
    ABOUT_THE_AGREEMENT.iter().any(|cause| problem.has_cause(cause))
}

/// Whether one of the APIs is not published, or not to this invoker.
fn is_not_for_us(error: &SbiError) -> bool {
    error.problem().is_some_and(|problem| problem.has_cause(NOT_PUBLISHED) || problem.has_cause("API_NOT_ALLOWED"))
}

/// 404 here, 403 at the core function: nobody exposes the API.
const NOT_PUBLISHED: &str = "API_NOT_PUBLISHED";
/// Of API exposing functions, of the token endpoint (`ClientCredentials`), and ours.
const ABOUT_THE_AGREEMENT: [&str; 5] =
    ["INVOKER_NOT_TRUSTED", "API_NOT_ALLOWED", "OTHER_SECURITY_METHOD", "TOKEN_REFUSED", NO_CONNECTION_BY_PSK];
/// 503: the API exposing function gave no connection by AEF_PSK.
const NO_CONNECTION_BY_PSK: &str = "NO_CONNECTION_BY_PSK";
/// Of an [`SbiClient`] with tokens of the core function, which are for whatever was agreed upon.
const AEF: &str = "AEF";
