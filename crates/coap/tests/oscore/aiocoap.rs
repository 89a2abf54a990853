//! Interoperation with aiocoap on loopback: its OSCORE client against our server side over UDP and TCP, its server against
//! our client side over UDP. What lies between is a driver of these tests: confirmable requests, one at a time, or whole
//! frames of a stream, and no more of RFC 7252 and RFC 8323 than that takes.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coap::oscore::{AkmaRequest, EchoValue, IdContext, NONCE_OCTETS, OscoreOption, ReplayStart};
use tempfile::TempDir;

use super::*;

/// How long the peer may keep silent before the test gives up on it.
pub(super) const SILENCE: Duration = Duration::from_secs(60);
/// How often the driver looks whether the peer has ended, and sends again what has no answer.
pub(super) const LOOK: Duration = Duration::from_millis(500);
const RESEND: Duration = Duration::from_secs(5);

const CONFIRMABLE: u8 = 0;
const NON_CONFIRMABLE: u8 = 1;
const ACKNOWLEDGEMENT: u8 = 2;

/// One datagram of RFC 7252 3.
#[derive(Clone)]
struct Datagram {
    kind: u8,
    id: u16,
    token: Vec<u8>,
    message: Message,
}

impl Datagram {
    fn parse(octets: &[u8]) -> Self {
        assert_eq!(octets[0] >> 6, 1, "version");
        let (token, body) = octets[4..].split_at(usize::from(octets[0] & 0x0f));
        let message = Message::from_body(Code::from_octet(octets[1]), body).unwrap();
        let id = u16::from_be_bytes([octets[2], octets[3]]);
        Self { kind: octets[0] >> 4 & 3, id, token: token.to_vec(), message }
    }

    fn encode(&self) -> Vec<u8> {
        let first = 0x40 | self.kind << 4 | self.token.len() as u8;
        let [high, low] = self.id.to_be_bytes();
        [&[first, self.message.code().octet(), high, low], &self.token[..], self.message.body()].concat()
    }
}

pub(super) fn python() -> Command {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/bin/python");
    let mut command = Command::new(python);
    command.arg("-B").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(super) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oscore").join(name)
}

pub(super) fn started(command: &mut Command) -> Child {
    command.spawn().expect("it runs; `cargo xtask setup` installs what the tests need")
}

