//! Associations over HTTP: `ss-upr` for MSGin5G Servers, provisioning for the operator. What all handlers share.

use std::sync::Arc;
use std::time::Instant;

use akma::UeId;
use axum::Router;
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use http::request::Parts;
use http::{Method, StatusCode};
use message::{ServiceAddress, UeServiceId};
use sbi::admin::Health;
use sbi::association::{self, AssociationPage, PageQuery, UeAssociations};
use sbi::audit::{Audit, subject};
use sbi::authorization::Authorizer;
use sbi::policy::Rules;
use sbi::ss_upr::{self, ProfileDoc, ProfileInformation, ProfileQuery, VAL_SERVICE_ID, ValTargetUe};
use sbi::{Json, Path, PeerIdentity, PeerName, ProblemDetails, Query, cause, openapi, services};
use store::StoreError;

use crate::associations::{Added, Associations};
use crate::changes::Changes;
use crate::config::{PolicyFile, TableLimits};
use crate::error::ConfigurationError;
use crate::group_service;
use crate::groups::Groups;
use crate::metrics::Metrics;

/// Causes of refusals that are this function's own.
pub mod refusal {
    /// 403: the certificate names nobody who may do this.
    pub const REQUESTER_NOT_ALLOWED: &str = "REQUESTER_NOT_ALLOWED";
    /// 403: the UE ID has as many associations as it may.
    pub const TOO_MANY_ASSOCIATIONS: &str = "TOO_MANY_ASSOCIATIONS";
    /// 403: there is a group of that identity.
    pub const GROUP_EXISTS: &str = "GROUP_EXISTS";
    /// 404: there is no group of that identity.
    pub const GROUP_NOT_FOUND: &str = "GROUP_NOT_FOUND";
    /// 403: a group with more members than it may have.
    pub const TOO_MANY_MEMBERS: &str = "TOO_MANY_MEMBERS";
    /// 403: more groups than go into one answer.
    pub const TOO_MANY_DOCUMENTS: &str = "TOO_MANY_DOCUMENTS";
    /// 4.04 over CoAP: the UE ID has no association, or not the one asked for.
    pub const NOT_ASSOCIATED: &str = "NOT_ASSOCIATED";
}

/// What the handlers share.
pub(crate) struct Service {
    pub(crate) associations: Associations,
    pub(crate) groups: Groups,
    pub(crate) changes: Changes,
    pub(crate) tables: TableLimits,
    pub(crate) policy: Arc<Rules<PolicyFile>>,
    pub(crate) audit: Audit,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
    pub(crate) retry_after_seconds: u32,
}

pub(crate) fn router(service: Arc<Service>, authorizer: &Arc<Authorizer>) -> Router {
    let profiles = Router::new()
        .route(&format!("{}/val-services", ss_upr::API_PATH), get(retrieve_profile))
        .with_state(Arc::clone(&service));
    let groups = group_service::router().with_state(Arc::clone(&service));
    let associations = format!("{}/associations", association::API_PATH);
    let associations = Router::new()
        .route(&associations, get(list))
        .route(&format!("{associations}/{{ue_id}}"), get(of_ue).delete(remove_all))
        .route(&format!("{associations}/{{ue_id}}/{{ue_service_id}}"), put(add).delete(remove))
        .with_state(service);
    authorizer
        .protect(profiles, &services::SS_UPR)
        .merge(authorizer.protect(groups, &services::SS_GM))
        .merge(authorizer.protect(associations, &services::CONFIGURATION))
        .merge(openapi::router(&[openapi::ss_user_profile_retrieval(), openapi::ss_group_management()]))
}

pub(crate) type Shared = State<Arc<Service>>;
/// A label for the metrics, and the answer or refusal that goes with it.
pub(crate) type Labelled<T> = Result<(&'static str, T), (&'static str, Box<ProblemDetails>)>;

/// A caller that may ask for profiles: what it is called in audit events.
struct Reader(String);

/// A caller that may read and change associations and groups: what it is called in audit events.
pub(crate) struct Provisioner(pub(crate) String);

