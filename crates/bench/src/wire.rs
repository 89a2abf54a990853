//! Octets in and out of one connection, without waiting for the one before doing the other.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::BenchError;

pub(crate) struct Wire<S> {
    stream: S,
    /// Being written. Kept as it is until all of it is: OpenSSL wants the same octets again after a full socket.
    writing: Bytes,
    /// To be written next.
    outbound: Vec<u8>,
    /// Read and not yet taken.
    inbound: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, writing: Bytes::new(), outbound: Vec::new(), inbound: Vec::new() }
    }

    /// Where to put what is to be written.
    pub(crate) fn outbound(&mut self) -> &mut Vec<u8> {
        &mut self.outbound
    }

    /// What was read; take off the front what is understood.
    pub(crate) fn inbound(&mut self) -> &mut Vec<u8> {
        &mut self.inbound
    }

    /// Writes what waits, and returns once something was read.
    pub(crate) async fn turn(&mut self) -> Result<(), BenchError> {
        poll_fn(|context| self.poll_turn(context)).await.map_err(BenchError::connection)
    }

    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while !self.writing.is_empty() || !self.outbound.is_empty() {
            if self.writing.is_empty() {
                self.writing = std::mem::take(&mut self.outbound).into();
            }
            match Pin::new(&mut self.stream).poll_write(context, &self.writing) {
                Poll::Ready(written) => self.writing.advance(written?),
                Poll::Pending => break,
            }
        }
        let mut room = [0; 16_384];
        let mut room = ReadBuf::new(&mut room);
        match Pin::new(&mut self.stream).poll_read(context, &mut room) {
            Poll::Ready(Ok(())) if room.filled().is_empty() => {
                Poll::Ready(Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the server closed it")))
            }
            Poll::Ready(Ok(())) => {
                self.inbound.extend_from_slice(room.filled());
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Writes what waits, then ends the connection and waits for the other side to do the same.
    pub(crate) async fn finish(mut self) -> Result<(), BenchError> {
        self.stream.write_all(&self.writing).await?;
        self.stream.write_all(&self.outbound).await?;
        close(self.stream).await;
        Ok(())
    }
}

/// Says that nothing more comes, and waits until the other side has said the same: then it has seen all of it.
pub(crate) async fn close(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let closing = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    // A peer that has closed already answers with a reset; one that never does is not waited for.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), closing).await;
}
