//! Naanf_AKMA from outside: an AUSF, several AFs, strangers, a UDM; over real HTTP/2, certificates and files.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use aanf::{Config, KafLifetime, TableLimits, UdmConfig, refusal};
use akma::{AKid, AfId, Supi, UaProtocolId, UeId};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use common::*;
use sbi::naanf::{AkmaAfKeyData, AkmaAfKeyRequest, AnchorRoute, NaanfClient};
use sbi::testing::TestAuthority;
use sbi::{ClientLimits, Json, Path, ProblemDetails, SbiError, SbiServer, SbiServerConfig, ServerLimits, cause};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use transport::{KeySource, KeySourceError};

#[tokio::test]
async fn an_af_of_the_domain_gets_k_af_its_expiry_and_the_supi() {
    let fixture = Fixture::start().await;
    let registered = fixture.client(AUSF).register_anchorkey(&key_info(SUPI, A_KID, K_AKMA)).await.unwrap();
    assert_eq!(registered, key_info(SUPI, A_KID, K_AKMA), "the answer repeats what is stored");

    let data = fixture.retrieve(INSIDE_AF, "msgin5g.example.com", A_KID).await.unwrap().unwrap();
    assert_eq!(*data.kaf.to_hex(), K_AF);
    assert_eq!(data.supi, Some(SUPI.parse().unwrap()));
    assert_eq!(data.gpsi, None);
    assert!(data.expiry > time::OffsetDateTime::now_utc());
}

#[tokio::test]
async fn an_unknown_a_kid_is_204() {
    let fixture = Fixture::start().await;
    assert_eq!(fixture.retrieve(INSIDE_AF, INSIDE, A_KID).await.unwrap(), None);
}

#[tokio::test]
async fn only_the_latest_context_of_a_ue_resolves() {
    let fixture = Fixture::start().await;
    fixture.register(SUPI, A_KID).await;
    assert!(fixture.retrieve(INSIDE_AF, INSIDE, A_KID).await.unwrap().is_some());
    fixture.register(SUPI, NEW_A_KID).await;
    assert_eq!(fixture.retrieve(INSIDE_AF, INSIDE, A_KID).await.unwrap(), None, "superseded");
    assert!(fixture.retrieve(INSIDE_AF, INSIDE, NEW_A_KID).await.unwrap().is_some());
}

#[tokio::test]
async fn a_removed_context_is_gone_and_removing_it_again_is_no_error() {
    let fixture = Fixture::start().await;
    fixture.register(SUPI, A_KID).await;
    let supi: Supi = SUPI.parse().unwrap();
    fixture.client(AUSF).remove_context(&supi).await.unwrap();
    assert_eq!(fixture.retrieve(INSIDE_AF, INSIDE, A_KID).await.unwrap(), None);
    fixture.client(AUSF).remove_context(&supi).await.unwrap();
}

#[tokio::test]
async fn state_survives_a_restart_with_expiries_as_they_were() {
    let mut fixture = Fixture::start().await;
    fixture.register(SUPI, A_KID).await;
    fixture.register(OTHER_SUPI, "0.other@example.com").await;
    fixture.register(OTHER_SUPI, "0.newer@example.com").await;
    let before = fixture.retrieve(INSIDE_AF, INSIDE, A_KID).await.unwrap().unwrap();
    fixture.config.kaf_lifetime_seconds = 9_999;
    fixture.restart().await;
    let after = fixture.retrieve(INSIDE_AF, INSIDE, A_KID).await.unwrap().unwrap();
    assert_eq!(before, after);
    assert_eq!(fixture.retrieve(INSIDE_AF, INSIDE, "0.other@example.com").await.unwrap(), None);
    assert!(metrics(&fixture).await.contains("aanf_contexts 2"));
}

