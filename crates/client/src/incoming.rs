//! What the client hands to the application.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::Stream;
use message::{DeliveryStatusReport, FailureCause, Message};
use tokio::sync::{mpsc, oneshot};

use crate::{client::Client, error::ClientError, hand_over::HandOverKey};

/// Messages and reports, in the order the server delivers them. Ends when the client is closed.
///
/// Dropping it stops the hand-over: the server is told that nobody takes messages here now, and keeps those that it may.
#[derive(Debug)]
pub struct IncomingStream {
    pub(crate) receiver: mpsc::Receiver<Incoming>,
    /// Keeps the client alive where the application only listens.
    pub(crate) _client: Client,
}

impl IncomingStream {
    /// Waits for the next message or report; none once the client is closed.
    pub async fn next(&mut self) -> Option<Incoming> {
        self.receiver.recv().await
    }
}

impl Stream for IncomingStream {
    type Item = Incoming;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(context)
    }
}

/// One thing that arrived.
#[derive(Debug)]
#[non_exhaustive]
pub enum Incoming {
    /// A message for this client.
    Message(Received<Message>),
    /// What became of a message that this client sent and wanted a report for.
    Report(Received<DeliveryStatusReport>),
}

/// Something handed to the application, which is the application's only after [`Received::accept`].
///
/// Until then the server has it, and dropping a `Received` gives it back: the server is asked to try again later.
#[derive(Debug)]
#[must_use = "what is not accepted is delivered again"]
pub struct Received<T> {
    content: T,
    key: HandOverKey,
    decisions: mpsc::Sender<Decision>,
    decided: bool,
}

impl<T> Received<T> {
    pub(crate) fn new(content: T, key: HandOverKey, decisions: mpsc::Sender<Decision>) -> Self {
        Self { content, key, decisions, decided: false }
    }

    /// What was received.
    pub fn content(&self) -> &T {
        &self.content
    }

    /// Takes it over: call this when the application has dealt with it or has it safe. It is then acknowledged to the
    /// server, never handed over again, and the sender gets the report it asked for.
    ///
    /// # Errors
    /// [`ClientError::State`] if the acceptance could not be put on disk, and [`ClientError::Closed`] if the client
    /// ended before: it may then be delivered again.
    pub async fn accept(mut self) -> Result<(), ClientError> {
        let (done, outcome) = oneshot::channel();
        self.decide(Verdict::Accept(done));
        outcome.await.unwrap_or(Err(ClientError::Closed))
    }

    /// Refuses it for good: the sender is told that it failed. For content that the application cannot ever use.
    pub fn refuse(mut self) {
        self.decide(Verdict::Refuse(FailureCause::TargetRefused));
    }

    /// Gives it back without holding up what comes after it: the server is asked to deliver it again later
    /// ([`ClientLimits::come_back_seconds`](crate::ClientLimits::come_back_seconds)), and meanwhile whatever else arrives
    /// is handed over. Whoever does this keeps the order of what belongs together. Dropping a `Received` gives it back,
    /// too, and holds up everything.
    pub fn put_off(mut self) {
        self.decide(Verdict::PutOff);
    }

    fn decide(&mut self, verdict: Verdict) {
        self.decided = true;
        // The channel has a place for everything that is undecided; it fails only when the client has ended.
        let _ = self.decisions.try_send(Decision { key: self.key.clone(), verdict });
    }
}

impl<T> Drop for Received<T> {
    fn drop(&mut self) {
        if !self.decided {
            self.decide(Verdict::GiveBack);
        }
    }
}

/// What the application decided about one thing handed to it.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) key: HandOverKey,
    pub(crate) verdict: Verdict,
}

/// The application's decision.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It has it; the sender learns when that is on disk.
    Accept(oneshot::Sender<Result<(), ClientError>>),
    /// It does not want it, ever.
    Refuse(FailureCause),
    /// Not now, and what follows need not wait for it.
    PutOff,
    /// It dropped it undecided.
    GiveBack,
}
