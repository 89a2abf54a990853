//! The listener on TCP: one context a connection, agreed on there and gone with it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coap::oscore::{
    AKMA_PATH, AkmaRequest, BlockBudget, CONTENT_FORMAT_CBOR, InnerBlocks, Message, OscoreConnection, SecurityContext,
};
use coap::{Code, Connection, ConnectionError, ConnectionEvent, Request, Response, StreamConfig, StreamConnection};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tracing::info;

use super::agreement::{MAX_AGE_SECONDS, agree};
use super::limits::OscoreLimits;
use super::metrics::OscoreMetrics;
use super::stream::OscoreStreamCarrier;
use crate::admission::{Admission, Full};
use crate::key_lookup::KeyLookup;
use crate::log_throttle::LogThrottle;
use crate::psk_server::ProvenPeer;

/// Octets read at once before the peer is proven: nothing of that time is large.
const READ_OCTETS: usize = 2_048;

/// Why a TCP connection did not come to a session. It is closed, with an Abort where the protocol was broken.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OscoreAcceptError {
    /// `unproven_per_source_max` is reached.
    #[error("too many connections of this source have proven nothing yet")]
    TooManyFromSource,
    /// `unproven_max` is reached.
    #[error("too many connections have proven nothing yet")]
    TooMany,
    /// `unproven_seconds` are over.
    #[error("no verified request in time")]
    TimedOut,
    /// `octets_before_proof_max` are used up.
    #[error("too much was sent before a request verified")]
    TooMuch,
    /// The peer closed it.
    #[error("the peer left before a request verified")]
    Closed,
    /// The peer broke RFC 8323.
    #[error("{0}")]
    Protocol(#[from] ConnectionError),
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[from] io::Error),
}

/// Agrees on contexts over TCP connections. Cheap to clone.
#[derive(Clone)]
pub struct OscoreTcpAcceptor {
    streams: StreamConfig,
    limits: OscoreLimits,
    lookup: Arc<KeyLookup>,
    metrics: OscoreMetrics,
    admission: Arc<Admission>,
    blocks: Arc<InnerBlocks>,
}

impl OscoreTcpAcceptor {
    /// An acceptor that asks `lookup`, and speaks CoAP as `streams` says once a peer is proven.
    #[must_use]
    pub fn new(streams: StreamConfig, limits: OscoreLimits, lookup: Arc<KeyLookup>, metrics: OscoreMetrics) -> Self {
        let admission = Admission::new(limits.unproven_max, limits.unproven_per_source_max);
        let budget = BlockBudget::new(limits.blocks_octets_max);
        let blocks = Arc::new(InnerBlocks::for_streams(&streams).within(&budget));
        Self { streams, limits, lookup, metrics, admission, blocks }
    }

    /// Takes a connection to its first verified request, which then waits in the carrier.
    ///
    /// # Errors
    /// [`OscoreAcceptError`].
    pub async fn accept(
        &self,
        stream: TcpStream,
        source: SocketAddr,
    ) -> Result<(OscoreStreamCarrier<TcpStream>, ProvenPeer), OscoreAcceptError> {
        let _slot = self.admission.admit(source.ip()).map_err(|full| {
            self.refuse(source, "connection_limit", &AT_LIMIT);
            match full {
                Full::Source => OscoreAcceptError::TooManyFromSource,
                Full::All => OscoreAcceptError::TooMany,
            }
        })?;
        let limit = Duration::from_secs(self.limits.unproven_seconds);
        let proven = timeout(limit, self.prove(stream, source)).await.unwrap_or(Err(OscoreAcceptError::TimedOut));
        if proven.is_err() {
            self.refuse(source, "not_proven", &NOT_PROVEN);
        }
        proven
    }

    /// Counts a connection, or a request on one, that came to nothing, and tells the log.
    fn refuse(&self, source: SocketAddr, reason: &'static str, throttle: &LogThrottle) {
        self.metrics.refused(reason);
        if let Some(unlogged) = throttle.admit() {
            info!(target: "security", %source, reason, unlogged, "OSCORE over TCP refused");
        }
    }

