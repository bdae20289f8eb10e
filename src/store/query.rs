//! One description of a question, however it is put: how many neighbours, how far, by which way.
//!
//! The short methods of [`Snapshot`] ask the same in fewer words. Whatever the way, the answers are
//! the same bits.

use rayon::prelude::*;

use super::neighbor_table::NeighborTable;
use super::snapshot::Snapshot;
use crate::query::{Neighbor, ball, batch, brute, walk};
use crate::values::error::{QueryError, ReadError};

/// Queries of a search by radius that one task answers in turn.
const QUERIES_PER_TASK: usize = 8;

/// How a query is answered. It decides what an answer costs, never what it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Method {
    /// Whichever is cheaper, by counts of what queries take.
    #[default]
    Auto,
    /// The tree, which leaves out what is too far.
    Tree,
    /// A scan of all rows, which costs the same for any data.
    Scan,
}

/// A question to a snapshot, about one or many queries. Made by [`Snapshot::query`], answered by
/// [`Query::run`] or [`Query::count`].
#[derive(Clone, Debug)]
#[must_use = "nothing is asked before `run` or `count`"]
pub struct Query<'a> {
    snapshot: &'a Snapshot,
    rows: &'a [f32],
    k: Option<usize>,
    within: Option<f32>,
    unsorted: bool,
    method: Method,
}

impl Snapshot {
    /// A question about `queries`: row-major `[m x dim]`. Unless it is narrowed, its answer is all
    /// live points for each of them.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, Method, OpenOptions, Store};
    /// # let mut store = Store::in_memory(CreateOptions::new(1), OpenOptions::new())?;
    /// store.insert(&[0.0, 1.0, 2.0, 9.0])?;
    /// let snapshot = store.latest()?;
    /// // At most three neighbours, and none that is farther than 1.5.
    /// let table = snapshot.query(&[0.0, 8.0]).k(3).within(1.5).run()?;
    /// assert_eq!((table.row(0).len(), table.row(1).len()), (2, 1));
    /// let scanned = snapshot.query(&[0.0, 8.0]).k(3).within(1.5).method(Method::Scan).run()?;
    /// assert!(table.iter().eq(scanned.iter()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn query<'a>(&'a self, queries: &'a [f32]) -> Query<'a> {
        let (k, within, unsorted, method) = Default::default();
        Query { snapshot: self, rows: queries, k, within, unsorted, method }
    }
}

/// The answers of a part of the queries, one after the other, how long each is, and distances
/// computed.
type Part = (Vec<Neighbor>, Vec<usize>, u64);

impl Query<'_> {
    /// At most the first `k` points in the order (distance, id).
    pub fn k(mut self, k: usize) -> Self {
        self.k = Some(k);
        self
    }

    /// Only points with distance at most `radius`, in the metric's own unit.
    pub fn within(mut self, radius: f32) -> Self {
        self.within = Some(radius);
        self
    }

    /// Neighbours may come in any order, where that saves sorting them: in a search by radius.
    /// Which they are stays the same.
    pub fn unsorted(mut self) -> Self {
        self.unsorted = true;
        self
    }

    /// The way in which the answer is found.
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// The neighbours of each query, on all threads of the store's pool.
    ///
    /// # Errors
    ///
    /// As for [`Snapshot::knn_batch`] and [`Snapshot::within`].
    pub fn run(&self) -> Result<NeighborTable, QueryError> {
        let count = self.snapshot.check(self.rows)?;
        self.within.map_or(Ok(()), check_radius)?;
        match self.k {
            Some(k) => {
                let table = self.nearest(count, k)?;
                Ok(match self.within {
                    Some(radius) => table.within(radius),
                    None => table,
                })
            }
            None => self.ball(count, self.within.unwrap_or(f32::INFINITY)),
        }
    }

    /// How many neighbours each query has. Lists none of them, unless a `k` or a scan is asked for.
    ///
    /// # Errors
    ///
    /// As for [`Query::run`].
    pub fn count(&self) -> Result<Vec<u64>, QueryError> {
        if self.k.is_some() || self.method == Method::Scan {
            return Ok(self.run()?.iter().map(|row| row.len() as u64).collect());
        }
        self.snapshot.check(self.rows)?;
        let radius = self.within.unwrap_or(f32::INFINITY);
        check_radius(radius)?;
        let tree = self.snapshot.tree();
        let count = |scratch: &mut walk::Scratch, query: &[f32]| {
            ball::count_within(tree, query, radius, scratch)
        };
        let answer = self.snapshot.install(|| {
            let rows = self.rows.par_chunks_exact(tree.dim).with_min_len(QUERIES_PER_TASK);
            rows.map_init(walk::Scratch::default, count).collect()
        });
        Ok(self.snapshot.confirm(answer)?)
    }

    /// The first `k` for each query.
    fn nearest(&self, count: usize, k: usize) -> Result<NeighborTable, QueryError> {
        let tree = self.snapshot.tree();
        let answer = self.snapshot.install(|| match self.method {
            Method::Auto => batch::knn_batch(tree, self.rows, k),
            Method::Tree => batch::knn_by_tree(tree, self.rows, k),
            Method::Scan => {
                let evaluations = count as u64 * u64::from(tree.slots());
                Ok((brute::knn_batch(tree, self.rows, k)?, evaluations))
            }
        });
        let (neighbors, evaluations) = self.snapshot.confirm(answer)?;
        let per_query = usize::try_from(self.snapshot.len()).unwrap_or(usize::MAX).min(k);
        if neighbors.len() != count * per_query {
            let what = "the tree holds fewer points than it counts";
            return Err(ReadError::row("counts", 0, what).into());
        }
        Ok(NeighborTable::of_equal_rows(count, per_query, neighbors, evaluations))
    }

    /// All within a radius of each query.
    fn ball(&self, count: usize, radius: f32) -> Result<NeighborTable, QueryError> {
        let tree = self.snapshot.tree();
        let part = |queries: &[f32]| -> Result<Part, ReadError> {
            let mut scratch = walk::Scratch::default();
            let (mut all, mut lengths, mut found) = (Vec::new(), Vec::new(), Vec::new());
            for query in queries.chunks_exact(tree.dim) {
                match self.method {
                    Method::Scan => found = brute::within(tree, query, radius)?,
                    _ if self.unsorted => {
                        ball::within_unsorted(tree, query, radius, &mut scratch, &mut found)?;
                    }
                    _ => ball::within(tree, query, radius, &mut scratch, &mut found)?,
                }
                lengths.push(found.len());
                match all.is_empty() {
                    true => std::mem::swap(&mut all, &mut found),
                    false => all.append(&mut found),
                }
            }
            let scanned = match self.method {
                Method::Scan => lengths.len() as u64 * u64::from(tree.slots()),
                _ => scratch.evaluations(),
            };
            Ok((all, lengths, scanned))
        };
        let answer: Result<Vec<Part>, ReadError> = self
            .snapshot
            .install(|| self.rows.par_chunks(QUERIES_PER_TASK * tree.dim).map(part).collect());
        let parts = self.snapshot.confirm(answer)?;
        let mut table = NeighborTable::with_room(count);
        for (neighbors, lengths, evaluations) in parts {
            table.extend(neighbors, &lengths, evaluations);
        }
        Ok(table)
    }
}

pub(super) fn check_radius(radius: f32) -> Result<(), QueryError> {
    match radius >= 0.0 {
        true => Ok(()),
        false => Err(QueryError::Radius(radius)),
    }
}
