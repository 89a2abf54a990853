//! Whom a UE may have triggered: itself.
//!
//! Client Triggering Information names a device by a public identifier that the UE chose. What nobody proved would let one
//! UE have another's device woken, as often as it likes. The rule, INFERRED (TS 23.554 is silent):
//!
//! 1. The GPSI that the AAnF told with K_AF is the UE's, whether it came alone or beside a SUPI.
//! 2. Another one counts if the Configuration Function associates it with the same UE Service ID (TS 33.501 clause Y.2): so
//!    the operator says that the identifier stands for it.
//! 3. Anything else is refused and is a security event. So is a UE of which only the SUPI is known and that names nothing.
//!
//! The association is asked for anew before each request, of the identifier used or, under rule 1, of the UE ID that
//! registered: a UE that lost its association while away is not woken. No answer is no permission. A SUPI cannot leave by
//! this way: only a [`Device`] does, and that is made of a GPSI.

use akma::{Gpsi, UeId};
use message::{FailureCause, TriggeringInformation, UeServiceId};
use sbi::Device;
use store::RegistrationRecord;

use crate::core::Core;

/// Why a UE is not triggered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotPermitted {
    /// The identifier is not proven to be the UE's, or the association is gone.
    NotProven,
    /// There is no answer on the association.
    Undecided,
}

/// The device of a registered UE, if it may be triggered now.
pub(super) async fn permitted_device(
    core: &Core,
    record: &RegistrationRecord,
    triggering: &TriggeringInformation,
) -> Result<Device, NotPermitted> {
    let (device, asked) = candidate(record, triggering).ok_or(NotPermitted::NotProven)?;
    match core.check_association(&asked, &record.ue_service_id).await {
        Ok(()) => Ok(device.into()),
        Err(FailureCause::NotAssociated) => Err(NotPermitted::NotProven),
        Err(_) => Err(NotPermitted::Undecided),
    }
}

/// The identifier to use, and whose association has to hold for it.
fn candidate(record: &RegistrationRecord, triggering: &TriggeringInformation) -> Option<(Gpsi, UeId)> {
    let proven: UeId = record.ue_id.as_deref()?.parse().ok()?;
    let told: Option<Gpsi> =
        proven.gpsi().cloned().or_else(|| record.gpsi.as_deref().and_then(|gpsi| gpsi.parse().ok()));
    match &triggering.ue_identifier {
        None => told.map(|gpsi| (gpsi, proven)),
        Some(claimed) => {
            let claimed: Gpsi = claimed.parse().ok()?;
            let asked = if told.as_ref() == Some(&claimed) { proven } else { UeId::Gpsi(claimed.clone()) };
            Some((claimed, asked))
        }
    }
}

/// Says that a UE's triggering information is not believed.
pub(super) fn tell_refused(core: &Core, id: &UeServiceId) {
    if core.log_budget.admits(crate::log_budget::Topic::Triggering) {
        tracing::warn!(
            target: "security", ue_service_id = %id,
            "triggering information names no identifier that is proven to be the UE's, it is not triggered"
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use time::OffsetDateTime;

    use super::*;

    fn chosen(ue_id: Option<&str>, gpsi: Option<&str>, claimed: Option<&str>) -> Option<(String, String)> {
        let record = RegistrationRecord {
            ue_service_id: "meter".parse().unwrap(),
            ue_id: ue_id.map(str::to_owned),
            gpsi: gpsi.map(str::to_owned),
            a_kid: None,
            segment_size: None,
            client_profile: None,
            registered_at: OffsetDateTime::UNIX_EPOCH,
        };
        let triggering =
            TriggeringInformation { ue_identifier: claimed.map(str::to_owned), ..TriggeringInformation::default() };
        candidate(&record, &triggering).map(|(device, asked)| (device.as_str().to_owned(), asked.as_str().to_owned()))
    }

    fn some(device: &str, asked: &str) -> Option<(String, String)> {
        Some((device.to_owned(), asked.to_owned()))
    }

    const SUPI: &str = "imsi-001010000000001";
    const OWN: &str = "msisdn-491700000001";
    const OTHER: &str = "extid-other@example.com";

    #[test]
    fn the_gpsi_that_the_aanf_told_is_the_ues_alone_or_beside_a_supi() {
        assert_eq!(chosen(Some(OWN), None, None), some(OWN, OWN));
        assert_eq!(chosen(Some(OWN), None, Some(OWN)), some(OWN, OWN));
        assert_eq!(chosen(Some(SUPI), Some(OWN), None), some(OWN, SUPI));
        assert_eq!(chosen(Some(SUPI), Some(OWN), Some(OWN)), some(OWN, SUPI));
    }

    #[test]
    fn another_identifier_needs_an_association_of_its_own() {
        assert_eq!(chosen(Some(OWN), None, Some(OTHER)), some(OTHER, OTHER));
        assert_eq!(chosen(Some(SUPI), Some(OWN), Some(OTHER)), some(OTHER, OTHER));
        assert_eq!(chosen(Some(SUPI), None, Some(OTHER)), some(OTHER, OTHER));
    }

    #[test]
    fn a_supi_alone_is_nothing_to_trigger_by() {
        assert_eq!(chosen(Some(SUPI), None, None), None);
        assert_eq!(chosen(None, None, Some(OWN)), None);
        assert_eq!(chosen(Some(SUPI), None, Some(SUPI)), None);
    }
}
