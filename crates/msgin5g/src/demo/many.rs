//! One message to many, and one message in many pieces.

use std::time::Instant;

use client::{Outcome, OutgoingMessage};
use message::{Address, FailureCause, Message, MessagingTopic, ReportDeliveryStatus, ServiceAddress};

use super::{ApplicationServer, Broken, Narrator, Registered, as_message, expect_outcome, random_id, text, within};
use crate::lab::RunningLab;

/// Everybody's to publish and to subscribe to in the lab.
const TOPIC: &str = "lab/tariffs";

/// More than two segments of what a UE takes at once.
const LONG_OCTETS: usize = 5_000;

/// A group of which one member has never been seen, and a topic that is subscribed to, and is not any more.
pub(super) async fn group_and_topic(
    lab: &RunningLab,
    narrator: &mut Narrator,
    meter: &mut Registered,
    valve: &mut Registered,
) -> Result<(), Broken> {
    narrator.scene("One message to many: a group, and a Messaging Topic");
    let group = lab.directory().group();
    let id: ServiceAddress = group.group_service_id.parse().map_err(text)?;
    let absent = group.members.last().cloned().ok_or("the lab's group has no members")?;
    let message = OutgoingMessage::to_group(&id, "rotate keys").with_report();
    let received = to_many(narrator, meter, valve, message, &format!("group {id}")).await?;
    if received.recipient != Some(Address::ue(&valve.device.ue_service_id)) {
        return Err("a group's copy does not name the member it is for".to_owned());
    }
    let mut told = Vec::new();
    for _ in 0..2 {
        let (report, _) = meter.inbox.next_report(&received.message_id).await?;
        told.push((report.originator.addr.to_string(), report.delivery_status == ReportDeliveryStatus::Success));
    }
    told.sort();
    let mut expected = vec![(absent.clone(), false), (valve.device.ue_service_id.to_string(), true)];
    expected.sort();
    if told != expected {
        return Err(format!("the group's reports are {told:?}"));
    }
    narrator.held(&format!(
        "each member is reported on by itself: {} has it, {absent} never registered",
        valve.device.name
    ));

    let topic: MessagingTopic = TOPIC.parse().map_err(text)?;
    within("a subscription", valve.client.subscribe(std::slice::from_ref(&topic), None)).await?.map_err(text)?;
    narrator.say(&format!("{} subscribes to {topic}", valve.device.name));
    to_many(narrator, meter, valve, OutgoingMessage::to_topic(&topic, "tariff 1"), &format!("topic {topic}")).await?;
    within("the end of a subscription", valve.client.unsubscribe(std::slice::from_ref(&topic))).await?.map_err(text)?;
    let outcome = within("an answer", meter.client.send(OutgoingMessage::to_topic(&topic, "tariff 2"))).await?;
    match outcome {
        Ok(outcome) if outcome.failure_cause() == Some(FailureCause::UnknownTarget) => {}
        other => return Err(format!("a topic without subscribers was answered {other:?}")),
    }
    narrator.held("whoever subscribed got what was published, and nothing after it unsubscribed");
    Ok(())
}

/// Sends what the server takes upon itself to hand on, and waits for the copy of one recipient.
async fn to_many(
    narrator: &mut Narrator,
    from: &Registered,
    to: &mut Registered,
    message: OutgoingMessage,
    through: &str,
) -> Result<Message, Broken> {
    let id = message.id().clone();
    let started = Instant::now();
    let (outcome, received) = tokio::join!(within("an answer", from.client.send(message)), to.inbox.message(&id));
    expect_outcome(outcome?, &Outcome::Stored)?;
    let (received, at) = received?;
    let what = format!("“{}” to {through}", String::from_utf8_lossy(&received.payload));
    let names = (from.device.name.as_str(), to.device.name.as_str());
    narrator.delivered(&what, names, "delivered", at.duration_since(started));
    Ok(received)
}

/// Longer than a segment: from UE to UE, from UE to AS, from AS to UE (TS 23.554 clause 8.5).
pub(super) async fn long_messages(
    narrator: &mut Narrator,
    meter: &mut Registered,
    valve: &mut Registered,
    server: &mut ApplicationServer,
) -> Result<(), Broken> {
    narrator.scene("Messages longer than a segment");
    let payload: Vec<u8> = (0..LONG_OCTETS).map(|index| (index % 251) as u8).collect();
    let what = format!("{LONG_OCTETS} octets");

    let message = OutgoingMessage::to_ue(&valve.device.ue_service_id, payload.clone());
    let id = message.id().clone();
    let started = Instant::now();
    let (outcome, received) = tokio::join!(within("an answer", meter.client.send(message)), valve.inbox.message(&id));
    expect_outcome(outcome?, &Outcome::Delivered)?;
    let (received, at) = received?;
    whole(&received, &payload)?;
    let names = (meter.device.name.as_str(), valve.device.name.as_str());
    narrator.delivered(&format!("{what}, in segments"), names, "delivered", at.duration_since(started));

    let message = OutgoingMessage::to_application_server(&server.id, payload.clone());
    let started = Instant::now();
    let (outcome, received) = tokio::join!(within("an answer", meter.client.send(message)), server.message());
    expect_outcome(outcome?, &Outcome::Delivered)?;
    whole(&received?, &payload)?;
    let names = (meter.device.name.as_str(), server.name.as_str());
    narrator.delivered(&format!("{what}, put together on the way"), names, "delivered", started.elapsed());

    let id = random_id()?;
    let mut message = as_message(server, &valve.device, "", &id);
    message.payload.clone_from(&payload);
    let started = Instant::now();
    let (answer, received) = tokio::join!(server.send(&message), valve.inbox.message(&id));
    answer?.map_err(|error| format!("the server refused the AS's long message: {error}"))?;
    let (received, at) = received?;
    whole(&received, &payload)?;
    let names = (server.name.as_str(), valve.device.name.as_str());
    narrator.delivered(&format!("{what}, cut to segments on the way"), names, "delivered", at.duration_since(started));
    narrator.held("each arrived in one piece");
    Ok(())
}

fn whole(received: &Message, payload: &[u8]) -> Result<(), Broken> {
    if received.segment.is_none() && received.payload == payload {
        Ok(())
    } else {
        Err("a long message arrived with another content".to_owned())
    }
}
