//! What a client says about itself when it registers (TS 23.554 clause 8.2.1).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::availability::CommunicationAvailability;
use crate::limits::{DecodeLimits, TRIGGERING_PROTOCOL_OCTETS_MAX, UE_IDENTIFIER_OCTETS_MAX};

/// MSGin5G Client Profile (TS 23.554 table 8.2.1-1). With serde it reads and writes as it does in a registration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientProfile {
    /// Supported Maximum MSGin5G segment size, in octets of payload, at least 1.
    pub segment_size: Option<u32>,
    /// Whether the client takes aggregated messages (TS 23.554 8.4.1 demands that it does; that it says so here is
    /// INFERRED). None is no.
    pub aggregation: Option<bool>,
    /// How the device is triggered when it cannot be reached.
    pub triggering: Option<TriggeringInformation>,
    /// When the client can be reached at all.
    pub availability: Option<CommunicationAvailability>,
}

impl Serialize for ClientProfile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value: serde_json::Value = serde_json::from_slice(&self.encode()).map_err(serde::ser::Error::custom)?;
        value.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ClientProfile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Self::decode(value.to_string().as_bytes(), &DecodeLimits::default()).map_err(serde::de::Error::custom)
    }
}

/// Client Triggering Information (TS 23.554 table 8.2.1-2). The forms of its members are INFERRED.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TriggeringInformation {
    /// UE Identifier: `msisdn-` and 5 to 15 digits, or `extid-` and an External Identifier (TS 23.003 19.7.2). At most
    /// [`UE_IDENTIFIER_OCTETS_MAX`] octets. It names a subscriber: whoever uses it first checks that it is the
    /// registering UE's own.
    pub ue_identifier: Option<String>,
    /// Ports that the trigger may go to; at most [`crate::TRIGGERING_PORTS_MAX`].
    pub ports: Vec<u16>,
    /// Associated protocol (`SMS`, `NIDD`); 1 to [`TRIGGERING_PROTOCOL_OCTETS_MAX`] octets of printable ASCII.
    pub protocol: Option<String>,
}

impl fmt::Debug for TriggeringInformation {
    /// Does not print the UE Identifier: registrations end up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TriggeringInformation")
            .field("ue_identifier", &self.ue_identifier.as_ref().map(|_| ".."))
            .field("ports", &self.ports)
            .field("protocol", &self.protocol)
            .finish()
    }
}

/// Checks the form of a UE Identifier.
pub(crate) fn ue_identifier(text: &str) -> Result<String, &'static str> {
    if text.len() > UE_IDENTIFIER_OCTETS_MAX {
        return Err("is too long");
    }
    let well_formed = if let Some(digits) = text.strip_prefix("msisdn-") {
        (5..=15).contains(&digits.len()) && digits.bytes().all(|octet| octet.is_ascii_digit())
    } else if let Some((user, domain)) = text.strip_prefix("extid-").and_then(|text| text.split_once('@')) {
        let visible = |part: &str| !part.is_empty() && part.bytes().all(|octet| octet.is_ascii_graphic());
        visible(user) && visible(domain) && !domain.contains('@')
    } else {
        false
    };
    if well_formed { Ok(text.to_owned()) } else { Err("is neither an MSISDN nor an External Identifier") }
}

/// Checks the name of a triggering protocol.
pub(crate) fn protocol(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        Err("is empty")
    } else if text.len() > TRIGGERING_PROTOCOL_OCTETS_MAX {
        Err("is too long")
    } else if !text.bytes().all(|octet| octet.is_ascii_graphic()) {
        Err("holds a character that is not allowed")
    } else {
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use time::macros::datetime;

    use super::*;

    fn full() -> ClientProfile {
        ClientProfile {
            segment_size: Some(1024),
            aggregation: Some(true),
            triggering: Some(TriggeringInformation {
                ue_identifier: Some("msisdn-491700000001".into()),
                ports: vec![5000, 65_535],
                protocol: Some("SMS".into()),
            }),
            availability: Some(CommunicationAvailability {
                start: datetime!(2026-12-01 0:00 UTC),
                duration_seconds: 60,
                interval_seconds: Some(3_600),
            }),
        }
    }

    #[test]
    fn a_profile_kept_with_serde_reads_back_and_is_held_to_the_same_rules() {
        let value = serde_json::to_value(full()).unwrap();
        assert_eq!(value["trigInfo"]["ports"][1], 65_535);
        assert_eq!(serde_json::from_value::<ClientProfile>(value.clone()).unwrap(), full());
        let mut bad = value;
        bad["segmentSize"] = 0.into();
        let error = serde_json::from_value::<ClientProfile>(bad).unwrap_err().to_string();
        assert!(error.contains("segmentSize is out of range"), "{error}");
        assert_eq!(serde_json::from_str::<ClientProfile>("{}").unwrap(), ClientProfile::default());
    }

    #[test]
    fn a_ue_identifier_is_an_msisdn_or_an_external_identifier_and_nothing_else() {
        for good in ["msisdn-12345", "msisdn-491700000001234", "extid-meter-7@lab.example"] {
            assert_eq!(ue_identifier(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "msisdn-",
            "msisdn-1234",
            "msisdn-1234567890123456",
            "msisdn-+4917000",
            "imsi-001010000000001",
            "extid-",
            "extid-a",
            "extid-@b",
            "extid-a@",
            "extid-a@b@c",
            "extid-a b@c",
        ] {
            assert!(ue_identifier(bad).is_err(), "{bad:?}");
        }
        assert_eq!(ue_identifier(&format!("extid-a@{}", "x".repeat(255))), Err("is too long"));
    }

    #[test]
    fn debug_output_of_triggering_information_does_not_show_whom_it_names() {
        let shown = format!("{:?}", full());
        assert!(shown.contains("SMS") && !shown.contains("4917"), "{shown}");
    }
}
