//! What both accepting sides do between socket and OpenSSL: the next item of the handshake, and OpenSSL's next step.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::Pin;
use std::task::Poll;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use crate::gate::Gate;
use crate::handshake_error::HandshakeError;
use crate::handshake_sniffer::{HandshakeSniffer, Sniffed};

/// The next item of the sniffer, after reading once if need be.
pub(crate) async fn next_item(
    sniffer: &mut HandshakeSniffer,
    socket: &mut TcpStream,
) -> Result<Option<Sniffed>, HandshakeError> {
    if let Some(item) = sniffer.next()? {
        return Ok(Some(item));
    }
    // On the stack only while there is something to read, so that an idle peer does not hold it.
    socket.readable().await?;
    let mut chunk = [0; READ_OCTETS];
    match socket.try_read(&mut chunk) {
        Ok(0) => Err(HandshakeError::Closed),
        Ok(octets) => {
            sniffer.push(chunk.get(..octets).unwrap_or_default())?;
            Ok(sniffer.next()?)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Lets OpenSSL go on with what it was given, and sends what it has to say. Whether the handshake is done.
pub(crate) async fn step(stream: &mut SslStream<Gate<TcpStream>>) -> Result<bool, HandshakeError> {
    let polled = poll_fn(|cx| Poll::Ready(Pin::new(&mut *stream).poll_accept(cx))).await;
    let outbound = stream.get_mut().take_outbound();
    let sent = stream.get_mut().transport()?.write_all(&outbound).await;
    match polled {
        Poll::Ready(Err(error)) => Err(HandshakeError::of_openssl(error)),
        Poll::Ready(Ok(())) => sent.map(|()| true).map_err(HandshakeError::Io),
        Poll::Pending => sent.map(|()| false).map_err(HandshakeError::Io),
    }
}

/// What is read at once. A ClientHello with one PSK identity is about 400 octets.
const READ_OCTETS: usize = 4_096;
