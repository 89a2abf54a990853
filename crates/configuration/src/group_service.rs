//! `ss-gm` (TS 29.549 clause 7.2): groups, for the operator to provision and for MSGin5G Servers to read.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CONTENT_TYPE, LOCATION};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use message::ServiceAddress;
use sbi::ss_gm::{self, GroupQuery, VALGroupDocument, document_path};
use sbi::ss_upr::VAL_SERVICE_ID;
use sbi::{Json, Path, ProblemDetails, Query, cause, merge_patch, parse_json};
use serde::Deserialize;
use serde_json::Value;

use crate::config::TableLimits;
use crate::error::ConfigurationError;
use crate::groups::{self, Changed, Created, GroupPage};
use crate::service::{Labelled, Provisioner, Service, Shared, admit, full, refusal, refuse, to_the_end};

pub(crate) fn router() -> Router<Arc<Service>> {
    let documents = format!("{}/group-documents", ss_gm::API_PATH);
    Router::new()
        .route(&documents, get(list).post(create))
        .route(&format!("{documents}/{{group_doc_id}}"), get(retrieve).put(replace).patch(modify).delete(remove))
}

/// A caller that may read groups, an MSGin5G Server or whoever provisions them: what it is called in audit events.
struct GroupReader(String);

impl FromRequestParts<Arc<Service>> for GroupReader {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, ProblemDetails> {
        let policy = service.policy.current();
        admit(parts, service, policy.readers.iter().chain(&policy.provisioners)).await.map(Self)
    }
}

/// The query of `GET /group-documents/{groupDocId}`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct WantedParts {
    group_members: bool,
    group_configuration: bool,
}

/// `POST /group-documents`.
async fn create(
    State(service): Shared,
    Provisioner(who): Provisioner,
    Json(document): Json<VALGroupDocument>,
) -> Response {
    let since = Instant::now();
    let object = document.val_group_id.to_string();
    let changer = Arc::clone(&service);
    let outcome = to_the_end(async move {
        let document = checked(document, &changer.tables).map_err(|problem| refuse("invalid", *problem))?;
        let created = changer.groups.create(&document).await;
        changer.metrics.groups(changer.groups.count());
        match created {
            Ok(Created::New) => Ok(("created", document)),
            Ok(Created::Exists) => Err(refuse("exists", ProblemDetails::forbidden(refusal::GROUP_EXISTS))),
            Ok(Created::Full) => Err(refuse("full", full())),
            Err(error) => Err(changer.fault(&error)),
        }
    })
    .await
    .and_then(|(label, document)| {
        let path = document_path(&document.val_group_id);
        let location = HeaderValue::from_str(&path).map_err(|_| service.fault(&ConfigurationError::Corrupt))?;
        Ok((label, (StatusCode::CREATED, [(LOCATION, location)], Json(shown(document)))))
    });
    service.changed(&who, &object, "group-create", since, outcome)
}

/// `GET /group-documents`.
async fn list(State(service): Shared, GroupReader(who): GroupReader, Query(query): Query<GroupQuery>) -> Response {
    let since = Instant::now();
    let reader = Arc::clone(&service);
    // A table's worth of documents may have to be looked at.
    let outcome = tokio::task::spawn_blocking(move || documents(&reader, &query))
        .await
        .unwrap_or_else(|_| Err(refuse("failed", ProblemDetails::internal())));
    service.answer(&who, "group-list", since, outcome.map(|(label, documents)| (label, Json(documents))))
}

