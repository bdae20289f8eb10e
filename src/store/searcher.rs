//! Queries on one snapshot, one at a time, with buffers that are reused.

use super::query::check_radius;
use super::snapshot::Snapshot;
use crate::query::{Neighbor, auto, ball, knn};
use crate::values::error::{QueryError, ReadError};

/// What a searcher needs beside its snapshot, which keeps it when the searcher is dropped.
#[derive(Default)]
pub(super) struct Buffers {
    pub(super) search: knn::Scratch,
    found: Vec<Neighbor>,
}

impl Snapshot {
    /// A searcher with scratch of its own, for many queries from one thread.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store, VersionId};
    /// # let mut store = Store::in_memory(CreateOptions::new(2), OpenOptions::new())?;
    /// store.insert(&[0.0, 0.0, 3.0, 4.0])?;
    /// let snapshot = store.latest()?;
    /// let mut searcher = snapshot.searcher();
    /// for query in [[0.0, 1.0], [3.0, 3.0]] {
    ///     println!("{:?}", searcher.knn(&query, 1)?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn searcher(&self) -> Searcher {
        let buffers = match self.inner.core.db.arena.owner().seems_elsewhere() {
            // It will answer nothing, and must not wait for a thread that is not here.
            true => Buffers::default(),
            false => self.inner.idle.lock().expect("no holder panics").pop().unwrap_or_default(),
        };
        let before = buffers.search.evaluations();
        Searcher { snapshot: self.clone(), buffers, before, asked: 0 }
    }
}

/// Queries on one snapshot with reused buffers: after the first few, a query allocates nothing.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let mut store = treering::Store::create(dir.path().join("s.tre"), treering::CreateOptions::new(1))?;
/// store.insert(&[1.0, 2.0, 4.0])?;
/// let mut searcher = store.latest()?.searcher();
/// for query in [[0.0], [5.0]] {
///     println!("{:?}", searcher.knn(&query, 2)?);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Searcher {
    snapshot: Snapshot,
    buffers: Buffers,
    /// Evaluations that the buffers had counted before.
    before: u64,
    /// Queries so far.
    asked: u32,
}

/// A searcher makes sure of the file's length once in so many queries.
const QUERIES_PER_CHECK: u32 = 32;

impl std::fmt::Debug for Searcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Searcher").field("snapshot", &self.snapshot).finish_non_exhaustive()
    }
}

impl Drop for Searcher {
    fn drop(&mut self) {
        let inner = &self.snapshot.inner;
        if inner.core.db.arena.owner().seems_elsewhere() {
            // The lock may be held by a thread that is not here.
            return;
        }
        let buffers = std::mem::take(&mut self.buffers);
        if let Ok(mut idle) = inner.idle.lock() {
            idle.push(buffers);
        }
    }
}

impl Searcher {
    /// As [`Snapshot::knn`], into a buffer of the searcher.
    ///
    /// # Errors
    ///
    /// As for [`Snapshot::knn`].
    pub fn knn(&mut self, query: &[f32], k: usize) -> Result<&[Neighbor], QueryError> {
        self.snapshot.check_one(query)?;
        self.check_whole()?;
        let Searcher { snapshot, buffers: Buffers { search: scratch, .. }, .. } = self;
        let tree = snapshot.tree();
        let answer = match auto::knn(tree, query, k, scratch) {
            Ok(()) => scratch.best.sorted(tree),
            Err(e) => Err(e),
        };
        Ok(snapshot.confirm(answer)?)
    }

    /// As [`Snapshot::within`], into a buffer of the searcher.
    ///
    /// # Errors
    ///
    /// As for [`Snapshot::within`].
    pub fn within(&mut self, query: &[f32], radius: f32) -> Result<&[Neighbor], QueryError> {
        self.snapshot.check_one(query)?;
        check_radius(radius)?;
        self.check_whole()?;
        let Buffers { search, found } = &mut self.buffers;
        let answer = ball::within(self.snapshot.tree(), query, radius, &mut search.walk, found);
        self.snapshot.confirm(answer)?;
        Ok(found)
    }

    /// As [`Snapshot::count_within`].
    ///
    /// # Errors
    ///
    /// As for [`Snapshot::within`].
    pub fn count_within(&mut self, query: &[f32], radius: f32) -> Result<u64, QueryError> {
        self.snapshot.check_one(query)?;
        check_radius(radius)?;
        self.check_whole()?;
        let scratch = &mut self.buffers.search.walk;
        let answer = ball::count_within(self.snapshot.tree(), query, radius, scratch);
        Ok(self.snapshot.confirm(answer)?)
    }

    fn check_whole(&mut self) -> Result<(), ReadError> {
        self.asked = self.asked.wrapping_add(1);
        match self.asked % QUERIES_PER_CHECK == 1 {
            true => self.snapshot.check_whole(),
            false => Ok(()),
        }
    }

    /// Canonical distances computed since the searcher was made.
    pub fn distance_evaluations(&self) -> u64 {
        self.buffers.search.evaluations() - self.before
    }
}
