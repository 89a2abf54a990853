//! DTLS 1.3: what is negotiated, what is refused how, what ACKs and KeyUpdates do.

use std::sync::Arc;
use std::time::Duration;

use dtls::limits::{
    ACK_DELAY_DIVISOR, EARLY_RECORDS_MAX, FINAL_FLIGHT_HELD, FINISHED_HELD_INTERVALS, RETRANSMIT_FIRST,
};
use dtls::{
    AddressChange, Alert, CipherSuite, Closed, Connection, ConnectionId, Disposition, Error, Established, Event, Group,
    Incoming, KeyRefusal, KeyRequest, PresharedKey, ProtocolVersion, UnknownIdentity,
};
use proptest::prelude::*;

use crate::scene::{
    Answer, IDENTITY, Scene, Side, Weather, client_address, client_config, server_address, server_config,
};

pub fn closed(events: &[Event]) -> Option<Closed> {
    events.iter().find_map(|event| match event {
        Event::Closed(closed) => Some(*closed),
        _ => None,
    })
}

fn established(events: &[Event]) -> Option<Established> {
    events.iter().find_map(|event| match event {
        Event::Established(established) => Some(*established),
        _ => None,
    })
}

fn key_requests(events: &[Event]) -> Vec<KeyRequest> {
    let request = |event: &Event| match event {
        Event::KeyNeeded(request) => Some(request.clone()),
        _ => None,
    };
    events.iter().filter_map(request).collect()
}

/// Established, everything of the handshake acknowledged.
fn settled(suite: CipherSuite) -> Scene {
    let mut client = client_config(&[suite]);
    client.connection_id = Some(ConnectionId::new(b"abc").unwrap());
    let mut scene = Scene::new(client, server_config(&[suite]));
    scene.establish();
    let now = scene.now;
    scene.client.send(now, b"first").unwrap();
    scene.run(RETRANSMIT_FIRST * (FINISHED_HELD_INTERVALS + 1));
    assert_eq!(scene.received(Side::Server), [b"first"]);
    assert_eq!(scene.client.poll_timeout(), None);
    assert_eq!(scene.server().poll_timeout(), None);
    scene
}

/// The epoch's low bits of a datagram's first record.
fn epoch_bits(datagram: &[u8]) -> u8 {
    assert_eq!(datagram[0] >> 5, 1, "not a protected record");
    datagram[0] & 3
}

#[test]
fn the_newest_version_of_both_is_spoken() {
    let (old, new, both) = (&CipherSuite::DTLS12[..], &CipherSuite::DTLS13[..], &CipherSuite::ALL[..]);
    let cases = [
        (both, both, ProtocolVersion::Dtls13),
        (new, both, ProtocolVersion::Dtls13),
        (both, new, ProtocolVersion::Dtls13),
        (new, new, ProtocolVersion::Dtls13),
        (old, both, ProtocolVersion::Dtls12),
        (both, old, ProtocolVersion::Dtls12),
    ];
    for (client, server, version) in cases {
        let mut scene = Scene::new(client_config(client), server_config(server));
        scene.establish();
        assert_eq!(established(&scene.client_events).unwrap().version, version);
        assert_eq!(established(&scene.server_events).unwrap().version, version);
        assert_eq!(scene.client.version(), Some(version));
        let now = scene.now;
        scene.client.send(now, b"data").unwrap();
        scene.run(Duration::from_secs(1));
        assert_eq!(scene.received(Side::Server), [b"data"]);
    }
}

#[test]
fn no_version_in_common_is_refused() {
    for (client, server) in
        [(&CipherSuite::DTLS12[..], &CipherSuite::DTLS13[..]), (&CipherSuite::DTLS13[..], &CipherSuite::DTLS12[..])]
    {
        let mut scene = Scene::new(client_config(client), server_config(server));
        scene.run(Duration::from_secs(200));
        assert!(matches!(closed(&scene.client_events), Some(Closed::Failed(_))));
        assert!(scene.server.is_none());
    }
}

