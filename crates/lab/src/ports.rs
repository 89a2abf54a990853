//! Which port each function of the lab listens on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use serde::{Deserialize, Serialize};

use crate::LabError;

/// The addresses of all functions, on loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// MSGin5G-1 of the server.
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
    /// Configuration Function.
    pub configuration: SocketAddr,
}

/// The lab never leaves the machine.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// How many ports a lab takes.
const COUNT: u16 = 7;
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
        })
    }

    /// Ports that are free now; those of `before` where they still are.
    ///
    /// # Errors
    /// When no free port was found.
    pub fn free(before: Option<&Self>) -> Result<Self, LabError> {
        // All are held until the last is found, so that none is found twice.
        let mut held = Vec::new();
        let mut take = |wanted: Option<SocketAddr>| -> Result<SocketAddr, LabError> {
            let listener = match wanted.and_then(|address| TcpListener::bind(address).ok()) {
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
        })
    }
}

fn free_listener() -> Result<TcpListener, LabError> {
    for _ in 0..TRIES {
        let offset =
            u16::try_from(getrandom::u32().map_err(|_| LabError::Random)? % u32::from(FREE_COUNT)).unwrap_or_default();
        if let Ok(listener) = TcpListener::bind(SocketAddr::new(LOOPBACK, FREE_FIRST + offset)) {
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
    }

    #[test]
    fn a_base_port_without_room_above_it_is_refused() {
        assert!(Ports::from_base(65_529).is_ok());
        assert!(Ports::from_base(65_530).is_err());
        assert!(Ports::from_base(0).is_err());
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
