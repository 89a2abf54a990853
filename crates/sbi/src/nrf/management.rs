//! Types of Nnrf_NFManagement but the profile (TS 29.510 clause 6.1.6).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use uuid::Uuid;

use super::profile::{NFProfile, extensible};
use crate::common::Link;

/// What a network function is (TS 29.510 NFType): an open enumeration, so a name of 1 to 32 letters, digits, `_` or `-`.
///
/// ```
/// use sbi::nrf::NFType;
/// assert_eq!("AANF".parse::<NFType>().unwrap().as_str(), "AANF");
/// assert!("two words".parse::<NFType>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NFType(String);

impl NFType {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text is no [`NFType`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no NF type: 1 to 32 letters, digits, `_` or `-`")]
pub struct InvalidNfType;

impl TryFrom<String> for NFType {
    type Error = InvalidNfType;

    fn try_from(text: String) -> Result<Self, InvalidNfType> {
        let sound = (1..=NF_TYPE_OCTETS_MAX).contains(&text.len())
            && text.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'_' | b'-'));
        if sound { Ok(Self(text)) } else { Err(InvalidNfType) }
    }
}

impl FromStr for NFType {
    type Err = InvalidNfType;

    fn from_str(text: &str) -> Result<Self, InvalidNfType> {
        text.to_owned().try_into()
    }
}

impl From<NFType> for String {
    fn from(nf_type: NFType) -> Self {
        nf_type.0
    }
}

impl fmt::Display for NFType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// As long as the certificate extension of RFC 9310 lets a type be.
const NF_TYPE_OCTETS_MAX: usize = 32;

/// A subscription to what becomes of registrations (TS 29.510 SubscriptionData).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionData {
    /// Where notifications go.
    pub nf_status_notification_uri: String,
    /// Who subscribes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub req_nf_instance_id: Option<Uuid>,
    /// Which instances are watched; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscr_cond: Option<SubscrCond>,
    /// The NRF's name for it, part of its resource's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription_id: Option<String>,
    /// When it ends.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub validity_time: Option<OffsetDateTime>,
    /// Which events are told; all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub req_notif_events: Vec<NotificationEventType>,
    /// NF type of who subscribes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub req_nf_type: Option<NFType>,
    /// Whatever else came.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Which instances a subscription watches (TS 29.510 SubscrCond), as far as they are told apart here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SubscrCond {
    /// One instance (NfInstanceIdCond).
    #[serde(rename_all = "camelCase")]
    Instance {
        /// Its NF instance ID.
        nf_instance_id: Uuid,
    },
    /// Several instances (NfInstanceIdListCond).
    #[serde(rename_all = "camelCase")]
    Instances {
        /// Their NF instance IDs.
        nf_instance_id_list: Vec<Uuid>,
    },
    /// All of a type (NfTypeCond). With `nfGroupId` beside it this would be another condition.
    Type(TypeCond),
    /// All that offer a service (ServiceNameCond).
    #[serde(rename_all = "camelCase")]
    Service {
        /// Its name.
        service_name: String,
    },
    /// All that offer one of several services (ServiceNameListCond).
    #[serde(rename_all = "camelCase")]
    Services {
        /// Says that it is this one: another condition may have the same list.
        condition_type: ServiceNameListCondType,
        /// Their names.
        service_name_list: Vec<String>,
    },
    /// A condition that is not told apart here.
    Other(Value),
}

/// The one value that `conditionType` has in a ServiceNameListCond (TS 29.510).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceNameListCondType {
    /// It.
    #[serde(rename = "SERVICE_NAME_LIST_COND")]
    ServiceNameListCond,
}

/// All instances of a type (TS 29.510 NfTypeCond).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TypeCond {
    /// The type.
    pub nf_type: NFType,
}

extensible! {
    /// What became of a registration (TS 29.510 NotificationEventType).
    NotificationEventType {
        /// It is new.
        NfRegistered = "NF_REGISTERED",
        /// It is gone.
        NfDeregistered = "NF_DEREGISTERED",
        /// Its profile changed.
        NfProfileChanged = "NF_PROFILE_CHANGED",
    }
}

/// One notification (TS 29.510 NotificationData).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NotificationData {
    /// What happened.
    pub event: NotificationEventType,
    /// The instance's resource at the NRF.
    pub nf_instance_uri: String,
    /// Its profile, without what says who may use it; there when registered or changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nf_profile: Option<NFProfile>,
}

/// Where the registered instances are (TS 29.510 UriList).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UriList {
    /// Links.
    #[serde(rename = "_links")]
    pub links: UriListLinks,
    /// How many there are in all, pages and `limit` aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_item_count: Option<u64>,
}

/// Links of a [`UriList`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UriListLinks {
    /// The list itself.
    #[serde(rename = "self")]
    pub this: Link,
    /// The instances; absent if there is none, as the schema has no empty list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub item: Vec<Link>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_are_told_apart_by_their_members() {
        let read = |value: Value| serde_json::from_value::<SubscrCond>(value).unwrap();
        assert!(matches!(read(json!({"nfType": "AANF"})), SubscrCond::Type(_)));
        assert!(matches!(read(json!({"nfType": "UDM", "nfGroupId": "a"})), SubscrCond::Other(_)));
        assert!(matches!(read(json!({"serviceName": "naanf-akma"})), SubscrCond::Service { .. }));
        assert!(matches!(read(json!({"amfSetId": "1"})), SubscrCond::Other(_)));
        let services = json!({"conditionType": "SERVICE_NAME_LIST_COND", "serviceNameList": ["naanf-akma"]});
        assert!(matches!(read(services.clone()), SubscrCond::Services { .. }));
        assert_eq!(serde_json::to_value(read(services.clone())).unwrap(), services, "told with all its members");
        assert!(matches!(read(json!({"serviceNameList": ["naanf-akma"]})), SubscrCond::Other(_)));
        let id = "4947a69a-f61b-4bc1-b9da-47c9c5d14b64";
        assert!(matches!(read(json!({"nfInstanceId": id})), SubscrCond::Instance { .. }));
        assert!(matches!(read(json!({"nfInstanceIdList": [id]})), SubscrCond::Instances { .. }));
    }

    #[test]
    fn a_subscription_survives_a_round_trip_with_what_is_not_known_here() {
        let value = json!({
            "nfStatusNotificationUri": "https://127.0.0.1:1/told", "subscrCond": {"nfType": "AANF"},
            "reqNotifEvents": ["NF_REGISTERED", "SHARED_DATA_CHANGED"], "validityTime": "2026-12-01T00:00:00Z",
            "reqNfFqdn": "a.example", "plmnId": {"mcc": "001", "mnc": "01"}
        });
        let read: SubscriptionData = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), value);
    }
}
