//! One connection of an application.
//!
//! ```text
//! accepted ──► CSM both ways ──► REG ──► registered ──► DEREG, Release, closed ──► what is unanswered is put off
//!     │                           │          │ ▲
//!     └── no REG in time: Abort   └ refused  │ │ MSG ──► Client::send ──► MSGRESP
//!                                            └─┘ MSG, IMDN of the server ──► 2.04 ──► Received::accept
//! ```
//!
//! Registration: TS 23.554 clause 8.11.1; messages: clause 8.11.4 and TS 24.538 clause 6.4.2.

use std::{collections::VecDeque, sync::Arc};

use bytes::{Bytes, BytesMut};
use coap::{Code, ExchangeId, Request, Response, StreamConfig, StreamConnection, StreamEvent, StreamLimits};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use message::{Address, ApplicationId, FailureCause, MessageId, ReportDeliveryStatus, UeMessage};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::{
    desk::{ConnectionId, Delivery, Desk},
    policy::ApplicationConfig,
    tag::Tag,
    wire::{self, Asked, JSON},
};
use crate::{client::Client, error::ClientError, outbound::OutgoingMessage};

/// Room for reading from the socket.
const READ_OCTETS: usize = 8_192;
/// What a CoAP message has besides its payload: header, token, options.
const FRAME_OCTETS_MAX: u32 = 1_024;
/// Max-Age of an answer to an application that sends too fast, in seconds.
const TOO_FAST_MAX_AGE_SECONDS: u32 = 1;

/// Work that goes on beside the connection: an answer to give when it is done, or nothing more to say.
type Work = BoxFuture<'static, Option<(ExchangeId, Response)>>;

/// What a connection leaves under way: messages given to the client, and acceptances.
pub(super) struct UnderWay(FuturesUnordered<Work>);

impl UnderWay {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sees it to its end. How many messages there can be is a matter of the applications' rates and of the client's
    /// limit for an answer.
    pub(super) async fn finish(mut self) {
        while self.0.next().await.is_some() {}
    }
}

/// The application on a connection.
struct Registration {
    application: ApplicationId,
    config: Arc<ApplicationConfig>,
    tag: Tag,
    deliveries: mpsc::Receiver<Delivery>,
    /// Sent to it and not answered, in order.
    in_flight: VecDeque<InFlight>,
    /// What it took: originator and Message ID.
    answered: VecDeque<(Address, MessageId)>,
}

struct InFlight {
    exchange: ExchangeId,
    delivery: Delivery,
    deadline: Instant,
}

/// One connection; see the module.
pub(super) struct Connection {
    id: ConnectionId,
    desk: Arc<Desk>,
    client: Client,
    /// The user that the peer runs as.
    uid: Option<u32>,
    coap: StreamConnection,
    registration: Option<Registration>,
    /// Polled in the order given: the client takes messages in the order of its application's requests.
    work: FuturesUnordered<Work>,
    registrations_refused: u32,
    /// Its application registered anew on another connection.
    replaced: CancellationToken,
    /// When a registration has to be there.
    register_by: Option<Instant>,
    /// When what is written has to have moved.
    write_by: Option<Instant>,
    /// When it is over, whatever is under way.
    close_by: Option<Instant>,
    over: bool,
}

impl Connection {
    pub(super) fn new(id: ConnectionId, desk: Arc<Desk>, client: Client, uid: Option<u32>) -> Self {
        let limits = &desk.policy.limits;
        let octets_max = u32::try_from(limits.message_octets_max).unwrap_or(u32::MAX);
        let config = StreamConfig {
            max_message_size_own: octets_max.saturating_add(FRAME_OCTETS_MAX),
            limits: StreamLimits {
                requests_outstanding_max: limits.deliveries_unanswered_max,
                peer_requests_outstanding_max: limits.requests_unanswered_max,
                transmit_octets_max: limits.outbound_octets_max,
                ..StreamLimits::default()
            },
        };
        let register_by = Some(Instant::now() + limits.registration_timeout());
        Self {
            id,
            coap: StreamConnection::new(config),
            desk,
            client,
            uid,
            registration: None,
            work: FuturesUnordered::new(),
            registrations_refused: 0,
            replaced: CancellationToken::new(),
            register_by,
            write_by: None,
            close_by: None,
            over: false,
        }
    }

