//! From id to slot: immutable sorted runs, newest first to win, merged geometrically as far as a
//! batch can bear: after many small batches there are some dozens.
//!
//! A run is cut into *pieces*. A stretch of ids that are consecutive, or nearly so, is dense: one
//! slot number per id, no keys. Everything else is sparse: sorted keys and their slots. A point
//! that moves gets a new entry in a newer run. An entry may name a slot that is no longer live; the
//! caller looks at the tombstone.

use rayon::prelude::*;

use super::columns::Tree;
use crate::format::rows::{IndexPieceRow, IndexRunRow, NONE};
use crate::values::error::ReadError;
use crate::values::ids::PointId;

/// A stretch of at least this many ids is stored dense if no gap in it exceeds [`DENSE_GAP`]. So is
/// every stretch of a run with fewer ids, however short: a batch of a few points then does not
/// touch the array of keys at all.
const DENSE_IDS: usize = 32;

/// A hole costs 4 bytes, a sparse key 8 more than a dense slot: up to two holes per id pay.
const DENSE_GAP: u64 = 3;

/// A run is merged with newer ones until it has more than this many times their entries.
const MERGE_RATIO: u64 = 3;

/// But nothing is merged into a run of more entries than the greatest of these: so many times those
/// of the batch, one in so many of the whole index, and so many. So no batch pays for all before
/// it, and the number of runs grows with the logarithm of the index.
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
            check_id(tree, slot, id)?;
            Ok(Some(slot))
        }
        _ => Ok(None),
    }
}

/// More runs than merging ever leaves: those of more than one in [`MERGED_PART`] of all entries are
/// no more than that, and of the smaller ones each is several times as long as the next.
const MOST_RUNS: usize = 1024;

fn runs(tree: &Tree) -> Result<Vec<IndexRunRow>, ReadError> {
    let mut runs = Vec::new();
    for row in 0..tree.index_runs.len() {
        let run = tree.index_runs.get(row)?;
        if run.entries == 0 {
            break;
        }
        if runs.len() == MOST_RUNS {
            return Err(ReadError::row("index_runs", row, "more runs than a store has"));
        }
        runs.push(run);
    }
    Ok(runs)
}

/// Calls `f` with each id in a run that only one of two states of an index has. Runs and pieces
/// that both have must be the same, row for row.
pub(crate) fn for_changed_runs(
    old: &Tree,
    new: &Tree,
    mut f: impl FnMut(PointId),
) -> Result<(), ReadError> {
    let (before, after) = (runs(old)?, runs(new)?);
    let common = before.iter().zip(&after).take_while(|(before, after)| before == after).count();
    for (tree, runs) in [(old, &before[common..]), (new, &after[common..])] {
        let mut left = tree.index_slots.len();
        for run in runs {
            let mut cursor = Cursor::new(run);
            while let Some((id, _)) = cursor.next(tree, &mut left)? {
                f(id);
            }
        }
    }
    Ok(())
}

/// Calls `f` with id and slot of each live point, by ascending id. Needs memory for a few entries
/// of each run.
pub(crate) fn for_each_live(
    tree: &Tree,
    mut f: impl FnMut(PointId, u32) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    // Newest first, so that the first of those with the same id is the one that counts.
    let mut cursors: Vec<Cursor> = runs(tree)?.iter().rev().map(Cursor::new).collect();
    let mut heads: Vec<Option<(PointId, u32)>> = Vec::with_capacity(cursors.len());
    let mut left = tree.index_slots.len();
    for cursor in &mut cursors {
        heads.push(cursor.next(tree, &mut left)?);
    }
    while let Some(id) = heads.iter().flatten().map(|entry| entry.0).min() {
        let mut newest = None;
        for (head, cursor) in heads.iter_mut().zip(&mut cursors) {
            if let Some((_, slot)) = head.filter(|entry| entry.0 == id) {
                newest.get_or_insert(slot);
                *head = cursor.next(tree, &mut left)?;
            }
        }
        let slot = newest.expect("some entry has the least id");
        if tree.is_live(slot)? {
            check_id(tree, slot, id)?;
            f(id, slot)?;
        }
    }
    Ok(())
}

