//! A USIM in software, and the part of a serving network that it needs to run primary authentication: it asks the AUSF as
//! an AMF would (TS 29.509), and answers the challenges itself.
//!
//! ```text
//! POST ue-authentications ──► 5G AKA:   check AUTN ──► RES* ──► PUT 5g-aka-confirmation
//!                         └─► EAP-AKA': answer each packet ──► POST eap-session, until success
//!      AUTN not fresh:        AUTS goes back once, a new challenge comes
//! success ──► K_AUSF ──► K_AKMA, A-KID (TS 33.535 clause 6.1)
//! ```

use std::{io, path::PathBuf};

use akma::{
    AKid, HomeNetwork, KAusf, RoutingIndicator, ServingNetworkName, SqnWindow, Supi, Usim, UsimCredentials,
    UsimFailure, a_tid,
    eap_aka_prime::{Peer, PeerOutcome, PeerRefusal},
    hxres_star, k_akma,
};
use futures_util::{FutureExt, future::BoxFuture};
use sbi::{
    SbiClient, SbiError,
    nausf::{
        AuthResult, AuthenticationInfo, Av5gAka, FiveGAuthData, NausfClient, ResynchronizationInfo, UEAuthenticationCtx,
    },
};
use tokio::sync::Mutex;

use super::{AkmaMaterial, KeySource, KeySourceError, stored::replace_private};

/// Most EAP packets answered in one authentication: a challenge, a choice of key derivation function, a
/// resynchronisation, and one more.
const EAP_ROUNDS_MAX: usize = 4;

/// Who a [`SoftUsim`] is, and where it authenticates.
#[derive(Clone, Debug)]
pub struct SoftUsimConfig {
    /// The subscriber.
    pub supi: Supi,
    /// K with OPc or TOPc.
    pub credentials: UsimCredentials,
    /// Routing indicator of the USIM; the first part of the A-KID.
    pub routing_indicator: RoutingIndicator,
    /// The home network; the realm of the A-KID.
    pub home_network: HomeNetwork,
    /// The network that serves the UE; most often the home network.
    pub serving_network: ServingNetworkName,
    /// Root of the AUSF, such as `https://127.0.0.1:7002`.
    pub ausf: String,
    /// Where to keep the sequence numbers that were used, so that a restarted USIM takes no challenge twice.
    /// Without it only this process remembers.
    pub state: Option<PathBuf>,
}

/// Runs primary authentication with the keys of a USIM.
pub struct SoftUsim {
    config: SoftUsimConfig,
    ausf: NausfClient,
    /// Taken for a whole authentication: a USIM runs one at a time.
    usim: Mutex<Usim>,
}

impl SoftUsim {
    /// A USIM that asks the AUSF through `http`, whose certificate is that of a serving network's function.
    ///
    /// # Errors
    /// [`KeySourceError::Io`] or [`KeySourceError::Malformed`] if the sequence numbers kept cannot be read: starting
    /// over would let old challenges be replayed.
    pub fn new(config: SoftUsimConfig, http: SbiClient) -> Result<Self, KeySourceError> {
        let window = match &config.state {
            Some(path) => read_window(path)?,
            None => SqnWindow::default(),
        };
        let usim = Usim::with_window(config.credentials.clone(), window);
        let ausf = NausfClient::new(http, config.ausf.clone());
        Ok(Self { config, ausf, usim: Mutex::new(usim) })
    }

    async fn authenticate(&self) -> Result<AkmaMaterial, KeySourceError> {
        let mut usim = self.usim.lock().await;
        let context = self.ausf.authenticate(&self.request(None)).await.map_err(home_network)?;
        let k_ausf = match &context.five_g_auth_data {
            FiveGAuthData::Av5gAka(_) => self.five_g_aka(&mut usim, context).await?,
            FiveGAuthData::EapPayload(_) => self.eap_aka_prime(&mut usim, context).await?,
        };
        let a_tid = a_tid(&k_ausf, &self.config.supi);
        Ok(AkmaMaterial {
            a_kid: AKid::format(&self.config.routing_indicator, &a_tid, &self.config.home_network),
            k_akma: k_akma(&k_ausf, &self.config.supi),
            ue_id: Some(self.config.supi.clone().into()),
        })
    }

    fn request(&self, resynchronization_info: Option<ResynchronizationInfo>) -> AuthenticationInfo {
        AuthenticationInfo {
            supi_or_suci: self.config.supi.clone().into(),
            serving_network_name: self.config.serving_network.clone(),
            resynchronization_info,
            routing_indicator: Some(self.config.routing_indicator.clone()),
            supported_features: None,
        }
    }

