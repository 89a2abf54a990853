//! Any body that a group management server answers with, or is given, is read or refused; what is read is written and
//! read back the same. Any merge patch makes a document of the same group within the limits, or is refused. Input up to
//! the first zero octet is a document, up to the next a patch, and the rest a query.
#![no_main]

use configuration::{TableLimits, check_group_patch};
use libfuzzer_sys::fuzz_target;
use sbi::parse_json;
use sbi::ss_gm::{GroupQuery, VALGroupDocument};

fuzz_target!(|octets: &[u8]| {
    let mut parts = octets.splitn(3, |octet| *octet == 0);
    let document = parts.next().and_then(|body| parse_json::<VALGroupDocument>(body).ok());
    if let Some(document) = &document {
        reads_back(document);
        if let Some(patch) = parts.next() {
            patches(document, patch);
        }
    }
    if let Some(query) = parts.next() {
        let _ = serde_urlencoded::from_bytes::<GroupQuery>(query);
    }
});

fn reads_back(document: &VALGroupDocument) {
    let _ = document.ue_service_ids();
    if let Ok(configuration) = document.configuration() {
        let again = VALGroupDocument { val_grp_conf: configuration.to_text(), ..document.clone() };
        assert_eq!(again.configuration(), Ok(configuration));
    }
    // A number with more digits than a double has may change within what is kept as it came.
    let text = serde_json::to_vec(document).unwrap();
    assert!(parse_json::<VALGroupDocument>(&text).is_ok());
}

fn patches(before: &VALGroupDocument, patch: &[u8]) {
    let limits = TableLimits { group_members_max: 4, ..TableLimits::default() };
    if let Ok(after) = check_group_patch(before, patch, &limits) {
        assert_eq!(after.val_group_id, before.val_group_id);
        assert!(after.members.len() <= 4);
        reads_back(&after);
        // The same patch again changes nothing more (RFC 7396: a patch says what is to be).
        assert_eq!(check_group_patch(&after, patch, &limits).ok(), Some(after));
    }
}
