//! Sessions that rest while they are idle: whatever happens to a session happens to one that rests.

use std::hash::{BuildHasher, RandomState};

use sbi::naanf::ServiceDisabled;

use super::datagrams::Device;
use super::*;
use crate::sessions::DisabledSessions;

/// Sessions rest as soon as nothing is under way.
fn at_once() -> Limits {
    Limits { datagram_freeze_milliseconds: 1, ..Limits::default() }
}

async fn rests(net: &Net, count: usize) {
    until(|| net.core.hibernation.count() == count).await;
}

fn generation(net: &Net, name: &str) -> u64 {
    net.core.registry.find(&address(name)).unwrap().state.lock().unwrap().generation
}

fn is_away(net: &Net, name: &str) -> bool {
    !net.core.registry.find(&address(name)).unwrap().is_carried_by(generation(net, name))
}

fn key(answers_as: &str) -> ProvenKey {
    let ue_id = Some(supi_of(answers_as).parse().unwrap());
    ProvenKey { k_af: KAf::from_bytes([1; 32]), expires_at: None, ue_id, gpsi: None }
}

#[tokio::test]
async fn a_session_that_rests_goes_on_with_what_comes_from_either_side() {
    let net = Net::with(at_once()).await;
    let (mut meter, mut other) = (Device::registered(&net, "meter").await, net.ue("other").await);
    for number in 1..=5 {
        let id = number.to_string();
        rests(&net, 1).await;
        let out = meter.ask(&message("meter", "other", &id).encode());
        assert_eq!(other.receive().await.message_id.as_str(), id);
        assert_eq!(meter.fate(out).await, Fate::delivered());
        rests(&net, 1).await;
        let back = other.post(&message("other", "meter", &id)).await;
        assert_eq!(meter.receive().await.message_id.as_str(), id);
        assert_eq!(other.fate(back).await, Fate::delivered());
    }
    assert_eq!(generation(&net, "meter"), 1, "it is the same registration");
    assert_eq!(net.core.sessions.connections(), 1, "it counts while it rests");
}

