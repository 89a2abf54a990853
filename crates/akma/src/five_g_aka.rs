//! The keys of 5G primary authentication, TS 33.501 Annex A.

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::kdf::{derive, string_parameter};
use crate::{Ck, HresStar, Ik, KAmf, KAusf, KSeaf, Res, ResStar, ServingNetworkName, Supi};

const FC_K_AUSF: u8 = 0x6a;
const FC_RES_STAR: u8 = 0x6b;
const FC_K_SEAF: u8 = 0x6c;
const FC_K_AMF: u8 = 0x6d;

/// ABBA of TS 33.501 A.7.1: no feature of a later release is signalled.
pub const ABBA_INITIAL: [u8; 2] = [0, 0];

/// K_AUSF of 5G AKA, TS 33.501 A.2: KDF(CK || IK, FC 0x6A, serving network name, SQN xor AK).
pub fn k_ausf_5g_aka(ck: &Ck, ik: &Ik, serving_network_name: &ServingNetworkName, sqn_xor_ak: &[u8; 6]) -> KAusf {
    let parameters = [serving_network_name.as_str().as_bytes(), sqn_xor_ak.as_slice()];
    KAusf::from_bytes(*derive(&ck_ik(ck, ik), FC_K_AUSF, &parameters))
}

/// RES* (of the UE) or XRES* (of the home network), TS 33.501 A.4: the last 16 octets of
/// KDF(CK || IK, FC 0x6B, serving network name, RAND, RES).
pub fn res_star(ck: &Ck, ik: &Ik, serving_network_name: &ServingNetworkName, rand: &[u8; 16], res: &Res) -> ResStar {
    let parameters = [serving_network_name.as_str().as_bytes(), rand.as_slice(), res.expose()];
    ResStar::from_bytes(last_half(&derive(&ck_ik(ck, ik), FC_RES_STAR, &parameters)))
}

/// HRES* (of the SEAF) or HXRES* (of the AUSF), TS 33.501 A.5: the last 16 octets of SHA-256(RAND || RES*).
pub fn hxres_star(rand: &[u8; 16], res_star: &ResStar) -> HresStar {
    let digest = Sha256::new().chain_update(rand).chain_update(res_star.expose()).finalize();
    HresStar::from_bytes(last_half(&digest.into()))
}

/// K_SEAF, TS 33.501 A.6: KDF(K_AUSF, FC 0x6C, serving network name).
pub fn k_seaf(k_ausf: &KAusf, serving_network_name: &ServingNetworkName) -> KSeaf {
    KSeaf::from_bytes(*derive(k_ausf.expose(), FC_K_SEAF, &[serving_network_name.as_str().as_bytes()]))
}

/// K_AMF, TS 33.501 A.7: KDF(K_SEAF, FC 0x6D, SUPI, ABBA). The SUPI enters as the bare IMSI or NAI.
pub fn k_amf(k_seaf: &KSeaf, supi: &Supi, abba: &[u8; 2]) -> KAmf {
    let supi = string_parameter(supi.kdf_value());
    KAmf::from_bytes(*derive(k_seaf.expose(), FC_K_AMF, &[supi.as_bytes(), abba]))
}

/// CK || IK, the key of the derivations that start from a vector.
pub(crate) fn ck_ik(ck: &Ck, ik: &Ik) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([ck.expose().as_slice(), ik.expose()].concat())
}

fn last_half(octets: &[u8; 32]) -> [u8; 16] {
    let (_, half) = octets.split_last_chunk().expect("32 octets have a last 16");
    *half
}
