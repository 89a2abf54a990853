//! CAPIF-2e with TLS-PSK (TS 33.122 clause 6.5.2.1): HTTP/2 over TLS 1.2 where the key, AEF_PSK, is asked for while the
//! handshake waits.
//!
//! The flow on the accepting side is that of [`crate::handshake_sniffer`] for TLS 1.2: hold the ClientHello until it is
//! whole, let OpenSSL answer, hold the ClientKeyExchange until the key of the identity in it is there. Limits on how many
//! handshakes run, and how long one may take, are the caller's: a server has them for its other connections already.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use akma::{AefPsk, KAf};
use openssl::error::ErrorStack;
use openssl::ssl::{
    AlpnError, Ssl, SslContext, SslContextBuilder, SslMethod, SslRef, SslVerifyMode, SslVersion, select_next_proto,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use crate::alert::Alert;
use crate::gate::Gate;
use crate::handshake_error::HandshakeError;
use crate::handshake_io::{next_item, step};
use crate::handshake_sniffer::{HandshakeSniffer, Sniffed};
use crate::key_source::BoxFuture;
use crate::profile::{ALPN_H2, ProfileError, harden};
use crate::psk::{ClientKeys, ClientPsk, ServerPsk, attach_client_psk, attach_server_psk, client_psk, server_psk};
use crate::psk_server::copy_key;

/// Whoever knows the AEF_PSK of an API invoker: the CAPIF core function, asked by the API exposing function.
pub trait ApiKeySource: Send + Sync {
    /// The key of `identity`, an API invoker ID as the peer wrote it; `None` when it has none, or none can be had. `source`
    /// makes us ask.
    fn key_of<'a>(&'a self, identity: &'a str, source: IpAddr) -> BoxFuture<'a, Option<AefPsk>>;
}

/// Accepts TLS 1.2 connections by AEF_PSK. Cheap to clone.
#[derive(Clone)]
pub struct ApiPskAcceptor {
    context: SslContext,
    keys: Arc<dyn ApiKeySource>,
}

impl fmt::Debug for ApiPskAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiPskAcceptor")
    }
}

impl ApiPskAcceptor {
    /// An acceptor that asks `keys`.
    ///
    /// # Errors
    /// [`ProfileError::OpenSsl`] when OpenSSL refuses the profile.
    pub fn new(keys: Arc<dyn ApiKeySource>) -> Result<Self, ProfileError> {
        let mut context = context(SslMethod::tls_server())?;
        context.set_psk_server_callback(|ssl, identity, key| {
            let found = server_psk(ssl).zip(identity).and_then(|(psk, identity)| psk.key_of(identity));
            Ok(found.map_or(0, |known| copy_key(known.expose(), key)))
        });
        context
            .set_alpn_select_callback(|_, offered| select_next_proto(ALPN_H2, offered).ok_or(AlpnError::ALERT_FATAL));
        Ok(Self { context: context.build(), keys })
    }

    /// Runs one handshake to its end.
    ///
    /// # Errors
    /// [`HandshakeError`]. An identity without a key gets `unknown_psk_identity`, a client without TLS 1.2
    /// `protocol_version`.
    pub async fn accept(&self, mut socket: TcpStream, source: IpAddr) -> Result<ApiPskStream, HandshakeError> {
        socket.set_nodelay(true)?;
        let mut sniffer = HandshakeSniffer::new(HANDSHAKE_OCTETS_MAX);
        let hello = loop {
            if let Some(Sniffed::ClientHello { records, .. }) = next_item(&mut sniffer, &mut socket).await? {
                break records;
            }
        };
        let psk = Arc::new(ServerPsk::default());
        let mut session = Ssl::new(&self.context)?;
        attach_server_psk(&mut session, Arc::clone(&psk))?;
        let mut stream = SslStream::new(session, Gate::new(socket))?;
        stream.get_mut().release(&hello);
        let mut done = step(&mut stream).await?;
        sniffer.await_client_key_exchange();
        let mut proven = None;
        while !done {
            let Some(item) = next_item(&mut sniffer, stream.get_mut().transport()?).await? else { continue };
            let octets = match item {
                Sniffed::ClientKeyExchange { identity, record } => {
                    match self.key(identity, source).await {
                        Some((identity, key)) => {
                            psk.fill(identity.clone().into_bytes(), key);
                            proven = Some(identity);
                        }
                        None => return Err(unknown_identity(stream.get_mut().transport()?).await),
                    }
                    record
                }
                Sniffed::ClientHello { records: octets, .. } | Sniffed::Other(octets) => octets,
            };
            stream.get_mut().release(&octets);
            done = step(&mut stream).await?;
        }
        psk.clear();
        let identity = proven
            .filter(|_| used_profile(stream.ssl()))
            .ok_or(HandshakeError::Protocol("the handshake did not use the key"))?;
        if let Some(Sniffed::Other(octets)) = sniffer.next()? {
            stream.get_mut().release(&octets);
        }
        stream.get_mut().open();
        Ok(ApiPskStream { stream, identity })
    }

