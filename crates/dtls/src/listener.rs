//! What a server does with datagrams of nobody it knows: it proves the address by a cookie and keeps nothing before.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::alert::Alert;
use crate::codec::Reader;
use crate::config::ServerConfig;
use crate::connection::{Connection, Transmit};
use crate::connection_id::ConnectionId;
use crate::cookie::{COOKIE_OCTETS, Cookies, Retry};
use crate::error::{Error, Failure};
use crate::handshake::hello::{ClientHello, HelloVerifyRequest, cookie_bound_parts};
use crate::handshake::{Fragment, Message, MessageType};
use crate::limits::HANDSHAKE_MESSAGE_OCTETS_MAX;
use crate::record::{self, ContentType, Record};
use crate::suite::ProtocolVersion;
use crate::v12;
use crate::v13::{self, schedule::hash};

/// Answers ClientHellos. It keeps nothing about anybody, so it may be shared by all tasks of a server; a client may send
/// its second ClientHello to a socket of another task.
pub struct Listener {
    config: Arc<ServerConfig>,
    cookies: Cookies,
}

/// What became of a datagram that belongs to no session.
#[must_use]
pub enum Incoming {
    /// Send this, which has no more octets than came; nothing is kept. A HelloVerifyRequest or HelloRetryRequest.
    Reply(Transmit),
    /// Nothing can be negotiated: send this alert, which has no more octets than came; nothing is kept. With DTLS 1.2 the
    /// address is proven; with 1.3 it may not be.
    Refused(Transmit, Error),
    /// The address is proven: [`ProvenHello::accept`] makes the session, dropping it refuses without a word.
    Hello(Box<ProvenHello>),
    /// Not a ClientHello in one piece: dropped.
    Ignored,
}

impl Listener {
    /// A listener with a fresh secret for its cookies.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::Random`].
    pub fn new(config: Arc<ServerConfig>, now: Instant) -> Result<Self, Error> {
        config.check()?;
        Ok(Self { config, cookies: Cookies::new(now)? })
    }

    /// Takes a datagram that no session of the driver claims, or which one answered with
    /// [`crate::Disposition::NewClientHello`]. A ClientHello in more than one fragment is ignored: to keep fragments of
    /// the unproven would be memory that anybody may fill.
    pub fn handle_datagram(&self, now: Instant, source: SocketAddr, datagram: &[u8]) -> Incoming {
        let Some((record, _)) = record::split(datagram, 0) else { return Incoming::Ignored };
        let Some(message) = whole_client_hello(&record) else { return Incoming::Ignored };
        let Ok(bound) = cookie_bound_parts(&message.body) else { return Incoming::Ignored };
        let Ok(hello) = ClientHello::parse(&message.body) else { return Incoming::Ignored };
        if hello.offer.has_dtls13() && self.config.speaks(ProtocolVersion::Dtls13) {
            let arrival = Arrival { now, source, octets: datagram.len(), record_sequence: record.sequence };
            return self
                .handle_hello13(&arrival, bound, &message, &hello)
                .unwrap_or_else(|error| arrival.refuse(error));
        }
        if !self.cookies.verify(now, source, bound, &hello.cookie) {
            let cookie = self.cookies.make(now, source, bound);
            return Incoming::Reply(Transmit {
                destination: source,
                payload: hello_verify_request(&record, message.sequence, &cookie),
            });
        }
        match v12::Negotiated::of_hello(&self.config, &hello) {
            Ok(negotiated) => Incoming::Hello(Box::new(ProvenHello {
                config: Arc::clone(&self.config),
                source,
                record_sequence: record.sequence,
                message,
                hello,
                negotiated: Negotiated::V12(negotiated),
            })),
            Err(error) => {
                Arrival { now, source, octets: datagram.len(), record_sequence: record.sequence }.refuse(error)
            }
        }
    }

    /// A ClientHello of DTLS 1.3: without a cookie of ours it is asked for one, which carries the hash of this one.
    fn handle_hello13(
        &self,
        arrival: &Arrival,
        bound: (&[u8], &[u8]),
        message: &Message,
        hello: &ClientHello,
    ) -> Result<Incoming, Error> {
        let Arrival { now, source, .. } = *arrival;
        let (suite, group, lacks_share) = v13::select(&self.config, hello)?;
        let Some(cookie) = &hello.offer.cookie else {
            let retry = Retry {
                suite: suite.code(),
                group: if lacks_share { group.code() } else { 0 },
                hello_hash: hash(&message.encode_plain()),
            };
            let cookie = self.cookies.make_retry(now, source, bound, &retry);
            let request = v13::hello_retry_request(&retry, cookie, message.sequence);
            let payload = plain_handshake(arrival.record_sequence, ProtocolVersion::DTLS_1_2_CODE, &request);
            // Never more than came.
            let fits = payload.len() <= arrival.octets;
            let reply = Transmit { destination: source, payload };
            return Ok(if fits { Incoming::Reply(reply) } else { Incoming::Ignored });
        };
        // RFC 9147 5.1: the client starts from scratch.
        let retry = self.cookies.verify_retry(now, source, bound, cookie).ok_or(Error::IllegalParameter("cookie"))?;
        let negotiated = v13::Negotiated::of_hello(&self.config, hello, &retry, cookie)?;
        Ok(Incoming::Hello(Box::new(ProvenHello {
            config: Arc::clone(&self.config),
            source,
            record_sequence: arrival.record_sequence,
            message: message.clone(),
            hello: hello.clone(),
            negotiated: Negotiated::V13(Box::new(negotiated)),
        })))
    }
}