fn documents(service: &Service, query: &GroupQuery) -> Labelled<Vec<VALGroupDocument>> {
    let wanted = query.val_service_id.as_deref();
    if let Some(id) = &query.val_group_id {
        // What cannot be a Group Service ID names no group.
        let found = match id.parse::<ServiceAddress>() {
            Ok(id) => service.groups.get(&id).map_err(|error| service.fault(&error))?,
            Err(_) => None,
        };
        let found = found.filter(|document| wanted.is_none_or(|wanted| document.serves(wanted)));
        return Ok((if found.is_some() { "found" } else { "unknown" }, found.into_iter().map(shown).collect()));
    }
    let paged = query.after.is_some() || query.limit.is_some();
    let page = service.groups.page(wanted, query.after.as_deref(), query.limit.unwrap_or(usize::MAX));
    let GroupPage { documents, more } = page.map_err(|error| service.fault(&error))?;
    if more && !paged {
        // A part that looks like the whole would mislead; TS 29.549 has no pages.
        let problem = ProblemDetails::forbidden(refusal::TOO_MANY_DOCUMENTS);
        return Err(refuse(
            "too_many",
            problem.with_detail("ask for one val-group-id, or in pages with after and limit"),
        ));
    }
    Ok(("found", documents.into_iter().map(shown).collect()))
}

/// `GET /group-documents/{groupDocId}`.
async fn retrieve(
    State(service): Shared,
    GroupReader(who): GroupReader,
    Path(id): Path<ServiceAddress>,
    Query(parts): Query<WantedParts>,
) -> Response {
    let since = Instant::now();
    let outcome = match service.groups.get(&id) {
        Ok(Some(document)) => Ok(("found", Json(part(shown(document), &parts)))),
        Ok(None) => Err(unknown()),
        Err(error) => Err(service.fault(&error)),
    };
    service.answer(&who, "group-get", since, outcome)
}

/// `PUT /group-documents/{groupDocId}`.
async fn replace(
    State(service): Shared,
    who: Provisioner,
    Path(id): Path<ServiceAddress>,
    Json(document): Json<VALGroupDocument>,
) -> Response {
    let limits = service.tables.clone();
    change(service, who, id, move |before| {
        same_group(&before, document).and_then(|document| checked(document, &limits))
    })
    .await
}

/// `PATCH /group-documents/{groupDocId}`.
async fn modify(
    State(service): Shared,
    who: Provisioner,
    Path(id): Path<ServiceAddress>,
    headers: HeaderMap,
    Json(patch): Json<Value>,
) -> Response {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !media_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(MERGE_PATCH) {
        return ProblemDetails::new(StatusCode::UNSUPPORTED_MEDIA_TYPE)
            .with_invalid_param("header Content-Type", format!("must be {MERGE_PATCH}"))
            .into_response();
    }
    let limits = service.tables.clone();
    change(service, who, id, move |before| patched(before, patch, &limits)).await
}

async fn change(
    service: Arc<Service>,
    Provisioner(who): Provisioner,
    id: ServiceAddress,
    change: impl FnOnce(VALGroupDocument) -> Result<VALGroupDocument, Box<ProblemDetails>> + Send + 'static,
) -> Response {
    let since = Instant::now();
    let object = id.to_string();
    let changer = Arc::clone(&service);
    let outcome = to_the_end(async move {
        match changer.groups.change(&id, change).await {
            Ok(Changed::Done(document)) => Ok(("updated", Json(shown(*document)))),
            Ok(Changed::Unknown) => Err(unknown()),
            Ok(Changed::Refused(problem)) => Err(("invalid", problem)),
            Err(error) => Err(changer.fault(&error)),
        }
    })
    .await;
    service.changed(&who, &object, "group-update", since, outcome)
}

/// `DELETE /group-documents/{groupDocId}`.
async fn remove(State(service): Shared, Provisioner(who): Provisioner, Path(id): Path<ServiceAddress>) -> Response {
    let since = Instant::now();
    let object = id.to_string();
    let changer = Arc::clone(&service);
    let outcome = to_the_end(async move {
        let removed = changer.groups.remove(&id).await;
        changer.metrics.groups(changer.groups.count());
        match removed {
            Ok(true) => Ok(("removed", StatusCode::NO_CONTENT)),
            Ok(false) => Err(unknown()),
            Err(error) => Err(changer.fault(&error)),
        }
    })
    .await;
    service.changed(&who, &object, "group-delete", since, outcome)
}

fn unknown() -> (&'static str, Box<ProblemDetails>) {
    refuse("unknown", ProblemDetails::not_found(refusal::GROUP_NOT_FOUND))
}