#[test]
fn the_key_request_tells_the_version() {
    // A client that offers both is asked for the key of each, as the server's answer needs them.
    let mut client = client_config(&CipherSuite::ALL);
    client.server_name = Some("MSGin5G.lab.example".into());
    let mut scene = Scene::new(client, server_config(&CipherSuite::DTLS12));
    scene.establish();
    let versions: Vec<_> =
        key_requests(&scene.client_events).iter().map(|request| (request.version, request.cipher_suite)).collect();
    let expected = [
        (ProtocolVersion::Dtls13, CipherSuite::Chacha20Poly1305),
        (ProtocolVersion::Dtls12, CipherSuite::EcdhePskChacha20Poly1305),
    ];
    assert_eq!(versions, expected);
    // On the server identity, name and suite of the client are known.
    let mut client = client_config(&CipherSuite::DTLS13);
    client.server_name = Some("MSGin5G.lab.example".into());
    let mut scene = Scene::new(client, server_config(&[CipherSuite::Aes128Ccm, CipherSuite::PskAes128Ccm8]));
    scene.establish();
    let [request] = &key_requests(&scene.server_events)[..] else { panic!() };
    assert_eq!(request.version, ProtocolVersion::Dtls13);
    assert_eq!(request.cipher_suite, CipherSuite::Aes128Ccm);
    assert_eq!(request.identity, IDENTITY);
    assert_eq!(request.server_name.as_deref(), Some("msgin5g.lab.example"));
    assert_eq!(request.identity_hint, None);
}

/// Passes datagrams both ways, the client's with a change, until both are silent.
fn relay(scene: &mut Scene, change: impl Fn(&mut Vec<u8>)) {
    relay_both(scene, change, |_| {});
}

/// The same, with a change of the server's too.
fn relay_both(scene: &mut Scene, change: impl Fn(&mut Vec<u8>), change_server: impl Fn(&mut Vec<u8>)) {
    loop {
        let mut silent = true;
        let now = scene.now;
        while let Some(mut transmit) = scene.client.poll_transmit() {
            silent = false;
            change(&mut transmit.payload);
            match &mut scene.server {
                Some(server) => {
                    server.handle_datagram(now, client_address(), &transmit.payload);
                }
                None => match scene.listener.handle_datagram(now, client_address(), &transmit.payload) {
                    Incoming::Reply(reply) | Incoming::Refused(reply, _) => {
                        scene.client.handle_datagram(now, server_address(), &reply.payload);
                    }
                    Incoming::Hello(proven) => scene.server = Some(proven.accept(now, scene.connection_id).unwrap()),
                    Incoming::Ignored => {}
                },
            }
        }
        while let Some(mut transmit) = scene.server.as_mut().and_then(Connection::poll_transmit) {
            silent = false;
            change_server(&mut transmit.payload);
            scene.client.handle_datagram(now, server_address(), &transmit.payload);
        }
        for (side, events) in
            [(Some(&mut scene.client), &mut scene.client_events), (scene.server.as_mut(), &mut scene.server_events)]
        {
            let Some(side) = side else { continue };
            while let Some(event) = side.poll_event() {
                silent = false;
                if matches!(event, Event::KeyNeeded(_)) {
                    side.provide_key(now, &crate::scene::key()).unwrap();
                }
                events.push(event);
            }
        }
        if silent {
            return;
        }
    }
}

#[test]
fn a_downgrade_is_noticed() {
    let mut scene = Scene::simple(&CipherSuite::ALL);
    // Somebody makes supported_versions an extension that nobody knows.
    relay(&mut scene, |datagram| {
        if let Some(at) = datagram.windows(6).position(|octets| octets == [0, 43, 0, 5, 4, 0xfe]) {
            datagram[at] = 0xfa;
        }
    });
    assert_eq!(closed(&scene.client_events), Some(Closed::Failed(Error::Downgrade)));
    assert!(established(&scene.server_events).is_none());
    // Nor may a server say that it would go further down (RFC 8446 4.1.3).
    let mut scene = Scene::simple(&CipherSuite::ALL);
    let hide = |datagram: &mut Vec<u8>| {
        if let Some(at) = datagram.windows(6).position(|octets| octets == [0, 43, 0, 5, 4, 0xfe]) {
            datagram[at] = 0xfa;
        }
    };
    relay_both(&mut scene, hide, |datagram| {
        if let Some(at) = datagram.windows(8).position(|octets| octets == b"DOWNGRD\x01") {
            datagram[at + 7] = 0;
        }
    });
    assert_eq!(closed(&scene.client_events), Some(Closed::Failed(Error::Downgrade)));
    // A server that has only DTLS 1.2 is no downgrade.
    let mut scene = Scene::new(client_config(&CipherSuite::ALL), server_config(&CipherSuite::DTLS12));
    relay(&mut scene, |_| {});
    assert!(scene.is_established());
}

