//! Any body of MSGin5G-3 becomes a message of the model or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use message::Message;
use message::ts29538::{
    AsMessageDelivery, AsRegistration, DeliveryStatusReport, MessageDeliveryAck, UeMessageDelivery,
};

fuzz_target!(|body: &[u8]| {
    if let Ok(delivery) = serde_json::from_slice::<AsMessageDelivery>(body) {
        let _ = Message::try_from(delivery);
    }
    if let Ok(delivery) = serde_json::from_slice::<UeMessageDelivery>(body) {
        let _ = Message::try_from(delivery);
    }
    if let Ok(report) = serde_json::from_slice::<DeliveryStatusReport>(body) {
        let _ = message::DeliveryStatusReport::try_from(report);
    }
    if let Ok(acknowledgement) = serde_json::from_slice::<MessageDeliveryAck>(body) {
        let _ = message::MessageResponse::try_from(acknowledgement);
    }
    let _ = serde_json::from_slice::<AsRegistration>(body);
});
