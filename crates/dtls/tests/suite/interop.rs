//! OpenSSL and GnuTLS as peers, over real sockets: each suite that they know, both roles, data both ways, the end.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dtls::{
    CipherSuite, ClientConfig, Closed, Connection, ConnectionId, Disposition, Event, Incoming, KeyRefusal, Listener,
    PresharedKey, ServerConfig,
};

use crate::scene::key;

const KEY: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";
pub const NAME: &str = "meter-7";
/// For everything that a peer is waited for, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A foreign program; what it prints is kept.
pub struct Program {
    child: Child,
    output: Arc<Mutex<String>>,
}

impl Program {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = Arc::new(Mutex::new(String::new()));
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for mut stream in streams {
            let output = Arc::clone(&output);
            std::thread::spawn(move || {
                let mut octets = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut octets) {
                    output.lock().unwrap().push_str(&String::from_utf8_lossy(&octets[..read]));
                }
            });
        }
        Self { child, output }
    }

    pub fn printed(&self, text: &str) -> bool {
        self.output.lock().unwrap().contains(text)
    }

    fn type_line(&mut self, line: &str) {
        self.child.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the peer printed:\n{}", self.output.lock().unwrap());
        }
    }
}

/// Our side: a socket and what drives the machine.
pub struct Ours {
    socket: UdpSocket,
    listener: Option<Listener>,
    connection: Option<Connection>,
    pub refuse: bool,
    /// What the peer's identity stands for.
    pub key: PresharedKey,
    pub events: Vec<Event>,
    received: Vec<u8>,
    /// Instead of our second datagram of epoch 3 goes the first.
    pub delays_first_ack: bool,
    held: Option<Vec<u8>>,
}

impl Ours {
    fn client(server: SocketAddr, suites: &[CipherSuite]) -> Self {
        Self::client_that(server, |config| {
            config.session.cipher_suites = suites.to_vec();
            // The peer may not listen yet.
            config.session.retransmit_first = Duration::from_millis(200);
        })
    }

    pub fn client_that(server: SocketAddr, configure: impl FnOnce(&mut ClientConfig)) -> Self {
        let mut config = ClientConfig::new(NAME.as_bytes());
        configure(&mut config);
        let connection = Connection::client(Arc::new(config), Instant::now(), server).unwrap();
        Self { connection: Some(connection), ..Self::new(None) }
    }

    fn server(suites: &[CipherSuite]) -> Self {
        Self::server_that(|config| {
            config.session.cipher_suites = suites.to_vec();
            config.identity_hint = Some(b"3GPP-AKMA".to_vec());
        })
    }

    pub fn server_that(configure: impl FnOnce(&mut ServerConfig)) -> Self {
        let mut config = ServerConfig::default();
        configure(&mut config);
        Self::new(Some(Listener::new(Arc::new(config), Instant::now()).unwrap()))
    }

    fn new(listener: Option<Listener>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        Self {
            socket,
            listener,
            connection: None,
            refuse: false,
            key: key(),
            events: Vec::new(),
            received: Vec::new(),
            delays_first_ack: false,
            held: None,
        }
    }

    pub fn port(&self) -> u16 {
        self.socket.local_addr().unwrap().port()
    }

