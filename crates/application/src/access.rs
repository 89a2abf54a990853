//! The ways to an MSGin5G Server.

use std::sync::Arc;

use sbi::admin::Health;
use sbi::capif::invoker::Invoker;
use sbi::capif::publish::SecurityMethod;
use sbi::client_credentials::ClientCredentials;
use sbi::nrf::{NrfClient, NrfConfig, OwnFunction, ProducerRoot};
use sbi::services::{MSGS_ASREGISTRATION, MSGS_MSGDELIVERY, MSGS_TOPICLISTEVENT};
use sbi::{SbiClient, SbiClientConfig, SbiError, SbiResponse, resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::by_capif::ByCapif;
use crate::config::ApplicationServerConfig;

/// How an Application Server reaches the MSGin5G Server, and what proves there who it is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Access {
    /// Inside the operator's domain, by its certificate alone (TS 33.501 clause Y.5), where the server takes that.
    Certificate {
        /// The server's API root.
        server: String,
    },
    /// Inside the operator's domain, with access tokens of the NRF (TS 33.501 clause 13.4.1). The NF instance ID is that of the
    /// certificate or of `nrf`.
    Nrf {
        /// The server's API root; or `nrf`, where the NRF is to find it ([`ProducerRoot`]).
        server: String,
        /// The NRF. With `register`, which is the default, this Application Server is registered there as a function of type AF
        /// while it is open.
        nrf: Box<NrfConfig>,
    },
    /// Outside the operator's domain, through its NEF (TS 33.501 clause 12): mutual TLS, and tokens of the NEF that are bound to
    /// the certificate.
    Nef {
        /// The NEF's API root.
        nef: String,
        /// The name that the NEF has for this Application Server.
        client_id: String,
    },
    /// As an onboarded API invoker (TS 33.122 clause 6.5.2), of which this Application Server is the only user: what it agrees
    /// upon takes the place of what was agreed before.
    Capif {
        /// The invoker.
        invoker: Box<Invoker>,
        /// The methods that may secure its calls, the dearest first. PSK needs an invoker that speaks TLS 1.2.
        methods: Vec<SecurityMethod>,
        /// The API exposing function that is called; the first that exposes the APIs if absent.
        aef_id: Option<String>,
    },
}

/// Which API is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// `msgs-asregistration`.
    Registration,
    /// `msgs-msgdelivery`.
    Delivery,
    /// `msgs-topiclistevent`.
    Topics,
}

impl Service {
    /// What no Application Server can do without.
    pub(crate) const NEEDED: [Self; 2] = [Self::Registration, Self::Delivery];
    pub(crate) const ALL: [Self; 3] = [Self::Registration, Self::Delivery, Self::Topics];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Registration => MSGS_ASREGISTRATION.service,
            Self::Delivery => MSGS_MSGDELIVERY.service,
            Self::Topics => MSGS_TOPICLISTEVENT.service,
        }
    }
}

/// An open way.
pub(crate) enum Way {
    /// By the certificate of the Application Server itself.
    Direct(Box<Producers>),
    /// By that of the API invoker.
    Capif(Box<ByCapif>),
}

/// Where each service is.
pub(crate) struct Producers {
    registration: Producer,
    delivery: Producer,
    topics: Producer,
}

impl Producers {
    fn new(producer: impl Fn(Service) -> Result<Producer, SbiError>) -> Result<Self, SbiError> {
        Ok(Self {
            registration: producer(Service::Registration)?,
            delivery: producer(Service::Delivery)?,
            topics: producer(Service::Topics)?,
        })
    }
}

