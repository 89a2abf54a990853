//! `3gpp-akma` (TS 29.522 clause 5.13): K_AF through a NEF, for an application function outside the operator's domain. The
//! types are those of [`crate::naanf`]; the client is a [`KeySource`] too.
//!
//! Outside the domain a UE has no name but its GPSI (TS 33.501 clause 5.9.2.3). A SUPI in an answer is a fault of the NEF:
//! it is passed over and told as a security event.

use std::sync::Arc;
use std::time::SystemTime;

use akma::{AKid, AfId, UeId};
use transport::{BoxFuture, KeySource, KeySourceError, ProvenKey};

use crate::client::SbiClient;
use crate::coding::resource;
use crate::error::SbiError;
use crate::naanf::{AkmaAfKeyData, AkmaAfKeyRequest, DisableSubscription, key_source_error};
use crate::token_source::TokenSource;

/// Path of the API below its root.
pub const API_PATH: &str = "/3gpp-akma/v1";

/// Asks a NEF.
#[derive(Debug, Clone)]
pub struct NefAkmaClient {
    http: SbiClient,
    root: String,
    subscription: DisableSubscription,
}

impl NefAkmaClient {
    /// A client of the NEF at `root`, for example `https://nef.example`, with access tokens from `tokens`.
    #[must_use]
    pub fn new(http: &SbiClient, root: impl Into<String>, tokens: Arc<dyn TokenSource>) -> Self {
        let http = http.clone().with_tokens(tokens).for_service("NEF", "3gpp-akma");
        Self { http, root: root.into(), subscription: DisableSubscription::default() }
    }

    /// The same client, whose questions as a [`KeySource`] ask for notifications as `subscription` says.
    #[must_use]
    pub fn subscribing(self, subscription: DisableSubscription) -> Self {
        Self { subscription, ..self }
    }

    /// Retrieves K_AF, or `None` when the A-KID is unknown. What comes back never has a SUPI.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting; [`SbiError::Problem`] with 401 or 403 when the NEF does not know us, or the
    /// AF_ID is not ours to ask for.
    pub async fn retrieve_key(&self, request: &AkmaAfKeyRequest) -> Result<Option<AkmaAfKeyData>, SbiError> {
        let response = self.http.post(&resource(&self.root, &format!("{API_PATH}/retrieve")), request).await?;
        if response.status == http::StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let mut data: AkmaAfKeyData = response.into_body()?;
        if data.supi.take().is_some() {
            tracing::warn!(target: "security", "the NEF told a SUPI, which is passed over");
        }
        Ok(Some(data))
    }
}

impl KeySource for NefAkmaClient {
    fn retrieve(&self, af_id: AfId, a_kid: AKid) -> BoxFuture<'_, Result<Option<ProvenKey>, KeySourceError>> {
        Box::pin(async move {
            let request = self.subscription.ask(&self.root, AkmaAfKeyRequest::new(af_id, a_kid));
            let mut answer = self.retrieve_key(&request).await;
            if let Err(error) = &answer
                && let Some(request) = self.subscription.ask_again(&self.root, &request, error)
            {
                answer = self.retrieve_key(&request).await;
            }
            let answer = answer.map_err(key_source_error)?;
            if let Some(data) = &answer {
                self.subscription.answered(&request, data);
            }
            Ok(answer.map(|data| ProvenKey {
                expires_at: Some(SystemTime::from(data.expiry)),
                ue_id: data.gpsi.clone().map(UeId::Gpsi),
                gpsi: data.gpsi,
                k_af: data.kaf,
            }))
        })
    }
}
