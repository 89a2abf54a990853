//! A repeated message gets the same answer: what one originator sent lately and what it was told.
//!
//! The key is (originator, kind, Message ID); one table belongs to one originator, so one that floods forgets only its
//! own. While the first of two equal messages is still under way the second joins it and both get its answer. Only
//! messages that were taken are remembered: a refusal (4.xx, 5.xx) promised nothing, so its repetition is a new attempt.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::LazyLock;
use std::time::Duration;

use message::{Address, FailureCause, MessageId, SegmentParameters, SegmentationSetId};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::delivery::{Answer, Reply};

/// SHA-256 over what a message says.
pub(crate) type ContentDigest = [u8; 32];

/// Two keyed hashes with keys of this process: as good as the identifiers themselves, in sixteen octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key(u128);

static HASHERS: LazyLock<(RandomState, RandomState)> = LazyLock::new(|| (RandomState::new(), RandomState::new()));

impl Key {
    /// The key of a message within its originator's table.
    pub(crate) fn message(message_id: &MessageId) -> Self {
        Self::of(&(0_u8, message_id.as_str()))
    }

    /// The key of a report within its originator's table: a recipient may have sent a message of its own under the
    /// same Message ID, and reports on two senders' messages may share one.
    pub(crate) fn report(destination: &str, message_id: &MessageId) -> Self {
        Self::of(&(1_u8, destination, message_id.as_str()))
    }

    /// The key of one segment of a message, which is forwarded as it came (TS 23.554 8.5.4).
    pub(crate) fn segment(message_id: &MessageId, segment: &SegmentParameters) -> Self {
        Self::of(&(2_u8, message_id.as_str(), segment.set_id.as_str(), segment.number))
    }

    /// The key of a message that this server puts together from segments: of each segment that comes after the message was
    /// complete.
    pub(crate) fn set(message_id: &MessageId, segment: &SegmentParameters) -> Self {
        Self::of(&(3_u8, message_id.as_str(), segment.set_id.as_str()))
    }

    /// The key of what `recipient` said about a set of forwarded segments: that it has all of them.
    pub(crate) fn confirmation(recipient: &Address, message_id: &MessageId, set_id: &SegmentationSetId) -> Self {
        Self::of(&(4_u8, recipient.to_string(), message_id.as_str(), set_id.as_str()))
    }

    fn of(value: &impl std::hash::Hash) -> Self {
        let (first, second) = &*HASHERS;
        Self(u128::from(first.hash_one(value)) << 64 | u128::from(second.hash_one(value)))
    }
}

/// Passes on what already is a hash.
#[derive(Debug, Default)]
pub(crate) struct PassThrough(u64);

impl Hasher for PassThrough {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        for octet in octets {
            self.0 = self.0.rotate_left(8) ^ u64::from(*octet);
        }
    }

    fn write_u128(&mut self, value: u128) {
        self.0 = value as u64;
    }
}

/// A map from [`Key`].
pub(crate) type KeyMap<T> = HashMap<Key, T, BuildHasherDefault<PassThrough>>;

/// The digest of a message's or report's canonical coding.
pub(crate) fn digest(body: &[u8]) -> ContentDigest {
    Sha256::digest(body).into()
}

#[derive(Debug)]
struct Remembered {
    digest: ContentDigest,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Those who wait: first comer, and any that joined.
    InProgress(Option<Reply>, Vec<Reply>),
    Answered(Answer),
    /// A segment of the message under this key.
    PartOf(Key),
    /// No message: the recipient has all segments of one. At the repetition of which segment that was told again, and when.
    Confirmed(Option<(u32, Instant)>),
}

/// What to do with a message that just came.
#[derive(Debug)]
pub(crate) enum Begin {
    /// Not seen before; its reply is kept until [`Recent::complete`].
    New,
    /// The same message is under way; this reply waits with the first.
    Joined,
    /// The same message was answered.
    Answered(Reply, Answer),
    /// Another message had this Message ID.
    Conflict(Reply),
    /// Too many repetitions of one message wait already.
    TooMany(Reply),
}

/// What to do with a segment of a message that is to be put together here.
#[derive(Debug)]
pub(crate) enum Late {
    /// The message was not complete yet, or nothing was promised about it.
    No(Reply),
    /// The whole message is under way; this reply waits with it.
    Joined,
    /// The whole message was answered.
    Answered(Reply, Answer),
    /// Too many wait for its answer already.
    TooMany(Reply),
}

/// How many messages an originator may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// In the long run, at least 1.
    pub(crate) per_second: u32,
    /// At once after a silence.
    pub(crate) burst: u32,
}

/// A token bucket; full until first used.
#[derive(Debug, Default)]
struct Bucket {
    tokens: f64,
    filled_at: Option<Instant>,
}

