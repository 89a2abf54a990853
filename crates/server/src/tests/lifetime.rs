//! What a key's lifetime is to those who live by it.

use sbi::naanf::ServiceDisabled;

use super::*;
use crate::sessions::DisabledSessions;

fn a_kid(name: &str) -> AKid {
    format!("0.{name}@5gc.mnc001.mcc001.3gppnetwork.org").parse().unwrap()
}

/// A connection of alice, proven by this A-KID.
fn by(net: &Net, name: &str) -> Ue {
    net.connect_as(ProvenPeer { a_kid: a_kid(name), ..peer(Some(&supi_of("alice")), None) }, STREAM_OCTETS)
}

async fn net_of_alice(answer: Option<Option<ProvenKey>>) -> Net {
    let keys = Arc::new(Keys { answer: Mutex::new(answer), ..Keys::default() });
    let net = Net::of(Setup { keys: Some(keys), ..Setup::default() }).await;
    net.associate(&supi_of("alice"), "alice");
    net.associate(&supi_of("alice"), "alice-too");
    net
}

fn expiring(seconds: u64) -> ProvenPeer {
    peer(Some(&supi_of("alice")), Some(SystemTime::now() + Duration::from_secs(seconds)))
}

#[tokio::test]
async fn the_answer_to_a_registration_says_how_long_its_key_is_good() {
    let net = net_of_alice(None).await;
    let mut ue = net.connect_as(expiring(1000), STREAM_OCTETS);
    let left = ue.register("alice").await.max_age.unwrap();
    assert!((900..=1000).contains(&left), "{left}");
    assert!(ue.deregister("alice").await.max_age.is_none());
    let mut ue = net.connect(&supi_of("alice"));
    assert!(ue.register("alice").await.max_age.is_none(), "a key without an expiry");
}

#[tokio::test]
async fn a_request_after_the_expiry_is_answered_with_that_and_taken_by_nobody() {
    let net = net_of_alice(None).await;
    let mut ue = net.connect_as(expiring(0), STREAM_OCTETS);
    // It is there before the session looks for the first time.
    let response = ue.register("alice").await;
    assert_eq!(response.code, Code::UNAUTHORIZED);
    assert_eq!(registration_cause(&response), "AUTHENTICATION_EXPIRED");
    assert_eq!(ue.ended().await, Ended::KeyExpired);
    assert_eq!(net.core.registry.ues(), 0);
}

#[tokio::test]
async fn a_newer_a_kid_of_the_ue_has_the_connections_of_the_older_asked_for_at_once() {
    // No A-KID is known any more, which is asked of nobody but the older one.
    let net = net_of_alice(Some(None)).await;
    let mut older = by(&net, "older");
    assert_eq!(older.register("alice").await.code, Code::CREATED);
    let mut newer = by(&net, "newer");
    assert_eq!(newer.register("alice-too").await.code, Code::CREATED);
    assert_eq!(older.ended().await, Ended::KeyWithdrawn);
    let mut again = by(&net, "newer");
    assert_eq!(again.register("alice").await.code, Code::CREATED);
    assert_eq!(newer.send(&message("alice-too", "nobody", "1")).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
}

#[tokio::test]
async fn where_the_older_a_kid_is_still_good_or_nobody_says_so_its_connections_go_on() {
    for answer in [None, Some(Some(key_of_alice()))] {
        let net = net_of_alice(answer).await;
        let mut older = by(&net, "older");
        assert_eq!(older.register("alice").await.code, Code::CREATED);
        let mut newer = by(&net, "newer");
        assert_eq!(newer.register("alice-too").await.code, Code::CREATED);
        for id in ["1", "2"] {
            let fate = older.send(&message("alice", "nobody", id)).await;
            assert_eq!(fate, Fate::failed("4.04", "UNKNOWN_TARGET"));
        }
    }
}

fn key_of_alice() -> ProvenKey {
    ProvenKey {
        k_af: KAf::from_bytes([1; 32]),
        expires_at: None,
        ue_id: Some(supi_of("alice").parse().unwrap()),
        gpsi: None,
    }
}

#[tokio::test]
async fn akma_disabled_ends_every_session_of_the_a_kid_those_that_are_about_to_begin_included() {
    let net = net_of_alice(None).await;
    let mut registered = by(&net, "hers");
    assert_eq!(registered.register("alice").await.code, Code::CREATED);
    let mut unregistered = by(&net, "hers");
    let refused = unregistered.send(&message("alice", "nobody", "1")).await;
    assert_eq!(refused, Fate::failed("4.01", "NOT_REGISTERED"));
    let mut other = by(&net, "another");
    assert_eq!(other.register("alice-too").await.code, Code::CREATED);

    let consumer = DisabledSessions(Arc::clone(&net.core));
    assert_eq!(consumer.service_disabled(&a_kid("hers")), 2);
    assert_eq!(registered.ended().await, Ended::ServiceDisabled);
    assert_eq!(unregistered.ended().await, Ended::ServiceDisabled);
    // Its handshake was under way.
    assert_eq!(by(&net, "hers").ended().await, Ended::ServiceDisabled);
    assert_eq!(other.send(&message("alice-too", "nobody", "2")).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
    assert_eq!(consumer.service_disabled(&a_kid("hers")), 0);
}
