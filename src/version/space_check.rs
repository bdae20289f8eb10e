//! Whether the accounts of space are right: what is marked in use is exactly what somebody refers
//! to, and nothing has two owners.
//!
//! Follows every table of the state and of the retained versions, reads no segment, and visits what
//! versions share once: a version's pieces are those that none of its earlier neighbours in the
//! [`SharingGraph`] has. A piece that is met again all the same is shared by versions that expiry
//! does not know to share it, and would be freed under one of them. So this also proves what expiry
//! relies on. Costs the tables, and memory in proportion to the pieces that are there.

use std::collections::BTreeMap;

use super::accounts::Accounts;
use super::database::Database;
use super::sharing_graph::{SharingGraph, VersionSummary};
use super::table::{Table, Visit};
use crate::format::DATA_START;
use crate::format::arrays::{Array, DATA_ARRAYS, Entry};
use crate::format::checksum::Origin;
use crate::values::error::{Corruption, Defect, Invariant, Place, ReadError};

/// More problems than this are one problem.
const MOST_PROBLEMS: usize = 20;

/// Bytes that somebody refers to.
#[derive(Clone, Copy)]
struct Owned {
    address: u64,
    bytes: u64,
    owner: Owner,
}

#[derive(Clone, Copy)]
enum Owner {
    Preamble,
    /// Listed or held as retired.
    Retired,
    /// Of a version, or of the state (0).
    Piece {
        origin: Origin,
        version: u64,
    },
}

impl Owner {
    fn name(&self) -> String {
        match self {
            Owner::Preamble => "the preamble".to_string(),
            Owner::Retired => "space that is out of use".to_string(),
            Owner::Piece { origin, version } => {
                let what = if origin.level == 0 { "segment" } else { "table node" };
                let array = origin.array.name();
                let of = match version {
                    0 => "the store state".to_string(),
                    version => format!("version {version}"),
                };
                format!("{what} {} of array `{array}` of {of}", origin.index)
            }
        }
    }

    fn place(&self, address: u64) -> Place {
        match self {
            Owner::Preamble => Place::Slots,
            Owner::Retired => Place::Row { array: Array::Freed.name(), row: 0 },
            Owner::Piece { origin, .. } => origin.place(&Entry { address, ..Entry::default() }),
        }
    }
}

/// What is wrong with the accounts of space; nothing, if all is well. What cannot be read is an
/// error.
pub(crate) fn check_space(db: &Database) -> Result<Vec<Corruption>, ReadError> {
    let Accounts { slot, history, map, retired, state } = db.accounts()?;
    let mut owned = vec![Owned { address: 0, bytes: DATA_START, owner: Owner::Preamble }];
    owned.extend(retired.iter().map(|row| Owned {
        address: row.address,
        bytes: row.bytes,
        owner: Owner::Retired,
    }));
    owned.extend(state.iter().map(|(origin, entry)| piece(*origin, entry, 0)));
    let mut family =
        SharingGraph::new(&history.rows.iter().map(VersionSummary::of).collect::<Vec<_>>());
    for row in history.rows.iter().filter(|row| !row.is_expired()) {
        let neighbours = family.neighbours(row.version);
        for &array in &Array::ALL[..DATA_ARRAYS] {
            let earlier = neighbours.range(..row.version);
            let others: Vec<Table> =
                earlier.map(|&version| db.data_table(array, &history.row(version).roots)).collect();
            let table = db.data_table(array, &row.roots);
            table.walk_unshared(&others, &mut |entry, visit| {
                owned.push(piece(visit.origin(array), entry, row.version));
            })?;
        }
    }
    owned.sort_by_key(|owned| (owned.address, owned.bytes));
    let mut problems = overlaps(&owned);
    if problems.is_empty() {
        let mut used = BTreeMap::new();
        let mut at = 0;
        for (free, bytes) in map.free_runs(0, map.used_end()) {
            used.insert(at, free);
            at = free + bytes;
        }
        used.insert(at, map.used_end());
        problems = differences(&owned, &used);
    }
    if problems.is_empty() && map.used_end() > slot.file_bytes {
        let what = broken("blocks in use lie beyond the end of the file".to_string());
        problems.push(Corruption { at: Place::Slots, what });
    }
    problems.truncate(MOST_PROBLEMS);
    Ok(problems)
}

fn piece(origin: Origin, entry: &Entry, version: u64) -> Owned {
    let owner = Owner::Piece { origin, version };
    Owned { address: entry.address, bytes: entry.bytes.into(), owner }
}

fn broken(what: String) -> Defect {
    Defect::Invariant { invariant: Invariant::Space, what }
}

/// Pairs that have bytes in common.
fn overlaps(owned: &[Owned]) -> Vec<Corruption> {
    let mut found = Vec::new();
    let mut last = owned[0];
    for next in &owned[1..] {
        if next.address < last.address + last.bytes && found.len() < MOST_PROBLEMS {
            let (a, b) = (next.owner.name(), last.owner.name());
            let what = broken(format!(
                "bytes {} to {} belong to two: {a}, and {b}",
                next.address,
                next.address + next.bytes
            ));
            found.push(Corruption { at: next.owner.place(next.address), what });
        }
        if next.address + next.bytes > last.address + last.bytes {
            last = *next;
        }
    }
    found
}

/// Where what is owned and what is marked differ. `used`: first and last byte (exclusive) of the
/// ranges that are marked.
fn differences(owned: &[Owned], used: &BTreeMap<u64, u64>) -> Vec<Corruption> {
    let mut found = Vec::new();
    let mut tell = |at: Place, what: String| {
        found.push(Corruption { at, what: broken(what) });
    };
    for part in owned {
        let range = used.range(..=part.address).next_back();
        if range.is_none_or(|(_, &end)| end < part.address + part.bytes) {
            let what = format!("marked as free, though it is {}", part.owner.name());
            tell(part.owner.place(part.address), what);
        }
    }
    let mut next = 0;
    for (&start, &end) in used {
        let mut at = start;
        while at < end {
            // Everything owned that begins before has been passed.
            let until = owned.get(next).map_or(end, |part| part.address.min(end));
            if until > at {
                let row = at / 64;
                let what = format!("bytes {at} to {until} are marked in use, and nothing is there");
                tell(Place::Row { array: Array::FreeMap.name(), row }, what);
                at = until;
            } else {
                at = owned[next].address + owned[next].bytes;
                next += 1;
            }
        }
    }
    found
}

/// Every segment and table node of the tables of the state.
pub(super) fn state_pieces(
    db: &Database,
    slot: &crate::format::slot::CommitSlot,
) -> Result<Vec<(Origin, Entry)>, ReadError> {
    let mut found = Vec::new();
    for &array in &Array::ALL[DATA_ARRAYS..] {
        db.state_table(slot, array).walk_unshared(&[], &mut |entry, visit: Visit| {
            found.push((visit.origin(array), *entry));
        })?;
    }
    Ok(found)
}
