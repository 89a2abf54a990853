//! Whatever the network does, a handshake completes or fails within its time, and nothing changed is ever accepted.

use std::collections::HashSet;
use std::time::Duration;

use dtls::limits::{
    DATAGRAM_OCTETS_DEFAULT, DATAGRAM_OCTETS_FALLBACK, DATAGRAM_OCTETS_MAX, DATAGRAM_OCTETS_MIN, FINAL_FLIGHT_HELD,
    PSK_IDENTITY_OCTETS_MAX,
};
use dtls::{CipherSuite, Closed, Connection, ConnectionId, Error, Event, ProtocolVersion};
use proptest::prelude::*;

use crate::scene::{Scene, Side, Weather, client_config, server_config};

fn weather() -> impl Strategy<Value = Weather> {
    (0u64..=50, 0u64..=30, 0u64..=20, 0u64..=1500, 0u64..=3000).prop_map(
        |(loss, duplication, corruption, delay_milliseconds_max, key_milliseconds)| Weather {
            loss,
            duplication,
            corruption,
            delay_milliseconds_max,
            key_milliseconds,
            mtu: None,
        },
    )
}

/// What a side believes that the path carries.
fn octets() -> impl Strategy<Value = usize> {
    prop_oneof![DATAGRAM_OCTETS_MIN..1400, 1400..=DATAGRAM_OCTETS_MAX]
}

fn scene(weather: Weather, suite: usize, octets: (usize, usize), client_id: usize, seed: u64) -> Scene {
    let suite = [CipherSuite::ALL[suite % CipherSuite::ALL.len()]];
    let (mut client, mut server) = (client_config(&suite), server_config(&suite));
    // A ClientHello of DTLS 1.3, with identity and cookie, goes in one datagram.
    let octets_min = if suite[0].version() == ProtocolVersion::Dtls13 { 360 } else { DATAGRAM_OCTETS_MIN };
    client.session.datagram_octets_max = octets.0.max(octets_min);
    server.session.datagram_octets_max = octets.1;
    client.connection_id = Some(ConnectionId::random(client_id).unwrap());
    let mut scene = Scene::new(client, server);
    scene.weather = weather;
    scene.random.0 = seed;
    scene
}

