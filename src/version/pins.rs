//! Who has which version open, and the gate at which readers and the writer meet.
//!
//! A reader pins a version by a shared lock on the version's byte, which the kernel drops with the process. Holds of one
//! file description do not see each other, so pins are counted here as well; the writer's own pins are only counted.
//!
//! Invariant: a version that is pinned does not expire. A reader reads slot and row and pins inside the gate; the
//! writer looks for pins, publishes what expired and gives back space while nobody is inside.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::arena::Arena;
use crate::arena::lock::{Hold, LockRange};
use crate::error::StorageError;
use crate::seeded_bug::SeededBug;

/// Longest wait at the gate. Holds there take milliseconds; a process that was stopped inside must not stop all others.
const PATIENCE: Duration = Duration::from_secs(30);

/// The pins of one open store.
pub(crate) struct Pins {
    arena: Arc<Arena>,
    /// Other processes must see the pins, because one of them may be the writer.
    reader: bool,
    counts: Mutex<BTreeMap<u64, u64>>,
    /// One thread of this handle at a time is at the gate.
    entering: Mutex<()>,
}

/// Keeps a version from expiring for as long as it exists.
#[must_use]
pub(crate) struct Pin {
    pins: Arc<Pins>,
    version: u64,
}

/// A stay inside the gate.
#[must_use]
pub(crate) struct Gate<'a> {
    pins: &'a Pins,
    _entering: MutexGuard<'a, ()>,
}

impl Pins {
    pub(crate) fn new(arena: Arc<Arena>, reader: bool) -> Arc<Self> {
        let (counts, entering) = Default::default();
        Arc::new(Pins { arena, reader, counts, entering })
    }

    /// Goes through the gate as a reader; `None` for the writer, whom nobody disturbs.
    pub(crate) fn enter(&self) -> Result<Option<Gate<'_>>, StorageError> {
        match self.reader {
            true => self.pass(Hold::Shared).map(Some),
            false => Ok(None),
        }
    }

    /// Waits until no reader is inside, and keeps all out.
    pub(crate) fn close(&self) -> Result<Gate<'_>, StorageError> {
        self.pass(Hold::Exclusive)
    }

    fn pass(&self, hold: Hold) -> Result<Gate<'_>, StorageError> {
        let entering = self.entering.lock().expect("no holder panics");
        self.wait(LockRange::Turn, hold)?;
        let inside = self.wait(LockRange::Gate, hold);
        let storage = self.arena.storage();
        storage.lock(LockRange::Turn, Hold::Nothing)?;
        inside?;
        Ok(Gate { pins: self, _entering: entering })
    }

    fn wait(&self, range: LockRange, hold: Hold) -> Result<(), StorageError> {
        let storage = self.arena.storage();
        let start = storage.clock();
        let mut pause = Duration::from_micros(20);
        while !storage.lock(range, hold)? {
            if storage.clock() - start > PATIENCE {
                let why = "another process has kept the gate of the store for half a minute";
                let source = std::io::Error::new(std::io::ErrorKind::TimedOut, why);
                return Err(StorageError { operation: "lock", source });
            }
            storage.pause(pause);
            pause = (pause * 2).min(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Pins a version. The caller is inside the gate, or is the writer.
    pub(crate) fn pin(self: &Arc<Self>, version: u64) -> Result<Pin, StorageError> {
        let mut counts = self.counts.lock().expect("no holder panics");
        let count = counts.entry(version).or_insert(0);
        if *count == 0 && self.reader && version > 0 {
            let range = LockRange::Versions { first: version, last: version };
            // Nobody holds these exclusively, so there is nothing to wait for.
            self.arena.storage().lock(range, Hold::Shared)?;
        }
        *count += 1;
        Ok(Pin { pins: self.clone(), version })
    }

    /// Which of `versions` (ascending) are pinned, here or in another process. The gate is closed.
    pub(crate) fn pinned(&self, versions: &[u64]) -> Result<Vec<u64>, StorageError> {
        let mut found = Vec::new();
        SeededBug::OwnPinsOnly.skips(|| self.find_pinned(versions, &mut found))?;
        let counts = self.counts.lock().expect("no holder panics");
        found.extend(versions.iter().filter(|v| counts.get(v).is_some_and(|&count| count > 0)));
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Halves a range as long as somebody holds a part of it: pins are few.
    fn find_pinned(&self, versions: &[u64], found: &mut Vec<u64>) -> Result<(), StorageError> {
        let [first, .., last] = *versions else {
            if let [version] = *versions
                && self.is_held(version, version)?
            {
                found.push(version);
            }
            return Ok(());
        };
        if self.is_held(first, last)? {
            let (low, high) = versions.split_at(versions.len() / 2);
            self.find_pinned(low, found)?;
            self.find_pinned(high, found)?;
        }
        Ok(())
    }

    fn is_held(&self, first: u64, last: u64) -> Result<bool, StorageError> {
        self.arena.storage().is_held_elsewhere(LockRange::Versions { first, last })
    }
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        // Cannot fail for a range that is held; if it does, closing the file releases it.
        let storage = self.pins.arena.storage();
        let _ = storage.lock(LockRange::Gate, Hold::Nothing);
        if SeededBug::UnlockWriterAtGate.is_planted() {
            let _ = storage.lock(LockRange::Writer, Hold::Nothing);
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut counts = self.pins.counts.lock().expect("no holder panics");
        let count = counts.get_mut(&self.version).expect("counted when it was pinned");
        *count -= 1;
        let last = *count == 0;
        if last {
            counts.remove(&self.version);
        }
        if last || SeededBug::UnpinAtFirstDrop.is_planted() {
            if self.pins.reader && self.version > 0 {
                let range = LockRange::Versions { first: self.version, last: self.version };
                // A pin too many only keeps space; closing the file releases it.
                let _ = self.pins.arena.storage().lock(range, Hold::Nothing);
            }
        }
    }
}