/// A folder with a security context as aiocoap reads it.
pub(super) fn directory(parameters: &ContextParameters) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let id_context = parameters.id_context.as_ref();
    let id_context =
        id_context.map_or(String::new(), |id| format!(r#","id-context_hex":"{}""#, hex::encode(id.as_slice())));
    let secret = format!(
        r#"{{"sender-id_hex":"{}","recipient-id_hex":"{}","secret_hex":"{}","salt_hex":"{}"{id_context}}}"#,
        hex::encode(parameters.sender_id.as_slice()),
        hex::encode(parameters.recipient_id.as_slice()),
        hex::encode(parameters.master_secret.expose()),
        hex::encode(&parameters.master_salt),
    );
    std::fs::write(directory.path().join("secret.json"), secret).unwrap();
    directory
}

/// Our server side, with an application.
struct Server {
    context: Option<SecurityContext>,
    k_af: [u8; 32],
    blocks: Vec<u8>,
    unproven: usize,
    refusals: Vec<OscoreError>,
    requests: usize,
}

impl Server {
    fn new(context: Option<SecurityContext>) -> Self {
        Self { context, k_af: [0x4b; 32], blocks: Vec::new(), unproven: 0, refusals: Vec::new(), requests: 0 }
    }

    /// Serves one client until it has ended, which it must do well.
    fn serve(mut self, mode: &str, directory: &Path) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(LOOK)).unwrap();
        let base = format!("coap://{}", socket.local_addr().unwrap());
        let mut client = started(python().arg(script("client.py")).arg(mode).arg(base).arg(directory));
        let (mut answers, mut buffer) = (HashMap::new(), [0; 2_048]);
        let mut heard = Instant::now();
        while client.try_wait().unwrap().is_none() {
            assert!(heard.elapsed() < SILENCE, "the client says nothing and does not end");
            let (octets, peer) = match socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(error) => panic!("{error}"),
            };
            heard = Instant::now();
            let datagram = Datagram::parse(&buffer[..octets]);
            if datagram.kind != CONFIRMABLE {
                continue;
            }
            // A request that is sent again has the same answer; OSCORE would call it a replay.
            let answer = answers.entry(datagram.id).or_insert_with(|| self.answer(&datagram));
            for datagram in answer {
                socket.send_to(&datagram.encode(), peer).unwrap();
            }
        }
        ended_well(client);
        self
    }

    /// The same over a stream (RFC 8323), which the client closes when it ends.
    fn serve_stream(mut self, mode: &str, directory: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("coap+tcp://{}", listener.local_addr().unwrap());
        let mut client = started(python().arg(script("client.py")).arg(mode).arg(base).arg(directory));
        listener.set_nonblocking(true).unwrap();
        let mut stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    assert!(client.try_wait().unwrap().is_none(), "{:?}", client.wait_with_output());
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => panic!("{error}"),
            }
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(SILENCE)).unwrap();
        stream.write_all(&frame(Code::CSM, &[], &[])).unwrap();
        while let Some((code, token, body)) = read_frame(&mut stream) {
            if !matches!(code.class(), 0) || code == Code::EMPTY {
                // Its own CSM, and the Release at the end.
                continue;
            }
            for answer in self.messages(&Message::from_body(code, body).unwrap()) {
                stream.write_all(&frame(answer.code(), &token, answer.body())).unwrap();
            }
        }
        ended_well(client);
        self
    }

    fn answer(&mut self, request: &Datagram) -> Vec<Datagram> {
        let messages = self.messages(&request.message);
        let wrapped = messages.into_iter().enumerate().map(|(at, message)| {
            let at = at as u16;
            // The first on the acknowledgement, the others as notifications of their own.
            let (kind, id) =
                if at == 0 { (ACKNOWLEDGEMENT, request.id) } else { (NON_CONFIRMABLE, request.id.wrapping_add(at)) };
            Datagram { kind, id, token: request.token.clone(), message }
        });
        wrapped.collect()
    }

    fn messages(&mut self, message: &Message) -> Vec<Message> {
        if matches!(OscoreOption::of(message), Ok(None)) {
            return vec![self.agree(message)];
        }
        let mut context = self.context.take().expect("there is a context");
        let messages = match context.unprotect_request(message) {
            Ok(Verified::Request { message, mut exchange }) => {
                let responses = self.application(&message);
                responses.iter().map(|response| context.protect_response(&mut exchange, response).unwrap()).collect()
            }
            Ok(Verified::Unproven { answer }) => {
                self.unproven += 1;
                vec![answer]
            }
            Err(error) => {
                self.refusals.push(error);
                vec![error.answer().expect("a refusal has an answer")]
            }
        };
        self.context = Some(context);
        messages
    }

    fn agree(&mut self, message: &Message) -> Message {
        let request = AkmaRequest::from_message(message).unwrap();
        assert_eq!(request.a_kid(), "0.a4763ff6@5gc.mnc001.mcc001.3gppnetwork.org");
        let ue_sid = KeyId::new(b"ue-77").unwrap();
        let (answer, parameters) = request.accept(&self.k_af, &[0x2e; NONCE_OCTETS], ue_sid).unwrap();
        self.context = Some(SecurityContext::fresh(&parameters, Durability::Volatile).unwrap());
        answer
    }

    fn application(&mut self, request: &Message) -> Vec<Message> {
        self.requests += 1;
        let path = String::from_utf8(request.option(URI_PATH).unwrap_or_default().to_vec()).unwrap();
        let text = |method: &str| [method.as_bytes(), b" ", path.as_bytes(), b" ", request.payload()].concat();
        let response = match (request.code(), path.as_str()) {
            (Code::POST, "msgin5g") => message(Code::CHANGED, &[], &text("POST")),
            (Code::GET, "hello") => message(Code::CONTENT, &[(12, &[]), (MAX_AGE, &[5])], &text("GET")),
            (Code::POST, "large") => self.block(request),
            (Code::GET, "time") => {
                let notify = |order: u8| message(Code::CONTENT, &[(OBSERVE, &[order])], &[b'0' + order]);
                return vec![notify(1), notify(2), notify(3)];
            }
            _ => message(Code::NOT_FOUND, &[], b"UNKNOWN_TARGET"),
        };
        vec![response]
    }

    /// Takes one block of a payload (RFC 7959), and says its size after the last.
    fn block(&mut self, request: &Message) -> Message {
        const BLOCK_1: u16 = 27;
        let block = request.option(BLOCK_1).expect("aiocoap sends what is so long in blocks").to_vec();
        self.blocks.extend_from_slice(request.payload());
        if block.last().is_some_and(|low| low & 0x08 != 0) {
            return message(Code::new(2, 31), &[(BLOCK_1, &block)], b"");
        }
        let expected: Vec<u8> = (0..250).cycle().take(3_000).collect();
        assert_eq!(self.blocks, expected);
        message(Code::CHANGED, &[(BLOCK_1, &block)], b"3000")
    }
}