#[test]
fn a_group_for_which_no_share_came_is_asked_for() {
    for (client_groups, group) in [
        (vec![Group::P256, Group::X25519], Group::X25519),
        (vec![Group::X25519, Group::P256], Group::P256),
        (vec![Group::P256], Group::P256),
    ] {
        let (mut client, mut server) = (client_config(&CipherSuite::DTLS13), server_config(&CipherSuite::DTLS13));
        client.session.groups = client_groups;
        server.session.groups = vec![group];
        let mut scene = Scene::new(client, server);
        scene.establish();
        assert_eq!(established(&scene.client_events).unwrap().group, Some(group));
        assert_eq!(established(&scene.server_events).unwrap().group, Some(group));
    }
}

#[test]
fn a_wrong_key_and_an_unknown_identity_are_told_as_configured() {
    let wrong = || Answer::Key(PresharedKey::new(&[0xa5; 32]).unwrap());
    let cases = [
        (UnknownIdentity::Tell, wrong(), Alert::DECRYPT_ERROR, Error::Binder),
        (UnknownIdentity::Hide, wrong(), Alert::DECRYPT_ERROR, Error::Binder),
        (
            UnknownIdentity::Tell,
            Answer::Refusal(KeyRefusal::Unknown),
            Alert::UNKNOWN_PSK_IDENTITY,
            Error::KeyRefused(KeyRefusal::Unknown),
        ),
        (
            UnknownIdentity::Hide,
            Answer::Refusal(KeyRefusal::Unknown),
            Alert::DECRYPT_ERROR,
            Error::KeyRefused(KeyRefusal::Unknown),
        ),
        (
            UnknownIdentity::Hide,
            Answer::Refusal(KeyRefusal::Unavailable),
            Alert::INTERNAL_ERROR,
            Error::KeyRefused(KeyRefusal::Unavailable),
        ),
    ];
    for (unknown_identity, answer, alert, error) in cases {
        let mut server = server_config(&CipherSuite::ALL);
        server.unknown_identity = unknown_identity;
        let mut scene = Scene::new(client_config(&CipherSuite::ALL), server);
        scene.server_answer = answer;
        scene.run(Duration::from_secs(5));
        assert_eq!(closed(&scene.client_events), Some(Closed::Failed(Error::PeerAlert(alert))));
        assert_eq!(closed(&scene.server_events), Some(Closed::Failed(error)));
    }
}

#[test]
fn a_client_without_key_says_nothing() {
    let mut scene = Scene::simple(&CipherSuite::DTLS13);
    scene.client_answer = Answer::Refusal(KeyRefusal::Unavailable);
    assert!(scene.run(Duration::from_secs(1)));
    assert_eq!(closed(&scene.client_events), Some(Closed::Failed(Error::KeyRefused(KeyRefusal::Unavailable))));
    assert_eq!(scene.posted, 0);
}

#[test]
fn a_key_that_never_comes_ends_the_handshake_in_its_time() {
    let mut scene = Scene::simple(&CipherSuite::DTLS13);
    scene.server_answer = Answer::Silence;
    assert!(scene.run(Duration::from_secs(200)));
    let timeout = Some(Closed::Failed(Error::HandshakeTimeout { unauthentic: false }));
    assert_eq!(closed(&scene.server_events), timeout);
    assert_eq!(closed(&scene.client_events), timeout);
}

#[test]
fn nothing_is_heard_before_the_first_client_hello() {
    let mut scene = Scene::simple(&CipherSuite::ALL);
    let now = scene.now;
    let alert = [21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40];
    assert_eq!(scene.client.handle_datagram(now, server_address(), &alert), Disposition::Ignored);
    scene.establish();
}

