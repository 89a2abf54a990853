//! The types of TS 29.538 (18.4.0) that carry the messages of this crate on MSGin5G-3 and MSGin5G-7, and those of its
//! topic list API, in its spelling.
//!
//! They hold what arrived; [`TryFrom`] makes it a message of the model with the default [`DecodeLimits`], the
//! `into_message` functions with others. `secCred` of Release 17 is ignored if it comes.

mod broadcast;
mod topic_list;

pub use broadcast::BgMessageDelivery;
pub use topic_list::{
    MessagingTopic, TopicListNotification, TopicListSubscription, TopicListSubscriptionAck, TopicListUnsubscription,
    TopicListUnsubscriptionAck, TopicSubscription, TopicSubscriptionAck, TopicUnsubscription, UpdateStatus,
};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::{DecodeError, MemberPath};
use crate::identity::{Address, ApplicationId, AsServiceId, MessageId, SegmentationSetId};
use crate::json::decode;
use crate::limits::DecodeLimits;
use crate::member;
use crate::model::{self, DeliveryStatus, Message, MessageResponse, Priority, ReportDeliveryStatus};

/// MessageSegmentParameters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageSegmentParameters {
    /// Segmentation set identifier.
    #[serde(rename = "segId", default, skip_serializing_if = "Option::is_none")]
    pub seg_id: Option<SegmentationSetId>,
    /// Total number of message segments.
    #[serde(rename = "totalSegCount", default, skip_serializing_if = "Option::is_none")]
    pub total_seg_count: Option<u32>,
    /// Message segment number.
    #[serde(rename = "segNumb", default, skip_serializing_if = "Option::is_none")]
    pub seg_numb: Option<u32>,
    /// Last segment flag.
    #[serde(rename = "lastSegFlag", default, skip_serializing_if = "Option::is_none")]
    pub last_seg_flag: Option<bool>,
}

/// StoreAndForwardParameters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreAndForwardParameters {
    /// Message expiration time.
    #[serde(rename = "exprTime", default, with = "crate::date::serde_option", skip_serializing_if = "Option::is_none")]
    pub expr_time: Option<OffsetDateTime>,
}

macro_rules! message_delivery {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $rename:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name {
            /// Originating service identity.
            #[serde(rename = "oriAddr")]
            pub ori_addr: Address,
            /// Recipient.
            #[serde(rename = "destAddr")]
            pub dest_addr: Address,
            /// In what the server hands to an Application Server of a message to a group or topic: the member or
            /// subscriber whom this copy is for (TS 23.554 table 8.3.3-1; the member's name is ours). Nobody but a server
            /// sends one.
            #[serde(rename = "recAddr", default, skip_serializing_if = "Option::is_none")]
            pub rec_addr: Option<Address>,
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
            $(
                $(#[$field_doc])*
                #[serde(rename = $rename, default, skip_serializing_if = "Option::is_none")]
                pub $field: $type,
            )*
            /// Message is segmented.
            #[serde(rename = "segInd", default, skip_serializing_if = "Option::is_none")]
            pub seg_ind: Option<bool>,
            /// Where the segment belongs.
            #[serde(rename = "segParams", default, skip_serializing_if = "Option::is_none")]
            pub seg_params: Option<MessageSegmentParameters>,
            /// Store and forward flag.
            #[serde(rename = "stoAndFwInd")]
            pub sto_and_fw_ind: bool,
            /// Store and forward parameters.
            #[serde(rename = "stoAndFwParams", default, skip_serializing_if = "Option::is_none")]
            pub sto_and_fw_params: Option<StoreAndForwardParameters>,
        }

        impl std::fmt::Debug for $name {
            /// Prints who, whom and which; never the payload.
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name))
                    .field("ori_addr", &self.ori_addr)
                    .field("dest_addr", &self.dest_addr)
                    .field("msg_id", &self.msg_id)
                    .field("sto_and_fw_ind", &self.sto_and_fw_ind)
                    .finish_non_exhaustive()
            }
        }

        impl TryFrom<$name> for Message {
            type Error = DecodeError;

            fn try_from(delivery: $name) -> Result<Self, DecodeError> {
                delivery.into_message(&DecodeLimits::default())
            }
        }

        impl From<&Message> for $name {
            fn from(message: &Message) -> Self {
                Self::from_message(message)
            }
        }
    };
}