/// Sends numbered messages both ways in any weather: each comes at most once, and as it was sent.
fn converse(scene: &mut Scene) {
    let message = |side: u8, number: u8| vec![side; 1 + usize::from(number)];
    for number in 0..20 {
        let now = scene.now;
        if scene.client.send(now, &message(1, number)).is_ok() && scene.server.is_some() {
            let _ = scene.server().send(now, &message(2, number));
        }
        scene.run(Duration::from_millis(200));
    }
    scene.run(Duration::from_secs(5));
    for (side, from) in [(Side::Server, 1), (Side::Client, 2)] {
        let mut seen = HashSet::new();
        for payload in scene.received(side) {
            let number = u8::try_from(payload.len() - 1).unwrap();
            assert_eq!(payload, message(from, number));
            assert!(seen.insert(number), "message {number} came twice");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_handshake_completes_or_fails_and_never_hangs(
        weather in weather(),
        suite in 0usize..10,
        octets in (octets(), octets()),
        client_id in 0usize..=20,
        seed: u64,
    ) {
        let mut scene = scene(weather, suite, octets, client_id, seed);
        scene.run(Duration::from_secs(200));
        prop_assert!(scene.client.is_established() || scene.client.is_closed());
        if let Some(server) = &scene.server {
            prop_assert!(server.is_established() || server.is_closed());
        }
        if scene.client.is_established() {
            // The client heard the server's Finished, which with DTLS 1.3 is not the last message.
            let is_13 = scene.client.version() == Some(ProtocolVersion::Dtls13);
            prop_assert!(is_13 || scene.server_events.iter().any(|event| matches!(event, Event::Established(_))));
        }
        prop_assert!(scene.octets_max <= octets.0.max(octets.1).max(360));
        prop_assert!(scene.unproven_octets.1 <= scene.unproven_octets.0);
        converse(&mut scene);
        // Nothing is left that would ever run out.
        scene.run(Duration::from_secs(300));
        prop_assert_eq!(scene.client.poll_timeout(), None);
        prop_assert_eq!(scene.server.as_ref().and_then(Connection::poll_timeout), None);
    }

    /// Loss, delay and repetition alone, within what six retransmissions overcome, never make a handshake fail.
    #[test]
    fn a_network_that_damages_nothing_delays_a_handshake_only(
        loss in 0u64..=20,
        delay in 0u64..=800,
        suite in 0usize..10,
        octets in (octets(), octets()),
        seed: u64,
    ) {
        let weather = Weather { loss, duplication: 20, delay_milliseconds_max: delay, key_milliseconds: 300, ..Weather::default() };
        let mut scene = scene(weather, suite, octets, 4, seed);
        scene.establish();
        let established = |events: &[Event]| events.iter().filter(|event| matches!(event, Event::Established(_))).count();
        prop_assert_eq!(established(&scene.client_events), 1);
        prop_assert_eq!(established(&scene.server_events), 1);
        converse(&mut scene);
    }

    /// Both sides believe in more than the path carries. Where it carries the ClientHello, which goes whole, and
    /// DATAGRAM_OCTETS_FALLBACK, the handshake completes; where it does not carry the ClientHello, both end in time.
    #[test]
    fn a_handshake_completes_over_any_path_that_carries_its_hello(
        mtu in prop_oneof![1usize..DATAGRAM_OCTETS_FALLBACK, DATAGRAM_OCTETS_FALLBACK..1400, 1400..=DATAGRAM_OCTETS_MAX],
        suite in 0usize..10,
        identity in 1usize..=PSK_IDENTITY_OCTETS_MAX,
        hint in 0usize..=PSK_IDENTITY_OCTETS_MAX,
        octets in DATAGRAM_OCTETS_DEFAULT..=DATAGRAM_OCTETS_MAX,
        seed: u64,
    ) {
        let mut scene = long_winded(CipherSuite::ALL[suite], identity, hint, octets);
        scene.weather.mtu = Some(mtu);
        scene.random.0 = seed;
        scene.run(Duration::from_secs(200));
        let closed_in_time = |events: &[Event]| {
            let in_time = |event: &Event| matches!(event, Event::Closed(Closed::Failed(Error::HandshakeTimeout { .. })));
            events.iter().any(in_time)
        };
        if scene.hello_octets_max > mtu {
            prop_assert!(closed_in_time(&scene.client_events) && scene.server.is_none());
        } else if mtu >= DATAGRAM_OCTETS_FALLBACK {
            prop_assert!(scene.is_established(), "{:?} {:?}", scene.client_events, scene.server_events);
            converse(&mut scene);
        } else {
            prop_assert!(scene.is_established() || closed_in_time(&scene.client_events));
            prop_assert!(scene.server.as_ref().is_none_or(|server| server.is_established() || server.is_closed()));
        }
        scene.run(Duration::from_secs(300));
        prop_assert_eq!(scene.client.poll_timeout(), None);
        prop_assert_eq!(scene.server.as_ref().and_then(Connection::poll_timeout), None);
    }
}

/// Flights as long as identity and hint make them.
fn long_winded(suite: CipherSuite, identity: usize, hint: usize, octets: usize) -> Scene {
    let (mut client, mut server) = (client_config(&[suite]), server_config(&[suite]));
    client.identity = vec![b'i'; identity];
    server.identity_hint = (hint > 0).then(|| vec![b'h'; hint]);
    client.session.datagram_octets_max = octets;
    server.session.datagram_octets_max = octets;
    Scene::new(client, server)
}

#[test]
fn handshakes_complete_over_a_path_that_carries_no_more_than_the_fallback() {
    for suite in CipherSuite::ALL {
        for octets in [DATAGRAM_OCTETS_DEFAULT, DATAGRAM_OCTETS_MAX] {
            let is_13 = suite.version() == ProtocolVersion::Dtls13;
            // The ClientHello of DTLS 1.3 has the identity in it.
            let identity = if is_13 { 180 } else { PSK_IDENTITY_OCTETS_MAX };
            let mut scene = long_winded(suite, identity, PSK_IDENTITY_OCTETS_MAX, octets);
            scene.weather.mtu = Some(DATAGRAM_OCTETS_FALLBACK);
            scene.establish();
            // Flights of DTLS 1.3 with external PSK have no more than that; of DTLS 1.2 each side's was lost for its size.
            let (to_client, to_server) = scene.too_large;
            assert_eq!((to_client > 0, to_server > 0), (!is_13, !is_13), "{suite:?}");
            assert!(scene.hello_octets_max <= DATAGRAM_OCTETS_FALLBACK);
            converse(&mut scene);
        }
    }
}

#[test]
fn large_datagrams_carry_as_much_as_they_say() {
    for suite in CipherSuite::ALL {
        for octets in [1400, 1401, 4096, 9000, DATAGRAM_OCTETS_MAX - 1, DATAGRAM_OCTETS_MAX] {
            let mut scene = long_winded(suite, 40, 9, octets);
            scene.weather.mtu = Some(octets);
            scene.establish();
            let now = scene.now;
            let (up, down) = (scene.client.payload_octets_max(), scene.server().payload_octets_max());
            scene.client.send(now, &vec![1; up]).unwrap();
            scene.server().send(now, &vec![2; down]).unwrap();
            assert!(scene.client.send(now, &vec![1; up + 1]).is_err());
            scene.run(Duration::from_secs(1));
            assert_eq!(scene.received(Side::Server), [vec![1; up]]);
            assert_eq!(scene.received(Side::Client), [vec![2; down]]);
            assert!((octets - 2..=octets).contains(&scene.octets_max), "{suite:?}: {} of {octets}", scene.octets_max);
        }
    }
}

#[test]
fn half_of_all_datagrams_lost_still_lets_most_handshakes_through() {
    let mut established = 0;
    for seed in 0..100 {
        let weather = Weather { loss: 50, delay_milliseconds_max: 100, ..Weather::default() };
        let mut scene = scene(weather, seed as usize, (1232, 1232), 8, seed);
        scene.run(Duration::from_secs(130));
        established += u32::from(scene.is_established());
    }
    assert!(established >= 60, "{established} of 100");
}

#[test]
fn a_lost_last_flight_is_sent_again_when_the_client_asks() {
    let mut scene = Scene::simple(&CipherSuite::DTLS12);
    // Everything arrives until the server has answered; its answer is lost.
    while !scene.server.as_ref().is_some_and(Connection::is_established) {
        step(&mut scene);
    }
    while scene.server().poll_transmit().is_some() {}
    assert!(!scene.client.is_established());
    scene.establish();
}

#[test]
fn a_server_lets_its_last_flight_go_when_the_client_speaks() {
    let mut scene = Scene::simple(&CipherSuite::DTLS12);
    scene.establish();
    assert!(scene.server().poll_timeout().is_some());
    let now = scene.now;
    scene.client.send(now, b"first").unwrap();
    scene.run(Duration::from_millis(1));
    assert_eq!(scene.server().poll_timeout(), None);
    assert_eq!(scene.received(Side::Server), [b"first"]);
}

#[test]
fn a_server_lets_its_last_flight_go_when_its_time_has_passed() {
    let mut scene = Scene::simple(&CipherSuite::DTLS12);
    scene.establish();
    let established = scene.now;
    assert!(scene.run(FINAL_FLIGHT_HELD + Duration::from_secs(1)));
    assert!(scene.now.duration_since(established) <= FINAL_FLIGHT_HELD);
    assert!(scene.is_established());
}

#[test]
fn data_that_overtake_the_servers_finished_are_lost_and_later_ones_are_not() {
    let mut scene = Scene::simple(&CipherSuite::DTLS12);
    while !scene.server.as_ref().is_some_and(Connection::is_established) {
        step(&mut scene);
    }
    let now = scene.now;
    let flight = scene.server().poll_transmit().unwrap();
    scene.server().send(now, b"too early").unwrap();
    let early = scene.server().poll_transmit().unwrap();
    scene.post(Side::Client, early);
    scene.post(Side::Client, flight);
    scene.run(Duration::from_secs(1));
    assert!(scene.client.is_established());
    scene.server().send(now, b"in time").unwrap();
    scene.run(Duration::from_secs(1));
    assert_eq!(scene.received(Side::Client), [b"in time"]);
}

/// Delivers what is on the way, without draining what that brings about.
fn step(scene: &mut Scene) {
    let now = scene.now;
    while let Some(transmit) = scene.client.poll_transmit() {
        match &mut scene.server {
            Some(server) => {
                server.handle_datagram(now, scene.source, &transmit.payload);
            }
            None => match scene.listener.handle_datagram(now, scene.source, &transmit.payload) {
                dtls::Incoming::Reply(reply) => {
                    scene.client.handle_datagram(now, crate::scene::server_address(), &reply.payload);
                }
                dtls::Incoming::Hello(proven) => scene.server = Some(proven.accept(now, scene.connection_id).unwrap()),
                _ => panic!("refused"),
            },
        }
    }
    let Some(server) = &mut scene.server else { return };
    while let Some(event) = server.poll_event() {
        if matches!(event, Event::KeyNeeded(_)) {
            server.provide_key(now, &crate::scene::key()).unwrap();
        }
    }
    if server.is_established() {
        return;
    }
    while let Some(transmit) = server.poll_transmit() {
        scene.client.handle_datagram(now, crate::scene::server_address(), &transmit.payload);
    }
    while let Some(event) = scene.client.poll_event() {
        if matches!(event, Event::KeyNeeded(_)) {
            scene.client.provide_key(now, &crate::scene::key()).unwrap();
        }
    }
}
