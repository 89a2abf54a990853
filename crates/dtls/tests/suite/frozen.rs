//! Frozen and sealed sessions: small, and the same session after as before.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use dtls::limits::{
    FINISHED_HELD_INTERVALS, FROZEN_OCTETS_MAX, RETRANSMIT_FIRST, SEALED_OCTETS_MAX, SEALED_RECORDS_MAX,
};
use dtls::{CipherSuite, Connection, ConnectionId, Error, Frozen, ProtocolVersion, SealingKey};
use proptest::prelude::*;

use crate::scene::{Scene, Side, Weather, client_config, server_config};

const SEALING: [u8; 32] = [3; 32];

/// An established pair, the server's last flight acknowledged.
fn scene(suite: CipherSuite, id_octets: usize) -> Scene {
    let mut client = client_config(&[suite]);
    client.connection_id = Some(ConnectionId::random(id_octets).unwrap());
    let mut scene = Scene::new(client, server_config(&[suite]));
    scene.connection_id = ConnectionId::random(id_octets).unwrap();
    scene.establish();
    exchange(&mut scene, 0);
    // A server of DTLS 1.3 acknowledges the client's Finished for a while.
    scene.run(RETRANSMIT_FIRST * FINISHED_HELD_INTERVALS);
    scene
}

/// One message each way arrives.
fn exchange(scene: &mut Scene, number: u32) {
    let now = scene.now;
    scene.client.send(now, &number.to_be_bytes()).unwrap();
    scene.server().send(now, &number.to_le_bytes()).unwrap();
    scene.run(Duration::from_secs(1));
    assert_eq!(scene.received(Side::Server), [number.to_be_bytes()]);
    assert_eq!(scene.received(Side::Client), [number.to_le_bytes()]);
}

fn freeze_server(scene: &mut Scene) -> Frozen {
    scene.server.take().unwrap().freeze().map_err(|(_, error)| error).unwrap()
}

fn thaw_server(scene: &mut Scene, frozen: Frozen) {
    scene.server = Some(frozen.thaw_server(Arc::new(server_config(&CipherSuite::ALL)), scene.now).unwrap());
}

/// What no two records of a session may have in common: of DTLS 1.2 the explicit sequence number; of DTLS 1.3, where it is
/// hidden, the whole record, which repeats when its number does, since all carry the same.
fn sequence(datagram: &[u8]) -> Vec<u8> {
    if datagram[0] & 0xe0 == 0x20 { datagram.to_vec() } else { datagram[5..11].to_vec() }
}

fn sequence_number(datagram: &[u8]) -> u64 {
    datagram[5..11].iter().fold(0, |number, octet| number << 8 | u64::from(*octet))
}

#[test]
fn a_session_of_each_suite_goes_on_after_it_was_frozen() {
    for suite in CipherSuite::ALL {
        for id_octets in [0, 8, 32] {
            let mut scene = scene(suite, id_octets);
            let frozen = freeze_server(&mut scene);
            assert!(frozen.len() <= FROZEN_OCTETS_MAX);
            assert_eq!(frozen.connection_id(), scene.connection_id);
            assert_eq!(frozen.peer_address(), Some(scene.source));
            thaw_server(&mut scene, frozen);
            assert!(!scene.server().is_restored());
            assert_eq!(scene.server().cipher_suite(), Some(suite));
            exchange(&mut scene, 1);
            // The client's side too.
            let address = scene.client.peer_address();
            let other = Connection::client(Arc::new(client_config(&[suite])), scene.now, address).unwrap();
            let client = std::mem::replace(&mut scene.client, other);
            let frozen = client.freeze().map_err(|(_, error)| error).unwrap();
            scene.client = frozen.thaw_client(Arc::new(client_config(&[suite])), scene.now).unwrap();
            exchange(&mut scene, 2);
        }
    }
}

#[test]
fn a_frozen_session_is_as_small_as_documented() {
    let sizes = [
        (CipherSuite::EcdhePskAes128Gcm, 73),
        (CipherSuite::EcdhePskChacha20Poly1305, 121),
        (CipherSuite::Aes128Gcm, 103),
        (CipherSuite::Chacha20Poly1305, 103),
    ];
    for (suite, octets) in sizes {
        let mut scene = scene(suite, 8);
        assert_eq!(freeze_server(&mut scene).len(), octets);
    }
}

