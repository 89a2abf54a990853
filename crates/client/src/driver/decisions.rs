//! What the application decides about what was handed to it, and what its senders are owed then.

use message::{
    Address, DecodeLimits, DeliveryStatusReport, FailureCause, Message, ReportDeliveryStatus, SegmentConfirmation,
    SegmentRecovery, SegmentationSetId, UeMessage,
};
use tokio::time::Instant;

use super::{Driver, Link};
use crate::{
    error::ClientError,
    hand_over::{HandOverKey, Owed, Terms},
    incoming::{Decision, Verdict},
    journal::Record,
    journal_writer::Batch,
    reassembly::Due,
    requests::Purpose,
};

impl Driver {
    /// Takes over what an earlier run of this client left behind.
    pub(super) fn recall(&mut self, records: Vec<Record>) {
        for record in records {
            match record {
                Record::Accepted { key, priority, report_owed, confirmation_owed } => {
                    self.hand_overs.remember(key.clone(), priority);
                    self.owe(key, Owed { report: report_owed, confirmation: confirmation_owed });
                }
                Record::Held { key, body, .. } => {
                    match UeMessage::decode(body.to_string().as_bytes(), &self.decode_limits()) {
                        Ok(UeMessage::Message(segment)) if !self.hand_overs.is_remembered(&key.whole()) => {
                            self.reassembly.restore(*segment);
                        }
                        Ok(_) => {}
                        // The limits were larger when it was taken.
                        Err(error) => tracing::warn!(message_id = %key.message_id, %error, "a segment cannot be kept"),
                    }
                }
                _ => {}
            }
        }
    }

    pub(super) fn on_decision(&mut self, decision: Decision) {
        let Decision { key, verdict } = decision;
        match verdict {
            Verdict::Accept(waiting) => {
                let Some(Terms { priority, owed }) = self.hand_overs.accept(&key, waiting) else { return };
                let (report_owed, confirmation_owed) = (owed.report, owed.confirmation);
                self.record(Record::Accepted { key, priority, report_owed, confirmation_owed });
                return;
            }
            Verdict::Refuse(cause) => self.refused(&key, cause),
            Verdict::PutOff => {
                let Some(settled) = self.hand_overs.give_back(&key) else { return };
                self.reassembly.park(&key, Instant::now());
                settled.places.into_iter().for_each(|place| self.put_off_alone(place));
            }
            Verdict::GiveBack => {
                let Some(settled) = self.hand_overs.give_back(&key) else { return };
                self.reassembly.park(&key, Instant::now());
                settled.places.into_iter().for_each(|place| self.put_off(place, &key));
            }
        }
        self.feed();
    }

    fn refused(&mut self, key: &HandOverKey, cause: FailureCause) {
        let Some(settled) = self.hand_overs.give_back(key) else { return };
        let record = self.reassembly.whole(key).map(|(_, set_id)| {
            // Its segments need not be kept any longer.
            Record::Dropped { key: key.clone(), set_id: set_id.clone() }
        });
        let segments = self.reassembly.settled(key);
        settled.places.into_iter().chain(segments).for_each(|place| self.refuse(place, key, cause));
        if let (Some(journal), Some(record)) = (&mut self.journal, record) {
            journal.write(record);
        }
    }

    /// Has a record written; without a journal it counts as written.
    pub(super) fn record(&mut self, record: Record) {
        match &mut self.journal {
            Some(journal) => journal.write(record),
            None => self.settle(Batch { records: vec![record], result: Ok(()) }),
        }
    }

    pub(super) fn on_batch(&mut self, batch: Batch) {
        if let Err(error) = &batch.result {
            tracing::error!(%error, "cannot write the hand-over journal");
        }
        self.settle(batch);
    }

    /// The records are on disk, or could not be put there: acknowledges what was accepted or held, or does not.
    pub(super) fn settle(&mut self, batch: Batch) {
        for record in batch.records {
            match (record, &batch.result) {
                (Record::Accepted { key, .. }, Ok(())) => self.accepted(key),
                (Record::Accepted { key, .. }, Err(error)) => self.not_recorded(&key, error),
                (Record::Held { key, set_id, .. }, result) => {
                    for place in self.reassembly.written(&key, &set_id, result.is_ok()) {
                        match result {
                            Ok(()) => self.acknowledge(place, &key),
                            Err(_) => self.put_off_alone(place),
                        }
                    }
                }
                _ => {}
            }
        }
        self.feed();
    }

    fn accepted(&mut self, key: HandOverKey) {
        let Some(settled) = self.hand_overs.settle(&key) else { return };
        // Its segments are as safe as the message is.
        let segments = self.reassembly.settled(&key);
        segments.into_iter().chain(settled.places).for_each(|place| self.acknowledge(place, &key));
        self.owe(key, settled.owed);
        if let Some(waiting) = settled.waiting {
            // The application may have stopped waiting.
            let _ = waiting.send(Ok(()));
        }
    }

