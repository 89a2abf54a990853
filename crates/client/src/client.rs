//! The application's handle on a client.

use std::sync::Arc;

use coap::Response;
use message::{
    Address, DecodeLimits, Message, MessageId, MessagingTopic, SegmentationSetId, StoredMessageUpdate,
    TOPICS_PER_REQUEST_MAX, TopicSubscription, TopicSubscriptionResponse, TopicUnsubscription, UeMessage,
    segmentation::segment,
};
use time::OffsetDateTime;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};
use transport::{PskClientConfig, PskConnector};

use crate::{
    config::{ClientConfig, Transport},
    driver::{Command, Driver, End, Unsent},
    error::ClientError,
    establish::{Establisher, Reach},
    https::Https,
    incoming::IncomingStream,
    journal::Journal,
    key_source::KeySource,
    outbound::{Outcome, OutgoingMessage, Subscription},
    requests::Waiting,
    segmented::SetName,
    status::{ClientState, ClientStatus},
};

/// An MSGin5G Client: registered with one server under one UE Service ID, and again whenever the connection was lost.
///
/// Cheap to clone; all clones are the same client. It lives until [`Client::close`] or [`Client::deregister`], or until
/// all clones and the [`IncomingStream`] are dropped. The work is done by one task on the current tokio runtime.
#[derive(Clone, Debug)]
pub struct Client {
    config: Arc<ClientConfig>,
    commands: mpsc::Sender<Command>,
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
        let offer_http = config.transport == Transport::WebSocket;
        let connector = PskConnector::new(PskClientConfig { offer_http, ..config.tls.clone() })
            .map_err(|error| ClientError::Configuration(format!("TLS: {error}")))?;
        let https = config.https_ca.as_deref();
        let https =
            https.map(|ca| Https::new(ca, config.path_segments().join("/"), config.https_ua_protocol)).transpose()?;
        let journal = match &config.state_dir {
            Some(directory) => Some(Journal::open(directory, config.limits.remembered_max)?),
            None => None,
        };
        let config = Arc::new(config);
        let (commands, command_receiver) = mpsc::channel(config.limits.send_queue_max);
        let (ends, end_receiver) = mpsc::channel(1);
        let (status_sender, status) = watch::channel(ClientStatus::new());
        let reach = Arc::new(Reach::server(&config));
        let establisher = Establisher { reach, source: Arc::new(source), connector, https };
        let client = Self { config: Arc::clone(&config), commands, ends, status };
        let (driver, receiver) =
            Driver::new(Arc::clone(&config), establisher, journal, (command_receiver, end_receiver), status_sender);
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
    /// A payload larger than one segment is sent as segments (TS 23.554 clause 8.5); the outcome is that of the whole
    /// message. For each segment the time to wait begins anew.
    ///
    /// Dropping the future gives up waiting; the server may have the message by then.
    ///
    /// # Errors
    /// [`ClientError::NoAnswer`] if it is in doubt, [`ClientError::TooLarge`] if it was not sent, and
    /// [`ClientError::Closed`].
    pub async fn send(&self, message: OutgoingMessage) -> Result<Outcome, ClientError> {
        let limits = &self.config.limits;
        let message = message.into_message(&self.config.ue_service_id);
        check_size(message.payload.len(), limits.message_payload_octets_max)?;
        let (message_id, deadline) = (message.message_id.clone(), Instant::now() + limits.send_timeout());
        let (answer, receiver) = oneshot::channel();
        let waiting = Waiting { message_id: message_id.clone(), answer, deadline };
        let command = if message.payload.len() > self.config.segment_octets() {
            self.segments(&message, waiting)?
        } else {
            let body = self.coded(&message)?;
            Command::Message { message: Box::new(message), unsent: Unsent { body, waiting } }
        };
        match timeout_at(deadline, self.commands.send(command)).await {
            // Not even taken from the queue: nothing was sent.
            Err(_) => return Err(ClientError::NoAnswer { message_id }),
            Ok(Err(_)) => return Err(ClientError::Closed),
            Ok(Ok(())) => {}
        }
        receiver.await.unwrap_or(Err(ClientError::Closed))
    }

    fn coded(&self, message: &Message) -> Result<Vec<u8>, ClientError> {
        let body = UeMessage::Message(Box::new(message.clone())).encode();
        check_size(body.len(), self.config.limits.message_octets_max)?;
        Ok(body)
    }

    fn segments(&self, message: &Message, waiting: Waiting) -> Result<Command, ClientError> {
        // Made from the Message ID, so that a message that the application sends again has the same segments again: the
        // server then gives each the answer that it gave before. Both may have 128 octets of the same alphabet.
        let set_id = SegmentationSetId::new(message.message_id.as_str())
            .map_err(|error| ClientError::Invalid(format!("the Message ID names no set of segments: {error}")))?;
        let octets = self.config.segment_octets();
        let segments = segment(message, set_id.clone(), octets).map_err(|_| ClientError::TooLarge {
            octets: message.payload.len(),
            octets_max: octets.saturating_mul(message::SEGMENTS_MAX as usize),
        })?;
        let bodies = segments.iter().map(|segment| self.coded(segment)).collect::<Result<_, _>>()?;
        let (destination, message_id) = (message.destination.clone(), message.message_id.clone());
        let name = SetName { destination, message_id, set_id };
        Ok(Command::Segments { name, priority: message.priority, bodies, waiting })
    }

