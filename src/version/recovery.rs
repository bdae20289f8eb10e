//! What a store file holds, read from its headers and slots alone: the cost does not depend on the file's size.

use crate::arena::storage::Storage;
use crate::error::{Defect, OpenError, Place, ReadError};
use crate::format::header::{Header, HeaderDefect};
use crate::format::slot::{CommitSlot, Hint};
use crate::format::version_row::VersionRow;
use crate::format::{COPY_DISTANCE, DATA_START, HINT_OFFSET, PAGE_BYTES, SLOT_RING, slot_offset};
use crate::seeded_bug::SeededBug;

/// The newest commit of a store, and whether it is known to be durable.
pub(crate) struct Newest {
    pub(crate) slot: CommitSlot,
    /// False if the process that wrote the commit may have died before its last sync returned, or just after.
    pub(crate) confirmed: bool,
}

fn read_page(storage: &dyn Storage, offset: u64) -> Result<[u8; PAGE_BYTES], OpenError> {
    let mut page = [0; PAGE_BYTES];
    storage.read_at(&mut page, offset)?;
    Ok(page)
}

/// The header, from whichever copy is intact.
pub(crate) fn read_header(storage: &dyn Storage, writing: bool) -> Result<Header, OpenError> {
    let len = storage.len()?;
    if len < DATA_START {
        // Too short for a store of this format; foreign unless it begins like one.
        if len >= PAGE_BYTES as u64
            && let Err(HeaderDefect::Old { format_version }) =
                Header::decode(&read_page(storage, 0)?, writing)
        {
            return Err(OpenError::OldFormat { format_version });
        }
        let mut magic = [0; 8];
        if len >= 8 {
            storage.read_at(&mut magic, 0)?;
        }
        return Err(match magic == crate::format::header::MAGIC {
            true => OpenError::Truncated { found: len, needed: DATA_START },
            false => OpenError::NotTreering,
        });
    }
    let copies = [0, 1].map(|copy| match read_page(storage, copy * COPY_DISTANCE) {
        Ok(page) => Ok(Header::decode(&page, writing)),
        Err(e) => Err(e),
    });
    let mut defects = Vec::new();
    for (copy, result) in copies.into_iter().enumerate() {
        match result? {
            Ok(header) => return Ok(header),
            Err(defect) => defects.push((copy as u8, defect)),
        }
    }
    // Neither copy will do. What a copy that is at least ours says matters most.
    let rank = |defect: &HeaderDefect| match defect {
        HeaderDefect::Unknown { .. } | HeaderDefect::Old { .. } => 0,
        HeaderDefect::Damaged(_) => 1,
        HeaderDefect::Foreign => 2,
    };
    let (copy, defect) =
        defects.into_iter().min_by_key(|(_, defect)| rank(defect)).expect("there are two copies");
    Err(match defect {
        HeaderDefect::Foreign => OpenError::NotTreering,
        HeaderDefect::Old { format_version } => OpenError::OldFormat { format_version },
        HeaderDefect::Unknown { mask, read_only_would_do } => {
            OpenError::UnknownFeatures { mask, read_only_would_do }
        }
        HeaderDefect::Damaged(what) => {
            ReadError::corrupt(Place::Header { copy }, Defect::Invalid(what)).into()
        }
    })
}

/// Every commit of which a copy of the slot is intact, newest first.
fn slots(storage: &dyn Storage, lineage: [u8; 16]) -> Result<Vec<CommitSlot>, OpenError> {
    let mut found: Vec<CommitSlot> = Vec::new();
    for copy in 0..2 {
        for place in 0..SLOT_RING {
            let page = read_page(storage, slot_offset(place, copy))?;
            let slot = CommitSlot::decode(&page, lineage);
            found.extend(slot.filter(|slot| slot.commit % SLOT_RING == place));
        }
    }
    found.sort_by_key(|slot| std::cmp::Reverse(slot.commit));
    found.dedup_by_key(|slot| slot.commit);
    Ok(found)
}

/// The error for a store without an intact slot.
pub(crate) fn no_slot() -> OpenError {
    ReadError::corrupt(Place::Slots, Defect::Invalid("no commit slot is intact")).into()
}

/// For recovery: every commit whose slot is intact and makes sense, newest first, whether or not the file is long enough
/// for it; and the newest commit that the file knows of.
pub(crate) fn intact_slots(
    storage: &dyn Storage,
    lineage: [u8; 16],
) -> Result<(Vec<CommitSlot>, u64), OpenError> {
    let hint = Hint::decode(&read_page(storage, HINT_OFFSET)?, lineage);
    let mut slots = slots(storage, lineage)?;
    let newest = slots.first().map_or(0, |slot| slot.commit);
    let newest = hint.map_or(0, |hint| hint.commit).max(newest);
    slots.retain(|slot| check_slot(slot).is_ok());
    Ok((slots, newest))
}