/// A server that has answered, and its flight, cut up by a small path.
fn answered() -> (Scene, Vec<Vec<u8>>) {
    let (mut client, mut server) = (client_config(&CipherSuite::DTLS13), server_config(&CipherSuite::DTLS13));
    client.session.groups = vec![Group::P256];
    server.session.groups = vec![Group::P256];
    client.connection_id = Some(ConnectionId::random(20).unwrap());
    server.session.datagram_octets_max = 256;
    let mut scene = Scene::new(client, server);
    let now = scene.now;
    while scene.server.is_none() {
        let Some(Event::KeyNeeded(_)) = scene.client.poll_event() else { panic!() };
        scene.client.provide_key(now, &crate::scene::key()).unwrap();
        let hello = scene.client.poll_transmit().unwrap();
        let Incoming::Reply(reply) = scene.listener.handle_datagram(now, client_address(), &hello.payload) else {
            panic!()
        };
        scene.client.handle_datagram(now, server_address(), &reply.payload);
        let hello = scene.client.poll_transmit().unwrap();
        let Incoming::Hello(proven) = scene.listener.handle_datagram(now, client_address(), &hello.payload) else {
            panic!()
        };
        scene.server = Some(proven.accept(now, scene.connection_id).unwrap());
    }
    // A driver finds the session by it from the start.
    assert_eq!(scene.server().connection_id(), scene.connection_id);
    let Some(Event::KeyNeeded(_)) = scene.server().poll_event() else { panic!() };
    scene.server().provide_key(now, &crate::scene::key()).unwrap();
    let flight: Vec<_> =
        std::iter::from_fn(|| scene.server().poll_transmit()).map(|transmit| transmit.payload).collect();
    assert!(flight.len() >= 2);
    (scene, flight)
}

#[test]
fn only_what_was_not_acknowledged_is_sent_again() {
    let (mut scene, flight) = answered();
    let now = scene.now;
    // All but the last datagram arrives; the client waits for the rest, then says what it has.
    for datagram in flight.split_last().unwrap().1 {
        scene.client.handle_datagram(now, server_address(), datagram);
    }
    assert!(scene.client.poll_transmit().is_none());
    let later = now + RETRANSMIT_FIRST / ACK_DELAY_DIVISOR;
    assert_eq!(scene.client.poll_timeout(), Some(later));
    scene.client.handle_timeout(later);
    let ack = scene.client.poll_transmit().unwrap().payload;
    assert_eq!(epoch_bits(&ack), 2);
    let later = later + RETRANSMIT_FIRST / 2;
    scene.server().handle_datagram(later, client_address(), &ack);
    let again: Vec<_> =
        std::iter::from_fn(|| scene.server().poll_transmit()).map(|transmit| transmit.payload).collect();
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].len(), flight.last().unwrap().len());
    scene.client.handle_datagram(later, server_address(), &again[0]);
    assert!(scene.client.is_established());
}

#[test]
fn a_gap_is_told_at_once() {
    let (mut scene, flight) = answered();
    let now = scene.now;
    // ServerHello first, so that there are keys; then only the last part.
    scene.client.handle_datagram(now, server_address(), &flight[0]);
    if flight.len() > 2 {
        scene.client.handle_datagram(now, server_address(), flight.last().unwrap());
        assert!(scene.client.poll_transmit().is_some());
    } else {
        // In two datagrams there is no gap; the other order has one, before the keys.
        assert!(scene.client.poll_transmit().is_none());
    }
}

#[test]
fn records_before_the_server_hello_are_kept_until_its_keys_are_there() {
    let (mut scene, flight) = answered();
    let now = scene.now;
    for datagram in flight.iter().rev() {
        scene.client.handle_datagram(now, server_address(), datagram);
    }
    assert!(scene.client.is_established());
}

#[test]
fn data_that_overtake_the_clients_finished_are_kept() {
    let (mut scene, flight) = answered();
    let now = scene.now;
    for datagram in &flight {
        scene.client.handle_datagram(now, server_address(), datagram);
    }
    let finished = scene.client.poll_transmit().unwrap().payload;
    scene.client.send(now, b"overtakes").unwrap();
    let data = scene.client.poll_transmit().unwrap().payload;
    assert_eq!((epoch_bits(&finished), epoch_bits(&data)), (2, 3));
    scene.server().handle_datagram(now, client_address(), &data);
    assert!(!scene.server().is_established());
    assert_eq!(scene.server().poll_event(), None);
    scene.server().handle_datagram(now, client_address(), &finished);
    assert!(matches!(scene.server().poll_event(), Some(Event::Established(_))));
    let event = scene.server().poll_event();
    assert!(matches!(event, Some(Event::ApplicationData { payload, .. }) if payload == b"overtakes"));
}

