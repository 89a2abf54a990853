//! Between a driver's CoAP and the server's HTTP.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use coap::{Code, ExchangeId, Request, Response, StreamConfig, StreamConnection, StreamEvent, StreamLimits};
use http::{Method, StatusCode};
use message::{DecodeLimits, ErrorBody, FailureCause, UeMessage};
use sbi::{DeviceResponse, EventStream, PROBLEM_JSON, SbiError, ServerSentEvent};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, split},
    sync::mpsc,
    task::JoinSet,
};

use super::proof::{Proof, Server};
use crate::{limits::ClientLimits, session::stream_config};

/// Content-Format of JSON.
const JSON: u16 = 50;

/// Octets of one event that are read.
const EVENT_OCTETS_MAX: usize = 262_144;

/// Events that wait for the driver.
const EVENTS_MAX: usize = 64;

/// What the workers tell the gateway.
enum News {
    /// An answer to a request of the driver.
    Answered(ExchangeId, Response),
    /// A delivery.
    Event(ServerSentEvent),
    /// The server is gone, or does not take the keys any more.
    Over(String),
}

/// What one worker is to send.
struct Job {
    target: String,
    body: Vec<u8>,
    /// Who waits for the answer; nobody for that to an acknowledgement.
    exchange: Option<ExchangeId>,
}

/// One connection's gateway.
pub(super) struct Gateway {
    server: Arc<Server>,
    machine: StreamConnection,
    reader: ReadHalf<DuplexStream>,
    writer: WriteHalf<DuplexStream>,
    /// Deliveries that the driver has not answered: their identifiers and messages.
    deliveries: HashMap<ExchangeId, ServerSentEvent>,
    /// REG requests under way.
    registrations: Vec<ExchangeId>,
    listens: bool,
    requests: mpsc::Sender<Job>,
    acknowledgements: mpsc::Sender<Job>,
    news: mpsc::Receiver<News>,
    told: mpsc::Sender<News>,
    /// Ends with the gateway.
    workers: JoinSet<()>,
}

impl Gateway {
    pub(super) fn new(server: Arc<Server>, stream: DuplexStream, limits: &ClientLimits) -> Self {
        let own = stream_config(limits);
        // The other end of the driver's, so what it may have open is what we may be asked.
        let config = StreamConfig {
            max_message_size_own: own.max_message_size_own,
            limits: StreamLimits {
                requests_outstanding_max: own.limits.peer_requests_outstanding_max,
                peer_requests_outstanding_max: own.limits.requests_outstanding_max,
                ..own.limits
            },
        };
        let (told, news) = mpsc::channel(EVENTS_MAX);
        let (requests, of_requests) = mpsc::channel(own.limits.requests_outstanding_max);
        let (acknowledgements, of_acknowledgements) = mpsc::channel(own.limits.peer_requests_outstanding_max);
        let mut workers = JoinSet::new();
        workers.spawn(work(Proof::new(Arc::clone(&server)), of_requests, told.clone()));
        workers.spawn(work(Proof::new(Arc::clone(&server)), of_acknowledgements, told.clone()));
        let (reader, writer) = split(stream);
        Self {
            server,
            machine: StreamConnection::new(config),
            reader,
            writer,
            deliveries: HashMap::new(),
            registrations: Vec::new(),
            listens: false,
            requests,
            acknowledgements,
            news,
            told,
            workers,
        }
    }

    /// Runs until either side is gone.
    pub(super) async fn run(mut self) {
        let (mut inbound, mut outbound) = (BytesMut::new(), Bytes::new());
        loop {
            while let Some(event) = self.machine.poll_event() {
                self.handle(event);
            }
            if outbound.is_empty()
                && let Some(octets) = self.machine.poll_transmit()
            {
                outbound = octets.into();
            }
            inbound.reserve(super::STREAM_OCTETS);
            tokio::select! {
                read = self.reader.read_buf(&mut inbound) => match read {
                    Ok(1..) if self.machine.receive(&inbound.split()).is_ok() => {}
                    _ => return,
                },
                written = self.writer.write_buf(&mut outbound), if outbound.has_remaining() => {
                    if written.is_err() {
                        return;
                    }
                }
                // There is a sender here.
                Some(news) = self.news.recv() => match news {
                    News::Answered(exchange, response) => self.answered(exchange, &response),
                    News::Event(event) => self.deliver(event),
                    News::Over(reason) => {
                        tracing::info!(reason, "the exchange over HTTPS is over");
                        return;
                    }
                },
            }
        }
    }

