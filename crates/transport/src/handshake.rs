//! One handshake, server side, from the first octet to a proven peer.
//!
//! 1. Read until the ClientHello is whole. Until then the connection costs a socket and its octets, no TLS state.
//! 2. Judge it: server name, and in TLS 1.3 forward secrecy and PSK identities.
//! 3. TLS 1.3: look the key up now, then let OpenSSL see the ClientHello and go on to the end.
//! 4. TLS 1.2: let OpenSSL answer, read until the ClientKeyExchange is whole, look the key up for the suite that was
//!    chosen, then let OpenSSL go on to the end (RFC 4279; TS 33.220 Annex H for the protocol identifier).
//!
//! While a lookup runs nothing is read: the peer's octets wait in the kernel.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use akma::{AKid, PskIdentity, UaProtocolId};
use openssl::ssl::{Ssl, SslRef, SslVersion};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_openssl::SslStream;
use tracing::debug;

use crate::detached::Detached;
use crate::expiring::later;
use crate::ffi;
use crate::found_key::{Found, tell_refusal};
use crate::gate::Gate;
use crate::handshake_error::HandshakeError;
use crate::handshake_io::{next_item, step};
use crate::handshake_sniffer::{ClientHello, HandshakeSniffer, Sniffed};
use crate::key_source::LookupRefusal;
use crate::psk::{ServerPsk, attach_server_psk};
use crate::psk_profile::{self, CODES_TLS13, TlsVersion};
use crate::psk_server::{Acceptor, ProvenPeer, SecuredStream};

/// The state of a handshake under way.
pub(crate) struct Handshake<'a> {
    acceptor: &'a Acceptor,
    source: IpAddr,
    sniffer: HandshakeSniffer,
    /// The version whose alerts the peer expects of us.
    version: TlsVersion,
    /// Whom the peer claims to be, once it has said so.
    a_kid: Option<AKid>,
    /// Whether an alert of our own makes sense: nothing is encrypted yet, and OpenSSL has sent none.
    may_alert: bool,
}

/// A ClientHello that is worth TLS state.
struct Opening {
    records: Vec<u8>,
    psk: Arc<ServerPsk>,
    /// In TLS 1.3; in TLS 1.2 the key comes later.
    found: Option<Found>,
}

impl<'a> Handshake<'a> {
    /// Runs it, and tells the peer why if it fails.
    pub(crate) async fn run(
        acceptor: &'a Acceptor,
        mut socket: TcpStream,
        source: IpAddr,
    ) -> Result<SecuredStream, HandshakeError> {
        let deadline = later(Instant::now(), acceptor.config.handshake_timeout);
        let mut handshake = Self {
            acceptor,
            source,
            sniffer: HandshakeSniffer::new(acceptor.config.limits.octets_max),
            version: TlsVersion::Tls12,
            a_kid: None,
            may_alert: true,
        };
        let opened = timeout_at(deadline, handshake.open(&mut socket)).await;
        let opening =
            opened.unwrap_or(Err(HandshakeError::TimedOut)).map_err(|error| handshake.refuse(&socket, error))?;
        let mut session = Ssl::new(&acceptor.context)?;
        attach_server_psk(&mut session, Arc::clone(&opening.psk))?;
        let mut stream = SslStream::new(session, Gate::new(socket))?;
        let concluded = timeout_at(deadline, handshake.conclude(&mut stream, opening)).await;
        match concluded.unwrap_or(Err(HandshakeError::TimedOut)) {
            Ok(peer) => Ok(handshake.secured(stream, peer)?),
            Err(error) => match stream.get_mut().transport() {
                Ok(socket) => Err(handshake.refuse(socket, error)),
                Err(_) => Err(error),
            },
        }
    }

    /// In TLS 1.3 the connection goes on without OpenSSL's object, which is most of its memory.
    fn secured(
        &self,
        mut stream: SslStream<Gate<TcpStream>>,
        peer: ProvenPeer,
    ) -> Result<SecuredStream, HandshakeError> {
        let Some(keys) = Detached::keys_of(stream.ssl()) else {
            stream.get_mut().open();
            return Ok(SecuredStream::over_openssl(stream, peer));
        };
        let (socket, early) = stream.get_mut().take().ok_or(HandshakeError::Closed)?;
        let records = self.acceptor.config.limits.records_per_key_max;
        Ok(SecuredStream::detached(Detached::new(socket, keys, &early).with_records_per_key(records), peer))
    }

    /// Steps 1 to 3 of the module's flow, before there is TLS state.
    async fn open(&mut self, socket: &mut TcpStream) -> Result<Opening, HandshakeError> {
        // Small records both ways; nothing gains from waiting for more.
        socket.set_nodelay(true)?;
        let patience = Duration::from_millis(self.acceptor.config.limits.client_hello_timeout_ms);
        let (hello, records) =
            timeout(patience, self.client_hello(socket)).await.map_err(|_| HandshakeError::TimedOut)??;
        self.judge_server_name(&hello)?;
        let psk = Arc::new(ServerPsk::default());
        let mut found = None;
        if hello.offers_tls13 {
            self.version = TlsVersion::Tls13;
            found = Some(self.key_of_hello(hello, &psk).await?);
        }
        Ok(Opening { records, psk, found })
    }

