//! The commit: changed columns become a durable version, tags move, or nothing happens.
//!
//! Everything that changes goes through [`commit`]; segments that do not fit into memory are
//! written before ([`super::early`]). [`commit_locked`] is the only function that writes a new
//! slot; [`super::confirm`] writes one again. Data goes only into space to which no commit of the
//! last two refers ([`super::space_ledger`]), and becomes visible by one checksummed slot.

use super::column::ChangedColumn;
use super::commit_plan::{CommitPlan, Placing};
use super::database::{Database, cut_back};
use super::early::Early;
use super::expire::{ExpireRequest, Expiry};
use super::sharing_graph::VersionSummary;
use super::writer::Writer;
use crate::arena::watch::Watch;
use crate::format::arrays::{ArrayRoot, DATA_ARRAYS, STATE_ARRAYS};
use crate::format::slot::{CommitSlot, Hint};
use crate::format::tag_row::TagRow;
use crate::format::version_row::VersionRow;
use crate::format::{DATA_START, HINT_OFFSET, slot_offset};
use crate::values::error::{CommitError, ReadError, StorageError};
use crate::values::options::CancelToken;
use crate::values::retention::Retention;
use crate::values::seeded_bug::SeededBug;

/// What is to become the next commit.
pub(crate) struct Draft<'a> {
    /// The next version. Without one only the store state changes, and the newest version stays
    /// what it is.
    pub(crate) version: Option<NewVersion<'a>>,
    /// All tags from now on, by name, if they change.
    pub(crate) tags: Option<Vec<TagRow>>,
    /// What is to expire. Without it, a commit that makes a version applies the saved rule.
    pub(crate) expire: Option<ExpireRequest>,
    /// The rule of retention to be saved, if it changes.
    pub(crate) saved: Option<Retention>,
    /// If not 0, a commit that makes a version may wait for the syncs of a later one, until so many
    /// have come together.
    pub(crate) group: u32,
    /// May use the space that is kept for when the disk is full: what adds no points.
    pub(crate) may_use_reserve: bool,
    pub(crate) cancel: &'a CancelToken,
}

impl<'a> Draft<'a> {
    /// A commit that changes nothing but the accounts of space.
    pub(crate) fn nothing(cancel: &'a CancelToken) -> Self {
        Draft {
            version: None,
            tags: None,
            expire: None,
            saved: None,
            group: 0,
            may_use_reserve: true,
            cancel,
        }
    }

    pub(super) fn is_received(&self) -> bool {
        self.version.as_ref().is_some_and(|version| version.received.is_some())
    }

    /// Rows of expired versions that come before the new one, as commit `number` writes them.
    pub(super) fn expired_rows(&self, number: u64) -> Vec<VersionRow> {
        let received = self.version.as_ref().and_then(|version| version.received.as_deref());
        let rows = received.unwrap_or_default().iter();
        rows.map(|row| VersionRow { commit: number, ..*row }).collect()
    }
}

/// What a transaction wants to become the next version.
pub(crate) struct NewVersion<'a> {
    /// The data arrays, by number.
    pub(crate) columns: [&'a dyn ChangedColumn; DATA_ARRAYS],
    /// The version row, complete but for `version`, `commit`, `commit_lineage`, `time_ns`,
    /// `bytes_written` and `roots`.
    pub(crate) row: VersionRow,
    /// The version whose segments the columns began with.
    pub(crate) base: u64,
    /// The version comes from another store and keeps its number, time and lineage; so do these
    /// rows of expired versions that come between the newest and it.
    pub(crate) received: Option<Vec<VersionRow>>,
    /// What the columns have written already.
    pub(crate) early: Option<Early>,
    /// Over what the columns have read.
    pub(crate) watch: Option<&'a Watch>,
}

/// What a commit did.
pub(crate) struct Committed {
    /// The row of its version, if it made one.
    pub(crate) row: Option<VersionRow>,
    /// What expired.
    pub(crate) expiry: Expiry,
    /// By how much the clock is behind the commit before.
    pub(crate) clock_behind_ns: u64,
}

