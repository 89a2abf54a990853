//! The server's side.

use std::sync::Arc;
use std::time::Instant;

use zeroize::Zeroizing;

use crate::alert::Alert;
use crate::config::{ServerConfig, UnknownIdentity};
use crate::connection::core::Core;
use crate::connection::{Event, Role};
use crate::connection_id::ConnectionId;
use crate::crypto::{self, exchange::KeyShare};
use crate::error::{Error, Failure};
use crate::handshake::exchange::{ClientKeyExchange, ServerKeyExchange};
use crate::handshake::flight::FlightItem;
use crate::handshake::hello::{ClientHello, DOWNGRADED, RANDOM_OCTETS, ServerHello, peer_connection_id};
use crate::handshake::offer::Answer;
use crate::handshake::{Message, MessageType};
use crate::key::{KeyRefusal, KeyRequest, PresharedKey};
use crate::limits::PSK_IDENTITY_OCTETS_MAX;
use crate::record::protection;
use crate::suite::{CipherSuite, Group, ProtocolVersion};
use crate::v12::schedule::{Master, VERIFY_OCTETS};

/// What the hellos agree on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Negotiated {
    pub(crate) suite: CipherSuite,
    /// With a forward secret suite.
    pub(crate) group: Option<Group>,
    /// What the client wants in our records.
    pub(crate) peer_id: Option<ConnectionId>,
}

impl Negotiated {
    /// What a server of this configuration answers, or why it cannot.
    pub(crate) fn of_hello(config: &ServerConfig, hello: &ClientHello) -> Result<Self, Error> {
        if !config.session.cipher_suites.iter().any(|suite| suite.is_of(ProtocolVersion::Dtls12)) {
            return Err(Error::Version);
        }
        // Later versions have lower numbers, and their clients speak 1.2 if they say nothing else (RFC 6347 4.1).
        if hello.version > ProtocolVersion::DTLS_1_2_CODE || !hello.offer.allows_dtls12() {
            return Err(Error::Version);
        }
        if !hello.compression_null {
            return Err(Error::IllegalParameter("compression methods"));
        }
        if !hello.extended_master_secret {
            return Err(Error::ExtendedMasterSecret);
        }
        if hello.renegotiates {
            return Err(Error::IllegalParameter("renegotiation_info"));
        }
        let peer_id = match hello.connection_id.as_deref().map(peer_connection_id) {
            None => None,
            Some(Some(id)) => Some(id),
            Some(None) => return Err(Error::IllegalParameter("connection_id")),
        };
        let session = &config.session;
        let group = match hello.point_format_uncompressed {
            Some(false) => None,
            _ => session.groups.iter().copied().find(|group| hello.groups.contains(group)),
        };
        let suite = session
            .cipher_suites
            .iter()
            .copied()
            .filter(|suite| suite.is_of(ProtocolVersion::Dtls12))
            .find(|suite| hello.cipher_suites.contains(suite) && (group.is_some() || !suite.is_forward_secret()))
            .ok_or(Error::CipherSuite)?;
        Ok(Self { suite, group: group.filter(|_| suite.is_forward_secret()), peer_id })
    }
}

/// The handshake from the proven ClientHello on.
pub(crate) struct Server {
    config: Arc<ServerConfig>,
    negotiated: Negotiated,
    client_random: [u8; RANDOM_OCTETS],
    server_random: [u8; RANDOM_OCTETS],
    server_name: Option<String>,
    /// The key was refused, and the client is not told.
    refused: Option<KeyRefusal>,
    state: State,
}

enum State {
    ClientKeyExchange { share: Option<KeyShare> },
    Key { shared: Option<Zeroizing<Vec<u8>>> },
    Finished { master: Master },
    Done,
}

impl Server {
    /// Sends ServerHello to ServerHelloDone.
    pub(crate) fn start(
        core: &mut Core,
        now: Instant,
        config: Arc<ServerConfig>,
        message: &Message,
        hello: ClientHello,
        negotiated: Negotiated,
        own_id: ConnectionId,
    ) -> Result<Self, Error> {
        let mut server_random = [0; RANDOM_OCTETS];
        crypto::random(&mut server_random)?;
        if config.speaks(ProtocolVersion::Dtls13)
            && let Some(end) = server_random.last_chunk_mut()
        {
            *end = DOWNGRADED;
        }
        let share = negotiated.group.map(KeyShare::generate).transpose()?;
        if let Some(peer_id) = negotiated.peer_id {
            core.own_id = own_id;
            core.peer_id = peer_id;
        }
        core.transcript_add(message);

        let server_hello = ServerHello {
            version: ProtocolVersion::DTLS_1_2_CODE,
            random: server_random,
            session_id: Vec::new(),
            cipher_suite: negotiated.suite.code(),
            compression: 0,
            extended_master_secret: true,
            renegotiation_info: hello.secure_renegotiation.then_some(true),
            point_formats: hello.point_format_uncompressed.is_some() && negotiated.group.is_some(),
            server_name: false,
            connection_id: negotiated.peer_id.map(|_| own_id.as_bytes().to_vec()),
            answer: Answer::default(),
            unknown_extension: false,
        };
        let mut items = vec![core.message(0, MessageType::SERVER_HELLO, server_hello.encode())];
        // RFC 4279 2: without a hint, plain PSK leaves the message out.
        if share.is_some() || config.identity_hint.is_some() {
            let exchange = ServerKeyExchange {
                identity_hint: config.identity_hint.clone().unwrap_or_default(),
                share: share.as_ref().map(|share| (share.group().code(), share.public().to_vec())),
            };
            items.push(core.message(0, MessageType::SERVER_KEY_EXCHANGE, exchange.encode()));
        }
        items.push(core.message(0, MessageType::SERVER_HELLO_DONE, Vec::new()));
        core.send_flight(now, items, true);
        Ok(Self {
            config,
            negotiated,
            client_random: hello.random,
            server_random,
            server_name: hello.server_name,
            refused: None,
            state: State::ClientKeyExchange { share },
        })
    }

