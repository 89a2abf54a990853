//! 5G AKA at the AUSF (TS 33.501 clause 6.1.3.2, TS 29.509 clause 5.2.2.2.2).

use std::sync::Arc;

use akma::{KAusf, ResStar};
use axum::Extension;
use axum::extract::State;
use sbi::nausf::{AuthResult, Av5gAka, ConfirmationData, ConfirmationDataResponse};
use sbi::nudm::{AuthType, Av5GHeAka};
use sbi::{Json, Path, PeerIdentity, ProblemDetails};

use super::{Ausf, Context, Method, Proven};
use crate::authorisation::authorise;

/// What the AUSF keeps of a vector until the UE answers.
pub(super) struct FiveGAkaContext {
    xres_star: ResStar,
    k_ausf: KAusf,
}

/// The serving network's half of a home environment vector, and ours.
pub(super) fn challenge(vector: Av5GHeAka) -> (Av5gAka, FiveGAkaContext) {
    let hxres_star = akma::hxres_star(vector.rand.as_bytes(), &vector.xres_star);
    let av = Av5gAka { rand: vector.rand, hxres_star, autn: vector.autn };
    (av, FiveGAkaContext { xres_star: vector.xres_star, k_ausf: vector.kausf })
}

pub(super) async fn confirm(
    State(ausf): State<Arc<Ausf>>,
    Extension(peer): Extension<PeerIdentity>,
    Path(id): Path<String>,
    Json(confirmation): Json<ConfirmationData>,
) -> Result<Json<ConfirmationDataResponse>, ProblemDetails> {
    let caller = authorise(&ausf.audit, &peer, &ausf.callers, ACTION)?;
    let (id, taken) = ausf.take(&id, caller, |method| matches!(method, Method::FiveGAka(_)))?;
    let Context { supi, serving_network_name, akma, method: Method::FiveGAka(expected), .. } = taken.value else {
        return Err(ProblemDetails::internal());
    };
    // The comparison is in constant time; no RES* at all means that the UE gave none.
    let proven = confirmation.res_star.is_some_and(|res_star| res_star == expected.xres_star);
    ausf.report(id, caller, &supi, &serving_network_name, AuthType::FiveGAka, proven).await;
    if !proven {
        tracing::warn!(target: "security", method = "5G AKA", "UE refused: wrong RES*");
        return Ok(Json(ConfirmationDataResponse {
            auth_result: AuthResult::AuthenticationFailure,
            supi: None,
            kseaf: None,
        }));
    }
    let kseaf = akma::k_seaf(&expected.k_ausf, &serving_network_name);
    ausf.establish_akma(&Proven { supi: supi.clone(), k_ausf: expected.k_ausf, akma }).await;
    tracing::info!(target: "security", method = "5G AKA", "UE authenticated");
    Ok(Json(ConfirmationDataResponse {
        auth_result: AuthResult::AuthenticationSuccess,
        supi: Some(supi),
        kseaf: Some(kseaf),
    }))
}

/// The operation in audit events.
const ACTION: &str = "nausf-auth:5g-aka-confirmation";
