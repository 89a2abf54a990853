//! What comes after a successful authentication: AKMA keys to the AAnF; and their end (TS 33.535 clause 6.1, 6.6).

use std::sync::Arc;

use akma::AKid;
use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use sbi::naanf::{AkmaKeyInfo, NaanfClient};
use sbi::nausf::DeregistrationInfo;
use sbi::{Json, PeerIdentity, ProblemDetails, SbiError};
use tokio::time::timeout;

use super::{Ausf, Proven, SERVICE, UPSTREAM_SERVER_ERROR};
use crate::authorisation::authorise;

/// How often the AAnF is asked to take a key; the serving network waits meanwhile.
const REGISTRATION_ATTEMPTS: u32 = 2;

impl Ausf {
    /// Derives K_AKMA and A-KID and has the AAnF take them, where the subscription allows AKMA. Where it does not, those
    /// of an earlier authentication end all the same: they are good until the next one (TS 33.535 clause 5.2).
    pub(super) async fn establish_akma(&self, proven: &Proven) {
        let Some(aanf) = &self.aanf else { return };
        let Some(routing_indicator) = &proven.akma else {
            if let Err(error) = aanf.remove_context(&proven.supi).await {
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
        let registered = timeout(self.akma_registration_timeout, register(aanf, &info)).await;
        match registered.unwrap_or(Err(SbiError::TimedOut)) {
            Ok(()) => tracing::info!(target: "security", a_kid = %info.a_kid, "AKMA key registered at AAnF"),
            Err(error) => tracing::warn!(
                target: "security", %error, a_kid = %info.a_kid,
                "AAnF did not take the AKMA key: the UE is authenticated but cannot use AKMA"
            ),
        }
    }
}

async fn register(aanf: &NaanfClient, info: &AkmaKeyInfo) -> Result<(), SbiError> {
    let mut attempt = 1;
    loop {
        match aanf.register_anchorkey(info).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_transient() && attempt < REGISTRATION_ATTEMPTS => {
                tracing::debug!(%error, "AAnF did not take the AKMA key, trying again");
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The UE is gone: its AKMA context goes, too (TS 29.509 clause 5.2.2.5, TS 29.535 clause 4.2.2.4).
pub(super) async fn deregister(
    State(ausf): State<Arc<Ausf>>,
    Extension(peer): Extension<PeerIdentity>,
    Json(info): Json<DeregistrationInfo>,
) -> Result<StatusCode, ProblemDetails> {
    authorise(&peer, &ausf.callers, SERVICE)?;
    if let Some(aanf) = &ausf.aanf {
        aanf.remove_context(&info.supi).await.map_err(|error| {
            tracing::warn!(target: "security", %error, "AAnF did not remove an AKMA context");
            ProblemDetails::new(StatusCode::GATEWAY_TIMEOUT).with_cause(UPSTREAM_SERVER_ERROR)
        })?;
    }
    tracing::info!(target: "security", "UE deregistered, AKMA context removed");
    Ok(StatusCode::NO_CONTENT)
}
