//! Interoperation with libcoap over TCP, a real peer: its client and its server against our connection on loopback
//! sockets.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use coap::{
    Code, Observe, Request, Response, StreamConfig, StreamConnection, StreamCounters, StreamEvent, StreamLimits,
};

/// The build without TLS does what these tests need; the others of the same Debian package do too.
const CLIENTS: [&str; 4] = ["coap-client-notls", "coap-client", "coap-client-openssl", "coap-client-gnutls"];

const SERVERS: [&str; 4] = ["coap-server-notls", "coap-server", "coap-server-openssl", "coap-server-gnutls"];

/// How long the peer may keep silent before the test gives up on it.
const SILENCE: Duration = Duration::from_secs(20);

/// Starts the first of `programs` that is installed.
fn start(programs: &[&str], arguments: &[&str]) -> Child {
    for program in programs {
        let started = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        match started {
            Ok(child) => return child,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => panic!("{program} cannot be started: {error}"),
        }
    }
    panic!("libcoap's {} is not installed: run `cargo xtask setup` (Debian package libcoap3-bin)", programs[0]);
}

fn start_client(arguments: &[&str], path: &str, listener: &TcpListener) -> Child {
    let uri = format!("coap+tcp://{}/{path}", listener.local_addr().unwrap());
    start(&CLIENTS, &[arguments, &["-B", "15", &uri]].concat())
}

/// libcoap's server on a free port; killed when it goes out of scope.
struct Server {
    process: Child,
    socket: TcpStream,
}

impl Server {
    fn start() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = start(&SERVERS, &["-A", "127.0.0.1", "-p", &free.port().to_string()]);
        // It does not say when it listens.
        let deadline = Instant::now() + SILENCE;
        let socket = loop {
            match TcpStream::connect(free) {
                Ok(socket) => break socket,
                Err(error) if Instant::now() > deadline => panic!("coap-server does not listen: {error}"),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        socket.set_read_timeout(Some(SILENCE)).unwrap();
        Self { process, socket }
    }

    /// Sends what waits and reads until something happens.
    fn next_event(&mut self, connection: &mut StreamConnection) -> StreamEvent {
        let mut buffer = [0; 4_096];
        loop {
            send(connection, &mut self.socket);
            if let Some(event) = connection.poll_event() {
                return event;
            }
            let octets = self.socket.read(&mut buffer).expect("the peer said nothing for too long");
            assert_ne!(octets, 0, "closed by the peer");
            connection.receive(&buffer[..octets]).unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
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

#[test]
fn libcoap_serves_our_requests_and_answers_each() {
    let mut server = Server::start();
    let mut connection = StreamConnection::new(StreamConfig::default());
    // Sent before its CSM has come, as RFC 8323 5.3 allows.
    let root = connection.request(Request::get("")).unwrap();
    let nowhere = connection.request(Request::get("no/such/thing")).unwrap();
    let StreamEvent::PeerReady { max_message_size, .. } = server.next_event(&mut connection) else {
        panic!("the CSM comes first")
    };
    assert!(max_message_size > 1_152);
    let mut codes = Vec::new();
    for _ in 0..2 {
        match server.next_event(&mut connection) {
            StreamEvent::Response { exchange, response } => codes.push((exchange, response.code)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(codes, [(root, Code::CONTENT), (nowhere, Code::NOT_FOUND)]);

    let payload = vec![b'y'; 5_000];
    let stored = connection.request(Request::with_method(Code::PUT, "example_data").payload(&payload)).unwrap();
    let StreamEvent::Response { exchange, response } = server.next_event(&mut connection) else { panic!("no answer") };
    assert_eq!((exchange, response.code.is_success()), (stored, true), "{response:?}");
    let fetched = connection.request(Request::get("example_data")).unwrap();
    let StreamEvent::Response { exchange, response } = server.next_event(&mut connection) else { panic!("no answer") };
    assert_eq!((exchange, response.code, response.payload.len()), (fetched, Code::CONTENT, 5_000));
    assert_eq!(response.payload, payload);

    connection.ping().unwrap();
    assert!(matches!(server.next_event(&mut connection), StreamEvent::Pong { .. }));
    assert!(connection.is_settled());
}

#[test]
fn libcoap_observes_our_resource_until_it_deregisters() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = start_client(&["-s", "2"], "configuration", &listener);
    let (mut socket, _) = listener.accept().unwrap();
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    let limits = StreamLimits { peer_observations_max: 1, ..StreamLimits::default() };
    let mut connection = StreamConnection::new(StreamConfig { limits, ..StreamConfig::default() });
    let content = |text: &str| Response::new(Code::CONTENT).with_content_format(0).with_observe().with_payload(text);
    let (mut observed, mut told, mut buffer) = (None, Vec::new(), [0; 4_096]);
    while told.len() < 3 {
        send(&mut connection, &mut socket);
        let octets = socket.read(&mut buffer).expect("the peer said nothing for too long");
        assert_ne!(octets, 0, "closed before it deregistered: {told:?}");
        connection.receive(&buffer[..octets]).unwrap();
        while let Some(event) = connection.poll_event() {
            match event {
                StreamEvent::Request { request } if request.observe == Some(Observe::Register) => {
                    told.push("registered");
                    connection.respond(request.exchange, content("first;")).unwrap();
                    connection.notify(request.exchange, content("second;")).unwrap();
                    connection.notify(request.exchange, content("third;")).unwrap();
                    observed = Some(request.exchange);
                }
                StreamEvent::ObservationEnded { exchange } if Some(exchange) == observed => told.push("ended"),
                StreamEvent::Request { request } => {
                    assert_eq!(request.observe, Some(Observe::Deregister));
                    told.push("deregistered");
                    connection.respond(request.exchange, content("last;")).unwrap();
                    send(&mut connection, &mut socket);
                }
                StreamEvent::PeerReady { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(told, ["registered", "ended", "deregistered"]);
    drop(socket);
    let shown = String::from_utf8_lossy(&finish(client).stdout).replace('\n', "");
    assert!(shown.contains("first;second;third;"), "{shown}");
}

#[test]
fn libcoap_notifies_us_until_we_deregister() {
    let mut server = Server::start();
    let mut connection = StreamConnection::new(StreamConfig::default());
    // Its own clock, which it notifies of every second.
    let get = || Request::get("time").observe(Observe::Register);
    let exchange = connection.request(get()).unwrap();
    let mut notifications = 0;
    while notifications < 2 {
        match server.next_event(&mut connection) {
            StreamEvent::Response { exchange: answered, response } => {
                assert_eq!((answered, response.code, response.observe), (exchange, Code::CONTENT, true));
                notifications += 1;
            }
            StreamEvent::PeerReady { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    connection.stop_observing(exchange, get()).unwrap();
    loop {
        match server.next_event(&mut connection) {
            StreamEvent::Response { response, .. } if response.observe => {}
            StreamEvent::Response { exchange: answered, response } => {
                assert_eq!((answered, response.code), (exchange, Code::CONTENT));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(connection.observations(), 0);
}
