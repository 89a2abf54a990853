//! A handshake, from the proven address to the proven peer.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use akma::{AKid, PskIdentity};
use dtls::{Closed, KeyRefusal, KeyRequest, PresharedKey};
use tokio::time::sleep_until;
use tracing::info;

use super::listener::Shared;
use super::peer::{Ending, Progress};
use super::session::DtlsSession;
use super::table::Entry;
use super::{name_of, version_of};
use crate::admission::Slot;
use crate::found_key::{Found, tell_refusal};
use crate::handshake_error::HandshakeError;
use crate::key_source::{BoxFuture, LookupRefusal};
use crate::psk_server::ProvenPeer;

/// Somebody whose address is proven, and nothing else. Dropping it ends the handshake.
pub struct DtlsArrival {
    shared: Arc<Shared>,
    entry: Entry,
    slot: Slot,
    source: SocketAddr,
}

type LookedUp = Result<Found, HandshakeError>;

impl DtlsArrival {
    pub(super) fn new(shared: Arc<Shared>, entry: Entry, slot: Slot, source: SocketAddr) -> Self {
        Self { shared, entry, slot, source }
    }

    /// The proven address.
    pub fn source(&self) -> SocketAddr {
        self.source
    }

    /// Runs the handshake to its end. Spawn it: it waits for the peer and for the key.
    ///
    /// # Errors
    /// [`HandshakeError`]; the peer has been told what it may know, and the session is gone.
    pub async fn handshake(self) -> Result<DtlsSession, HandshakeError> {
        let Self { shared, entry, slot, source } = self;
        let metrics = shared.metrics();
        let begun = Instant::now();
        let mut a_kid = None;
        let result = {
            let _in_progress = metrics.dtls_handshake_begins();
            Box::pin(run(&shared, &entry, source, &mut a_kid)).await
        };
        drop(slot);
        match result {
            Ok(peer) => {
                entry.establish();
                metrics.dtls_handshake_ended("accepted");
                metrics.dtls_handshake_took(begun.elapsed());
                let ProvenPeer { a_kid, tls_version, cipher, .. } = &peer;
                info!(target: "security", %source, %a_kid, %tls_version, cipher, "peer proven");
                Ok(DtlsSession::new(entry, peer, source, metrics.dtls_session_begins()))
            }
            Err(error) => {
                metrics.dtls_handshake_ended(error.label());
                tell_refusal(source.ip(), a_kid.as_ref(), &error);
                Err(error)
            }
        }
    }
}

async fn run(
    shared: &Shared,
    entry: &Entry,
    source: SocketAddr,
    a_kid: &mut Option<AKid>,
) -> Result<ProvenPeer, HandshakeError> {
    let peer = &entry.peer;
    let mut lookup: Option<BoxFuture<'_, LookedUp>> = None;
    let mut found = None;
    let mut refused = None;
    loop {
        let deadline = peer.poll_timeout().map(tokio::time::Instant::from_std);
        let due = deadline.unwrap_or_else(tokio::time::Instant::now);
        tokio::select! {
            progress = poll_fn(|context| peer.poll_progress(context)) => match progress {
                Progress::KeyNeeded(request) => match claimed(&request) {
                    Ok(claimed) => {
                        *a_kid = Some(claimed.clone());
                        lookup = Some(look_up(shared, claimed, &request, source));
                    }
                    Err(error) => {
                        refused = Some(error);
                        peer.refuse_key(Instant::now(), KeyRefusal::Unknown);
                    }
                },
                Progress::Established(established) => {
                    let suite = established.cipher_suite.code();
                    return Found::proven_peer(found, version_of(suite), suite, name_of(suite));
                }
                Progress::Ended(ending) => return Err(refused.unwrap_or_else(|| meaning(ending))),
            },
            answer = answer(&mut lookup), if lookup.is_some() => {
                lookup = None;
                match usable(answer) {
                    Ok((key, answer)) => {
                        found = Some(answer);
                        peer.provide_key(Instant::now(), &key);
                    }
                    Err(error) => {
                        peer.refuse_key(Instant::now(), refusal(&error));
                        refused = Some(error);
                    }
                }
            }
            () = sleep_until(due), if deadline.is_some() => peer.handle_timeout(Instant::now()),
        }
    }
}

/// Whom the peer claims to be.
fn claimed(request: &KeyRequest) -> Result<AKid, HandshakeError> {
    PskIdentity::parse(&request.identity).map_err(|_| HandshakeError::NoAKid)
}

fn look_up<'a>(shared: &'a Shared, a_kid: AKid, request: &KeyRequest, source: SocketAddr) -> BoxFuture<'a, LookedUp> {
    let suite = request.cipher_suite.code();
    let protocol = version_of(suite).protocol(suite);
    Box::pin(async move { Ok(Found::look_up(&shared.lookup, a_kid, protocol, source.ip()).await?) })
}

async fn answer(lookup: &mut Option<BoxFuture<'_, LookedUp>>) -> LookedUp {
    match lookup {
        Some(lookup) => lookup.await,
        None => std::future::pending().await,
    }
}

fn usable(answer: LookedUp) -> Result<(PresharedKey, Found), HandshakeError> {
    let found = answer?;
    let key = PresharedKey::new(found.key.k_af.expose()).map_err(HandshakeError::Dtls)?;
    Ok((key, found))
}

fn refusal(error: &HandshakeError) -> KeyRefusal {
    match error {
        HandshakeError::Lookup(LookupRefusal::Unknown | LookupRefusal::Expired) => KeyRefusal::Unknown,
        _ => KeyRefusal::Unavailable,
    }
}

fn meaning(ending: Ending) -> HandshakeError {
    match ending {
        Ending::Dtls(Closed::Failed(error)) => HandshakeError::of_dtls(error),
        Ending::Dtls(_) => HandshakeError::Closed,
        Ending::Displaced => HandshakeError::Displaced,
    }
}

impl fmt::Debug for DtlsArrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DtlsArrival").field("source", &self.source).finish_non_exhaustive()
    }
}
