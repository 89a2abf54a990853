//! The USIM's side of authentication (TS 33.102 6.3.3, TS 33.501 6.1.3).

use subtle::ConstantTimeEq;

use crate::credentials::{F2345, conceal_sqn, sqn_xor_ak};
use crate::five_g_aka::{k_ausf_5g_aka, res_star};
use crate::sqn::SqnWindow;
use crate::{Amf, Ck, Ik, KAusf, Res, ResStar, ServingNetworkName, Sqn, SqnLimits, UsimCredentials};

/// A USIM in software, with the checks that TS 33.501 gives the ME.
///
/// Its state is the window of sequence numbers; a program that ends keeps [`window`](Self::window) and starts again
/// with [`with_window`](Self::with_window), or else keeps [`sqn_ms`](Self::sqn_ms) and starts with
/// [`new`](Self::new), which then refuses vectors that were skipped.
#[derive(Debug, Clone)]
pub struct Usim {
    credentials: UsimCredentials,
    window: SqnWindow,
}

/// What a USIM gives when it accepts a challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsimResponse {
    /// The challenge.
    pub rand: [u8; 16],
    /// The network's proof.
    pub autn: [u8; 16],
    /// The answer.
    pub res: Res,
    /// The confidentiality key.
    pub ck: Ck,
    /// The integrity key.
    pub ik: Ik,
}

/// Why a USIM refuses a challenge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UsimFailure {
    /// MAC-A is wrong: whoever made the challenge does not hold K.
    #[error("the network does not prove knowledge of K")]
    Mac,
    /// The separation bit is not set: the vector was made for UTRAN or GERAN, and may have been stolen there.
    #[error("the vector was not made for 5G")]
    SeparationBit,
    /// The sequence number is not fresh. The AUTS tells the home network where to go on.
    #[error("the sequence number is not fresh")]
    Synchronisation {
        /// SQN_MS xor AK*, MAC-S.
        auts: [u8; 14],
    },
}

impl Usim {
    /// A USIM that has accepted numbers up to `sqn_ms`; [`Sqn::ZERO`] for a new one.
    pub fn new(credentials: UsimCredentials, sqn_ms: Sqn) -> Self {
        Self::with_window(credentials, SqnWindow::at(sqn_ms, SqnLimits::default()))
    }

    /// A USIM with a window kept from before, or with limits other than the default.
    pub fn with_window(credentials: UsimCredentials, window: SqnWindow) -> Self {
        Self { credentials, window }
    }

    /// The highest sequence number accepted.
    pub fn sqn_ms(&self) -> Sqn {
        self.window.highest()
    }

    /// The sequence numbers accepted, to be kept.
    pub fn window(&self) -> &SqnWindow {
        &self.window
    }

    /// Checks a challenge and answers it.
    ///
    /// In the order of TS 33.102 6.3.3: MAC-A, then (TS 33.501 6.1.3) the separation bit, then the sequence number;
    /// so that a challenge without proof learns nothing, and one refused for its separation bit uses up no number.
    ///
    /// # Errors
    /// [`UsimFailure`]; the window is then unchanged.
    pub fn authenticate(&mut self, rand: &[u8; 16], autn: &[u8; 16]) -> Result<UsimResponse, UsimFailure> {
        let F2345 { res, ck, ik, ak } = self.credentials.f2345(rand);
        let [_, _, _, _, _, _, amf_0, amf_1, mac_a @ ..] = *autn;
        let amf = Amf::from_bytes([amf_0, amf_1]);
        let sqn = Sqn::from_bytes(conceal_sqn(Sqn::from_bytes(sqn_xor_ak(autn)), &ak));
        let xmac_a = self.credentials.mac_a(rand, sqn, amf);
        if !bool::from(xmac_a.ct_eq(&mac_a)) {
            return Err(UsimFailure::Mac);
        }
        if !amf.separation_bit() {
            return Err(UsimFailure::SeparationBit);
        }
        if self.window.accept(sqn).is_err() {
            let auts = self.credentials.auts(rand, self.window.highest());
            return Err(UsimFailure::Synchronisation { auts });
        }
        Ok(UsimResponse { rand: *rand, autn: *autn, res, ck, ik })
    }
}

impl UsimResponse {
    /// SQN xor AK, the first six octets of AUTN: a parameter of K_AUSF, CK' and IK'.
    pub fn sqn_xor_ak(&self) -> [u8; 6] {
        sqn_xor_ak(&self.autn)
    }

    /// RES* of 5G AKA, TS 33.501 A.4.
    pub fn res_star(&self, serving_network_name: &ServingNetworkName) -> ResStar {
        res_star(&self.ck, &self.ik, serving_network_name, &self.rand, &self.res)
    }

    /// K_AUSF of 5G AKA, TS 33.501 A.2.
    pub fn k_ausf(&self, serving_network_name: &ServingNetworkName) -> KAusf {
        k_ausf_5g_aka(&self.ck, &self.ik, serving_network_name, &self.sqn_xor_ak())
    }
}
