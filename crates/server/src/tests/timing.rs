//! Latency bounds, rates, and the windows in which a client can be reached.

use message::CommunicationAvailability;
use time::OffsetDateTime;

use super::application_server::{As, ServedApi, from_as, problem, setup};
use super::*;

/// What an AS was told: status and cause, or the HTTP status and cause of a problem.
type Told = Result<(Option<DeliveryStatus>, Option<String>), (u16, String)>;

/// Sends in a task of its own.
fn sent(billing: &Arc<As>, message: Message) -> JoinHandle<Told> {
    let billing = Arc::clone(billing);
    tokio::spawn(async move {
        let ack = billing.send(&message).await.map_err(problem)?;
        Ok((ack.status, ack.failure_cause))
    })
}

async fn as_net(limits: Limits) -> (Net, ServedApi, Arc<As>) {
    let net = Net::of(Setup { limits, ..setup() }).await;
    let api = ServedApi::start(&net).await;
    let billing = As::start(&net, &api, "billing").await;
    billing.register().await.unwrap();
    (net, api, Arc::new(billing))
}

fn within(id: &str, latency: u32) -> Message {
    Message { latency: Some(latency), ..from_as("billing", "alice", id) }
}

#[tokio::test]
async fn a_message_that_exceeds_its_latency_fails_or_is_stored() {
    let (net, _api, billing) = as_net(Limits { delivery_window: 1, ..Limits::default() }).await;
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    // Under way, and not acknowledged.
    let late = sent(&billing, within("1", 2000));
    let (first, _) = alice.delivery().await;
    assert_eq!(late.await.unwrap().unwrap(), (Some(DeliveryStatus::Failed), Some("LATENCY_EXCEEDED".into())));
    // Behind it in the queue; another originator's is not touched.
    let other = bob.post(&message("bob", "alice", "1")).await;
    until(|| net.core.open_requests() == 1).await;
    let stored = Message { store_and_forward: true, ..within("2", 200) };
    let (failed, behind) = (sent(&billing, within("3", 200)), sent(&billing, stored));
    assert_eq!(failed.await.unwrap().unwrap(), (Some(DeliveryStatus::Failed), Some("LATENCY_EXCEEDED".into())));
    // On disk it would overtake the one that is under way: it fails, and is told so in time, too.
    assert_eq!(behind.await.unwrap().unwrap(), (Some(DeliveryStatus::Failed), Some("LATENCY_EXCEEDED".into())));
    assert_eq!(net.core.open_requests(), 1);
    alice.respond(first, Code::CHANGED).await;
    assert_eq!(alice.receive().await.originator, address("bob"));
    assert_eq!(bob.fate(other).await, Fate::delivered());
    assert_eq!(net.core.open_requests(), 0);
    let last = sent(&billing, from_as("billing", "alice", "4"));
    assert_eq!(alice.receive().await.message_id.as_str(), "4", "what failed does not come");
    assert_eq!(last.await.unwrap().unwrap(), (None, None));
}

#[tokio::test]
async fn what_may_be_stored_and_is_under_way_is_told_in_time_and_is_not_stored_then() {
    let (net, _api, billing) = as_net(Limits { delivery_window: 1, ..Limits::default() }).await;
    let mut alice = net.ue("alice").await;
    let late = sent(&billing, Message { store_and_forward: true, ..within("1", 1000) });
    alice.delivery().await;
    assert_eq!(late.await.unwrap().unwrap(), (Some(DeliveryStatus::Failed), Some("LATENCY_EXCEEDED".into())));
    // One behind it, of another, shows when what was under way has been decided on.
    let mut bob = net.ue("bob").await;
    let other = bob.post(&storable("bob", "alice", "2")).await;
    until(|| net.core.open_requests() == 1).await;
    alice.leave().await;
    assert_eq!(bob.fate(other).await, Fate::stored());
    assert_eq!(net.stored_for("alice"), 1);
    let mut alice = net.ue("alice").await;
    assert_eq!(alice.receive().await.message_id.as_str(), "2");
}

#[tokio::test]
async fn what_may_be_stored_and_waits_for_others_is_stored_in_time() {
    let (net, _api, billing) = as_net(Limits { delivery_window: 1, ..Limits::default() }).await;
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    let other = bob.post(&message("bob", "alice", "1")).await;
    let (first, _) = alice.delivery().await;
    let stored = Message { store_and_forward: true, ..within("2", 100) };
    assert_eq!(sent(&billing, stored).await.unwrap().unwrap(), (Some(DeliveryStatus::Stored), None));
    assert_eq!(net.stored_for("alice"), 1);
    alice.respond(first, Code::CHANGED).await;
    assert_eq!(bob.fate(other).await, Fate::delivered());
    assert_eq!(alice.receive().await.message_id.as_str(), "2");
    until(|| net.stored_for("alice") == 0).await;
    // One that is in time is delivered.
    let in_time = sent(&billing, within("3", 60_000));
    alice.receive().await;
    assert_eq!(in_time.await.unwrap().unwrap(), (None, None));
}

