//! Devices over DTLS, and a server for them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use akma::{AfId, Fqdn, PskIdentity, Separator, UaProtocolId, k_af};
use coap::{Code, Request, Response};
use dtls::{ClientConfig, PresharedKey};
use lab::LabJson;
use message::{Address, DecodeLimits, Message, MessageResponse, Priority, Registration, UeMessage, UeServiceId};
use tempfile::TempDir;

use super::programs::{Core, ServerProcess};
use super::read_lab;
use super::users::{self, User};
use crate::datagram::{DatagramPeer, Dtls, KeyOf, Link};
use crate::process::Process;
use crate::programs::find_or_build;
use crate::{Arguments, BenchError};

/// Where a server is, and what all devices have in common.
pub(super) struct Server {
    address: SocketAddr,
    fqdn: Fqdn,
    path: String,
    /// Makes Message IDs that no device made before.
    sent: AtomicU64,
}

impl Server {
    pub(super) fn new(address: SocketAddr, lab: &LabJson) -> Result<Self, BenchError> {
        let fqdn = lab.server.fqdn.parse().map_err(|_| BenchError::Provision("server.fqdn of lab.json".to_owned()))?;
        Ok(Self { address, fqdn, path: lab.server.path.clone(), sent: AtomicU64::new(0) })
    }

    /// A handshake with what `offer` makes of the identity.
    pub(super) async fn handshake(
        &self,
        device: usize,
        user: &User,
        offer: impl Fn(&[u8]) -> ClientConfig,
    ) -> Result<Link, BenchError> {
        let mut config = offer(&PskIdentity::encode(&user.keys.a_kid, Separator::default()));
        config.server_name = Some(self.fqdn.as_str().to_owned());
        let (keys, fqdn) = (user.keys.clone(), self.fqdn.clone());
        let key_of: KeyOf = Arc::new(move |suite: u16| {
            let protocol = if suite >> 8 == 0x13 { UaProtocolId::TLS_1_3 } else { UaProtocolId::tls_1_2(suite) };
            let key = k_af(&keys.k_akma, &AfId::new(fqdn.clone(), protocol));
            PresharedKey::new(key.expose()).map_err(BenchError::connection)
        });
        Link::open(self.address, device, config, key_of).await
    }

    /// REG.
    pub(super) async fn register(&self, link: &mut Link, user: &User) -> Result<(), BenchError> {
        let registration = Registration { ue_service_id: user.ue_service_id.clone(), client_profile: None };
        let response = self.exchange(link, &UeMessage::Registration(registration)).await?;
        if response.code == Code::CREATED {
            return Ok(());
        }
        Err(BenchError::Connection(format!("REG: {}", cause_of(&response))))
    }

    /// One message to nobody, which is answered at once: what the session itself costs.
    pub(super) async fn ask(&self, link: &mut Link, user: &User, payload: &[u8]) -> Result<(), BenchError> {
        let nobody: UeServiceId = "bench-nobody@lab.example".parse().map_err(BenchError::connection)?;
        let response = self.send(link, user, &nobody, payload).await?;
        if response.code == Code::NOT_FOUND {
            return Ok(());
        }
        Err(BenchError::Protocol(format!("to a message to nobody: {}", cause_of(&response))))
    }

    /// A message, answered when the recipient has acknowledged it.
    async fn deliver(&self, link: &mut Link, user: &User, to: &User, payload: &[u8]) -> Result<(), BenchError> {
        let response = self.send(link, user, &to.ue_service_id, payload).await?;
        if response.code == Code::CHANGED {
            return Ok(());
        }
        Err(BenchError::Protocol(format!("to a message to a device: {}", cause_of(&response))))
    }

    async fn send(
        &self,
        link: &mut Link,
        user: &User,
        to: &UeServiceId,
        payload: &[u8],
    ) -> Result<Response, BenchError> {
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        let message = Message {
            originator: Address::ue(&user.ue_service_id),
            destination: Address::ue(to),
            recipient: None,
            message_id: format!("device-{number}").parse().map_err(BenchError::connection)?,
            application_id: None,
            delivery_status_required: false,
            store_and_forward: false,
            expiration_time: None,
            priority: Priority::Middle,
            payload: payload.to_vec(),
            segment: None,
            latency: None,
        };
        self.exchange(link, &UeMessage::Message(Box::new(message))).await
    }