#[test]
fn no_more_data_than_the_limit_are_kept_before_the_clients_finished() {
    let (mut scene, flight) = answered();
    let now = scene.now;
    for datagram in &flight {
        scene.client.handle_datagram(now, server_address(), datagram);
    }
    let finished = scene.client.poll_transmit().unwrap().payload;
    for number in 0..EARLY_RECORDS_MAX + 2 {
        scene.client.send(now, &[number as u8]).unwrap();
        let data = scene.client.poll_transmit().unwrap().payload;
        let kept = scene.server().handle_datagram(now, client_address(), &data) == Disposition::Taken;
        assert_eq!(kept, number < EARLY_RECORDS_MAX);
    }
    scene.server().handle_datagram(now, client_address(), &finished);
    let events: Vec<_> = std::iter::from_fn(|| scene.server().poll_event()).collect();
    let data = events.iter().filter(|event| matches!(event, Event::ApplicationData { .. })).count();
    assert_eq!(data, EARLY_RECORDS_MAX);
}

#[test]
fn a_finished_is_sent_until_it_is_acknowledged_and_acknowledged_each_time() {
    let (mut scene, flight) = answered();
    let now = scene.now;
    for datagram in &flight {
        scene.client.handle_datagram(now, server_address(), datagram);
    }
    // The first two are lost.
    let mut now = now;
    for _ in 0..2 {
        assert!(scene.client.poll_transmit().is_some());
        now = scene.client.poll_timeout().unwrap();
        scene.client.handle_timeout(now);
    }
    let third = scene.client.poll_transmit().unwrap().payload;
    scene.server().handle_datagram(now, client_address(), &third);
    assert!(scene.server().is_established());
    // The ACK is lost.
    assert!(scene.server().poll_transmit().is_some());
    now = scene.client.poll_timeout().unwrap();
    scene.client.handle_timeout(now);
    let fourth = scene.client.poll_transmit().unwrap().payload;
    scene.server().handle_datagram(now, client_address(), &fourth);
    let ack = scene.server().poll_transmit().unwrap().payload;
    assert_eq!(epoch_bits(&ack), 3);
    scene.client.handle_datagram(now, server_address(), &ack);
    assert_eq!(scene.client.poll_timeout(), None);
}

#[test]
fn a_finished_that_nobody_acknowledges_ends_the_session_in_its_time() {
    let (mut scene, flight) = answered();
    let now = scene.now;
    for datagram in &flight {
        scene.client.handle_datagram(now, server_address(), datagram);
    }
    assert!(scene.client.is_established());
    scene.server = None;
    scene.run(Duration::from_secs(200));
    assert_eq!(closed(&scene.client_events), Some(Closed::Failed(Error::HandshakeTimeout { unauthentic: false })));
}

#[test]
fn a_finished_whose_acks_are_lost_for_long_is_acknowledged_though_its_epoch_is_not_read_any_more() {
    for suite in CipherSuite::DTLS13 {
        for (deaf_seconds, freezes) in [(5, false), (14, false), (30, true), (60, false), (62, true)] {
            let mut client = client_config(&[suite]);
            client.connection_id = Some(ConnectionId::new(b"client").unwrap());
            let mut scene = Scene::new(client, server_config(&[suite]));
            scene.client_deaf_until = Some(scene.now + Duration::from_secs(deaf_seconds));
            scene.establish();
            let now = scene.now;
            scene.client.send(now, b"all there is").unwrap();
            // The server lets the handshake go, and says nothing of its own.
            scene.run(RETRANSMIT_FIRST * (FINISHED_HELD_INTERVALS + 1));
            assert_eq!(scene.server().poll_timeout(), None);
            assert_eq!(scene.client.poll_timeout().is_some(), deaf_seconds > 7);
            if freezes {
                let frozen = scene.server.take().unwrap().freeze().map_err(|(_, error)| error).unwrap();
                scene.server = Some(frozen.thaw_server(Arc::new(server_config(&[suite])), scene.now).unwrap());
            }
            let handshake_timeout = Duration::from_secs(120);
            assert!(scene.run(handshake_timeout * 2));
            assert!(scene.is_established(), "{deaf_seconds} s: {:?} {:?}", scene.client_events, scene.server_events);
            assert_eq!(scene.client.poll_timeout(), None);
            assert_eq!(scene.received(Side::Server), [b"all there is"]);
            let now = scene.now;
            scene.server().send(now, b"much later").unwrap();
            assert!(scene.run(handshake_timeout));
            assert_eq!(scene.received(Side::Client), [b"much later"]);
        }
    }
}

