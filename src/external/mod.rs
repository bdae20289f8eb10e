//! Work on more points than fit into memory: building a tree from them, and inserting them into
//! one.
//!
//! ```text
//! source -> read (checked, with ids, in a temporary file)
//!     -> ordinary insert, if they fit
//!     -> build: sample, top tree, spilled by node of it; node by node, in packed order
//!     -> merge: located, sorted by target node; stretch by stretch, as ordinary batches
//! ```
//!
//! [`Budget`] says what fits. What is built in this way keeps every invariant of [`crate::tree`],
//! and each point lies where [`crate::insert::locate`] finds it, as in a tree that was split in
//! memory; only the choice of the topmost centers differs.

mod account;
mod build;
mod merge;
mod read;
mod spill;
#[cfg(test)]
mod tests;
mod top;

use std::path::Path;

use crate::external::spill::{ChainId, Chains, Sorter};
use crate::format::arrays::{ArrayRoot, DATA_ARRAYS};
use crate::insert::batch::{Batch, NextId};
use crate::insert::report::Work;
use crate::insert::{self, Context, Failed};
use crate::tree::columns::Tree;
use crate::tree::id_index;
use crate::values::budget::Budget;
use crate::values::error::{CommitError, DeleteError, InsertError};
use crate::values::source::PointSource;
use crate::version::database::Database;
use crate::version::early::Early;
use build::Builder;
use top::Top;

/// Entries of the id index from one report of progress to the next.
const REPORTED_ENTRIES: u64 = 1 << 16;

/// Points that have been read and checked.
pub(crate) struct Spooled {
    pub(crate) chains: Chains,
    pub(crate) chain: ChainId,
    pub(crate) points: u64,
}

/// What work is done with.
pub(crate) struct Resources<'a> {
    pub(crate) db: &'a Database,
    pub(crate) context: &'a Context<'a>,
    /// The limit in bytes, and the threads that share it.
    pub(crate) limit: u64,
    pub(crate) threads: usize,
    /// Where temporary files go.
    pub(crate) folder: &'a Path,
}

impl Resources<'_> {
    /// The shares of the limit for work that ends with so many points.
    pub(crate) fn budget(&self, dim: usize, points: u64) -> Result<Budget, InsertError> {
        match self.context.options.shares {
            Some(shares) => Ok(shares),
            None => Budget::new(self.limit, dim, self.threads, points),
        }
    }

    /// A tree without points.
    fn empty(&self) -> Result<Tree, InsertError> {
        Ok(Tree::open(self.db, &[ArrayRoot::default(); DATA_ARRAYS])?)
    }

    /// Writes the complete ones of a tree's changed segments.
    fn flush(&self, early: &mut Option<Early>, tree: &mut Tree) -> Result<(), InsertError> {
        Ok(flush(self.db, early, tree)?)
    }
}

fn flush(db: &Database, early: &mut Option<Early>, tree: &mut Tree) -> Result<(), CommitError> {
    if early.is_none() {
        *early = Some(Early::new(db)?);
    }
    early.as_mut().expect("made above").flush(&mut tree.early_columns())
}

/// Writes changed segments if they take up much of a limit.
pub(crate) fn relieve(
    db: &Database,
    limit: u64,
    early: &mut Option<Early>,
    tree: &mut Tree,
) -> Result<(), DeleteError> {
    if tree.changed_bytes() > limit / 10 {
        flush(db, early, tree)?;
    }
    Ok(())
}

/// What an insertion did.
pub(crate) struct Inserted {
    pub(crate) points: u64,
    /// The tree has been built anew.
    pub(crate) rebuilt: bool,
}

/// Inserts points into a tree.
pub(crate) fn insert(
    tree: &mut Tree,
    means: &Resources<'_>,
    early: &mut Option<Early>,
    source: &mut dyn PointSource,
    next: &mut NextId,
    work: &mut Work,
) -> Result<Inserted, Failed> {
    let spooled = read::read(tree, means, source, next).map_err(Failed::Refused)?;
    let points = spooled.points;
    let rebuilt = place(tree, means, early, spooled, work).map_err(Failed::Halfway)?;
    Ok(Inserted { points, rebuilt })
}

