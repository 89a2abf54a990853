//! Whatever is taken for a certificate names a bounded number of readable NF types, or none.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|certificate: &[u8]| {
    if let Some(types) = transport::nf_types_of_certificate(certificate) {
        assert!((1..=16).contains(&types.len()));
        assert!(types.iter().all(|name| (1..=32).contains(&name.len()) && name.bytes().all(|octet| octet.is_ascii_graphic())));
    }
});
