//! What the client makes of the alert that a handshake ends with: newer keys where its own are not taken, and where they are
//! not what was wrong, none; in either case it goes on trying.

use std::net::SocketAddr;

use client::{Client, ClientConfig, ClientError, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use transport::{ClientHandshakeError, OfferedVersions};

use crate::server::{FQDN, HomeNetwork, ME, patiently};

/// A peer that ends every handshake with one alert, as soon as the client has spoken.
struct Refusing {
    address: SocketAddr,
    handshakes: watch::Receiver<u32>,
    task: JoinHandle<()>,
}

impl Refusing {
    async fn over(transport: Transport, alert: u8) -> Self {
        let (count, handshakes) = watch::channel(0);
        if transport == Transport::Udp {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let address = socket.local_addr().unwrap();
            let task = tokio::spawn(async move {
                loop {
                    let (_, client) = socket.recv_from(&mut [0; 2_048]).await.unwrap();
                    // Epoch 0, in clear: RFC 6347 clause 4.1, and as long as there are no keys RFC 9147 clause 4.
                    let record = [21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, FATAL, alert];
                    socket.send_to(&record, client).await.unwrap();
                    count.send_modify(|count| *count += 1);
                }
            });
            return Self { address, handshakes, task };
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                // Its ClientHello is at least this long.
                stream.read_exact(&mut [0; 64]).await.unwrap();
                stream.write_all(&[21, 3, 3, 0, 2, FATAL, alert]).await.unwrap();
                count.send_modify(|count| *count += 1);
                // A reset could overtake the alert.
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        });
        Self { address, handshakes, task }
    }
}

impl Drop for Refusing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const FATAL: u8 = 2;

/// What the client is to say of itself.
#[derive(Clone, Copy, Debug)]
enum Says {
    /// That its keys were not taken: it has authenticated anew.
    KeysRefused,
    /// That something else was wrong.
    NothingInCommon,
    Busy,
    ServerName,
    Alert,
}

impl Says {
    fn is(self, error: &ClientError, alert: u8) -> bool {
        let ClientError::Handshake(error) = error else {
            return matches!((self, error), (Self::KeysRefused, ClientError::KeysRefused(_)));
        };
        match (self, &**error) {
            (Self::NothingInCommon, ClientHandshakeError::NothingInCommon)
            | (Self::Busy, ClientHandshakeError::Busy)
            | (Self::ServerName, ClientHandshakeError::ServerName) => true,
            (Self::Alert, ClientHandshakeError::Alert(told)) => *told == alert,
            _ => false,
        }
    }
}

async fn ends_with(transport: Transport, versions: OfferedVersions, alert: u8, says: Says) {
    let mut server = Refusing::over(transport, alert).await;
    let home = HomeNetwork::default();
    let mut config = ClientConfig::new(server.address.to_string(), FQDN.parse().unwrap(), ME.parse().unwrap());
    config.transport = transport;
    config.tls.versions = versions;
    config.limits.backoff_first_milliseconds = 20;
    config.limits.backoff_max_milliseconds = 100;
    config.limits.authentication_interval_milliseconds = 0;
    let (client, _incoming) = Client::start(config, home.clone()).unwrap();
    let what = format!("alert {alert} over {transport:?}, {versions:?}");
    let mut status = client.watch();
    let told = |error: &ClientError| says.is(error, alert);
    let said = status.wait_for(|status| status.last_error.is_some());
    let said = patiently(said).await.unwrap().last_error.clone().unwrap();
    assert!(told(&said), "{what}: {said:?}");
    // It tries again, whatever it was.
    patiently(server.handshakes.wait_for(|count| *count >= 4)).await.unwrap();
    let (status, authentications) = (client.status(), home.authentications());
    assert_eq!(status.registrations, 0, "{what}");
    match says {
        Says::KeysRefused => assert!(authentications > 1, "{what}: no newer keys"),
        _ => assert_eq!(authentications, 1, "{what}: its keys were not what was wrong"),
    }
    let final_error = matches!(says, Says::ServerName);
    assert_eq!(said.is_final(), final_error || matches!(says, Says::KeysRefused), "{what}");
}

async fn each_alert_over(transport: Transport) {
    for versions in [OfferedVersions::Both, OfferedVersions::Tls13, OfferedVersions::Tls12] {
        let over_tls = transport != Transport::Udp;
        // OpenSSL's server of TLS 1.2 says it of a wrong key; a DTLS server drops what does not verify.
        let bad_record_mac = if over_tls { Says::KeysRefused } else { Says::Alert };
        // Of TLS 1.3 nothing tells an unknown identity from nothing in common; keys that are replaced cost little.
        let is_either = over_tls && versions != OfferedVersions::Tls12;
        let handshake_failure = if is_either { Says::KeysRefused } else { Says::NothingInCommon };
        for (alert, says) in [
            (20, bad_record_mac),
            (40, handshake_failure),
            (47, Says::Alert),
            (50, Says::Alert),
            (51, Says::KeysRefused),
            (70, Says::NothingInCommon),
            (80, Says::Busy),
            (112, Says::ServerName),
            (115, Says::KeysRefused),
        ] {
            Box::pin(ends_with(transport, versions, alert, says)).await;
        }
    }
}

#[tokio::test]
async fn each_alert_of_tls_has_newer_keys_fetched_or_the_same_tried_again() {
    for transport in [Transport::Tcp, Transport::WebSocket] {
        each_alert_over(transport).await;
    }
}

#[tokio::test]
async fn each_alert_of_dtls_has_newer_keys_fetched_or_the_same_tried_again() {
    each_alert_over(Transport::Udp).await;
}
