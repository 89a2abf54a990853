//! What a subscriber and the home network share, and what the home network makes of it (TS 33.102 6.3).

use std::fmt;

use subtle::ConstantTimeEq;

use crate::five_g_aka::{k_ausf_5g_aka, res_star};
use crate::keys::Ak;
use crate::tuak::{TuakKeyLength, TuakTagLength};
use crate::{Amf, Ck, Error, Ik, KAusf, Milenage, Res, ResStar, ServingNetworkName, Sqn, Tuak};

/// A subscriber's K with the operator's constant, for one of the two algorithm sets.
#[derive(Clone)]
pub struct UsimCredentials(Algorithm);

#[derive(Clone)]
enum Algorithm {
    /// Boxed: an AES key schedule is large.
    Milenage(Box<Milenage>),
    /// With the length of RES, at most 16 octets.
    Tuak(Tuak, TuakTagLength),
}

/// One authentication vector, TS 33.102 6.3.2: what the home network needs to authenticate the subscriber once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthenticationVector {
    /// The challenge.
    pub rand: [u8; 16],
    /// SQN xor AK, AMF, MAC-A.
    pub autn: [u8; 16],
    /// What the USIM is to answer.
    pub xres: Res,
    /// The confidentiality key.
    pub ck: Ck,
    /// The integrity key.
    pub ik: Ik,
    /// The anonymity key.
    pub ak: Ak,
}

/// f2 to f5 at the lengths of 5G.
pub(crate) struct F2345 {
    pub(crate) res: Res,
    pub(crate) ck: Ck,
    pub(crate) ik: Ik,
    pub(crate) ak: Ak,
}

impl UsimCredentials {
    /// MILENAGE with K and OPc.
    pub fn milenage_opc(k: &[u8; 16], opc: &[u8; 16]) -> Self {
        Self(Algorithm::Milenage(Box::new(Milenage::from_opc(k, opc))))
    }

    /// MILENAGE with K and OP.
    pub fn milenage_op(k: &[u8; 16], op: &[u8; 16]) -> Self {
        Self(Algorithm::Milenage(Box::new(Milenage::from_op(k, op))))
    }

    /// TUAK with K (16 or 32 octets) and TOPc, one iteration, RES of 8 octets.
    ///
    /// # Errors
    /// [`Error::InvalidCredentials`] for another length of K.
    pub fn tuak_topc(k: &[u8], topc: &[u8; 32]) -> Result<Self, Error> {
        Self::tuak(Tuak::from_topc(k, topc, 1)?, TuakTagLength::Bits64)
    }

    /// TUAK with K (16 or 32 octets) and TOP, one iteration, RES of 8 octets.
    ///
    /// # Errors
    /// [`Error::InvalidCredentials`] for another length of K.
    pub fn tuak_top(k: &[u8], top: &[u8; 32]) -> Result<Self, Error> {
        Self::tuak(Tuak::from_top(k, top, 1)?, TuakTagLength::Bits64)
    }

    /// TUAK with an operator's own choice of iterations and of the length of RES.
    ///
    /// # Errors
    /// [`Error::InvalidCredentials`] for a RES of 32 octets: TS 33.501 A.4 takes at most 16.
    pub fn tuak(tuak: Tuak, res: TuakTagLength) -> Result<Self, Error> {
        if res == TuakTagLength::Bits256 {
            return Err(Error::InvalidCredentials("a RES has at most 16 octets in 5G"));
        }
        Ok(Self(Algorithm::Tuak(tuak, res)))
    }

    /// Makes a vector. The caller chooses a fresh random RAND and the next SQN, and has the SQN stored first.
    pub fn vector(&self, rand: &[u8; 16], sqn: Sqn, amf: Amf) -> AuthenticationVector {
        let F2345 { res: xres, ck, ik, ak } = self.f2345(rand);
        let autn = autn(conceal_sqn(sqn, &ak), amf, self.mac_a(rand, sqn, amf));
        AuthenticationVector { rand: *rand, autn, xres, ck, ik, ak }
    }

    /// Verifies an AUTS (TS 33.102 6.3.5) and gives SQN_MS, the highest sequence number the USIM has accepted. The
    /// home network goes on from there: its next vector uses [`Sqn::next`] of it.
    ///
    /// `rand` is the challenge that the USIM refused, as the home network sent it.
    ///
    /// # Errors
    /// [`Error::AutsMac`] when MAC-S is wrong; the home network's sequence number must then stay as it is.
    pub fn verify_auts(&self, rand: &[u8; 16], auts: &[u8; 14]) -> Result<Sqn, Error> {
        let [s0, s1, s2, s3, s4, s5, mac_s @ ..] = *auts;
        let sqn_ms = conceal_sqn(Sqn::from_bytes([s0, s1, s2, s3, s4, s5]), &self.f5_star(rand));
        let sqn_ms = Sqn::from_bytes(sqn_ms);
        if self.mac_s(rand, sqn_ms).ct_eq(&mac_s).into() { Ok(sqn_ms) } else { Err(Error::AutsMac) }
    }

