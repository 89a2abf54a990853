//! A datagram, whatever it is, comes apart into records that make it up again.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (connection_id_octets, datagram) = input;
    dtls::fuzzing::records(datagram, usize::from(connection_id_octets % 33));
});
