//! JSON to messages.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, MapAccess};
use time::OffsetDateTime;

use super::ErrorBody;
use super::members::{
    AddressMembers, ClientProfileMembers, IndividualMessageMembers, IndividualReportMembers, IndividualResponseMembers,
    SegmentMembers, StoreAndForwardMembers, collect, fields, identity, required, required_in,
};
use super::reader::{List, Members, Object, Reader};
use crate::aggregation::{AggregatedMessage, message_ids_differ};
use crate::date;
use crate::error::{DecodeError, MemberPath};
use crate::identity::{Address, ApplicationId, MessageId, MessagingTopic, SegmentationSetId, UeServiceId};
use crate::limits::{
    DecodeLimits, INDIVIDUAL_MESSAGES_MAX, INDIVIDUAL_REPORTS_MAX, MISSING_SEGMENTS_MAX, TOPICS_PER_REQUEST_MAX,
};
use crate::member::{self, message_type};
use crate::model::{
    AggregatedReport, DELIVERY_STATUS_OCTETS_MAX, DeliveryStatus, DeliveryStatusReport, Deregistration,
    FAILURE_CAUSE_OCTETS_MAX, Message, MessageResponse, Priority, Registration, RegistrationResponse,
    ReportDeliveryStatus, SegmentConfirmation, SegmentParameters, SegmentRecovery, StoredMessageUpdate,
    TopicSubscription, TopicSubscriptionResponse, TopicUnsubscription, UeMessage,
};
use crate::profile::ClientProfile;

/// Reads all known members of a message, in whatever order they come.
pub(super) fn read_members(octets: &[u8], limits: &DecodeLimits) -> Result<MessageMembers, DecodeError> {
    read(octets, limits)
}

/// Reads the client profile alone.
pub(super) fn read_client_profile(octets: &[u8], limits: &DecodeLimits) -> Result<ClientProfile, DecodeError> {
    read::<ClientProfileMembers>(octets, limits)?.into_profile()
}

fn read<M: Members + Default>(octets: &[u8], limits: &DecodeLimits) -> Result<M, DecodeError> {
    if octets.len() > limits.message_octets_max {
        return Err(DecodeError::MessageTooLarge { octets: octets.len(), octets_max: limits.message_octets_max });
    }
    // One check of the whole costs less than one of each string, and holds for what is skipped too.
    let text = std::str::from_utf8(octets).map_err(|_| DecodeError::NotJson { line: 0, column: 0 })?;
    let reader = Reader::new(limits);
    let mut json = serde_json::Deserializer::from_str(text);
    Object::outermost(&reader, M::default())
        .deserialize(&mut json)
        .and_then(|members| json.end().map(|()| members))
        .map_err(|error| reader.explain(&error))
}

/// Checks a payload's base64 (RFC 4648 section 4, padded) and its limit, in this order: length, then decoding, so that
/// what is too large is never decoded.
pub(crate) fn payload(text: &str, limits: &DecodeLimits) -> Result<Vec<u8>, DecodeError> {
    let too_large = DecodeError::PayloadTooLarge { octets_max: limits.payload_octets_max };
    if text.len() > limits.payload_octets_max.div_ceil(3).saturating_mul(4) {
        return Err(too_large);
    }
    let octets = STANDARD
        .decode(text)
        .map_err(|_| DecodeError::Invalid { member: MemberPath::top(member::PAYLOAD), reason: "is not base64" })?;
    if octets.len() > limits.payload_octets_max { Err(too_large) } else { Ok(octets) }
}

/// Checks the rules of TS 23.554 8.5 that hold for one segment alone.
pub(crate) fn segment_parameters(
    set_id: Option<SegmentationSetId>,
    total_count: Option<u32>,
    number: Option<u32>,
    last: Option<bool>,
) -> Result<SegmentParameters, DecodeError> {
    let path = |name| MemberPath { parent: Some(member::SEGMENT_PARAMETERS), name };
    let missing = |name| DecodeError::Missing { member: path(name) };
    let number = number.ok_or_else(|| missing(member::SEGMENT_NUMBER))?;
    if total_count.is_some_and(|total_count| number > total_count) {
        return Err(DecodeError::Invalid {
            member: path(member::SEGMENT_NUMBER),
            reason: "is greater than the total count",
        });
    }
    Ok(SegmentParameters {
        set_id: set_id.ok_or_else(|| missing(member::SEGMENTATION_SET_ID))?,
        total_count,
        number,
        last: last.unwrap_or(false),
    })
}

