//! Interoperation with libcoap over UDP, a real peer: its client and its server against our machine on loopback sockets.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod udp;

use std::time::{Duration, Instant};

use coap::{
    Code, ConnectionEvent, DatagramConfig, DatagramConnection, DatagramLimits, ExchangeId, Observe, Request, Response,
};
use udp::{Killed, Udp, free_port, printed, start};

/// Two builds, one without TLS and one with; the others of the same Debian package do too.
const CLIENTS: [&[&str]; 2] =
    [&["coap-client-notls", "coap-client"], &["coap-client-openssl", "coap-client-gnutls", "coap-client"]];

const SERVERS: &[&str] = &["coap-server-notls", "coap-server", "coap-server-openssl", "coap-server-gnutls"];

fn config() -> DatagramConfig {
    DatagramConfig {
        limits: DatagramLimits { peer_observations_max: 1, ..DatagramLimits::default() },
        ..DatagramConfig::default()
    }
}

/// Serves one run of the client; what it printed, what happened besides requests, and our machine.
fn with_client(
    which: usize,
    arguments: &[&str],
    path: &str,
    lose: usize,
    answer: impl FnMut(&mut DatagramConnection, Request) -> Response,
) -> (String, Vec<ConnectionEvent>, DatagramConnection) {
    let mut udp = Udp::listen(config());
    udp.lose = lose;
    let uri = format!("coap://127.0.0.1:{}/{path}", udp.port());
    let mut client = start(CLIENTS[which], &[arguments, &["-B", "40", &uri]].concat());
    let events = udp.serve(&mut client, answer);
    (printed(client), events, udp.machine)
}

#[test]
fn libcoap_posts_json_and_takes_our_answer() {
    for which in 0..CLIENTS.len() {
        let mut asked = 0;
        let (shown, events, _) =
            with_client(which, &["-m", "post", "-t", "50", "-e", "{\"a\":1}"], "msgin5g?x=1", 0, |_, request| {
                asked += 1;
                assert_eq!((request.method, request.path.as_slice()), (Code::POST, &["msgin5g".to_owned()][..]));
                assert_eq!((request.query.as_slice(), request.content_format), (&["x=1".to_owned()][..], Some(50)));
                assert_eq!(request.payload, b"{\"a\":1}");
                Response::new(Code::CHANGED).with_content_format(0).with_payload(*b"taken by msgin5g")
            });
        assert!(shown.contains("taken by msgin5g"), "{shown}");
        assert_eq!((asked, events), (1, vec![]));
    }
}

#[test]
fn libcoap_sends_without_acknowledgement_and_takes_our_answer() {
    let (shown, _, machine) = with_client(0, &["-m", "post", "-N", "-e", "x"], "x", 0, |_, _| {
        Response::new(Code::CHANGED).with_content_format(0).with_payload(*b"taken")
    });
    assert!(shown.contains("taken"), "{shown}");
    assert_eq!(machine.counters().undelivered, 0);
}

#[test]
fn libcoap_repeats_what_was_lost_and_it_is_handed_over_once() {
    let mut asked = 0;
    let (shown, _, machine) = with_client(0, &["-m", "post", "-e", "x"], "x", 1, |_, _| {
        asked += 1;
        Response::new(Code::CHANGED).with_content_format(0).with_payload(*b"taken at last")
    });
    assert!(shown.contains("taken at last"), "{shown}");
    assert_eq!(asked, 1);
    assert!(machine.counters().duplicates >= 1);
}

#[test]
fn libcoap_waits_for_a_separate_response_and_acknowledges_it() {
    let mut udp = Udp::listen(config());
    let uri = format!("coap://127.0.0.1:{}/slow", udp.port());
    // It pings while it waits.
    let mut client = start(CLIENTS[0], &["-m", "get", "-K", "1", "-B", "40", &uri]);
    let ConnectionEvent::Request { request } = udp.event() else { panic!("no request") };
    // Until it is acknowledged, and its Pings are answered.
    while udp.machine.counters().resets_sent == 0 {
        let soon = Instant::now() + Duration::from_millis(100);
        assert_eq!(udp.event_until(Some(soon)), None, "not asked twice");
    }
    udp.machine
        .respond(request.exchange, Response::new(Code::CONTENT).with_payload(*b"at last"), Instant::now())
        .unwrap();
    udp.serve(&mut client, |_, request| panic!("asked once more: {request:?}"));
    assert!(printed(client).contains("at last"));
    assert!(udp.machine.is_settled(), "acknowledged");
}

