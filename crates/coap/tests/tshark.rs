//! tshark, which shares no code with ours, reads everything that two machines say to each other, and finds nothing
//! malformed in it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod net;

use std::process::Command;
use std::time::Duration;

use coap::{Code, ConnectionEvent, DatagramConfig, DatagramLimits, ExchangeId, Observe, Request, Response};
use net::{Conditions, Net, PERFECT};

/// A capture of raw IPv4 packets, in the format of libpcap.
fn capture(sent: &[(usize, Vec<u8>)]) -> Vec<u8> {
    const RAW_IPV4: u32 = 228;
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 65_535, RAW_IPV4] {
        file.extend_from_slice(&u32::to_be_bytes(word));
    }
    for (seconds, (side, datagram)) in sent.iter().enumerate() {
        let mut packet = vec![0x45, 0];
        packet.extend_from_slice(&(28 + datagram.len() as u16).to_be_bytes());
        // No fragment, 64 hops, UDP, no checksum.
        packet.extend_from_slice(&[0, 0, 0x40, 0, 64, 17, 0, 0]);
        let (hosts, ports) = ([[127, 0, 0, 1], [127, 0, 0, 2]], [50_000_u16, 5_683]);
        packet.extend_from_slice(&[hosts[*side], hosts[1 - side]].concat());
        packet.extend_from_slice(&[ports[*side].to_be_bytes(), ports[1 - side].to_be_bytes()].concat());
        packet.extend_from_slice(&(8 + datagram.len() as u16).to_be_bytes());
        packet.extend_from_slice(&[0, 0]);
        packet.extend_from_slice(datagram);
        for word in [seconds as u32, 0, packet.len() as u32, packet.len() as u32] {
            file.extend_from_slice(&word.to_be_bytes());
        }
        file.extend_from_slice(&packet);
    }
    file
}

const FIELDS: [&str; 7] = [
    "coap.type",
    "coap.code",
    "coap.opt.block_number",
    "coap.opt.observe",
    "coap.opt.etag",
    "coap.opt.size1",
    "_ws.expert.message",
];

/// What tshark says of each packet that it takes for CoAP.
fn tshark(file: &std::path::Path) -> Vec<[String; FIELDS.len()]> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(file).args(["-Y", "coap", "-T", "fields"]);
    for field in FIELDS {
        command.args(["-e", field]);
    }
    let output = command.output().expect("tshark is installed by `cargo xtask setup`");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = String::from_utf8(output.stdout).unwrap();
    shown.lines().map(|line| line.split('\t').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap()).collect()
}

/// Everything that the machine can say: both directions, blocks, observation, Echo, refusals, losses, Pings.
fn conversation() -> Net {
    let config = DatagramConfig {
        limits: DatagramLimits { peer_observations_max: 1, ..DatagramLimits::default() },
        ..DatagramConfig::default()
    };
    let conditions = Conditions { loss_percent: 10, duplication_percent: 10, ..PERFECT };
    let mut net = Net::new(config, conditions, 5);
    let mut observed: Option<ExchangeId> = None;
    for round in 0..30_usize {
        let now = net.now;
        let payload = vec![b'x'; round * 150];
        net.sides[round % 2].request(Request::post("msgin5g").content_format(50).payload(payload), now).unwrap();
        net.sides[0].request(Request::get("a/b").query(&["c=d"]).accept(50).non_confirmable(), now).unwrap();
        net.sides[1].ping(now).unwrap();
        if round == 1 {
            net.sides[0].request(Request::get("state").observe(Observe::Register), now).unwrap();
        }
        if round % 7 == 0 {
            net.sides[0].request(Request::get("large"), now).unwrap();
            net.sides[1].challenge_address([round as u8; 8]);
        }
        // Only then, so that Echo has its turn.
        if round % 7 == 1 {
            net.sides[1].question_address([round as u8; 8], now).unwrap();
        }
        net.sides[1].question_address_again();
        net.sides[1].receive(&[0x40, 1, 0xee, round as u8, 0xe0, 6, 0xf4], now).unwrap();
        if let Some(exchange) = observed.filter(|exchange| net.sides[1].is_observed(*exchange)) {
            let state = Response::new(Code::CONTENT).with_payload(vec![b'z'; round * 90]);
            net.sides[1].notify(exchange, state, now).unwrap();
        }
        for _ in 0..200 {
            net.step(now + Duration::from_secs(20));
            for side in 0..2 {
                while let Some(event) = net.events[side].pop_front() {
                    let ConnectionEvent::Request { request } = event else { continue };
                    let response = Response::new(Code::CONTENT).with_observe().with_max_age(5);
                    let now = net.now;
                    let response = response.with_payload(vec![b'y'; round * 170]);
                    net.sides[side].respond(request.exchange, response, now).unwrap();
                    observed = observed.or(request.observe.map(|_| request.exchange));
                }
            }
        }
    }
    net
}

#[test]
fn tshark_reads_all_that_is_said_and_finds_nothing_malformed() {
    let net = conversation();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("coap.pcap");
    std::fs::write(&file, capture(&net.sent)).unwrap();
    let packets = tshark(&file);
    assert_eq!(packets.len(), net.sent.len());
    for packet in &packets {
        let [.., complaints] = packet;
        // Wireshark 4.0 does not know the options of RFC 9175, Echo and Request-Tag; the rest is what it should be.
        let known = ["", "Invalid Option Number 252", "Invalid Option Number 292", "Retransmitted"];
        assert!(complaints.split(',').all(|text| known.contains(&text)), "{packet:?}");
    }
    // What is in it is what was to be shown.
    let shown = |what: &str, filter: &dyn Fn(&[String; FIELDS.len()]) -> bool| {
        assert!(packets.iter().any(filter), "no {what}");
    };
    let is = |kind: &'static str, code: &'static str| {
        move |[is, has, ..]: &[String; FIELDS.len()]| is == kind && (code.is_empty() || has == code)
    };
    shown("confirmable POST", &is("0", "2"));
    shown("message without acknowledgement", &is("1", ""));
    shown("Ping", &is("0", "0"));
    shown("Reset", &is("3", "0"));
    shown("2.31", &is("2", "95"));
    shown("4.01", &is("2", "129"));
    shown("4.02", &is("2", "130"));
    shown("third block", &|packet| packet[2] == "2");
    shown("second notification", &|packet| packet[3] == "2");
    shown("ETag", &|packet| !packet[4].is_empty());
    shown("Size1", &|packet| !packet[5].is_empty());
}
