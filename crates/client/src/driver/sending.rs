//! What the application sends and asks for, up to where it stands in line.

use coap::Response;
use message::{Address, AggregatedMessage, Message, MessagingTopic, Priority, UeMessage};
use time::OffsetDateTime;
use tokio::{sync::oneshot, time::Instant};

use super::Driver;
use crate::{
    aggregation::Waiting as Collected,
    error::ClientError,
    outbound::random_message_id,
    requests::{Lane, Part, Purpose, Waiting},
    segmented::{Segmented, SetName},
    subscriptions::Now,
};

/// What the application wants. Everything is coded before it comes here.
#[derive(Debug)]
pub(crate) enum Command {
    /// To send a message.
    Message { message: Box<Message>, unsent: Unsent },
    /// To send a message as segments.
    Segments { name: SetName, priority: Priority, bodies: Vec<Vec<u8>>, waiting: Waiting },
    /// To have the server do something else, and hear its answer.
    Procedure { body: Vec<u8>, answer: oneshot::Sender<Result<Response, ClientError>>, deadline: Instant },
    /// To subscribe to these topics, if there is room; as a procedure otherwise.
    Subscribe {
        topics: Vec<MessagingTopic>,
        body: Vec<u8>,
        answer: oneshot::Sender<Result<Response, ClientError>>,
        deadline: Instant,
    },
    /// To stay subscribed to these topics: the server has said yes.
    Subscribed { topics: Vec<MessagingTopic>, until: Option<OffsetDateTime>, granted: Option<OffsetDateTime> },
    /// Not to stay subscribed to them.
    Unsubscribed { topics: Vec<MessagingTopic> },
}

/// A message as it is sent on its own, and who waits for what becomes of it.
#[derive(Debug)]
pub(crate) struct Unsent {
    pub(crate) body: Vec<u8>,
    pub(crate) waiting: Waiting,
}

impl Driver {
    /// Whether another message may be taken up. What is collected for aggregates will need room, too.
    pub(super) fn has_room(&self) -> bool {
        self.requests.room() > self.aggregator.as_ref().map_or(0, |aggregator| aggregator.requests())
    }

    /// Nothing comes any more when nobody holds the client.
    pub(super) fn on_command(&mut self, command: Option<Command>) {
        match command {
            Some(Command::Message { message, unsent }) => self.on_message(*message, unsent),
            Some(Command::Segments { name, priority, bodies, waiting }) => {
                // What was collected for the same recipient is before it.
                if let Some(aggregator) = &mut self.aggregator {
                    let before = aggregator.flush_for(&name.destination);
                    self.send_collected(before);
                }
                let segmented = Segmented::new(name, bodies, self.config.limits.segment_resends_max);
                self.requests.push_segments(segmented, priority, waiting);
            }
            Some(Command::Procedure { body, answer, deadline }) => {
                self.requests.push(body, None, Purpose::Procedure { answer, deadline });
            }
            Some(Command::Subscribe { topics, body, answer, deadline }) => {
                if self.subscriptions.has_room(&topics, self.config.limits.subscribed_topics_max) {
                    self.requests.push(body, None, Purpose::Procedure { answer, deadline });
                } else {
                    let error = ClientError::Invalid("more topics than limits.subscribed_topics_max allows".into());
                    // The application may have stopped waiting.
                    let _ = answer.send(Err(error));
                }
            }
            Some(Command::Subscribed { topics, until, granted }) => {
                self.subscriptions.subscribed(&topics, until, granted, Now::get());
            }
            Some(Command::Unsubscribed { topics }) => self.subscriptions.unsubscribed(&topics),
            None => self.close(),
        }
    }

    fn on_message(&mut self, message: Message, unsent: Unsent) {
        match &mut self.aggregator {
            Some(aggregator) => {
                let ready = aggregator.offer(message, unsent, Instant::now());
                self.send_collected(ready);
            }
            None => {
                let Unsent { body, waiting } = unsent;
                self.requests.push(body, Some(lane(&message)), Purpose::Message(waiting));
            }
        }
    }

    /// Sends what has waited for others long enough.
    pub(super) fn send_due_aggregates(&mut self, now: Instant) {
        if let Some(aggregator) = &mut self.aggregator {
            let due = aggregator.due(now);
            self.send_collected(due);
        }
    }

    /// Sends what waits for others, as nothing more will come.
    pub(super) fn flush_aggregates(&mut self) {
        if let Some(aggregator) = &mut self.aggregator {
            let all = aggregator.flush();
            self.send_collected(all);
        }
    }

    fn send_collected(&mut self, collections: Vec<Vec<Collected<Unsent>>>) {
        for collection in collections {
            let (messages, unsent): (Vec<Message>, Vec<Unsent>) =
                collection.into_iter().map(|collected| (collected.message, collected.waiter)).unzip();
            let lane = messages.first().map(lane);
            match self.aggregate(&messages) {
                Some(body) => {
                    let part = |Unsent { body, waiting }| Part { body, waiting };
                    self.requests.push(body, lane, Purpose::Aggregate(unsent.into_iter().map(part).collect()));
                }
                None => {
                    for (message, Unsent { body, waiting }) in messages.iter().zip(unsent) {
                        self.requests.push(body, Some(self::lane(message)), Purpose::Message(waiting));
                    }
                }
            }
        }
    }

    /// The messages as one, coded; none if they cannot be one.
    fn aggregate(&self, messages: &[Message]) -> Option<Vec<u8>> {
        let aggregate = AggregatedMessage::aggregate(random_message_id(), messages).ok()?;
        let body = UeMessage::AggregatedMessage(Box::new(aggregate)).encode();
        (body.len() <= self.config.limits.message_octets_max).then_some(body)
    }

    /// Subscribes again to what is due.
    pub(super) fn renew_subscriptions(&mut self) {
        if !self.link.is_registered() {
            return;
        }
        let originator = Address::ue(&self.config.ue_service_id);
        for subscription in self.subscriptions.due(&originator, Now::get()) {
            let topics = subscription.topics.clone();
            self.requests.push(UeMessage::TopicSubscription(subscription).encode(), None, Purpose::Renewal(topics));
        }
    }
}

fn lane(message: &Message) -> Lane {
    (message.destination.clone(), message.priority)
}
