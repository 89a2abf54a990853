//! Key types: fixed length, wiped when dropped, compared in constant time, never printed.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::Error;

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident, $octets:literal) => {
        $(#[$doc])*
        #[derive(Clone, Zeroize, ZeroizeOnDrop)]
        pub struct $name([u8; $octets]);

        impl $name {
            /// The length in octets.
            pub const OCTETS: usize = $octets;

            /// Takes the octets over. The caller's copy stays the caller's to wipe.
            pub fn from_bytes(octets: [u8; $octets]) -> Self {
                Self(octets)
            }

            /// Reads hexadecimal digits of either case.
            ///
            /// # Errors
            /// [`Error::InvalidHex`] when the text is no hexadecimal of exactly this length.
            pub fn from_hex(text: &str) -> Result<Self, Error> {
                let mut octets = Zeroizing::new([0; $octets]);
                hex::decode_to_slice(text, octets.as_mut_slice())
                    .map_err(|_| Error::InvalidHex { octets: $octets })?;
                Ok(Self(*octets))
            }

            /// The octets. Named so that every use of the secret is easy to find.
            pub fn expose(&self) -> &[u8; $octets] {
                &self.0
            }

            /// The octets as lower-case hexadecimal digits, wiped when dropped.
            pub fn to_hex(&self) -> Zeroizing<String> {
                Zeroizing::new(hex::encode(self.0))
            }
        }

        impl ConstantTimeEq for $name {
            fn ct_eq(&self, other: &Self) -> subtle::Choice {
                self.0.ct_eq(&other.0)
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.ct_eq(other).into()
            }
        }

        impl Eq for $name {}

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(redacted)"))
            }
        }
    };
}

secret! {
    /// AK, output of f5 or f5*: what hides the sequence number (TS 33.102 6.3.2).
    Ak, 6
}
secret! {
    /// CK, output of f3 (TS 33.102 6.3.2).
    Ck, 16
}
secret! {
    /// IK, output of f4 (TS 33.102 6.3.2).
    Ik, 16
}
secret! {
    /// CK' of EAP-AKA' (RFC 9048 3.3, TS 33.501 A.3).
    CkPrime, 16
}
secret! {
    /// IK' of EAP-AKA' (RFC 9048 3.3, TS 33.501 A.3).
    IkPrime, 16
}
secret! {
    /// RES* or XRES* of 5G AKA, TS 33.501 A.4.
    ResStar, 16
}
secret! {
    /// HRES* or HXRES* of 5G AKA, TS 33.501 A.5.
    HresStar, 16
}
secret! {
    /// K_AUSF, TS 33.501 A.2 (5G AKA) or 6.1.3.1 (EAP-AKA').
    KAusf, 32
}
secret! {
    /// K_SEAF, TS 33.501 A.6.
    KSeaf, 32
}
secret! {
    /// K_AMF, TS 33.501 A.7.
    KAmf, 32
}
secret! {
    /// K_AKMA, TS 33.535 A.2.
    KAkma, 32
}
secret! {
    /// The AKMA temporary identifier, TS 33.535 A.3. It travels inside the A-KID, and so is no secret of its own;
    /// it is handled as one because whoever knows it can name the UE's key.
    ATid, 32
}
secret! {
    /// K_AF, TS 33.535 A.4: the key between one UE and one application function.
    KAf, 32
}
secret! {
    /// AEF_PSK, TS 33.122 A.1: the key between one API invoker and one interface of an API exposing function.
    AefPsk, 32
}
secret! {
    /// K_encr of EAP-AKA', RFC 9048 3.3.
    KEncr, 16
}
secret! {
    /// K_aut of EAP-AKA', RFC 9048 3.3.
    KAut, 32
}
secret! {
    /// K_re of EAP-AKA', RFC 9048 3.3.
    KRe, 32
}
secret! {
    /// The master session key of EAP-AKA', RFC 9048 3.3.
    Msk, 64
}
secret! {
    /// The extended master session key of EAP-AKA', RFC 9048 3.3.
    Emsk, 64
}

/// A RES or XRES, output of f2: 4 to 16 octets (TS 33.102 6.3.7).
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Res(Vec<u8>);

impl Res {
    /// Takes the octets over.
    ///
    /// # Errors
    /// [`Error::InvalidRes`] when there are fewer than 4 or more than 16.
    pub fn from_slice(octets: &[u8]) -> Result<Self, Error> {
        if (4..=16).contains(&octets.len()) { Ok(Self(octets.to_vec())) } else { Err(Error::InvalidRes) }
    }

    /// Reads hexadecimal digits of either case.
    ///
    /// # Errors
    /// [`Error::InvalidRes`] when the text is no hexadecimal of 4 to 16 octets.
    pub fn from_hex(text: &str) -> Result<Self, Error> {
        let octets = Zeroizing::new(hex::decode(text).map_err(|_| Error::InvalidRes)?);
        Self::from_slice(&octets)
    }

    /// The octets.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The octets as lower-case hexadecimal digits, wiped when dropped.
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(&self.0))
    }
}

impl PartialEq for Res {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Res {}

impl fmt::Debug for Res {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Res(redacted)")
    }
}
