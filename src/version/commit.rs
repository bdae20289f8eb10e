//! The commit: changed columns become a durable version, or nothing happens.
//!
//! [`commit`] is the only function that writes into a store after its creation. It writes data only into space to which
//! no commit of the last two refers, and makes it visible by one checksummed slot.

use super::column::ChangedColumn;
use super::database::{Database, Writer, drop_excess};
use super::placement::Placement;
use super::state_plan::StatePlan;
use super::table::Table;
use crate::error::{CommitError, ReadError, StorageError};
use crate::format::arrays::{Array, ArrayRoot, DATA_ARRAYS, STATE_ARRAYS};
use crate::format::slot::{CommitSlot, Hint};
use crate::format::version_row::VersionRow;
use crate::format::{HINT_OFFSET, PAGE_BYTES, slot_offset};
use crate::options::CancelToken;

/// What a transaction wants to become the next version.
pub(crate) struct Draft<'a> {
    /// The data arrays, by number.
    pub(crate) columns: [&'a dyn ChangedColumn; DATA_ARRAYS],
    /// The version row, complete but for `version`, `commit`, `commit_lineage`, `time_ns`, `bytes_written` and `roots`.
    pub(crate) row: VersionRow,
    pub(crate) cancel: &'a CancelToken,
}

/// Makes a draft the newest version and returns its row.
///
/// Crash outcomes, by step: 1 to 4, the store is as before, with space behind its end that the next writer drops; 5
/// and 6, either as before or with the new version whole; 7 and later, with the new version.
pub(crate) fn commit(db: &Database, draft: Draft<'_>) -> Result<VersionRow, CommitError> {
    let mut writer = db.writer.as_ref().ok_or(CommitError::ReadOnly)?.lock().expect("unpoisoned");
    if writer.poisoned {
        return Err(CommitError::Poisoned);
    }
    if draft.cancel.is_cancelled() {
        return Err(CommitError::Interrupted);
    }
    let old = db.newest()?;
    confirm(db, &mut writer, &old)?;
    if writer.space.is_none() {
        let (space, freed) = db.load_space(&old)?;
        writer.space = Some(space);
        writer.freed = freed;
    }
    let mut space = writer.space.clone().expect("loaded above");
    let number = old.commit + 1;

    // 1. Plan the space. Nothing is written; a failure costs nothing.
    let mut row = draft.row;
    row.version = old.newest_version + 1;
    row.commit = number;
    row.commit_lineage = writer.lineage(number)?;
    row.time_ns = writer.time_ns(number, old.time_ns);
    let data: Vec<Placement<&dyn ChangedColumn>> = draft
        .columns
        .into_iter()
        .map(|column| Placement::new(column, column.changed(), &mut space, |_| {}))
        .collect::<Result<_, ReadError>>()?;
    let mut state = StatePlan::new(db, &old, &mut space, &writer.freed)?;
    row.bytes_written = data.iter().map(Placement::planned_bytes).sum::<u64>()
        + state.planned_bytes()
        + 3 * PAGE_BYTES as u64;

    // 2. Reserve growth, so that a full disk shows here.
    let storage = db.arena.storage();
    let file_bytes = space.used_end();
    let old_len = storage.len()?;
    if file_bytes > old_len
        && let Err(e) = storage.allocate(old_len, file_bytes - old_len)
    {
        return Err(abort(db, old_len, file_bytes, e));
    }

    // 3. Write segments and tables, bottom up. Nothing refers to them yet.
    let mut write = || -> Result<[ArrayRoot; STATE_ARRAYS], CommitError> {
        for (root, placement) in row.roots.iter_mut().zip(&data) {
            *root = placement.write(db, number)?;
        }
        state.set_version(&row)?;
        Ok([
            state.versions.write(db, number)?,
            state.map.write(db, number)?,
            state.freed.write(db, number)?,
        ])
    };
    let roots = match write() {
        Ok(roots) => roots,
        Err(CommitError::Storage(e)) => return Err(abort(db, old_len, file_bytes, e)),
        Err(e) => {
            let _ = storage.set_len(old_len);
            return Err(e);
        }
    };
    if draft.cancel.is_cancelled() {
        let _ = storage.set_len(old_len);
        return Err(CommitError::Interrupted);
    }

    // 4. F1: everything that the slot will refer to is on the disk, and the file is long enough.
    if let Err(e) = storage.sync() {
        writer.poisoned = true;
        return Err(CommitError::Storage(e));
    }

    // 5. The slot, twice. Torn, it is not valid, and the commit before it is still the newest.
    let mut slot = CommitSlot::blank();
    slot.commit = number;
    slot.store_lineage = db.header.lineage;
    slot.commit_lineage = row.commit_lineage;
    slot.file_bytes = file_bytes;
    slot.time_ns = row.time_ns;
    slot.newest_version = row.version;
    slot.roots = roots;
    let slot = slot.sealed();
    // 6. F2: the commit is durable.
    if let Err(source) = write_slot(db, &slot) {
        writer.poisoned = true;
        return Err(CommitError::Unknown { commit: number, source });
    }

    // 7. Publish, and leave the unsynced proof that F2 returned.
    writer.space = Some(space);
    writer.freed = state.freed_ranges();
    db.publish(slot);
    leave_hint(db, number);
    Ok(row)
}

