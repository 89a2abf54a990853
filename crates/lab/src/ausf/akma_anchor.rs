//! What comes after a successful authentication: AKMA keys to the AAnF; and their end (TS 33.535 clause 6.1, 6.6).

use std::sync::Arc;

use akma::{AKid, RoutingIndicator, Supi};
use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use sbi::naanf::AkmaKeyInfo;
use sbi::nausf::DeregistrationInfo;
use sbi::{Json, PeerIdentity, ProblemDetails, SbiError};
use tokio::time::timeout;

use super::{Aanf, Ausf, Proven, UPSTREAM_SERVER_ERROR};
use crate::authorisation::authorise;

/// How often the AAnF is asked to take a key; the serving network waits meanwhile.
const REGISTRATION_ATTEMPTS: u32 = 2;

impl Ausf {
    /// Derives K_AKMA and A-KID and has the AAnF take them, where the subscription allows AKMA. Where it does not, those
    /// of an earlier authentication end all the same: they are good until the next one (TS 33.535 clause 5.2).
    pub(super) async fn establish_akma(&self, proven: &Proven) {
        let Some(aanf) = &self.aanf else { return };
        let Some(routing_indicator) = &proven.akma else {
            if let Err(error) = remove(aanf, &proven.supi).await {
                tracing::warn!(target: "security", %error, "AAnF did not remove an AKMA context that is over");
            }
            return;
        };
        let a_tid = akma::a_tid(&proven.k_ausf, &proven.supi);
        let info = AkmaKeyInfo {
            supp_feat: None,
            ue_id: proven.supi.clone().into(),
            a_kid: AKid::format(routing_indicator, &a_tid, &self.home_network),
            k_akma: akma::k_akma(&proven.k_ausf, &proven.supi),
        };
        let registered = timeout(self.akma_registration_timeout, register(aanf, routing_indicator, &info)).await;
        match registered.unwrap_or(Err(SbiError::TimedOut)) {
            Ok(()) => tracing::info!(target: "security", a_kid = %info.a_kid, "AKMA key registered at AAnF"),
            Err(error) => tracing::warn!(
                target: "security", %error, a_kid = %info.a_kid,
                "AAnF did not take the AKMA key: the UE is authenticated but cannot use AKMA"
            ),
        }
    }
}

async fn register(aanf: &Aanf, indicator: &RoutingIndicator, info: &AkmaKeyInfo) -> Result<(), SbiError> {
    let mut attempt = 1;
    loop {
        match register_once(aanf, indicator, info).await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_transient() && attempt < REGISTRATION_ATTEMPTS => {
                tracing::debug!(%error, "AAnF did not take the AKMA key, trying again");
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn register_once(aanf: &Aanf, indicator: &RoutingIndicator, info: &AkmaKeyInfo) -> Result<(), SbiError> {
    match aanf {
        Aanf::Fixed(aanf) => aanf.register_anchorkey(info).await.map(drop),
        Aanf::Selected(selection) => {
            let Some(aanf) = selection.of(indicator).await? else {
                let reason = "no AAnF serves the routing indicator".to_owned();
                return Err(SbiError::NrfRefused { reason, transient: false });
            };
            let registered = aanf.register_anchorkey(info).await.map(drop);
            if matches!(&registered, Err(error) if error.is_transient()) {
                selection.forget(indicator);
            }
            registered
        }
    }
}

/// At every AAnF that may have it: which one did is not remembered.
async fn remove(aanf: &Aanf, supi: &Supi) -> Result<(), SbiError> {
    match aanf {
        Aanf::Fixed(aanf) => aanf.remove_context(supi).await,
        Aanf::Selected(selection) => {
            for aanf in selection.all().await? {
                aanf.remove_context(supi).await?;
            }
            Ok(())
        }
    }
}

/// The UE is gone: its AKMA context goes, too (TS 29.509 clause 5.2.2.5, TS 29.535 clause 4.2.2.4).
pub(super) async fn deregister(
    State(ausf): State<Arc<Ausf>>,
    Extension(peer): Extension<PeerIdentity>,
    Json(info): Json<DeregistrationInfo>,
) -> Result<StatusCode, ProblemDetails> {
    authorise(&ausf.audit, &peer, &ausf.deregistration_callers, ACTION)?;
    // First: what would be confirmed after the AAnF forgot the UE would have it known there again.
    let dropped = ausf.contexts().drop_where(|context| context.supi == info.supi);
    if let Some(aanf) = &ausf.aanf {
        remove(aanf, &info.supi).await.map_err(|error| {
            tracing::warn!(target: "security", %error, "AAnF did not remove an AKMA context");
            ProblemDetails::new(StatusCode::GATEWAY_TIMEOUT).with_cause(UPSTREAM_SERVER_ERROR)
        })?;
    }
    tracing::info!(target: "security", dropped, "UE deregistered, AKMA context removed");
    Ok(StatusCode::NO_CONTENT)
}

/// The operation in audit events.
const ACTION: &str = "nausf-auth:deregister";
