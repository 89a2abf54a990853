//! Server-sent events of a server: no panic, and no more memory than is allowed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sbi::EventStream;

fuzz_target!(|octets: &[u8]| {
    let mut stream = EventStream::new(64);
    for piece in octets.chunks(7) {
        if stream.push(piece).is_err() {
            return;
        }
        while let Some(event) = stream.next_event() {
            assert!(event.data.len() <= 64);
        }
    }
});
