//! The AKMA anchor function is down, slow, somebody else, or answers nonsense: no handshake succeeds, each is told
//! internal_error (80), and whoever is connected goes on (TS 33.535 clause 6.2; `docs/reference/transport.md`).

use axum::http::StatusCode;
use serde_json::json;

use crate::common::Lab;
use crate::common::foreign_ue::{
    BAD_RECORD_MAC, DECRYPT_ERROR, ForeignUe, HANDSHAKE_FAILURE, INTERNAL_ERROR, TLS_1_2_ECDHE, TLS_1_2_PLAIN, TLS_1_3,
    UNKNOWN_PSK_IDENTITY,
};
use crate::common::function::Function;
use crate::neighbour::{Habit, Manner, NobodyThere, Relay, Stranger, ausf_of, certificate, eventually, impostor};

const AANF: &str = "MSGIN5G_AKMA__AANF";
/// So that every handshake of a test asks, instead of being refused by the breaker that opened before.
const PATIENT: (&str, &str) = ("MSGIN5G_AKMA__LOOKUPS__BREAKER_FAILURES", "1000000");
const TIMED_OUT: &str = "akma_key_lookups_total{outcome=\"timed_out\"}";
const UNAVAILABLE: &str = "akma_key_lookups_total{outcome=\"unavailable\"}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aanf_that_is_down_is_internal_error_until_it_is_back() {
    let lab = Lab::start();
    let nobody = NobodyThere::new();
    let server = Function::server(&lab, &[(AANF, &nobody.root())]);
    let mut alice = ForeignUe::new(&lab, 0);
    alice.authenticate();
    for client in [TLS_1_3, TLS_1_2_ECDHE, TLS_1_2_PLAIN] {
        alice.is_refused(server.address(), client, INTERNAL_ERROR);
    }
    assert_eq!(server.metric(UNAVAILABLE), 3);

    let address = nobody.address();
    drop(nobody);
    let _aanf = Relay::before_at(&lab, "aanf", address).await;
    // Nothing is to be done at the server.
    eventually("the first handshake", || alice.connect(server.address(), TLS_1_3).is_ok()).await;
    assert_eq!(alice.register().code, "2.01");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aanf_that_froze_or_was_killed_serves_the_same_a_kids_when_it_is_back() {
    let lab = Lab::start();
    let free = NobodyThere::new();
    let listen = free.address().to_string();
    drop(free);
    let mut aanf = Function::aanf(&lab, &[("MSGIN5G_LISTEN", &listen)]);
    let ausf = ausf_of(&lab, &aanf.root()).await;
    let server = Function::server(&lab, &[(AANF, &aanf.root())]);
    let mut alice = ForeignUe::new(&lab, 0);
    alice.authenticate_at(&ausf);
    // From here on the server has a connection to the AAnF, which outlives neither.
    alice.connects(server.address(), TLS_1_3);

    aanf.signal("STOP");
    for client in [TLS_1_3, TLS_1_2_ECDHE] {
        alice.is_refused(server.address(), client, INTERNAL_ERROR);
    }
    aanf.signal("CONT");
    eventually("a handshake after the frost", || alice.connect(server.address(), TLS_1_3).is_ok()).await;

    aanf.kill();
    for client in [TLS_1_3, TLS_1_2_ECDHE] {
        alice.is_refused(server.address(), client, INTERNAL_ERROR);
    }
    aanf.start_again();
    eventually("a handshake after the restart", || alice.connect(server.address(), TLS_1_3).is_ok()).await;
    assert_eq!(alice.register().code, "2.01");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aanf_that_says_nothing_ends_the_handshake_by_the_look_up_time_out_with_internal_error() {
    let lab = Lab::start();
    let mut alice = ForeignUe::new(&lab, 0);
    alice.authenticate();
    for habit in [Habit::SilentTcp, Habit::SilentTls] {
        let aanf = Stranger::start(&certificate(&lab, "aanf"), habit).await;
        let server =
            Function::server(&lab, &[(AANF, &aanf.root()), ("MSGIN5G_AKMA__LOOKUPS__TIMEOUT_MS", "500"), PATIENT]);
        for (refused, client) in (1..).zip([TLS_1_3, TLS_1_2_ECDHE, TLS_1_2_PLAIN]) {
            alice.is_refused(server.address(), client, INTERNAL_ERROR);
            assert_eq!(server.metric(TIMED_OUT), refused, "{habit:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_aanf_is_slow_for_one_ue_all_others_are_served() {
    let lab = Lab::start();
    let aanf = Relay::before(&lab, "aanf").await;
    let server = Function::server(&lab, &[(AANF, &aanf.root())]);
    let mut alice = ForeignUe::registered(&lab, 0, server.address());
    let mut bob = ForeignUe::registered(&lab, 1, server.address());
    let mut carol = ForeignUe::new(&lab, 2);
    let to = bob.service_id.clone();
    for client in [TLS_1_3, TLS_1_2_ECDHE] {
        aanf.is(Manner::SilentAbout(carol.authenticate()));
        let asked = aanf.asked();
        std::thread::scope(|scope| {
            let stuck = scope.spawn(|| carol.is_refused(server.address(), client, INTERNAL_ERROR));
            // Carol's handshake waits for its key by now.
            while aanf.asked() == asked {
                assert!(!stuck.is_finished(), "refused without a question");
                std::thread::yield_now();
            }
            let mut dave = ForeignUe::registered(&lab, 3, server.address());
            std::thread::scope(|scope| {
                let sent = scope.spawn(|| dave.send(&to, &client.replace(' ', "-")));
                bob.receive(1);
                assert!(sent.join().unwrap().is_delivered());
            });
            dave.close();
            stuck.join().unwrap();
        });
    }
    assert_eq!(server.metric(TIMED_OUT), 2);

    aanf.is(Manner::Silent);
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| alice.send(&to, "while-nobody-can-connect"));
        bob.receive(1);
        assert!(sent.join().unwrap().is_delivered());
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aanf_that_answers_nonsense_is_internal_error() {
    let lab = Lab::start();
    let aanf = Relay::before(&lab, "aanf").await;
    let server = Function::server(&lab, &[(AANF, &aanf.root()), PATIENT]);
    let mut alice = ForeignUe::new(&lab, 0);
    alice.authenticate();
    let good = json!({"kaf": "ab".repeat(32), "expiry": "2035-01-01T00:00:00Z", "supi": alice.supi});
    let with = |member: &str, value: serde_json::Value| {
        let mut answer = good.clone();
        answer[member] = value;
        Manner::saying(answer)
    };
    let without = |member: &str| {
        let mut answer = good.clone();
        answer.as_object_mut().unwrap().remove(member);
        Manner::saying(answer)
    };
    let nonsense = [
        Manner::saying(""),
        Manner::saying("{\"kaf\":"),
        Manner::saying("null"),
        Manner::saying("[".repeat(100_000)),
        Manner::saying(format!("{{\"supi\":\"{}\"}}", "x".repeat(1 << 20))),
        Manner::Saying(StatusCode::OK, "text/html", good.to_string()),
        with("kaf", json!("ab".repeat(31))),
        with("kaf", json!("ab".repeat(33))),
        with("kaf", json!("zz".repeat(32))),
        with("kaf", json!(7)),
        without("kaf"),
        with("expiry", json!("next year")),
        without("expiry"),
        with("supi", json!("001010000000001")),
        Manner::status(StatusCode::INTERNAL_SERVER_ERROR),
        Manner::status(StatusCode::SERVICE_UNAVAILABLE),
        Manner::status(StatusCode::UNAUTHORIZED),
        // What we are not allowed is no fault of the A-KID: a UE that authenticated anew would be refused all the same.
        Manner::status(StatusCode::FORBIDDEN),
        Manner::status(StatusCode::TEMPORARY_REDIRECT),
    ];
    for (refused, manner) in (0..).zip(&nonsense) {
        aanf.is(manner.clone());
        for (client, number) in [(TLS_1_3, 1), (TLS_1_2_ECDHE, 2)] {
            alice.is_refused(server.address(), client, INTERNAL_ERROR);
            assert_eq!(server.metric(UNAVAILABLE), 2 * refused + number, "{manner:?}");
        }
    }
    aanf.is(Manner::Honest);
    alice.connects(server.address(), TLS_1_3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_not_an_aanf_or_does_not_speak_http_2_is_internal_error() {
    let lab = Lab::start();
    let mut alice = ForeignUe::new(&lab, 0);
    alice.authenticate();
    let genuine = certificate(&lab, "aanf");
    let cases = [
        (genuine.clone(), Habit::Babbling(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")),
        (genuine.clone(), Habit::Babbling(&[0xFF; 4096])),
        (genuine, Habit::Closing),
        // Somebody at the right address whom another authority vouches for.
        (impostor(&lab), Habit::SilentTls),
    ];
    for (tls, habit) in cases {
        let aanf = Stranger::start(&tls, habit).await;
        let server = Function::server(&lab, &[(AANF, &aanf.root()), PATIENT]);
        for client in [TLS_1_3, TLS_1_2_ECDHE] {
            alice.is_refused(server.address(), client, INTERNAL_ERROR);
        }
        assert_eq!(server.metric(UNAVAILABLE), 2, "{habit:?}: {}", server.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_aanf_does_say_decides() {
    let lab = Lab::start();
    let aanf = Relay::before(&lab, "aanf").await;
    let server = Function::server(&lab, &[(AANF, &aanf.root()), ("MSGIN5G_AKMA__LOOKUPS__NEGATIVE_CACHE_MS", "0")]);
    let mut alice = ForeignUe::new(&lab, 0);
    alice.authenticate();
    // About this A-KID, which anybody may choose: unknown, not a fault.
    for status in [StatusCode::NO_CONTENT, StatusCode::BAD_REQUEST, StatusCode::NOT_FOUND] {
        aanf.is(Manner::status(status));
        alice.is_refused(server.address(), TLS_1_3, HANDSHAKE_FAILURE);
        alice.is_refused(server.address(), TLS_1_2_ECDHE, UNKNOWN_PSK_IDENTITY);
    }
    let expired = json!({"status": 403, "cause": "K_AF_EXPIRED"}).to_string();
    aanf.is(Manner::Saying(StatusCode::FORBIDDEN, "application/problem+json", expired));
    alice.is_refused(server.address(), TLS_1_3, HANDSHAKE_FAILURE);
    alice.is_refused(server.address(), TLS_1_2_ECDHE, UNKNOWN_PSK_IDENTITY);
    let another_key = json!({"kaf": "ab".repeat(32), "expiry": "2035-01-01T00:00:00Z", "supi": alice.supi});
    aanf.is(Manner::saying(&another_key));
    alice.is_refused(server.address(), TLS_1_3, DECRYPT_ERROR);
    alice.is_refused(server.address(), TLS_1_2_ECDHE, BAD_RECORD_MAC);
    aanf.is(Manner::saying(json!({"kaf": "ab".repeat(32), "expiry": "2020-01-01T00:00:00Z", "supi": alice.supi})));
    alice.is_refused(server.address(), TLS_1_3, HANDSHAKE_FAILURE);
    alice.is_refused(server.address(), TLS_1_2_ECDHE, UNKNOWN_PSK_IDENTITY);
    assert_eq!(server.metric(UNAVAILABLE), 0, "none of these is a fault of the AAnF");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_aanf_is_left_alone_once_the_breaker_is_open() {
    let lab = Lab::start();
    let aanf = Relay::before(&lab, "aanf").await;
    let server = Function::server(
        &lab,
        &[
            (AANF, &aanf.root()),
            ("MSGIN5G_AKMA__LOOKUPS__BREAKER_FAILURES", "2"),
            ("MSGIN5G_AKMA__LOOKUPS__BREAKER_OPEN_MS", "3600000"),
        ],
    );
    let mut alice = ForeignUe::registered(&lab, 0, server.address());
    let mut bob = ForeignUe::new(&lab, 1);
    bob.authenticate();
    let asked = aanf.asked();
    aanf.is(Manner::status(StatusCode::INTERNAL_SERVER_ERROR));
    for client in [TLS_1_3, TLS_1_2_ECDHE, TLS_1_3, TLS_1_2_ECDHE] {
        bob.is_refused(server.address(), client, INTERNAL_ERROR);
    }
    assert_eq!(aanf.asked(), asked + 2);
    assert_eq!(server.metric("akma_key_lookup_breaker_open"), 1);
    alice.send("nobody@lab.example", "still-served").refused("4.04", "UNKNOWN_TARGET");
}
