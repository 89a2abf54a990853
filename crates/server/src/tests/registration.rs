//! Who is let in, who is not, and how a connection ends.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::*;

#[tokio::test]
async fn a_ue_registers_the_service_id_it_is_associated_with() {
    let net = Net::new().await;
    net.associate("imsi-001010000000001", "meter-1");
    let mut ue = net.connect("imsi-001010000000001");
    let response = ue.register("meter-1").await;
    assert_eq!(response.code, Code::CREATED);
    let body = RegistrationResponse::decode(&response.payload, &DecodeLimits::default()).unwrap();
    assert_eq!((body.ue_service_id.as_str(), body.failure_cause), ("meter-1", None));
    assert_eq!(net.core.registry.ues(), 1);
}

#[tokio::test]
async fn somebody_elses_service_id_is_refused_and_the_right_one_then_accepted() {
    let net = Net::new().await;
    net.associate("imsi-001010000000001", "meter-1");
    net.associate("imsi-001010000000002", "meter-2");
    let mut ue = net.connect("imsi-001010000000001");
    for id in ["meter-2", "meter-3", "METER-1"] {
        let response = ue.register(id).await;
        assert_eq!(
            (response.code, registration_cause(&response).as_str()),
            (Code::FORBIDDEN, "NOT_ASSOCIATED"),
            "{id}"
        );
    }
    assert_eq!(ue.register("meter-1").await.code, Code::CREATED);
    assert_eq!(net.core.registry.ues(), 1);
}

#[tokio::test]
async fn a_peer_without_a_proven_ue_id_is_refused() {
    let net = Net::new().await;
    let mut ue = net.connect_as(peer(None, None), STREAM_OCTETS);
    let response = ue.register("meter-1").await;
    assert_eq!((response.code, registration_cause(&response).as_str()), (Code::FORBIDDEN, "NOT_ASSOCIATED"));
}

#[tokio::test]
async fn no_answer_on_the_association_is_a_refusal() {
    let net = Net::with(Limits { association_timeout_seconds: 1, ..Limits::default() }).await;
    net.associate("imsi-001010000000001", "meter-1");
    for mood in [Mood::Fails, Mood::NeverAnswers] {
        *net.associations.mood.lock().unwrap() = mood;
        let response = net.connect("imsi-001010000000001").register("meter-1").await;
        assert_eq!(response.code, Code::SERVICE_UNAVAILABLE);
        assert_eq!(response.max_age, Some(2));
        assert_eq!(registration_cause(&response), "ASSOCIATION_UNKNOWN");
    }
    assert_eq!(net.core.registry.ues(), 0);
}

#[tokio::test]
async fn everything_before_registration_is_refused_with_4_01() {
    let net = Net::new().await;
    net.away_ue("bob").await;
    let mut ue = net.connect("imsi-001010000000001");
    assert_eq!(ue.send(&message("alice", "bob", "1")).await, Fate::failed("4.01", "NOT_REGISTERED"));
    assert_eq!(ue.send_report(&report("alice", "bob", "1")).await, Fate::failed("4.01", "NOT_REGISTERED"));
    let response = ue.deregister("alice").await;
    assert_eq!((response.code, registration_cause(&response).as_str()), (Code::UNAUTHORIZED, "NOT_REGISTERED"));
}

#[tokio::test]
async fn a_newer_connection_closes_the_older_and_survives_its_end() {
    let net = Net::new().await;
    let older = net.ue("alice").await;
    let mut newer = net.ue("alice").await;
    assert_eq!(older.ended().await, Ended::Replaced);
    let mut bob = net.ue("bob").await;
    let exchange = bob.post(&message("bob", "alice", "1")).await;
    assert_eq!(newer.receive().await.message_id.as_str(), "1");
    assert_eq!(bob.fate(exchange).await, Fate::delivered());
}

