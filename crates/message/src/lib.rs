//! The message model of TS 23.554 and its codings, no I/O
