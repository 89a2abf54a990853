//! Authentication vectors (TS 29.503 clause 5.4.2.2, TS 33.501 clause 6.1.3).
//!
//! Caller → SUCI to SUPI → subscriber → AUTS, if the USIM was out of step → SQN, on disk → vector.

use std::sync::Arc;

use akma::eap_aka_prime::Challenge;
use akma::{Suci, Supi};
use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use sbi::nudm::{
    AuthType, AuthenticationInfoRequest, AuthenticationInfoResult, AuthenticationVector, Av5GHeAka, AvEapAkaPrime,
    ResynchronizationInfo, SupiOrSuci,
};
use sbi::{Json, Path, PeerIdentity, ProblemDetails, cause};

use super::{Udm, fault, user_not_found};
use crate::LabError;
use crate::authorisation::authorise;
use crate::subscription::{AuthenticationMethod, Subscription};

/// The operation in audit events.
const ACTION: &str = "nudm-ueau:generate-auth-data";
/// TS 29.503 table 6.3.7.3-1.
const AUTHENTICATION_REJECTED: &str = "AUTHENTICATION_REJECTED";
const INVALID_HN_PUBLIC_KEY_IDENTIFIER: &str = "INVALID_HN_PUBLIC_KEY_IDENTIFIER";
const INVALID_SCHEME_OUTPUT: &str = "INVALID_SCHEME_OUTPUT";
const UNSUPPORTED_PROTECTION_SCHEME: &str = "UNSUPPORTED_PROTECTION_SCHEME";

pub(super) async fn generate_auth_data(
    State(udm): State<Arc<Udm>>,
    Extension(peer): Extension<PeerIdentity>,
    Path(ue): Path<SupiOrSuci>,
    Json(request): Json<AuthenticationInfoRequest>,
) -> Result<Json<AuthenticationInfoResult>, ProblemDetails> {
    let ausf = authorise(&udm.audit, &peer, &udm.ausf_callers, ACTION)?;
    if request.ausf_instance_id.parse() != Ok(ausf) {
        udm.audit.refused_for(&ausf.to_string(), ACTION, &request.ausf_instance_id, "another_ausf");
        return Err(ProblemDetails::forbidden(AUTHENTICATION_REJECTED)
            .with_invalid_param("/ausfInstanceId", "is not the one in the certificate"));
    }
    let supi = udm.supi(&ue)?;
    let subscription = udm.table.subscription(&supi).map_err(fault)?.ok_or_else(user_not_found)?;
    if let Some(info) = &request.resynchronization_info {
        udm.resynchronise(&subscription, info).await?;
    }
    let vector = udm.vector(&subscription, &request.serving_network_name).await.map_err(fault)?;
    let auth_type = match vector {
        AuthenticationVector::FiveGHeAka(_) => AuthType::FiveGAka,
        AuthenticationVector::EapAkaPrime(_) => AuthType::EapAkaPrime,
    };
    tracing::info!(target: "security", %ausf, ?auth_type, "authentication vector given out");
    Ok(Json(AuthenticationInfoResult {
        auth_type,
        supported_features: None,
        authentication_vector: Some(vector),
        supi: Some(supi),
        akma_ind: subscription.akma_allowed,
        routing_id: subscription.akma_allowed.then_some(subscription.routing_indicator),
    }))
}

impl Udm {
    fn supi(&self, ue: &SupiOrSuci) -> Result<Supi, ProblemDetails> {
        if let Some(supi) = ue.supi() {
            return Ok(supi);
        }
        let suci: Suci = ue.as_str().parse().map_err(|error| match error {
            akma::Error::UnsupportedSuciScheme => unsupported_scheme(),
            _ => ProblemDetails::bad_request(cause::MANDATORY_IE_INCORRECT)
                .with_invalid_param("{supiOrSuci}", "is not a SUCI"),
        })?;
        self.home_keys.deconceal(&suci).map_err(|error| {
            tracing::warn!(target: "security", %error, "SUCI refused");
            match error {
                akma::Error::UnsupportedSuciScheme => unsupported_scheme(),
                akma::Error::UnknownSuciKey => ProblemDetails::forbidden(INVALID_HN_PUBLIC_KEY_IDENTIFIER),
                _ => ProblemDetails::forbidden(INVALID_SCHEME_OUTPUT),
            }
        })
    }

    async fn resynchronise(
        &self,
        subscription: &Subscription,
        info: &ResynchronizationInfo,
    ) -> Result<(), ProblemDetails> {
        let credentials = subscription.credentials().map_err(fault)?;
        let sqn_ms = credentials.verify_auts(info.rand.as_bytes(), info.auts.as_bytes()).map_err(|_| {
            tracing::warn!(target: "security", "AUTS refused: not made by the subscriber's USIM");
            ProblemDetails::forbidden(AUTHENTICATION_REJECTED)
                .with_invalid_param("/resynchronizationInfo/auts", "does not verify")
        })?;
        self.table.resynchronise(&subscription.supi, sqn_ms).await.map_err(fault)?;
        tracing::info!(target: "security", "sequence number resynchronised with the USIM");
        Ok(())
    }

    async fn vector(
        &self,
        subscription: &Subscription,
        network: &akma::ServingNetworkName,
    ) -> Result<AuthenticationVector, LabError> {
        let credentials = subscription.credentials()?;
        let mut rand = [0; 16];
        getrandom::fill(&mut rand).map_err(|_| LabError::Random)?;
        // Before the vector exists: what leaves here must never be repeated, whatever fails next.
        let sqn = self.table.next_sqn(&subscription.supi).await?;
        let vector = credentials.vector(&rand, sqn, subscription.authentication_management_field);
        Ok(match subscription.authentication_method {
            AuthenticationMethod::FiveGAka => AuthenticationVector::FiveGHeAka(Av5GHeAka {
                rand: rand.into(),
                xres_star: vector.xres_star(network),
                autn: vector.autn.into(),
                kausf: vector.k_ausf(network),
            }),
            AuthenticationMethod::EapAkaPrime => {
                let challenge = Challenge::new(&vector, network);
                AuthenticationVector::EapAkaPrime(AvEapAkaPrime {
                    rand: rand.into(),
                    xres: challenge.xres,
                    autn: challenge.autn.into(),
                    ck_prime: challenge.ck_prime,
                    ik_prime: challenge.ik_prime,
                })
            }
        })
    }
}

fn unsupported_scheme() -> ProblemDetails {
    ProblemDetails::new(StatusCode::NOT_IMPLEMENTED).with_cause(UNSUPPORTED_PROTECTION_SCHEME)
}
