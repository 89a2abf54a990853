//! MSGin5G-3 for API invokers: the server as API exposing function of a CAPIF core function (TS 23.222, TS 33.122 clause
//! 6.5.2, TS 33.501 clause Y.3).
//!
//! A request's way: certificate of the CAPIF authority or AEF_PSK → the core function's word on API, method, token and policy
//! ([`ExposingFunction::protect`]) → the names that the operator tied to the invoker's credential → the entry
//! `[[application_server]]` of such a `dns_name`. The listeners are others than that of `[api]`: a certificate of the CAPIF
//! authority opens nothing there, and a network function's nothing here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use prometheus_client::registry::Registry;
use sbi::audit::{Audit, subject};
use sbi::capif::aef::{AefConfig, CapifInvoker, ExposingFunction, InvocationCounts, application_server_apis};
use sbi::{
    CertificateFiles, PeerIdentity, ProblemDetails, SbiError, SbiServer, SbiServerConfig, ServerLimits, ServerMetrics,
    openapi,
};
use serde::Deserialize;
use store::Counters;
use tokio_util::sync::CancellationToken;
use transport::{ApiPskAcceptor, BoxFuture};

use crate::api::described;
use crate::error::ServerError;

/// `[capif]`: the APIs of MSGin5G-3 exposed to API invokers. Without it they are not.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapifSection {
    /// Where invokers come with certificates: methods PKI and OAUTH. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where they come with AEF_PSK: method PSK. None: nowhere.
    #[serde(default)]
    pub psk_listen: Option<SocketAddr>,
    /// CRLs of the authorities in `aef.invoker_ca`, PEM or one in DER: with them, an invoker that is revoked or cannot be checked
    /// gets no connection by certificate. That of `[certificates]` is of other authorities.
    #[serde(default)]
    pub crl: Option<PathBuf>,
    /// Limits of each of the two servers; as those of `[api]` by default.
    #[serde(default = "crate::config::default_api_limits")]
    pub limits: ServerLimits,
    /// The core function, and how the server is registered there.
    pub aef: AefConfig,
}

impl CapifSection {
    /// What the server shows invokers of `own`, and whose certificates of theirs it takes.
    pub(crate) fn certificates(&self, own: &CertificateFiles) -> CertificateFiles {
        CertificateFiles { ca: self.aef.invoker_ca.clone(), crl: self.crl.clone(), ..own.clone() }
    }
}

/// The listeners at work, until the token they were started with is cancelled.
pub(crate) struct Invokers {
    by_certificate: SbiServer,
    by_psk: Option<SbiServer>,
}

impl Invokers {
    pub(crate) fn address(&self) -> SocketAddr {
        self.by_certificate.local_addr()
    }

    pub(crate) fn psk_address(&self) -> Option<SocketAddr> {
        self.by_psk.as_ref().map(SbiServer::local_addr)
    }

    pub(crate) async fn stopped(&self) {
        self.by_certificate.stopped().await;
        if let Some(by_psk) = &self.by_psk {
            by_psk.stopped().await;
        }
    }
}

/// What the two listeners count: connections, requests and bodies, apart from those of `[api]`. Clones count into the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct InvokerMetrics {
    by_certificate: ServerMetrics,
    by_psk: ServerMetrics,
}

impl InvokerMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        self.by_certificate.register_as(registry, "capif");
        self.by_psk.register_as(registry, "capif_psk");
    }
}

/// Serves `services`, which authorise nobody themselves, to whom the core function vouches for. `certificates` are the server's
/// own.
pub(crate) async fn serve(
    section: CapifSection,
    certificates: &CertificateFiles,
    services: Router,
    audit: &Audit,
    metrics: InvokerMetrics,
    stop: &CancellationToken,
) -> Result<Invokers, ServerError> {
    let tls = section.certificates(certificates);
    let counts = open_counts(section.aef.data.join(COUNTS_DIRECTORY)).await?;
    let function =
        ExposingFunction::start(section.aef, application_server_apis(), audit.clone(), counts, stop.clone())?;
    let services = services.layer(from_fn_with_state(audit.clone(), as_application_server));
    let mut apis = described();
    apis.push(openapi::aef_security());
    let router = function.protect(services).merge(function.routes()).merge(openapi::router(&apis));
    let by_psk = match section.psk_listen {
        Some(listen) => {
            let acceptor = ApiPskAcceptor::new(Arc::new(function)).map_err(SbiError::from)?;
            let (limits, router) = (section.limits.clone(), router.clone());
            Some(SbiServer::start_psk(listen, limits, acceptor, router, stop.clone(), metrics.by_psk).await?)
        }
        None => None,
    };
    let server = SbiServerConfig { listen: section.listen, tls, limits: section.limits };
    let by_certificate = SbiServer::start_admitting(server, router, stop.clone(), metrics.by_certificate).await?;
    Ok(Invokers { by_certificate, by_psk })
}

/// Counts of invokers' calls, on disk.
#[derive(Debug)]
struct DurableCounts(Counters);

impl InvocationCounts for DurableCounts {
    fn all(&self) -> Result<Vec<(String, u64)>, String> {
        self.0.all().map_err(|error| error.to_string())
    }

    fn keep<'a>(&'a self, key: &'a str, count: Option<u64>) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move { self.0.put(key, count).await.map_err(|error| error.to_string()) })
    }
}

/// Opens them; recovery blocks and gets a thread of its own.
async fn open_counts(path: PathBuf) -> Result<Arc<DurableCounts>, ServerError> {
    match tokio::task::spawn_blocking(move || Counters::open(&path)).await {
        Ok(opened) => Ok(Arc::new(DurableCounts(opened?))),
        Err(error) => Err(ServerError::Configuration { key: "capif.aef.data".to_owned(), reason: error.to_string() }),
    }
}

/// The handlers see the names that the core function told of the invoker, and nothing else of its connection.
async fn as_application_server(State(audit): State<Audit>, mut request: Request, next: Next) -> Response {
    let Some(CapifInvoker { id, names, api_name }) = request.extensions_mut().remove::<CapifInvoker>() else {
        // A certificate of the CAPIF authority that names nobody in CAPIF.
        let peer = request.extensions().get::<PeerIdentity>().cloned().unwrap_or_default();
        audit.refused(subject(&peer), ACTION, "not_an_invoker");
        return ProblemDetails::forbidden(NOT_AN_INVOKER).into_response();
    };
    audit.allowed(&format!("api-invoker {id}"), &api_name, "capif");
    request.extensions_mut().insert(PeerIdentity { dns_names: names, ..PeerIdentity::default() });
    next.run(request).await
}

/// 403: whoever calls is no API invoker.
const NOT_AN_INVOKER: &str = "NOT_AN_INVOKER";
const ACTION: &str = "capif";
/// Directory of the counts, below that of the registration.
const COUNTS_DIRECTORY: &str = "counts";
