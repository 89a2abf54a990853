//! A sending and a receiving client, and between them a server that forwards segments: loss, reordering, repetition and
//! crashes are parameters, and time is virtual.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use message::{Message, Priority, segmentation::segment};
use proptest::prelude::*;

use super::*;
use crate::{
    hand_over::HandOverKey,
    limits::ClientLimits,
    reassembly::{Due, Reassembly, Taken},
};

fn message(octets: usize) -> Message {
    Message {
        originator: Address::ue(&"a@x".parse().unwrap()),
        destination: Address::ue(&"b@x".parse().unwrap()),
        recipient: None,
        message_id: "1".parse().unwrap(),
        application_id: None,
        delivery_status_required: false,
        store_and_forward: false,
        expiration_time: None,
        priority: Priority::Middle,
        payload: (0..octets).map(|octet| octet as u8).collect(),
        segment: None,
        latency: None,
    }
}

fn limits() -> ClientLimits {
    ClientLimits { segment_wait_milliseconds: 1_000, segment_recoveries_max: 50, ..ClientLimits::default() }
}

struct Pair {
    segments: Vec<Message>,
    sender: Segmented<u64>,
    /// Segments on their way, by exchange.
    under_way: Vec<(usize, u64)>,
    exchanges: u64,
    receiver: Reassembly<u64>,
    now: Instant,
    accepted: Vec<Message>,
    crashes: usize,
    outcome: Option<Outcome>,
}

impl Pair {
    fn new(octets: usize) -> Self {
        let whole = message(octets);
        let segments = segment(&whole, "1".parse().unwrap(), 10).unwrap();
        let name = SetName {
            destination: whole.destination.clone(),
            message_id: whole.message_id.clone(),
            set_id: "1".parse().unwrap(),
        };
        let bodies = (0..segments.len()).map(|index| index.to_string().into_bytes()).collect();
        let now = Instant::now();
        let mut pair = Self {
            segments,
            sender: Segmented::new(name, bodies, 1_000),
            under_way: Vec::new(),
            exchanges: 0,
            receiver: Reassembly::new(&limits(), false),
            now,
            accepted: Vec::new(),
            crashes: 0,
            outcome: None,
        };
        pair.receiver.resume(now);
        pair
    }

    /// Up to `window` segments are on their way.
    fn send(&mut self, window: usize) {
        while self.sender.unanswered() < window
            && let Some((index, _)) = self.sender.next_ready(self.now)
        {
            self.exchanges += 1;
            self.sender.sent(index, self.exchanges);
            self.under_way.push((index, self.exchanges));
        }
    }

    fn arrive(&mut self, (index, exchange): (usize, u64)) {
        let key = HandOverKey::of_message(&message(0));
        let mut confirmed = false;
        if self.accepted.is_empty() {
            match self.receiver.take(self.segments[index].clone(), exchange, self.now) {
                Taken::Acknowledge => {}
                Taken::Complete => {
                    self.accepted.push(self.receiver.whole(&key).unwrap().0.clone());
                    self.receiver.settled(&key);
                    confirmed = true;
                }
                other => panic!("{other:?}"),
            }
        }
        if let Some(index) = self.sender.position(exchange) {
            self.outcome = self.sender.answered(index, Outcome::Delivered).or(self.outcome.take());
        }
        if confirmed {
            self.outcome = self.sender.confirm().or(self.outcome.take());
        }
        assert!(
            self.outcome.is_none() || !self.accepted.is_empty(),
            "nothing is delivered before the application has it"
        );
    }

    /// Time passes; what the receiver misses is asked for.
    fn wait(&mut self) {
        self.now += Duration::from_secs(1);
        for due in self.receiver.due(self.now) {
            match due {
                Due::Recover { missing, .. } => assert!(self.sender.recover(&missing)),
                other => panic!("{other:?}"),
            }
        }
    }

    fn lose_connection(&mut self) {
        self.under_way.clear();
        self.sender.disconnected();
    }

    /// Without a state directory everything held is gone. Once: after a second time nobody may be left who knows of the
    /// message, and its sender stays in doubt.
    fn crash_receiver(&mut self) {
        self.crashes += 1;
        if self.accepted.is_empty() && self.crashes == 1 {
            self.receiver = Reassembly::new(&limits(), false);
            self.receiver.resume(self.now);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens on the way, the message arrives once, whole, and the sender hears that it did, and never before.
    #[test]
    fn a_message_arrives_whole_and_once_under_loss_reordering_repetition_and_crashes(
        octets in 11_usize..300,
        window in 1_usize..20,
        events in prop::collection::vec((0_u8..10, any::<prop::sample::Index>()), 0..150),
    ) {
        let mut pair = Pair::new(octets);
        for (event, index) in events {
            pair.send(window);
            let chosen = (!pair.under_way.is_empty()).then(|| index.index(pair.under_way.len()));
            match (event, chosen) {
                // In any order.
                (0..=4, Some(chosen)) => {
                    let arrival = pair.under_way.swap_remove(chosen);
                    pair.arrive(arrival);
                }
                // And again.
                (5, Some(chosen)) => {
                    let arrival = pair.under_way[chosen];
                    pair.arrive(arrival);
                }
                (6, _) => pair.lose_connection(),
                (7, _) => pair.crash_receiver(),
                _ => pair.wait(),
            }
        }
        // From here on nothing more goes wrong.
        for _ in 0..200 {
            pair.send(window);
            while !pair.under_way.is_empty() {
                let arrival = pair.under_way.remove(0);
                pair.arrive(arrival);
                pair.send(window);
            }
            pair.wait();
        }
        prop_assert_eq!(&pair.accepted, &[message(octets)]);
        prop_assert_eq!(pair.outcome, Some(Outcome::Delivered));
    }
}
