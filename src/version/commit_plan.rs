//! Steps 0 and 1 of a commit: the commit before is made sure of ([`super::confirm`], which changes
//! nothing that is visible); then what expires, and where everything will lie. Of the new commit
//! nothing is written, so a failure costs nothing.

use super::column::ChangedColumn;
use super::commit::Draft;
use super::confirm::confirm;
use super::database::Database;
use super::early::Early;
use super::expire::{self, ExpireRequest, Expiry};
use super::past::Past;
use super::placement::Placement;
use super::space_ledger::SpaceLedger;
use super::state_plan::{StateChange, StatePlan};
use super::writer::{Moment, Writer};
use crate::arena::free_space::FreeSpace;
use crate::format::slot::CommitSlot;
use crate::format::version_row::VersionRow;
use crate::format::{LAST_COMMIT, PAGE_BYTES, SLOT_RING};
use crate::values::error::{CommitError, ReadError};
use crate::values::retention::Retention;

/// Commits that may share their syncs.
const MOST_GROUPED: u32 = 10_000;

/// Bytes that commits which share their syncs may have written: so much is lost at most, and held
/// back from reuse.
const MOST_GROUPED_BYTES: u64 = 64 << 20;

/// Where what a commit writes may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placing {
    /// Wherever there is room.
    Anywhere,
    /// Behind everything that is in use, where space is reserved.
    AtEnd,
}

/// A commit that is ready to be written.
pub(super) struct CommitPlan<'a> {
    /// Complete but for the roots and the checksum.
    pub(super) slot: CommitSlot,
    /// Visible to this handle only, until a later commit has made it durable.
    pub(super) waits: bool,
    pub(super) data: Vec<Placement<&'a dyn ChangedColumn>>,
    pub(super) state: StatePlan,
    /// The row of the version, if there is one; complete but for the roots.
    pub(super) row: Option<VersionRow>,
    /// Rows of expired versions that come with a received one.
    pub(super) before: Vec<VersionRow>,
    pub(super) expiry: Expiry,
    /// The map of space as the commit leaves it.
    pub(super) map: FreeSpace,
    /// Length of the file now, and length that it must have.
    pub(super) old_len: u64,
    pub(super) needed: u64,
    /// By how much the clock is behind the commit before.
    pub(super) clock_behind_ns: u64,
}

impl<'a> CommitPlan<'a> {
    /// Plans what is to follow `old`, the newest commit.
    pub(super) fn new(
        db: &Database,
        writer: &mut Writer,
        old: &CommitSlot,
        draft: &Draft<'a>,
        placing: Placing,
    ) -> Result<Self, CommitError> {
        let map = prepare(db, writer, old)?;
        let early = draft.version.as_ref().and_then(|version| version.early.as_ref());
        let number = next_number(writer, old)?;
        assert!(
            early.is_none_or(|early| early.commit() == number),
            "no commit comes between a transaction and its own"
        );
        let waits = draft.version.is_some()
            && number - writer.durable < u64::from(draft.group.min(MOST_GROUPED))
            && writer.unsynced_bytes < MOST_GROUPED_BYTES;
        let moment = writer.moment(number, old)?;
        let expiry = choose_expiry(db, writer, old, draft, moment, waits)?;
        let mut plan = Placed::new(db, early, map, placing, draft)?;
        let before = draft.expired_rows(number);
        let mut slot = new_slot(db, writer, old, draft, (number, moment))?;
        slot.newest_version =
            old.newest_version + before.len() as u64 + u64::from(draft.version.is_some());
        slot.oldest_version = oldest_version(db, writer, old, slot.newest_version, &expiry)?;

        let ledger = writer.ledger.as_ref().expect("loaded when it was prepared");
        let new_row = draft.version.as_ref().map(|version| version.row);
        let change = StateChange {
            added: before.iter().copied().chain(new_row).collect(),
            tags: draft.tags.clone(),
            expired: expiry.rows.clone(),
            retired: [expiry.freed.clone(), ledger.held()].concat(),
            released: ledger.released(waits),
            waits,
        };
        let state = StatePlan::new(db, old, &mut plan.map, change)?;
        let row = new_row.map(|row| {
            let bytes = plan.bytes + state.planned_bytes() + 3 * PAGE_BYTES as u64;
            finished(row, &slot, draft.is_received(), bytes)
        });
        let ledger = writer.ledger.as_ref().expect("loaded when it was prepared");
        let data = plan.data.iter().flat_map(Placement::places);
        assert!(
            data.chain(state.places()).all(|(at, bytes)| ledger.may_be_written(at, bytes)),
            "C3: nothing is written over what the commit before left in use"
        );
        slot.file_bytes = plan.map.used_end();
        slot.first_commit = writer.durable + 1;
        let Placed { data, map, old_len, needed, .. } = plan;
        let needed = needed.unwrap_or(old.file_bytes);
        let clock_behind_ns = old.time_ns.saturating_sub(moment.now_ns);
        Ok(CommitPlan {
            slot,
            waits,
            data,
            state,
            row,
            before,
            expiry,
            map,
            old_len,
            needed,
            clock_behind_ns,
        })
    }
}

/// The data of a commit in its places.
struct Placed<'a> {
    data: Vec<Placement<&'a dyn ChangedColumn>>,
    map: FreeSpace,
    /// Written early, or to be written.
    bytes: u64,
    old_len: u64,
    needed: Option<u64>,
}

