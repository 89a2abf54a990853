//! OSCORE through its public interface: what it keeps, what it refuses, and real peers.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod aiocoap;
mod aiocoap_blocks;
mod akma;
mod connection;
mod exchanges;
mod forgeries;
mod inner_blocks;
mod limits;
mod observe;
mod recovery;
mod refusals;

use coap::Code;
use coap::oscore::{
    ContextParameters, Durability, KeyId, MasterSecret, Message, OscoreError, ReceivedRequest, SecurityContext,
    Verified,
};

const OBSERVE: u16 = 6;
const OSCORE: u16 = 9;
const URI_HOST: u16 = 3;
const URI_PATH: u16 = 11;
const MAX_AGE: u16 = 14;
const ECHO: u16 = 252;

fn parameters() -> ContextParameters {
    ContextParameters {
        master_secret: MasterSecret::new(&[0x5a; 32]).unwrap(),
        master_salt: b"salt".to_vec(),
        sender_id: KeyId::new(&[0x01]).unwrap(),
        recipient_id: KeyId::new(&[0x02, 0x03]).unwrap(),
        id_context: None,
    }
}

/// Client and server of one context that is new.
fn pair() -> (SecurityContext, SecurityContext) {
    pair_of(&parameters())
}

fn pair_of(parameters: &ContextParameters) -> (SecurityContext, SecurityContext) {
    let client = SecurityContext::fresh(parameters, Durability::Volatile).unwrap();
    let server = SecurityContext::fresh(&parameters.reversed(), Durability::Volatile).unwrap();
    (client, server)
}

fn message(code: Code, options: &[(u16, &[u8])], payload: &[u8]) -> Message {
    Message::new(code, options, payload).unwrap()
}

fn post() -> Message {
    message(Code::POST, &[(URI_PATH, b"msgin5g"), (12, &[50])], b"{\"msgType\":\"REG\"}")
}

fn verified(server: &mut SecurityContext, protected: &Message) -> (Message, ReceivedRequest) {
    match server.unprotect_request(protected).unwrap() {
        Verified::Request { message, exchange } => (message, exchange),
        Verified::Unproven { .. } => panic!("the window is known"),
    }
}

/// Why a request was refused.
fn refused(server: &mut SecurityContext, protected: &Message) -> OscoreError {
    match server.unprotect_request(protected) {
        Err(error) => error,
        Ok(verified) => panic!("taken: {verified:?}"),
    }
}

/// The same message with another value of its OSCORE option.
fn with_oscore(protected: &Message, value: &[u8]) -> Message {
    let mut options: Vec<_> = protected.options().filter(|(number, _)| *number != OSCORE).collect();
    options.push((OSCORE, value));
    message(protected.code(), &options, protected.payload())
}

fn numbers(message: &Message) -> Vec<u16> {
    message.options().map(|(number, _)| number).collect()
}
