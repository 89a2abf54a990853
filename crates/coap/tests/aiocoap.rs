//! Interoperation with aiocoap over UDP, a real peer in both roles.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod udp;

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::time::{Duration, Instant};

use coap::{
    Code, ConnectionEvent, DatagramConfig, DatagramLimits, ExchangeId, Observe, Request, RequestBuilder, Response,
};
use udp::{Killed, Udp, free_port, printed, start};

fn peer(role: &str, port: u16) -> Child {
    let folder = env!("CARGO_MANIFEST_DIR");
    let python = format!("{folder}/../../target/tools/bin/python");
    let script = format!("{folder}/tests/foreign/aiocoap_peer.py");
    start(&[&python], &["-B", &script, role, &port.to_string()])
}

fn config() -> DatagramConfig {
    DatagramConfig {
        limits: DatagramLimits { peer_observations_max: 1, ..DatagramLimits::default() },
        ..DatagramConfig::default()
    }
}

fn body(octets: usize) -> Vec<u8> {
    (0..octets).map(|place| (place * 7 + place / 251) as u8).collect()
}

fn ask(udp: &mut Udp, request: RequestBuilder<'_>) -> Response {
    let asked: ExchangeId = udp.machine.request(request, Instant::now()).unwrap();
    match udp.event() {
        ConnectionEvent::Response { exchange, response } if exchange == asked => response,
        other => panic!("{other:?}"),
    }
}

#[test]
fn aiocoap_serves_our_requests_of_every_kind() {
    let port = free_port();
    let mut process = Killed(peer("serve", port));
    let mut line = String::new();
    BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "listening\n");
    let mut udp = Udp::connect(port, config());
    for octets in [0, 10, 1_024, 1_100, 1_200, 5_000, 30_000] {
        let answer = ask(&mut udp, Request::post("echo").content_format(42).payload(body(octets)));
        assert_eq!((answer.code, answer.content_format), (Code::CHANGED, Some(42)));
        assert!(answer.payload == body(octets), "{octets} octets");
    }
    let answer = ask(&mut udp, Request::post("echo").payload(body(3_000)).non_confirmable());
    assert!(answer.payload == body(3_000));
    assert!(ask(&mut udp, Request::get("large")).payload == body(5_000));
    assert_eq!(ask(&mut udp, Request::get("slow")).payload, b"at last");
    assert_eq!(ask(&mut udp, Request::get("nowhere")).code, Code::NOT_FOUND);
    udp.machine.ping(Instant::now()).unwrap();
    assert_eq!(udp.event(), ConnectionEvent::Pong { custody: false });

    let get = || Request::get("counter").observe(Observe::Register);
    let exchange = udp.machine.request(get(), Instant::now()).unwrap();
    let mut last = None;
    for _ in 0..4 {
        match udp.event() {
            ConnectionEvent::Response { exchange: answered, response } => {
                assert_eq!((answered, response.observe, response.payload.len()), (exchange, true, 2_000));
                let number: u64 = String::from_utf8(response.payload).unwrap().parse().unwrap();
                assert!(last < Some(number), "{last:?} then {number}");
                last = Some(number);
            }
            other => panic!("{other:?}"),
        }
    }
    // It forgets us because we reject what comes later.
    udp.machine.cancel(exchange, Instant::now());
    let later = Instant::now() + Duration::from_secs(2);
    assert_eq!(udp.event_until(Some(later)), None);
    assert!(udp.machine.counters().resets_sent >= 1);
}

#[test]
fn aiocoap_asks_us_for_every_kind_of_response_while_we_ask_it() {
    let mut udp = Udp::listen(config());
    let mut process = Killed(peer("ask", udp.port()));
    let (mut counter, mut observed, mut asked, mut ours, mut telling) = (0_u64, None, 0, Vec::new(), None);
    let mut slow: Option<(Instant, ExchangeId)> = None;
    // The next number comes once the last was fetched to its end: aiocoap gives up on what changes before.
    let (mut tick, mut fetched) = (Instant::now(), 0);
    let number = |counter: u64| Response::new(Code::CONTENT).with_observe().with_payload(format!("{counter:02000}"));
    while process.0.try_wait().unwrap().is_none() {
        let now = Instant::now();
        if let Some((_, exchange)) = slow.take_if(|(at, _)| *at <= now) {
            udp.machine.respond(exchange, Response::new(Code::CONTENT).with_payload(*b"at last"), now).unwrap();
        }
        if let Some(exchange) = observed.filter(|_| now >= tick && udp.machine.counters().received >= fetched) {
            counter += 1;
            tick = now + Duration::from_millis(500);
            // An acknowledgement, and a request for the rest.
            fetched = udp.machine.counters().received + 2;
            udp.machine.notify(exchange, number(counter), now).unwrap();
        }
        if ours.is_empty()
            && let Some(exchange) = telling.take()
        {
            udp.machine.respond(exchange, Response::new(Code::CHANGED).with_payload(*b"all answered"), now).unwrap();
        }
        match udp.event_until(Some(now + Duration::from_millis(20))) {
            Some(ConnectionEvent::Request { request }) => {
                asked += 1;
                let response = match request.path[0].as_str() {
                    "echo" => Response::new(Code::CHANGED)
                        .with_content_format(request.content_format.unwrap())
                        .with_payload(request.payload),
                    "large" => Response::new(Code::CONTENT).with_payload(body(5_000)),
                    "slow" => {
                        slow = Some((now + Duration::from_secs(3), request.exchange));
                        continue;
                    }
                    "counter" => number(counter),
                    "tell" => {
                        for octets in [10, 1_000, 4_000] {
                            let builder = Request::post("echo").content_format(42).payload(body(octets));
                            ours.push((udp.machine.request(builder, now).unwrap(), octets));
                        }
                        telling = Some(request.exchange);
                        continue;
                    }
                    _ => Response::new(Code::NOT_FOUND),
                };
                udp.machine.respond(request.exchange, response, now).unwrap();
                if udp.machine.is_observed(request.exchange) {
                    tick = now + Duration::from_millis(500);
                    fetched = udp.machine.counters().received + 1;
                    observed = Some(request.exchange);
                }
            }
            Some(ConnectionEvent::Response { exchange, response }) => {
                let place = ours.iter().position(|(asked, _)| *asked == exchange).unwrap();
                assert!(response.payload == body(ours.remove(place).1));
            }
            Some(ConnectionEvent::ObservationEnded { .. }) => observed = None,
            Some(other) => panic!("{other:?}"),
            None => {}
        }
    }
    let status = process.0.wait().unwrap();
    assert!(status.success(), "{}", printed_of(process));
    // Five to echo, and one of each other kind, of which observing takes one or two more to end.
    assert!((10..=11).contains(&asked), "{asked}");
}

/// What it printed, once it has ended.
fn printed_of(process: Killed) -> String {
    let mut process = std::mem::ManuallyDrop::new(process);
    let child = std::mem::replace(&mut process.0, start(&["true"], &[]));
    printed(child)
}
