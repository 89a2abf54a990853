//! Messages as JSON, written by hand.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// An address.
pub(crate) fn address(addr_type: &str, addr: &str) -> Value {
    json!({"addrType": addr_type, "addr": addr})
}

/// MSG that may not be stored, with the payload that the foreign UE looks for.
pub(crate) fn msg(from: &Value, to: &Value, id: &str) -> Value {
    json!({
        "msgType": "MSG", "oriAddr": from, "destAddr": to, "msgId": id, "stoAndFwInd": false, "payload": payload_of(id)
    })
}

/// MSG that may be stored.
pub(crate) fn storable(from: &Value, to: &Value, id: &str) -> Value {
    with(msg(from, to, id), json!({"stoAndFwInd": true}))
}

/// The same with further or other members.
pub(crate) fn with(mut message: Value, members: Value) -> Value {
    for (name, value) in members.as_object().unwrap() {
        message[name] = value.clone();
    }
    message
}

/// One segment: the total goes with the first, the flag with the last.
pub(crate) fn segment(message: Value, set_id: &str, number: u32, total: u32, payload: &[u8]) -> Value {
    let mut parameters = json!({"segId": set_id, "segNumb": number});
    if number == 1 {
        parameters["totalSegCount"] = total.into();
    }
    if number == total {
        parameters["lastSegFlag"] = true.into();
    }
    with(message, json!({"segInd": true, "segParams": parameters, "payload": STANDARD.encode(payload)}))
}

/// What the payload of the message with this ID is, as JSON has octets.
pub(crate) fn payload_of(id: &str) -> String {
    STANDARD.encode(format!("payload of {id}"))
}

/// The octets of a message's payload.
pub(crate) fn payload(message: &Value) -> Vec<u8> {
    STANDARD.decode(message["payload"].as_str().unwrap()).unwrap()
}
