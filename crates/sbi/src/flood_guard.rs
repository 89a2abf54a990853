//! Notices a peer whose HTTP/2 frames are work without requests: floods of SETTINGS, PING, WINDOW_UPDATE, PRIORITY,
//! RST_STREAM or nearly empty DATA frames.
//!
//! The HTTP/2 library bounds what such frames cost in memory, not how many it answers. So the octets are looked at on
//! their way to it: frame headers are read, payloads skipped, and frames of these kinds paid for from a budget that time
//! and requests fill up. An empty budget ends the connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Frames without a request that a peer may send at once.
pub(crate) const BURST: u32 = 2_000;
/// Frames without a request that it may send each second, in the long run.
pub(crate) const PER_SECOND: u32 = 500;
/// Frames without a request that come with each request: window updates for its answer, its reset.
const PER_REQUEST: u32 = 4;
/// DATA of fewer octets than this is paid for, too.
const DATA_OCTETS_MIN: u32 = 64;

const FRAME_HEADER: usize = 9;
const DATA: u8 = 0x00;
const HEADERS: u8 = 0x01;
const CONTINUATION: u8 = 0x09;
/// The client's connection preface (RFC 9113 clause 3.4).
const PREFACE: u32 = 24;

/// Counts the frames of one direction of one connection.
pub(crate) struct FrameBudget {
    /// Octets to skip before the next frame header.
    skip: u32,
    header: [u8; FRAME_HEADER],
    filled: usize,
    left: u32,
    refilled: Instant,
}

impl FrameBudget {
    pub(crate) fn new(now: Instant) -> Self {
        Self { skip: PREFACE, header: [0; FRAME_HEADER], filled: 0, left: BURST, refilled: now }
    }

    /// Takes what the peer sent. `false` when its budget is spent.
    pub(crate) fn take(&mut self, mut octets: &[u8], now: Instant) -> bool {
        self.refill(now);
        while !octets.is_empty() {
            let skipped = octets.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            self.skip -= u32::try_from(skipped).unwrap_or(u32::MAX);
            octets = octets.get(skipped..).unwrap_or_default();
            for place in self.header.iter_mut().skip(self.filled) {
                let Some((octet, rest)) = octets.split_first() else { return true };
                *place = *octet;
                self.filled += 1;
                octets = rest;
            }
            if !self.pay() {
                return false;
            }
        }
        true
    }

    /// Looks at a whole frame header.
    fn pay(&mut self) -> bool {
        let [length_0, length_1, length_2, kind, ..] = self.header;
        let length = u32::from_be_bytes([0, length_0, length_1, length_2]);
        self.skip = length;
        self.filled = 0;
        match kind {
            HEADERS => self.left = self.left.saturating_add(PER_REQUEST).min(BURST),
            DATA if length >= DATA_OCTETS_MIN => {}
            // The library has a limit for these in its own terms.
            CONTINUATION => {}
            _ => match self.left.checked_sub(1) {
                Some(left) => self.left = left,
                None => return false,
            },
        }
        true
    }

    fn refill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.refilled).as_secs();
        if seconds > 0 {
            let gained = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(PER_SECOND);
            self.left = self.left.saturating_add(gained).min(BURST);
            self.refilled = now;
        }
    }
}

/// A connection whose peer's frames are counted; out of budget, it fails with [`io::ErrorKind::QuotaExceeded`].
pub(crate) struct FloodGuard<S> {
    stream: S,
    budget: FrameBudget,
}

impl<S> FloodGuard<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, budget: FrameBudget::new(Instant::now()) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FloodGuard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let fresh = buf.filled().get(before..).unwrap_or_default();
        if self.budget.take(fresh, Instant::now()) {
            Poll::Ready(Ok(()))
        } else {
            Poll::Ready(Err(io::ErrorKind::QuotaExceeded.into()))
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FloodGuard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const PING: u8 = 0x06;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let [_, length @ ..] = u32::try_from(payload).unwrap().to_be_bytes();
        [&length[..], &[kind, 0, 0, 0, 0, 1], &vec![0; payload]].concat()
    }

    fn started(now: Instant) -> FrameBudget {
        let mut budget = FrameBudget::new(now);
        assert!(budget.take(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", now));
        budget
    }

    #[test]
    fn frames_without_requests_spend_the_budget_and_time_refills_it() {
        let now = Instant::now();
        let mut budget = started(now);
        for _ in 0..BURST {
            assert!(budget.take(&frame(PING, 8), now));
        }
        let later = now + Duration::from_secs(1);
        for _ in 0..PER_SECOND {
            assert!(budget.take(&frame(PING, 8), later));
        }
        assert!(!budget.take(&frame(PING, 8), later));
    }

    #[test]
    fn one_frame_without_a_request_too_many_is_noticed_at_once() {
        let now = Instant::now();
        let mut budget = started(now);
        assert!(!budget.take(&frame(PING, 8).repeat(2_001), now));
    }

    #[test]
    fn requests_and_what_comes_with_them_are_free() {
        let now = Instant::now();
        let mut budget = started(now);
        let request = [frame(HEADERS, 100), frame(DATA, 1_000), frame(0x08, 4), frame(0x08, 4)].concat();
        assert!(budget.take(&request.repeat(100_000), now));
        assert!(!budget.take(&frame(DATA, 0).repeat(2_001), now), "empty DATA is no request");
    }

    proptest! {
        #[test]
        fn frames_are_found_however_their_octets_are_cut(
            frames in prop::collection::vec((0_u8..12, 0_usize..300), 0..60),
            cut in 1_usize..40,
        ) {
            let now = Instant::now();
            let octets: Vec<u8> = frames.iter().flat_map(|(kind, length)| frame(*kind, *length)).collect();
            let (mut whole, mut cut_up) = (started(now), started(now));
            prop_assert!(whole.take(&octets, now));
            for piece in octets.chunks(cut) {
                prop_assert!(cut_up.take(piece, now));
            }
            prop_assert_eq!(whole.left, cut_up.left);
            prop_assert_eq!(whole.skip, cut_up.skip);
        }
    }
}
