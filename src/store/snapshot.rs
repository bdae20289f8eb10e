//! One version, pinned: everything that can be asked of it.

use std::sync::{Arc, Mutex};

use super::neighbor_table::NeighborTable;
use super::query::Method;
use super::searcher::Buffers;
use crate::format::version_row::VersionRow;
use crate::maintain::verify;
use crate::query::Neighbor;
use crate::space::check_points;
use crate::store::core::Core;
use crate::store::version_info::VersionInfo;
use crate::tree::columns::Tree;
use crate::tree::id_index;
use crate::values::error::{PointsError, QueryError, ReadError};
use crate::values::ids::{PointId, VersionId};
use crate::values::options::{Metric, Verify};
use crate::version::pins::Pin;

/// One version of a store, read-only. Cheap to clone, usable from any thread; it neither blocks the
/// writer nor sees anything that is committed later. The version does not expire as long as a
/// snapshot or [`crate::Searcher`] of it exists in any process; when the last is dropped, it may. A
/// snapshot may outlive its [`crate::Store`], and keeps no writer out.
///
/// A forked child cannot use the snapshots that it inherits, because its parent may let their
/// versions go: whatever they are asked fails with [`ReadError::OtherProcess`]. It opens the store
/// itself.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let mut store = treering::Store::create(dir.path().join("s.tre"), treering::CreateOptions::new(2))?;
/// store.insert(&[0.0, 0.0, 3.0, 4.0])?;
/// let snapshot = store.latest()?;
/// let nearest = snapshot.knn(&[0.0, 1.0], 1)?;
/// assert_eq!((nearest[0].id, nearest[0].distance), (0, 1.0));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Snapshot {
    pub(super) inner: Arc<Opened>,
    /// Keeps the version from expiring. Dropped after what is mapped, whose bytes may change from
    /// then on.
    _pin: Arc<Pin>,
}

/// A version that has been opened. By itself it does not keep the version from expiring.
pub(crate) struct Opened {
    pub(super) core: Arc<Core>,
    row: VersionRow,
    info: Option<VersionInfo>,
    tree: Tree,
    /// Searchers not in use, so that single queries reuse scratch.
    pub(super) idle: Mutex<Vec<Buffers>>,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("version", &self.version()).finish_non_exhaustive()
    }
}

impl Opened {
    /// Opens a version, which is pinned meanwhile.
    pub(crate) fn new(core: Arc<Core>, row: VersionRow) -> Result<Self, ReadError> {
        if core.options.verify == Verify::OnOpen {
            core.db.confirm(core.pool.install(|| verify::check_once(&core.db, &row)))?;
        }
        let tree = Tree::open(&core.db, &row.roots)?;
        if core.db.confirm_watched(&tree.watch, tree.live())? != row.points {
            return Err(ReadError::row(
                "counts",
                0,
                "the root counts other points than the version",
            ));
        }
        let info = (row.version > 0).then(|| VersionInfo::from_row(&row));
        let idle = Mutex::new(Vec::new());
        Ok(Opened { core, row, info, tree, idle })
    }

    /// The version's number.
    pub(crate) fn version(&self) -> u64 {
        self.row.version
    }
}

impl Snapshot {
    /// What was opened, pinned.
    pub(crate) fn of(inner: Arc<Opened>, pin: Pin) -> Self {
        Snapshot { inner, _pin: Arc::new(pin) }
    }

    pub(crate) fn tree(&self) -> &Tree {
        &self.inner.tree
    }

    pub(crate) fn row(&self) -> &VersionRow {
        &self.inner.row
    }

    /// The version's number.
    pub fn version(&self) -> VersionId {
        VersionId(self.inner.row.version)
    }

    /// The version's record; `None` for version 0, the empty store.
    pub fn info(&self) -> Option<&VersionInfo> {
        self.inner.info.as_ref()
    }

    /// Live points.
    pub fn len(&self) -> u64 {
        self.inner.row.points
    }

    /// True if there are no live points.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The dimension.
    pub fn dim(&self) -> usize {
        self.inner.tree.dim
    }

    /// The distance.
    pub fn metric(&self) -> Metric {
        Metric::Euclidean
    }

    pub(super) fn check(&self, queries: &[f32]) -> Result<usize, QueryError> {
        self.check_whole()?;
        Ok(check_points(queries, self.dim())?)
    }

    /// An error if the file has been cut meanwhile: touching what is gone would end the process. It
    /// still does if the file is cut while a query runs, unless faults are caught; then
    /// [`Snapshot::confirm`] tells.
    pub(super) fn check_whole(&self) -> Result<(), ReadError> {
        self.inner.core.db.check_whole()
    }

