//! The client's side.

use std::sync::Arc;
use std::time::Instant;

use crate::alert::Alert;
use crate::config::ClientConfig;
use crate::connection::core::Core;
use crate::connection::{Event, Role};
use crate::crypto::{self, exchange::KeyShare};
use crate::error::{Error, Failure};
use crate::handshake::exchange::{ClientKeyExchange, ServerKeyExchange};
use crate::handshake::flight::FlightItem;
use crate::handshake::hello::{ClientHello, HelloVerifyRequest, RANDOM_OCTETS, ServerHello, peer_connection_id};
use crate::handshake::offer::{Answer, Offer};
use crate::handshake::{self, Message, MessageType};
use crate::key::{KeyRefusal, KeyRequest, PresharedKey};
use crate::limits::HELLO_VERIFY_REQUESTS_MAX;
use crate::record::{self, protection};
use crate::suite::{CipherSuite, Group, ProtocolVersion};
use crate::v12::schedule::{Master, VERIFY_OCTETS};

/// The handshake from the first ClientHello on.
pub(crate) struct Client {
    config: Arc<ClientConfig>,
    random: [u8; RANDOM_OCTETS],
    state: State,
}

/// What the ServerHello said.
#[derive(Clone, Copy)]
struct Chosen {
    suite: CipherSuite,
    server_random: [u8; RANDOM_OCTETS],
}

/// The server's half of the ephemeral exchange.
struct ServerShare {
    group: Group,
    public: Vec<u8>,
}

enum State {
    ServerHello { hello: Box<ClientHello>, verify_requests: u8 },
    ServerKeyExchange(Chosen),
    ServerHelloDone(Chosen, Option<ServerShare>, Option<Vec<u8>>),
    Key(Chosen, Option<ServerShare>),
    Finished(Chosen, Option<Group>, Master),
    Done,
}

/// Most cookies are no longer; a server without memory must get the ClientHello in one datagram.
const COOKIE_OCTETS_EXPECTED: usize = 32;

impl Client {
    /// Sends the first ClientHello.
    pub(crate) fn start(core: &mut Core, now: Instant, config: Arc<ClientConfig>) -> Result<Self, Error> {
        let mut random = [0; RANDOM_OCTETS];
        crypto::random(&mut random)?;
        let session = &config.session;
        let suites = session.cipher_suites.iter().copied().filter(|suite| suite.is_of(ProtocolVersion::Dtls12));
        let cipher_suites: Vec<CipherSuite> = suites.collect();
        let forward_secret = cipher_suites.iter().any(|suite| suite.is_forward_secret());
        let hello = ClientHello {
            version: ProtocolVersion::DTLS_1_2_CODE,
            random,
            session_id: Vec::new(),
            cookie: Vec::new(),
            cipher_suites,
            compression_null: true,
            groups: if forward_secret { session.groups.clone() } else { Vec::new() },
            point_format_uncompressed: Some(true),
            extended_master_secret: true,
            secure_renegotiation: true,
            renegotiates: false,
            connection_id: config.connection_id.map(|id| id.as_bytes().to_vec()),
            server_name: config.server_name.as_ref().map(|name| name.to_ascii_lowercase()),
            offer: Offer::default(),
        };
        let octets = record::HEADER_OCTETS + handshake::HEADER_OCTETS + hello.encode().len() + COOKIE_OCTETS_EXPECTED;
        if octets > session.datagram_octets_max {
            return Err(Error::Config("a ClientHello with its cookie does not fit in one datagram"));
        }
        let mut client = Self { config, random, state: State::Done };
        client.say_hello(core, now, Box::new(hello), 0);
        Ok(client)
    }

    /// Goes on with a ServerHello that answers `hello`, which offered DTLS 1.3 too.
    pub(crate) fn resume(config: Arc<ClientConfig>, hello: ClientHello, verify_requests: u8) -> Self {
        let random = hello.random;
        Self { config, random, state: State::ServerHello { hello: Box::new(hello), verify_requests } }
    }

