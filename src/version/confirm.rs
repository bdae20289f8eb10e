//! Making sure that the newest commit is durable before another builds on it.

use super::commit::leave_hint;
use super::database::{Database, cut_back};
use super::ring::SlotCopy;
use super::table::Table;
use super::writer::Writer;
use crate::format::arrays::{Array, DATA_ARRAYS};
use crate::format::slot::CommitSlot;
use crate::format::slot_offset;
use crate::values::error::CommitError;
use crate::values::seeded_bug::SeededBug;

/// Makes sure that the newest commit is durable before another builds on it. Its slot is there, so
/// the first sync of the commit returned and its blocks are durable; they are read and checked, and
/// not written again, because a write that power interrupts can hurt what was good. But after a
/// failed second sync the page cache can show a slot that the disk lacks, so the slot's copies are
/// written again. If the commit was acknowledged both are on the disk, and one is whole while the
/// other is written; if it was not, it may be lost.
pub(super) fn confirm(
    db: &Database,
    writer: &mut Writer,
    newest: &CommitSlot,
) -> Result<(), CommitError> {
    if writer.confirmed || SeededBug::SkipConfirmation.is_planted() {
        return Ok(());
    }
    let state = Array::ALL[DATA_ARRAYS..].iter();
    let mut tables: Vec<Table> = state.map(|&a| db.state_table(newest, a)).collect();
    // Several versions if their commits shared their syncs.
    let rows = db.rows(newest)?;
    for version in (1..=newest.newest_version).rev() {
        let row = rows.get(version)?;
        if row.commit < newest.first_commit {
            break;
        }
        tables.extend(Array::ALL[..DATA_ARRAYS].iter().map(|&a| db.data_table(a, &row.roots)));
    }
    for table in &tables {
        let mut failure: Option<CommitError> = None;
        let mut found = Vec::new();
        table.walk(
            &mut |entry, visit| {
                let new = entry.birth >= newest.first_commit;
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
        }
    }
    let storage = db.arena.storage();
    // One copy at a time, so that never both are on their way; and if only one is good, that one
    // last.
    let good_first = matches!(
        SlotCopy::read(storage, newest.store_lineage, newest.commit, 0)?,
        SlotCopy::Intact(found) if found.commit == newest.commit
    );
    let copies = match good_first != SeededBug::RewriteTheGoodCopyFirst.is_planted() {
        true => [1, 0],
        false => [0, 1],
    };
    let synced = copies.into_iter().try_for_each(|copy| {
        storage.write_at(&newest.encode(), slot_offset(newest.commit, copy))?;
        storage.sync()
    });
    if let Err(e) = synced {
        writer.poisoned = true;
        return Err(CommitError::Storage(e));
    }
    writer.confirmed = true;
    leave_hint(db, newest.commit);
    cut_back(storage, newest.file_bytes)?;
    Ok(())
}