    async fn key(&self, identity: Option<Vec<u8>>, source: IpAddr) -> Option<(String, KAf)> {
        let identity = identity.filter(|identity| identity.len() <= IDENTITY_OCTETS_MAX)?;
        let identity = String::from_utf8(identity).ok()?;
        let key = self.keys.key_of(&identity, source).await?;
        // The slot that OpenSSL's callback reads is one for all keys of 32 octets.
        Some((identity, KAf::from_bytes(*key.expose())))
    }
}

/// An accepted connection of an API invoker: decrypted octets in and out.
pub struct ApiPskStream {
    stream: SslStream<Gate<TcpStream>>,
    identity: String,
}

impl ApiPskStream {
    /// The API invoker ID whose key the peer holds.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Whether the client chose HTTP/2.
    #[must_use]
    pub fn speaks_http2(&self) -> bool {
        self.stream.ssl().selected_alpn_protocol() == Some(b"h2")
    }
}

impl fmt::Debug for ApiPskStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiPskStream").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl AsyncRead for ApiPskStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for ApiPskStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The invoker's side: connects by TLS 1.2 with `identity` and `key`, and offers HTTP/2. `host` is for SNI, where it is a name.
///
/// # Errors
/// [`HandshakeError`], in the server's words: [`HandshakeError::PeerAlert`] 115 is an identity that it does not know, 20 a
/// key that is another.
pub async fn connect_api_psk(
    socket: TcpStream,
    host: &str,
    identity: &str,
    key: &AefPsk,
) -> Result<SslStream<TcpStream>, HandshakeError> {
    socket.set_nodelay(true)?;
    let mut context = context(SslMethod::tls_client())?;
    // No authority is trusted, so no server gets past by certificate.
    context.set_verify(SslVerifyMode::PEER);
    context.set_alpn_protos(ALPN_H2)?;
    context.set_psk_client_callback(|ssl, _hint, identity, key| {
        let Some(psk) = client_psk(ssl) else { return Ok(0) };
        let Some(known) = psk.tls12_key(SUITE) else { return Ok(0) };
        match identity.get_mut(..=psk.identity().len()).and_then(<[u8]>::split_last_mut) {
            Some((end, place)) => {
                place.copy_from_slice(psk.identity());
                *end = 0;
                Ok(copy_key(known.expose(), key))
            }
            None => Ok(0),
        }
    });
    let mut session = Ssl::new(&context.build())?;
    if host.parse::<IpAddr>().is_err() {
        session.set_hostname(host)?;
    }
    let keys = ClientKeys { tls13: None, tls12: vec![(SUITE, KAf::from_bytes(*key.expose()))] };
    let psk = Arc::new(ClientPsk::new(identity.as_bytes().to_vec(), keys));
    attach_client_psk(&mut session, Arc::clone(&psk))?;
    let mut stream = SslStream::new(session, socket)?;
    Pin::new(&mut stream).connect().await.map_err(HandshakeError::of_openssl)?;
    psk.clear();
    if !used_profile(stream.ssl()) {
        return Err(HandshakeError::Protocol("the handshake did not use the key"));
    }
    Ok(stream)
}

fn context(method: SslMethod) -> Result<SslContextBuilder, ErrorStack> {
    let mut context = SslContextBuilder::new(method)?;
    harden(&mut context)?;
    context.set_max_proto_version(Some(SslVersion::TLS1_2))?;
    context.set_cipher_list(SUITES)?;
    context.set_groups_list("X25519:P-256")?;
    Ok(context)
}

fn used_profile(ssl: &SslRef) -> bool {
    let suite = ssl.current_cipher().map(|cipher| u16::from_be_bytes(cipher.protocol_id()));
    ssl.version2() == Some(SslVersion::TLS1_2) && suite == Some(SUITE)
}

async fn unknown_identity(socket: &mut TcpStream) -> HandshakeError {
    // Whether it arrives changes nothing here.
    let _ = socket.write_all(&Alert::UnknownPskIdentity.record()).await;
    HandshakeError::Lookup(crate::key_source::LookupRefusal::Unknown)
}

/// TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256 (RFC 7905): the one suite of TLS 1.2 with a PSK, forward secrecy and AEAD that
/// OpenSSL has.
const SUITE: u16 = 0xCCAC;
const SUITES: &str = "ECDHE-PSK-CHACHA20-POLY1305";
/// The handshake's octets from the peer.
const HANDSHAKE_OCTETS_MAX: usize = 16_384;
/// An API invoker ID is a UUID; nothing longer is asked about.
const IDENTITY_OCTETS_MAX: usize = 128;
