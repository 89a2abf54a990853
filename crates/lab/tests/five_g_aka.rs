//! 5G AKA over the AUSF's real interface, with a USIM in software.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use akma::{AKid, AfId, KAkma, UaProtocolId, Usim, UsimFailure};
use common::{Core, refusal, usim};
use lab::LabSubscriber;
use sbi::nausf::{AuthResult, ConfirmationDataResponse, FiveGAuthData, ResynchronizationInfo, UEAuthenticationCtx};

struct Ue {
    a_kid: AKid,
    k_akma: KAkma,
}

fn challenge_of(context: &UEAuthenticationCtx) -> ([u8; 16], [u8; 16]) {
    match &context.five_g_auth_data {
        FiveGAuthData::Av5gAka(av) => (*av.rand.as_bytes(), *av.autn.as_bytes()),
        FiveGAuthData::EapPayload(_) => panic!("5G AKA was expected"),
    }
}

/// Runs 5G AKA to its end, checking what the UE and the serving network can check.
async fn authenticate(core: &Core, subscriber: &LabSubscriber, usim: &mut Usim) -> (ConfirmationDataResponse, Ue) {
    let context = core.challenge(subscriber).await;
    let (rand, autn) = challenge_of(&context);
    let answer = usim.authenticate(&rand, &autn).unwrap();
    let res_star = answer.res_star(&core.snn());
    let FiveGAuthData::Av5gAka(av) = &context.five_g_auth_data else { panic!() };
    assert_eq!(akma::hxres_star(&rand, &res_star), av.hxres_star, "the serving network's own check");
    let confirmation = core.ausf().confirm_5g_aka(&context, Some(res_star)).await.unwrap();
    let k_ausf = answer.k_ausf(&core.snn());
    assert_eq!(confirmation.kseaf, Some(akma::k_seaf(&k_ausf, &core.snn())));
    let a_tid = akma::a_tid(&k_ausf, &subscriber.supi);
    let a_kid = AKid::format(&subscriber.routing_indicator.parse().unwrap(), &a_tid, core.directory.home_network());
    (confirmation, Ue { a_kid, k_akma: akma::k_akma(&k_ausf, &subscriber.supi) })
}

#[tokio::test]
async fn a_ue_that_proves_itself_has_its_key_at_the_aanf() {
    let core = Core::start().await;
    // MILENAGE and TUAK
    for number in [1, 6] {
        let subscriber = core.subscriber(number);
        let (confirmation, ue) = authenticate(&core, &subscriber, &mut usim(&subscriber)).await;
        assert_eq!(confirmation.auth_result, AuthResult::AuthenticationSuccess);
        assert_eq!(confirmation.supi.as_ref(), Some(&subscriber.supi));
        let (k_af, supi) = core.k_af(&ue.a_kid).await.expect("the A-KID is known");
        let af_id = AfId::new(core.directory.server_fqdn().parse().unwrap(), UaProtocolId::TLS_1_3);
        assert_eq!(k_af, akma::k_af(&ue.k_akma, &af_id));
        assert_eq!(supi, subscriber.supi);
    }
}

#[tokio::test]
async fn a_new_authentication_replaces_the_a_kid() {
    let core = Core::start().await;
    let subscriber = core.subscriber(1);
    let mut usim = usim(&subscriber);
    let (_, older) = authenticate(&core, &subscriber, &mut usim).await;
    let (_, newer) = authenticate(&core, &subscriber, &mut usim).await;
    assert!(core.k_af(&older.a_kid).await.is_none());
    assert!(core.k_af(&newer.a_kid).await.is_some());
}

#[tokio::test]
async fn a_ue_without_akma_authenticates_and_has_no_key_at_the_aanf() {
    let core = Core::start().await;
    let subscriber = core.subscriber(8);
    let (confirmation, ue) = authenticate(&core, &subscriber, &mut usim(&subscriber)).await;
    assert_eq!(confirmation.auth_result, AuthResult::AuthenticationSuccess);
    assert!(core.k_af(&ue.a_kid).await.is_none());
}