/// Makes a draft the newest commit.
///
/// On a full disk, one that may use the reserve is tried once more, behind everything that is in
/// use, where space is reserved for it; any other fails, after the versions that were waiting have
/// been made durable.
pub(crate) fn commit(db: &Database, mut draft: Draft<'_>) -> Result<Committed, CommitError> {
    let mut writer = db.writer.as_ref().ok_or(CommitError::ReadOnly)?.lock().expect("unpoisoned");
    if writer.poisoned {
        return Err(CommitError::Poisoned);
    }
    if draft.cancel.is_cancelled() {
        return Err(CommitError::Interrupted);
    }
    let mut done = attempt(db, &mut writer, &mut draft, Placing::Anywhere);
    let is_full =
        |done: &Result<Committed, CommitError>| matches!(done, Err(CommitError::DiskFull { .. }));
    if is_full(&done) && draft.may_use_reserve {
        done = attempt(db, &mut writer, &mut draft, Placing::AtEnd);
    }
    if done.is_err() {
        // What the draft has written early is cut off now: later that would cut off what is made
        // durable meanwhile. The reserve behind it goes as well.
        let early = draft.version.as_mut().and_then(|version| version.early.take());
        if early.map(drop).is_some() {
            writer.reserved_end = 0;
        }
    }
    if is_full(&done) && !draft.may_use_reserve && db.newest()?.commit != writer.durable {
        let patient = CancelToken::default();
        let mut settle = Draft::nothing(&patient);
        // If this fails too, they go on waiting.
        let _ = attempt(db, &mut writer, &mut settle, Placing::AtEnd);
    }
    done.map_err(|e| db.explain(e))
}

fn attempt(
    db: &Database,
    writer: &mut Writer,
    draft: &mut Draft<'_>,
    placing: Placing,
) -> Result<Committed, CommitError> {
    let old = db.newest()?;
    let done = CommitPlan::new(db, writer, &old, draft, placing)
        .and_then(|plan| commit_locked(db, writer, &old, draft, plan));
    if done.is_err() {
        // The plan may have taken versions out of it.
        writer.past = None;
    }
    done
}

/// Steps 2 to 7. Crash outcomes: in 2 to 4, the store is as before, with space behind its end that
/// the next writer drops; in 5 and 6, either as before or with the commit whole; from 7 on, with
/// the commit.
fn commit_locked(
    db: &Database,
    writer: &mut Writer,
    old: &CommitSlot,
    draft: &mut Draft<'_>,
    mut plan: CommitPlan<'_>,
) -> Result<Committed, CommitError> {
    let storage = db.arena.storage();
    let number = plan.slot.commit;

    // 2. Reserve growth, so that a full disk shows here. Nothing refers to it; a crash leaves space
    //    behind the end.
    // 3. Write segments and tables, bottom up. Nothing refers to them yet; a crash leaves free
    //    space as it was.
    let may_use_reserve = draft.may_use_reserve;
    let written = reserve(db, writer, &plan, may_use_reserve)
        .and_then(|()| write(db, old, &mut plan))
        .and_then(|roots| last_checks(db, draft).map(|()| roots));
    plan.slot.roots = match written {
        Ok(roots) => roots,
        Err(e) => return Err(take_back(db, writer, &plan, e)),
    };
    // From here on what was written early may become part of the store, and is not cut off.
    let early = draft.version.as_mut().and_then(|version| version.early.take());
    early.into_iter().for_each(Early::keep);

    if plan.waits {
        // Visible here, and to others when a later commit has made it durable. A crash now leaves
        // the newest commit on the disk, to whose space nothing was written.
        return Ok(publish(db, writer, plan));
    }

    // 4. F1: everything that the slot will refer to is on the disk, and the file is long enough. A
    // crash leaves the store as before.
    if SeededBug::SlotBeforeFirstSync.is_planted() {
        write_slot(db, &plan.slot.sealed())?;
    }
    if let Err(e) = SeededBug::SkipFirstSync.skips(|| storage.sync()) {
        writer.poisoned = !SeededBug::ForgetPoison.is_planted();
        return Err(CommitError::Storage(e));
    }

    // 5. The slot, twice, while no reader looks: none sees a commit that may not last. Torn, it is
    // not valid; a crash leaves the store as before, or with the commit whole.
    let gate = match SeededBug::SlotOutsideGate.is_planted() {
        true => None,
        false => Some(db.pins.close().map_err(|e| take_back(db, writer, &plan, e.into()))?),
    };
    let slot = plan.slot.sealed();
    if SeededBug::HintBeforeSecondSync.is_planted() {
        leave_hint(db, number);
    }
    // 6. F2: the commit is durable, and acknowledged. A crash before it returns leaves either.
    if let Err(source) =
        write_slot(db, &slot).and_then(|()| SeededBug::SkipSecondSync.skips(|| storage.sync()))
    {
        writer.poisoned = !SeededBug::ForgetPoison.is_planted();
        return Err(CommitError::Unknown { commit: number, source });
    }

    // 7. Publish, and leave the unsynced proof that F2 returned. A crash leaves the commit.
    let done = publish(db, writer, plan);
    leave_hint(db, number);
    drop(gate);
    shorten(db, writer, old, &slot);
    Ok(done)
}

