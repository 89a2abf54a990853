//! Whatever is posted to the NEF's token endpoint is read or refused; what is read names its grant.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    if exposure::nef::is_token_request(body) {
        assert!(body.len() >= "grant_type=client_credentials".len());
    }
});
