//! aiocoap over tinydtls as a client, over real sockets: DTLS 1.2 with PSK and CCM_8 or CCM. It takes
//! identities of 32 octets and keys of 16 at most, which is enough here and too little for an A-KID and K_AF.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use dtls::limits::PSK_OCTETS_MIN;
use dtls::{CipherSuite, Closed, Event, PresharedKey};

use crate::interop::{NAME, Ours, Program};

const KEY: [u8; PSK_OCTETS_MIN] = [0xa5; PSK_OCTETS_MIN];

/// `cargo xtask setup` installs what it runs on.
fn peer(port: u16, key: &[u8]) -> Program {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(folder.join("../../target/tools/bin/python"));
    command.arg("-B").arg(folder.join("tests/foreign/tinydtls.py"));
    Program::start(command.args([&port.to_string(), NAME, &hex::encode(key)]))
}

fn server(suites: &[CipherSuite]) -> Ours {
    let mut ours = Ours::server_that(|config| {
        config.session.cipher_suites = suites.to_vec();
        config.identity_hint = Some(b"3GPP-AKMA".to_vec());
        config.session.retransmit_first = Duration::from_millis(500);
        config.session.handshake_timeout = Duration::from_secs(15);
    });
    ours.key = PresharedKey::new(&KEY).unwrap();
    ours
}

fn payloads(ours: &Ours) -> impl Iterator<Item = &Vec<u8>> {
    ours.events.iter().filter_map(|event| match event {
        Event::ApplicationData { payload, .. } => Some(payload),
        _ => None,
    })
}

#[test]
fn aiocoap_over_tinydtls_is_answered_over_each_suite_it_knows() {
    for suite in [CipherSuite::PskAes128Ccm8, CipherSuite::PskAes128Ccm] {
        let mut ours = server(&[suite]);
        let peer = peer(ours.port(), &KEY);
        ours.until("handshake", Ours::is_established);
        assert_eq!(ours.suite(), Some(suite));
        ours.until("a request", |ours| payloads(ours).next().is_some());
        // RFC 7252 3: confirmable, POST, to "readings".
        let request = payloads(&ours).next().unwrap().clone();
        assert_eq!((request[0] & 0xf0, request[1]), (0x40, 0x02));
        assert!(request.windows(8).any(|octets| octets == b"readings"));
        assert!(request.ends_with(b"\xfffrom aiocoap"));
        // Acknowledged with 2.04, its Message ID and token.
        let token_end = 4 + usize::from(request[0] & 0x0f);
        let mut answer = vec![0x60 | request[0] & 0x0f, 0x44];
        answer.extend_from_slice(&request[2..token_end]);
        answer.extend_from_slice(b"\xffto aiocoap");
        ours.send(&answer);
        ours.until("the answer at the peer", |_| peer.printed("answered 2.04 to aiocoap"));
        ours.until("close_notify", |ours| ours.closed() == Some(Closed::Peer));
    }
}

#[test]
fn aiocoap_over_tinydtls_with_another_key_is_refused() {
    let mut ours = server(&CipherSuite::ALL);
    let peer = peer(ours.port(), &[0x11; PSK_OCTETS_MIN]);
    ours.until("the end of the handshake", |ours| ours.closed().is_some());
    assert!(matches!(ours.closed(), Some(Closed::Failed(_))), "{:?}", ours.events);
    assert!(ours.suite().is_none() && payloads(&ours).next().is_none());
    assert!(!peer.printed("answered"));
}

#[test]
fn aiocoap_over_tinydtls_is_told_that_its_identity_is_unknown() {
    let mut ours = server(&CipherSuite::ALL);
    ours.refuse = true;
    let peer = peer(ours.port(), &KEY);
    // The number of unknown_psk_identity.
    ours.until("the alert at the peer", |_| peer.printed("failed NetworkError FatalDTLSError 115"));
    assert!(ours.suite().is_none() && payloads(&ours).next().is_none());
}
