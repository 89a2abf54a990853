//! Any body of MSGin5G-3, MSGin5G-7 or the topic list API becomes a message of the model or an error; what is read of a
//! topic list is written so that it reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use message::ts29538::{
    AsMessageDelivery, AsRegistration, BgMessageDelivery, DeliveryStatusReport, MessageDeliveryAck,
    TopicListNotification, TopicListSubscription, TopicListSubscriptionAck, TopicListUnsubscription,
    TopicListUnsubscriptionAck, TopicSubscription, TopicSubscriptionAck, TopicUnsubscription, UeMessageDelivery,
};
use message::{Address, Message};
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|body: &[u8]| {
    if let Ok(delivery) = serde_json::from_slice::<AsMessageDelivery>(body) {
        let _ = Message::try_from(delivery);
    }
    if let Ok(delivery) = serde_json::from_slice::<UeMessageDelivery>(body) {
        let _ = Message::try_from(delivery);
    }
    if let Ok(delivery) = serde_json::from_slice::<BgMessageDelivery>(body) {
        let _ = Message::try_from(delivery);
    }
    if let Ok(report) = serde_json::from_slice::<DeliveryStatusReport>(body) {
        let _ = message::DeliveryStatusReport::try_from(report);
    }
    if let Ok(acknowledgement) = serde_json::from_slice::<MessageDeliveryAck>(body) {
        let _ = message::MessageResponse::try_from(acknowledgement);
    }
    let _ = serde_json::from_slice::<AsRegistration>(body);
    reads_back::<TopicListSubscription>(body);
    reads_back::<TopicListSubscriptionAck>(body);
    reads_back::<TopicListUnsubscription>(body);
    reads_back::<TopicListUnsubscriptionAck>(body);
    reads_back::<TopicListNotification>(body);
    reads_back::<TopicUnsubscription>(body);
    if let Some(subscription) = reads_back::<TopicSubscription>(body) {
        let model = message::TopicSubscription::from(subscription.clone());
        assert_eq!(TopicSubscription::from(model), subscription);
    }
    if let Some(acknowledgement) = reads_back::<TopicSubscriptionAck>(body) {
        let originator = Address::ue(&"a".parse().expect("an identity"));
        let _ = acknowledgement.into_response(originator);
    }
});

fn reads_back<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(body: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(body).ok()?;
    let written = serde_json::to_vec(&read).expect("what we read, we write");
    assert_eq!(serde_json::from_slice::<T>(&written).expect("what we write, we read"), read);
    Some(read)
}
