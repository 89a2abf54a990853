//! Who asks the NRF for what, by the TLS certificate; each decision is told as an audit event.

use sbi::audit::{Audit, subject};
use sbi::nrf::NFType;
use sbi::{PeerIdentity, ProblemDetails};
use uuid::Uuid;

/// A request under decision.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) audit: &'a Audit,
    pub(super) peer: &'a PeerIdentity,
    /// Service and operation.
    pub(super) action: &'static str,
}

impl Asked<'_> {
    /// The caller's NF instance ID, or 403.
    pub(super) fn instance(&self) -> Result<Uuid, ProblemDetails> {
        self.peer.nf_instance_id.as_deref().and_then(|id| id.parse().ok()).ok_or_else(|| {
            self.refused("", "no_nf_instance_id");
            ProblemDetails::forbidden(NF_UNKNOWN).with_detail("no NF instance ID in the certificate")
        })
    }

    /// The caller's NF instance ID, which must be `wanted`, or 403.
    pub(super) fn itself(&self, wanted: Uuid) -> Result<(), ProblemDetails> {
        if self.instance()? == wanted {
            return Ok(());
        }
        self.refused(&wanted.to_string(), "another_nf_instance");
        Err(ProblemDetails::forbidden(NF_NOT_ALLOWED).with_detail("the certificate is that of another NF instance"))
    }

    /// Whether the caller's certificate names `nf_type`, or 403.
    pub(super) fn is_type(&self, nf_type: &NFType) -> Result<(), ProblemDetails> {
        if has_type(self.peer, nf_type) {
            return Ok(());
        }
        self.refused(nf_type.as_str(), "another_nf_type");
        Err(ProblemDetails::forbidden(NF_NOT_ALLOWED).with_detail("the certificate does not name this NF type"))
    }

    /// It was allowed, and nothing changed by it.
    pub(super) fn allowed(&self, object: &str, reason: &'static str) {
        self.audit.allowed_for(subject(self.peer), self.action, object, reason);
    }

    /// It was allowed, and `object` is there now, changed or gone; or it was refused after all.
    pub(super) fn changed(&self, object: &str, reason: &'static str, problem: Option<&ProblemDetails>) {
        self.audit.changed(subject(self.peer), self.action, object, reason, problem);
    }

    fn refused(&self, object: &str, reason: &'static str) {
        self.audit.refused_for(subject(self.peer), self.action, object, reason);
    }
}

pub(super) fn has_type(peer: &PeerIdentity, nf_type: &NFType) -> bool {
    peer.nf_types.iter().any(|certified| certified == nf_type.as_str())
}

/// 403: there is no NF instance ID to go by. No cause of TS 29.510 says so; this and the next are ours.
const NF_UNKNOWN: &str = "NF_UNKNOWN";
/// 403: the certificate is not that of the NF instance, or not of the NF type.
const NF_NOT_ALLOWED: &str = "NF_NOT_ALLOWED";