pub(super) fn ended_well(client: Child) {
    let output = client.wait_with_output().unwrap();
    let shown = [output.stdout, output.stderr].concat();
    let shown = String::from_utf8_lossy(&shown);
    assert!(output.status.success() && shown.contains("all held"), "{shown}");
}

/// One message of RFC 8323 3.2.
fn frame(code: Code, token: &[u8], body: &[u8]) -> Vec<u8> {
    let token_length = token.len() as u8;
    let mut out = match body.len() {
        length @ 0..=12 => vec![(length as u8) << 4 | token_length],
        length @ 13..=268 => vec![13 << 4 | token_length, (length - 13) as u8],
        length => {
            let [high, low] = ((length - 269) as u16).to_be_bytes();
            vec![14 << 4 | token_length, high, low]
        }
    };
    out.push(code.octet());
    [&out, token, body].concat()
}

/// The next message; none when the peer has closed.
fn read_frame(stream: &mut TcpStream) -> Option<(Code, Vec<u8>, Vec<u8>)> {
    let mut read = |octets: usize| {
        let mut buffer = vec![0; octets];
        match stream.read_exact(&mut buffer) {
            Ok(()) => Some(buffer),
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => None,
            Err(error) => panic!("{error}"),
        }
    };
    let first = read(1)?[0];
    let length = match first >> 4 {
        13 => 13 + usize::from(read(1)?[0]),
        14 => 269 + read(2)?.iter().fold(0, |length, octet| length << 8 | usize::from(*octet)),
        15 => panic!("nobody sends so much"),
        length => usize::from(length),
    };
    let code = Code::from_octet(read(1)?[0]);
    let token = read(usize::from(first & 0x0f))?;
    Some((code, token, read(length)?))
}

fn server_context(client: &ContextParameters, start: ReplayStart) -> Option<SecurityContext> {
    Some(SecurityContext::restored(&client.reversed(), Durability::Volatile, 0, start).unwrap())
}

#[test]
fn aiocoap_talks_to_our_server_side() {
    let directory = directory(&parameters());
    let server = Server::new(server_context(&parameters(), ReplayStart::Nothing)).serve("exchanges", directory.path());
    assert_eq!((server.unproven, server.refusals.len()), (0, 0));
    assert_eq!(server.requests, 6, "three blocks, and three others");
}

#[test]
fn aiocoap_talks_to_our_server_side_in_an_id_context() {
    let mut parameters = parameters();
    parameters.id_context = Some(IdContext::new(b"lab").unwrap());
    parameters.sender_id = KeyId::new(&[]).unwrap();
    let directory = directory(&parameters);
    let server = Server::new(server_context(&parameters, ReplayStart::Nothing)).serve("exchanges", directory.path());
    assert_eq!(server.refusals, []);
}

#[test]
fn aiocoap_observes_our_server_side() {
    let directory = directory(&parameters());
    let server = Server::new(server_context(&parameters(), ReplayStart::Nothing)).serve("observe", directory.path());
    assert_eq!(server.refusals, []);
}

#[test]
fn aiocoap_talks_to_our_server_side_over_a_stream() {
    for (mode, requests) in [("exchanges", None), ("observe", Some(1))] {
        let directory = directory(&parameters());
        let server = Server::new(server_context(&parameters(), ReplayStart::Nothing));
        let server = server.serve_stream(mode, directory.path());
        assert_eq!(server.refusals, []);
        assert!(requests.is_none_or(|requests| server.requests == requests));
    }
}

#[test]
fn aiocoap_becomes_a_ue_by_akma_over_a_stream() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("k_af"), hex::encode([0x4b; 32])).unwrap();
    let server = Server::new(None).serve_stream("akma", directory.path());
    assert_eq!((server.requests, server.refusals.len()), (1, 0));
}

