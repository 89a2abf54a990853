//! What the home network knows of one subscriber (modelled on AuthenticationSubscription of TS 29.505 clause 5.2.2.1).

use std::fmt;

use akma::{Amf, Gpsi, RoutingIndicator, Sqn, Supi, UsimCredentials};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::LabError;

/// Octets written as hex; wiped when dropped, compared in constant time, never printed.
#[derive(Clone)]
pub struct SecretHex(Zeroizing<Vec<u8>>);

impl SecretHex {
    /// Takes over secret octets.
    #[must_use]
    pub fn new(octets: Vec<u8>) -> Self {
        Self(Zeroizing::new(octets))
    }

    /// The octets.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The octets in lower-case hex.
    #[must_use]
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(&*self.0))
    }
}

impl PartialEq for SecretHex {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SecretHex {}

impl fmt::Debug for SecretHex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretHex(..)")
    }
}

impl Serialize for SecretHex {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for SecretHex {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        // The value itself must not appear in the error: it is a key.
        hex::decode(&*text).map(Self::new).map_err(|_| serde::de::Error::custom("not hex digits"))
    }
}

/// The algorithm set of a USIM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Algorithm {
    /// TS 35.206.
    Milenage,
    /// TS 35.231.
    Tuak,
}

/// How a subscriber is authenticated (TS 33.501 clause 6.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum AuthenticationMethod {
    /// 5G AKA, clause 6.1.3.2.
    #[serde(rename = "5G_AKA")]
    FiveGAka,
    /// EAP-AKA', clause 6.1.3.1.
    #[serde(rename = "EAP_AKA_PRIME")]
    EapAkaPrime,
}

/// One subscriber with its keys, as the provisioner hands it over.
///
/// JSON: `{"supi":"imsi-…","gpsi":"msisdn-…","k":"hex","opc":"hex","algorithm":"milenage", …}`; `op` (or TOP) may take
/// the place of `opc`. What is left out has the value of [`Subscription::new`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Subscription {
    /// The subscriber.
    pub supi: Supi,
    /// Its public identity, handed to application functions instead of the SUPI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpsi: Option<Gpsi>,
    /// The permanent key: 16 octets, or 32 with TUAK.
    pub k: SecretHex,
    /// OPc (16 octets) or TOPc (32 octets).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opc: Option<SecretHex>,
    /// OP or TOP, from which OPc or TOPc is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<SecretHex>,
    /// The algorithm set.
    #[serde(default = "default_algorithm")]
    pub algorithm: Algorithm,
    /// The method UDM chooses.
    #[serde(default = "default_method")]
    pub authentication_method: AuthenticationMethod,
    /// Authentication management field, four hex digits; its first bit, the separation bit, must be set for 5G
    /// (TS 33.501 clause 6.1.3.2.0).
    #[serde(default)]
    pub authentication_management_field: Amf,
    /// Whether the subscriber may use AKMA (TS 33.535 clause 6.1).
    #[serde(default = "default_true")]
    pub akma_allowed: bool,
    /// Routing indicator, one to four digits, first part of the A-KID.
    #[serde(default)]
    pub routing_indicator: RoutingIndicator,
    /// The sequence number last given out, 12 hex digits. Without it a new subscriber starts at the beginning and a
    /// known one goes on where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence_number: Option<Sqn>,
}

fn default_algorithm() -> Algorithm {
    Algorithm::Milenage
}

fn default_method() -> AuthenticationMethod {
    AuthenticationMethod::FiveGAka
}

fn default_true() -> bool {
    true
}

/// What may be shown of a subscriber: everything but its keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionSummary {
    /// The subscriber.
    pub supi: Supi,
    /// Its public identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpsi: Option<Gpsi>,
    /// The algorithm set.
    pub algorithm: Algorithm,
    /// The method UDM chooses.
    pub authentication_method: AuthenticationMethod,
    /// Whether the subscriber may use AKMA.
    pub akma_allowed: bool,
    /// Routing indicator.
    pub routing_indicator: RoutingIndicator,
}

impl Subscription {
    /// A MILENAGE subscriber with 5G AKA, AKMA allowed, routing indicator 0.
    #[must_use]
    pub fn new(supi: Supi, k: SecretHex, opc: SecretHex) -> Self {
        Self {
            supi,
            gpsi: None,
            k,
            opc: Some(opc),
            op: None,
            algorithm: default_algorithm(),
            authentication_method: default_method(),
            authentication_management_field: Amf::default(),
            akma_allowed: default_true(),
            routing_indicator: RoutingIndicator::default(),
            sequence_number: None,
        }
    }

    /// What may be shown.
    #[must_use]
    pub fn summary(&self) -> SubscriptionSummary {
        SubscriptionSummary {
            supi: self.supi.clone(),
            gpsi: self.gpsi.clone(),
            algorithm: self.algorithm,
            authentication_method: self.authentication_method,
            akma_allowed: self.akma_allowed,
            routing_indicator: self.routing_indicator.clone(),
        }
    }

    /// Checks everything a type cannot, so that a stored subscriber can always be authenticated.
    ///
    /// # Errors
    /// Names the member at fault, never its value.
    pub fn check(&self) -> Result<(), LabError> {
        self.credentials()?;
        if !self.authentication_management_field.separation_bit() {
            return Err(LabError::Subscription(
                "authenticationManagementField lacks the separation bit (8000) that 5G demands".to_owned(),
            ));
        }
        Ok(())
    }

    /// The home network's half of the USIM's secrets.
    ///
    /// # Errors
    /// When a key has a length the algorithm set does not know, or neither OPc nor OP is given, or both are.
    pub fn credentials(&self) -> Result<UsimCredentials, LabError> {
        let k = self.k.expose();
        match (self.algorithm, &self.opc, &self.op) {
            (Algorithm::Milenage, Some(opc), None) => {
                Ok(UsimCredentials::milenage_opc(octets("k", k)?, octets("opc", opc.expose())?))
            }
            (Algorithm::Milenage, None, Some(op)) => {
                Ok(UsimCredentials::milenage_op(octets("k", k)?, octets("op", op.expose())?))
            }
            (Algorithm::Tuak, Some(topc), None) => {
                UsimCredentials::tuak_topc(k, octets("opc", topc.expose())?).map_err(|_| length("k"))
            }
            (Algorithm::Tuak, None, Some(top)) => {
                UsimCredentials::tuak_top(k, octets("op", top.expose())?).map_err(|_| length("k"))
            }
            (_, None, None) => Err(LabError::Subscription("one of opc and op is needed".to_owned())),
            (_, Some(_), Some(_)) => Err(LabError::Subscription("opc and op cannot both be given".to_owned())),
        }
    }
}

fn octets<'a, const N: usize>(name: &str, value: &'a [u8]) -> Result<&'a [u8; N], LabError> {
    value.try_into().map_err(|_| length(name))
}

fn length(name: &str) -> LabError {
    LabError::Subscription(format!("{name} has the wrong length for the algorithm set"))
}