#[test]
fn a_server_that_hears_nothing_lets_the_handshake_go_in_its_time() {
    let mut scene = Scene::simple(&CipherSuite::DTLS13);
    scene.establish();
    scene.run(Duration::from_secs(1));
    assert!(scene.server().poll_timeout().is_some());
    scene.run(FINAL_FLIGHT_HELD);
    assert_eq!(scene.server().poll_timeout(), None);
    assert!(scene.is_established());
}

#[test]
fn a_new_write_key_is_used_once_the_old_one_is_acknowledged() {
    for suite in CipherSuite::DTLS13 {
        let mut scene = settled(suite);
        let now = scene.now;
        scene.client.update_keys(now, false).unwrap();
        assert_eq!(scene.client.update_keys(now, false), Err(Error::UpdatePending));
        let update = scene.client.poll_transmit().unwrap().payload;
        scene.client.send(now, b"before").unwrap();
        let before = scene.client.poll_transmit().unwrap().payload;
        assert_eq!((epoch_bits(&update), epoch_bits(&before)), (3, 3));
        scene.server().handle_datagram(now, client_address(), &update);
        let ack = scene.server().poll_transmit().unwrap().payload;
        scene.client.handle_datagram(now, server_address(), &ack);
        scene.client.send(now, b"after").unwrap();
        let after = scene.client.poll_transmit().unwrap().payload;
        assert_eq!(epoch_bits(&after), 0, "epoch 4");
        // The one sent before is still read when it comes late.
        for (datagram, payload) in [(&after, &b"after"[..]), (&before, b"before")] {
            scene.server().handle_datagram(now, client_address(), datagram);
            let event = scene.server().poll_event();
            assert!(matches!(event, Some(Event::ApplicationData { payload: came, .. }) if came == payload));
            // And once.
            assert_eq!(scene.server().handle_datagram(now, client_address(), datagram), Disposition::Ignored);
        }
        // After its time it is no longer.
        scene.server().update_keys(now, true).unwrap();
        scene.run(Duration::from_secs(300));
        assert_eq!(scene.client.poll_timeout(), None);
        assert_eq!(scene.server().poll_timeout(), None);
        assert!(scene.is_established());
    }
}

#[test]
fn an_epoch_before_is_read_for_its_time_only() {
    let mut scene = settled(CipherSuite::Aes128Gcm);
    let now = scene.now;
    scene.client.send(now, b"late").unwrap();
    let late = scene.client.poll_transmit().unwrap().payload;
    scene.client.update_keys(now, false).unwrap();
    scene.run(Duration::from_secs(1));
    let now = scene.now;
    scene.client.send(now, b"new").unwrap();
    scene.run(Duration::from_secs(300));
    assert_eq!(scene.received(Side::Server), [b"new"]);
    let now = scene.now;
    assert_eq!(scene.server().handle_datagram(now, client_address(), &late), Disposition::Ignored);
}

