//! Who plays: devices with the client library, an application server, and devices that keep to no rule.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use akma::{AKid, Fqdn, HomeNetwork, KAf, UaProtocolId, UsimCredentials};
use axum::{Router, extract::State, routing::post};
use client::{
    AkmaMaterial, Client, ClientConfig, IncomingStream, KeySource, KeySourceError, SoftUsim, SoftUsimConfig, Transport,
};
use coap::{Code, Request, Response, StreamConfig, StreamConnection, StreamEvent};
use futures_util::{FutureExt, future::BoxFuture};
use lab::{Algorithm, LabSubscriber};
use message::{AsServiceId, DecodeLimits, ErrorBody, Message, UeMessage, UeServiceId, ts29538};
use sbi::client_credentials::ClientCredentials;
use sbi::naanf::{AkmaAfKeyData, AkmaAfKeyRequest};
use sbi::{
    CertificateFiles, ClientLimits, Json, ProblemDetails, SbiClient, SbiClientConfig, SbiResponse, SbiServer,
    SbiServerConfig, ServerLimits,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use transport::{ClientHandshakeError, ClientStream, PskClientConfig, PskConnector};

use crate::lab::RunningLab;

/// Why the story cannot go on.
pub(crate) type Broken = String;

/// How long anything in the demo may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Content-Format of JSON (RFC 7252 clause 12.3).
const JSON: u16 = 50;

/// Waits for `future`, but not forever.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> Result<T, Broken> {
    timeout(PATIENCE, future).await.map_err(|_| format!("{what}: nothing in {} s", PATIENCE.as_secs()))
}

/// A device with a USIM.
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) ue_service_id: UeServiceId,
    pub(crate) subscriber: LabSubscriber,
    usim: SoftUsim,
}

impl Device {
    /// The subscriber with this number in `lab.json`, from 1.
    pub(crate) fn new(lab: &RunningLab, number: usize) -> Result<Self, Broken> {
        let subscriber = number.checked_sub(1).and_then(|index| lab.description().subscribers.get(index)).cloned();
        let subscriber = subscriber.ok_or_else(|| format!("lab.json has no subscriber {number}"))?;
        let directory = lab.directory();
        let home_network: HomeNetwork = directory.home_network().clone();
        // The same file that any client of this subscriber would use, or a second demo would replay sequence numbers.
        let state = directory.state("demo").join(format!("usim-{number}.json"));
        let config = SoftUsimConfig {
            supi: subscriber.supi.clone(),
            credentials: credentials(&subscriber)?,
            routing_indicator: subscriber.routing_indicator.parse().map_err(text)?,
            serving_network: home_network.serving_network_name(),
            home_network,
            ausf: lab.description().core.ausf.clone(),
            state: Some(state),
        };
        let ue_service_id: UeServiceId = subscriber.ue_service_id.parse().map_err(text)?;
        let name = ue_service_id.as_str().split('@').next().unwrap_or_default().to_owned();
        let usim = SoftUsim::new(config, http(lab, "lab-nf")?).map_err(text)?;
        Ok(Self { name, ue_service_id, subscriber, usim })
    }

    /// Runs primary authentication.
    pub(crate) async fn authenticate(&self) -> Result<AkmaMaterial, Broken> {
        let what = format!("primary authentication of {}", self.name);
        within(&what, self.usim.obtain(None)).await?.map_err(|error| format!("{what}: {error}"))
    }

    /// Starts a client under `name` with these keys, and waits until it is registered or refused.
    pub(crate) async fn connect_as(
        &self,
        lab: &RunningLab,
        keys: &AkmaMaterial,
        name: &UeServiceId,
    ) -> Result<Result<(Client, IncomingStream), client::ClientError>, Broken> {
        self.connect_over(lab, keys, name, Transport::Tcp).await
    }

