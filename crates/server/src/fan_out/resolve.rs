//! Who may send to a group or topic, and who gets it.

use std::sync::Arc;

use bytes::Bytes;
use message::{Address, AddressType, AsServiceId, FailureCause, Message};

use super::OneAnswer;
use crate::core::Core;
use crate::delivery::{Answer, Delivery};
use crate::log_budget::Topic;

/// Everybody who is to get a copy, in the order of addresses, each once. Not the originator itself. Nobody is an unknown
/// target: a message that reaches no one is not accepted in silence (INFERRED).
pub(super) async fn recipients(core: &Arc<Core>, message: &Message) -> Result<Vec<Address>, FailureCause> {
    let mut members = match message.destination.addr_type {
        AddressType::Topic => subscribers(core, message)?,
        AddressType::Group => members(core, message).await?,
        _ => return Err(FailureCause::TargetTypeNotSupported),
    };
    members.retain(|member| *member != message.originator);
    members.sort_unstable();
    members.dedup();
    if members.is_empty() { Err(FailureCause::UnknownTarget) } else { Ok(members) }
}

fn subscribers(core: &Arc<Core>, message: &Message) -> Result<Vec<Address>, FailureCause> {
    let topic = message.destination.as_topic().ok_or(FailureCause::Malformed)?;
    if !core.topics.may_publish(&topic, &message.originator) {
        not_allowed(core, message);
        return Err(FailureCause::TopicNotAllowed);
    }
    Ok(core.topics.subscribers(&topic))
}

async fn members(core: &Arc<Core>, message: &Message) -> Result<Vec<Address>, FailureCause> {
    let group = core.groups.find(core, &message.destination.addr).await?;
    if !group.admits(&message.originator) {
        not_allowed(core, message);
        return Err(FailureCause::GroupNotAllowed);
    }
    if let Some(id) = &group.validating_as {
        validate(core, message, id).await?;
    }
    Ok(group.members.to_vec())
}

/// Asks the group's Application Server first (TS 23.554 clause 8.7.4): the message goes on only if it takes its copy. It
/// gets it now or not at all, and owes no report.
async fn validate(core: &Arc<Core>, message: &Message, id: &AsServiceId) -> Result<(), FailureCause> {
    let address = Address::application_server(id);
    let Some(party) = core.registry.find(&address) else {
        if core.log_budget.admits(Topic::Groups) {
            tracing::warn!(group = %message.destination, as_service_id = %id, "validating AS is not registered");
        }
        return Err(FailureCause::ValidationUnavailable);
    };
    let copy = Message {
        recipient: Some(address),
        store_and_forward: false,
        delivery_status_required: false,
        ..message.clone()
    };
    let (asker, answer) = OneAnswer::asker();
    core.deliver(&party, Delivery::message(&copy, Bytes::from(copy.encode()), Some(asker)));
    match answer.await {
        Ok(Answer::Delivered) => Ok(()),
        Ok(Answer::Failed(FailureCause::TargetRefused)) => {
            tracing::debug!(
                group = %message.destination, originator = %message.originator, as_service_id = %id,
                "message to the group rejected by its validating AS"
            );
            Err(FailureCause::RejectedByAs)
        }
        Ok(Answer::Failed(FailureCause::Expired)) => Err(FailureCause::Expired),
        _ => Err(FailureCause::ValidationUnavailable),
    }
}

fn not_allowed(core: &Core, message: &Message) {
    if core.log_budget.admits(Topic::NotAllowed) {
        tracing::warn!(
            target: "security", originator = %message.originator, destination = %message.destination,
            "message refused: its originator may not send there"
        );
    }
}
