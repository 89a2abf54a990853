//! TUAK (TS 35.231) over Keccak-f[1600].

use std::fmt;

use keccak::Keccak;
use zeroize::Zeroizing;

use crate::keys::Ak;
use crate::{Amf, Error, Sqn};

const STATE_OCTETS: usize = 200;

/// Every string of TS 35.231 enters the state last octet first, in this order.
mod layout {
    /// "TUAK1.0", TS 35.231 6.1.
    pub(super) const ALGONAME: &[u8; 7] = b"TUAK1.0";
    /// RAND, AMF and SQN together, between ALGONAME and K.
    pub(super) const INPUT_OCTETS: usize = 16 + 2 + 6;
    /// K takes this much room whatever its length.
    pub(super) const KEY_OCTETS: usize = 32;
    /// The padding's first octet follows K, its last is here.
    pub(super) const PADDING_END: usize = 135;

    pub(super) const CK_OFFSET: usize = 32;
    pub(super) const IK_OFFSET: usize = 64;
    pub(super) const AK_OFFSET: usize = 96;
}

/// The bits of INSTANCE, TS 35.231 6.2 to 6.6.
mod instance {
    pub(super) const TOPC: u8 = 0x00;
    pub(super) const F1_STAR: u8 = 0x80;
    pub(super) const F2345: u8 = 0x40;
    pub(super) const F5_STAR: u8 = 0xc0;
    pub(super) const CK_256: u8 = 0x04;
    pub(super) const IK_256: u8 = 0x02;
    pub(super) const K_256: u8 = 0x01;
}

/// The length of a CK or IK.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TuakKeyLength {
    /// 16 octets: what 5G uses.
    #[default]
    Bits128,
    /// 32 octets.
    Bits256,
}

/// The length of a RES or of a MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TuakTagLength {
    /// 4 octets; for a RES only.
    Bits32,
    /// 8 octets.
    Bits64,
    /// 16 octets.
    Bits128,
    /// 32 octets; a RES of this length does not fit 5G authentication.
    Bits256,
}

/// The outputs of f2, f3, f4 and f5 for one RAND, at the lengths asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TuakOutput {
    /// RES, f2.
    pub res: Zeroizing<Vec<u8>>,
    /// CK, f3.
    pub ck: Zeroizing<Vec<u8>>,
    /// IK, f4.
    pub ik: Zeroizing<Vec<u8>>,
    /// AK, f5.
    pub ak: Ak,
}

/// The TUAK functions of one subscriber.
#[derive(Clone)]
pub struct Tuak {
    k: Zeroizing<Vec<u8>>,
    topc: Zeroizing<[u8; 32]>,
    iterations: u8,
}

impl Tuak {
    /// From K (16 or 32 octets) and TOPc; the permutation is applied `iterations` times, 1 unless the operator chose
    /// otherwise.
    ///
    /// # Errors
    /// [`Error::InvalidCredentials`] for another length of K, or for no iteration.
    pub fn from_topc(k: &[u8], topc: &[u8; 32], iterations: u8) -> Result<Self, Error> {
        if k.len() != 16 && k.len() != 32 {
            return Err(Error::InvalidCredentials("K of TUAK has 16 or 32 octets"));
        }
        if iterations == 0 {
            return Err(Error::InvalidCredentials("TUAK needs at least one iteration of Keccak"));
        }
        Ok(Self { k: Zeroizing::new(k.to_vec()), topc: Zeroizing::new(*topc), iterations })
    }

    /// From K and TOP, which TOPc is derived from (TS 35.231 6.2).
    ///
    /// # Errors
    /// As [`from_topc`](Self::from_topc).
    pub fn from_top(k: &[u8], top: &[u8; 32], iterations: u8) -> Result<Self, Error> {
        let mut tuak = Self::from_topc(k, top, iterations)?;
        // The state of this step is that of the others, with TOP in the place of TOPc and no input.
        let out = tuak.run(instance::TOPC, None, None);
        tuak.topc.iter_mut().zip(field(&out, 0, 32).iter()).for_each(|(topc, octet)| *topc = *octet);
        Ok(tuak)
    }

    /// TOPc.
    pub fn topc(&self) -> &[u8; 32] {
        &self.topc
    }