impl Bucket {
    fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let most = f64::from(rate.burst.max(1));
        let filled = match self.filled_at {
            None => most,
            Some(at) => {
                now.saturating_duration_since(at).as_secs_f64().mul_add(f64::from(rate.per_second), self.tokens)
            }
        };
        self.filled_at = Some(now);
        self.tokens = filled.min(most);
        let admitted = self.tokens >= 1.0;
        if admitted {
            self.tokens -= 1.0;
        }
        admitted
    }
}

/// Repetitions of one message that may wait for its answer.
const JOINED_MAX: usize = 8;

/// After this time, any repeated segment has it told again that its recipient has all of them.
const TOLD_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// See the module. Takes no memory until used, and gives it back when everything in it is old.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    entries: KeyMap<Remembered>,
    /// Oldest first; all live equally long.
    order: VecDeque<(Instant, Key)>,
    /// When an answer of *stored* was last forgotten here.
    forgot_stored_at: Option<Instant>,
    bucket: Bucket,
}

impl Recent {
    /// Enters a message, or finds it.
    pub(crate) fn begin(
        &mut self,
        key: Key,
        digest: ContentDigest,
        reply: Reply,
        now: Instant,
        entries_max: usize,
        lifetime: Duration,
    ) -> Begin {
        self.forget_old(now, lifetime);
        match self.entries.entry(key) {
            Entry::Occupied(mut entry) => {
                let remembered = entry.get_mut();
                if remembered.digest != digest {
                    return Begin::Conflict(reply);
                }
                match &mut remembered.state {
                    State::PartOf(_) | State::Confirmed(_) => Begin::Conflict(reply),
                    State::Answered(answer) => Begin::Answered(reply, answer.clone()),
                    State::InProgress(_, joined) if joined.len() >= JOINED_MAX => Begin::TooMany(reply),
                    State::InProgress(_, joined) => {
                        joined.push(reply);
                        Begin::Joined
                    }
                }
            }
            Entry::Vacant(entry) => {
                entry.insert(Remembered { digest, state: State::InProgress(Some(reply), Vec::new()) });
                self.order.push_back((now, key));
                self.make_room(entries_max, now);
                Begin::New
            }
        }
    }

    /// Notes that the segments under `set` were put together to the message under `whole`, if that is known here.
    pub(crate) fn completed(&mut self, set: Key, whole: Key, now: Instant) {
        let Some(digest) = self.digest(whole) else { return };
        if self.entries.insert(set, Remembered { digest, state: State::PartOf(whole) }).is_none() {
            self.order.push_back((now, set));
        }
    }

    /// Whether the segments under `set` were put together, as far as that is known here.
    pub(crate) fn was_completed(&self, set: Key) -> bool {
        self.entries.get(&set).is_some_and(|remembered| matches!(remembered.state, State::PartOf(_)))
    }

    /// Notes under `confirmation` that the recipient has all segments of a set. Only if one of `segments` is known here:
    /// nobody fills this with what its originator never sent.
    pub(crate) fn confirmed(&mut self, confirmation: Key, segments: &[Key], now: Instant, entries_max: usize) {
        if !segments.iter().any(|segment| self.entries.contains_key(segment)) {
            return;
        }
        if let Entry::Vacant(entry) = self.entries.entry(confirmation) {
            entry.insert(Remembered { digest: ContentDigest::default(), state: State::Confirmed(None) });
            self.order.push_back((now, confirmation));
            self.make_room(entries_max, now);
        }
    }

    /// Whether to tell the confirmation again, because segment `number` of its set was repeated. Once for a set that is
    /// repeated from its first segment on, and not for each segment.
    pub(crate) fn tells_again(&mut self, confirmation: Key, number: u32, now: Instant) -> bool {
        let Some(Remembered { state: State::Confirmed(told), .. }) = self.entries.get_mut(&confirmation) else {
            return false;
        };
        let tells =
            told.is_none_or(|(first, at)| number <= first || now.saturating_duration_since(at) >= TOLD_AGAIN_AFTER);
        if tells {
            *told = Some((number, now));
        }
        tells
    }

    /// What was told again did not arrive: the next segment that is repeated has it told once more.
    pub(crate) fn not_told(&mut self, confirmation: Key) {
        if let Some(Remembered { state: State::Confirmed(told), .. }) = self.entries.get_mut(&confirmation) {
            *told = None;
        }
    }

