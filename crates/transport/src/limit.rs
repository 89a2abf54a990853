//! What is wrong with a limit, found and told in one way for every section of a configuration.

use std::ops::RangeInclusive;

/// A limit of a configuration, and between which values it makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    name: &'static str,
    value: u64,
    sound: RangeInclusive<u64>,
}

impl Limit {
    /// How many of something there may be, or how many octets: one at least, since with none nobody would be served.
    #[must_use]
    pub fn count(name: &'static str, value: usize) -> Self {
        Self::number(name, u64::try_from(value).unwrap_or(u64::MAX))
    }

    /// The same.
    #[must_use]
    pub fn number(name: &'static str, value: u64) -> Self {
        Self::within(name, value, 1..=NUMBER_MAX)
    }

    /// A time in seconds, one at least.
    #[must_use]
    pub fn seconds(name: &'static str, value: u64) -> Self {
        Self::within(name, value, 1..=SECONDS_MAX)
    }

    /// A time in milliseconds, one at least.
    #[must_use]
    pub fn milliseconds(name: &'static str, value: u64) -> Self {
        Self::within(name, value, 1..=SECONDS_MAX * 1_000)
    }

    /// A value between these two.
    #[must_use]
    pub fn within(name: &'static str, value: u64, sound: RangeInclusive<u64>) -> Self {
        Self { name, value, sound }
    }

    /// The same limit where 0 makes sense, too.
    #[must_use]
    pub fn or_none(self) -> Self {
        Self { sound: 0..=*self.sound.end(), ..self }
    }

    /// The first of `limits` that makes no sense: its name, and what it must be.
    #[must_use]
    pub fn fault(limits: impl IntoIterator<Item = Self>) -> Option<LimitFault> {
        let wrong = limits.into_iter().find(|limit| !limit.sound.contains(&limit.value))?;
        let (least, most) = wrong.sound.into_inner();
        let told =
            if wrong.value < least { format!("must be {least} or more") } else { format!("must be {most} or less") };
        Some((wrong.name, told))
    }
}

/// The name of a limit, and what it must be.
pub type LimitFault = (&'static str, String);

/// More than any machine has of anything, and less than what a queue or a semaphore of the runtime can be made for.
const NUMBER_MAX: u64 = u32::MAX as u64;
/// A hundred years: every clock goes further, whatever is added up.
const SECONDS_MAX: u64 = 3_155_760_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_makes_no_sense_is_told_with_what_it_must_be() {
        let told =
            |limit: Limit| Limit::fault([Limit::count("first", 1), limit]).map(|(name, told)| format!("{name} {told}"));
        assert_eq!(told(Limit::count("many", 1)), None);
        assert_eq!(told(Limit::seconds("time", 3_155_760_000)), None);
        assert_eq!(told(Limit::seconds("time", 0).or_none()), None);
        assert_eq!(told(Limit::count("many", 0)).as_deref(), Some("many must be 1 or more"));
        assert_eq!(told(Limit::count("many", usize::MAX)).as_deref(), Some("many must be 4294967295 or less"));
        assert_eq!(
            told(Limit::seconds("time", u64::MAX).or_none()).as_deref(),
            Some("time must be 3155760000 or less")
        );
        assert_eq!(told(Limit::within("size", 7, 8..=9)).as_deref(), Some("size must be 8 or more"));
    }
}
