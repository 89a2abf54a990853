//! What a key's lifetime is to those who live by it.

use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};

use sbi::naanf::{RecentlyDisabled, ServiceDisabled};
use tokio::io::ReadBuf;

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

#[tokio::test]
async fn of_more_that_akma_is_disabled_for_than_are_remembered_each_is_asked_about() {
    let net = net_of_alice(Some(None)).await;
    let hers = ProvenPeer { a_kid: a_kid("hers"), ..peer(Some(&supi_of("alice")), None) };
    let consumer = DisabledSessions(Arc::clone(&net.core));
    for name in std::iter::once("hers".to_owned()).chain((0..RecentlyDisabled::A_KIDS_MAX).map(|it| it.to_string())) {
        assert_eq!(consumer.service_disabled(&a_kid(&name)), 0);
    }
    // Its handshake was under way, and nobody remembers.
    let mut late = net.connect_as(hers, STREAM_OCTETS);
    late.ask(&registration_of("alice")).await;
    assert_eq!(late.ended().await, Ended::KeyWithdrawn);
    let mut later = by(&net, "newest");
    assert_eq!(later.register("alice").await.code, Code::CREATED, "nobody asks about who was asked for since");
}

/// It has a session, which is not registered.
async fn is_there(ue: &mut Ue) {
    assert_eq!(ue.send(&message("alice", "nobody", "0")).await, Fate::failed("4.01", "NOT_REGISTERED"));
}

