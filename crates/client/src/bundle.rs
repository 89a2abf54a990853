//! Several messages or reports that came in one request (TS 23.554 clauses 8.4, 8.7.4), without I/O: each is handed over
//! by itself, as room allows, and the request is answered once, when the application has decided about all of them.
//!
//! If one is given back, the whole request is: it comes again, and those that were accepted are told by their names.

use std::collections::{BTreeMap, VecDeque};

use message::{Address, DeliveryStatus, FailureCause, IndividualResponse, MessageId, MessageResponse};

/// The request, and what is left to do about it. `X` names its exchange, `C` what is handed over.
#[derive(Debug)]
struct Bundle<X, C> {
    exchange: X,
    /// Whose request the answer names.
    originator: Address,
    message_id: MessageId,
    /// Not handed over yet, in order.
    waiting: VecDeque<C>,
    /// Handed over, and undecided.
    undecided: usize,
    /// What became of each, in order of the decisions.
    decided: Vec<(MessageId, Option<FailureCause>)>,
}

/// Requests with several messages or reports.
#[derive(Debug)]
pub(crate) struct Bundles<X, C> {
    entries: BTreeMap<u64, Bundle<X, C>>,
    next: u64,
}

impl<X: Copy, C> Bundles<X, C> {
    pub(crate) fn new() -> Self {
        Self { entries: BTreeMap::new(), next: 0 }
    }

    /// Notes a request; yields its number.
    pub(crate) fn push(&mut self, exchange: X, originator: Address, message_id: MessageId, content: Vec<C>) -> u64 {
        let number = self.next;
        self.next += 1;
        let (waiting, decided) = (content.into(), Vec::new());
        self.entries.insert(number, Bundle { exchange, originator, message_id, waiting, undecided: 0, decided });
        number
    }

    /// The oldest request of which something waits to be handed over, and what; none while nothing waits.
    pub(crate) fn first_waiting(&self) -> Option<(u64, &C)> {
        self.entries.iter().find_map(|(number, bundle)| Some((*number, bundle.waiting.front()?)))
    }

    /// The first that waits of this request is handed over.
    pub(crate) fn hand_over(&mut self, number: u64) -> Option<C> {
        let bundle = self.entries.get_mut(&number)?;
        let content = bundle.waiting.pop_front()?;
        bundle.undecided += 1;
        Some(content)
    }

    /// One that was handed over is decided: accepted, or refused. Yields where and what to answer if it was the last.
    pub(crate) fn decided(
        &mut self,
        number: u64,
        message_id: MessageId,
        refused: Option<FailureCause>,
    ) -> Option<(X, MessageResponse)> {
        let bundle = self.entries.get_mut(&number)?;
        bundle.undecided = bundle.undecided.saturating_sub(1);
        bundle.decided.push((message_id, refused));
        if bundle.undecided > 0 || !bundle.waiting.is_empty() {
            return None;
        }
        let bundle = self.entries.remove(&number)?;
        let is_accepted = bundle.decided.iter().all(|(_, refused)| refused.is_none());
        let individual = |(message_id, refused): (MessageId, Option<FailureCause>)| IndividualResponse {
            message_id,
            status: refused.map(|_| DeliveryStatus::Failed),
            failure_cause: refused.map(Into::into),
        };
        let answer = MessageResponse {
            originator: bundle.originator,
            message_id: bundle.message_id,
            status: (!is_accepted).then_some(DeliveryStatus::Failed),
            failure_cause: (!is_accepted).then(|| FailureCause::TargetRefused.into()),
            individual: if is_accepted { Vec::new() } else { bundle.decided.into_iter().map(individual).collect() },
        };
        Some((bundle.exchange, answer))
    }

    /// The request goes back to the server; yields where that is answered. Nothing is known of it any more.
    pub(crate) fn give_back(&mut self, number: u64) -> Option<X> {
        self.entries.remove(&number).map(|bundle| bundle.exchange)
    }

    /// The connection is gone, and the requests with it.
    pub(crate) fn disconnected(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn bundles(content: &[&'static str]) -> (Bundles<u32, &'static str>, u64) {
        let mut bundles = Bundles::new();
        let originator = Address::ue(&"a@x".parse().unwrap());
        let number = bundles.push(7, originator, "all".parse().unwrap(), content.to_vec());
        (bundles, number)
    }

    fn id(id: &str) -> MessageId {
        id.parse().unwrap()
    }

    #[test]
    fn it_is_answered_when_the_last_one_is_decided() {
        let (mut bundles, number) = bundles(&["1", "2", "3"]);
        assert_eq!(bundles.first_waiting(), Some((number, &"1")));
        assert_eq!([bundles.hand_over(number), bundles.hand_over(number)], [Some("1"), Some("2")]);
        assert!(bundles.decided(number, id("2"), None).is_none());
        assert!(bundles.decided(number, id("1"), None).is_none(), "one waits");
        assert_eq!(bundles.hand_over(number), Some("3"));
        assert!(bundles.first_waiting().is_none() && bundles.hand_over(number).is_none());
        let (exchange, answer) = bundles.decided(number, id("3"), None).unwrap();
        assert_eq!((exchange, answer.status, answer.individual.len()), (7, None, 0));
        assert!(bundles.decided(number, id("3"), None).is_none(), "it is over");
    }

    #[test]
    fn what_the_application_refused_is_told_of_each() {
        let (mut bundles, number) = bundles(&["1", "2"]);
        bundles.hand_over(number);
        bundles.hand_over(number);
        bundles.decided(number, id("1"), Some(FailureCause::TargetRefused));
        let (_, answer) = bundles.decided(number, id("2"), None).unwrap();
        assert_eq!(answer.status, Some(DeliveryStatus::Failed));
        let statuses: Vec<_> = answer.individual.iter().map(|one| (one.message_id.as_str(), &one.status)).collect();
        assert_eq!(statuses, [("1", &Some(DeliveryStatus::Failed)), ("2", &None)]);
    }

    #[test]
    fn what_is_given_back_is_over() {
        let (mut bundles, number) = bundles(&["1", "2"]);
        bundles.hand_over(number);
        assert_eq!(bundles.give_back(number), Some(7));
        assert!(bundles.give_back(number).is_none() && bundles.first_waiting().is_none());
        assert!(bundles.decided(number, id("1"), None).is_none());
    }
}
