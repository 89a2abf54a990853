//! The objects inside a message: what their members are, and what they have to be.

use std::str::FromStr;

use serde::de::MapAccess;
use time::OffsetDateTime;

use super::decode::{failure_cause, payload, segment_parameters};
use super::reader::{List, Members, Reader};
use crate::aggregation::IndividualMessage;
use crate::availability::CommunicationAvailability;
use crate::date;
use crate::error::{DecodeError, IdentityError, MemberPath};
use crate::identity::{Address, AddressType, ApplicationId, MessageId, SegmentationSetId, ServiceAddress};
use crate::limits::TRIGGERING_PORTS_MAX;
use crate::member;
use crate::model::{
    DeliveryStatus, IndividualReport, IndividualResponse, Priority, ReportDeliveryStatus, SegmentParameters,
};
use crate::profile::{self, ClientProfile, TriggeringInformation};

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

pub(super) use fields;

pub(super) fn identity<T: FromStr<Err = IdentityError>>(text: &str) -> Result<T, &'static str> {
    text.parse().map_err(IdentityError::reason)
}

pub(super) fn required<T>(value: Option<T>, name: &'static str) -> Result<T, DecodeError> {
    value.ok_or(DecodeError::Missing { member: MemberPath::top(name) })
}

pub(super) fn required_in<T>(value: Option<T>, parent: &'static str, name: &'static str) -> Result<T, DecodeError> {
    value.ok_or(DecodeError::Missing { member: MemberPath { parent: Some(parent), name } })
}

/// An element of a list, once its members are read.
pub(super) trait Element {
    type Value;

    fn into_value(self) -> Result<Self::Value, DecodeError>;
}

pub(super) fn collect<E: Element>(elements: Vec<E>) -> Result<Vec<E::Value>, DecodeError> {
    elements.into_iter().map(E::into_value).collect()
}

fields!(AddressField { AddressType = member::ADDRESS_TYPE, Address = member::ADDRESS, });

pub(super) struct AddressMembers {
    of: &'static str,
    addr_type: Option<AddressType>,
    addr: Option<ServiceAddress>,
}

impl AddressMembers {
    pub(super) fn of(of: &'static str) -> Self {
        Self { of, addr_type: None, addr: None }
    }

    fn path(&self, name: &'static str) -> MemberPath {
        MemberPath { parent: Some(self.of), name }
    }

