//! Fragments of handshake messages, whatever they are, come out in order, within bounds, and are read as they would be
//! written.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|contents: Vec<&[u8]>| dtls::fuzzing::handshake(&contents));
