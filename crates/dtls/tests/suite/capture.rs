//! What is on the wire, seen by tshark with the key log: every suite, with and without Connection ID.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::{Arc, Mutex};

use dtls::{CipherSuite, Connection, ConnectionId, Event, Incoming, KeyLog, Listener};

use crate::scene::{client_address, client_config, key, server_config};

const CLIENT: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 40_000);
const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 2), 5_684);
/// LINKTYPE_RAW: packets start with the IP header.
const LINK_TYPE_RAW: u32 = 101;

/// CON GET coap://.../seen, and its ACK 2.05 with a payload.
const COAP_GET: &[u8] = b"\x40\x01\x12\x34\xb4seen";
const COAP_CONTENT: &[u8] = b"\x60\x45\x12\x34\xff21.5";

/// A capture in the format of libpcap.
struct Capture(Vec<u8>);

impl Capture {
    fn new() -> Self {
        let mut out = Vec::new();
        for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, LINK_TYPE_RAW] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        Self(out)
    }

    fn add(&mut self, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) {
        let udp_octets = 8 + payload.len() as u16;
        let mut packet = vec![0x45, 0];
        packet.extend_from_slice(&(20 + udp_octets).to_be_bytes());
        packet.extend_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0]);
        packet.extend_from_slice(&from.0.octets());
        packet.extend_from_slice(&to.0.octets());
        for half in [from.1, to.1, udp_octets, 0] {
            packet.extend_from_slice(&half.to_be_bytes());
        }
        packet.extend_from_slice(payload);
        let octets = packet.len() as u32;
        for word in [0, 0, octets, octets] {
            self.0.extend_from_slice(&word.to_le_bytes());
        }
        self.0.extend_from_slice(&packet);
    }
}

/// Handshake and one message each way; returns capture and key log.
fn record(suite: CipherSuite, with_ids: bool) -> (Vec<u8>, String) {
    let (mut client, mut server) = (client_config(&[suite]), server_config(&[suite]));
    let lines = Arc::new(Mutex::new(String::new()));
    let log = Arc::clone(&lines);
    server.session.key_log = Some(KeyLog::new(move |line| {
        log.lock().unwrap().push_str(line);
        log.lock().unwrap().push('\n');
    }));
    client.connection_id = with_ids.then(|| ConnectionId::new(b"\x01\x02\x03").unwrap());
    let now = std::time::Instant::now();
    let to = "192.0.2.2:5684".parse().unwrap();
    let listener = Listener::new(Arc::new(server), now).unwrap();
    let mut client = Connection::client(Arc::new(client), now, to).unwrap();
    let mut server = None;
    let mut capture = Capture::new();
    let (mut sent, mut received) = (false, 0);
    while received < 2 {
        received += take_events(&mut client, now);
        while let Some(transmit) = client.poll_transmit() {
            capture.add(CLIENT, SERVER, &transmit.payload);
            match &mut server {
                Some(server) => {
                    Connection::handle_datagram(server, now, client_address(), &transmit.payload);
                }
                None => match listener.handle_datagram(now, client_address(), &transmit.payload) {
                    Incoming::Reply(reply) => {
                        capture.add(SERVER, CLIENT, &reply.payload);
                        client.handle_datagram(now, to, &reply.payload);
                    }
                    Incoming::Hello(proven) => {
                        let id = ConnectionId::new(&[0xc0, 0xff, 0xee, 0, 1]).unwrap();
                        server = Some(proven.accept(now, id).unwrap());
                    }
                    _ => panic!("refused"),
                },
            }
        }
        let Some(server) = &mut server else { continue };
        while let Some(transmit) = server.poll_transmit() {
            capture.add(SERVER, CLIENT, &transmit.payload);
            client.handle_datagram(now, to, &transmit.payload);
        }
        received += take_events(server, now);
        if client.is_established() && server.is_established() && !sent {
            sent = true;
            client.send(now, COAP_GET).unwrap();
            server.send(now, COAP_CONTENT).unwrap();
        }
    }
    let lines = lines.lock().unwrap().clone();
    (capture.0, lines)
}

/// Gives keys; returns how many messages came.
fn take_events(side: &mut Connection, now: std::time::Instant) -> usize {
    let mut received = 0;
    while let Some(event) = side.poll_event() {
        match event {
            Event::KeyNeeded(_) => side.provide_key(now, &key()).unwrap(),
            Event::ApplicationData { .. } => received += 1,
            _ => {}
        }
    }
    received
}

/// tshark 4.0 does not know the records of DTLS 1.3 yet, so it sees the hellos only.
#[test]
fn tshark_reads_the_hellos_of_dtls_1_3_without_complaint() {
    let folder = tempfile::tempdir().unwrap();
    for suite in CipherSuite::DTLS13 {
        for with_ids in [false, true] {
            let (capture, key_log) = record(suite, with_ids);
            let labels: Vec<_> = key_log.lines().filter_map(|line| line.split(' ').next()).collect();
            let expected = [
                "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
                "SERVER_HANDSHAKE_TRAFFIC_SECRET",
                "CLIENT_TRAFFIC_SECRET_0",
                "SERVER_TRAFFIC_SECRET_0",
            ];
            assert_eq!(labels, expected);
            let capture_file = folder.path().join("pcap");
            std::fs::write(&capture_file, capture).unwrap();
            let output = Command::new("tshark")
                .arg("-r")
                .arg(&capture_file)
                .args(["-d", "udp.port==5684,dtls", "-V"])
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            for complaint in ["Malformed", "malformed", "Expert Info (Error"] {
                assert!(!text.contains(complaint), "{suite:?} {with_ids}: {text}");
            }
            let extensions = ["supported_versions", "cookie", "key_share", "psk_key_exchange_modes", "pre_shared_key"];
            for extension in extensions {
                assert!(text.contains(&format!("Extension: {extension}")), "{extension}: {text}");
            }
            assert_eq!(text.contains("Extension: connection_id"), with_ids, "{text}");
        }
    }
}

#[test]
fn tshark_reads_every_suite_without_complaint() {
    let folder = tempfile::tempdir().unwrap();
    for suite in CipherSuite::DTLS12 {
        for with_ids in [false, true] {
            let (capture, key_log) = record(suite, with_ids);
            let (capture_file, key_file) = (folder.path().join("pcap"), folder.path().join("keys"));
            std::fs::write(&capture_file, capture).unwrap();
            std::fs::write(&key_file, key_log).unwrap();
            let output = Command::new("tshark")
                .arg("-r")
                .arg(&capture_file)
                .args(["-d", "udp.port==5684,dtls", "-o", &format!("tls.keylog_file:{}", key_file.display())])
                .arg("-V")
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            for complaint in ["Malformed", "malformed", "Expert Info (Error"] {
                assert!(!text.contains(complaint), "{suite:?} {with_ids}: {text}");
            }
            // tshark 4.0 does not decrypt ECDHE_PSK with any of these AEADs; of those it sees the form only.
            assert_eq!(text.contains("Uri-Path: seen"), !suite.is_forward_secret(), "{suite:?} {with_ids}: {text}");
            assert_eq!(text.contains("Code: 2.05 Content"), !suite.is_forward_secret());
            assert_eq!(text.contains("Connection ID"), with_ids);
        }
    }
}
