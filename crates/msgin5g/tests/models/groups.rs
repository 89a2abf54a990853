//! Groups of a group management server that is not what it should be (TS 23.554 clause 8.7.4): whoever sends is told, and nobody
//! gets a message that is not a member for sure.

use axum::http::StatusCode;
use message::UeServiceId;
use sbi::ss_gm::VALGroupDocument;
use serde_json::{Value, json};

use crate::common::Lab;
use crate::neighbour::{Manner, Relay};
use crate::peer::TestAs;
use crate::wire::{address, storable, with};
use crate::world::{LAMP, METER, TRACKER, World, passes};

const FLEET: &str = "fleet@lab.example";

/// A group's document as the management server has it, further or other members included.
fn document(group: &str, members: &[&str], beside: Value) -> Value {
    let members: Vec<UeServiceId> = members.iter().map(|name| name.parse().unwrap()).collect();
    let document = VALGroupDocument::new(group.parse().unwrap()).with_members(&members);
    with(serde_json::to_value(document).unwrap(), beside)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_server_that_answers_nonsense_gets_nothing_delivered_and_the_sender_is_told() {
    let lab = Lab::start();
    let relay = Relay::before(&lab, "configuration").await;
    let root = relay.root();
    let variables = [
        ("MSGIN5G_GROUP_MANAGEMENT__URL", root.as_str()),
        ("MSGIN5G_LIMITS__GROUP_CACHE_SECONDS", "0"),
        ("MSGIN5G_LIMITS__GROUP_TIMEOUT_SECONDS", "2"),
    ];
    let world = World::beside(lab, &variables);
    let (mut meter, mut tracker, mut lamp) = (world.ue(METER), world.ue(TRACKER), world.ue(LAMP));
    let (own, fleet) = (meter.address(), address("GROUP", FLEET));
    let wrong = ["meter-1@lab.example", "tracker-4@lab.example"];
    assert_eq!(tracker.service_id, wrong[1]);
    let right = |beside: Value| document(FLEET, &wrong, beside);
    let large = json!([right(json!({"valGrpDesc": "x".repeat(300_000)}))]);
    let not_json = Manner::Saying(StatusCode::OK, "text/html", "<html>".to_owned());
    let (unavailable, unknown) = (("5.03", 503, "MEMBERS_UNAVAILABLE"), ("4.04", 404, "UNKNOWN_TARGET"));
    let fleet_as = TestAs::registered(&world.lab, &world.server, "fleet").await;
    for (number, (what, manner, told)) in [
        ("no JSON", not_json, unavailable),
        ("half of it", Manner::saying("[{\"valGroupId\":"), unavailable),
        ("an object", Manner::saying(right(json!({}))), unavailable),
        ("numbers", Manner::saying("[1, 2]"), unavailable),
        ("nothing", Manner::saying(""), unavailable),
        ("more than is read", Manner::saying(large), unavailable),
        ("the same twice", Manner::saying(json!([right(json!({})), right(json!({}))])), unavailable),
        (
            "a restriction that it does not know",
            Manner::saying(json!([right(json!({"valGrpConf": "{\"only\":1}"}))])),
            unavailable,
        ),
        ("a configuration that is none", Manner::saying(json!([right(json!({"valGrpConf": "{"}))])), unavailable),
        ("no answer", Manner::Silent, unavailable),
        ("a failure", Manner::status(StatusCode::INTERNAL_SERVER_ERROR), unavailable),
        ("another group", Manner::saying(json!([document("pumps@lab.example", &wrong, json!({}))])), unknown),
        ("no group", Manner::saying("[]"), unknown),
    ]
    .into_iter()
    .enumerate()
    {
        relay.is(manner);
        let asked = relay.asked();
        let answer = meter.request(storable(&own, &fleet, &format!("{number}")));
        assert_eq!((answer.code.as_str(), answer.cause()), (told.0, Some(told.2)), "{what}");
        let answer = fleet_as.send(&world.server, &storable(&fleet_as.address, &fleet, &format!("{number}"))).await;
        let refused = answer.expect_err(what);
        assert_eq!((refused.status, refused.cause.as_str()), (told.1, told.2), "{what}");
        assert_eq!(relay.asked(), asked + 2, "{what}");
    }
    // Who is really in it hears the first message after all that, and who is not hears none of the group at all.
    relay.is(Manner::Honest);
    assert!(meter.request(storable(&own, &fleet, "after")).is_stored());
    assert_eq!(lamp.receive(1), ["after"], "the first that comes");
    passes(&mut meter, &mut tracker, "alone");
}
