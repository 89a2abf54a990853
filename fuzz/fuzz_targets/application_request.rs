//! Any octets from an application on MSGin5G-5 become a request or a refusal.
#![no_main]

use client::{LocalLimits, check_application_request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    let _ = check_application_request(octets, &LocalLimits::default());
});
