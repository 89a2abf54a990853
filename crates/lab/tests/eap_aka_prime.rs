//! EAP-AKA' over the AUSF's real interface, with a USIM in software.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use akma::eap_aka_prime::{EapPacket, Peer, PeerOutcome};
use akma::{AKid, KAusf, Usim};
use common::{Core, refusal, usim};
use lab::LabSubscriber;
use sbi::nausf::{AuthResult, AuthType, FiveGAuthData, UEAuthenticationCtx};

const EAP_SUBSCRIBER: usize = 7;

fn packet_of(context: &UEAuthenticationCtx) -> Vec<u8> {
    assert_eq!(context.auth_type, AuthType::EapAkaPrime);
    match &context.five_g_auth_data {
        FiveGAuthData::EapPayload(Some(packet)) => packet.clone(),
        other => panic!("an EAP packet was expected: {other:?}"),
    }
}

fn peer(core: &Core, subscriber: &LabSubscriber) -> Peer {
    Peer::new(subscriber.supi.clone(), core.snn())
}

fn answered(outcome: PeerOutcome) -> (Vec<u8>, KAusf) {
    match outcome {
        PeerOutcome::Answered { response, k_ausf, .. } => (response, k_ausf),
        other => panic!("the peer should have answered: {other:?}"),
    }
}

fn refused(outcome: PeerOutcome) -> Vec<u8> {
    match outcome {
        PeerOutcome::Refused { response, .. } => response,
        other => panic!("the peer should have refused: {other:?}"),
    }
}

fn a_kid(core: &Core, subscriber: &LabSubscriber, k_ausf: &KAusf) -> AKid {
    AKid::format(
        &subscriber.routing_indicator.parse().unwrap(),
        &akma::a_tid(k_ausf, &subscriber.supi),
        core.directory.home_network(),
    )
}

#[tokio::test]
async fn a_ue_that_proves_itself_has_its_key_at_the_aanf() {
    let core = Core::start().await;
    let subscriber = core.subscriber(EAP_SUBSCRIBER);
    let context = core.challenge(&subscriber).await;
    let outcome = peer(&core, &subscriber).answer(&mut usim(&subscriber), &packet_of(&context)).unwrap();
    let (response, k_ausf) = answered(outcome);
    let session = core.ausf().eap_session(&context.links, response).await.unwrap();
    assert_eq!(session.auth_result, Some(AuthResult::AuthenticationSuccess));
    assert!(matches!(EapPacket::decode(&session.eap_payload.unwrap()), Ok(EapPacket::Success { .. })));
    assert_eq!(session.k_seaf, Some(akma::k_seaf(&k_ausf, &core.snn())));
    assert_eq!(session.supi.as_ref(), Some(&subscriber.supi));
    let (_, supi) = core.k_af(&a_kid(&core, &subscriber, &k_ausf)).await.expect("the A-KID is known");
    assert_eq!(supi, subscriber.supi);
}

#[tokio::test]
async fn an_altered_answer_fails_and_cannot_be_tried_again() {
    let core = Core::start().await;
    let subscriber = core.subscriber(EAP_SUBSCRIBER);
    let context = core.challenge(&subscriber).await;
    let outcome = peer(&core, &subscriber).answer(&mut usim(&subscriber), &packet_of(&context)).unwrap();
    let (response, k_ausf) = answered(outcome);
    let mut altered = response.clone();
    *altered.last_mut().unwrap() ^= 1;
    let session = core.ausf().eap_session(&context.links, altered).await.unwrap();
    assert_eq!(session.auth_result, Some(AuthResult::AuthenticationFailure));
    assert!(matches!(EapPacket::decode(&session.eap_payload.unwrap()), Ok(EapPacket::Failure { .. })));
    assert!(session.k_seaf.is_none() && session.supi.is_none());
    let again = core.ausf().eap_session(&context.links, response).await;
    assert_eq!(refusal(again), (404, "CONTEXT_NOT_FOUND".to_owned()));
    assert!(core.k_af(&a_kid(&core, &subscriber, &k_ausf)).await.is_none());
}