#[tokio::test]
async fn authentication_does_not_hang_on_the_aanf() {
    // No token is to be had for an AAnF that has left the NRF; that is asked anew at once.
    let at_once = |config: &mut lab::ausf::Config| config.nrf.as_mut().unwrap().limits.refusal_milliseconds = 0;
    let mut core = Core::start_with(at_once).await;
    core.stop_aanf().await;
    let subscriber = core.subscriber(1);
    let mut usim = usim(&subscriber);
    let (confirmation, without) = authenticate(&core, &subscriber, &mut usim).await;
    assert_eq!(confirmation.auth_result, AuthResult::AuthenticationSuccess);
    core.start_aanf().await;
    core.all_registered().await;
    assert!(core.k_af(&without.a_kid).await.is_none());
    let (_, with) = authenticate(&core, &subscriber, &mut usim).await;
    assert!(core.k_af(&with.a_kid).await.is_some(), "authenticating again makes AKMA usable");
}

#[tokio::test]
async fn authentication_does_not_wait_for_an_aanf_that_never_answers() {
    let impatient = |config: &mut lab::ausf::Config| {
        config.limits.akma_registration_timeout_milliseconds = 100;
        // There is no token for an AAnF that has left the NRF, and without one nothing would be sent to it.
        config.nrf.as_mut().unwrap().without_token.insert("naanf-akma".to_owned());
    };
    let mut core = Core::start_with(impatient).await;
    core.stop_aanf().await;
    let silent = tokio::net::TcpListener::bind(core.ports.aanf).await.unwrap();
    let subscriber = core.subscriber(1);
    let (confirmation, _) = authenticate(&core, &subscriber, &mut usim(&subscriber)).await;
    assert_eq!(confirmation.auth_result, AuthResult::AuthenticationSuccess);
    drop(silent);
}

#[tokio::test]
async fn a_wrong_res_star_fails_and_cannot_be_tried_again() {
    let core = Core::start().await;
    let subscriber = core.subscriber(1);
    let context = core.challenge(&subscriber).await;
    let (rand, autn) = challenge_of(&context);
    let answer = usim(&subscriber).authenticate(&rand, &autn).unwrap();
    let mut wrong = *answer.res_star(&core.snn()).expose();
    wrong[15] ^= 1;
    let confirmation = core.ausf().confirm_5g_aka(&context, Some(akma::ResStar::from_bytes(wrong))).await.unwrap();
    let expected = ConfirmationDataResponse { auth_result: AuthResult::AuthenticationFailure, supi: None, kseaf: None };
    assert_eq!(confirmation, expected);
    let right = core.ausf().confirm_5g_aka(&context, Some(answer.res_star(&core.snn()))).await;
    assert_eq!(refusal(right), (404, "CONTEXT_NOT_FOUND".to_owned()));
    let a_tid = akma::a_tid(&answer.k_ausf(&core.snn()), &subscriber.supi);
    let a_kid = AKid::format(&"0".parse().unwrap(), &a_tid, core.directory.home_network());
    assert!(core.k_af(&a_kid).await.is_none());
}

#[tokio::test]
async fn a_ue_that_gives_no_res_star_fails() {
    let core = Core::start().await;
    let context = core.challenge(&core.subscriber(1)).await;
    let confirmation = core.ausf().confirm_5g_aka(&context, None).await.unwrap();
    assert_eq!(confirmation.auth_result, AuthResult::AuthenticationFailure);
}

#[tokio::test]
async fn a_usim_ahead_of_the_home_network_brings_it_up_to_date() {
    let core = Core::start().await;
    let subscriber = core.subscriber(1);
    let ahead = akma::Sqn::new(1 << 20).unwrap();
    let mut usim = Usim::new(common::credentials(&subscriber), ahead);
    let (rand, autn) = challenge_of(&core.challenge(&subscriber).await);
    let Err(UsimFailure::Synchronisation { auts }) = usim.authenticate(&rand, &autn) else { panic!() };
    let mut info = core.info(subscriber.supi.as_str());
    info.resynchronization_info = Some(ResynchronizationInfo { rand: rand.into(), auts: auts.into() });
    let context = core.ausf().authenticate(&info).await.unwrap();
    let (rand, autn) = challenge_of(&context);
    let answer = usim.authenticate(&rand, &autn).unwrap();
    let confirmation = core.ausf().confirm_5g_aka(&context, Some(answer.res_star(&core.snn()))).await.unwrap();
    assert_eq!(confirmation.auth_result, AuthResult::AuthenticationSuccess);
    assert!(usim.sqn_ms() > ahead);
    // The same AUTS again must not take the home network back.
    core.ausf().authenticate(&info).await.unwrap();
    let (rand, autn) = challenge_of(&core.challenge(&subscriber).await);
    usim.authenticate(&rand, &autn).unwrap();
}