    /// f1: MAC-A.
    ///
    /// # Errors
    /// [`Error::InvalidCredentials`] for [`TuakTagLength::Bits32`], which a MAC cannot have.
    pub fn f1(&self, rand: &[u8; 16], sqn: Sqn, amf: Amf, length: TuakTagLength) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.mac(0, rand, sqn, amf, length)
    }

    /// f1*: MAC-S.
    ///
    /// # Errors
    /// As [`f1`](Self::f1).
    pub fn f1_star(
        &self,
        rand: &[u8; 16],
        sqn: Sqn,
        amf: Amf,
        length: TuakTagLength,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.mac(instance::F1_STAR, rand, sqn, amf, length)
    }

    /// f2, f3, f4 and f5, which are one run of the permutation.
    pub fn f2345(&self, rand: &[u8; 16], res: TuakTagLength, ck: TuakKeyLength, ik: TuakKeyLength) -> TuakOutput {
        let mut instance = instance::F2345 | res.instance_bits();
        if ck == TuakKeyLength::Bits256 {
            instance |= instance::CK_256;
        }
        if ik == TuakKeyLength::Bits256 {
            instance |= instance::IK_256;
        }
        let out = self.run(instance, Some(rand), None);
        TuakOutput {
            res: field(&out, 0, res.octets()),
            ck: field(&out, layout::CK_OFFSET, ck.octets()),
            ik: field(&out, layout::IK_OFFSET, ik.octets()),
            ak: anonymity_key(&out),
        }
    }

    /// f5*: AK for a synchronisation failure.
    pub fn f5_star(&self, rand: &[u8; 16]) -> Ak {
        anonymity_key(&self.run(instance::F5_STAR, Some(rand), None))
    }

    fn mac(
        &self,
        function: u8,
        rand: &[u8; 16],
        sqn: Sqn,
        amf: Amf,
        length: TuakTagLength,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        if length == TuakTagLength::Bits32 {
            return Err(Error::InvalidCredentials("a MAC of TUAK has 8, 16 or 32 octets"));
        }
        let out = self.run(function | length.instance_bits(), Some(rand), Some((sqn, amf)));
        Ok(field(&out, 0, length.octets()))
    }

    /// Fills the state, permutes it, and gives its octets.
    fn run(&self, instance: u8, rand: Option<&[u8; 16]>, sqn_amf: Option<(Sqn, Amf)>) -> Zeroizing<Vec<u8>> {
        let instance = if self.k.len() == layout::KEY_OCTETS { instance | instance::K_256 } else { instance };
        let mut state = Zeroizing::new(Vec::with_capacity(STATE_OCTETS));
        state.extend(self.topc.iter().rev());
        state.push(instance);
        state.extend(layout::ALGONAME.iter().rev());
        let key_offset = state.len() + layout::INPUT_OCTETS;
        if let Some(rand) = rand {
            state.extend(rand.iter().rev());
        }
        if let Some((sqn, amf)) = sqn_amf {
            state.extend(amf.to_bytes().iter().rev());
            state.extend(sqn.to_bytes().iter().rev());
        }
        state.resize(key_offset, 0);
        state.extend(self.k.iter().rev());
        state.resize(key_offset + layout::KEY_OCTETS, 0);
        state.push(0x1f);
        state.resize(layout::PADDING_END, 0);
        state.push(0x80);
        state.resize(STATE_OCTETS, 0);
        for _ in 0..self.iterations {
            state = permute(&state);
        }
        state
    }
}

impl fmt::Debug for Tuak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tuak(redacted)")
    }
}

impl TuakKeyLength {
    fn octets(self) -> usize {
        match self {
            Self::Bits128 => 16,
            Self::Bits256 => 32,
        }
    }
}

impl TuakTagLength {
    /// The length in octets.
    pub fn octets(self) -> usize {
        match self {
            Self::Bits32 => 4,
            Self::Bits64 => 8,
            Self::Bits128 => 16,
            Self::Bits256 => 32,
        }
    }

    fn instance_bits(self) -> u8 {
        match self {
            Self::Bits32 => 0x00,
            Self::Bits64 => 0x08,
            Self::Bits128 => 0x10,
            Self::Bits256 => 0x20,
        }
    }
}

/// Keccak-f[1600] on 200 octets, eight to a lane, least significant first (TS 35.232 4).
fn permute(octets: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut lanes = Zeroizing::new([0u64; STATE_OCTETS / 8]);
    let (chunks, _) = octets.as_chunks::<8>();
    lanes.iter_mut().zip(chunks).for_each(|(lane, chunk)| *lane = u64::from_le_bytes(*chunk));
    Keccak::new().with_f1600(|f1600| f1600(&mut lanes));
    let mut out = Zeroizing::new(Vec::with_capacity(STATE_OCTETS));
    lanes.iter().for_each(|lane| out.extend(lane.to_le_bytes()));
    out
}

/// An output string, which stands in the state last octet first.
fn field(state: &[u8], offset: usize, octets: usize) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(state.iter().skip(offset).take(octets).rev().copied().collect())
}

fn anonymity_key(state: &[u8]) -> Ak {
    let mut ak = Zeroizing::new([0; 6]);
    ak.iter_mut().zip(field(state, layout::AK_OFFSET, 6).iter()).for_each(|(ak, octet)| *ak = *octet);
    Ak::from_bytes(*ak)
}
