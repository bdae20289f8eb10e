//! From id to slot: a few immutable sorted runs, newest first to win, merged geometrically.
//!
//! A run is cut into *pieces*. A stretch of ids that are consecutive, or nearly so, is dense: one slot number per id,
//! no keys. Everything else is sparse: sorted keys and their slots. A point that moves gets a new entry in a newer run.
//! An entry may name a slot that is no longer live; the caller looks at the tombstone.

use rayon::prelude::*;

use super::columns::Tree;
use crate::error::ReadError;
use crate::format::rows::{IndexPieceRow, IndexRunRow, NONE};
use crate::ids::PointId;

/// A stretch of at least this many ids is stored dense if no gap in it exceeds [`DENSE_GAP`]. So is every stretch of a
/// run with fewer ids, however short: a batch of a few points then does not touch the array of keys at all.
const DENSE_IDS: usize = 32;

/// A hole costs 4 bytes, a sparse key 8 more than a dense slot: up to two holes per id pay.
const DENSE_GAP: u64 = 3;

/// A run is merged with newer ones until it has more than this many times their entries.
const MERGE_RATIO: u64 = 3;

/// But nothing is merged into a run of more entries than the greatest of these: so many times those of the batch, one in
/// so many of the whole index, and so many. So no batch pays for all before it, and there are never many runs.
const MERGED_PER_ENTRY: u64 = 2;
const MERGED_PART: u64 = 32;
const MERGED_ENTRIES: u64 = 1 << 15;

/// The slot that the newest entry for `id` names.
pub(crate) fn find(tree: &Tree, id: PointId) -> Result<Option<u32>, ReadError> {
    for run in runs(tree)?.iter().rev() {
        if let Some(slot) = find_in_run(tree, run, id)? {
            return Ok(Some(slot));
        }
    }
    Ok(None)
}

/// The slot of the live point with this id.
pub(crate) fn find_live(tree: &Tree, id: PointId) -> Result<Option<u32>, ReadError> {
    match find(tree, id)? {
        Some(slot) if tree.is_live(slot)? => {
            if tree.ids.get(slot as u64)? != id {
                return Err(ReadError::row("index_slots", slot as u64, "slot of another id"));
            }
            Ok(Some(slot))
        }
        _ => Ok(None),
    }
}

fn runs(tree: &Tree) -> Result<Vec<IndexRunRow>, ReadError> {
    let mut runs = Vec::new();
    tree.index_runs.for_chunks(0, tree.index_runs.len(), |_, chunk| {
        runs.extend(chunk.iter().take_while(|run| run.entries > 0));
    })?;
    Ok(runs)
}

fn find_in_run(tree: &Tree, run: &IndexRunRow, id: PointId) -> Result<Option<u32>, ReadError> {
    let end = run.piece_start.saturating_add(run.piece_count);
    let after =
        partition(run.piece_start, end, |row| Ok(tree.index_pieces.get(row)?.first_id <= id))?;
    if after == run.piece_start {
        return Ok(None);
    }
    let piece = tree.index_pieces.get(after - 1)?;
    let position = if piece.sparse == 0 {
        id - piece.first_id
    } else {
        let end = piece.key_start.saturating_add(piece.count);
        let at = partition(piece.key_start, end, |row| Ok(tree.index_keys.get(row)? < id))?;
        if at == end || tree.index_keys.get(at)? != id {
            return Ok(None);
        }
        at - piece.key_start
    };
    if position >= piece.count {
        return Ok(None);
    }
    let slot = tree.index_slots.get(piece.slot_start.saturating_add(position))?;
    Ok((slot != NONE).then_some(slot))
}

