//! The client's side.

use std::sync::Arc;
use std::time::Instant;

use crate::config::ClientConfig;
use crate::connection::core::Core;
use crate::connection::{Event, Role};
use crate::crypto::{self, exchange::KeyShare};
use crate::error::{Error, Failure};
use crate::handshake::hello::{
    ClientHello, DOWNGRADED, DOWNGRADED_FURTHER, HELLO_RETRY_REQUEST, HelloVerifyRequest, RANDOM_OCTETS, ServerHello,
    peer_connection_id,
};
use crate::handshake::offer::{Offer, OfferedPsks, PSK_DHE_KE, encrypted_extensions};
use crate::handshake::transcript::Transcript;
use crate::handshake::{self, Message, MessageType};
use crate::key::{KeyRequest, PresharedKey};
use crate::limits::HELLO_VERIFY_REQUESTS_MAX;
use crate::record;
use crate::record::epochs::{APPLICATION, Epochs, HANDSHAKE, ReadEpoch, WriteEpoch};
use crate::suite::{CipherSuite, Group, ProtocolVersion};
use crate::v12;
use crate::v13::schedule::{Early, Handshake};
use crate::v13::{LOG_APPLICATION, LOG_HANDSHAKE, Secrets, message};

/// Octets of a cookie that a ClientHello must have room for: a server without memory must get it in one datagram.
const COOKIE_OCTETS_EXPECTED: usize = 64;
const BINDER_OCTETS: usize = 32;
const EPOCH_HANDSHAKE: u16 = 2;

/// Extensions that may come in EncryptedExtensions: server_name, supported_groups.
const ENCRYPTED_EXTENSIONS: [u16; 2] = [0, 10];

/// The handshake from the first ClientHello on.
pub(crate) struct Client {
    config: Arc<ClientConfig>,
    random: [u8; RANDOM_OCTETS],
    state: State,
}

/// Where a message led.
pub(crate) enum Step {
    /// The handshake goes on.
    On,
    Established,
    /// The server wants DTLS 1.2: the handshake goes on as this, from the message on.
    Older(Box<v12::Client>),
}

enum State {
    Key(Box<Hello>),
    ServerHello(Box<Greeted>),
    EncryptedExtensions(Box<Keyed>),
    Finished(Box<Keyed>),
    Done,
}

/// What the next ClientHello says, but for its binder.
struct Hello {
    hello: ClientHello,
    share: KeyShare,
}

/// A ClientHello is out.
struct Greeted {
    hello: Hello,
    early: Early,
    transcript: Transcript,
    /// What the HelloRetryRequest chose, once there was one.
    retried: Option<CipherSuite>,
    verify_requests: u8,
}

/// The keys of the handshake are there.
struct Keyed {
    suite: CipherSuite,
    group: Group,
    handshake: Handshake,
    secrets: Secrets,
    transcript: Transcript,
}

impl Client {
    /// Asks for the key, which the first ClientHello proves.
    pub(crate) fn start(core: &mut Core, config: Arc<ClientConfig>) -> Result<Self, Error> {
        let mut random = [0; RANDOM_OCTETS];
        crypto::random(&mut random)?;
        let session = &config.session;
        let suites_of = |version| session.cipher_suites.iter().copied().find(move |suite| suite.is_of(version));
        let older = suites_of(ProtocolVersion::Dtls12).is_some();
        let cipher_suite = suites_of(ProtocolVersion::Dtls13).ok_or(Error::Config("no cipher suite of DTLS 1.3"))?;
        let group = session.groups.first().copied().ok_or(Error::Config("no group"))?;
        let share = KeyShare::generate(group)?;
        let mut versions = vec![ProtocolVersion::DTLS_1_3_CODE];
        if older {
            versions.push(ProtocolVersion::DTLS_1_2_CODE);
        }
        let offer = Offer {
            versions: Some(versions),
            key_shares: Some(vec![(group.code(), share.public().to_vec())]),
            psk_modes: Some(vec![PSK_DHE_KE]),
            pre_shared_key: Some(OfferedPsks {
                identities: vec![(config.identity.clone(), 0)],
                binders: vec![vec![0; BINDER_OCTETS]],
            }),
            ..Offer::default()
        };
        let hello = ClientHello {
            version: ProtocolVersion::DTLS_1_2_CODE,
            random,
            session_id: Vec::new(),
            cookie: Vec::new(),
            cipher_suites: session.cipher_suites.clone(),
            compression_null: true,
            groups: session.groups.clone(),
            point_format_uncompressed: older.then_some(true),
            extended_master_secret: older,
            secure_renegotiation: older,
            renegotiates: false,
            connection_id: config.connection_id.map(|id| id.as_bytes().to_vec()),
            server_name: config.server_name.as_ref().map(|name| name.to_ascii_lowercase()),
            offer,
        };
        let headers = record::HEADER_OCTETS + handshake::HEADER_OCTETS;
        if headers + hello.encode().len() + COOKIE_OCTETS_EXPECTED > session.datagram_octets_max {
            return Err(Error::Config("a ClientHello with its cookie does not fit in one datagram"));
        }
        core.push_event(Event::KeyNeeded(KeyRequest {
            version: ProtocolVersion::Dtls13,
            cipher_suite,
            identity: config.identity.clone(),
            server_name: config.server_name.clone(),
            identity_hint: None,
        }));
        Ok(Self { config, random, state: State::Key(Box::new(Hello { hello, share })) })
    }