impl Way {
    /// The way that `config` names, and the NRF's client where there is one, which leaves the NRF when `shutdown` is cancelled.
    pub(crate) fn open(
        config: &ApplicationServerConfig,
        target_uri: &str,
        shutdown: &CancellationToken,
    ) -> Result<(Self, Option<NrfClient>), SbiError> {
        if let Access::Capif { invoker, methods, aef_id } = &config.access {
            let way = ByCapif::new((**invoker).clone(), methods.clone(), aef_id.clone(), config.requests.clone());
            return Ok((Self::Capif(Box::new(way)), None));
        }
        let http = SbiClient::new(SbiClientConfig { tls: config.tls.clone(), limits: config.requests.clone() })?;
        match &config.access {
            Access::Nrf { server, nrf } => {
                let mut nrf = (**nrf).clone();
                nrf.api_root.get_or_insert_with(|| target_uri.to_owned());
                let nrf = NrfClient::new(&nrf, &config.tls, AF)?;
                nrf.keep_registered(&OwnFunction::default(), Health::new(), shutdown.clone());
                let http = nrf.authorize(http.inside_domain());
                let producer = |service| Producer::new(&http, AF, service, server, Some(&nrf));
                let way = Self::Direct(Box::new(Producers::new(producer)?));
                Ok((way, Some(nrf)))
            }
            Access::Nef { nef, client_id } => {
                let tokens = ClientCredentials::new(http.clone(), resource(nef, TOKEN_PATH), client_id.clone(), None);
                Self::direct(&http.with_tokens(Arc::new(tokens)), NEF, nef)
            }
            Access::Certificate { server } => Self::direct(&http, AF, server),
            Access::Capif { .. } => Err(SbiError::InvalidRequest("no way".to_owned())),
        }
    }

    fn direct(http: &SbiClient, nf_type: &'static str, root: &str) -> Result<(Self, Option<NrfClient>), SbiError> {
        let producer = |service| Producer::new(http, nf_type, service, root, None);
        Ok((Self::Direct(Box::new(Producers::new(producer)?)), None))
    }

    /// POST of `body` to `path` of the service.
    pub(crate) async fn post<B, T>(&self, service: Service, path: &str, body: &B) -> Result<SbiResponse<T>, SbiError>
    where
        B: Serialize + Sync,
        T: DeserializeOwned,
    {
        match self {
            Self::Capif(way) => way.post(service, path, body).await,
            Self::Direct(_) => {
                let producer = self.producer(service)?;
                let outcome = producer.http.post(&producer.uri(path).await?, body).await;
                producer.root.forget(&outcome);
                outcome
            }
        }
    }

    /// DELETE of `path` of the service.
    pub(crate) async fn delete(&self, service: Service, path: &str) -> Result<(), SbiError> {
        match self {
            Self::Capif(way) => way.delete(service, path).await,
            Self::Direct(_) => {
                let producer = self.producer(service)?;
                let outcome = producer.http.delete::<serde::de::IgnoredAny>(&producer.uri(path).await?).await;
                producer.root.forget(&outcome);
                outcome.map(drop)
            }
        }
    }

    fn producer(&self, service: Service) -> Result<&Producer, SbiError> {
        let Self::Direct(producers) = self else { return Err(SbiError::InvalidUri) };
        Ok(match service {
            Service::Registration => &producers.registration,
            Service::Delivery => &producers.delivery,
            Service::Topics => &producers.topics,
        })
    }
}

/// Where a service is, and the client that calls it.
pub(crate) struct Producer {
    http: SbiClient,
    root: ProducerRoot,
}

impl Producer {
    fn new(
        http: &SbiClient,
        nf_type: &'static str,
        service: Service,
        root: &str,
        nrf: Option<&NrfClient>,
    ) -> Result<Self, SbiError> {
        let root = ProducerRoot::new(root, nf_type, service.name(), nrf)?;
        // The NEF grants what its entry for the Application Server allows, whatever is named here.
        Ok(Self { http: http.for_service(nf_type, service.name()), root })
    }

    async fn uri(&self, path: &str) -> Result<String, SbiError> {
        Ok(resource(&self.root.current().await?, path))
    }
}

/// NF type of an MSGin5G Server, and of an Application Server.
const AF: &str = "AF";
const NEF: &str = "NEF";
/// The NEF's token endpoint, below its root.
const TOKEN_PATH: &str = "/oauth2/token";
