//! What has been compared with its checksum: bytes that passed, which need not be compared again, and bytes that failed,
//! on which no answer may rest any more, though they passed when they were first read.
//!
//! Birth is part of the name because space is used again.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Corruption;
use crate::format::arrays::Entry;

/// Names bytes for as long as the file exists: address and birth.
pub(crate) type Name = (u64, u64);

pub(crate) fn name(entry: &Entry) -> Name {
    (entry.address, entry.birth)
}

/// Kept for one open store.
#[derive(Default)]
pub(super) struct Checked {
    /// Address to birth.
    passed: Mutex<HashMap<u64, u64>>,
    failed: Mutex<HashMap<Name, Corruption>>,
    /// Goes up with every change of `failed`.
    failures: AtomicU64,
}

impl Checked {
    pub(super) fn has_passed(&self, entry: &Entry) -> bool {
        self.passed.lock().expect("no holder panics").get(&entry.address) == Some(&entry.birth)
    }

    pub(super) fn has_failed(&self, entry: &Entry) -> bool {
        self.failures() > 0
            && self.failed.lock().expect("no holder panics").contains_key(&name(entry))
    }

    pub(super) fn pass(&self, entry: &Entry) {
        self.passed.lock().expect("no holder panics").insert(entry.address, entry.birth);
        self.absolve(entry);
    }

    /// Bytes that failed are as they were written after all.
    pub(super) fn absolve(&self, entry: &Entry) {
        if self.failures() > 0
            && self.failed.lock().expect("no holder panics").remove(&name(entry)).is_some()
        {
            self.failures.fetch_add(1, Ordering::Release);
        }
    }

    pub(super) fn fail(&self, entry: &Entry, what: Corruption) {
        {
            let mut passed = self.passed.lock().expect("no holder panics");
            if passed.get(&entry.address) == Some(&entry.birth) {
                passed.remove(&entry.address);
            }
        }
        self.failed.lock().expect("no holder panics").insert(name(entry), what);
        self.failures.fetch_add(1, Ordering::Release);
    }

    /// Changes whenever anything fails, or no longer does. 0: nothing ever did.
    #[inline]
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Acquire)
    }

    /// What is wrong with one of `names`, if anything is.
    pub(super) fn failure_of(&self, names: &HashSet<Name>) -> Option<Corruption> {
        let failed = self.failed.lock().expect("no holder panics");
        failed.iter().find(|(name, _)| names.contains(name)).map(|(_, what)| what.clone())
    }
}