#[tokio::test]
async fn asking_again_does_not_prolong_k_af_and_once_expired_it_is_refused() {
    let fixture = Fixture::start().await;
    fixture.register(SUPI, A_KID).await;
    let first = fixture.retrieve(HASTY_AF, HASTY, A_KID).await.unwrap().unwrap();
    let problem = loop {
        match fixture.retrieve(HASTY_AF, HASTY, A_KID).await {
            Ok(again) => assert_eq!(again.unwrap().expiry, first.expiry),
            Err(error) => break refused::<()>(Err(error)),
        }
    };
    assert_eq!(problem.status, Some(403));
    assert!(problem.has_cause(refusal::K_AF_EXPIRED));
    // AUSF repeating itself is no new authentication; a new A-KID is one.
    fixture.register(SUPI, A_KID).await;
    assert!(refused(fixture.retrieve(HASTY_AF, HASTY, A_KID).await).has_cause(refusal::K_AF_EXPIRED));
    fixture.register(SUPI, NEW_A_KID).await;
    assert!(fixture.retrieve(HASTY_AF, HASTY, NEW_A_KID).await.unwrap().is_some());
    assert!(fixture.retrieve(INSIDE_AF, INSIDE, NEW_A_KID).await.unwrap().is_some(), "others have their own expiry");
}

#[tokio::test]
async fn concurrent_first_requests_get_the_same_expiry() {
    let fixture = Fixture::start().await;
    fixture.register(SUPI, A_KID).await;
    let client = fixture.client(INSIDE_AF);
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let client = client.clone();
        asked.spawn(
            async move { client.retrieve_applicationkey(&request(INSIDE, A_KID)).await.unwrap().unwrap().expiry },
        );
    }
    let expiries: BTreeSet<_> = asked.join_all().await.into_iter().collect();
    assert_eq!(expiries.len(), 1);
}

#[tokio::test]
async fn an_af_gets_no_key_for_another_af_s_fqdn() {
    let fixture = Fixture::start().await;
    fixture.register(SUPI, A_KID).await;
    for (instance, fqdn) in [(OUTSIDE_AF, INSIDE), (INSIDE_AF, OUTSIDE), (AUSF, INSIDE)] {
        let problem = refused(fixture.retrieve(instance, fqdn, A_KID).await);
        assert_eq!(problem.status, Some(403));
        assert!(problem.has_cause(refusal::AF_ID_NOT_ALLOWED));
    }
    // The refusal is the same when the A-KID is unknown: it says nothing about who is known.
    assert!(refused(fixture.retrieve(OUTSIDE_AF, INSIDE, NEW_A_KID).await).has_cause(refusal::AF_ID_NOT_ALLOWED));
}

#[tokio::test]
async fn whoever_has_no_entry_may_do_nothing_and_only_ausf_may_register_and_remove() {
    let fixture = Fixture::start().await;
    fixture.register(SUPI, A_KID).await;
    let supi: Supi = SUPI.parse().unwrap();
    assert!(refused(fixture.retrieve(STRANGER, INSIDE, A_KID).await).has_cause(refusal::REQUESTER_NOT_ALLOWED));
    for instance in [STRANGER, INSIDE_AF] {
        let client = fixture.client(instance);
        let problem = refused(client.register_anchorkey(&key_info(SUPI, NEW_A_KID, K_AKMA)).await);
        assert!(problem.has_cause(refusal::REQUESTER_NOT_ALLOWED));
        assert!(refused(client.remove_context(&supi).await).has_cause(refusal::REQUESTER_NOT_ALLOWED));
    }
    // A stranger's body is not even looked at.
    let (http, api) = fixture.http(STRANGER);
    let answer = http.post::<_, Value>(&format!("{api}/retrieve-applicationkey"), &json!({"bad": 1})).await;
    assert_eq!(refused(answer).status, Some(403));
    assert!(fixture.retrieve(INSIDE_AF, INSIDE, A_KID).await.unwrap().is_some(), "nothing was changed");
}

#[tokio::test]
async fn without_our_authority_s_certificate_there_is_no_connection() {
    let fixture = Fixture::start().await;
    let another_authority = TestAuthority::new();
    let impostor = NaanfClient::new(another_authority.client(INSIDE_AF), fixture.root());
    let answer = impostor.retrieve_applicationkey(&request(INSIDE, A_KID)).await;
    assert!(matches!(answer, Err(SbiError::Unreachable(_))), "{answer:?}");
}

#[tokio::test]
async fn an_a_kid_of_another_ue_cannot_be_registered() {
    let fixture = Fixture::start().await;
    fixture.register(SUPI, A_KID).await;
    let other = "00".repeat(32);
    let problem = refused(fixture.client(AUSF).register_anchorkey(&key_info(OTHER_SUPI, A_KID, &other)).await);
    assert!(problem.has_cause(refusal::A_KID_IN_USE));
    let data = fixture.retrieve(INSIDE_AF, INSIDE, A_KID).await.unwrap().unwrap();
    assert_eq!(data.supi, Some(SUPI.parse().unwrap()));
}

