//! The façade: the store, its snapshots and its transactions. All of the public surface that does
//! something is here, and every floor below is seen from here alone. [`core`] is what its parts
//! share.

pub(crate) mod copies;
pub(crate) mod core;
pub(crate) mod history;
pub(crate) mod neighbor_table;
pub(crate) mod new_file;
pub(crate) mod open;
pub(crate) mod pool;
pub(crate) mod query;
pub(crate) mod recover;
pub(crate) mod scrub;
pub(crate) mod searcher;
pub(crate) mod snapshot;
pub(crate) mod transaction;
pub(crate) mod vacuum;
pub(crate) mod version_info;

use std::fmt;
use std::sync::{Arc, Mutex};

use crate::insert::report::Report;
use crate::maintain::stats::{self, Stats};
use crate::maintain::verify::{self, VerifyOptions, VerifyReport};
use crate::store::core::Core;
use crate::store::scrub::Background;
use crate::store::snapshot::{Opened, Snapshot};
use crate::store::transaction::Transaction;
use crate::store::version_info::VersionInfo;
use crate::values::error::{AtError, DeleteError, InsertError, ReadError};
use crate::values::ids::{PointId, VersionId};
use crate::values::options::Metric;

/// An exact nearest-neighbour index in a file that keeps every version of itself.
///
/// One `Store` at a time may have a file open for writing, in this process or another, until it is
/// dropped; any number may read. Snapshots may outlive their `Store`: each keeps its version from
/// expiring, and none keeps another writer out (unless a version was acknowledged under
/// [`crate::Durability::Deferred`] and could not be made durable when the store was dropped).
///
/// A store belongs to the process that opened it. In a forked child everything that is asked of an
/// inherited one, of its snapshots and of its transactions fails with [`ReadError::OtherProcess`]
/// or [`crate::CommitError::OtherProcess`], and dropping them does nothing to the file or to the
/// parent's locks. The child opens the store itself. The file must not be changed or truncated by
/// anything else while it is open: it is memory-mapped. Each call makes sure that the file is long
/// enough, so a file that was cut gives an error; cut while a query runs, it ends the process with
/// SIGBUS, unless [`crate::OpenOptions::catch_faults`] was asked for.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("points.tre");
/// use treering::{CreateOptions, Store, VersionId};
/// let mut store = Store::create(&path, CreateOptions::new(2))?;
/// store.insert(&[0.0, 0.0, 1.0, 0.0, 5.0, 5.0])?; // version 1: ids 0, 1, 2
/// store.delete(&[0])?; // version 2
/// assert_eq!(store.latest()?.knn(&[0.0, 0.0], 1)?[0].id, 1);
/// assert_eq!(store.at(VersionId(1))?.knn(&[0.0, 0.0], 1)?[0].id, 0);
/// # Ok(())
/// # }
/// ```
pub struct Store {
    /// Before the core, so that it has ended when that may be the last to have the file.
    pub(crate) _scrub: Option<Background>,
    pub(crate) core: Arc<Core>,
    /// What the newest version was opened as, kept so that asking again is cheap. It pins nothing.
    pub(crate) latest: Mutex<Option<Arc<Opened>>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("dim", &self.dim()).finish_non_exhaustive()
    }
}

impl Store {
    /// Inserts points under automatic ids and makes a version.
    ///
    /// `points`: row-major `[n x dim]`, finite. Ids go on from the largest ever used; the first
    /// is 0.
    ///
    /// # Errors
    ///
    /// The batch is refused whole if a row is not acceptable. See [`InsertError`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store, VersionId};
    /// # let mut store = Store::in_memory(CreateOptions::new(2), OpenOptions::new())?;
    /// let report = store.insert(&[0.0, 0.0, 3.0, 4.0])?; // two rows, ids 0 and 1
    /// assert_eq!((report.version, report.added), (VersionId(1), 2));
    /// # Ok(())
    /// # }
    /// ```
    pub fn insert(&mut self, points: &[f32]) -> Result<Report, InsertError> {
        self.insert_named(points, None)
    }

    /// Inserts points under given ids, one per row, and makes a version.
    ///
    /// # Errors
    ///
    /// As for [`Store::insert`]; also if an id appears twice or is live already.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store, VersionId};
    /// # let mut store = Store::in_memory(CreateOptions::new(2), OpenOptions::new())?;
    /// store.insert_with_ids(&[0.0, 0.0, 3.0, 4.0], &[70, 10])?;
    /// assert!(store.insert_with_ids(&[1.0, 1.0], &[70]).is_err()); // live already
    /// # Ok(())
    /// # }
    /// ```
    pub fn insert_with_ids(
        &mut self,
        points: &[f32],
        ids: &[PointId],
    ) -> Result<Report, InsertError> {
        self.insert_named(points, Some(ids))
    }

    fn insert_named(
        &mut self,
        points: &[f32],
        ids: Option<&[PointId]>,
    ) -> Result<Report, InsertError> {
        let mut transaction = self.begin();
        transaction.insert_named(points, ids)?;
        Ok(transaction.commit()?)
    }

