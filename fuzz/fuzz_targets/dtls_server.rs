//! Both machines with a hostile network between them, which drops, changes, cuts, repeats and makes up datagrams, while the
//! input chooses what suites, and so what versions, either side takes, freezes and thaws both and moves the client: neither
//! panics, both end, the unproven are never answered with more than they sent, nothing is received that was not sent, and
//! what they agree on is something that both take.
#![no_main]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dtls::{
    AddressChange, CipherSuite, ClientConfig, Closed, Connection, ConnectionId, Disposition, Event, Frozen, Incoming,
    Listener, PresharedKey, ServerConfig,
};
use libfuzzer_sys::fuzz_target;

const UP: &[u8] = b"from the client";
const DOWN: &[u8] = b"from the server";
const STEPS_MAX: usize = 64;

fuzz_target!(|input: (u16, u16, u8, Vec<(u8, u16, &[u8])>)| {
    let (client, server, chances, steps) = input;
    let mut scene = Scene::new(client, server, chances);
    for (action, at, octets) in steps.into_iter().take(STEPS_MAX) {
        scene.step(action, usize::from(at), octets);
    }
    // The network is quiet from here on: whatever is under way comes to its end in time.
    scene.now += Duration::from_secs(1000);
    scene.handle_timeouts();
    scene.drain();
    for side in [Some(&scene.client), scene.server.as_ref()].into_iter().flatten() {
        assert!(side.is_established() || side.is_closed());
        assert_eq!(side.poll_timeout(), None);
        let suites = [&scene.client_config.session.cipher_suites, &scene.server_config.session.cipher_suites];
        assert!(side.cipher_suite().is_none_or(|suite| suites.iter().all(|offered| offered.contains(&suite))));
    }
});

struct Scene {
    now: Instant,
    listener: Listener,
    client_config: Arc<ClientConfig>,
    server_config: Arc<ServerConfig>,
    client: Connection,
    server: Option<Connection>,
    /// Where the client is.
    source: SocketAddr,
    last: [Vec<u8>; 2],
}

/// Those of the bits that are set, in an order that they give; all, if none is.
fn suites(bits: u16) -> Vec<CipherSuite> {
    let mut suites: Vec<_> =
        (0..).zip(CipherSuite::ALL).filter(|(at, _)| bits >> at & 1 != 0).map(|(_, suite)| suite).collect();
    if suites.is_empty() {
        suites = CipherSuite::ALL.to_vec();
    }
    let first = usize::from(bits >> 10) % suites.len();
    suites.rotate_left(first);
    suites
}

impl Scene {
    fn new(client_suites: u16, server_suites: u16, chances: u8) -> Self {
        let now = Instant::now();
        let (mut client, mut server) = (ClientConfig::new(b"meter-7"), ServerConfig::default());
        client.session.cipher_suites = suites(client_suites);
        client.connection_id = (chances & 1 == 0).then(|| ConnectionId::new(b"cl").expect("short"));
        server.session.cipher_suites = suites(server_suites);
        server.session.address_change = match chances >> 1 & 3 {
            0 => AddressChange::Ignore,
            1 => AddressChange::Follow,
            _ => AddressChange::Ask,
        };
        let (client, server) = (Arc::new(client), Arc::new(server));
        Self {
            now,
            listener: Listener::new(Arc::clone(&server), now).expect("configuration"),
            client: Connection::client(Arc::clone(&client), now, server_address()).expect("configuration"),
            client_config: client,
            server_config: server,
            server: None,
            source: client_address(0),
            last: [Vec::new(), Vec::new()],
        }
    }

    fn step(&mut self, action: u8, at: usize, octets: &[u8]) {
        let from_client = action & 1 == 0;
        match action >> 1 & 15 {
            8 => self.freeze(from_client),
            9 => self.move_client(at),
            10 => self.answer_move(at),
            0..=2 | 11..=13 => self.forward(from_client, |_| {}),
            3 => self.forward(from_client, |datagram| {
                for (offset, octet) in octets.iter().enumerate() {
                    let length = datagram.len();
                    datagram[(at + offset) % length] ^= octet;
                }
            }),
            4 => self.forward(from_client, |datagram| datagram.truncate(at % (datagram.len() + 1))),
            5 => self.arrive(from_client, octets),
            6 => {
                let again = self.last[usize::from(from_client)].clone();
                self.arrive(from_client, &again);
            }
            _ => {
                self.now += Duration::from_millis(at as u64);
                self.handle_timeouts();
                let now = self.now;
                let _ = self.client.send(now, UP);
                if at % 5 == 0 {
                    let _ = self.client.update_keys(now, at % 2 == 0);
                }
                if let Some(server) = &mut self.server {
                    let _ = server.send(now, DOWN);
                    if at % 3 == 0 {
                        let _ = server.update_keys(now, at % 2 == 0);
                    }
                }
            }
        }
        self.drain();
    }

