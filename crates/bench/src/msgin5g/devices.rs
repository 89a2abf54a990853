//! Devices over DTLS that register and then are silent: no task and no socket while they are.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use akma::{AfId, Fqdn, PskIdentity, Separator, UaProtocolId, k_af};
use coap::{Code, ConnectionEvent, DatagramConfig, DatagramConnection, Request, Response};
use dtls::{ClientConfig, Connection, Event, PresharedKey};
use message::{Address, Message, Priority, Registration, UeMessage, UeServiceId};
use tokio::net::UdpSocket;
use tokio::time::timeout_at;

use super::users::User;
use crate::BenchError;

/// Where the server is.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) fqdn: Fqdn,
    pub(super) path: String,
}

/// A registered device.
pub(super) struct Device {
    connection: Connection,
    coap: DatagramConnection,
    source: SocketAddr,
    ue_service_id: UeServiceId,
    sent: u64,
}

impl Device {
    /// Handshake and registration, from an address that no other device has.
    pub(super) async fn register(server: &Server, number: usize, user: &User) -> Result<Self, BenchError> {
        let socket = UdpSocket::bind(SocketAddr::new(address_of(number), 0)).await?;
        socket.connect(server.address).await?;
        let mut config = ClientConfig::new(&PskIdentity::encode(&user.keys.a_kid, Separator::default()));
        config.server_name = Some(server.fqdn.as_str().to_owned());
        let connection =
            Connection::client(Arc::new(config), Instant::now(), server.address).map_err(BenchError::connection)?;
        let mut device = Self {
            connection,
            coap: DatagramConnection::new(Arc::new(DatagramConfig::default()), number as u64),
            source: socket.local_addr()?,
            ue_service_id: user.ue_service_id.clone(),
            sent: 0,
        };
        while !device.connection.is_established() {
            device.turn(&socket, server, user).await?;
        }
        let registration = Registration { ue_service_id: user.ue_service_id.clone(), client_profile: None };
        let response = device.exchange(&socket, server, user, UeMessage::Registration(registration)).await?;
        if response.code != Code::CREATED {
            let cause = String::from_utf8_lossy(&response.payload).into_owned();
            return Err(BenchError::Connection(format!("REG: {} {cause}", response.code)));
        }
        Ok(device)
    }

    /// One message to nobody, which is answered at once: what the session itself costs.
    pub(super) async fn ask(&mut self, server: &Server, user: &User) -> Result<(), BenchError> {
        let socket = UdpSocket::bind(self.source).await?;
        socket.connect(server.address).await?;
        self.sent += 1;
        let nobody: UeServiceId = "bench-nobody@lab.example".parse().map_err(BenchError::connection)?;
        let message = Message {
            originator: Address::ue(&self.ue_service_id),
            destination: Address::ue(&nobody),
            recipient: None,
            message_id: format!("idle-{}", self.sent).parse().map_err(BenchError::connection)?,
            application_id: None,
            delivery_status_required: false,
            store_and_forward: false,
            expiration_time: None,
            priority: Priority::Middle,
            payload: vec![0; 16],
            segment: None,
            latency: None,
        };
        let response = self.exchange(&socket, server, user, UeMessage::Message(Box::new(message))).await?;
        if response.code == Code::NOT_FOUND {
            return Ok(());
        }
        Err(BenchError::Protocol(format!("{} to a message to nobody", response.code)))
    }

    async fn exchange(
        &mut self,
        socket: &UdpSocket,
        server: &Server,
        user: &User,
        message: UeMessage,
    ) -> Result<Response, BenchError> {
        let request = Request::post(&server.path).content_format(JSON).payload(message.encode());
        let exchange = self.coap.request(request, Instant::now()).map_err(BenchError::connection)?;
        loop {
            while let Some(event) = self.coap.poll_event() {
                match event {
                    ConnectionEvent::Response { exchange: answered, response } if answered == exchange => {
                        return Ok(response);
                    }
                    ConnectionEvent::Failed { failure, .. } => {
                        return Err(BenchError::Connection(format!("{failure:?}")));
                    }
                    _ => {}
                }
            }
            self.turn(socket, server, user).await?;
        }
    }

    /// Sends what there is, and takes one datagram or one time-out.
    async fn turn(&mut self, socket: &UdpSocket, server: &Server, user: &User) -> Result<(), BenchError> {
        self.take_events(server, user)?;
        while let Some(datagram) = self.coap.poll_transmit() {
            self.connection.send(Instant::now(), &datagram).map_err(BenchError::connection)?;
        }
        while let Some(transmit) = self.connection.poll_transmit() {
            socket.send(&transmit.payload).await?;
        }
        let mut buffer = [0; 2_048];
        let due = [self.connection.poll_timeout(), self.coap.poll_timeout()].into_iter().flatten().min();
        let due = due.unwrap_or_else(|| Instant::now() + SILENCE_MAX);
        match timeout_at(due.into(), socket.recv(&mut buffer)).await {
            Ok(received) => {
                let datagram = buffer.get(..received?).unwrap_or_default();
                self.connection.handle_datagram(Instant::now(), server.address, datagram);
            }
            Err(_) => {
                self.connection.handle_timeout(Instant::now());
                self.coap.handle_timeout(Instant::now());
            }
        }
        self.take_events(server, user)
    }

    fn take_events(&mut self, server: &Server, user: &User) -> Result<(), BenchError> {
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::KeyNeeded(request) => {
                    let suite = request.cipher_suite.code();
                    let protocol =
                        if suite >> 8 == 0x13 { UaProtocolId::TLS_1_3 } else { UaProtocolId::tls_1_2(suite) };
                    let key = k_af(&user.keys.k_akma, &AfId::new(server.fqdn.clone(), protocol));
                    let key = PresharedKey::new(key.expose()).map_err(BenchError::connection)?;
                    self.connection.provide_key(Instant::now(), &key).map_err(BenchError::connection)?;
                }
                Event::ApplicationData { payload, .. } => {
                    self.coap.receive(&payload, Instant::now()).map_err(BenchError::connection)?;
                }
                Event::Closed(closed) => return Err(BenchError::Connection(format!("DTLS: {closed:?}"))),
                _ => {}
            }
        }
        Ok(())
    }
}

/// One of the loopback network's addresses for each device.
fn address_of(number: usize) -> IpAddr {
    let [low, middle, high, ..] = number.to_le_bytes();
    // The last octet's parity is moved up, so that it is never 0 or 255.
    Ipv4Addr::new(127, 16 + (high << 1 | low >> 7), middle, (low & 0x7f) + 1).into()
}

/// How long a device waits when nothing of its own is due.
const SILENCE_MAX: std::time::Duration = std::time::Duration::from_secs(1);

/// `application/json` (RFC 7252 clause 12.3).
const JSON: u16 = 50;
