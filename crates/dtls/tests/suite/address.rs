//! The peer's address and its changes: who is followed, who is not.

use std::net::SocketAddr;
use std::time::Duration;

use dtls::limits::{EVENTS_MAX, PROBE_OCTETS_FACTOR};
use dtls::{AddressChange, CipherSuite, ConnectionId, Error, Event, Transmit};

use crate::scene::{Scene, Side, client_address, client_config, server_config};

fn elsewhere() -> SocketAddr {
    "198.51.100.9:1234".parse().unwrap()
}

fn scene(address_change: AddressChange) -> Scene {
    let mut server = server_config(&CipherSuite::DTLS12);
    server.session.address_change = address_change;
    let mut scene = Scene::new(client_config(&CipherSuite::DTLS12), server);
    scene.establish();
    let now = scene.now;
    scene.client.send(now, b"from home").unwrap();
    scene.run(Duration::from_secs(1));
    scene.received(Side::Server);
    scene
}

fn next_datagram(scene: &mut Scene, payload: &[u8]) -> Vec<u8> {
    let now = scene.now;
    scene.client.send(now, payload).unwrap();
    scene.client.poll_transmit().unwrap().payload
}

fn arrive(scene: &mut Scene, source: SocketAddr, datagram: &[u8]) -> Vec<Event> {
    let now = scene.now;
    scene.server().handle_datagram(now, source, datagram);
    std::iter::from_fn(|| scene.server().poll_event()).collect()
}

fn answer_goes_to(scene: &mut Scene) -> SocketAddr {
    let now = scene.now;
    scene.server().send(now, b"answer").unwrap();
    let Transmit { destination, .. } = scene.server().poll_transmit().unwrap();
    destination
}

#[test]
fn a_new_address_is_followed_ignored_or_asked_about_as_configured() {
    let cases = [
        (AddressChange::Follow, Some(true), elsewhere()),
        (AddressChange::Ask, Some(false), client_address()),
        (AddressChange::Ignore, None, client_address()),
    ];
    for (address_change, told, destination) in cases {
        let mut scene = scene(address_change);
        let datagram = next_datagram(&mut scene, b"moved");
        let events = arrive(&mut scene, elsewhere(), &datagram);
        let mut expected = Vec::new();
        expected.extend(told.map(|followed| Event::PeerAddressChanged { address: elsewhere(), followed }));
        // The data count either way, and say where they came from.
        expected.push(Event::ApplicationData { payload: b"moved".to_vec(), source: elsewhere() });
        assert_eq!(events, expected);
        assert_eq!(answer_goes_to(&mut scene), destination);
    }
}

#[test]
fn only_the_newest_record_moves_a_session() {
    let mut scene = scene(AddressChange::Follow);
    let old = next_datagram(&mut scene, b"old");
    let new = next_datagram(&mut scene, b"new");
    arrive(&mut scene, client_address(), &new);
    let events = arrive(&mut scene, elsewhere(), &old);
    assert_eq!(events, [Event::ApplicationData { payload: b"old".to_vec(), source: elsewhere() }]);
    assert_eq!(answer_goes_to(&mut scene), client_address());
}

#[test]
fn repeated_and_forged_records_move_nothing() {
    let mut scene = scene(AddressChange::Follow);
    let datagram = next_datagram(&mut scene, b"once");
    arrive(&mut scene, client_address(), &datagram);
    assert_eq!(arrive(&mut scene, elsewhere(), &datagram), []);
    let mut forged = next_datagram(&mut scene, b"forged");
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(arrive(&mut scene, elsewhere(), &forged), []);
    assert_eq!(answer_goes_to(&mut scene), client_address());
}

#[test]
fn a_session_without_connection_id_stays_where_it_is() {
    let mut client = client_config(&CipherSuite::DTLS12);
    client.connection_id = None;
    let mut server = server_config(&CipherSuite::DTLS12);
    server.session.address_change = AddressChange::Follow;
    let mut scene = Scene::new(client, server);
    scene.establish();
    let datagram = next_datagram(&mut scene, b"moved");
    assert_eq!(arrive(&mut scene, elsewhere(), &datagram), []);
    assert_eq!(answer_goes_to(&mut scene), client_address());
}

#[test]
fn an_address_is_followed_on_demand_once_proven_by_a_probe() {
    let mut scene = scene(AddressChange::Ask);
    let now = scene.now;
    assert_eq!(scene.server().follow(elsewhere()), Err(Error::NoSuchAddress));
    assert_eq!(scene.server().probe(now, b"echo"), Err(Error::NoSuchAddress));
    let datagram = next_datagram(&mut scene, b"moved");
    arrive(&mut scene, elsewhere(), &datagram);
    scene.server().probe(now, b"echo").unwrap();
    let probe = scene.server().poll_transmit().unwrap();
    assert_eq!(probe.destination, elsewhere());
    scene.client.handle_datagram(now, crate::scene::server_address(), &probe.payload);
    assert!(matches!(scene.client.poll_event(), Some(Event::ApplicationData { payload, .. }) if payload == b"echo"));
    scene.server().follow(elsewhere()).unwrap();
    assert_eq!(scene.server().follow(elsewhere()), Err(Error::NoSuchAddress));
    assert_eq!(answer_goes_to(&mut scene), elsewhere());
}

