//! Interoperation with libcoap over TCP, a real peer: its client against our connection on a loopback socket.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use coap::{Code, Request, Response, StreamConfig, StreamConnection, StreamCounters, StreamEvent};

/// The build without TLS does what these tests need; the others of the same Debian package do too.
const CLIENTS: [&str; 4] = ["coap-client-notls", "coap-client", "coap-client-openssl", "coap-client-gnutls"];

/// How long the peer may keep silent before the test gives up on it.
const SILENCE: Duration = Duration::from_secs(20);

fn start_client(arguments: &[&str], path: &str, listener: &TcpListener) -> Child {
    let uri = format!("coap+tcp://{}/{path}", listener.local_addr().unwrap());
    for client in CLIENTS {
        let started = Command::new(client)
            .args(arguments)
            .args(["-B", "15", &uri])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        match started {
            Ok(child) => return child,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => panic!("{client} cannot be started: {error}"),
        }
    }
    panic!("libcoap's coap-client is not installed: run `cargo xtask setup` (Debian package libcoap3-bin)");
}

/// Serves one client until it closes the connection; `answer` is the application.
fn serve(
    listener: &TcpListener,
    mut answer: impl FnMut(&mut StreamConnection, Request) -> Response,
) -> (Vec<StreamEvent>, StreamCounters) {
    let (mut socket, _) = listener.accept().unwrap();
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    let mut connection = StreamConnection::new(StreamConfig::default());
    let mut others = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        send(&mut connection, &mut socket);
        let octets = match socket.read(&mut buffer) {
            // libcoap closes by reset if something it did not read is left.
            Ok(0) => break,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            result => result.expect("the peer said nothing for too long"),
        };
        connection.receive(&buffer[..octets]).unwrap();
        while let Some(event) = connection.poll_event() {
            match event {
                StreamEvent::Request { request } => {
                    let exchange = request.exchange;
                    let response = answer(&mut connection, request);
                    connection.respond(exchange, response).unwrap();
                }
                other => others.push(other),
            }
        }
    }
    (others, connection.counters())
}

fn send(connection: &mut StreamConnection, socket: &mut TcpStream) {
    if let Some(octets) = connection.poll_transmit() {
        // A peer that has closed is noticed by the next read.
        let _ = socket.write_all(&octets);
    }
}

fn finish(client: Child) -> Output {
    client.wait_with_output().unwrap()
}

#[test]
fn libcoap_posts_json_and_takes_our_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = start_client(&["-m", "post", "-t", "50", "-e", "{\"a\":1}"], "msgin5g?x=1", &listener);
    let (events, counters) = serve(&listener, |_, request| {
        assert_eq!(request.method, Code::POST);
        assert_eq!(request.path, ["msgin5g"]);
        assert_eq!(request.query, ["x=1"]);
        assert_eq!(request.content_format, Some(50));
        assert_eq!(request.payload, b"{\"a\":1}");
        Response::new(Code::CHANGED).with_content_format(0).with_payload(*b"taken by msgin5g")
    });
    assert!(matches!(events[0], StreamEvent::PeerReady { .. }), "{events:?}");
    assert_eq!(counters.requests_refused, 0);
    let output = finish(client);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("taken by msgin5g"), "{output:?}");
}

#[test]
fn libcoap_takes_a_payload_larger_than_the_base_size() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = start_client(&["-m", "get"], "large", &listener);
    let large = vec![b'x'; 6_000];
    serve(&listener, |connection, request| {
        assert_eq!(request.method, Code::GET);
        assert!(connection.peer_max_message_size() > 6_100, "libcoap offers more than the base");
        Response::new(Code::CONTENT).with_content_format(0).with_payload(large.clone())
    });
    let output = finish(client);
    assert!(String::from_utf8_lossy(&output.stdout).contains(&"x".repeat(6_000)), "{output:?}");
}

#[test]
fn libcoap_shows_our_refusal() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = start_client(&["-m", "post", "-e", "x"], "nowhere", &listener);
    serve(&listener, |_, _| Response::new(Code::NOT_FOUND).with_payload(*b"UNKNOWN_TARGET"));
    let output = finish(client);
    let shown = [output.stdout, output.stderr].concat();
    let shown = String::from_utf8_lossy(&shown);
    assert!(shown.contains("4.04") && shown.contains("UNKNOWN_TARGET"), "{shown}");
}

#[test]
fn libcoap_is_told_that_a_critical_option_is_not_served() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Option 2049: odd, assigned to nothing.
    let client = start_client(&["-m", "get", "-O", "2049,x"], "x", &listener);
    let (_, counters) = serve(&listener, |_, request| panic!("handed over: {request:?}"));
    assert_eq!(counters.requests_refused, 1);
    let output = finish(client);
    let shown = [output.stdout, output.stderr].concat();
    assert!(String::from_utf8_lossy(&shown).contains("4.02"), "{}", String::from_utf8_lossy(&shown));
}

#[test]
fn libcoap_answers_our_ping_and_ignores_our_empty_messages() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = start_client(&["-m", "get"], "x", &listener);
    let (mut socket, _) = listener.accept().unwrap();
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    let mut connection = StreamConnection::new(StreamConfig::default());
    connection.ping().unwrap();
    send(&mut connection, &mut socket);
    socket.write_all(&[0, 0]).unwrap();
    let (mut exchange, mut pong) = (None, false);
    let mut buffer = [0; 4_096];
    while exchange.is_none() || !pong {
        let octets = socket.read(&mut buffer).expect("the peer said nothing for too long");
        assert_ne!(octets, 0, "closed before the answer");
        connection.receive(&buffer[..octets]).unwrap();
        while let Some(event) = connection.poll_event() {
            match event {
                StreamEvent::Request { request } => exchange = Some(request.exchange),
                StreamEvent::Pong { .. } => pong = true,
                StreamEvent::PeerReady { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        send(&mut connection, &mut socket);
    }
    connection.respond(exchange.unwrap(), Response::new(Code::CONTENT).with_payload(*b"alive")).unwrap();
    send(&mut connection, &mut socket);
    let output = finish(client);
    assert!(String::from_utf8_lossy(&output.stdout).contains("alive"), "{output:?}");
}
