//! A transaction: a private copy of the newest version's tree that operations change and [`commit`]
//! publishes.

use std::fmt;
use std::time::{Duration, Instant};

use crate::external;
use crate::format::version_row::{
    KIND_COMPACT, KIND_DELETE, KIND_INSERT, KIND_MIXED, KIND_RESTORE, MESSAGE_BYTES, VersionRow,
};
use crate::insert::batch::{self, NextId};
use crate::insert::report::{Counters, Report, Work};
use crate::insert::{self, Failed, remove};
use crate::store::Store;
use crate::tree::check;
use crate::tree::columns::Tree;
use crate::tree::id_index;
use crate::values::error::{
    AtError, CommitError, DeleteError, InsertError, PointsError, ReadError,
};
use crate::values::ids::{PointId, VersionId};
use crate::values::options::Durability;
use crate::values::seeded_bug::SeededBug;
use crate::values::source::{PointSource, Slice};
use crate::version::commit::{Draft, NewVersion, commit};
use crate::version::database::Database;
use crate::version::early::Early;

/// What a transaction works on, from its first operation on.
struct State {
    base: VersionRow,
    tree: Tree,
    next_id: NextId,
    added: u64,
    removed: u64,
    /// The rows of points deleted before are gone.
    compacted: bool,
    /// The base is not the newest version, but one that was asked for.
    restored: bool,
    work: Work,
    /// What has been written already, if there is a memory limit.
    early: Option<Early>,
}

impl State {
    fn new(db: &Database, base: VersionRow, next_id: NextId) -> Result<Self, ReadError> {
        Ok(State {
            tree: Tree::open(db, &base.roots)?,
            next_id,
            base,
            added: 0,
            removed: 0,
            compacted: false,
            restored: false,
            work: Work::default(),
            early: None,
        })
    }
}

/// A small tree that was sound has stayed so. For debug builds: it walks all of it.
fn assert_stays_sound(db: &Database, state: &State) {
    const SMALL: u32 = 128;
    let is_small = state.tree.slots() <= SMALL && state.base.points <= SMALL.into();
    if !is_small || SeededBug::is_any_planted() {
        return;
    }
    let is_sound = |tree: Tree| check::check(&tree).is_ok_and(|found| found.is_empty());
    if Tree::open(db, &state.base.roots).is_ok_and(is_sound) {
        let found = check::check(&state.tree).unwrap_or_default();
        assert!(found.is_empty(), "after a change: {}", found[0]);
    }
}

/// Several inserts and deletes that become one version. Each sees what those before it did. Dropped
/// without [`Transaction::commit`], it leaves no trace.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let mut store = treering::Store::create(dir.path().join("s.tre"), treering::CreateOptions::new(1))?;
/// let mut transaction = store.begin();
/// transaction.insert_with_ids(&[1.0, 2.0], &[10, 20])?;
/// transaction.delete(&[10])?;
/// transaction.message("two in, one out");
/// let report = transaction.commit()?;
/// assert_eq!((report.version.0, report.points), (1, 1));
/// # Ok(())
/// # }
/// ```
pub struct Transaction<'a> {
    store: &'a mut Store,
    state: Option<State>,
    message: String,
    broken: bool,
}

impl fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").field("message", &self.message).finish_non_exhaustive()
    }
}

impl<'a> Transaction<'a> {
    pub(crate) fn new(store: &'a mut Store) -> Self {
        Transaction { store, state: None, message: String::new(), broken: false }
    }

    /// Inserts points under automatic ids. `points`: row-major `[n x dim]`.
    ///
    /// # Errors
    ///
    /// As for [`Store::insert`]. A batch that is refused for its points or ids leaves the
    /// transaction as it was; after any other error it cannot be committed.
    pub fn insert(&mut self, points: &[f32]) -> Result<&mut Self, InsertError> {
        self.insert_named(points, None)
    }