/// Cuts off what a durable commit and the one before it need no longer, once that is much: like
/// what is to be written, the state before stays whole. A crash leaves the file long, and the next
/// writer cuts it.
fn shorten(db: &Database, writer: &mut Writer, old: &CommitSlot, slot: &CommitSlot) {
    const MUCH: u64 = 1 << 20;
    let storage = db.arena.storage();
    let end = slot.file_bytes.max(old.file_bytes);
    let much = MUCH.max(end.saturating_sub(DATA_START) / 4);
    // Only room on the disk depends on it.
    if storage.len().is_ok_and(|len| len >= end + much) && cut_back(storage, end).is_ok() {
        writer.reserved_end = 0;
        let _ = writer.keep_reserve(db, end);
    }
}

/// Step 2. If somebody has cut the file, growth would hide it.
fn reserve(
    db: &Database,
    writer: &mut Writer,
    plan: &CommitPlan<'_>,
    may_use_reserve: bool,
) -> Result<(), CommitError> {
    let storage = db.arena.storage();
    let (found, needed) = (storage.len()?, plan.needed);
    if found < needed {
        return Err(ReadError::Truncated { found, needed }.into());
    }
    let file_bytes = plan.slot.file_bytes;
    if file_bytes > found {
        storage.allocate(found, file_bytes - found)?;
    }
    // What may not use the reserve must leave it whole.
    match writer.keep_reserve(db, file_bytes) {
        Err(e) if !may_use_reserve => Err(e.into()),
        _ => Ok(()),
    }
}

/// Step 3.
fn write(
    db: &Database,
    old: &CommitSlot,
    plan: &mut CommitPlan<'_>,
) -> Result<[ArrayRoot; STATE_ARRAYS], CommitError> {
    if SeededBug::PunchBeforeCommit.is_planted() {
        for row in &plan.expiry.freed {
            db.arena.storage().punch(row.address, row.bytes)?;
        }
    }
    let number = plan.slot.commit;
    if let Some(row) = &mut plan.row {
        for (root, placement) in row.roots.iter_mut().zip(&plan.data) {
            *root = placement.write(db, number)?;
        }
        plan.state.set_version(row)?;
    }
    plan.state.write(db, old, number)
}

/// What must hold before anything is made durable or visible. Nothing is read any more from here
/// on.
fn last_checks(db: &Database, draft: &Draft<'_>) -> Result<(), CommitError> {
    if draft.cancel.is_cancelled() {
        return Err(CommitError::Interrupted);
    }
    // What was read may have been zeros in the place of what is gone.
    let watch = draft.version.as_ref().and_then(|version| version.watch);
    db.arena.check_maps().and_then(|()| watch.map_or(Ok(()), Watch::check))?;
    // What is written to a file that has lost its name is written for nobody.
    match db.arena.storage().has_its_name()? {
        Ok(()) => Ok(()),
        Err(path) => Err(CommitError::FileGone { path }),
    }
}

/// Gives back what was reserved. No commit refers to it, so the store is as it was.
fn take_back(
    db: &Database,
    writer: &mut Writer,
    plan: &CommitPlan<'_>,
    e: CommitError,
) -> CommitError {
    if !matches!(e, CommitError::Read(ReadError::Truncated { .. })) {
        let _ = cut_back(db.arena.storage(), plan.old_len);
    }
    // Cutting may have given the reserve away, too.
    writer.reserved_end = 0;
    let _ = writer.keep_reserve(db, plan.old_len);
    match e {
        CommitError::Storage(source) if source.is_disk_full() => {
            let needed = plan.slot.file_bytes.saturating_sub(plan.old_len);
            CommitError::DiskFull { needed, source }
        }
        other => other,
    }
}

/// Makes a written commit what this handle goes on from.
fn publish(db: &Database, writer: &mut Writer, plan: CommitPlan<'_>) -> Committed {
    let CommitPlan { slot, waits, state, row, before, expiry, map, clock_behind_ns, .. } = plan;
    assert!(slot.commit > writer.durable && slot.first_commit > writer.durable, "commits grow");
    let ledger = writer.ledger.as_mut().expect("loaded when the commit was planned");
    ledger.follow(map, state.retired(), writer.durable);
    if let Some(past) = &mut writer.past {
        before.iter().chain(&row).for_each(|row| past.push(VersionSummary::of(row)));
    }
    if waits {
        writer.unsynced_bytes += row.map_or(0, |row| row.bytes_written);
    } else {
        (writer.durable, writer.unsynced_bytes) = (slot.commit, 0);
    }
    db.publish(slot.sealed());
    Committed { row, expiry, clock_behind_ns }
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