#[tokio::test]
async fn malformed_requests_are_told_apart() {
    let fixture = Fixture::start().await;
    let (http, api) = fixture.http(INSIDE_AF);
    let uri = format!("{api}/retrieve-applicationkey");
    let cases = [
        (json!({"aKId": A_KID}), cause::MANDATORY_IE_MISSING, "/afId"),
        (json!({"afId": "inside.example.com:0100000007"}), cause::MANDATORY_IE_MISSING, "/aKId"),
        (json!({"afId": "inside.example.com", "aKId": A_KID}), cause::MANDATORY_IE_INCORRECT, "/afId"),
        (json!({"afId": "inside.example.com:01", "aKId": A_KID}), cause::MANDATORY_IE_INCORRECT, "/afId"),
        (json!({"afId": "inside.example.com:0100000007", "aKId": ""}), cause::MANDATORY_IE_INCORRECT, "/aKId"),
        (json!({"afId": "inside.example.com:0100000007", "aKId": "a b"}), cause::MANDATORY_IE_INCORRECT, "/aKId"),
        (
            json!({"afId": "inside.example.com:0100000007", "aKId": A_KID, "anonInd": "no"}),
            cause::MANDATORY_IE_INCORRECT,
            "/anonInd",
        ),
    ];
    for (body, expected, member) in cases {
        let problem = refused(http.post::<_, Value>(&uri, &body).await);
        assert_eq!(problem.status, Some(400), "{body}");
        assert!(problem.has_cause(expected), "{body}: {problem:?}");
        assert_eq!(problem.invalid_params[0].param, member, "{body}");
    }

    let (http, api) = fixture.http(AUSF);
    let register = format!("{api}/register-anchorkey");
    let incorrect = json!({"supi": "001010000000001", "aKId": A_KID, "kAkma": K_AKMA});
    assert!(refused(http.post::<_, Value>(&register, &incorrect).await).has_cause(cause::MANDATORY_IE_INCORRECT));
    let remove = http.post::<_, Value>(&format!("{api}/remove-context"), &json!({})).await;
    assert!(refused(remove).has_cause(cause::MANDATORY_IE_MISSING));
    let large = json!({"supi": SUPI, "aKId": A_KID, "kAkma": K_AKMA, "filler": "x".repeat(100_000)});
    assert_eq!(refused(http.post::<_, Value>(&register, &large).await).status, Some(413));
    let nowhere = http.post::<_, Value>(&format!("{api}/keys"), &json!({})).await;
    assert!(refused(nowhere).has_cause(cause::RESOURCE_URI_STRUCTURE_NOT_FOUND));
}

#[tokio::test]
async fn tables_have_limits() {
    let fixture = Fixture::start_with(|_, config| {
        config.tables = TableLimits { contexts_max: 1, application_keys_per_context_max: 2, ..TableLimits::default() };
    })
    .await;
    fixture.register(SUPI, A_KID).await;
    let problem = refused(fixture.client(AUSF).register_anchorkey(&key_info(OTHER_SUPI, NEW_A_KID, K_AKMA)).await);
    assert_eq!(problem.status, Some(500));
    assert!(problem.has_cause(cause::INSUFFICIENT_RESOURCES));
    fixture.register(SUPI, NEW_A_KID).await;

    let client = fixture.client(INSIDE_AF);
    let ask = async |suite: u16| {
        let af_id = AfId::new(INSIDE.parse().unwrap(), UaProtocolId::tls_1_2(suite));
        client.retrieve_applicationkey(&AkmaAfKeyRequest::new(af_id, NEW_A_KID.parse().unwrap())).await
    };
    ask(0xD001).await.unwrap();
    ask(0x00A8).await.unwrap();
    assert!(refused(ask(0xCCAC).await).has_cause(refusal::TOO_MANY_APPLICATION_KEYS));
    ask(0xD001).await.unwrap();

    let supi: Supi = SUPI.parse().unwrap();
    fixture.client(AUSF).remove_context(&supi).await.unwrap();
    fixture.register(OTHER_SUPI, A_KID).await;
}