#[tokio::test]
async fn a_session_of_an_older_a_kid_is_asked_about_before_it_registers() {
    let net = net_of_alice(Some(None)).await;
    let mut older = by(&net, "older");
    is_there(&mut older).await;
    let mut newer = by(&net, "newer");
    assert_eq!(newer.register("alice-too").await.code, Code::CREATED);
    let registration = Registration { ue_service_id: "alice".parse().unwrap(), client_profile: None };
    older.ask(&registration.encode()).await;
    assert_eq!(older.ended().await, Ended::KeyWithdrawn);
    assert!(net.core.registry.find(&address("alice")).is_none(), "it did not register");
    assert_eq!(newer.send(&message("alice-too", "nobody", "1")).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
}

fn registration_of(name: &str) -> Vec<u8> {
    UeMessage::Registration(Registration { ue_service_id: name.parse().unwrap(), client_profile: None }).encode()
}

/// What proves alice by an older A-KID once its handshake is over, which began before a newer one registered.
async fn superseded(net: &Net) -> ProvenPeer {
    let older = ProvenPeer { a_kid: a_kid("older"), ..peer(Some(&supi_of("alice")), None) };
    let mut newer = by(net, "newer");
    assert_eq!(newer.register("alice-too").await.code, Code::CREATED);
    newer.leave().await;
    older
}

#[tokio::test]
async fn a_handshake_of_an_older_a_kid_that_ends_after_a_newer_registered_comes_to_no_registration_over_streams() {
    let net = net_of_alice(Some(None)).await;
    let older = superseded(&net).await;
    let mut older = net.connect_as(older, STREAM_OCTETS);
    older.ask(&registration_of("alice")).await;
    assert_eq!(older.ended().await, Ended::KeyWithdrawn);
    assert!(net.core.registry.find(&address("alice")).is_none(), "it did not register");
    // Nobody asks about the newer one, nor about one that the AAnF was asked for since.
    for name in ["newer", "newest"] {
        let mut another = by(&net, name);
        assert_eq!(another.register("alice").await.code, Code::CREATED);
        another.leave().await;
    }
}

#[tokio::test]
async fn a_handshake_of_an_older_a_kid_that_ends_after_a_newer_registered_comes_to_no_registration_over_datagrams() {
    let net = net_of_alice(Some(None)).await;
    let older = superseded(&net).await;
    let mut older = datagrams::Device::connect_as(&net, older);
    older.ask(&registration_of("alice"));
    assert_eq!(older.ended().await, Ended::KeyWithdrawn);
    assert!(net.core.registry.find(&address("alice")).is_none(), "it did not register");
}

#[tokio::test]
async fn a_handshake_of_an_a_kid_that_the_aanf_still_vouches_for_registers_although_another_has_registered() {
    let expires_at = Some(SystemTime::now() + Duration::from_secs(1000));
    let net = net_of_alice(Some(Some(ProvenKey { expires_at, ..key_of_alice() }))).await;
    let mut other = net.connect_as(superseded(&net).await, STREAM_OCTETS);
    let registered = other.register("alice").await;
    assert_eq!(registered.code, Code::CREATED);
    assert!(registered.max_age.is_some_and(|seconds| seconds <= 1000), "for as long as the AAnF says now");
    assert_eq!(net.setup.keys.as_ref().unwrap().asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_session_of_an_older_a_kid_does_not_register_while_nobody_says_that_it_is_good() {
    let net = net_of_alice(None).await;
    let mut older = by(&net, "older");
    is_there(&mut older).await;
    let mut newer = by(&net, "newer");
    assert_eq!(newer.register("alice-too").await.code, Code::CREATED);
    for _ in 0..2 {
        let refused = older.register("alice").await;
        assert_eq!(refused.code, Code::SERVICE_UNAVAILABLE);
        assert_eq!(registration_cause(&refused), "ASSOCIATION_UNKNOWN");
    }
    *net.setup.keys.as_ref().unwrap().answer.lock().unwrap() = Some(Some(key_of_alice()));
    assert_eq!(older.register("alice").await.code, Code::CREATED);
}

#[tokio::test]
async fn a_session_of_an_older_a_kid_that_is_registering_is_asked_about_once_that_is_over() {
    let net = net_of_alice(Some(None)).await;
    let mut older = by(&net, "older");
    *net.associations.mood.lock().unwrap() = Mood::Waits;
    let registration = Registration { ue_service_id: "alice".parse().unwrap(), client_profile: None };
    older.ask(&registration.encode()).await;
    let slots = net.core.limits.association_lookups_max;
    until(|| net.core.association_slots.available_permits() < slots).await;
    *net.associations.mood.lock().unwrap() = Mood::Answers;
    let mut newer = by(&net, "newer");
    assert_eq!(newer.register("alice-too").await.code, Code::CREATED);
    net.associations.released.store(true, Ordering::Relaxed);
    assert_eq!(older.ended().await, Ended::KeyWithdrawn);
}

#[tokio::test]
async fn a_key_that_is_good_for_less_long_than_was_said_ends_its_connection_by_then() {
    let net = net_of_alice(Some(None)).await;
    let mut older = by(&net, "older");
    assert_eq!(older.register("alice").await.code, Code::CREATED);
    // Longer than it takes to be asked.
    let expires_at = Some(SystemTime::now() + Duration::from_secs(10));
    let key = ProvenKey { expires_at, ..key_of_alice() };
    *net.setup.keys.as_ref().unwrap().answer.lock().unwrap() = Some(Some(key));
    let mut newer = by(&net, "newer");
    assert_eq!(newer.register("alice-too").await.code, Code::CREATED);
    assert_eq!(older.ended().await, Ended::KeyExpired);
    assert_eq!(newer.send(&message("alice-too", "nobody", "1")).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
}

/// A stream that counts how often somebody tries to write to it.
struct Counting(DuplexStream, Arc<AtomicUsize>);

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<std::io::Result<usize>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_write(context, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[tokio::test]
async fn a_session_that_is_ending_waits_for_what_ends_it_and_looks_for_nothing_meanwhile() {
    let net = Net::with(Limits { write_timeout_seconds: 3, ..Limits::default() }).await;
    // Its last words find no room, and what was due when it began to end stays so.
    let (unread, far) = duplex(16);
    let (core, tries) = (Arc::clone(&net.core), Arc::new(AtomicUsize::new(0)));
    let far = carried(Counting(far, Arc::clone(&tries)), &core);
    let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let ended = timeout(PATIENCE, listener::serve(&core, far, expiring(1), source, "msgin5g".into())).await.unwrap();
    assert_eq!(ended, Ended::KeyExpired);
    // Each turn of its loop tries once; woken every few milliseconds it would take hundreds.
    let tries = tries.load(Ordering::Relaxed);
    assert!(tries < 40, "{tries}");
    drop(unread);
}
