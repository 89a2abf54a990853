//! wolfSSL as a peer with Connection IDs (RFC 9146), over real sockets: `peers/wolfssl`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use dtls::{AddressChange, CipherSuite, Closed, ConnectionId, Event};

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
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/bin/wolfssl-peer");
    Program::start(Command::new(program).args([role, &port.to_string(), suite]))
}

#[test]
fn wolfssl_as_client_moves_from_port_to_port_in_mid_session() {
    for (suite, name) in SUITES {
        let mut ours = Ours::server_that(|config| {
            config.session.cipher_suites = CipherSuite::ALL.to_vec();
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
            config.session.cipher_suites = CipherSuite::ALL.to_vec();
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
