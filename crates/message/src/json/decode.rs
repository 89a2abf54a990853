//! JSON to messages.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, MapAccess};
use time::OffsetDateTime;

use super::ErrorBody;
use super::reader::{Members, Object, Reader};
use crate::date;
use crate::error::{DecodeError, IdentityError, MemberPath};
use crate::identity::{Address, AddressType, ApplicationId, MessageId, SegmentationSetId, ServiceAddress, UeServiceId};
use crate::limits::DecodeLimits;
use crate::member::{self, message_type};
use crate::model::{
    ClientProfile, DeliveryStatus, DeliveryStatusReport, Deregistration, FAILURE_CAUSE_OCTETS_MAX, Message,
    MessageResponse, Priority, Registration, RegistrationResponse, ReportDeliveryStatus, SegmentParameters, UeMessage,
};

/// Reads all known members, in whatever order they come.
pub(super) fn read_members(octets: &[u8], limits: &DecodeLimits) -> Result<MessageMembers, DecodeError> {
    if octets.len() > limits.message_octets_max {
        return Err(DecodeError::MessageTooLarge { octets: octets.len(), octets_max: limits.message_octets_max });
    }
    // One check of the whole costs less than one of each string, and holds for what is skipped too.
    let text = std::str::from_utf8(octets).map_err(|_| DecodeError::NotJson { line: 0, column: 0 })?;
    let reader = Reader::new(limits);
    let mut json = serde_json::Deserializer::from_str(text);
    Object::outermost(&reader, MessageMembers::default())
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

fn identity<T: std::str::FromStr<Err = IdentityError>>(text: &str) -> Result<T, &'static str> {
    text.parse().map_err(IdentityError::reason)
}

#[derive(Clone, Copy)]
enum MessageKind {
    Registration,
    Deregistration,
    Message,
    MessageResponse,
    DeliveryStatusReport,
}

fn message_kind(text: &str) -> Result<MessageKind, DecodeError> {
    Ok(match text {
        message_type::REGISTRATION => MessageKind::Registration,
        message_type::DEREGISTRATION => MessageKind::Deregistration,
        message_type::MESSAGE => MessageKind::Message,
        message_type::MESSAGE_RESPONSE => MessageKind::MessageResponse,
        message_type::DELIVERY_STATUS_REPORT => MessageKind::DeliveryStatusReport,
        _ => return Err(DecodeError::MessageTypeNotSupported),
    })
}

macro_rules! fields {
    ($name:ident { $($field:ident = $member:path,)+ }) => {
        #[derive(Clone, Copy)]
        pub(super) enum $name {
            $($field,)+
        }

        impl $name {
            fn named(name: &str) -> Option<Self> {
                match name {
                    $($member => Some(Self::$field),)+
                    _ => None,
                }
            }
        }
    };
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
        }
    }
}

impl MessageMembers {
    pub(super) fn into_message(self) -> Result<UeMessage, DecodeError> {
        Ok(match required(self.kind, member::MESSAGE_TYPE)? {
            MessageKind::Registration => UeMessage::Registration(Registration {
                ue_service_id: required(self.ue_service_id, member::UE_SERVICE_ID)?,
                client_profile: self.client_profile.map(|profile| ClientProfile { segment_size: profile.segment_size }),
            }),
            MessageKind::Deregistration => UeMessage::Deregistration(Deregistration {
                ue_service_id: required(self.ue_service_id, member::UE_SERVICE_ID)?,
            }),
            MessageKind::Message => UeMessage::Message(Box::new(self.into_message_request()?)),
            MessageKind::MessageResponse => UeMessage::MessageResponse(MessageResponse {
                originator: required(self.originator, member::ORIGINATOR)?.into_address()?,
                message_id: required(self.message_id, member::MESSAGE_ID)?,
                status: self.status,
                failure_cause: self.failure_cause,
            }),
            MessageKind::DeliveryStatusReport => UeMessage::DeliveryStatusReport(DeliveryStatusReport {
                originator: required(self.originator, member::ORIGINATOR)?.into_address()?,
                destination: required(self.destination, member::DESTINATION)?.into_address()?,
                message_id: required(self.message_id, member::MESSAGE_ID)?,
                delivery_status: required(self.delivery_status, member::DELIVERY_STATUS)?,
                failure_cause: self.failure_cause,
            }),
        })
    }

