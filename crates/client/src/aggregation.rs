//! Collects small messages for one recipient and sends them as one (TS 23.554 clause 8.4.2), without I/O.
//!
//! The scheduling policy is the operator's; ours (INFERRED) is: the first message waits for others at most
//! [`AggregationPolicy::wait`], and no longer than until the next one would not fit. A message that may not be aggregated
//! (high priority, segmented, larger than the aggregate may be) goes out at once, behind what waits for the same
//! recipient, so that the order of one recipient's messages is that of the calls.

use std::{collections::HashSet, time::Duration};

use message::{Address, AggregatedMessage, INDIVIDUAL_MESSAGES_MAX, Message, MessageId};
use tokio::time::Instant;

/// When messages are sent as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregationPolicy {
    /// How long a message waits for others to the same recipient.
    pub wait: Duration,
    /// Octets of payload in one aggregate, at most those of one segment.
    pub octets_max: usize,
}

/// A message that waits, and who waits for it.
#[derive(Debug)]
pub(crate) struct Waiting<W> {
    pub(crate) message: Message,
    pub(crate) waiter: W,
}

/// Messages for one recipient, never empty.
#[derive(Debug)]
struct Collection<W> {
    messages: Vec<Waiting<W>>,
    octets: usize,
    due: Instant,
    ids: HashSet<MessageId>,
}

/// Messages that wait for others. `W` is who waits for what becomes of one.
#[derive(Debug)]
pub(crate) struct Aggregator<W> {
    policy: AggregationPolicy,
    /// Of different recipients.
    collections: Vec<Collection<W>>,
}

impl<W> Aggregator<W> {
    pub(crate) fn new(policy: AggregationPolicy) -> Self {
        Self { policy, collections: Vec::new() }
    }

    /// Takes a message; yields what is to be sent now, in order: each element is one request.
    pub(crate) fn offer(&mut self, message: Message, waiter: W, now: Instant) -> Vec<Vec<Waiting<W>>> {
        let octets = message.payload.len();
        let alone = AggregatedMessage::accepts(&message).is_err() || octets > self.policy.octets_max;
        let same = |collection: &Collection<W>| {
            collection.messages.first().is_some_and(|first| first.message.destination == message.destination)
        };
        let mut ready = Vec::new();
        let place = self.collections.iter().position(same);
        if let Some(place) = place
            && self.collections.get(place).is_some_and(|collection| {
                alone
                    || collection.octets.saturating_add(octets) > self.policy.octets_max
                    || collection.messages.len() >= INDIVIDUAL_MESSAGES_MAX
                    || collection.ids.contains(&message.message_id)
            })
        {
            ready.push(self.collections.remove(place).messages);
        }
        let waiting = Waiting { message, waiter };
        if alone {
            ready.push(vec![waiting]);
            return ready;
        }
        let message_id = waiting.message.message_id.clone();
        match place.filter(|_| ready.is_empty()).and_then(|place| self.collections.get_mut(place)) {
            Some(collection) => {
                collection.octets += octets;
                collection.ids.insert(message_id);
                collection.messages.push(waiting);
            }
            None => {
                let due = now + self.policy.wait;
                let ids = HashSet::from([message_id]);
                self.collections.push(Collection { messages: vec![waiting], octets, due, ids });
            }
        }
        ready
    }