    pub(crate) fn awaits_key(&self) -> bool {
        matches!(self.state, State::Key(_))
    }

    /// Sends the first ClientHello.
    pub(crate) fn provide_key(&mut self, core: &mut Core, now: Instant, key: &PresharedKey) -> Result<(), Failure> {
        let State::Key(hello) = std::mem::replace(&mut self.state, State::Done) else {
            return Err(Error::NoKeyAwaited.into());
        };
        let greeted = Greeted {
            hello: *hello,
            early: Early::new(key.expose()),
            transcript: Transcript::new(),
            retried: None,
            verify_requests: 0,
        };
        self.say_hello(core, now, Box::new(greeted))
    }

    /// Sends a ClientHello, with its binder over what was said before and the rest of itself.
    fn say_hello(&mut self, core: &mut Core, now: Instant, mut greeted: Box<Greeted>) -> Result<(), Failure> {
        // What the transcript of DTLS 1.2 begins with, if it comes to that.
        core.transcript_restart();
        let hello = &mut greeted.hello.hello;
        let mut partial = greeted.transcript.clone();
        let unbound = Message { message_type: MessageType::CLIENT_HELLO, sequence: 0, body: hello.encode() };
        if let Some(psks) = &mut hello.offer.pre_shared_key {
            partial.add_plain_without(&unbound, psks.binders_octets());
            psks.binders = vec![greeted.early.binder(&partial.hash())?.to_vec()];
        }
        let body = hello.encode();
        let item = message(core, &mut greeted.transcript, 0, MessageType::CLIENT_HELLO, body);
        core.send_flight(now, vec![item], true);
        self.state = State::ServerHello(greeted);
        Ok(())
    }

    /// Takes the next message in order.
    pub(crate) fn handle(&mut self, core: &mut Core, now: Instant, message: &Message) -> Result<Step, Failure> {
        match (std::mem::replace(&mut self.state, State::Done), message.message_type) {
            (State::ServerHello(greeted), MessageType::HELLO_VERIFY_REQUEST) => {
                self.hello_verify_request(core, now, greeted, message)?;
            }
            (State::ServerHello(greeted), MessageType::SERVER_HELLO) => {
                return self.server_hello(core, now, greeted, message);
            }
            (State::EncryptedExtensions(keyed), MessageType::ENCRYPTED_EXTENSIONS) => {
                self.encrypted_extensions(keyed, message)?;
            }
            (State::Finished(keyed), MessageType::FINISHED) => {
                Self::finished(core, now, *keyed, message, &self.random)?;
                return Ok(Step::Established);
            }
            _ => return Err(Error::UnexpectedMessage.into()),
        }
        Ok(Step::On)
    }

    /// A server that speaks DTLS 1.2 only asks for the cookie in its own way. The ClientHello keeps what it offers, so
    /// that nobody else can take that away unseen.
    fn hello_verify_request(
        &mut self,
        core: &mut Core,
        now: Instant,
        mut greeted: Box<Greeted>,
        message: &Message,
    ) -> Result<(), Failure> {
        let request = HelloVerifyRequest::parse(&message.body).map_err(|_| Error::Malformed("HelloVerifyRequest"))?;
        if greeted.retried.is_some() || !greeted.hello.hello.offer.allows_dtls12() {
            return Err(Error::UnexpectedMessage.into());
        }
        if greeted.verify_requests >= HELLO_VERIFY_REQUESTS_MAX {
            return Err(Error::HelloVerifyRequests.into());
        }
        greeted.verify_requests += 1;
        greeted.hello.hello.cookie = request.cookie.to_vec();
        greeted.transcript = Transcript::new();
        self.say_hello(core, now, greeted)
    }

