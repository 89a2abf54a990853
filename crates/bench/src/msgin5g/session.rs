//! A UE that keeps nothing and does at once what it is asked.

use std::collections::{HashMap, VecDeque};

use coap::{Code, ExchangeId, Request, Response, StreamConfig, StreamConnection, StreamEvent};
use message::{Address, DecodeLimits, Message, MessageResponse, Priority, Registration, UeMessage, UeServiceId};
use transport::ClientStream;

use crate::BenchError;
use crate::peer::{Event, Session};
use crate::wire::Wire;

/// A registered UE's connection.
pub(crate) struct UeSession {
    wire: Wire<ClientStream>,
    coap: StreamConnection,
    path: String,
    originator: Address,
    limits: DecodeLimits,
    /// Makes Message IDs that no other connection makes.
    run: u64,
    next: u64,
    outstanding: HashMap<ExchangeId, u64>,
    /// What came before the answer to REG.
    early: VecDeque<Vec<u8>>,
}

impl UeSession {
    pub(super) async fn register(
        stream: ClientStream,
        path: &str,
        ue_service_id: &UeServiceId,
    ) -> Result<Self, BenchError> {
        let mut session = Self {
            wire: Wire::new(stream),
            coap: StreamConnection::new(StreamConfig::default()),
            path: path.to_owned(),
            originator: Address::ue(ue_service_id),
            limits: DecodeLimits::default(),
            run: nanoseconds_now(),
            next: 0,
            outstanding: HashMap::new(),
            early: VecDeque::new(),
        };
        let registration = Registration { ue_service_id: ue_service_id.clone(), client_profile: None };
        let exchange = session.post(&UeMessage::Registration(registration))?;
        loop {
            match session.stream_event().await? {
                StreamEvent::Response { exchange: answered, response } if answered == exchange => {
                    if response.code == Code::CREATED {
                        return Ok(session);
                    }
                    let cause = String::from_utf8_lossy(&response.payload).into_owned();
                    return Err(BenchError::Connection(format!("REG: {} {cause}", response.code)));
                }
                StreamEvent::Request { request } => {
                    let payload = session.receive(&request)?;
                    session.early.extend(payload);
                }
                _ => {}
            }
        }
    }

    fn post(&mut self, message: &UeMessage) -> Result<ExchangeId, BenchError> {
        let request = Request::post(&self.path).content_format(JSON).payload(message.encode());
        self.coap.request(request).map_err(BenchError::connection)
    }

    async fn stream_event(&mut self) -> Result<StreamEvent, BenchError> {
        loop {
            if let Some(event) = self.coap.poll_event() {
                return Ok(event);
            }
            while let Some(octets) = self.coap.poll_transmit() {
                self.wire.outbound().extend_from_slice(&octets);
            }
            self.wire.turn().await?;
            self.coap.receive(self.wire.inbound()).map_err(BenchError::connection)?;
            self.wire.inbound().clear();
        }
    }

    /// Acknowledges what the server delivers, and takes out the payload.
    fn receive(&mut self, request: &Request) -> Result<Option<Vec<u8>>, BenchError> {
        let message = UeMessage::decode(&request.payload, &self.limits).map_err(BenchError::connection)?;
        let (originator, message_id, payload) = match message {
            UeMessage::Message(message) => (message.originator, message.message_id, Some(message.payload)),
            UeMessage::DeliveryStatusReport(report) => (report.originator, report.message_id, None),
            other => return Err(BenchError::Protocol(format!("{other:?} from the server"))),
        };
        let answer =
            MessageResponse { originator, message_id, status: None, failure_cause: None, individual: Vec::new() };
        let response = Response::new(Code::CHANGED).with_content_format(JSON).with_payload(answer.encode());
        self.coap.respond(request.exchange, response).map_err(BenchError::connection)?;
        Ok(payload)
    }

    fn answered(&mut self, number: u64, response: &Response) -> Event {
        let failure = match MessageResponse::decode(&response.payload, &self.limits) {
            Ok(answer) if response.code == Code::CHANGED => answer.failure_cause,
            _ => Some(String::from_utf8_lossy(&response.payload).into_owned()),
        };
        failure.map_or(Event::Taken(number), |cause| Event::Refused(number, format!("{} {cause}", response.code)))
    }
}

impl Session for UeSession {
    fn send(&mut self, to: usize, payload: &[u8]) -> Result<u64, BenchError> {
        self.next += 1;
        let recipient: UeServiceId = format!("bench-{to}@lab.example").parse().map_err(BenchError::connection)?;
        let message = Message {
            originator: self.originator.clone(),
            destination: Address::ue(&recipient),
            recipient: None,
            message_id: format!("{:x}-{}", self.run, self.next).parse().map_err(BenchError::connection)?,
            application_id: None,
            delivery_status_required: false,
            store_and_forward: true,
            expiration_time: None,
            priority: Priority::Middle,
            payload: payload.to_vec(),
            segment: None,
            latency: None,
        };
        let exchange = self.post(&UeMessage::Message(Box::new(message)))?;
        self.outstanding.insert(exchange, self.next);
        Ok(self.next)
    }

    async fn event(&mut self) -> Result<Event, BenchError> {
        if let Some(payload) = self.early.pop_front() {
            return Ok(Event::Received(payload));
        }
        loop {
            match self.stream_event().await? {
                StreamEvent::Response { exchange, response } => {
                    if let Some(number) = self.outstanding.remove(&exchange) {
                        return Ok(self.answered(number, &response));
                    }
                }
                StreamEvent::Request { request } => {
                    if let Some(payload) = self.receive(&request)? {
                        return Ok(Event::Received(payload));
                    }
                }
                _ => {}
            }
        }
    }

    async fn close(mut self) -> Result<(), BenchError> {
        self.coap.release(&coap::Release::default()).map_err(BenchError::connection)?;
        while let Some(octets) = self.coap.poll_transmit() {
            self.wire.outbound().extend_from_slice(&octets);
        }
        self.wire.finish().await
    }
}

fn nanoseconds_now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.as_nanos() as u64
}

/// `application/json` (RFC 7252 clause 12.3).
const JSON: u16 = 50;
