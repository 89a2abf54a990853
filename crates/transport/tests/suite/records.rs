//! Open connections: the records of TLS 1.3 as our own record layer has them, with OpenSSL at the other end.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use transport::{ClientStream, OfferedVersions, PskClientConfig, PskConnector};

use crate::scene::{Home, Server, Ue, assert_echo, fqdn};

/// Somebody on the path, who changes one octet of what the client sends when told to.
async fn meddler(server: SocketAddr, meddle: Arc<Notify>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = TcpStream::connect(server).await.unwrap().into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        let (mut octets, mut meddling) = ([0; 4096], false);
        loop {
            let read = tokio::select! {
                () = meddle.notified() => {
                    meddling = true;
                    continue;
                }
                Ok(read @ 1..) = from_client.read(&mut octets) => read,
                else => return,
            };
            if meddling {
                octets[read - 1] ^= 1;
            }
            to_server.write_all(&octets[..read]).await.unwrap();
        }
    });
    address
}

async fn connect(ue: &Ue, address: SocketAddr, config: PskClientConfig) -> ClientStream {
    let connector = PskConnector::new(config).unwrap();
    let socket = TcpStream::connect(address).await.unwrap();
    connector.connect(socket, &fqdn(), &ue.a_kid, |protocol| ue.key(protocol)).await.unwrap()
}

#[tokio::test]
async fn what_somebody_on_the_path_changes_ends_the_connection_with_bad_record_mac() {
    let ue = Ue::number(1);
    let server = Server::start(&Home::knowing(&[&ue])).await;
    for versions in [OfferedVersions::Tls13, OfferedVersions::Tls12] {
        let meddle = Arc::new(Notify::new());
        let address = meddler(server.address, meddle.clone()).await;
        let mut stream = connect(&ue, address, PskClientConfig { versions, ..PskClientConfig::default() }).await;
        assert_echo(&mut stream, b"untouched").await;
        meddle.notify_one();
        // The meddler is one task: it takes the permit before it reads what is sent after the echo of this.
        let mut told = None;
        for _ in 0..1000 {
            if stream.write_all(b"open the valve").await.is_err() {
                break;
            }
            let mut back = [0; 14];
            match stream.read_exact(&mut back).await {
                Ok(_) => assert_eq!(&back, b"open the valve"),
                Err(error) => {
                    told = Some(error.to_string());
                    break;
                }
            }
        }
        let told = told.expect("the connection went on");
        assert!(told.contains("bad record mac"), "{told}");
    }
}

#[tokio::test]
async fn a_reader_that_is_slow_gets_everything_in_order_and_holds_up_the_writer() {
    let ue = Ue::number(1);
    let often = |config: &mut transport::PskServerConfig| config.limits.records_per_key_max = 7;
    let server = Server::start_with(&Home::knowing(&[&ue]), often, |_| {}).await;
    let stream = server.connect(&ue).await.unwrap();
    let (mut from, mut to) = tokio::io::split(stream);
    let octets: Vec<u8> = (0..8_000_000u32).map(|at| (at % 253) as u8).collect();
    let sent = octets.clone();
    let writing = tokio::spawn(async move { to.write_all(&sent).await.map(|()| to) });
    // More than the sockets hold is under way before the first octet is read.
    let mut back = vec![0; octets.len()];
    from.read_exact(&mut back).await.unwrap();
    assert!(back == octets, "the echo differs");
    writing.await.unwrap().unwrap();
}
