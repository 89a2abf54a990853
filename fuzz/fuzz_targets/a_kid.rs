//! Any text is an A-KID or it is refused; what is accepted reads the same again, and so do its parts.
#![no_main]

use akma::AKid;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(a_kid) = text.parse::<AKid>() else { return };
    assert_eq!(a_kid.to_string(), text);
    if let Ok(parts) = a_kid.parts() {
        let again = AKid::format(&parts.routing_indicator, &parts.a_tid, &parts.home_network);
        assert_eq!(again.parts().expect("what we format, we read"), parts);
    }
});
