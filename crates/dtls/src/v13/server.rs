//! The server's side.

use std::sync::Arc;
use std::time::Instant;

use zeroize::Zeroizing;

use crate::alert::Alert;
use crate::config::{ServerConfig, UnknownIdentity};
use crate::connection::Event;
use crate::connection::core::Core;
use crate::connection_id::ConnectionId;
use crate::cookie::Retry;
use crate::crypto::{self, exchange::KeyShare};
use crate::error::{Error, Failure};
use crate::handshake::hello::{ClientHello, HELLO_RETRY_REQUEST, RANDOM_OCTETS, ServerHello, peer_connection_id};
use crate::handshake::offer::{Answer, PSK_DHE_KE};
use crate::handshake::transcript::Transcript;
use crate::handshake::{Message, MessageType};
use crate::key::{KeyRefusal, KeyRequest, PresharedKey};
use crate::limits::PSK_IDENTITY_OCTETS_MAX;
use crate::record::epochs::{APPLICATION, Epochs, HANDSHAKE, ReadEpoch, WriteEpoch};
use crate::suite::{CipherSuite, Group, ProtocolVersion};
use crate::v13::schedule::{Early, Hash};
use crate::v13::{LOG_APPLICATION, LOG_HANDSHAKE, Secrets, message};

const EPOCH_HANDSHAKE: u16 = 2;

/// The suite and the group that a server of this configuration takes, and whether the client must send a key share for the
/// group first.
pub(crate) fn select(config: &ServerConfig, hello: &ClientHello) -> Result<(CipherSuite, Group, bool), Error> {
    check(hello)?;
    let session = &config.session;
    let suite = session
        .cipher_suites
        .iter()
        .copied()
        .find(|suite| suite.is_of(ProtocolVersion::Dtls13) && hello.cipher_suites.contains(suite))
        .ok_or(Error::CipherSuite)?;
    let shares = hello.offer.key_shares.as_ref().ok_or(Error::MissingExtension("key_share"))?;
    let mut common = session.groups.iter().copied().filter(|group| hello.groups.contains(group));
    if let Some(group) = common.clone().find(|group| shares.iter().any(|(code, _)| *code == group.code())) {
        return Ok((suite, group, false));
    }
    common.next().map(|group| (suite, group, true)).ok_or(Error::CipherSuite)
}

/// What every ClientHello of DTLS 1.3 with a pre-shared key must be (RFC 9147 5.3, RFC 8446 4.2.9, 4.2.11, 9.2).
fn check(hello: &ClientHello) -> Result<(), Error> {
    if hello.version != ProtocolVersion::DTLS_1_2_CODE {
        return Err(Error::IllegalParameter("legacy_version"));
    }
    if !hello.cookie.is_empty() {
        return Err(Error::IllegalParameter("legacy_cookie"));
    }
    if !hello.compression_null {
        return Err(Error::IllegalParameter("compression methods"));
    }
    let offer = &hello.offer;
    let Some(psks) = &offer.pre_shared_key else { return Err(Error::NoPresharedKey) };
    if offer.psk_is_not_last || psks.identities.len() != psks.binders.len() {
        return Err(Error::IllegalParameter("pre_shared_key"));
    }
    let modes = offer.psk_modes.as_ref().ok_or(Error::MissingExtension("psk_key_exchange_modes"))?;
    if !modes.contains(&PSK_DHE_KE) {
        return Err(Error::NoPresharedKey);
    }
    if hello.groups.is_empty() && offer.key_shares.is_none() {
        return Err(Error::MissingExtension("supported_groups"));
    }
    Ok(())
}

/// The HelloRetryRequest that goes with a cookie; the same each time, so that its hash need not be kept.
pub(crate) fn hello_retry_request(retry: &Retry, cookie: Vec<u8>, sequence: u16) -> Message {
    let hello = ServerHello {
        answer: Answer {
            version: Some(ProtocolVersion::DTLS_1_3_CODE),
            key_share: (retry.group != 0).then_some((retry.group, None)),
            identity: None,
            cookie: Some(cookie),
        },
        ..server_hello(HELLO_RETRY_REQUEST, retry.suite)
    };
    Message { message_type: MessageType::SERVER_HELLO, sequence, body: hello.encode() }
}

fn server_hello(random: [u8; RANDOM_OCTETS], cipher_suite: u16) -> ServerHello {
    ServerHello {
        version: ProtocolVersion::DTLS_1_2_CODE,
        random,
        // RFC 9147 5.4: the client's is not echoed.
        session_id: Vec::new(),
        cipher_suite,
        compression: 0,
        extended_master_secret: false,
        renegotiation_info: None,
        point_formats: false,
        server_name: false,
        connection_id: None,
        answer: Answer::default(),
        unknown_extension: false,
    }
}

