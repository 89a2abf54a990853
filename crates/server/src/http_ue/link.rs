//! A device's connection of MSGin5G-1: the client's end of CoAP (RFC 8323) over octets in memory, whose other end is a session.
//!
//! ```text
//! opened ─▶ REG repeated, if there was one ─▶ requests ⇄ responses, deliveries ─▶ outbox ─▶ acknowledgements
//!                      └ refused: what waits is refused the same                       │
//!                                    nobody listens for a while: "not now", then closed ┘
//! ```
//!
//! The session's reason to end says what the device still has: its key, its registration, or neither.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use coap::{Code, ExchangeId, Request, Response, StreamConfig, StreamConnection, StreamEvent, StreamLimits};
use message::{Address, FailureCause, UeServiceId};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use transport::{ProvenPeer, StreamCarrier};

use super::Front;
use super::devices::{Device, Registered};
use super::outbox::Outbox;
use crate::listener;
use crate::session::{self, Ended};

/// Octets under way in each direction.
const STREAM_OCTETS: usize = 16_384;

/// Content-Format of JSON.
const JSON: u16 = 50;

/// Room for header and options of one CoAP message beside its payload.
const COAP_OVERHEAD_OCTETS: u32 = 1024;

/// When a delivery that nobody listens for is to be tried again, seconds.
const NOT_NOW_SECONDS: u32 = 1;

/// How a link is reached.
#[derive(Clone)]
pub(super) struct LinkHandle {
    pub(super) commands: mpsc::Sender<Command>,
}

/// What a request wants of the link.
pub(super) enum Command {
    /// A request of MSGin5G-1, and what it would change.
    Request { body: Bytes, change: Change, answer: oneshot::Sender<Response> },
    /// To be told of deliveries; refused where nobody is registered.
    Listen { outbox: oneshot::Sender<Result<Arc<Outbox>, Response>> },
    /// An answer to a delivery; false if it is not waited for.
    Acknowledge { id: String, response: Response, taken: oneshot::Sender<bool> },
}

/// What a request changes once it is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Nothing,
    /// The request again, without what is of no meaning: it is kept.
    Register(UeServiceId, Bytes),
    Deregister,
}

/// A request that waits for its response.
struct Waiting {
    change: Change,
    answer: oneshot::Sender<Response>,
}

/// Opens a link whose first words repeat `registration`.
pub(super) fn open(
    front: &Arc<Front>,
    device: &Arc<Device>,
    peer: ProvenPeer,
    source: IpAddr,
    registration: Option<Registered>,
) -> LinkHandle {
    let (near, far) = duplex(STREAM_OCTETS);
    let (core, path) = (Arc::clone(&front.core), Arc::clone(&front.path));
    let carrier = Box::new(StreamCarrier::new(far, session::stream_config(&core.limits)));
    let session = front.core.tasks.spawn(async move { listener::serve(&core, carrier, peer, source, path).await });
    let (commands, inbox) = mpsc::channel(front.limits.requests_per_device_max);
    let link = Link::new(Arc::clone(front), Arc::clone(device), near, registration.is_some());
    front.core.tasks.spawn(async move {
        let (device, ended) = link.run(inbox, registration).await;
        let ended = match ended {
            End::Left => Ended::ByPeer,
            // Its end of the stream is gone; it says why, unless something in it panicked.
            End::Lost => session.await.unwrap_or(Ended::Broken),
        };
        conclude(&device, ended);
    });
    LinkHandle { commands }
}

/// What the device keeps.
fn conclude(device: &Device, ended: Ended) {
    match ended {
        Ended::KeyExpired | Ended::KeyWithdrawn | Ended::ServiceDisabled | Ended::NotRevalidated => device.disprove(),
        Ended::Replaced | Ended::Deregistered | Ended::AssociationRemoved | Ended::TooMany => device.registered(None),
        // As after a lost connection: it comes back by itself.
        _ => {}
    }
}

/// Why a link is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Nobody needs it now.
    Left,
    /// The session ended.
    Lost,
}

struct Link {
    front: Arc<Front>,
    device: Arc<Device>,
    reader: ReadHalf<DuplexStream>,
    writer: WriteHalf<DuplexStream>,
    machine: StreamConnection,
    inbound: BytesMut,
    outbound: Bytes,
    waiting: HashMap<ExchangeId, Waiting>,
    /// The repeated registration.
    registering: Option<ExchangeId>,
    registered: bool,
    /// What came of it, if it was refused.
    refusal: Option<Response>,
    outbox: Arc<Outbox>,
    /// Until then the device counts as listening, though nobody does.
    attentive_until: Instant,
    /// When it last asked for something.
    asked_at: Instant,
    released: bool,
}

