//! Who has which version open, and the gate at which readers and the writer meet.
//!
//! A reader pins a version by a shared lock on the version's byte, which the kernel drops with the
//! process. A writer that is about to let versions go *condemns* them: exclusive locks on their
//! bytes, which it only gets where nobody has a pin, and which keep new pins away until the
//! versions are gone, or stay after all. Holds of one file description do not see each other, so
//! pins are counted here as well; the writer's own pins are only counted.
//!
//! A writer that ends before its snapshots do gives its pins to the kernel first
//! ([`Pins::hand_over`]), and counts as a reader from then on. In a forked child nothing is pinned
//! or released: the locks are the parent's.
//!
//! Invariants: a version that is pinned does not expire, because it cannot be condemned; one that
//! is condemned is not pinned. A reader that pins inside the gate knows that what it read there is
//! still so. The writer closes the gate only while a commit becomes visible; whatever else it does,
//! readers come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::arena::Arena;
use crate::arena::lock::{Hold, LockRange};
use crate::arena::storage::Storage;
use crate::arena::sync::atomic::{AtomicBool, Ordering};
use crate::arena::sync::{Mutex, MutexGuard};
use crate::values::error::StorageError;
use crate::values::options::CancelToken;
use crate::values::seeded_bug::SeededBug;

/// Longest wait of a writer at the gate, if no other is asked for. Readers stay inside for
/// milliseconds; one that was stopped there must not stop the writer without a word.
const WRITER_PATIENCE: Duration = Duration::from_secs(30);

/// How long somebody waits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patience {
    /// `None`: readers as long as a writer lives, writers for [`WRITER_PATIENCE`].
    pub(crate) limit: Option<Duration>,
    /// Ends the wait.
    pub(crate) cancel: CancelToken,
}

/// The pins of one open store.
pub(crate) struct Pins {
    arena: Arc<Arena>,
    /// Other processes must see the pins, because one of them may be the writer.
    reader: AtomicBool,
    patience: Patience,
    state: Mutex<State>,
    /// One thread of this handle at a time is at the gate.
    entering: Mutex<()>,
}

#[derive(Default)]
struct State {
    counts: BTreeMap<u64, u64>,
    condemned: BTreeSet<u64>,
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

/// Versions that nobody has open, nor can open while this exists.
#[must_use]
pub(crate) struct Condemned {
    pins: Arc<Pins>,
    /// Maximal ranges, first and last.
    ranges: Vec<(u64, u64)>,
    /// Ascending.
    pub(crate) versions: Vec<u64>,
    /// Versions that somebody has open, ascending.
    pub(crate) pinned: Vec<u64>,
}

/// A wait with pauses that grow.
struct Wait<'a> {
    storage: &'a dyn Storage,
    start: Duration,
    pause: Duration,
    limit: Option<Duration>,
    cancel: &'a CancelToken,
}

impl Wait<'_> {
    /// Pauses, or fails when the time is up.
    fn go_on(&mut self) -> Result<(), StorageError> {
        let failed = |kind, why: &str| {
            let source = std::io::Error::new(kind, why);
            Err(StorageError { operation: "wait for another process with", source })
        };
        if self.cancel.is_cancelled() {
            return failed(std::io::ErrorKind::Interrupted, "interrupted while waiting");
        }
        if self.limit.is_some_and(|limit| self.storage.clock() - self.start > limit) {
            let why = "another process has kept the gate of the store for longer than the limit";
            return failed(std::io::ErrorKind::TimedOut, why);
        }
        self.storage.pause(self.pause);
        self.pause = (self.pause * 2).min(Duration::from_millis(2));
        Ok(())
    }
}

impl Pins {
    pub(crate) fn new(arena: Arc<Arena>, reader: bool, patience: Patience) -> Arc<Self> {
        let (state, entering) = Default::default();
        Arc::new(Pins { arena, reader: AtomicBool::new(reader), patience, state, entering })
    }

    /// True if other processes see the pins, and one of them may be the writer.
    pub(crate) fn is_reader(&self) -> bool {
        self.reader.load(Ordering::Acquire)
    }

    /// Makes the pins of a writer, which are only counted, such as others see. If that succeeds, it
    /// may give its lock to another.
    pub(crate) fn hand_over(&self) -> Result<bool, StorageError> {
        let state = self.state();
        for &version in state.counts.keys().filter(|&&version| version > 0) {
            let range = LockRange::Versions { first: version, last: version };
            if !self.arena.storage().lock(range, Hold::Shared)? {
                return Ok(false);
            }
        }
        self.reader.store(true, Ordering::Release);
        Ok(true)
    }

