//! How often each invoker has called each API, for policies that allow a number of calls: kept over a restart.
//!
//! A call is counted before it passes, and the count is on disk before that. So that not every call waits for the disk, what is
//! kept runs ahead: by a hundredth of what the policy allows in all, [`AHEAD_MAX`] at most. Whoever is stopped without a chance to
//! set it right has counted so many calls too many at worst, and none too few. Counts are dropped when the core function says
//! that the invoker is gone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use time::OffsetDateTime;
use transport::{BoxFuture, LogThrottle};

use super::guard::Refusal;
use crate::SbiError;
use crate::capif::policy::ApiInvokerPolicy;

/// Where an exposing function keeps counts, each under a key of at most 256 octets.
pub trait InvocationCounts: Send + Sync {
    /// All that are kept. Blocks.
    ///
    /// # Errors
    /// Why they cannot be read.
    fn all(&self) -> Result<Vec<(String, u64)>, String>;

    /// Keeps this count under this key, or none; on disk when it returns.
    fn keep<'a>(&'a self, key: &'a str, count: Option<u64>) -> BoxFuture<'a, Result<(), String>>;
}

/// The counts.
pub(super) struct Counts {
    counts: Mutex<HashMap<String, Count>>,
    kept: Arc<dyn InvocationCounts>,
    /// One write at a time: a lower count must not come after a higher one.
    writing: tokio::sync::Mutex<()>,
    counts_max: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    total: u64,
    /// What is on disk; never below `total` where calls have passed.
    kept: u64,
    second: i64,
    in_second: u64,
}

impl Counts {
    /// What is kept is read. Blocks.
    pub(super) fn open(kept: Arc<dyn InvocationCounts>, counts_max: usize) -> Result<Self, SbiError> {
        let all = kept.all().map_err(|reason| SbiError::InvalidRequest(format!("counts of calls: {reason}")))?;
        let counts = all.into_iter().map(|(key, total)| (key, Count { total, kept: total, ..Count::default() }));
        Ok(Self { counts: Mutex::new(counts.collect()), kept, writing: tokio::sync::Mutex::default(), counts_max })
    }

    /// Counts a call of `api_name` by `id`, if the policy allows one more.
    pub(super) async fn count(&self, id: &str, api_name: &str, policy: &ApiInvokerPolicy) -> Result<(), Refusal> {
        let now = OffsetDateTime::now_utc();
        let ranges = &policy.allowed_invocation_time_range_list;
        if !ranges.is_empty() && !ranges.iter().any(|range| range.includes(now)) {
            return Err(Refusal::Forbidden("OUTSIDE_ALLOWED_TIME"));
        }
        if policy.allowed_total_invocations.is_none() && policy.allowed_invocations_per_second.is_none() {
            return Ok(());
        }
        let key = key(id, api_name);
        let count = self.pass(&key, now.unix_timestamp(), policy)?;
        match policy.allowed_total_invocations {
            Some(max) if count.total > count.kept => self.keep_ahead(&key, count.total, max).await,
            _ => Ok(()),
        }
    }

    fn pass(&self, key: &str, second: i64, policy: &ApiInvokerPolicy) -> Result<Count, Refusal> {
        let mut counts = self.counts();
        if !counts.contains_key(key) && counts.len() >= self.counts_max {
            return Err(Refusal::Unavailable);
        }
        let count = counts.entry(key.to_owned()).or_default();
        if policy.allowed_total_invocations.is_some_and(|max| count.total >= max) {
            return Err(Refusal::Forbidden("INVOCATIONS_USED_UP"));
        }
        if count.second != second {
            (count.second, count.in_second) = (second, 0);
        }
        if policy.allowed_invocations_per_second.is_some_and(|max| count.in_second >= max) {
            return Err(Refusal::TooMany);
        }
        count.total = count.total.saturating_add(u64::from(policy.allowed_total_invocations.is_some()));
        count.in_second = count.in_second.saturating_add(1);
        Ok(*count)
    }

    /// Has at least `total` on disk when it returns.
    async fn keep_ahead(&self, key: &str, total: u64, max: u64) -> Result<(), Refusal> {
        let _turn = self.writing.lock().await;
        let Some(count) = self.counts().get(key).copied() else { return Ok(()) };
        if count.kept >= total {
            return Ok(());
        }
        let ahead = (max / 100).min(AHEAD_MAX);
        let kept = count.total.saturating_add(ahead).min(max);
        // A count that cannot be kept lets nobody pass.
        self.write(key, Some(kept)).await.map_err(|()| Refusal::Unavailable)?;
        if let Some(count) = self.counts().get_mut(key) {
            count.kept = kept;
        }
        Ok(())
    }

    /// Keeps what was counted and no more, before a stop. Calls that come after it are counted as ever.
    pub(super) async fn settle(&self) {
        let _turn = self.writing.lock().await;
        let ahead: Vec<_> = {
            let counts = self.counts();
            let ahead = counts.iter().filter(|(_, count)| count.kept > count.total);
            ahead.map(|(key, _)| key.clone()).collect()
        };
        for key in ahead {
            // First: a call from here on finds that it must be kept.
            let total = self.counts().get_mut(&key).map(|count| {
                count.kept = count.total;
                count.total
            });
            if self.write(&key, total).await.is_err() {
                return;
            }
        }
    }

