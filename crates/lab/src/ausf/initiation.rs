//! The beginning of an authentication (TS 29.509 clause 5.2.2.2).

use std::collections::BTreeMap;
use std::sync::Arc;

use akma::{ServingNetworkName, Supi};
use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header::LOCATION};
use axum::response::AppendHeaders;
use sbi::nausf::{
    AuthType, AuthenticationInfo, FiveGAuthData, LINK_5G_AKA, LINK_EAP_SESSION, Link, ResynchronizationInfo,
    SupiOrSuci, UEAuthenticationCtx,
};
use sbi::nudm::{AuthenticationInfoRequest, AuthenticationInfoResult, AuthenticationVector};
use sbi::{HalJson, Json, PeerIdentity, ProblemDetails};
use uuid::Uuid;

use super::{
    AV_GENERATION_PROBLEM, Ausf, Context, Method, SERVING_NETWORK_NOT_AUTHORIZED, eap_session, five_g_aka, udm_refusal,
};
use crate::authorisation::authorise;

type Created = (StatusCode, AppendHeaders<[(HeaderName, String); 1]>, HalJson<UEAuthenticationCtx>);

pub(super) async fn authenticate(
    State(ausf): State<Arc<Ausf>>,
    Extension(peer): Extension<PeerIdentity>,
    Json(info): Json<AuthenticationInfo>,
) -> Result<Created, ProblemDetails> {
    let caller = authorise(&ausf.audit, &peer, &ausf.callers, ACTION)?;
    if !ausf.serving_networks.contains(info.serving_network_name.as_str()) {
        let network = info.serving_network_name.as_str();
        ausf.audit.refused_for(&caller.to_string(), ACTION, network, "serving_network");
        return Err(ProblemDetails::forbidden(SERVING_NETWORK_NOT_AUTHORIZED));
    }
    let (vector, supi, result) =
        ausf.vector(&info.supi_or_suci, &info.serving_network_name, info.resynchronization_info).await?;
    let id = Uuid::new_v4();
    let (auth_type, data, link, path, method) = match vector {
        AuthenticationVector::FiveGHeAka(vector) => {
            let (av, kept) = five_g_aka::challenge(vector);
            let data = FiveGAuthData::Av5gAka(av);
            (AuthType::FiveGAka, data, LINK_5G_AKA, "/5g-aka-confirmation", Method::FiveGAka(kept))
        }
        AuthenticationVector::EapAkaPrime(vector) => {
            let (packet, kept) = eap_session::challenge(vector, &supi, &info.serving_network_name, 0)?;
            let data = FiveGAuthData::EapPayload(Some(packet));
            (AuthType::EapAkaPrime, data, LINK_EAP_SESSION, "/eap-session", Method::Eap(Box::new(kept)))
        }
    };
    let akma = result.akma_ind.then(|| result.routing_id.unwrap_or_default());
    let serving_network_name = info.serving_network_name;
    let context = Context { caller, supi, serving_network_name: serving_network_name.clone(), akma, method };
    ausf.keep(id, context)?;
    let answer = UEAuthenticationCtx {
        auth_type,
        five_g_auth_data: data,
        links: BTreeMap::from([(link.to_owned(), Link { href: ausf.resource(id, path) })]),
        serving_network_name: Some(serving_network_name),
    };
    Ok((StatusCode::CREATED, AppendHeaders([(LOCATION, ausf.resource(id, ""))]), HalJson(answer)))
}

impl Ausf {
    /// A vector from UDM, with whose it is.
    pub(super) async fn vector(
        &self,
        ue: &SupiOrSuci,
        serving_network_name: &ServingNetworkName,
        resynchronization_info: Option<ResynchronizationInfo>,
    ) -> Result<(AuthenticationVector, Supi, AuthenticationInfoResult), ProblemDetails> {
        let request = AuthenticationInfoRequest {
            supported_features: None,
            serving_network_name: serving_network_name.clone(),
            resynchronization_info,
            ausf_instance_id: self.nf_instance_id.to_string(),
        };
        let mut result = self.udm.generate_auth_data(ue, &request).await.map_err(|error| udm_refusal(&error))?;
        let supi = result.supi.clone().or_else(|| ue.supi());
        match (result.authentication_vector.take(), supi) {
            (Some(vector), Some(supi)) => Ok((vector, supi, result)),
            _ => {
                tracing::warn!("UDM answered without a vector or without a SUPI");
                Err(ProblemDetails::new(StatusCode::INTERNAL_SERVER_ERROR).with_cause(AV_GENERATION_PROBLEM))
            }
        }
    }
}

/// The operation in audit events.
const ACTION: &str = "nausf-auth:authenticate";