    /// Steps 3 and 4: OpenSSL's part, with a stop for the key in TLS 1.2.
    async fn conclude(
        &mut self,
        stream: &mut SslStream<Gate<TcpStream>>,
        opening: Opening,
    ) -> Result<ProvenPeer, HandshakeError> {
        let Opening { records, psk, mut found } = opening;
        stream.get_mut().release(&records);
        let mut done = self.step(stream).await?;
        match stream.ssl().version2() {
            Some(SslVersion::TLS1_2) => self.sniffer.await_client_key_exchange(),
            _ => self.may_alert = false,
        }
        while !done {
            let Some(item) = next_item(&mut self.sniffer, stream.get_mut().transport()?).await? else { continue };
            let octets = match item {
                Sniffed::ClientKeyExchange { identity, record } => {
                    let suite = ffi::pending_cipher_suite(stream.ssl()).ok_or(HandshakeError::NoAKid)?;
                    found = Some(self.key_of_exchange(identity, suite, &psk).await?);
                    self.may_alert = false;
                    record
                }
                Sniffed::ClientHello { records: octets, .. } | Sniffed::Other(octets) => octets,
            };
            stream.get_mut().release(&octets);
            done = self.step(stream).await?;
        }
        psk.clear();
        let peer = self.proven_peer(stream.ssl(), found)?;
        // What was read beyond the handshake belongs to the connection.
        if let Some(Sniffed::Other(octets)) = self.sniffer.next()? {
            stream.get_mut().release(&octets);
        }
        Ok(peer)
    }

    /// Fails closed: whatever OpenSSL says, the peer is proven only by the key that was looked up for this
    /// version and suite.
    fn proven_peer(&self, ssl: &SslRef, found: Option<Found>) -> Result<ProvenPeer, HandshakeError> {
        let (tls_version, suite, cipher) = psk_profile::outcome(ssl, self.acceptor.config.allow_plain_psk_tls12)
            .ok_or(HandshakeError::Protocol("the handshake did not use the key"))?;
        Found::proven_peer(found, tls_version, suite, cipher)
    }

    async fn client_hello(&mut self, socket: &mut TcpStream) -> Result<(ClientHello, Vec<u8>), HandshakeError> {
        loop {
            match next_item(&mut self.sniffer, socket).await? {
                Some(Sniffed::ClientHello { hello, records }) => return Ok((hello, records)),
                _ => continue,
            }
        }
    }

    fn judge_server_name(&self, hello: &ClientHello) -> Result<(), HandshakeError> {
        let config = &self.acceptor.config;
        match &hello.server_name {
            Some(name) if name.eq_ignore_ascii_case(config.fqdn.as_str().as_bytes()) => Ok(()),
            None if !config.require_sni => Ok(()),
            _ => Err(HandshakeError::ServerName),
        }
    }

    /// TLS 1.3: the key of the first identity that has one.
    async fn key_of_hello(&mut self, hello: ClientHello, psk: &ServerPsk) -> Result<Found, HandshakeError> {
        let identities = hello.psk_identities.ok_or(HandshakeError::NoAKid)?;
        if !hello.psk_dhe_ke {
            return Err(HandshakeError::NoForwardSecrecy);
        }
        if !hello.cipher_suites.iter().any(|suite| CODES_TLS13.contains(suite)) {
            return Err(HandshakeError::NothingInCommon);
        }
        if hello.early_data {
            debug!(target: "security", source = %self.source, "early data offered; it is not accepted");
        }
        let mut refusal = HandshakeError::NoAKid;
        for identity in identities {
            let Ok(a_kid) = PskIdentity::parse(&identity) else { continue };
            match self.look_up(a_kid, UaProtocolId::TLS_1_3).await {
                Ok(found) => {
                    psk.fill(identity, found.key.k_af.clone());
                    return Ok(found);
                }
                Err(unknown @ (LookupRefusal::Unknown | LookupRefusal::Expired)) => refusal = unknown.into(),
                Err(other) => return Err(other.into()),
            }
        }
        Err(refusal)
    }

    /// TLS 1.2: the key of the one identity, for the suite chosen.
    async fn key_of_exchange(
        &mut self,
        identity: Option<Vec<u8>>,
        suite: u16,
        psk: &ServerPsk,
    ) -> Result<Found, HandshakeError> {
        let identity = identity.ok_or(HandshakeError::NoAKid)?;
        let a_kid = PskIdentity::parse(&identity).map_err(|_| HandshakeError::NoAKid)?;
        let found = self.look_up(a_kid, UaProtocolId::tls_1_2(suite)).await?;
        psk.fill(identity, found.key.k_af.clone());
        Ok(found)
    }

    async fn look_up(&mut self, a_kid: AKid, protocol: UaProtocolId) -> Result<Found, LookupRefusal> {
        self.a_kid = Some(a_kid.clone());
        Found::look_up(&self.acceptor.lookup, a_kid, protocol, self.source).await
    }

    /// [`step`]. What fails there OpenSSL has told the peer itself.
    async fn step(&mut self, stream: &mut SslStream<Gate<TcpStream>>) -> Result<bool, HandshakeError> {
        let done = step(stream).await;
        self.may_alert &= done.is_ok();
        done
    }

    /// Tells the log, and the peer as far as it would understand, and leaves nothing unread: closing a socket with
    /// unread octets resets the connection, and the alert might be lost.
    fn refuse(&self, socket: &TcpStream, error: HandshakeError) -> HandshakeError {
        tell_refusal(self.source, self.a_kid.as_ref(), &error);
        if let Some(alert) = error.alert(self.version).filter(|_| self.may_alert) {
            // Seven octets fit into a fresh socket's buffer; if they do not, the peer does not listen.
            let _ = socket.try_write(&alert.record());
        }
        let mut unread = [0; READ_OCTETS];
        for _ in 0..UNREAD_CHUNKS_MAX {
            match socket.try_read(&mut unread) {
                Ok(octets) if octets > 0 => {}
                _ => break,
            }
        }
        error
    }
}

/// What is read at once of what a refused peer has sent.
const READ_OCTETS: usize = 4_096;
/// How much is read from a refused peer before the socket is closed.
const UNREAD_CHUNKS_MAX: usize = 16;
