//! Identifier translation: the GPSI that stands for a SUPI outside the operator's domain (TS 29.503 clause 5.2.2.2.9).

use std::sync::Arc;

use akma::UeId;
use axum::Extension;
use axum::extract::State;
use sbi::nudm::IdTranslationResult;
use sbi::{Json, Path, PeerIdentity, ProblemDetails};

use super::{Udm, fault, user_not_found};
use crate::authorisation::authorise;

pub(super) async fn translate(
    State(udm): State<Arc<Udm>>,
    Extension(peer): Extension<PeerIdentity>,
    Path(ue_id): Path<UeId>,
) -> Result<Json<IdTranslationResult>, ProblemDetails> {
    authorise(&udm.audit, &peer, &udm.translation_callers, ACTION)?;
    let supi = match ue_id {
        UeId::Supi(supi) => supi,
        UeId::Gpsi(gpsi) => udm.table.supi_of(&gpsi).map_err(fault)?.ok_or_else(user_not_found)?,
    };
    let subscription = udm.table.subscription(&supi).map_err(fault)?.ok_or_else(user_not_found)?;
    Ok(Json(IdTranslationResult { supi, gpsi: subscription.gpsi }))
}

/// The operation in audit events.
const ACTION: &str = "nudm-sdm:id-translation-result";