    fn forward(&mut self, from_client: bool, change: impl FnOnce(&mut Vec<u8>)) {
        let side = if from_client { Some(&mut self.client) } else { self.server.as_mut() };
        let Some(mut datagram) = side.and_then(Connection::poll_transmit).map(|transmit| transmit.payload) else {
            return;
        };
        self.last[usize::from(from_client)] = datagram.clone();
        change(&mut datagram);
        self.arrive(from_client, &datagram);
    }

    fn arrive(&mut self, at_server: bool, datagram: &[u8]) {
        if !at_server {
            self.client.handle_datagram(self.now, server_address(), datagram);
            return;
        }
        let disposition = match &mut self.server {
            Some(server) => server.handle_datagram(self.now, self.source, datagram),
            None => Disposition::NewClientHello,
        };
        if disposition != Disposition::NewClientHello {
            return;
        }
        match self.listener.handle_datagram(self.now, self.source, datagram) {
            Incoming::Reply(reply) | Incoming::Refused(reply, _) => {
                assert!(reply.payload.len() <= datagram.len());
                self.client.handle_datagram(self.now, server_address(), &reply.payload);
            }
            Incoming::Hello(proven) if self.server.is_none() => {
                let id = ConnectionId::new(b"server").expect("short");
                self.server = Some(proven.accept(self.now, id).expect("randomness"));
            }
            Incoming::Hello(_) | Incoming::Ignored => {}
        }
    }

    /// Freezes a side and thaws it, if it is idle; it is what it was, and an idle one is established.
    fn freeze(&mut self, client: bool) {
        let now = self.now;
        if !client {
            let Some(server) = self.server.take() else { return };
            let before = described(&server);
            self.server = Some(match server.freeze() {
                Ok(frozen) => thawed(before, frozen, |frozen| frozen.thaw_server(Arc::clone(&self.server_config), now)),
                Err((server, _)) => *server,
            });
            return;
        }
        let other = Connection::client(Arc::clone(&self.client_config), now, server_address()).expect("configuration");
        let client = std::mem::replace(&mut self.client, other);
        let before = described(&client);
        self.client = match client.freeze() {
            Ok(frozen) => thawed(before, frozen, |frozen| frozen.thaw_client(Arc::clone(&self.client_config), now)),
            Err((client, _)) => *client,
        };
    }

    /// What the client sends comes from elsewhere from now on.
    fn move_client(&mut self, at: usize) {
        self.source = client_address(at as u16 % 4);
    }

    /// The server's driver decides about an address.
    fn answer_move(&mut self, at: usize) {
        let (now, address) = (self.now, client_address(at as u16 % 4));
        let Some(server) = &mut self.server else { return };
        let _ = match at >> 2 & 3 {
            0 => server.follow(address),
            1 => server.decline(address),
            _ => server.probe(now, DOWN),
        };
    }

    fn handle_timeouts(&mut self) {
        self.client.handle_timeout(self.now);
        if let Some(server) = &mut self.server {
            server.handle_timeout(self.now);
        }
    }

    /// Takes the events; keys are given at once.
    fn drain(&mut self) {
        let key = PresharedKey::new(&[7; 32]).expect("long enough");
        for (side, expected) in [(Some(&mut self.client), DOWN), (self.server.as_mut(), UP)] {
            let Some(side) = side else { continue };
            while let Some(event) = side.poll_event() {
                match event {
                    Event::KeyNeeded(_) => drop(side.provide_key(self.now, &key)),
                    Event::ApplicationData { payload, .. } => assert_eq!(payload, expected),
                    Event::Closed(closed) => assert_ne!(closed, Closed::Local),
                    _ => {}
                }
            }
        }
    }
}

/// What of a session is the same after it was frozen as before.
fn described(side: &Connection) -> (bool, Option<CipherSuite>, ConnectionId, SocketAddr) {
    (side.is_established(), side.cipher_suite(), side.connection_id(), side.peer_address())
}

fn thawed(
    before: (bool, Option<CipherSuite>, ConnectionId, SocketAddr),
    frozen: Frozen,
    thaw: impl FnOnce(Frozen) -> Result<Connection, dtls::Error>,
) -> Connection {
    assert!(before.0 && frozen.len() <= dtls::limits::FROZEN_OCTETS_MAX);
    let side = thaw(frozen).expect("the configuration that it had");
    assert_eq!(described(&side), before);
    side
}

fn client_address(place: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 40_000 + place))
}

fn server_address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 2], 5_684))
}