#[test]
fn what_came_before_is_not_taken_again_after() {
    let mut scene = scene(CipherSuite::EcdhePskAes128Gcm, 8);
    let now = scene.now;
    scene.client.send(now, b"once").unwrap();
    let datagram = scene.client.poll_transmit().unwrap();
    scene.post(Side::Server, datagram.clone());
    scene.run(Duration::from_secs(1));
    assert_eq!(scene.received(Side::Server), [b"once"]);
    let frozen = freeze_server(&mut scene);
    thaw_server(&mut scene, frozen);
    scene.post(Side::Server, datagram);
    scene.run(Duration::from_secs(1));
    assert!(scene.received(Side::Server).is_empty());
}

#[test]
fn only_an_idle_session_is_frozen() {
    let mut scene = Scene::simple(&CipherSuite::DTLS12);
    // In the handshake.
    let other = Scene::simple(&CipherSuite::DTLS12).client;
    let (client, error) = std::mem::replace(&mut scene.client, other).freeze().unwrap_err();
    assert_eq!(error, Error::NotIdle);
    scene.client = *client;
    scene.establish();
    // The last flight is held.
    let (server, error) = scene.server.take().unwrap().freeze().unwrap_err();
    assert_eq!(error, Error::NotIdle);
    scene.server = Some(*server);
    exchange(&mut scene, 1);
    // A datagram waits.
    let now = scene.now;
    scene.server().send(now, b"waiting").unwrap();
    let (mut server, error) = scene.server.take().unwrap().freeze().unwrap_err();
    assert_eq!(error, Error::NotIdle);
    assert!(server.poll_transmit().is_some());
    assert!(server.freeze().is_ok());
}

#[test]
fn a_frozen_server_is_no_client() {
    let mut scene = scene(CipherSuite::PskAes128Ccm8, 8);
    let frozen = freeze_server(&mut scene);
    let error = frozen.thaw_client(Arc::new(client_config(&CipherSuite::ALL)), scene.now).unwrap_err();
    assert_eq!(error, Error::FrozenForm);
}

#[test]
fn a_sealed_session_survives_starts_without_repeating_a_number() {
    for suite in CipherSuite::ALL {
        let mut scene = scene(suite, 32);
        let mut frozen = freeze_server(&mut scene);
        let sealed = SealingKey::new(&SEALING, 1).unwrap().seal(&mut frozen).unwrap();
        assert!(sealed.octets().len() <= SEALED_OCTETS_MAX);
        frozen.stored(&sealed).unwrap();
        let mut used = HashSet::new();
        // The live session goes on after it was sealed, then the server is killed; and again, from the same form.
        thaw_server(&mut scene, frozen);
        for start in 2..5 {
            for _ in 0..3 {
                let now = scene.now;
                scene.server().send(now, b"data").unwrap();
                let datagram = scene.server().poll_transmit().unwrap();
                assert!(used.insert(sequence(&datagram.payload)));
                scene.post(Side::Client, datagram);
            }
            scene.run(Duration::from_secs(1));
            assert_eq!(scene.received(Side::Client).len(), 3);
            let restored = SealingKey::new(&SEALING, start).unwrap().open(sealed.octets()).unwrap();
            thaw_server(&mut scene, restored);
            assert!(scene.server().is_restored());
        }
        // What the client sends still arrives.
        let now = scene.now;
        scene.client.send(now, b"still here").unwrap();
        scene.run(Duration::from_secs(1));
        assert_eq!(scene.received(Side::Server), [b"still here"]);
    }
}

#[test]
fn a_sealed_session_sends_no_further_than_its_copy_would_start() {
    let mut scene = scene(CipherSuite::PskAes128Ccm8, 8);
    let mut frozen = freeze_server(&mut scene);
    let key = SealingKey::new(&SEALING, 1).unwrap();
    let sealed = key.seal(&mut frozen).unwrap();
    frozen.stored(&sealed).unwrap();
    thaw_server(&mut scene, frozen);
    let now = scene.now;
    let mut last = 0;
    for _ in 0..SEALED_RECORDS_MAX {
        scene.server().send(now, b"").unwrap();
        last = sequence_number(&scene.server().poll_transmit().unwrap().payload);
    }
    // Sealed anew it could have gone on; as it is, it ends.
    assert_eq!(scene.server().send(now, b""), Err(Error::WriteKeyExhausted));
    assert!(scene.server().is_closed());
    assert!(last >= SEALED_RECORDS_MAX);
}