#[tokio::test]
async fn one_connection_may_register_another_of_its_service_ids_and_the_first_is_then_away() {
    let net = Net::new().await;
    let mut bob = net.ue("bob").await;
    let mut alice = net.ue("alice").await;
    net.associate(&supi_of("alice"), "alice-2");
    assert_eq!(alice.register("alice-2").await.code, Code::CREATED);
    assert_eq!(bob.send(&message("bob", "alice", "1")).await, Fate::failed("2.04", "TARGET_UNREACHABLE"));
    let exchange = bob.post(&message("bob", "alice-2", "2")).await;
    assert_eq!(alice.receive().await.message_id.as_str(), "2");
    assert_eq!(bob.fate(exchange).await, Fate::delivered());
    assert_eq!(alice.send(&message("alice", "bob", "3")).await, Fate::failed("4.03", "ORIGINATOR_NOT_ALLOWED"));
}

#[tokio::test]
async fn after_deregistration_the_ue_is_unknown_and_its_connection_may_register_again() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    let mut bob = net.ue("bob").await;
    let refused = alice.deregister("bob").await;
    assert_eq!((refused.code, registration_cause(&refused).as_str()), (Code::FORBIDDEN, "ORIGINATOR_NOT_ALLOWED"));
    assert_eq!(alice.deregister("alice").await.code, Code::DELETED);
    assert_eq!(bob.send(&storable("bob", "alice", "1")).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
    assert_eq!(alice.send(&message("alice", "bob", "1")).await, Fate::failed("4.01", "NOT_REGISTERED"));
    assert_eq!(alice.register("alice").await.code, Code::CREATED);
    let exchange = bob.post(&message("bob", "alice", "2")).await;
    alice.receive().await;
    assert_eq!(bob.fate(exchange).await, Fate::delivered());
}

#[tokio::test]
async fn a_connection_ends_when_its_key_expires() {
    let net = Net::new().await;
    net.associate("imsi-001010000000001", "meter-1");
    let expires_at = SystemTime::now() + Duration::from_millis(300);
    let mut ue = net.connect_as(peer(Some("imsi-001010000000001"), Some(expires_at)), STREAM_OCTETS);
    assert_eq!(ue.register("meter-1").await.code, Code::CREATED);
    assert_eq!(ue.ended().await, Ended::KeyExpired);
    assert!(SystemTime::now() >= expires_at);
}

/// A peer that sends Pings as fast as they are taken, and takes whatever it is sent.
#[derive(Default)]
struct Chatter {
    greeted: bool,
}