fn check_id(tree: &Tree, slot: u32, id: PointId) -> Result<(), ReadError> {
    match tree.ids.get(slot as u64)? == id {
        true => Ok(()),
        false => Err(ReadError::row("index_slots", slot as u64, "slot of another id")),
    }
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

/// Adds entries, which win over all older ones. Ids must be distinct. Costs O(n log n) for n
/// entries, O(n) if they come by ascending id, and amortised O(log N) rewrites of each of the N
/// entries there are.
pub(crate) fn insert(
    tree: &mut Tree,
    entries: impl ExactSizeIterator<Item = (PointId, u32)> + Clone,
) -> Result<(), ReadError> {
    let count = entries.len() as u64;
    if entries.clone().is_sorted_by_key(|entry| entry.0) {
        return insert_sorted(tree, count, entries.map(Ok), |_| Ok(()));
    }
    let mut entries: Vec<(PointId, u32)> = entries.collect();
    entries.par_sort_unstable_by_key(|entry| entry.0);
    insert_sorted(tree, count, entries.into_iter().map(Ok), |_| Ok(()))
}

/// Like [`insert`], for `count` entries by ascending id that need not be in memory; neither are
/// those merged with them. `pause` is called now and then, so that what has been written can be got
/// rid of.
pub(crate) fn insert_sorted<E: From<ReadError>>(
    tree: &mut Tree,
    count: u64,
    entries: impl Iterator<Item = Result<(PointId, u32), E>>,
    mut pause: impl FnMut(&mut Tree) -> Result<(), E>,
) -> Result<(), E> {
    if count == 0 {
        return Ok(());
    }
    let mut runs = runs(tree)?;
    let mut total = count;
    let all = runs.iter().fold(total, |sum, run| sum.saturating_add(run.entries));
    let most = total.saturating_mul(MERGED_PER_ENTRY).max(all / MERGED_PART).max(MERGED_ENTRIES);
    let mut keep = runs.len();
    while keep > 0 && runs[keep - 1].entries <= total.saturating_mul(MERGE_RATIO).min(most - total)
    {
        keep -= 1;
        total = total.saturating_add(runs[keep].entries);
    }
    // Newest first, so that the first of those with the same id is the one that counts.
    let mut older: Vec<Cursor> = runs[keep..].iter().rev().map(Cursor::new).collect();
    let mut heads: Vec<Option<(PointId, u32)>> = Vec::with_capacity(older.len());
    // No row of a slot is in two pieces.
    let mut left = tree.index_slots.len();
    for cursor in &mut older {
        heads.push(cursor.next(tree, &mut left)?);
    }
    let mut entries = entries;
    let mut new = entries.next().transpose()?;
    let mut writer = RunWriter::new(tree);
    while older.is_empty()
        && let Some((id, slot)) = new
    {
        if writer.push(tree, id, slot)? {
            pause(tree)?;
        }
        new = entries.next().transpose()?;
    }
    loop {
        let least = heads.iter().chain([&new]).flatten().map(|entry| entry.0).min();
        let Some(id) = least else {
            break;
        };
        let mut slot = None;
        if let Some((_, newest)) = new.filter(|entry| entry.0 == id) {
            slot = Some(newest);
            new = entries.next().transpose()?;
        }
        for (head, cursor) in heads.iter_mut().zip(&mut older) {
            if let Some((_, older)) = head.filter(|entry| entry.0 == id) {
                slot.get_or_insert(older);
                *head = cursor.next(tree, &mut left)?;
            }
        }
        if writer.push(tree, id, slot.expect("some entry has the least id"))? {
            pause(tree)?;
        }
    }
    runs.truncate(keep);
    runs.push(writer.finish(tree)?);
    Ok(set_runs(tree, &runs)?)
}

/// Writes the list of runs; rows that are no longer needed say so.
fn set_runs(tree: &mut Tree, runs: &[IndexRunRow]) -> Result<(), ReadError> {
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

/// Entries that are read, or held back before they are written, at a time.
const BATCH: usize = 4096;

/// The entries of a run, by id.
struct Cursor {
    /// Pieces left.
    pieces: std::ops::Range<u64>,
    piece: IndexPieceRow,
    /// Rows of `piece` that have been read.
    done: u64,
    batch: std::vec::IntoIter<(PointId, u32)>,
    last: Option<PointId>,
}

impl Cursor {
    fn new(run: &IndexRunRow) -> Self {
        let end = run.piece_start.saturating_add(run.piece_count);
        Cursor {
            pieces: run.piece_start..end,
            piece: IndexPieceRow::default(),
            done: 0,
            batch: Vec::new().into_iter(),
            last: None,
        }
    }

    /// The next entry. `left`: rows of `index_slots` that pieces have not taken yet.
    fn next(&mut self, tree: &Tree, left: &mut u64) -> Result<Option<(PointId, u32)>, ReadError> {
        loop {
            if let Some(entry) = self.batch.next() {
                // What is written relies on this, and pieces can say anything.
                if self.last.is_some_and(|last| last >= entry.0) {
                    let what = "ids of a run do not ascend, or pieces overlap";
                    return Err(ReadError::row("index_pieces", self.pieces.start - 1, what));
                }
                self.last = Some(entry.0);
                return Ok(Some(entry));
            }
            if self.done == self.piece.count {
                let Some(row) = self.pieces.next() else {
                    return Ok(None);
                };
                self.piece = tree.index_pieces.get(row)?;
                *left = left.checked_sub(self.piece.count).ok_or_else(|| {
                    ReadError::row("index_pieces", row, "pieces have more slots than there are")
                })?;
                self.done = 0;
            }
            self.batch = self.read(tree)?.into_iter();
        }
    }

    fn read(&mut self, tree: &Tree) -> Result<Vec<(PointId, u32)>, ReadError> {
        let IndexPieceRow { first_id, count, slot_start, key_start, sparse, .. } = self.piece;
        let now = (count - self.done).min(BATCH as u64);
        let mut slots = Vec::with_capacity(now as usize);
        tree.index_slots.copy_chunks(slot_start.saturating_add(self.done), now, |_, chunk| {
            slots.extend_from_slice(chunk)
        })?;
        let mut entries = Vec::with_capacity(now as usize);
        if sparse == 0 {
            // Not a range of ids: it could not end at the largest.
            let ids = (self.done..).map(|i| first_id.wrapping_add(i));
            entries.extend(ids.zip(slots).filter(|&(_, slot)| slot != NONE));
        } else {
            let mut slots = slots.into_iter();
            tree.index_keys.copy_chunks(key_start.saturating_add(self.done), now, |_, chunk| {
                entries.extend(chunk.iter().copied().zip(&mut slots))
            })?;
        }
        self.done += now;
        Ok(entries)
    }
}

/// Appends a run, entry by entry.
struct RunWriter {
    piece_start: u64,
    entries: u64,
    /// The last entries, as long as it is open whether they are worth a dense piece.
    stretch: Vec<(PointId, u32)>,
    /// Piece that is being written. Its `count` grows.
    open: Option<IndexPieceRow>,
    last_id: PointId,
    keys: Vec<u64>,
    slots: Vec<u32>,
}

impl RunWriter {
    fn new(tree: &Tree) -> Self {
        RunWriter {
            piece_start: tree.index_pieces.len(),
            entries: 0,
            stretch: Vec::new(),
            open: None,
            last_id: 0,
            keys: Vec::new(),
            slots: Vec::new(),
        }
    }

    /// Adds the next entry. True if something was written.
    fn push(&mut self, tree: &mut Tree, id: PointId, slot: u32) -> Result<bool, ReadError> {
        if self.entries > 0 && id <= self.last_id {
            // Two live slots of one id, of which the index knew one.
            return Err(ReadError::row("ids", slot.into(), "an id is live in two slots"));
        }
        let goes_on = self.entries > 0 && id - self.last_id <= DENSE_GAP;
        self.entries += 1;
        match &mut self.open {
            Some(piece) if piece.sparse == 0 && goes_on => {
                let holes = (id - self.last_id - 1) as usize;
                self.slots.resize(self.slots.len() + holes, NONE);
                self.slots.push(slot);
                piece.count += holes as u64 + 1;
            }
            _ => {
                // While there are fewer entries in all, it is not known yet whether the run is
                // short.
                if !goes_on && self.entries > DENSE_IDS as u64 {
                    self.settle_stretch(tree)?;
                }
                self.stretch.push((id, slot));
                if self.entries == DENSE_IDS as u64 {
                    self.settle_beginning(tree)?;
                } else if self.entries > DENSE_IDS as u64 && self.stretch.len() == DENSE_IDS {
                    self.make_dense(tree)?;
                }
            }
        }
        self.last_id = id;
        let due = self.slots.len() >= BATCH;
        if due {
            self.flush(tree)?;
        }
        Ok(due)
    }

    /// The run is not short: its first entries are taken as stretches of their own right.
    fn settle_beginning(&mut self, tree: &mut Tree) -> Result<(), ReadError> {
        let first = std::mem::take(&mut self.stretch);
        for (id, slot) in first {
            if self.stretch.last().is_some_and(|last| id - last.0 > DENSE_GAP) {
                self.settle_stretch(tree)?;
            }
            self.stretch.push((id, slot));
        }
        match self.stretch.len() == DENSE_IDS {
            true => self.make_dense(tree),
            false => Ok(()),
        }
    }

    /// The stretch has ended: it is dense already, or sparse.
    fn settle_stretch(&mut self, tree: &mut Tree) -> Result<(), ReadError> {
        if self.open.is_some_and(|piece| piece.sparse == 0) {
            self.close(tree)?;
        }
        for (id, slot) in std::mem::take(&mut self.stretch) {
            let piece = self.open.get_or_insert(IndexPieceRow {
                first_id: id,
                count: 0,
                slot_start: tree.index_slots.len() + self.slots.len() as u64,
                key_start: tree.index_keys.len() + self.keys.len() as u64,
                sparse: 1,
                reserved: 0,
            });
            piece.count += 1;
            self.keys.push(id);
            self.slots.push(slot);
        }
        Ok(())
    }

    /// The stretch begins a dense piece.
    fn make_dense(&mut self, tree: &mut Tree) -> Result<(), ReadError> {
        self.close(tree)?;
        let stretch = std::mem::take(&mut self.stretch);
        let first_id = stretch[0].0;
        let slot_start = tree.index_slots.len() + self.slots.len() as u64;
        let before = self.slots.len();
        for (id, slot) in stretch {
            self.slots.resize(before + (id - first_id) as usize, NONE);
            self.slots.push(slot);
        }
        let count = (self.slots.len() - before) as u64;
        self.open = Some(IndexPieceRow {
            first_id,
            count,
            slot_start,
            key_start: 0,
            sparse: 0,
            reserved: 0,
        });
        Ok(())
    }

    fn close(&mut self, tree: &mut Tree) -> Result<(), ReadError> {
        match self.open.take() {
            Some(piece) => tree.index_pieces.push(&[piece]),
            None => Ok(()),
        }
    }

    fn flush(&mut self, tree: &mut Tree) -> Result<(), ReadError> {
        tree.index_keys.push(&self.keys)?;
        tree.index_slots.push(&self.slots)?;
        self.keys.clear();
        self.slots.clear();
        Ok(())
    }

    fn finish(mut self, tree: &mut Tree) -> Result<IndexRunRow, ReadError> {
        if self.entries < DENSE_IDS as u64 {
            // A short run: every stretch is dense.
            let mut rest = std::mem::take(&mut self.stretch).into_iter().peekable();
            while let Some(entry) = rest.next() {
                self.stretch.push(entry);
                if rest.peek().is_none_or(|next| next.0 - entry.0 > DENSE_GAP) {
                    self.make_dense(tree)?;
                }
            }
        } else {
            self.settle_stretch(tree)?;
        }
        self.close(tree)?;
        self.flush(tree)?;
        Ok(IndexRunRow {
            piece_start: self.piece_start,
            piece_count: tree.index_pieces.len() - self.piece_start,
            entries: self.entries,
        })
    }
}