#[tokio::test]
async fn a_full_disk_is_told_and_nothing_is_taken() {
    let full = Fixture::start_with(|_, config| config.store.free_bytes_min = u64::MAX).await;
    let problem = refused(full.client(AUSF).register_anchorkey(&key_info(SUPI, A_KID, K_AKMA)).await);
    assert_eq!(problem.status, Some(500));
    assert!(problem.has_cause(cause::INSUFFICIENT_RESOURCES));
    assert_eq!(full.retrieve(INSIDE_AF, INSIDE, A_KID).await.unwrap(), None);
}

#[tokio::test]
async fn when_the_queue_is_full_registrations_are_503_and_what_is_200_is_there() {
    let fixture = Fixture::start_with(|_, config| config.store.queue_bytes_max = 0).await;
    let client = fixture.client(AUSF);
    let (mut refusals, mut taken) = (0, Vec::new());
    while refusals == 0 {
        let mut asked = tokio::task::JoinSet::new();
        for index in 0..100 {
            let (client, a_kid) = (client.clone(), format!("0.{index}@example.com"));
            let info = key_info(&format!("imsi-0010100000001{index:02}"), &a_kid, K_AKMA);
            asked.spawn(async move { (a_kid, client.register_anchorkey(&info).await) });
        }
        for (a_kid, answer) in asked.join_all().await {
            if answer.is_ok() {
                taken.push(a_kid);
                continue;
            }
            let problem = refused(answer);
            assert_eq!(problem.status, Some(503));
            assert!(problem.has_cause(cause::NF_CONGESTION));
            assert_eq!(problem.retry_after_seconds, Some(1));
            refusals += 1;
        }
    }
    // Alone, a first request finds room in the queue.
    let af = fixture.client(INSIDE_AF);
    for a_kid in taken {
        assert!(af.retrieve_applicationkey(&request(INSIDE, &a_kid)).await.unwrap().is_some(), "{a_kid}");
    }
}

#[tokio::test]
async fn an_anonymous_request_gets_the_key_and_no_identity() {
    let fixture = Fixture::start().await;
    fixture.register(SUPI, A_KID).await;
    let request = AkmaAfKeyRequest { anon_ind: true, ..request(INSIDE, A_KID) };
    let data = fixture.client(INSIDE_AF).retrieve_applicationkey(&request).await.unwrap().unwrap();
    assert_eq!(data.ue_id(), None);
}

