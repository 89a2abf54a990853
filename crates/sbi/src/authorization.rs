//! What a producer does with every request before it looks at path variables, query or body: who asks, how that is
//! proven, and whether the service may be used (TS 33.501 clauses 13.3.2, 13.4.1.1.2; RFC 6750).
//!
//! ```text
//! TLS peer ─▶ Authorization header? ─ yes ─▶ issuer ▶ signature ▶ subject ▶ audience ▶ restrictions ▶ scope ▶ expiry ─▶ granted
//!                     │ no                       └──────────── any fails: 401 invalid_token, 403 insufficient_scope
//!                     ▼
//!             mode of this peer ─ token ─▶ 401
//!                     ├─ tls ──▶ granted by the TLS identity alone (TS 33.501 clause Y.5, `{}` in the OpenAPI files)
//!                     └─ listener of `nds_ip` ─▶ granted by the source network
//! ```
//!
//! A token that is presented is always checked, whatever the mode; so is an assertion ([`crate::assertion`]), before
//! the token. What the checks leave open, the function's own policy decides: handlers find [`Granted`] among the
//! request's extensions.
//!
//! Build one [`Authorizer`] per function and put [`Authorizer::protect`] around the router of each of its services.

mod config;
mod issuers;
mod networks;
mod refusal;
mod scopes;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use prometheus_client::registry::Registry;
use transport::profile::PeerIdentity;

use crate::CertificateFiles;
use crate::assertion::{AssertionKeys, CLIENT_CREDENTIALS};
use crate::audit::{Audit, subject};
use crate::error::SbiError;
use crate::own_certificate::OwnCertificate;
use crate::server::whole;
use crate::token::AccessTokenClaims;

pub use config::{
    AuthorizationConfig, InvalidAuthorization, IssuerConfig, LEEWAY_SECONDS_MAX, Mode, NdsIpConfig, PeerConfig,
    ProducerConfig,
};
pub use networks::{InvalidNetwork, Network};
pub use refusal::Refusal;
pub use scopes::{OperationScope, ServiceScopes};

use issuers::Issuers;

/// Opens the key file of every issuer, as a start does.
pub(crate) fn check_issuers(config: &AuthorizationConfig) -> Result<(), InvalidAuthorization> {
    Issuers::open(&config.issuers).map(drop)
}

/// Who a producer is, as tokens address it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    /// NF type, for example `AANF`.
    pub nf_type: &'static str,
    /// NF instance ID, in lower case.
    pub nf_instance_id: String,
}

impl Producer {
    /// The function of this type whose certificate this is. A certificate without an NF instance ID leaves only tokens
    /// for the type.
    ///
    /// # Errors
    /// [`SbiError::Tls`] when the certificate cannot be read.
    pub fn of_certificate(nf_type: &'static str, files: &CertificateFiles) -> Result<Self, SbiError> {
        let nf_instance_id = OwnCertificate::read(files)?.identity.nf_instance_id.unwrap_or_default();
        Ok(Self { nf_type, nf_instance_id })
    }
}

/// Decides on requests. One for each function; its services share what it knows of issuers and keys.
#[derive(Debug)]
pub struct Authorizer {
    config: AuthorizationConfig,
    producer: Producer,
    issuers: Issuers,
    assertions: AssertionKeys,
    audit: Audit,
}

/// How a request was found to be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// An access token.
    Token,
    /// The certificate alone.
    TlsIdentity,
    /// The network that the request came from.
    SourceNetwork,
}

/// What a request was granted; an extension of the request.
#[derive(Debug, Clone)]
pub struct Granted {
    /// The consumer: its NF instance ID, else its DNS name.
    pub subject: String,
    /// How.
    pub means: Means,
    claims: Option<Arc<AccessTokenClaims>>,
}

impl Granted {
    /// Whether a token with this scope was presented.
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.claims.as_ref().is_some_and(|claims| claims.scopes().any(|granted| granted == scope))
    }

    /// Whether something that has a scope of its own is allowed as far as tokens go: the token says so, or there is none
    /// because the peer needs none. The function's own policy decides besides.
    #[must_use]
    pub fn permits(&self, scope: &str) -> bool {
        self.means != Means::Token || self.has_scope(scope)
    }
}

impl Authorizer {
    /// Reads the keys of the issuers and the authority of assertions. Paths are taken as they stand.
    ///
    /// # Errors
    /// [`SbiError::Authorization`] naming the key of the configuration, or the file.
    pub fn new(
        config: AuthorizationConfig,
        producer: Producer,
        files: &CertificateFiles,
        audit: Audit,
    ) -> Result<Arc<Self>, SbiError> {
        config.check()?;
        let issuers = Issuers::open(&config.issuers)?;
        let assertions = AssertionKeys::open(files)?;
        Ok(Arc::new(Self { config, producer, issuers, assertions, audit }))
    }

    /// [`Authorizer::new`] for the function of this type whose certificate this is; decisions are counted in `registry`.
    ///
    /// # Errors
    /// As [`Authorizer::new`].
    pub fn of_function(
        config: AuthorizationConfig,
        nf_type: &'static str,
        files: &CertificateFiles,
        registry: &mut Registry,
    ) -> Result<Arc<Self>, SbiError> {
        let audit = Audit::default();
        audit.register(registry);
        Self::new(config, Producer::of_certificate(nf_type, files)?, files, audit)
    }

    /// The router of a service, every route of it behind the checks. Paths and methods that the router does not have are
    /// answered as before.
    pub fn protect(self: &Arc<Self>, router: Router, service: &'static ServiceScopes) -> Router {
        router.layer(from_fn_with_state(Protection { authorizer: Arc::clone(self), service }, decide))
    }

