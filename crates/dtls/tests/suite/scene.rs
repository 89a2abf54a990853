//! A client, a server and a network between them that loses, delays, repeats and damages, all under virtual time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dtls::{
    CipherSuite, ClientConfig, Connection, ConnectionId, Disposition, Event, Incoming, KeyRefusal, Listener,
    PresharedKey, ServerConfig, Transmit,
};

pub const IDENTITY: &[u8] = b"3GPP-AKMA;0.0102@5gc.mnc001.mcc001.3gppnetwork.org";
pub const CONNECTION_ID_OCTETS: usize = 8;

pub fn client_address() -> SocketAddr {
    "192.0.2.1:40000".parse().unwrap()
}

pub fn server_address() -> SocketAddr {
    "[2001:db8::2]:5684".parse().unwrap()
}

pub fn key() -> PresharedKey {
    PresharedKey::new(&[0x5a; 32]).unwrap()
}

pub fn client_config(suites: &[CipherSuite]) -> ClientConfig {
    let mut config = ClientConfig::new(IDENTITY);
    config.session.cipher_suites = suites.to_vec();
    config
}

pub fn server_config(suites: &[CipherSuite]) -> ServerConfig {
    let mut config = ServerConfig::default();
    config.session.cipher_suites = suites.to_vec();
    config.identity_hint = Some(b"3GPP-AKMA".to_vec());
    config
}

/// splitmix64: a run is what its seed says.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What the network does, in percent of the datagrams, and how long they take.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    pub loss: u64,
    pub duplication: u64,
    pub corruption: u64,
    /// Each datagram takes a random part of it, so that they overtake each other.
    pub delay_milliseconds_max: u64,
    /// How long a key takes to be found.
    pub key_milliseconds: u64,
    /// Octets of a datagram that the path carries; what is larger is lost, of either side.
    pub mtu: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Client,
    Server,
}

enum Due {
    Datagram(Side, Vec<u8>),
    Key(Side),
}

/// What the sides' drivers answer to `KeyNeeded`.
#[derive(Clone)]
pub enum Answer {
    Key(PresharedKey),
    Refusal(KeyRefusal),
    Silence,
}

pub struct Scene {
    pub now: Instant,
    pub client: Connection,
    pub server: Option<Connection>,
    pub listener: Listener,
    pub weather: Weather,
    pub random: Random,
    pub client_answer: Answer,
    pub server_answer: Answer,
    /// Where the client's datagrams come from.
    pub source: SocketAddr,
    pub connection_id: ConnectionId,
    pub client_events: Vec<Event>,
    pub server_events: Vec<Event>,
    /// The largest datagram seen.
    pub octets_max: usize,
    /// The largest that begins with a ClientHello.
    pub hello_octets_max: usize,
    /// Datagrams to client and server that were too large for the path.
    pub too_large: (usize, usize),
    /// Octets from client and server before the server had a session.
    pub unproven_octets: (usize, usize),
    /// Change one octet of this datagram (counted from 0 over both sides), at this place.
    pub change: Option<(usize, usize)>,
    /// The length of the datagram that was changed.
    pub changed: Option<usize>,
    /// What goes to a client that is established is lost until then.
    pub client_deaf_until: Option<Instant>,
    due: BTreeMap<(Instant, u64), Due>,
    count: u64,
    /// Datagrams put on the network.
    pub posted: usize,
}

impl Scene {
    pub fn new(client: ClientConfig, server: ServerConfig) -> Self {
        let now = Instant::now();
        Self {
            now,
            client: Connection::client(Arc::new(client), now, server_address()).unwrap(),
            server: None,
            listener: Listener::new(Arc::new(server), now).unwrap(),
            weather: Weather::default(),
            random: Random(0),
            client_answer: Answer::Key(key()),
            server_answer: Answer::Key(key()),
            source: client_address(),
            connection_id: ConnectionId::random(CONNECTION_ID_OCTETS).unwrap(),
            client_events: Vec::new(),
            server_events: Vec::new(),
            octets_max: 0,
            hello_octets_max: 0,
            too_large: (0, 0),
            unproven_octets: (0, 0),
            change: None,
            changed: None,
            client_deaf_until: None,
            due: BTreeMap::new(),
            count: 0,
            posted: 0,
        }
    }

    /// Both sides with the same suites, everything else by default.
    pub fn simple(suites: &[CipherSuite]) -> Self {
        Self::new(client_config(suites), server_config(suites))
    }