impl AsyncRead for Chatter {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let (csm, ping) = ([0x00, 0xe1], [0x00, 0xe2]);
        buffer.put_slice(if std::mem::replace(&mut self.greeted, true) { &ping } else { &csm });
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Chatter {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, octets: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(octets.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_peer_that_is_never_silent_does_not_outrun_its_deadlines() {
    let net = Net::with(Limits { registration_timeout_seconds: 1, ..Limits::default() }).await;
    let expires_at = SystemTime::now() + Duration::from_millis(200);
    for (expires_at, ended) in [(Some(expires_at), Ended::KeyExpired), (None, Ended::NeverRegistered)] {
        let peer = peer(None, expires_at);
        let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let core = Arc::clone(&net.core);
        let chatter = carried(Chatter::default(), &core);
        let session = async move { listener::serve(&core, chatter, peer, source, "msgin5g".into()).await };
        assert_eq!(timeout(PATIENCE, tokio::spawn(session)).await.unwrap().unwrap(), ended);
    }
}

/// Gives every task its turn, often enough for what was sent to have been read.
async fn turns() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_late_deregistration_does_not_withdraw_a_newer_connections_registration() {
    let net = Net::new().await;
    let mut older = net.ue("alice").await;
    let mut newer = net.connect(&supi_of("alice"));
    let turn = net.core.registering(&address("alice")).await;
    let registering =
        newer.ask(&Registration { ue_service_id: "alice".parse().unwrap(), client_profile: None }.encode()).await;
    turns().await;
    older.ask(&Deregistration { ue_service_id: "alice".parse().unwrap() }.encode()).await;
    turns().await;
    drop(turn);
    assert_eq!(newer.answer(registering).await.code, Code::CREATED);
    assert_eq!(older.ended().await, Ended::Replaced);
    // Whoever waited for a turn before has had it.
    drop(net.core.registering(&address("alice")).await);
    let mut bob = net.ue("bob").await;
    let exchange = bob.post(&message("bob", "alice", "1")).await;
    assert_eq!(newer.receive().await.message_id.as_str(), "1");
    assert_eq!(bob.fate(exchange).await, Fate::delivered());
}

#[tokio::test]
async fn a_connection_ends_when_its_association_is_removed() {
    let net = Net::with(Limits { revalidation_seconds: 1, ..Limits::default() }).await;
    let ue = net.ue("alice").await;
    net.associations.known.lock().unwrap().clear();
    assert_eq!(ue.ended().await, Ended::AssociationRemoved);
}

#[tokio::test]
async fn a_connection_outlives_a_silent_configuration_function_for_the_grace_and_no_longer() {
    let limits = Limits { revalidation_seconds: 1, revalidation_grace_seconds: 0, ..Limits::default() };
    let net = Net::with(limits).await;
    let ue = net.ue("alice").await;
    *net.associations.mood.lock().unwrap() = Mood::Fails;
    assert_eq!(ue.ended().await, Ended::NotRevalidated);
}

#[tokio::test]
async fn a_connection_that_never_registers_is_closed() {
    let net = Net::with(Limits { registration_timeout_seconds: 1, ..Limits::default() }).await;
    assert_eq!(net.connect("imsi-001010000000001").ended().await, Ended::NeverRegistered);
}

#[tokio::test]
async fn a_silent_connection_is_pinged_and_closed_if_it_does_not_answer() {
    let net = Net::with(Limits { idle_ping_seconds: 1, pong_timeout_seconds: 1, ..Limits::default() }).await;
    let mut answering = net.ue("alice").await;
    let silent = net.ue("bob").await;
    // The client's machine answers pings as long as it is driven.
    let driven = tokio::spawn(async move {
        loop {
            answering.turn().await;
            assert!(!answering.ended);
        }
    });
    assert_eq!(timeout(PATIENCE, silent.session).await.unwrap().unwrap(), Ended::Silent);
    assert!(!driven.is_finished());
    driven.abort();
}

fn key_of(name: &str) -> ProvenKey {
    let ue_id = Some(supi_of(name).parse().unwrap());
    ProvenKey { k_af: KAf::from_bytes([7; 32]), expires_at: None, ue_id, gpsi: None }
}

async fn net_that_asks_for_keys() -> (Net, Arc<Keys>) {
    let keys = Arc::new(Keys::default());
    *keys.answer.lock().unwrap() = Some(Some(key_of("alice")));
    let limits = Limits { revalidation_seconds: 1, revalidation_grace_seconds: 0, ..Limits::default() };
    (Net::of(Setup { limits, keys: Some(Arc::clone(&keys)), ..Setup::default() }).await, keys)
}

#[tokio::test]
async fn a_connection_ends_when_its_a_kid_is_not_known_any_more() {
    let (net, keys) = net_that_asks_for_keys().await;
    let mut ue = net.ue("alice").await;
    // Asked once with the key still good, which changes nothing.
    let asked = tokio::time::Instant::now() + Duration::from_millis(1500);
    while tokio::time::Instant::now() < asked {
        assert!(timeout(Duration::from_millis(200), ue.turn()).await.is_err() && !ue.ended);
    }
    *keys.answer.lock().unwrap() = Some(None);
    assert_eq!(ue.ended().await, Ended::KeyWithdrawn);
}

#[tokio::test]
async fn a_connection_ends_when_its_a_kid_becomes_somebody_elses() {
    let (net, keys) = net_that_asks_for_keys().await;
    let ue = net.ue("alice").await;
    *keys.answer.lock().unwrap() = Some(Some(key_of("bob")));
    assert_eq!(ue.ended().await, Ended::KeyWithdrawn);
}

#[tokio::test]
async fn a_silent_anchor_function_is_no_answer_either() {
    let (net, keys) = net_that_asks_for_keys().await;
    let ue = net.ue("alice").await;
    *keys.answer.lock().unwrap() = None;
    assert_eq!(ue.ended().await, Ended::NotRevalidated);
}

#[tokio::test]
async fn a_registration_whose_connection_ended_does_not_replace_a_newer_one() {
    let net = Net::new().await;
    net.associate(&supi_of("alice"), "alice");
    *net.associations.mood.lock().unwrap() = Mood::Waits;
    let mut stale = net.connect(&supi_of("alice"));
    let registration = Registration { ue_service_id: "alice".parse().unwrap(), client_profile: None }.encode();
    stale.ask(&registration).await;
    let slots = net.core.limits.association_lookups_max;
    until(|| net.core.association_slots.available_permits() < slots).await;
    *net.associations.mood.lock().unwrap() = Mood::Answers;
    let mut newer = net.ue("alice").await;
    stale.leave().await;
    net.associations.released.store(true, Ordering::Relaxed);
    until(|| net.core.association_slots.available_permits() == slots).await;
    let mut bob = net.ue("bob").await;
    let exchange = bob.post(&message("bob", "alice", "1")).await;
    assert_eq!(newer.receive().await.message_id.as_str(), "1");
    assert_eq!(bob.fate(exchange).await, Fate::delivered());
    let party = net.core.registry.find(&address("alice")).unwrap();
    assert!(party.is_carried_by(1));
}

/// A stream that panics when it is told to.
struct Panicking(DuplexStream);

impl AsyncRead for Panicking {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let read = Pin::new(&mut self.0).poll_read(context, buffer);
        assert!(!buffer.filled().ends_with(b"panic"), "as the test wants it");
        read
    }
}

impl AsyncWrite for Panicking {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<std::io::Result<usize>> {
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
async fn a_session_that_panics_gives_its_place_back() {
    let net = Net::with(Limits { connections_per_a_kid_max: 1, ..Limits::default() }).await;
    let (mut near, far) = duplex(STREAM_OCTETS);
    let core = Arc::clone(&net.core);
    let far = carried(Panicking(far), &core);
    let session = tokio::spawn(async move {
        let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
        listener::serve(&core, far, peer(None, None), source, "msgin5g".into()).await
    });
    near.write_all(b"panic").await.unwrap();
    assert!(timeout(PATIENCE, session).await.unwrap().unwrap_err().is_panic());
    net.ue("alice").await;
}

#[tokio::test]
async fn a_connection_has_its_registration_changed_so_often_and_no_more() {
    let net = Net::with(Limits { registrations_per_minute_max: 1, ..Limits::default() }).await;
    let mut alice = net.ue("alice").await;
    for refused in [alice.register("alice").await, alice.deregister("alice").await] {
        assert_eq!((refused.code, registration_cause(&refused).as_str()), (Code::TOO_MANY_REQUESTS, "RATE_EXCEEDED"));
        assert_eq!(refused.max_age, Some(net.core.limits.retry_after_seconds));
    }
    assert_eq!(alice.send(&message("alice", "nobody", "1")).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
    let mut another = net.connect(&supi_of("alice"));
    assert_eq!(another.register("alice").await.code, Code::CREATED);
}

#[tokio::test]
async fn a_configuration_function_without_an_answer_has_so_many_lines_logged_and_no_more() {
    let net = Net::with(Limits { log_lines_per_minute_max: 1, ..Limits::default() }).await;
    *net.associations.mood.lock().unwrap() = Mood::Fails;
    let mut alice = net.connect(&supi_of("alice"));
    assert_eq!(alice.register("alice").await.code, Code::SERVICE_UNAVAILABLE);
    assert!(!net.core.log_budget.admits(crate::log_budget::Topic::Association), "that was the line");
}