    fn say_hello(&mut self, core: &mut Core, now: Instant, hello: Box<ClientHello>, verify_requests: u8) {
        core.transcript_restart();
        let item = core.message(0, MessageType::CLIENT_HELLO, hello.encode());
        core.send_flight(now, vec![item], true);
        self.state = State::ServerHello { hello, verify_requests };
    }

    /// Takes the next message in order. Returns whether the handshake is done.
    pub(crate) fn handle(&mut self, core: &mut Core, now: Instant, message: Message) -> Result<bool, Failure> {
        match (&self.state, message.message_type) {
            (State::ServerHello { .. }, MessageType::HELLO_VERIFY_REQUEST) => {
                self.hello_verify_request(core, now, &message)?;
            }
            (State::ServerHello { .. }, MessageType::SERVER_HELLO) => self.server_hello(core, &message)?,
            (State::ServerKeyExchange(_), MessageType::SERVER_KEY_EXCHANGE) => {
                self.server_key_exchange(core, &message)?;
            }
            (State::ServerKeyExchange(chosen), MessageType::SERVER_HELLO_DONE) if !chosen.suite.is_forward_secret() => {
                // RFC 4279 2: a server without a hint leaves ServerKeyExchange out.
                self.state = State::ServerHelloDone(*chosen, None, None);
                self.server_hello_done(core, &message)?;
            }
            (State::ServerHelloDone(..), MessageType::SERVER_HELLO_DONE) => self.server_hello_done(core, &message)?,
            (State::Finished(..), MessageType::FINISHED) => return self.finished(core, now, &message),
            _ => return Err(Error::UnexpectedMessage.into()),
        }
        Ok(false)
    }

    fn hello_verify_request(&mut self, core: &mut Core, now: Instant, message: &Message) -> Result<(), Failure> {
        let State::ServerHello { mut hello, verify_requests } = std::mem::replace(&mut self.state, State::Done) else {
            return Err(Error::UnexpectedMessage.into());
        };
        let request = HelloVerifyRequest::parse(&message.body).map_err(|_| Error::Malformed("HelloVerifyRequest"))?;
        if verify_requests >= HELLO_VERIFY_REQUESTS_MAX {
            return Err(Error::HelloVerifyRequests.into());
        }
        hello.cookie = request.cookie.to_vec();
        self.say_hello(core, now, hello, verify_requests + 1);
        Ok(())
    }

    fn server_hello(&mut self, core: &mut Core, message: &Message) -> Result<(), Failure> {
        let hello = ServerHello::parse(&message.body).map_err(|_| Error::Malformed("ServerHello"))?;
        if hello.version != ProtocolVersion::DTLS_1_2_CODE {
            return Err(Error::Version.into());
        }
        let suite = CipherSuite::from_code(hello.cipher_suite)
            .filter(|suite| suite.is_of(ProtocolVersion::Dtls12) && self.config.session.cipher_suites.contains(suite))
            .ok_or(Error::IllegalParameter("cipher suite"))?;
        if hello.compression != 0 {
            return Err(Error::IllegalParameter("compression method").into());
        }
        if !hello.extended_master_secret {
            return Err(Error::ExtendedMasterSecret.into());
        }
        if hello.renegotiation_info == Some(false) {
            return Err(Failure {
                alert: Alert::HANDSHAKE_FAILURE,
                error: Error::IllegalParameter("renegotiation_info"),
            });
        }
        let unoffered = hello.unknown_extension
            || hello.answer != Answer::default()
            || (hello.server_name && self.config.server_name.is_none())
            || (hello.connection_id.is_some() && self.config.connection_id.is_none());
        if unoffered {
            return Err(Error::UnsupportedExtension.into());
        }
        if let (Some(own), Some(peer)) = (self.config.connection_id, &hello.connection_id) {
            core.own_id = own;
            core.peer_id = peer_connection_id(peer).ok_or(Error::IllegalParameter("connection_id"))?;
        }
        core.transcript_add(message);
        self.state = State::ServerKeyExchange(Chosen { suite, server_random: hello.random });
        Ok(())
    }