/// What the hellos agree on.
pub(crate) struct Negotiated {
    suite: CipherSuite,
    group: Group,
    /// The client's public key.
    public: Vec<u8>,
    /// What the client wants in our records.
    peer_id: Option<ConnectionId>,
    identity: Vec<u8>,
    binder: Vec<u8>,
    /// Of everything before the ClientHello that counts.
    transcript: Transcript,
}

impl Negotiated {
    /// What a server of this configuration answers to a ClientHello with a cookie, or why it cannot.
    pub(crate) fn of_hello(
        config: &ServerConfig,
        hello: &ClientHello,
        retry: &Retry,
        cookie: &[u8],
    ) -> Result<Self, Error> {
        let (suite, group, lacks_share) = select(config, hello)?;
        // The rest of the hello is the client's to keep as it was (RFC 8446 4.1.2).
        if suite.code() != retry.suite || hello.offer.early_data {
            return Err(Error::IllegalParameter("second ClientHello"));
        }
        let shares = hello.offer.key_shares.as_deref().unwrap_or_default();
        if lacks_share || (retry.group != 0 && (shares.len() != 1 || group.code() != retry.group)) {
            return Err(Error::IllegalParameter("key_share"));
        }
        let public = shares.iter().find(|(code, _)| *code == group.code()).map(|(_, public)| public.clone());
        let peer_id = match hello.connection_id.as_deref().map(peer_connection_id) {
            None => None,
            Some(Some(id)) => Some(id),
            Some(None) => return Err(Error::IllegalParameter("connection_id")),
        };
        // The first is the only one looked at: each takes a look-up.
        let psks = hello.offer.pre_shared_key.as_ref().ok_or(Error::NoPresharedKey)?;
        let (identity, binder) = psks.identities.first().zip(psks.binders.first()).ok_or(Error::NoPresharedKey)?;
        let mut transcript = Transcript::of_hello_hash(retry.hello_hash);
        transcript.add_plain(&hello_retry_request(retry, cookie.to_vec(), 0));
        Ok(Self {
            suite,
            group,
            public: public.ok_or(Error::IllegalParameter("key_share"))?,
            peer_id,
            identity: identity.0.clone(),
            binder: binder.clone(),
            transcript,
        })
    }
}

/// The handshake from the proven ClientHello on.
pub(crate) struct Server {
    config: Arc<ServerConfig>,
    client_random: [u8; RANDOM_OCTETS],
    state: State,
}

enum State {
    Key(Box<Waiting>),
    Finished(Box<Answered>),
    Done,
}

/// What waits for the key.
struct Waiting {
    negotiated: Negotiated,
    /// Over everything before the binders.
    binder_hash: Hash,
}

/// What waits for the client's Finished.
struct Answered {
    suite: CipherSuite,
    group: Group,
    expected: Hash,
    application: Secrets,
}

impl Server {
    /// Asks for the key.
    pub(crate) fn start(
        core: &mut Core,
        config: Arc<ServerConfig>,
        hello: ClientHello,
        hello_message: &Message,
        mut negotiated: Negotiated,
        own_id: ConnectionId,
    ) -> Self {
        core.plain_version_settled = true;
        // From here on, so that the driver finds the session by it.
        if let Some(peer_id) = negotiated.peer_id {
            core.own_id = own_id;
            core.peer_id = peer_id;
        }
        let binders_octets = hello.offer.pre_shared_key.as_ref().map_or(0, |psks| psks.binders_octets());
        let mut partial = negotiated.transcript.clone();
        partial.add_plain_without(hello_message, binders_octets);
        negotiated.transcript.add_plain(hello_message);
        // One that is too long is not asked for; `check_identity` refuses it.
        if negotiated.identity.len() <= PSK_IDENTITY_OCTETS_MAX {
            core.push_event(Event::KeyNeeded(KeyRequest {
                version: ProtocolVersion::Dtls13,
                cipher_suite: negotiated.suite,
                identity: negotiated.identity.clone(),
                server_name: hello.server_name,
                identity_hint: None,
            }));
        }
        let waiting = Waiting { negotiated, binder_hash: partial.hash() };
        Self { config, client_random: hello.random, state: State::Key(Box::new(waiting)) }
    }

