//! Both bodies of an `/akma` exchange, as anybody may send them.
#![no_main]

use coap::Code;
use coap::oscore::{AkmaRequest, Durability, KeyId, Message, NONCE_OCTETS, SecurityContext};
use libfuzzer_sys::fuzz_target;

const K_AF: [u8; 32] = [7; 32];

fuzz_target!(|octets: &[u8]| {
    let Some((&first, octets)) = octets.split_first() else { return };
    if first & 1 == 0 {
        // At the AF. What it accepts has the salt of what was sent, octet for octet, and makes a context.
        let Ok(request) = AkmaRequest::parse(octets) else { return };
        assert_eq!(request.payload(), octets);
        let ue_sid = KeyId::new(b"ue").expect("two octets");
        if let Ok((answer, af)) = request.accept(&K_AF, &[2; NONCE_OCTETS], ue_sid) {
            assert!(af.master_salt.starts_with(octets) && af.master_salt.ends_with(answer.payload()));
            SecurityContext::fresh(&af, Durability::Volatile).expect("all in range");
            let ue = request.complete(&K_AF, &answer).expect("an answer of ours");
            assert_eq!((ue.sender_id, ue.recipient_id), (af.recipient_id, af.sender_id));
        }
    } else {
        // At the UE.
        let af_sid = KeyId::new(b"af").expect("two octets");
        let request = AkmaRequest::new("0.a-kid@example", &[1; NONCE_OCTETS], af_sid).expect("an A-KID");
        let Ok(answer) = Message::new(Code::CREATED, &[], octets) else { return };
        if let Ok(ue) = request.complete(&K_AF, &answer) {
            SecurityContext::fresh(&ue, Durability::Volatile).expect("all in range");
        }
    }
});