    /// Serves the application until either side ends it, or `closing` says so. Yields what is still under way with the
    /// server; only its outcome is nobody's any more.
    pub(super) async fn run(mut self, stream: UnixStream, closing: CancellationToken) -> UnderWay {
        let (mut reader, mut writer) = stream.into_split();
        let (mut inbound, mut outbound) = (BytesMut::new(), Bytes::new());
        while !self.over {
            self.take_events();
            if outbound.is_empty() {
                outbound = self.coap.poll_transmit().map(Bytes::from).unwrap_or_default();
                self.write_by =
                    (!outbound.is_empty()).then(|| Instant::now() + self.desk.policy.limits.write_timeout());
            }
            if self.over || (self.close_by.is_some() && outbound.is_empty() && self.is_settled()) {
                break;
            }
            inbound.reserve(READ_OCTETS);
            let due = self.next_due();
            let can_deliver = self.can_deliver();
            tokio::select! {
                read = reader.read_buf(&mut inbound) => match read {
                    Ok(1..) => self.receive(&inbound.split()),
                    Ok(0) | Err(_) => self.over = true,
                },
                written = writer.write_buf(&mut outbound), if !outbound.is_empty() => match written {
                    Ok(_) => self.write_by = Some(Instant::now() + self.desk.policy.limits.write_timeout()),
                    Err(_) => self.over = true,
                },
                Some(delivery) = next_delivery(&mut self.registration), if can_deliver => self.deliver(delivery),
                Some(done) = self.work.next(), if !self.work.is_empty() => self.on_done(done),
                () = self.replaced.cancelled(), if self.close_by.is_none() => {
                    self.abort("the application registered on another connection");
                }
                () = closing.cancelled(), if self.close_by.is_none() => self.release(),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.on_due(),
            }
        }
        self.leave();
        let last_words = async {
            writer.write_all_buf(&mut outbound).await?;
            while let Some(octets) = self.coap.poll_transmit() {
                writer.write_all(&octets).await?;
            }
            writer.shutdown().await
        };
        // It is over whether or not they arrive.
        let _ = timeout(self.desk.policy.limits.close_timeout(), last_words).await;
        UnderWay(self.work)
    }

