//! What the network shows to the outside: the NEF (TS 29.522, TS 33.501 clause 12) and the CAPIF core function (TS 29.222,
//! TS 33.122).

#![forbid(unsafe_code)]

pub mod capif;
pub mod nef;