message_delivery! {
    /// ASMessageDelivery: a message from an Application Server.
    AsMessageDelivery {
        /// Priority.
        priority: Option<Priority> = "priority",
        /// Latency asked for, in milliseconds (the unit is ours: the clause gives none).
        latency: Option<u32> = "latency",
    }
}

message_delivery! {
    /// UEMessageDelivery: a message from a UE behind a gateway, and what we hand to an Application Server.
    UeMessageDelivery {}
}

/// What both kinds of delivery have, on the way to a [`Message`].
struct Common {
    ori_addr: Address,
    dest_addr: Address,
    rec_addr: Option<Address>,
    app_id: Option<ApplicationId>,
    msg_id: MessageId,
    deliv_st_req_ind: Option<bool>,
    payload: Option<String>,
    seg_ind: Option<bool>,
    seg_params: Option<MessageSegmentParameters>,
    sto_and_fw_ind: bool,
    sto_and_fw_params: Option<StoreAndForwardParameters>,
}

impl Common {
    fn into_message(
        self,
        priority: Option<Priority>,
        latency: Option<u32>,
        limits: &DecodeLimits,
    ) -> Result<Message, DecodeError> {
        let segment = self.seg_params.map(|parameters| segment_parameters(parameters, limits)).transpose()?;
        Ok(Message {
            originator: self.ori_addr,
            destination: self.dest_addr,
            recipient: self.rec_addr,
            message_id: self.msg_id,
            application_id: self.app_id,
            delivery_status_required: self.deliv_st_req_ind.unwrap_or(false),
            store_and_forward: self.sto_and_fw_ind,
            expiration_time: self.sto_and_fw_params.and_then(|parameters| parameters.expr_time),
            priority: priority.unwrap_or_default(),
            payload: match self.payload {
                Some(text) => decode::payload(&text, limits)?,
                None => Vec::new(),
            },
            segment: decode::check_segment(self.seg_ind, segment)?,
            latency,
        })
    }
}

fn segment_parameters(
    parameters: MessageSegmentParameters,
    limits: &DecodeLimits,
) -> Result<model::SegmentParameters, DecodeError> {
    let checked = |number: Option<u32>, min, name| match number {
        Some(number) if !(min..=limits.segments_max).contains(&number) => Err(DecodeError::Invalid {
            member: MemberPath { parent: Some(member::SEGMENT_PARAMETERS), name },
            reason: "is out of range",
        }),
        _ => Ok(number),
    };
    decode::segment_parameters(
        parameters.seg_id,
        checked(parameters.total_seg_count, 1, member::TOTAL_SEGMENT_COUNT)?,
        checked(parameters.seg_numb, 0, member::SEGMENT_NUMBER)?,
        parameters.last_seg_flag,
    )
}

fn payload_text(message: &Message) -> Option<String> {
    (!message.payload.is_empty()).then(|| STANDARD.encode(&message.payload))
}

fn segment_of(message: &Message) -> Option<MessageSegmentParameters> {
    message.segment.as_ref().map(|segment| MessageSegmentParameters {
        seg_id: Some(segment.set_id.clone()),
        total_seg_count: segment.total_count,
        seg_numb: Some(segment.number),
        last_seg_flag: segment.last.then_some(true),
    })
}

fn store_and_forward_of(message: &Message) -> Option<StoreAndForwardParameters> {
    message.expiration_time.map(|expr_time| StoreAndForwardParameters { expr_time: Some(expr_time) })
}

