//! What is told of decisions on UEs.

use sbi::testing::audit::AuditLog;

use super::fan_out::topic_address;
use super::*;

const A_KID: &str = "0.00ff@5gc.mnc001.mcc001.3gppnetwork.org";

/// `alerts` is published by `chief` alone and subscribed to by `crew`; the area is the `chief`'s.
fn rules() -> Setup {
    let pattern = |text: &str| vec![text.parse().unwrap()];
    let alerts = TopicSection {
        name: "alerts".to_owned(),
        publishers: pattern("UE:audited-chief"),
        subscribers: pattern("UE:audited-crew"),
    };
    let area = BroadcastAreaSection { area: "audited-area".parse().unwrap(), senders: pattern("UE:audited-chief") };
    let gateway = Some("https://127.0.0.1:1".to_owned());
    let destinations =
        DestinationsSetup { topics: vec![alerts], areas: vec![area], gateway, ..DestinationsSetup::default() };
    Setup { destinations, ..Setup::default() }
}

#[tokio::test]
async fn which_service_id_a_ue_may_be_is_told_with_its_a_kid_and_never_its_supi() {
    let log = AuditLog::record();
    let net = Net::new().await;
    net.associate("imsi-001010000000777", "audited-meter");
    let mut ue = net.connect("imsi-001010000000777");
    assert_eq!(ue.register("audited-other").await.code, Code::FORBIDDEN);
    let of_this = |outcome, reason, object| {
        [("subject", A_KID), ("action", "ue-register"), ("outcome", outcome), ("reason", reason), ("object", object)]
    };
    log.next_with(&of_this("refused", "not_associated", "audited-other")).await;
    *net.associations.mood.lock().unwrap() = Mood::Fails;
    assert_eq!(ue.register("audited-meter").await.code, Code::SERVICE_UNAVAILABLE);
    log.next_with(&of_this("refused", "association_unknown", "audited-meter")).await;
    *net.associations.mood.lock().unwrap() = Mood::Answers;
    assert_eq!(ue.register("audited-meter").await.code, Code::CREATED);
    log.next_with(&of_this("allowed", "associated", "audited-meter")).await;
    assert!(!log.mentions("001010000000777"));
}

#[tokio::test]
async fn an_association_that_is_gone_is_told_when_it_is_asked_for_again() {
    let log = AuditLog::record();
    let net = Net::with(Limits { revalidation_seconds: 1, ..Limits::default() }).await;
    net.associate("imsi-001010000000778", "audited-leaver");
    let mut ue = net.connect("imsi-001010000000778");
    assert_eq!(ue.register("audited-leaver").await.code, Code::CREATED);
    net.associations.known.lock().unwrap().clear();
    assert_eq!(ue.ended().await, Ended::AssociationRemoved);
    let told = [("action", "ue-revalidate"), ("outcome", "refused"), ("object", "audited-leaver")];
    assert_eq!(log.next_with(&told).await["reason"], "not_associated");
}

#[tokio::test]
async fn what_the_rules_say_of_topics_and_areas_is_told() {
    let log = AuditLog::record();
    let net = Net::of(rules()).await;
    let (mut chief, mut crew) = (net.ue("audited-chief").await, net.ue("audited-crew").await);
    let told = async |subject: &str, action: &str, object: &str, outcome: &str, reason: &str| {
        let fields = [("subject", subject), ("action", action), ("object", object), ("outcome", outcome)];
        assert_eq!(log.next_with(&fields).await["reason"], reason, "{fields:?}");
    };
    crew.subscribe("audited-crew", "alerts").await;
    told("UE:audited-crew", "topic-subscribe", "alerts", "allowed", "done").await;
    assert_eq!(chief.subscribe_until("audited-chief", &["alerts", "others"], None).await.1.status, "REFUSED");
    told("UE:audited-chief", "topic-subscribe", "alerts others", "refused", "not_allowed").await;
    assert_eq!(chief.subscribe_until("audited-crew", &["alerts"], None).await.1.status, "REFUSED");
    told("UE:audited-chief", "topic-subscribe", "UE:audited-crew", "refused", "not_yours").await;
    assert_eq!(crew.unsubscribe("audited-crew", &["alerts"]).await.0, "2.04");
    told("UE:audited-crew", "topic-unsubscribe", "alerts", "allowed", "done").await;

    let to = |from: &str, destination: Address, id| Message { destination, ..storable(from, "x", id) };
    let alerts = topic_address("alerts");
    let refused = crew.send(&to("audited-crew", alerts.clone(), "m1")).await;
    assert_eq!(refused, Fate::failed("4.03", "TOPIC_NOT_ALLOWED"));
    told("UE:audited-crew", "publish", "TOPIC:alerts", "refused", "not_allowed").await;
    let _ = chief.send(&to("audited-chief", alerts.clone(), "m2")).await;
    told("UE:audited-chief", "publish", "TOPIC:alerts", "allowed", "rule").await;
    let area = Address { addr_type: message::AddressType::Bc, addr: "audited-area".parse().unwrap() };
    let refused = crew.send(&to("audited-crew", area.clone(), "m3")).await;
    assert_eq!(refused, Fate::failed("4.03", "BROADCAST_NOT_ALLOWED"));
    let area = area.to_string();
    told("UE:audited-crew", "broadcast", &area, "refused", "not_allowed").await;
    let forged = crew.send(&to("audited-chief", alerts, "m4")).await;
    assert_eq!(forged, Fate::failed("4.03", "ORIGINATOR_NOT_ALLOWED"));
    told("UE:audited-crew", "send", "UE:audited-chief", "refused", "not_yours").await;
}