#[test]
fn a_form_of_this_start_or_changed_or_of_another_key_is_refused() {
    let mut scene = scene(CipherSuite::EcdhePskChacha20Poly1305, 8);
    let mut frozen = freeze_server(&mut scene);
    let key = SealingKey::new(&SEALING, 7).unwrap();
    let sealed = key.seal(&mut frozen).unwrap().octets().to_vec();
    assert_eq!(key.open(&sealed).unwrap_err(), Error::SealedNow);
    assert_eq!(SealingKey::new(&SEALING, 6).unwrap().open(&sealed).unwrap_err(), Error::SealedNow);
    let next = SealingKey::new(&SEALING, 8).unwrap();
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert_eq!(next.open(&changed).unwrap_err(), Error::FrozenForm);
        assert_eq!(next.open(&sealed[..at]).unwrap_err(), Error::FrozenForm);
    }
    assert_eq!(SealingKey::new(&[4; 32], 8).unwrap().open(&sealed).unwrap_err(), Error::FrozenForm);
    assert!(next.open(&sealed).is_ok());
}

#[test]
fn a_form_opens_once_in_each_start() {
    let mut scene = scene(CipherSuite::EcdhePskAes128Gcm, 8);
    let mut frozen = freeze_server(&mut scene);
    let sealed = SealingKey::new(&SEALING, 1).unwrap().seal(&mut frozen).unwrap();
    for start in 2..4 {
        let key = SealingKey::new(&SEALING, start).unwrap();
        assert!(key.open(sealed.octets()).is_ok());
        assert_eq!(key.open(sealed.octets()).unwrap_err(), Error::OpenedBefore);
    }
}

#[test]
fn a_session_is_not_thawed_with_a_configuration_that_cannot_work() {
    let mut scene = scene(CipherSuite::EcdhePskAes128Gcm, 8);
    let frozen = freeze_server(&mut scene);
    let mut config = server_config(&CipherSuite::ALL);
    config.session.datagram_octets_max = 0;
    assert!(matches!(frozen.thaw_server(Arc::new(config), scene.now), Err(Error::Config(_))));
}

/// One moment: what each side sends, whose keys are updated, who is frozen after it.
#[derive(Clone, Copy, Debug)]
struct Moment {
    sends: (bool, bool),
    updates: Option<Side>,
    freezes: (bool, bool),
}

fn moment() -> impl Strategy<Value = Moment> {
    let updates = prop_oneof![5 => Just(None), 1 => Just(Some(Side::Client)), 1 => Just(Some(Side::Server))];
    (any::<(bool, bool)>(), updates, any::<(bool, bool)>()).prop_map(|(sends, updates, freezes)| Moment {
        sends,
        updates,
        freezes,
    })
}

/// Freezes and thaws one side, or says why not.
fn refreeze(scene: &mut Scene, side: Side) -> Result<(), Error> {
    if side == Side::Server {
        return match scene.server.take().unwrap().freeze() {
            Ok(frozen) => {
                thaw_server(scene, frozen);
                Ok(())
            }
            Err((server, error)) => {
                scene.server = Some(*server);
                Err(error)
            }
        };
    }
    let config = Arc::new(client_config(&CipherSuite::ALL));
    let other = Connection::client(Arc::clone(&config), scene.now, scene.client.peer_address()).unwrap();
    match std::mem::replace(&mut scene.client, other).freeze() {
        Ok(frozen) => {
            scene.client = frozen.thaw_client(config, scene.now).unwrap();
            Ok(())
        }
        Err((client, error)) => {
            scene.client = *client;
            Err(error)
        }
    }
}

/// What was sent, and what came, to server and client.
struct Played {
    scene: Scene,
    sent: [Vec<Vec<u8>>; 2],
    received: [Vec<Vec<u8>>; 2],
}

