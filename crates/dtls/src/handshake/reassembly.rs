//! Putting fragments together, in order, within bounds (RFC 6347 4.2.2, 4.2.3).

use std::collections::VecDeque;

use crate::handshake::{Fragment, Message, MessageType};
use crate::limits::{
    FRAGMENT_RANGES_MAX, HANDSHAKE_MESSAGE_OCTETS_MAX, REASSEMBLY_MESSAGES_MAX, REASSEMBLY_OCTETS_MAX,
};

/// What became of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is part of a message that is still to be handled.
    New,
    /// Of the last message handled, its end: the peer sends its flight again.
    Repeated,
    /// Of a message handled before, but not as `Repeated` says.
    Old,
    /// Too far ahead, too large, or at odds with what came before.
    Dropped,
}

/// Messages by their sequence number, from the next expected one on.
#[derive(Debug, Default)]
pub(crate) struct Reassembler {
    next: u16,
    /// `slots[i]` is message `next + i`.
    slots: VecDeque<Option<Partial>>,
}

#[derive(Debug)]
struct Partial {
    message_type: MessageType,
    body: Vec<u8>,
    /// What is there.
    ranges: Ranges,
}

/// Parts of a message: from each first octet up to before each second, disjoint, not touching, ascending.
pub(crate) type Ranges = Vec<(usize, usize)>;

impl Reassembler {
    pub(crate) fn starting_at(next: u16) -> Self {
        Self { next, slots: VecDeque::new() }
    }

    /// Takes a fragment whose epoch was found right for its type.
    pub(crate) fn insert(&mut self, fragment: &Fragment<'_>) -> Taken {
        let Some(ahead) = fragment.sequence.checked_sub(self.next) else {
            let last = self.next.checked_sub(1) == Some(fragment.sequence);
            return if last && fragment.is_last() { Taken::Repeated } else { Taken::Old };
        };
        let ahead = usize::from(ahead);
        if ahead >= REASSEMBLY_MESSAGES_MAX || fragment.message_octets > HANDSHAKE_MESSAGE_OCTETS_MAX {
            return Taken::Dropped;
        }
        let held = self.slots.get(ahead).and_then(Option::as_ref);
        let fits = held.is_some_and(|partial| partial.fits(fragment));
        // Of two that are at odds one is forged; a whole one can be tried, a part of one not.
        if held.is_some() && !fits && fragment.data.len() < fragment.message_octets {
            return Taken::Dropped;
        }
        if !fits && self.octets_beside(ahead) + fragment.message_octets > REASSEMBLY_OCTETS_MAX {
            if ahead > 0 {
                return Taken::Dropped;
            }
            // The next one is always taken, so that nobody can block it with what comes later.
            self.slots.clear();
        }
        while self.slots.len() <= ahead {
            self.slots.push_back(None);
        }
        let Some(slot) = self.slots.get_mut(ahead) else { return Taken::Dropped };
        if !fits {
            *slot = None;
        }
        let partial = slot.get_or_insert_with(|| Partial::of(fragment));
        if partial.insert(fragment) { Taken::New } else { Taken::Dropped }
    }

    /// The next message's number.
    pub(crate) fn next(&self) -> u16 {
        self.next
    }

    /// Whether nothing is being put together.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.iter().all(Option::is_none)
    }

    /// Whether something came before what precedes it.
    pub(crate) fn has_gap(&self) -> bool {
        let front_from_start = match self.slots.front() {
            Some(Some(partial)) => matches!(partial.ranges.as_slice(), [(0, _)]),
            Some(None) => false,
            None => true,
        };
        !front_from_start || self.slots.len() > 1
    }

    /// Octets of all messages being put together but `slots[which]`.
    fn octets_beside(&self, which: usize) -> usize {
        let others = self.slots.iter().enumerate().filter(|(at, _)| *at != which);
        others.filter_map(|(_, slot)| slot.as_ref()).map(|partial| partial.body.len()).sum()
    }

    /// The next message in order, once it is whole.
    pub(crate) fn pop(&mut self) -> Option<Message> {
        let whole = matches!(self.slots.front(), Some(Some(partial)) if partial.is_whole());
        if !whole {
            return None;
        }
        let partial = self.slots.pop_front()??;
        let sequence = self.next;
        self.next = self.next.checked_add(1)?;
        Some(Message { message_type: partial.message_type, sequence, body: partial.body })
    }
}

