//! What a device was handed, counted.

use std::time::Instant;

use client::{Incoming, IncomingStream};
use message::{DeliveryStatusReport, Message, MessageId};

use super::cast::{Broken, text, within};

/// The messages and reports of one device. Everything is accepted, so that nothing is handed over again for that reason.
pub(super) struct Inbox {
    incoming: IncomingStream,
    messages: Vec<(Message, Instant)>,
    reports: Vec<(DeliveryStatusReport, Instant)>,
}

impl Inbox {
    pub(super) fn new(incoming: IncomingStream) -> Self {
        Self { incoming, messages: Vec::new(), reports: Vec::new() }
    }

    /// The message `id`, and when it was handed over.
    pub(super) async fn message(&mut self, id: &MessageId) -> Result<(Message, Instant), Broken> {
        loop {
            if let Some(found) = self.messages.iter().find(|(message, _)| message.message_id == *id) {
                return Ok(found.clone());
            }
            self.take("a message").await?;
        }
    }

    /// The report on message `id`, and when it was handed over.
    pub(super) async fn report(&mut self, id: &MessageId) -> Result<(DeliveryStatusReport, Instant), Broken> {
        loop {
            if let Some(found) = self.reports.iter().find(|(report, _)| report.message_id == *id) {
                return Ok(found.clone());
            }
            self.take("a report").await?;
        }
    }

    /// The next report on message `id`: of one to many there are several.
    pub(super) async fn next_report(&mut self, id: &MessageId) -> Result<(DeliveryStatusReport, Instant), Broken> {
        loop {
            if let Some(index) = self.reports.iter().position(|(report, _)| report.message_id == *id) {
                return Ok(self.reports.swap_remove(index));
            }
            self.take("a report").await?;
        }
    }

    /// Whether message `id` was handed over once so far.
    pub(super) fn expect_once(&self, id: &MessageId) -> Result<(), Broken> {
        match self.count(id) {
            1 => Ok(()),
            count => Err(format!("was handed over {count} times")),
        }
    }

    /// How often message `id` was handed over so far.
    pub(super) fn count(&self, id: &MessageId) -> usize {
        self.messages.iter().filter(|(message, _)| message.message_id == *id).count()
    }

    async fn take(&mut self, what: &str) -> Result<(), Broken> {
        let incoming = within(what, self.incoming.next()).await?.ok_or("the client has ended")?;
        let now = Instant::now();
        match incoming {
            Incoming::Message(received) => {
                self.messages.push((received.content().clone(), now));
                received.accept().await.map_err(text)
            }
            Incoming::Report(received) => {
                self.reports.push((received.content().clone(), now));
                received.accept().await.map_err(text)
            }
            _ => Ok(()),
        }
    }
}
