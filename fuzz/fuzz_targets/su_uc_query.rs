//! Any Uri-Query options of a `su-uc` request pick one UE Service ID, none, or are refused.
#![no_main]

use configuration::check_ue_configuration_query;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    let query: Vec<String> =
        octets.split(|octet| *octet == 0).map(|option| String::from_utf8_lossy(option).into_owned()).collect();
    let picking = query.iter().filter(|option| option.starts_with("ue-service-id=")).count();
    match check_ue_configuration_query(&query) {
        Ok(Some(picked)) => {
            assert_eq!(picking, 1);
            assert!(query.contains(&format!("ue-service-id={picked}")));
        }
        Ok(None) => assert_eq!(picking, 0),
        Err(_) => assert!(picking > 0),
    }
});
