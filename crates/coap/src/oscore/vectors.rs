//! RFC 8613 Appendix C, all of it: C.1 to C.3 derive, C.4 to C.6 protect a request, C.7 and C.8 a response.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::context::{ContextParameters, SecurityContext};
use super::exchange::Verified;
use super::keys::{IdContext, KeyId, MasterSecret, additional_data, info, nonce};
use super::message::Message;
use super::option::PartialIv;
use super::replay::ReplayStart;
use super::sequence::Durability;
use crate::code::Code;

const SALT: &str = "9e7ca92223786340";
const ID_CONTEXT: &str = "37cbf3210017a2d3";

fn octets(hex: &str) -> Vec<u8> {
    hex::decode(hex).unwrap()
}

fn id(hex: &str) -> KeyId {
    KeyId::new(&octets(hex)).unwrap()
}

fn parameters(salt: &str, id_context: &str, sender: &str, recipient: &str) -> ContextParameters {
    ContextParameters {
        master_secret: MasterSecret::new(&octets("0102030405060708090a0b0c0d0e0f10")).unwrap(),
        master_salt: octets(salt),
        sender_id: id(sender),
        recipient_id: id(recipient),
        id_context: (!id_context.is_empty()).then(|| IdContext::new(&octets(id_context)).unwrap()),
    }
}

fn context(parameters: &ContextParameters, sequence: u64) -> SecurityContext {
    SecurityContext::restored(parameters, Durability::Volatile, sequence, ReplayStart::Nothing).unwrap()
}

struct Derived {
    parameters: ContextParameters,
    sender_info: &'static str,
    recipient_info: &'static str,
    iv_info: &'static str,
    sender_key: &'static str,
    recipient_key: &'static str,
    common_iv: &'static str,
    sender_nonce: &'static str,
    recipient_nonce: &'static str,
}

impl Derived {
    /// The same for the server: both directions change places.
    fn reversed(&self) -> Self {
        Self {
            parameters: self.parameters.reversed(),
            sender_info: self.recipient_info,
            recipient_info: self.sender_info,
            iv_info: self.iv_info,
            sender_key: self.recipient_key,
            recipient_key: self.sender_key,
            common_iv: self.common_iv,
            sender_nonce: self.recipient_nonce,
            recipient_nonce: self.sender_nonce,
        }
    }

    fn check(&self) {
        let parameters = &self.parameters;
        let id_context = parameters.id_context.as_ref().map(IdContext::as_slice);
        let infos = [
            (parameters.sender_id.as_slice(), "Key", 16, self.sender_info),
            (parameters.recipient_id.as_slice(), "Key", 16, self.recipient_info),
            (&[], "IV", 13, self.iv_info),
        ];
        for (id, kind, length, expected) in infos {
            assert_eq!(hex::encode(info(id, id_context, kind, length)), expected);
        }
        let context = context(parameters, 0);
        assert_eq!(hex::encode(context.sender.key.as_slice()), self.sender_key);
        assert_eq!(hex::encode(context.recipient.key.as_slice()), self.recipient_key);
        assert_eq!(hex::encode(context.common_iv), self.common_iv);
        let zero = PartialIv::new(0).unwrap();
        assert_eq!(hex::encode(nonce(&context.common_iv, &context.sender.id, &zero)), self.sender_nonce);
        assert_eq!(hex::encode(nonce(&context.common_iv, &context.recipient.id, &zero)), self.recipient_nonce);
    }
}

#[test]
fn c_1_keys_with_a_master_salt() {
    let client = Derived {
        parameters: parameters(SALT, "", "", "01"),
        sender_info: "8540f60a634b657910",
        recipient_info: "854101f60a634b657910",
        iv_info: "8540f60a6249560d",
        sender_key: "f0910ed7295e6ad4b54fc793154302ff",
        recipient_key: "ffb14e093c94c9cac9471648b4f98710",
        common_iv: "4622d4dd6d944168eefb54987c",
        sender_nonce: "4622d4dd6d944168eefb54987c",
        recipient_nonce: "4722d4dd6d944169eefb54987c",
    };
    client.check();
    client.reversed().check();
}

#[test]
fn c_2_keys_without_a_master_salt() {
    let client = Derived {
        parameters: parameters("", "", "00", "01"),
        sender_info: "854100f60a634b657910",
        recipient_info: "854101f60a634b657910",
        iv_info: "8540f60a6249560d",
        sender_key: "321b26943253c7ffb6003b0b64d74041",
        recipient_key: "e57b5635815177cd679ab4bcec9d7dda",
        common_iv: "be35ae297d2dace910c52e99f9",
        sender_nonce: "bf35ae297d2dace910c52e99f9",
        recipient_nonce: "bf35ae297d2dace810c52e99f9",
    };
    client.check();
    client.reversed().check();
}