#[tokio::test]
async fn an_auts_of_another_usim_is_refused_and_changes_nothing() {
    let core = Core::start().await;
    let (subscriber, other) = (core.subscriber(1), core.subscriber(2));
    let (rand, _) = challenge_of(&core.challenge(&subscriber).await);
    let auts = common::credentials(&other).auts(&rand, akma::Sqn::new(1 << 40).unwrap());
    let mut info = core.info(subscriber.supi.as_str());
    info.resynchronization_info = Some(ResynchronizationInfo { rand: rand.into(), auts: auts.into() });
    assert_eq!(refusal(core.ausf().authenticate(&info).await), (403, "AUTHENTICATION_REJECTED".to_owned()));
    let mut usim = usim(&subscriber);
    authenticate(&core, &subscriber, &mut usim).await;
    assert!(usim.sqn_ms().value() < 1 << 20);
}

#[tokio::test]
async fn deregistration_removes_the_key_from_the_aanf() {
    let core = Core::start().await;
    let subscriber = core.subscriber(1);
    let (_, ue) = authenticate(&core, &subscriber, &mut usim(&subscriber)).await;
    core.ausf().deregister(&subscriber.supi).await.unwrap();
    assert!(core.k_af(&ue.a_kid).await.is_none());
    core.ausf().deregister(&subscriber.supi).await.expect("nothing left to remove is no error");
}

#[tokio::test]
async fn a_result_can_be_deleted_once() {
    let core = Core::start().await;
    let subscriber = core.subscriber(1);
    let context = core.challenge(&subscriber).await;
    let (rand, autn) = challenge_of(&context);
    let answer = usim(&subscriber).authenticate(&rand, &autn).unwrap();
    let link = context.links[sbi::nausf::LINK_5G_AKA].href.clone();
    let http = core.http("lab-nf");
    let early = http.delete::<serde_json::Value>(&link).await;
    assert_eq!(refusal(early), (404, "CONTEXT_NOT_FOUND".to_owned()), "there is no result yet");
    core.ausf().confirm_5g_aka(&context, Some(answer.res_star(&core.snn()))).await.unwrap();
    assert_eq!(http.delete::<serde_json::Value>(&link).await.unwrap().status, 204);
    let again = http.delete::<serde_json::Value>(&link).await;
    assert_eq!(refusal(again), (404, "CONTEXT_NOT_FOUND".to_owned()));
}

#[tokio::test]
async fn location_and_link_are_full_uris_of_the_authentication() {
    let core = Core::start().await;
    let subscriber = core.subscriber(1);
    let uri = format!("{}/nausf-auth/v1/ue-authentications", core.root_of_ausf());
    let info = core.info(subscriber.supi.as_str());
    let answer = core.http("lab-nf").post::<_, UEAuthenticationCtx>(&uri, &info).await.unwrap();
    assert_eq!(answer.status, 201);
    let location = answer.location.unwrap();
    assert!(location.starts_with(&format!("{uri}/")), "{location}");
    let link = &answer.body.unwrap().links[sbi::nausf::LINK_5G_AKA].href;
    assert_eq!(*link, format!("{location}/5g-aka-confirmation"));
}

#[tokio::test]
async fn an_authentication_under_way_when_the_ue_is_removed_comes_to_nothing() {
    let core = Core::start().await;
    let (subscriber, other) = (core.subscriber(1), core.subscriber(2));
    let (context, of_other) = (core.challenge(&subscriber).await, core.challenge(&other).await);
    let (rand, autn) = challenge_of(&context);
    let res_star = usim(&subscriber).authenticate(&rand, &autn).unwrap().res_star(&core.snn());
    core.ausf().deregister(&subscriber.supi).await.unwrap();
    let confirmed = core.ausf().confirm_5g_aka(&context, Some(res_star)).await;
    assert_eq!(refusal(confirmed), (404, "CONTEXT_NOT_FOUND".to_owned()));
    let (rand, autn) = challenge_of(&of_other);
    let res_star = usim(&other).authenticate(&rand, &autn).unwrap().res_star(&core.snn());
    let confirmed = core.ausf().confirm_5g_aka(&of_other, Some(res_star)).await.unwrap();
    assert_eq!(confirmed.auth_result, AuthResult::AuthenticationSuccess, "nobody else's");
}
