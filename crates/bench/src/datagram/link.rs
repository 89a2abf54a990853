//! A device's side of CoAP over DTLS. It needs no task, and between requests no socket.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coap::{ConnectionEvent, DatagramConfig, DatagramConnection, Request, RequestBuilder, Response};
use dtls::{ClientConfig, Connection, Event, PresharedKey};
use tokio::net::UdpSocket;
use tokio::time::timeout_at;

use crate::BenchError;

/// The key for the cipher suite that the server chose, by its number.
pub(crate) type KeyOf = Arc<dyn Fn(u16) -> Result<PresharedKey, BenchError> + Send + Sync>;

/// A device's session.
pub(crate) struct Link {
    connection: Connection,
    coap: DatagramConnection,
    /// None while it rests.
    socket: Option<UdpSocket>,
    source: SocketAddr,
    server: SocketAddr,
    key_of: KeyOf,
}

impl Link {
    /// A handshake from an address that no other device has; ends when both sides have completed it.
    pub(crate) async fn open(
        server: SocketAddr,
        device: usize,
        config: ClientConfig,
        key_of: KeyOf,
    ) -> Result<Self, BenchError> {
        let socket = UdpSocket::bind(SocketAddr::new(address_of(device), 0)).await?;
        socket.connect(server).await?;
        let connection =
            Connection::client(Arc::new(config), Instant::now(), server).map_err(BenchError::connection)?;
        let mut link = Self {
            connection,
            coap: DatagramConnection::new(Arc::new(DatagramConfig::default()), device as u64),
            source: socket.local_addr()?,
            socket: Some(socket),
            server,
            key_of,
        };
        while !link.connection.is_established() {
            link.turn().await?;
        }
        Ok(link)
    }

    /// Gives the socket up until the next request.
    pub(crate) fn rest(&mut self) {
        self.socket = None;
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn exchange(&mut self, request: RequestBuilder<'_>) -> Result<Response, BenchError> {
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
            self.turn().await?;
        }
    }

    /// Waits for a request of the server's. May be dropped and called again without losing anything.
    pub(crate) async fn asked(&mut self) -> Result<Request, BenchError> {
        loop {
            while let Some(event) = self.coap.poll_event() {
                if let ConnectionEvent::Request { request } = event {
                    return Ok(request);
                }
            }
            self.turn().await?;
        }
    }

    /// Answers it.
    pub(crate) fn answer(&mut self, request: &Request, response: Response) -> Result<(), BenchError> {
        self.coap.respond(request.exchange, response, Instant::now()).map_err(BenchError::connection)
    }

    /// Says close_notify, and is gone.
    pub(crate) async fn close(mut self) -> Result<(), BenchError> {
        self.connection.close(Instant::now());
        self.transmit().await
    }

    /// Sends what there is, and takes one datagram or one time-out.
    async fn turn(&mut self) -> Result<(), BenchError> {
        self.take_events()?;
        self.transmit().await?;
        let due = [self.connection.poll_timeout(), self.coap.poll_timeout()].into_iter().flatten().min();
        let due = due.unwrap_or_else(|| Instant::now() + SILENCE_MAX);
        let mut buffer = [0; 2_048];
        let received =
            timeout_at(due.into(), Self::socket(&mut self.socket, self.source, self.server).await?.recv(&mut buffer));
        match received.await {
            Ok(received) => {
                let datagram = buffer.get(..received?).unwrap_or_default();
                self.connection.handle_datagram(Instant::now(), self.server, datagram);
            }
            Err(_) => {
                self.connection.handle_timeout(Instant::now());
                self.coap.handle_timeout(Instant::now());
            }
        }
        self.take_events()
    }

    async fn transmit(&mut self) -> Result<(), BenchError> {
        while let Some(datagram) = self.coap.poll_transmit() {
            self.connection.send(Instant::now(), &datagram).map_err(BenchError::connection)?;
        }
        while let Some(transmit) = self.connection.poll_transmit() {
            Self::socket(&mut self.socket, self.source, self.server).await?.send(&transmit.payload).await?;
        }
        Ok(())
    }

    /// The socket, which is there again from now on.
    async fn socket(
        socket: &mut Option<UdpSocket>,
        source: SocketAddr,
        server: SocketAddr,
    ) -> Result<&UdpSocket, BenchError> {
        if socket.is_none() {
            let again = UdpSocket::bind(source).await?;
            again.connect(server).await?;
            *socket = Some(again);
        }
        socket.as_ref().ok_or_else(|| BenchError::Connection("no socket".to_owned()))
    }

    fn take_events(&mut self) -> Result<(), BenchError> {
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::KeyNeeded(request) => {
                    let key = (self.key_of)(request.cipher_suite.code())?;
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
fn address_of(device: usize) -> IpAddr {
    let [low, middle, high, ..] = device.to_le_bytes();
    // The last octet's parity is moved up, so that it is never 0 or 255.
    Ipv4Addr::new(127, 16 + (high << 1 | low >> 7), middle, (low & 0x7f) + 1).into()
}

/// How long a device waits when nothing of its own is due.
const SILENCE_MAX: Duration = Duration::from_secs(1);
