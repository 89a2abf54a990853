//! HTTP/2 by hand: frames as octets, over real TLS.
#![allow(dead_code, reason = "a module of each test program, which uses a part of it")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::pin::Pin;

use openssl::ssl::{Ssl, SslContext};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;
use transport::profile::{CertificateFiles, mutual_tls_client};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const ENHANCE_YOUR_CALM: u8 = 0xB;

/// `GET https://localhost/`, in HPACK.
pub(crate) const GET: &[u8] = b"\x82\x87\x84\x41\x09localhost";

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A connection whose preface and SETTINGS are sent.
pub(crate) async fn connect(address: SocketAddr, files: &CertificateFiles) -> SslStream<TcpStream> {
    let socket = TcpStream::connect(address).await.unwrap();
    let mut stream = SslStream::new(Ssl::new(&mutual_tls_client(files).unwrap()).unwrap(), socket).unwrap();
    Pin::new(&mut stream).connect().await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    stream
}

/// The other end of such a connection, its preface read.
pub(crate) async fn accept(context: &SslContext, socket: TcpStream) -> SslStream<TcpStream> {
    let mut stream = SslStream::new(Ssl::new(context).unwrap(), socket).unwrap();
    Pin::new(&mut stream).accept().await.unwrap();
    stream.read_exact(&mut [0; 24]).await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    stream
}

/// Kind, flags, stream and payload of the next frame; `None` when the peer has closed.
pub(crate) async fn next(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut header = [0; 9];
    stream.read_exact(&mut header).await.ok()?;
    let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, header[0], header[1], header[2]])).unwrap()];
    stream.read_exact(&mut payload).await.ok()?;
    let stream_id = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
    Some((header[3], header[4], stream_id, payload))
}

/// Reads until the next frame of `kind`.
pub(crate) async fn next_of(stream: &mut (impl AsyncReadExt + Unpin), kind: u8) -> Option<(u8, u8, u32, Vec<u8>)> {
    loop {
        let frame = next(stream).await?;
        if frame.0 == kind {
            return Some(frame);
        }
    }
}
