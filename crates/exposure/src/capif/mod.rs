//! The CAPIF core function (TS 23.222, TS 29.222, TS 33.122).