impl FromRequestParts<Arc<Service>> for Reader {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, ProblemDetails> {
        let policy = service.policy.current();
        admit(parts, service, &policy.readers).await.map(Self)
    }
}

impl FromRequestParts<Arc<Service>> for Provisioner {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, ProblemDetails> {
        let policy = service.policy.current();
        admit(parts, service, &policy.provisioners).await.map(Self)
    }
}

/// What the caller is called in audit events, if it is one of `allowed`.
pub(crate) async fn admit<'a>(
    parts: &mut Parts,
    service: &Service,
    allowed: impl IntoIterator<Item = &'a PeerName>,
) -> Result<String, ProblemDetails> {
    let peer = parts.extensions.get::<PeerIdentity>();
    let who = peer.map_or("nobody", subject).to_owned();
    if peer.is_some_and(|peer| allowed.into_iter().any(|name| name.names(peer))) {
        return Ok(who);
    }
    let path = parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str).unwrap_or_default();
    let operation = operation(&parts.method, path);
    service.audit.refused_for(&who, operation, &object(parts, operation).await, "not_allowed");
    service.metrics.answered(operation, "not_allowed", Instant::now());
    Err(ProblemDetails::forbidden(refusal::REQUESTER_NOT_ALLOWED))
}

/// What metrics and audit call a request, whatever is decided on it: by its method and the template of its path.
fn operation(method: &Method, path: &str) -> &'static str {
    match (path.rsplit('/').next().unwrap_or_default(), method) {
        ("val-services", _) => RETRIEVE_PROFILE,
        ("group-documents", &Method::POST) => "group-create",
        ("group-documents", _) => "group-list",
        ("{group_doc_id}", &Method::PUT | &Method::PATCH) => "group-update",
        ("{group_doc_id}", &Method::DELETE) => "group-delete",
        ("{group_doc_id}", _) => "group-get",
        ("{ue_id}" | "{ue_service_id}", &Method::DELETE) => REMOVE,
        ("{ue_service_id}", _) => "add",
        ("{ue_id}", _) => "get",
        _ => "list",
    }
}

/// What a refused request names, as an allowed one's is told: a UE Service ID or a group, and never the UE.
async fn object(parts: &mut Parts, operation: &str) -> String {
    let Ok(named) = RawPathParams::from_request_parts(parts, &()).await else { return String::new() };
    let of_interest = named.iter().find(|(name, _)| matches!(*name, "ue_service_id" | "group_doc_id"));
    let service_id = of_interest.and_then(|(_, value)| value.parse::<ServiceAddress>().ok());
    match service_id {
        Some(service_id) => service_id.to_string(),
        None if operation == REMOVE && of_interest.is_none() => EVERY_ASSOCIATION.to_owned(),
        None => String::new(),
    }
}

/// `GET /ss-upr/v1/val-services` (TS 29.549 clause 7.3.2).
async fn retrieve_profile(State(service): Shared, Reader(who): Reader, RawQuery(query): RawQuery) -> Response {
    let since = Instant::now();
    let outcome = profiles(&service, query.as_deref().unwrap_or_default());
    service.answer(&who, RETRIEVE_PROFILE, since, outcome.map(|(label, profiles)| (label, Json(profiles))))
}

fn profiles(service: &Service, query: &str) -> Labelled<Vec<ProfileDoc>> {
    let query = ProfileQuery::parse(query).map_err(|problem| refuse("invalid", problem))?;
    if query.val_service_id.as_deref().is_some_and(|service| service != VAL_SERVICE_ID) {
        return Ok(("other_service", Vec::new()));
    }
    let ValTargetUe::ValUeId(text) = &query.val_tgt_ue else {
        // Profiles here belong to UEs; a VAL user has none of its own.
        return Ok(("unknown", Vec::new()));
    };
    let ue_id: UeId = text.parse().map_err(|_| {
        let problem = ProblemDetails::bad_request(cause::MANDATORY_QUERY_PARAM_INCORRECT);
        refuse("invalid", problem.with_invalid_param("query val-tgt-ue", "valUeId is neither a SUPI nor a GPSI"))
    })?;
    let ue_service_ids = service.associations.of_ue(&ue_id).map_err(|error| service.fault(&error))?;
    if ue_service_ids.is_empty() {
        return Ok(("unknown", Vec::new()));
    }
    let profile_information = serde_json::to_string(&ProfileInformation { ue_service_ids })
        .map_err(|_| service.fault(&ConfigurationError::Corrupt))?;
    Ok(("found", vec![ProfileDoc { profile_information, val_tgt_ue: query.val_tgt_ue }]))
}

