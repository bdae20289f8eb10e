//! The commit: changed columns become a durable version, tags move, or nothing happens.
//!
//! [`commit`] is the only function that writes into a store after its creation. It writes data only into space to which
//! no commit of the last two refers, and makes it visible by one checksummed slot.

use super::column::ChangedColumn;
use super::confirm::confirm;
use super::database::{Database, Writer, cut_back};
use super::early::Early;
use super::expire::{self, Expiry};
use super::family::Brief;
use super::pins::Gate;
use super::placement::Placement;
use super::state_plan::{StateChange, StatePlan};
use crate::arena::free_space::FreeSpace;
use crate::arena::watch::Watch;
use crate::error::{CommitError, ReadError, StorageError};
use crate::format::arrays::{ArrayRoot, DATA_ARRAYS, STATE_ARRAYS};
use crate::format::rows::FreedRow;
use crate::format::slot::{CommitSlot, Hint};
use crate::format::tag_row::TagRow;
use crate::format::version_row::VersionRow;
use crate::format::{HINT_OFFSET, PAGE_BYTES, SLOT_RING, slot_offset};
use crate::options::CancelToken;
use crate::retention::Retention;
use crate::seeded_bug::SeededBug;

/// Commits that may share their syncs: what is freed meanwhile is not used again.
const MOST_GROUPED: u32 = 10_000;

/// What is to become the next commit.
pub(crate) struct Draft<'a> {
    /// The next version. Without one only the store state changes, and the newest version stays what it is.
    pub(crate) version: Option<NewVersion<'a>>,
    /// All tags from now on, by name, if they change.
    pub(crate) tags: Option<Vec<TagRow>>,
    /// Versions that expire. If there are none, a commit that makes a version applies the saved rule.
    pub(crate) expiry: Option<Expiry>,
    /// The rule of retention to be saved, if it changes.
    pub(crate) saved: Option<Retention>,
    /// If not 0, a commit that makes a version may wait for the syncs of a later one, until so many have come together.
    pub(crate) group: u32,
    /// The gate, if the caller has closed it.
    pub(crate) gate: Option<&'a Gate<'a>>,
    pub(crate) cancel: &'a CancelToken,
}

impl<'a> Draft<'a> {
    /// A commit that changes nothing but the accounts of space.
    pub(crate) fn nothing(cancel: &'a CancelToken) -> Self {
        Draft { version: None, tags: None, expiry: None, saved: None, group: 0, gate: None, cancel }
    }
}

/// What a transaction wants to become the next version.
pub(crate) struct NewVersion<'a> {
    /// The data arrays, by number.
    pub(crate) columns: [&'a dyn ChangedColumn; DATA_ARRAYS],
    /// The version row, complete but for `version`, `commit`, `commit_lineage`, `time_ns`, `bytes_written` and `roots`.
    pub(crate) row: VersionRow,
    /// The version whose segments the columns began with.
    pub(crate) base: u64,
    /// The version comes from another store and keeps its number, time and lineage; so do these rows of expired versions
    /// that come between the newest and it.
    pub(crate) received: Option<Vec<VersionRow>>,
    /// What the columns have written already.
    pub(crate) early: Option<Early>,
    /// Over what the columns have read.
    pub(crate) watch: Option<&'a Watch>,
}

/// Makes a draft the newest commit and returns the row of its version, if it makes one.
///
/// Crash outcomes, by step: 1 to 4, the store is as before, with space behind its end that the next writer drops; 5
/// and 6, either as before or with the new version whole; 7 and later, with the new version.
pub(crate) fn commit(db: &Database, draft: Draft<'_>) -> Result<Option<VersionRow>, CommitError> {
    make(db, draft).map_err(|e| db.explain(e))
}

