//! The Messaging Topics that the application subscribed to (TS 23.554 clause 8.8), without I/O: when to subscribe again.
//!
//! The server keeps subscriptions, but may forget them when it or the registration goes, and may grant less time than was
//! asked for. So (INFERRED) each is made again after every further registration, and ahead of an end that came from the
//! server: after three quarters of the time granted.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use message::{Address, MessagingTopic, TOPICS_PER_REQUEST_MAX, TopicSubscription};
use time::OffsetDateTime;
use tokio::time::Instant;

/// The shortest pause between two renewals ahead of an end, whatever little time the server grants.
const RENEWAL_PAUSE_MIN: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Subscribed {
    /// For how long the application wants it; none is for as long as the client lives.
    until: Option<OffsetDateTime>,
    /// When to subscribe again.
    renew_at: Option<Instant>,
}

/// What a client is subscribed to.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    topics: BTreeMap<MessagingTopic, Subscribed>,
}

/// Now, by the calendar and by the clock that does not jump.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) date: OffsetDateTime,
    pub(crate) instant: Instant,
}

impl Now {
    pub(crate) fn get() -> Self {
        Self { date: OffsetDateTime::now_utc(), instant: Instant::now() }
    }
}

impl Subscriptions {
    /// Whether `topics` may be subscribed to besides those there are, of which there may be `topics_max`.
    pub(crate) fn has_room(&self, topics: &[MessagingTopic], topics_max: usize) -> bool {
        let more: BTreeSet<&MessagingTopic> = topics.iter().filter(|topic| !self.topics.contains_key(topic)).collect();
        self.topics.len().saturating_add(more.len()) <= topics_max
    }

    /// The server subscribed the client until `granted`; the application wanted it until `until`.
    pub(crate) fn subscribed(
        &mut self,
        topics: &[MessagingTopic],
        until: Option<OffsetDateTime>,
        granted: Option<OffsetDateTime>,
        now: Now,
    ) {
        for topic in topics {
            let renew_at = renewal(until, granted, now);
            self.topics.insert(topic.clone(), Subscribed { until, renew_at });
        }
    }

    pub(crate) fn unsubscribed(&mut self, topics: &[MessagingTopic]) {
        self.topics.retain(|topic, _| !topics.contains(topic));
    }

    /// The server subscribed the client again. What the application has given up meanwhile is not taken up again.
    pub(crate) fn renewed(&mut self, topics: &[MessagingTopic], granted: Option<OffsetDateTime>, now: Now) {
        for topic in topics {
            if let Some(subscribed) = self.topics.get_mut(topic) {
                subscribed.renew_at = renewal(subscribed.until, granted, now);
            }
        }
    }

    /// The client has registered again.
    pub(crate) fn registered_again(&mut self, now: Instant) {
        self.topics.values_mut().for_each(|subscribed| subscribed.renew_at = Some(now));
    }

    /// When to ask for what is [due](Self::due).
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.topics.values().filter_map(|subscribed| subscribed.renew_at).min()
    }

    /// The requests to make now. Subscriptions past their time are forgotten.
    pub(crate) fn due(&mut self, originator: &Address, now: Now) -> Vec<TopicSubscription> {
        self.topics.retain(|_, subscribed| subscribed.until.is_none_or(|until| until > now.date));
        let mut due: BTreeMap<Option<OffsetDateTime>, Vec<MessagingTopic>> = BTreeMap::new();
        for (topic, subscribed) in &mut self.topics {
            if subscribed.renew_at.is_some_and(|when| when <= now.instant) {
                subscribed.renew_at = None;
                due.entry(subscribed.until).or_default().push(topic.clone());
            }
        }
        let request = |until: Option<OffsetDateTime>, topics: &[MessagingTopic]| TopicSubscription {
            originator: originator.clone(),
            topics: topics.to_vec(),
            expiration_time: until,
        };
        due.iter()
            .flat_map(|(until, topics)| topics.chunks(TOPICS_PER_REQUEST_MAX).map(|topics| request(*until, topics)))
            .collect()
    }
}

/// When to subscribe again, if the server granted less than was wanted.
fn renewal(until: Option<OffsetDateTime>, granted: Option<OffsetDateTime>, now: Now) -> Option<Instant> {
    let granted = granted.filter(|granted| until.is_none_or(|until| *granted < until))?;
    let left = Duration::try_from(granted - now.date).unwrap_or_default();
    now.instant.checked_add((left / 4 * 3).max(RENEWAL_PAUSE_MIN))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn topics(names: &[&str]) -> Vec<MessagingTopic> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn me() -> Address {
        Address::ue(&"a@x".parse().unwrap())
    }

    fn after(now: Now, seconds: u64) -> Now {
        let pause = Duration::from_secs(seconds);
        Now { date: now.date + pause, instant: now.instant + pause }
    }

    #[test]
    fn what_the_server_granted_in_full_is_made_again_only_after_another_registration() {
        let (mut subscriptions, now) = (Subscriptions::default(), Now::get());
        let until = Some(after(now, 3600).date);
        subscriptions.subscribed(&topics(&["a", "b"]), until, until, now);
        subscriptions.subscribed(&topics(&["c"]), None, None, now);
        assert_eq!(subscriptions.next_due(), None);
        subscriptions.unsubscribed(&topics(&["b"]));
        subscriptions.registered_again(now.instant);
        let due = subscriptions.due(&me(), now);
        assert_eq!(due.len(), 2);
        assert_eq!((&due[0].topics, due[0].expiration_time), (&topics(&["c"]), None));
        assert_eq!((&due[1].topics, due[1].expiration_time), (&topics(&["a"]), until));
        assert!(subscriptions.due(&me(), now).is_empty());
        subscriptions.registered_again(now.instant);
        let late = after(now, 3600);
        assert_eq!(subscriptions.due(&me(), late).len(), 1, "the other one is past its time");
    }

    #[test]
    fn a_shorter_grant_is_renewed_ahead_of_its_end() {
        let (mut subscriptions, now) = (Subscriptions::default(), Now::get());
        subscriptions.subscribed(&topics(&["a"]), None, Some(after(now, 400).date), now);
        let due = subscriptions.next_due().unwrap();
        assert!(due <= after(now, 300).instant && due > after(now, 299).instant, "three quarters");
        assert_eq!(subscriptions.due(&me(), after(now, 300)).len(), 1);
        assert_eq!(subscriptions.next_due(), None, "until the server has answered");
        let now = after(now, 300);
        subscriptions.renewed(&topics(&["a", "gone"]), Some(now.date), now);
        assert_eq!(subscriptions.next_due(), Some(after(now, 30).instant), "not without a pause");
    }

    #[test]
    fn room_is_for_different_topics_and_requests_are_no_longer_than_allowed() {
        let (mut subscriptions, now) = (Subscriptions::default(), Now::get());
        let many: Vec<MessagingTopic> = (0..100).map(|n| format!("t{n:03}").parse().unwrap()).collect();
        assert!(subscriptions.has_room(&many, 100) && !subscriptions.has_room(&many, 99));
        assert!(subscriptions.has_room(&topics(&["a", "a"]), 1));
        subscriptions.subscribed(&many, None, None, now);
        assert!(subscriptions.has_room(&many, 100) && !subscriptions.has_room(&topics(&["a"]), 100));
        subscriptions.registered_again(now.instant);
        let lengths: Vec<usize> = subscriptions.due(&me(), now).iter().map(|due| due.topics.len()).collect();
        assert_eq!(lengths, [64, 36]);
    }
}
