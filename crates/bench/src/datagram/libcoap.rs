//! libcoap's example server on loopback, over OpenSSL: one key for all, resources in memory.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use coap::{Code, Request};
use dtls::PresharedKey;
use tokio::net::UdpSocket;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{DatagramPeer, Dtls, Link};
use crate::process::Process;
use crate::{Arguments, BenchError};

/// A server of our own.
pub(crate) struct Libcoap {
    child: Child,
    address: SocketAddr,
    payload: Vec<u8>,
}

impl Libcoap {
    pub(crate) async fn start(arguments: &Arguments) -> Result<Self, BenchError> {
        let plain = two_free_ports().await?;
        let mut command = Command::new(&arguments.libcoap);
        command.args(["-A", &plain.ip().to_string(), "-p", &plain.port().to_string()]);
        command.args(["-k", KEY, "-h", "bench", "-v", "0"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let started = |source| BenchError::Start { program: arguments.libcoap.clone(), source };
        let child = command.spawn().map_err(started)?;
        let address = SocketAddr::new(plain.ip(), plain.port() + 1);
        let mut server = Self { child, address, payload: vec![b'x'; arguments.payload_octets()] };
        server.wait_until_it_answers(plain).await?;
        Ok(server)
    }

    /// A CoAP ping is answered with a reset (RFC 7252 clause 4.3).
    async fn wait_until_it_answers(&mut self, plain: SocketAddr) -> Result<(), BenchError> {
        let failed = |reason: String| BenchError::Server { server: NAME, reason };
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        socket.connect(plain).await?;
        for _ in 0..START_ATTEMPTS {
            // Until it listens, the system answers in its place.
            let _ = socket.send(&[0x40, 0, 0, 1]).await;
            let mut answer = [0; 16];
            if let Ok(Ok(4)) = timeout(Duration::from_millis(50), socket.recv(&mut answer)).await {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(failed(format!("ended with {status}")));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(failed("does not answer".to_owned()))
    }
}

impl DatagramPeer for Libcoap {
    fn name(&self) -> &'static str {
        NAME
    }

    fn process(&self) -> Process {
        Process(self.child.id().unwrap_or_default())
    }

    fn versions(&self) -> &'static [Dtls] {
        &[Dtls::V1_2]
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    async fn handshake(&self, device: usize, dtls: Dtls) -> Result<Link, BenchError> {
        let key_of = Arc::new(|_| PresharedKey::new(KEY.as_bytes()).map_err(BenchError::connection));
        Link::open(self.address, device, dtls.client(b"bench"), key_of).await
    }

    async fn admit(&self, _: &mut Link, _: usize) -> Result<(), BenchError> {
        Ok(())
    }

    async fn ask(&self, link: &mut Link, _: usize) -> Result<(), BenchError> {
        let request = Request::with_method(Code::PUT, "/example_data").payload(self.payload.as_slice());
        let response = link.exchange(request).await?;
        if response.code.is_success() {
            return Ok(());
        }
        Err(BenchError::Protocol(format!("{} to a PUT", response.code)))
    }
}

/// DTLS gets the port after the one that is named.
async fn two_free_ports() -> Result<SocketAddr, BenchError> {
    for _ in 0..100 {
        let first = UdpSocket::bind("127.0.0.1:0").await?.local_addr()?;
        let Some(second) = first.port().checked_add(1) else { continue };
        if UdpSocket::bind(SocketAddr::new(first.ip(), second)).await.is_ok() {
            return Ok(first);
        }
    }
    Err(BenchError::Server { server: NAME, reason: "no two ports are free".to_owned() })
}

const NAME: &str = "libcoap";
const KEY: &str = "a key of the bench, 32 octets...";
const START_ATTEMPTS: u32 = 100;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::datagram::Flood;
    use clap::Parser;

    #[derive(Parser)]
    struct CommandLine {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[tokio::test]
    async fn a_device_asks_while_others_flood() {
        let server = Libcoap::start(&CommandLine::parse_from(["bench"]).arguments).await.unwrap();
        let flood = Flood::start(server.address(), Dtls::V1_2, 1_000).unwrap();
        let mut link = server.handshake(0, Dtls::V1_2).await.unwrap();
        server.ask(&mut link, 0).await.unwrap();
        link.rest();
        server.ask(&mut link, 0).await.unwrap();
        while flood.sent() < 100 {
            tokio::task::yield_now().await;
        }
        link.close().await.unwrap();
    }
}
