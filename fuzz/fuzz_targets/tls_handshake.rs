//! The handshake sniffer gives out exactly the octets it took, within its limit, whatever they are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use transport::handshake_sniffer::{HandshakeSniffer, Sniffed};

const OCTETS_MAX: usize = 16_384;

fuzz_target!(|pieces: Vec<&[u8]>| {
    let mut sniffer = HandshakeSniffer::new(OCTETS_MAX);
    let (mut taken, mut given) = (Vec::new(), Vec::new());
    for piece in pieces {
        if sniffer.push(piece).is_err() {
            return;
        }
        taken.extend_from_slice(piece);
        loop {
            match sniffer.next() {
                Ok(Some(Sniffed::ClientHello { records, .. })) => {
                    given.extend(records);
                    sniffer.await_client_key_exchange();
                }
                Ok(Some(Sniffed::ClientKeyExchange { record, .. })) => {
                    given.extend(record);
                    sniffer.pass_through();
                }
                Ok(Some(Sniffed::Other(octets))) => given.extend(octets),
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(taken.starts_with(&given));
    }
});
