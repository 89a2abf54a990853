//! What we sent last, to be sent again until the peer's answer, or with DTLS 1.3 its ACK, shows that it arrived (RFC 6347
//! 4.2.4, RFC 9147 5.8, 7).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::handshake::reassembly::{Ranges, united};
use crate::handshake::{Message, MessageType};
use crate::limits::{RETRANSMIT_MAX, RETRANSMIT_ON_DUPLICATE_DIVISOR, SENT_RECORDS_MAX};
use crate::record::epochs::RecordNumber;

/// One part of a flight.
#[derive(Clone, Debug)]
pub(crate) enum FlightItem {
    Handshake { epoch: u16, message: Message },
    ChangeCipherSpec,
}

impl FlightItem {
    fn message_type(&self) -> Option<MessageType> {
        match self {
            Self::Handshake { message, .. } => Some(message.message_type),
            Self::ChangeCipherSpec => None,
        }
    }

    fn octets(&self) -> usize {
        match self {
            Self::Handshake { message, .. } => message.body.len(),
            Self::ChangeCipherSpec => 0,
        }
    }
}

/// A part of an item in a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) number: RecordNumber,
    pub(crate) item: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A flight with its timer.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) items: Vec<FlightItem>,
    /// What of each item the peer has acknowledged.
    acknowledged: Vec<Ranges>,
    /// Which parts went in which records.
    sent: VecDeque<Sent>,
    first: Duration,
    interval: Duration,
    /// When it is sent again, if a timer makes it so: a last flight is sent again only on demand.
    retransmit_at: Option<Instant>,
    not_before: Instant,
    /// How often the timer has run out.
    pub(crate) timeouts: u32,
}

impl Flight {
    /// A flight that is being sent now. `timed`: an answer is expected.
    pub(crate) fn new(items: Vec<FlightItem>, first: Duration, timed: bool, now: Instant) -> Self {
        Self {
            acknowledged: vec![Ranges::new(); items.len()],
            items,
            sent: VecDeque::new(),
            first,
            interval: first,
            retransmit_at: timed.then(|| now + first),
            not_before: now + first / RETRANSMIT_ON_DUPLICATE_DIVISOR,
            timeouts: 0,
        }
    }

    /// One more item. Those that were delivered are forgotten.
    pub(crate) fn push(&mut self, item: FlightItem) {
        let delivered = self.delivered();
        self.items.drain(..delivered);
        self.acknowledged.drain(..delivered);
        self.sent.retain_mut(|sent| match sent.item.checked_sub(delivered) {
            Some(item) => {
                sent.item = item;
                true
            }
            None => false,
        });
        self.items.push(item);
        self.acknowledged.push(Ranges::new());
    }

    pub(crate) fn note_sent(&mut self, sent: Sent) {
        if self.sent.len() >= SENT_RECORDS_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back(sent);
    }

    /// The peer says that these records arrived. Returns the types of the messages that are now known to have arrived whole,
    /// and all before them.
    pub(crate) fn acknowledge(&mut self, numbers: &[RecordNumber]) -> Vec<MessageType> {
        let before = self.delivered();
        for sent in self.sent.iter().filter(|sent| numbers.contains(&sent.number)) {
            if let Some(ranges) = self.acknowledged.get_mut(sent.item)
                && let Some(more) = united(ranges, sent.start, sent.end)
            {
                *ranges = more;
            }
        }
        self.sent.retain(|sent| !numbers.contains(&sent.number));
        let delivered = self.delivered().saturating_sub(before);
        self.items.iter().skip(before).take(delivered).filter_map(FlightItem::message_type).collect()
    }

    /// The messages of `epoch` have arrived: something that answers them came.
    pub(crate) fn acknowledge_epoch(&mut self, epoch: u16) {
        for (item, ranges) in self.items.iter().zip(&mut self.acknowledged) {
            if let FlightItem::Handshake { epoch: of, message } = item
                && *of == epoch
            {
                *ranges = vec![(0, message.body.len())];
            }
        }
    }

    fn has_arrived(&self, item: usize) -> bool {
        let octets = self.items.get(item).map_or(0, FlightItem::octets);
        self.acknowledged.get(item).is_some_and(|ranges| ranges.as_slice() == [(0, octets)])
    }

    /// How many items have arrived with all before them, so that the peer has handled them.
    fn delivered(&self) -> usize {
        (0..self.items.len()).take_while(|item| self.has_arrived(*item)).count()
    }

    /// Whether a message of this type was not delivered yet.
    pub(crate) fn awaits(&self, message_type: MessageType) -> bool {
        self.items.iter().skip(self.delivered()).any(|item| item.message_type() == Some(message_type))
    }

    /// Whether everything has arrived.
    pub(crate) fn has_all_arrived(&self) -> bool {
        (0..self.items.len()).all(|item| self.has_arrived(item))
    }

