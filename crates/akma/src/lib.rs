//! AKMA and 5G primary authentication: derivations, identities and formats, no I/O

#![forbid(unsafe_code)]

mod a_kid;
mod af_id;
mod anchor;
mod credentials;
pub mod eap_aka_prime;
mod error;
mod five_g_aka;
mod identity;
mod kdf;
mod keys;
mod milenage;
mod network;
mod sqn;
mod suci;
mod tuak;
mod usim;

pub use a_kid::{AKid, AKidFormat, AKidParts, ATidEncoding, PskIdentity, Separator};
pub use af_id::{AfId, Fqdn, UaProtocolId};
pub use anchor::{a_tid, k_af, k_akma};
pub use credentials::{AuthenticationVector, UsimCredentials};
pub use error::Error;
pub use five_g_aka::{ABBA_INITIAL, hxres_star, k_amf, k_ausf_5g_aka, k_seaf, res_star};
pub use identity::{Gpsi, NAI_OCTETS_MAX, Supi, SupiKind, UeId};
pub use kdf::KdfInput;
pub use keys::{
    ATid, Ak, Ck, CkPrime, Emsk, HresStar, Ik, IkPrime, KAf, KAkma, KAmf, KAusf, KAut, KEncr, KRe, KSeaf, Msk, Res,
    ResStar,
};
pub use milenage::{Milenage, MilenageOutput};
pub use network::{HomeNetwork, RoutingIndicator, ServingNetworkName};
pub use sqn::{Amf, Sqn, SqnLimits, SqnRefusal, SqnWindow};
pub use suci::{NullScheme, Suci, SuciHomeKey, SuciHomeKeys, SuciPublicKey, SuciScheme};
pub use tuak::{Tuak, TuakKeyLength, TuakOutput, TuakTagLength};
pub use usim::{Usim, UsimFailure, UsimResponse};
