//! The contract holds whatever the order of calls: nothing panics, and what may not be called yet changes nothing.

use std::sync::Arc;
use std::time::Duration;

use dtls::{CipherSuite, Connection, Disposition, Error, Event, Incoming, KeyRefusal};
use proptest::prelude::*;

use crate::scene::{Scene, client_address, client_config, key, server_address, server_config};

/// What a driver may do, sensible or not.
#[derive(Clone, Copy, Debug)]
enum Call {
    Deliver,
    Lose,
    DeliverChanged(u16),
    Junk(u16),
    Wait(u16),
    ProvideKey,
    RefuseKey,
    Send(u16),
    Probe,
    Follow,
    Decline,
    PollEvents,
    Close,
    UpdateKeys(bool),
    Freeze,
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        12 => Just(Call::Deliver),
        1 => Just(Call::Lose),
        1 => any::<u16>().prop_map(Call::DeliverChanged),
        1 => any::<u16>().prop_map(Call::Junk),
        2 => (0u16..3000).prop_map(Call::Wait),
        4 => Just(Call::ProvideKey),
        1 => Just(Call::RefuseKey),
        3 => (0u16..2000).prop_map(Call::Send),
        1 => Just(Call::Probe),
        1 => Just(Call::Follow),
        1 => Just(Call::Decline),
        3 => Just(Call::PollEvents),
        1 => Just(Call::Close),
        1 => any::<bool>().prop_map(Call::UpdateKeys),
        1 => Just(Call::Freeze),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_order_of_calls_panics(is_13: bool, calls in prop::collection::vec((any::<bool>(), call()), 0..120)) {
        let mut scene = Scene::simple(if is_13 { &CipherSuite::ALL } else { &CipherSuite::DTLS12 });
        for (at_client, call) in calls {
            make(&mut scene, at_client, call);
        }
        // And it still comes to an end.
        scene.run(Duration::from_secs(600));
        prop_assert_eq!(scene.client.poll_timeout(), None);
        prop_assert_eq!(scene.server.as_ref().and_then(Connection::poll_timeout), None);
    }
}

fn make(scene: &mut Scene, at_client: bool, call: Call) {
    let now = scene.now;
    match call {
        Call::Deliver => deliver(scene, at_client, None),
        Call::DeliverChanged(at) => deliver(scene, at_client, Some(at)),
        Call::Wait(milliseconds) => {
            scene.now += Duration::from_millis(u64::from(milliseconds));
            scene.client.handle_timeout(scene.now);
            if let Some(server) = &mut scene.server {
                server.handle_timeout(scene.now);
            }
        }
        Call::Freeze => {
            if let Some(server) = scene.server.take() {
                scene.server = Some(match server.freeze() {
                    Ok(frozen) => frozen.thaw_server(Arc::new(server_config(&CipherSuite::DTLS12)), now).unwrap(),
                    Err((server, error)) => {
                        assert_eq!(error, Error::NotIdle);
                        *server
                    }
                });
            }
        }
        other => {
            let side = if at_client { Some(&mut scene.client) } else { scene.server.as_mut() };
            if let Some(side) = side {
                on_one(side, now, other);
            }
        }
    }
}

fn on_one(side: &mut Connection, now: std::time::Instant, call: Call) {
    match call {
        Call::Lose => drop(side.poll_transmit()),
        Call::Junk(seed) => {
            let junk: Vec<u8> = (0..seed % 200).map(|index| (seed.wrapping_mul(index + 1) >> 3) as u8).collect();
            side.handle_datagram(now, client_address(), &junk);
            side.handle_datagram(now, server_address(), &junk);
        }
        Call::ProvideKey => drop(side.provide_key(now, &key())),
        Call::RefuseKey => drop(side.refuse_key(now, KeyRefusal::Unknown)),
        Call::Send(octets) => drop(side.send(now, &vec![1; usize::from(octets)])),
        Call::Probe => drop(side.probe(now, b"probe")),
        Call::Follow => drop(side.follow(client_address())),
        Call::Decline => drop(side.decline(client_address())),
        Call::PollEvents => while side.poll_event().is_some() {},
        Call::Close => side.close(now),
        Call::UpdateKeys(request) => drop(side.update_keys(now, request)),
        Call::Deliver | Call::DeliverChanged(_) | Call::Wait(_) | Call::Freeze => {}
    }
}