    /// Whether peers without an entry of their own need a token: what the NRF is told of the function's services
    /// (`oauth2Required`, TS 29.510 clause 6.1.6.2.3).
    #[must_use]
    pub fn demands_tokens(&self) -> bool {
        self.config.mode == Mode::Token
    }

    /// The networks that are stated to be protected below IP.
    #[must_use]
    pub fn protected_networks(&self) -> &[NdsIpConfig] {
        &self.config.nds_ip
    }

    /// Where the function's other decisions belong.
    #[must_use]
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Decides on one request.
    ///
    /// # Errors
    /// The refusal.
    pub fn authorize(
        &self,
        peer: &PeerIdentity,
        by_network: bool,
        headers: &HeaderMap,
        service: &ServiceScopes,
        operation: Option<&OperationScope>,
    ) -> Result<Granted, Refusal> {
        let assertion = match the_only(headers, &CLIENT_CREDENTIALS)? {
            Some(assertion) => Some(self.assertions.verify(assertion, self.producer.nf_type, now(), self.leeway())?),
            None => None,
        };
        if let Some(assertion) = &assertion
            && !is(peer, &assertion.sub)
        {
            return Err(Refusal::AssertionOfAnother);
        }
        if let Some(credentials) = the_only(headers, &AUTHORIZATION)? {
            let token = bearer_token(credentials)?;
            let claims = self.checked(token, peer, service, operation)?;
            if assertion.is_some_and(|assertion| !assertion.sub.eq_ignore_ascii_case(&claims.sub)) {
                return Err(Refusal::AssertionOfAnother);
            }
            return Ok(Granted { subject: subject(peer).to_owned(), means: Means::Token, claims: Some(claims) });
        }
        let means = if by_network {
            Means::SourceNetwork
        } else if self.config.mode_of(peer) == Mode::Tls {
            Means::TlsIdentity
        } else {
            return Err(Refusal::TokenMissing);
        };
        Ok(Granted { subject: subject(peer).to_owned(), means, claims: None })
    }

    /// The checks of a token, in the order of TS 33.501 clause 13.4.1.1.2.
    fn checked(
        &self,
        token: &str,
        peer: &PeerIdentity,
        service: &ServiceScopes,
        operation: Option<&OperationScope>,
    ) -> Result<Arc<AccessTokenClaims>, Refusal> {
        let claims = self.issuers.verify(token)?;
        if !is(peer, &claims.sub) {
            return Err(Refusal::Subject);
        }
        if !claims.aud.includes(self.producer.nf_type, &self.producer.nf_instance_id) {
            return Err(Refusal::Audience);
        }
        if !self.config.producer.is_meant_by(&claims) {
            return Err(Refusal::Restriction);
        }
        if !service.allows(operation, &claims) {
            return Err(Refusal::Scope(service.wanted(operation)));
        }
        let (now, leeway) = (now(), self.leeway());
        if claims.exp.saturating_add(leeway) <= now {
            return Err(Refusal::Expired);
        }
        // TS 33.501 leaves iat to policy; ours, for both: a token from the future is refused.
        if [claims.nbf, claims.iat].into_iter().flatten().any(|from| from > now.saturating_add(leeway)) {
            return Err(Refusal::NotYetValid);
        }
        Ok(claims)
    }

    fn leeway(&self) -> u64 {
        self.config.leeway_seconds
    }
}

/// An authorizer before one service.
#[derive(Clone)]
struct Protection {
    authorizer: Arc<Authorizer>,
    service: &'static ServiceScopes,
}

/// Put by a listener without TLS into the requests that it takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FromNetwork;

async fn decide(State(protection): State<Protection>, mut request: Request, next: Next) -> Response {
    let Protection { authorizer, service } = protection;
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str).unwrap_or_default();
    let operation = service.operation(request.method(), path);
    let action = operation.map_or(service.service, |operation| operation.path);
    // A request without a peer is one that did not come through a server of this crate: nobody asks.
    let nobody = PeerIdentity::default();
    let peer = request.extensions().get::<PeerIdentity>().unwrap_or(&nobody);
    let by_network = request.extensions().get::<FromNetwork>().is_some();
    match authorizer.authorize(peer, by_network, request.headers(), service, operation) {
        Ok(granted) => {
            authorizer.audit.allowed(&granted.subject, action, granted.means.reason());
            request.extensions_mut().insert(granted);
            match whole(request).await {
                Ok(request) => next.run(request).await,
                Err(refusal) => refusal.into_response(),
            }
        }
        Err(refusal) => {
            authorizer.audit.refused(subject(peer), action, refusal.reason());
            refusal.into_response(service.service)
        }
    }
}

impl Means {
    /// The word for audit events.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::TlsIdentity => "tls",
            Self::SourceNetwork => "nds_ip",
        }
    }
}

/// Whether the peer's certificate carries this NF instance ID.
fn is(peer: &PeerIdentity, nf_instance_id: &str) -> bool {
    peer.nf_instance_id.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(nf_instance_id))
}

/// The value of a header that may be there once.
fn the_only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| Refusal::NotAToken),
        (Some(_), Some(_)) => Err(Refusal::Repeated),
    }
}

/// The token of `Bearer <token>` (RFC 6750 clause 2.1); the scheme compares without case (RFC 9110 clause 11.1).
fn bearer_token(credentials: &str) -> Result<&str, Refusal> {
    match credentials.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("Bearer") => Ok(token.trim_matches(' ')),
        _ => Err(Refusal::Scheme),
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
