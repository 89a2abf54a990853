//! A datagram machine on a loopback socket, driven as its documentation says, for the tests against foreign peers.
#![allow(dead_code)] // each test binary uses what it needs

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coap::{Connection, ConnectionEvent, DatagramConfig, DatagramConnection};

/// How long the peer may keep silent before the test gives up on it.
pub(crate) const SILENCE: Duration = Duration::from_secs(60);

pub(crate) struct Udp {
    socket: UdpSocket,
    connected: bool,
    pub(crate) machine: DatagramConnection,
    /// How many of our next datagrams are lost.
    pub(crate) lose: usize,
    heard: Instant,
}

impl Udp {
    /// Waits for a peer; the first that speaks is it.
    pub(crate) fn listen(config: DatagramConfig) -> Self {
        Self::new(UdpSocket::bind("127.0.0.1:0").unwrap(), false, config)
    }

    pub(crate) fn connect(port: u16, config: DatagramConfig) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(("127.0.0.1", port)).unwrap();
        Self::new(socket, true, config)
    }

    fn new(socket: UdpSocket, connected: bool, config: DatagramConfig) -> Self {
        let seed = u64::from(socket.local_addr().unwrap().port());
        let machine = DatagramConnection::new(Arc::new(config), seed);
        Self { socket, connected, machine, lose: 0, heard: Instant::now() }
    }

    pub(crate) fn port(&self) -> u16 {
        self.socket.local_addr().unwrap().port()
    }

    pub(crate) fn send(&mut self) {
        while let Some(datagram) = self.machine.poll_transmit() {
            if self.lose > 0 {
                self.lose -= 1;
                continue;
            }
            // A peer that has gone is noticed by its silence.
            let _ = self.socket.send(&datagram);
        }
    }

    /// Goes on until something happens, or until then.
    pub(crate) fn event_until(&mut self, until: Option<Instant>) -> Option<ConnectionEvent> {
        let mut buffer = [0; 2_048];
        loop {
            if let Some(event) = self.machine.poll_event() {
                return Some(event);
            }
            self.send();
            let now = Instant::now();
            if until.is_some_and(|until| until <= now) {
                return None;
            }
            assert!(self.heard.elapsed() < SILENCE, "the peer said nothing for too long");
            if self.machine.poll_timeout().is_some_and(|at| at <= now) {
                self.machine.handle_timeout(now);
                continue;
            }
            let wake = [until, self.machine.poll_timeout(), Some(now + Duration::from_secs(1))];
            let wake = wake.into_iter().flatten().min().unwrap_or(now);
            self.socket.set_read_timeout(Some((wake - now).max(Duration::from_millis(1)))).unwrap();
            match self.socket.recv_from(&mut buffer) {
                Ok((octets, from)) => {
                    if !self.connected {
                        self.socket.connect(from).unwrap();
                        self.connected = true;
                    }
                    self.heard = Instant::now();
                    self.machine.receive(&buffer[..octets], self.heard).unwrap();
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                // The peer has closed its socket; what it has to say comes no more, or from a new one.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn event(&mut self) -> ConnectionEvent {
        self.event_until(None).expect("waits until something happens")
    }

    /// Answers until the process has ended; the events that are no requests.
    pub(crate) fn serve(
        &mut self,
        process: &mut Child,
        mut answer: impl FnMut(&mut DatagramConnection, coap::Request) -> coap::Response,
    ) -> Vec<ConnectionEvent> {
        let mut others = Vec::new();
        while process.try_wait().unwrap().is_none() {
            match self.event_until(Some(Instant::now() + Duration::from_millis(20))) {
                Some(ConnectionEvent::Request { request }) => {
                    let exchange = request.exchange;
                    let response = answer(&mut self.machine, request);
                    Connection::respond(&mut self.machine, exchange, &response, Instant::now()).unwrap();
                }
                other => others.extend(other),
            }
        }
        others
    }
}

/// Starts the first of `programs` that is installed.
pub(crate) fn start(programs: &[&str], arguments: &[&str]) -> Child {
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
    panic!("{} is not installed: run `cargo xtask setup`", programs[0]);
}

/// What a process that has ended printed, errors included.
pub(crate) fn printed(process: Child) -> String {
    let output = process.wait_with_output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// A process that ends with the test.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
