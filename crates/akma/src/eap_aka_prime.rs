//! EAP-AKA' (RFC 9048, RFC 4187) as TS 33.501 6.1.3.1 and Annex F profile it: keys, packets, and the two roles.
//!
//! [`Server`] is the AUSF's role, [`Peer`] the UE's. Both own no transport: packets go in and come out as octets, to be
//! carried in NAS or in the `eapPayload` of TS 29.509. Identity requests, fast re-authentication and encrypted
//! attributes are not used in 5G, and not offered.

mod keys;
mod packet;
mod peer;
mod server;

pub use keys::{Keys, ck_prime_ik_prime, k_ausf_eap_aka_prime};
pub use packet::{Attribute, EAP_OCTETS_MAX, EapPacket, Message, Subtype, verify_mac};
pub use peer::{Peer, PeerOutcome, PeerRefusal};
pub use server::{Challenge, RejectionCause, Server, ServerOutcome};

/// AT_KDF value 1: the key derivation function of RFC 9048 3.3, the only one there is.
pub const KDF_CK_PRIME: u16 = 1;
