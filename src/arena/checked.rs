//! What has been compared with its checksum: bytes that passed, which need not be compared again,
//! and bytes that failed, on which no answer may rest any more, though they passed when they were
//! first read.
//!
//! Birth is part of the name because space is used again.

use std::collections::{HashMap, HashSet};

use crate::arena::sync::atomic::{AtomicU64, Ordering};
use crate::arena::sync::{Mutex, MutexGuard};
use crate::format::arrays::Entry;
use crate::values::error::Corruption;

/// Names bytes for as long as the file exists: address and birth.
pub(crate) type Name = (u64, u64);

pub(crate) fn name(entry: &Entry) -> Name {
    (entry.address, entry.birth)
}

/// Kept for one open store. No bytes have both passed and failed.
#[derive(Default)]
pub(super) struct Checked {
    outcomes: Mutex<Outcomes>,
    /// Goes up with every change of what has failed.
    failures: AtomicU64,
}

#[derive(Default)]
struct Outcomes {
    /// Address to birth.
    passed: HashMap<u64, u64>,
    failed: HashMap<Name, Corruption>,
}

impl Checked {
    fn outcomes(&self) -> MutexGuard<'_, Outcomes> {
        self.outcomes.lock().expect("no holder panics")
    }

    pub(super) fn has_passed(&self, entry: &Entry) -> bool {
        self.outcomes().passed.get(&entry.address) == Some(&entry.birth)
    }

    pub(super) fn has_failed(&self, entry: &Entry) -> bool {
        self.failures() > 0 && self.outcomes().failed.contains_key(&name(entry))
    }

    pub(super) fn pass(&self, entry: &Entry) {
        let mut outcomes = self.outcomes();
        outcomes.passed.insert(entry.address, entry.birth);
        self.forgive(&mut outcomes, entry);
    }

    /// Bytes that failed are as they were written after all.
    pub(super) fn absolve(&self, entry: &Entry) {
        if self.failures() > 0 {
            self.forgive(&mut self.outcomes(), entry);
        }
    }

    fn forgive(&self, outcomes: &mut Outcomes, entry: &Entry) {
        if !outcomes.failed.is_empty() && outcomes.failed.remove(&name(entry)).is_some() {
            self.failures.fetch_add(1, Ordering::Release);
        }
    }

    pub(super) fn fail(&self, entry: &Entry, what: Corruption) {
        let mut outcomes = self.outcomes();
        if outcomes.passed.get(&entry.address) == Some(&entry.birth) {
            outcomes.passed.remove(&entry.address);
        }
        outcomes.failed.insert(name(entry), what);
        self.failures.fetch_add(1, Ordering::Release);
    }

    /// Changes whenever anything fails, or no longer does. 0: nothing ever did.
    #[inline]
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Acquire)
    }

    /// What is wrong with one of `names`, if anything is.
    pub(super) fn failure_of(&self, names: &HashSet<Name>) -> Option<Corruption> {
        let outcomes = self.outcomes();
        outcomes.failed.iter().find(|(name, _)| names.contains(name)).map(|(_, what)| what.clone())
    }
}
