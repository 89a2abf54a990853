//! Who may send to a group or topic, and who gets it.

use std::sync::Arc;

use bytes::Bytes;
use message::{Address, AddressType, AsServiceId, FailureCause, Message};

use super::OneAnswer;
use crate::core::Core;
use crate::delivery::{Answer, Delivery};
use crate::log_budget::Topic;
use crate::policy::word;

/// The operations, in audit events.
const PUBLISH: &str = "publish";
const SEND_TO_GROUP: &str = "send-to-group";

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

/// Refuses what is known to go nowhere without anybody being waited for: by the rules of the topic, or what group management
/// said lately. The rest is found out when its turn comes.
pub(super) fn may_be_queued(core: &Core, message: &Message) -> Result<(), FailureCause> {
    if let Some(topic) = message.destination.as_topic() {
        return match core.topics.may_publish(&topic, &message.originator) {
            true => Ok(()),
            false => {
                not_allowed(core, message, PUBLISH);
                Err(FailureCause::TopicNotAllowed)
            }
        };
    }
    match core.groups.remembered(&message.destination.addr, &core.limits) {
        Some(None) => Err(FailureCause::UnknownTarget),
        Some(Some(group)) if !group.admits(&message.originator) => {
            not_allowed(core, message, SEND_TO_GROUP);
            Err(FailureCause::GroupNotAllowed)
        }
        _ => Ok(()),
    }
}

fn subscribers(core: &Arc<Core>, message: &Message) -> Result<Vec<Address>, FailureCause> {
    let topic = message.destination.as_topic().ok_or(FailureCause::Malformed)?;
    if !core.topics.may_publish(&topic, &message.originator) {
        not_allowed(core, message, PUBLISH);
        return Err(FailureCause::TopicNotAllowed);
    }
    allowed(core, message, PUBLISH);
    Ok(core.topics.subscribers(&topic))
}

async fn members(core: &Arc<Core>, message: &Message) -> Result<Vec<Address>, FailureCause> {
    let group = core.groups.find(core, &message.destination.addr).await?;
    if !group.admits(&message.originator) {
        not_allowed(core, message, SEND_TO_GROUP);
        return Err(FailureCause::GroupNotAllowed);
    }
    allowed(core, message, SEND_TO_GROUP);
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

fn allowed(core: &Core, message: &Message, action: &str) {
    let (subject, object) = (message.originator.to_string(), message.destination.to_string());
    core.audit.allowed_for(&subject, action, &object, word::RULE);
}

fn not_allowed(core: &Core, message: &Message, action: &str) {
    let (subject, object) = (message.originator.to_string(), message.destination.to_string());
    core.audit.refused_for(&subject, action, &object, word::NOT_ALLOWED);
    if core.log_budget.admits(Topic::NotAllowed) {
        tracing::warn!(
            target: "security", originator = %message.originator, destination = %message.destination,
            "message refused: its originator may not send there"
        );
    }
}
