//! What the core function said about invokers, for as long as it is believed.
//!
//! Who is trusted and who is unknown stand in tables of their own: however many identities a stranger makes up, nobody who is
//! trusted is forgotten for it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use transport::Expiring;

use super::AefConfig;
use super::trust::TrustedInvoker;

/// What the core function says about somebody.
#[derive(Clone)]
pub(super) enum Known {
    /// It has a security context for here.
    Trusted(Arc<TrustedInvoker>),
    /// It has none.
    Unknown,
}

/// The tables.
pub(super) struct Beliefs {
    trusted: HashMap<String, Belief>,
    /// In the order they came, for when there are too many.
    order: VecDeque<String>,
    trusted_max: usize,
    unknown: Expiring<String, ()>,
    believed: Duration,
    /// How often something was forgotten.
    forgotten: u64,
}

struct Belief {
    invoker: Arc<TrustedInvoker>,
    asked_at: Instant,
    /// A refusal made us doubt it, and no answer has come since.
    in_doubt: bool,
    /// How often it was asked about for a reason of its own, since when; a second at most.
    asked: (Instant, u32),
}

impl Beliefs {
    pub(super) fn new(config: &AefConfig) -> Self {
        Self {
            trusted: HashMap::new(),
            order: VecDeque::new(),
            trusted_max: config.limits.invokers_max,
            unknown: Expiring::new(config.limits.unknown_max),
            believed: Duration::from_secs(config.check_interval_seconds),
            forgotten: 0,
        }
    }

    /// What is believed about `id` now.
    pub(super) fn about(&self, id: &str) -> Option<Known> {
        if self.is_unknown(id) {
            return Some(Known::Unknown);
        }
        let belief = self.trusted.get(id)?;
        let believed = !belief.in_doubt && belief.asked_at.elapsed() < self.believed;
        believed.then(|| Known::Trusted(Arc::clone(&belief.invoker)))
    }

    /// Whether the core function did not know `id` a moment ago.
    pub(super) fn is_unknown(&self, id: &str) -> bool {
        self.unknown.live(id, Instant::now()).is_some()
    }

    /// Whether `id` was vouched for, now or earlier.
    pub(super) fn has(&self, id: &str) -> bool {
        self.trusted.contains_key(id)
    }

    /// How often something was forgotten; what was asked for before the last time is not to be believed.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Takes over an answer that was asked for when [`Self::forgotten`] was `asked_when`.
    pub(super) fn learn(&mut self, id: &str, known: &Known, asked_when: u64) {
        if asked_when != self.forgotten {
            return;
        }
        let now = Instant::now();
        let Known::Trusted(invoker) = known else {
            self.trusted.remove(id);
            self.unknown.insert(id.to_owned(), (), now + UNKNOWN_BELIEVED.min(self.believed), now);
            return;
        };
        self.unknown.remove(id);
        let asked = self.trusted.get(id).map_or((now, 0), |before| before.asked);
        let belief = Belief { invoker: Arc::clone(invoker), asked_at: now, in_doubt: false, asked };
        if self.trusted.insert(id.to_owned(), belief).is_none() {
            self.order.push_back(id.to_owned());
        }
        while self.trusted.len() > self.trusted_max || self.order.len() > self.trusted_max.saturating_mul(2) {
            let Some(oldest) = self.order.pop_front() else { break };
            self.trusted.remove(&oldest);
        }
    }

    /// Forgets what is believed about `id`.
    pub(super) fn forget(&mut self, id: &str) {
        self.forgotten += 1;
        self.trusted.remove(id);
        self.unknown.remove(id);
    }

    /// Believes it no longer, since it leads to a refusal. Whether it is worth asking again: an invoker that is refused again
    /// and again makes us ask so often and no more.
    pub(super) fn doubt(&mut self, id: &str) -> bool {
        let worth = self.may_ask(id);
        if let Some(belief) = self.trusted.get_mut(id).filter(|_| worth) {
            belief.in_doubt = true;
        }
        worth
    }

    /// Whether one more question about `id`, which was vouched for, is not one too many this second. Counts it.
    pub(super) fn may_ask(&mut self, id: &str) -> bool {
        let Some(belief) = self.trusted.get_mut(id) else { return false };
        if belief.asked.0.elapsed() >= Duration::from_secs(1) {
            belief.asked = (Instant::now(), 0);
        }
        let few = belief.asked.1 < QUESTIONS_PER_SECOND_MAX;
        belief.asked.1 += u32::from(few);
        few
    }
}

/// How long it is believed that there is no context: an invoker may be about to agree on one.
const UNKNOWN_BELIEVED: Duration = Duration::from_secs(1);
/// How often refusals and handshakes of one invoker make us ask about it.
const QUESTIONS_PER_SECOND_MAX: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn beliefs(trusted_max: usize, unknown_max: usize) -> Beliefs {
        Beliefs {
            trusted: HashMap::new(),
            order: VecDeque::new(),
            trusted_max,
            unknown: Expiring::new(unknown_max),
            believed: Duration::from_secs(30),
            forgotten: 0,
        }
    }

    fn trusted() -> Known {
        Known::Trusted(Arc::new(TrustedInvoker::default()))
    }

    fn is_trusted(beliefs: &Beliefs, id: &str) -> bool {
        matches!(beliefs.about(id), Some(Known::Trusted(_)))
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_push_out_each_other_and_nobody_who_is_trusted() {
        let mut beliefs = beliefs(2, 3);
        beliefs.learn("alice", &trusted(), 0);
        for number in 0..1_000 {
            beliefs.learn(&format!("stranger {number}"), &Known::Unknown, 0);
        }
        assert!(is_trusted(&beliefs, "alice"));
        assert!(!beliefs.is_unknown("stranger 0") && beliefs.is_unknown("stranger 999"));
        tokio::time::advance(UNKNOWN_BELIEVED).await;
        assert!(!beliefs.is_unknown("stranger 999"), "an invoker may be about to agree");
        for id in ["bob", "carol"] {
            beliefs.learn(id, &trusted(), 0);
        }
        assert!(!beliefs.has("alice") && is_trusted(&beliefs, "bob") && is_trusted(&beliefs, "carol"));
        assert!(beliefs.order.len() <= 4);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_from_before_an_end_is_not_believed_after_it() {
        let mut beliefs = beliefs(2, 3);
        let asked_when = beliefs.forgotten();
        beliefs.forget("alice");
        beliefs.learn("alice", &trusted(), asked_when);
        assert!(beliefs.about("alice").is_none());
        beliefs.learn("alice", &trusted(), beliefs.forgotten());
        assert!(is_trusted(&beliefs, "alice"));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(beliefs.about("alice").is_none() && beliefs.has("alice"));
    }

    #[tokio::test(start_paused = true)]
    async fn one_invoker_is_asked_about_so_often_a_second() {
        let mut beliefs = beliefs(2, 3);
        assert!(!beliefs.doubt("nobody"));
        beliefs.learn("alice", &trusted(), 0);
        for _ in 0..QUESTIONS_PER_SECOND_MAX {
            assert!(beliefs.may_ask("alice"));
        }
        assert!(!beliefs.doubt("alice") && is_trusted(&beliefs, "alice"));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(beliefs.doubt("alice") && beliefs.about("alice").is_none());
    }
}