#[test]
fn a_key_update_that_is_asked_for_comes() {
    let mut scene = settled(CipherSuite::Chacha20Poly1305);
    let now = scene.now;
    scene.client.update_keys(now, true).unwrap();
    scene.run(Duration::from_secs(1));
    let now = scene.now;
    scene.client.send(now, b"up").unwrap();
    scene.server().send(now, b"down").unwrap();
    let (up, down) = (scene.client.poll_transmit().unwrap(), scene.server().poll_transmit().unwrap());
    assert_eq!((epoch_bits(&up.payload), epoch_bits(&down.payload)), (0, 0));
    // Both at once, each asking the other: one update each.
    scene.client.update_keys(now, true).unwrap();
    scene.server().update_keys(now, true).unwrap();
    scene.run(Duration::from_secs(1));
    let now = scene.now;
    scene.client.send(now, b"up").unwrap();
    scene.server().send(now, b"down").unwrap();
    let (up, down) = (scene.client.poll_transmit().unwrap(), scene.server().poll_transmit().unwrap());
    assert_eq!((epoch_bits(&up.payload), epoch_bits(&down.payload)), (1, 1));
}

#[test]
fn a_key_update_that_nobody_acknowledges_ends_the_session_in_its_time() {
    let mut scene = settled(CipherSuite::Aes128Ccm);
    let now = scene.now;
    scene.server().update_keys(now, false).unwrap();
    scene.weather.loss = 100;
    scene.run(Duration::from_secs(100));
    assert_eq!(closed(&scene.server_events), Some(Closed::Failed(Error::HandshakeTimeout { unauthentic: false })));
}

#[test]
fn the_older_version_has_no_key_update() {
    let mut scene = Scene::simple(&CipherSuite::DTLS12);
    let now = scene.now;
    assert_eq!(scene.client.update_keys(now, false), Err(Error::NotEstablished));
    scene.establish();
    let now = scene.now;
    assert_eq!(scene.client.update_keys(now, false), Err(Error::NoKeyUpdate));
    scene.client.close(now);
    assert_eq!(scene.client.update_keys(now, false), Err(Error::Closed));
}

#[test]
fn a_client_that_moves_is_followed() {
    let elsewhere = "198.51.100.9:1234".parse().unwrap();
    for (address_change, followed) in [(AddressChange::Follow, true), (AddressChange::Ask, false)] {
        let mut server = server_config(&CipherSuite::DTLS13);
        server.session.address_change = address_change;
        let mut scene = Scene::new(client_config(&CipherSuite::DTLS13), server);
        scene.establish();
        scene.run(Duration::from_secs(1));
        let now = scene.now;
        scene.client.send(now, b"moved").unwrap();
        let datagram = scene.client.poll_transmit().unwrap().payload;
        assert_eq!(ConnectionId::of_datagram(&datagram, 8), Some(scene.connection_id));
        // Changed, it moves nothing.
        let mut forged = datagram.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(scene.server().handle_datagram(now, elsewhere, &forged), Disposition::Ignored);
        scene.server().handle_datagram(now, elsewhere, &datagram);
        assert_eq!(scene.server().poll_event(), Some(Event::PeerAddressChanged { address: elsewhere, followed }));
        if !followed {
            scene.server().probe(now, b"echo").unwrap();
            assert_eq!(scene.server().poll_transmit().unwrap().destination, elsewhere);
            scene.server().follow(elsewhere).unwrap();
        }
        assert_eq!(scene.server().peer_address(), elsewhere);
        // Another's Connection ID, or none, is not this session's.
        scene.client.send(now, b"again").unwrap();
        let datagram = scene.client.poll_transmit().unwrap().payload;
        let mut other = datagram.clone();
        other[1] ^= 1;
        let without = [&[datagram[0] & !0x10][..], &datagram[9..]].concat();
        for changed in [other, without] {
            assert_eq!(scene.server().handle_datagram(now, elsewhere, &changed), Disposition::Ignored);
        }
    }
}