    fn server_hello(
        &mut self,
        core: &mut Core,
        now: Instant,
        greeted: Box<Greeted>,
        message: &Message,
    ) -> Result<Step, Failure> {
        let hello = ServerHello::parse(&message.body).map_err(|_| Error::Malformed("ServerHello"))?;
        let Some(version) = hello.answer.version else { return self.older(&greeted, &hello) };
        if version != ProtocolVersion::DTLS_1_3_CODE || greeted.verify_requests > 0 {
            return Err(Error::IllegalParameter("supported_versions").into());
        }
        if hello.version != ProtocolVersion::DTLS_1_2_CODE || !hello.session_id.is_empty() || hello.compression != 0 {
            return Err(Error::IllegalParameter("ServerHello").into());
        }
        let suite = CipherSuite::from_code(hello.cipher_suite)
            .filter(|suite| suite.is_of(ProtocolVersion::Dtls13) && self.config.session.cipher_suites.contains(suite))
            .filter(|suite| greeted.retried.is_none_or(|retried| retried == *suite))
            .ok_or(Error::IllegalParameter("cipher suite"))?;
        let unoffered = hello.unknown_extension
            || hello.extended_master_secret
            || hello.renegotiation_info.is_some()
            || hello.point_formats
            || hello.server_name
            || (hello.connection_id.is_some() && self.config.connection_id.is_none());
        if unoffered {
            return Err(Error::UnsupportedExtension.into());
        }
        if hello.random == HELLO_RETRY_REQUEST {
            self.hello_retry_request(core, now, greeted, &hello, suite, message)?;
        } else {
            self.keys(core, *greeted, &hello, suite, message)?;
        }
        Ok(Step::On)
    }

    /// The server wants DTLS 1.2, if it may.
    fn older(&mut self, greeted: &Greeted, hello: &ServerHello) -> Result<Step, Failure> {
        if greeted.retried.is_some() {
            return Err(Error::MissingExtension("supported_versions").into());
        }
        if hello.version != ProtocolVersion::DTLS_1_2_CODE || !greeted.hello.hello.offer.allows_dtls12() {
            return Err(Error::Version.into());
        }
        if hello.random.ends_with(&DOWNGRADED) || hello.random.ends_with(&DOWNGRADED_FURTHER) {
            return Err(Error::Downgrade.into());
        }
        let hello = greeted.hello.hello.clone();
        Ok(Step::Older(Box::new(v12::Client::resume(Arc::clone(&self.config), hello, greeted.verify_requests))))
    }

    /// RFC 8446 4.1.4: another ClientHello, with the cookie and a share of the group asked for.
    fn hello_retry_request(
        &mut self,
        core: &mut Core,
        now: Instant,
        mut greeted: Box<Greeted>,
        retry: &ServerHello,
        suite: CipherSuite,
        message: &Message,
    ) -> Result<(), Failure> {
        if greeted.retried.is_some() {
            return Err(Error::UnexpectedMessage.into());
        }
        if retry.answer.identity.is_some() || retry.connection_id.is_some() {
            return Err(Error::UnsupportedExtension.into());
        }
        if let Some((code, _)) = retry.answer.key_share {
            let group = Group::from_code(code)
                .filter(|group| self.config.session.groups.contains(group) && greeted.hello.share.group() != *group)
                .ok_or(Error::IllegalParameter("group"))?;
            greeted.hello.share = KeyShare::generate(group)?;
        } else if retry.answer.cookie.is_none() {
            // It would change nothing.
            return Err(Error::IllegalParameter("HelloRetryRequest").into());
        }
        let share = &greeted.hello.share;
        let offer = &mut greeted.hello.hello.offer;
        offer.key_shares = Some(vec![(share.group().code(), share.public().to_vec())]);
        offer.cookie.clone_from(&retry.answer.cookie);
        greeted.retried = Some(suite);
        greeted.transcript = Transcript::of_hello_hash(greeted.transcript.hash());
        greeted.transcript.add_plain(message);
        core.plain_version_settled = true;
        let headers = record::HEADER_OCTETS + handshake::HEADER_OCTETS;
        if headers + greeted.hello.hello.encode().len() > self.config.session.datagram_octets_max {
            return Err(Error::IllegalParameter("cookie").into());
        }
        self.say_hello(core, now, greeted)
    }

