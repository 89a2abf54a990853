//! Any octets are an EAP-AKA' packet or are refused; what is accepted can be written and reads the same.
#![no_main]

use akma::eap_aka_prime::EapPacket;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    let Ok(packet) = EapPacket::decode(octets) else { return };
    if let Ok(written) = packet.encode() {
        assert_eq!(EapPacket::decode(&written).expect("what we write, we read"), packet);
    }
});
