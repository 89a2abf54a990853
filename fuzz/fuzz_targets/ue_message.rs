//! Any octets are a message of MSGin5G-1 or are refused; what is accepted has one canonical form that reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use message::{DecodeLimits, UeMessage};

fuzz_target!(|octets: &[u8]| {
    let limits = DecodeLimits::default();
    if let Ok(message) = UeMessage::decode(octets, &limits) {
        let canonical = message.encode();
        let again = UeMessage::decode(&canonical, &DecodeLimits { message_octets_max: usize::MAX, ..limits })
            .expect("what we write, we read");
        assert_eq!(again, message);
        assert_eq!(again.encode(), canonical);
    }
});