impl AsMessageDelivery {
    /// Checks it against `limits` and makes it a message.
    pub fn into_message(self, limits: &DecodeLimits) -> Result<Message, DecodeError> {
        let Self { priority, latency, .. } = self;
        Common {
            ori_addr: self.ori_addr,
            dest_addr: self.dest_addr,
            rec_addr: self.rec_addr,
            app_id: self.app_id,
            msg_id: self.msg_id,
            deliv_st_req_ind: self.deliv_st_req_ind,
            payload: self.payload,
            seg_ind: self.seg_ind,
            seg_params: self.seg_params,
            sto_and_fw_ind: self.sto_and_fw_ind,
            sto_and_fw_params: self.sto_and_fw_params,
        }
        .into_message(priority, latency, limits)
    }

    fn from_message(message: &Message) -> Self {
        Self {
            ori_addr: message.originator.clone(),
            dest_addr: message.destination.clone(),
            rec_addr: message.recipient.clone(),
            app_id: message.application_id.clone(),
            msg_id: message.message_id.clone(),
            deliv_st_req_ind: message.delivery_status_required.then_some(true),
            payload: payload_text(message),
            priority: (message.priority != Priority::default()).then_some(message.priority),
            latency: message.latency,
            seg_ind: message.segment.is_some().then_some(true),
            seg_params: segment_of(message),
            sto_and_fw_ind: message.store_and_forward,
            sto_and_fw_params: store_and_forward_of(message),
        }
    }
}

impl UeMessageDelivery {
    /// Checks it against `limits` and makes it a message, of the default priority.
    pub fn into_message(self, limits: &DecodeLimits) -> Result<Message, DecodeError> {
        Common {
            ori_addr: self.ori_addr,
            dest_addr: self.dest_addr,
            rec_addr: self.rec_addr,
            app_id: self.app_id,
            msg_id: self.msg_id,
            deliv_st_req_ind: self.deliv_st_req_ind,
            payload: self.payload,
            seg_ind: self.seg_ind,
            seg_params: self.seg_params,
            sto_and_fw_ind: self.sto_and_fw_ind,
            sto_and_fw_params: self.sto_and_fw_params,
        }
        .into_message(None, None, limits)
    }

    fn from_message(message: &Message) -> Self {
        Self {
            ori_addr: message.originator.clone(),
            dest_addr: message.destination.clone(),
            rec_addr: message.recipient.clone(),
            app_id: message.application_id.clone(),
            msg_id: message.message_id.clone(),
            deliv_st_req_ind: message.delivery_status_required.then_some(true),
            payload: payload_text(message),
            seg_ind: message.segment.is_some().then_some(true),
            seg_params: segment_of(message),
            sto_and_fw_ind: message.store_and_forward,
            sto_and_fw_params: store_and_forward_of(message),
        }
    }
}

/// MessageDeliveryAck: the answer to a message or report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageDeliveryAck {
    /// The originator of what is answered.
    #[serde(rename = "oriAddr")]
    pub ori_addr: Address,
    /// The Message ID of what is answered.
    #[serde(rename = "msgId")]
    pub msg_id: MessageId,
    /// None: delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<DeliveryStatus>,
    /// Why not.
    #[serde(rename = "failureCause", default, skip_serializing_if = "Option::is_none")]
    pub failure_cause: Option<String>,
}

impl TryFrom<MessageDeliveryAck> for MessageResponse {
    type Error = DecodeError;

    fn try_from(ack: MessageDeliveryAck) -> Result<Self, DecodeError> {
        Ok(Self {
            originator: ack.ori_addr,
            message_id: ack.msg_id,
            status: ack.status,
            failure_cause: checked_cause(ack.failure_cause)?,
            individual: Vec::new(),
        })
    }
}

/// TS 29.538 has no aggregated messages, so neither has their answer a place here: it is left out.
impl From<MessageResponse> for MessageDeliveryAck {
    fn from(response: MessageResponse) -> Self {
        Self {
            ori_addr: response.originator,
            msg_id: response.message_id,
            status: response.status,
            failure_cause: response.failure_cause,
        }
    }
}

