//! MILENAGE (TS 35.206) over AES-128.
//!
//! The functions are written here, over a reviewed AES, because they are what this crate is about and because the
//! crates that offer them keep K and the outputs in memory unwiped and printable. Tests compare with one of them.

use std::fmt;

use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::keys::Ak;
use crate::{Amf, Ck, Ik, Sqn};

// TS 35.206 4.1: the rotations in bits, and the constants, for OUT1 to OUT5.
const ROTATION_1: u32 = 64;
const OUT_2: (u32, u128) = (0, 1);
const OUT_3: (u32, u128) = (32, 2);
const OUT_4: (u32, u128) = (64, 4);
const OUT_5: (u32, u128) = (96, 8);

/// The MILENAGE functions of one subscriber.
///
/// The 128-bit quantities of TS 35.206 are held as big-endian numbers, so that its rotations and exclusive-ors are
/// those of the machine.
#[derive(Clone)]
pub struct Milenage {
    cipher: Aes128,
    opc: SecretBlock,
}

#[derive(Clone, Zeroize, ZeroizeOnDrop)]
struct SecretBlock(u128);

/// The outputs of f2, f3, f4 and f5 for one RAND.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MilenageOutput {
    /// RES, f2: 8 octets.
    pub res: Zeroizing<[u8; 8]>,
    /// CK, f3.
    pub ck: Ck,
    /// IK, f4.
    pub ik: Ik,
    /// AK, f5.
    pub ak: Ak,
}

impl Milenage {
    /// From K and OPc.
    pub fn from_opc(k: &[u8; 16], opc: &[u8; 16]) -> Self {
        Self { cipher: Aes128::new(k.into()), opc: SecretBlock(u128::from_be_bytes(*opc)) }
    }

    /// From K and OP: OPc = E_K(OP) xor OP, TS 35.206 4.1.
    pub fn from_op(k: &[u8; 16], op: &[u8; 16]) -> Self {
        let mut milenage = Self::from_opc(k, &[0; 16]);
        let op = u128::from_be_bytes(*op);
        milenage.opc.0 = milenage.encrypt(op) ^ op;
        milenage
    }

    /// OPc.
    pub fn opc(&self) -> Zeroizing<[u8; 16]> {
        Zeroizing::new(self.opc.0.to_be_bytes())
    }

    /// f1: MAC-A.
    pub fn f1(&self, rand: &[u8; 16], sqn: Sqn, amf: Amf) -> [u8; 8] {
        high_half(self.out_1(rand, sqn, amf))
    }

    /// f1*: MAC-S.
    pub fn f1_star(&self, rand: &[u8; 16], sqn: Sqn, amf: Amf) -> [u8; 8] {
        low_half(self.out_1(rand, sqn, amf))
    }

    /// f2, f3, f4 and f5, which share their first step.
    pub fn f2345(&self, rand: &[u8; 16]) -> MilenageOutput {
        let temp = self.temp(rand);
        let out_2 = self.out(temp, OUT_2);
        MilenageOutput {
            res: Zeroizing::new(low_half(out_2)),
            ck: Ck::from_bytes(self.out(temp, OUT_3).to_be_bytes()),
            ik: Ik::from_bytes(self.out(temp, OUT_4).to_be_bytes()),
            ak: anonymity_key(out_2),
        }
    }

    /// f5*: AK for a synchronisation failure.
    pub fn f5_star(&self, rand: &[u8; 16]) -> Ak {
        anonymity_key(self.out(self.temp(rand), OUT_5))
    }

    fn temp(&self, rand: &[u8; 16]) -> u128 {
        self.encrypt(u128::from_be_bytes(*rand) ^ self.opc.0)
    }

    fn out_1(&self, rand: &[u8; 16], sqn: Sqn, amf: Amf) -> u128 {
        let half = (u128::from(sqn.value()) << 16) | u128::from(u16::from_be_bytes(amf.to_bytes()));
        let in_1 = (half << 64) | half;
        self.encrypt(self.temp(rand) ^ (in_1 ^ self.opc.0).rotate_left(ROTATION_1)) ^ self.opc.0
    }

    fn out(&self, temp: u128, (rotation, constant): (u32, u128)) -> u128 {
        self.encrypt((temp ^ self.opc.0).rotate_left(rotation) ^ constant) ^ self.opc.0
    }

    fn encrypt(&self, block: u128) -> u128 {
        let mut block = block.to_be_bytes().into();
        self.cipher.encrypt_block(&mut block);
        u128::from_be_bytes(block.into())
    }
}

impl fmt::Debug for Milenage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Milenage(redacted)")
    }
}

fn high_half(block: u128) -> [u8; 8] {
    ((block >> 64) as u64).to_be_bytes()
}

fn low_half(block: u128) -> [u8; 8] {
    (block as u64).to_be_bytes()
}

/// The first six octets.
fn anonymity_key(block: u128) -> Ak {
    let [a, b, c, d, e, f, ..] = block.to_be_bytes();
    Ak::from_bytes([a, b, c, d, e, f])
}
