//! A device's side of HTTPS: HTTP/2 over TLS with the server's certificate alone, one connection, requests beside each other.
//!
//! The other side is [`crate::SbiServer::start_for_devices`]. What proves the device is in its requests, and is its caller's.

use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use akma::Fqdn;
use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use openssl::ssl::SslContext;
use tokio::net::TcpStream;
use tokio_openssl::SslStream;
use transport::profile::{client_session, device_client};

use crate::error::SbiError;
use crate::server::{DeviceTls, tls_of};

/// Octets of an answer that is read whole.
const ANSWER_OCTETS_MAX: usize = 131_072;

/// How often the server is asked for a sign of life, and how long it may take.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Connects to servers whose certificates come from some authority.
#[derive(Clone)]
pub struct DeviceConnector {
    context: SslContext,
}

impl std::fmt::Debug for DeviceConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeviceConnector")
    }
}

impl DeviceConnector {
    /// `ca` is a PEM file.
    ///
    /// # Errors
    /// [`SbiError::Tls`], naming the file.
    pub fn new(ca: &Path) -> Result<Self, SbiError> {
        Ok(Self { context: device_client(ca)? })
    }

    /// A connection to `address` (`host:port`), where the certificate must be that of `fqdn`. It ends when it is dropped. Needs
    /// a time-out of the caller's.
    ///
    /// # Errors
    /// [`SbiError::Unreachable`].
    pub async fn connect(&self, address: &str, fqdn: &Fqdn) -> Result<DeviceConnection, SbiError> {
        let unreachable = |error: &dyn std::fmt::Display| SbiError::Unreachable(error.to_string());
        let socket = TcpStream::connect(address).await.map_err(|error| unreachable(&error))?;
        socket.set_nodelay(true).map_err(|error| unreachable(&error))?;
        let session = client_session(&self.context, fqdn.as_str())?;
        let mut stream = SslStream::new(session, socket).map_err(|error| unreachable(&error))?;
        Pin::new(&mut stream).connect().await.map_err(|error| unreachable(&error))?;
        if stream.ssl().selected_alpn_protocol() != Some(b"h2") {
            return Err(SbiError::Unreachable("the server does not speak HTTP/2".to_owned()));
        }
        let tls = tls_of(&stream).ok_or_else(|| SbiError::Unreachable("nothing is known of its TLS".to_owned()))?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable(&error))?;
        let task = tokio::spawn(async move {
            // Its end is seen by every request of it.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
        let port = address.rsplit_once(':').map_or("443", |(_, port)| port);
        Ok(DeviceConnection { sender, tls, root: format!("https://{fqdn}:{port}"), task })
    }
}

/// One connection.
pub struct DeviceConnection {
    sender: http2::SendRequest<Full<Bytes>>,
    tls: DeviceTls,
    root: String,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for DeviceConnection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A request, without what says where it goes.
#[derive(Clone, Debug)]
pub struct DeviceRequest {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// Header names, in lower case, and values.
    pub headers: Vec<(&'static str, String)>,
    /// Empty for none.
    pub body: Bytes,
}

/// An answer.
#[derive(Debug)]
pub struct DeviceResponse {
    /// The status.
    pub status: StatusCode,
    headers: http::HeaderMap,
    /// What follows.
    pub body: DeviceBody,
}

impl DeviceResponse {
    /// A header's value, if it is there and text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The body of an answer, as it comes.
#[derive(Debug)]
pub struct DeviceBody(Body);

impl DeviceBody {
    /// The next octets; none at the end.
    ///
    /// # Errors
    /// [`SbiError::Unreachable`] where it is cut off.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, SbiError> {
        loop {
            match self.0.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(octets) = frame.into_data() {
                        return Ok(Some(octets));
                    }
                }
                Some(Err(error)) => return Err(SbiError::Unreachable(error.to_string())),
            }
        }
    }

    /// All of it.
    ///
    /// # Errors
    /// As [`DeviceBody::chunk`]; [`SbiError::Malformed`] where it is longer than 128 KiB.
    pub async fn whole(mut self) -> Result<Vec<u8>, SbiError> {
        let mut octets = Vec::new();
        while let Some(more) = self.chunk().await? {
            if octets.len() + more.len() > ANSWER_OCTETS_MAX {
                return Err(SbiError::Malformed("the answer is too long".to_owned()));
            }
            octets.extend_from_slice(&more);
        }
        Ok(octets)
    }
}

impl DeviceConnection {
    /// How it is protected.
    #[must_use]
    pub fn tls(&self) -> DeviceTls {
        self.tls
    }

    /// One request. Others of the same connection may be under way beside it.
    ///
    /// # Errors
    /// [`SbiError::Unreachable`] where the connection broke; [`SbiError::InvalidRequest`] where it cannot be written.
    pub async fn send(&self, request: DeviceRequest) -> Result<DeviceResponse, SbiError> {
        let DeviceRequest { method, target, headers, body } = request;
        let mut builder = Request::builder().method(method).uri(format!("{}{target}", self.root));
        for (name, value) in headers {
            builder = builder.header(name, value);
        }
        let request = builder.body(Full::new(body)).map_err(|error| SbiError::InvalidRequest(error.to_string()))?;
        let mut sender = self.sender.clone();
        let broken = |error: hyper::Error| SbiError::Unreachable(error.to_string());
        sender.ready().await.map_err(broken)?;
        let (parts, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
        Ok(DeviceResponse { status: parts.status, headers: parts.headers, body: DeviceBody(Body::new(body)) })
    }
}
