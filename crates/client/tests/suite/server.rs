//! A server whose every move the test makes.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use akma::{AKid, AfId, Fqdn, KAkma, k_af};
use client::{AkmaMaterial, Client, ClientConfig, ClientError, IncomingStream, KeySource, KeySourceError};
use coap::{Code, ExchangeId, Request, Response, StreamConfig, StreamConnection, StreamEvent};
use futures_util::{FutureExt, future::BoxFuture};
use message::{Address, DecodeLimits, Message, MessageResponse, Priority, UeMessage, UeServiceId};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use transport::{KeyLookup, LookupLimits, ProvenKey, PskAcceptor, PskServerConfig, SecuredStream, TransportMetrics};

pub(crate) const ME: &str = "meter-1@lab.example";
pub(crate) const OTHER: &str = "valve-2@lab.example";
pub(crate) const FQDN: &str = "server.example";
const PATH: &str = "msgin5g";
const JSON: u16 = 50;
/// Nothing here takes this long; without it a failing test would hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// The keys of a home network: every authentication makes new ones, and only the latest are known.
#[derive(Clone, Default)]
pub(crate) struct HomeNetwork {
    authentications: Arc<AtomicU32>,
    known: Arc<Mutex<HashMap<AKid, KAkma>>>,
}

impl HomeNetwork {
    pub(crate) fn authentications(&self) -> u32 {
        self.authentications.load(Ordering::SeqCst)
    }

    /// The server is to refuse what it took so far.
    pub(crate) fn forget(&self) {
        self.known.lock().unwrap().clear();
    }
}

impl KeySource for HomeNetwork {
    fn obtain<'a>(&'a self, _refused: Option<&'a AKid>) -> BoxFuture<'a, Result<AkmaMaterial, KeySourceError>> {
        let run = self.authentications.fetch_add(1, Ordering::SeqCst);
        let a_kid: AKid = format!("0.{run:064x}@5gc.mnc001.mcc001.3gppnetwork.org").parse().unwrap();
        let k_akma = KAkma::from_bytes([run as u8; 32]);
        let mut known = self.known.lock().unwrap();
        known.clear();
        known.insert(a_kid.clone(), k_akma.clone());
        async move { Ok(AkmaMaterial { a_kid, k_akma, ue_id: None }) }.boxed()
    }
}

impl transport::KeySource for HomeNetwork {
    fn retrieve(
        &self,
        af_id: AfId,
        a_kid: AKid,
    ) -> transport::BoxFuture<'_, Result<Option<ProvenKey>, transport::KeySourceError>> {
        let key = self.known.lock().unwrap().get(&a_kid).map(|k_akma| k_af(k_akma, &af_id));
        Box::pin(async move { Ok(key.map(|k_af| ProvenKey { k_af, expires_at: None, ue_id: None, gpsi: None })) })
    }
}

/// Where clients connect.
pub(crate) struct Server {
    listener: TcpListener,
    acceptor: PskAcceptor,
    pub(crate) address: SocketAddr,
    pub(crate) home: HomeNetwork,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let home = HomeNetwork::default();
        let fqdn: Fqdn = FQDN.parse().unwrap();
        let limits = LookupLimits::default();
        let lookup = KeyLookup::new(Arc::new(home.clone()), fqdn.clone(), limits, TransportMetrics::default());
        let acceptor = PskAcceptor::new(PskServerConfig::new(fqdn), Arc::new(lookup)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, acceptor, address, home }
    }

    /// A configuration for this server, quick to come back.
    pub(crate) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new(self.address.to_string(), FQDN.parse().unwrap(), ME.parse().unwrap());
        config.limits.backoff_first_milliseconds = 20;
        config.limits.backoff_max_milliseconds = 200;
        config.limits.authentication_interval_milliseconds = 0;
        config
    }

    pub(crate) fn config_with_state(&self, directory: &Path) -> ClientConfig {
        let mut config = self.config();
        config.state_dir = Some(directory.to_owned());
        config
    }

    /// The next connection, if its handshake succeeds.
    pub(crate) async fn try_accept(&self) -> Option<Peer> {
        let (stream, source): (TcpStream, _) = patiently(self.listener.accept()).await.unwrap();
        let stream = patiently(self.acceptor.accept(stream, source)).await.ok()?;
        Some(Peer { coap: StreamConnection::new(StreamConfig::default()), stream, ended: false })
    }

    pub(crate) async fn accept(&self) -> Peer {
        self.try_accept().await.expect("the handshake succeeds")
    }

    /// The next connection, registered.
    pub(crate) async fn accept_registered(&self) -> Peer {
        let mut peer = self.accept().await;
        peer.take_registration().await;
        peer
    }

    /// A client that is registered, and its connection.
    pub(crate) async fn connected(&self, config: ClientConfig) -> (Client, IncomingStream, Peer) {
        let (client, incoming) = Client::start(config, self.home.clone()).unwrap();
        let peer = self.accept_registered().await;
        patiently(client.registered()).await.unwrap();
        (client, incoming, peer)
    }
}

/// The server's end of one connection.
pub(crate) struct Peer {
    pub(crate) coap: StreamConnection,
    stream: SecuredStream,
    ended: bool,
}

