//! An authorization server's key, and requests with whatever headers, for tests of producers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;
use transport::profile::{client_session, mutual_tls_client};

use super::TestAuthority;
use crate::authorization::{AuthorizationConfig, IssuerConfig};
use crate::token::{AccessTokenClaims, Audience, TokenSigner};
use crate::{CertificateFiles, ProblemDetails, SbiError, TokenSource, TokenTarget};

/// An NRF as far as its tokens go.
#[derive(Clone)]
pub struct TestIssuer {
    /// Its NF instance ID.
    pub nf_instance_id: String,
    /// Its key.
    pub signer: Arc<TokenSigner>,
    keys: PathBuf,
}

impl TestIssuer {
    /// A new one, whose public key is in a file beside the certificates.
    #[must_use]
    pub fn new(authority: &TestAuthority, nf_instance_id: &str) -> Self {
        let signer = TokenSigner::from_pem(TokenSigner::generate_pem().unwrap().as_bytes()).unwrap();
        let keys = authority.directory().join(format!("{nf_instance_id}.jwks"));
        std::fs::write(&keys, signer.jwks().to_string()).unwrap();
        Self { nf_instance_id: nf_instance_id.to_owned(), signer: Arc::new(signer), keys }
    }

    /// A new key in place of the old one, in the file, too.
    pub fn rotate(&mut self) {
        self.signer = Arc::new(TokenSigner::from_pem(TokenSigner::generate_pem().unwrap().as_bytes()).unwrap());
        let fresh = self.keys.with_extension("new");
        std::fs::write(&fresh, self.signer.jwks().to_string()).unwrap();
        std::fs::rename(fresh, &self.keys).unwrap();
    }

    /// The entry of a producer that trusts it.
    #[must_use]
    pub fn entry(&self) -> IssuerConfig {
        IssuerConfig { nf_instance_id: self.nf_instance_id.clone(), keys: self.keys.clone() }
    }

    /// The section of a producer that trusts it and demands tokens.
    #[must_use]
    pub fn section(&self) -> AuthorizationConfig {
        AuthorizationConfig { issuers: vec![self.entry()], ..AuthorizationConfig::default() }
    }

    /// Claims that are good for ten minutes.
    #[must_use]
    pub fn claims(&self, sub: &str, nf_type: &str, scope: &str) -> AccessTokenClaims {
        AccessTokenClaims::new(&self.nf_instance_id, sub, Audience::NfType(nf_type.to_owned()), scope, now() + 600)
    }

    /// A token with such claims.
    #[must_use]
    pub fn token(&self, sub: &str, nf_type: &str, scope: &str) -> String {
        self.signer.sign(&self.claims(sub, nf_type, scope)).unwrap()
    }
}

/// What makes the claims of the n-th token, n from 0.
pub type ChangeClaims = dyn Fn(usize, &mut AccessTokenClaims) + Send + Sync;

/// Gives one consumer tokens of an issuer, as an NRF does.
pub struct TestTokens {
    /// Who issues them.
    pub issuer: TestIssuer,
    /// NF instance ID of the consumer.
    pub sub: String,
    /// Changes the claims of the n-th token, n from 0.
    pub change: Box<ChangeClaims>,
    /// Tokens given so far.
    pub given: AtomicUsize,
    /// Tokens reported as refused.
    pub rejected: AtomicUsize,
}

impl TestTokens {
    /// Tokens that are good.
    #[must_use]
    pub fn new(issuer: &TestIssuer, sub: &str) -> Arc<Self> {
        Self::changed(issuer, sub, |_, _| {})
    }

    /// Tokens that are as `change` makes them.
    #[must_use]
    pub fn changed(
        issuer: &TestIssuer,
        sub: &str,
        change: impl Fn(usize, &mut AccessTokenClaims) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            issuer: issuer.clone(),
            sub: sub.to_owned(),
            change: Box::new(change),
            given: AtomicUsize::default(),
            rejected: AtomicUsize::default(),
        })
    }
}

impl TokenSource for TestTokens {
    fn token(&self, target: &TokenTarget, scope: &str) -> BoxFuture<'_, Result<Arc<str>, SbiError>> {
        let mut claims = self.issuer.claims(&self.sub, &target.nf_type, scope);
        claims.jti = Some(self.given.load(Ordering::SeqCst).to_string());
        (self.change)(self.given.fetch_add(1, Ordering::SeqCst), &mut claims);
        let token = self.issuer.signer.sign(&claims).unwrap();
        Box::pin(async move { Ok(token.into()) })
    }

    fn rejected(&self, _: &TokenTarget, _: &str, _: &str) {
        self.rejected.fetch_add(1, Ordering::SeqCst);
    }
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A connection of one peer, over which requests go exactly as they stand.
#[derive(Clone)]
pub struct Connection(http2::SendRequest<Full<Bytes>>);

impl Connection {
    /// Connects to the port of `localhost` with the certificate of `files`.
    pub async fn open(files: &CertificateFiles, port: u16) -> Self {
        Self::over(TokioIo::new(tls(files, port).await)).await.unwrap()
    }

    /// Connects without TLS, as peers on protected networks do.
    ///
    /// # Errors
    /// When the server closes the connection.
    pub async fn open_plain(address: SocketAddr) -> Result<Self, hyper::Error> {
        Self::over(TokioIo::new(TcpStream::connect(address).await.unwrap())).await
    }

    async fn over<I>(io: I) -> Result<Self, hyper::Error>
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// One request.
    pub async fn send(&self, request: Request<Bytes>) -> Answer {
        self.try_send(request).await.unwrap()
    }

    /// One request, which may find the connection closed.
    ///
    /// # Errors
    /// When it is.
    pub async fn try_send(&self, request: Request<Bytes>) -> Result<Answer, hyper::Error> {
        let mut sender = self.0.clone();
        sender.ready().await?;
        let (parts, body) = sender.send_request(request.map(Full::new)).await?.into_parts();
        Ok(Response::from_parts(parts, body.collect().await?.to_bytes()))
    }
}

async fn tls(files: &CertificateFiles, port: u16) -> SslStream<TcpStream> {
    let stream = TcpStream::connect(("localhost", port)).await.unwrap();
    let session = client_session(&mutual_tls_client(files).unwrap(), "localhost").unwrap();
    let mut stream = SslStream::new(session, stream).unwrap();
    Pin::new(&mut stream).connect().await.unwrap();
    stream
}

/// Sends one request over a connection of its own.
pub async fn send(files: &CertificateFiles, request: Request<Bytes>) -> Answer {
    let port = request.uri().port_u16().unwrap();
    Connection::open(files, port).await.send(request).await
}

/// The status of what is answered to a request whose body is announced, and does not come.
///
/// # Panics
/// If that is waited for.
pub async fn status_before_the_body(files: &CertificateFiles, request: Request<()>) -> StatusCode {
    let stream = TokioIo::new(tls(files, request.uri().port_u16().unwrap()).await);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let outstanding = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
    let mut request = request.map(|()| outstanding);
    request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("50000"));
    let answer = tokio::time::timeout(PATIENCE, sender.send_request(request)).await;
    answer.expect("the body is waited for").unwrap().status()
}

/// No answer takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came back.
pub type Answer = Response<Bytes>;

/// The problem details of a refusal.
#[must_use]
pub fn problem(answer: &Answer) -> ProblemDetails {
    serde_json::from_slice(answer.body()).unwrap()
}

/// The `WWW-Authenticate` header of an answer; empty when there is none.
#[must_use]
pub fn challenge(headers: &HeaderMap) -> String {
    headers.get(http::header::WWW_AUTHENTICATE).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}