    pub(crate) async fn connect_over(
        &self,
        lab: &RunningLab,
        keys: &AkmaMaterial,
        name: &UeServiceId,
        transport: Transport,
    ) -> Result<Result<(Client, IncomingStream), client::ClientError>, Broken> {
        let server = &lab.description().server;
        let address = match transport {
            Transport::WebSocket => server.coaps_ws.ok_or("the server does not serve WebSocket")?,
            Transport::Udp => server.coaps.ok_or("the server does not serve UDP")?,
            Transport::OscoreUdp => server.coap.ok_or("the server does not serve OSCORE over UDP")?,
            Transport::OscoreTcp => server.coap_tcp.ok_or("the server does not serve OSCORE over TCP")?,
            _ => server.coaps_tcp,
        };
        let mut config = ClientConfig::new(address.to_string(), fqdn(lab)?, name.clone());
        config.transport = transport;
        config.path = server.path.clone();
        self.connect_with(keys, config).await
    }

    /// The same with settings of the caller's.
    pub(crate) async fn connect_with(
        &self,
        keys: &AkmaMaterial,
        mut config: ClientConfig,
    ) -> Result<Result<(Client, IncomingStream), client::ClientError>, Broken> {
        config.limits.backoff_first_milliseconds = 100;
        config.limits.backoff_max_milliseconds = 500;
        within(&format!("registration of {}", self.name), Client::connect(config, OneKey(keys.clone()))).await
    }

    /// Registers under its own name.
    pub(crate) async fn register(
        &self,
        lab: &RunningLab,
        keys: &AkmaMaterial,
    ) -> Result<(Client, IncomingStream), Broken> {
        self.register_over(lab, keys, Transport::Tcp).await
    }

    /// The same over another transport.
    pub(crate) async fn register_over(
        &self,
        lab: &RunningLab,
        keys: &AkmaMaterial,
        transport: Transport,
    ) -> Result<(Client, IncomingStream), Broken> {
        let outcome = self.connect_over(lab, keys, &self.ue_service_id, transport).await?;
        outcome.map_err(|error| format!("{} is not registered: {error}", self.name))
    }
}

/// Keys that were obtained before, and no others: what is refused stays refused.
struct OneKey(AkmaMaterial);

impl KeySource for OneKey {
    fn obtain<'a>(&'a self, refused: Option<&'a AKid>) -> BoxFuture<'a, Result<AkmaMaterial, KeySourceError>> {
        let answer = match refused {
            Some(refused) if *refused == self.0.a_kid => {
                Err(KeySourceError::NothingNewer { origin: "the device".to_owned() })
            }
            _ => Ok(self.0.clone()),
        };
        async move { answer }.boxed()
    }
}

/// An application server: an HTTP/2 server and client with the AS's certificate, and no code of the MSGin5G Server.
pub(crate) struct ApplicationServer {
    pub(crate) name: String,
    pub(crate) id: AsServiceId,
    pub(crate) messages: mpsc::Receiver<Message>,
    pub(crate) reports: mpsc::Receiver<ts29538::DeliveryStatusReport>,
    http: SbiClient,
    api: String,
    target_uri: String,
    shutdown: CancellationToken,
    server: SbiServer,
}

#[derive(Clone)]
struct Desk {
    messages: mpsc::Sender<Message>,
    reports: mpsc::Sender<ts29538::DeliveryStatusReport>,
}

impl ApplicationServer {
    /// Opens the AS's own interface, where the server delivers.
    pub(crate) async fn start(lab: &RunningLab, file: &str) -> Result<Self, Broken> {
        let known = lab.directory().network().application_servers.iter().find(|server| server.name == file);
        let id: AsServiceId = known.ok_or("no such AS")?.as_service_id.parse().map_err(text)?;
        let api = lab.description().server.api.clone();
        Self::open(id, lab.directory().certificate(file), http(lab, file)?, api).await
    }

    /// The same for one outside the operator's domain, by its place in `lab.json`: the NEF is all that it reaches.
    pub(crate) async fn start_outside(lab: &RunningLab, number: usize) -> Result<Self, Broken> {
        let own = lab.description().external_application_servers.get(number).ok_or("no such AS outside")?;
        let nef = lab.description().core.nef.clone().ok_or("there is no NEF")?;
        let tls = lab.directory().outside_certificate(&own.af_id);
        let limits = ClientLimits::default();
        let http = SbiClient::new(SbiClientConfig { tls: tls.clone(), limits }).map_err(text)?;
        let tokens = ClientCredentials::new(http.clone(), format!("{nef}/oauth2/token"), own.client_id.clone(), None);
        let http = http.with_tokens(Arc::new(tokens)).for_service("NEF", "");
        Self::open(own.as_service_id.parse().map_err(text)?, tls, http, nef).await
    }