/// Gives back what was reserved. No commit refers to it, so the store is as it was.
fn abort(db: &Database, old_len: u64, file_bytes: u64, e: StorageError) -> CommitError {
    let _ = db.arena.storage().set_len(old_len);
    match e.is_disk_full() {
        true => CommitError::DiskFull { needed: file_bytes.saturating_sub(old_len), source: e },
        false => CommitError::Storage(e),
    }
}

fn write_slot(db: &Database, slot: &CommitSlot) -> Result<(), StorageError> {
    let storage = db.arena.storage();
    for copy in 0..2 {
        storage.write_at(&slot.encode(), slot_offset(slot.commit, copy))?;
    }
    storage.sync()
}

fn leave_hint(db: &Database, commit: u64) {
    // Only a hint: without it the next writer does a little more.
    let _ =
        db.arena.storage().write_at(&Hint::new(commit, db.header.lineage).encode(), HINT_OFFSET);
}

/// Makes sure that the newest commit is durable before another builds on it. After a failed sync the page cache can
/// show what the disk lacks, so the commit's blocks are written again, word for word, and synced.
fn confirm(db: &Database, writer: &mut Writer, newest: &CommitSlot) -> Result<(), CommitError> {
    if writer.confirmed {
        return Ok(());
    }
    let state = Array::ALL[DATA_ARRAYS..].iter();
    let mut tables: Vec<Table> = state.map(|&a| db.state_table(newest, a)).collect();
    if newest.newest_version > 0 {
        let row = db.newest_version()?;
        tables.extend(Array::ALL[..DATA_ARRAYS].iter().map(|&a| db.data_table(a, &row.roots)));
    }
    let storage = db.arena.storage();
    for table in &tables {
        let mut failure: Option<CommitError> = None;
        let mut found = Vec::new();
        table.walk(
            &mut |entry, visit| {
                let new = entry.birth == newest.commit;
                if new {
                    found.push((*entry, visit));
                }
                new
            },
            &mut |e| failure = Some(e.into()),
        );
        if let Some(e) = failure {
            return Err(e);
        }
        for (entry, visit) in found {
            table.recheck(&entry, visit)?;
            let mut bytes = vec![0; entry.bytes as usize];
            storage.read_at(&mut bytes, entry.address)?;
            storage.write_at(&bytes, entry.address)?;
        }
    }
    // One copy of the slot at a time, so that rewriting never has both on their way.
    let synced = storage.sync().and_then(|()| {
        (0..2).try_for_each(|copy| {
            storage.write_at(&newest.encode(), slot_offset(newest.commit, copy))?;
            storage.sync()
        })
    });
    if let Err(e) = synced {
        writer.poisoned = true;
        return Err(CommitError::Storage(e));
    }
    writer.confirmed = true;
    leave_hint(db, newest.commit);
    drop_excess(storage, newest)?;
    Ok(())
}
