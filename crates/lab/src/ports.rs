//! Which port each function of the lab listens on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use serde::{Deserialize, Serialize};

use crate::LabError;

/// The addresses of all functions, on loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// MSGin5G-1 of the server, over TCP and, by the same number, over UDP.
    pub coaps_tcp: SocketAddr,
    /// MSGin5G-3 of the server.
    pub api: SocketAddr,
    /// Health and metrics of the server.
    pub admin: SocketAddr,
    /// UDM.
    pub udm: SocketAddr,
    /// AUSF.
    pub ausf: SocketAddr,
    /// AAnF.
    pub aanf: SocketAddr,
    /// Configuration Function, for network functions and the operator.
    pub configuration: SocketAddr,
    /// Configuration Function, for UEs. A lab of an earlier version has chosen none.
    #[serde(default = "not_chosen")]
    pub configuration_coaps_tcp: SocketAddr,
    /// NRF.
    #[serde(default = "not_chosen")]
    pub nrf: SocketAddr,
    /// NEF, for application functions outside the operator's domain.
    #[serde(default = "not_chosen")]
    pub nef: SocketAddr,
    /// NEF, for the functions inside.
    #[serde(default = "not_chosen")]
    pub nef_inside: SocketAddr,
    /// NEF, for API invokers whose method is TLS-PSK (CAPIF-2e).
    #[serde(default = "not_chosen")]
    pub nef_psk: SocketAddr,
    /// CAPIF core function.
    #[serde(default = "not_chosen")]
    pub capif: SocketAddr,
    /// Metrics of UDM, AUSF and NRF.
    #[serde(default = "not_chosen")]
    pub core_admin: SocketAddr,
    /// MSGin5G-1 of the server over WebSocket.
    #[serde(default = "not_chosen")]
    pub coaps_ws: SocketAddr,
    /// MSGin5G-1 of the server under OSCORE, over UDP and over TCP.
    #[serde(default = "not_chosen")]
    pub coap: SocketAddr,
    /// MSGin5G-1 of the server over HTTPS.
    #[serde(default = "not_chosen")]
    pub https: SocketAddr,
}

/// The lab never leaves the machine.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// How many ports a lab takes.
const COUNT: u16 = 17;
/// Free ports are taken from here: below the range that systems give to outgoing connections, so that none of those
/// takes a port between our choice and its use.
const FREE_FIRST: u16 = 20_000;
const FREE_COUNT: u16 = 12_000;
/// Random tries for one free port.
const TRIES: usize = 200;

impl Ports {
    /// `base`, `base` + 1, ... in the order of the members.
    ///
    /// # Errors
    /// When they would go beyond 65535.
    pub fn from_base(base: u16) -> Result<Self, LabError> {
        if base == 0 || base.checked_add(COUNT - 1).is_none() {
            return Err(LabError::Configuration(format!(
                "a base port must be 1 to {}: the lab takes {COUNT} ports from there",
                u16::MAX - COUNT + 1
            )));
        }
        let at = |offset: u16| SocketAddr::new(LOOPBACK, base.saturating_add(offset));
        Ok(Self {
            coaps_tcp: at(0),
            api: at(1),
            admin: at(2),
            udm: at(3),
            ausf: at(4),
            aanf: at(5),
            configuration: at(6),
            configuration_coaps_tcp: at(7),
            nrf: at(8),
            nef: at(9),
            nef_inside: at(10),
            nef_psk: at(11),
            capif: at(12),
            core_admin: at(13),
            coaps_ws: at(14),
            coap: at(15),
            https: at(16),
        })
    }