impl Link {
    fn new(front: Arc<Front>, device: Arc<Device>, stream: DuplexStream, registered: bool) -> Self {
        let limits = &front.core.limits;
        let message_octets = u32::try_from(limits.message_octets_max).unwrap_or(u32::MAX);
        let machine = StreamConnection::new(StreamConfig {
            max_message_size_own: message_octets.saturating_add(COAP_OVERHEAD_OCTETS),
            limits: StreamLimits {
                requests_outstanding_max: front.limits.requests_per_device_max.saturating_add(1),
                // The session's window is reached first.
                peer_requests_outstanding_max: limits.delivery_window.saturating_mul(2),
                transmit_octets_max: limits.outbound_octets_max.saturating_mul(2),
                ..StreamLimits::default()
            },
        });
        let now = Instant::now();
        let (reader, writer) = split(stream);
        Self {
            front,
            device,
            reader,
            writer,
            machine,
            inbound: BytesMut::new(),
            outbound: Bytes::new(),
            waiting: HashMap::new(),
            registering: None,
            registered,
            refusal: None,
            outbox: Outbox::new(),
            attentive_until: now,
            asked_at: now,
            released: false,
        }
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Command>, registration: Option<Registered>) -> (Arc<Device>, End) {
        if let Some(registration) = registration {
            let request = Request::post(&self.front.path).content_format(JSON).payload(registration.body.as_ref());
            self.registering = self.machine.request(request).ok();
        }
        let mut changes = self.outbox.changes();
        let end = loop {
            while let Some(event) = self.machine.poll_event() {
                self.handle(event);
            }
            if self.outbound.is_empty()
                && let Some(octets) = self.machine.poll_transmit()
            {
                self.outbound = octets.into();
            }
            if self.released && self.is_settled() {
                break End::Lost;
            }
            let now = Instant::now();
            self.take_back_if_unheard(now);
            let close_at = self.idle_since().map(|since| since + self.front.limits.listen_gap());
            if close_at.is_some_and(|at| at <= now) && self.device.give_up(|| inbox.is_empty()) {
                break End::Left;
            }
            let due = [close_at, self.unheard_at()].into_iter().flatten().filter(|at| *at > now).min();
            self.inbound.reserve(STREAM_OCTETS);
            let room = self.waiting.len() < self.front.limits.requests_per_device_max;
            tokio::select! {
                read = self.reader.read_buf(&mut self.inbound) => match read {
                    Ok(1..) => {
                        let octets = self.inbound.split();
                        if self.machine.receive(&octets).is_err() {
                            break End::Lost;
                        }
                    }
                    _ => break End::Lost,
                },
                written = self.writer.write_buf(&mut self.outbound), if self.outbound.has_remaining() => {
                    if written.is_err() {
                        break End::Lost;
                    }
                }
                // What waits for a registration to be repeated comes after it.
                command = inbox.recv(), if self.registering.is_none() && room => match command {
                    Some(command) => self.take(command),
                    // The device was disproven, or is another UE.
                    None => break End::Left,
                },
                _ = changes.changed() => self.listeners_changed(),
                () = sleep_until(due.unwrap_or(now)), if due.is_some() => {}
            }
        };
        self.outbox.close();
        (self.device, end)
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Request { body, change, answer } => self.ask(&body, Waiting { change, answer }),
            Command::Listen { outbox } => {
                let granted = match &self.refusal {
                    Some(refusal) => Err(refusal.clone()),
                    None if self.registered && !self.released => Ok(Arc::clone(&self.outbox)),
                    None => Err(refused(FailureCause::NotRegistered)),
                };
                if granted.is_ok() {
                    self.be_attentive();
                }
                // Whoever asked may have left.
                let _ = outbox.send(granted);
            }
            Command::Acknowledge { id, response, taken } => {
                let exchange = self.outbox.acknowledge(&id);
                let known = exchange.is_some_and(|exchange| self.machine.respond(exchange, &response).is_ok());
                if known {
                    self.front.metrics.acknowledged();
                    self.asked_at = Instant::now();
                }
                let _ = taken.send(known);
            }
        }
    }

    fn ask(&mut self, body: &[u8], waiting: Waiting) {
        self.asked_at = Instant::now();
        if let Some(refusal) = self.refusal.as_ref().filter(|_| !matches!(waiting.change, Change::Register(..))) {
            let _ = waiting.answer.send(refusal.clone());
            return;
        }
        let request = Request::post(&self.front.path).content_format(JSON).payload(body);
        match self.machine.request(request) {
            Ok(exchange) => drop(self.waiting.insert(exchange, waiting)),
            Err(coap::StreamError::MessageTooLargeForPeer { .. }) => {
                drop(waiting.answer.send(refused(FailureCause::PayloadTooLarge)));
            }
            Err(_) => drop(waiting.answer.send(refused(FailureCause::Overloaded).with_max_age(NOT_NOW_SECONDS))),
        }
    }

    fn handle(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Request { request } => self.deliver(request),
            StreamEvent::Response { exchange, response } if self.registering == Some(exchange) => {
                self.registering = None;
                self.repeated(response);
            }
            StreamEvent::Response { exchange, response } => self.answered(exchange, response),
            StreamEvent::Failed { exchange, .. } => self.answered(exchange, refused(FailureCause::Internal)),
            StreamEvent::Released { .. } => {
                self.released = true;
                self.not_now();
                self.outbox.close();
            }
            _ => {}
        }
    }

    /// The registration of before was asked for again.
    fn repeated(&mut self, response: Response) {
        if response.code.is_success() {
            return self.keep_registration(None);
        }
        self.registered = false;
        if response.code.class() == 4 {
            // Not granted any more; its own words say so better than those of a request that needs it.
            self.device.registered(None);
        }
        let cause = message::ErrorBody::decode(&response.payload, &self.front.core.decode_limits);
        let cause = cause.ok().and_then(|body| body.cause()).unwrap_or(FailureCause::NotRegistered);
        self.refusal = Some(response.with_payload(message::failure(&cause)));
    }

    fn answered(&mut self, exchange: ExchangeId, response: Response) {
        let Some(waiting) = self.waiting.remove(&exchange) else { return };
        self.asked_at = Instant::now();
        match (&waiting.change, response.code.is_success()) {
            (Change::Register(id, body), true) => {
                self.refusal = None;
                self.registered = true;
                self.keep_registration(Some((body.clone(), Address::ue(id))));
                self.be_attentive();
            }
            (Change::Deregister, true) => {
                self.registered = false;
                self.device.registered(None);
            }
            _ => {}
        }
        let _ = waiting.answer.send(response);
    }

    /// Notes the registration that the session has now, under its new generation.
    fn keep_registration(&self, new: Option<(Bytes, Address)>) {
        self.device.update_registration(new, &self.front.core.registry);
    }

    fn deliver(&mut self, request: Request) {
        if self.released || !self.is_attentive(Instant::now()) {
            let _ = self.machine.respond(request.exchange, not_now());
            return;
        }
        self.outbox.add(request.exchange, request.payload.into());
    }

    fn not_now(&mut self) {
        for exchange in self.outbox.take_back() {
            let _ = self.machine.respond(exchange, not_now());
        }
    }

    fn listeners_changed(&mut self) {
        if let Some(left_at) = self.outbox.left_at() {
            self.attentive_until = self.attentive_until.max(left_at + self.front.limits.listen_gap());
        }
    }

    fn be_attentive(&mut self) {
        self.attentive_until = Instant::now() + self.front.limits.listen_gap();
    }

    fn is_attentive(&self, now: Instant) -> bool {
        self.outbox.is_listened_to() || now < self.attentive_until
    }

    /// When what waits for a listener has waited for long enough, if nobody listens.
    fn unheard_at(&self) -> Option<Instant> {
        (!self.outbox.is_listened_to()).then_some(self.attentive_until)
    }

    fn take_back_if_unheard(&mut self, now: Instant) {
        if !self.is_attentive(now) {
            self.not_now();
        }
    }

    /// Since when nothing keeps the link.
    fn idle_since(&self) -> Option<Instant> {
        let idle = !self.outbox.is_listened_to() && self.waiting.is_empty() && self.registering.is_none();
        idle.then(|| self.asked_at.max(self.attentive_until))
    }

    fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.outbound.is_empty() && self.machine.transmit_octets() == 0
    }
}

fn refused(cause: FailureCause) -> Response {
    Response::new(Code::from_octet(cause.coap_code())).with_content_format(JSON).with_payload(message::failure(&cause))
}

/// "Not now", to the session: it stores or fails what it can, and asks again later.
fn not_now() -> Response {
    Response::new(Code::SERVICE_UNAVAILABLE).with_max_age(NOT_NOW_SECONDS)
}