    pub(crate) fn contains(&self, message_type: MessageType) -> bool {
        self.items.iter().any(|item| item.message_type() == Some(message_type))
    }

    /// The parts of an item that are to be sent: those not acknowledged.
    pub(crate) fn missing(&self, item: usize, octets: usize) -> Ranges {
        let mut missing = Ranges::new();
        let mut from = 0;
        for (start, end) in self.acknowledged.get(item).into_iter().flatten().copied() {
            if from < start {
                missing.push((from, start));
            }
            from = end;
        }
        // An empty message has one part, which is empty.
        if from < octets || (octets == 0 && from == 0) {
            missing.push((from, octets));
        }
        missing
    }

    pub(crate) fn retransmit_at(&self) -> Option<Instant> {
        self.retransmit_at
    }

    /// Whether the timer says to send again; starts it anew, at twice the interval.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        if self.retransmit_at.is_none_or(|at| at > now) {
            return false;
        }
        self.timeouts = self.timeouts.saturating_add(1);
        self.interval = (self.interval * 2).min(RETRANSMIT_MAX);
        self.retransmit_at = Some(now + self.interval);
        self.not_before = now + self.first / RETRANSMIT_ON_DUPLICATE_DIVISOR;
        true
    }

    /// Whether the peer's repeated flight makes us send again: not more often than the limit says.
    pub(crate) fn is_due_on_duplicate(&mut self, now: Instant) -> bool {
        if self.not_before > now {
            return false;
        }
        if self.retransmit_at.is_some() {
            self.retransmit_at = Some(now + self.interval);
        }
        self.not_before = now + self.first / RETRANSMIT_ON_DUPLICATE_DIVISOR;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flight(octets: usize) -> Flight {
        let message = Message { message_type: MessageType::FINISHED, sequence: 0, body: vec![0; octets] };
        Flight::new(vec![FlightItem::Handshake { epoch: 2, message }], Duration::from_secs(1), true, Instant::now())
    }

    fn number(sequence: u64) -> RecordNumber {
        RecordNumber { epoch: 2, sequence }
    }

    #[test]
    fn what_was_acknowledged_is_not_missing_and_the_rest_is() {
        let mut flight = flight(30);
        for (sequence, start, end) in [(0, 0, 10), (1, 10, 20), (2, 20, 30)] {
            flight.note_sent(Sent { number: number(sequence), item: 0, start, end });
        }
        assert_eq!(flight.missing(0, 30), [(0, 30)]);
        assert_eq!(flight.acknowledge(&[number(1), number(9)]), []);
        assert_eq!(flight.missing(0, 30), [(0, 10), (20, 30)]);
        assert_eq!(flight.acknowledge(&[number(2)]), []);
        assert_eq!(flight.acknowledge(&[number(2), number(0)]), [MessageType::FINISHED]);
        assert_eq!(flight.missing(0, 30), []);
        assert!(flight.has_all_arrived());
        // It is told once.
        assert_eq!(flight.acknowledge(&[number(0)]), []);
    }

    #[test]
    fn what_was_delivered_makes_room_and_the_rest_keeps_its_records() {
        let message = |message_type| Message { message_type, sequence: 0, body: vec![0] };
        let item = |message_type| FlightItem::Handshake { epoch: 3, message: message(message_type) };
        let (id, update) = (MessageType::NEW_CONNECTION_ID, MessageType::KEY_UPDATE);
        let mut flight = Flight::new(vec![item(id)], Duration::from_secs(1), true, Instant::now());
        let sent = |sequence, item| Sent { number: number(sequence), item, start: 0, end: 1 };
        flight.push(item(update));
        flight.note_sent(sent(0, 0));
        flight.note_sent(sent(1, 1));
        // The second has arrived, but counts after the first only.
        assert_eq!(flight.acknowledge(&[number(1)]), []);
        assert!(flight.awaits(id) && flight.awaits(update));
        flight.push(item(MessageType::FINISHED));
        assert_eq!(flight.items.len(), 3);
        flight.note_sent(sent(2, 2));
        assert_eq!(flight.acknowledge(&[number(0)]), [id, update]);
        assert!(!flight.awaits(id) && !flight.awaits(update) && flight.awaits(MessageType::FINISHED));
        flight.push(item(id));
        assert_eq!(flight.items.len(), 2);
        assert_eq!(flight.acknowledge(&[number(2)]), [MessageType::FINISHED]);
        assert!(!flight.has_all_arrived());
    }

    #[test]
    fn of_more_records_than_the_limit_the_newest_are_remembered() {
        let last = SENT_RECORDS_MAX as u64;
        let mut flight = flight(1);
        for sequence in 0..=last {
            flight.note_sent(Sent { number: number(sequence), item: 0, start: 0, end: 1 });
        }
        assert_eq!(flight.acknowledge(&[number(0)]), []);
        assert_eq!(flight.acknowledge(&[number(1)]), [MessageType::FINISHED]);
    }
}