async fn add(
    State(service): Shared,
    Provisioner(who): Provisioner,
    Path((ue_id, ue_service_id)): Path<(UeId, UeServiceId)>,
) -> Response {
    let since = Instant::now();
    let object = ue_service_id.to_string();
    let changer = Arc::clone(&service);
    let outcome = to_the_end(async move {
        let added = changer.associations.add(&ue_id, &ue_service_id).await;
        changer.changes.tell(&ue_id);
        changer.metrics.associations(changer.associations.count());
        match added {
            Ok(Added::New) => Ok(("added", StatusCode::CREATED)),
            Ok(Added::Already) => Ok(("already", StatusCode::NO_CONTENT)),
            Ok(Added::TooMany) => Err(refuse("too_many", ProblemDetails::forbidden(refusal::TOO_MANY_ASSOCIATIONS))),
            Ok(Added::Full) => Err(refuse("full", full())),
            Err(error) => Err(changer.fault(&error)),
        }
    })
    .await;
    service.changed(&who, &object, "add", since, outcome)
}

async fn remove(
    State(service): Shared,
    Provisioner(who): Provisioner,
    Path((ue_id, ue_service_id)): Path<(UeId, UeServiceId)>,
) -> Response {
    let since = Instant::now();
    let object = ue_service_id.to_string();
    let changer = Arc::clone(&service);
    let outcome = to_the_end(async move {
        let there = changer.associations.remove(&ue_id, &ue_service_id).await;
        changer.changes.tell(&ue_id);
        changer.removed(there)
    })
    .await;
    service.changed(&who, &object, REMOVE, since, outcome)
}

async fn remove_all(State(service): Shared, Provisioner(who): Provisioner, Path(ue_id): Path<UeId>) -> Response {
    let since = Instant::now();
    let changer = Arc::clone(&service);
    let outcome = to_the_end(async move {
        let count = changer.associations.remove_all(&ue_id).await;
        changer.changes.tell(&ue_id);
        changer.removed(count.map(|count| count > 0))
    })
    .await;
    service.changed(&who, EVERY_ASSOCIATION, REMOVE, since, outcome)
}

async fn of_ue(State(service): Shared, Provisioner(who): Provisioner, Path(ue_id): Path<UeId>) -> Response {
    let since = Instant::now();
    let outcome = match service.associations.of_ue(&ue_id) {
        Ok(ue_service_ids) => Ok(("found", Json(UeAssociations { ue_id, ue_service_ids }))),
        Err(error) => Err(service.fault(&error)),
    };
    service.answer(&who, "get", since, outcome)
}

async fn list(State(service): Shared, Provisioner(who): Provisioner, Query(query): Query<PageQuery>) -> Response {
    let since = Instant::now();
    let limit = query.limit.unwrap_or(usize::MAX);
    let page = service.associations.page(query.ue_service_id.as_ref(), query.after.as_deref(), limit);
    let outcome: Labelled<Json<AssociationPage>> =
        page.map(|page| ("found", Json(page))).map_err(|error| service.fault(&error));
    service.answer(&who, "list", since, outcome)
}

impl Service {
    fn removed(&self, there: Result<bool, ConfigurationError>) -> Labelled<StatusCode> {
        self.metrics.associations(self.associations.count());
        there
            .map(|there| (if there { "removed" } else { "unknown" }, StatusCode::NO_CONTENT))
            .map_err(|error| self.fault(&error))
    }