/// What may be kept of a document that the caller sent.
fn checked(mut document: VALGroupDocument, limits: &TableLimits) -> Result<VALGroupDocument, Box<ProblemDetails>> {
    let incorrect = |member: &str, reason: &str| {
        Box::new(ProblemDetails::bad_request(cause::MANDATORY_IE_INCORRECT).with_invalid_param(member, reason))
    };
    document.res_uri = None;
    // No optional feature of the API is supported here.
    document.supp_feat = document.supp_feat.map(|_| "0".to_owned());
    if document.members.len() > limits.group_members_max {
        return Err(Box::new(ProblemDetails::forbidden(refusal::TOO_MANY_MEMBERS)));
    }
    if document.serves(VAL_SERVICE_ID) {
        let members =
            document.ue_service_ids().map_err(|_| incorrect("/members", "valUserId must be a UE Service ID"))?;
        if members.len() < document.members.len() {
            return Err(incorrect("/members", "a member twice"));
        }
        document.configuration().map_err(|_| incorrect("/valGrpConf", "not the configuration of an MSGin5G group"))?;
    }
    match groups::encode(&document) {
        Ok(octets) if octets.len() <= limits.group_octets_max => Ok(document),
        Ok(_) => Err(Box::new(ProblemDetails::new(StatusCode::PAYLOAD_TOO_LARGE))),
        Err(_) => Err(Box::new(ProblemDetails::internal())),
    }
}

/// A group keeps its identity.
fn same_group(before: &VALGroupDocument, document: VALGroupDocument) -> Result<VALGroupDocument, Box<ProblemDetails>> {
    if before.val_group_id == document.val_group_id {
        return Ok(document);
    }
    let problem = ProblemDetails::bad_request(cause::MANDATORY_IE_INCORRECT);
    Err(Box::new(problem.with_invalid_param("/valGroupId", "not the group of the path")))
}

/// What a merge patch makes of a group's document, as `PATCH /group-documents/{groupDocId}` does; for tools that write or
/// test provisioning.
///
/// # Errors
/// The refusal: the patch is no JSON object, or would make no document of this group within the limits.
pub fn check_group_patch(
    before: &VALGroupDocument,
    patch: &[u8],
    limits: &TableLimits,
) -> Result<VALGroupDocument, Box<ProblemDetails>> {
    patched(before.clone(), parse_json(patch).map_err(Box::new)?, limits)
}

fn patched(
    before: VALGroupDocument,
    patch: Value,
    limits: &TableLimits,
) -> Result<VALGroupDocument, Box<ProblemDetails>> {
    let Value::Object(_) = patch else {
        return Err(Box::new(ProblemDetails::bad_request(cause::INVALID_MSG_FORMAT)));
    };
    let internal = |_| Box::new(ProblemDetails::internal());
    let mut merged = serde_json::to_value(&before).map_err(internal)?;
    merge_patch(&mut merged, patch);
    let octets = serde_json::to_vec(&merged).map_err(internal)?;
    let document = parse_json::<VALGroupDocument>(&octets).map_err(Box::new)?;
    checked(same_group(&before, document)?, limits)
}

/// The document as it is answered, with the URI it is at.
fn shown(mut document: VALGroupDocument) -> VALGroupDocument {
    document.res_uri = Some(document_path(&document.val_group_id));
    document
}

/// TS 29.549 clause 7.2, RetrieveIndValGroupDoc: the parts asked for, with the group's identity; all of it if none is asked for.
fn part(document: VALGroupDocument, parts: &WantedParts) -> VALGroupDocument {
    if !parts.group_members && !parts.group_configuration {
        return document;
    }
    let mut part = VALGroupDocument::new(document.val_group_id);
    part.val_service_ids = Vec::new();
    if parts.group_members {
        part.members = document.members;
    }
    if parts.group_configuration {
        part.val_grp_conf = document.val_grp_conf;
    }
    part
}

/// The media type of a merge patch (RFC 7396).
const MERGE_PATCH: &str = "application/merge-patch+json";