    /// The ServerHello gives the keys of the handshake.
    fn keys(
        &mut self,
        core: &mut Core,
        greeted: Greeted,
        hello: &ServerHello,
        suite: CipherSuite,
        message: &Message,
    ) -> Result<(), Failure> {
        let Greeted { hello: Hello { share, .. }, early, mut transcript, .. } = greeted;
        if hello.answer.cookie.is_some() {
            return Err(Error::UnsupportedExtension.into());
        }
        // Without the pre-shared key it would have to prove itself by a certificate, which is not done here.
        match hello.answer.identity {
            Some(0) => {}
            Some(_) => return Err(Error::IllegalParameter("pre_shared_key").into()),
            None => return Err(Error::MissingExtension("pre_shared_key").into()),
        }
        let Some((code, Some(public))) = &hello.answer.key_share else {
            return Err(Error::MissingExtension("key_share").into());
        };
        if *code != share.group().code() {
            return Err(Error::IllegalParameter("group").into());
        }
        if let (Some(own), Some(peer)) = (self.config.connection_id, &hello.connection_id) {
            core.peer_id = peer_connection_id(peer).ok_or(Error::IllegalParameter("connection_id"))?;
            core.own_id = own;
        }
        let shared = share.agree(public)?;
        transcript.add_plain(message);
        let handshake = early.handshake(&shared)?;
        let hellos = transcript.hash();
        let secrets = Secrets::derive(|role| handshake.traffic(role, &hellos))?;
        secrets.log(core, LOG_HANDSHAKE, &self.random);
        let copy = |role| handshake.traffic(role, &hellos);
        let write = WriteEpoch::new(suite, HANDSHAKE, copy(Role::Client)?)?;
        let read = ReadEpoch::new(suite, HANDSHAKE, copy(Role::Server)?)?;
        core.epochs = Some(Box::new(Epochs::new(suite, write, read)));
        core.end_flight();
        let group = share.group();
        self.state = State::EncryptedExtensions(Box::new(Keyed { suite, group, handshake, secrets, transcript }));
        Ok(())
    }

    fn encrypted_extensions(&mut self, mut keyed: Box<Keyed>, message: &Message) -> Result<(), Failure> {
        let numbers = encrypted_extensions(&message.body).map_err(|_| Error::Malformed("EncryptedExtensions"))?;
        let offered =
            |number: &u16| ENCRYPTED_EXTENSIONS.contains(number) && (*number != 0 || self.config.server_name.is_some());
        if !numbers.iter().all(offered) {
            return Err(Error::UnsupportedExtension.into());
        }
        keyed.transcript.add_plain(message);
        self.state = State::Finished(keyed);
        Ok(())
    }

    /// Verifies the server's Finished and answers with ours.
    fn finished(
        core: &mut Core,
        now: Instant,
        keyed: Keyed,
        message: &Message,
        random: &[u8; RANDOM_OCTETS],
    ) -> Result<(), Failure> {
        let Keyed { suite, group, handshake, secrets, mut transcript } = keyed;
        if !crypto::equal(&secrets.server.finished(&transcript.hash())?, &message.body) {
            return Err(Error::Finished.into());
        }
        transcript.add_plain(message);
        let whole = transcript.hash();
        let master = handshake.master()?;
        let application = Secrets::derive(|role| master.traffic(role, &whole))?;
        application.log(core, LOG_APPLICATION, random);
        let verify_data = secrets.client.finished(&whole)?;
        let finished = core.message(EPOCH_HANDSHAKE, MessageType::FINISHED, verify_data.to_vec());
        let epochs = core.epochs.as_mut().ok_or(Error::UnexpectedMessage)?;
        epochs.add_write(WriteEpoch::new(suite, APPLICATION, application.client)?);
        epochs.add_read(ReadEpoch::new(suite, APPLICATION, application.server)?);
        core.send_flight(now, vec![finished], true);
        core.establish(suite, Some(group), now);
        Ok(())
    }
}