#[test]
fn aiocoap_proves_that_it_is_alive_after_our_restart() {
    let directory = directory(&parameters());
    let start = ReplayStart::Unknown(EchoValue::new(*b"restart1"));
    let server = Server::new(server_context(&parameters(), start)).serve("exchanges", directory.path());
    assert_eq!((server.unproven, server.refusals.len()), (1, 0));
}

#[test]
fn aiocoap_understands_our_refusals() {
    let mut others = [parameters(), parameters()];
    others[0].sender_id = KeyId::new(&[9]).unwrap();
    others[1].master_secret = MasterSecret::new(&[1; 16]).unwrap();
    let expected = [
        (OscoreError::ContextNotFound, "4.01 Security context not found"),
        (OscoreError::DecryptionFailed, "4.00 Decryption failed"),
    ];
    for (other, (error, text)) in others.iter().zip(expected) {
        let directory = directory(other);
        std::fs::write(directory.path().join("expected"), text).unwrap();
        let server =
            Server::new(server_context(&parameters(), ReplayStart::Nothing)).serve("refused", directory.path());
        assert_eq!(server.refusals, [error]);
    }
}

#[test]
fn aiocoap_becomes_a_ue_by_akma() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("k_af"), hex::encode([0x4b; 32])).unwrap();
    let server = Server::new(None).serve("akma", directory.path());
    assert_eq!((server.requests, server.refusals.len()), (1, 0));
}

/// aiocoap's server; ends when it goes out of scope.
pub(super) struct Peer {
    process: Child,
    pub(super) socket: UdpSocket,
    next: u16,
}

impl Peer {
    pub(super) fn start(directory: &Path) -> Self {
        // Another program may take the port before aiocoap does.
        for _ in 0..5 {
            let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let mut process = started(python().arg(script("server.py")).arg(free.port().to_string()).arg(directory));
            let mut line = String::new();
            BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
            if line.trim() == "ready" {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.connect(free).unwrap();
                socket.set_read_timeout(Some(LOOK)).unwrap();
                return Self { process, socket, next: 1 };
            }
            let _ = process.wait();
            let mut errors = String::new();
            process.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
            eprintln!("{errors}");
        }
        panic!("aiocoap does not start");
    }

    fn send(&mut self, message: &Message) -> Datagram {
        let datagram = Datagram {
            kind: CONFIRMABLE,
            id: self.next,
            token: self.next.to_be_bytes().to_vec(),
            message: message.clone(),
        };
        self.next += 1;
        self.socket.send(&datagram.encode()).unwrap();
        datagram
    }

    /// The next response to that request. Until it comes, the request is sent again as it was.
    fn response(&self, request: &Datagram) -> Message {
        let (start, mut last) = (Instant::now(), Instant::now());
        let mut buffer = [0; 2_048];
        loop {
            assert!(start.elapsed() < SILENCE, "no response");
            if last.elapsed() > RESEND {
                self.socket.send(&request.encode()).unwrap();
                last = Instant::now();
            }
            let octets = match self.socket.recv(&mut buffer) {
                Ok(octets) => octets,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(error) => panic!("{error}"),
            };
            let datagram = Datagram::parse(&buffer[..octets]);
            if datagram.kind == CONFIRMABLE {
                let message = message(Code::EMPTY, &[], b"");
                let empty = Datagram { kind: ACKNOWLEDGEMENT, id: datagram.id, token: Vec::new(), message };
                self.socket.send(&empty.encode()).unwrap();
            }
            if datagram.message.code() != Code::EMPTY && datagram.token == request.token {
                return datagram.message;
            }
        }
    }