    pub(super) fn into_address(self) -> Result<Address, DecodeError> {
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
pub(super) struct StoreAndForwardMembers {
    pub(super) expiration_time: Option<OffsetDateTime>,
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
pub(super) struct SegmentMembers {
    set_id: Option<SegmentationSetId>,
    total_count: Option<u32>,
    number: Option<u32>,
    last: Option<bool>,
}

impl SegmentMembers {
    pub(super) fn into_parameters(self) -> Result<SegmentParameters, DecodeError> {
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

fields!(ClientProfileField {
    SegmentSize = member::SEGMENT_SIZE,
    Aggregation = member::AGGREGATION_SUPPORTED,
    Triggering = member::TRIGGERING_INFORMATION,
    Availability = member::COMMUNICATION_AVAILABILITY,
});

#[derive(Default)]
pub(super) struct ClientProfileMembers {
    segment_size: Option<u32>,
    aggregation: Option<bool>,
    triggering: Option<TriggeringMembers>,
    availability: Option<AvailabilityMembers>,
}

impl ClientProfileMembers {
    pub(super) fn into_profile(self) -> Result<ClientProfile, DecodeError> {
        Ok(ClientProfile {
            segment_size: self.segment_size,
            aggregation: self.aggregation,
            triggering: self.triggering.map(|triggering| TriggeringInformation {
                ue_identifier: triggering.ue_identifier,
                // Ports are read as what fits them.
                ports: triggering.ports.into_iter().flatten().filter_map(|port| u16::try_from(port).ok()).collect(),
                protocol: triggering.protocol,
            }),
            availability: self.availability.map(AvailabilityMembers::into_availability).transpose()?,
        })
    }
}

impl Members for ClientProfileMembers {
    type Field = ClientProfileField;

    fn field(name: &str) -> Option<ClientProfileField> {
        ClientProfileField::named(name)
    }

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        field: ClientProfileField,
        map: &mut A,
        reader: &Reader<'_>,
    ) -> Result<(), A::Error> {
        let path = |name| MemberPath { parent: Some(member::CLIENT_PROFILE), name };
        match field {
            ClientProfileField::SegmentSize => {
                reader.number(map, &mut self.segment_size, path(member::SEGMENT_SIZE), (1, u32::MAX))
            }
            ClientProfileField::Aggregation => {
                reader.flag(map, &mut self.aggregation, path(member::AGGREGATION_SUPPORTED))
            }
            ClientProfileField::Triggering => {
                let path = path(member::TRIGGERING_INFORMATION);
                reader.object_in(map, &mut self.triggering, path, 2, TriggeringMembers::default())
            }
            ClientProfileField::Availability => {
                let path = path(member::COMMUNICATION_AVAILABILITY);
                reader.object_in(map, &mut self.availability, path, 2, AvailabilityMembers::default())
            }
        }
    }
}

fields!(TriggeringField {
    UeIdentifier = member::UE_IDENTIFIER,
    Ports = member::PORTS,
    Protocol = member::PROTOCOL,
});

#[derive(Default)]
struct TriggeringMembers {
    ue_identifier: Option<String>,
    ports: Option<Vec<u32>>,
    protocol: Option<String>,
}

impl Members for TriggeringMembers {
    type Field = TriggeringField;

    fn field(name: &str) -> Option<TriggeringField> {
        TriggeringField::named(name)
    }

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        field: TriggeringField,
        map: &mut A,
        reader: &Reader<'_>,
    ) -> Result<(), A::Error> {
        let path = |name| MemberPath { parent: Some(member::TRIGGERING_INFORMATION), name };
        match field {
            TriggeringField::UeIdentifier => {
                reader.text(map, &mut self.ue_identifier, path(member::UE_IDENTIFIER), profile::ue_identifier)
            }
            TriggeringField::Ports => {
                let list = List { member: path(member::PORTS), depth: 3, min: 0, max: TRIGGERING_PORTS_MAX };
                reader.numbers(map, &mut self.ports, list, (0, u32::from(u16::MAX)))
            }
            TriggeringField::Protocol => {
                reader.text(map, &mut self.protocol, path(member::PROTOCOL), profile::protocol)
            }
        }
    }
}

fields!(AvailabilityField {
    Start = member::SCHEDULED_TIME,
    Duration = member::COMMUNICATION_DURATION,
    Interval = member::PERIODIC_INTERVAL,
});

#[derive(Default)]
struct AvailabilityMembers {
    start: Option<OffsetDateTime>,
    duration_seconds: Option<u32>,
    interval_seconds: Option<u32>,
}

impl AvailabilityMembers {
    fn into_availability(self) -> Result<CommunicationAvailability, DecodeError> {
        const PARENT: &str = member::COMMUNICATION_AVAILABILITY;
        let duration_seconds = required_in(self.duration_seconds, PARENT, member::COMMUNICATION_DURATION)?;
        if self.interval_seconds.is_some_and(|interval_seconds| interval_seconds < duration_seconds) {
            let member = MemberPath { parent: Some(PARENT), name: member::PERIODIC_INTERVAL };
            return Err(DecodeError::Invalid { member, reason: "is shorter than the communication duration" });
        }
        Ok(CommunicationAvailability {
            start: required_in(self.start, PARENT, member::SCHEDULED_TIME)?,
            duration_seconds,
            interval_seconds: self.interval_seconds,
        })
    }
}

impl Members for AvailabilityMembers {
    type Field = AvailabilityField;

    fn field(name: &str) -> Option<AvailabilityField> {
        AvailabilityField::named(name)
    }

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        field: AvailabilityField,
        map: &mut A,
        reader: &Reader<'_>,
    ) -> Result<(), A::Error> {
        let path = |name| MemberPath { parent: Some(member::COMMUNICATION_AVAILABILITY), name };
        let seconds = (1, u32::MAX);
        match field {
            AvailabilityField::Start => reader.text(map, &mut self.start, path(member::SCHEDULED_TIME), date::parse),
            AvailabilityField::Duration => {
                reader.number(map, &mut self.duration_seconds, path(member::COMMUNICATION_DURATION), seconds)
            }
            AvailabilityField::Interval => {
                reader.number(map, &mut self.interval_seconds, path(member::PERIODIC_INTERVAL), seconds)
            }
        }
    }
}

fields!(IndividualMessageField {
    MessageId = member::MESSAGE_ID,
    ApplicationId = member::APPLICATION_ID,
    DeliveryStatusRequired = member::DELIVERY_STATUS_REQUIRED,
    StoreAndForward = member::STORE_AND_FORWARD,
    StoreAndForwardParameters = member::STORE_AND_FORWARD_PARAMETERS,
    Priority = member::PRIORITY,
    Payload = member::PAYLOAD,
});

/// Depth of an object in a list of the message.
const ELEMENT_DEPTH: usize = 3;

#[derive(Default)]
pub(super) struct IndividualMessageMembers {
    message_id: Option<MessageId>,
    application_id: Option<ApplicationId>,
    delivery_status_required: Option<bool>,
    store_and_forward: Option<bool>,
    store_and_forward_parameters: Option<StoreAndForwardMembers>,
    priority: Option<Priority>,
    payload: Option<Vec<u8>>,
}

impl Element for IndividualMessageMembers {
    type Value = IndividualMessage;

    fn into_value(self) -> Result<IndividualMessage, DecodeError> {
        Ok(IndividualMessage {
            message_id: required_in(self.message_id, member::INDIVIDUAL_MESSAGES, member::MESSAGE_ID)?,
            application_id: self.application_id,
            delivery_status_required: self.delivery_status_required.unwrap_or(false),
            store_and_forward: self.store_and_forward.unwrap_or(false),
            expiration_time: self.store_and_forward_parameters.and_then(|parameters| parameters.expiration_time),
            priority: self.priority.unwrap_or_default(),
            payload: self.payload.unwrap_or_default(),
        })
    }
}

impl Members for IndividualMessageMembers {
    type Field = IndividualMessageField;

    fn field(name: &str) -> Option<IndividualMessageField> {
        IndividualMessageField::named(name)
    }

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        field: IndividualMessageField,
        map: &mut A,
        reader: &Reader<'_>,
    ) -> Result<(), A::Error> {
        let path = |name| MemberPath { parent: Some(member::INDIVIDUAL_MESSAGES), name };
        match field {
            IndividualMessageField::MessageId => {
                reader.text(map, &mut self.message_id, path(member::MESSAGE_ID), identity)
            }
            IndividualMessageField::ApplicationId => {
                reader.text(map, &mut self.application_id, path(member::APPLICATION_ID), identity)
            }
            IndividualMessageField::DeliveryStatusRequired => {
                reader.flag(map, &mut self.delivery_status_required, path(member::DELIVERY_STATUS_REQUIRED))
            }
            IndividualMessageField::StoreAndForward => {
                reader.flag(map, &mut self.store_and_forward, path(member::STORE_AND_FORWARD))
            }
            IndividualMessageField::StoreAndForwardParameters => {
                let path = path(member::STORE_AND_FORWARD_PARAMETERS);
                let slot = &mut self.store_and_forward_parameters;
                reader.object_in(map, slot, path, ELEMENT_DEPTH, StoreAndForwardMembers::default())
            }
            IndividualMessageField::Priority => {
                reader.text(map, &mut self.priority, path(member::PRIORITY), |text| match Priority::from_wire(text) {
                    Priority::High => Err("is HIGH, which is never aggregated"),
                    other => Ok(other),
                })
            }
            IndividualMessageField::Payload => {
                reader.text_or(map, &mut self.payload, path(member::PAYLOAD), |text| payload(text, reader.limits))
            }
        }
    }
}

fields!(IndividualResponseField {
    MessageId = member::MESSAGE_ID,
    Status = member::STATUS,
    FailureCause = member::FAILURE_CAUSE,
});

#[derive(Default)]
pub(super) struct IndividualResponseMembers {
    message_id: Option<MessageId>,
    status: Option<DeliveryStatus>,
    failure_cause: Option<String>,
}

impl Element for IndividualResponseMembers {
    type Value = IndividualResponse;