    fn not_recorded(&mut self, key: &HandOverKey, error: &std::io::Error) {
        let Some(settled) = self.hand_overs.give_back(key) else { return };
        self.reassembly.park(key, Instant::now());
        settled.places.into_iter().for_each(|place| self.put_off(place, key));
        if let Some(waiting) = settled.waiting {
            let path = self.config.state_dir.clone().unwrap_or_default();
            let source = std::sync::Arc::new(std::io::Error::new(error.kind(), error.to_string()));
            let _ = waiting.send(Err(ClientError::State { path, source }));
        }
    }

    /// Puts what the sender of an accepted message is owed among the requests: the report (TS 23.554 clause 8.3.4), and
    /// the confirmation of its segments (clause 8.5).
    fn owe(&mut self, key: HandOverKey, owed: Owed) {
        if let Some(set_id) = owed.confirmation {
            let confirmation = UeMessage::SegmentConfirmation(SegmentConfirmation {
                originator: Address::ue(&self.config.ue_service_id),
                destination: key.originator.clone(),
                message_id: key.message_id.clone(),
                set_id,
            });
            self.requests.push(confirmation.encode(), None, Purpose::Confirmation(key.clone()));
        }
        if owed.report {
            let report = UeMessage::DeliveryStatusReport(self.report(&key, None));
            self.requests.push(report.encode(), None, Purpose::Report(key));
        }
        self.limit_reports();
    }

    fn report(&self, key: &HandOverKey, failure: Option<FailureCause>) -> DeliveryStatusReport {
        DeliveryStatusReport {
            originator: Address::ue(&self.config.ue_service_id),
            destination: key.originator.clone(),
            message_id: key.message_id.clone(),
            delivery_status: match failure {
                None => ReportDeliveryStatus::Success,
                Some(_) => ReportDeliveryStatus::Failed,
            },
            failure_cause: failure.map(Into::into),
        }
    }

    fn limit_reports(&mut self) {
        while let Some(given_up) = self.requests.give_up_report(self.config.limits.reports_owed_max) {
            for exchange in given_up.exchanges() {
                if let Link::Up { session, .. } = &mut self.link {
                    session.cancel(exchange);
                }
            }
            tracing::warn!(purpose = ?given_up.purpose, "too many delivery status reports: the oldest is given up");
            self.report_over(given_up.purpose);
        }
    }

    /// Nothing more is to be done about a report.
    pub(super) fn report_over(&mut self, purpose: Purpose) {
        let record = match purpose {
            Purpose::Report(key) => Record::Reported { key },
            Purpose::Confirmation(key) => Record::Confirmed { key },
            _ => return,
        };
        if let Some(journal) = &mut self.journal {
            journal.write(record);
        }
    }

    /// Asks for segments that stay away, and gives up messages of which they stayed away too long.
    pub(super) fn chase_segments(&mut self, now: Instant) {
        for due in self.reassembly.due(now) {
            match due {
                Due::Recover { message, set_id, missing } => self.ask_for_segments(&message, set_id, missing),
                Due::Failed { message } => self.give_up(&message),
                Due::Forget(record) => self.record(record),
            }
        }
    }

    fn ask_for_segments(&mut self, message: &Message, set_id: SegmentationSetId, missing: Vec<u32>) {
        tracing::info!(message_id = %message.message_id, segments = missing.len(), "segments are missing");
        let recovery = UeMessage::SegmentRecovery(SegmentRecovery {
            originator: Address::ue(&self.config.ue_service_id),
            destination: message.originator.clone(),
            message_id: message.message_id.clone(),
            set_id,
            missing,
        });
        self.requests.push(recovery.encode(), None, Purpose::Recovery);
        self.limit_reports();
    }

    fn give_up(&mut self, message: &Message) {
        let key = HandOverKey::of_message(message).whole();
        // By another set of segments it may have come after all.
        if self.hand_overs.is_remembered(&key) || self.reassembly.whole(&key).is_some() {
            return;
        }
        tracing::warn!(message_id = %key.message_id, "a message is given up: its segments stay away");
        if message.delivery_status_required {
            let report = UeMessage::DeliveryStatusReport(self.report(&key, Some(FailureCause::SegmentsMissing)));
            self.requests.push(report.encode(), None, Purpose::Report(key));
            self.limit_reports();
        }
    }

    pub(super) fn decode_limits(&self) -> DecodeLimits {
        DecodeLimits {
            message_octets_max: self.config.limits.message_octets_max,
            payload_octets_max: self.config.limits.payload_octets_max,
            ..DecodeLimits::default()
        }
    }
}
