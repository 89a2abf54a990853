//! Confirmation of authentications by the AUSF (TS 29.503 clause 5.4.2.3): UDM keeps the latest of each subscriber.

use std::sync::Arc;

use akma::Supi;
use axum::Extension;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderName, StatusCode, header::LOCATION};
use axum::response::{AppendHeaders, IntoResponse};
use sbi::nudm::AuthEvent;
use sbi::{Json, Path, PeerIdentity, ProblemDetails, cause};
use uuid::Uuid;

use super::table::StoredEvent;
use super::{Udm, fault, user_not_found};
use crate::authorisation::authorise;

/// The operation in audit events.
const ACTION: &str = "nudm-ueau:auth-events";
/// No cause of TS 29.503 names an event that is not there; this is the common one of TS 29.500 for sub-resources.
const EVENT_NOT_FOUND: &str = "CONTEXT_NOT_FOUND";

pub(super) async fn confirm(
    State(udm): State<Arc<Udm>>,
    Extension(peer): Extension<PeerIdentity>,
    OriginalUri(uri): OriginalUri,
    Path(supi): Path<Supi>,
    Json(event): Json<AuthEvent>,
) -> Result<(StatusCode, AppendHeaders<[(HeaderName, String); 1]>, Json<AuthEvent>), ProblemDetails> {
    let ausf = authorise(&udm.audit, &peer, &udm.ausf_callers, ACTION)?;
    if udm.table.subscription(&supi).map_err(fault)?.is_none() {
        return Err(user_not_found());
    }
    let id = Uuid::new_v4().to_string();
    let stored = StoredEvent { id: id.clone(), event };
    udm.table.save_event(&supi, &stored).await.map_err(fault)?;
    tracing::info!(target: "security", %ausf, success = stored.event.success, "authentication confirmed");
    let location = format!("{}/{id}", uri.path());
    Ok((StatusCode::CREATED, AppendHeaders([(LOCATION, location)]), Json(stored.event)))
}

pub(super) async fn remove(
    State(udm): State<Arc<Udm>>,
    Extension(peer): Extension<PeerIdentity>,
    Path((supi, id)): Path<(Supi, String)>,
    Json(event): Json<AuthEvent>,
) -> Result<impl IntoResponse, ProblemDetails> {
    authorise(&udm.audit, &peer, &udm.ausf_callers, ACTION)?;
    if !event.auth_removal_ind {
        return Err(ProblemDetails::bad_request(cause::MANDATORY_IE_INCORRECT)
            .with_invalid_param("/authRemovalInd", "only true has a meaning here"));
    }
    if udm.table.remove_event(&supi, &id).await.map_err(fault)? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ProblemDetails::not_found(EVENT_NOT_FOUND))
    }
}