    /// The answer to a request of `subject`, told and counted.
    pub(crate) fn answer<T: IntoResponse>(
        &self,
        subject: &str,
        operation: &'static str,
        since: Instant,
        outcome: Labelled<T>,
    ) -> Response {
        let (label, problem) = told(&outcome);
        self.audit.answered(subject, operation, label, problem);
        self.counted(operation, since, outcome)
    }

    /// The same where `subject` changes `object`.
    pub(crate) fn changed<T: IntoResponse>(
        &self,
        subject: &str,
        object: &str,
        operation: &'static str,
        since: Instant,
        outcome: Labelled<T>,
    ) -> Response {
        let (label, problem) = told(&outcome);
        self.audit.changed(subject, operation, object, label, problem);
        self.counted(operation, since, outcome)
    }

    fn counted<T: IntoResponse>(&self, operation: &'static str, since: Instant, outcome: Labelled<T>) -> Response {
        self.metrics.answered(operation, told(&outcome).0, since);
        outcome.map_or_else(|(_, problem)| problem.into_response(), |(_, answer)| answer.into_response())
    }

    /// The answer to a fault of our own; the operator reads the reason in the log and at `/readyz`.
    pub(crate) fn fault(&self, error: &ConfigurationError) -> (&'static str, Box<ProblemDetails>) {
        match error {
            ConfigurationError::Store(StoreError::Overloaded) => {
                refuse("overloaded", ProblemDetails::overloaded(self.retry_after_seconds))
            }
            ConfigurationError::Store(StoreError::DiskFull) => {
                tracing::error!(%error, "nothing can be written");
                refuse("disk_full", full())
            }
            error => {
                tracing::error!(%error, "request failed");
                // Anything else may pass; a database that takes no more writes needs a restart.
                if let Some(failure) = self.associations.failure() {
                    self.health.not_ready(STORE_CHECK, failure.to_string());
                }
                refuse("failed", ProblemDetails::internal())
            }
        }
    }
}

/// The label of an outcome, and the problem that it is, if any.
fn told<T>(outcome: &Labelled<T>) -> (&'static str, Option<&ProblemDetails>) {
    match outcome {
        Ok((label, _)) => (label, None),
        Err((label, problem)) => (label, Some(problem)),
    }
}

pub(crate) fn full() -> ProblemDetails {
    ProblemDetails::new(StatusCode::INTERNAL_SERVER_ERROR).with_cause(cause::INSUFFICIENT_RESOURCES)
}

/// Lets a change finish even when the caller leaves: the tables, and what is counted of them, change together.
pub(crate) async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Labelled<T>> + Send + 'static,
) -> Labelled<T> {
    tokio::spawn(change).await.unwrap_or_else(|_| Err(refuse("failed", ProblemDetails::internal())))
}

/// A refusal under its label.
pub(crate) fn refuse(label: &'static str, problem: ProblemDetails) -> (&'static str, Box<ProblemDetails>) {
    (label, Box::new(problem))
}

const RETRIEVE_PROFILE: &str = "retrieve-profile";
const REMOVE: &str = "remove";
/// What the audit log calls all associations of one UE, which it does not name.
const EVERY_ASSOCIATION: &str = "every association of a UE";
/// Name of the health check of the database.
pub(crate) const STORE_CHECK: &str = "store";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use prometheus_client::registry::Registry;
    use store::{Database, DatabaseOptions};

    use super::*;

    #[tokio::test]
    async fn an_error_that_passes_leaves_the_function_ready() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(directory.path(), DatabaseOptions::default()).unwrap();
        let service = Service {
            associations: Associations::open(database.clone(), TableLimits::default()).unwrap(),
            groups: Groups::open(database, TableLimits::default()).unwrap(),
            changes: Changes::default(),
            tables: TableLimits::default(),
            policy: Arc::new(Rules::fixed(PolicyFile::default())),
            audit: Audit::default(),
            metrics: Metrics::register(&mut Registry::default()),
            health: Health::new(),
            retry_after_seconds: 1,
        };
        let (label, _) = service.fault(&ConfigurationError::Store(StoreError::ReadFailed { reason: "a flaw".into() }));
        assert_eq!(label, "failed");
        assert!(service.health.is_ready());
    }
}