    fn handle(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Request { request } => self.ask(request),
            StreamEvent::Response { exchange, response } => self.acknowledge(exchange, &response),
            StreamEvent::Failed { exchange, .. } => {
                self.acknowledge(exchange, &Response::new(Code::INTERNAL));
            }
            _ => {}
        }
    }

    fn ask(&mut self, request: Request) {
        let exchange = request.exchange;
        if matches!(UeMessage::decode(&request.payload, &DecodeLimits::default()), Ok(UeMessage::Registration(_))) {
            self.registrations.push(exchange);
        }
        let job = Job { target: self.server.path.clone(), body: request.payload, exchange: Some(exchange) };
        // As many places as the driver may have requests open.
        if self.requests.try_send(job).is_err() {
            let _ = self.machine.respond(exchange, refusal(FailureCause::Overloaded));
        }
    }

    fn answered(&mut self, exchange: ExchangeId, response: &Response) {
        let registered = self.registrations.contains(&exchange) && response.code.is_success();
        self.registrations.retain(|registration| *registration != exchange);
        // The driver may have given up waiting.
        let _ = self.machine.respond(exchange, response);
        if registered && !self.listens {
            self.listens = true;
            self.workers.spawn(listen(Proof::new(Arc::clone(&self.server)), self.told.clone()));
        }
    }

    fn deliver(&mut self, event: ServerSentEvent) {
        let path = self.server.path.clone();
        match self.machine.request(Request::post(&path).content_format(JSON).payload(event.data.as_bytes())) {
            Ok(exchange) => drop(self.deliveries.insert(exchange, event)),
            // Not acknowledged, so the server keeps it.
            Err(error) => tracing::warn!(%error, "a delivery does not reach the client"),
        }
    }

    fn acknowledge(&mut self, exchange: ExchangeId, response: &Response) {
        let Some(event) = self.deliveries.remove(&exchange) else { return };
        let target = format!("{}/events/{}", self.server.path, event.id);
        let job = Job { target, body: said(&event.data, response), exchange: None };
        // As many places as there are deliveries.
        let _ = self.acknowledgements.try_send(job);
    }
}

/// The answer to a delivery as MSGRESP: with the driver's own words, or without any where all is well.
fn said(delivery: &str, response: &Response) -> Vec<u8> {
    if response.code.is_success() {
        return response.payload.clone();
    }
    let later = response.code == Code::TOO_MANY_REQUESTS || response.code.class() == 5;
    let cause = ErrorBody::decode(&response.payload, &DecodeLimits::default()).ok().and_then(|body| body.cause());
    let is_later = |cause: &FailureCause| Code::from_octet(cause.coap_code()).class() == 5;
    let cause = match cause {
        Some(cause) if later == is_later(&cause) => cause,
        _ if later => FailureCause::Overloaded,
        _ => FailureCause::Malformed,
    };
    let delivery: Value = serde_json::from_str(delivery).unwrap_or_default();
    json!({
        "msgType": "MSGRESP", "oriAddr": delivery.get("oriAddr"), "msgId": delivery.get("msgId"),
        "status": "DELY_FAILED", "failureCause": cause.as_str(),
    })
    .to_string()
    .into_bytes()
}

/// Sends one job after the other.
async fn work(mut proof: Proof, mut jobs: mpsc::Receiver<Job>, told: mpsc::Sender<News>) {
    while let Some(Job { target, body, exchange }) = jobs.recv().await {
        let news = match proof.send(Method::POST, &target, None, body).await {
            Ok(response) if response.status == StatusCode::UNAUTHORIZED => {
                News::Over("the server does not take the keys any more".to_owned())
            }
            Ok(response) => match (exchange, response_of(response).await) {
                (Some(exchange), Ok(Some(response))) => News::Answered(exchange, response),
                // The driver sends it again under its Message ID, on the next.
                (_, Ok(None)) => News::Over("the session ended before there was an answer".to_owned()),
                (None, Ok(Some(_))) => continue,
                (_, Err(error)) => News::Over(error.to_string()),
            },
            Err(error) => News::Over(error.to_string()),
        };
        if told.send(news).await.is_err() {
            return;
        }
    }
}

/// Reads events as long as they come.
async fn listen(mut proof: Proof, told: mpsc::Sender<News>) {
    let reason = match read_events(&mut proof, &told).await {
        Ok(()) => "the server ended the stream of events".to_owned(),
        Err(error) => error.to_string(),
    };
    let _ = told.send(News::Over(reason)).await;
}