    async fn exchange(&self, link: &mut Link, message: &UeMessage) -> Result<Response, BenchError> {
        link.exchange(Request::post(&self.path).content_format(JSON).payload(message.encode())).await
    }
}

/// A server of our own that devices reach over DTLS.
pub(crate) struct Devices {
    server: Server,
    users: Vec<User>,
    payload: Vec<u8>,
    process: ServerProcess,
    core: Core,
    /// Gone when this is dropped, after the processes.
    _directory: TempDir,
}

impl Devices {
    pub(crate) async fn start(arguments: &Arguments, count: usize) -> Result<Self, BenchError> {
        let directory = arguments.directory()?;
        let program = find_or_build(arguments)?;
        let core = Core::start(&program, &directory.path().join("lab")).await?;
        // Live ones are measured here; `idle-dtls` measures them frozen, too.
        let settings = [("MSGIN5G_LIMITS__DATAGRAM_FREEZE_MILLISECONDS", "0".to_owned())];
        let process = ServerProcess::start_with(&core, &settings).await?;
        let lab_path = core.lab_json().to_owned();
        let lab = read_lab(&lab_path)?;
        let users = users::provision(&lab, lab_path.parent().unwrap_or(Path::new(".")), count).await?;
        let server = Server::new(process.coaps(), &lab)?;
        let payload = vec![b'x'; arguments.payload_octets()];
        Ok(Self { server, users, payload, process, core, _directory: directory })
    }

    pub(crate) async fn stop(self) {
        drop(self.process);
        self.core.stop().await;
    }

    /// A message to `to`, answered when it has acknowledged it.
    pub(crate) async fn deliver(&self, link: &mut Link, from: usize, to: usize) -> Result<(), BenchError> {
        self.server.deliver(link, self.user(from)?, self.user(to)?, &self.payload).await
    }

    /// Acknowledges what the server delivers, for good.
    pub(crate) async fn take(&self, mut link: Link) -> Result<(), BenchError> {
        loop {
            let request = link.asked().await?;
            let message =
                UeMessage::decode(&request.payload, &DecodeLimits::default()).map_err(BenchError::connection)?;
            let (originator, message_id) = match message {
                UeMessage::Message(message) => (message.originator, message.message_id),
                other => return Err(BenchError::Protocol(format!("{other:?} from the server"))),
            };
            let answer =
                MessageResponse { originator, message_id, status: None, failure_cause: None, individual: Vec::new() };
            let response = Response::new(Code::CHANGED).with_content_format(JSON).with_payload(answer.encode());
            link.answer(&request, response)?;
        }
    }

    fn user(&self, device: usize) -> Result<&User, BenchError> {
        self.users.get(device).ok_or_else(|| BenchError::Provision("too few users".to_owned()))
    }
}

impl DatagramPeer for Devices {
    fn name(&self) -> &'static str {
        "msgin5g"
    }

    fn process(&self) -> Process {
        Process(self.process.pid())
    }

    fn versions(&self) -> &'static [Dtls] {
        &[Dtls::V1_2, Dtls::V1_3]
    }

    fn address(&self) -> SocketAddr {
        self.server.address
    }

    async fn handshake(&self, device: usize, dtls: Dtls) -> Result<Link, BenchError> {
        self.server.handshake(device, self.user(device)?, |identity| dtls.client(identity)).await
    }

    async fn admit(&self, link: &mut Link, device: usize) -> Result<(), BenchError> {
        self.server.register(link, self.user(device)?).await
    }

    async fn ask(&self, link: &mut Link, device: usize) -> Result<(), BenchError> {
        self.server.ask(link, self.user(device)?, &self.payload).await
    }
}

fn cause_of(response: &Response) -> String {
    format!("{} {}", response.code, String::from_utf8_lossy(&response.payload))
}

/// `application/json` (RFC 7252 clause 12.3).
const JSON: u16 = 50;