/// The newest commit with an intact slot. The file is checked to be long enough for it; a commit that is known to
/// have been acknowledged and whose slots are both gone is an error, never a silent fall back to an older one.
///
/// Beside a writer the pages are read while they change, and the file may have been cut for a commit newer than the one
/// found. So an error counts only if nothing has gone on meanwhile.
pub(crate) fn newest_commit(storage: &dyn Storage, lineage: [u8; 16]) -> Result<Newest, OpenError> {
    let mut seen = glance(storage, lineage)?;
    loop {
        let error = match check_newest(storage, &seen) {
            Ok(newest) => return Ok(newest),
            Err(e) => e,
        };
        let again = glance(storage, lineage)?;
        if again == seen || SeededBug::BelieveFirstGlance.is_planted() {
            return Err(error);
        }
        seen = again;
    }
}

/// The commit that the hint names, and the newest of which a slot is intact.
type Glance = (Option<u64>, Option<CommitSlot>);

fn glance(storage: &dyn Storage, lineage: [u8; 16]) -> Result<Glance, OpenError> {
    // The hint is read first: beside a busy writer the slots may then be newer, never older.
    let hint = Hint::decode(&read_page(storage, HINT_OFFSET)?, lineage);
    Ok((hint.map(|hint| hint.commit), slots(storage, lineage)?.first().copied()))
}

fn check_newest(storage: &dyn Storage, seen: &Glance) -> Result<Newest, OpenError> {
    let (acknowledged, slot) = *seen;
    let slot = slot.ok_or_else(no_slot)?;
    if acknowledged.is_some_and(|commit| commit > slot.commit)
        && !SeededBug::FallBackSilently.is_planted()
    {
        let what = Defect::Invalid("both slots of the newest acknowledged commit are damaged");
        return Err(ReadError::corrupt(Place::Slots, what).into());
    }
    check_slot(&slot)?;
    let found = storage.len()?;
    if slot.file_bytes > found || slot.file_bytes < DATA_START {
        return Err(OpenError::Truncated { found, needed: slot.file_bytes });
    }
    Ok(Newest { slot, confirmed: acknowledged == Some(slot.commit) })
}

/// What the fields of a slot must be.
fn check_slot(slot: &CommitSlot) -> Result<(), ReadError> {
    let rows = slot.roots[0].rows;
    if slot.newest_version != rows || rows > slot.file_bytes / size_of::<VersionRow>() as u64 {
        let what =
            Defect::OutOfBounds { value: slot.newest_version, limit: rows.saturating_add(1) };
        return Err(ReadError::corrupt(Place::Slots, what));
    }
    if slot.first_commit > slot.commit {
        let what = Defect::Invalid("a commit that begins after its end");
        return Err(ReadError::corrupt(Place::Slots, what));
    }
    if slot.oldest_version > slot.newest_version
        || (slot.oldest_version == 0) != (slot.newest_version == 0)
    {
        let what = Defect::Invalid("number of the oldest version does not fit that of the newest");
        return Err(ReadError::corrupt(Place::Slots, what));
    }
    Ok(())
}

/// Copies of the header, and of the newest commit's slot, that are damaged although the other copy is good. A slot's
/// copy counts only if the hint proves that both were written: a writer killed between the two leaves one as well, which
/// is no damage, and the next writer mends it.
pub(crate) fn damaged_copies(
    storage: &dyn Storage,
    slot: &CommitSlot,
) -> Result<Vec<Place>, OpenError> {
    let hint = Hint::decode(&read_page(storage, HINT_OFFSET)?, slot.store_lineage);
    let confirmed = hint.is_some_and(|hint| hint.commit == slot.commit);
    let mut damaged = Vec::new();
    for copy in 0..2 {
        if Header::decode(&read_page(storage, copy * COPY_DISTANCE)?, false).is_err() {
            damaged.push(Place::Header { copy: copy as u8 });
        }
        let page = read_page(storage, slot_offset(slot.commit, copy))?;
        // Beside a writer the place may hold a later commit by now.
        let found = CommitSlot::decode(&page, slot.store_lineage);
        if confirmed && found.is_none_or(|found| found.commit < slot.commit) {
            damaged.push(Place::Slots);
        }
    }
    Ok(damaged)
}
