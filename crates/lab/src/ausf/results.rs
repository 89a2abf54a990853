//! Results of authentications: reported to UDM, and deleted there when the serving network asks (TS 33.501 clause 6.1.4).

use std::sync::Arc;

use akma::{ServingNetworkName, Supi};
use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use sbi::nudm::{AuthEvent, AuthType};
use sbi::{Path, PeerIdentity, ProblemDetails};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Ausf, CONTEXT_NOT_FOUND, udm_refusal};
use crate::authorisation::authorise;

/// A result that UDM has.
pub(super) struct AuthenticationResult {
    caller: Uuid,
    supi: Supi,
    auth_type: AuthType,
    serving_network_name: ServingNetworkName,
    event_id: String,
}

impl Ausf {
    /// Tells UDM how an authentication ended. A UDM that cannot be told does not change how it ended.
    pub(super) async fn report(
        &self,
        id: Uuid,
        caller: Uuid,
        supi: &Supi,
        serving_network_name: &ServingNetworkName,
        auth_type: AuthType,
        success: bool,
    ) {
        let event = self.event(serving_network_name.clone(), auth_type.clone(), success);
        let location = match self.udm.confirm_auth(supi, &event).await {
            Ok(location) => location,
            Err(error) => {
                tracing::warn!(%error, "UDM was not told how an authentication ended");
                return;
            }
        };
        let event_id = location.as_deref().and_then(|uri| uri.rsplit('/').next()).map(str::to_owned);
        if let (Some(event_id), true) = (event_id, success) {
            let result = AuthenticationResult {
                caller,
                supi: supi.clone(),
                auth_type,
                serving_network_name: serving_network_name.clone(),
                event_id,
            };
            if self.results().insert(id, result, tokio::time::Instant::now()).is_err() {
                tracing::debug!("too many results kept: this one cannot be deleted by the serving network");
            }
        }
    }

    fn event(&self, serving_network_name: ServingNetworkName, auth_type: AuthType, success: bool) -> AuthEvent {
        AuthEvent {
            nf_instance_id: self.nf_instance_id.to_string(),
            success,
            time_stamp: OffsetDateTime::now_utc(),
            auth_type,
            serving_network_name,
            auth_removal_ind: false,
        }
    }
}

/// DELETE of an authentication's resource: the result no longer holds.
pub(super) async fn delete(
    State(ausf): State<Arc<Ausf>>,
    Extension(peer): Extension<PeerIdentity>,
    Path(id): Path<String>,
) -> Result<StatusCode, ProblemDetails> {
    let caller = authorise(&ausf.audit, &peer, &ausf.callers, ACTION)?;
    let not_found = || ProblemDetails::not_found(CONTEXT_NOT_FOUND);
    let id: Uuid = id.parse().map_err(|_| not_found())?;
    let result = ausf
        .results()
        .take_if(&id, tokio::time::Instant::now(), |result| result.caller == caller)
        .ok_or_else(not_found)?
        .value;
    let mut event = ausf.event(result.serving_network_name, result.auth_type, true);
    event.auth_removal_ind = true;
    match ausf.udm.delete_auth(&result.supi, &result.event_id, &event).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        // A later authentication has taken its place.
        Err(error) if error.problem().is_some_and(|problem| problem.status_code() == StatusCode::NOT_FOUND) => {
            Err(not_found())
        }
        Err(error) => Err(udm_refusal(&error)),
    }
}

/// The operation in audit events.
const ACTION: &str = "nausf-auth:delete-result";