    fn into_message_request(self) -> Result<Message, DecodeError> {
        let segment = self.segment_parameters.map(SegmentMembers::into_parameters).transpose()?;
        Ok(Message {
            originator: required(self.originator, member::ORIGINATOR)?.into_address()?,
            destination: required(self.destination, member::DESTINATION)?.into_address()?,
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

fn required<T>(value: Option<T>, name: &'static str) -> Result<T, DecodeError> {
    value.ok_or(DecodeError::Missing { member: MemberPath::top(name) })
}

fields!(AddressField { AddressType = member::ADDRESS_TYPE, Address = member::ADDRESS, });

struct AddressMembers {
    of: &'static str,
    addr_type: Option<AddressType>,
    addr: Option<ServiceAddress>,
}

impl AddressMembers {
    fn of(of: &'static str) -> Self {
        Self { of, addr_type: None, addr: None }
    }

    fn path(&self, name: &'static str) -> MemberPath {
        MemberPath { parent: Some(self.of), name }
    }

    fn into_address(self) -> Result<Address, DecodeError> {
        let missing = |name| DecodeError::Missing { member: MemberPath { parent: Some(self.of), name } };
        Ok(Address {
            addr_type: self.addr_type.ok_or_else(|| missing(member::ADDRESS_TYPE))?,
            addr: self.addr.ok_or_else(|| missing(member::ADDRESS))?,
        })
    }
}

impl Members for AddressMembers {
    type Field = AddressField;

    fn field(name: &str) -> Option<AddressField> {
        AddressField::named(name)
    }

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        field: AddressField,
        map: &mut A,
        reader: &Reader<'_>,
    ) -> Result<(), A::Error> {
        match field {
            AddressField::AddressType => {
                let path = self.path(member::ADDRESS_TYPE);
                reader.text(map, &mut self.addr_type, path, identity)
            }
            AddressField::Address => {
                let path = self.path(member::ADDRESS);
                reader.text(map, &mut self.addr, path, identity)
            }
        }
    }
}

fields!(StoreAndForwardField { ExpirationTime = member::EXPIRATION_TIME, });

#[derive(Default)]
struct StoreAndForwardMembers {
    expiration_time: Option<OffsetDateTime>,
}

impl Members for StoreAndForwardMembers {
    type Field = StoreAndForwardField;

    fn field(name: &str) -> Option<StoreAndForwardField> {
        StoreAndForwardField::named(name)
    }

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        _field: StoreAndForwardField,
        map: &mut A,
        reader: &Reader<'_>,
    ) -> Result<(), A::Error> {
        let path = MemberPath { parent: Some(member::STORE_AND_FORWARD_PARAMETERS), name: member::EXPIRATION_TIME };
        reader.text(map, &mut self.expiration_time, path, date::parse)
    }
}

fields!(SegmentField {
    SetId = member::SEGMENTATION_SET_ID,
    TotalCount = member::TOTAL_SEGMENT_COUNT,
    Number = member::SEGMENT_NUMBER,
    Last = member::LAST_SEGMENT_FLAG,
});

#[derive(Default)]
struct SegmentMembers {
    set_id: Option<SegmentationSetId>,
    total_count: Option<u32>,
    number: Option<u32>,
    last: Option<bool>,
}

impl SegmentMembers {
    fn into_parameters(self) -> Result<SegmentParameters, DecodeError> {
        segment_parameters(self.set_id, self.total_count, self.number, self.last)
    }
}

impl Members for SegmentMembers {
    type Field = SegmentField;

    fn field(name: &str) -> Option<SegmentField> {
        SegmentField::named(name)
    }

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        field: SegmentField,
        map: &mut A,
        reader: &Reader<'_>,
    ) -> Result<(), A::Error> {
        let path = |name| MemberPath { parent: Some(member::SEGMENT_PARAMETERS), name };
        let max = reader.limits.segments_max;
        match field {
            SegmentField::SetId => reader.text(map, &mut self.set_id, path(member::SEGMENTATION_SET_ID), identity),
            SegmentField::TotalCount => {
                reader.number(map, &mut self.total_count, path(member::TOTAL_SEGMENT_COUNT), (1, max))
            }
            SegmentField::Number => reader.number(map, &mut self.number, path(member::SEGMENT_NUMBER), (0, max)),
            SegmentField::Last => reader.flag(map, &mut self.last, path(member::LAST_SEGMENT_FLAG)),
        }
    }
}

fields!(ClientProfileField { SegmentSize = member::SEGMENT_SIZE, });

#[derive(Default)]
struct ClientProfileMembers {
    segment_size: Option<u32>,
}

impl Members for ClientProfileMembers {
    type Field = ClientProfileField;

    fn field(name: &str) -> Option<ClientProfileField> {
        ClientProfileField::named(name)
    }

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        _field: ClientProfileField,
        map: &mut A,
        reader: &Reader<'_>,
    ) -> Result<(), A::Error> {
        let path = MemberPath { parent: Some(member::CLIENT_PROFILE), name: member::SEGMENT_SIZE };
        reader.number(map, &mut self.segment_size, path, (1, u32::MAX))
    }
}
