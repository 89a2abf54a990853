//! What is negotiated, and what is refused how.

use std::time::Duration;

use dtls::{Alert, CipherSuite, Closed, ConnectionId, Error, Event, Group, KeyRefusal, PresharedKey, UnknownIdentity};

use crate::scene::{Answer, IDENTITY, Scene, Side, client_config, server_config};

fn closed(events: &[Event]) -> Option<Closed> {
    events.iter().find_map(|event| match event {
        Event::Closed(closed) => Some(*closed),
        _ => None,
    })
}

#[test]
fn each_suite_and_group_carries_data_both_ways() {
    for suite in CipherSuite::ALL {
        for group in Group::ALL {
            let (mut client, mut server) = (client_config(&[suite]), server_config(&CipherSuite::ALL));
            client.session.groups = vec![group];
            server.session.groups = Group::ALL.to_vec();
            client.connection_id = Some(ConnectionId::new(b"cl").unwrap());
            let mut scene = Scene::new(client, server);
            scene.establish();
            for events in [&scene.client_events, &scene.server_events] {
                let Some(Event::Established(established)) =
                    events.iter().find(|event| matches!(event, Event::Established(_)))
                else {
                    panic!("not established")
                };
                assert_eq!(established.cipher_suite, suite);
                assert_eq!(established.group, suite.is_forward_secret().then_some(group));
            }
            let now = scene.now;
            let long = vec![7; scene.client.payload_octets_max()];
            scene.client.send(now, &long).unwrap();
            scene.server().send(now, b"").unwrap();
            scene.server().send(now, b"answer").unwrap();
            scene.run(Duration::from_secs(1));
            assert_eq!(scene.received(Side::Server), [long]);
            assert_eq!(scene.received(Side::Client), [b"".to_vec(), b"answer".to_vec()]);
        }
    }
}

#[test]
fn the_servers_order_decides() {
    let mut client = client_config(&CipherSuite::DTLS12);
    client.session.cipher_suites.reverse();
    let mut scene = Scene::new(client, server_config(&[CipherSuite::PskAes128Ccm, CipherSuite::EcdhePskAes128Gcm]));
    scene.establish();
    assert!(scene.client_events.iter().any(
        |event| matches!(event, Event::Established(established) if established.cipher_suite == CipherSuite::PskAes128Ccm)
    ));
}

#[test]
fn the_key_request_says_what_akma_needs() {
    let mut client = client_config(&[CipherSuite::EcdhePskAes128Gcm]);
    client.server_name = Some("MSGin5G.lab.example".into());
    let mut scene = Scene::new(client, server_config(&CipherSuite::DTLS12));
    scene.establish();
    let request = |events: &[Event]| {
        events
            .iter()
            .find_map(|event| match event {
                Event::KeyNeeded(request) => Some(request.clone()),
                _ => None,
            })
            .unwrap()
    };
    let server = request(&scene.server_events);
    assert_eq!(server.identity, IDENTITY);
    assert_eq!(server.cipher_suite.code(), 0xd001);
    assert_eq!(server.server_name.as_deref(), Some("msgin5g.lab.example"));
    assert!(!format!("{server:?}").contains("3gpp"));
    let client = request(&scene.client_events);
    assert_eq!(client.identity_hint.as_deref(), Some(b"3GPP-AKMA".as_slice()));
    assert_eq!(client.cipher_suite.code(), 0xd001);
}

#[test]
fn an_unknown_identity_is_told_as_configured() {
    let cases = [
        (UnknownIdentity::Tell, KeyRefusal::Unknown, Alert::UNKNOWN_PSK_IDENTITY),
        (UnknownIdentity::Hide, KeyRefusal::Unknown, Alert::DECRYPT_ERROR),
        (UnknownIdentity::Tell, KeyRefusal::Unavailable, Alert::INTERNAL_ERROR),
        (UnknownIdentity::Hide, KeyRefusal::Unavailable, Alert::INTERNAL_ERROR),
    ];
    for (unknown_identity, refusal, alert) in cases {
        let mut server = server_config(&CipherSuite::DTLS12);
        server.unknown_identity = unknown_identity;
        let mut scene = Scene::new(client_config(&CipherSuite::DTLS12), server);
        scene.server_answer = Answer::Refusal(refusal);
        scene.run(Duration::from_secs(100));
        assert_eq!(closed(&scene.client_events), Some(Closed::Failed(Error::PeerAlert(alert))));
        assert_eq!(closed(&scene.server_events), Some(Closed::Failed(Error::KeyRefused(refusal))));
    }
}

#[test]
fn a_hidden_refusal_looks_like_a_wrong_key() {
    let end_of = |answer: Answer| {
        let mut server = server_config(&CipherSuite::DTLS12);
        server.unknown_identity = UnknownIdentity::Hide;
        let mut scene = Scene::new(client_config(&CipherSuite::DTLS12), server);
        scene.server_answer = answer;
        let start = scene.now;
        scene.run(Duration::from_secs(200));
        (closed(&scene.client_events), scene.now.duration_since(start), scene.posted)
    };
    let wrong = end_of(Answer::Key(PresharedKey::new(&[0xa5; 32]).unwrap()));
    assert_eq!(end_of(Answer::Refusal(KeyRefusal::Unknown)), wrong);
}