#[tokio::test]
async fn an_originator_above_its_rate_is_told_so_and_others_are_served() {
    let limits = Limits {
        messages_per_second_per_ue_max: 1,
        message_burst_per_ue_max: 2,
        messages_per_second_per_application_server_max: 1,
        message_burst_per_application_server_max: 1,
        ..Limits::default()
    };
    let (net, _api, billing) = as_net(limits).await;
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    net.away_ue("carol").await;
    let mut fates = Vec::new();
    for id in 0..20 {
        fates.push(alice.send(&storable("alice", "carol", &id.to_string())).await);
    }
    assert_eq!(fates[..2], [Fate::stored(), Fate::stored()]);
    assert!(fates.contains(&Fate::failed("4.29", "RATE_EXCEEDED")), "{fates:?}");
    assert_eq!(bob.send(&storable("bob", "carol", "1")).await, Fate::stored());
    let mut answers = Vec::new();
    for id in 0..20 {
        let message = Message { store_and_forward: true, ..from_as("billing", "carol", &id.to_string()) };
        answers.push(sent(&billing, message).await.unwrap());
    }
    assert_eq!(answers[0], Ok((Some(DeliveryStatus::Stored), None)));
    assert!(answers.contains(&Err((429, "RATE_EXCEEDED".into()))), "{answers:?}");
    let mut reports = Vec::new();
    for id in 0..20 {
        reports.push(alice.send_report(&report("alice", "carol", &id.to_string())).await);
    }
    assert!(reports.contains(&Fate::failed("4.29", "RATE_EXCEEDED")), "{reports:?}");
    // With time it may send again.
    let again = storable("alice", "carol", "again");
    timeout(PATIENCE, async {
        while alice.send(&again).await != Fate::stored() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(net.core.open_requests(), 0);
}

async fn available(ue: &mut Ue, name: &str, availability: Option<CommunicationAvailability>) {
    let profile = ClientProfile { availability, ..ClientProfile::default() };
    let registration = Registration { ue_service_id: name.parse().unwrap(), client_profile: Some(profile) };
    assert_eq!(ue.exchange(&registration.encode()).await.code, Code::CREATED);
}

#[tokio::test]
async fn a_ue_gets_nothing_outside_its_windows_but_may_send() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    net.associate(&supi_of("bob"), "bob");
    let mut bob = net.connect(&supi_of("bob"));
    let start = OffsetDateTime::now_utc() + time::Duration::DAY;
    available(&mut bob, "bob", Some(CommunicationAvailability { start, duration_seconds: 60, interval_seconds: None }))
        .await;
    assert_eq!(alice.send(&message("alice", "bob", "1")).await, Fate::failed("2.04", "TARGET_UNREACHABLE"));
    assert_eq!(alice.send(&storable("alice", "bob", "2")).await, Fate::stored());
    let exchange = bob.post(&message("bob", "alice", "1")).await;
    alice.receive().await;
    assert_eq!(bob.fate(exchange).await, Fate::delivered());
    assert!(bob.requests.is_empty());
    assert_eq!(net.stored_for("bob"), 1);
}

/// What the opening of a window starts, whatever was on its way when the one before closed.
#[tokio::test]
async fn a_window_that_closes_sends_what_waits_to_disk_and_the_next_one_fetches_it() {
    let net = Net::with(Limits { delivery_window: 1, ..Limits::default() }).await;
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    let first = alice.post(&message("alice", "bob", "1")).await;
    let (delivery, _) = bob.delivery().await;
    let second = alice.post(&storable("alice", "bob", "2")).await;
    until(|| net.core.open_requests() == 2).await;
    let start = OffsetDateTime::now_utc() + time::Duration::seconds(4);
    let availability = Some(CommunicationAvailability { start, duration_seconds: 3600, interval_seconds: None });
    let party = net.core.registry.find(&address("bob")).unwrap();
    party.state.lock().unwrap().profile = Some(Box::new(ClientProfile { availability, ..ClientProfile::default() }));
    bob.respond(delivery, Code::CHANGED).await;
    assert_eq!(alice.fate(first).await, Fate::delivered());
    assert_eq!(alice.fate(second).await, Fate::stored());
    assert_eq!(bob.receive().await.message_id.as_str(), "2");
    assert!(OffsetDateTime::now_utc() >= start);
    let exchange = alice.post(&message("alice", "bob", "3")).await;
    bob.receive().await;
    assert_eq!(alice.fate(exchange).await, Fate::delivered());
}

#[tokio::test]
async fn a_schedule_is_kept_until_another_registration_and_one_that_is_over_says_nothing() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    net.associate(&supi_of("bob"), "bob");
    let mut bob = net.connect(&supi_of("bob"));
    let start = OffsetDateTime::now_utc() + time::Duration::DAY;
    let later = CommunicationAvailability { start, duration_seconds: 60, interval_seconds: Some(86_400) };
    available(&mut bob, "bob", Some(later)).await;
    for id in ["1", "2"] {
        assert_eq!(alice.send(&storable("alice", "bob", id)).await, Fate::stored());
    }
    available(&mut bob, "bob", None).await;
    assert_eq!(bob.receive().await.message_id.as_str(), "1");
    assert_eq!(bob.receive().await.message_id.as_str(), "2");
    let start = OffsetDateTime::now_utc() - time::Duration::DAY;
    let over = CommunicationAvailability { start, duration_seconds: 60, interval_seconds: None };
    available(&mut bob, "bob", Some(over)).await;
    let exchange = alice.post(&message("alice", "bob", "3")).await;
    bob.receive().await;
    assert_eq!(alice.fate(exchange).await, Fate::delivered());
}