    /// Inserts points under given ids.
    ///
    /// # Errors
    ///
    /// As for [`Store::insert_with_ids`], and as for [`Transaction::insert`].
    pub fn insert_with_ids(
        &mut self,
        points: &[f32],
        ids: &[PointId],
    ) -> Result<&mut Self, InsertError> {
        self.insert_named(points, Some(ids))
    }

    /// Inserts points that are read piece by piece. With [`crate::OpenOptions::memory_limit`] there
    /// may be more of them than fit into memory; without, they are read into memory first.
    ///
    /// # Errors
    ///
    /// As for [`Transaction::insert`]; also if the source fails, if the limit is too small, or if
    /// temporary files cannot be written.
    pub fn insert_from(&mut self, source: &mut dyn PointSource) -> Result<&mut Self, InsertError> {
        if self.store.core.options.memory_limit.is_some() {
            return self.insert_limited(source);
        }
        const ROWS: usize = 1 << 16;
        let expected = self.store.dim();
        if source.dim() != expected {
            return Err(PointsError::Dimension { expected, found: source.dim() }.into());
        }
        let (mut points, mut ids) = (Vec::new(), Vec::new());
        loop {
            let before = ids.len();
            let rows = source.read(ROWS, &mut points, &mut ids).map_err(InsertError::Source)?;
            if rows == 0 && ids.len() == before {
                break;
            }
            if self.store.core.options.cancel.is_cancelled() {
                return Err(InsertError::Interrupted);
            }
        }
        let ids = source.has_ids().then_some(&ids[..]);
        self.insert_named(&points, ids)
    }

    fn insert_limited(&mut self, source: &mut dyn PointSource) -> Result<&mut Self, InsertError> {
        self.check()?;
        let core = self.store.core.clone();
        let state = self.state()?;
        let result = core.pool.install(|| {
            core.with_resources(state.tree.dim, |means| {
                let mut next_id = state.next_id;
                let State { tree, early, work, .. } = state;
                let done = external::insert(tree, means, early, source, &mut next_id, work)?;
                state.next_id = next_id;
                state.added += done.points;
                state.compacted |= done.rebuilt;
                Ok(())
            })
        });
        self.done(result)
    }

    pub(crate) fn insert_named(
        &mut self,
        points: &[f32],
        ids: Option<&[PointId]>,
    ) -> Result<&mut Self, InsertError> {
        self.check()?;
        let core = self.store.core.clone();
        let dim = self.store.dim();
        if core.options.memory_limit.is_some() && points.len().is_multiple_of(dim) {
            let rows = points.len() / dim;
            if let Some(ids) = ids.filter(|ids| ids.len() != rows) {
                return Err(InsertError::IdCount { ids: ids.len(), points: rows });
            }
            return self.insert_limited(&mut Slice { dim, points, ids });
        }
        let state = self.state()?;
        let result: Result<(), Failed> = core.pool.install(|| {
            let mut next_id = state.next_id;
            let batch =
                batch::check(&state.tree, points, ids, &mut next_id).map_err(Failed::Refused)?;
            insert::insert(&mut state.tree, &core.context(), &batch, &mut state.work)
                .map_err(Failed::Halfway)?;
            state.next_id = next_id;
            state.added += batch.ids.len() as u64;
            Ok(())
        });
        self.done(result)
    }

    /// After an insertion.
    fn done(&mut self, result: Result<(), Failed>) -> Result<&mut Self, InsertError> {
        match result {
            Ok(()) => Ok(self),
            Err(Failed::Refused(e)) => self.store.core.db.confirm(Err(e)),
            Err(Failed::Halfway(e)) => {
                self.broken = true;
                self.store.core.db.confirm(Err(e))
            }
        }
    }

