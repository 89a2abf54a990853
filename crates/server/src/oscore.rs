//! MSGin5G-1 under OSCORE, over plain CoAP on UDP and TCP (RFC 8613, TS 33.535 Annex D).
//!
//! A security context is to a session what a TLS connection is: who is at the other end, until when its key is good. What
//! comes before that is [`transport::oscore`]'s.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coap::{DatagramConfig, DatagramLimits};
use prometheus_client::registry::Registry as MetricsRegistry;
use serde::Deserialize;
use tokio::net::{TcpListener, UdpSocket};
use transport::oscore::{Accepted, OscoreLimits, OscoreMetrics, OscoreTcpAcceptor, OscoreUdpConfig, OscoreUdpListener};
use transport::{Carrier, KeyLookup};

use crate::core::Core;
use crate::error::ServerError;
use crate::limits::Limits;
use crate::listener;
use crate::session;
use crate::sessions::Connection;

/// `[oscore]`: MSGin5G-1 for devices that protect each message for itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OscoreSection {
    /// Where plain CoAP over UDP is served, OSCORE only. Port 0 takes a free one. Without it, it is not.
    pub listen_udp: Option<SocketAddr>,
    /// The same over TCP.
    pub listen_tcp: Option<SocketAddr>,
    /// Limits on peers that have proven nothing, and on contexts.
    pub limits: OscoreLimits,
}

impl OscoreSection {
    /// A key whose value cannot be served, and why.
    pub(crate) fn fault(&self) -> Option<(&'static str, &'static str)> {
        let limits = &self.limits;
        let zeros = [
            ("oscore.limits.contexts_max", limits.contexts_max),
            ("oscore.limits.unproven_max", limits.unproven_max),
            ("oscore.limits.unproven_per_source_max", limits.unproven_per_source_max),
            ("oscore.limits.unproven_per_a_kid_max", limits.unproven_per_a_kid_max),
            ("oscore.limits.unproven_seconds", usize::try_from(limits.unproven_seconds).unwrap_or(usize::MAX)),
            ("oscore.limits.echo_seconds", usize::try_from(limits.echo_seconds).unwrap_or(usize::MAX)),
            ("oscore.limits.queue_datagrams_max", limits.queue_datagrams_max),
            ("oscore.limits.blocks_octets_max", limits.blocks_octets_max),
            ("oscore.limits.octets_before_proof_max", limits.octets_before_proof_max),
        ];
        if let Some((key, _)) = zeros.iter().find(|(_, value)| *value == 0) {
            return Some((key, "must not be zero"));
        }
        let seconds = [
            ("oscore.limits.unproven_seconds", limits.unproven_seconds),
            ("oscore.limits.echo_seconds", limits.echo_seconds),
        ];
        let too_long = |seconds: u64| Duration::from_secs(seconds) > crate::limits::DURATION_MAX;
        seconds.iter().find(|(_, value)| too_long(*value)).map(|(key, _)| (*key, "is too long"))
    }
}

/// Where it is served.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Listening {
    pub(crate) udp: Option<SocketAddr>,
    pub(crate) tcp: Option<SocketAddr>,
}

/// Begins to serve what the section names.
pub(crate) async fn serve(
    core: &Arc<Core>,
    section: Option<&OscoreSection>,
    lookup: &Arc<KeyLookup>,
    path: &Arc<str>,
    metrics: &mut MetricsRegistry,
) -> Result<Listening, ServerError> {
    let mut listening = Listening::default();
    let Some(section) = section else { return Ok(listening) };
    let metrics = OscoreMetrics::register(metrics);
    if let Some(address) = section.listen_udp {
        let fault = |source| ServerError::Listen { address, source };
        let socket = UdpSocket::bind(address).await.map_err(fault)?;
        let config =
            OscoreUdpConfig { datagrams: Arc::new(datagram_config(&core.limits)), limits: section.limits.clone() };
        let udp = OscoreUdpListener::start(socket, config, Arc::clone(lookup), metrics.clone()).map_err(fault)?;
        listening.udp = Some(udp.local_addr());
        core.tasks.spawn(accept_datagrams(Arc::clone(core), udp, Arc::clone(path)));
    }
    if let Some(address) = section.listen_tcp {
        let fault = |source| ServerError::Listen { address, source };
        let socket = TcpListener::bind(address).await.map_err(fault)?;
        listening.tcp = Some(socket.local_addr().map_err(fault)?);
        let streams = session::stream_config(&core.limits);
        let acceptor = OscoreTcpAcceptor::new(streams, section.limits.clone(), Arc::clone(lookup), metrics);
        core.tasks.spawn(accept_streams(Arc::clone(core), socket, acceptor, Arc::clone(path)));
    }
    tracing::info!(udp = ?listening.udp, tcp = ?listening.tcp, "MSGin5G-1 under OSCORE is served");
    Ok(listening)
}

/// How CoAP is spoken over datagrams.
fn datagram_config(limits: &Limits) -> DatagramConfig {
    let message_octets = u32::try_from(limits.message_octets_max).unwrap_or(u32::MAX);
    let octets = message_octets.saturating_add(session::COAP_OVERHEAD_OCTETS);
    DatagramConfig {
        max_message_size_own: octets,
        max_message_size_peer: octets,
        limits: DatagramLimits {
            requests_outstanding_max: limits.delivery_window.saturating_add(1),
            // Ours is reached first, and says more than a code.
            peer_requests_outstanding_max: limits.requests_per_connection_max.saturating_mul(2),
            transmit_octets_max: limits.outbound_octets_max.saturating_mul(2),
            ..DatagramLimits::default()
        },
        ..DatagramConfig::default()
    }
}

/// Accepts until the server stops; sessions get their datagrams until they have ended.
async fn accept_datagrams(core: Arc<Core>, mut listener: OscoreUdpListener, path: Arc<str>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = core.stopping.cancelled() => break,
        };
        let Some(Accepted { carrier, peer, source }) = accepted else { return };
        // How many there may be is `contexts_max`.
        let connection = Connection::over_datagrams(&core);
        let (session_core, path) = (Arc::clone(&core), Arc::clone(&path));
        core.tasks.spawn(async move {
            let _connection = connection;
            listener::serve(&session_core, Box::new(carrier), peer, source.ip(), path).await;
        });
    }
    core.stopped.cancelled().await;
}

async fn accept_streams(core: Arc<Core>, listener: TcpListener, acceptor: OscoreTcpAcceptor, path: Arc<str>) {
    listener::accept_streams(core, listener, path, move |core, stream, source| {
        let acceptor = acceptor.clone();
        async move {
            let proven = tokio::select! {
                proven = Box::pin(acceptor.accept(stream, source)) => proven,
                () = core.stopping.cancelled() => return None,
            };
            match proven {
                Ok((carrier, peer)) => Some((Box::new(carrier) as Box<dyn Carrier>, peer)),
                Err(error) => {
                    // Anybody can cause most of these over and over.
                    tracing::debug!(%source, %error, "nothing proven under OSCORE");
                    core.metrics.connection_ended("handshake failed");
                    None
                }
            }
        }
    })
    .await;
}
