//! Any body that a group management server answers with, or is given, is read or refused; what is read is written and
//! read back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sbi::parse_json;
use sbi::ss_gm::VALGroupDocument;

fuzz_target!(|body: &[u8]| {
    if let Ok(document) = parse_json::<VALGroupDocument>(body) {
        let _ = document.ue_service_ids();
        if let Ok(configuration) = document.configuration() {
            let again = VALGroupDocument { val_grp_conf: configuration.to_text(), ..document.clone() };
            assert_eq!(again.configuration(), Ok(configuration));
        }
        // A number with more digits than a double has may change within what is kept as it came.
        let text = serde_json::to_vec(&document).unwrap();
        assert!(parse_json::<VALGroupDocument>(&text).is_ok());
    }
});