    /// The invokers who are counted.
    pub(super) fn invokers(&self) -> Vec<String> {
        let counts = self.counts();
        let mut ids: Vec<_> =
            counts.keys().filter_map(|key| key.rsplit_once(' ')).map(|(id, _)| id.to_owned()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Drops what was counted of `id`, who is gone for ever.
    pub(super) async fn drop_invoker(&self, id: &str) {
        let _turn = self.writing.lock().await;
        let of_it = |key: &String| key.rsplit_once(' ').is_some_and(|(of, _)| of == id);
        let keys: Vec<_> = self.counts().keys().filter(|key| of_it(key)).cloned().collect();
        for key in keys {
            if self.write(&key, None).await.is_ok() {
                self.counts().remove(&key);
            }
        }
    }

    async fn write(&self, key: &str, count: Option<u64>) -> Result<(), ()> {
        self.kept.keep(key, count).await.map_err(|reason| {
            if let Some(unlogged) = NOT_KEPT.admit() {
                tracing::error!(target: "security", reason, unlogged, "a count of calls cannot be kept");
            }
        })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<String, Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An API's name has no space.
fn key(id: &str, api_name: &str) -> String {
    format!("{id} {api_name}")
}

static NOT_KEPT: LogThrottle = LogThrottle::new();

/// Calls by which what is kept may run ahead of what was counted.
const AHEAD_MAX: u64 = 64;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A disk that may fail.
    #[derive(Default)]
    struct Disk {
        kept: Mutex<BTreeMap<String, u64>>,
        writes: AtomicUsize,
        broken: bool,
    }

    impl InvocationCounts for Disk {
        fn all(&self) -> Result<Vec<(String, u64)>, String> {
            Ok(self.kept.lock().unwrap().clone().into_iter().collect())
        }

        fn keep<'a>(&'a self, key: &'a str, count: Option<u64>) -> BoxFuture<'a, Result<(), String>> {
            Box::pin(async move {
                tokio::task::yield_now().await;
                if self.broken {
                    return Err("full".to_owned());
                }
                self.writes.fetch_add(1, Ordering::Relaxed);
                match count {
                    Some(count) => self.kept.lock().unwrap().insert(key.to_owned(), count),
                    None => self.kept.lock().unwrap().remove(key),
                };
                Ok(())
            })
        }
    }

    fn policy(total: Option<u64>, per_second: Option<u64>) -> ApiInvokerPolicy {
        ApiInvokerPolicy {
            allowed_total_invocations: total,
            allowed_invocations_per_second: per_second,
            ..serde_json::from_str(r#"{"apiInvokerId": "i"}"#).unwrap()
        }
    }

    async fn calls(counts: &Counts, max: u64) -> u64 {
        let mut passed = 0;
        while counts.count("i", "api", &policy(Some(max), None)).await.is_ok() {
            passed += 1;
        }
        passed
    }

    #[tokio::test]
    async fn calls_at_once_and_over_stops_of_any_kind_are_never_more_than_are_allowed() {
        let disk = Arc::new(Disk::default());
        let open = || Counts::open(Arc::clone(&disk) as Arc<dyn InvocationCounts>, 8).unwrap();
        let counts = open();
        let some = policy(Some(1_000), None);
        let passed = futures_util::future::join_all((0..205).map(|_| counts.count("i", "api", &some))).await;
        assert!(passed.iter().all(Result::is_ok));
        assert!(disk.writes.load(Ordering::Relaxed) < 205, "not each waits for a write of its own");
        // Stopped without warning: what was kept ahead is lost, and no call is counted twice less.
        let after_a_crash = open();
        assert!((785..=795).contains(&calls(&after_a_crash, 1_000).await));
        assert_eq!(calls(&open(), 1_000).await, 0);
    }

    #[tokio::test]
    async fn an_orderly_stop_loses_no_call_and_the_smallest_allowance_none_at_all() {
        let disk = Arc::new(Disk::default());
        let open = || Counts::open(Arc::clone(&disk) as Arc<dyn InvocationCounts>, 8).unwrap();
        let counts = open();
        counts.count("i", "api", &policy(Some(1_000), None)).await.unwrap();
        counts.settle().await;
        assert_eq!(calls(&open(), 1_000).await, 999);
        let counts = open();
        counts.count("j", "api", &policy(Some(2), None)).await.unwrap();
        let again = open();
        again.count("j", "api", &policy(Some(2), None)).await.unwrap();
        let used_up = Err(Refusal::Forbidden("INVOCATIONS_USED_UP"));
        assert_eq!(again.count("j", "api", &policy(Some(2), None)).await, used_up);
    }

    #[tokio::test]
    async fn what_was_counted_of_one_who_is_gone_is_dropped() {
        let disk = Arc::new(Disk::default());
        let counts = Counts::open(Arc::clone(&disk) as Arc<dyn InvocationCounts>, 2).unwrap();
        for id in ["i", "j"] {
            counts.count(id, "api", &policy(Some(5), None)).await.unwrap();
        }
        assert_eq!(counts.count("k", "api", &policy(Some(5), None)).await, Err(Refusal::Unavailable), "full");
        assert_eq!(counts.invokers(), ["i", "j"]);
        counts.drop_invoker("i").await;
        assert_eq!(disk.all().unwrap().len(), 1);
        counts.count("k", "api", &policy(Some(5), None)).await.unwrap();
    }

    #[tokio::test]
    async fn a_count_that_cannot_be_kept_lets_nobody_pass_and_one_per_second_needs_no_disk() {
        let counts = Counts::open(Arc::new(Disk { broken: true, ..Disk::default() }), 2).unwrap();
        assert_eq!(counts.count("i", "api", &policy(Some(5), None)).await, Err(Refusal::Unavailable));
        counts.count("i", "api", &policy(None, Some(1_000))).await.unwrap();
    }
}
