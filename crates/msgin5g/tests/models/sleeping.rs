//! Devices that sleep (TS 23.554 clauses 8.2.1 and 8.9, TS 29.122): the server process and a network exposure function.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::common::{Lab, foreign_ue::ForeignUe};
use crate::neighbour::client_of;
use crate::peer::{Asked, Manner, Peer, destination, exposure_function, post_as, refused};
use crate::wire::{msg, storable, with};
use crate::world::{LAMP, METER, VALVE, World, passes};

/// The server with an exposure function, which is asked at once and asked again soon.
struct Exposed {
    world: World,
    nef: Peer,
}

impl Exposed {
    async fn start(variables: &[(&'static str, &str)]) -> Self {
        Self::with_section("", 60_000, variables).await
    }

    /// With further keys of `[exposure]`; the exposure function has `timeout` milliseconds for an answer.
    async fn with_section(rest: &str, timeout: u64, variables: &[(&'static str, &str)]) -> Self {
        let lab = Lab::start();
        let nef = Peer::start(&lab, "nef", exposure_function).await;
        let root = nef.root();
        // Every certificate of the lab names 127.0.0.1, so the exposure function is known by another of its names.
        let section = format!(
            "{{ nef = \"{root}\", scs_as_id = \"msgin5g\", notification_listen = \"127.0.0.1:0\", \
             notifier = {{ dns_name = \"nef.5gc.mnc001.mcc001.3gppnetwork.org\" }}, \
             requests = {{ request_timeout_milliseconds = {timeout} }} {rest} }}"
        );
        let mut all = vec![
            ("MSGIN5G_EXPOSURE", section.as_str()),
            ("MSGIN5G_LIMITS__TRIGGER_DELAY_SECONDS", "0"),
            ("MSGIN5G_LIMITS__TRIGGER_RESTART_PAUSE_SECONDS", "0"),
            ("MSGIN5G_LIMITS__TRIGGER_INTERVAL_SECONDS", "0"),
            ("MSGIN5G_LIMITS__TRIGGER_BACKOFF_FIRST_SECONDS", "1"),
            ("MSGIN5G_LIMITS__TRIGGER_BACKOFF_MAX_SECONDS", "1"),
            ("MSGIN5G_LIMITS__TRIGGER_ATTEMPTS_MAX", "1000"),
        ];
        all.extend(variables);
        Self { world: World::beside(lab, &all), nef }
    }

    /// A UE whose GPSI is proven its own registers with it and goes to sleep.
    async fn asleep(&self, subscriber: usize) -> ForeignUe {
        self.world.associate_gpsi(subscriber).await;
        let mut ue = ForeignUe::new(&self.world.lab, subscriber);
        ue.authenticate();
        ue.come_back_with(self.world.server.address(), triggering(&self.world.gpsi(subscriber)));
        ue.close();
        ue
    }

    /// The next trigger. Withdrawals of earlier ones may come before it.
    async fn trigger(&mut self) -> Value {
        loop {
            let Asked { method, path, body } = self.nef.asked().await;
            if method == Method::POST {
                assert!(path.starts_with("/3gpp-device-triggering/"), "{path}");
                return body;
            }
        }
    }

    /// The exposure function reports on a trigger; the status of the answer.
    async fn reports(&self, trigger: &Value, result: &str) -> Result<Value, crate::peer::Refused> {
        let body = json!({"transaction": "https://nef.example/transactions/1", "result": result});
        post_as(&self.nef.client, destination(trigger), &body).await
    }
}

/// Client profile with triggering information.
fn triggering(gpsi: &str) -> Value {
    json!({"trigInfo": {"ueId": gpsi, "ports": [5000]}})
}

/// The sample of triggers with this outcome.
fn triggers(outcome: &str) -> String {
    format!("msgin5g_triggers_total{{outcome=\"{outcome}\"}}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sleeping_device_is_woken_through_the_exposure_function_and_gets_what_waits() {
    let mut net = Exposed::start(&[]).await;
    let mut meter = net.world.ue(METER);
    let mut valve = net.asleep(VALVE).await;
    let waits = storable(&meter.address(), &valve.address(), "1");
    assert!(meter.request(with(waits, json!({"priority": "HIGH"}))).is_stored());
    assert!(meter.send_storable(&valve.service_id, "2").is_stored());
    let trigger = net.trigger().await;
    let msisdn = net.world.gpsi(VALVE).trim_start_matches("msisdn-").to_owned();
    assert_eq!((&trigger["msisdn"], &trigger["applicationPortId"]), (&msisdn.into(), &5000.into()));
    assert_eq!(trigger["priority"], "PRIORITY");
    net.world.server.metric_reaches(&triggers("taken"), 1);
    net.reports(&trigger, "SUCCESS").await.unwrap();
    valve.come_back_with(net.world.server.address(), triggering(&net.world.gpsi(VALVE)));
    assert_eq!(valve.receive(2), ["1", "2"]);
    // The last word comes when nobody waits for it any more.
    net.reports(&trigger, "SUCCESS").await.unwrap();
    passes(&mut meter, &mut valve, "3");
    net.nef.was_asked_nothing_more();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_is_triggered_when_the_network_says_that_it_is_reachable() {
    let mut net = Exposed::with_section(", reachability_monitoring = true", 60_000, &[]).await;
    let mut meter = net.world.ue(METER);
    let mut valve = net.asleep(VALVE).await;
    assert!(meter.send_storable(&valve.service_id, "1").is_stored());
    let Asked { path, body: subscription, .. } = net.nef.asked().await;
    assert_eq!(path, "/3gpp-monitoring-event/v1/msgin5g/subscriptions");
    net.world.server.metric_reaches("msgin5g_reachability_subscriptions_total{outcome=\"taken\"}", 1);
    net.nef.was_asked_nothing_more();
    let report = json!({"monitoringType": "UE_REACHABILITY", "reachabilityType": "SMS"});
    let body = json!({"subscription": "https://nef.example/subscriptions/1", "monitoringEventReports": [report]});
    post_as(&net.nef.client, destination(&subscription), &body).await.unwrap();
    let trigger = net.trigger().await;
    net.reports(&trigger, "SUCCESS").await.unwrap();
    valve.come_back(net.world.server.address());
    assert_eq!(valve.receive(1), ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exposure_function_that_is_away_is_asked_when_it_is_back_and_nothing_is_lost() {
    let mut net = Exposed::start(&[]).await;
    let mut meter = net.world.ue(METER);
    let mut valve = net.asleep(VALVE).await;
    net.nef.goes_away().await;
    assert!(meter.send_storable(&valve.service_id, "1").is_stored());
    net.world.server.metric_reaches(&triggers("NEF unavailable"), 2);
    net.nef.comes_back().await;
    net.trigger().await;
    net.world.server.metric_reaches(&triggers("taken"), 1);
    // And away for good: whoever comes by itself is served.
    net.nef.goes_away().await;
    assert!(meter.send_storable(&valve.service_id, "2").is_stored());
    valve.come_back(net.world.server.address());
    assert_eq!(valve.receive(2), ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_the_server_loses_nothing_for_a_sleeping_device_and_the_trigger_is_asked_for_again() {
    let mut net = Exposed::start(&[]).await;
    let mut meter = net.world.ue(METER);
    let mut valve = net.asleep(VALVE).await;
    assert!(meter.send_storable(&valve.service_id, "1").is_stored());
    let before = net.trigger().await;
    net.world.server.metric_reaches(&triggers("taken"), 1);
    net.world.crash();
    let after = net.trigger().await;
    assert_eq!(before["msisdn"], after["msisdn"], "the profile is on disk");
    assert_ne!(destination(&before), destination(&after));
    // What the exposure function says of the earlier one means nothing now.
    let token = destination(&before).rsplit('/').next().unwrap();
    let root = destination(&after).rsplit_once('/').unwrap().0;
    let report = json!({"transaction": "/1", "result": "SUCCESS"});
    refused(post_as(&net.nef.client, &format!("{root}/{token}"), &report).await, 404, "NOTIFICATION_NOT_FOUND");
    net.world.server.metric_reaches(&triggers("taken"), 1);

    // Killed again, while the exposure function has been asked and has not answered.
    net.nef.is(Manner::Silent);
    net.reports(&after, "FAILURE").await.unwrap();
    net.trigger().await;
    net.world.server.kill();
    net.nef.is(Manner::Taking);
    net.nef.forgets();
    net.world.server.start_again();
    let last = net.trigger().await;
    net.reports(&last, "SUCCESS").await.unwrap();
    valve.come_back(net.world.server.address());
    assert_eq!(valve.receive(1), ["1"]);
    meter.come_back(net.world.server.address());
    // It was handed over, so it does not come again.
    passes(&mut meter, &mut valve, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_has_somebody_else_woken_and_nobody_but_the_exposure_function_notifies() {
    let mut net = Exposed::start(&[]).await;
    let (server, gpsi) = (net.world.server.address(), net.world.gpsi(LAMP));
    let mut meter = net.world.ue(METER);
    // It names an identifier that is the lamp's.
    let mut forger = ForeignUe::new(&net.world.lab, VALVE);
    forger.authenticate();
    forger.come_back_with(server, triggering(&gpsi));
    forger.close();
    assert!(meter.send_storable(&forger.service_id, "1").is_stored());
    net.world.server.metric_reaches(&triggers("not allowed"), 1);
    net.nef.was_asked_nothing_more();
    // What is stored for it is its own all the same.
    forger.come_back(server);
    assert_eq!(forger.receive(1), ["1"]);

    let lamp = net.asleep(LAMP).await;
    assert!(meter.send_storable(&lamp.service_id, "2").is_stored());
    let trigger = net.trigger().await;
    net.world.server.metric_reaches(&triggers("taken"), 1);
    let failed = json!({"transaction": "/1", "result": "FAILURE"});
    for stranger in ["as-billing", "lab-nf", "server"] {
        let client = client_of(&net.world.lab, stranger);
        refused(post_as(&client, destination(&trigger), &failed).await, 403, "NOTIFIER_NOT_ALLOWED");
    }
    assert_eq!(net.world.server.metric("msgin5g_exposure_notifications_total{outcome=\"refused\"}"), 3);
    // The server's own words would have made it trigger again.
    net.nef.was_asked_nothing_more();
    let log = net.world.server.log();
    assert!(!log.contains(gpsi.trim_start_matches("msisdn-")), "an identifier is in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_device_too_many_waits_to_come_by_itself() {
    let mut net = Exposed::start(&[("MSGIN5G_LIMITS__TRIGGERS_WATCHED_MAX", "1")]).await;
    let mut meter = net.world.ue(METER);
    let mut valve = net.asleep(VALVE).await;
    let mut lamp = net.asleep(LAMP).await;
    assert!(meter.send_storable(&valve.service_id, "1").is_stored());
    net.trigger().await;
    assert!(meter.send_storable(&lamp.service_id, "2").is_stored());
    net.world.server.metric_reaches(&triggers("table full"), 1);
    net.nef.was_asked_nothing_more();
    let server = net.world.server.address();
    lamp.come_back(server);
    assert_eq!(lamp.receive(1), ["2"]);
    // Once the first is here, there is room for another.
    valve.come_back(server);
    assert_eq!(valve.receive(1), ["1"]);
    lamp.come_back_with(server, triggering(&net.world.gpsi(LAMP)));
    lamp.close();
    assert!(meter.send_storable(&lamp.service_id, "3").is_stored());
    let msisdn = net.world.gpsi(LAMP).trim_start_matches("msisdn-").to_owned();
    assert_eq!(net.trigger().await["msisdn"], msisdn.as_str());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_exposure_function_answers_what_waits_is_kept() {
    let net = Exposed::with_section("", 1_000, &[]).await;
    let mut meter = net.world.ue(METER);
    let mut valve = net.asleep(VALVE).await;
    net.nef.is(Manner::Silent);
    assert!(meter.send_storable(&valve.service_id, "1").is_stored());
    net.world.server.metric_reaches(&triggers("no answer in time"), 1);
    let nonsense = Manner::Saying(StatusCode::CREATED, "application/json", "\u{0}\u{1}{");
    for (manner, outcome) in [
        (nonsense, "unusable answer"),
        (Manner::status(500), "NEF unavailable"),
        (Manner::status(307), "refused"),
        (Manner::status(403), "refused"),
    ] {
        let before = net.world.server.metric(&triggers(outcome));
        net.nef.is(manner);
        net.world.server.metric_reaches(&triggers(outcome), before + 1);
    }
    net.nef.is(Manner::Taking);
    net.world.server.metric_reaches(&triggers("taken"), 1);
    valve.come_back(net.world.server.address());
    assert_eq!(valve.receive(1), ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_that_mean_nothing_do_nothing() {
    let mut net = Exposed::start(&[]).await;
    let mut meter = net.world.ue(METER);
    let mut valve = net.asleep(VALVE).await;
    assert!(meter.send_storable(&valve.service_id, "1").is_stored());
    let trigger = net.trigger().await;
    net.world.server.metric_reaches(&triggers("taken"), 1);
    let destination = destination(&trigger);
    for (body, cause) in [
        (json!({"transaction": "/1"}), "MANDATORY_IE_MISSING"),
        (json!({"transaction": "/1", "result": 7}), "MANDATORY_IE_INCORRECT"),
        (json!([]), "MANDATORY_IE_INCORRECT"),
        (json!("FAILURE"), "MANDATORY_IE_INCORRECT"),
        (Value::Null, "MANDATORY_IE_INCORRECT"),
    ] {
        refused(post_as(&net.nef.client, destination, &body).await, 400, cause);
    }
    let large = json!({"transaction": "x".repeat(100_000), "result": "FAILURE"});
    assert_eq!(post_as(&net.nef.client, destination, &large).await.unwrap_err().status, 413);
    let failed = json!({"transaction": "/1", "result": "FAILURE"});
    let (root, token) = destination.rsplit_once('/').unwrap();
    let monitoring = format!("{}/reachability/{token}", root.rsplit_once('/').unwrap().0);
    for guess in [format!("{root}/0123456789abcdef0123456789abcdef"), format!("{root}/x"), monitoring] {
        refused(post_as(&net.nef.client, &guess, &failed).await, 404, "NOTIFICATION_NOT_FOUND");
    }
    net.nef.was_asked_nothing_more();
    // A word of a later release says nothing; one that says that the device did not get it has it triggered anew.
    net.reports(&trigger, "PERHAPS").await.unwrap();
    net.nef.was_asked_nothing_more();
    net.reports(&trigger, "FAILURE").await.unwrap();
    let again = net.trigger().await;
    assert_ne!(destination, crate::peer::destination(&again));
    valve.come_back(net.world.server.address());
    assert_eq!(valve.receive(1), ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_that_makes_no_sense_registers_nobody_and_the_connection_goes_on() {
    let net = Exposed::start(&[]).await;
    let mut meter = net.world.ue(METER);
    let mut valve = ForeignUe::new(&net.world.lab, VALVE);
    valve.authenticate();
    valve.connects(net.world.server.address(), crate::common::foreign_ue::TLS_1_3);
    let window = |start: Value, duration: Value| json!({"commAvail": {"schedTime": start, "commDur": duration}});
    for wrong in [
        json!({"trigInfo": {"ueId": "imsi-001010000000001"}}),
        json!({"trigInfo": {"ueId": "msisdn-1"}}),
        json!({"trigInfo": {"ueId": "extid-nobody"}}),
        json!({"trigInfo": {"ports": [0.5]}}),
        json!({"trigInfo": {"ports": [65_536]}}),
        json!({"trigInfo": {"ports": (0..17).collect::<Vec<_>>()}}),
        json!({"trigInfo": {"protocol": "x".repeat(33)}}),
        json!({"trigInfo": "5000"}),
        window("yesterday".into(), 60.into()),
        window("2026-02-30T00:00:00Z".into(), 60.into()),
        window("2026-12-01T00:00:00Z".into(), 0.into()),
        window("2026-12-01T00:00:00Z".into(), (-1).into()),
        window("2026-12-01T00:00:00Z".into(), Value::Null),
        json!({"commAvail": {"schedTime": "2026-12-01T00:00:00Z", "commDur": 60, "periodInt": 59}}),
        json!({"segmentSize": 0}),
        json!({"aggrSup": "yes"}),
        json!([]),
    ] {
        let answer = valve.register_with(wrong.clone());
        assert_eq!((answer.code.as_str(), answer.cause()), ("4.00", Some("MALFORMED")), "{wrong}");
    }
    meter.send(&valve.service_id, "1").refused("4.04", "UNKNOWN_TARGET");
    assert_eq!(valve.register_with(triggering(&net.world.gpsi(VALVE))).code, "2.01");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connected_device_gets_nothing_until_its_window_opens_also_after_kill_9() {
    let mut net = Exposed::start(&[]).await;
    let mut meter = net.world.ue(METER);
    let mut valve = ForeignUe::new(&net.world.lab, VALVE);
    valve.authenticate();
    let window = |opens: Duration| {
        let opens = (OffsetDateTime::now_utc() + opens).format(&Rfc3339).unwrap();
        json!({"commAvail": {"schedTime": opens, "commDur": 3600, "periodInt": 7200}})
    };
    valve.come_back_with(net.world.server.address(), window(Duration::hours(1)));
    assert!(meter.send_storable(&valve.service_id, "1").is_stored(), "it is here, and not listening");
    meter.send(&valve.service_id, "2").refused("2.04", "TARGET_UNREACHABLE");
    // It may send at any time.
    let report = msg(&valve.address(), &meter.address(), "3");
    valve.post_request("3", report);
    assert_eq!(meter.receive(1), ["3"]);
    assert!(valve.collect().answers["3"].is_delivered());
    net.world.crash();
    meter.come_back(net.world.server.address());
    assert!(meter.send_storable(&valve.service_id, "4").is_stored(), "the profile is on disk");
    valve.come_back_with(net.world.server.address(), window(Duration::seconds(5)));
    assert_eq!(valve.receive(2), ["1", "4"], "by itself, when the window opens");
    net.nef.was_asked_nothing_more();
}
