//! Who may ask: the NF instance in the caller's certificate against a configured list (TS 33.501 clause 13.4.1).

use std::collections::BTreeSet;

use sbi::audit::{Audit, subject};
use sbi::{PeerIdentity, ProblemDetails};
use uuid::Uuid;

/// NF instance IDs that may use a service. An empty list lets nobody in.
pub type AllowedCallers = BTreeSet<Uuid>;

/// Lets the caller in and gives its NF instance ID, or refuses with 403. Either is told as an audit event on `action`.
pub(crate) fn authorise(
    audit: &Audit,
    peer: &PeerIdentity,
    allowed: &AllowedCallers,
    action: &str,
) -> Result<Uuid, ProblemDetails> {
    let caller = peer.nf_instance_id.as_deref().and_then(|id| id.parse::<Uuid>().ok());
    match caller {
        Some(caller) if allowed.contains(&caller) => {
            audit.allowed(subject(peer), action, "listed");
            Ok(caller)
        }
        _ => {
            audit.refused(subject(peer), action, "not_listed");
            Err(ProblemDetails::forbidden(CALLER_NOT_ALLOWED).with_detail("this certificate may not use the service"))
        }
    }
}

/// No cause of TS 29.500 says that the consumer as such may not ask; this one is ours.
const CALLER_NOT_ALLOWED: &str = "CALLER_NOT_ALLOWED";