    async fn prove(
        &self,
        stream: TcpStream,
        source: SocketAddr,
    ) -> Result<(OscoreStreamCarrier<TcpStream>, ProvenPeer), OscoreAcceptError> {
        let mut way = Way { stream, octets_left: self.limits.octets_before_proof_max };
        let mut outer = StreamConnection::new(self.streams).for_oscore();
        let (context, peer) = loop {
            let mut agreed = None;
            while let Some(event) = Connection::poll_event(&mut outer) {
                if let ConnectionEvent::Request { request } = event
                    && let Some(found) = self.answer(&mut outer, &request, agreed.is_some(), source).await?
                {
                    agreed = Some(found);
                }
            }
            way.write(&mut outer).await?;
            if let Some(agreed) = agreed {
                break agreed;
            }
            way.read(&mut outer).await?;
        };
        let mut machine = OscoreConnection::new(outer, context).with_inner_blocks(&self.blocks);
        while machine.counters().requests_verified == 0 {
            way.read(&mut machine).await?;
            if machine.counters().requests_verified == 0 {
                way.write(&mut machine).await?;
            }
        }
        Ok((OscoreStreamCarrier::with_machine(way.stream, machine, self.metrics.context_begins()), peer))
    }

    /// Answers what is not protected; the context, if that was `/akma` and one was agreed on.
    async fn answer(
        &self,
        outer: &mut StreamConnection,
        request: &Request,
        has_context: bool,
        source: SocketAddr,
    ) -> Result<Option<(SecurityContext, ProvenPeer)>, OscoreAcceptError> {
        let is_akma = request.method == Code::POST && request.path == [AKMA_PATH] && request.query.is_empty();
        if has_context || !is_akma {
            self.refuse(source, "unprotected", &UNPROTECTED);
            outer.respond(request.exchange, Response::new(Code::UNAUTHORIZED).with_max_age(0))?;
            return Ok(None);
        }
        let parsed = match request.content_format {
            None | Some(CONTENT_FORMAT_CBOR) => AkmaRequest::parse(&request.payload),
            Some(_) => Err(coap::oscore::OscoreError::AkmaNotDecoded("Content-Format is not application/cbor")),
        };
        let agreed = match parsed {
            Ok(parsed) => agree(&self.lookup, &self.metrics, &parsed, source.ip(), |_| true).await,
            Err(error) => {
                self.metrics.agreement("malformed");
                Err(super::agreement::Refused::Malformed(error))
            }
        };
        match agreed {
            Ok(agreed) => {
                let payload = agreed.answer.payload();
                let response =
                    Response::new(Code::CREATED).with_content_format(CONTENT_FORMAT_CBOR).with_payload(payload);
                outer.respond(request.exchange, response)?;
                Ok(Some((agreed.context, agreed.peer)))
            }
            Err(refused) => {
                outer.respond(request.exchange, refusal(&refused.answer()))?;
                Ok(None)
            }
        }
    }
}

impl fmt::Debug for OscoreTcpAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OscoreTcpAcceptor").field("limits", &self.limits).finish_non_exhaustive()
    }
}

fn refusal(answer: &Message) -> Response {
    let again = matches!(answer.code(), Code::TOO_MANY_REQUESTS | Code::SERVICE_UNAVAILABLE);
    let max_age = if again { MAX_AGE_SECONDS.into() } else { 0 };
    Response::new(answer.code()).with_max_age(max_age).with_payload(answer.payload())
}

/// A connection before anything is proven on it, or by it.
pub(super) struct Way {
    pub(super) stream: TcpStream,
    pub(super) octets_left: usize,
}

impl Way {
    /// Gives the machine what comes next.
    pub(super) async fn read(&mut self, machine: &mut (impl Connection + ?Sized)) -> Result<(), OscoreAcceptError> {
        let mut octets = [0; READ_OCTETS];
        let count = self.stream.read(&mut octets).await?;
        if count == 0 {
            return Err(OscoreAcceptError::Closed);
        }
        self.octets_left = self.octets_left.checked_sub(count).ok_or(OscoreAcceptError::TooMuch)?;
        let received = machine.receive(octets.get(..count).unwrap_or_default(), Instant::now().into_std());
        if let Err(error) = received {
            let _ = self.write(machine).await;
            return Err(error.into());
        }
        Ok(())
    }

    /// Sends what the machine has.
    pub(super) async fn write(&mut self, machine: &mut (impl Connection + ?Sized)) -> io::Result<()> {
        while let Some(octets) = machine.poll_transmit() {
            self.stream.write_all(&octets).await?;
        }
        Ok(())
    }
}

// Anybody can cause these over and over.
static AT_LIMIT: LogThrottle = LogThrottle::new();
static NOT_PROVEN: LogThrottle = LogThrottle::new();
static UNPROTECTED: LogThrottle = LogThrottle::new();