    /// Subscribes to Messaging Topics (TS 23.554 clause 8.8.1) until `expiration_time`, or for as long as the server
    /// allows and this client lives; messages to them then arrive like any other. The client keeps the subscription up:
    /// it makes it again after each further registration, and ahead of an end that the server has set earlier.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the server's cause, such as `TOPIC_NOT_ALLOWED`; [`ClientError::Invalid`] for no
    /// topic, for more than [`TOPICS_PER_REQUEST_MAX`], and for more in all than
    /// [`ClientLimits::subscribed_topics_max`](crate::ClientLimits::subscribed_topics_max);
    /// [`ClientError::Disconnected`] if there is no answer in time.
    pub async fn subscribe(
        &self,
        topics: &[MessagingTopic],
        expiration_time: Option<OffsetDateTime>,
    ) -> Result<Subscription, ClientError> {
        check_topics(topics)?;
        let (originator, topics) = (Address::ue(&self.config.ue_service_id), topics.to_vec());
        let request = TopicSubscription { originator, topics: topics.clone(), expiration_time };
        let body = UeMessage::TopicSubscription(request).encode();
        let response =
            self.ask(|answer, deadline| Command::Subscribe { topics: topics.clone(), body, answer, deadline }).await?;
        let granted = topic_response(&response)?.and_then(|response| response.expiration_time);
        let subscribed = Command::Subscribed { topics, until: expiration_time, granted };
        self.commands.send(subscribed).await.map_err(|_| ClientError::Closed)?;
        Ok(Subscription { expiration_time: granted })
    }

    /// Withdraws subscriptions to Messaging Topics (TS 23.554 clause 8.8.3), whoever made them.
    ///
    /// # Errors
    /// As [`Client::subscribe`].
    pub async fn unsubscribe(&self, topics: &[MessagingTopic]) -> Result<(), ClientError> {
        check_topics(topics)?;
        let (originator, topics) = (Address::ue(&self.config.ue_service_id), topics.to_vec());
        // First of all: it must not be made again by this client, whatever the server says.
        let unsubscribed = Command::Unsubscribed { topics: topics.clone() };
        self.commands.send(unsubscribed).await.map_err(|_| ClientError::Closed)?;
        let body = UeMessage::TopicUnsubscription(TopicUnsubscription { originator, topics }).encode();
        let response = self.ask(|answer, deadline| Command::Procedure { body, answer, deadline }).await?;
        topic_response(&response).map(drop)
    }

    /// Changes until when the server keeps a message of this client that it has stored (TS 23.554 clause 8.3.6.1).
    ///
    /// # Errors
    /// [`ClientError::Refused`], with `MESSAGE_NOT_STORED` if the server does not have the message any more;
    /// [`ClientError::Disconnected`] if there is no answer in time.
    pub async fn update_stored(
        &self,
        message_id: &MessageId,
        expiration_time: OffsetDateTime,
    ) -> Result<(), ClientError> {
        self.stored_message(message_id, Some(expiration_time)).await
    }

    /// Has the server discard a message of this client that it has stored (TS 23.554 clause 8.3.6.1): it is not delivered
    /// any more.
    ///
    /// # Errors
    /// As [`Client::update_stored`].
    pub async fn discard_stored(&self, message_id: &MessageId) -> Result<(), ClientError> {
        self.stored_message(message_id, None).await
    }

    async fn stored_message(
        &self,
        message_id: &MessageId,
        expiration_time: Option<OffsetDateTime>,
    ) -> Result<(), ClientError> {
        let (originator, message_id) = (Address::ue(&self.config.ue_service_id), message_id.clone());
        let update = StoredMessageUpdate { originator, message_id, expiration_time };
        let body = UeMessage::StoredMessageUpdate(update).encode();
        self.ask(|answer, deadline| Command::Procedure { body, answer, deadline }).await.map(drop)
    }

    /// Has the driver ask the server something, and waits for the answer, which is one of success.
    async fn ask(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<Response, ClientError>>, Instant) -> Command,
    ) -> Result<Response, ClientError> {
        let deadline = Instant::now() + self.config.limits.send_timeout();
        let (answer, receiver) = oneshot::channel();
        match timeout_at(deadline, self.commands.send(command(answer, deadline))).await {
            Err(_) => return Err(ClientError::Disconnected("no answer in time".into())),
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

fn check_topics(topics: &[MessagingTopic]) -> Result<(), ClientError> {
    match topics.len() {
        0 => Err(ClientError::Invalid("no topic is named".into())),
        1..=TOPICS_PER_REQUEST_MAX => Ok(()),
        more => Err(ClientError::Invalid(format!("{more} topics, at most {TOPICS_PER_REQUEST_MAX} can be named"))),
    }
}

/// Reads what the server says about topics; none if it says no more than that it is done.
fn topic_response(response: &Response) -> Result<Option<TopicSubscriptionResponse>, ClientError> {
    if response.payload.is_empty() {
        return Ok(None);
    }
    let answer = TopicSubscriptionResponse::decode(&response.payload, &DecodeLimits::default())
        .map_err(|error| ClientError::Protocol(error.to_string()))?;
    if answer.status == message::member::subscription_status::REFUSED {
        let cause = answer.failure_cause.unwrap_or_default();
        return Err(ClientError::Refused { cause, temporary: false });
    }
    Ok(Some(answer))
}
