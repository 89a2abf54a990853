//! Accepting MSGin5G-1 sessions over datagrams: CoAP over DTLS over UDP (TS 33.535 Annex C).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coap::DatagramConfig;
use tokio::time::sleep;
use transport::{
    DatagramCarrier, DtlsArrival, DtlsError, DtlsListener, DtlsServerConfig, DtlsSession, DtlsSocket, KeyLookup,
};

use crate::config::{CoapsSection, Config};
use crate::core::Core;
use crate::error::ServerError;
use crate::listener;
use crate::sealed::Restoring;
use crate::server::DisablingHeard;
use crate::session;
use crate::sessions::Connection;

/// Pause after a socket could not be read.
const READ_PAUSE: Duration = Duration::from_millis(100);

/// What all sockets and sessions share.
struct Shared {
    core: Arc<Core>,
    listener: DtlsListener,
    coap: Arc<DatagramConfig>,
    prove_new_addresses: bool,
    path: Arc<str>,
}

/// Serves until the server has stopped; where. Sessions that an earlier start has sealed go on: nothing of the start may fail
/// after this.
pub(crate) async fn start(
    core: &Arc<Core>,
    section: &CoapsSection,
    config: &Config,
    keys: Arc<KeyLookup>,
    _heard: &DisablingHeard,
) -> Result<SocketAddr, ServerError> {
    let dtls = DtlsServerConfig {
        allow_plain_psk: section.allow_plain_psk,
        require_sni: section.require_sni,
        limits: section.dtls.clone(),
        key_log: config.tls.key_log.clone(),
        ..DtlsServerConfig::new(config.server.fqdn.clone())
    };
    let bound = DtlsListener::bind(section.listen, dtls, keys).map_err(|error| match error {
        DtlsError::Bind(source) => ServerError::Listen { address: section.listen, source },
        other => ServerError::Configuration { key: "coaps".to_owned(), reason: other.to_string() },
    });
    let (listener, sockets) = bound?;
    let address = listener.local_addr();
    let shared = Arc::new(Shared {
        core: Arc::clone(core),
        listener,
        coap: Arc::new(session::datagram_config(&core.limits, section.dtls.datagram_octets_max)),
        prove_new_addresses: section.prove_new_addresses,
        path: config.server.path.as_str().into(),
    });
    if let Some(directory) = &section.sealed_sessions {
        let restoring = Restoring {
            core: Arc::clone(core),
            listener: shared.listener.clone(),
            coap: Arc::clone(&shared.coap),
            prove_new_addresses: shared.prove_new_addresses,
            path: Arc::clone(&shared.path),
        };
        let sessions = restoring.open(directory.clone()).await.map_err(|error| {
            let (key, reason) = ("coaps.sealed_sessions".to_owned(), error.to_string());
            ServerError::Configuration { key, reason }
        })?;
        tracing::info!(sessions, "sealed DTLS sessions go on");
    }
    for socket in sockets {
        core.tasks.spawn(read(Arc::clone(&shared), socket));
    }
    Ok(address)
}

/// Reads to the end: sessions that are finished off while the server stops get their datagrams here, too.
async fn read(shared: Arc<Shared>, mut socket: DtlsSocket) {
    let core = &shared.core;
    let mut stopping = false;
    loop {
        let arrival = tokio::select! {
            arrival = socket.accept() => arrival,
            () = core.stopping.cancelled(), if !stopping => {
                stopping = true;
                shared.listener.stop();
                continue;
            }
            () = core.stopped.cancelled() => return,
        };
        match arrival {
            Ok(arrival) => drop(core.tasks.spawn(take(Arc::clone(&shared), arrival))),
            Err(error) => {
                tracing::warn!(%error, "no datagram read");
                sleep(READ_PAUSE).await;
            }
        }
    }
}

async fn take(shared: Arc<Shared>, arrival: DtlsArrival) {
    let core = &shared.core;
    let connection = Connection::over_datagrams(core);
    // On its own, so that a session does not hold a handshake's memory.
    let Some(dtls) = Box::pin(handshake(core, arrival)).await else { return };
    let source = dtls.source().ip();
    let (link, peer) = dtls.into_link();
    match DatagramCarrier::new(link, Arc::clone(&shared.coap), shared.prove_new_addresses) {
        Ok(carrier) => {
            let (carrier, path) = (Box::new(carrier), Arc::clone(&shared.path));
            listener::serve_until_rest(core, connection, carrier, peer, source, path).await;
        }
        Err(error) => tracing::error!(%error, "no session"),
    }
}

async fn handshake(core: &Arc<Core>, arrival: DtlsArrival) -> Option<DtlsSession> {
    let source = arrival.source();
    let result = tokio::select! {
        result = arrival.handshake() => result,
        () = core.stopping.cancelled() => return None,
    };
    match result {
        Ok(session) => Some(session),
        Err(error) => {
            // Told by the transport as it deserves.
            tracing::debug!(%source, %error, "handshake failed");
            core.metrics.connection_ended("handshake failed");
            None
        }
    }
}
