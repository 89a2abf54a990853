//! AKMA and 5G primary authentication: derivations, identities and formats, no I/O

#![forbid(unsafe_code)]

mod a_kid;
mod af_id;
mod anchor;
mod error;
mod identity;
mod kdf;
mod keys;
mod network;

pub use a_kid::{AKid, AKidFormat, AKidParts, ATidEncoding, PskIdentity, Separator};
pub use af_id::{AfId, Fqdn, UaProtocolId};
pub use anchor::{a_tid, k_af, k_akma};
pub use error::Error;
pub use identity::{Gpsi, NAI_OCTETS_MAX, Supi, SupiKind, UeId};
pub use kdf::KdfInput;
pub use keys::{
    ATid, Ck, CkPrime, Emsk, HresStar, Ik, IkPrime, KAf, KAkma, KAmf, KAusf, KAut, KEncr, KRe, KSeaf, Msk, Res,
    ResStar,
};
pub use network::{HomeNetwork, RoutingIndicator, ServingNetworkName};
