//! The keys of EAP-AKA', RFC 9048 3.3 and 3.4.

use zeroize::Zeroizing;

use crate::five_g_aka::ck_ik;
use crate::kdf::{KdfInput, hmac_sha_256, string_parameter};
use crate::{Ck, CkPrime, Emsk, Error, Ik, IkPrime, KAusf, KAut, KEncr, KRe, Msk, Supi};

const FC_CK_PRIME: u8 = 0x20;

/// CK' and IK', TS 33.501 A.3 and TS 33.402 A.2: KDF(CK || IK, FC 0x20, network name, SQN xor AK), the first half CK'.
///
/// In 5G the network name is the serving network name.
///
/// # Errors
/// [`Error::KdfParameterTooLong`] for a name beyond 65535 octets.
pub fn ck_prime_ik_prime(
    ck: &Ck,
    ik: &Ik,
    network_name: &str,
    sqn_xor_ak: &[u8; 6],
) -> Result<(CkPrime, IkPrime), Error> {
    let name = string_parameter(network_name);
    let input = KdfInput::new(FC_CK_PRIME).parameter(name.as_bytes())?.parameter(sqn_xor_ak)?;
    let derived = input.derive(&ck_ik(ck, ik));
    let (ck_prime, ik_prime) = derived.split_first_chunk().expect("32 octets have a first 16");
    let ik_prime = ik_prime.first_chunk().expect("and another 16");
    Ok((CkPrime::from_bytes(*ck_prime), IkPrime::from_bytes(*ik_prime)))
}

/// The keys of one authentication, RFC 9048 3.3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// Encrypts attributes; not used in 5G.
    pub k_encr: KEncr,
    /// Authenticates packets.
    pub k_aut: KAut,
    /// For fast re-authentication; not used in 5G.
    pub k_re: KRe,
    /// For the lower layer.
    pub msk: Msk,
    /// The one that K_AUSF is taken from.
    pub emsk: Emsk,
}

impl Keys {
    /// MK = PRF'(IK' || CK', "EAP-AKA'" || identity), and its division.
    ///
    /// In 5G the identity is that of [`for_supi`](Self::for_supi).
    pub fn derive(ck_prime: &CkPrime, ik_prime: &IkPrime, identity: &str) -> Self {
        let key = Zeroizing::new([ik_prime.expose().as_slice(), ck_prime.expose()].concat());
        let octets = KEncr::OCTETS + KAut::OCTETS + KRe::OCTETS + Msk::OCTETS + Emsk::OCTETS;
        let mk = prf_prime(&key, &[b"EAP-AKA'", identity.as_bytes()], octets);
        let mut rest = mk.as_slice();
        Self {
            k_encr: KEncr::from_bytes(take(&mut rest)),
            k_aut: KAut::from_bytes(take(&mut rest)),
            k_re: KRe::from_bytes(take(&mut rest)),
            msk: Msk::from_bytes(take(&mut rest)),
            emsk: Emsk::from_bytes(take(&mut rest)),
        }
    }

    /// The keys in 5G: whatever identity the UE showed, the SUPI's bare IMSI or NAI is used (TS 33.501 F.3).
    pub fn for_supi(ck_prime: &CkPrime, ik_prime: &IkPrime, supi: &Supi) -> Self {
        Self::derive(ck_prime, ik_prime, supi.kdf_value())
    }

    /// K_AUSF, see [`k_ausf_eap_aka_prime`].
    pub fn k_ausf(&self) -> KAusf {
        k_ausf_eap_aka_prime(&self.emsk)
    }
}

/// K_AUSF of EAP-AKA', TS 33.501 6.1.3.1: the first 32 octets of EMSK.
pub fn k_ausf_eap_aka_prime(emsk: &Emsk) -> KAusf {
    KAusf::from_bytes(take(&mut emsk.expose().as_slice()))
}

/// PRF' of RFC 9048 3.4.1: T1 | T2 | …, with Tn = HMAC-SHA-256(key, Tn-1 | input | n).
fn prf_prime(key: &[u8], input: &[&[u8]; 2], octets: usize) -> Zeroizing<Vec<u8>> {
    let [label, identity] = *input;
    let mut output = Zeroizing::new(Vec::with_capacity(octets.next_multiple_of(32)));
    let mut block = Zeroizing::new(Vec::new());
    let mut counter = 0u8;
    while output.len() < octets {
        counter += 1;
        block = Zeroizing::new(hmac_sha_256(key, &[&block, label, identity, &[counter]]).to_vec());
        output.extend_from_slice(&block);
    }
    output
}

/// The next `N` octets of a string made long enough above.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (taken, left) = rest.split_first_chunk().expect("MK and EMSK hold all the keys taken from them");
    *rest = left;
    *taken
}
