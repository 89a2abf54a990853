//! AKMA withdrawn: AFs that asked to be told are told, at least once, and nobody else; over real HTTP/2 and a restart.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use aanf::{AfConfig, PROVISIONING_PATH, refusal};
use akma::{AfId, UaProtocolId};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use common::*;
use sbi::naanf::{AkmaAfKeyData, AkmaAfKeyRequest, NotificationUri, ServiceDisableNotif, feature};
use sbi::testing::TestAuthority;
use sbi::{
    Json, ProblemDetails, SbiClient, SbiError, SbiServer, SbiServerConfig, ServerLimits, SupportedFeatures, cause,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The operator's own system.
const OPERATOR: &str = "10000000-0000-4000-8000-000000000000";
const THIRD_A_KID: &str = "0.third@5gc.mnc001.mcc001.3gppnetwork.org";

/// Where an AF is notified: answers with a status that can be set, and hands over what it answered 204 to.
struct Consumer {
    uri: NotificationUri,
    status: Arc<AtomicU16>,
    asked: Arc<AtomicUsize>,
    notified: mpsc::UnboundedReceiver<String>,
    _server: SbiServer,
}

impl Consumer {
    async fn start(authority: &TestAuthority) -> Self {
        let (status, asked) = (Arc::new(AtomicU16::new(204)), Arc::new(AtomicUsize::new(0)));
        let (sender, notified) = mpsc::unbounded_channel();
        let (switch, counter) = (Arc::clone(&status), Arc::clone(&asked));
        let take = async move |Json(body): Json<ServiceDisableNotif>| {
            counter.fetch_add(1, Ordering::SeqCst);
            let status = StatusCode::from_u16(switch.load(Ordering::SeqCst)).unwrap();
            if status.is_success() {
                sender.send(body.a_kid.as_str().to_owned()).unwrap();
            }
            status
        };
        let config = SbiServerConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            tls: authority.issue(INSIDE_AF, &[]),
            limits: ServerLimits::default(),
        };
        let router = Router::new().route("/akma", post(take));
        let server = SbiServer::start(config, router, CancellationToken::new()).await.unwrap();
        // A name of every certificate here.
        let uri = format!("https://localhost:{}/akma", server.local_addr().port()).parse().unwrap();
        Self { uri, status, asked, notified, _server: server }
    }

    async fn next(&mut self) -> String {
        self.notified.recv().await.unwrap()
    }

    fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    async fn asked_at_least(&self, count: usize) {
        while self.asked.load(Ordering::SeqCst) < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn start() -> (Fixture, Consumer) {
    start_with(|_| {}).await
}

async fn start_with(change: impl FnOnce(&mut aanf::Config)) -> (Fixture, Consumer) {
    let fixture = Fixture::start_with(|_, config| {
        config.notifications.retry_initial_milliseconds = 10;
        config.afs.push(AfConfig { may_provision: true, ..af(OPERATOR, &[]) });
        change(config);
    })
    .await;
    let consumer = Consumer::start(&fixture.authority).await;
    (fixture, consumer)
}

async fn ask(fixture: &Fixture, instance: &str, request: &AkmaAfKeyRequest) -> Result<AkmaAfKeyData, SbiError> {
    fixture.client(instance).retrieve_applicationkey(request).await.map(Option::unwrap)
}

/// Has the AF of [`INSIDE`] ask for K_AF and leave its URI.
async fn subscribe(fixture: &Fixture, consumer: &Consumer, a_kid: &str) -> AkmaAfKeyData {
    let request = request(INSIDE, a_kid).with_notifications(consumer.uri.clone());
    ask(fixture, INSIDE_AF, &request).await.unwrap()
}

fn will_notify(data: &AkmaAfKeyData) -> bool {
    data.supp_feat.is_some_and(|features| features.has(feature::SERVICE_DISABLE_NOTIFICATION))
}

async fn remove(fixture: &Fixture, supi: &str) {
    fixture.client(AUSF).remove_context(&supi.parse().unwrap()).await.unwrap();
}

/// The operator's client, and the resource of a UE or AF for which AKMA is disabled.
fn provisioning(fixture: &Fixture, kind: &str, name: &str) -> (SbiClient, String) {
    (fixture.authority.client(OPERATOR), format!("{}{PROVISIONING_PATH}/disabled-{kind}/{name}", fixture.root()))
}

async fn disable(fixture: &Fixture, kind: &str, name: &str) {
    let (http, uri) = provisioning(fixture, kind, name);
    assert_eq!(http.put::<_, Value>(&uri, &json!({})).await.unwrap().status, StatusCode::NO_CONTENT);
}

async fn enable(fixture: &Fixture, kind: &str, name: &str) {
    let (http, uri) = provisioning(fixture, kind, name);
    assert_eq!(http.delete::<Value>(&uri).await.unwrap().status, StatusCode::NO_CONTENT);
}

/// Waits until the metrics have this line.
async fn metrics_say(fixture: &Fixture, line: &str) {
    while !metrics(fixture).await.lines().any(|text| text == line) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_af_that_left_a_uri_is_told_when_the_context_is_removed_and_others_are_not_needed_for_it() {
    let (fixture, mut consumer) = start().await;
    fixture.register(SUPI, A_KID).await;
    assert!(will_notify(&subscribe(&fixture, &consumer, A_KID).await));
    fixture.retrieve(OUTSIDE_AF, OUTSIDE, A_KID).await.unwrap();
    remove(&fixture, SUPI).await;
    assert_eq!(consumer.next().await, A_KID);
    metrics_say(&fixture, "aanf_notifications_total{result=\"delivered\"} 1").await;
    metrics_say(&fixture, "aanf_notifications_pending 0").await;
    assert!(metrics(&fixture).await.contains("aanf_notification_uris 0"));
}

#[tokio::test]
async fn superseding_is_not_disabling_unless_the_operator_says_so() {
    for (outlives, expected) in [(true, vec![NEW_A_KID]), (false, vec![A_KID, NEW_A_KID])] {
        let (fixture, mut consumer) = start_with(|config| config.kaf_may_outlive_kakma = outlives).await;
        fixture.register(SUPI, A_KID).await;
        subscribe(&fixture, &consumer, A_KID).await;
        fixture.register(SUPI, NEW_A_KID).await;
        subscribe(&fixture, &consumer, NEW_A_KID).await;
        remove(&fixture, SUPI).await;
        for a_kid in expected {
            assert_eq!(consumer.next().await, a_kid, "{outlives}");
        }
        metrics_say(&fixture, "aanf_notifications_pending 0").await;
        assert!(consumer.notified.try_recv().is_err());
    }
}

#[tokio::test]
async fn a_notification_is_tried_until_the_af_takes_it_also_after_a_restart() {
    let (mut fixture, mut consumer) = start().await;
    consumer.answer(503);
    fixture.register(SUPI, A_KID).await;
    subscribe(&fixture, &consumer, A_KID).await;
    remove(&fixture, SUPI).await;
    consumer.asked_at_least(3).await;
    assert!(metrics(&fixture).await.contains("aanf_notifications_pending 1"));
    fixture.restart().await;
    let before = consumer.asked.load(Ordering::SeqCst);
    consumer.asked_at_least(before + 2).await;
    consumer.answer(204);
    assert_eq!(consumer.next().await, A_KID);
    metrics_say(&fixture, "aanf_notifications_pending 0").await;
    fixture.restart().await;
    assert!(metrics(&fixture).await.contains("aanf_notifications_pending 0"), "it is settled for good");
}

#[tokio::test]
async fn an_af_that_refuses_a_notification_is_not_asked_again() {
    let (fixture, consumer) = start().await;
    consumer.answer(404);
    fixture.register(SUPI, A_KID).await;
    subscribe(&fixture, &consumer, A_KID).await;
    remove(&fixture, SUPI).await;
    metrics_say(&fixture, "aanf_notifications_total{result=\"refused\"} 1").await;
    metrics_say(&fixture, "aanf_notifications_pending 0").await;
    assert_eq!(consumer.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_host_that_does_not_answer_keeps_no_other_waiting() {
    let (fixture, mut consumer) = start_with(|config| {
        for af in &mut config.afs {
            af.notification_uris = vec!["https://localhost".parse().unwrap()];
        }
    })
    .await;
    let elsewhere: NotificationUri = "https://127.0.0.1:9/akma".parse().unwrap();
    fixture.register(SUPI, A_KID).await;
    let refused_there = request(INSIDE, A_KID).with_notifications(elsewhere.clone());
    assert!(refused(ask(&fixture, INSIDE_AF, &refused_there).await).has_cause(refusal::NOTIFICATION_URI_NOT_ALLOWED));
    fixture.stop().await;

    let mut fixture = fixture;
    for af in &mut fixture.config.afs {
        let port = consumer.uri.port();
        af.notification_uris = vec![format!("https://localhost:{port}/").parse().unwrap(), elsewhere.clone()];
    }
    fixture.restart().await;
    ask(&fixture, INSIDE_AF, &request(INSIDE, A_KID).with_notifications(elsewhere)).await.unwrap();
    subscribe(&fixture, &consumer, A_KID).await;
    remove(&fixture, SUPI).await;
    assert_eq!(consumer.next().await, A_KID);
    // That it was taken is noted a little later.
    while !metrics(&fixture).await.contains("aanf_notifications_pending 1") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn only_https_uris_of_the_afs_own_names_are_taken() {
    let (fixture, consumer) = start().await;
    fixture.register(SUPI, A_KID).await;
    let port = consumer.uri.port();
    for foreign in
        [format!("https://127.0.0.1:{port}/akma"), "https://udm.example.com/".to_owned(), "https://[::1]/".into()]
    {
        let request = request(INSIDE, A_KID).with_notifications(foreign.parse().unwrap());
        let problem = refused(ask(&fixture, INSIDE_AF, &request).await);
        assert_eq!(problem.status, Some(403), "{foreign}");
        assert!(problem.has_cause(refusal::NOTIFICATION_URI_NOT_ALLOWED), "{foreign}");
    }
    let (http, api) = fixture.http(INSIDE_AF);
    for wrong in ["http://localhost/akma", "https://user@localhost/akma", "file:///etc/passwd", ""] {
        let body = json!({"afId": af_id(INSIDE), "aKId": A_KID, "notifUri": wrong});
        let problem = refused(http.post::<_, Value>(&format!("{api}/retrieve-applicationkey"), &body).await);
        assert!(problem.has_cause(cause::MANDATORY_IE_INCORRECT), "{wrong}");
        assert_eq!(problem.invalid_params[0].param, "/notifUri");
    }
    remove(&fixture, SUPI).await;
    assert!(metrics(&fixture).await.contains("aanf_notifications_pending 0"));
}

#[tokio::test]
async fn features_are_negotiated() {
    let (fixture, consumer) = start().await;
    fixture.register(SUPI, A_KID).await;
    let with = |supp_feat: Option<&str>, notif_uri: Option<NotificationUri>| AkmaAfKeyRequest {
        supp_feat: supp_feat.map(|text| text.parse().unwrap()),
        notif_uri,
        ..request(INSIDE, A_KID)
    };
    let uri = || Some(consumer.uri.clone());
    for (request, expected) in [
        (with(None, None), None),
        (with(Some("0"), None), Some("0")),
        (with(Some("ff"), None), Some("1")),
        (with(Some("2"), uri()), Some("0")),
        (with(Some("f3"), uri()), Some("1")),
        (with(None, uri()), Some("1")),
    ] {
        let answer = ask(&fixture, INSIDE_AF, &request).await.unwrap().supp_feat;
        assert_eq!(answer, expected.map(|text| text.parse().unwrap()), "{request:?}");
    }
    let mut info = key_info(SUPI, A_KID, K_AKMA);
    info.supp_feat = Some("f2".parse().unwrap());
    let registered = fixture.client(AUSF).register_anchorkey(&info).await.unwrap();
    assert_eq!(registered.supp_feat, Some(SupportedFeatures::default()));
}

#[tokio::test]
async fn uris_are_bounded_in_all_and_for_each_key() {
    let (mut fixture, mut consumer) = start_with(|config| {
        config.tables.notification_uris_max = 2;
        config.tables.notification_uris_per_key_max = 1;
    })
    .await;
    fixture.register(SUPI, A_KID).await;
    let port = consumer.uri.port();
    let ask_with = async |fixture: &Fixture, suite: u16, path: &str| {
        let af_id = AfId::new(INSIDE.parse().unwrap(), UaProtocolId::tls_1_2(suite));
        let uri = format!("https://localhost:{port}/{path}").parse().unwrap();
        let request = AkmaAfKeyRequest::new(af_id, A_KID.parse().unwrap()).with_notifications(uri);
        will_notify(&ask(fixture, INSIDE_AF, &request).await.unwrap())
    };
    assert!(ask_with(&fixture, 1, "gone").await);
    assert!(ask_with(&fixture, 1, "akma").await, "takes the place of the older one");
    assert!(ask_with(&fixture, 2, "akma").await);
    assert!(!ask_with(&fixture, 3, "akma").await, "the table is full; the key is given all the same");
    fixture.restart().await;
    assert!(!ask_with(&fixture, 3, "akma").await, "and is known to be after a restart");
    assert!(ask_with(&fixture, 2, "akma").await);
    assert!(metrics(&fixture).await.contains("aanf_notification_uris 2"));
    remove(&fixture, SUPI).await;
    assert_eq!(consumer.next().await, A_KID);
    metrics_say(&fixture, "aanf_notifications_pending 0").await;
    assert!(consumer.notified.try_recv().is_err(), "one for a URI, however many keys it is for");
    fixture.register(SUPI, A_KID).await;
    assert!(ask_with(&fixture, 3, "akma").await);
}

#[tokio::test]
async fn a_context_is_removed_also_when_too_many_notifications_wait() {
    let (fixture, mut consumer) = start_with(|config| config.notifications.pending_max = 1).await;
    consumer.answer(503);
    for (supi, a_kid) in [(SUPI, A_KID), (OTHER_SUPI, NEW_A_KID)] {
        fixture.register(supi, a_kid).await;
        subscribe(&fixture, &consumer, a_kid).await;
        remove(&fixture, supi).await;
        assert_eq!(fixture.retrieve(INSIDE_AF, INSIDE, a_kid).await.unwrap(), None);
    }
    consumer.answer(204);
    assert_eq!(consumer.next().await, A_KID);
    metrics_say(&fixture, "aanf_notifications_pending 0").await;
    assert!(consumer.notified.try_recv().is_err(), "the other is lost");
}

#[tokio::test]
async fn nobody_is_told_of_a_key_that_has_expired() {
    let (fixture, consumer) = start().await;
    fixture.register(SUPI, A_KID).await;
    let request = request(HASTY, A_KID).with_notifications(consumer.uri.clone());
    let data = ask(&fixture, HASTY_AF, &request).await.unwrap();
    while time::OffsetDateTime::now_utc() <= data.expiry {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    remove(&fixture, SUPI).await;
    assert!(metrics(&fixture).await.contains("aanf_notifications_pending 0"));
    assert_eq!(consumer.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_operator_disables_akma_for_a_ue_and_enables_it_again() {
    let (mut fixture, mut consumer) = start().await;
    fixture.register(SUPI, A_KID).await;
    subscribe(&fixture, &consumer, A_KID).await;
    disable(&fixture, "ues", SUPI).await;
    assert_eq!(consumer.next().await, A_KID);
    assert_eq!(fixture.retrieve(INSIDE_AF, INSIDE, A_KID).await.unwrap(), None);
    disable(&fixture, "ues", SUPI).await;

    fixture.restart().await;
    let again =
        async |fixture: &Fixture| fixture.client(AUSF).register_anchorkey(&key_info(SUPI, NEW_A_KID, K_AKMA)).await;
    let problem = refused(again(&fixture).await);
    assert_eq!(problem.status, Some(403));
    assert!(problem.has_cause(refusal::AKMA_DISABLED));
    fixture.register(OTHER_SUPI, THIRD_A_KID).await;
    let (http, uri) = provisioning(&fixture, "ues", SUPI);
    assert_eq!(http.get::<Value>(&uri).await.unwrap().status, StatusCode::NO_CONTENT);

    enable(&fixture, "ues", SUPI).await;
    enable(&fixture, "ues", SUPI).await;
    again(&fixture).await.unwrap();
    assert!(refused(http.get::<Value>(&uri).await).has_cause(refusal::NOT_DISABLED));
}

#[tokio::test]
async fn the_operator_disables_akma_for_an_af_which_is_told_of_each_of_its_a_kids() {
    let (mut fixture, mut consumer) = start().await;
    for (supi, a_kid) in [(SUPI, A_KID), (OTHER_SUPI, NEW_A_KID)] {
        fixture.register(supi, a_kid).await;
        subscribe(&fixture, &consumer, a_kid).await;
    }
    fixture.register("imsi-001010000000003", THIRD_A_KID).await;
    let outside = request(OUTSIDE, THIRD_A_KID).with_notifications(consumer.uri.clone());
    ask(&fixture, OUTSIDE_AF, &outside).await.unwrap();

    disable(&fixture, "afs", INSIDE).await;
    let mut told = [consumer.next().await, consumer.next().await];
    told.sort();
    assert_eq!(told, [A_KID, NEW_A_KID]);
    metrics_say(&fixture, "aanf_notification_uris 1").await;
    for _ in 0..2 {
        let problem = refused(fixture.retrieve(INSIDE_AF, INSIDE, A_KID).await);
        assert_eq!(problem.status, Some(403));
        assert!(problem.has_cause(refusal::AF_DISABLED));
        assert!(fixture.retrieve(OUTSIDE_AF, OUTSIDE, THIRD_A_KID).await.unwrap().is_some());
        fixture.restart().await;
    }
    enable(&fixture, "afs", INSIDE).await;
    assert!(fixture.retrieve(INSIDE_AF, INSIDE, A_KID).await.unwrap().is_some());
    metrics_say(&fixture, "aanf_notifications_pending 0").await;
    assert!(consumer.notified.try_recv().is_err());
}

#[tokio::test]
async fn many_notifications_of_one_af_wait_for_room() {
    let (fixture, mut consumer) = start_with(|config| config.notifications.pending_max = 2).await;
    let mut expected = Vec::new();
    for number in 0..20 {
        let a_kid = format!("0.{number:02}@example.com");
        fixture.register(&format!("imsi-0010100000000{number:02}"), &a_kid).await;
        subscribe(&fixture, &consumer, &a_kid).await;
        expected.push(a_kid);
    }
    disable(&fixture, "afs", INSIDE).await;
    let mut told = Vec::new();
    while told.len() < expected.len() {
        told.push(consumer.next().await);
    }
    told.sort();
    assert_eq!(told, expected);
}

#[tokio::test]
async fn provisioning_is_for_the_operator_and_is_bounded() {
    let (fixture, _consumer) = start_with(|config| {
        config.tables.disabled_ues_max = 1;
        config.tables.disabled_afs_max = 1;
    })
    .await;
    for stranger in [AUSF, INSIDE_AF, STRANGER] {
        for (kind, name) in [("ues", SUPI), ("afs", INSIDE)] {
            let (_, uri) = provisioning(&fixture, kind, name);
            let http = fixture.authority.client(stranger);
            let refusals: [Result<_, SbiError>; 3] = [
                http.put::<_, Value>(&uri, &json!({})).await,
                http.delete::<Value>(&uri).await,
                http.get::<Value>(&uri).await,
            ];
            for refusal in refusals {
                assert!(refused(refusal).has_cause(refusal::REQUESTER_NOT_ALLOWED), "{stranger}");
            }
        }
    }
    fixture.register(SUPI, A_KID).await;
    for (kind, first, second, wrong) in
        [("ues", SUPI, OTHER_SUPI, "0010100000001"), ("afs", INSIDE, OUTSIDE, "not-_-a-name")]
    {
        disable(&fixture, kind, first).await;
        disable(&fixture, kind, first).await;
        let (http, uri) = provisioning(&fixture, kind, second);
        let problem: ProblemDetails = refused(http.put::<_, Value>(&uri, &json!({})).await);
        assert_eq!(problem.status, Some(500));
        assert!(problem.has_cause(cause::INSUFFICIENT_RESOURCES));
        let (_, uri) = provisioning(&fixture, kind, wrong);
        let problem = refused(http.put::<_, Value>(&uri, &json!({})).await);
        assert!(problem.has_cause(cause::MANDATORY_IE_INCORRECT));
        enable(&fixture, kind, first).await;
        disable(&fixture, kind, second).await;
    }
}