/// A message is segmented if its indicator says so, and then says how; one without the other is refused, because the
/// reader could only guess which of them is wrong.
pub(crate) fn check_segment(
    indicator: Option<bool>,
    parameters: Option<SegmentParameters>,
) -> Result<Option<SegmentParameters>, DecodeError> {
    match (indicator.unwrap_or(false), parameters) {
        (true, Some(parameters)) => Ok(Some(parameters)),
        (false, None) => Ok(None),
        (true, None) => Err(DecodeError::Missing { member: MemberPath::top(member::SEGMENT_PARAMETERS) }),
        (false, Some(_)) => Err(DecodeError::Invalid {
            member: MemberPath::top(member::SEGMENT_PARAMETERS),
            reason: "is there though the message is not segmented",
        }),
    }
}

/// Checks the length of a failure cause; a peer's own words are carried as they are.
pub(crate) fn failure_cause(text: &str) -> Result<String, &'static str> {
    if text.len() > FAILURE_CAUSE_OCTETS_MAX {
        Err("is too long")
    } else if text.chars().any(char::is_control) {
        Err("holds a character that is not allowed")
    } else {
        Ok(text.to_owned())
    }
}

/// Checks what came of a subscription; a peer's own words are carried as they are.
pub(crate) fn subscription_status(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        Err("is empty")
    } else if text.len() > DELIVERY_STATUS_OCTETS_MAX {
        Err("is too long")
    } else if !text.bytes().all(|octet| octet.is_ascii_graphic()) {
        Err("holds a character that is not allowed")
    } else {
        Ok(text.to_owned())
    }
}

#[derive(Clone, Copy)]
enum MessageKind {
    Registration,
    Deregistration,
    Message,
    MessageResponse,
    DeliveryStatusReport,
    SegmentRecovery,
    SegmentConfirmation,
    TopicSubscription,
    TopicUnsubscription,
    TopicSubscriptionResponse,
    StoredMessageUpdate,
}

fn message_kind(text: &str) -> Result<MessageKind, DecodeError> {
    Ok(match text {
        message_type::REGISTRATION => MessageKind::Registration,
        message_type::DEREGISTRATION => MessageKind::Deregistration,
        message_type::MESSAGE => MessageKind::Message,
        message_type::MESSAGE_RESPONSE => MessageKind::MessageResponse,
        message_type::DELIVERY_STATUS_REPORT => MessageKind::DeliveryStatusReport,
        message_type::SEGMENT_RECOVERY => MessageKind::SegmentRecovery,
        message_type::SEGMENT_CONFIRMATION => MessageKind::SegmentConfirmation,
        message_type::TOPIC_SUBSCRIPTION => MessageKind::TopicSubscription,
        message_type::TOPIC_UNSUBSCRIPTION => MessageKind::TopicUnsubscription,
        message_type::TOPIC_SUBSCRIPTION_RESPONSE => MessageKind::TopicSubscriptionResponse,
        message_type::STORED_MESSAGE_UPDATE => MessageKind::StoredMessageUpdate,
        _ => return Err(DecodeError::MessageTypeNotSupported),
    })
}