/// Plays the moments in this weather.
fn play(suite: CipherSuite, weather: Weather, seed: u64, moments: &[Moment], freezes: bool) -> Played {
    let mut scene = scene(suite, 6);
    scene.random.0 = seed;
    scene.weather = weather;
    let mut sent = [Vec::new(), Vec::new()];
    let mut updated = false;
    for (number, moment) in (1u32..).zip(moments) {
        let (now, payload) = (scene.now, number.to_be_bytes());
        if moment.sends.0 {
            scene.client.send(now, &payload).unwrap();
            sent[0].push(payload.to_vec());
        }
        if moment.sends.1 {
            scene.server().send(now, &payload).unwrap();
            sent[1].push(payload.to_vec());
        }
        if let Some(side) = moment.updates.filter(|_| suite.version() == ProtocolVersion::Dtls13) {
            // What two updates overtake is lost.
            scene.run(Duration::from_millis(40));
            let now = scene.now;
            let side = if side == Side::Client { &mut scene.client } else { scene.server.as_mut().unwrap() };
            assert!(matches!(side.update_keys(now, false), Ok(()) | Err(Error::UpdatePending)));
            updated = true;
        }
        scene.run(Duration::from_millis(10));
        for (side, chosen) in [(Side::Server, moment.freezes.0), (Side::Client, moment.freezes.1)] {
            if freezes && chosen {
                let frozen = refreeze(&mut scene, side);
                // Nothing but an update that is under way is in the way.
                assert!(frozen == Ok(()) || updated && frozen == Err(Error::NotIdle), "{side:?}: {frozen:?}");
            }
        }
    }
    scene.run(Duration::from_secs(400));
    let received = [scene.received(Side::Server), scene.received(Side::Client)];
    Played { scene, sent, received }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Frozen and thawed at any moment, in any weather, either side takes and sends what it does without.
    #[test]
    fn freezing_at_any_moment_changes_nothing(
        suite in 0usize..10,
        moments in prop::collection::vec(moment(), 1..40),
        loss in prop_oneof![Just(0u64), 1u64..=20],
        corruption in prop_oneof![Just(0u64), 1u64..=5],
        seed: u64,
    ) {
        let suite = CipherSuite::ALL[suite];
        let weather =
            Weather { loss, corruption, duplication: 30, delay_milliseconds_max: 40, ..Weather::default() };
        let without = play(suite, weather, seed, &moments, false);
        let mut with = play(suite, weather, seed, &moments, true);
        prop_assert_eq!(&with.received, &without.received);
        for (sent, received) in with.sent.iter().zip(&mut with.received) {
            received.sort();
            if (loss, corruption) == (0, 0) {
                prop_assert_eq!(sent, &*received);
            }
            let once: HashSet<_> = received.iter().collect();
            prop_assert!(once.len() == received.len() && received.iter().all(|payload| sent.contains(payload)));
        }
        // At rest both are frozen, whatever came before, and go on.
        with.scene.weather = Weather::default();
        for number in 0..2 {
            prop_assert_eq!(refreeze(&mut with.scene, Side::Server), Ok(()));
            prop_assert_eq!(refreeze(&mut with.scene, Side::Client), Ok(()));
            exchange(&mut with.scene, number);
        }
    }
}

#[test]
fn what_is_attached_to_a_sealed_session_comes_back_with_it_and_is_neither_read_nor_changed() {
    let mut scene = scene(CipherSuite::PskAes128Ccm8, 8);
    let mut frozen = freeze_server(&mut scene);
    let (seals, opens) = (SealingKey::new(&SEALING, 1).unwrap(), SealingKey::new(&SEALING, 2).unwrap());
    let attached = b"whose session it is".as_slice();
    let plain = seals.seal(&mut frozen).unwrap().octets().to_vec();
    let sealed = seals.seal_with(&mut frozen, attached).unwrap().octets().to_vec();
    assert_eq!(sealed.len(), plain.len() + attached.len());
    assert!(!sealed.windows(5).any(|window| attached.windows(5).any(|other| other == window)));
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert_eq!(opens.open_with(&changed).unwrap_err(), Error::FrozenForm);
    }
    assert_eq!(opens.open_with(&sealed).unwrap().1.as_slice(), attached);
    let too_much = vec![0; dtls::limits::SEALED_ATTACHED_OCTETS_MAX + 1];
    assert_eq!(seals.seal_with(&mut frozen, &too_much).unwrap_err(), Error::FrozenForm);
    assert!(seals.seal_with(&mut frozen, &too_much[1..]).is_ok());
}