    /// Whether a segment comes after its message was put together: then it gets that message's answer.
    pub(crate) fn is_late(&mut self, set: Key, reply: Reply) -> Late {
        let whole = match self.entries.get(&set).map(|remembered| &remembered.state) {
            Some(State::PartOf(whole)) => *whole,
            _ => return Late::No(reply),
        };
        match self.entries.get_mut(&whole).map(|remembered| &mut remembered.state) {
            Some(State::Answered(answer)) => Late::Answered(reply, answer.clone()),
            Some(State::InProgress(_, joined)) if joined.len() >= JOINED_MAX => Late::TooMany(reply),
            Some(State::InProgress(_, joined)) => {
                joined.push(reply);
                Late::Joined
            }
            Some(State::PartOf(_) | State::Confirmed(_)) | None => Late::No(reply),
        }
    }

    /// The originator had what was stored under `key` discarded: a repetition is told so.
    pub(crate) fn discarded(&mut self, key: Key) {
        if let Some(Remembered { state: State::Answered(answer), .. }) = self.entries.get_mut(&key) {
            *answer = Answer::Failed(FailureCause::Discarded);
        }
    }

    /// The recipient misses the segments under `keys`, and they come again: forgets that they were answered, or they would
    /// get their answers again and never reach it.
    pub(crate) fn missed(&mut self, keys: impl IntoIterator<Item = Key>) {
        let is_answered =
            |key: &Key| self.entries.get(key).is_some_and(|remembered| matches!(remembered.state, State::Answered(_)));
        let missed: HashSet<Key> = keys.into_iter().filter(is_answered).collect();
        if !missed.is_empty() {
            self.entries.retain(|key, _| !missed.contains(key));
            self.order.retain(|(_, key)| !missed.contains(key));
        }
    }

    /// Whether the originator may send one more now, at `rate`: counts it if so.
    pub(crate) fn admits(&mut self, rate: Rate, now: Instant) -> bool {
        self.bucket.take(rate, now)
    }

    /// Gives the answer to all who wait, and keeps it if the message was taken.
    pub(crate) fn complete(&mut self, key: Key, answer: Answer) {
        let Some(remembered) = self.entries.get_mut(&key) else { return };
        let is_promise = answer.is_promise();
        let state = std::mem::replace(&mut remembered.state, State::Answered(answer.clone()));
        if let State::InProgress(first, joined) = state {
            first.into_iter().chain(joined).for_each(|reply| reply.give(answer.clone()));
        }
        if !is_promise {
            self.entries.remove(&key);
            // Left behind, it would have the same message forgotten too early when that comes again. What is refused came
            // lately, so it is found near the end.
            if let Some(index) = self.order.iter().rposition(|(_, entered)| *entered == key) {
                self.order.remove(index);
            }
        }
    }

    /// The content digest of a message under way.
    pub(crate) fn digest(&self, key: Key) -> Option<ContentDigest> {
        self.entries.get(&key).map(|remembered| remembered.digest)
    }

    /// True while the disk may know a message that is not held here any more.
    pub(crate) fn forgot_stored_since(&self, since: Instant) -> bool {
        self.forgot_stored_at.is_some_and(|at| at >= since)
    }

    /// Forgets what is older than `lifetime`.
    pub(crate) fn forget_old(&mut self, now: Instant, lifetime: Duration) {
        while let Some((since, key)) = self.order.front().copied() {
            if now.saturating_duration_since(since) < lifetime || !self.forget(key, now) {
                break;
            }
        }
        if self.order.is_empty() && self.order.capacity() > 0 {
            self.entries = KeyMap::default();
            self.order = VecDeque::new();
        }
    }

    /// What is still under way is passed over; there is less of it than `entries_max`, because the requests that one
    /// originator may have open are fewer.
    fn make_room(&mut self, entries_max: usize, now: Instant) {
        for _ in 0..self.order.len() {
            let Some((since, key)) = self.order.front().copied() else { return };
            if self.order.len() <= entries_max {
                return;
            }
            if !self.forget(key, now) {
                self.order.pop_front();
                self.order.push_back((since, key));
            }
        }
    }