fn make(db: &Database, draft: Draft<'_>) -> Result<Option<VersionRow>, CommitError> {
    let mut writer = db.writer.as_ref().ok_or(CommitError::ReadOnly)?.lock().expect("unpoisoned");
    if writer.poisoned {
        return Err(CommitError::Poisoned);
    }
    if draft.cancel.is_cancelled() {
        return Err(CommitError::Interrupted);
    }
    let old = db.newest()?;
    let mut space = prepare(db, &mut writer, &old)?;
    // A slot in the place of the newest one on the disk would put both at stake, so one number is left out if need be.
    let mut number = old.commit + 1;
    if number > writer.durable && (number - writer.durable).is_multiple_of(SLOT_RING) {
        number += 1;
    }
    let waits = draft.version.is_some()
        && number - writer.durable < u64::from(draft.group.min(MOST_GROUPED));

    // 0. What expires. From the search for pins on the gate stays closed.
    let time_ns = writer.time_ns(number, old.time_ns);
    let saved = Retention::from_fields(old.keep_last, old.keep_for_ns);
    let mut gate = None;
    let mut expiry = draft.expiry.unwrap_or_default();
    if let Some(version) = &draft.version
        && !saved.keeps_all()
        && !waits
    {
        if writer.past.is_none() {
            writer.past = Some(db.past(&old)?);
        }
        gate = Some(db.pins.close()?);
        let past = writer.past.as_ref().expect("loaded above");
        expiry = expire::plan(db, &old, past, saved, time_ns, Some(version.base))?;
    }

    // 1. Plan the space. Nothing is written; a failure costs nothing.
    let mut slot = CommitSlot::blank();
    slot.commit = number;
    slot.store_lineage = db.header.lineage;
    slot.commit_lineage = writer.lineage(number)?;
    slot.time_ns = time_ns;
    let (columns, mut row, received, mut early, watch) = match draft.version {
        Some(NewVersion { columns, row, received, early, watch, .. }) => {
            (Vec::from(columns), Some(row), received, early, watch)
        }
        None => (Vec::new(), None, None, None, None),
    };
    let storage = db.arena.storage();
    let (mut old_len, mut needed, mut written_early) = (storage.len()?, old.file_bytes, 0);
    if let Some(early) = &mut early {
        (space, old_len, needed, written_early) = early.hand_over();
    }
    if let (Some(row), Some(_)) = (&row, &received) {
        slot.commit_lineage = row.commit_lineage;
        slot.time_ns = row.time_ns.max(old.time_ns + 1);
    }
    let is_received = received.is_some();
    let mut before = received.unwrap_or_default();
    before.iter_mut().for_each(|row| row.commit = number);
    slot.newest_version = old.newest_version + before.len() as u64 + row.is_some() as u64;
    slot.oldest_version = oldest_version(db, &old, slot.newest_version, &expiry)?;
    (slot.keep_last, slot.keep_for_ns) = draft.saved.unwrap_or(saved).to_fields();
    let data: Vec<Placement<&dyn ChangedColumn>> = columns
        .into_iter()
        .map(|column| Placement::new(column, column.changed(), &mut space, |_| {}))
        .collect::<Result<_, ReadError>>()?;
    let gone: Vec<u64> = expiry.rows.iter().map(|row| row.version).collect();
    // What the commit before took out of use becomes free if that is durable; else it stays listed.
    let is_durable = writer.durable == old.commit || SeededBug::ReuseBeforeDurable.is_planted();
    let (released, carried): (&[FreedRow], &[FreedRow]) = match is_durable {
        true => (&writer.freed, &[]),
        false => (&[], &writer.freed),
    };
    let change = StateChange {
        added: before.iter().copied().chain(row).collect(),
        tags: draft.tags,
        expired: expiry.rows,
        freed: [&expiry.freed[..], carried].concat(),
    };
    let mut state = StatePlan::new(db, &old, &mut space, released, change)?;
    if let Some(row) = &mut row {
        if !is_received {
            row.version = slot.newest_version;
            row.time_ns = slot.time_ns;
        }
        assert_eq!(row.version, slot.newest_version, "versions are numbered without gaps");
        row.commit = number;
        row.commit_lineage = slot.commit_lineage;
        row.bytes_written = data.iter().map(Placement::planned_bytes).sum::<u64>()
            + written_early
            + state.planned_bytes()
            + 3 * PAGE_BYTES as u64;
    }

    // 2. Reserve growth, so that a full disk shows here. If somebody has cut the file, growth would hide it.
    let file_bytes = space.used_end();
    let reserved = storage.len()?;
    if reserved < needed {
        return Err(ReadError::Truncated { found: reserved, needed }.into());
    }
    if file_bytes > reserved
        && let Err(e) = storage.allocate(reserved, file_bytes - reserved)
    {
        return Err(abort(db, old_len, file_bytes, e));
    }

    // 3. Write segments and tables, bottom up. Nothing refers to them yet.
    let mut write = || -> Result<[ArrayRoot; STATE_ARRAYS], CommitError> {
        if let Some(row) = &mut row {
            for (root, placement) in row.roots.iter_mut().zip(&data) {
                *root = placement.write(db, number)?;
            }
            state.set_version(row)?;
        }
        state.write(db, &old, number)
    };
    slot.roots = match write() {
        Ok(roots) => roots,
        Err(CommitError::Storage(e)) => return Err(abort(db, old_len, file_bytes, e)),
        Err(e) => {
            let _ = cut_back(storage, old_len);
            return Err(e);
        }
    };
    if draft.cancel.is_cancelled() {
        let _ = cut_back(storage, old_len);
        return Err(CommitError::Interrupted);
    }
    // What was read may have been zeros in the place of what is gone. Nothing is read any more from here on.
    if let Err(e) = db.arena.check_maps().and_then(|()| watch.map_or(Ok(()), Watch::check)) {
        let _ = cut_back(storage, old_len);
        return Err(e.into());
    }

    // From here on the file is not cut back without need: what was written early may become part of the store.
    early.into_iter().for_each(Early::keep);
    slot.file_bytes = file_bytes;
    slot.first_commit = writer.durable + 1;
    let freed = state.freed_ranges();
    let briefs = before.iter().chain(&row).map(Brief::of).collect();
    if waits {
        // Visible here, and to others when a later commit has made it durable. A crash now leaves the newest commit on the
        // disk, to whose space nothing was written.
        writer.follow(space, freed, &gone, briefs);
        db.publish(slot.sealed());
        return Ok(row);
    }

    // 4. F1: everything that the slot will refer to is on the disk, and the file is long enough.
    if SeededBug::SlotBeforeFirstSync.is_planted() {
        write_slot(db, &slot.sealed())?;
    }
    if let Err(e) = SeededBug::SkipFirstSync.skips(|| storage.sync()) {
        writer.poisoned = !SeededBug::ForgetPoison.is_planted();
        return Err(CommitError::Storage(e));
    }

    // 5. The slot, twice, while no reader looks: none sees a commit that may not last.
    let open = gate.is_none() && draft.gate.is_none();
    if open && !SeededBug::SlotOutsideGate.is_planted() {
        gate = match db.pins.close() {
            Ok(gate) => Some(gate),
            Err(e) => return Err(abort(db, old_len, file_bytes, e)),
        };
    }
    // Torn, it is not valid, and the commit before it is still the newest.
    let slot = slot.sealed();
    // 6. F2: the commit is durable.
    if SeededBug::HintBeforeSecondSync.is_planted() {
        leave_hint(db, number);
    }
    if let Err(source) =
        write_slot(db, &slot).and_then(|()| SeededBug::SkipSecondSync.skips(|| storage.sync()))
    {
        writer.poisoned = !SeededBug::ForgetPoison.is_planted();
        return Err(CommitError::Unknown { commit: number, source });
    }

    // 7. Publish, and leave the unsynced proof that F2 returned.
    writer.follow(space, freed, &gone, briefs);
    writer.durable = number;
    db.publish(slot);
    leave_hint(db, number);
    drop(gate);
    Ok(row)
}