    fn exchange(&mut self, client: &mut SecurityContext, request: &Message) -> Message {
        let (protected, mut sent) = client.protect_request(request).unwrap();
        let datagram = self.send(&protected);
        client.unprotect_response(&mut sent, &self.response(&datagram)).unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn get(path: &'static [u8]) -> Message {
    message(Code::GET, &[(URI_PATH, path)], b"")
}

#[test]
fn aiocoap_serves_our_client_side() {
    let directory = directory(&parameters().reversed());
    let mut peer = Peer::start(directory.path());
    let (mut client, _) = pair();
    let response = peer.exchange(&mut client, &get(b"hello"));
    assert_eq!(response, message(Code::CONTENT, &[(12, &[]), (MAX_AGE, &[7])], b"hello"));
    let request = message(Code::POST, &[(URI_PATH, b"hello"), (12, &[50])], b"{}x");
    assert_eq!(peer.exchange(&mut client, &request), message(Code::CHANGED, &[], b"{}X"));
    assert_eq!(peer.exchange(&mut client, &get(b"nowhere")).code(), Code::NOT_FOUND);

    // In blocks of 512 octets, each asked for by itself (RFC 7959 Block2).
    let mut taken = Vec::new();
    for number in 0..6_u8 {
        let request = message(Code::GET, &[(URI_PATH, b"large"), (23, &[number << 4 | 5])], b"");
        let response = peer.exchange(&mut client, &request);
        assert_eq!(response.option(23).map(|block| block[0] & 0x08 != 0), Some(number < 5), "more to come");
        taken.extend_from_slice(response.payload());
    }
    assert_eq!(taken, (0..250).cycle().take(3_000).collect::<Vec<u8>>());
}

#[test]
fn aiocoap_notifies_our_client_side() {
    let directory = directory(&parameters().reversed());
    let mut peer = Peer::start(directory.path());
    let (mut client, _) = pair();
    let registration = message(Code::GET, &[(OBSERVE, &[]), (URI_PATH, b"counter")], b"");
    let (protected, mut sent) = client.protect_request(&registration).unwrap();
    let datagram = peer.send(&protected);
    let (mut heard, mut last) = (0, 0);
    while last < 5 {
        match client.unprotect_response(&mut sent, &peer.response(&datagram)) {
            Ok(notification) => {
                assert!(notification.option(OBSERVE).is_some());
                let count = std::str::from_utf8(notification.payload()).unwrap().parse().unwrap();
                assert!(heard == 0 || count > last, "{count} after {last}");
                (heard, last) = (heard + 1, count);
            }
            // A notification that was sent again.
            Err(OscoreError::Replay) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(heard > 1 && sent.is_open());
}

#[test]
fn our_client_side_proves_that_it_is_alive_after_aiocoaps_restart() {
    let directory = directory(&parameters().reversed());
    let lost = r#"{"next-to-send":40,"received":"unknown"}"#;
    std::fs::write(directory.path().join("sequence.json"), lost).unwrap();
    let mut peer = Peer::start(directory.path());
    let (mut client, _) = pair();
    let challenge = peer.exchange(&mut client, &get(b"hello"));
    let repeated = get(b"hello").repeated_for(&challenge).expect("4.01 with Echo");
    assert_eq!(peer.exchange(&mut client, &repeated).payload(), b"hello");
    assert_eq!(peer.exchange(&mut client, &get(b"hello")).payload(), b"hello");
}

#[test]
fn aiocoaps_refusals_are_as_ours() {
    let directory = directory(&parameters().reversed());
    let mut peer = Peer::start(directory.path());
    let (mut client, _) = pair();
    let (protected, mut sent) = client.protect_request(&get(b"hello")).unwrap();
    let datagram = peer.send(&protected);
    client.unprotect_response(&mut sent, &peer.response(&datagram)).unwrap();
    // In another datagram, so that it is no retransmission.
    let datagram = peer.send(&protected);
    let answer = peer.response(&datagram);
    let ours = OscoreError::Replay.answer().unwrap();
    assert_eq!((answer.code(), answer.payload()), (ours.code(), ours.payload()));

    let mut others = [parameters(), parameters()];
    others[0].sender_id = KeyId::new(&[9]).unwrap();
    others[1].master_salt = Vec::new();
    for (other, error) in others.iter().zip([OscoreError::ContextNotFound, OscoreError::DecryptionFailed]) {
        let (mut stranger, _) = pair_of(other);
        let (protected, mut sent) = stranger.protect_request(&get(b"hello")).unwrap();
        let datagram = peer.send(&protected);
        let answer = peer.response(&datagram);
        let ours = error.answer().unwrap();
        assert_eq!((answer.code(), answer.payload()), (ours.code(), ours.payload()));
        let expected = OscoreError::NotProtected { code: ours.code() };
        assert_eq!(stranger.unprotect_response(&mut sent, &answer), Err(expected));
    }
}