    /// What has waited long enough.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Vec<Waiting<W>>> {
        self.collections.extract_if(.., |collection| collection.due <= now).map(|due| due.messages).collect()
    }

    /// Everything, without waiting longer.
    pub(crate) fn flush(&mut self) -> Vec<Vec<Waiting<W>>> {
        std::mem::take(&mut self.collections).into_iter().map(|collection| collection.messages).collect()
    }

    /// What waits for one recipient, without waiting longer.
    pub(crate) fn flush_for(&mut self, destination: &Address) -> Vec<Vec<Waiting<W>>> {
        let is_meant = |collection: &mut Collection<W>| {
            collection.messages.first().is_some_and(|first| first.message.destination == *destination)
        };
        self.collections.extract_if(.., is_meant).map(|meant| meant.messages).collect()
    }

    /// When something has waited long enough.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.collections.iter().map(|collection| collection.due).min()
    }

    /// How many requests wait at most to be made.
    pub(crate) fn requests(&self) -> usize {
        self.collections.len()
    }

    /// How many messages wait.
    pub(crate) fn messages(&self) -> usize {
        self.collections.iter().map(|collection| collection.messages.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use message::Priority;
    use proptest::prelude::*;

    use super::*;

    fn message(destination: u8, id: usize, priority: Priority, octets: usize) -> Message {
        let address = |name: String| Address::ue(&name.parse().unwrap());
        Message {
            originator: address("a@x".into()),
            destination: address(format!("b{destination}@x")),
            recipient: None,
            message_id: id.to_string().parse().unwrap(),
            application_id: None,
            delivery_status_required: false,
            store_and_forward: false,
            expiration_time: None,
            priority,
            payload: vec![0; octets],
            segment: None,
            latency: None,
        }
    }

    fn aggregator() -> Aggregator<usize> {
        Aggregator::new(AggregationPolicy { wait: Duration::from_secs(1), octets_max: 100 })
    }

    fn ids(requests: &[Vec<Waiting<usize>>]) -> Vec<Vec<usize>> {
        requests.iter().map(|request| request.iter().map(|waiting| waiting.waiter).collect()).collect()
    }

    #[test]
    fn messages_for_one_recipient_wait_together_and_no_longer_than_the_first() {
        let (mut aggregator, now) = (aggregator(), Instant::now());
        assert!(aggregator.offer(message(1, 0, Priority::Middle, 10), 0, now).is_empty());
        let later = now + Duration::from_millis(900);
        assert!(aggregator.offer(message(1, 1, Priority::Low, 10), 1, later).is_empty());
        assert!(aggregator.offer(message(2, 2, Priority::Middle, 10), 2, later).is_empty());
        assert_eq!((aggregator.requests(), aggregator.messages()), (2, 3));
        assert!(aggregator.due(later).is_empty());
        let due = aggregator.next_due().unwrap();
        assert_eq!(due, now + Duration::from_secs(1));
        assert_eq!(ids(&aggregator.due(due)), [[0, 1]]);
        assert_eq!(ids(&aggregator.flush()), [[2]]);
    }

    #[test]
    fn what_may_not_be_aggregated_goes_at_once_behind_what_waits_for_the_same_recipient() {
        let (mut aggregator, now) = (aggregator(), Instant::now());
        aggregator.offer(message(1, 0, Priority::Middle, 10), 0, now);
        aggregator.offer(message(2, 1, Priority::Middle, 10), 1, now);
        assert_eq!(ids(&aggregator.offer(message(1, 2, Priority::High, 10), 2, now)), [[0], [2]]);
        assert_eq!(ids(&aggregator.offer(message(1, 3, Priority::Low, 101), 3, now)), [[3]]);
        assert_eq!(ids(&aggregator.flush()), [[1]]);
    }

    #[test]
    fn an_aggregate_goes_when_the_next_message_does_not_fit_or_has_a_name_that_is_in_it() {
        let (mut aggregator, now) = (aggregator(), Instant::now());
        aggregator.offer(message(1, 0, Priority::Middle, 60), 0, now);
        assert_eq!(ids(&aggregator.offer(message(1, 1, Priority::Middle, 41), 1, now)), [[0]]);
        assert!(aggregator.offer(message(1, 2, Priority::Middle, 59), 2, now).is_empty());
        assert_eq!(ids(&aggregator.offer(message(1, 2, Priority::Middle, 0), 3, now)), [[1, 2]]);
        for id in 10..10 + INDIVIDUAL_MESSAGES_MAX - 1 {
            assert!(aggregator.offer(message(1, id, Priority::Middle, 0), id, now).is_empty());
        }
        assert_eq!(aggregator.offer(message(1, 9, Priority::Middle, 0), 9, now)[0].len(), INDIVIDUAL_MESSAGES_MAX);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever is offered when: each message is sent once, every request can be an aggregate or is a single message,
        /// nothing waits too long, and each recipient's messages keep their order.
        #[test]
        fn every_message_is_sent_once_in_order_and_in_time(
            offers in prop::collection::vec((0_u8..3, 0_u8..3, 0_usize..120, 0_u64..700), 0..150),
        ) {
            let (mut aggregator, mut now) = (aggregator(), Instant::now());
            let (mut sent, mut offered) = (Vec::new(), Vec::new());
            for (id, (destination, priority, octets, pause)) in offers.into_iter().enumerate() {
                now += Duration::from_millis(pause);
                sent.extend(aggregator.due(now));
                prop_assert!(aggregator.next_due().is_none_or(|due| due > now && due <= now + Duration::from_secs(1)));
                let priority = [Priority::High, Priority::Middle, Priority::Low][usize::from(priority)];
                offered.push((id, destination));
                sent.extend(aggregator.offer(message(destination, id, priority, octets), id, now));
            }
            sent.extend(aggregator.flush());
            prop_assert_eq!(aggregator.messages(), 0);
            for request in sent.iter().filter(|request| request.len() > 1) {
                let messages: Vec<Message> = request.iter().map(|waiting| waiting.message.clone()).collect();
                let aggregate = AggregatedMessage::aggregate("all".parse().unwrap(), &messages).unwrap();
                prop_assert!(aggregate.payload_octets() <= 100);
                prop_assert_eq!(aggregate.into_messages(), messages);
            }
            let order: Vec<usize> = sent.iter().flatten().map(|waiting| waiting.waiter).collect();
            prop_assert_eq!(order.len(), offered.len());
            for recipient in 0..3 {
                let of = |id: &usize| offered[*id].1 == recipient;
                prop_assert!(order.iter().copied().filter(of).is_sorted());
            }
        }
    }
}
