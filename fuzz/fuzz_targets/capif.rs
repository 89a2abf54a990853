//! What an API invoker or a provider sends to the CAPIF core function: scopes, public keys and signing requests, documents.
#![no_main]

use exposure::capif::SubjectKey;
use libfuzzer_sys::fuzz_target;
use sbi::capif::publish::{AefProfile, DiscoveryQuery, ServiceApiDescription};
use sbi::capif::scope::CapifScope;
use sbi::capif::security::{AccessTokenReq, SecurityInformation, ServiceSecurity};

fuzz_target!(|text: &str| {
    if let Ok(scope) = text.parse::<CapifScope>() {
        assert_eq!(scope.to_string().parse::<CapifScope>().expect("what we write, we read"), scope);
    }
    let _ = SubjectKey::parse(text);
    let _ = SubjectKey::parse(&format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n"));
    let _ = SubjectKey::parse(&format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n"));
    if let Ok(api) = serde_json::from_str::<ServiceApiDescription>(text) {
        let _ = api.profiles().iter().all(AefProfile::is_well_formed);
        let _ = DiscoveryQuery::default().find(&api);
        for interface in api.profiles().iter().flat_map(AefProfile::interfaces) {
            let _ = interface.information();
        }
    }
    if let Ok(context) = serde_json::from_str::<ServiceSecurity>(text) {
        let _ = context.security_info.iter().all(SecurityInformation::is_well_formed);
    }
    let _ = serde_json::from_str::<AccessTokenReq>(text);
});