#[test]
fn a_connection_id_is_used_in_each_direction_that_wants_one() {
    for (client_id, server_id) in [(0, 0), (5, 0), (0, 8), (3, 20)] {
        let mut client = client_config(&CipherSuite::DTLS13);
        client.connection_id = Some(ConnectionId::random(client_id).unwrap());
        let mut scene = Scene::new(client, server_config(&CipherSuite::DTLS13));
        scene.connection_id = ConnectionId::random(server_id).unwrap();
        scene.establish();
        let now = scene.now;
        scene.client.send(now, b"up").unwrap();
        scene.server().send(now, b"down").unwrap();
        let up = scene.client.poll_transmit().unwrap();
        let down = scene.server().poll_transmit().unwrap();
        assert_eq!(ConnectionId::of_datagram(&up.payload, server_id).is_some(), server_id > 0);
        assert_eq!(ConnectionId::of_datagram(&down.payload, client_id).is_some(), client_id > 0);
        scene.post(Side::Server, up);
        scene.post(Side::Client, down);
        scene.run(Duration::from_secs(1));
        assert_eq!(scene.received(Side::Server), [b"up"]);
        assert_eq!(scene.received(Side::Client), [b"down"]);
    }
    let mut client = client_config(&CipherSuite::DTLS13);
    client.connection_id = None;
    let mut scene = Scene::new(client, server_config(&CipherSuite::DTLS13));
    scene.establish();
    assert!(scene.server().connection_id().is_empty());
}

#[test]
fn close_notify_ends_both_sides_and_one_in_clear_ends_none() {
    let mut scene = settled(CipherSuite::Aes128Gcm);
    let now = scene.now;
    for description in [0, 40, 51] {
        let alert = [21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, description];
        scene.server().handle_datagram(now, client_address(), &alert);
        scene.client.handle_datagram(now, server_address(), &alert);
    }
    assert!(scene.is_established());
    scene.client.close(now);
    assert!(scene.run(Duration::from_secs(300)));
    assert_eq!(closed(&scene.client_events), Some(Closed::Local));
    assert_eq!(closed(&scene.server_events), Some(Closed::Peer));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever is lost, delayed and repeated, keys are updated by both sides at any time, and what arrives is what was sent.
    #[test]
    fn keys_are_updated_under_loss(
        suite in 0_usize..4,
        loss in 0_u64..=25,
        duplication in 0_u64..=30,
        delay_milliseconds_max in prop_oneof![Just(0), 0_u64..=300],
        steps in prop::collection::vec((0_u8..6, any::<bool>()), 1..40),
        seed: u64,
    ) {
        let suite = [CipherSuite::DTLS13[suite]];
        let (mut client, mut server) = (client_config(&suite), server_config(&suite));
        for session in [&mut client.session, &mut server.session] {
            session.retransmit_first = Duration::from_millis(200);
            session.handshake_timeout = Duration::from_secs(1000);
        }
        let mut scene = Scene::new(client, server);
        scene.random.0 = seed;
        scene.weather = Weather { loss, duplication, delay_milliseconds_max, ..Weather::default() };
        scene.establish();
        let (mut sent, mut updates) = ([0_u32; 2], 0);
        for (step, at_client) in steps {
            let now = scene.now;
            let side = if at_client { &mut scene.client } else { scene.server.as_mut().unwrap() };
            match step {
                0..=2 => {
                    let number = &mut sent[usize::from(at_client)];
                    side.send(now, &number.to_be_bytes()).unwrap();
                    *number += 1;
                }
                3 => updates += u32::from(side.update_keys(now, true).is_ok()),
                4 => updates += u32::from(side.update_keys(now, false).is_ok()),
                _ => {
                    scene.run(Duration::from_millis(300));
                }
            }
        }
        scene.run(Duration::from_secs(3000));
        prop_assert!(scene.is_established(), "{updates} updates: {:?} {:?}", scene.client_events, scene.server_events);
        prop_assert_eq!(scene.client.poll_timeout(), None);
        prop_assert_eq!(scene.server().poll_timeout(), None);
        for (side, sent) in [(Side::Server, sent[1]), (Side::Client, sent[0])] {
            let mut received = scene.received(side);
            let all = received.len();
            received.sort();
            received.dedup();
            prop_assert_eq!(received.len(), all, "something came twice");
            prop_assert!(received.iter().all(|payload| payload.len() == 4 && payload < &sent.to_be_bytes().to_vec()));
            // What two updates overtake is lost too.
            prop_assert!(loss + delay_milliseconds_max > 0 || all == sent as usize, "{all} of {sent}");
        }
        // And it goes on.
        scene.weather = Weather::default();
        let now = scene.now;
        scene.client.send(now, b"the last").unwrap();
        scene.run(Duration::from_secs(1));
        prop_assert_eq!(scene.received(Side::Server), [b"the last"]);
    }
}
