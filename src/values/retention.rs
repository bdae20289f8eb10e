//! Which versions a store keeps.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::values::ids::VersionId;

/// A rule of retention: a version is kept if any part of the rule keeps it. Whatever the rule, the
/// newest version, those that have a tag and those that somebody has open are kept. A rule without
/// parts keeps everything.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, SystemTime};
/// let rule = treering::Retention::new().keep_last(10).keep_for(Duration::from_secs(86_400));
/// assert_eq!(rule.to_string(), "keep last 10, keep for 24h");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    last: Option<u64>,
    age: Option<Duration>,
}

impl Retention {
    /// Keeps everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps the newest `count` of the versions that are left, and at least one.
    pub fn keep_last(mut self, count: u64) -> Self {
        self.last = Some(count.max(1));
        self
    }

    /// Keeps versions that are not older than `age`, by what the clock said from version to
    /// version. A single step longer than `age` and than a month counts as nothing, see
    /// [`ClockLeap`].
    pub fn keep_for(mut self, age: Duration) -> Self {
        self.age = Some(age);
        self
    }

    /// True if everything is kept.
    pub fn keeps_all(&self) -> bool {
        *self == Self::default()
    }

    /// As it is written into the file: 0 for a part that there is not.
    pub(crate) fn to_fields(self) -> (u64, u64) {
        let age = self.age.map(|age| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX).max(1));
        (self.last.unwrap_or(0), age.unwrap_or(0))
    }

    pub(crate) fn from_fields(last: u64, age_ns: u64) -> Self {
        let some = |value: u64| Some(value).filter(|&value| value > 0);
        Retention { last: some(last), age: some(age_ns).map(Duration::from_nanos) }
    }

    /// True if the rule keeps the version that is number `rank` from the newest (0) and `age_ns`
    /// old.
    pub(crate) fn keeps(&self, rank: u64, age_ns: u64) -> bool {
        let (last, age) = self.to_fields();
        self.keeps_all() || rank < last || age > 0 && age_ns <= age
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let age = self.age.map(|age| match jiff::SignedDuration::try_from(age) {
            Ok(age) => format!("keep for {age:#}"),
            Err(_) => "keep for ever".to_string(),
        });
        match (self.last, age) {
            (None, None) => f.write_str("keep everything"),
            (Some(last), None) => write!(f, "keep last {last}"),
            (None, Some(age)) => f.write_str(&age),
            (Some(last), Some(age)) => write!(f, "keep last {last}, {age}"),
        }
    }
}

/// A step of the clock that does not count when the age of versions is told: from one version to
/// the next, or to now, more time has passed than a month, and than the rule keeps versions for.
/// Either the clock has leapt, or nobody was there. Versions from before it expire when the rule's
/// span of ordinary time has passed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockLeap {
    /// The time before.
    pub from: SystemTime,
    /// The time after.
    pub to: SystemTime,
}

/// What [`crate::Store::expire`] did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExpireReport {
    /// Versions that can no longer be opened, oldest first.
    pub expired: Vec<VersionId>,
    /// Versions that the rule would have expired, but that somebody has open.
    pub pinned: Vec<VersionId>,
    /// Bytes that only expired versions referred to.
    pub bytes_freed: u64,
    /// Length of the file before, and after.
    pub file_bytes: (u64, u64),
    /// A step of the clock because of which versions stay that are too old by the calendar.
    pub clock_leap: Option<ClockLeap>,
}