/// One datagram of one side reaches the other.
fn deliver(scene: &mut Scene, from_client: bool, change: Option<u16>) {
    let now = scene.now;
    let transmit = if from_client {
        scene.client.poll_transmit()
    } else {
        scene.server.as_mut().and_then(Connection::poll_transmit)
    };
    let Some(mut payload) = transmit.map(|transmit| transmit.payload) else { return };
    if let Some(at) = change {
        let at = usize::from(at) % payload.len();
        payload[at] ^= 1 + (at as u8 & 0x7f);
    }
    if !from_client {
        scene.client.handle_datagram(now, server_address(), &payload);
        return;
    }
    let disposition = match &mut scene.server {
        Some(server) => server.handle_datagram(now, client_address(), &payload),
        None => Disposition::NewClientHello,
    };
    if disposition == Disposition::NewClientHello {
        match scene.listener.handle_datagram(now, client_address(), &payload) {
            Incoming::Reply(reply) | Incoming::Refused(reply, _) => {
                scene.client.handle_datagram(now, server_address(), &reply.payload);
            }
            Incoming::Hello(proven) if scene.server.is_none() => {
                scene.server = Some(proven.accept(now, scene.connection_id).unwrap());
            }
            _ => {}
        }
    }
}

#[test]
fn what_a_driver_holds_may_move_between_threads() {
    fn moves<T: Send>() {}
    fn is_shared<T: Send + Sync>() {}
    moves::<Connection>();
    moves::<dtls::ProvenHello>();
    is_shared::<dtls::Listener>();
    is_shared::<dtls::Frozen>();
    is_shared::<dtls::SealingKey>();
}

#[test]
fn no_debug_output_names_the_identity() {
    let mut config = client_config(&CipherSuite::DTLS12);
    config.identity = b"AAAAAAAA".to_vec();
    // As text, and as the list of numbers that a vector prints.
    for shown in [format!("{config:?}"), format!("{config:#?}")] {
        assert!(!shown.contains("AAAA") && !shown.contains("65"), "{shown}");
        assert!(shown.contains("identity_octets"));
    }
}

#[test]
fn calls_that_come_too_early_or_too_late_are_errors_that_change_nothing() {
    let mut scene = Scene::simple(&CipherSuite::DTLS12);
    let now = scene.now;
    assert_eq!(scene.client.send(now, b"x"), Err(Error::NotEstablished));
    assert_eq!(scene.client.provide_key(now, &key()), Err(Error::NoKeyAwaited));
    assert_eq!(scene.client.refuse_key(now, KeyRefusal::Unknown), Err(Error::NoKeyAwaited));
    assert_eq!(scene.client.follow(server_address()), Err(Error::NoSuchAddress));
    assert_eq!(scene.client.decline(server_address()), Err(Error::NoSuchAddress));
    scene.establish();
    let now = scene.now;
    assert_eq!(scene.client.provide_key(now, &key()), Err(Error::NoKeyAwaited));
    assert_eq!(scene.server().refuse_key(now, KeyRefusal::Unknown), Err(Error::NoKeyAwaited));
    assert!(scene.is_established());
    scene.client.close(now);
    assert_eq!(scene.client.send(now, b"x"), Err(Error::Closed));
    assert_eq!(scene.client.probe(now, b"x"), Err(Error::Closed));
    assert_eq!(scene.client.poll_timeout(), None);
    assert!(matches!(scene.client.poll_event(), Some(Event::Closed(_))));
    assert_eq!(scene.client.poll_event(), None);
    assert_eq!(scene.client.handle_datagram(now, server_address(), &[22; 40]), Disposition::Ignored);
}
