//! Who is triggered, when, and under which name.

use message::CommunicationAvailability;
use time::OffsetDateTime;

use super::*;

#[tokio::test]
async fn a_sleeping_ue_is_triggered_and_gets_its_message_when_it_comes() {
    let (net, mut nef, _exposed) = net_and_nef().await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    assert_eq!(alice.send(&storable("alice", "meter", "1")).await, Fate::stored());
    let trigger = nef.trigger().await;
    assert_eq!(trigger["msisdn"], "491700000001");
    assert_eq!((&trigger["applicationPortId"], &trigger["priority"]), (&json!(5000), &json!("NO_PRIORITY")));
    assert_eq!(trigger["validityPeriod"], net.core.limits.trigger_validity_seconds);
    let payload = base64_of(br#"{"msgType":"TRIGGER","ueSvcId":"meter"}"#);
    assert_eq!(trigger["triggerPayload"], payload);
    assert_eq!(nef.report(&trigger, "SUCCESS").await, 204);
    until(|| net.outcomes("triggers", "taken") == 1).await;

    let mut meter = net.sleeper("meter", OWN, None, &triggering(None)).await;
    assert_eq!(meter.receive().await.message_id.as_str(), "1");
    until(|| net.stored_for("meter") == 0).await;
    assert_eq!(net.core.reachability.watched(), 0);
    // The NEF's last word comes when nobody waits for it any more.
    assert_eq!(nef.report(&trigger, "SUCCESS").await, 204);
    nef.was_asked_nothing_more();
}

/// Standard base64, as JSON has octets.
fn base64_of(octets: &[u8]) -> String {
    let message = Message { payload: octets.to_vec(), ..message("a", "b", "1") };
    let coded: Value = serde_json::from_slice(&message.encode()).unwrap();
    coded["payload"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_ue_that_comes_by_itself_has_its_trigger_withdrawn() {
    let (net, mut nef, _exposed) = net_and_nef().await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    alice.send(&storable("alice", "meter", "1")).await;
    nef.trigger().await;
    until(|| net.outcomes("triggers", "taken") == 1).await;
    let mut meter = net.sleeper("meter", OWN, None, &triggering(None)).await;
    meter.receive().await;
    assert_eq!(nef.asked().await, Asked::Withdrawn("0".to_owned()));
}

#[tokio::test]
async fn many_messages_make_one_trigger_and_a_ue_without_triggering_information_none() {
    let (net, mut nef, _exposed) = net_and_nef().await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    net.away_ue("plain").await;
    for id in 0..10 {
        assert_eq!(alice.send(&storable("alice", "plain", &format!("p{id}"))).await, Fate::stored());
        assert_eq!(alice.send(&storable("alice", "meter", &format!("m{id}"))).await, Fate::stored());
    }
    assert_eq!(nef.trigger().await["msisdn"], "491700000001");
    // Whatever else were asked would be asked before this.
    net.sleeper("other", "msisdn-491700000002", None, &triggering(None)).await.leave().await;
    let urgent = Message { priority: Priority::High, ..storable("alice", "other", "o") };
    assert_eq!(alice.send(&urgent).await, Fate::stored());
    let trigger = nef.trigger().await;
    assert_eq!((&trigger["msisdn"], &trigger["priority"]), (&json!("491700000002"), &json!("PRIORITY")));
}

#[tokio::test]
async fn without_a_nef_nobody_is_watched() {
    let net = Net::with(limits()).await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    assert_eq!(alice.send(&storable("alice", "meter", "1")).await, Fate::stored());
    assert_eq!(net.core.reachability.watched(), 0);
}

#[tokio::test]
async fn a_window_that_is_closed_is_waited_for() {
    let (net, mut nef, _exposed) = net_and_nef().await;
    let mut alice = net.ue("alice").await;
    let now = OffsetDateTime::now_utc();
    let window = |start| CommunicationAvailability { start, duration_seconds: 1000, interval_seconds: None };
    let (closed, open) = (window(now + time::Duration::hours(1)), window(now - time::Duration::seconds(100)));
    let profile = |availability| ClientProfile { availability: Some(availability), ..triggering(None) };
    net.sleeper("later", "msisdn-491700000002", None, &profile(closed)).await.leave().await;
    net.sleeper("meter", OWN, None, &profile(open)).await.leave().await;
    assert_eq!(alice.send(&storable("alice", "later", "1")).await, Fate::stored());
    assert_eq!(alice.send(&storable("alice", "meter", "2")).await, Fate::stored());
    let trigger = nef.trigger().await;
    assert_eq!(trigger["msisdn"], "491700000001");
    let validity = trigger["validityPeriod"].as_u64().unwrap();
    assert!((1..=900).contains(&validity), "{validity}");
    assert_eq!(net.core.reachability.watched(), 2);
    nef.was_asked_nothing_more();
}

#[tokio::test]
async fn a_ue_cannot_have_somebody_else_triggered() {
    let (net, mut nef, _exposed) = net_and_nef().await;
    let mut alice = net.ue("alice").await;
    // Its own identifier is proven; the one that it names is another's.
    net.sleeper("forger", OWN, None, &triggering(Some(OTHER))).await.leave().await;
    // Only its SUPI is known, and it names nothing, or what nobody says is its.
    net.sleeper("hidden", SUPI, None, &triggering(None)).await.leave().await;
    net.sleeper("liar", SUPI, None, &triggering(Some(OTHER))).await.leave().await;
    for (count, name) in (1..).zip(["forger", "hidden", "liar"]) {
        assert_eq!(alice.send(&storable("alice", name, name)).await, Fate::stored());
        until(|| net.outcomes("triggers", "not allowed") == count).await;
    }
    nef.was_asked_nothing_more();
    // What is stored is delivered all the same.
    let mut liar = net.sleeper("liar", SUPI, None, &triggering(None)).await;
    assert_eq!(liar.receive().await.message_id.as_str(), "liar");
}

#[tokio::test]
async fn a_ue_whose_association_is_gone_is_not_triggered() {
    let (net, mut nef, _exposed) = net_and_nef().await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    net.associations.known.lock().unwrap().remove(OWN);
    assert_eq!(alice.send(&storable("alice", "meter", "1")).await, Fate::stored());
    until(|| net.outcomes("triggers", "not allowed") == 1).await;
    nef.was_asked_nothing_more();
}

#[tokio::test]
async fn an_identifier_that_is_associated_with_the_same_ue_service_id_may_be_named() {
    let (net, mut nef, _exposed) = net_and_nef().await;
    let mut alice = net.ue("alice").await;
    net.associate(OTHER, "meter");
    net.sleeper("meter", SUPI, None, &triggering(Some(OTHER))).await.leave().await;
    alice.send(&storable("alice", "meter", "1")).await;
    assert_eq!(nef.trigger().await["externalId"], "meter-8@example.com");
}

#[tokio::test]
async fn a_gpsi_that_the_aanf_tells_beside_the_supi_is_used_and_the_supi_never_leaves() {
    let (net, mut nef, exposed) = net_and_nef().await;
    let mut alice = net.ue("alice").await;
    net.sleeper("meter", SUPI, Some(OWN), &triggering(None)).await.leave().await;
    alice.send(&storable("alice", "meter", "1")).await;
    assert_eq!(nef.trigger().await["msisdn"], "491700000001");
    alice.leave().await;
    // It is known after a restart, too.
    exposed.stop().await;
    let net = net.restart().await;
    let _exposed = expose(&net, &section(nef.address)).await;
    assert_eq!(nef.trigger().await["msisdn"], "491700000001");
}

#[tokio::test]
async fn nobody_is_triggered_while_the_configuration_function_is_silent() {
    let (net, mut nef, _exposed) = net_and_nef().await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    *net.associations.mood.lock().unwrap() = Mood::Fails;
    alice.send(&storable("alice", "meter", "1")).await;
    until(|| net.outcomes("triggers", "undecided") >= 1).await;
    nef.was_asked_nothing_more();
    *net.associations.mood.lock().unwrap() = Mood::Answers;
    nef.trigger().await;
}

#[tokio::test]
async fn another_protocol_than_short_messages_is_not_offered() {
    let (net, mut nef, _exposed) = net_and_nef().await;
    let mut alice = net.ue("alice").await;
    let mut profile = triggering(None);
    profile.triggering.as_mut().unwrap().protocol = Some("NIDD".to_owned());
    net.sleeper("meter", OWN, None, &profile).await.leave().await;
    alice.send(&storable("alice", "meter", "1")).await;
    until(|| net.outcomes("triggers", "protocol not supported") == 1).await;
    nef.was_asked_nothing_more();
}
