//! The application's handle on a client.

use std::sync::Arc;

use message::UeMessage;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};
use transport::PskConnector;

use crate::{
    config::ClientConfig,
    driver::{Driver, End, Send},
    error::ClientError,
    establish::Establisher,
    incoming::IncomingStream,
    journal::Journal,
    key_source::KeySource,
    outbound::{Outcome, OutgoingMessage},
    status::{ClientState, ClientStatus},
};

/// An MSGin5G Client: registered with one server under one UE Service ID, and again whenever the connection was lost.
///
/// Cheap to clone; all clones are the same client. It lives until [`Client::close`] or [`Client::deregister`], or until
/// all clones and the [`IncomingStream`] are dropped. The work is done by one task on the current tokio runtime.
#[derive(Clone, Debug)]
pub struct Client {
    config: Arc<ClientConfig>,
    messages: mpsc::Sender<Send>,
    ends: mpsc::Sender<End>,
    status: watch::Receiver<ClientStatus>,
}

impl Client {
    /// Starts a client and waits until it is registered, however long that takes: put a time-out around it if the server
    /// may be away. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// What no waiting cures ([`ClientError::is_final`]): keys that cannot be had or that the server does not take, a
    /// refused registration, a state directory in use.
    pub async fn connect(config: ClientConfig, source: impl KeySource) -> Result<(Self, IncomingStream), ClientError> {
        let (client, incoming) = Self::start(config, source)?;
        client.registered().await?;
        Ok((client, incoming))
    }

    /// Starts a client without waiting. It goes on trying until it is closed, whatever the server says: an association
    /// that is missing today may be there tomorrow. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// [`ClientError::Configuration`], [`ClientError::State`] and [`ClientError::StateInUse`].
    pub fn start(config: ClientConfig, source: impl KeySource) -> Result<(Self, IncomingStream), ClientError> {
        config.check()?;
        let connector = PskConnector::new(config.tls.clone())
            .map_err(|error| ClientError::Configuration(format!("TLS: {error}")))?;
        let journal = match &config.state_dir {
            Some(directory) => Some(Journal::open(directory, config.limits.remembered_max)?),
            None => None,
        };
        let config = Arc::new(config);
        let (messages, message_receiver) = mpsc::channel(config.limits.send_queue_max);
        let (ends, end_receiver) = mpsc::channel(1);
        let (status_sender, status) = watch::channel(ClientStatus::new());
        let establisher = Establisher { config: Arc::clone(&config), source: Arc::new(source), connector };
        let client = Self { config, messages, ends, status };
        let (driver, receiver) = Driver::new(establisher, journal, (message_receiver, end_receiver), status_sender);
        tokio::spawn(driver.run());
        let incoming = IncomingStream { receiver, _client: client.clone() };
        Ok((client, incoming))
    }

    /// Waits until the client is registered.
    ///
    /// # Errors
    /// As [`Client::connect`]. The client itself goes on trying.
    pub async fn registered(&self) -> Result<(), ClientError> {
        let mut status = self.status.clone();
        let status = status
            .wait_for(|status| match status.state {
                ClientState::Registered | ClientState::Closed => true,
                ClientState::Waiting => status.last_error.as_ref().is_some_and(ClientError::is_final),
                ClientState::Connecting => false,
            })
            .await
            .map_err(|_| ClientError::Closed)?;
        match (status.state, &status.last_error) {
            (ClientState::Registered, _) => Ok(()),
            (ClientState::Waiting, Some(error)) => Err(error.clone()),
            _ => Err(ClientError::Closed),
        }
    }

    /// Sends a message and waits for what the server promises about it, across reconnections. When this says
    /// [`Outcome::Delivered`] or [`Outcome::Stored`], the message is not lost.
    ///
    /// Dropping the future gives up waiting; the server may have the message by then.
    ///
    /// # Errors
    /// [`ClientError::NoAnswer`] if it is in doubt, [`ClientError::TooLarge`] if it was not sent, and
    /// [`ClientError::Closed`].
    pub async fn send(&self, message: OutgoingMessage) -> Result<Outcome, ClientError> {
        let limits = &self.config.limits;
        let message = message.into_message(&self.config.ue_service_id);
        let message_id = message.message_id.clone();
        check_size(message.payload.len(), limits.payload_octets_max)?;
        let body = UeMessage::Message(Box::new(message)).encode();
        check_size(body.len(), limits.message_octets_max)?;
        let deadline = Instant::now() + limits.send_timeout();
        let (answer, receiver) = oneshot::channel();
        let message = Send { message_id: message_id.clone(), body, deadline, answer };
        match timeout_at(deadline, self.messages.send(message)).await {
            // Not even taken from the queue: nothing was sent.
            Err(_) => return Err(ClientError::NoAnswer { message_id }),
            Ok(Err(_)) => return Err(ClientError::Closed),
            Ok(Ok(())) => {}
        }
        receiver.await.unwrap_or(Err(ClientError::Closed))
    }

    /// Withdraws the registration (TS 23.554 clause 8.2.2) and ends the client: the server delivers nothing more to this
    /// UE Service ID until it registers again.
    ///
    /// # Errors
    /// [`ClientError::RegistrationRefused`] if the server does not do it, [`ClientError::Disconnected`] if it does not
    /// answer, and [`ClientError::Closed`]. The client is closed in any case.
    pub async fn deregister(&self) -> Result<(), ClientError> {
        let (answer, receiver) = oneshot::channel();
        self.ends.send(End::Deregister { answer }).await.map_err(|_| ClientError::Closed)?;
        let result = receiver.await.unwrap_or(Err(ClientError::Closed));
        self.closed().await;
        result
    }

    /// Ends the client and stays registered: the server keeps messages for it where it may. Waits for what is under way
    /// (answers to messages, reports on accepted ones), within the limit for closing.
    pub async fn close(&self) {
        // An error means that it has ended already.
        if self.ends.send(End::Close).await.is_ok() {
            self.closed().await;
        }
    }

    /// Waits until the connection is closed and the state directory free.
    async fn closed(&self) {
        // An error means that the task is gone, and all it held with it.
        let _ = self.status.clone().wait_for(|status| status.state == ClientState::Closed).await;
    }

    /// What the client is doing.
    #[must_use]
    pub fn status(&self) -> ClientStatus {
        self.status.borrow().clone()
    }

    /// Follows what the client is doing.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<ClientStatus> {
        self.status.clone()
    }

    /// The configuration it was started with.
    #[must_use]
    pub fn config(&self) -> &ClientConfig {
        &self.config
    }
}

fn check_size(octets: usize, octets_max: usize) -> Result<(), ClientError> {
    if octets > octets_max { Err(ClientError::TooLarge { octets, octets_max }) } else { Ok(()) }
}
