//! EAP-AKA' at the AUSF (TS 33.501 clause 6.1.3.1, TS 29.509 clause 5.2.2.2.3).

use std::collections::BTreeMap;
use std::sync::Arc;

use akma::eap_aka_prime::{Challenge, Server, ServerOutcome};
use akma::{KAusf, ServingNetworkName, Supi};
use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use sbi::nausf::{AuthResult, EapSession, LINK_EAP_SESSION, Link, ResynchronizationInfo};
use sbi::nudm::{AuthType, AuthenticationVector, AvEapAkaPrime};
use sbi::{HalJson, Json, Path, PeerIdentity, ProblemDetails, cause};
use uuid::Uuid;

use super::{AV_GENERATION_PROBLEM, Ausf, Context, Method, Proven};
use crate::authorisation::authorise;

/// One EAP session, waiting for the UE's answer.
pub(super) struct EapContext {
    server: Server,
    rand: [u8; 16],
    /// Identifier of the request that is out.
    identifier: u8,
    /// How often the USIM was out of step.
    resynchronisations: u8,
}

/// EAP-Request/AKA'-Challenge, and what is kept until it is answered.
pub(super) fn challenge(
    vector: AvEapAkaPrime,
    supi: &Supi,
    serving_network_name: &ServingNetworkName,
    resynchronisations: u8,
) -> Result<(Vec<u8>, EapContext), ProblemDetails> {
    let rand = *vector.rand.as_bytes();
    let challenge = Challenge {
        rand,
        autn: *vector.autn.as_bytes(),
        xres: vector.xres,
        ck_prime: vector.ck_prime,
        ik_prime: vector.ik_prime,
    };
    // A new request has a new identifier (RFC 3748 clause 4.1).
    let identifier = resynchronisations.wrapping_add(1);
    let (server, packet) = Server::start(identifier, &challenge, supi, serving_network_name).map_err(|error| {
        tracing::error!(%error, "no EAP challenge could be made");
        ProblemDetails::internal()
    })?;
    Ok((packet, EapContext { server, rand, identifier, resynchronisations }))
}

pub(super) async fn go_on(
    State(ausf): State<Arc<Ausf>>,
    Extension(peer): Extension<PeerIdentity>,
    Path(id): Path<String>,
    Json(session): Json<EapSession>,
) -> Result<Response, ProblemDetails> {
    let caller = authorise(&ausf.audit, &peer, &ausf.callers, ACTION)?;
    let packet = session.eap_payload.ok_or_else(|| {
        ProblemDetails::bad_request(cause::MANDATORY_IE_INCORRECT).with_invalid_param("/eapPayload", "no packet")
    })?;
    let (id, mut taken) = ausf.take(&id, caller, |method| matches!(method, Method::Eap(_)))?;
    let Method::Eap(eap) = &mut taken.value.method else { return Err(ProblemDetails::internal()) };
    match eap.server.receive(&packet) {
        Err(error) => {
            // Not an answer to the request that is out: RFC 3748 clause 4.1 has it discarded, and the session waits.
            tracing::debug!(target: "security", %error, "EAP packet discarded");
            ausf.contexts().put_back(id, taken);
            Err(ProblemDetails::bad_request(cause::MANDATORY_IE_INCORRECT)
                .with_invalid_param("/eapPayload", "does not answer the EAP request"))
        }
        Ok(ServerOutcome::Authenticated { success, k_ausf, .. }) => {
            Ok(ausf.eap_succeeded(id, taken.value, success, k_ausf).await)
        }
        Ok(ServerOutcome::SynchronizationFailure { auts }) => ausf.eap_begin_anew(id, taken.value, auts).await,
        Ok(ServerOutcome::Rejected { failure, cause }) => {
            tracing::warn!(target: "security", method = "EAP-AKA'", ?cause, "UE refused");
            Ok(ausf.eap_failed(id, &taken.value, failure).await)
        }
        Ok(_) => Err(ProblemDetails::internal()),
    }
}

impl Ausf {
    async fn eap_succeeded(&self, id: Uuid, context: Context, success: Vec<u8>, k_ausf: KAusf) -> Response {
        let Context { caller, supi, serving_network_name, akma, .. } = context;
        self.report(id, caller, &supi, &serving_network_name, AuthType::EapAkaPrime, true).await;
        let k_seaf = akma::k_seaf(&k_ausf, &serving_network_name);
        self.establish_akma(&Proven { supi: supi.clone(), k_ausf, akma }).await;
        tracing::info!(target: "security", method = "EAP-AKA'", "UE authenticated");
        Json(EapSession {
            k_seaf: Some(k_seaf),
            auth_result: Some(AuthResult::AuthenticationSuccess),
            supi: Some(supi),
            ..EapSession::packet(success)
        })
        .into_response()
    }

    async fn eap_failed(&self, id: Uuid, context: &Context, failure: Vec<u8>) -> Response {
        let Context { caller, supi, serving_network_name, .. } = context;
        self.report(id, *caller, supi, serving_network_name, AuthType::EapAkaPrime, false).await;
        let auth_result = Some(AuthResult::AuthenticationFailure);
        Json(EapSession { auth_result, ..EapSession::packet(failure) }).into_response()
    }

    /// The USIM was out of step: a new vector from where it stands, in the same session (RFC 4187 clause 6.3.1).
    async fn eap_begin_anew(&self, id: Uuid, mut context: Context, auts: [u8; 14]) -> Result<Response, ProblemDetails> {
        let Method::Eap(eap) = &context.method else { return Err(ProblemDetails::internal()) };
        let (rand, identifier, resynchronisations) = (eap.rand, eap.identifier, eap.resynchronisations);
        if resynchronisations >= self.eap_resynchronisations_max {
            tracing::warn!(target: "security", "UE refused: its USIM stays out of step");
            return Ok(self.eap_failed(id, &context, eap_failure(identifier)?).await);
        }
        let info = ResynchronizationInfo { rand: rand.into(), auts: auts.into() };
        let ue = context.supi.clone().into();
        let (vector, _, _) = match self.vector(&ue, &context.serving_network_name, Some(info)).await {
            Ok(vector) => vector,
            // The AUTS was not made by the subscriber's USIM.
            Err(problem) if problem.status_code() == axum::http::StatusCode::FORBIDDEN => {
                return Ok(self.eap_failed(id, &context, eap_failure(identifier)?).await);
            }
            Err(problem) => return Err(problem),
        };
        let AuthenticationVector::EapAkaPrime(vector) = vector else {
            return Err(
                ProblemDetails::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR).with_cause(AV_GENERATION_PROBLEM)
            );
        };
        let (packet, eap) =
            challenge(vector, &context.supi, &context.serving_network_name, resynchronisations.saturating_add(1))?;
        context.method = Method::Eap(Box::new(eap));
        self.keep(id, context)?;
        let href = self.resource(id, "/eap-session");
        Ok(HalJson(EapSession {
            links: BTreeMap::from([(LINK_EAP_SESSION.to_owned(), Link { href })]),
            auth_result: Some(AuthResult::AuthenticationOngoing),
            ..EapSession::packet(packet)
        })
        .into_response())
    }
}

fn eap_failure(identifier: u8) -> Result<Vec<u8>, ProblemDetails> {
    akma::eap_aka_prime::EapPacket::Failure { identifier }.encode().map_err(|_| ProblemDetails::internal())
}

/// The operation in audit events.
const ACTION: &str = "nausf-auth:eap-session";