#[tokio::test]
async fn a_server_gets_its_keys_with_identity_or_a_peer_that_is_nobody() {
    let fixture = Fixture::start().await;
    fixture.register(SUPI, A_KID).await;
    for (instance, fqdn, expected) in [(INSIDE_AF, INSIDE, Some(SUPI)), (OUTSIDE_AF, OUTSIDE, None)] {
        // As TLS-PSK asks; with `ue_id` absent the MSGin5G Server registers nobody (TS 33.501 Annex Y.2).
        let key = fixture.client(instance).retrieve(af_id(fqdn), A_KID.parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(key.ue_id, expected.map(|supi| supi.parse().unwrap()), "{instance}");
    }
}

#[tokio::test]
async fn a_context_registered_under_a_gpsi_is_told_as_such() {
    let fixture = Fixture::start().await;
    fixture.register("msisdn-491700000001", A_KID).await;
    for (instance, fqdn) in [(INSIDE_AF, INSIDE), (OUTSIDE_AF, OUTSIDE)] {
        let data = fixture.retrieve(instance, fqdn, A_KID).await.unwrap().unwrap();
        assert_eq!(data.ue_id(), Some(UeId::Gpsi("msisdn-491700000001".parse().unwrap())));
    }
}

/// A UDM that can be switched off, and says how often it was asked.
struct TestUdm {
    address: SocketAddr,
    answers: Arc<AtomicBool>,
    refuses: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    _server: SbiServer,
}

impl TestUdm {
    async fn start(authority: &TestAuthority) -> Self {
        let (answers, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let (switch, counter) = (Arc::clone(&answers), Arc::clone(&asked));
        let refuses = Arc::new(AtomicBool::new(false));
        let for_good = Arc::clone(&refuses);
        let translate = async move |Path(ue_id): Path<String>| {
            counter.fetch_add(1, Ordering::SeqCst);
            if for_good.load(Ordering::SeqCst) {
                return Err(ProblemDetails::forbidden("NOT_FOR_THIS_CONSUMER"));
            }
            if !switch.load(Ordering::SeqCst) {
                return Err(ProblemDetails::internal());
            }
            match ue_id.as_str() {
                SUPI => Ok(Json(json!({"supi": SUPI, "gpsi": "msisdn-491700000001"}))),
                OTHER_SUPI => Ok(Json(json!({"supi": OTHER_SUPI}))),
                _ => Err(ProblemDetails::not_found("USER_NOT_FOUND")),
            }
        };
        let config = SbiServerConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            tls: authority.issue(UDM, &[]),
            limits: ServerLimits::default(),
        };
        let router = Router::new().route("/nudm-sdm/v2/{ue_id}/id-translation-result", get(translate));
        let server = SbiServer::start(config, router, CancellationToken::new()).await.unwrap();
        Self { address: server.local_addr(), answers, refuses, asked, _server: server }
    }
}

/// Whether the answer is 503 with `Retry-After`.
fn asks_to_come_back(answer: &Result<Option<AkmaAfKeyData>, SbiError>) -> bool {
    matches!(answer, Err(SbiError::Problem(problem))
        if problem.status_code() == StatusCode::SERVICE_UNAVAILABLE && problem.retry_after_seconds.is_some())
}

/// An anchor function with a UDM behind it.
async fn with_udm() -> (Fixture, TestUdm) {
    let mut fixture = Fixture::start().await;
    let udm = TestUdm::start(&fixture.authority).await;
    fixture.config.udm = Some(UdmConfig {
        root: format!("https://127.0.0.1:{}", udm.address.port()),
        limits: ClientLimits::default(),
        pause_milliseconds: 0,
    });
    fixture.restart().await;
    (fixture, udm)
}

#[tokio::test]
async fn an_af_outside_gets_the_gpsi_and_never_the_supi() {
    let (mut fixture, udm) = with_udm().await;
    fixture.register(SUPI, A_KID).await;
    let data = fixture.retrieve(OUTSIDE_AF, OUTSIDE, A_KID).await.unwrap().unwrap();
    assert_eq!(data.gpsi, Some("msisdn-491700000001".parse().unwrap()));
    assert_eq!(data.supi, None);
    let data = fixture.retrieve(INSIDE_AF, INSIDE, A_KID).await.unwrap().unwrap();
    assert_eq!((data.supi, data.gpsi), (Some(SUPI.parse().unwrap()), None));

    // Learnt once, it is known after a restart without UDM.
    udm.answers.store(false, Ordering::SeqCst);
    fixture.restart().await;
    let data = fixture.retrieve(OUTSIDE_AF, OUTSIDE, A_KID).await.unwrap().unwrap();
    assert_eq!(data.gpsi, Some("msisdn-491700000001".parse().unwrap()));
}

#[tokio::test]
async fn without_a_gpsi_an_af_outside_gets_the_key_alone_and_while_udm_is_silent_is_to_come_back() {
    let (fixture, udm) = with_udm().await;
    fixture.register(OTHER_SUPI, A_KID).await;
    let data = fixture.retrieve(OUTSIDE_AF, OUTSIDE, A_KID).await.unwrap().unwrap();
    assert_eq!(data.ue_id(), None, "the subscription has none");

    udm.answers.store(false, Ordering::SeqCst);
    fixture.register(SUPI, NEW_A_KID).await;
    let outside = fixture.client(OUTSIDE_AF);
    let refused = outside.retrieve_applicationkey(&request(OUTSIDE, NEW_A_KID)).await;
    assert!(asks_to_come_back(&refused), "UDM does not answer");
    assert!(refused.unwrap_err().problem().unwrap().has_cause(refusal::GPSI_NOT_YET_KNOWN));
    let as_key_source = outside.retrieve(request(OUTSIDE, NEW_A_KID).af_id, NEW_A_KID.parse().unwrap()).await;
    assert!(matches!(as_key_source, Err(KeySourceError::NotYet(_))), "no failure of the AAnF: {as_key_source:?}");
    let other = outside.retrieve_applicationkey(&request(OUTSIDE, A_KID)).await.unwrap();
    assert!(other.is_some(), "the same client is served for another UE meanwhile");
    let mut anonymous = request(OUTSIDE, NEW_A_KID);
    anonymous.anon_ind = true;
    let data = fixture.client(OUTSIDE_AF).retrieve_applicationkey(&anonymous).await.unwrap().unwrap();
    assert_eq!(data.ue_id(), None, "and is not needed");
    let data = fixture.retrieve(INSIDE_AF, INSIDE, NEW_A_KID).await.unwrap().unwrap();
    assert_eq!(data.supi, Some(SUPI.parse().unwrap()), "nor here");
    udm.answers.store(true, Ordering::SeqCst);
    let data = fixture.retrieve(OUTSIDE_AF, OUTSIDE, NEW_A_KID).await.unwrap().unwrap();
    assert_eq!(data.gpsi, Some("msisdn-491700000001".parse().unwrap()), "it does again");
    assert!(udm.asked.load(Ordering::SeqCst) >= 3);
}

#[tokio::test]
async fn after_a_failure_udm_is_left_alone_for_the_pause() {
    let (mut fixture, udm) = with_udm().await;
    fixture.config.udm.as_mut().unwrap().pause_milliseconds = 3_600_000;
    fixture.restart().await;
    udm.answers.store(false, Ordering::SeqCst);
    fixture.register(SUPI, A_KID).await;
    while udm.asked.load(Ordering::SeqCst) == 0 {
        assert!(asks_to_come_back(&fixture.retrieve(OUTSIDE_AF, OUTSIDE, A_KID).await));
    }
    assert!(asks_to_come_back(&fixture.retrieve(OUTSIDE_AF, OUTSIDE, A_KID).await));
    let asked = udm.asked.load(Ordering::SeqCst);
    for _ in 0..10 {
        assert!(asks_to_come_back(&fixture.retrieve(OUTSIDE_AF, OUTSIDE, A_KID).await));
    }
    assert_eq!(udm.asked.load(Ordering::SeqCst), asked);
}

#[tokio::test]
async fn with_a_storage_key_no_k_akma_is_on_disk_in_clear_and_a_wrong_key_is_told_at_start() {
    let mut fixture = Fixture::start_with(|authority, config| {
        let file = authority.directory().join("storage.key");
        std::fs::write(&file, "11".repeat(32)).unwrap();
        config.storage_key = Some(file);
    })
    .await;
    fixture.register(SUPI, A_KID).await;
    fixture.restart().await;
    assert!(fixture.retrieve(INSIDE_AF, INSIDE, A_KID).await.unwrap().is_some());
    fixture.stop().await;
    let secret = hex::decode(K_AKMA).unwrap();
    let (mut searched, mut pending) = (0, vec![fixture.directory.path().to_owned()]);
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let octets = std::fs::read(&path).unwrap();
            searched += octets.len();
            let holds = |secret: &[u8]| octets.windows(secret.len()).any(|window| window == secret);
            assert!(!holds(&secret) && !holds(K_AKMA.as_bytes()), "{}", path.display());
        }
    }
    assert!(searched > 0);

    std::fs::write(fixture.config.storage_key.as_ref().unwrap(), "22".repeat(32)).unwrap();
    let started = aanf::start(fixture.config.clone(), CancellationToken::new()).await;
    assert!(matches!(started, Err(aanf::AanfError::StorageKey(_))), "{started:?}");
}