    pub(crate) fn client_random(&self) -> &[u8; RANDOM_OCTETS] {
        &self.client_random
    }

    /// Takes the next message in order. Returns whether the handshake is done.
    pub(crate) fn handle(&mut self, core: &mut Core, now: Instant, message: Message) -> Result<bool, Failure> {
        match (&self.state, message.message_type) {
            (State::ClientKeyExchange { .. }, MessageType::CLIENT_KEY_EXCHANGE) => {
                self.client_key_exchange(core, &message)?;
                Ok(false)
            }
            (State::Finished { .. }, MessageType::FINISHED) => self.finished(core, now, &message),
            _ => Err(Error::UnexpectedMessage.into()),
        }
    }

    fn client_key_exchange(&mut self, core: &mut Core, message: &Message) -> Result<(), Failure> {
        let State::ClientKeyExchange { share } = &self.state else { return Err(Error::UnexpectedMessage.into()) };
        let exchange = ClientKeyExchange::parse(&message.body, share.is_some())
            .map_err(|_| Error::Malformed("ClientKeyExchange"))?;
        let shared = match (share, &exchange.public) {
            (Some(share), Some(public)) => Some(share.agree(public)?),
            _ => None,
        };
        core.transcript_add(message);
        core.end_flight();
        self.state = State::Key { shared };
        if exchange.identity.len() > PSK_IDENTITY_OCTETS_MAX {
            return self.refuse_key(core, KeyRefusal::Unknown);
        }
        core.push_event(Event::KeyNeeded(KeyRequest {
            version: ProtocolVersion::Dtls12,
            cipher_suite: self.negotiated.suite,
            identity: exchange.identity,
            server_name: self.server_name.clone(),
            identity_hint: None,
        }));
        Ok(())
    }

    pub(crate) fn awaits_key(&self) -> bool {
        matches!(self.state, State::Key { .. })
    }

    /// Ends the handshake with the alert for a refused key; or goes on with a key that nobody has, so that an unknown
    /// identity looks like a wrong key.
    pub(crate) fn refuse_key(&mut self, core: &mut Core, refusal: KeyRefusal) -> Result<(), Failure> {
        let alert = match (refusal, self.config.unknown_identity) {
            (KeyRefusal::Unavailable, _) => Alert::INTERNAL_ERROR,
            (KeyRefusal::Unknown, UnknownIdentity::Tell) => Alert::UNKNOWN_PSK_IDENTITY,
            (KeyRefusal::Unknown, UnknownIdentity::Hide) => {
                let mut nobodys = Zeroizing::new([0; 32]);
                crypto::random(nobodys.as_mut())?;
                self.refused = Some(refusal);
                return self.provide_key(core, &PresharedKey::new(nobodys.as_ref())?);
            }
        };
        Err(Failure { alert, error: Error::KeyRefused(refusal) })
    }

    /// Whether the key was refused without a word.
    pub(crate) fn refused(&self) -> Option<KeyRefusal> {
        self.refused
    }

    /// Goes on with the key.
    pub(crate) fn provide_key(&mut self, core: &mut Core, key: &PresharedKey) -> Result<(), Failure> {
        let State::Key { shared } = &self.state else { return Err(Error::NoKeyAwaited.into()) };
        let master = Master::derive(key, shared.as_ref().map(|shared| shared.as_slice()), &core.transcript_hash())?;
        core.log_master(&self.client_random, master.expose());
        let keys = master.keys(self.negotiated.suite, Role::Server, &self.client_random, &self.server_random)?;
        core.install_keys(keys);
        self.state = State::Finished { master };
        Ok(())
    }

    fn finished(&mut self, core: &mut Core, now: Instant, message: &Message) -> Result<bool, Failure> {
        let State::Finished { master } = &self.state else { return Err(Error::UnexpectedMessage.into()) };
        let expected: [u8; VERIFY_OCTETS] = master.verify_data(Role::Client, &core.transcript_hash())?;
        if !crypto::equal(&expected, &message.body) {
            return Err(Error::Finished.into());
        }
        core.transcript_add(message);
        let verify_data = master.verify_data(Role::Server, &core.transcript_hash())?;
        let finished = core.message(protection::EPOCH, MessageType::FINISHED, verify_data.to_vec());
        core.send_flight(now, vec![FlightItem::ChangeCipherSpec, finished], false);
        self.state = State::Done;
        core.establish(self.negotiated.suite, self.negotiated.group, now);
        Ok(true)
    }
}