    fn server_key_exchange(&mut self, core: &mut Core, message: &Message) -> Result<(), Failure> {
        let State::ServerKeyExchange(chosen) = &self.state else { return Err(Error::UnexpectedMessage.into()) };
        let exchange = ServerKeyExchange::parse(&message.body, chosen.suite.is_forward_secret())
            .map_err(|_| Error::Malformed("ServerKeyExchange"))?;
        let share = match exchange.share {
            None => None,
            Some((code, public)) => {
                let group = Group::from_code(code)
                    .filter(|group| self.config.session.groups.contains(group))
                    .ok_or(Error::IllegalParameter("group"))?;
                Some(ServerShare { group, public })
            }
        };
        core.transcript_add(message);
        let hint = Some(exchange.identity_hint).filter(|hint| !hint.is_empty());
        self.state = State::ServerHelloDone(*chosen, share, hint);
        Ok(())
    }

    fn server_hello_done(&mut self, core: &mut Core, message: &Message) -> Result<(), Failure> {
        let State::ServerHelloDone(chosen, share, hint) = std::mem::replace(&mut self.state, State::Done) else {
            return Err(Error::UnexpectedMessage.into());
        };
        if !message.body.is_empty() {
            return Err(Error::Malformed("ServerHelloDone").into());
        }
        core.transcript_add(message);
        core.end_flight();
        core.push_event(Event::KeyNeeded(KeyRequest {
            version: ProtocolVersion::Dtls12,
            cipher_suite: chosen.suite,
            identity: self.config.identity.clone(),
            server_name: self.config.server_name.clone(),
            identity_hint: hint,
        }));
        self.state = State::Key(chosen, share);
        Ok(())
    }

    pub(crate) fn awaits_key(&self) -> bool {
        matches!(self.state, State::Key(..))
    }

    /// Ends the handshake for want of a key; the server is told user_canceled, which is a warning.
    pub(crate) fn refusal(&self, refusal: KeyRefusal) -> Failure {
        Failure { alert: Alert::USER_CANCELED, error: Error::KeyRefused(refusal) }
    }

    /// Sends ClientKeyExchange to Finished.
    pub(crate) fn provide_key(&mut self, core: &mut Core, now: Instant, key: &PresharedKey) -> Result<(), Failure> {
        let State::Key(chosen, server_share) = std::mem::replace(&mut self.state, State::Done) else {
            return Err(Error::NoKeyAwaited.into());
        };
        let (public, shared) = match &server_share {
            None => (None, None),
            Some(server) => {
                let share = KeyShare::generate(server.group)?;
                let shared = share.agree(&server.public)?;
                (Some(share.public().to_vec()), Some(shared))
            }
        };
        let exchange = ClientKeyExchange { identity: self.config.identity.clone(), public };
        let exchange = core.message(0, MessageType::CLIENT_KEY_EXCHANGE, exchange.encode());
        let master = Master::derive(key, shared.as_ref().map(|shared| shared.as_slice()), &core.transcript_hash())?;
        core.log_master(&self.random, master.expose());
        let verify_data = master.verify_data(Role::Client, &core.transcript_hash())?;
        let keys = master.keys(chosen.suite, Role::Client, &self.random, &chosen.server_random)?;
        core.install_keys(keys);
        let finished = core.message(protection::EPOCH, MessageType::FINISHED, verify_data.to_vec());
        core.send_flight(now, vec![exchange, FlightItem::ChangeCipherSpec, finished], true);
        self.state = State::Finished(chosen, server_share.map(|share| share.group), master);
        Ok(())
    }

    fn finished(&mut self, core: &mut Core, now: Instant, message: &Message) -> Result<bool, Failure> {
        let State::Finished(chosen, group, master) = &self.state else { return Err(Error::UnexpectedMessage.into()) };
        let expected: [u8; VERIFY_OCTETS] = master.verify_data(Role::Server, &core.transcript_hash())?;
        if !crypto::equal(&expected, &message.body) {
            return Err(Error::Finished.into());
        }
        core.end_flight();
        core.establish(chosen.suite, *group, now);
        self.state = State::Done;
        Ok(true)
    }
}
