//! The AKMA keys, TS 33.535 Annex A.

use crate::kdf::{derive, string_parameter};
use crate::{ATid, AfId, KAf, KAkma, KAusf, Supi};

const FC_K_AKMA: u8 = 0x80;
const FC_A_TID: u8 = 0x81;
const FC_K_AF: u8 = 0x82;

/// K_AKMA, TS 33.535 A.2: KDF(K_AUSF, FC 0x80, "AKMA", SUPI).
///
/// The SUPI enters as the bare IMSI or NAI, as in TS 33.501 A.7.0.
pub fn k_akma(k_ausf: &KAusf, supi: &Supi) -> KAkma {
    let supi = string_parameter(supi.kdf_value());
    KAkma::from_bytes(*derive(k_ausf.expose(), FC_K_AKMA, &[b"AKMA", supi.as_bytes()]))
}

/// A-TID, TS 33.535 A.3: KDF(K_AUSF, FC 0x81, "A-TID", SUPI). All 32 octets: no clause shortens it.
pub fn a_tid(k_ausf: &KAusf, supi: &Supi) -> ATid {
    let supi = string_parameter(supi.kdf_value());
    ATid::from_bytes(*derive(k_ausf.expose(), FC_A_TID, &[b"A-TID", supi.as_bytes()]))
}

/// K_AF, TS 33.535 A.4: KDF(K_AKMA, FC 0x82, AF_ID).
pub fn k_af(k_akma: &KAkma, af_id: &AfId) -> KAf {
    KAf::from_bytes(*derive(k_akma.expose(), FC_K_AF, &[&af_id.to_bytes()]))
}
