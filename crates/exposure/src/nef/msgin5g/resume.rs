//! After a start: what is registered here is registered at the MSGin5G Server again, with the target that we have now.
//!
//! The server keeps registrations, too; but it may have been set up anew, or our address may have changed. Registering again
//! is harmless there, and has it try at once what it put off while we were away.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::records::Registration;
use crate::nef::service::Service;

/// First and longest pause between attempts for one Application Server.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Runs until every registration is renewed, or `shutdown`.
pub(crate) async fn resume(service: Arc<Service>, shutdown: CancellationToken) {
    let Some(msgin5g) = &service.msgin5g else { return };
    let mut renewals = tokio::task::JoinSet::new();
    for held in msgin5g.records.registrations() {
        let id = &held.request.as_svc_id;
        if service.afs.current().of_application_server(id).is_none_or(|af| af.id() != held.af_id) {
            tracing::warn!(as_service_id = %id, "AS no longer in the entry that registered it, it is away");
            continue;
        }
        let (service, shutdown) = (Arc::clone(&service), shutdown.clone());
        renewals.spawn(async move {
            tokio::select! {
                () = renew(&service, held) => {}
                () = shutdown.cancelled() => {}
            }
        });
    }
    while renewals.join_next().await.is_some() {}
}

/// Tries until it succeeds, or the registration has gone or was replaced meanwhile.
async fn renew(service: &Service, held: Registration) {
    let Some(msgin5g) = &service.msgin5g else { return };
    let id = &held.request.as_svc_id;
    let mut pause = PAUSE_FIRST;
    loop {
        let turn = msgin5g.records.turn(id).await;
        let Some(mut now) = msgin5g.records.registration(id).filter(|now| now.id == held.id) else { return };
        match msgin5g.register_at_server(&now.request).await {
            Ok(server_resource) => {
                now.server_resource = server_resource;
                match msgin5g.records.put_registration(now).await {
                    Ok(()) => tracing::info!(as_service_id = %id, "AS registered again"),
                    Err(error) => tracing::error!(%error, as_service_id = %id, "renewed registration not written"),
                }
                return;
            }
            Err(error) => tracing::warn!(%error, as_service_id = %id, "AS not registered again yet"),
        }
        drop(turn);
        tokio::time::sleep(pause).await;
        pause = pause.saturating_mul(2).min(PAUSE_MAX);
    }
}
