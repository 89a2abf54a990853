//! What a network exposure function that fails, and limits, do to those who wait.

use super::*;

#[tokio::test]
async fn a_nef_that_is_away_is_asked_again_and_nothing_is_lost_meanwhile() {
    let net = Net::with(limits()).await;
    let mut nef = Nef::start(&net).await;
    nef.conduct(Conduct::Refuses(503));
    let _exposed = expose(&net, &section(nef.address)).await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    assert_eq!(alice.send(&storable("alice", "meter", "1")).await, Fate::stored());
    nef.trigger().await;
    nef.trigger().await;
    until(|| net.outcomes("triggers", "NEF unavailable") >= 2).await;
    nef.conduct(Conduct::Takes);
    until(|| net.outcomes("triggers", "taken") == 1).await;
}

#[tokio::test]
async fn a_nef_that_is_not_there_harms_nobody() {
    let net = Net::with(limits()).await;
    let _exposed = expose(&net, &section(SocketAddr::from(([127, 0, 0, 1], 1)))).await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    assert_eq!(alice.send(&storable("alice", "meter", "1")).await, Fate::stored());
    until(|| net.outcomes("triggers", "NEF unavailable") >= 2).await;
    let mut meter = net.sleeper("meter", OWN, None, &triggering(None)).await;
    assert_eq!(meter.receive().await.message_id.as_str(), "1");
}

#[tokio::test]
async fn a_nef_that_is_silent_talks_nonsense_or_refuses_costs_attempts() {
    for (conduct, outcome) in [
        (Conduct::Silent, "no answer in time"),
        (Conduct::Garbage, "unusable answer"),
        (Conduct::Refuses(403), "refused"),
        (Conduct::Refuses(302), "refused"),
    ] {
        let net = Net::with(Limits { trigger_attempts_max: 2, ..limits() }).await;
        let mut nef = Nef::start(&net).await;
        nef.conduct(conduct);
        // Only silence is to be cut short: the others are waited for.
        let requests = match conduct {
            Conduct::Silent => ClientLimits { request_timeout_milliseconds: 200, ..ClientLimits::default() },
            _ => ClientLimits::default(),
        };
        let _exposed = expose(&net, &ExposureSection { requests, ..section(nef.address) }).await;
        let mut alice = net.ue("alice").await;
        net.asleep("meter").await;
        assert_eq!(alice.send(&storable("alice", "meter", "1")).await, Fate::stored());
        nef.trigger().await;
        until(|| net.outcomes("triggers", outcome) == 2).await;
        assert_eq!(net.stored_for("meter"), 1, "{conduct:?}");
    }
}

#[tokio::test]
async fn a_trigger_that_failed_is_repeated_after_a_pause() {
    let (net, mut nef, _exposed) = net_and_nef().await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    alice.send(&storable("alice", "meter", "1")).await;
    let first = nef.trigger().await;
    assert_eq!(nef.report(&first, "UNCONFIRMED").await, 204);
    assert_eq!(nef.report(&first, "EXPIRED").await, 204);
    let second = nef.trigger().await;
    assert_ne!(destination(&first), destination(&second));
}

#[tokio::test]
async fn one_ue_too_many_waits_to_come_by_itself() {
    let net = Net::with(Limits { triggers_watched_max: 1, ..limits() }).await;
    let mut nef = Nef::start(&net).await;
    let _exposed = expose(&net, &section(nef.address)).await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    net.sleeper("other", "msisdn-491700000002", None, &triggering(None)).await.leave().await;
    assert_eq!(alice.send(&storable("alice", "meter", "1")).await, Fate::stored());
    assert_eq!(nef.trigger().await["msisdn"], "491700000001");
    assert_eq!(alice.send(&storable("alice", "other", "2")).await, Fate::stored());
    assert_eq!(net.outcomes("triggers", "table full"), 1);
    nef.was_asked_nothing_more();
}