#[test]
fn c_3_keys_with_an_id_context() {
    let client = Derived {
        parameters: parameters(SALT, ID_CONTEXT, "", "01"),
        sender_info: "85404837cbf3210017a2d30a634b657910",
        recipient_info: "8541014837cbf3210017a2d30a634b657910",
        iv_info: "85404837cbf3210017a2d30a6249560d",
        sender_key: "af2a1300a5e95788b356336eeecd2b92",
        recipient_key: "e39a0c7c77b43f03b4b39ab9a268699f",
        common_iv: "2ca58fb85ff1b81c0b7181b85e",
        sender_nonce: "2ca58fb85ff1b81c0b7181b85e",
        recipient_nonce: "2da58fb85ff1b81d0b7181b85e",
    };
    client.check();
    client.reversed().check();
}

/// A message of the appendix: a datagram of RFC 7252 with a token of four octets.
fn datagram(hex: &str) -> Message {
    let octets = octets(hex);
    assert_eq!(octets[0] & 0x0f, 4);
    Message::from_body(Code::from_octet(octets[1]), &octets[8..]).unwrap()
}

struct RequestVector {
    parameters: ContextParameters,
    unprotected: &'static str,
    additional_data: &'static str,
    nonce: &'static str,
    protected: &'static str,
}

impl RequestVector {
    fn check(&self) {
        let twenty = PartialIv::new(20).unwrap();
        let mut client = context(&self.parameters, 20);
        assert_eq!(hex::encode(additional_data(&client.sender.id, &twenty)), self.additional_data);
        assert_eq!(hex::encode(nonce(&client.common_iv, &client.sender.id, &twenty)), self.nonce);
        let (protected, _) = client.protect_request(&datagram(self.unprotected)).unwrap();
        assert_eq!(protected, datagram(self.protected));
        assert_eq!(hex::encode(protected.body()), self.protected[16..]);

        let mut server = context(&self.parameters.reversed(), 0);
        let Verified::Request { message, .. } = server.unprotect_request(&datagram(self.protected)).unwrap() else {
            panic!("the window is known")
        };
        assert_eq!(message, datagram(self.unprotected));
    }
}

const C_4: (&str, &str) = (
    "44015d1f00003974396c6f63616c686f737483747631",
    "44025d1f00003974396c6f63616c686f7374620914ff612f1092f1776f1c1668b3825e",
);

#[test]
fn c_4_request() {
    let vector = RequestVector {
        parameters: parameters(SALT, "", "", "01"),
        unprotected: C_4.0,
        additional_data: "8368456e63727970743040488501810a40411440",
        nonce: "4622d4dd6d944168eefb549868",
        protected: C_4.1,
    };
    vector.check();
}

#[test]
fn c_5_request_with_a_sender_id() {
    let vector = RequestVector {
        parameters: parameters("", "", "00", "01"),
        unprotected: "440171c30000b932396c6f63616c686f737483747631",
        additional_data: "8368456e63727970743040498501810a4100411440",
        nonce: "bf35ae297d2dace910c52e99ed",
        protected: "440271c30000b932396c6f63616c686f737463091400ff4ed339a5a379b0b8bc731fffb0",
    };
    vector.check();
}

#[test]
fn c_6_request_with_an_id_context() {
    let vector = RequestVector {
        parameters: parameters(SALT, ID_CONTEXT, "", "01"),
        unprotected: "44012f8eef9bbf7a396c6f63616c686f737483747631",
        additional_data: "8368456e63727970743040488501810a40411440",
        nonce: "2ca58fb85ff1b81c0b7181b84a",
        protected: "44022f8eef9bbf7a396c6f63616c686f73746b19140837cbf3210017a2d3ff72cd7273fd331ac45cffbe55c3",
    };
    vector.check();
}

/// Both answer the request of C.4.
fn check_response(with_partial_iv: bool, expected: &str) {
    const UNPROTECTED: &str = "64455d1f00003974ff48656c6c6f20576f726c6421";
    let parameters = parameters(SALT, "", "", "01");
    let mut client = context(&parameters, 20);
    let mut server = context(&parameters.reversed(), 0);
    let (request, mut sent) = client.protect_request(&datagram(C_4.0)).unwrap();
    let Verified::Request { mut exchange, .. } = server.unprotect_request(&request).unwrap() else {
        panic!("the window is known")
    };
    if with_partial_iv {
        exchange.require_partial_iv();
    }
    let protected = server.protect_response(&mut exchange, &datagram(UNPROTECTED)).unwrap();
    assert_eq!((protected.code(), hex::encode(protected.body())), (Code::CHANGED, expected[16..].to_owned()));
    assert_eq!(client.unprotect_response(&mut sent, &datagram(expected)).unwrap(), datagram(UNPROTECTED));
}

#[test]
fn c_7_response() {
    check_response(false, "64445d1f0000397490ffdbaad1e9a7e7b2a813d3c31524378303cdafae119106");
}

#[test]
fn c_8_response_with_a_partial_iv() {
    check_response(true, "64445d1f00003974920100ff4d4c13669384b67354b2b6175ff4b8658c666a6cf88e");
}

/// The example of RFC 8613 5.4.
#[test]
fn additional_data_as_in_the_example_of_5_4() {
    let encoded = additional_data(&id("00"), &PartialIv::new(0x25).unwrap());
    assert_eq!(hex::encode(encoded), "8368456e63727970743040498501810a4100412540");
}