#[tokio::test]
async fn a_session_rests_when_it_was_idle_for_its_time_and_not_at_all_without_one() {
    let without = Net::with(Limits { datagram_freeze_milliseconds: 0, ..Limits::default() }).await;
    let mut meter = Device::registered(&without, "meter").await;
    assert_eq!(meter.send(&message("meter", "nobody", "1")).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
    let net = Net::with(Limits { datagram_freeze_milliseconds: 100, ..Limits::default() }).await;
    let _other = Device::registered(&net, "meter").await;
    rests(&net, 1).await;
    // It has been idle for longer than the one that rests.
    assert_eq!((meter.asked(), without.core.hibernation.count()), (0, 0));
}

/// Waits until a session rests that has become idle later than all that was before.
async fn others_rest(witness: &mut Device) {
    let asked = witness.asked();
    assert_eq!(witness.send(&message("witness", "nobody", "1")).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
    until(|| witness.asked() > asked).await;
}

#[tokio::test]
async fn a_session_whose_link_never_freezes_is_not_asked_to_rest() {
    let net = Net::with(at_once()).await;
    net.associate(&supi_of("meter"), "meter");
    let mut meter = Device::connect_as(&net, peer(Some(&supi_of("meter")), None));
    meter.probe.never_freezes.store(true, Ordering::SeqCst);
    let registration = Registration { ue_service_id: "meter".parse().unwrap(), client_profile: None };
    assert_eq!(meter.exchange(&registration.encode()).await.code, Code::CREATED);
    let mut witness = Device::registered(&net, "witness").await;
    for _ in 0..3 {
        others_rest(&mut witness).await;
    }
    assert_eq!(meter.asked(), 0);
    assert_eq!(meter.send(&message("meter", "nobody", "1")).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
}

#[tokio::test]
async fn a_session_that_panics_as_it_rests_or_goes_on_leaves_its_ue_away() {
    for panics_at in [1, 2] {
        let net = Net::with(at_once()).await;
        let (mut meter, mut other) = (Device::registered(&net, "meter").await, net.ue("other").await);
        rests(&net, 1).await;
        meter.probe.panics_at.store(panics_at, Ordering::SeqCst);
        meter.ask(&message("meter", "nobody", "1").encode());
        until(|| net.core.sessions.connections() == 0).await;
        assert!(is_away(&net, "meter"));
        assert_eq!(net.core.hibernation.count(), 0);
        assert_eq!(other.send(&storable("other", "meter", "1")).await, Fate::stored());
        let mut anew = Device::registered(&net, "meter").await;
        assert_eq!(anew.receive().await.message_id.as_str(), "1");
    }
}

#[tokio::test]
async fn a_copy_of_a_request_from_before_the_rest_gets_the_same_answer_and_is_not_taken_again() {
    let net = Net::with(at_once()).await;
    let (mut meter, mut other) = (Device::registered(&net, "meter").await, net.ue("other").await);
    let out = meter.prepare(&message("meter", "other", "1").encode());
    let request = meter.take_datagram();
    meter.send_datagram(request.clone());
    assert_eq!(other.receive().await.message_id.as_str(), "1");
    let answer = meter.datagram().await;
    for _ in 0..3 {
        rests(&net, 1).await;
        meter.send_datagram(request.clone());
        assert_eq!(meter.datagram().await, answer);
    }
    // The answer was lost until now.
    meter.send_datagram(request);
    assert_eq!(meter.fate(out).await, Fate::delivered());
    let second = meter.ask(&message("meter", "other", "2").encode());
    assert_eq!(other.receive().await.message_id.as_str(), "2", "nothing came twice");
    assert_eq!(meter.fate(second).await, Fate::delivered());
}

#[tokio::test]
async fn nothing_rests_while_a_delivery_or_an_answer_is_outstanding() {
    let net = Net::with(at_once()).await;
    let (mut meter, mut other) = (Device::registered(&net, "meter").await, net.ue("other").await);
    let mut witness = Device::registered(&net, "witness").await;
    rests(&net, 2).await;
    let asked = meter.asked();
    // Its recipient has it, and does not acknowledge it yet.
    let out = meter.ask(&message("meter", "other", "1").encode());
    let (delivery, _) = other.delivery().await;
    let back = other.post(&message("other", "meter", "1")).await;
    // The delivery goes out, and is not taken yet.
    let request = meter.datagram().await;
    others_rest(&mut witness).await;
    assert_eq!(meter.asked(), asked, "an answer and a delivery are out");
    assert_eq!(net.core.open_requests(), 2, "both wait");
    other.respond(delivery, Code::CHANGED).await;
    assert_eq!(meter.fate(out).await, Fate::delivered());
    others_rest(&mut witness).await;
    assert_eq!(meter.asked(), asked, "a delivery is out");
    meter.take_in(&request);
    assert_eq!(meter.receive().await.message_id.as_str(), "1");
    assert_eq!(other.fate(back).await, Fate::delivered());
    rests(&net, 2).await;
    assert!(meter.asked() > asked);
}

#[tokio::test]
async fn a_ue_that_acknowledges_nothing_rests_as_one_that_is_away_and_gets_all_when_it_comes() {
    let net = Net::with(Limits { delivery_timeout_seconds: 1, ..at_once() }).await;
    let (mut meter, mut other) = (Device::registered(&net, "meter").await, net.ue("other").await);
    rests(&net, 1).await;
    assert_eq!(other.send(&storable("other", "meter", "1")).await, Fate::stored());
    rests(&net, 1).await;
    assert_eq!(other.send(&storable("other", "meter", "2")).await, Fate::stored());
    assert!(is_away(&net, "meter"));
    meter.lose_datagrams();
    rests(&net, 1).await;
    let out = meter.ask(&message("meter", "nobody", "1").encode());
    assert_eq!(meter.receive().await.message_id.as_str(), "1");
    assert_eq!(meter.receive().await.message_id.as_str(), "2");
    assert_eq!(meter.fate(out).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
    rests(&net, 1).await;
    assert!(!is_away(&net, "meter"));
}

#[tokio::test]
async fn a_session_that_rests_ends_when_its_key_expires() {
    let net = Net::with(at_once()).await;
    net.associate(&supi_of("meter"), "meter");
    let expires = SystemTime::now() + Duration::from_millis(1_500);
    let mut meter = Device::connect_as(&net, peer(Some(&supi_of("meter")), Some(expires)));
    let registration = Registration { ue_service_id: "meter".parse().unwrap(), client_profile: None };
    assert_eq!(meter.exchange(&registration.encode()).await.code, Code::CREATED);
    rests(&net, 1).await;
    meter.is_closed().await;
    assert!(SystemTime::now() >= expires);
    assert!(is_away(&net, "meter"));
    assert_eq!((net.core.hibernation.count(), net.core.sessions.connections()), (0, 0));
}

#[tokio::test]
async fn a_session_that_rests_ends_when_nothing_came_for_too_long() {
    let net = Net::with(Limits { datagram_idle_seconds: 1, ..at_once() }).await;
    let meter = Device::registered(&net, "meter").await;
    meter.is_closed().await;
    assert!(is_away(&net, "meter"));
}

#[tokio::test]
async fn a_session_that_rests_is_revalidated_in_its_time_and_ends_when_its_association_is_removed() {
    let net = Net::with(Limits { revalidation_seconds: 1, ..at_once() }).await;
    let meter = Device::registered(&net, "meter").await;
    // Twice it is asked for and still there.
    let asked = Arc::clone(&net.associations);
    let before = asked.asked.load(Ordering::Relaxed);
    until(|| asked.asked.load(Ordering::Relaxed) >= before + 2).await;
    rests(&net, 1).await;
    net.associations.known.lock().unwrap().clear();
    meter.is_closed().await;
    assert!(is_away(&net, "meter"));
}

#[tokio::test]
async fn akma_disabled_or_a_newer_a_kid_ends_a_session_that_rests() {
    let keys = Arc::new(Keys { answer: Mutex::new(Some(Some(key("meter")))), ..Keys::default() });
    let net = Net::of(Setup { limits: at_once(), keys: Some(Arc::clone(&keys)), ..Setup::default() }).await;
    net.associate(&supi_of("meter"), "meter");
    net.associate(&supi_of("meter"), "meter-too");
    let registered = async |a_kid: &str, name: &str| {
        let a_kid: AKid = format!("0.{a_kid}@5gc.mnc001.mcc001.3gppnetwork.org").parse().unwrap();
        let peer = ProvenPeer { a_kid, ..peer(Some(&supi_of("meter")), None) };
        let mut device = Device::connect_as(&net, peer);
        let registration = Registration { ue_service_id: name.parse().unwrap(), client_profile: None };
        assert_eq!(device.exchange(&registration.encode()).await.code, Code::CREATED);
        device
    };
    let older = registered("older", "meter").await;
    rests(&net, 1).await;
    *keys.answer.lock().unwrap() = Some(None);
    let newer = registered("newer", "meter-too").await;
    older.is_closed().await;
    assert!(is_away(&net, "meter"));
    rests(&net, 1).await;
    let consumer = DisabledSessions(Arc::clone(&net.core));
    assert_eq!(consumer.service_disabled(&"0.newer@5gc.mnc001.mcc001.3gppnetwork.org".parse().unwrap()), 1);
    newer.is_closed().await;
    assert!(is_away(&net, "meter-too"));
}

#[tokio::test]
async fn a_newer_session_of_the_ue_ends_one_that_rests() {
    let net = Net::with(at_once()).await;
    let older = Device::registered(&net, "meter").await;
    rests(&net, 1).await;
    let mut newer = Device::registered(&net, "meter").await;
    older.is_closed().await;
    rests(&net, 1).await;
    let mut other = net.ue("other").await;
    let out = other.post(&message("other", "meter", "1")).await;
    assert_eq!(newer.receive().await.message_id.as_str(), "1");
    assert_eq!(other.fate(out).await, Fate::delivered());
}

/// Traffic both ways that pauses at random, so that sessions rest and go on at every moment; every datagram comes twice.
#[tokio::test]
async fn whenever_a_session_rests_each_message_arrives_once_and_in_order() {
    for seed in 0..4 {
        let net = Net::with(at_once()).await;
        let (mut meter, mut other) = (Device::registered(&net, "meter").await, Device::registered(&net, "other").await);
        (meter.stutters, other.stutters) = (true, true);
        // No more than a session rests with (RFC 7252 4.5: it remembers each for minutes).
        for round in 0..24_u64 {
            let random = RandomState::new().hash_one((seed, round));
            if random & 12 == 0 {
                rests(&net, 2).await;
            } else {
                tokio::time::sleep(Duration::from_micros(random >> 8 & 4_095)).await;
            }
            let id = round.to_string();
            let out = (random & 1 == 0).then(|| meter.ask(&message("meter", "other", &id).encode()));
            let home = (random & 2 == 0).then(|| other.ask(&message("other", "meter", &id).encode()));
            if let Some(out) = out {
                assert_eq!(other.receive().await.message_id.as_str(), id);
                assert_eq!(meter.fate(out).await, Fate::delivered());
            }
            if let Some(home) = home {
                assert_eq!(meter.receive().await.message_id.as_str(), id);
                assert_eq!(other.fate(home).await, Fate::delivered());
            }
            assert!(meter.requests.is_empty() && other.requests.is_empty(), "round {round}");
        }
        rests(&net, 2).await;
        assert_eq!(net.core.sessions.connections(), 2);
    }
}

#[tokio::test]
async fn a_stop_ends_sessions_that_rest() {
    let net = Net::with(at_once()).await;
    let meter = Device::registered(&net, "meter").await;
    rests(&net, 1).await;
    net.core.sessions.stop_all();
    meter.is_closed().await;
    until(|| net.core.sessions.connections() == 0).await;
}
