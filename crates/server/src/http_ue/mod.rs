//! MSGin5G-1 for devices that have only an HTTP stack: HTTPS with the server's certificate, and HTTP Digest with K_AF (TS 33.535
//! Annex B.1.2, TS 24.109 clause K.2, RFC 7616).
//!
//! ```text
//! device ─HTTPS─▶ authentication ─▶ devices ─▶ link ─CoAP in memory─▶ session ─▶ routing, delivery, ...
//!        ◀─ events, long poll ──────────── outbox ◀──┘
//! ```
//!
//! One request proves itself by its digest and belongs to a [`devices::Device`], one for each A-KID. What a device has besides
//! is a [`link`]: a connection of MSGin5G-1 as any other, whose octets stay in memory, and on which HTTP is mapped to CoAP as a
//! proxy of RFC 8075 does it ([`status`]). So registration, association, re-validation, routing, windows, segments,
//! aggregates, and the promise that *delivered* means acknowledged by the recipient, are [`crate::session`]'s, and the same.
//!
//! A device listens by server-sent events or by long poll ([`events`]) and acknowledges each delivery by a request of its own.
//! While it does not listen, its link answers "not now" and, after a while, ends: the UE is then away, as one whose connection
//! is lost, and its link is made anew, its registration repeated, by its next request. A registration of the same UE Service
//! ID elsewhere meanwhile, or an end of its key, leaves it not registered.

mod authentication;
mod config;
mod counters;
mod devices;
mod events;
mod link;
mod metrics;
mod nonce;
mod outbox;
mod requests;
mod status;

use std::sync::Arc;

use akma::DigestUaProtocol;
use axum::Router;
use axum::routing::{get, post};
use sbi::{CertificateFiles, SbiServer, SbiServerConfig};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

pub use config::{DeviceLimits, HttpsSection};
use devices::Devices;
pub(crate) use metrics::HttpsMetrics;
use nonce::Nonces;

use crate::core::Core;
use crate::error::ServerError;

/// What the handlers share.
pub(crate) struct Front {
    core: Arc<Core>,
    /// As in `server.path`.
    path: Arc<str>,
    /// Of every challenge.
    realm: String,
    body_integrity: bool,
    ua_protocol: DigestUaProtocol,
    limits: DeviceLimits,
    nonces: Nonces,
    devices: Devices,
    metrics: HttpsMetrics,
}

/// What devices find: one resource for what they send, and one for what they are sent.
pub(crate) fn router(front: &Arc<Front>) -> Router {
    let path = &front.path;
    Router::new()
        .route(&format!("/{path}"), post(requests::take))
        .route(&format!("/{path}/events"), get(events::listen))
        .route(&format!("/{path}/events/{{id}}"), post(events::acknowledge))
        .with_state(Arc::clone(front))
}

impl Front {
    /// # Errors
    /// [`ServerError::Configuration`] when the system has no random octets.
    pub(crate) fn new(
        core: &Arc<Core>,
        fqdn: &akma::Fqdn,
        path: &str,
        section: &HttpsSection,
        metrics: HttpsMetrics,
    ) -> Result<Arc<Self>, ServerError> {
        Ok(Arc::new(Self {
            core: Arc::clone(core),
            path: path.into(),
            realm: akma::digest_realm(fqdn),
            body_integrity: section.body_integrity,
            ua_protocol: section.ua_protocol,
            limits: section.devices.clone(),
            nonces: Nonces::new(&section.devices, Instant::now())?,
            devices: Devices::new(&section.devices),
            metrics,
        }))
    }
}

/// Serves devices until `stop` is cancelled. `certificates` are the server's own, for a section that has none.
pub(crate) async fn serve(
    front: &Arc<Front>,
    section: &HttpsSection,
    certificates: &CertificateFiles,
    stop: CancellationToken,
) -> Result<SbiServer, ServerError> {
    let server = SbiServerConfig {
        listen: section.listen,
        tls: section.certificates.clone().unwrap_or_else(|| certificates.clone()),
        limits: section.limits.clone(),
    };
    let server = SbiServer::start_for_devices(server, router(front), stop, front.metrics.server.clone()).await?;
    front.core.tasks.spawn(keep_house(Arc::clone(front)));
    Ok(server)
}

/// Forgets devices that have been silent for too long.
async fn keep_house(front: Arc<Front>) {
    let mut ticks = interval(front.limits.sweep_interval());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => front.devices.sweep(Instant::now()),
            () = front.core.stopped.cancelled() => return,
        }
        front.metrics.devices.set(i64::try_from(front.devices.count()).unwrap_or(i64::MAX));
    }
}
