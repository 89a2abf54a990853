//! A peer of DTLS 1.3 that has the keys sends records of any type and content, in time or late: the session neither panics
//! nor hangs, and takes no record twice.
#![no_main]

use libfuzzer_sys::fuzz_target;

const RECORDS_MAX: usize = 64;

fuzz_target!(|input: (bool, Vec<(u8, u16, &[u8])>)| {
    let (server, records) = input;
    dtls::fuzzing::session13(server, &records[..records.len().min(RECORDS_MAX)]);
});