impl Peer {
    /// The next event; none once the client has closed.
    pub(crate) async fn event(&mut self) -> Option<StreamEvent> {
        patiently(async {
            loop {
                self.flush().await;
                if let Some(event) = self.coap.poll_event() {
                    return Some(event);
                }
                if self.ended {
                    return None;
                }
                let mut octets = [0; 4096];
                match self.stream.read(&mut octets).await {
                    Ok(0) | Err(_) => self.ended = true,
                    Ok(length) => self.coap.receive(&octets[..length]).unwrap(),
                }
            }
        })
        .await
    }

    async fn flush(&mut self) {
        while let Some(octets) = self.coap.poll_transmit() {
            if self.stream.write_all(&octets).await.is_err() {
                self.ended = true;
            }
        }
    }

    /// The next request of the client.
    pub(crate) async fn request(&mut self) -> (ExchangeId, UeMessage) {
        loop {
            match self.event().await.expect("the client sends a request") {
                StreamEvent::Request { request } => {
                    assert_eq!(request.path, [PATH]);
                    assert_eq!(request.method, Code::POST);
                    assert_eq!(request.content_format, Some(JSON));
                    let message = UeMessage::decode(&request.payload, &DecodeLimits::default()).unwrap();
                    return (request.exchange, message);
                }
                StreamEvent::PeerReady { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) async fn message(&mut self) -> (ExchangeId, Message) {
        match self.request().await {
            (exchange, UeMessage::Message(message)) => (exchange, *message),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn take_registration(&mut self) {
        let (exchange, UeMessage::Registration(registration)) = self.request().await else { panic!("no REG") };
        assert_eq!(registration.ue_service_id.as_str(), ME);
        self.respond(exchange, Response::new(Code::CREATED)).await;
    }

    pub(crate) async fn respond(&mut self, exchange: ExchangeId, response: Response) {
        self.coap.respond(exchange, response).unwrap();
        self.flush().await;
    }

    /// Answers a message with a MSGRESP.
    pub(crate) async fn answer(&mut self, exchange: ExchangeId, message: &Message, status: Option<&str>) {
        let response = MessageResponse {
            originator: message.originator.clone(),
            message_id: message.message_id.clone(),
            status: status.map(|status| status.parse().unwrap()),
            failure_cause: status.filter(|status| *status == "DELY_FAILED").map(|_| "TARGET_UNREACHABLE".to_owned()),
            individual: Vec::new(),
        };
        self.respond(exchange, Response::new(Code::CHANGED).with_content_format(JSON).with_payload(response.encode()))
            .await;
    }

    pub(crate) async fn send(&mut self, message: &UeMessage) -> ExchangeId {
        self.post(PATH, Some(JSON), message.encode()).await
    }

    pub(crate) async fn post(&mut self, path: &str, content_format: Option<u16>, payload: Vec<u8>) -> ExchangeId {
        let mut request = Request::post(path).payload(payload);
        if let Some(content_format) = content_format {
            request = request.content_format(content_format);
        }
        let exchange = self.coap.request(request).unwrap();
        self.flush().await;
        exchange
    }

    /// The client's answer to what was sent.
    pub(crate) async fn response(&mut self, exchange: ExchangeId) -> Response {
        loop {
            match self.event().await.expect("the client answers") {
                StreamEvent::Response { exchange: answered, response } if answered == exchange => return response,
                StreamEvent::PeerReady { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Octets as they are.
    pub(crate) async fn write(&mut self, octets: &[u8]) {
        self.flush().await;
        self.stream.write_all(octets).await.unwrap();
    }

    /// Closes the connection without a word.
    pub(crate) async fn hang_up(&mut self) {
        // The client may have closed it already.
        let _ = self.stream.shutdown().await;
    }

    /// Reads nothing and says nothing until the client gives up.
    pub(crate) async fn hang(mut self) {
        let mut octets = [0; 4096];
        while matches!(patiently(self.stream.read(&mut octets)).await, Ok(1..)) {}
    }
}

/// A message from another UE to the client.
pub(crate) fn message_to_me(id: &str, report_wanted: bool) -> UeMessage {
    let other: UeServiceId = OTHER.parse().unwrap();
    UeMessage::Message(Box::new(Message {
        originator: Address::ue(&other),
        destination: Address::ue(&ME.parse().unwrap()),
        recipient: None,
        message_id: id.parse().unwrap(),
        application_id: None,
        delivery_status_required: report_wanted,
        store_and_forward: false,
        expiration_time: None,
        priority: Priority::Middle,
        payload: format!("payload of {id}").into_bytes(),
        segment: None,
        latency: None,
    }))
}

/// The cause in a refusal.
pub(crate) fn cause(response: &Response) -> String {
    let body = message::ErrorBody::decode(&response.payload, &DecodeLimits::default()).unwrap();
    body.failure_cause.unwrap_or_default()
}

pub(crate) async fn patiently<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("the test goes on")
}

/// Waits until the client reports a state of affairs.
pub(crate) async fn until(client: &Client, holds: impl FnMut(&client::ClientStatus) -> bool) {
    patiently(client.watch().wait_for(holds)).await.unwrap();
}

pub(crate) fn is_refused_with(error: &ClientError, expected: &str) -> bool {
    matches!(error, ClientError::RegistrationRefused { cause, .. } if cause == expected)
}
