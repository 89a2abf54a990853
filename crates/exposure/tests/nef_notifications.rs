//! What application functions outside are told of AKMA disabled, and by whom.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::{A_KID, AANF, PATIENCE, SERVER, STRANGER, Target, World, problem, refused};
use exposure::nef::refusal;
use serde_json::{Value, json};
use tokio::time::timeout;

const RETRIEVE: &str = "/3gpp-akma/v1/retrieve";

/// A question whose answer says whether it will be told at `uri`.
fn question(uri: &str) -> Value {
    json!({"afId": "weather.example:0100000007", "aKId": A_KID, "suppFeat": "1", "notifUri": uri})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_af_outside_is_told_that_akma_is_disabled_also_when_it_was_away() {
    let world = World::start().await;
    let weather = world.af("weather");
    let mut target = Target::start(&weather.files, world.shutdown.clone()).await;
    let uri = format!("{}/akma", target.root);
    let answer = weather.post(RETRIEVE, &question(&uri)).await.unwrap().into_body().unwrap();
    assert_eq!(answer["suppFeat"], "1");
    // Away for now: the AAnF tries again, and the NEF has nothing to remember.
    *target.answer.lock().unwrap() = (503, None);
    world.remove_context().await;
    *target.answer.lock().unwrap() = (204, None);
    let told = timeout(PATIENCE, target.deliveries.recv()).await.unwrap().unwrap();
    assert_eq!(told, ("akma".to_owned(), json!({"aKId": A_KID})));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_af_that_wants_not_to_be_told_is_not_promised_it() {
    let world = World::start().await;
    let weather = world.af("weather");
    let uri = "https://127.0.0.1:1/akma";
    let mut question = question(uri);
    question["suppFeat"] = json!("0");
    let answer = weather.post(RETRIEVE, &question).await.unwrap().into_body().unwrap();
    assert_eq!(answer["suppFeat"], "0");
    question.as_object_mut().unwrap().remove("notifUri");
    question["suppFeat"] = json!("1");
    let answer = weather.post(RETRIEVE, &question).await.unwrap().into_body().unwrap();
    assert_eq!(answer["suppFeat"], "0");
    // A URI that does not go into ours is not kept, and that is said.
    let long = format!("https://127.0.0.1:1/{}", "a".repeat(480));
    let answer = weather.post(RETRIEVE, &self::question(&long)).await.unwrap().into_body().unwrap();
    assert_eq!(answer["suppFeat"], "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_has_others_told_nor_tells_in_the_place_of_the_aanf() {
    let world = World::start().await;
    let weather = world.af("weather");
    for uri in ["https://parking.example/akma", "https://127.0.0.2/akma"] {
        refused(weather.post(RETRIEVE, &question(uri)).await, 403, refusal::NOTIFICATION_URI_NOT_ALLOWED);
    }

    let target = Target::start(&weather.files, world.shutdown.clone()).await;
    let coded = |text: &str| {
        use base64::Engine;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
    };
    let door = |text: &str| format!("{}/akma-notifications/v1/relay/{}", world.nef_inside(), coded(text));
    let right = door(&format!("weather {}/akma", target.root));
    let body = json!({"aKId": A_KID});
    for peer in [SERVER, STRANGER] {
        let outcome = world.inside.client(peer).post_any(&right, &body).await;
        assert!(problem(outcome.unwrap_err()).has_cause(refusal::REQUESTER_NOT_ALLOWED), "{peer}");
    }
    // The AAnF is no authority on whom we send to: an AF that has no entry is nobody, and a URI that is none is none.
    let aanf = world.inside.client(AANF);
    for wrong in ["nobody https://127.0.0.1:1/akma", "weather http://127.0.0.1:1/akma", "weather", ""] {
        let status = problem(aanf.post_any(&door(wrong), &body).await.unwrap_err()).status;
        assert_eq!(status, Some(404), "{wrong}");
    }
    let malformed = aanf.post_any(&right, &json!({"aKId": 7})).await;
    assert_eq!(problem(malformed.unwrap_err()).status, Some(400));
    aanf.post_any(&right, &body).await.unwrap();
    // Who says no has been told.
    *target.answer.lock().unwrap() = (404, None);
    assert_eq!(problem(aanf.post_any(&right, &body).await.unwrap_err()).status, Some(404));
    *target.answer.lock().unwrap() = (500, None);
    assert_eq!(problem(aanf.post_any(&right, &body).await.unwrap_err()).status, Some(503));
}
