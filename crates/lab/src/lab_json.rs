//! `lab.json`: what a program needs to take part in the lab, and nothing that only our own programs understand.

use std::net::SocketAddr;

use akma::{Gpsi, Supi};
use serde::{Deserialize, Serialize};

use crate::subscription::{Algorithm, AuthenticationMethod, SecretHex};

/// The file `lab.json`. Paths are relative to the lab's directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabJson {
    /// The home network's codes.
    pub home_network: LabHomeNetwork,
    /// The MSGin5G Server.
    pub server: LabServer,
    /// The core network functions that run, by name.
    pub core: LabCore,
    /// The certification authority of every interface but MSGin5G-1, PEM.
    pub ca: String,
    /// Credentials to be onboarded with at the CAPIF core function, each good once; empty where none runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capif_onboarding: Vec<LabCapifOnboarding>,
    /// A certificate to call the core with.
    pub nf_client: LabNfClient,
    /// Application servers known to the MSGin5G Server.
    pub application_servers: Vec<LabApplicationServer>,
    /// Application servers outside the operator's domain, known to the NEF.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub external_application_servers: Vec<LabExternalApplicationServer>,
    /// Subscribers of the home network, with the keys of their USIMs.
    pub subscribers: Vec<LabSubscriber>,
}

/// Mobile country and network code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabHomeNetwork {
    /// Mobile country code, 3 digits.
    pub mcc: String,
    /// Mobile network code, 2 or 3 digits.
    pub mnc: String,
}

/// Where the MSGin5G Server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabServer {
    /// Name for SNI and for AF_ID.
    pub fqdn: String,
    /// MSGin5G-1 as CoAP over TCP and TLS (RFC 8323).
    pub coaps_tcp: SocketAddr,
    /// MSGin5G-1 as CoAP over UDP and DTLS; absent while no such listener runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coaps: Option<SocketAddr>,
    /// MSGin5G-1 as CoAP over WebSocket and TLS (RFC 8323); absent while no such listener runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coaps_ws: Option<SocketAddr>,
    /// MSGin5G-1 as plain CoAP over UDP, each message under OSCORE (TS 33.535 Annex D); absent while no such listener
    /// runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coap: Option<SocketAddr>,
    /// The same over TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coap_tcp: Option<SocketAddr>,
    /// Root of MSGin5G-1 over HTTPS with HTTP Digest (TS 33.535 Annex B.1.2); absent while no such listener runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https: Option<String>,
    /// Uri-Path of the one CoAP resource, and path of the HTTPS one.
    pub path: String,
    /// Root of the MSGin5G-3 interface (TS 29.538).
    pub api: String,
    /// Root of health and metrics; plain HTTP on loopback.
    pub admin: String,
}

/// Roots of the core network functions; absent where none runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabCore {
    /// UDM (TS 29.503).
    pub udm: String,
    /// AUSF (TS 29.509).
    pub ausf: String,
    /// AAnF (TS 29.535).
    pub aanf: String,
    /// NRF (TS 29.510).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nrf: Option<String>,
    /// NEF (TS 29.522).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nef: Option<String>,
    /// CAPIF core function (TS 29.222).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capif: Option<String>,
    /// MSGin5G Configuration Function (TS 29.549).
    pub configuration: String,
    /// The same for UEs: `su-uc` as CoAP over TCP and TLS (TS 24.546 clause C.3); absent while no such listener runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration_coaps_tcp: Option<SocketAddr>,
    /// Its name there, for SNI and AF_ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration_fqdn: Option<String>,
    /// Root of the metrics of UDM, AUSF and NRF; plain HTTP on loopback. Absent where they show none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
}

/// A credential of an API invoker to come (TS 33.122 clause 6.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabCapifOnboarding {
    /// AS Service ID of the application server that the invoker is.
    pub as_service_id: String,
    /// The credential: its hexadecimal digits as they stand, as bearer token.
    pub token: SecretHex,
}

/// A network function's certificate for whoever plays the access network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabNfClient {
    /// Certificate, PEM.
    pub cert: String,
    /// Its key, PEM.
    pub key: String,
    /// NF instance ID in the certificate.
    pub nf_instance_id: String,
    /// NF type in the certificate.
    pub nf_type: String,
}

/// An application server's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabApplicationServer {
    /// Its AS Service ID.
    pub as_service_id: String,
    /// Certificate, PEM.
    pub cert: String,
    /// Its key, PEM.
    pub key: String,
    /// NF instance ID in the certificate.
    pub nf_instance_id: String,
}

/// An application server outside the operator's domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabExternalApplicationServer {
    /// AS Service ID.
    pub as_service_id: String,
    /// Its name at the NEF.
    pub af_id: String,
    /// Its client identifier at the NEF's token endpoint, `{core.nef}/oauth2/token`.
    pub client_id: String,
    /// FQDN of the AF_IDs for which it may get K_AF.
    pub fqdn: String,
    /// Certificate, PEM; from `pki/af-ca.pem`, and no network function's.
    pub cert: String,
    /// Its key, PEM.
    pub key: String,
    /// The authority of the NEF's certificate, PEM.
    pub ca: String,
}

/// A subscriber, its USIM's keys and the UE Service ID it may use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabSubscriber {
    /// SUPI, `imsi-…`.
    pub supi: Supi,
    /// GPSI, `msisdn-…`.
    pub gpsi: Gpsi,
    /// The permanent key, hex.
    pub k: SecretHex,
    /// OPc, hex; TOPc where the algorithm is `tuak`.
    pub opc: SecretHex,
    /// `milenage` or `tuak`.
    pub algorithm: Algorithm,
    /// Routing indicator, 1 to 4 digits.
    pub routing_indicator: String,
    /// The UE Service ID that the Configuration Function associates with the subscriber.
    pub ue_service_id: String,
    /// `5G_AKA` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication_method: Option<AuthenticationMethod>,
    /// Whether AKMA is allowed; `true` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub akma_allowed: Option<bool>,
}