fields!(MessageField {
    MessageType = member::MESSAGE_TYPE,
    Originator = member::ORIGINATOR,
    Destination = member::DESTINATION,
    MessageId = member::MESSAGE_ID,
    ApplicationId = member::APPLICATION_ID,
    DeliveryStatusRequired = member::DELIVERY_STATUS_REQUIRED,
    StoreAndForward = member::STORE_AND_FORWARD,
    StoreAndForwardParameters = member::STORE_AND_FORWARD_PARAMETERS,
    Priority = member::PRIORITY,
    Payload = member::PAYLOAD,
    Segmented = member::SEGMENTED,
    SegmentParameters = member::SEGMENT_PARAMETERS,
    Latency = member::LATENCY,
    Status = member::STATUS,
    FailureCause = member::FAILURE_CAUSE,
    DeliveryStatus = member::DELIVERY_STATUS,
    UeServiceId = member::UE_SERVICE_ID,
    ClientProfile = member::CLIENT_PROFILE,
    Recipient = member::RECIPIENT,
    IndividualMessages = member::INDIVIDUAL_MESSAGES,
    IndividualMessageCount = member::INDIVIDUAL_MESSAGE_COUNT,
    IndividualResponses = member::INDIVIDUAL_RESPONSES,
    IndividualReports = member::INDIVIDUAL_REPORTS,
    SegmentationSetId = member::SEGMENTATION_SET_ID,
    MissingSegments = member::MISSING_SEGMENTS,
    Topics = member::MESSAGING_TOPICS,
    ExpirationTime = member::EXPIRATION_TIME,
    SubscriptionStatus = member::SUBSCRIPTION_STATUS,
});

/// Every member that any message type knows.
#[derive(Default)]
pub(super) struct MessageMembers {
    kind: Option<MessageKind>,
    originator: Option<AddressMembers>,
    destination: Option<AddressMembers>,
    message_id: Option<MessageId>,
    application_id: Option<ApplicationId>,
    delivery_status_required: Option<bool>,
    store_and_forward: Option<bool>,
    store_and_forward_parameters: Option<StoreAndForwardMembers>,
    priority: Option<Priority>,
    payload: Option<Vec<u8>>,
    segmented: Option<bool>,
    segment_parameters: Option<SegmentMembers>,
    latency: Option<u32>,
    status: Option<DeliveryStatus>,
    failure_cause: Option<String>,
    delivery_status: Option<ReportDeliveryStatus>,
    ue_service_id: Option<UeServiceId>,
    client_profile: Option<ClientProfileMembers>,
    rare: Option<Box<RareMembers>>,
}

/// Members that most messages do not have, kept apart so that these do not carry their room.
#[derive(Default)]
struct RareMembers {
    recipient: Option<AddressMembers>,
    individual_messages: Option<Vec<IndividualMessageMembers>>,
    individual_message_count: Option<u32>,
    individual_responses: Option<Vec<IndividualResponseMembers>>,
    individual_reports: Option<Vec<IndividualReportMembers>>,
    set_id: Option<SegmentationSetId>,
    missing: Option<Vec<u32>>,
    topics: Option<Vec<MessagingTopic>>,
    expiration_time: Option<OffsetDateTime>,
    subscription_status: Option<String>,
}

impl RareMembers {
    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        field: MessageField,
        map: &mut A,
        reader: &Reader<'_>,
    ) -> Result<(), A::Error> {
        let list = |name, min, max| List { member: MemberPath::top(name), depth: 1, min, max };
        match field {
            MessageField::Recipient => {
                reader.object(map, &mut self.recipient, member::RECIPIENT, AddressMembers::of(member::RECIPIENT))
            }
            MessageField::IndividualMessages => {
                let list = list(member::INDIVIDUAL_MESSAGES, 2, INDIVIDUAL_MESSAGES_MAX);
                reader.objects(map, &mut self.individual_messages, list, IndividualMessageMembers::default)
            }
            MessageField::IndividualMessageCount => {
                let path = MemberPath::top(member::INDIVIDUAL_MESSAGE_COUNT);
                reader.number(map, &mut self.individual_message_count, path, (0, u32::MAX))
            }
            MessageField::IndividualResponses => {
                let list = list(member::INDIVIDUAL_RESPONSES, 0, INDIVIDUAL_MESSAGES_MAX);
                reader.objects(map, &mut self.individual_responses, list, IndividualResponseMembers::default)
            }
            MessageField::IndividualReports => {
                let list = list(member::INDIVIDUAL_REPORTS, 1, INDIVIDUAL_REPORTS_MAX);
                reader.objects(map, &mut self.individual_reports, list, IndividualReportMembers::default)
            }
            MessageField::SegmentationSetId => {
                reader.text(map, &mut self.set_id, MemberPath::top(member::SEGMENTATION_SET_ID), identity)
            }
            MessageField::MissingSegments => {
                let list = list(member::MISSING_SEGMENTS, 1, MISSING_SEGMENTS_MAX);
                reader.numbers(map, &mut self.missing, list, (0, reader.limits.segments_max))
            }
            MessageField::Topics => {
                let list = list(member::MESSAGING_TOPICS, 1, TOPICS_PER_REQUEST_MAX);
                reader.texts(map, &mut self.topics, list, identity)
            }
            MessageField::ExpirationTime => {
                reader.text(map, &mut self.expiration_time, MemberPath::top(member::EXPIRATION_TIME), date::parse)
            }
            _ => {
                let path = MemberPath::top(member::SUBSCRIPTION_STATUS);
                reader.text(map, &mut self.subscription_status, path, subscription_status)
            }
        }
    }

    fn recipient(&mut self) -> Result<Option<Address>, DecodeError> {
        self.recipient.take().map(AddressMembers::into_address).transpose()
    }

    fn topics(&mut self) -> Result<Vec<MessagingTopic>, DecodeError> {
        required(self.topics.take(), member::MESSAGING_TOPICS)
    }

    /// Ascending, so that none is there twice and the list has one form.
    fn missing(&mut self) -> Result<Vec<u32>, DecodeError> {
        let missing = required(self.missing.take(), member::MISSING_SEGMENTS)?;
        if missing.is_sorted_by(|one, next| one < next) {
            Ok(missing)
        } else {
            let member = MemberPath::top(member::MISSING_SEGMENTS);
            Err(DecodeError::Invalid { member, reason: "is not in ascending order" })
        }
    }
}