    fn into_value(self) -> Result<IndividualResponse, DecodeError> {
        Ok(IndividualResponse {
            message_id: required_in(self.message_id, member::INDIVIDUAL_RESPONSES, member::MESSAGE_ID)?,
            status: self.status,
            failure_cause: self.failure_cause,
        })
    }
}

impl Members for IndividualResponseMembers {
    type Field = IndividualResponseField;

    fn field(name: &str) -> Option<IndividualResponseField> {
        IndividualResponseField::named(name)
    }

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        field: IndividualResponseField,
        map: &mut A,
        reader: &Reader<'_>,
    ) -> Result<(), A::Error> {
        let path = |name| MemberPath { parent: Some(member::INDIVIDUAL_RESPONSES), name };
        match field {
            IndividualResponseField::MessageId => {
                reader.text(map, &mut self.message_id, path(member::MESSAGE_ID), identity)
            }
            IndividualResponseField::Status => reader.text(map, &mut self.status, path(member::STATUS), identity),
            IndividualResponseField::FailureCause => {
                reader.text(map, &mut self.failure_cause, path(member::FAILURE_CAUSE), failure_cause)
            }
        }
    }
}

fields!(IndividualReportField {
    Originator = member::ORIGINATOR,
    MessageId = member::MESSAGE_ID,
    DeliveryStatus = member::DELIVERY_STATUS,
    FailureCause = member::FAILURE_CAUSE,
});

