//! Which UE Service IDs a proven UE may register (TS 33.501 clause Y.2).

use std::collections::BTreeSet;
use std::time::Duration;

use akma::{AKid, UeId};
use message::{FailureCause, UeServiceId};
use sbi::SbiError;
use sbi::ss_upr::SsUprClient;
use tokio::time::{Instant, timeout};
use transport::BoxFuture;

use crate::core::Core;
use crate::log_budget::Topic;

/// Whoever holds the associations of UE IDs and UE Service IDs: the MSGin5G Configuration Function, or a SEAL
/// configuration management server. TS 29.549 has no field for them; ours is in [`sbi::ss_upr`], and another reading is
/// another implementation of this trait.
///
/// No answer is a refusal: nothing is remembered, so that an association removed there counts at once here.
pub trait AssociationSource: Send + Sync {
    /// The UE Service IDs that `ue_id` may register; none if it is not known.
    ///
    /// Needs no time-out of its own.
    fn ue_service_ids(&self, ue_id: UeId) -> BoxFuture<'_, Result<BTreeSet<UeServiceId>, AssociationError>>;
}

/// There is no answer. The text is for the operator's log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("associations cannot be asked for: {0}")]
pub struct AssociationError(pub String);

impl AssociationSource for SsUprClient {
    fn ue_service_ids(&self, ue_id: UeId) -> BoxFuture<'_, Result<BTreeSet<UeServiceId>, AssociationError>> {
        Box::pin(async move {
            SsUprClient::ue_service_ids(self, &ue_id)
                .await
                .map_err(|error: SbiError| AssociationError(error.to_string()))
        })
    }
}

impl Core {
    /// [`Core::check_association`] for the holder of `a_kid`, told as an audit event on `action`. The UE ID is not named there.
    ///
    /// # Errors
    /// The cause to refuse a registration with.
    pub(crate) async fn decide_association(
        &self,
        a_kid: &AKid,
        ue_id: Option<&UeId>,
        ue_service_id: &UeServiceId,
        action: &'static str,
    ) -> Result<(), FailureCause> {
        let decision = match ue_id {
            Some(ue_id) => self.check_association(ue_id, ue_service_id).await,
            None => Err(FailureCause::NotAssociated),
        };
        let (subject, object) = (a_kid.as_str(), ue_service_id.as_str());
        match decision {
            Ok(()) => self.audit.allowed_for(subject, action, object, "associated"),
            // One that cannot be decided is a refusal, too.
            Err(cause) => self.audit.refused_for(subject, action, object, reason(cause)),
        }
        decision
    }

    /// Whether `ue_id` may be `ue_service_id`, by [`AssociationSource`] within the time and the number of look-ups allowed.
    ///
    /// # Errors
    /// The cause to refuse a registration with.
    pub(crate) async fn check_association(
        &self,
        ue_id: &UeId,
        ue_service_id: &UeServiceId,
    ) -> Result<(), FailureCause> {
        let Ok(_slot) = self.association_slots.try_acquire() else { return Err(FailureCause::Overloaded) };
        let limit: Duration = self.limits.association_timeout();
        let asked_at = Instant::now();
        let answer = timeout(limit, self.associations.ue_service_ids(ue_id.clone())).await;
        self.metrics.association_asked(asked_at.elapsed());
        match answer {
            Ok(Ok(associated)) if associated.contains(ue_service_id) => Ok(()),
            Ok(Ok(_)) => Err(FailureCause::NotAssociated),
            Ok(Err(error)) => {
                if self.log_budget.admits(Topic::Association) {
                    tracing::error!(%error, "no answer on an association");
                }
                Err(FailureCause::AssociationUnknown)
            }
            Err(_) => {
                if self.log_budget.admits(Topic::Association) {
                    tracing::error!(seconds = limit.as_secs(), "no answer on an association in time");
                }
                Err(FailureCause::AssociationUnknown)
            }
        }
    }
}

/// The audit's word for why.
fn reason(cause: FailureCause) -> &'static str {
    match cause {
        FailureCause::NotAssociated => "not_associated",
        FailureCause::Overloaded => "overloaded",
        _ => "association_unknown",
    }
}

/// Decisions on associations, in audit events.
pub(crate) const REGISTER: &str = "ue-register";
pub(crate) const REVALIDATE: &str = "ue-revalidate";
