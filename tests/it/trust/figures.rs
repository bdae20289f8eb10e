//! What the suite counts, and how it says so.

use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::PARTS;
use super::model::Wrong;
use crate::common::ALLOCATION_CHECKS;

/// Failures of which more are not listed.
const LISTED: usize = 20;

/// Counts of one part of the suite, kept by several threads at once.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) images: AtomicU64,
    pub(crate) recoveries: AtomicU64,
    pub(crate) faults: AtomicU64,
    pub(crate) schedules: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) wrong: AtomicU64,
    pub(crate) damaged: AtomicU64,
    failures: Mutex<Vec<String>>,
    /// Called with the first failure.
    at_once: Option<fn(&str)>,
}

impl Tally {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A tally that tells of the first failure at once.
    pub(crate) fn telling(at_once: fn(&str)) -> Self {
        Tally { at_once: Some(at_once), ..Tally::default() }
    }

    /// Notes that something is wrong. `what` must be enough to see it again.
    pub(crate) fn failed(&self, wrong: &Wrong, what: impl FnOnce() -> String) {
        let (counter, why) = match wrong {
            Wrong::Lost(why) => (&self.lost, why),
            Wrong::Answers(why) => (&self.wrong, why),
            Wrong::Damaged(why) => (&self.damaged, why),
        };
        Self::count(counter);
        let mut failures = self.failures.lock().expect("no holder panics");
        if failures.len() < LISTED {
            let failure = format!("{}: {why}", what());
            if let Some(tell) = self.at_once {
                tell(&failure);
            }
            failures.push(failure);
        }
    }

    /// Prints what was lost or wrong, and fails if anything was.
    pub(crate) fn assert_clean(&self) {
        let failures = self.failures.lock().expect("no holder panics");
        let damaged = self.damaged.load(Ordering::Relaxed);
        assert!(
            failures.is_empty(),
            "{} lost, {} wrong, {damaged} damaged:\n{}",
            self.lost.load(Ordering::Relaxed),
            self.wrong.load(Ordering::Relaxed),
            failures.join("\n")
        );
    }
}

/// A part is over, and its tally, if it has one, is clean. The last one sums up.
pub(crate) fn finished(tally: Option<&Tally>) {
    static SUM: Mutex<(u64, u64, u64)> = Mutex::new((0, 0, 0));
    let mut sum = SUM.lock().expect("no holder panics");
    sum.0 += 1;
    if let Some(tally) = tally {
        sum.1 += tally.lost.load(Ordering::Relaxed);
        sum.2 += tally.wrong.load(Ordering::Relaxed);
    }
    if sum.0 == PARTS {
        say("allocation checks", ALLOCATION_CHECKS.load(Ordering::Relaxed));
        say("lost versions", sum.1);
        say("wrong answers", sum.2);
    }
}

/// Prints a figure on a line of its own, past the capture of test output.
pub(crate) fn say(what: &str, figure: impl std::fmt::Display) {
    let line = format!("\n{what}: {figure}\n");
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).expect("standard output");
}

/// Runs `unit` for 0, 1, 2, ... below `units`, on two threads.
pub(crate) fn in_parallel(units: usize, unit: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= units {
                return;
            }
            unit(number);
        }
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(work);
        work();
        other.join().expect("a unit that fails says so itself");
    });
}

/// How often the whole suite is done: once in a release build, `TREERING_TRUST` times if that is
/// set. `None`: only a few percent of it, so that the ordinary test run in a debug build stays
/// short.
fn times() -> Option<usize> {
    let asked = std::env::var("TREERING_TRUST").ok();
    let asked = asked.map(|text| text.parse().expect("TREERING_TRUST is a whole number"));
    asked.or((!cfg!(debug_assertions)).then_some(1))
}

/// How many of something seeded are done: `few`, or so many times `all`.
pub(crate) fn scale(few: usize, all: usize) -> usize {
    times().map_or(few, |times| times * all)
}

/// Of things that can be counted off, one in `few` is done, or every one.
pub(crate) fn one_in(few: usize) -> usize {
    times().map_or(few, |_| 1)
}

/// The same for what is done in full only if more than the whole suite is asked for.
pub(crate) fn one_in_by_night(few: usize) -> usize {
    times().filter(|&times| times > 1).map_or(few, |_| 1)
}