    /// Refuses an identity for which no key is asked.
    pub(crate) fn check_identity(&mut self, core: &mut Core, now: Instant) -> Result<(), Failure> {
        match &self.state {
            State::Key(waiting) if waiting.negotiated.identity.len() > PSK_IDENTITY_OCTETS_MAX => {
                self.refuse_key(core, now, KeyRefusal::Unknown)
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn client_random(&self) -> &[u8; RANDOM_OCTETS] {
        &self.client_random
    }

    pub(crate) fn awaits_key(&self) -> bool {
        matches!(self.state, State::Key(_))
    }

    /// Ends the handshake with the alert for a refused key; or as one with a wrong key ends.
    pub(crate) fn refuse_key(&mut self, core: &mut Core, now: Instant, refusal: KeyRefusal) -> Result<(), Failure> {
        let alert = match (refusal, self.config.unknown_identity) {
            (KeyRefusal::Unavailable, _) => Alert::INTERNAL_ERROR,
            (KeyRefusal::Unknown, UnknownIdentity::Tell) => Alert::UNKNOWN_PSK_IDENTITY,
            (KeyRefusal::Unknown, UnknownIdentity::Hide) => {
                let mut nobodys = Zeroizing::new([0; 32]);
                crypto::random(nobodys.as_mut())?;
                match self.provide_key(core, now, &PresharedKey::new(nobodys.as_ref())?) {
                    Err(Failure { alert, error: Error::Binder }) => alert,
                    other => return other,
                }
            }
        };
        Err(Failure { alert, error: Error::KeyRefused(refusal) })
    }

    /// Verifies the binder and sends ServerHello to Finished.
    pub(crate) fn provide_key(&mut self, core: &mut Core, now: Instant, key: &PresharedKey) -> Result<(), Failure> {
        let State::Key(waiting) = std::mem::replace(&mut self.state, State::Done) else {
            return Err(Error::NoKeyAwaited.into());
        };
        let Waiting { negotiated, binder_hash } = *waiting;
        let Negotiated { suite, group, public, peer_id, binder, mut transcript, .. } = negotiated;
        let early = Early::new(key.expose());
        if !crypto::equal(&early.binder(&binder_hash)?, &binder) {
            return Err(Error::Binder.into());
        }
        let share = KeyShare::generate(group)?;
        let shared = share.agree(&public)?;
        let mut random = [0; RANDOM_OCTETS];
        crypto::random(&mut random)?;
        let hello = ServerHello {
            connection_id: peer_id.map(|_| core.own_id.as_bytes().to_vec()),
            answer: Answer {
                version: Some(ProtocolVersion::DTLS_1_3_CODE),
                key_share: Some((group.code(), Some(share.public().to_vec()))),
                identity: Some(0),
                cookie: None,
            },
            ..server_hello(random, suite.code())
        };
        let hello = message(core, &mut transcript, 0, MessageType::SERVER_HELLO, hello.encode());
        let handshake = early.handshake(&shared)?;
        let hellos = transcript.hash();
        let secrets = Secrets::derive(|role| handshake.traffic(role, &hellos))?;
        secrets.log(core, LOG_HANDSHAKE, &self.client_random);

        // No extension that says anything: an empty list.
        let extensions = message(core, &mut transcript, EPOCH_HANDSHAKE, MessageType::ENCRYPTED_EXTENSIONS, vec![0, 0]);
        let verify_data = secrets.server.finished(&transcript.hash())?;
        let finished = message(core, &mut transcript, EPOCH_HANDSHAKE, MessageType::FINISHED, verify_data.to_vec());
        let whole = transcript.hash();
        let expected = secrets.client.finished(&whole)?;
        let master = handshake.master()?;
        let application = Secrets::derive(|role| master.traffic(role, &whole))?;
        application.log(core, LOG_APPLICATION, &self.client_random);

        let write = WriteEpoch::new(suite, HANDSHAKE, secrets.server)?;
        let read = ReadEpoch::new(suite, HANDSHAKE, secrets.client)?;
        core.epochs = Some(Box::new(Epochs::new(suite, write, read)));
        core.send_flight(now, vec![hello, extensions, finished], true);
        self.state = State::Finished(Box::new(Answered { suite, group, expected, application }));
        Ok(())
    }

    /// Takes the next message in order. Returns whether the handshake is done.
    pub(crate) fn handle(&mut self, core: &mut Core, now: Instant, message: &Message) -> Result<bool, Failure> {
        if message.message_type != MessageType::FINISHED {
            return Err(Error::UnexpectedMessage.into());
        }
        let State::Finished(answered) = std::mem::replace(&mut self.state, State::Done) else {
            return Err(Error::UnexpectedMessage.into());
        };
        let Answered { suite, group, expected, application } = *answered;
        if !crypto::equal(&expected, &message.body) {
            return Err(Error::Finished.into());
        }
        let epochs = core.epochs.as_mut().ok_or(Error::UnexpectedMessage)?;
        epochs.add_write(WriteEpoch::new(suite, APPLICATION, application.server)?);
        epochs.add_read(ReadEpoch::new(suite, APPLICATION, application.client)?);
        core.end_flight();
        core.establish(suite, Some(group), now);
        Ok(true)
    }
}