    /// Deletes points.
    ///
    /// # Errors
    ///
    /// As for [`Store::delete`]. Refused ids leave the transaction as it was.
    pub fn delete(&mut self, ids: &[PointId]) -> Result<&mut Self, DeleteError> {
        self.check()?;
        let core = self.store.core.clone();
        let state = self.state()?;
        let result = core.pool.install(|| {
            remove::remove(&mut state.tree, ids, &mut state.work)?;
            match core.options.memory_limit {
                Some(limit) => {
                    external::relieve(&core.db, limit, &mut state.early, &mut state.tree)
                }
                None => Ok(()),
            }
        });
        match result {
            Ok(()) => {
                state.removed += ids.len() as u64;
                Ok(self)
            }
            Err(e) => {
                self.broken |= matches!(e, DeleteError::Read(_) | DeleteError::Commit(_));
                core.db.confirm(Err(e))
            }
        }
    }

    /// Builds the tree anew from the live points, in packed order and without dead rows: what many
    /// batches have scattered then answers, and takes space, as if it had been loaded at once. Ids
    /// and answers stay. Older versions keep what they have. Needs memory for all live points,
    /// unless there is a memory limit.
    ///
    /// # Errors
    ///
    /// Damage or I/O failure, or interrupted.
    pub fn compact(&mut self) -> Result<&mut Self, InsertError> {
        self.check()?;
        let core = self.store.core.clone();
        let state = self.state()?;
        let result = core.pool.install(|| {
            let State { tree, early, work, .. } = &mut *state;
            let packed = match core.options.memory_limit {
                Some(_) => core.with_resources(tree.dim, |means| {
                    external::compact(tree, means, early, work).map_err(Failed::Halfway)
                }),
                None => core.pack(tree, work).map_err(Failed::Refused),
            }?;
            state.tree = packed;
            state.compacted = true;
            Ok(())
        });
        self.done(result)
    }

    /// Goes back to an older version: the transaction holds its points, and nothing of what was
    /// done before in the transaction. Committed as it is, it makes a version that shares
    /// everything with the old one and costs a few blocks; its `parent` is the old version.
    /// Automatic ids go on from the largest ever used.
    ///
    /// # Errors
    ///
    /// No such version; damage or I/O failure.
    pub fn restore(&mut self, version: VersionId) -> Result<&mut Self, AtError> {
        let next_id = self.state()?.next_id;
        let db = &self.store.core.db;
        let (base, _pin) = db.version(version)?;
        self.state = Some(State { restored: true, ..State::new(db, base, next_id)? });
        self.broken = false;
        Ok(self)
    }

    /// True if the id is live as the transaction stands.
    ///
    /// # Errors
    ///
    /// Damage or I/O failure.
    pub fn contains(&mut self, id: PointId) -> Result<bool, ReadError> {
        self.store.core.db.arena.check_process()?;
        let found = id_index::find_live(&self.state()?.tree, id);
        Ok(self.store.core.db.confirm(found)?.is_some())
    }

    /// A message that the version keeps: at most 256 bytes, which [`Transaction::commit`] checks.
    pub fn message(&mut self, text: &str) -> &mut Self {
        self.message = text.to_string();
        self
    }

    /// Makes everything one version, durable when this returns, unless
    /// [`crate::OpenOptions::durability`] says otherwise. If nothing was inserted, deleted,
    /// compacted or restored, and there is no message, none is made ([`Report::is_new`]).
    ///
    /// # Errors
    ///
    /// After any error but [`CommitError::Unknown`] the store is as it was.
    pub fn commit(mut self) -> Result<Report, CommitError> {
        self.check()?;
        let core = self.store.core.clone();
        let dim = self.store.dim();
        let is_told = !self.message.is_empty();
        let state = self.state()?;
        let State { base, added: 0, removed: 0, compacted: false, restored: false, .. } = state
        else {
            return self.commit_version();
        };
        if is_told {
            return self.commit_version();
        }
        core.options.report("write", 1, 1);
        Ok(Report {
            version: VersionId(base.version),
            is_new: false,
            points: base.points,
            added: 0,
            removed: 0,
            dim,
            bytes_written: 0,
            counters: Counters::default(),
            times: state.work.times,
            clock_behind: Duration::ZERO,
            clock_leap: None,
        })
    }