/// The first row of `low..high` for which `before` is false.
fn partition(
    mut low: u64,
    mut high: u64,
    before: impl Fn(u64) -> Result<bool, ReadError>,
) -> Result<u64, ReadError> {
    while low < high {
        let middle = low.midpoint(high);
        match before(middle)? {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    Ok(low)
}

/// Adds entries, which win over all older ones. Ids must be distinct. Costs O(n log n) for n entries, and amortised
/// O(log N) rewrites of each of the N entries there are.
pub(crate) fn insert(tree: &mut Tree, entries: Vec<(PointId, u32)>) -> Result<(), ReadError> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut runs = runs(tree)?;
    let mut total = entries.len() as u64;
    let all = runs.iter().fold(total, |sum, run| sum.saturating_add(run.entries));
    let most = total.saturating_mul(MERGED_PER_ENTRY).max(all / MERGED_PART).max(MERGED_ENTRIES);
    let mut keep = runs.len();
    while keep > 0 && runs[keep - 1].entries <= total.saturating_mul(MERGE_RATIO).min(most - total)
    {
        keep -= 1;
        total = total.saturating_add(runs[keep].entries);
    }
    // Oldest first; a stable sort by id then leaves the newest entry of each id last.
    let mut merged = Vec::new();
    for run in &runs[keep..] {
        read_run(tree, run, &mut merged)?;
    }
    merged.extend(entries);
    merged.par_sort_by_key(|entry| entry.0);
    let mut kept = 0;
    for i in 0..merged.len() {
        if i + 1 == merged.len() || merged[i + 1].0 != merged[i].0 {
            merged[kept] = merged[i];
            kept += 1;
        }
    }
    merged.truncate(kept);
    runs.truncate(keep);
    runs.push(write_run(tree, &merged)?);
    for (i, run) in runs.iter().enumerate() {
        match (i as u64) < tree.index_runs.len() {
            true => tree.index_runs.set(i as u64, *run)?,
            false => tree.index_runs.push(&[*run])?,
        }
    }
    for i in runs.len() as u64..tree.index_runs.len() {
        tree.index_runs.set(i, IndexRunRow::default())?;
    }
    Ok(())
}

fn read_run(
    tree: &Tree,
    run: &IndexRunRow,
    out: &mut Vec<(PointId, u32)>,
) -> Result<(), ReadError> {
    for row in run.piece_start..run.piece_start.saturating_add(run.piece_count) {
        let piece = tree.index_pieces.get(row)?;
        let mut slots = Vec::new();
        tree.index_slots
            .for_chunks(piece.slot_start, piece.count, |_, chunk| slots.extend_from_slice(chunk))?;
        if piece.sparse == 0 {
            // Not a range of ids: it could not end at the largest.
            let entries = (0..).map(|i| piece.first_id.wrapping_add(i)).zip(slots);
            out.extend(entries.filter(|&(_, slot)| slot != NONE));
        } else {
            let mut slots = slots.into_iter();
            tree.index_keys.for_chunks(piece.key_start, piece.count, |_, chunk| {
                out.extend(chunk.iter().copied().zip(&mut slots))
            })?;
        }
    }
    Ok(())
}

/// Appends a run made of `entries`, which are sorted by id.
fn write_run(tree: &mut Tree, entries: &[(PointId, u32)]) -> Result<IndexRunRow, ReadError> {
    let piece_start = tree.index_pieces.len();
    let mut sparse_start = 0;
    let mut start = 0;
    while start < entries.len() {
        let mut end = start + 1;
        while end < entries.len() && entries[end].0 - entries[end - 1].0 <= DENSE_GAP {
            end += 1;
        }
        if end - start >= DENSE_IDS || entries.len() < DENSE_IDS {
            write_sparse(tree, &entries[sparse_start..start])?;
            write_dense(tree, &entries[start..end])?;
            sparse_start = end;
        }
        start = end;
    }
    write_sparse(tree, &entries[sparse_start..])?;
    Ok(IndexRunRow {
        piece_start,
        piece_count: tree.index_pieces.len() - piece_start,
        entries: entries.len() as u64,
    })
}

fn write_dense(tree: &mut Tree, entries: &[(PointId, u32)]) -> Result<(), ReadError> {
    let first_id = entries[0].0;
    let mut slots = Vec::with_capacity(entries.len());
    for &(id, slot) in entries {
        slots.resize((id - first_id) as usize, NONE);
        slots.push(slot);
    }
    let slot_start = tree.index_slots.len();
    tree.index_slots.push(&slots)?;
    let count = slots.len() as u64;
    let piece = IndexPieceRow { first_id, count, slot_start, key_start: 0, sparse: 0, reserved: 0 };
    tree.index_pieces.push(&[piece])
}

fn write_sparse(tree: &mut Tree, entries: &[(PointId, u32)]) -> Result<(), ReadError> {
    let Some(&(first_id, _)) = entries.first() else {
        return Ok(());
    };
    let piece = IndexPieceRow {
        first_id,
        count: entries.len() as u64,
        slot_start: tree.index_slots.len(),
        key_start: tree.index_keys.len(),
        sparse: 1,
        reserved: 0,
    };
    let (keys, slots): (Vec<u64>, Vec<u32>) = entries.iter().copied().unzip();
    tree.index_keys.push(&keys)?;
    tree.index_slots.push(&slots)?;
    tree.index_pieces.push(&[piece])
}
