//! What is handed to the application.

use std::sync::Arc;

use message::{DeliveryStatusReport, Message, ReportDeliveryStatus};
use tokio::sync::{mpsc, oneshot};

use crate::hand_over::{HandOvers, Key, Verdict};
use crate::topics::TopicChanges;

/// Messages and reports as they come. Ends when the Application Server is closed.
///
/// Dropping it stops the hand-over: the server is told that nobody takes messages here now, and keeps those that it may.
#[derive(Debug)]
pub struct IncomingStream {
    pub(crate) receiver: mpsc::Receiver<Incoming>,
}

impl IncomingStream {
    /// Waits for the next message or report; none once the Application Server is closed.
    pub async fn next(&mut self) -> Option<Incoming> {
        self.receiver.recv().await
    }
}

/// One thing that arrived.
#[derive(Debug)]
#[non_exhaustive]
pub enum Incoming {
    /// A message for this Application Server.
    Message(Received<Message>),
    /// What became of a message that it sent and wanted a report for.
    Report(Received<DeliveryStatusReport>),
    /// Topics that there are, came or went, for a subscriber to the list of them.
    Topics(TopicChanges),
}

/// Something handed to the application, which is the application's only after [`Received::accept`].
///
/// Until then the server has it, and dropping a `Received` gives it back: it comes again.
#[derive(Debug)]
#[must_use = "what is not accepted is delivered again"]
pub struct Received<T> {
    content: T,
    key: Key,
    hand_overs: Arc<HandOvers>,
    answer: Option<oneshot::Sender<Verdict>>,
}

impl<T> Received<T> {
    pub(crate) fn new(content: T, key: Key, hand_overs: Arc<HandOvers>, answer: oneshot::Sender<Verdict>) -> Self {
        Self { content, key, hand_overs, answer: Some(answer) }
    }

    /// What was received.
    pub fn content(&self) -> &T {
        &self.content
    }

    /// Takes it over: call this when the application has dealt with it or has it safe. The sender is told *delivered*, and what
    /// comes again is answered so without being handed over.
    pub fn accept(mut self) {
        self.decide(Verdict::Accepted);
    }

    /// Refuses it for good: the sender is told that it failed. For content that the application cannot ever use.
    pub fn refuse(mut self) {
        self.decide(Verdict::Refused);
    }

    fn decide(&mut self, verdict: Verdict) {
        let Some(answer) = self.answer.take() else { return };
        self.hand_overs.decided(&self.key, verdict);
        // Whoever asked may have left: the decision is remembered for when it asks again.
        let _ = answer.send(verdict);
    }
}

impl Received<Message> {
    /// The report that the originator asked for, if it did: that the message reached this Application Server. It goes to
    /// [`crate::ApplicationServer::report`] after [`Received::accept`].
    #[must_use]
    pub fn success_report(&self) -> Option<DeliveryStatusReport> {
        let message = &self.content;
        message.delivery_status_required.then(|| DeliveryStatusReport {
            originator: message.recipient.clone().unwrap_or_else(|| message.destination.clone()),
            destination: message.originator.clone(),
            message_id: message.message_id.clone(),
            delivery_status: ReportDeliveryStatus::Success,
            failure_cause: None,
        })
    }
}

impl<T> Drop for Received<T> {
    fn drop(&mut self) {
        if self.answer.is_some() {
            self.hand_overs.given_back(&self.key);
        }
    }
}