#[test]
fn an_unproven_address_gets_no_more_than_its_share() {
    // However many records there are in a datagram, and whether or not all are authentic.
    for records in 1..5 {
        for forged in [false, true] {
            let mut scene = scene(AddressChange::Ask);
            let now = scene.now;
            let mut datagram: Vec<u8> = (0..records).flat_map(|_| next_datagram(&mut scene, b"moved")).collect();
            let authentic = datagram.len();
            if forged {
                let mut record = next_datagram(&mut scene, &[0; 200]);
                *record.last_mut().unwrap() ^= 1;
                datagram.extend(record);
            }
            arrive(&mut scene, elsewhere(), &datagram);
            let mut sent = 0;
            while scene.server().probe(now, &[0; 20]).is_ok() {
                sent += scene.server().poll_transmit().unwrap().payload.len();
            }
            assert_eq!(scene.server().probe(now, &[0; 20]), Err(Error::ProbeTooLarge));
            assert!(sent > 0 && sent <= PROBE_OCTETS_FACTOR * authentic, "{records} records");
        }
    }
}

#[test]
fn an_address_that_is_declined_no_longer_keeps_a_session_from_being_frozen() {
    let mut scene = scene(AddressChange::Ask);
    let datagram = next_datagram(&mut scene, b"moved");
    arrive(&mut scene, elsewhere(), &datagram);
    let (server, error) = scene.server.take().unwrap().freeze().unwrap_err();
    assert_eq!(error, Error::NotIdle);
    scene.server = Some(*server);
    assert_eq!(scene.server().decline(client_address()), Err(Error::NoSuchAddress));
    assert_eq!(scene.server().decline(elsewhere()), Ok(()));
    assert_eq!(scene.server().follow(elsewhere()), Err(Error::NoSuchAddress));
    assert_eq!(answer_goes_to(&mut scene), client_address());
    // What comes from there once more asks once more.
    let datagram = next_datagram(&mut scene, b"moved");
    let asked = Event::PeerAddressChanged { address: elsewhere(), followed: false };
    assert_eq!(arrive(&mut scene, elsewhere(), &datagram)[0], asked);
    scene.server().decline(elsewhere()).unwrap();
    assert!(scene.server.take().unwrap().freeze().is_ok());
}

#[test]
fn an_address_changes_only_when_the_driver_hears_of_it() {
    for (address_change, followed) in [(AddressChange::Follow, true), (AddressChange::Ask, false)] {
        let mut scene = scene(address_change);
        let now = scene.now;
        for _ in 0..EVENTS_MAX {
            let datagram = next_datagram(&mut scene, b"fills the queue");
            scene.server().handle_datagram(now, client_address(), &datagram);
        }
        let datagram = next_datagram(&mut scene, b"moved");
        let events = arrive(&mut scene, elsewhere(), &datagram);
        assert!(events.iter().all(|event| matches!(event, Event::ApplicationData { .. })));
        assert_eq!(scene.server().follow(elsewhere()), Err(Error::NoSuchAddress));
        assert_eq!(answer_goes_to(&mut scene), client_address());
        let datagram = next_datagram(&mut scene, b"moved");
        let told = Event::PeerAddressChanged { address: elsewhere(), followed };
        assert_eq!(arrive(&mut scene, elsewhere(), &datagram)[0], told);
    }
}

#[test]
fn a_newer_record_from_the_old_address_forgets_the_new_one() {
    let mut scene = scene(AddressChange::Ask);
    let away = next_datagram(&mut scene, b"away");
    arrive(&mut scene, elsewhere(), &away);
    let back = next_datagram(&mut scene, b"back");
    arrive(&mut scene, client_address(), &back);
    assert_eq!(scene.server().follow(elsewhere()), Err(Error::NoSuchAddress));
    assert_eq!(answer_goes_to(&mut scene), client_address());
}

#[test]
fn another_connection_id_and_none_are_not_this_sessions() {
    let mut scene = scene(AddressChange::Follow);
    let datagram = next_datagram(&mut scene, b"x");
    let mut other = datagram.clone();
    // Type, version, epoch, sequence number; then the Connection ID.
    other[11] ^= 1;
    assert_ne!(ConnectionId::of_datagram(&other, 8), Some(scene.connection_id));
    assert_eq!(arrive(&mut scene, client_address(), &other), []);
    let mut without = datagram[..11].to_vec();
    without[0] = 23;
    without.extend_from_slice(&datagram[19..]);
    assert_eq!(arrive(&mut scene, client_address(), &without), []);
    assert_eq!(arrive(&mut scene, client_address(), &datagram).len(), 1);
}