    /// Goes through the gate as a reader; `None` for the writer, whom nobody disturbs.
    pub(crate) fn enter(&self) -> Result<Option<Gate<'_>>, StorageError> {
        match self.is_reader() {
            true => self.pass(Hold::Shared, self.patience.limit).map(Some),
            false => Ok(None),
        }
    }

    /// Waits until no reader is inside, and keeps all out.
    pub(crate) fn close(&self) -> Result<Gate<'_>, StorageError> {
        let limit = self.patience.limit.unwrap_or(WRITER_PATIENCE);
        self.pass(Hold::Exclusive, Some(limit))
    }

    fn pass(&self, hold: Hold, limit: Option<Duration>) -> Result<Gate<'_>, StorageError> {
        let entering = self.entering.lock().expect("no holder panics");
        let mut wait = self.wait(limit);
        self.acquire(LockRange::Turn, hold, &mut wait)?;
        let inside = self.acquire(LockRange::Gate, hold, &mut wait);
        let storage = self.arena.storage();
        storage.lock(LockRange::Turn, Hold::Nothing)?;
        inside?;
        Ok(Gate { pins: self, _entering: entering })
    }

    fn wait(&self, limit: Option<Duration>) -> Wait<'_> {
        let storage = self.arena.storage();
        let (start, pause) = (storage.clock(), Duration::from_micros(20));
        Wait { storage, start, pause, limit, cancel: &self.patience.cancel }
    }

    fn acquire(
        &self,
        range: LockRange,
        hold: Hold,
        wait: &mut Wait<'_>,
    ) -> Result<(), StorageError> {
        while !self.arena.storage().lock(range, hold)? {
            wait.go_on()?;
        }
        Ok(())
    }

    /// Asks again and again, until there is an answer, what only a writer at work can keep back.
    pub(crate) fn retry<T, E: From<StorageError>>(
        &self,
        mut ask: impl FnMut() -> Result<Option<T>, E>,
    ) -> Result<T, E> {
        let mut wait = self.wait(self.patience.limit);
        loop {
            match ask()? {
                Some(answer) => return Ok(answer),
                None => wait.go_on()?,
            }
        }
    }

    /// Pins a version; `None` if it is condemned. The caller is inside the gate, or is the writer.
    pub(crate) fn pin(self: &Arc<Self>, version: u64) -> Result<Option<Pin>, StorageError> {
        let mut state = self.state();
        if state.condemned.contains(&version) {
            return Ok(None);
        }
        if !state.counts.contains_key(&version) && self.is_reader() && version > 0 {
            let range = LockRange::Versions { first: version, last: version };
            if !self.arena.storage().lock(range, Hold::Shared)? {
                return Ok(None);
            }
        }
        *state.counts.entry(version).or_insert(0) += 1;
        Ok(Some(Pin { pins: self.clone(), version }))
    }

    /// Condemns those of `versions` (ascending) that nobody has open, here or in another process.
    pub(crate) fn condemn(self: &Arc<Self>, versions: &[u64]) -> Result<Condemned, StorageError> {
        let mut state = self.state();
        let (own, rest): (Vec<u64>, Vec<u64>) =
            versions.iter().partition(|version| state.counts.contains_key(version));
        let (pins, ranges, versions) = (self.clone(), Vec::new(), Vec::new());
        let mut condemned = Condemned { pins, ranges, versions, pinned: own };
        for run in rest.chunk_by(|a, b| a + 1 == *b) {
            // Dropping what there is so far locks the state again.
            if let Err(e) = condemned.lock(run) {
                drop(state);
                return Err(e);
            }
        }
        condemned.pinned.sort_unstable();
        state.condemned.extend(&condemned.versions);
        Ok(condemned)
    }

    /// What [`Pins::condemn`] would find now. Keeps nobody from anything, and asks for no right but
    /// to read.
    pub(crate) fn look(self: &Arc<Self>, versions: &[u64]) -> Result<Condemned, StorageError> {
        let state = self.state();
        let (mut free, mut pinned) = (Vec::new(), Vec::new());
        for &version in versions {
            let range = LockRange::Versions { first: version, last: version };
            let is_open = state.counts.contains_key(&version)
                || self.arena.storage().is_locked_elsewhere(range)?;
            if is_open { pinned.push(version) } else { free.push(version) }
        }
        let (pins, ranges) = (self.clone(), Vec::new());
        Ok(Condemned { pins, ranges, versions: free, pinned })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl Condemned {
    /// Locks a run of consecutive versions, halving it as long as somebody holds a part: pins are
    /// few.
    fn lock(&mut self, run: &[u64]) -> Result<(), StorageError> {
        let (Some(&first), Some(&last)) = (run.first(), run.last()) else { return Ok(()) };
        let storage = self.pins.arena.storage();
        let range = LockRange::Versions { first, last };
        if SeededBug::OwnPinsOnly.is_planted() || storage.lock(range, Hold::Exclusive)? {
            if SeededBug::LookForPinsOnly.is_planted() {
                storage.lock(range, Hold::Nothing)?;
            }
            self.ranges.push((first, last));
            self.versions.extend(run);
        } else if first == last {
            self.pinned.push(first);
        } else {
            let (low, high) = run.split_at(run.len() / 2);
            self.lock(low)?;
            self.lock(high)?;
        }
        Ok(())
    }
}

impl Drop for Condemned {
    fn drop(&mut self) {
        if self.pins.arena.owner().is_elsewhere() {
            return;
        }
        let mut state = self.pins.state();
        self.versions.iter().for_each(|version| {
            state.condemned.remove(version);
        });
        for &(first, last) in &self.ranges {
            // Cannot fail for a range that is held; if it does, closing the file releases it.
            let range = LockRange::Versions { first, last };
            let _ = self.pins.arena.storage().lock(range, Hold::Nothing);
        }
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
        if self.pins.arena.owner().is_elsewhere() {
            return;
        }
        let mut state = self.pins.state();
        let counts = &mut state.counts;
        let count = counts.get_mut(&self.version).expect("counted when it was pinned");
        *count -= 1;
        let last = *count == 0;
        if last {
            counts.remove(&self.version);
        }
        let unpin = last || SeededBug::UnpinAtFirstDrop.is_planted();
        if unpin && self.pins.is_reader() && self.version > 0 {
            let range = LockRange::Versions { first: self.version, last: self.version };
            // A pin too many only keeps space; closing the file releases it.
            let _ = self.pins.arena.storage().lock(range, Hold::Nothing);
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::path::Path;
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::arena::mapping::Bytes;
    use crate::arena::storage::FileStorage;
    use crate::{CreateOptions, OpenOptions, Retention, Store, VersionId};

    type Hook = Box<dyn Fn(&str) + Send + Sync>;

    /// A file that tells what it is asked to do, before it does it.
    struct Told(FileStorage, Arc<Mutex<Option<Hook>>>);

    impl Told {
        fn tell(&self, what: &str) {
            if let Some(hook) = &*self.1.lock().unwrap() {
                hook(what);
            }
        }
    }

    impl Storage for Told {
        fn len(&self) -> Result<u64, StorageError> {
            self.0.len()
        }
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), StorageError> {
            self.0.read_at(buffer, offset)
        }
        fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StorageError> {
            self.tell("write");
            self.0.write_at(bytes, offset)
        }
        fn allocate(&self, offset: u64, len: u64) -> Result<(), StorageError> {
            self.0.allocate(offset, len)
        }
        fn set_len(&self, len: u64) -> Result<(), StorageError> {
            self.0.set_len(len)
        }
        fn sync(&self) -> Result<(), StorageError> {
            self.tell("sync");
            self.0.sync()
        }
        fn map(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
            self.0.map(offset, len)
        }
        fn punch(&self, offset: u64, len: u64) -> Result<(), StorageError> {
            self.tell("punch");
            self.0.punch(offset, len)
        }
        fn lock(&self, range: LockRange, hold: Hold) -> Result<bool, StorageError> {
            self.0.lock(range, hold)
        }
    }

    /// A writer's store with a hook, and how to set it.
    fn told(path: &Path) -> (Store, Arc<Mutex<Option<Hook>>>) {
        let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let hook: Arc<Mutex<Option<Hook>>> = Arc::default();
        let storage = Told(FileStorage::new(file, path, false, false).unwrap(), hook.clone());
        let folder = path.parent().unwrap();
        let options = OpenOptions::new().threads(1);
        (Store::from_storage(Box::new(storage), options, folder).unwrap(), hook)
    }

    /// With a saved rule, and in an expiry: while data is written, synced, and given back, readers
    /// come and go, and only the versions that go are closed to them. Between the slot and its sync
    /// they wait.
    #[test]
    fn nothing_slow_happens_behind_the_gate() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.tre");
        drop(Store::create(&path, CreateOptions::new(1)).unwrap());
        let (mut store, hook) = told(&path);
        store.set_retention(Retention::new().keep_last(3)).unwrap();
        for i in 0..6 {
            store.insert(&[i as f32]).unwrap();
        }
        let patient = OpenOptions::new().threads(1).read_only(true);
        let reader = Store::open_with(&path, patient.clone().patience(Duration::ZERO)).unwrap();
        let counts: Arc<[AtomicUsize; 3]> = Arc::default();
        let seen = counts.clone();
        *hook.lock().unwrap() = Some(Box::new(move |what| {
            // The newest version, and one that may be about to go.
            match reader.latest() {
                Ok(_) => seen[0].fetch_add(1, Ordering::Relaxed),
                // Only while a slot is written and synced.
                Err(e) if what != "punch" => {
                    assert!(e.to_string().contains("gate"), "{e}");
                    seen[1].fetch_add(1, Ordering::Relaxed)
                }
                Err(e) => panic!("{what}: {e}"),
            };
            seen[2].fetch_add(usize::from(reader.at(VersionId(4)).is_err()), Ordering::Relaxed);
        }));
        store.insert(&[9.0]).unwrap();
        let read = |i: usize| counts[i].swap(0, Ordering::Relaxed);
        let (open, closed) = (read(0), read(1));
        // Slot, slot, sync; then the hint.
        assert_eq!(closed, 4, "times that the gate was closed");
        assert!(open >= 3, "{open} times that it was open");
        assert!(read(2) > closed, "the version that goes is closed from the beginning");
        store.expire(Retention::new().keep_last(1)).unwrap();
        assert_eq!(read(1), 8, "two commits, and nothing else");
        assert!(read(0) > 8);
        *hook.lock().unwrap() = None;
    }

    /// Telling what would expire takes as long as finding it, so it happens outside the gate: a
    /// writer never waits for it.
    #[test]
    fn a_preview_stands_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.tre");
        let mut store = Store::create(&path, CreateOptions::new(1)).unwrap();
        for i in 0..5 {
            store.insert(&[i as f32]).unwrap();
        }
        let impatient = OpenOptions::new().read_only(true).patience(Duration::ZERO);
        let reader = Store::open_with(&path, impatient).unwrap();
        let held = reader.at(VersionId(2)).unwrap();
        let other = Store::open_with(&path, OpenOptions::new().read_only(true)).unwrap();
        let also_held = other.at(VersionId(3)).unwrap();
        let gate = store.core.db.pins.close().unwrap();
        assert!(reader.latest().is_err(), "the gate is closed");
        let told = reader.expire_preview(Retention::new().keep_last(1)).unwrap();
        drop(gate);
        assert_eq!(
            (told.expired, told.pinned),
            ([1, 4].map(VersionId).to_vec(), [2, 3].map(VersionId).to_vec())
        );
        drop((held, also_held));
    }

    /// A reader that wants a version that is about to go waits until it knows.
    #[test]
    fn a_condemned_version_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.tre");
        let mut store = Store::create(&path, CreateOptions::new(1)).unwrap();
        for i in 0..3 {
            store.insert(&[i as f32]).unwrap();
        }
        let reader = Store::open_with(&path, OpenOptions::new().read_only(true)).unwrap();
        let pins = store.core.db.pins.clone();
        let held = reader.at(VersionId(2)).unwrap();
        let condemned = pins.condemn(&[1, 2]).unwrap();
        assert_eq!((&condemned.versions[..], &condemned.pinned[..]), (&[1][..], &[2][..]));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| reader.at(VersionId(1)).map(drop));
            std::thread::sleep(Duration::from_millis(30));
            assert!(!waiting.is_finished());
            drop(condemned);
            waiting.join().unwrap().unwrap();
        });
        drop(held);
        // What the writer's own handle has open is not condemned either.
        let own = store.at(VersionId(3)).unwrap();
        assert_eq!(pins.condemn(&[3]).unwrap().pinned, [3]);
        drop(own);
    }
}