    /// Makes an AUTS, TS 33.102 6.3.3: SQN_MS xor AK*, MAC-S. A USIM does so; see [`Usim`](crate::Usim).
    pub fn auts(&self, rand: &[u8; 16], sqn_ms: Sqn) -> [u8; 14] {
        let [s0, s1, s2, s3, s4, s5] = conceal_sqn(sqn_ms, &self.f5_star(rand));
        let [m0, m1, m2, m3, m4, m5, m6, m7] = self.mac_s(rand, sqn_ms);
        [s0, s1, s2, s3, s4, s5, m0, m1, m2, m3, m4, m5, m6, m7]
    }

    pub(crate) fn f2345(&self, rand: &[u8; 16]) -> F2345 {
        match &self.0 {
            Algorithm::Milenage(milenage) => {
                let output = milenage.f2345(rand);
                let res = Res::from_slice(output.res.as_slice()).expect("f2 of MILENAGE gives 8 octets");
                F2345 { res, ck: output.ck, ik: output.ik, ak: output.ak }
            }
            Algorithm::Tuak(tuak, res_length) => {
                let output = tuak.f2345(rand, *res_length, TuakKeyLength::Bits128, TuakKeyLength::Bits128);
                F2345 {
                    res: Res::from_slice(&output.res).expect("a RES of 4, 8 or 16 octets was asked for"),
                    ck: Ck::from_bytes(first(&output.ck)),
                    ik: Ik::from_bytes(first(&output.ik)),
                    ak: output.ak,
                }
            }
        }
    }

    pub(crate) fn mac_a(&self, rand: &[u8; 16], sqn: Sqn, amf: Amf) -> [u8; 8] {
        match &self.0 {
            Algorithm::Milenage(milenage) => milenage.f1(rand, sqn, amf),
            Algorithm::Tuak(tuak, _) => {
                let mac = tuak.f1(rand, sqn, amf, TuakTagLength::Bits64);
                first(&mac.expect("a MAC of 8 octets is one of TUAK's"))
            }
        }
    }

    /// MAC-S, with an AMF of zeros.
    fn mac_s(&self, rand: &[u8; 16], sqn_ms: Sqn) -> [u8; 8] {
        match &self.0 {
            Algorithm::Milenage(milenage) => milenage.f1_star(rand, sqn_ms, Amf::ZERO),
            Algorithm::Tuak(tuak, _) => {
                let mac = tuak.f1_star(rand, sqn_ms, Amf::ZERO, TuakTagLength::Bits64);
                first(&mac.expect("a MAC of 8 octets is one of TUAK's"))
            }
        }
    }

    fn f5_star(&self, rand: &[u8; 16]) -> Ak {
        match &self.0 {
            Algorithm::Milenage(milenage) => milenage.f5_star(rand),
            Algorithm::Tuak(tuak, _) => tuak.f5_star(rand),
        }
    }
}

impl fmt::Debug for UsimCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Algorithm::Milenage(_) => "UsimCredentials(Milenage, redacted)",
            Algorithm::Tuak(..) => "UsimCredentials(Tuak, redacted)",
        })
    }
}

impl AuthenticationVector {
    /// SQN xor AK, the first six octets of AUTN: a parameter of K_AUSF, CK' and IK'.
    pub fn sqn_xor_ak(&self) -> [u8; 6] {
        sqn_xor_ak(&self.autn)
    }

    /// XRES* of 5G AKA, TS 33.501 A.4.
    pub fn xres_star(&self, serving_network_name: &ServingNetworkName) -> ResStar {
        res_star(&self.ck, &self.ik, serving_network_name, &self.rand, &self.xres)
    }

    /// K_AUSF of 5G AKA, TS 33.501 A.2.
    pub fn k_ausf(&self, serving_network_name: &ServingNetworkName) -> KAusf {
        k_ausf_5g_aka(&self.ck, &self.ik, serving_network_name, &self.sqn_xor_ak())
    }
}

/// SQN xor AK, which turns either into the other form.
pub(crate) fn conceal_sqn(sqn: Sqn, ak: &Ak) -> [u8; 6] {
    let mut octets = sqn.to_bytes();
    octets.iter_mut().zip(ak.expose()).for_each(|(octet, ak)| *octet ^= ak);
    octets
}

/// The first six octets of an AUTN.
pub(crate) fn sqn_xor_ak(autn: &[u8; 16]) -> [u8; 6] {
    let [s0, s1, s2, s3, s4, s5, ..] = *autn;
    [s0, s1, s2, s3, s4, s5]
}

fn autn(sqn_xor_ak: [u8; 6], amf: Amf, mac_a: [u8; 8]) -> [u8; 16] {
    let [s0, s1, s2, s3, s4, s5] = sqn_xor_ak;
    let [a0, a1] = amf.to_bytes();
    let [m0, m1, m2, m3, m4, m5, m6, m7] = mac_a;
    [s0, s1, s2, s3, s4, s5, a0, a1, m0, m1, m2, m3, m4, m5, m6, m7]
}

/// The first `N` octets of an output that has at least as many.
fn first<const N: usize>(octets: &[u8]) -> [u8; N] {
    *octets.first_chunk().expect("TUAK gives as many octets as were asked for")
}