    /// An answer of the tree, unless what it rests on is gone.
    #[inline]
    pub(super) fn confirm<T>(&self, answer: Result<T, ReadError>) -> Result<T, ReadError> {
        self.inner.core.db.confirm_watched(&self.tree().watch, answer)
    }

    /// Runs `work` on the store's threads.
    pub(super) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.inner.core.pool.install(work)
    }

    pub(super) fn check_one(&self, query: &[f32]) -> Result<(), QueryError> {
        if query.len() != self.dim() {
            let (expected, found) = (self.dim(), query.len());
            return Err(PointsError::Dimension { expected, found }.into());
        }
        check_points(query, self.dim())?;
        Ok(())
    }

    /// The first min(`k`, live points) of all live points, in the order (distance, id).
    ///
    /// `query`: one row of `dim` values. Exact: equal, bit for bit, to sorting all canonical
    /// distances.
    ///
    /// # Errors
    ///
    /// A query of another dimension, not finite, or outside the domain; damage or I/O failure on
    /// the path read.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store, VersionId};
    /// # let mut store = Store::in_memory(CreateOptions::new(2), OpenOptions::new())?;
    /// store.insert(&[0.0, 0.0, 3.0, 4.0])?;
    /// let snapshot = store.latest()?;
    /// let found = snapshot.knn(&[0.0, 1.0], 5)?; // there are only two
    /// assert_eq!(found.iter().map(|n| n.id).collect::<Vec<_>>(), [0, 1]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn knn(&self, query: &[f32], k: usize) -> Result<Vec<Neighbor>, QueryError> {
        let mut searcher = self.searcher();
        searcher.knn(query, k).map(<[_]>::to_vec)
    }

    /// All live points with distance at most `radius` (the metric's own unit, inclusive), in the
    /// order (distance, id).
    ///
    /// # Errors
    ///
    /// As for [`Snapshot::knn`]; also a radius that is negative or NaN. Infinity finds everything.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store, VersionId};
    /// # let mut store = Store::in_memory(CreateOptions::new(2), OpenOptions::new())?;
    /// store.insert(&[0.0, 0.0, 3.0, 4.0])?;
    /// let snapshot = store.latest()?;
    /// assert_eq!(snapshot.within(&[0.0, 0.0], 5.0)?.len(), 2); // inclusive
    /// # Ok(())
    /// # }
    /// ```
    pub fn within(&self, query: &[f32], radius: f32) -> Result<Vec<Neighbor>, QueryError> {
        let mut searcher = self.searcher();
        searcher.within(query, radius).map(<[_]>::to_vec)
    }

    /// How many live points have distance at most `radius`. Does not visit subtrees that lie wholly
    /// inside.
    ///
    /// # Errors
    ///
    /// As for [`Snapshot::within`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store, VersionId};
    /// # let mut store = Store::in_memory(CreateOptions::new(2), OpenOptions::new())?;
    /// store.insert(&[0.0, 0.0, 3.0, 4.0])?;
    /// let snapshot = store.latest()?;
    /// assert_eq!(snapshot.count_within(&[0.0, 0.0], 4.9)?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn count_within(&self, query: &[f32], radius: f32) -> Result<u64, QueryError> {
        self.searcher().count_within(query, radius)
    }

    /// [`Snapshot::knn`] for many queries, on all threads of the store's pool.
    ///
    /// `queries`: row-major `[m x dim]`. The answer does not depend on the number of threads.
    ///
    /// # Errors
    ///
    /// As for [`Snapshot::knn`]; the first offending query is named.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store, VersionId};
    /// # let mut store = Store::in_memory(CreateOptions::new(2), OpenOptions::new())?;
    /// store.insert(&[0.0, 0.0, 3.0, 4.0])?;
    /// let snapshot = store.latest()?;
    /// let table = snapshot.knn_batch(&[0.0, 1.0, 3.0, 3.0], 1)?; // two queries
    /// assert_eq!((table.row(0)[0].id, table.row(1)[0].id), (0, 1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn knn_batch(&self, queries: &[f32], k: usize) -> Result<NeighborTable, QueryError> {
        self.query(queries).k(k).run()
    }

    /// [`Snapshot::knn`] by a scan of all rows, without the tree: the same bits, and the same cost
    /// for any data.
    ///
    /// # Errors
    ///
    /// As for [`Snapshot::knn`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store, VersionId};
    /// # let mut store = Store::in_memory(CreateOptions::new(2), OpenOptions::new())?;
    /// store.insert(&[0.0, 0.0, 3.0, 4.0])?;
    /// let snapshot = store.latest()?;
    /// assert_eq!(snapshot.brute_knn(&[0.0, 1.0], 2)?, snapshot.knn(&[0.0, 1.0], 2)?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn brute_knn(&self, query: &[f32], k: usize) -> Result<Vec<Neighbor>, QueryError> {
        self.check_one(query)?;
        Ok(self.query(query).k(k).method(Method::Scan).run()?.into_neighbors())
    }

    /// [`Snapshot::knn_batch`] by scans of all rows, several queries to a scan.
    ///
    /// # Errors
    ///
    /// As for [`Snapshot::knn_batch`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store, VersionId};
    /// # let mut store = Store::in_memory(CreateOptions::new(2), OpenOptions::new())?;
    /// store.insert(&[0.0, 0.0, 3.0, 4.0])?;
    /// let snapshot = store.latest()?;
    /// let queries = [0.0, 1.0, 3.0, 3.0];
    /// let (scan, tree) = (snapshot.brute_knn_batch(&queries, 2)?, snapshot.knn_batch(&queries, 2)?);
    /// assert!(scan.iter().eq(tree.iter()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn brute_knn_batch(&self, queries: &[f32], k: usize) -> Result<NeighborTable, QueryError> {
        self.query(queries).k(k).method(Method::Scan).run()
    }

    /// [`Snapshot::within`] by a scan of all rows, without the tree.
    ///
    /// # Errors
    ///
    /// As for [`Snapshot::within`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store, VersionId};
    /// # let mut store = Store::in_memory(CreateOptions::new(2), OpenOptions::new())?;
    /// store.insert(&[0.0, 0.0, 3.0, 4.0])?;
    /// let snapshot = store.latest()?;
    /// assert_eq!(snapshot.brute_within(&[0.0, 0.0], 5.0)?, snapshot.within(&[0.0, 0.0], 5.0)?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn brute_within(&self, query: &[f32], radius: f32) -> Result<Vec<Neighbor>, QueryError> {
        self.check_one(query)?;
        Ok(self.query(query).within(radius).method(Method::Scan).run()?.into_neighbors())
    }

    /// The coordinates of the live point with this id; `None` if there is none. O(log n).
    ///
    /// # Errors
    ///
    /// Damage or I/O failure on the path read.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store, VersionId};
    /// # let mut store = Store::in_memory(CreateOptions::new(2), OpenOptions::new())?;
    /// store.insert(&[0.0, 0.0, 3.0, 4.0])?;
    /// let snapshot = store.latest()?;
    /// assert_eq!(snapshot.get(1)?, Some(vec![3.0, 4.0]));
    /// assert_eq!(snapshot.get(9)?, None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn get(&self, id: PointId) -> Result<Option<Vec<f32>>, ReadError> {
        self.check_whole()?;
        let found = id_index::find_live(self.tree(), id).and_then(|slot| {
            let row = |slot| self.tree().coordinates.row(u64::from(slot)).map(<[f32]>::to_vec);
            slot.map(row).transpose()
        });
        self.confirm(found)
    }

    /// True if a live point has this id. O(log n).
    ///
    /// # Errors
    ///
    /// Damage or I/O failure on the path read.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store, VersionId};
    /// # let mut store = Store::in_memory(CreateOptions::new(2), OpenOptions::new())?;
    /// store.insert(&[0.0, 0.0, 3.0, 4.0])?;
    /// let snapshot = store.latest()?;
    /// assert!(snapshot.contains(1)? && !snapshot.contains(9)?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn contains(&self, id: PointId) -> Result<bool, ReadError> {
        self.check_whole()?;
        Ok(self.confirm(id_index::find_live(self.tree(), id))?.is_some())
    }

    /// Calls `f` with the id and the coordinates of every live point, by ascending id. Needs no
    /// memory for them.
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
    /// store.insert(&[0.0, 0.0, 3.0, 4.0])?;
    /// let snapshot = store.latest()?;
    /// snapshot.for_each(|id, point| println!("{id}: {point:?}"))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn for_each(&self, mut f: impl FnMut(PointId, &[f32])) -> Result<(), ReadError> {
        self.check_whole()?;
        // Each row is copied, and only then known to be there.
        let mut row = Vec::with_capacity(self.dim());
        let (tree, mut count) = (self.tree(), 0);
        let answer = id_index::for_each_live(tree, |id, slot| {
            row.clear();
            row.extend_from_slice(tree.coordinates.row(slot.into())?);
            tree.watch.check()?;
            count += 1;
            f(id, &row);
            Ok(())
        });
        let answer = answer.and_then(|()| match count == self.len() {
            true => Ok(()),
            false => Err(ReadError::row("index_runs", 0, "the index does not have every point")),
        });
        self.confirm(answer)
    }
}