async fn read_events(proof: &mut Proof, told: &mpsc::Sender<News>) -> Result<(), SbiError> {
    let target = proof.events();
    let mut response = proof.send(Method::GET, &target, Some("text/event-stream"), Vec::new()).await?;
    if response.status != StatusCode::OK {
        return Err(SbiError::Malformed(format!("{} in the place of events", response.status)));
    }
    let mut events = EventStream::new(EVENT_OCTETS_MAX);
    while let Some(octets) = response.body.chunk().await? {
        events.push(&octets).map_err(|error| SbiError::Malformed(error.to_string()))?;
        while let Some(event) = events.next_event() {
            if told.send(News::Event(event)).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// A status and the cause that its body names, if any.
pub(super) async fn cause_of(response: DeviceResponse) -> (StatusCode, Option<String>) {
    let status = response.status;
    let body: Option<Value> = response.body.whole().await.ok().and_then(|octets| serde_json::from_slice(&octets).ok());
    let text = |name: &str| body.as_ref()?.get(name)?.as_str().map(str::to_owned);
    (status, text("cause").or_else(|| text("failureCause")))
}

/// An HTTP answer as the CoAP one that it was made of (RFC 8075), if it was made of one ([`answer`]).
async fn response_of(response: DeviceResponse) -> Result<Option<Response>, SbiError> {
    let (status, retry_after) = (response.status, response.header("retry-after").and_then(|text| text.parse().ok()));
    let is_problem = response.header("content-type").is_some_and(|media_type| media_type.starts_with(PROBLEM_JSON));
    let answer = answer(status, is_problem, response.body.whole().await?);
    Ok(answer.map(|mut answer| {
        answer.max_age = retry_after;
        answer
    }))
}

/// The cause says what the status does not. None where it is that the server's session ended before it had an answer: nothing
/// is known of what was asked, and it may come again.
fn answer(status: StatusCode, is_problem: bool, body: Vec<u8>) -> Option<Response> {
    let value: Value = serde_json::from_slice(&body).unwrap_or_default();
    let cause = value.get(if is_problem { "cause" } else { "failureCause" }).and_then(Value::as_str);
    let code = match (status.is_success(), cause.and_then(|cause| cause.parse::<FailureCause>().ok())) {
        (false, Some(FailureCause::NoAnswer)) if is_problem => return None,
        (false, Some(cause)) => Code::from_octet(cause.coap_code()),
        _ => code_of(status),
    };
    let payload = if is_problem { ErrorBody { failure_cause: cause.map(str::to_owned) }.encode() } else { body };
    Some(Response::new(code).with_content_format(JSON).with_payload(payload))
}

fn code_of(status: StatusCode) -> Code {
    match status {
        StatusCode::CREATED => Code::CREATED,
        StatusCode::FORBIDDEN => Code::FORBIDDEN,
        StatusCode::NOT_FOUND => Code::NOT_FOUND,
        StatusCode::PAYLOAD_TOO_LARGE => Code::REQUEST_ENTITY_TOO_LARGE,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::UNSUPPORTED_CONTENT_FORMAT,
        StatusCode::TOO_MANY_REQUESTS => Code::TOO_MANY_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => Code::SERVICE_UNAVAILABLE,
        other if other.is_success() => Code::CHANGED,
        other if other.is_client_error() => Code::BAD_REQUEST,
        _ => Code::INTERNAL,
    }
}

fn refusal(cause: FailureCause) -> Response {
    Response::new(Code::from_octet(cause.coap_code())).with_content_format(JSON).with_payload(message::failure(&cause))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DELIVERY: &str = r#"{"msgType":"MSG","oriAddr":{"addrType":"UE","addr":"a"},"msgId":"m-1"}"#;

    #[test]
    fn no_answer_is_none_and_every_other_cause_is_one() {
        let problem = |cause: &str| json!({"status": 503, "cause": cause}).to_string().into_bytes();
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        assert!(answer(unavailable, true, problem("NO_ANSWER")).is_none());
        let overloaded = answer(unavailable, true, problem("OVERLOADED")).unwrap();
        assert_eq!(
            (overloaded.code, overloaded.payload),
            (Code::SERVICE_UNAVAILABLE, message::failure(&FailureCause::Overloaded))
        );
        // As the outcome of a message it is one.
        let outcome = json!({"msgId": "m-1", "failureCause": "NO_ANSWER"}).to_string().into_bytes();
        assert_eq!(answer(StatusCode::GATEWAY_TIMEOUT, false, outcome.clone()).unwrap().payload, outcome);
    }

    #[test]
    fn what_the_driver_says_of_a_delivery_is_said_in_the_servers_terms() {
        assert!(said(DELIVERY, &Response::new(Code::CHANGED)).is_empty());
        let said_as = |code: Code, cause: Option<FailureCause>| {
            let payload = cause.map(|cause| message::failure(&cause)).unwrap_or_default();
            let text = said(DELIVERY, &Response::new(code).with_payload(payload));
            let response = message::MessageResponse::decode(&text, &DecodeLimits::default()).unwrap();
            assert_eq!(response.message_id.as_str(), "m-1");
            response.failure_cause.unwrap()
        };
        assert_eq!(said_as(Code::SERVICE_UNAVAILABLE, Some(FailureCause::ReassemblyFull)), "REASSEMBLY_FULL");
        assert_eq!(said_as(Code::SERVICE_UNAVAILABLE, None), "OVERLOADED");
        assert_eq!(said_as(Code::NOT_FOUND, Some(FailureCause::UnknownTarget)), "UNKNOWN_TARGET");
        assert_eq!(said_as(Code::BAD_REQUEST, None), "MALFORMED");
    }
}
