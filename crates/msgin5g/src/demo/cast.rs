//! Who plays: devices with the client library, an application server, and devices that keep to no rule.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use akma::{AKid, Fqdn, HomeNetwork, KAf, UaProtocolId, UsimCredentials};
use application::{Acceptance, Access, ApplicationError, ApplicationServerConfig, Incoming, Senders};
use client::{
    AkmaMaterial, Client, ClientConfig, IncomingStream, KeySource, KeySourceError, SoftUsim, SoftUsimConfig, Transport,
};
use coap::{Code, Request, Response, StreamConfig, StreamConnection, StreamEvent};
use futures_util::{FutureExt, future::BoxFuture};
use lab::{Algorithm, LabSubscriber};
use message::{AsServiceId, DecodeLimits, DeliveryStatusReport, ErrorBody, Message, UeMessage, UeServiceId, ts29538};
use sbi::client_credentials::ClientCredentials;
use sbi::naanf::{AkmaAfKeyData, AkmaAfKeyRequest};
use sbi::{CertificateFiles, ClientLimits, PeerName, SbiClient, SbiClientConfig, SbiError, SbiResponse};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
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

/// An application server: the library's, which has no code of the MSGin5G Server.
pub(crate) struct ApplicationServer {
    pub(crate) name: String,
    pub(crate) id: AsServiceId,
    library: application::ApplicationServer,
    incoming: application::IncomingStream,
}

impl ApplicationServer {
    /// One inside the operator's domain: opens its own interface, where the server delivers.
    pub(crate) async fn start(lab: &RunningLab, file: &str) -> Result<Self, Broken> {
        let known = lab.directory().network().application_servers.iter().find(|server| server.name == file);
        let id: AsServiceId = known.ok_or("no such AS")?.as_service_id.parse().map_err(text)?;
        let access = Access::Certificate { server: lab.description().server.api.clone() };
        Self::open(lab, id, lab.directory().certificate(file), access, "server").await
    }

    /// The same for one outside the operator's domain, by its place in `lab.json`: the NEF is all that it reaches.
    pub(crate) async fn start_outside(lab: &RunningLab, number: usize) -> Result<Self, Broken> {
        let own = lab.description().external_application_servers.get(number).ok_or("no such AS outside")?;
        let access = Access::Nef { nef: nef(lab)?, client_id: own.client_id.clone() };
        let id = own.as_service_id.parse().map_err(text)?;
        Self::open(lab, id, lab.directory().outside_certificate(&own.af_id), access, "nef").await
    }

    /// With function `sender` of the lab as the one who delivers.
    async fn open(
        lab: &RunningLab,
        id: AsServiceId,
        tls: CertificateFiles,
        access: Access,
        sender: &str,
    ) -> Result<Self, Broken> {
        let instance = lab.directory().nf_instance_id(sender).map_err(text)?.to_string();
        let senders = Senders::Named(vec![PeerName { nf_instance_id: Some(instance), dns_name: None }]);
        let config = ApplicationServerConfig::new(id.clone(), tls, access, senders);
        let (library, incoming) = application::ApplicationServer::open(config).await.map_err(text)?;
        let name = id.as_str().split('@').next().unwrap_or_default().to_owned();
        Ok(Self { name, id, library, incoming })
    }

    /// Registers at the MSGin5G Server (TS 29.538 clause 5.2).
    pub(crate) async fn register(&self) -> Result<(), Broken> {
        let registered = within("registration of the AS", self.library.register()).await?;
        registered.map_err(|error| format!("the AS is not registered: {error}"))
    }

    /// Sends a message (TS 29.538 clause 5.3).
    pub(crate) async fn send(&self, message: &Message) -> Result<Result<Acceptance, ApplicationError>, Broken> {
        within("a message of the AS", self.library.send(message)).await
    }

    /// The next thing that is delivered to it, a message, which it accepts.
    pub(crate) async fn message(&mut self) -> Result<Message, Broken> {
        match within("a message at the AS", self.incoming.next()).await?.ok_or("the AS is closed")? {
            Incoming::Message(received) => {
                let message = received.content().clone();
                received.accept();
                Ok(message)
            }
            _ => Err("the AS got something else than a message".to_owned()),
        }
    }

    /// The same for a report.
    pub(crate) async fn report(&mut self) -> Result<DeliveryStatusReport, Broken> {
        match within("a report at the AS", self.incoming.next()).await?.ok_or("the AS is closed")? {
            Incoming::Report(received) => {
                let report = received.content().clone();
                received.accept();
                Ok(report)
            }
            _ => Err("the AS got something else than a report".to_owned()),
        }
    }

    /// Closes its interface.
    pub(crate) async fn stop(self) {
        self.library.close().await;
    }
}

/// The NEF's root.
fn nef(lab: &RunningLab) -> Result<String, Broken> {
    lab.description().core.nef.clone().ok_or_else(|| "there is no NEF".to_owned())
}

/// Has the application server of certificate `file` post a message that its library would not: in another's name.
pub(crate) async fn post_forged(
    lab: &RunningLab,
    file: &str,
    message: &Message,
) -> Result<Result<ts29538::MessageDeliveryAck, SbiError>, Broken> {
    let uri = format!("{}/msgs-msgdelivery/v1/deliver-as-message", lab.description().server.api);
    let (http, delivery) = (http(lab, file)?, ts29538::AsMessageDelivery::from(message));
    Ok(within("a forged message", http.post(&uri, &delivery)).await?.and_then(SbiResponse::into_body))
}

/// Has the application function outside with this place in `lab.json` ask the NEF for K_AF (TS 29.522 clause 5.13).
pub(crate) async fn ask_for_key(
    lab: &RunningLab,
    number: usize,
    request: &AkmaAfKeyRequest,
) -> Result<Result<SbiResponse<AkmaAfKeyData>, SbiError>, Broken> {
    let own = lab.description().external_application_servers.get(number).ok_or("no such AS outside")?;
    let (nef, tls) = (nef(lab)?, lab.directory().outside_certificate(&own.af_id));
    let http = SbiClient::new(SbiClientConfig { tls, limits: ClientLimits::default() }).map_err(text)?;
    let tokens = ClientCredentials::new(http.clone(), format!("{nef}/oauth2/token"), own.client_id.clone(), None);
    let http = http.with_tokens(Arc::new(tokens)).for_service("NEF", "");
    within("a question for K_AF", http.post(&format!("{nef}/3gpp-akma/v1/retrieve"), request)).await
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