/// DeliveryStatusReport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryStatusReport {
    /// Who reports.
    #[serde(rename = "oriAddr")]
    pub ori_addr: Address,
    /// Who is told.
    #[serde(rename = "destAddr")]
    pub dest_addr: Address,
    /// The Message ID of the message reported on.
    #[serde(rename = "msgId")]
    pub msg_id: MessageId,
    /// Why it failed.
    #[serde(rename = "failureCause", default, skip_serializing_if = "Option::is_none")]
    pub failure_cause: Option<String>,
    /// What became of it.
    #[serde(rename = "delivSt")]
    pub deliv_st: ReportDeliveryStatus,
}

impl TryFrom<DeliveryStatusReport> for model::DeliveryStatusReport {
    type Error = DecodeError;

    fn try_from(report: DeliveryStatusReport) -> Result<Self, DecodeError> {
        Ok(Self {
            originator: report.ori_addr,
            destination: report.dest_addr,
            message_id: report.msg_id,
            delivery_status: report.deliv_st,
            failure_cause: checked_cause(report.failure_cause)?,
        })
    }
}

impl From<model::DeliveryStatusReport> for DeliveryStatusReport {
    fn from(report: model::DeliveryStatusReport) -> Self {
        Self {
            ori_addr: report.originator,
            dest_addr: report.destination,
            msg_id: report.message_id,
            failure_cause: report.failure_cause,
            deliv_st: report.delivery_status,
        }
    }
}

fn checked_cause(cause: Option<String>) -> Result<Option<String>, DecodeError> {
    cause
        .map(|text| decode::failure_cause(&text))
        .transpose()
        .map_err(|reason| DecodeError::Invalid { member: MemberPath::top(member::FAILURE_CAUSE), reason })
}

/// ASRegistration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsRegistration {
    /// AS Service ID.
    #[serde(rename = "asSvcId")]
    pub as_svc_id: AsServiceId,
    /// Application ID.
    #[serde(rename = "appId", default, skip_serializing_if = "Option::is_none")]
    pub app_id: Option<ApplicationId>,
    /// Where the AS takes messages and reports. Not checked here: whoever calls it checks it.
    #[serde(rename = "targetUri", default, skip_serializing_if = "Option::is_none")]
    pub target_uri: Option<String>,
    /// What the AS says about itself.
    #[serde(rename = "asProf", default, skip_serializing_if = "Option::is_none")]
    pub as_prof: Option<AsProfile>,
}

/// ASProfile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsProfile {
    /// Name of the application.
    #[serde(rename = "appName", default, skip_serializing_if = "Option::is_none")]
    pub app_name: Option<String>,
    /// Providers of the AS; at least one if there.
    #[serde(rename = "appProviders", default, skip_serializing_if = "Vec::is_empty")]
    pub app_providers: Vec<String>,
    /// Application scenarios; at least one if there. The clause spells the member so.
    #[serde(rename = "appSenarios", default, skip_serializing_if = "Vec::is_empty")]
    pub app_senarios: Vec<String>,
    /// Category of the application.
    #[serde(rename = "appCategory", default, skip_serializing_if = "Option::is_none")]
    pub app_category: Option<String>,
    /// Status of the AS.
    #[serde(rename = "asStatus", default, skip_serializing_if = "Option::is_none")]
    pub as_status: Option<String>,
}

/// ASRegistrationAck.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsRegistrationAck {
    /// AS Service ID.
    #[serde(rename = "asSvcId")]
    pub as_svc_id: AsServiceId,
    /// What came of it: ProblemDetails even on success, with `status` 201 or 200.
    pub result: RegistrationResult,
}

/// The members of ProblemDetails (TS 29.571) that an [`AsRegistrationAck`] uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationResult {
    /// Short summary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// HTTP status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Explanation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// A [`crate::FailureCause`], if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}
