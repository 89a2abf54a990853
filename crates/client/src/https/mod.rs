//! The server over HTTPS (TS 33.535 Annex B.1.2), for a device whose network lets nothing else through.
//!
//! ```text
//! driver ─CoAP in memory─▶ gateway ─POST, one after the other─▶ server
//!        ◀───────────────────────── ◀──── server-sent events ──
//! ```
//!
//! What the driver has is a connection as over TLS-PSK: registration, journal, hand-over, repetition and order are the same code.
//! The gateway maps CoAP to HTTP and back (RFC 8075). Requests go out one after the other, since HTTP keeps no order among
//! those that are under way together; acknowledgements go beside them. Whatever ends the exchange with the server ends the
//! connection, and the driver makes a new one.

mod gateway;
mod proof;

use std::{path::Path, sync::Arc};

use akma::{AfId, Challenge, DigestPassword, DigestUaProtocol, Qop, k_af};
use http::{Method, StatusCode};
use sbi::{DeviceConnector, SbiError};
use transport::StreamCarrier;

use crate::{
    error::ClientError,
    establish::{Reach, Secured},
    key_source::AkmaMaterial,
    session::stream_config,
};
use gateway::Gateway;
use proof::{Proof, Server};

/// Octets under way in memory, in each direction.
const STREAM_OCTETS: usize = 16_384;

/// How the server is reached.
#[derive(Clone, Debug)]
pub(crate) struct Https {
    connector: DeviceConnector,
    path: String,
    ua_protocol: DigestUaProtocol,
}

impl Https {
    /// `ca` vouches for the server; `path` is that of its resource; `ua_protocol` says for what K_AF is.
    pub(crate) fn new(ca: &Path, path: String, ua_protocol: DigestUaProtocol) -> Result<Self, ClientError> {
        let connector =
            DeviceConnector::new(ca).map_err(|error| ClientError::Configuration(format!("https: {error}")))?;
        Ok(Self { connector, path, ua_protocol })
    }

    /// A connection whose server is who it should be, and takes the keys.
    pub(crate) async fn connect(&self, reach: &Reach, material: &AkmaMaterial) -> Result<Secured, ClientError> {
        connect(self, reach, material).await
    }
}

async fn connect(https: &Https, reach: &Reach, material: &AkmaMaterial) -> Result<Secured, ClientError> {
    let unreachable = |error: SbiError| match error {
        SbiError::Tls(error) => ClientError::Configuration(format!("https: {error}")),
        other => ClientError::Unreachable {
            server: reach.address.clone(),
            source: Arc::new(std::io::Error::other(other.to_string())),
        },
    };
    let connection = https.connector.connect(&reach.address, &reach.fqdn).await.map_err(unreachable)?;
    let af_id = AfId::new(reach.fqdn.clone(), https.ua_protocol.identifier(connection.tls().suite));
    let server = Arc::new(Server {
        connection,
        realm: akma::digest_realm(&reach.fqdn),
        a_kid: material.a_kid.clone(),
        password: DigestPassword::from(&k_af(&material.k_akma, &af_id)),
        path: format!("/{}", https.path),
    });
    let mut proof = Proof::new(Arc::clone(&server));
    // Before anything is proven to it: whose keys does it ask for?
    let challenge = proof.challenge().await.map_err(unreachable)?;
    if !challenge.is_of(&reach.fqdn) {
        return Err(ClientError::Protocol("the server's realm names somebody else".into()));
    }
    let target = format!("{}/events?wait=0", server.path);
    let answer = proof.send(Method::GET, &target, None, Vec::new()).await.map_err(unreachable)?;
    let cause = gateway::cause_of(answer).await;
    match cause {
        (StatusCode::UNAUTHORIZED, _) => return Err(ClientError::KeysRefused(material.a_kid.clone())),
        (StatusCode::FORBIDDEN, Some(cause)) if matches!(cause.as_str(), "A_KID_NOT_KNOWN" | "K_AF_EXPIRED") => {
            return Err(ClientError::KeysRefused(material.a_kid.clone()));
        }
        (status, cause) if status.is_server_error() => {
            let cause = cause.unwrap_or_else(|| status.to_string());
            return Err(unreachable(SbiError::Unreachable(cause)));
        }
        _ => {}
    }
    let tls = server.connection.tls();
    let (near, far) = tokio::io::duplex(STREAM_OCTETS);
    tokio::spawn(Gateway::new(server, far, &reach.limits).run());
    let carrier = Box::new(StreamCarrier::new(near, stream_config(&reach.limits)));
    Ok(Secured { carrier, version: tls.version, cipher: tls.cipher })
}

/// The stronger of what is offered.
fn protection(challenge: &Challenge) -> Qop {
    challenge.qop.first().copied().unwrap_or(Qop::AuthInt)
}