    async fn open(id: AsServiceId, tls: CertificateFiles, http: SbiClient, api: String) -> Result<Self, Broken> {
        let (message_sender, messages) = mpsc::channel(16);
        let (report_sender, reports) = mpsc::channel(16);
        let router = Router::new()
            .route("/deliver-message", post(take_message))
            .route("/deliver-report", post(take_report))
            .with_state(Desk { messages: message_sender, reports: report_sender });
        let config = SbiServerConfig { listen: ([127, 0, 0, 1], 0).into(), tls, limits: ServerLimits::default() };
        let shutdown = CancellationToken::new();
        let server = SbiServer::start(config, router, shutdown.clone()).await.map_err(text)?;
        Ok(Self {
            name: id.as_str().split('@').next().unwrap_or_default().to_owned(),
            id,
            messages,
            reports,
            http,
            api,
            target_uri: format!("https://{}", server.local_addr()),
            shutdown,
            server,
        })
    }

    /// Registers at the MSGin5G Server (TS 29.538 clause 5.2).
    pub(crate) async fn register(&self) -> Result<(), Broken> {
        let registration = ts29538::AsRegistration {
            as_svc_id: self.id.clone(),
            app_id: None,
            target_uri: Some(self.target_uri.clone()),
            as_prof: None,
        };
        let uri = format!("{}/msgs-asregistration/v1/registrations", self.api);
        let answer =
            within("registration of the AS", self.http.post::<_, ts29538::AsRegistrationAck>(&uri, &registration));
        answer.await?.map(drop).map_err(|error| format!("the AS is not registered: {error}"))
    }

    /// Sends a message (TS 29.538 clause 5.3).
    pub(crate) async fn send(
        &self,
        message: &Message,
    ) -> Result<Result<ts29538::MessageDeliveryAck, sbi::SbiError>, Broken> {
        let uri = format!("{}/msgs-msgdelivery/v1/deliver-as-message", self.api);
        let delivery = ts29538::AsMessageDelivery::from(message);
        let answer =
            within("a message of the AS", self.http.post::<_, ts29538::MessageDeliveryAck>(&uri, &delivery)).await?;
        Ok(answer.and_then(sbi::SbiResponse::into_body))
    }

    /// Asks the NEF for K_AF (TS 29.522 clause 5.13).
    pub(crate) async fn ask_for_key(
        &self,
        request: &AkmaAfKeyRequest,
    ) -> Result<Result<SbiResponse<AkmaAfKeyData>, sbi::SbiError>, Broken> {
        within("a question for K_AF", self.http.post(&format!("{}/3gpp-akma/v1/retrieve", self.api), request)).await
    }

    /// Closes its interface.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.server.stopped().await;
    }
}

/// The server puts segments together before an AS gets them: what it gets is longer than one.
const WHOLE_MESSAGE_OCTETS_MAX: usize = 65_536;

async fn take_message(
    State(desk): State<Desk>,
    Json(delivery): Json<ts29538::UeMessageDelivery>,
) -> Result<Json<ts29538::MessageDeliveryAck>, ProblemDetails> {
    let (ori_addr, msg_id) = (delivery.ori_addr.clone(), delivery.msg_id.clone());
    let message = delivery
        .into_message(&DecodeLimits { payload_octets_max: WHOLE_MESSAGE_OCTETS_MAX, ..DecodeLimits::default() })
        .map_err(|_| ProblemDetails::bad_request(sbi::cause::MANDATORY_IE_INCORRECT))?;
    desk.messages.send(message).await.map_err(|_| ProblemDetails::overloaded(1))?;
    Ok(Json(ts29538::MessageDeliveryAck { ori_addr, msg_id, status: None, failure_cause: None }))
}

