//! Any text is a SUCI or is refused, and the home network's answer to it is a SUPI or an error.
#![no_main]

use akma::{NullScheme, Suci, SuciHomeKey, SuciHomeKeys};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(suci) = text.parse::<Suci>() else { return };
    assert_eq!(suci.to_string().parse::<Suci>().expect("what we format, we read"), suci);
    let keys = [SuciHomeKey::profile_a(1, [7; 32]), SuciHomeKey::profile_b(2, [7; 32])];
    let keys = keys.into_iter().map(|key| key.expect("a valid private key")).collect();
    let _ = SuciHomeKeys::new(keys, NullScheme::Accepted).deconceal(&suci);
});