#[derive(Default)]
pub(super) struct IndividualReportMembers {
    originator: Option<AddressMembers>,
    message_id: Option<MessageId>,
    delivery_status: Option<ReportDeliveryStatus>,
    failure_cause: Option<String>,
}

impl Element for IndividualReportMembers {
    type Value = IndividualReport;

    fn into_value(self) -> Result<IndividualReport, DecodeError> {
        const PARENT: &str = member::INDIVIDUAL_REPORTS;
        Ok(IndividualReport {
            originator: required_in(self.originator, PARENT, member::ORIGINATOR)?.into_address()?,
            message_id: required_in(self.message_id, PARENT, member::MESSAGE_ID)?,
            delivery_status: required_in(self.delivery_status, PARENT, member::DELIVERY_STATUS)?,
            failure_cause: self.failure_cause,
        })
    }
}

impl Members for IndividualReportMembers {
    type Field = IndividualReportField;

    fn field(name: &str) -> Option<IndividualReportField> {
        IndividualReportField::named(name)
    }

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        field: IndividualReportField,
        map: &mut A,
        reader: &Reader<'_>,
    ) -> Result<(), A::Error> {
        let path = |name| MemberPath { parent: Some(member::INDIVIDUAL_REPORTS), name };
        match field {
            IndividualReportField::Originator => {
                let members = AddressMembers::of(member::ORIGINATOR);
                reader.object_in(map, &mut self.originator, path(member::ORIGINATOR), ELEMENT_DEPTH, members)
            }
            IndividualReportField::MessageId => {
                reader.text(map, &mut self.message_id, path(member::MESSAGE_ID), identity)
            }
            IndividualReportField::DeliveryStatus => {
                reader.text(map, &mut self.delivery_status, path(member::DELIVERY_STATUS), identity)
            }
            IndividualReportField::FailureCause => {
                reader.text(map, &mut self.failure_cause, path(member::FAILURE_CAUSE), failure_cause)
            }
        }
    }
}
