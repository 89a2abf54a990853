//! Any octets that answer a request on MSGin5G-1 are read as that answer or refused; what is read has one canonical form that
//! reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use message::{
    DecodeError, DecodeLimits, ErrorBody, MessageResponse, RegistrationResponse, TopicSubscriptionResponse,
};

fuzz_target!(|octets: &[u8]| {
    if let Some(response) = reads_back(octets, MessageResponse::decode, MessageResponse::encode) {
        assert!(response.individual.len() <= 64);
    }
    reads_back(octets, TopicSubscriptionResponse::decode, TopicSubscriptionResponse::encode);
    reads_back(octets, RegistrationResponse::decode, RegistrationResponse::encode);
    if let Some(refusal) = reads_back(octets, ErrorBody::decode, ErrorBody::encode) {
        let _ = refusal.cause();
    }
});

fn reads_back<T: PartialEq + std::fmt::Debug>(
    octets: &[u8],
    decode: fn(&[u8], &DecodeLimits) -> Result<T, DecodeError>,
    encode: fn(&T) -> Vec<u8>,
) -> Option<T> {
    let limits = DecodeLimits::default();
    let read = decode(octets, &limits).ok()?;
    let canonical = encode(&read);
    let roomy = DecodeLimits { message_octets_max: usize::MAX, ..limits };
    let again = decode(&canonical, &roomy).expect("what we write, we read");
    assert_eq!(again, read);
    assert_eq!(encode(&again), canonical);
    Some(read)
}