impl<'a> Placed<'a> {
    fn new(
        db: &Database,
        early: Option<&Early>,
        map: FreeSpace,
        placing: Placing,
        draft: &Draft<'a>,
    ) -> Result<Self, CommitError> {
        let mut placed = Placed {
            data: Vec::new(),
            map,
            bytes: 0,
            old_len: db.arena.storage().len()?,
            needed: None,
        };
        if let Some(early) = early {
            (placed.map, placed.bytes) = (early.map(), early.bytes_written());
            placed.needed = Some(early.reserved());
        }
        if placing == Placing::AtEnd {
            placed.map.only_at_end();
        }
        for column in draft.version.iter().flat_map(|version| version.columns) {
            let placement = Placement::new(column, column.changed(), &mut placed.map, |_| {})?;
            placed.bytes += placement.planned_bytes();
            placed.data.push(placement);
        }
        Ok(placed)
    }
}

/// Makes sure that the newest commit is durable, or known to wait, and returns the space as it left
/// it.
fn prepare(
    db: &Database,
    writer: &mut Writer,
    newest: &CommitSlot,
) -> Result<FreeSpace, CommitError> {
    confirm(db, writer, newest)?;
    if writer.ledger.is_none() {
        let (map, listed) = db.load_space(newest)?;
        writer.ledger = Some(SpaceLedger::new(map, listed));
    }
    Ok(writer.ledger.as_ref().expect("loaded above").map())
}

/// Number of the commit that follows the newest one, and the space into which it may write.
pub(super) fn writable_space(db: &Database) -> Result<(u64, FreeSpace), CommitError> {
    let mut writer = db.writer.as_ref().ok_or(CommitError::ReadOnly)?.lock().expect("unpoisoned");
    if writer.poisoned {
        return Err(CommitError::Poisoned);
    }
    let newest = db.newest()?;
    let map = prepare(db, &mut writer, &newest)?;
    Ok((next_number(&writer, &newest)?, map))
}

/// Number of the commit that follows `old`. A slot in the place of the newest one on the disk would
/// put both at stake, so one number is left out if need be.
fn next_number(writer: &Writer, old: &CommitSlot) -> Result<u64, CommitError> {
    let clashes = |number: u64| (number - writer.durable).is_multiple_of(SLOT_RING);
    let next = old.commit + 1;
    let number = if clashes(next) { next + 1 } else { next };
    if number > LAST_COMMIT { Err(CommitError::TooManyCommits) } else { Ok(number) }
}

/// What expires: what the draft asks for, else what the saved rule does not keep. While commits
/// wait nothing does.
fn choose_expiry(
    db: &Database,
    writer: &mut Writer,
    old: &CommitSlot,
    draft: &Draft<'_>,
    moment: Moment,
    waits: bool,
) -> Result<Expiry, CommitError> {
    let saved = Retention::from_fields(old.keep_last, old.keep_for_ns);
    let base = draft.version.as_ref().map(|version| version.base);
    let request = match (draft.expire, base) {
        (Some(request), _) => request,
        (None, Some(_)) if !saved.keeps_all() && !waits => {
            ExpireRequest { rule: saved, at_most: usize::MAX }
        }
        _ => return Ok(Expiry::default()),
    };
    let mut past = match writer.past.take() {
        Some(past) => past,
        None => Past::new(db.past(old)?),
    };
    let expiry = expire::plan(db, old, &mut past, request, moment, base)?;
    // On any error before this line, and if the commit fails, the past is read anew.
    writer.past = Some(past);
    Ok(expiry)
}

fn new_slot(
    db: &Database,
    writer: &Writer,
    old: &CommitSlot,
    draft: &Draft<'_>,
    (number, moment): (u64, Moment),
) -> Result<CommitSlot, CommitError> {
    let mut slot = CommitSlot::blank();
    slot.commit = number;
    slot.store_lineage = db.header.lineage;
    slot.commit_lineage = writer.lineage(number)?;
    slot.time_ns = moment.stamp_ns;
    if let Some(version) = draft.version.as_ref().filter(|version| version.received.is_some()) {
        slot.commit_lineage = version.row.commit_lineage;
        slot.time_ns = version.row.time_ns.max(old.time_ns.saturating_add(1));
    }
    let saved = Retention::from_fields(old.keep_last, old.keep_for_ns);
    (slot.keep_last, slot.keep_for_ns) = draft.saved.unwrap_or(saved).to_fields();
    Ok(slot)
}

/// The row of a version with what only the commit knows. A received one keeps its number and time.
fn finished(
    mut row: VersionRow,
    slot: &CommitSlot,
    is_received: bool,
    bytes_written: u64,
) -> VersionRow {
    if !is_received {
        row.version = slot.newest_version;
        row.time_ns = slot.time_ns;
    }
    assert_eq!(row.version, slot.newest_version, "versions are numbered without gaps");
    row.commit = slot.commit;
    row.commit_lineage = slot.commit_lineage;
    row.bytes_written = bytes_written;
    row
}

/// The oldest version that is retained once `expiry` has taken place.
fn oldest_version(
    db: &Database,
    writer: &Writer,
    old: &CommitSlot,
    newest: u64,
    expiry: &Expiry,
) -> Result<u64, ReadError> {
    let gone = |version| expiry.rows.binary_search_by_key(&version, |row| row.version).is_ok();
    if old.oldest_version == 0 {
        // Received versions that have expired may come before the first.
        return Ok(newest);
    }
    if !gone(old.oldest_version) {
        return Ok(old.oldest_version);
    }
    if let Some(past) = &writer.past {
        return Ok(past.oldest().unwrap_or(newest));
    }
    let rows = db.rows(old)?;
    for version in old.oldest_version + 1..=old.newest_version {
        if !gone(version) && !rows.get(version)?.is_expired() {
            return Ok(version);
        }
    }
    Ok(newest)
}
