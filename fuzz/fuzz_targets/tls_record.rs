//! The records of an open TLS 1.3 connection: octets as they come, and authentic records with any content.
#![no_main]

use libfuzzer_sys::fuzz_target;
use transport::record_layer::{Inbound, Outbound, RECORD_OCTETS_MAX, Suite, Taken, TrafficSecret};

fuzz_target!(|input: (u8, Vec<(Option<u8>, Vec<u8>)>)| {
    let (which, pieces) = input;
    let suite = match which % 3 {
        0 => Suite::Aes128GcmSha256,
        1 => Suite::ChaCha20Poly1305Sha256,
        _ => Suite::Aes128CcmSha256,
    };
    let Ok(mut inbound) = Inbound::new(suite, TrafficSecret::from_bytes([7; 32])) else { return };
    let Ok(mut peer) = Outbound::new(suite, TrafficSecret::from_bytes([7; 32])) else { return };
    for (kind, octets) in pieces {
        let mut wire = Vec::new();
        match kind {
            // What a peer that has the key may say.
            Some(kind) if peer.seal(kind, &octets, &mut wire).is_ok() => inbound.receive(&wire),
            _ => inbound.receive(&octets),
        }
        loop {
            match inbound.look() {
                Ok(Taken::Content) => {
                    assert!(inbound.content().len() <= RECORD_OCTETS_MAX);
                    inbound.consume(inbound.content().len().div_ceil(2));
                }
                Ok(Taken::UpdateRequested) => {}
                Ok(Taken::Nothing) => break,
                Ok(Taken::Closed) => return,
                Err(error) => {
                    let _ = error.alert();
                    assert!(inbound.look().is_err());
                    return;
                }
            }
        }
    }
});
