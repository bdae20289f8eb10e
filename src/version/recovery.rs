//! What a store file holds, read from its headers and slots alone: the cost does not depend on the
//! file's size.

use super::ring::{Ring, SlotCopy, read_page};
use crate::arena::storage::Storage;
use crate::format::header::{Header, HeaderDefect};
use crate::format::slot::{CommitSlot, Hint};
use crate::format::version_row::VersionRow;
use crate::format::{COPY_DISTANCE, DATA_START, HINT_OFFSET, LAST_COMMIT, PAGE_BYTES, SLOT_RING};
use crate::values::error::{Corruption, Defect, OpenError, Place, ReadError, StorageError};
use crate::values::seeded_bug::SeededBug;

/// The newest commit of a store, and whether it is known to be durable.
pub(crate) struct Newest {
    pub(crate) slot: CommitSlot,
    /// False if the process that wrote the commit may have died before its last sync returned, or
    /// just after.
    pub(crate) confirmed: bool,
}

/// Why a copy of the header will not do.
enum CopyDefect {
    Header(HeaderDefect),
    Unreadable(String),
}

/// The header, from whichever copy is intact.
pub(crate) fn read_header(storage: &dyn Storage, writing: bool) -> Result<Header, OpenError> {
    let len = storage.len()?;
    if len < DATA_START {
        // Too short for a store of this format; foreign unless it begins like one.
        if len >= PAGE_BYTES as u64
            && let Ok(page) = read_page(storage, 0)?
            && let Err(HeaderDefect::Old { format_version }) = Header::decode(&page, writing)
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
    let mut defects = Vec::new();
    for copy in 0..2 {
        match read_page(storage, copy * COPY_DISTANCE)? {
            Ok(page) => match Header::decode(&page, writing) {
                Ok(header) => return Ok(header),
                Err(defect) => defects.push((copy as u8, CopyDefect::Header(defect))),
            },
            Err(why) => defects.push((copy as u8, CopyDefect::Unreadable(why))),
        }
    }
    // Neither copy will do. What a copy that is at least ours says matters most.
    let rank = |defect: &CopyDefect| match defect {
        CopyDefect::Header(HeaderDefect::Unknown { .. } | HeaderDefect::Old { .. }) => 0,
        CopyDefect::Header(HeaderDefect::Damaged(_)) => 1,
        CopyDefect::Unreadable(_) => 2,
        CopyDefect::Header(HeaderDefect::Foreign) => 3,
    };
    let (copy, defect) =
        defects.into_iter().min_by_key(|(_, defect)| rank(defect)).expect("there are two copies");
    let defect = match defect {
        CopyDefect::Header(defect) => defect,
        CopyDefect::Unreadable(why) => {
            return Err(
                ReadError::corrupt(Place::Header { copy }, Defect::Unreadable { why }).into()
            );
        }
    };
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

/// The error for a store without an intact slot.
pub(crate) fn no_slot() -> OpenError {
    ReadError::corrupt(Place::Slots, Defect::Invalid("no commit slot is intact")).into()
}

/// What a rescue can begin with.
pub(crate) struct Candidates {
    /// Every commit whose slot is intact and makes sense, newest first, whether or not the file is
    /// long enough for it.
    pub(crate) slots: Vec<CommitSlot>,
    /// The newest commit that the file knows of.
    pub(crate) known: u64,
    /// That a newer one may have been where the device cannot read, if so.
    pub(crate) doubt: Option<Corruption>,
}

/// For recovery: whatever commits there are.
pub(crate) fn candidates(
    storage: &dyn Storage,
    lineage: [u8; 16],
) -> Result<Candidates, StorageError> {
    let Ring { mut slots, hint, doubt } = Ring::read(storage, lineage)?;
    let known = slots.first().map_or(0, |slot| slot.commit).max(hint.unwrap_or(0));
    slots.retain(|slot| check_slot(slot).is_ok());
    let what = |why| Corruption { at: Place::Slots, what: Defect::Unreadable { why } };
    Ok(Candidates { slots, known, doubt: doubt.map(what) })
}

/// The newest commit with an intact slot. The file is checked to be long enough for it; a commit
/// that is known to have been acknowledged, or may have been, and whose slots are both gone is an
/// error, never a silent fall back to an older one.
///
/// Beside a writer the pages are read while they change, and the file may have been cut for a
/// commit newer than the one found. So an error counts only if nothing has gone on meanwhile.
pub(crate) fn newest_commit(storage: &dyn Storage, lineage: [u8; 16]) -> Result<Newest, OpenError> {
    let mut ring = Ring::read(storage, lineage)?;
    loop {
        let error = match newest_of(storage, &ring) {
            Ok(newest) => return Ok(newest),
            Err(e) => e,
        };
        let again = Ring::read(storage, lineage)?;
        let is_still = (again.hint, &again.slots) == (ring.hint, &ring.slots);
        if is_still || SeededBug::BelieveFirstGlance.is_planted() {
            return Err(error);
        }
        ring = again;
    }
}

fn newest_of(storage: &dyn Storage, ring: &Ring) -> Result<Newest, OpenError> {
    let Ring { slots, hint, doubt } = ring;
    if let Some(why) = doubt
        && !SeededBug::TrustUnreadablePlaces.is_planted()
    {
        let why = why.clone();
        return Err(ReadError::corrupt(Place::Slots, Defect::Unreadable { why }).into());
    }
    let slot = *slots.first().ok_or_else(no_slot)?;
    if hint.is_some_and(|commit| commit > slot.commit) && !SeededBug::FallBackSilently.is_planted()
    {
        let what = Defect::Invalid("both slots of the newest acknowledged commit are damaged");
        return Err(ReadError::corrupt(Place::Slots, what).into());
    }
    check_slot(&slot)?;
    let found = storage.len()?;
    if slot.file_bytes > found || slot.file_bytes < DATA_START {
        return Err(OpenError::Truncated { found, needed: slot.file_bytes });
    }
    Ok(Newest { slot, confirmed: *hint == Some(slot.commit) })
}

/// What the fields of a slot must be.
fn check_slot(slot: &CommitSlot) -> Result<(), ReadError> {
    let rows = slot.roots[0].rows;
    if slot.newest_version != rows || rows > slot.file_bytes / size_of::<VersionRow>() as u64 {
        let what =
            Defect::OutOfBounds { value: slot.newest_version, limit: rows.saturating_add(1) };
        return Err(ReadError::corrupt(Place::Slots, what));
    }
    if slot.commit > LAST_COMMIT {
        let what = Defect::OutOfBounds { value: slot.commit, limit: LAST_COMMIT + 1 };
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

/// What is wrong with the pages that are kept twice although the other copy, or none, will do:
/// copies that the device cannot read, and of the header and the newest commit's slot those that
/// are damaged. A slot's damaged copy counts only if the hint proves that both were written: a
/// writer killed between the two leaves one as well, which is no damage, and the next writer mends
/// it.
pub(crate) fn damaged_copies(
    storage: &dyn Storage,
    slot: &CommitSlot,
) -> Result<Vec<Corruption>, StorageError> {
    let lineage = slot.store_lineage;
    let mut found = Vec::new();
    let mut unreadable = |at, why| found.push(Corruption { at, what: Defect::Unreadable { why } });
    let mut damaged = Vec::new();
    let hint = match read_page(storage, HINT_OFFSET)? {
        Ok(page) => Hint::decode(&page, lineage).map(|hint| hint.commit),
        Err(why) => {
            unreadable(Place::Hint, why);
            None
        }
    };
    for copy in 0..2 {
        let at = Place::Header { copy: copy as u8 };
        match read_page(storage, copy * COPY_DISTANCE)? {
            Ok(page) => damaged.extend(Header::decode(&page, false).is_err().then_some(at)),
            Err(why) => unreadable(at, why),
        }
        for place in 0..SLOT_RING {
            let is_newest = place == slot.commit % SLOT_RING;
            match SlotCopy::read(storage, lineage, place, copy)? {
                SlotCopy::Unreadable(why) => unreadable(Place::Slots, why),
                // Beside a writer the place may hold a later commit by now.
                SlotCopy::Intact(found) if found.commit >= slot.commit => {}
                _ if is_newest && hint == Some(slot.commit) => damaged.push(Place::Slots),
                _ => {}
            }
        }
    }
    let what = Defect::Invalid("one of the two copies is damaged; the other is in use");
    found.extend(damaged.into_iter().map(|at| Corruption { at, what: what.clone() }));
    Ok(found)
}
