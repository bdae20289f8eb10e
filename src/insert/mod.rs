//! A batch of inserts or deletes as a pipeline of functions between named values.
//!
//! ```text
//! points -> batch (checked, with ids) -> locate (target node of each)
//!     -> plan (group; split = conflict graph, MIS, redistribute)
//!     -> apply (journal, appended rows)
//! ```
//!
//! After Gu, Napier, Sun & Wang, "Parallel Cover Trees and their Applications" (SPAA 2022), with
//! the scopes of a compressed tree: a batch is grouped by the node that each point belongs to, and
//! a group that does not fit the node's bucket is split by rounds of conflict graph and maximal
//! independent set. Bulk load is the same pipeline on an empty tree. Only [`apply`] writes. The
//! result depends on the data, the ids and the seed, never on the thread count.

pub(crate) mod apply;
pub(crate) mod batch;
pub(crate) mod conflict;
pub(crate) mod credit;
mod group;
pub(crate) mod journal;
pub(crate) mod layout;
pub(crate) mod locate;
pub(crate) mod mis;
mod overlap;
pub(crate) mod plan;
pub(crate) mod redistribute;
pub(crate) mod remove;
pub(crate) mod report;
pub(crate) mod root;
mod scope;
pub(crate) mod scratch;
pub(crate) mod source;
pub(crate) mod split;

use std::time::Instant;

use crate::tree::columns::{ROOT, Tree};
use crate::values::error::{InsertError, ReadError};
use crate::values::options::OpenOptions;
use batch::Batch;
use report::Work;
use scratch::ScratchPool;

/// What every stage may use besides its input.
pub(crate) struct Context<'a> {
    pub(crate) options: &'a OpenOptions,
    pub(crate) scratch: &'a ScratchPool,
    /// A batch rebuilds no subtree with more points than this, because they would not fit into
    /// memory.
    pub(crate) most_rebuilt: u64,
}

/// Why a stage stopped.
#[derive(Debug)]
pub(crate) enum Stop {
    Interrupted,
    Read(ReadError),
}

impl From<ReadError> for Stop {
    fn from(e: ReadError) -> Self {
        Stop::Read(e)
    }
}

impl From<Stop> for InsertError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Interrupted => InsertError::Interrupted,
            Stop::Read(e) => InsertError::Read(e),
        }
    }
}

impl Context<'_> {
    pub(crate) fn check(&self) -> Result<(), Stop> {
        match self.options.cancel.is_cancelled() {
            true => Err(Stop::Interrupted),
            false => Ok(()),
        }
    }
}

/// Inserts a checked batch into a tree. After an error the tree's columns may be half changed and
/// must be dropped; no file has been touched.
pub(crate) fn insert(
    tree: &mut Tree,
    context: &Context<'_>,
    batch: &Batch<'_>,
    work: &mut Work,
) -> Result<(), InsertError> {
    if batch.ids.is_empty() {
        return Ok(());
    }
    let (before, start) = (tree.live()?, Instant::now());
    let placements = locate::locate(tree, context, batch, work)?;
    work.times.locate += start.elapsed();
    let changes = plan::plan(tree, context, batch, &placements, work)?;
    context.check()?;
    let start = Instant::now();
    apply::apply(tree, batch, &placements, changes, work)?;
    work.times.splice += start.elapsed();
    context.scratch.settle(&mut work.counters);
    if tree.live()? != before + batch.ids.len() as u64 {
        return Err(miscounted().into());
    }
    Ok(())
}

/// An insertion that did not succeed.
pub(crate) enum Failed {
    /// The tree is as it was.
    Refused(InsertError),
    /// The tree may be half changed, and is of no use.
    Halfway(InsertError),
}

/// T7 at the root does not hold: what is above some node that changed has not counted it.
fn miscounted() -> ReadError {
    ReadError::row("counts", ROOT.into(), "the root does not count what was added or deleted")
}
