//! Any body that an AUSF or AF sends the AAnF, and any it is notified with, is read or refused; a URI for notifications that
//! is accepted names a host, and is below itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sbi::naanf::{AkmaAfKeyData, AkmaAfKeyRequest, AkmaKeyInfo, CtxRemove, NotificationUri, ServiceDisableNotif};
use sbi::{SupportedFeatures, parse_json};

fuzz_target!(|body: &[u8]| {
    if let Ok(request) = parse_json::<AkmaAfKeyRequest>(body) {
        let again = serde_json::to_vec(&request).expect("what was read can be written");
        assert_eq!(parse_json::<AkmaAfKeyRequest>(&again).expect("and read again"), request);
        let _ = request.a_kid.routing_indicator();
    }
    let _ = parse_json::<AkmaKeyInfo>(body);
    let _ = parse_json::<AkmaAfKeyData>(body);
    let _ = parse_json::<CtxRemove>(body);
    let _ = parse_json::<ServiceDisableNotif>(body);
    let Ok(text) = std::str::from_utf8(body) else { return };
    if let Ok(uri) = text.parse::<NotificationUri>() {
        assert!(!uri.host().is_empty() && uri.port() != 0 && uri.is_below(&uri));
    }
    if let Ok(features) = text.parse::<SupportedFeatures>() {
        assert_eq!(features.to_string().parse(), Ok(features));
    }
});