    /// TS 33.501 clause 6.1.3.2, with clause 6.1.3.3.2 for a challenge that is not fresh.
    async fn five_g_aka(&self, usim: &mut Usim, context: UEAuthenticationCtx) -> Result<KAusf, KeySourceError> {
        let mut context = context;
        let mut resynchronised = false;
        loop {
            let FiveGAuthData::Av5gAka(challenge) = &context.five_g_auth_data else {
                return Err(refused("the AUSF changed the method"));
            };
            let challenge = challenge.clone();
            match usim.authenticate(challenge.rand.as_bytes(), challenge.autn.as_bytes()) {
                Ok(response) => {
                    self.keep(usim)?;
                    return self.confirm(&context, &challenge, &response).await;
                }
                Err(UsimFailure::Synchronisation { auts }) if !resynchronised => {
                    resynchronised = true;
                    let info = ResynchronizationInfo { rand: challenge.rand, auts: auts.into() };
                    context = self.ausf.authenticate(&self.request(Some(info))).await.map_err(home_network)?;
                }
                Err(failure) => {
                    // An AMF tells the AUSF that the UE gave no answer; the UE's own reason is the one to report.
                    let _ = self.ausf.confirm_5g_aka(&context, None).await;
                    return Err(refused(failure));
                }
            }
        }
    }

    async fn confirm(
        &self,
        context: &UEAuthenticationCtx,
        challenge: &Av5gAka,
        response: &akma::UsimResponse,
    ) -> Result<KAusf, KeySourceError> {
        let res_star = response.res_star(&self.config.serving_network);
        if hxres_star(&response.rand, &res_star) != challenge.hxres_star {
            return Err(refused("the AUSF expects another answer than this USIM gives"));
        }
        let confirmation = self.ausf.confirm_5g_aka(context, Some(res_star)).await.map_err(home_network)?;
        match confirmation.auth_result {
            AuthResult::AuthenticationSuccess => Ok(response.k_ausf(&self.config.serving_network)),
            _ => Err(refused("the AUSF did not take the answer")),
        }
    }

    /// TS 33.501 clause 6.1.3.1.
    async fn eap_aka_prime(&self, usim: &mut Usim, context: UEAuthenticationCtx) -> Result<KAusf, KeySourceError> {
        let mut peer = Peer::new(self.config.supi.clone(), self.config.serving_network.clone());
        let mut links = context.links;
        let FiveGAuthData::EapPayload(mut request) = context.five_g_auth_data else {
            return Err(refused("the AUSF changed the method"));
        };
        let mut k_ausf = None;
        for _ in 0..EAP_ROUNDS_MAX {
            let packet = request.ok_or_else(|| refused("the AUSF sent no EAP packet"))?;
            let outcome = peer.answer(usim, &packet).map_err(refused)?;
            let (response, refusal) = match outcome {
                PeerOutcome::Answered { response, k_ausf: derived, .. } => {
                    self.keep(usim)?;
                    k_ausf = Some(derived);
                    (response, None)
                }
                PeerOutcome::Refused { response, cause: PeerRefusal::Synchronisation } => (response, None),
                PeerOutcome::Refused { response, cause } => (response, Some(cause)),
                PeerOutcome::KdfChosen { response } | PeerOutcome::Repeated { response } => (response, None),
                _ => return Err(refused("the USIM knows no answer")),
            };
            let session = self.ausf.eap_session(&links, response).await;
            if let Some(cause) = refusal {
                return Err(refused(format!("the USIM refuses the challenge: {cause:?}")));
            }
            let session = session.map_err(home_network)?;
            match (session.auth_result, &k_ausf) {
                (Some(AuthResult::AuthenticationSuccess), Some(k_ausf)) => return Ok(k_ausf.clone()),
                (None | Some(AuthResult::AuthenticationOngoing), _) => {}
                _ => return Err(refused("the AUSF did not take the answer")),
            }
            if !session.links.is_empty() {
                links = session.links;
            }
            request = session.eap_payload;
        }
        Err(refused("the AUSF does not come to an end"))
    }

    /// Keeps the sequence numbers before the answer leaves: an answer to a number that a crash makes the USIM forget
    /// could be had from it a second time.
    fn keep(&self, usim: &Usim) -> Result<(), KeySourceError> {
        let Some(path) = &self.config.state else { return Ok(()) };
        let written =
            serde_json::to_vec(usim.window()).map_err(io::Error::other).and_then(|text| replace_private(path, &text));
        written.map_err(|source| KeySourceError::Io { action: "write", path: path.clone(), source })
    }
}

impl KeySource for SoftUsim {
    fn obtain<'a>(&'a self, _refused: Option<&'a AKid>) -> BoxFuture<'a, Result<AkmaMaterial, KeySourceError>> {
        self.authenticate().boxed()
    }
}

fn read_window(path: &PathBuf) -> Result<SqnWindow, KeySourceError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(SqnWindow::default()),
        Err(source) => return Err(KeySourceError::Io { action: "read", path: path.clone(), source }),
    };
    serde_json::from_slice(&text).map_err(|error| KeySourceError::Io {
        action: "read",
        path: path.clone(),
        source: io::Error::new(io::ErrorKind::InvalidData, error),
    })
}

fn refused(reason: impl std::fmt::Display) -> KeySourceError {
    KeySourceError::Authentication(reason.to_string())
}

fn home_network(error: SbiError) -> KeySourceError {
    if error.is_transient() {
        KeySourceError::Unavailable(error.to_string())
    } else {
        KeySourceError::Authentication(error.to_string())
    }
}
