//! Answers under way on one connection: handed out piece by piece, and each within a time.
//!
//! A peer decides by its windows when an answer may leave. One that leaves none out would have the server keep them for as
//! long as it answers pings. So the oldest answer that is still here has a time, after which the connection is closed; and an
//! answer is handed to HTTP/2, whose buffers do not end with that time, in small pieces only. The last octet is a piece by itself:
//! HTTP/2 takes a piece whole once the window has room for an octet of it, and so takes that one only when the window has room for
//! all before it; an answer shorter than a piece would be out of sight otherwise, and yet here. Of an answer that lasts as long as
//! there is something to tell, each piece has that time.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The answers that a connection has not let out yet.
#[derive(Default)]
pub(crate) struct Answers {
    next: AtomicU64,
    /// When each was there, oldest first.
    waiting: Mutex<BTreeMap<u64, Instant>>,
    /// Told when there is one where there was none.
    first: Notify,
}

impl Answers {
    /// `answer`, watched until its body is handed out or dropped.
    pub(crate) fn watch(self: &Arc<Self>, answer: Response) -> Response {
        if answer.body().is_end_stream() {
            return answer;
        }
        let watched = self.enter();
        answer.map(|inner| Body::new(Pieces { inner, rest: Bytes::new(), _watched: watched }))
    }

    /// `answer`, whose body lasts, watched while a piece of it is here: from when it could begin until it is first asked for
    /// something, and from each piece until the next is asked for. HTTP asks for it when the one before is let out.
    pub(crate) fn watch_progress(self: &Arc<Self>, answer: Response) -> Response {
        answer.map(|inner| {
            let due = Some(self.enter());
            Body::new(Progress { inner, answers: Arc::clone(self), due })
        })
    }

    fn enter(self: &Arc<Self>) -> Watched {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let is_first = {
            let mut waiting = self.list();
            waiting.insert(number, Instant::now());
            waiting.len() == 1
        };
        if is_first {
            self.first.notify_one();
        }
        Watched { answers: Arc::clone(self), number }
    }

    /// Waits until an answer has been here for longer than `limit`.
    pub(crate) async fn overdue(&self, limit: Duration) {
        loop {
            let oldest = self.list().first_key_value().map(|(number, since)| (*number, *since));
            let Some((number, since)) = oldest else {
                self.first.notified().await;
                continue;
            };
            sleep_until(since + limit).await;
            if self.list().contains_key(&number) {
                return;
            }
        }
    }

    fn list(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Watched {
    answers: Arc<Answers>,
    number: u64,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.answers.list().remove(&self.number);
    }
}

/// A body that lasts.
struct Progress {
    inner: Body,
    answers: Arc<Answers>,
    /// While something of it is to be taken.
    due: Option<Watched>,
}

impl HttpBody for Progress {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        this.due = None;
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        if matches!(frame, Some(Ok(_))) {
            this.due = Some(this.answers.enter());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A body in pieces of at most [`PIECE_OCTETS_MAX`].
struct Pieces {
    inner: Body,
    rest: Bytes,
    _watched: Watched,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(octets) => this.rest = octets,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                ended => return Poll::Ready(ended),
            }
        }
        // Whether more comes is not known of every body: the last octet of each part of it stays behind.
        let length = this.rest.len().saturating_sub(1).clamp(1, PIECE_OCTETS_MAX).min(this.rest.len());
        Poll::Ready(Some(Ok(Frame::data(this.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.inner.size_hint(), u64::try_from(self.rest.len()).unwrap_or(u64::MAX));
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(rest));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

/// Octets of an answer that HTTP/2 is given at once.
const PIECE_OCTETS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures_util::{FutureExt, StreamExt};
    use http_body_util::BodyExt;

    use super::*;

    fn answer(octets: usize) -> Response {
        Response::new(Body::from(vec![7_u8; octets]))
    }

    #[tokio::test]
    async fn an_answer_leaves_in_pieces_and_whole() {
        for octets in [0, 1, PIECE_OCTETS_MAX, PIECE_OCTETS_MAX + 1, 5 * PIECE_OCTETS_MAX] {
            let answers = Arc::new(Answers::default());
            let mut body = answers.watch(answer(octets)).into_body();
            assert_eq!(body.size_hint().exact(), Some(u64::try_from(octets).unwrap()));
            let mut received = 0;
            while let Some(frame) = body.frame().await {
                let piece = frame.unwrap().into_data().unwrap();
                assert!(piece.len() <= PIECE_OCTETS_MAX);
                received += piece.len();
                assert_eq!(body.size_hint().exact(), Some(u64::try_from(octets - received).unwrap()));
            }
            assert_eq!(received, octets);
            drop(body);
            assert!(answers.list().is_empty());
        }
    }

    #[tokio::test]
    async fn an_answer_is_watched_until_its_last_octet_is_asked_for_which_comes_alone() {
        for octets in [2, 10, PIECE_OCTETS_MAX, PIECE_OCTETS_MAX + 1, PIECE_OCTETS_MAX + 2] {
            let answers = Arc::new(Answers::default());
            let mut body = answers.watch(answer(octets)).into_body();
            let mut left = octets;
            while left > 1 {
                left -= body.frame().await.unwrap().unwrap().into_data().unwrap().len();
                assert!(left >= 1 && !body.is_end_stream(), "{octets}");
                answers.overdue(Duration::ZERO).await;
            }
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), 1);
            assert!(body.is_end_stream(), "HTTP/2 need not ask whether there is more");
        }
    }

    #[tokio::test]
    async fn an_answer_that_lasts_is_overdue_while_a_piece_of_it_stays() {
        let (none, long) = (Duration::ZERO, Duration::from_secs(3600));
        let answers = Arc::new(Answers::default());
        let pieces = futures_util::stream::iter([Ok::<_, std::convert::Infallible>("a"), Ok("b")]);
        let lasting = pieces.chain(futures_util::stream::pending());
        let mut body = answers.watch_progress(Response::new(Body::from_stream(lasting))).into_body();
        answers.overdue(none).await;
        for _ in 0..2 {
            body.frame().await.unwrap().unwrap();
            assert!(answers.overdue(long).now_or_never().is_none(), "each piece has its time");
            answers.overdue(none).await;
        }
        assert!(body.frame().now_or_never().is_none());
        assert!(answers.overdue(none).now_or_never().is_none(), "there is nothing to take");
        drop(body);
        assert!(answers.list().is_empty());
    }

    #[tokio::test]
    async fn only_an_answer_that_stays_is_overdue() {
        let answers = Arc::new(Answers::default());
        let (none, long) = (Duration::ZERO, Duration::from_secs(3600));
        assert!(answers.overdue(none).now_or_never().is_none(), "there is none");
        drop(answers.watch(answer(10)));
        assert!(answers.overdue(none).now_or_never().is_none(), "it was taken");
        let taken = answers.watch(answer(10));
        assert!(answers.overdue(long).now_or_never().is_none(), "it has time");
        let stays = answers.watch(answer(10));
        drop(taken);
        answers.overdue(Duration::from_millis(1)).await;
        drop(stays);
        assert!(answers.watch(answer(0)).body().is_end_stream() && answers.list().is_empty(), "nothing is to be taken");
    }
}