#[test]
fn libcoap_fetches_a_large_response_in_blocks_of_the_size_it_wants() {
    let large = "0123456789abcdef".repeat(400);
    for (which, size, lose) in [(0, None, 0), (0, Some("64"), 0), (1, Some("512"), 2)] {
        let mut asked = 0;
        let arguments = size.map_or(vec!["-m", "get"], |size| vec!["-m", "get", "-b", size]);
        let (shown, _, machine) = with_client(which, &arguments, "large", lose, |_, _| {
            asked += 1;
            Response::new(Code::CONTENT).with_content_format(0).with_payload(large.as_str())
        });
        assert!(shown.replace('\n', "").contains(&large), "{size:?}: {shown}");
        assert_eq!(asked, 1, "the rest comes out of what is kept");
        assert!(machine.counters().sent > 6);
    }
}

#[test]
fn libcoap_sends_a_large_request_in_blocks() {
    let directory = tempfile();
    let large = "fedcba9876543210".repeat(400);
    std::fs::write(&directory, &large).unwrap();
    let file = directory.to_str().unwrap();
    for (which, size, lose) in [(0, None, 0), (1, Some("128"), 1)] {
        let mut arguments = vec!["-m", "post", "-t", "50", "-f", file];
        arguments.extend(size.map(|size| ["-b", size]).into_iter().flatten());
        let mut asked = 0;
        let (shown, _, _) = with_client(which, &arguments, "large", lose, |_, request| {
            asked += 1;
            assert!(request.payload == large.as_bytes(), "{} octets", request.payload.len());
            Response::new(Code::CHANGED).with_content_format(0).with_payload(*b"whole")
        });
        assert!(shown.contains("whole"), "{shown}");
        assert_eq!(asked, 1);
    }
    std::fs::remove_file(directory).unwrap();
}

fn tempfile() -> std::path::PathBuf {
    std::env::temp_dir().join(format!("coap-large-{}", std::process::id()))
}

#[test]
fn libcoap_is_told_what_is_not_served() {
    // Option 2049: odd, assigned to nothing.
    let (shown, _, machine) =
        with_client(0, &["-m", "get", "-O", "2049,x"], "x", 0, |_, request| panic!("handed over: {request:?}"));
    assert!(shown.contains("4.02"), "{shown}");
    assert_eq!(machine.counters().requests_refused, 1);
    let (shown, ..) = with_client(0, &["-m", "post", "-e", "x"], "nowhere", 0, |_, _| {
        Response::new(Code::NOT_FOUND).with_payload(*b"UNKNOWN_TARGET")
    });
    assert!(shown.contains("4.04") && shown.contains("UNKNOWN_TARGET"), "{shown}");
}