fn place(
    tree: &mut Tree,
    means: &Resources<'_>,
    early: &mut Option<Early>,
    mut spooled: Spooled,
    work: &mut Work,
) -> Result<bool, InsertError> {
    let points = spooled.points;
    let live = tree.live()?;
    let budget = means.budget(tree.dim, tree.slots() as u64 + points)?;
    let is_empty = tree.slots() == 0;
    if points <= budget.scattered_rows as u64 || (is_empty && points <= budget.cluster_rows as u64)
    {
        insert_at_once(tree, means, spooled, work)?;
        return Ok(false);
    }
    if points < live {
        merge::merge(tree, means, early, budget, spooled, work)?;
        return Ok(false);
    }
    // As when a subtree has grown to twice its size: it is built anew.
    read::append_live(tree, means, &mut spooled)?;
    *tree = build(tree, means, early, spooled, work)?;
    Ok(true)
}

/// Builds anew, from the live points alone.
pub(crate) fn compact(
    tree: &Tree,
    means: &Resources<'_>,
    early: &mut Option<Early>,
    work: &mut Work,
) -> Result<Tree, InsertError> {
    let spooled = read::live(tree, means)?;
    build(tree, means, early, spooled, work)
}

/// Builds a tree that takes the place of `old`.
fn build(
    old: &Tree,
    means: &Resources<'_>,
    early: &mut Option<Early>,
    spooled: Spooled,
    work: &mut Work,
) -> Result<Tree, InsertError> {
    let Spooled { chains, chain, points } = spooled;
    if let Some(early) = early {
        early.forget(&old.columns());
    }
    let mut tree = means.empty()?;
    let budget = means.budget(tree.dim, points)?;
    if points <= budget.cluster_rows as u64 {
        insert_at_once(&mut tree, means, Spooled { chains, chain, points }, work)?;
        return Ok(tree);
    }
    let limit = u32::MAX as u64 - 1;
    if points > limit {
        return Err(InsertError::SlotsExhausted { needed: points, limit });
    }
    let top = Top::new(tree.kernel, tree.slack, tree.dim, chains);
    let entries = Builder::new(&mut tree, means, early, budget, top, points, work).build(chain)?;
    index(&mut tree, means, early, entries)?;
    Ok(tree)
}

/// Writes the id index of a tree that has none.
fn index(
    tree: &mut Tree,
    means: &Resources<'_>,
    early: &mut Option<Early>,
    entries: Sorter,
) -> Result<(), InsertError> {
    let count = entries.count();
    let mut sorted = entries.finish()?;
    let mut done = 0;
    let entries = std::iter::from_fn(|| {
        if done % REPORTED_ENTRIES == 0 {
            means.context.options.report("index", done, count);
        }
        done += 1;
        let next = sorted.next().map(|record| record.map(|(key, _)| key.as_wide_first()));
        next.map_err(InsertError::from).transpose()
    });
    // Segments are small: some hundred at a time.
    let mut pauses = 0;
    id_index::insert_sorted(tree, count, entries, |tree| {
        pauses += 1;
        if pauses % 256 == 0 { means.flush(early, tree) } else { Ok(()) }
    })
}

/// The ordinary pipeline, for points that fit.
fn insert_at_once(
    tree: &mut Tree,
    means: &Resources<'_>,
    spooled: Spooled,
    work: &mut Work,
) -> Result<(), InsertError> {
    let Spooled { mut chains, chain, points } = spooled;
    let (mut ids, mut rows) = (Vec::new(), Vec::new());
    ids.reserve_exact(points as usize);
    rows.reserve_exact(points as usize * tree.dim);
    let mut taken = chains.take(chain);
    while chains.next(&mut taken, usize::MAX, &mut ids, &mut rows)? > 0 {}
    drop((taken, chains));
    insert::insert(tree, means.context, &Batch { points: &rows, ids }, work)
}
