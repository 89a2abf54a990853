//! MSGG_BGDelivery: what the server hands to a Broadcast Message Gateway on MSGin5G-7.

use serde::{Deserialize, Serialize};

use super::{Common, MessageSegmentParameters, payload_text, segment_of};
use crate::error::{DecodeError, MemberPath};
use crate::identity::{Address, ApplicationId, MessageId};
use crate::limits::DecodeLimits;
use crate::member;
use crate::model::{Message, Priority};

/// BgMessageDelivery: a message to a broadcast area. Broadcast knows no delivery to a single device, so there is nothing
/// to store and forward, and the answer 204 is all that is ever heard of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgMessageDelivery {
    /// Originating service identity.
    #[serde(rename = "oriAddr")]
    pub ori_addr: Address,
    /// The broadcast area. Optional since TS 29.538 18.5.0.
    #[serde(rename = "destAddr", default, skip_serializing_if = "Option::is_none")]
    pub dest_addr: Option<Address>,
    /// Application ID.
    #[serde(rename = "appId", default, skip_serializing_if = "Option::is_none")]
    pub app_id: Option<ApplicationId>,
    /// Message ID.
    #[serde(rename = "msgId")]
    pub msg_id: MessageId,
    /// Delivery status required.
    #[serde(rename = "delivStReqInd", default, skip_serializing_if = "Option::is_none")]
    pub deliv_st_req_ind: Option<bool>,
    /// Payload, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// Message is segmented.
    #[serde(rename = "segInd", default, skip_serializing_if = "Option::is_none")]
    pub seg_ind: Option<bool>,
    /// Where the segment belongs.
    #[serde(rename = "segParams", default, skip_serializing_if = "Option::is_none")]
    pub seg_params: Option<MessageSegmentParameters>,
    /// Priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
}

impl std::fmt::Debug for BgMessageDelivery {
    /// Prints who, whom and which; never the payload.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BgMessageDelivery")
            .field("ori_addr", &self.ori_addr)
            .field("dest_addr", &self.dest_addr)
            .field("msg_id", &self.msg_id)
            .finish_non_exhaustive()
    }
}

impl From<&Message> for BgMessageDelivery {
    fn from(message: &Message) -> Self {
        Self {
            ori_addr: message.originator.clone(),
            dest_addr: Some(message.destination.clone()),
            app_id: message.application_id.clone(),
            msg_id: message.message_id.clone(),
            deliv_st_req_ind: message.delivery_status_required.then_some(true),
            payload: payload_text(message),
            seg_ind: message.segment.is_some().then_some(true),
            seg_params: segment_of(message),
            priority: (message.priority != Priority::default()).then_some(message.priority),
        }
    }
}

impl BgMessageDelivery {
    /// Checks it against `limits` and makes it a message that is not to be stored. One without a broadcast area is
    /// refused: which area would be meant is the gateway's own business.
    pub fn into_message(self, limits: &DecodeLimits) -> Result<Message, DecodeError> {
        let missing = DecodeError::Missing { member: MemberPath::top(member::DESTINATION) };
        Common {
            ori_addr: self.ori_addr,
            dest_addr: self.dest_addr.ok_or(missing)?,
            rec_addr: None,
            app_id: self.app_id,
            msg_id: self.msg_id,
            deliv_st_req_ind: self.deliv_st_req_ind,
            payload: self.payload,
            seg_ind: self.seg_ind,
            seg_params: self.seg_params,
            sto_and_fw_ind: false,
            sto_and_fw_params: None,
        }
        .into_message(self.priority, None, limits)
    }
}

impl TryFrom<BgMessageDelivery> for Message {
    type Error = DecodeError;

    fn try_from(delivery: BgMessageDelivery) -> Result<Self, DecodeError> {
        delivery.into_message(&DecodeLimits::default())
    }
}
