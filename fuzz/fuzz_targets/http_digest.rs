//! `Authorization` and `WWW-Authenticate` of strangers: no panic, and what is read is written as it was meant.
#![no_main]

use akma::{Challenge, Credentials, DIGEST_HEADER_OCTETS_MAX};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    // Written with blanks and quotation marks that it may not have had, it must still be short enough to be read.
    if text.len() > DIGEST_HEADER_OCTETS_MAX / 2 {
        let _ = (Credentials::parse(text), Challenge::parse(text));
        return;
    }
    if let Ok(credentials) = Credentials::parse(text) {
        assert_eq!(Credentials::parse(&credentials.to_string()).unwrap(), credentials);
    }
    if let Ok(challenge) = Challenge::parse(text) {
        assert_eq!(Challenge::parse(&challenge.to_string()).unwrap(), challenge);
    }
});