#[tokio::test]
async fn the_state_directory_is_the_owner_s_alone() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = Fixture::start().await;
    let mode = std::fs::metadata(&fixture.config.data).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn metrics_count_answers_and_tell_no_identity() {
    let fixture = Fixture::start().await;
    fixture.register(SUPI, A_KID).await;
    fixture.retrieve(INSIDE_AF, INSIDE, A_KID).await.unwrap();
    fixture.retrieve(INSIDE_AF, INSIDE, NEW_A_KID).await.unwrap();
    refused(fixture.retrieve(STRANGER, INSIDE, A_KID).await);
    let text = metrics(&fixture).await;
    for line in [
        "aanf_contexts 1",
        "aanf_answers_total{operation=\"register-anchorkey\",result=\"added\"} 1",
        "aanf_answers_total{operation=\"retrieve-applicationkey\",result=\"found\"} 1",
        "aanf_answers_total{operation=\"retrieve-applicationkey\",result=\"unknown\"} 1",
        "aanf_answers_total{operation=\"retrieve-applicationkey\",result=\"not_allowed\"} 1",
        "aanf_latency_seconds_count{operation=\"retrieve-applicationkey\"} 3",
        "sbi_requests_total{status=\"204\"} 1",
    ] {
        assert!(text.contains(line), "{line} not in\n{text}");
    }
    let digits = SUPI.strip_prefix("imsi-").unwrap();
    for identity in ["imsi", digits, A_KID, NEW_A_KID, K_AKMA] {
        assert!(!text.contains(identity), "{identity} in\n{text}");
    }
    assert!(admin(&fixture, "/readyz").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn two_instances_cannot_share_a_state_directory() {
    let fixture = Fixture::start().await;
    let second = aanf::start(fixture.config.clone(), CancellationToken::new()).await;
    assert!(matches!(second, Err(aanf::AanfError::Store(_))), "{second:?}");
}

#[tokio::test]
async fn an_a_kid_is_opaque() {
    let fixture = Fixture::start().await;
    for a_kid in ["x", "akma:~!$&'()*+,;=@somewhere", &"y".repeat(253)] {
        fixture.register(SUPI, a_kid).await;
        let data = fixture.retrieve(INSIDE_AF, INSIDE, a_kid).await.unwrap();
        assert!(data.is_some(), "{a_kid}");
    }
    assert!("z".repeat(254).parse::<AKid>().is_err());
}

#[test]
fn the_documented_configuration_is_one() {
    let text = include_str!("../../../docs/reference/aanf.md");
    let example = text.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    toml::from_str::<Config>(example).unwrap().check().unwrap();
}

#[tokio::test]
async fn each_of_two_anchor_functions_has_the_ues_of_its_routing_indicators() {
    let only = |indicator: &str| {
        let served = indicator.parse().unwrap();
        move |_: &TestAuthority, config: &mut Config| config.routing_indicators = [served].into()
    };
    let (zero, twelve) = (Fixture::start_with(only("0")).await, Fixture::start_with(only("0012")).await);
    // Two authorities; what matters here is who is asked.
    for (served_by, other, a_kid) in [(&zero, &twelve, "0.a@example.com"), (&twelve, &zero, "0012.a@example.com")] {
        served_by.register(SUPI, a_kid).await;
        assert!(served_by.retrieve(INSIDE_AF, INSIDE, a_kid).await.unwrap().is_some());
        let registered = other.client(AUSF).register_anchorkey(&key_info(SUPI, a_kid, K_AKMA)).await;
        for problem in [refused(registered), refused(other.retrieve(INSIDE_AF, INSIDE, a_kid).await)] {
            assert_eq!(problem.status, Some(404));
            assert!(problem.has_cause(refusal::ROUTING_INDICATOR_NOT_SERVED));
        }
    }
    for a_kid in ["12.a@example.com", "opaque", "00012.a@example.com"] {
        let problem = refused(twelve.client(AUSF).register_anchorkey(&key_info(SUPI, a_kid, K_AKMA)).await);
        assert!(problem.has_cause(refusal::ROUTING_INDICATOR_NOT_SERVED), "{a_kid}");
    }
}

#[tokio::test]
async fn a_client_of_several_anchor_functions_asks_the_one_of_the_routing_indicator_and_removes_from_all() {
    let zero = Fixture::start_with(|_, config| config.routing_indicators = ["0".parse().unwrap()].into()).await;
    let second = tempfile::tempdir().unwrap();
    let mut config = zero.config.clone();
    config.data = second.path().join("aanf");
    config.admin = None;
    config.routing_indicators = ["12".parse().unwrap(), "13".parse().unwrap()].into();
    let shutdown = CancellationToken::new();
    let running = aanf::start(config, shutdown.clone()).await.unwrap();
    let route = AnchorRoute {
        root: format!("https://127.0.0.1:{}", running.local_addr().port()),
        routing_indicators: ["12".parse().unwrap(), "13".parse().unwrap()].into(),
    };
    let client = |instance| NaanfClient::selecting(zero.authority.client(instance), zero.root(), vec![route.clone()]);
    for (supi, a_kid) in [(SUPI, "0.a@example.com"), (OTHER_SUPI, "13.a@example.com")] {
        client(AUSF).register_anchorkey(&key_info(supi, a_kid, K_AKMA)).await.unwrap();
        assert!(client(INSIDE_AF).retrieve_applicationkey(&request(INSIDE, a_kid)).await.unwrap().is_some());
        client(AUSF).remove_context(&supi.parse().unwrap()).await.unwrap();
        assert_eq!(client(INSIDE_AF).retrieve_applicationkey(&request(INSIDE, a_kid)).await.unwrap(), None);
    }
    // What neither serves goes to the general one, which says so.
    let elsewhere = client(INSIDE_AF).retrieve_applicationkey(&request(INSIDE, "14.a@example.com")).await;
    assert!(refused(elsewhere).has_cause(refusal::ROUTING_INDICATOR_NOT_SERVED));
    shutdown.cancel();
    running.stopped().await;
}

#[tokio::test]
async fn the_lifetime_of_k_af_follows_af_fqdn_and_protocol() {
    let fixture = Fixture::start_with(|_, config| {
        let entry = config.afs.iter_mut().find(|af| af.nf_instance_id.as_deref() == Some(INSIDE_AF)).unwrap();
        entry.kaf_lifetime_seconds = Some(7200);
        let ua_protocol = Some("010001".to_owned().try_into().unwrap());
        entry.kaf_lifetimes = vec![
            KafLifetime { fqdn: None, ua_protocol, seconds: 60 },
            KafLifetime { fqdn: Some(INSIDE.parse().unwrap()), ua_protocol: None, seconds: 600 },
        ];
    })
    .await;
    fixture.register(SUPI, A_KID).await;
    let client = fixture.client(INSIDE_AF);
    for (fqdn, protocol, seconds) in [
        (INSIDE, UaProtocolId::tls_1_2(0xD001), 60),
        (INSIDE, UaProtocolId::TLS_1_3, 600),
        ("msgin5g.example.com", UaProtocolId::TLS_1_3, 7200),
    ] {
        let before = time::OffsetDateTime::now_utc().unix_timestamp();
        let af_id = AfId::new(fqdn.parse().unwrap(), protocol);
        let request = AkmaAfKeyRequest::new(af_id, A_KID.parse().unwrap());
        let expiry = client.retrieve_applicationkey(&request).await.unwrap().unwrap().expiry.unix_timestamp();
        let after = time::OffsetDateTime::now_utc().unix_timestamp();
        assert!((before + seconds..=after + seconds).contains(&expiry), "{fqdn}");
    }
}

#[tokio::test]
async fn who_asks_more_often_than_it_may_is_429_and_others_are_not() {
    let fixture = Fixture::start_with(|_, config| {
        let entry = config.afs.iter_mut().find(|af| af.nf_instance_id.as_deref() == Some(INSIDE_AF)).unwrap();
        entry.requests_per_second_max = Some(1);
    })
    .await;
    fixture.register(SUPI, A_KID).await;
    let client = fixture.client(INSIDE_AF);
    // One a second: of those sent at once, all but a few.
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let client = client.clone();
        asked.spawn(async move { client.retrieve_applicationkey(&request(INSIDE, A_KID)).await });
    }
    let (answered, too_often): (Vec<_>, Vec<_>) = asked.join_all().await.into_iter().partition(Result::is_ok);
    assert!(!answered.is_empty() && !too_often.is_empty());
    for answer in too_often {
        let problem = refused(answer);
        assert_eq!(problem.status, Some(429));
        assert!(problem.has_cause(cause::NF_CONGESTION_RISK));
        assert_eq!(problem.retry_after_seconds, Some(1));
    }
    fixture.retrieve(OUTSIDE_AF, OUTSIDE, A_KID).await.unwrap();
}

#[tokio::test]
async fn where_udm_refuses_for_good_an_af_outside_is_told_so_and_gets_the_key_without_identity() {
    let (fixture, udm) = with_udm().await;
    udm.refuses.store(true, Ordering::SeqCst);
    fixture.register(SUPI, A_KID).await;
    let outside = fixture.client(OUTSIDE_AF);
    for _ in 0..2 {
        let refused = outside.retrieve_applicationkey(&request(OUTSIDE, A_KID)).await.unwrap_err();
        let problem = refused.problem().unwrap();
        assert_eq!((problem.status_code(), problem.retry_after_seconds), (StatusCode::FORBIDDEN, None), "{problem:?}");
        assert!(problem.has_cause(refusal::GPSI_NOT_AVAILABLE), "{problem:?}");
    }
    let mut anonymous = request(OUTSIDE, A_KID);
    anonymous.anon_ind = true;
    let data = outside.retrieve_applicationkey(&anonymous).await.unwrap().unwrap();
    assert_eq!(data.ue_id(), None);
    // Nothing is remembered of it.
    udm.refuses.store(false, Ordering::SeqCst);
    let data = fixture.retrieve(OUTSIDE_AF, OUTSIDE, A_KID).await.unwrap().unwrap();
    assert_eq!(data.gpsi, Some("msisdn-491700000001".parse().unwrap()));
}