#[test]
fn a_client_without_key_gives_up_and_says_so() {
    let mut scene = Scene::simple(&CipherSuite::DTLS12);
    scene.client_answer = Answer::Refusal(KeyRefusal::Unavailable);
    scene.run(Duration::from_secs(1));
    assert_eq!(closed(&scene.client_events), Some(Closed::Failed(Error::KeyRefused(KeyRefusal::Unavailable))));
    assert_eq!(closed(&scene.server_events), Some(Closed::Failed(Error::PeerAlert(Alert::USER_CANCELED))));
}

#[test]
fn different_keys_never_establish_and_both_learn_why() {
    for suite in CipherSuite::DTLS12 {
        let mut scene = Scene::simple(&[suite]);
        scene.server_answer = Answer::Key(PresharedKey::new(&[0xa5; 32]).unwrap());
        scene.run(Duration::from_secs(200));
        assert!(
            !scene.client_events.iter().chain(&scene.server_events).any(|event| matches!(event, Event::Established(_)))
        );
        assert_eq!(closed(&scene.server_events), Some(Closed::Failed(Error::HandshakeTimeout { unauthentic: true })));
        assert_eq!(closed(&scene.client_events), Some(Closed::Failed(Error::PeerAlert(Alert::DECRYPT_ERROR))));
    }
}

#[test]
fn a_key_that_never_comes_ends_the_handshake_in_its_time() {
    let mut scene = Scene::simple(&CipherSuite::DTLS12);
    scene.server_answer = Answer::Silence;
    assert!(scene.run(Duration::from_secs(200)));
    assert_eq!(closed(&scene.server_events), Some(Closed::Failed(Error::HandshakeTimeout { unauthentic: false })));
    assert_eq!(closed(&scene.client_events), Some(Closed::Failed(Error::HandshakeTimeout { unauthentic: false })));
}

#[test]
fn a_key_that_comes_late_finds_the_clients_flight_kept() {
    let mut scene = Scene::simple(&CipherSuite::DTLS12);
    scene.weather.key_milliseconds = 700;
    let start = scene.now;
    scene.establish();
    // Both waited for their key once; no retransmission was needed.
    assert!(scene.now.duration_since(start) < Duration::from_millis(1500));
}

#[test]
fn nothing_in_common_is_refused_with_an_alert() {
    let client = client_config(&[CipherSuite::PskAes128Ccm8]);
    let mut scene = Scene::new(client, server_config(&CipherSuite::FORWARD_SECRET));
    scene.run(Duration::from_secs(1));
    assert_eq!(closed(&scene.client_events), Some(Closed::Failed(Error::PeerAlert(Alert::HANDSHAKE_FAILURE))));
    assert!(scene.server.is_none());
}

#[test]
fn a_client_hello_that_fits_no_datagram_is_refused_before_it_is_sent() {
    let mut config = client_config(&CipherSuite::DTLS12);
    config.session.datagram_octets_max = dtls::limits::DATAGRAM_OCTETS_MIN;
    config.server_name = Some("a".repeat(200));
    let now = std::time::Instant::now();
    let client = dtls::Connection::client(std::sync::Arc::new(config), now, crate::scene::server_address());
    assert!(matches!(client, Err(Error::Config(_))));
}

#[test]
fn close_notify_ends_both_sides() {
    let mut scene = Scene::simple(&CipherSuite::DTLS12);
    scene.establish();
    let now = scene.now;
    scene.client.close(now);
    scene.client.close(now);
    assert!(scene.run(Duration::from_secs(300)));
    assert_eq!(closed(&scene.client_events), Some(Closed::Local));
    assert_eq!(closed(&scene.server_events), Some(Closed::Peer));
    assert_eq!(scene.client.send(now, b"x"), Err(Error::Closed));
    assert_eq!(scene.server().send(now, b"x"), Err(Error::Closed));
}

#[test]
fn a_connection_id_is_used_in_each_direction_that_wants_one() {
    for (client_id, server_id) in [(0, 0), (5, 0), (0, 8), (3, 20)] {
        let mut client = client_config(&CipherSuite::DTLS12);
        client.connection_id = Some(ConnectionId::random(client_id).unwrap());
        let mut scene = Scene::new(client, server_config(&CipherSuite::DTLS12));
        scene.connection_id = ConnectionId::random(server_id).unwrap();
        scene.establish();
        let now = scene.now;
        scene.client.send(now, b"up").unwrap();
        scene.server().send(now, b"down").unwrap();
        let up = scene.client.poll_transmit().unwrap();
        let down = scene.server().poll_transmit().unwrap();
        assert_eq!(ConnectionId::of_datagram(&up.payload, server_id).is_some(), server_id > 0);
        assert_eq!(ConnectionId::of_datagram(&down.payload, client_id).is_some(), client_id > 0);
        assert_eq!(up.payload[0], if server_id > 0 { 25 } else { 23 });
        scene.post(Side::Server, up);
        scene.post(Side::Client, down);
        scene.run(Duration::from_secs(1));
        assert_eq!(scene.received(Side::Server), [b"up"]);
        assert_eq!(scene.received(Side::Client), [b"down"]);
    }
}

#[test]
fn without_the_extension_of_the_client_no_connection_id_is_used() {
    let mut client = client_config(&CipherSuite::DTLS12);
    client.connection_id = None;
    let mut scene = Scene::new(client, server_config(&CipherSuite::DTLS12));
    scene.establish();
    assert!(scene.server().connection_id().is_empty());
}
