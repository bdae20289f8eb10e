//! The k nearest neighbours of one query: by a walk through the tree, or by a scan of every row.

use super::auto::Trials;
use super::k_best::KBest;
use super::walk;
use crate::tree::columns::{Range, Tree};
use crate::values::error::ReadError;

/// What queries leave behind for the next ones: buffers, and counts of what they took.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) best: KBest,
    pub(crate) walk: walk::Scratch,
    pub(super) trials: Trials,
}

impl Scratch {
    /// Canonical distances computed since the scratch was made; boxes count as one each.
    pub(crate) fn evaluations(&self) -> u64 {
        self.walk.visits.evaluations
    }

    /// Nodes visited since the scratch was made.
    pub(crate) fn visits(&self) -> u64 {
        self.walk.visits.visits
    }
}

/// Finds the first min(k, live) points in the order (distance, id); they are left in
/// `scratch.best`.
pub(crate) fn knn(
    tree: &Tree,
    query: &[f32],
    k: usize,
    scratch: &mut Scratch,
) -> Result<(), ReadError> {
    knn_within_budget(tree, query, k, u64::MAX, scratch)?;
    Ok(())
}

/// The same, unless it takes more than `most` evaluations: false then, and what has been found is
/// of no use.
pub(crate) fn knn_within_budget(
    tree: &Tree,
    query: &[f32],
    k: usize,
    most: u64,
    scratch: &mut Scratch,
) -> Result<bool, ReadError> {
    let live = tree.live()?;
    scratch.best.reset(tree, k, live);
    match k == 0 || live == 0 {
        true => Ok(true),
        false => walk::nearest_first(tree, query, most, &mut scratch.best, &mut scratch.walk),
    }
}

/// What [`knn`] finds, by a scan of every slot.
pub(crate) fn scan_all(
    tree: &Tree,
    query: &[f32],
    k: usize,
    scratch: &mut Scratch,
) -> Result<(), ReadError> {
    scratch.best.reset(tree, k, tree.live()?);
    let every = Range { start: 0, count: tree.slots() };
    walk::scan(tree, query, every, &mut scratch.best, &mut scratch.walk)
}