async fn take_report(
    State(desk): State<Desk>,
    Json(report): Json<ts29538::DeliveryStatusReport>,
) -> Result<Json<ts29538::MessageDeliveryAck>, ProblemDetails> {
    let (ori_addr, msg_id) = (report.ori_addr.clone(), report.msg_id.clone());
    desk.reports.send(report).await.map_err(|_| ProblemDetails::overloaded(1))?;
    Ok(Json(ts29538::MessageDeliveryAck { ori_addr, msg_id, status: None, failure_cause: None }))
}

/// A connection that sends what it is told to, right or wrong: what an impostor's modem could do.
pub(crate) struct RawConnection {
    stream: ClientStream,
    coap: StreamConnection,
    path: String,
    events: VecDeque<StreamEvent>,
}

impl RawConnection {
    /// Opens MSGin5G-1 with this A-KID and whatever key `key` gives.
    pub(crate) async fn open(
        lab: &RunningLab,
        a_kid: &AKid,
        key: impl Fn(UaProtocolId) -> KAf,
    ) -> Result<Result<Self, ClientHandshakeError>, Broken> {
        let server = &lab.description().server;
        let connector = PskConnector::new(PskClientConfig::default()).map_err(text)?;
        let tcp = TcpStream::connect(server.coaps_tcp).await.map_err(text)?;
        let name = fqdn(lab)?;
        let handshake = connector.connect(tcp, &name, a_kid, key);
        let outcome = within("a handshake", handshake).await?;
        Ok(outcome.map(|stream| Self {
            stream,
            coap: StreamConnection::new(StreamConfig::default()),
            path: server.path.clone(),
            events: VecDeque::new(),
        }))
    }

    /// Sends one request and waits for its answer: response code and failure cause.
    pub(crate) async fn request(&mut self, message: &UeMessage) -> Result<(Code, String), Broken> {
        within("an answer", self.exchange(message.encode())).await?
    }

    async fn exchange(&mut self, body: Vec<u8>) -> Result<(Code, String), Broken> {
        let request = Request::post(&self.path).content_format(JSON).payload(body);
        let wanted = self.coap.request(request).map_err(text)?;
        loop {
            while let Some(octets) = self.coap.poll_transmit() {
                self.stream.write_all(&octets).await.map_err(text)?;
            }
            self.stream.flush().await.map_err(text)?;
            while let Some(event) = self.coap.poll_event() {
                self.events.push_back(event);
            }
            while let Some(event) = self.events.pop_front() {
                match event {
                    StreamEvent::Response { exchange, response } if exchange == wanted => {
                        return Ok((response.code, cause(&response)));
                    }
                    StreamEvent::Aborted { diagnostic, .. } => return Err(format!("aborted: {diagnostic}")),
                    _ => {}
                }
            }
            let mut octets = [0; 4096];
            let count = self.stream.read(&mut octets).await.map_err(text)?;
            let received = octets.get(..count).filter(|received| !received.is_empty());
            self.coap.receive(received.ok_or("the server closed the connection")?).map_err(text)?;
        }
    }
}

fn cause(response: &Response) -> String {
    ErrorBody::decode(&response.payload, &DecodeLimits::default())
        .ok()
        .and_then(|body| body.failure_cause)
        .unwrap_or_default()
}

/// An HTTP/2 client with the certificate of `name`.
fn http(lab: &RunningLab, name: &str) -> Result<SbiClient, Broken> {
    let tls = lab.directory().certificate(name);
    SbiClient::new(SbiClientConfig { tls, limits: ClientLimits::default() }).map_err(text)
}

/// The server's name.
pub(crate) fn fqdn(lab: &RunningLab) -> Result<Fqdn, Broken> {
    lab.description().server.fqdn.parse().map_err(text)
}

fn credentials(subscriber: &LabSubscriber) -> Result<UsimCredentials, Broken> {
    let (k, opc) = (subscriber.k.expose(), subscriber.opc.expose());
    let length = |_| "lab.json: a key has a wrong length".to_owned();
    match subscriber.algorithm {
        Algorithm::Tuak => UsimCredentials::tuak_topc(k, opc.try_into().map_err(length)?).map_err(text),
        _ => Ok(UsimCredentials::milenage_opc(k.try_into().map_err(length)?, opc.try_into().map_err(length)?)),
    }
}

/// An error in words.
pub(crate) fn text(error: impl std::fmt::Display) -> Broken {
    error.to_string()
}
