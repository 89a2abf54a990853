//! What is left of triggers after a restart.

use super::*;

#[tokio::test]
async fn a_restart_forgets_triggers_and_wakes_whoever_still_has_messages_waiting() {
    let (net, mut nef, exposed) = net_and_nef().await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    alice.send(&storable("alice", "meter", "1")).await;
    let before = nef.trigger().await;
    until(|| net.outcomes("triggers", "taken") == 1).await;
    alice.leave().await;
    exposed.stop().await;
    let net = net.restart().await;
    let exposed = expose(&net, &section(nef.address)).await;
    let after = nef.trigger().await;
    assert_ne!(destination(&before), destination(&after));
    let token = destination(&before).rsplit('/').next().unwrap();
    let forgotten = format!("https://{}/notifications/triggers/{token}", exposed.server.local_addr());
    let report = json!({"transaction": "/0", "result": "SUCCESS"});
    assert_eq!(notify_as(&nef.client, &forgotten, &report).await, (404, "NOTIFICATION_NOT_FOUND".to_owned()));
    let mut meter = net.sleeper("meter", OWN, None, &triggering(None)).await;
    assert_eq!(meter.receive().await.message_id.as_str(), "1");
}

#[tokio::test]
async fn a_crash_while_the_nef_is_asked_loses_nothing() {
    let (net, mut nef, exposed) = net_and_nef().await;
    nef.conduct(Conduct::Silent);
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    assert_eq!(alice.send(&storable("alice", "meter", "1")).await, Fate::stored());
    nef.trigger().await;
    alice.leave().await;
    exposed.stop().await;
    let net = net.restart().await;
    nef.conduct(Conduct::Takes);
    let _exposed = expose(&net, &section(nef.address)).await;
    nef.trigger().await;
    let mut meter = net.sleeper("meter", OWN, None, &triggering(None)).await;
    assert_eq!(meter.receive().await.message_id.as_str(), "1");
}

#[tokio::test]
async fn a_ue_that_comes_back_after_a_restart_is_not_triggered() {
    let net = Net::with(Limits { trigger_restart_pause_seconds: 3600, ..limits() }).await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    alice.send(&storable("alice", "meter", "1")).await;
    alice.leave().await;
    let net = net.restart().await;
    let mut nef = Nef::start(&net).await;
    let _exposed = expose(&net, &section(nef.address)).await;
    assert_eq!(net.core.reachability.watched(), 1);
    let mut meter = net.sleeper("meter", OWN, None, &triggering(None)).await;
    meter.receive().await;
    assert_eq!(net.core.reachability.watched(), 0);
    nef.was_asked_nothing_more();
}
