//! What an Application Server is made with.

use std::net::SocketAddr;

use http::uri::Authority;
use message::AsServiceId;
use sbi::{CertificateFiles, ClientLimits, PeerIdentity, PeerName, ServerLimits};

use crate::access::Access;
use crate::error::ApplicationError;

/// What an Application Server is made with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ApplicationServerConfig {
    /// Its name.
    pub as_service_id: AsServiceId,
    /// Its certificate and key, and the authority of those whom it meets. As an API invoker it meets the API exposing function
    /// with the invoker's certificate instead, and serves with this one.
    pub tls: CertificateFiles,
    /// How the server is reached.
    pub access: Access,
    /// Who may deliver.
    pub senders: Senders,
    /// Where messages and reports are delivered; port 0, the default, takes a free one, on loopback.
    pub listen: SocketAddr,
    /// The host by which the server, or the NEF, reaches `listen`, with a port if that is another: `billing.example.net`. The
    /// certificate must name it. The address of `listen` if absent.
    pub host: Option<String>,
    /// Limits on what is received.
    pub limits: Limits,
    /// Limits on requests. A message is answered when its recipient has it, so that the default gives them 12 s.
    pub requests: ClientLimits,
    /// Further limits of the interface for deliveries; `request_body_bytes_max` and `request_timeout_seconds` are made to fit
    /// [`Limits`].
    pub server: ServerLimits,
}

/// Who may deliver messages and reports.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Senders {
    /// Those whose certificate has one of these names: the MSGin5G Server, or the NEF. Others get 403.
    Named(Vec<PeerName>),
    /// Whoever has a certificate of the authority in [`ApplicationServerConfig::tls`]: for an authority that vouches for the
    /// MSGin5G Server or the NEF alone.
    OfTheAuthority,
}

impl Senders {
    pub(crate) fn admit(&self, peer: &PeerIdentity) -> bool {
        match self {
            Self::Named(names) => names.iter().any(|name| name.names(peer)),
            Self::OfTheAuthority => true,
        }
    }
}

/// Every limit on what is received, and what the server sees when it is hit. It comes again after each 503.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Deliveries that the application has not decided upon, waiting or taken from [`crate::IncomingStream`]; one more gets 503.
    /// As many of them and of notifications about topics may wait there, in all.
    pub undecided_max: usize,
    /// How long a delivery waits for the application's decision; then it gets 503. Less than the server waits
    /// (`limits.application_server_timeout_seconds`, 5 s).
    pub decision_milliseconds: u64,
    /// Decisions remembered, so that what comes again is answered alike and not handed over; for one more, the oldest goes.
    pub decisions_remembered_max: usize,
    /// Octets of a message's payload; a longer one gets 400.
    pub payload_octets_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            undecided_max: 64,
            decision_milliseconds: 4_000,
            decisions_remembered_max: 16_384,
            // The server puts segments together before an AS gets them.
            payload_octets_max: 65_536,
        }
    }
}

impl ApplicationServerConfig {
    /// With these, and everything else at its default.
    #[must_use]
    pub fn new(as_service_id: AsServiceId, tls: CertificateFiles, access: Access, senders: Senders) -> Self {
        Self {
            as_service_id,
            tls,
            access,
            senders,
            listen: ([127, 0, 0, 1], 0).into(),
            host: None,
            limits: Limits::default(),
            requests: ClientLimits { request_timeout_milliseconds: 12_000, ..ClientLimits::default() },
            server: ServerLimits::default(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), ApplicationError> {
        let wrong = |reason: &str| Err(ApplicationError::Configuration(reason.to_owned()));
        if self.limits.undecided_max == 0 || self.limits.decision_milliseconds == 0 {
            return wrong("limits.undecided_max and limits.decision_milliseconds must be 1 or more");
        }
        if matches!(&self.senders, Senders::Named(names) if names.iter().all(PeerName::is_empty)) {
            return wrong("senders names nobody");
        }
        self.target_uri(0).map(drop)
    }

    /// Where the server delivers, with `port` as the port listened on.
    pub(crate) fn target_uri(&self, port: u16) -> Result<String, ApplicationError> {
        let Some(host) = &self.host else {
            return Ok(format!("https://{}", SocketAddr::new(self.listen.ip(), port)));
        };
        let no_host = || ApplicationError::Configuration(format!("{host:?} is no host"));
        let authority: Authority = host.parse().map_err(|_| no_host())?;
        if authority.host().is_empty() || authority.as_str().contains('@') {
            return Err(no_host());
        }
        let port = authority.port_u16().unwrap_or(port);
        Ok(format!("https://{}:{port}", authority.host()))
    }

    /// The limits of the interface for deliveries.
    pub(crate) fn server_limits(&self) -> ServerLimits {
        // base64, and as much again as any other member has.
        let body = self.limits.payload_octets_max.div_ceil(3).saturating_mul(4).saturating_add(OTHER_MEMBERS_OCTETS);
        let decision_seconds = self.limits.decision_milliseconds.div_ceil(1_000);
        ServerLimits {
            request_body_bytes_max: body,
            request_timeout_seconds: decision_seconds.saturating_add(SPARE_SECONDS),
            ..self.server.clone()
        }
    }
}

/// Octets of a delivery besides its payload: three addresses, three identifiers.
const OTHER_MEMBERS_OCTETS: usize = 8_192;
/// A request's time beyond that for the application's decision.
const SPARE_SECONDS: u64 = 1;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn config(host: Option<&str>) -> ApplicationServerConfig {
        let files = || "any".into();
        let tls = CertificateFiles { certificate: files(), key: files(), ca: files(), crl: None };
        let access = Access::Certificate { server: "https://server.example".to_owned() };
        let mut config =
            ApplicationServerConfig::new("a@example".parse().unwrap(), tls, access, Senders::OfTheAuthority);
        config.host = host.map(str::to_owned);
        config
    }

    #[test]
    fn it_is_reached_at_its_host_and_at_the_port_that_it_listens_on_unless_another_is_given() {
        for (host, uri) in [
            (None, "https://127.0.0.1:7"),
            (Some("as.example"), "https://as.example:7"),
            (Some("as.example:443"), "https://as.example:443"),
            (Some("[2001:db8::1]"), "https://[2001:db8::1]:7"),
        ] {
            assert_eq!(config(host).target_uri(7).unwrap(), uri);
        }
        for host in ["", "as.example/in", "user@as.example", "a b", "as.example?x"] {
            assert!(matches!(config(Some(host)).check(), Err(ApplicationError::Configuration(_))), "{host:?}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_before_anything_is_opened() {
        let refused = |change: &dyn Fn(&mut ApplicationServerConfig)| {
            let mut config = config(None);
            config.check().unwrap();
            change(&mut config);
            matches!(config.check(), Err(ApplicationError::Configuration(_)))
        };
        assert!(refused(&|config| config.limits.undecided_max = 0));
        assert!(refused(&|config| config.limits.decision_milliseconds = 0));
        assert!(refused(&|config| config.senders = Senders::Named(vec![PeerName::default()])));
    }
}
