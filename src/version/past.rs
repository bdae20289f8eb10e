//! What the writer remembers of all versions from one commit to the next, so that a rule of
//! retention costs in proportion to what expires.
//!
//! Age is counted by what the clock says from version to version, and a step longer than a month,
//! and longer than the rule's own span, counts as nothing: either the clock has leapt, or nobody
//! was there whose versions could have grown old. So no single wrong time lets a history expire; it
//! takes the rule's span of ordinary time.

use std::collections::BTreeSet;

use super::sharing_graph::{SharingGraph, VersionSummary};
use crate::values::retention::Retention;

/// Steps of the clock up to this length are believed, whatever the rule: 31 days.
const ORDINARY_NS: u64 = 31 * 86_400 * 1_000_000_000;

/// All versions of a store, the expired ones included.
pub(crate) struct Past {
    /// Version v at position v - 1.
    briefs: Vec<VersionSummary>,
    family: SharingGraph,
    retained: BTreeSet<u64>,
    /// For the longest believed step that it was asked for last: at position v - 1, the time from
    /// the first version to v, without leaps.
    elapsed: (u64, Vec<u64>),
}

/// What a rule does not keep.
#[derive(Default)]
pub(crate) struct Doomed {
    /// Versions, oldest first.
    pub(crate) versions: Vec<u64>,
    /// The last step of the clock that was not believed, from and to, if it is why a version is
    /// kept.
    pub(crate) leap: Option<(u64, u64)>,
}

impl Past {
    pub(crate) fn new(briefs: Vec<VersionSummary>) -> Self {
        let family = SharingGraph::new(&briefs);
        let numbered = (1..).zip(&briefs);
        let retained = numbered.filter(|(_, brief)| !brief.expired).map(|(v, _)| v).collect();
        Past { briefs, family, retained, elapsed: (0, Vec::new()) }
    }

    /// Adds the next version.
    pub(crate) fn push(&mut self, brief: VersionSummary) {
        self.briefs.push(brief);
        let version = self.briefs.len() as u64;
        self.family.push(brief.parent);
        match brief.expired {
            true => self.family.expire(version),
            false => drop(self.retained.insert(version)),
        }
    }

    /// Takes a version out.
    pub(crate) fn expire(&mut self, version: u64) {
        self.briefs[version as usize - 1].expired = true;
        self.family.expire(version);
        self.retained.remove(&version);
    }

    pub(crate) fn family(&mut self) -> &mut SharingGraph {
        &mut self.family
    }

    /// The oldest retained version.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.retained.first().copied()
    }

    /// The versions that `rule` does not keep at `now_ns` by the clock, when `added` more versions
    /// are about to be made. The newest, and those for which `spared` says so, stay in any case.
    ///
    /// Rank and age fall from one version to the next, so the search ends at the first that the
    /// rule keeps.
    pub(crate) fn doomed(
        &mut self,
        rule: Retention,
        now_ns: u64,
        added: u64,
        spared: impl Fn(u64) -> bool,
    ) -> Doomed {
        let mut doomed = Doomed::default();
        let Some(&newest) = self.retained.last() else { return doomed };
        let span = rule.to_fields().1.max(ORDINARY_NS);
        self.count_elapsed(span);
        let elapsed = &self.elapsed.1;
        let last = self.briefs[self.briefs.len() - 1].time_ns;
        let since = Some(now_ns.saturating_sub(last)).filter(|&step| step <= span).unwrap_or(0);
        let total = elapsed[elapsed.len() - 1] + since;
        let count = self.retained.len() as u64;
        for (i, &version) in self.retained.iter().enumerate() {
            let rank = count - 1 - i as u64 + added;
            if rule.keeps(rank, total - elapsed[version as usize - 1]) {
                let by_calendar = now_ns.saturating_sub(self.briefs[version as usize - 1].time_ns);
                if !rule.keeps(rank, by_calendar) {
                    doomed.leap = self.last_leap(version, now_ns, span);
                }
                break;
            }
            if version != newest && !spared(version) {
                doomed.versions.push(version);
            }
        }
        doomed
    }

    fn count_elapsed(&mut self, span: u64) {
        if self.elapsed.0 != span {
            self.elapsed = (span, Vec::new());
        }
        let counted = &mut self.elapsed.1;
        for i in counted.len()..self.briefs.len() {
            let Some(before) = i.checked_sub(1) else {
                counted.push(0);
                continue;
            };
            let step = self.briefs[i].time_ns.saturating_sub(self.briefs[before].time_ns);
            counted.push(counted[before] + if step > span { 0 } else { step });
        }
    }

    /// The last step after `version` that is longer than `span`.
    fn last_leap(&self, version: u64, now_ns: u64, span: u64) -> Option<(u64, u64)> {
        let mut to = now_ns;
        for brief in self.briefs[version as usize - 1..].iter().rev() {
            if to.saturating_sub(brief.time_ns) > span {
                return Some((brief.time_ns, to));
            }
            to = brief.time_ns;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DAY: u64 = 86_400_000_000_000;

    fn past(days: &[u64]) -> Past {
        let brief = |(i, &day): (usize, &u64)| VersionSummary {
            parent: i as u64,
            time_ns: day * DAY,
            expired: false,
        };
        Past::new(days.iter().enumerate().map(brief).collect())
    }

    fn keep_for(days: u64) -> Retention {
        Retention::new().keep_for(Duration::from_nanos(days * DAY))
    }

    #[test]
    fn rank_and_age_choose_the_oldest() {
        let mut past = past(&[1, 2, 3, 10, 11, 20]);
        let none = |_| false;
        assert_eq!(past.doomed(Retention::new().keep_last(2), 0, 0, none).versions, [1, 2, 3, 4]);
        assert_eq!(
            past.doomed(Retention::new().keep_last(2), 0, 1, |v| v == 2).versions,
            [1, 3, 4, 5]
        );
        assert_eq!(past.doomed(keep_for(10), 20 * DAY, 0, none).versions, [1, 2, 3]);
        assert_eq!(past.doomed(keep_for(10).keep_last(4), 20 * DAY, 0, none).versions, [1, 2]);
        past.expire(2);
        assert_eq!(past.doomed(keep_for(10), 20 * DAY, 0, none).versions, [1, 3]);
        assert_eq!(past.oldest(), Some(1));
    }

    #[test]
    fn one_leap_of_the_clock_lets_nothing_expire() {
        let days: Vec<u64> = (100..120).collect();
        let far = 60 * 365;
        // The commit that leaps.
        let mut before = past(&days);
        let doomed = before.doomed(keep_for(30), far * DAY, 1, |_| false);
        assert!(doomed.versions.is_empty());
        assert_eq!(doomed.leap, Some((119 * DAY, far * DAY)));
        // Those after it, with the clock as it is, and set right again.
        let mut after = past(&[&days[..], &[far, far + 1]].concat());
        for now in [far + 2, 121] {
            assert!(after.doomed(keep_for(30), now * DAY, 1, |_| false).versions.is_empty());
        }
        // A month of ordinary time later they go, one day after the other.
        let month: Vec<u64> = (far..far + 13).collect();
        let mut later = past(&[days, month].concat());
        let doomed = later.doomed(keep_for(30), (far + 13) * DAY, 0, |_| false);
        assert_eq!(doomed.versions, [1, 2], "19 days before the leap, 13 after");
    }

    #[test]
    fn a_clock_that_goes_back_makes_nothing_older() {
        let mut past = past(&[100, 101, 102]);
        assert!(past.doomed(keep_for(10), 0, 0, |_| false).versions.is_empty());
    }
}
