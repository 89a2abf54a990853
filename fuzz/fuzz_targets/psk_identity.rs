//! Whatever a peer sends as PSK identity is an A-KID behind the prefix, or it is refused.
#![no_main]

use akma::{PskIdentity, Separator};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|identity: &[u8]| {
    if let Ok(a_kid) = PskIdentity::parse(identity) {
        let sent = PskIdentity::encode(&a_kid, Separator::Semicolon);
        assert_eq!(PskIdentity::parse(&sent).expect("what we send, we read"), a_kid);
    }
});
