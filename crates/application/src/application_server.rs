//! The Application Server itself.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::StatusCode;
use message::ts29538::{
    AsMessageDelivery, AsRegistration, AsRegistrationAck, DeliveryStatusReport as ReportDelivery, MessageDeliveryAck,
};
use message::{Address, AsServiceId, DeliveryStatusReport, Message, MessageId, Priority};
use sbi::nrf::NrfClient;
use sbi::{SbiError, SbiServer, SbiServerConfig};
use tokio_util::sync::CancellationToken;

use crate::acceptance::Acceptance;
use crate::access::{Service, Way};
use crate::config::ApplicationServerConfig;
use crate::desk;
use crate::error::ApplicationError;
use crate::incoming::IncomingStream;

/// An Application Server that listens for deliveries. Cheap to clone; it closes when the last clone is dropped.
#[derive(Clone)]
pub struct ApplicationServer {
    shared: Arc<Shared>,
}

struct Shared {
    id: AsServiceId,
    way: Way,
    nrf: Option<NrfClient>,
    target_uri: String,
    /// Path of the registration's resource.
    registration: Mutex<Option<String>>,
    server: SbiServer,
    shutdown: CancellationToken,
}

impl ApplicationServer {
    /// Listens for deliveries. Nothing is registered yet at the MSGin5G Server.
    ///
    /// # Errors
    /// [`ApplicationError::Configuration`]; [`ApplicationError::Network`] for an unusable certificate, key or authority, and for
    /// an address that is taken.
    pub async fn open(config: ApplicationServerConfig) -> Result<(Self, IncomingStream), ApplicationError> {
        config.check()?;
        let (router, incoming) = desk::open(&config);
        let shutdown = CancellationToken::new();
        // Whatever is open closes if the rest fails.
        let guard = shutdown.clone().drop_guard();
        let listen = SbiServerConfig { listen: config.listen, tls: config.tls.clone(), limits: config.server_limits() };
        let server = SbiServer::start(listen, router, shutdown.clone()).await?;
        let target_uri = config.target_uri(server.local_addr().port())?;
        let (way, nrf) = Way::open(&config, &target_uri, &shutdown)?;
        let shutdown = guard.disarm();
        let id = config.as_service_id;
        let shared = Shared { id, way, nrf, target_uri, registration: Mutex::default(), server, shutdown };
        Ok((Self { shared: Arc::new(shared) }, incoming))
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &AsServiceId {
        &self.shared.id
    }

    pub(crate) fn way(&self) -> &Way {
        &self.shared.way
    }

    /// Where it is delivered to, as it registers.
    #[must_use]
    pub fn target_uri(&self) -> &str {
        &self.shared.target_uri
    }

    /// Registers at the MSGin5G Server (TS 29.538 clause 5.2), in place of an earlier registration. It lasts until
    /// [`ApplicationServer::deregister`], also while this process does not run.
    ///
    /// # Errors
    /// [`ApplicationError::Network`]; refused with 403 where the certificate is not that of this AS Service ID.
    pub async fn register(&self) -> Result<(), ApplicationError> {
        let registration = AsRegistration {
            as_svc_id: self.shared.id.clone(),
            app_id: None,
            target_uri: Some(self.shared.target_uri.clone()),
            as_prof: None,
        };
        // The way through CAPIF is a long one, with its state on the heap.
        let post = self.shared.way.post::<_, AsRegistrationAck>(Service::Registration, REGISTRATIONS, &registration);
        let answer = Box::pin(post);
        let location = answer.await?.location.ok_or_else(|| malformed("no Location"))?;
        // Absolute, or a path below the root that was asked.
        let from = location.find(REGISTRATIONS).ok_or_else(|| malformed("a Location elsewhere"))?;
        *self.registration() = location.get(from..).map(str::to_owned);
        Ok(())
    }

    /// Ends the registration. One that was ended or replaced by another is no error.
    ///
    /// # Errors
    /// [`ApplicationError::NotRegistered`]; [`ApplicationError::Network`].
    pub async fn deregister(&self) -> Result<(), ApplicationError> {
        let path = self.registration().clone().ok_or(ApplicationError::NotRegistered)?;
        match Box::pin(self.shared.way.delete(Service::Registration, &path)).await {
            Err(SbiError::Problem(problem)) if problem.status_code() == StatusCode::NOT_FOUND => {}
            outcome => outcome?,
        }
        let mut registration = self.registration();
        if registration.as_ref() == Some(&path) {
            *registration = None;
        }
        Ok(())
    }

    /// A message of this Application Server with a Message ID of its own, and everything else that is optional left out. Its
    /// members can be set before it is sent.
    #[must_use]
    pub fn message(&self, to: Address, payload: impl Into<Vec<u8>>) -> Message {
        Message {
            originator: Address::application_server(&self.shared.id),
            destination: to,
            recipient: None,
            message_id: random_message_id(),
            application_id: None,
            delivery_status_required: false,
            store_and_forward: false,
            expiration_time: None,
            priority: Priority::default(),
            payload: payload.into(),
            segment: None,
            latency: None,
        }
    }

    /// Sends a message (TS 29.538 clause 5.3), and waits for what the server promises about it.
    ///
    /// # Errors
    /// [`ApplicationError::NotOwn`]; [`ApplicationError::Network`], with the server's cause of a refusal. Where no answer came,
    /// the same message may be sent again.
    pub async fn send(&self, message: &Message) -> Result<Acceptance, ApplicationError> {
        let delivery = AsMessageDelivery::from(message);
        self.deliver("/msgs-msgdelivery/v1/deliver-as-message", &message.originator, &message.message_id, &delivery)
            .await
    }

    /// Reports on a message that was delivered here, to its originator: [`crate::Received::success_report`].
    ///
    /// # Errors
    /// As [`ApplicationServer::send`].
    pub async fn report(&self, report: DeliveryStatusReport) -> Result<Acceptance, ApplicationError> {
        let (originator, message_id) = (report.originator.clone(), report.message_id.clone());
        let delivery = ReportDelivery::from(report);
        self.deliver("/msgs-msgdelivery/v1/deliver-report", &originator, &message_id, &delivery).await
    }

    async fn deliver<B: serde::Serialize + Sync>(
        &self,
        path: &str,
        originator: &Address,
        message_id: &MessageId,
        delivery: &B,
    ) -> Result<Acceptance, ApplicationError> {
        if *originator != Address::application_server(&self.shared.id) {
            return Err(ApplicationError::NotOwn);
        }
        let post = self.shared.way.post::<_, MessageDeliveryAck>(Service::Delivery, path, delivery);
        let answer = Box::pin(post).await?;
        let ack = answer.into_body()?;
        if ack.ori_addr != *originator || ack.msg_id != *message_id {
            return Err(malformed("an answer to another message"));
        }
        Ok(ack.into())
    }

    /// Closes the interface for deliveries, and waits until it is closed. The registration stays: what arrives meanwhile is
    /// stored by the server.
    pub async fn close(self) {
        self.shared.shutdown.cancel();
        self.shared.server.stopped().await;
        if let Some(nrf) = &self.shared.nrf {
            nrf.stopped().await;
        }
    }

    fn registration(&self) -> MutexGuard<'_, Option<String>> {
        self.shared.registration.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl fmt::Debug for ApplicationServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApplicationServer")
            .field("id", &self.shared.id)
            .field("target_uri", &self.shared.target_uri)
            .finish_non_exhaustive()
    }
}

pub(crate) fn malformed(what: &str) -> ApplicationError {
    SbiError::Malformed(what.to_owned()).into()
}

fn random_message_id() -> MessageId {
    let text = uuid::Uuid::new_v4().to_string();
    // A UUID is 36 visible characters, and a Message ID may have 128.
    #[allow(clippy::expect_used)]
    text.parse().expect("a UUID is a Message ID")
}

const REGISTRATIONS: &str = "/msgs-asregistration/v1/registrations";
