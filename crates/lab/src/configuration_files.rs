//! Configuration files of the functions that are not the lab's own: what `msgin5g aanf --config FILE` and its like read.

use std::net::SocketAddr;

use sbi::CertificateFiles;
use sbi::nrf::BY_DISCOVERY;
use serde_json::{Value, json};

use crate::outside::OUTSIDE_FUNCTIONS;
use crate::revocation::nef_clients_crl;
use crate::{Directory, LabError, Ports, ausf, nrf, udm};

/// Names of the functions that have a configuration file.
const NAMES: [&str; 7] = ["nrf", "udm", "ausf", "aanf", "configuration", "server", "exposure"];
/// Supported Maximum MSGin5G segment size that UEs are told, octets (TS 23.554 clause 8.5).
const SEGMENT_OCTETS: u32 = 2048;

impl Directory {
    /// Writes one TOML file for each function into `config/`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write_configurations(&self, ports: &Ports) -> Result<(), LabError> {
        for name in NAMES {
            self.write_configuration(name, &self.configuration(name, ports)?)?;
        }
        Ok(())
    }

    /// The configuration of function `name` as TOML: `nrf`, `udm`, `ausf`, `aanf`, `configuration`, `server` or `exposure`.
    ///
    /// # Errors
    /// When the network lacks a function.
    pub fn configuration(&self, name: &str, ports: &Ports) -> Result<String, LabError> {
        let wrong = |reason: String| LabError::Configuration(format!("{name}: {reason}"));
        let value = match name {
            "nrf" => encode::<nrf::Config>(&self.nrf_configuration(ports)?),
            "udm" => encode::<udm::Config>(&self.udm_configuration(ports)?),
            "ausf" => encode::<ausf::Config>(&self.ausf_configuration(ports)?),
            "aanf" => self.aanf(ports)?,
            "configuration" => self.configuration_function(ports)?,
            "server" => self.server(ports)?,
            "exposure" => json!({"capif": self.capif(ports)?, "nef": self.nef(ports)?}),
            _ => return Err(wrong("no such function".to_owned())),
        };
        let table = toml::Table::try_from(without_nulls(value)).map_err(|error| wrong(error.to_string()))?;
        toml::to_string_pretty(&table).map_err(|error| wrong(error.to_string()))
    }

    fn aanf(&self, ports: &Ports) -> Result<Value, LabError> {
        Ok(json!({
            "listen": ports.aanf,
            "data": self.state("aanf"),
            "tls": self.certificate("aanf"),
            "authorization": self.authorization(&[self.nf_instance_id("provisioner")?])?,
            "udm": {"root": by_discovery(ports.udm)},
            "nrf": {"root": format!("https://{}", ports.nrf)},
            "af": [
                {"nf_instance_id": self.nf_instance_id("ausf")?, "may_register": true},
                {"nf_instance_id": self.nf_instance_id("provisioner")?, "may_provision": true},
                {
                    "nf_instance_id": self.nf_instance_id("server")?,
                    "fqdns": [self.server_fqdn()],
                    "supi_access": true,
                    "notification_uris": [format!("https://{}", ports.api)],
                },
                {
                    "nf_instance_id": self.nf_instance_id("configuration")?,
                    "fqdns": [self.configuration_fqdn()],
                    "supi_access": true,
                    "notification_uris": [format!("https://{}", ports.configuration)],
                },
                {
                    "nf_instance_id": self.nf_instance_id("nef")?,
                    "fqdns": OUTSIDE_FUNCTIONS.iter().map(|function| function.fqdn).collect::<Vec<_>>(),
                },
            ],
        }))
    }

    fn configuration_function(&self, ports: &Ports) -> Result<Value, LabError> {
        Ok(json!({
            "listen": ports.configuration,
            "data": self.state("configuration"),
            "tls": self.certificate("configuration"),
            "authorization": self.authorization(&[self.nf_instance_id("provisioner")?])?,
            "provisioner": [{"nf_instance_id": self.nf_instance_id("provisioner")?}],
            "nrf": {"root": format!("https://{}", ports.nrf)},
            "reader": [{"nf_instance_id": self.nf_instance_id("server")?}],
            "coap": {
                "fqdn": self.configuration_fqdn(),
                "listen": ports.configuration_coaps_tcp,
                "server_address": format!(
                    "coaps+tcp://{}:{}/{}", self.server_fqdn(), ports.coaps_tcp.port(), self.server_path()
                ),
                // The lab's names are in no DNS.
                "connect_address": ports.coaps_tcp,
                "segment_size": SEGMENT_OCTETS,
                "allow_plain_psk_tls12": true,
                "aanf": by_discovery(ports.aanf),
                "notifications": self.notifications(ports.configuration)?,
            },
        }))
    }

    /// That AKMA is disabled is told by the AAnF at this address.
    fn notifications(&self, told_at: std::net::SocketAddr) -> Result<Value, LabError> {
        let aanf = self.nf_instance_id("aanf")?;
        Ok(json!({"root": format!("https://{told_at}"), "notifier": [{"nf_instance_id": aanf}]}))
    }

    fn nef(&self, ports: &Ports) -> Result<Value, LabError> {
        let own = self.certificate("nef");
        let towards_outside = CertificateFiles {
            ca: self.nef_client_authorities(),
            crl: Some(nef_clients_crl(&self.root().join("pki"))),
            ..own.clone()
        };
        let afs: Vec<Value> = OUTSIDE_FUNCTIONS
            .iter()
            .map(|function| {
                json!({
                    "af_id": function.name,
                    "dns_name": function.fqdn,
                    "fqdns": [function.fqdn],
                    "gpsi_access": function.gpsi_access,
                    "as_service_ids": [function.as_service_id],
                    "may_address": ["UE:*@lab.example", format!("TOPIC:{LAB_TOPICS}")],
                    "may_subscribe": [LAB_TOPICS],
                })
            })
            .collect();
        Ok(json!({
            "listen": ports.nef,
            "data": self.state("nef"),
            "tls": towards_outside,
            "inside": own,
            "nrf": {"root": format!("https://{}", ports.nrf)},
            "capif": self.nef_capif(ports),
            "capif_psk_listen": ports.nef_psk,
            "akma": {"aanf": by_discovery(ports.aanf)},
            "msgin5g": {
                "url": format!("https://{}", ports.api),
                "server": {"nf_instance_id": self.nf_instance_id("server")?},
                "listen": ports.nef_inside,
            },
            "af": afs,
        }))
    }

    fn server(&self, ports: &Ports) -> Result<Value, LabError> {
        let mut application_servers: Vec<Value> = self
            .network()
            .application_servers
            .iter()
            .map(|server| json!({"as_service_id": server.as_service_id, "nf_instance_id": server.nf_instance_id}))
            .collect();
        let by_certificate: Vec<_> =
            self.network().application_servers.iter().map(|server| server.nf_instance_id).collect();
        // Those outside are the NEF to the server.
        let nef = self.nf_instance_id("nef")?;
        application_servers.extend(OUTSIDE_FUNCTIONS.iter().map(|function| {
            json!({
                "as_service_id": function.as_service_id,
                "nf_instance_id": nef,
                "target_uris": [format!("https://{}", ports.nef_inside)],
            })
        }));
        Ok(json!({
            "server": {"fqdn": self.server_fqdn(), "listen": ports.coaps_tcp, "path": self.server_path()},
            "tls": {"allow_plain_psk_tls12": true, "key_log": self.key_log()},
            "websocket": {"listen": ports.coaps_ws},
            "coaps": {"listen": ports.coaps_tcp, "allow_plain_psk": true},
            "certificates": self.certificate("server"),
            "oscore": {"listen_udp": ports.coap, "listen_tcp": ports.coap},
            // So that curl's Digest, which has no auth-int for bodies, makes a device.
            "https": {"listen": ports.https, "body_integrity": false},
            "akma": {"aanf": by_discovery(ports.aanf), "notifications": self.notifications(ports.api)?},
            "configuration_function": {"url": by_discovery(ports.configuration)},
            "group_management": {"url": format!("https://{}", ports.configuration)},
            "api": {"listen": ports.api},
            "authorization": self.authorization(&by_certificate)?,
            "admin": {"listen": ports.admin},
            "nrf": {"root": format!("https://{}", ports.nrf)},
            "store": {"path": self.state("server")},
            "application_server": application_servers,
            "topic": [{"name": LAB_TOPICS, "publishers": ["*"], "subscribers": ["*"]}],
        }))
    }
}

/// Messaging Topics that everybody in the lab may publish and subscribe to; there are no others.
const LAB_TOPICS: &str = "lab/*";

/// The root of a function that the NRF finds, and that is at `address` while it does not.
pub(crate) fn by_discovery(address: SocketAddr) -> String {
    format!("{BY_DISCOVERY}, https://{address}")
}

fn encode<T: serde::Serialize>(configuration: &T) -> Value {
    serde_json::to_value(configuration).unwrap_or_default()
}

/// TOML has no null: what is absent is left out.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => members
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name, without_nulls(value)))
            .collect(),
        Value::Array(values) => values.into_iter().map(without_nulls).collect(),
        other => other,
    }
}