    /// Runs until `done`.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            self.drain();
            if done(self) {
                return;
            }
            let now = Instant::now();
            assert!(now < end, "waited in vain: {what}; {:?}", self.events);
            let timeout = self.connection.as_ref().and_then(Connection::poll_timeout);
            let wait = timeout.map_or(Duration::from_millis(20), |at| at.saturating_duration_since(now));
            let wait = wait.clamp(Duration::from_millis(1), Duration::from_millis(20));
            self.socket.set_read_timeout(Some(wait)).unwrap();
            let mut octets = [0; 65_536];
            match self.socket.recv_from(&mut octets) {
                Ok((read, source)) => self.arrive(source, &octets[..read]),
                Err(error) => assert!(matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::ConnectionRefused | ErrorKind::Interrupted
                )),
            }
            if let Some(connection) = &mut self.connection {
                connection.handle_timeout(Instant::now());
            }
        }
    }

    fn arrive(&mut self, source: SocketAddr, datagram: &[u8]) {
        let now = Instant::now();
        let disposition = match &mut self.connection {
            Some(connection) => connection.handle_datagram(now, source, datagram),
            None => Disposition::NewClientHello,
        };
        let (Some(listener), Disposition::NewClientHello) = (&self.listener, disposition) else { return };
        match listener.handle_datagram(now, source, datagram) {
            Incoming::Reply(transmit) | Incoming::Refused(transmit, _) => {
                self.socket.send_to(&transmit.payload, transmit.destination).unwrap();
            }
            Incoming::Hello(proven) => {
                let id = ConnectionId::random(8).unwrap();
                self.connection = Some(proven.accept(now, id).unwrap());
            }
            Incoming::Ignored => {}
        }
    }

    fn drain(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        while let Some(event) = connection.poll_event() {
            match &event {
                Event::KeyNeeded(request) => {
                    assert_eq!(request.identity, NAME.as_bytes());
                    if self.refuse {
                        connection.refuse_key(Instant::now(), KeyRefusal::Unknown).unwrap();
                    } else {
                        connection.provide_key(Instant::now(), &self.key).unwrap();
                    }
                }
                Event::ApplicationData { payload, .. } => self.received.extend_from_slice(payload),
                _ => {}
            }
            self.events.push(event);
        }
        while let Some(mut transmit) = connection.poll_transmit() {
            if self.delays_first_ack && transmit.payload[0] & 0b1110_0011 == 0b0010_0011 {
                let Some(first) = self.held.take() else {
                    self.held = Some(transmit.payload);
                    continue;
                };
                self.delays_first_ack = false;
                transmit.payload = first;
            }
            self.socket.send_to(&transmit.payload, transmit.destination).unwrap();
        }
    }

    pub fn send(&mut self, payload: &[u8]) {
        self.connection.as_mut().unwrap().send(Instant::now(), payload).unwrap();
        self.drain();
    }

    /// Makes a new write key, once the one before is acknowledged.
    pub fn update_keys(&mut self, request: bool) {
        let end = Instant::now() + PATIENCE;
        while let Err(error) = self.connection.as_mut().unwrap().update_keys(Instant::now(), request) {
            assert_eq!(error, dtls::Error::UpdatePending);
            assert!(Instant::now() < end, "never acknowledged");
            let mut once = false;
            self.until("an acknowledgement", |_| std::mem::replace(&mut once, true));
        }
        self.drain();
    }

    pub fn is_established(&self) -> bool {
        self.connection.as_ref().is_some_and(Connection::is_established)
    }

    pub fn has_received(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.received).contains(text)
    }

    pub fn closed(&self) -> Option<Closed> {
        self.events.iter().find_map(|event| match event {
            Event::Closed(closed) => Some(*closed),
            _ => None,
        })
    }

    /// What we write into our records.
    pub fn peer_connection_id(&self) -> Option<ConnectionId> {
        self.events.iter().find_map(|event| match event {
            Event::Established(established) => Some(established.peer_connection_id),
            _ => None,
        })
    }

    pub fn close(&mut self) {
        self.connection.as_mut().unwrap().close(Instant::now());
        self.drain();
    }

    pub fn suite(&self) -> Option<CipherSuite> {
        self.events.iter().find_map(|event| match event {
            Event::Established(established) => Some(established.cipher_suite),
            _ => None,
        })
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

const OPENSSL: [(CipherSuite, &str); 4] = [
    (CipherSuite::EcdhePskChacha20Poly1305, "ECDHE-PSK-CHACHA20-POLY1305"),
    (CipherSuite::PskAes128Gcm, "PSK-AES128-GCM-SHA256"),
    (CipherSuite::PskAes128Ccm, "PSK-AES128-CCM"),
    (CipherSuite::PskAes128Ccm8, "PSK-AES128-CCM8"),
];

fn s_client(port: u16, cipher: &str) -> Command {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-dtls1_2", "-psk", KEY, "-psk_identity", NAME, "-cipher", cipher]);
    command.args(["-connect", &format!("127.0.0.1:{port}"), "-mtu", "1400"]);
    command
}

#[test]
fn openssl_as_client_exchanges_data_over_each_suite_it_knows() {
    for (suite, cipher) in OPENSSL {
        let mut ours = Ours::server(&CipherSuite::ALL);
        let mut peer = Program::start(&mut s_client(ours.port(), cipher));
        ours.until("handshake", Ours::is_established);
        assert_eq!(ours.suite(), Some(suite));
        peer.type_line("from openssl\n");
        ours.until("data", |ours| ours.has_received("from openssl"));
        ours.send(b"to openssl\n");
        ours.until("data at the peer", |_| peer.printed("to openssl"));
        peer.type_line("Q\n");
        ours.until("close_notify", |ours| ours.closed() == Some(Closed::Peer));
    }
}

#[test]
fn openssl_as_client_is_told_that_its_identity_is_unknown() {
    let mut ours = Ours::server(&CipherSuite::ALL);
    ours.refuse = true;
    let peer = Program::start(&mut s_client(ours.port(), "PSK-AES128-GCM-SHA256"));
    ours.until("the alert at the peer", |_| peer.printed("alert number 115"));
}

#[test]
fn openssl_as_client_may_not_renegotiate() {
    let mut ours = Ours::server(&CipherSuite::ALL);
    let mut peer = Program::start(&mut s_client(ours.port(), "PSK-AES128-GCM-SHA256"));
    ours.until("handshake", Ours::is_established);
    peer.type_line("R\n");
    ours.until("the warning at the peer", |_| peer.printed("no renegotiation"));
}

#[test]
fn openssl_as_client_with_nothing_in_common_is_told_so() {
    let mut ours = Ours::server(&[CipherSuite::EcdhePskAes128Gcm]);
    let peer = Program::start(&mut s_client(ours.port(), "PSK-AES128-GCM-SHA256"));
    ours.until("the alert at the peer", |_| peer.printed("alert number 40"));
    assert!(ours.connection.is_none());
}

#[test]
fn openssl_as_server_exchanges_data_over_each_suite_it_knows() {
    for (suite, cipher) in OPENSSL {
        let port = free_port();
        let mut command = Command::new("openssl");
        command.args(["s_server", "-dtls1_2", "-psk", KEY, "-psk_identity", NAME, "-cipher", cipher, "-nocert"]);
        command.args(["-listen", "-psk_hint", "3GPP-AKMA", "-mtu", "1400", "-accept", &format!("127.0.0.1:{port}")]);
        let mut peer = Program::start(&mut command);
        let mut ours = Ours::client(loopback(port), &CipherSuite::ALL);
        ours.until("handshake", Ours::is_established);
        assert_eq!(ours.suite(), Some(suite));
        ours.send(b"to openssl\n");
        ours.until("data at the peer", |_| peer.printed("to openssl"));
        peer.type_line("from openssl\n");
        ours.until("data", |ours| ours.has_received("from openssl"));
        ours.close();
        ours.until("the end at the peer", |_| peer.printed("DONE"));
    }
}

/// Debian 12's gnutls-cli crashes in its own summary of an ECDHE_PSK handshake of TLS 1.2, so as a client it does plain
/// PSK only.
#[test]
fn gnutls_as_client_exchanges_data_over_each_suite_it_knows() {
    let suites = [(CipherSuite::PskAes128Gcm, "AES-128-GCM"), (CipherSuite::PskAes128Ccm, "AES-128-CCM")];
    for (suite, cipher) in suites {
        let mut ours = Ours::server(&CipherSuite::ALL);
        let mut command = Command::new("gnutls-cli");
        command.args(["--udp", "--pskusername", NAME, "--pskkey", KEY, "-p", &ours.port().to_string()]);
        command.args(["--priority", &format!("NORMAL:-VERS-ALL:+VERS-DTLS1.2:-KX-ALL:+PSK:-CIPHER-ALL:+{cipher}")]);
        let mut peer = Program::start(command.arg("127.0.0.1"));
        ours.until("handshake", Ours::is_established);
        assert_eq!(ours.suite(), Some(suite));
        peer.type_line("from gnutls\n");
        ours.until("data", |ours| ours.has_received("from gnutls"));
        ours.send(b"to gnutls\n");
        ours.until("data at the peer", |_| peer.printed("to gnutls"));
    }
}

#[test]
fn gnutls_as_server_echoes_over_each_suite_it_knows() {
    let folder = tempfile::tempdir().unwrap();
    let passwords = folder.path().join("psk");
    std::fs::write(&passwords, format!("{NAME}:{KEY}\n")).unwrap();
    let suites = [
        (CipherSuite::EcdhePskChacha20Poly1305, "ECDHE-PSK", "CHACHA20-POLY1305"),
        (CipherSuite::PskAes128Gcm, "PSK", "AES-128-GCM"),
        (CipherSuite::PskAes128Ccm, "PSK", "AES-128-CCM"),
        (CipherSuite::PskAes128Ccm8, "PSK", "AES-128-CCM-8"),
    ];
    for (suite, exchange, cipher) in suites {
        let port = free_port();
        let mut command = Command::new("gnutls-serv");
        command.args(["--udp", "--echo", "--port", &port.to_string(), "--pskpasswd"]).arg(&passwords);
        command
            .args(["--priority", &format!("NORMAL:-VERS-ALL:+VERS-DTLS1.2:-KX-ALL:+{exchange}:-CIPHER-ALL:+{cipher}")]);
        let _peer = Program::start(&mut command);
        let mut ours = Ours::client(loopback(port), &CipherSuite::ALL);
        ours.until("handshake", Ours::is_established);
        assert_eq!(ours.suite(), Some(suite));
        ours.send(b"there and back\n");
        ours.until("the echo", |ours| ours.has_received("there and back"));
    }
}