impl Members for MessageMembers {
    type Field = MessageField;

    fn field(name: &str) -> Option<MessageField> {
        MessageField::named(name)
    }

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        field: MessageField,
        map: &mut A,
        reader: &Reader<'_>,
    ) -> Result<(), A::Error> {
        const fn top(name: &'static str) -> MemberPath {
            MemberPath::top(name)
        }
        match field {
            MessageField::MessageType => reader.text_or(map, &mut self.kind, top(member::MESSAGE_TYPE), message_kind),
            MessageField::Originator => {
                reader.object(map, &mut self.originator, member::ORIGINATOR, AddressMembers::of(member::ORIGINATOR))
            }
            MessageField::Destination => {
                reader.object(map, &mut self.destination, member::DESTINATION, AddressMembers::of(member::DESTINATION))
            }
            MessageField::MessageId => reader.text(map, &mut self.message_id, top(member::MESSAGE_ID), identity),
            MessageField::ApplicationId => {
                reader.text(map, &mut self.application_id, top(member::APPLICATION_ID), identity)
            }
            MessageField::DeliveryStatusRequired => {
                reader.flag(map, &mut self.delivery_status_required, top(member::DELIVERY_STATUS_REQUIRED))
            }
            MessageField::StoreAndForward => {
                reader.flag(map, &mut self.store_and_forward, top(member::STORE_AND_FORWARD))
            }
            MessageField::StoreAndForwardParameters => reader.object(
                map,
                &mut self.store_and_forward_parameters,
                member::STORE_AND_FORWARD_PARAMETERS,
                StoreAndForwardMembers::default(),
            ),
            MessageField::Priority => {
                reader.text(map, &mut self.priority, top(member::PRIORITY), |text| Ok(Priority::from_wire(text)))
            }
            MessageField::Payload => {
                reader.text_or(map, &mut self.payload, top(member::PAYLOAD), |text| payload(text, reader.limits))
            }
            MessageField::Segmented => reader.flag(map, &mut self.segmented, top(member::SEGMENTED)),
            MessageField::SegmentParameters => {
                reader.object(map, &mut self.segment_parameters, member::SEGMENT_PARAMETERS, SegmentMembers::default())
            }
            MessageField::Latency => reader.number(map, &mut self.latency, top(member::LATENCY), (0, u32::MAX)),
            MessageField::Status => reader.text(map, &mut self.status, top(member::STATUS), identity),
            MessageField::FailureCause => {
                reader.text(map, &mut self.failure_cause, top(member::FAILURE_CAUSE), failure_cause)
            }
            MessageField::DeliveryStatus => {
                reader.text(map, &mut self.delivery_status, top(member::DELIVERY_STATUS), identity)
            }
            MessageField::UeServiceId => {
                reader.text(map, &mut self.ue_service_id, top(member::UE_SERVICE_ID), identity)
            }
            MessageField::ClientProfile => {
                reader.object(map, &mut self.client_profile, member::CLIENT_PROFILE, ClientProfileMembers::default())
            }
            rare => self.rare.get_or_insert_default().read(rare, map, reader),
        }
    }
}