    /// Deletes points and makes a version. Older versions keep them.
    ///
    /// # Errors
    ///
    /// Nothing is deleted if an id is not live or appears twice. See [`DeleteError`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store, VersionId};
    /// # let mut store = Store::in_memory(CreateOptions::new(2), OpenOptions::new())?;
    /// store.insert(&[0.0, 0.0, 3.0, 4.0])?;
    /// assert_eq!(store.delete(&[0])?.points, 1);
    /// assert!(store.delete(&[0]).is_err()); // gone already
    /// # Ok(())
    /// # }
    /// ```
    pub fn delete(&mut self, ids: &[PointId]) -> Result<Report, DeleteError> {
        let mut transaction = self.begin();
        transaction.delete(ids)?;
        Ok(transaction.commit()?)
    }

    /// Makes a version with the same points in a tree built anew; see [`Transaction::compact`].
    ///
    /// The file grows by about what a store built in one batch from the live points takes; what
    /// only older versions refer to stays until they expire. Readers are not disturbed. Memory: all
    /// live points, twice, unless there is a limit.
    ///
    /// # Errors
    ///
    /// Damage or I/O failure, or interrupted.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store};
    /// let mut store = Store::in_memory(CreateOptions::new(1), OpenOptions::new())?;
    /// for batch in 0..10 {
    ///     store.insert(&[batch as f32, 0.5])?;
    /// }
    /// let before = store.latest()?.knn(&[3.0], 5)?;
    /// store.compact()?;
    /// assert_eq!(store.latest()?.knn(&[3.0], 5)?, before);
    /// # Ok(())
    /// # }
    /// ```
    pub fn compact(&mut self) -> Result<Report, InsertError> {
        let mut transaction = self.begin();
        transaction.compact()?;
        Ok(transaction.commit()?)
    }