    /// Runs until nothing is under way, or for `limit` of virtual time. Returns whether it came to rest.
    pub fn run(&mut self, limit: Duration) -> bool {
        let end = self.now + limit;
        loop {
            self.drain();
            let timeouts = [self.client.poll_timeout(), self.server.as_ref().and_then(Connection::poll_timeout)];
            let due = self.due.keys().next().map(|(at, _)| *at);
            let Some(next) = timeouts.into_iter().flatten().chain(due).min() else { return true };
            if next > end {
                self.now = end;
                return false;
            }
            self.now = self.now.max(next);
            while let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let due = entry.remove();
                self.deliver(due);
                self.drain();
            }
            self.client.handle_timeout(self.now);
            if let Some(server) = &mut self.server {
                server.handle_timeout(self.now);
            }
        }
    }

    /// Runs until both are established; panics if they are not within two minutes.
    pub fn establish(&mut self) {
        let end = self.now + Duration::from_secs(120);
        while !self.is_established() {
            assert!(self.now < end, "not established: {:?} {:?}", self.client_events, self.server_events);
            self.run(Duration::from_millis(50));
        }
    }

    pub fn is_established(&self) -> bool {
        self.client.is_established() && self.server.as_ref().is_some_and(Connection::is_established)
    }

    pub fn server(&mut self) -> &mut Connection {
        self.server.as_mut().unwrap()
    }

    /// Takes the payloads that came to a side so far.
    pub fn received(&mut self, side: Side) -> Vec<Vec<u8>> {
        let events = match side {
            Side::Client => &mut self.client_events,
            Side::Server => &mut self.server_events,
        };
        let payload = |event: &Event| match event {
            Event::ApplicationData { payload, .. } => Some(payload.clone()),
            _ => None,
        };
        let payloads = events.iter().filter_map(payload).collect();
        events.retain(|event| payload(event).is_none());
        payloads
    }

    fn deliver(&mut self, due: Due) {
        match due {
            Due::Key(side) => self.answer(side),
            Due::Datagram(Side::Client, datagram) => {
                self.client.handle_datagram(self.now, server_address(), &datagram);
            }
            Due::Datagram(Side::Server, datagram) => self.arrive_at_server(&datagram),
        }
    }

    fn arrive_at_server(&mut self, datagram: &[u8]) {
        let disposition = match &mut self.server {
            Some(server) => server.handle_datagram(self.now, self.source, datagram),
            None => Disposition::NewClientHello,
        };
        if disposition != Disposition::NewClientHello {
            return;
        }
        let unproven = self.server.is_none();
        if unproven {
            self.unproven_octets.0 += datagram.len();
        }
        match self.listener.handle_datagram(self.now, self.source, datagram) {
            Incoming::Reply(transmit) | Incoming::Refused(transmit, _) => {
                assert!(transmit.payload.len() <= datagram.len());
                if unproven {
                    self.unproven_octets.1 += transmit.payload.len();
                }
                self.post(Side::Client, transmit);
            }
            // A server would keep both for a while; here the one that is there stays.
            Incoming::Hello(proven) if self.server.is_none() => {
                self.server = Some(proven.accept(self.now, self.connection_id).unwrap());
            }
            Incoming::Hello(_) | Incoming::Ignored => {}
        }
    }

    fn answer(&mut self, side: Side) {
        let now = self.now;
        let (connection, answer) = match side {
            Side::Client => (&mut self.client, self.client_answer.clone()),
            Side::Server => (self.server.as_mut().unwrap(), self.server_answer.clone()),
        };
        // It may have ended in the meantime.
        let _ = match answer {
            Answer::Key(key) => connection.provide_key(now, &key),
            Answer::Refusal(refusal) => connection.refuse_key(now, refusal),
            Answer::Silence => Ok(()),
        };
    }

    fn drain(&mut self) {
        let mut keys = Vec::new();
        loop {
            let mut silent = true;
            while let Some(event) = self.client.poll_event() {
                silent = false;
                if matches!(event, Event::KeyNeeded(_)) {
                    keys.push(Side::Client);
                }
                self.client_events.push(event);
            }
            while let Some(event) = self.server.as_mut().and_then(Connection::poll_event) {
                silent = false;
                if matches!(event, Event::KeyNeeded(_)) {
                    keys.push(Side::Server);
                }
                self.server_events.push(event);
            }
            while let Some(transmit) = self.client.poll_transmit() {
                silent = false;
                self.post(Side::Server, transmit);
            }
            while let Some(transmit) = self.server.as_mut().and_then(Connection::poll_transmit) {
                silent = false;
                self.post(Side::Client, transmit);
            }
            for side in keys.drain(..) {
                let at = self.now + Duration::from_millis(self.weather.key_milliseconds);
                self.schedule(at, Due::Key(side));
            }
            if silent {
                return;
            }
        }
    }

    fn schedule(&mut self, at: Instant, due: Due) {
        self.count += 1;
        self.due.insert((at, self.count), due);
    }

    /// Puts a datagram on the network.
    pub fn post(&mut self, to: Side, mut transmit: Transmit) {
        if let Some((_, at)) = self.change.filter(|(which, _)| *which == self.posted)
            && let Some(octet) = transmit.payload.get_mut(at)
        {
            *octet ^= 0x11;
            self.changed = Some(transmit.payload.len());
        }
        self.posted += 1;
        let octets = transmit.payload.len();
        self.octets_max = self.octets_max.max(octets);
        // A record of type handshake with a message of type client_hello.
        if (transmit.payload.first(), transmit.payload.get(13)) == (Some(&22), Some(&1)) {
            self.hello_octets_max = self.hello_octets_max.max(octets);
        }
        if self.weather.mtu.is_some_and(|mtu| octets > mtu) {
            match to {
                Side::Client => self.too_large.0 += 1,
                Side::Server => self.too_large.1 += 1,
            }
            return;
        }
        let deaf = self.client.is_established() && self.client_deaf_until.is_some_and(|until| self.now < until);
        if deaf && to == Side::Client {
            return;
        }
        let copies = 1 + u64::from(self.random.percent(self.weather.duplication));
        for _ in 0..copies {
            if self.random.percent(self.weather.loss) {
                continue;
            }
            let mut payload = transmit.payload.clone();
            if self.random.percent(self.weather.corruption) && !payload.is_empty() {
                let at = self.random.below(payload.len() as u64) as usize;
                payload[at] ^= 1 << self.random.below(8);
            }
            let delay = self.random.below(self.weather.delay_milliseconds_max + 1);
            self.schedule(self.now + Duration::from_millis(delay), Due::Datagram(to, payload));
        }
    }
}
