//! Any octets from a Configuration Function become a UE configuration or an error, and what is read holds only what a
//! client can use.
#![no_main]

use client::{ClientConfig, UeConfiguration};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    if let Ok(configuration) = UeConfiguration::parse(octets) {
        let config = ClientConfig::from_ue_configuration(&configuration);
        assert!(config.server.contains(':') && !config.path.is_empty());
        assert!(configuration.segment_size != Some(0));
    }
});
