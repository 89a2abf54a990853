//! Reachability monitoring before the trigger.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::*;

#[tokio::test]
async fn a_one_time_check_of_reachability_comes_before_the_trigger() {
    let (net, mut nef, _exposed) = monitored().await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    alice.send(&storable("alice", "meter", "1")).await;
    let subscription = nef.subscription().await;
    assert_eq!(
        (&subscription["maximumNumberOfReports"], &subscription["monitorExpireTime"]),
        (&json!(1), &Value::Null)
    );
    let test = json!({"subscription": "https://nef.example/subscriptions/0"});
    assert_eq!(nef.notify(destination(&subscription), &test).await, 204);
    until(|| net.outcomes("subscriptions", "taken") == 1).await;
    nef.was_asked_nothing_more();
    assert_eq!(nef.say_reachable(&subscription).await, 204);
    let trigger = nef.trigger().await;
    assert_eq!(nef.report(&trigger, "SUCCESS").await, 204);
    until(|| net.outcomes("triggers", "taken") == 1).await;
    let mut meter = net.sleeper("meter", OWN, None, &triggering(None)).await;
    meter.receive().await;
    nef.was_asked_nothing_more();
}

#[tokio::test]
async fn monitoring_that_lasts_ends_with_the_ue() {
    let net = Net::with(limits()).await;
    let mut nef = Nef::start(&net).await;
    let lasting = ExposureSection {
        reachability_monitoring: true,
        monitoring_reports: 5,
        monitoring_seconds: Some(7200),
        ..section(nef.address)
    };
    let _exposed = expose(&net, &lasting).await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    alice.send(&storable("alice", "meter", "1")).await;
    let subscription = nef.subscription().await;
    assert_eq!(subscription["maximumNumberOfReports"], 5);
    let ends = OffsetDateTime::parse(subscription["monitorExpireTime"].as_str().unwrap(), &Rfc3339).unwrap();
    let lasts = ends - OffsetDateTime::now_utc();
    assert!(lasts > time::Duration::hours(1) && lasts <= time::Duration::hours(2), "{lasts}");
    assert_eq!(nef.say_reachable(&subscription).await, 204);
    let trigger = nef.trigger().await;
    assert_eq!(nef.say_reachable(&subscription).await, 204);
    assert_eq!(nef.report(&trigger, "SUCCESS").await, 204);
    until(|| net.outcomes("triggers", "taken") == 1).await;
    let mut meter = net.sleeper("meter", OWN, None, &triggering(None)).await;
    meter.receive().await;
    assert_eq!(nef.asked().await, Asked::Unsubscribed("0".to_owned()));
}

#[tokio::test]
async fn a_report_at_once_and_a_refusal_both_lead_to_the_trigger() {
    for conduct in [Conduct::ReportsAtOnce, Conduct::Refuses(403)] {
        let (net, mut nef, _exposed) = monitored().await;
        nef.conduct(conduct);
        let mut alice = net.ue("alice").await;
        net.asleep("meter").await;
        alice.send(&storable("alice", "meter", "1")).await;
        nef.subscription().await;
        nef.trigger().await;
    }
}