impl MessageMembers {
    pub(super) fn into_message(mut self, limits: &DecodeLimits) -> Result<UeMessage, DecodeError> {
        let rare = self.rare.take();
        Ok(match required(self.kind, member::MESSAGE_TYPE)? {
            MessageKind::Registration => UeMessage::Registration(Registration {
                ue_service_id: required(self.ue_service_id, member::UE_SERVICE_ID)?,
                client_profile: self.client_profile.map(ClientProfileMembers::into_profile).transpose()?,
            }),
            MessageKind::Deregistration => UeMessage::Deregistration(Deregistration {
                ue_service_id: required(self.ue_service_id, member::UE_SERVICE_ID)?,
            }),
            MessageKind::Message => match rare {
                Some(rare) if rare.individual_messages.is_some() => {
                    UeMessage::AggregatedMessage(Box::new(self.into_aggregated_message(*rare, limits)?))
                }
                rare => UeMessage::Message(Box::new(self.into_message_request(rare)?)),
            },
            MessageKind::MessageResponse => UeMessage::MessageResponse(MessageResponse {
                originator: required(self.originator, member::ORIGINATOR)?.into_address()?,
                message_id: required(self.message_id, member::MESSAGE_ID)?,
                status: self.status,
                failure_cause: self.failure_cause,
                individual: collect(rare.and_then(|rare| rare.individual_responses).unwrap_or_default())?,
            }),
            MessageKind::DeliveryStatusReport => match rare.and_then(|rare| rare.individual_reports) {
                Some(reports) => UeMessage::AggregatedReport(AggregatedReport {
                    originator: required(self.originator, member::ORIGINATOR)?.into_address()?,
                    destination: required(self.destination, member::DESTINATION)?.into_address()?,
                    reports: collect(reports)?,
                }),
                None => UeMessage::DeliveryStatusReport(DeliveryStatusReport {
                    originator: required(self.originator, member::ORIGINATOR)?.into_address()?,
                    destination: required(self.destination, member::DESTINATION)?.into_address()?,
                    message_id: required(self.message_id, member::MESSAGE_ID)?,
                    delivery_status: required(self.delivery_status, member::DELIVERY_STATUS)?,
                    failure_cause: self.failure_cause,
                }),
            },
            other => self.into_rare_message(other, rare.map(|rare| *rare).unwrap_or_default())?,
        })
    }

    fn into_rare_message(self, kind: MessageKind, mut rare: RareMembers) -> Result<UeMessage, DecodeError> {
        let originator = required(self.originator, member::ORIGINATOR)?.into_address()?;
        Ok(match kind {
            MessageKind::SegmentRecovery => UeMessage::SegmentRecovery(SegmentRecovery {
                originator,
                destination: required(self.destination, member::DESTINATION)?.into_address()?,
                message_id: required(self.message_id, member::MESSAGE_ID)?,
                missing: rare.missing()?,
                set_id: required(rare.set_id, member::SEGMENTATION_SET_ID)?,
            }),
            MessageKind::SegmentConfirmation => UeMessage::SegmentConfirmation(SegmentConfirmation {
                originator,
                destination: required(self.destination, member::DESTINATION)?.into_address()?,
                message_id: required(self.message_id, member::MESSAGE_ID)?,
                set_id: required(rare.set_id, member::SEGMENTATION_SET_ID)?,
            }),
            MessageKind::TopicSubscription => UeMessage::TopicSubscription(TopicSubscription {
                originator,
                topics: rare.topics()?,
                expiration_time: rare.expiration_time,
            }),
            MessageKind::TopicUnsubscription => {
                UeMessage::TopicUnsubscription(TopicUnsubscription { originator, topics: rare.topics()? })
            }
            MessageKind::TopicSubscriptionResponse => UeMessage::TopicSubscriptionResponse(TopicSubscriptionResponse {
                originator,
                status: required(rare.subscription_status, member::SUBSCRIPTION_STATUS)?,
                expiration_time: rare.expiration_time,
                failure_cause: self.failure_cause,
            }),
            MessageKind::StoredMessageUpdate => UeMessage::StoredMessageUpdate(StoredMessageUpdate {
                originator,
                message_id: required(self.message_id, member::MESSAGE_ID)?,
                expiration_time: match self.store_and_forward_parameters {
                    // Parameters that change nothing ask for nothing; to take them for a discard would do harm.
                    Some(parameters) => Some(required_in(
                        parameters.expiration_time,
                        member::STORE_AND_FORWARD_PARAMETERS,
                        member::EXPIRATION_TIME,
                    )?),
                    None => None,
                },
            }),
            _ => return Err(DecodeError::MessageTypeNotSupported),
        })
    }