    /// Forgets the oldest, whose key is `key`, unless it is still under way.
    fn forget(&mut self, key: Key, now: Instant) -> bool {
        match self.entries.get(&key).map(|remembered| &remembered.state) {
            Some(State::InProgress(..)) => return false,
            Some(State::Answered(Answer::Stored)) => self.forgot_stored_at = Some(now),
            _ => {}
        }
        self.entries.remove(&key);
        self.order.pop_front();
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::sync::oneshot;

    use super::*;

    const LIFETIME: Duration = Duration::from_secs(300);

    fn begin(recent: &mut Recent, id: &str, now: Instant) -> Begin {
        let (reply, _) = oneshot::channel();
        recent.begin(key(id), [0; 32], Reply::Api(reply), now, 8, LIFETIME)
    }

    fn key(id: &str) -> Key {
        Key::message(&id.parse().unwrap())
    }

    #[test]
    fn an_answer_is_remembered_for_its_whole_lifetime_whatever_was_refused_before() {
        let mut recent = Recent::default();
        let start = Instant::now();
        assert!(matches!(begin(&mut recent, "1", start), Begin::New));
        assert!(matches!(begin(&mut recent, "2", start), Begin::New));
        recent.complete(key("1"), Answer::Failed(FailureCause::Overloaded));
        recent.complete(key("2"), Answer::Delivered);
        let again = start + LIFETIME - Duration::from_secs(1);
        assert!(matches!(begin(&mut recent, "1", again), Begin::New), "a refusal promised nothing");
        recent.complete(key("1"), Answer::Delivered);
        let later = start + LIFETIME + Duration::from_secs(1);
        assert!(matches!(begin(&mut recent, "1", later), Begin::Answered(_, Answer::Delivered)));
        assert!(matches!(begin(&mut recent, "2", later), Begin::New), "its time is over");
    }

    #[test]
    fn a_segment_that_its_recipient_misses_is_new_when_it_comes_again_and_others_are_not() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        let segment = |number| {
            let set_id = "1".parse().unwrap();
            Key::segment(&"1".parse().unwrap(), &SegmentParameters { set_id, total_count: None, number, last: false })
        };
        let begin = |recent: &mut Recent, number: u32| {
            let (sender, _) = oneshot::channel();
            recent.begin(segment(number), digest(b"x"), Reply::Api(sender), now, 10, LIFETIME)
        };
        for number in [1, 2, 3] {
            assert!(matches!(begin(&mut recent, number), Begin::New));
        }
        recent.complete(segment(1), Answer::Delivered);
        recent.complete(segment(2), Answer::Delivered);
        recent.missed([segment(2), segment(3), segment(4)]);
        assert!(matches!(begin(&mut recent, 1), Begin::Answered(..)));
        assert!(matches!(begin(&mut recent, 2), Begin::New));
        assert!(matches!(begin(&mut recent, 3), Begin::Joined), "it is on its way");
        assert_eq!(recent.order.len(), 3);
    }

    #[test]
    fn a_late_segment_gets_the_answer_of_the_message_it_belongs_to() {
        let mut recent = Recent::default();
        let now = Instant::now();
        let (set, whole) = (Key::report("set", &"1".parse().unwrap()), key("1"));
        let late = |recent: &mut Recent| recent.is_late(set, Reply::Api(oneshot::channel().0));
        recent.completed(set, whole, now);
        assert!(matches!(late(&mut recent), Late::No(_)), "the message was refused");
        assert!(matches!(begin(&mut recent, "1", now), Begin::New));
        recent.completed(set, whole, now);
        assert!(matches!(late(&mut recent), Late::Joined));
        recent.complete(whole, Answer::Delivered);
        assert!(matches!(late(&mut recent), Late::Answered(_, Answer::Delivered)));
        recent.forget_old(now + LIFETIME, LIFETIME);
        assert!(matches!(late(&mut recent), Late::No(_)));
    }

    #[test]
    fn a_confirmation_is_told_again_once_for_each_repetition_of_its_set() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        let (first, set) = (key("1"), Key::report("confirmed", &"1".parse().unwrap()));
        recent.confirmed(set, &[first], now, 8);
        assert!(recent.order.is_empty() && !recent.tells_again(set, 1, now), "of something never sent");
        assert!(matches!(begin(&mut recent, "1", now), Begin::New));
        recent.complete(first, Answer::Delivered);
        for _ in 0..2 {
            recent.confirmed(set, &[first], now, 8);
        }
        assert_eq!(recent.order.len(), 2);
        for _ in 0..2 {
            let told: Vec<u32> = (1..=5).filter(|number| recent.tells_again(set, *number, now)).collect();
            assert_eq!(told, [1]);
        }
        assert!(recent.tells_again(set, 3, now + TOLD_AGAIN_AFTER));
        assert!(!recent.tells_again(set, 4, now + TOLD_AGAIN_AFTER));
        recent.not_told(set);
        assert!(recent.tells_again(set, 4, now + TOLD_AGAIN_AFTER));
        recent.confirmed(key("2"), &[first], now, 2);
        assert_eq!(recent.order.len(), 2, "as bounded as the rest");
        recent.forget_old(now + LIFETIME, LIFETIME);
        assert!(recent.entries.is_empty());
    }

    #[test]
    fn a_rate_admits_its_burst_and_then_its_pace() {
        let mut recent = Recent::default();
        let rate = Rate { per_second: 10, burst: 3 };
        let start = Instant::now();
        let admitted = |recent: &mut Recent, now| (0..10).filter(|_| recent.admits(rate, now)).count();
        assert_eq!(admitted(&mut recent, start), 3);
        assert_eq!(admitted(&mut recent, start + Duration::from_millis(200)), 2);
        assert_eq!(admitted(&mut recent, start + Duration::from_secs(3600)), 3);
    }
}