impl Partial {
    fn of(fragment: &Fragment<'_>) -> Self {
        Self { message_type: fragment.message_type, body: vec![0; fragment.message_octets], ranges: Vec::new() }
    }

    fn fits(&self, fragment: &Fragment<'_>) -> bool {
        fragment.message_type == self.message_type && fragment.message_octets == self.body.len()
    }

    fn insert(&mut self, fragment: &Fragment<'_>) -> bool {
        let (start, end) = (fragment.offset, fragment.offset + fragment.data.len());
        let Some(ranges) = united(&self.ranges, start, end) else { return false };
        let Some(place) = self.body.get_mut(start..end) else { return false };
        place.copy_from_slice(fragment.data);
        self.ranges = ranges;
        true
    }

    fn is_whole(&self) -> bool {
        self.body.is_empty() || matches!(self.ranges.as_slice(), [(0, end)] if *end == self.body.len())
    }
}

/// `ranges` with `start..end`; `None` if that makes too many.
pub(crate) fn united(ranges: &[(usize, usize)], mut start: usize, mut end: usize) -> Option<Ranges> {
    let mut out = Vec::with_capacity(ranges.len() + 1);
    let mut after = Vec::new();
    for (from, to) in ranges.iter().copied() {
        if to < start {
            out.push((from, to));
        } else if from > end {
            after.push((from, to));
        } else {
            start = start.min(from);
            end = end.max(to);
        }
    }
    if start < end {
        out.push((start, end));
    }
    out.append(&mut after);
    (out.len() <= FRAGMENT_RANGES_MAX).then_some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;

    fn fragment(sequence: u16, body: &[u8], start: usize, end: usize) -> Fragment<'_> {
        Fragment {
            message_type: MessageType::CLIENT_KEY_EXCHANGE,
            message_octets: body.len(),
            sequence,
            offset: start,
            data: &body[start..end],
        }
    }

    proptest! {
        /// Fragments of any cut, overlapping, repeated and out of order give the messages that were sent, in order.
        #[test]
        fn messages_come_out_as_they_were_sent(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 1..6),
            cuts in prop::collection::vec((0usize..6, 0usize..400, 0usize..400), 0..60),
        ) {
            let mut reassembler = Reassembler::default();
            let mut out = Vec::new();
            for (which, start, octets) in cuts {
                let which = which % bodies.len();
                let body = &bodies[which];
                let start = start.min(body.len());
                let end = (start + octets).min(body.len());
                reassembler.insert(&fragment(which as u16, body, start, end));
                out.extend(std::iter::from_fn(|| reassembler.pop()));
            }
            for (which, body) in bodies.iter().enumerate() {
                reassembler.insert(&fragment(which as u16, body, 0, body.len()));
                out.extend(std::iter::from_fn(|| reassembler.pop()));
            }
            prop_assert_eq!(out.len(), bodies.len());
            for (which, message) in out.iter().enumerate() {
                prop_assert_eq!(usize::from(message.sequence), which);
                prop_assert_eq!(&message.body, &bodies[which]);
            }
        }
    }

    #[test]
    fn what_exceeds_a_limit_is_dropped_and_holds_nothing() {
        let mut reassembler = Reassembler::default();
        let long = vec![0; HANDSHAKE_MESSAGE_OCTETS_MAX + 1];
        assert_eq!(reassembler.insert(&fragment(0, &long, 0, 1)), Taken::Dropped);
        let longest = vec![0; HANDSHAKE_MESSAGE_OCTETS_MAX];
        assert_eq!(reassembler.insert(&fragment(REASSEMBLY_MESSAGES_MAX as u16, &longest, 0, 1)), Taken::Dropped);
        assert_eq!(reassembler.insert(&fragment(1, &longest, 0, 1)), Taken::New);
        assert_eq!(reassembler.insert(&fragment(2, &longest, 0, 1)), Taken::New);
        assert_eq!(reassembler.insert(&fragment(3, &longest, 0, 1)), Taken::Dropped);
        // Every other octet: as many ranges as are allowed, then no more.
        for at in 0..FRAGMENT_RANGES_MAX - 1 {
            assert_eq!(reassembler.insert(&fragment(1, &longest, 2 + 2 * at, 3 + 2 * at)), Taken::New);
        }
        assert_eq!(reassembler.insert(&fragment(1, &longest, 1000, 1001)), Taken::Dropped);
    }

    #[test]
    fn the_end_of_the_last_message_again_is_a_repetition() {
        let mut reassembler = Reassembler::default();
        let body = [1, 2, 3];
        reassembler.insert(&fragment(0, &body, 0, 3));
        assert!(reassembler.pop().is_some());
        assert_eq!(reassembler.insert(&fragment(0, &body, 0, 2)), Taken::Old);
        assert_eq!(reassembler.insert(&fragment(0, &body, 2, 3)), Taken::Repeated);
    }

    #[test]
    fn the_next_message_is_taken_whatever_is_held_ahead_of_it() {
        let mut reassembler = Reassembler::default();
        let longest = vec![0; HANDSHAKE_MESSAGE_OCTETS_MAX];
        assert_eq!(reassembler.insert(&fragment(1, &longest, 0, 1)), Taken::New);
        assert_eq!(reassembler.insert(&fragment(2, &longest, 0, 1)), Taken::New);
        assert_eq!(reassembler.insert(&fragment(0, &[1, 2], 0, 2)), Taken::New);
        assert_eq!(reassembler.pop().map(|message| message.body), Some(vec![1, 2]));
    }

    #[test]
    fn a_whole_message_takes_the_place_of_a_part_at_odds_with_it() {
        let mut reassembler = Reassembler::default();
        assert_eq!(reassembler.insert(&fragment(0, &[9; 9], 0, 1)), Taken::New);
        assert_eq!(reassembler.insert(&fragment(0, &[1, 2], 0, 2)), Taken::New);
        assert_eq!(reassembler.pop().map(|message| message.body), Some(vec![1, 2]));
    }

    #[test]
    fn a_whole_message_that_takes_the_place_of_a_shorter_part_stays_within_the_budget() {
        let held = |reassembler: &Reassembler| reassembler.octets_beside(usize::MAX);
        let mut reassembler = Reassembler::default();
        let longest = vec![7; HANDSHAKE_MESSAGE_OCTETS_MAX];
        assert_eq!(reassembler.insert(&fragment(1, &[1, 2], 0, 1)), Taken::New);
        assert_eq!(reassembler.insert(&fragment(2, &longest, 0, 1)), Taken::New);
        assert_eq!(reassembler.insert(&fragment(3, &longest[2..], 0, 1)), Taken::New);
        assert_eq!(held(&reassembler), REASSEMBLY_OCTETS_MAX);
        assert_eq!(reassembler.insert(&fragment(1, &longest, 0, longest.len())), Taken::Dropped);
        assert_eq!(held(&reassembler), REASSEMBLY_OCTETS_MAX);
        // The next one gets the room of those ahead of it.
        let mut reassembler = Reassembler::default();
        assert_eq!(reassembler.insert(&fragment(0, &[1, 2], 0, 1)), Taken::New);
        assert_eq!(reassembler.insert(&fragment(1, &longest, 0, 1)), Taken::New);
        assert_eq!(reassembler.insert(&fragment(2, &longest[2..], 0, 1)), Taken::New);
        assert_eq!(reassembler.insert(&fragment(0, &longest, 0, longest.len())), Taken::New);
        assert!(held(&reassembler) <= REASSEMBLY_OCTETS_MAX);
        assert_eq!(reassembler.pop().map(|message| message.body), Some(longest));
    }

    #[test]
    fn parts_at_odds_are_dropped() {
        let mut reassembler = Reassembler::default();
        assert_eq!(reassembler.insert(&fragment(0, &[1, 2, 3], 0, 1)), Taken::New);
        assert_eq!(reassembler.insert(&fragment(0, &[1, 2], 1, 2)), Taken::Dropped);
        let other = Fragment { message_type: MessageType::CLIENT_HELLO, ..fragment(0, &[1, 2, 3], 1, 2) };
        assert_eq!(reassembler.insert(&other), Taken::Dropped);
    }
}