    fn into_message_request(self, rare: Option<Box<RareMembers>>) -> Result<Message, DecodeError> {
        let segment = self.segment_parameters.map(SegmentMembers::into_parameters).transpose()?;
        let recipient = match rare {
            Some(mut rare) => rare.recipient()?,
            None => None,
        };
        Ok(Message {
            originator: required(self.originator, member::ORIGINATOR)?.into_address()?,
            destination: required(self.destination, member::DESTINATION)?.into_address()?,
            recipient,
            message_id: required(self.message_id, member::MESSAGE_ID)?,
            application_id: self.application_id,
            delivery_status_required: self.delivery_status_required.unwrap_or(false),
            // Mandatory in TS 29.538; whether TS 24.538 has it so is not known, and its absence asks for nothing.
            store_and_forward: self.store_and_forward.unwrap_or(false),
            expiration_time: self.store_and_forward_parameters.and_then(|parameters| parameters.expiration_time),
            priority: self.priority.unwrap_or_default(),
            payload: self.payload.unwrap_or_default(),
            segment: check_segment(self.segmented, segment)?,
            latency: self.latency,
        })
    }

    /// A payload of its own, or being a segment, contradicts the list; which of them is meant could only be guessed.
    fn into_aggregated_message(
        self,
        mut rare: RareMembers,
        limits: &DecodeLimits,
    ) -> Result<AggregatedMessage, DecodeError> {
        let invalid = |name, reason| DecodeError::Invalid { member: MemberPath::top(name), reason };
        if self.payload.is_some() {
            return Err(invalid(member::PAYLOAD, "is there though the message is aggregated"));
        }
        if self.segmented == Some(true) || self.segment_parameters.is_some() {
            return Err(invalid(member::SEGMENTED, "is there though the message is aggregated"));
        }
        let messages = collect(rare.individual_messages.take().unwrap_or_default())?;
        if rare.individual_message_count.is_some_and(|count| usize::try_from(count) != Ok(messages.len())) {
            return Err(invalid(member::INDIVIDUAL_MESSAGE_COUNT, "is not the number of messages"));
        }
        if !message_ids_differ(&messages) {
            return Err(invalid(member::INDIVIDUAL_MESSAGES, "holds a Message ID twice"));
        }
        let aggregated = AggregatedMessage {
            originator: required(self.originator, member::ORIGINATOR)?.into_address()?,
            destination: required(self.destination, member::DESTINATION)?.into_address()?,
            recipient: rare.recipient()?,
            message_id: required(self.message_id, member::MESSAGE_ID)?,
            messages,
        };
        if aggregated.payload_octets() > limits.payload_octets_max {
            return Err(DecodeError::PayloadTooLarge { octets_max: limits.payload_octets_max });
        }
        Ok(aggregated)
    }

    pub(super) fn into_registration_response(self) -> Result<RegistrationResponse, DecodeError> {
        Ok(RegistrationResponse {
            ue_service_id: required(self.ue_service_id, member::UE_SERVICE_ID)?,
            failure_cause: self.failure_cause,
        })
    }

    pub(super) fn into_error_body(self) -> ErrorBody {
        ErrorBody { failure_cause: self.failure_cause }
    }
}
