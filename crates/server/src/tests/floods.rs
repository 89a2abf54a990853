//! Each flood of `docs/operate.md` that reaches this crate: the event that is told, and the metric that counts.

use akma::KAf;
use http::StatusCode;
use transport::testing::SecurityLog;

use super::https::{HttpDevice, Https};
use super::*;

#[tokio::test]
async fn a_peer_that_reads_nothing_is_closed_counted_and_told_and_its_messages_are_kept() {
    let log = SecurityLog::record();
    let limits = Limits { write_timeout_seconds: 1, outbound_octets_max: 4096, ..Limits::default() };
    let net = Net::with(limits).await;
    let mut alice = net.ue("alice").await;
    net.associate(&supi_of("bob"), "bob");
    let proven = peer(Some(&supi_of("bob")), None);
    let a_kid = proven.a_kid.to_string();
    let mut bob = net.connect_as(proven, 1024);
    assert_eq!(bob.register("bob").await.code, Code::CREATED);
    let mut open = Vec::new();
    for id in 0..20 {
        let sent = Message { payload: vec![0; 1000], ..storable("alice", "bob", &id.to_string()) };
        open.push(alice.post(&sent).await);
    }
    // Bob's end is there, and nobody reads from it.
    assert_eq!(timeout(PATIENCE, &mut bob.session).await.unwrap().unwrap(), Ended::NotReading);
    until(|| net.counts("msgin5g_connections_ended_total{reason=\"peer does not read\"} 1")).await;
    log.tells("connection ended", &[("reason", "peer does not read"), ("a_kid", &a_kid), ("unlogged", "0")]).await;
    for exchange in open {
        assert_eq!(alice.fate(exchange).await, Fate::stored());
    }
    let mut bob = net.ue("bob").await;
    for id in 0..20 {
        assert_eq!(bob.receive().await.message_id.as_str(), id.to_string());
    }
}

#[tokio::test]
async fn a_ue_that_registers_over_and_over_is_counted_and_told() {
    let log = SecurityLog::record();
    let net = Net::with(Limits { registrations_per_minute_max: 1, ..Limits::default() }).await;
    let mut alice = net.ue("alice").await;
    for _ in 0..5 {
        assert_eq!(alice.register("alice").await.code, Code::TOO_MANY_REQUESTS);
    }
    assert!(net.counts("msgin5g_registrations_total{cause=\"RATE_EXCEEDED\"} 5"));
    let a_kid = peer(Some(&supi_of("alice")), None).a_kid.to_string();
    log.tells("registration refused at a limit", &[("a_kid", &a_kid)]).await;
}

#[tokio::test]
async fn who_has_one_key_looked_up_over_https_too_often_is_counted_and_told() {
    let log = SecurityLog::record();
    let https = Https::new().await;
    let mut guess = https.device("alice");
    guess.k_af = KAf::from_bytes([1; 32]);
    let nonce = guess.nonce().await;
    let count = "msgin5g_https_authentications_total{outcome=\"lookups_per_nonce_max\"} 5";
    timeout(PATIENCE, async {
        while !https.counts(count) {
            assert_eq!(guess.under(&nonce).await.status(), StatusCode::UNAUTHORIZED);
        }
    })
    .await
    .unwrap();
    // Of each kind there is one a second, and the first refusals were of another reason.
    timeout(PATIENCE, async {
        while !log.has("device over HTTPS refused", &[("reason", "lookups_per_nonce_max")]) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            guess.under(&nonce).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn who_invents_a_kids_over_https_is_counted_and_told() {
    let log = SecurityLog::record();
    let https = Https::new().await;
    let mut number = 0;
    let limit = [("limit", "unknown_per_second_per_source_max")];
    timeout(PATIENCE, async {
        while !log.has("key lookup refused at a limit", &limit) {
            let stranger = HttpDevice::stranger(&https.router, number);
            stranger.under(&stranger.nonce().await).await;
            number += 1;
        }
        while !log.has("device over HTTPS refused", &[("reason", "too_many_lookups")]) {
            let stranger = HttpDevice::stranger(&https.router, number);
            stranger.under(&stranger.nonce().await).await;
            number += 1;
        }
    })
    .await
    .unwrap();
    for outcome in ["too_many_lookups", "a_kid_not_known"] {
        let line = format!("msgin5g_https_authentications_total{{outcome=\"{outcome}\"}} ");
        assert!(https.metrics().contains(&line), "{outcome}");
    }
}