    /// [`Transaction::commit`] that makes a version whatever has changed.
    pub(crate) fn commit_version(mut self) -> Result<Report, CommitError> {
        self.check()?;
        if self.message.len() > MESSAGE_BYTES {
            return Err(CommitError::Message { bytes: self.message.len(), limit: MESSAGE_BYTES });
        }
        let core = self.store.core.clone();
        self.state()?;
        let state = self.state.as_mut().expect("made by the line above");
        let start = Instant::now();
        let State { base, tree, added, compacted, work, early, .. } = state;
        let may_use_reserve = *added == 0 && !*compacted;
        if !may_use_reserve
            && early.is_none()
            && let Some(tail) = core.db.tail()
        {
            tree.bring_forward(tail, base.version);
        }
        (work.counters.cow_segments, work.counters.cow_bytes_copied) = tree.copied();
        let row = version_row(state, &self.message);
        if cfg!(debug_assertions) {
            assert_stays_sound(&core.db, state);
        }
        let State { base, tree, work, early, .. } = state;
        core.options.report("write", 0, 1);
        let done = core.pool.install(|| {
            let cancel = &core.options.cancel;
            let version = Some(NewVersion {
                columns: tree.columns(),
                row,
                base: base.version,
                received: None,
                early: early.take(),
                watch: Some(&tree.watch),
            });
            let group = match core.options.durability {
                Durability::Full => 0,
                Durability::Deferred { versions } => versions,
            };
            let nothing = Draft::nothing(cancel);
            commit(&core.db, Draft { version, group, may_use_reserve, ..nothing })
        })?;
        let row = done.row.expect("the draft makes a version");
        core.options.report("write", 1, 1);
        work.times.commit += start.elapsed();
        Ok(Report {
            version: VersionId(row.version),
            is_new: true,
            points: row.points,
            added: row.added,
            removed: row.removed,
            dim: self.store.dim(),
            bytes_written: row.bytes_written,
            counters: Counters { bytes_written: row.bytes_written, ..work.counters },
            times: work.times,
            clock_behind: Duration::from_nanos(done.clock_behind_ns),
            clock_leap: done.expiry.leap(),
        })
    }

    fn check(&self) -> Result<(), CommitError> {
        self.store.core.check_process()?;
        match (self.broken, self.store.core.options.read_only) {
            (_, true) => Err(CommitError::ReadOnly),
            (true, _) => Err(CommitError::Broken),
            _ => Ok(()),
        }
    }

    fn state(&mut self) -> Result<&mut State, ReadError> {
        if self.state.is_none() {
            let db = &self.store.core.db;
            let (base, _pin) = db.newest_version()?;
            let next_id = (base.ids_exhausted == 0).then_some(base.next_id);
            self.state = Some(State::new(db, base, next_id)?);
        }
        Ok(self.state.as_mut().expect("made above"))
    }
}

/// The row of the version that a state becomes, but for where its arrays lie.
fn version_row(state: &State, message: &str) -> VersionRow {
    let State { base, tree, added, removed, compacted, restored, work, .. } = state;
    let mut row = VersionRow {
        parent: base.version,
        points: base.points + added - removed,
        held: match compacted {
            true => tree.slots() as u64,
            false => base.held + added,
        },
        added: *added,
        removed: *removed,
        next_id: state.next_id.unwrap_or(0),
        ids_exhausted: state.next_id.is_none() as u8,
        kind: match (*added, *removed) {
            (0, 0) if *compacted => KIND_COMPACT,
            (0, 0) if *restored => KIND_RESTORE,
            (_, 0) => KIND_INSERT,
            (0, _) => KIND_DELETE,
            _ => KIND_MIXED,
        },
        message_bytes: message.len() as u16,
        counters: work.counters.to_array(),
        ..*base
    };
    row.message = [0; MESSAGE_BYTES];
    row.message[..message.len()].copy_from_slice(message.as_bytes());
    row
}
