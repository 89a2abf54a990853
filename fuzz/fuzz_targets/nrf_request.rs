//! What an NRF reads from its peers: token forms, discovery queries, profiles and patches.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sbi::nrf::{AccessTokenReq, DiscoveryQuery, NFProfile, PatchItem, SubscriptionData, apply_patch};

/// As an NRF bounds it.
const OCTETS_MAX: usize = 4_096;

fuzz_target!(|data: &[u8]| {
    if let Ok(request) = AccessTokenReq::parse(data) {
        let again = AccessTokenReq::parse(request.encode().as_bytes()).expect("what was read can be written and read");
        assert_eq!(AccessTokenReq { others: request.others.clone(), ..again }, request);
    }
    let _ = sbi::parse_json::<SubscriptionData>(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(query) = DiscoveryQuery::parse(text) {
        let again = DiscoveryQuery::parse(&query.encode()).expect("what was read can be written and read");
        assert_eq!(DiscoveryQuery { ignored: query.ignored.clone(), ..again }, query);
    }
    // A profile, and after a line break a patch for it.
    let (profile, patch) = text.split_once('\n').unwrap_or((text, "[]"));
    let Ok(profile) = sbi::parse_json::<NFProfile>(profile.as_bytes()) else { return };
    let _ = profile.fault();
    let document = serde_json::to_value(&profile).expect("a profile can be written");
    assert_eq!(serde_json::from_value::<NFProfile>(document.clone()).expect("and read again"), profile);
    if let Ok(items) = sbi::parse_json::<Vec<PatchItem>>(patch.as_bytes())
        && let Ok(changed) = apply_patch(&document, &items, OCTETS_MAX)
    {
        let _ = serde_json::from_value::<NFProfile>(changed);
    }
});
