//! OSCORE at its three edges: what anybody may send, a genuine message that was changed on its way, and what a peer that
//! has the keys may have encrypted.
#![no_main]

use aes::Aes128;
use ccm::aead::{Aead, Payload};
use ccm::consts::{U8, U13};
use ccm::{Ccm, KeyInit};
use coap::Code;
use coap::oscore::{
    ContextParameters, Durability, KeyId, MasterSecret, Message, OscoreOption, SecurityContext, Verified,
};
use libfuzzer_sys::fuzz_target;

// RFC 8613 C.1 and C.4: the client's key, and nonce and additional data of its request number 20.
const SECRET: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
const SALT: [u8; 8] = [0x9e, 0x7c, 0xa9, 0x22, 0x23, 0x78, 0x63, 0x40];
const KEY: [u8; 16] = 0xf091_0ed7_295e_6ad4_b54f_c793_1543_02ff_u128.to_be_bytes();
const NONCE: [u8; 13] = [0x46, 0x22, 0xd4, 0xdd, 0x6d, 0x94, 0x41, 0x68, 0xee, 0xfb, 0x54, 0x98, 0x68];
const ADDITIONAL: &[u8] = b"\x83\x68Encrypt0\x40\x48\x85\x01\x81\x0a\x40\x41\x14\x40";

fn client_parameters() -> ContextParameters {
    ContextParameters {
        master_secret: MasterSecret::new(&SECRET).expect("16 octets"),
        master_salt: SALT.to_vec(),
        sender_id: KeyId::new(&[]).expect("none"),
        recipient_id: KeyId::new(&[1]).expect("one"),
        id_context: None,
    }
}

fn fresh(parameters: &ContextParameters) -> SecurityContext {
    SecurityContext::fresh(parameters, Durability::Volatile).expect("all in range")
}

fuzz_target!(|octets: &[u8]| {
    let Some((&first, octets)) = octets.split_first() else { return };
    let mut client = fresh(&client_parameters());
    let mut server = fresh(&client_parameters().reversed());
    match first % 3 {
        0 => {
            if let Ok(option) = OscoreOption::parse(octets) {
                assert_eq!(option.encode().as_deref(), Ok(octets));
            }
            // Nobody without the keys gets anything through. They are others than below: the fuzzer learns what is
            // compared there, a genuine message.
            let mut parameters = client_parameters();
            parameters.master_secret = MasterSecret::new(&[0x5a; 32]).expect("32 octets");
            let (mut client, mut server) = (fresh(&parameters), fresh(&parameters.reversed()));
            let Ok(message) = Message::from_body(Code::POST, octets) else { return };
            assert!(server.unprotect_request(&message).is_err());
            let Ok(message) = Message::from_body(Code::CHANGED, octets) else { return };
            let request = Message::new(Code::GET, &[(6, &[])], b"").expect("small");
            let (_, mut sent) = client.protect_request(&request).expect("a request");
            assert!(client.unprotect_response(&mut sent, &message).is_err());
        }
        1 => {
            let request = Message::new(Code::POST, &[(11, b"msgin5g"), (12, &[50])], b"{}").expect("small");
            let (protected, _) = client.protect_request(&request).expect("a request");
            let mut body = protected.body().to_vec();
            for change in octets.chunks_exact(2) {
                let at = usize::from(change[0]) % body.len();
                body[at] ^= change[1];
            }
            let genuine = body == protected.body();
            let Ok(changed) = Message::from_body(Code::POST, body) else { return };
            match server.unprotect_request(&changed) {
                Ok(Verified::Request { message, .. }) => assert!(genuine && message == request),
                Ok(Verified::Unproven { .. }) => unreachable!("the window is known"),
                Err(_) => assert!(!genuine),
            }
        }
        _ => {
            let cipher = Ccm::<Aes128, U8, U13>::new(&KEY.into());
            let Ok(sealed) = cipher.encrypt(&NONCE.into(), Payload { msg: octets, aad: ADDITIONAL }) else { return };
            let Ok(message) = Message::new(Code::POST, &[(3, b"host"), (9, &[0x09, 0x14])], &sealed) else { return };
            if let Ok(Verified::Request { message, mut exchange }) = server.unprotect_request(&message) {
                assert_eq!(message.code().octet(), octets[0]);
                let response = Message::new(Code::CONTENT, &[(6, &[1])], b"x").expect("small");
                server.protect_response(&mut exchange, &response).expect("once");
            }
        }
    }
});