/// Makes sure that the newest commit is durable, and returns the space as it left it.
fn prepare(
    db: &Database,
    writer: &mut Writer,
    newest: &CommitSlot,
) -> Result<FreeSpace, CommitError> {
    confirm(db, writer, newest)?;
    if writer.space.is_none() {
        let (space, freed) = db.load_space(newest)?;
        writer.space = Some(space);
        writer.freed = freed;
    }
    Ok(writer.space.clone().expect("loaded above"))
}

/// The space into which what follows the newest commit may be written.
pub(super) fn writable_space(db: &Database) -> Result<FreeSpace, CommitError> {
    let mut writer = db.writer.as_ref().ok_or(CommitError::ReadOnly)?.lock().expect("unpoisoned");
    if writer.poisoned {
        return Err(CommitError::Poisoned);
    }
    prepare(db, &mut writer, &db.newest()?)
}

/// The oldest version that is retained once `expiry` has taken place.
fn oldest_version(
    db: &Database,
    old: &CommitSlot,
    newest: u64,
    expiry: &Expiry,
) -> Result<u64, ReadError> {
    let gone = |version| expiry.rows.binary_search_by_key(&version, |row| row.version).is_ok();
    if old.oldest_version == 0 {
        // Received versions that have expired may come before the first.
        return Ok(newest);
    }
    let first = old.oldest_version;
    if !gone(first) {
        return Ok(first);
    }
    let rows = db.rows(old)?;
    for version in first + 1..=old.newest_version {
        if !gone(version) && !rows.get(version)?.is_expired() {
            return Ok(version);
        }
    }
    Ok(newest)
}

/// Gives back what was reserved. No commit refers to it, so the store is as it was.
fn abort(db: &Database, old_len: u64, file_bytes: u64, e: StorageError) -> CommitError {
    let _ = cut_back(db.arena.storage(), old_len);
    match e.is_disk_full() {
        true => CommitError::DiskFull { needed: file_bytes.saturating_sub(old_len), source: e },
        false => CommitError::Storage(e),
    }
}

fn write_slot(db: &Database, slot: &CommitSlot) -> Result<(), StorageError> {
    let copies = if SeededBug::OneSlotCopy.is_planted() { 0..1 } else { 0..2 };
    for copy in copies {
        db.arena.storage().write_at(&slot.encode(), slot_offset(slot.commit, copy))?;
    }
    Ok(())
}

pub(super) fn leave_hint(db: &Database, commit: u64) {
    // Only a hint: without it the next writer does a little more.
    let _ =
        db.arena.storage().write_at(&Hint::new(commit, db.header.lineage).encode(), HINT_OFFSET);
}