#[tokio::test]
async fn a_ue_with_another_key_rejects_the_network_and_fails() {
    let core = Core::start().await;
    let subscriber = core.subscriber(EAP_SUBSCRIBER);
    let context = core.challenge(&subscriber).await;
    let mut foreign = usim(&core.subscriber(1));
    let response = refused(peer(&core, &subscriber).answer(&mut foreign, &packet_of(&context)).unwrap());
    let session = core.ausf().eap_session(&context.links, response).await.unwrap();
    assert_eq!(session.auth_result, Some(AuthResult::AuthenticationFailure));
}

#[tokio::test]
async fn what_answers_no_request_is_discarded_and_the_session_goes_on() {
    let core = Core::start().await;
    let subscriber = core.subscriber(EAP_SUBSCRIBER);
    let context = core.challenge(&subscriber).await;
    let (response, _) =
        answered(peer(&core, &subscriber).answer(&mut usim(&subscriber), &packet_of(&context)).unwrap());
    let mut other_identifier = response.clone();
    other_identifier[1] ^= 0xFF;
    for packet in
        [Vec::new(), vec![0; 4], response[..response.len() - 1].to_vec(), packet_of(&context), other_identifier]
    {
        let discarded = core.ausf().eap_session(&context.links, packet).await;
        assert_eq!(refusal(discarded), (400, "MANDATORY_IE_INCORRECT".to_owned()));
    }
    let session = core.ausf().eap_session(&context.links, response).await.unwrap();
    assert_eq!(session.auth_result, Some(AuthResult::AuthenticationSuccess));
}

#[tokio::test]
async fn a_usim_out_of_step_gets_a_new_challenge_in_the_same_session() {
    let core = Core::start().await;
    let subscriber = core.subscriber(EAP_SUBSCRIBER);
    let ahead = akma::Sqn::new(1 << 20).unwrap();
    let mut usim = Usim::new(common::credentials(&subscriber), ahead);
    let context = core.challenge(&subscriber).await;
    let failure = refused(peer(&core, &subscriber).answer(&mut usim, &packet_of(&context)).unwrap());
    let session = core.ausf().eap_session(&context.links, failure).await.unwrap();
    assert_eq!(session.auth_result, Some(AuthResult::AuthenticationOngoing));
    assert_eq!(session.links, context.links);
    let request = session.eap_payload.unwrap();
    let (response, _) = answered(peer(&core, &subscriber).answer(&mut usim, &request).unwrap());
    let session = core.ausf().eap_session(&session.links, response).await.unwrap();
    assert_eq!(session.auth_result, Some(AuthResult::AuthenticationSuccess));
}

#[tokio::test]
async fn a_usim_that_stays_out_of_step_fails_after_the_limit() {
    let core = Core::start_with(|config| config.limits.eap_resynchronisations_max = 1).await;
    let subscriber = core.subscriber(EAP_SUBSCRIBER);
    let context = core.challenge(&subscriber).await;
    let mut packet = packet_of(&context);
    let mut results = Vec::new();
    for step in 1..=2_u64 {
        // A USIM that is always ahead of what the home network has just learnt.
        let mut usim = Usim::new(common::credentials(&subscriber), akma::Sqn::new(step << 20).unwrap());
        let failure = refused(peer(&core, &subscriber).answer(&mut usim, &packet).unwrap());
        let session = core.ausf().eap_session(&context.links, failure).await.unwrap();
        results.push(session.auth_result.unwrap());
        packet = session.eap_payload.unwrap();
    }
    assert_eq!(results, [AuthResult::AuthenticationOngoing, AuthResult::AuthenticationFailure]);
    assert!(matches!(EapPacket::decode(&packet), Ok(EapPacket::Failure { .. })));
}

#[tokio::test]
async fn an_eap_session_is_no_5g_aka_confirmation() {
    let core = Core::start().await;
    let context = core.challenge(&core.subscriber(EAP_SUBSCRIBER)).await;
    let link = context.links[sbi::nausf::LINK_EAP_SESSION].href.replace("eap-session", "5g-aka-confirmation");
    let body = serde_json::json!({"resStar": "00".repeat(16)});
    let answer = core.http("lab-nf").put::<_, serde_json::Value>(&link, &body).await;
    assert_eq!(refusal(answer), (404, "CONTEXT_NOT_FOUND".to_owned()));
}
