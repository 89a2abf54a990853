//! Who asks the NRF, by the TLS certificate.

use sbi::nrf::NFType;
use sbi::{PeerIdentity, ProblemDetails};
use uuid::Uuid;

/// The caller's NF instance ID, or 403.
pub(super) fn instance(peer: &PeerIdentity) -> Result<Uuid, ProblemDetails> {
    peer.nf_instance_id.as_deref().and_then(|id| id.parse().ok()).ok_or_else(|| {
        tracing::warn!(target: "security", name = ?peer.subject_common_name, "caller refused: no NF instance ID in its certificate");
        ProblemDetails::forbidden(NF_UNKNOWN).with_detail("no NF instance ID in the certificate")
    })
}

/// The caller's NF instance ID, which must be `wanted`, or 403.
pub(super) fn itself(peer: &PeerIdentity, wanted: Uuid) -> Result<(), ProblemDetails> {
    let caller = instance(peer)?;
    if caller == wanted {
        return Ok(());
    }
    tracing::warn!(target: "security", %caller, %wanted, "caller refused: it asks for another NF instance");
    Err(ProblemDetails::forbidden(NF_NOT_ALLOWED).with_detail("the certificate is that of another NF instance"))
}

/// Whether the caller's certificate names `nf_type`, or 403.
pub(super) fn is_type(peer: &PeerIdentity, nf_type: &NFType) -> Result<(), ProblemDetails> {
    if has_type(peer, nf_type) {
        return Ok(());
    }
    tracing::warn!(
        target: "security", caller = ?peer.nf_instance_id, %nf_type, certified = ?peer.nf_types,
        "caller refused: its certificate does not name this NF type"
    );
    Err(ProblemDetails::forbidden(NF_NOT_ALLOWED).with_detail("the certificate does not name this NF type"))
}

pub(super) fn has_type(peer: &PeerIdentity, nf_type: &NFType) -> bool {
    peer.nf_types.iter().any(|certified| certified == nf_type.as_str())
}

/// 403: there is no NF instance ID to go by. No cause of TS 29.510 says so; this and the next are ours.
const NF_UNKNOWN: &str = "NF_UNKNOWN";
/// 403: the certificate is not that of the NF instance, or not of the NF type.
const NF_NOT_ALLOWED: &str = "NF_NOT_ALLOWED";
