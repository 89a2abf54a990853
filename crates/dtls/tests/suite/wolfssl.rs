//! wolfSSL as a peer with Connection IDs (RFC 9146), over real sockets: `peers/wolfssl`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use dtls::{AddressChange, CipherSuite, Closed, ConnectionId, Error, Event, KeyRefusal};

use crate::interop::{Ours, Program, free_port, loopback};

const SUITES: [(CipherSuite, &str); 5] = [
    (CipherSuite::EcdhePskChacha20Poly1305, "ECDHE-PSK-CHACHA20-POLY1305"),
    (CipherSuite::EcdhePskAes128Gcm, "ECDHE-PSK-AES128-GCM-SHA256"),
    (CipherSuite::PskAes128Gcm, "PSK-AES128-GCM-SHA256"),
    (CipherSuite::PskAes128Ccm, "PSK-AES128-CCM"),
    (CipherSuite::PskAes128Ccm8, "PSK-AES128-CCM-8"),
];

/// `cargo xtask setup` builds it.
fn peer(role: &str, port: u16, suite: &str) -> Program {
    peer_with(role, port, suite, &[])
}

fn peer_with(role: &str, port: u16, suite: &str, options: &[&str]) -> Program {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/bin/wolfssl-peer");
    Program::start(Command::new(program).args([role, &port.to_string(), suite]).args(options))
}

#[test]
fn wolfssl_as_client_moves_from_port_to_port_in_mid_session() {
    for (suite, name) in SUITES {
        let mut ours = Ours::server_that(|config| {
            config.session.cipher_suites = CipherSuite::DTLS12.to_vec();
            config.session.address_change = AddressChange::Follow;
        });
        let peer = peer("client", ours.port(), name);
        ours.until("handshake", Ours::is_established);
        assert_eq!(ours.suite(), Some(suite));
        assert_eq!(ours.peer_connection_id(), Some(ConnectionId::new(b"CLI").unwrap()));
        for round in 0..4 {
            let payload = format!("round {round}");
            ours.until(&payload, |ours| ours.has_received(&payload));
            ours.send(payload.as_bytes());
        }
        ours.until("the last answer at the peer", |_| peer.printed("answered round 3"));
        ours.until("close_notify", |ours| ours.closed() == Some(Closed::Peer));
        let moves = ours.events.iter().filter(|event| matches!(event, Event::PeerAddressChanged { .. })).count();
        assert!(moves >= 3, "{moves} moves");
    }
}

#[test]
fn wolfssl_as_server_reads_and_writes_connection_ids() {
    for (suite, name) in SUITES {
        let port = free_port();
        let peer = peer("server", port, name);
        let mut ours = Ours::client_that(loopback(port), |config| {
            config.session.cipher_suites = CipherSuite::DTLS12.to_vec();
            config.session.retransmit_first = Duration::from_millis(200);
            config.connection_id = Some(ConnectionId::new(b"ours").unwrap());
        });
        ours.until("handshake", Ours::is_established);
        assert_eq!(ours.suite(), Some(suite));
        assert_eq!(ours.peer_connection_id(), Some(ConnectionId::new(b"SRV").unwrap()));
        ours.send(b"there and back");
        ours.until("the echo", |ours| ours.has_received("there and back"));
        ours.until("Connection IDs at the peer", |_| peer.printed("Connection IDs 4 3"));
        ours.close();
        ours.until("the end at the peer", |_| peer.printed("done"));
    }
}

const SUITES_13: [(CipherSuite, &str); 4] = [
    (CipherSuite::Chacha20Poly1305, "TLS13-CHACHA20-POLY1305-SHA256"),
    (CipherSuite::Aes128Gcm, "TLS13-AES128-GCM-SHA256"),
    (CipherSuite::Aes128Ccm, "TLS13-AES128-CCM-SHA256"),
    (CipherSuite::Aes128Ccm8, "TLS13-AES128-CCM-8-SHA256"),
];

fn moves(ours: &Ours) -> usize {
    ours.events.iter().filter(|event| matches!(event, Event::PeerAddressChanged { .. })).count()
}