    /// Begins a transaction: several inserts and deletes that become one version.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store, VersionId};
    /// # let mut store = Store::in_memory(CreateOptions::new(2), OpenOptions::new())?;
    /// let mut transaction = store.begin();
    /// transaction.insert(&[0.0, 0.0])?.insert(&[1.0, 1.0])?;
    /// assert_eq!(transaction.commit()?.version, VersionId(1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn begin(&mut self) -> Transaction<'_> {
        Transaction::new(self)
    }

    /// The dimension.
    pub fn dim(&self) -> usize {
        self.core.db.header.dim as usize
    }

    /// The distance.
    pub fn metric(&self) -> Metric {
        Metric::Euclidean
    }

    /// The newest version. In a store without versions that is version 0, which is empty.
    ///
    /// # Errors
    ///
    /// Damage or I/O failure.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store, VersionId};
    /// # let mut store = Store::in_memory(CreateOptions::new(2), OpenOptions::new())?;
    /// assert_eq!(store.latest()?.version(), VersionId(0));
    /// store.insert(&[0.0, 0.0])?;
    /// assert_eq!(store.latest()?.version(), VersionId(1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn latest(&self) -> Result<Snapshot, AtError> {
        let (row, pin) = self.core.db.newest_version()?;
        let mut latest = self.latest.lock().expect("no holder panics");
        // A version that is retained now has been so all the time, whether somebody had it pinned
        // or not.
        if let Some(opened) = latest.as_ref().filter(|opened| opened.version() == row.version) {
            return Ok(Snapshot::of(opened.clone(), pin));
        }
        let opened = Arc::new(Opened::new(self.core.clone(), row)?);
        *latest = Some(opened.clone());
        Ok(Snapshot::of(opened, pin))
    }

    /// Any version, as it was. Version 0 is the empty store. Costs a few reads, and some bytes of
    /// memory per segment of the version; nothing else is read before it is asked for.
    ///
    /// # Errors
    ///
    /// [`AtError::NoSuchVersion`], [`AtError::Expired`]; damage or I/O failure.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store, VersionId};
    /// # let mut store = Store::in_memory(CreateOptions::new(2), OpenOptions::new())?;
    /// store.insert(&[0.0, 0.0])?;
    /// store.insert(&[1.0, 1.0])?;
    /// assert_eq!(store.at(VersionId(1))?.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn at(&self, version: VersionId) -> Result<Snapshot, AtError> {
        let (row, pin) = self.core.db.version(version)?;
        Ok(Snapshot::of(Arc::new(Opened::new(self.core.clone(), row)?), pin))
    }

    /// The records of all versions that can be opened, oldest first.
    ///
    /// # Errors
    ///
    /// Damage or I/O failure.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store, VersionId};
    /// # let mut store = Store::in_memory(CreateOptions::new(2), OpenOptions::new())?;
    /// store.insert(&[0.0, 0.0])?;
    /// store.delete(&[0])?;
    /// let kinds: Vec<String> = store.versions()?.iter().map(|v| v.kind.to_string()).collect();
    /// assert_eq!(kinds, ["insert", "delete"]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn versions(&self) -> Result<Vec<VersionInfo>, ReadError> {
        Ok(self.core.db.versions()?.iter().map(VersionInfo::from_row).collect())
    }

    /// Compares what the file holds with its checksums; with [`VerifyOptions::deep`] also checks
    /// every tree. Damage is reported, not returned as an error. Stops early if the store's
    /// [`crate::CancelToken`] is cancelled.
    ///
    /// # Errors
    ///
    /// No such version, or an I/O failure.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let mut store = treering::Store::create(dir.path().join("s.tre"), treering::CreateOptions::new(1))?;
    /// store.insert(&[1.0])?;
    /// assert!(store.verify(treering::VerifyOptions::all().deep(true))?.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    pub fn verify(&self, options: VerifyOptions) -> Result<VerifyReport, AtError> {
        let Core { db, pool, options: open, .. } = &*self.core;
        // The pool's threads are not in a child, which would wait for them.
        db.arena.check_process()?;
        db.confirm(pool.install(|| verify::verify(db, options, open)))
    }

    /// Figures of a version of this store, and of the file.
    ///
    /// # Errors
    ///
    /// Damage or I/O failure.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store, VersionId};
    /// # let mut store = Store::in_memory(CreateOptions::new(2), OpenOptions::new())?;
    /// store.insert(&[0.0, 0.0, 1.0, 1.0])?;
    /// store.delete(&[0])?;
    /// let stats = store.stats(&store.latest()?)?;
    /// assert_eq!((stats.points, stats.live), (2, 1)); // the deleted row is still held
    /// # Ok(())
    /// # }
    /// ```
    pub fn stats(&self, snapshot: &Snapshot) -> Result<Stats, ReadError> {
        let db = &self.core.db;
        db.arena.check_process()?;
        db.confirm(stats::stats(db, snapshot.row(), snapshot.tree()))
    }

    /// Bytes of the file that the newest commit needs.
    pub fn file_bytes(&self) -> u64 {
        self.core.db.arena.limit()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::format::arrays::Entry;
    use crate::values::options::{CreateOptions, OpenOptions};
    use crate::version::table::Visit;

    /// Every segment and table node of a version: (array, segment or none) to entry.
    fn entries(snapshot: &Snapshot) -> Vec<(usize, Option<u64>, Entry)> {
        let mut all = Vec::new();
        for (array, column) in snapshot.tree().columns().iter().enumerate() {
            let mut visit = |entry: &Entry, visit| {
                let segment = match visit {
                    Visit::Segment(segment) => Some(segment),
                    Visit::Node(..) => None,
                };
                all.push((array, segment, *entry));
                true
            };
            column.table().walk(&mut visit, &mut |e| panic!("{e}"));
        }
        all
    }

    #[test]
    fn a_batch_copies_what_it_touches_and_shares_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.tre");
        let mut state = 9u64;
        let mut points = |n: usize| -> Vec<f32> {
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 40) as f32 / (1 << 24) as f32
            };
            (0..3 * n).map(|_| next()).collect()
        };
        let options = CreateOptions::new(3)
            .block_bytes(256)
            .topology_segment_bytes(256)
            .coordinate_segment_bytes(1024);
        let mut store = Store::create(&path, options).unwrap();
        store.insert(&points(5000)).unwrap();
        for round in 0..12 {
            let before = entries(&store.latest().unwrap());
            let bytes = std::fs::read(&path).unwrap();
            let report = match round % 3 {
                2 => store.delete(&[round, 100 + round, 3000 + round]).unwrap(),
                _ => store.insert(&points(40)).unwrap(),
            };
            let after = entries(&store.latest().unwrap());
            let new_bytes = std::fs::read(&path).unwrap();
            // No byte that the version before refers to has changed.
            for (_, _, entry) in &before {
                let range = entry.address as usize..(entry.address + entry.bytes as u64) as usize;
                assert_eq!(bytes[range.clone()], new_bytes[range]);
            }
            // A segment is either shared or one of those counted as copied.
            let old: BTreeMap<(usize, u64), Entry> =
                before.iter().filter_map(|(a, s, e)| s.map(|s| ((*a, s), *e))).collect();
            let mut copied = 0;
            let mut shared = 0;
            for (array, segment, entry) in &after {
                if let Some(old) = segment.and_then(|segment| old.get(&(*array, segment))) {
                    match old == entry {
                        true => shared += 1,
                        false => copied += 1,
                    }
                }
            }
            assert_eq!(copied, report.counters.cow_segments);
            assert!(shared > 4 * copied, "{shared} shared, {copied} copied");
        }
    }

    #[test]
    fn a_second_batch_of_the_same_shape_grows_no_scratch() {
        for threads in [1, 2] {
            let open = OpenOptions::new().threads(threads);
            let mut store = Store::in_memory(CreateOptions::new(4), open).unwrap();
            let mut state = 3u32;
            let points: Vec<f32> = std::iter::repeat_with(|| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 24) as f32
            })
            .take(40_000)
            .collect();
            let first = store.insert(&points).unwrap();
            assert!(first.counters.pool_grow_bytes > 0 && first.counters.pool_reuse_hits > 0);
            // A transaction that is dropped leaves the tree as it was and the scratch warm.
            for _ in 0..2 {
                store.begin().insert(&points[..8000]).unwrap();
            }
            let again = store.insert(&points[..8000]).unwrap();
            assert_eq!(again.counters.pool_grow_bytes, 0);
        }
    }
}
