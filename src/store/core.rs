//! What a store, its snapshots and its transactions share: the database, threads, options and
//! scratch memory.

use std::path::PathBuf;

use crate::external::Resources;
use crate::format::arrays::{ArrayRoot, DATA_ARRAYS};
use crate::insert::batch::Batch;
use crate::insert::report::Work;
use crate::insert::scratch::ScratchPool;
use crate::insert::{self, Context, Failed};
use crate::store::pool::Pool;
use crate::tree::columns::Tree;
use crate::values::budget::Budget;
use crate::values::error::{CommitError, InsertError};
use crate::values::memory;
use crate::values::options::OpenOptions;
use crate::version::database::Database;

/// What snapshots and the store share.
pub(crate) struct Core {
    pub(crate) db: Database,
    pub(crate) pool: Pool,
    pub(crate) options: OpenOptions,
    pub(crate) scratch: ScratchPool,
    /// Where temporary files go.
    pub(crate) folder: PathBuf,
}

impl Core {
    /// An error in any process but the one that opened the store.
    pub(crate) fn check_process(&self) -> Result<(), CommitError> {
        match self.db.arena.owner().is_elsewhere() {
            true => Err(CommitError::OtherProcess),
            false => Ok(()),
        }
    }

    /// What insertion works with.
    pub(crate) fn context(&self) -> Context<'_> {
        Context { options: &self.options, scratch: &self.scratch, most_rebuilt: u64::MAX }
    }

    /// Runs `work` under the memory limit.
    pub(crate) fn with_resources<R>(
        &self,
        dim: usize,
        work: impl FnOnce(&Resources<'_>) -> Result<R, Failed>,
    ) -> Result<R, Failed> {
        let limit = self.options.memory_limit.unwrap_or(u64::MAX);
        let threads = self.pool.current_num_threads();
        let folder = self.options.temporary_folder.as_deref().unwrap_or(&self.folder);
        // Whether the limit is enough is said when the number of points is known.
        let budget = match self.options.shares {
            Some(shares) => Ok(shares),
            None => Budget::new(limit, dim, threads, 0),
        };
        let most_rebuilt = budget.map_or(0, |budget| budget.cluster_rows as u64 / 2);
        let context = Context { most_rebuilt, ..self.context() };
        work(&Resources { db: &self.db, context: &context, limit, threads, folder })
    }

    /// The live points of a tree in a tree of their own.
    pub(crate) fn pack(&self, tree: &Tree, work: &mut Work) -> Result<Tree, InsertError> {
        let (mut points, mut ids) = (Vec::new(), Vec::new());
        let live = usize::try_from(tree.live()?).unwrap_or(usize::MAX);
        memory::reserve(&mut ids, live, "ids")?;
        memory::reserve(&mut points, live.saturating_mul(tree.dim), "points")?;
        tree.for_each_live(|id, row| {
            ids.push(id);
            points.extend_from_slice(row);
        })?;
        tree.check_copied(0, tree.slots() as u64)?;
        let batch = Batch { points: &points, ids };
        let mut packed = Tree::open(&self.db, &[ArrayRoot::default(); DATA_ARRAYS])?;
        insert::insert(&mut packed, &self.context(), &batch, work)?;
        Ok(packed)
    }
}