/// With Connection IDs it moves from port to port; it updates its key in between, and so do we.
#[test]
fn wolfssl_as_client_of_dtls_1_3_moves_and_updates_its_key() {
    for (suite, name) in SUITES_13 {
        for with_ids in [true, false] {
            let mut ours = Ours::server_that(|config| {
                config.session.cipher_suites = CipherSuite::ALL.to_vec();
                config.session.address_change = AddressChange::Follow;
            });
            let options: &[&str] = if with_ids { &["update"] } else { &["update", "no-cid"] };
            let peer = peer_with("client", ours.port(), name, options);
            ours.until("handshake", Ours::is_established);
            assert_eq!(ours.suite(), Some(suite));
            let id = if with_ids { ConnectionId::new(b"CLI").unwrap() } else { ConnectionId::EMPTY };
            assert_eq!(ours.peer_connection_id(), Some(id));
            for round in 0..4 {
                let payload = format!("round {round}");
                ours.until(&payload, |ours| ours.has_received(&payload));
                ours.send(payload.as_bytes());
            }
            ours.until("the last answer at the peer", |_| peer.printed("answered round 3"));
            assert!(peer.printed("updated"));
            ours.until("close_notify", |ours| ours.closed() == Some(Closed::Peer));
            assert_eq!(moves(&ours) >= 3, with_ids, "{} moves", moves(&ours));
        }
    }
}

/// It takes an ACK in the application's epoch that names the first record of its Finished, when it has sent it again.
#[test]
fn wolfssl_as_client_of_dtls_1_3_takes_an_ack_of_its_first_finished_late() {
    for (suite, name) in SUITES_13 {
        let mut ours = Ours::server_that(|config| {
            config.session.cipher_suites = vec![suite];
            config.session.address_change = AddressChange::Follow;
        });
        ours.delays_first_ack = true;
        let peer = peer("client", ours.port(), name);
        ours.until("handshake", Ours::is_established);
        for round in 0..4 {
            let payload = format!("round {round}");
            ours.until(&payload, |ours| ours.has_received(&payload));
            assert!(!ours.delays_first_ack, "it says nothing before");
            ours.send(payload.as_bytes());
        }
        ours.until("the last answer at the peer", |_| peer.printed("answered round 3"));
        ours.until("close_notify", |ours| ours.closed() == Some(Closed::Peer));
    }
}

#[test]
fn wolfssl_as_server_of_dtls_1_3_follows_our_key_updates() {
    for (suite, name) in SUITES_13 {
        for with_ids in [true, false] {
            let port = free_port();
            let peer = peer_with("server", port, name, if with_ids { &[] } else { &["no-cid"] });
            let mut ours = Ours::client_that(loopback(port), |config| {
                config.session.cipher_suites = CipherSuite::ALL.to_vec();
                config.session.retransmit_first = Duration::from_millis(200);
                config.connection_id = with_ids.then(|| ConnectionId::new(b"ours").unwrap());
            });
            ours.until("handshake", Ours::is_established);
            assert_eq!(ours.suite(), Some(suite));
            for round in 0..4 {
                let payload = format!("round {round}");
                ours.send(payload.as_bytes());
                ours.until(&payload, |ours| ours.has_received(&payload));
                ours.update_keys(round % 2 == 0);
            }
            ours.send(b"the last one");
            ours.until("the echo", |ours| ours.has_received("the last one"));
            let ids = if with_ids { "Connection IDs 4 3" } else { "Connection IDs 0 0" };
            ours.until("Connection IDs at the peer", |_| peer.printed(ids));
            ours.close();
            ours.until("the end at the peer", |_| peer.printed("done"));
        }
    }
}

#[test]
fn wolfssl_as_client_of_dtls_1_3_without_a_known_identity_fails() {
    let mut ours = Ours::server_that(|config| config.session.cipher_suites = CipherSuite::DTLS13.to_vec());
    ours.refuse = true;
    let peer = peer("client", ours.port(), "TLS13-AES128-GCM-SHA256");
    ours.until("the end at the peer", |_| peer.printed("failed: handshake"));
    assert_eq!(ours.closed(), Some(Closed::Failed(Error::KeyRefused(KeyRefusal::Unknown))));
}