/// A ClientHello's datagram.
struct Arrival {
    now: Instant,
    source: SocketAddr,
    octets: usize,
    record_sequence: u64,
}

impl Arrival {
    fn refuse(&self, error: Error) -> Incoming {
        let payload = plain_alert(self.record_sequence, Failure::from(error).alert);
        Incoming::Refused(Transmit { destination: self.source, payload }, error)
    }
}

/// What the hellos agree on, by version.
pub(crate) enum Negotiated {
    V12(v12::Negotiated),
    V13(Box<v13::Negotiated>),
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listener(..)")
    }
}

/// A ClientHello whose address is proven, and with which something can be negotiated.
pub struct ProvenHello {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) source: SocketAddr,
    pub(crate) record_sequence: u64,
    pub(crate) message: Message,
    pub(crate) hello: ClientHello,
    pub(crate) negotiated: Negotiated,
}

impl ProvenHello {
    /// The proven address.
    pub fn source(&self) -> SocketAddr {
        self.source
    }

    /// The version negotiated.
    pub fn version(&self) -> ProtocolVersion {
        match self.negotiated {
            Negotiated::V12(_) => ProtocolVersion::Dtls12,
            Negotiated::V13(_) => ProtocolVersion::Dtls13,
        }
    }

    /// The host name that the client wants, in lower case.
    pub fn server_name(&self) -> Option<&str> {
        self.hello.server_name.as_deref()
    }

    /// What tells the client that it is not wanted, for a reason of the driver's: [`Alert::UNRECOGNIZED_NAME`], say.
    /// Nothing is kept.
    pub fn refuse(self, alert: Alert) -> Transmit {
        Transmit { destination: self.source, payload: plain_alert(self.record_sequence, alert) }
    }

    /// Makes the session. `connection_id` is what the client shall write into its records; empty, or if the client does
    /// not know the extension: nothing.
    ///
    /// # Errors
    /// [`Error::Random`].
    pub fn accept(self, now: Instant, connection_id: ConnectionId) -> Result<Connection, Error> {
        Connection::server(self, now, connection_id)
    }
}

impl std::fmt::Debug for ProvenHello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProvenHello").field("source", &self.source).finish_non_exhaustive()
    }
}

fn whole_client_hello(record: &Record<'_>) -> Option<Message> {
    if record.content_type != ContentType::HANDSHAKE || record.epoch != 0 {
        return None;
    }
    let fragment = Fragment::read(&mut Reader::new(record.fragment)).ok()?;
    let acceptable = fragment.message_type == MessageType::CLIENT_HELLO
        && fragment.is_whole()
        && fragment.message_octets <= HANDSHAKE_MESSAGE_OCTETS_MAX
        && fragment.sequence <= MESSAGE_SEQUENCE_MAX;
    acceptable.then(|| fragment.to_message())
}

/// A client counts its ClientHellos; it sends no more than a few.
const MESSAGE_SEQUENCE_MAX: u16 = 16;

/// With the record sequence number of the ClientHello, as RFC 6347 4.2.1 wants, and its message_seq.
fn hello_verify_request(record: &Record<'_>, sequence: u16, cookie: &[u8; COOKIE_OCTETS]) -> Vec<u8> {
    let version = ProtocolVersion::DTLS_1_0_CODE;
    let body = HelloVerifyRequest { cookie }.encode(version);
    let message = Message { message_type: MessageType::HELLO_VERIFY_REQUEST, sequence, body };
    plain_handshake(record.sequence, version, &message)
}

fn plain_handshake(record_sequence: u64, version: u16, message: &Message) -> Vec<u8> {
    let message = message.encode();
    let mut payload = Vec::with_capacity(record::HEADER_OCTETS + message.len());
    record::put_header(&mut payload, ContentType::HANDSHAKE, version, 0, record_sequence, &[], message.len());
    payload.extend_from_slice(&message);
    payload
}

fn plain_alert(record_sequence: u64, alert: Alert) -> Vec<u8> {
    let content = alert.encode();
    let version = ProtocolVersion::DTLS_1_2_CODE;
    let mut payload = Vec::new();
    record::put_header(&mut payload, ContentType::ALERT, version, 0, record_sequence, &[], content.len());
    payload.extend_from_slice(&content);
    payload
}