#[test]
fn libcoap_observes_our_resource_until_it_deregisters() {
    let mut udp = Udp::listen(config());
    let uri = format!("coap://127.0.0.1:{}/configuration", udp.port());
    let mut client = start(CLIENTS[0], &["-s", "5", "-B", "40", &uri]);
    let content = |text: &str| Response::new(Code::CONTENT).with_content_format(0).with_observe().with_payload(text);
    let (mut told, mut observed) = (Vec::new(), None);
    while told.len() < 3 {
        match udp.event() {
            ConnectionEvent::Request { request } if request.observe == Some(Observe::Register) => {
                told.push("registered");
                let now = Instant::now();
                udp.machine.respond(request.exchange, content("first;"), now).unwrap();
                // The third takes the second's place unless that is acknowledged before.
                udp.machine.notify(request.exchange, content("second;"), now).unwrap();
                udp.machine.notify(request.exchange, content("third;"), now).unwrap();
                observed = Some(request.exchange);
            }
            ConnectionEvent::ObservationEnded { exchange } if Some(exchange) == observed => told.push("ended"),
            ConnectionEvent::Request { request } => {
                assert_eq!(request.observe, Some(Observe::Deregister));
                told.push("deregistered");
                udp.machine.respond(request.exchange, content("last;"), Instant::now()).unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told, ["registered", "ended", "deregistered"]);
    udp.serve(&mut client, |_, request| panic!("{request:?}"));
    let shown = printed(client).replace('\n', "");
    assert!(shown.contains("first;") && shown.contains("third;"), "{shown}");
}

/// libcoap's server on a free port, and our machine connected to it.
fn server(arguments: &[&str]) -> (Killed, Udp) {
    let port = free_port();
    let process =
        Killed(start(SERVERS, &[&["-A", "127.0.0.1", "-p", &port.to_string(), "-d", "10"], arguments].concat()));
    // What is sent before it listens is lost, and repeated.
    (process, Udp::connect(port, config()))
}

fn ask(udp: &mut Udp, request: coap::RequestBuilder<'_>) -> Response {
    let asked: ExchangeId = udp.machine.request(request, Instant::now()).unwrap();
    match udp.event() {
        ConnectionEvent::Response { exchange, response } if exchange == asked => response,
        other => panic!("{other:?}"),
    }
}

#[test]
fn libcoap_serves_our_requests_whatever_their_size() {
    let (_process, mut udp) = server(&[]);
    assert_eq!(ask(&mut udp, Request::get("")).code, Code::CONTENT);
    assert_eq!(ask(&mut udp, Request::get("no/such/thing")).code, Code::NOT_FOUND);
    for octets in [10, 1_024, 1_100, 5_000, 20_000] {
        let payload: Vec<u8> = (0..octets).map(|place| b'a' + (place % 23) as u8).collect();
        let put = ask(&mut udp, Request::with_method(Code::PUT, "example_data").payload(&payload));
        assert!(put.code.is_success(), "{put:?}");
        let got = ask(&mut udp, Request::get("example_data"));
        assert!(got.code == Code::CONTENT && got.payload == payload, "{octets} octets: {got:?}");
    }
    let non = ask(&mut udp, Request::get("").non_confirmable());
    assert_eq!(non.code, Code::CONTENT);
    udp.machine.ping(Instant::now()).unwrap();
    assert_eq!(udp.event(), ConnectionEvent::Pong { custody: false });
    assert!(udp.machine.is_settled());
}

#[test]
fn libcoap_answers_late_in_a_message_of_its_own() {
    let (_process, mut udp) = server(&[]);
    let response = ask(&mut udp, Request::get("async").query(&["3"]));
    assert_eq!((response.code, response.payload.as_slice()), (Code::CONTENT, &b"done"[..]));
}

#[test]
fn libcoap_loses_datagrams_and_is_asked_again() {
    // The second of its datagrams and the third; the first answers the request that finds out whether it is there.
    let (_process, mut udp) = server(&["-l", "2,3"]);
    assert_eq!(ask(&mut udp, Request::get("")).code, Code::CONTENT);
    assert_eq!(ask(&mut udp, Request::get("")).code, Code::CONTENT);
    assert!(udp.machine.counters().retransmissions >= 2);
}

#[test]
fn libcoap_notifies_us_until_we_deregister() {
    let (_process, mut udp) = server(&[]);
    // Its own clock, which it notifies of every second.
    let get = || Request::get("time").observe(Observe::Register);
    let exchange = udp.machine.request(get(), Instant::now()).unwrap();
    for _ in 0..3 {
        match udp.event() {
            ConnectionEvent::Response { exchange: answered, response } => {
                assert_eq!((answered, response.code, response.observe), (exchange, Code::CONTENT, true));
            }
            other => panic!("{other:?}"),
        }
    }
    udp.machine.stop_observing(exchange, get(), Instant::now()).unwrap();
    loop {
        match udp.event() {
            ConnectionEvent::Response { response, .. } if response.observe => {}
            ConnectionEvent::Response { exchange: answered, response } => {
                assert_eq!((answered, response.code), (exchange, Code::CONTENT));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(udp.machine.observations(), 0);
}