    /// Ports that are free now; those of `before` where they still are.
    ///
    /// # Errors
    /// When no free port was found.
    pub fn free(before: Option<&Self>) -> Result<Self, LabError> {
        // All are held until the last is found, so that none is found twice.
        let mut held = Vec::new();
        let mut own = own_ports();
        let mut take = |wanted: Option<SocketAddr>| -> Result<SocketAddr, LabError> {
            let chosen = wanted.filter(|address| address.port() != 0);
            let bound = match chosen {
                Some(address) => listener_at(address),
                // Not where there were some before: those must stay free for whoever had them.
                None if before.is_none() => own.find_map(listener_at),
                None => None,
            };
            let listener = match bound {
                Some(listener) => listener,
                None => free_listener()?,
            };
            let address = listener.local_addr().map_err(|_| LabError::NoFreePort(LOOPBACK))?;
            held.push(listener);
            Ok(address)
        };
        Ok(Self {
            coaps_tcp: take(before.map(|before| before.coaps_tcp))?,
            api: take(before.map(|before| before.api))?,
            admin: take(before.map(|before| before.admin))?,
            udm: take(before.map(|before| before.udm))?,
            ausf: take(before.map(|before| before.ausf))?,
            aanf: take(before.map(|before| before.aanf))?,
            configuration: take(before.map(|before| before.configuration))?,
            configuration_coaps_tcp: take(before.map(|before| before.configuration_coaps_tcp))?,
            nrf: take(before.map(|before| before.nrf))?,
            nef: take(before.map(|before| before.nef))?,
            nef_inside: take(before.map(|before| before.nef_inside))?,
            nef_psk: take(before.map(|before| before.nef_psk))?,
            capif: take(before.map(|before| before.capif))?,
            core_admin: take(before.map(|before| before.core_admin))?,
            coaps_ws: take(before.map(|before| before.coaps_ws))?,
            coap: take(before.map(|before| before.coap))?,
            https: take(before.map(|before| before.https))?,
        })
    }
}

fn not_chosen() -> SocketAddr {
    SocketAddr::new(LOOPBACK, 0)
}

/// Ports that no other process tries first: two labs that start at the same time would else both find a port free that
/// neither has bound for good.
fn own_ports() -> impl Iterator<Item = SocketAddr> {
    let blocks = u32::from(FREE_COUNT / COUNT);
    let block = u16::try_from(std::process::id() % blocks).unwrap_or_default();
    let first = FREE_FIRST + block * COUNT;
    (first..first + COUNT).map(|port| SocketAddr::new(LOOPBACK, port))
}

/// A port that is free for TCP and for UDP.
fn listener_at(address: SocketAddr) -> Option<TcpListener> {
    let listener = TcpListener::bind(address).ok()?;
    UdpSocket::bind(listener.local_addr().ok()?).ok().map(|_| listener)
}

fn free_listener() -> Result<TcpListener, LabError> {
    for _ in 0..TRIES {
        let offset =
            u16::try_from(getrandom::u32().map_err(|_| LabError::Random)? % u32::from(FREE_COUNT)).unwrap_or_default();
        if let Some(listener) = listener_at(SocketAddr::new(LOOPBACK, FREE_FIRST + offset)) {
            return Ok(listener);
        }
    }
    Err(LabError::NoFreePort(LOOPBACK))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_base_port_fixes_all_ports() {
        let ports = Ports::from_base(7000).unwrap();
        assert_eq!(ports.coaps_tcp, "127.0.0.1:7000".parse().unwrap());
        assert_eq!(ports.configuration, "127.0.0.1:7006".parse().unwrap());
        assert_eq!(ports.configuration_coaps_tcp, "127.0.0.1:7007".parse().unwrap());
        assert_eq!(ports.capif, "127.0.0.1:7012".parse().unwrap());
        assert_eq!(ports.core_admin, "127.0.0.1:7013".parse().unwrap());
        assert_eq!(ports.coaps_ws, "127.0.0.1:7014".parse().unwrap());
        assert_eq!(ports.coap, "127.0.0.1:7015".parse().unwrap());
        assert_eq!(ports.https, "127.0.0.1:7016".parse().unwrap());
    }

    #[test]
    fn a_base_port_without_room_above_it_is_refused() {
        assert!(Ports::from_base(65_519).is_ok());
        assert!(Ports::from_base(65_520).is_err());
        assert!(Ports::from_base(0).is_err());
    }

    #[test]
    fn a_port_that_an_earlier_version_did_not_have_is_chosen_now() {
        let ports = Ports::free(None).unwrap();
        let mut before = serde_json::to_value(ports).unwrap();
        before.as_object_mut().unwrap().remove("configuration_coaps_tcp");
        let before: Ports = serde_json::from_value(before).unwrap();
        let now = Ports::free(Some(&before)).unwrap();
        assert_eq!(now.configuration, ports.configuration);
        assert!((FREE_FIRST..FREE_FIRST + FREE_COUNT).contains(&now.configuration_coaps_tcp.port()));
    }

    #[test]
    fn ports_of_before_are_taken_again_unless_somebody_has_them() {
        let before = Ports::free(None).unwrap();
        let squatter = TcpListener::bind(before.udm).unwrap();
        let now = Ports::free(Some(&before)).unwrap();
        assert_ne!(now.udm, squatter.local_addr().unwrap());
        assert_eq!((now.coaps_tcp, now.ausf), (before.coaps_tcp, before.ausf));
    }
}
