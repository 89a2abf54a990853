//! Aggregated messages and reports from UEs (TS 23.554 clause 8.4): taken apart where they come in, and answered in one.
//!
//! Each individual message is routed, remembered and delivered as if it had come alone, so that nothing behind this module
//! knows of aggregates, and a repeated aggregate, or one that shares messages with another, does no harm. An aggregate
//! counts as as many requests of its UE as it has messages.

use std::sync::{Arc, Mutex};

use message::{AggregatedMessage, AggregatedReport, FailureCause, MessageId};

use crate::core::Core;
use crate::delivery::{Answer, Reply};
use crate::registry::{OpenRequest, Party};
use crate::sync::lock;

/// The answers to the messages of one aggregate, until all are there.
#[derive(Debug)]
pub(crate) struct Aggregate(Mutex<Collected>);

#[derive(Debug)]
struct Collected {
    answers: Vec<(MessageId, Option<Answer>)>,
    unanswered: usize,
    reply: Option<Reply>,
    /// What it counts as beside the one request that brought it.
    open: Vec<OpenRequest>,
}

impl Aggregate {
    fn new(message_ids: Vec<MessageId>, reply: Reply, open: Vec<OpenRequest>) -> Arc<Self> {
        let unanswered = message_ids.len();
        let answers = message_ids.into_iter().map(|message_id| (message_id, None)).collect();
        Arc::new(Self(Mutex::new(Collected { answers, unanswered, reply: Some(reply), open })))
    }

    /// The answer to the message with this number. The last one answers the aggregate.
    pub(crate) fn answered(&self, index: usize, answer: Answer) {
        let mut collected = lock(&self.0);
        match collected.answers.get_mut(index) {
            Some((_, none @ None)) => *none = Some(answer),
            _ => return,
        }
        collected.unanswered -= 1;
        if collected.unanswered > 0 {
            return;
        }
        let answers = std::mem::take(&mut collected.answers);
        let (reply, open) = (collected.reply.take(), std::mem::take(&mut collected.open));
        drop(collected);
        drop(open);
        if let Some(reply) = reply {
            reply.give(in_one(answers.into_iter().filter_map(|(id, answer)| Some((id, answer?))).collect()));
        }
    }
}

/// One answer for all: the weakest promise if something was promised about each, the cause if all failed alike, else each
/// message's own.
fn in_one(answers: Vec<(MessageId, Answer)>) -> Answer {
    let all = |like: &dyn Fn(&Answer) -> bool| answers.iter().all(|(_, answer)| like(answer));
    if all(&|answer| *answer == Answer::Delivered) {
        return Answer::Delivered;
    }
    if all(&|answer| matches!(answer, Answer::Delivered | Answer::Stored)) {
        return Answer::Stored;
    }
    match answers.first() {
        Some((_, Answer::Failed(cause))) if all(&|answer| *answer == Answer::Failed(*cause)) => Answer::Failed(*cause),
        _ => Answer::Individually(answers.into()),
    }
}

impl Core {
    /// Takes the messages of an aggregate of `from` in, each for itself.
    pub(crate) fn route_aggregate(self: &Arc<Self>, from: &Arc<Party>, aggregated: AggregatedMessage, reply: Reply) {
        if aggregated.originator != from.address {
            return self.refuse_forged(from, &aggregated.originator, reply);
        }
        let messages = aggregated.into_messages();
        let ids = messages.iter().map(|message| message.message_id.clone()).collect();
        self.metrics.aggregate_received();
        self.take_apart(from, ids, reply, |index, reply| {
            if let Some(message) = messages.get(index) {
                self.route_message(from, message.clone(), reply);
            }
        });
    }

    /// Takes the reports of an aggregated report of `from` in, each for itself.
    pub(crate) fn route_aggregated_report(
        self: &Arc<Self>,
        from: &Arc<Party>,
        aggregated: AggregatedReport,
        reply: Reply,
    ) {
        if aggregated.originator != from.address {
            return self.refuse_forged(from, &aggregated.originator, reply);
        }
        let reports = aggregated.into_reports();
        let ids = reports.iter().map(|report| report.message_id.clone()).collect();
        self.take_apart(from, ids, reply, |index, reply| {
            if let Some(report) = reports.get(index) {
                self.route_report(from, report.clone(), reply);
            }
        });
    }

    fn take_apart(&self, from: &Arc<Party>, ids: Vec<MessageId>, reply: Reply, route: impl Fn(usize, Reply)) {
        let count = ids.len();
        let open_max = self.limits.requests_per_connection_max;
        // The one that brought it is counted already.
        let open: Vec<_> = (1..count).map_while(|_| OpenRequest::of(from, open_max)).collect();
        if count == 0 || open.len() + 1 < count {
            return self.refuse(reply, FailureCause::TooMany);
        }
        let aggregate = Aggregate::new(ids, reply, open);
        for index in 0..count {
            route(index, Reply::Individual(Arc::clone(&aggregate), index));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn answers(answers: &[Answer]) -> Answer {
        in_one(answers.iter().map(|answer| ("1".parse().unwrap(), answer.clone())).collect())
    }

    #[test]
    fn one_answer_promises_no_more_than_the_weakest() {
        use Answer::{Delivered, Failed, Stored};
        let away = Failed(FailureCause::TargetUnreachable);
        assert_eq!(answers(&[Delivered, Delivered]), Delivered);
        assert_eq!(answers(&[Delivered, Stored]), Stored);
        assert_eq!(answers(&[away.clone(), away.clone()]), away);
        let Answer::Individually(each) = answers(&[Stored, away.clone()]) else { panic!() };
        assert_eq!(each.iter().map(|(_, answer)| answer.clone()).collect::<Vec<_>>(), [Stored, away]);
    }
}