    fn receive(&mut self, octets: &[u8]) {
        if let Err(error) = self.coap.receive(octets) {
            tracing::warn!(%error, uid = self.uid, "an application's connection is ended");
            self.take_events();
            self.over = true;
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.coap.poll_event() {
            match event {
                StreamEvent::Request { request } => self.on_request(request),
                StreamEvent::Response { exchange, response } => self.on_response(exchange, Some(response.code)),
                StreamEvent::Failed { exchange, .. } => self.on_response(exchange, None),
                StreamEvent::Released { .. } => self.release(),
                StreamEvent::Aborted { .. } => self.over = true,
                _ => {}
            }
        }
    }

    fn is_settled(&self) -> bool {
        self.coap.is_settled() && self.work.is_empty()
    }

    /// Ends the connection in good order: what is under way is finished, nothing new is delivered.
    fn release(&mut self) {
        if self.close_by.is_none() {
            self.close_by = Some(Instant::now() + self.desk.policy.limits.close_timeout());
            // Fails only on a connection that is over already.
            let _ = self.coap.release(&coap::Release::default());
        }
    }

    fn abort(&mut self, why: &str) {
        tracing::info!(uid = self.uid, why, "an application's connection is aborted");
        self.coap.abort(why);
        self.over = true;
    }

    fn next_due(&self) -> Option<Instant> {
        let oldest = self.registration.as_ref().and_then(|registration| registration.in_flight.front());
        let delivery = oldest.map(|in_flight| in_flight.deadline);
        [self.register_by, self.write_by, self.close_by, delivery].into_iter().flatten().min()
    }

    fn on_due(&mut self) {
        let is_due = |when: Option<Instant>| when.is_some_and(|when| when <= Instant::now());
        let oldest = self.registration.as_ref().and_then(|registration| registration.in_flight.front());
        if is_due(oldest.map(|in_flight| in_flight.deadline)) {
            self.abort("no answer to what was delivered");
        } else if is_due(self.register_by) {
            self.abort("no registration");
        } else if is_due(self.write_by) || is_due(self.close_by) {
            self.over = true;
        }
    }

    fn on_request(&mut self, request: Request) {
        let exchange = request.exchange;
        if let Some(response) = self.answer(request) {
            self.respond(exchange, response);
        }
        if self.registrations_refused >= self.desk.policy.limits.registrations_refused_max {
            self.abort("too many refused registrations");
        }
    }

    fn respond(&mut self, exchange: ExchangeId, response: Response) {
        if self.over {
            return;
        }
        if let Err(error) = self.coap.respond(exchange, response) {
            tracing::warn!(%error, uid = self.uid, "an application does not take its answers");
            self.abort("answers are not taken");
        }
    }

    /// The answer to a request, unless it comes later.
    fn answer(&mut self, request: Request) -> Option<Response> {
        if !request.path.iter().map(String::as_str).eq(self.client.config().path_segments().iter().map(String::as_str))
        {
            return Some(Response::new(Code::NOT_FOUND));
        }
        if request.method != Code::POST {
            return Some(Response::new(Code::METHOD_NOT_ALLOWED));
        }
        if request.content_format.is_some_and(|format| format != JSON) {
            return Some(wire::refusal(FailureCause::ContentFormatNotSupported));
        }
        let payload = Zeroizing::new(request.payload);
        match Asked::decode(&payload, &self.desk.policy.limits) {
            Ok(Asked::Registration { application_id, credential }) => Some(self.register(application_id, credential)),
            Ok(Asked::Deregistration { application_id }) => Some(self.deregister(application_id.as_ref())),
            Ok(Asked::Message(message)) => self.send(request.exchange, *message),
            Ok(Asked::Report(report)) => Some(self.report(&report)),
            Err(cause) => Some(wire::refusal(cause)),
        }
    }

    fn register(&mut self, application: ApplicationId, credential: Option<Zeroizing<String>>) -> Response {
        let credential = credential.as_ref().map(|credential| credential.as_str());
        let config = self.desk.policy.of(&application).filter(|config| config.is_proven(self.uid, credential)).cloned();
        let Some(config) = config else {
            tracing::warn!(target: "security", application_id = %application, uid = self.uid, "an application is refused");
            self.registrations_refused += 1;
            return wire::refusal(FailureCause::ApplicationNotAllowed);
        };
        if self.close_by.is_some() {
            return wire::refusal(FailureCause::Stopping);
        }
        let answer = wire::registered(Code::CREATED, &application, &self.client.config().ue_service_id);
        if self.registration.as_ref().is_some_and(|registration| registration.application == application) {
            return answer;
        }
        // A connection has one application at a time, as one on MSGin5G-1 has one UE.
        self.leave();
        self.replaced = CancellationToken::new();
        let deliveries = self.desk.register(&application, self.id, self.replaced.clone());
        tracing::info!(target: "security", application_id = %application, uid = self.uid, "an application is registered");
        self.registration = Some(Registration {
            tag: Tag::of(&application),
            application,
            config,
            deliveries,
            in_flight: VecDeque::new(),
            answered: VecDeque::new(),
        });
        (self.register_by, self.registrations_refused) = (None, 0);
        answer
    }

    fn deregister(&mut self, application: Option<&ApplicationId>) -> Response {
        let Some(registration) = &self.registration else { return wire::refusal(FailureCause::NotRegistered) };
        if application.is_some_and(|application| *application != registration.application) {
            return wire::refusal(FailureCause::ApplicationNotAllowed);
        }
        let answer = wire::registered(Code::DELETED, &registration.application, &self.client.config().ue_service_id);
        self.leave();
        self.register_by = Some(Instant::now() + self.desk.policy.limits.registration_timeout());
        answer
    }

    /// The application is gone from this connection.
    fn leave(&mut self) {
        let Some(registration) = self.registration.take() else { return };
        let Registration { application, deliveries, in_flight, .. } = registration;
        for in_flight in &in_flight {
            self.coap.cancel(in_flight.exchange);
        }
        let unanswered = in_flight.into_iter().map(|in_flight| in_flight.delivery).collect();
        self.desk.leave(&application, self.id, unanswered, deliveries);
        tracing::info!(application_id = %application, "an application is gone");
    }

    /// Sends a message of the application: the client is its originator (TS 23.554 clause 8.11.4).
    fn send(&mut self, exchange: ExchangeId, message: wire::Message) -> Option<Response> {
        let originator = Address::ue(&self.client.config().ue_service_id);
        let message_id = message.message_id.clone();
        let outgoing = match self.permitted(&originator, message) {
            Ok(outgoing) => outgoing,
            Err(cause) => {
                let refusal = wire::message_refusal(&originator, &message_id, cause);
                let too_fast = cause == FailureCause::RateExceeded;
                return Some(if too_fast { refusal.with_max_age(TOO_FAST_MAX_AGE_SECONDS) } else { refusal });
            }
        };
        let client = self.client.clone();
        let sending = async move {
            let result = client.send(outgoing).await;
            Some((exchange, wire::message_response(&originator, &message_id, result)))
        };
        self.work.push(sending.boxed());
        None
    }

    /// The message as it goes to the server, if the application may send it.
    fn permitted(&self, originator: &Address, message: wire::Message) -> Result<OutgoingMessage, FailureCause> {
        let registration = self.registration.as_ref().ok_or(FailureCause::NotRegistered)?;
        let (application, config) = (&registration.application, &registration.config);
        if message.originator.is_some_and(|claimed| claimed != *originator) {
            tracing::warn!(target: "security", application_id = %application, "an application claims another originator");
            return Err(FailureCause::OriginatorNotAllowed);
        }
        let named = message.application_id.unwrap_or_else(|| application.clone());
        if !config.may_name(application, &named) {
            return Err(FailureCause::ApplicationNotAllowed);
        }
        if !config.may_send_to(&message.destination) {
            return Err(FailureCause::DestinationNotAllowed);
        }
        if !config.may_send_with(message.priority) {
            return Err(FailureCause::PriorityNotAllowed);
        }
        let message_id = registration.tag.put_on(&message.message_id).ok_or(FailureCause::Malformed)?;
        if self.desk.is_too_fast(application, config) {
            return Err(FailureCause::RateExceeded);
        }
        let mut outgoing = OutgoingMessage::to(message.destination, message.payload)
            .message_id(message_id)
            .application_id(named)
            .priority(message.priority);
        if message.delivery_status_required {
            outgoing = outgoing.with_report();
        }
        if message.store_and_forward {
            outgoing = outgoing.store_and_forward(message.expiration_time);
        }
        Ok(outgoing)
    }

    /// A report of the application (TS 24.538 clause A.3.1.2): decides about a message that it has not answered. One that
    /// it has answered was reported on by the client, and cannot fail any more.
    fn report(&mut self, report: &wire::Report) -> Response {
        let Some(registration) = &mut self.registration else { return wire::refusal(FailureCause::NotRegistered) };
        let taken = Response::new(Code::CHANGED);
        let success = match report.delivery_status {
            ReportDeliveryStatus::Success => true,
            ReportDeliveryStatus::Failed => false,
            ReportDeliveryStatus::Other(_) => return wire::refusal(FailureCause::Malformed),
        };
        let named = |delivery: &Delivery| match delivery {
            Delivery::Message(message) => {
                let content = message.content();
                content.originator == report.destination && content.message_id == report.message_id
            }
            Delivery::Report(..) => false,
        };
        if let Some(index) = registration.in_flight.iter().position(|in_flight| named(&in_flight.delivery))
            && let Some(in_flight) = registration.in_flight.remove(index)
        {
            self.coap.cancel(in_flight.exchange);
            self.decided(in_flight.delivery, if success { Decided::Accepted } else { Decided::Refused });
            return taken;
        }
        let known = (report.destination.clone(), report.message_id.clone());
        match (registration.answered.contains(&known), success) {
            (true, true) => taken,
            (true, false) => wire::refusal(FailureCause::Malformed),
            (false, _) => wire::refusal(FailureCause::UnknownTarget),
        }
    }

    fn can_deliver(&self) -> bool {
        let limits = &self.desk.policy.limits;
        let room = self
            .registration
            .as_ref()
            .is_some_and(|registration| registration.in_flight.len() < limits.deliveries_unanswered_max);
        room && self.close_by.is_none() && self.coap.transmit_octets() < limits.outbound_octets_max
    }

    fn deliver(&mut self, delivery: Delivery) {
        let Some(registration) = &mut self.registration else { return };
        let body = match &delivery {
            Delivery::Message(message) => UeMessage::Message(Box::new(message.content().clone())).encode(),
            Delivery::Report(report, message_id) => {
                let mut report = report.content().clone();
                report.message_id.clone_from(message_id);
                UeMessage::DeliveryStatusReport(report).encode()
            }
        };
        let path = self.client.config().path_segments().join("/");
        match self.coap.request(Request::post(&path).content_format(JSON).payload(body)) {
            Ok(exchange) => {
                let deadline = Instant::now() + self.desk.policy.limits.delivery_timeout();
                registration.in_flight.push_back(InFlight { exchange, delivery, deadline });
            }
            Err(coap::StreamError::MessageTooLargeForPeer { octets, octets_max }) => {
                tracing::warn!(octets, octets_max, application_id = %registration.application,
                    "a message is larger than the application takes");
                delivery.refuse();
            }
            Err(_) => self.desk.not_now(&registration.application, delivery),
        }
    }

    /// The application's answer to something delivered; none if it could not be read.
    fn on_response(&mut self, exchange: ExchangeId, code: Option<Code>) {
        let Some(registration) = &mut self.registration else { return };
        let position = registration.in_flight.iter().position(|in_flight| in_flight.exchange == exchange);
        let Some(in_flight) = position.and_then(|position| registration.in_flight.remove(position)) else { return };
        let decided = match code {
            Some(code) if code.is_success() => Decided::Accepted,
            Some(code) if code == Code::TOO_MANY_REQUESTS || code.class() == 5 => Decided::Later,
            Some(_) => Decided::Refused,
            None => Decided::Later,
        };
        self.decided(in_flight.delivery, decided);
    }

    fn decided(&mut self, delivery: Delivery, decided: Decided) {
        let Some(registration) = &mut self.registration else { return };
        match decided {
            Decided::Accepted => {
                if let Delivery::Message(message) = &delivery {
                    let content = message.content();
                    registration.answered.push_back((content.originator.clone(), content.message_id.clone()));
                    if registration.answered.len() > self.desk.policy.limits.answered_max {
                        registration.answered.pop_front();
                    }
                }
                self.work.push(accept(delivery).boxed());
            }
            Decided::Refused => delivery.refuse(),
            Decided::Later => self.desk.not_now(&registration.application, delivery),
        }
    }

    fn on_done(&mut self, done: Option<(ExchangeId, Response)>) {
        if let Some((exchange, response)) = done {
            self.respond(exchange, response);
        }
    }
}

/// What an application says to something delivered.
#[derive(Clone, Copy, Debug)]
enum Decided {
    Accepted,
    Refused,
    Later,
}

async fn accept(delivery: Delivery) -> Option<(ExchangeId, Response)> {
    let accepted = match delivery {
        Delivery::Message(message) => message.accept().await,
        Delivery::Report(report, _) => report.accept().await,
    };
    match accepted {
        Ok(()) | Err(ClientError::Closed) => {}
        // The server delivers it again, and the application sees it twice.
        Err(error) => tracing::error!(%error, "what an application took is not recorded"),
    }
    None
}

async fn next_delivery(registration: &mut Option<Registration>) -> Option<Delivery> {
    match registration {
        Some(registration) => registration.deliveries.recv().await,
        None => None,
    }
}
