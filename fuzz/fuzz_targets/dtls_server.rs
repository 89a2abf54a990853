//! Both machines with a hostile network between them, which drops, changes, cuts, repeats and makes up datagrams: neither
//! panics, both end, the unproven are never answered with more than they sent, and nothing is received that was not sent.
#![no_main]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dtls::{
    CipherSuite, ClientConfig, Closed, Connection, ConnectionId, Disposition, Event, Incoming, Listener, PresharedKey,
    ServerConfig,
};
use libfuzzer_sys::fuzz_target;

const UP: &[u8] = b"from the client";
const DOWN: &[u8] = b"from the server";
const STEPS_MAX: usize = 64;

fuzz_target!(|input: (u8, Vec<(u8, u16, &[u8])>)| {
    let (suite, steps) = input;
    let mut scene = Scene::new(CipherSuite::ALL[usize::from(suite) % CipherSuite::ALL.len()]);
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
    }
});

struct Scene {
    now: Instant,
    listener: Listener,
    client: Connection,
    server: Option<Connection>,
    last: [Vec<u8>; 2],
}

impl Scene {
    fn new(suite: CipherSuite) -> Self {
        let now = Instant::now();
        let (mut client, mut server) = (ClientConfig::new(b"meter-7"), ServerConfig::default());
        client.session.cipher_suites = vec![suite];
        client.connection_id = ConnectionId::new(b"cl").ok();
        server.session.cipher_suites = CipherSuite::ALL.to_vec();
        Self {
            now,
            listener: Listener::new(Arc::new(server), now).expect("configuration"),
            client: Connection::client(Arc::new(client), now, server_address()).expect("configuration"),
            server: None,
            last: [Vec::new(), Vec::new()],
        }
    }

    fn step(&mut self, action: u8, at: usize, octets: &[u8]) {
        let from_client = action & 1 == 0;
        match action >> 1 & 7 {
            0..=2 => self.forward(from_client, |_| {}),
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
        let Some(mut datagram) = side.and_then(Connection::poll_transmit).map(|transmit| transmit.payload) else { return };
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
            Some(server) => server.handle_datagram(self.now, client_address(), datagram),
            None => Disposition::NewClientHello,
        };
        if disposition != Disposition::NewClientHello {
            return;
        }
        match self.listener.handle_datagram(self.now, client_address(), datagram) {
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

fn client_address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 40_000))
}

fn server_address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 2], 5_684))
}
