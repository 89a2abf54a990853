//! The last segment of a URI that the NEF left at the AAnF is read or refused; what is read is a URI that an AF may leave.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sbi::naanf::NotificationUri;

fuzz_target!(|segment: &str| {
    if let Some(uri) = exposure::nef::relayed_to(segment) {
        assert!(uri.as_str().parse::<NotificationUri>().is_ok());
    }
});
