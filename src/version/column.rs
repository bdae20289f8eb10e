//! A logical array as typed rows: read through the table on first touch, changed in private copies
//! of its segments.
//!
//! One type serves snapshots and transactions. A snapshot never changes a column; a transaction
//! works on columns of its own, and [`super::commit`] writes their changed segments. Segment
//! translation is paid once per run of rows: [`Column::chunk`] returns the longest slice that one
//! segment holds.
//!
//! A transaction larger than memory writes segments early, see [`super::early`]. Such a segment is
//! read through the map again if it is needed; changed again, it goes elsewhere, so that no mapped
//! byte ever changes.
//!
//! Invariant: what gets a fresh checksum was compared with its old one as it was copied, however
//! often it passed before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use rayon::prelude::*;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::cells::Cells;
use super::divisor::Divisor;
use super::table::{Table, Visit};
use crate::arena::cast::{Typed, prefetch, prefetch_lines};
use crate::arena::watch::Watch;
use crate::arena::{Access, Arena};
use crate::format::arrays::{ArrayRoot, ArraySpec, Entry};
use crate::values::error::{Defect, Place, ReadError};
use crate::values::seeded_bug::SeededBug;

/// What a record of a column must be.
pub(crate) trait Record: FromBytes + IntoBytes + Immutable + Copy + Send + Sync {}
impl<T: FromBytes + IntoBytes + Immutable + Copy + Send + Sync> Record for T {}

/// Fewer records than this are not worth another thread.
const PARALLEL_ROWS: usize = 1 << 15;

enum Segment<T> {
    /// As committed.
    Shared(Typed<T>),
    /// Changed or new: the used rows.
    Own(Vec<T>),
}

impl<T> std::ops::Deref for Segment<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Segment::Shared(typed) => typed,
            Segment::Own(rows) => rows,
        }
    }
}

/// A segment in the file to which no commit refers yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) address: u64,
    /// Number of the commit that will refer to it.
    pub(crate) birth: u64,
    pub(crate) crc: u32,
    /// Stored length.
    pub(crate) bytes: u32,
}

impl Written {
    /// As the commit will refer to it.
    pub(crate) fn entry(&self) -> Entry {
        Entry { address: self.address, birth: self.birth, crc: self.crc, bytes: self.bytes }
    }
}

/// Rows of `width` records of type `T` each.
pub(crate) struct Column<T> {
    table: Table,
    /// Told of what is mapped.
    watch: Option<Arc<Watch>>,
    width: usize,
    rows: u64,
    per_segment: Divisor,
    segments: Cells<Segment<T>>,
    /// Segments in memory that differ from what the file has.
    changed: BTreeSet<u64>,
    /// Segments that the transaction has written already, those changed again since included.
    written: BTreeMap<u64, Written>,
    /// Segments copied before they were changed, and their bytes.
    copied: (u64, u64),
    /// Segments that [`Column::check_copied`] has seen.
    rechecked: Mutex<BTreeSet<u64>>,
}

impl<T: Record> Column<T> {
    /// The array as `root` has it. Nothing is read; a root that claims more than the file has is
    /// refused, see [`Table::check_claim`].
    pub(crate) fn new(
        arena: Arc<Arena>,
        spec: ArraySpec,
        root: ArrayRoot,
        access: Access,
    ) -> Result<Self, ReadError> {
        let table = Table { arena, spec, root, access };
        table.check_claim()?;
        Ok(Column {
            width: spec.row_bytes / size_of::<T>(),
            per_segment: Divisor::new(spec.rows_per_segment),
            rows: root.rows,
            segments: Cells::new(spec.segments(root.rows) as usize)?,
            table,
            watch: None,
            changed: BTreeSet::new(),
            written: BTreeMap::new(),
            copied: (0, 0),
            rechecked: Mutex::default(),
        })
    }

    /// The same; `watch` is told of what is mapped.
    pub(crate) fn watched(self, watch: &Arc<Watch>) -> Self {
        Column { watch: Some(watch.clone()), ..self }
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> u64 {
        self.rows
    }

    /// Segments and bytes copied so far because a committed segment was changed.
    pub(crate) fn copied(&self) -> (u64, u64) {
        self.copied
    }

    /// The rows of a segment, fetched and verified on first touch.
    #[inline(always)]
    fn segment(&self, segment: usize) -> Result<&[T], ReadError> {
        match self.segments.get(segment) {
            Some(rows) => Ok(rows),
            None => self.load(segment),
        }
    }

    #[cold]
    #[inline(never)]
    fn load(&self, segment: usize) -> Result<&[T], ReadError> {
        let number = segment as u64;
        let (bytes, rows) = match self.written.get(&number) {
            // Not watched: its place may be written to again. The commit looks at the length of the
            // file.
            Some(written) => {
                let entry = written.entry();
                (self.table.arena.fetch_early(&entry, self.table.origin(number))?, self.rows)
            }
            None => {
                let entry = self.table.locate(number)?;
                let bytes = self.table.fetch(number, &entry)?;
                if let Some(watch) = &self.watch {
                    watch.include(&entry, &bytes)?;
                }
                (bytes, self.table.root.rows)
            }
        };
        let rows = self.table.spec.rows_in(number, rows) as usize;
        let typed = Typed::new(bytes, rows * self.width).ok_or_else(|| {
            let array = self.table.spec.array.name();
            ReadError::row(array, segment as u64, "segment is too short or not aligned")
        })?;
        Ok(self.segments.set(segment, Segment::Shared(typed))?)
    }

    #[cold]
    #[inline(never)]
    fn out_of_bounds(&self, row: u64) -> ReadError {
        ReadError::corrupt(
            Place::Row { array: self.table.spec.array.name(), row },
            Defect::OutOfBounds { value: row, limit: self.rows },
        )
    }

    /// The records of rows `row..`, as many as lie in one segment, at most `count` and at least one
    /// (if `count` is).
    #[inline(always)]
    pub(crate) fn chunk(&self, row: u64, count: u64) -> Result<&[T], ReadError> {
        if row >= self.rows || count > self.rows - row {
            return if count == 0 { Ok(&[]) } else { Err(self.out_of_bounds(row)) };
        }
        let (segment, offset) = self.per_segment.divide(row);
        let take = count.min(self.table.spec.rows_per_segment - offset) as usize;
        let rows = self.segment(segment as usize)?;
        let start = offset as usize * self.width;
        Ok(&rows[start..start + take * self.width])
    }

    /// The records of one row.
    #[inline(always)]
    pub(crate) fn row(&self, row: u64) -> Result<&[T], ReadError> {
        self.chunk(row, 1)
    }

    /// The record of one row of a column of width 1.
    #[inline(always)]
    pub(crate) fn get(&self, row: u64) -> Result<T, ReadError> {
        Ok(self.chunk(row, 1)?[0])
    }

    /// Asks for some rows that will be wanted soon, as far as they lie in one segment that was
    /// touched before.
    #[inline]
    pub(crate) fn prefetch(&self, row: u64, count: u64) {
        let (segment, offset) = self.per_segment.divide(row);
        if let Some(rows) = self.segments.get(segment as usize) {
            let start = offset as usize * self.width;
            let end = (start + count as usize * self.width).min(rows.len());
            prefetch(rows.get(start..end).unwrap_or_default());
        }
    }

    /// Asks for `LINES` cache lines from a row on, if it lies in a segment that was touched before.
    #[inline]
    pub(crate) fn prefetch_lines<const LINES: usize>(&self, row: u64) {
        let (segment, offset) = self.per_segment.divide(row);
        if let Some(rows) = self.segments.get(segment as usize)
            && let Some(first) = rows.get(offset as usize * self.width)
        {
            prefetch_lines::<T, LINES>(first);
        }
    }

    /// Asks the system for some rows, as far as they lie in segments that were touched before: a
    /// first touch reads a whole segment anyway.
    pub(crate) fn will_need(&self, mut row: u64, mut count: u64) {
        while count > 0 {
            let (segment, offset) = self.per_segment.divide(row);
            let take = count.min(self.table.spec.rows_per_segment - offset);
            if segment >= self.segments.len() as u64 {
                return;
            }
            if let Some(Segment::Shared(rows)) = self.segments.get(segment as usize) {
                rows.will_need(offset as usize * self.width, take as usize * self.width);
            }
            (row, count) = (row + take, count - take);
        }
    }

    /// Calls `f` with each chunk of `start..start + count`, in order.
    pub(crate) fn for_chunks(
        &self,
        start: u64,
        count: u64,
        mut f: impl FnMut(u64, &[T]),
    ) -> Result<(), ReadError> {
        let mut row = start;
        let end = start.checked_add(count).ok_or_else(|| self.out_of_bounds(start))?;
        while row < end {
            let chunk = self.chunk(row, end - row)?;
            f(row, chunk);
            row += (chunk.len() / self.width) as u64;
        }
        Ok(())
    }

    /// Calls `f` with each row that is not in an older state of the array, or is another there.
    /// Reads what the two do not share.
    pub(crate) fn for_changed(
        &self,
        old: &Column<T>,
        mut f: impl FnMut(u64),
    ) -> Result<(), ReadError> {
        let mut segments = Vec::new();
        self.table.walk_unshared(std::slice::from_ref(&old.table), &mut |_, visit| {
            segments.extend(match visit {
                Visit::Segment(segment) => Some(segment),
                Visit::Node(..) => None,
            });
        })?;
        segments.extend(&self.changed);
        for segment in segments {
            let first = segment * self.table.spec.rows_per_segment;
            let rows = self.table.spec.rows_in(segment, self.rows);
            for row in first..first + rows {
                let same = row < old.rows && old.row(row)?.as_bytes() == self.row(row)?.as_bytes();
                if !same {
                    f(row);
                }
            }
        }
        Ok(())
    }

    /// The records of one row, to be changed. The row's segment becomes private.
    pub(crate) fn edit(&mut self, row: u64) -> Result<&mut [T], ReadError> {
        if row >= self.rows {
            return Err(self.out_of_bounds(row));
        }
        let per_segment = self.table.spec.rows_per_segment;
        let segment = (row / per_segment) as usize;
        let start = (row % per_segment) as usize * self.width;
        let width = self.width;
        let rows = self.own(segment)?;
        Ok(&mut rows[start..start + width])
    }

    /// Replaces a row's record in a column of width 1, unless it is the same already.
    pub(crate) fn set(&mut self, row: u64, record: T) -> Result<(), ReadError> {
        if self.get(row)?.as_bytes() != record.as_bytes() {
            self.edit(row)?[0] = record;
        }
        Ok(())
    }

    /// Appends rows.
    pub(crate) fn push(&mut self, mut records: &[T]) -> Result<(), ReadError> {
        assert_eq!(records.len() % self.width, 0, "whole rows are pushed");
        let per_segment = self.table.spec.rows_per_segment;
        while !records.is_empty() {
            let segment = (self.rows / per_segment) as usize;
            let room = (per_segment - self.rows % per_segment) as usize * self.width;
            let take = room.min(records.len());
            if segment == self.segments.len() {
                self.segments.push(Segment::Own(Vec::new()))?;
                self.changed.insert(segment as u64);
            }
            self.own(segment)?.extend_from_slice(&records[..take]);
            self.rows += (take / self.width) as u64;
            records = &records[take..];
        }
        Ok(())
    }

    /// Appends `count` rows that `fill` makes: it is given the number of the first row wanted, from
    /// 0, and zeroed rows to fill. Whole segments are made by all threads.
    pub(crate) fn push_with(
        &mut self,
        count: usize,
        fill: impl Fn(usize, &mut [T]) + Sync,
    ) -> Result<(), ReadError> {
        let per_segment = self.table.spec.rows_per_segment as usize;
        let width = self.width;
        let make = |first: usize, rows: usize| {
            let mut records = vec![T::new_zeroed(); rows * width];
            fill(first, &mut records);
            records
        };
        let room = (per_segment - self.rows as usize % per_segment) % per_segment;
        let head = room.min(count);
        self.push(&make(0, head))?;
        let whole = count - head;
        let segments: Vec<Vec<T>> = (0..whole.div_ceil(per_segment))
            .into_par_iter()
            .with_min_len(PARALLEL_ROWS.div_ceil(per_segment * width))
            .map(|i| {
                let first = head + i * per_segment;
                make(first, per_segment.min(count - first))
            })
            .collect();
        for records in segments {
            self.changed.insert(self.segments.len() as u64);
            self.segments.push(Segment::Own(records))?;
        }
        self.rows += whole as u64;
        Ok(())
    }

    /// Segments changed so far, ascending.
    pub(crate) fn changed_segments(&self) -> Vec<u64> {
        self.changed.iter().copied().collect()
    }

    /// Makes segments that lie at `tail` or behind it private, so that the commit writes them anew,
    /// lower down: as many as `budget` has bytes for, out of some, which are others for each
    /// `turn`. To look at all of them would cost too much.
    pub(crate) fn bring_forward(&mut self, tail: u64, turn: u64, budget: &mut u64) {
        const LOOKED_AT: u64 = 256;
        let spec = self.table.spec;
        let (count, bytes) = (self.table.segments(), spec.stored_bytes(spec.rows_per_segment));
        let first = turn.wrapping_mul(LOOKED_AT) % count.max(1);
        for i in 0..count.min(LOOKED_AT) {
            let segment = (first + i) % count;
            // A shorter array was made anew, and everything of it is on its way.
            let is_new = segment >= self.segments.len() as u64
                || self.changed.contains(&segment)
                || self.written.contains_key(&segment);
            if *budget < bytes as u64 {
                return;
            }
            // What cannot be read stays where it is: nobody has asked for it.
            if !is_new
                && self.table.is_behind(segment, tail).unwrap_or(false)
                && self.own(segment as usize).is_ok()
            {
                *budget -= bytes as u64;
            }
        }
    }

    /// The private copy of a segment, made if need be.
    fn own(&mut self, segment: usize) -> Result<&mut Vec<T>, ReadError> {
        self.segment(segment)?;
        if let Some(Segment::Shared(typed)) = self.segments.get(segment) {
            let copy = typed.to_vec();
            self.check_copy(segment, &copy)?;
            if !self.written.contains_key(&(segment as u64)) {
                self.copied.0 += 1;
                self.copied.1 += size_of_val(&copy[..]) as u64;
            }
            *self.segments.get_mut(segment).expect("loaded just now") = Segment::Own(copy);
            self.changed.insert(segment as u64);
        }
        match self.segments.get_mut(segment) {
            Some(Segment::Own(rows)) => Ok(rows),
            _ => unreachable!("made private above"),
        }
    }

    /// An error if rows that come from a segment of the file are not those that were written. What
    /// passed when it was first read may have been dropped from memory since, and read from the
    /// device once more.
    fn check_copy(&self, segment: usize, rows: &[T]) -> Result<(), ReadError> {
        if SeededBug::SealWithoutLooking.is_planted() {
            return Ok(());
        }
        let number = segment as u64;
        let entry = match self.written.get(&number) {
            Some(written) => written.entry(),
            None => self.table.locate(number)?,
        };
        self.table.check_copy(number, &entry, rows.as_bytes())
    }

    /// Checks the segments of rows that have been copied to where they get another checksum. Once
    /// for each segment.
    pub(crate) fn check_copied(&self, start: u64, count: u64) -> Result<(), ReadError> {
        let end = start.saturating_add(count).min(self.rows);
        if start >= end {
            return Ok(());
        }
        let per_segment = self.table.spec.rows_per_segment;
        for segment in start / per_segment..=(end - 1) / per_segment {
            let Some(Segment::Shared(rows)) = self.segments.get(segment as usize) else {
                continue;
            };
            let is_first = self.rechecked.lock().expect("no holder panics").insert(segment);
            if is_first {
                self.check_copy(segment as usize, rows)?;
            }
        }
        Ok(())
    }

    /// [`Column::for_chunks`] for who copies the rows: fails in the end if they were not what was
    /// written.
    pub(crate) fn copy_chunks(
        &self,
        start: u64,
        count: u64,
        f: impl FnMut(u64, &[T]),
    ) -> Result<(), ReadError> {
        self.for_chunks(start, count, f)?;
        self.check_copied(start, count)
    }
}

/// A column as a commit writes it.
pub(crate) trait WrittenColumn {
    /// The table that the column had before.
    fn table(&self) -> &Table;
    /// Rows it will have.
    fn rows(&self) -> u64;
    /// The used bytes of a changed segment.
    fn bytes(&self, segment: u64) -> &[u8];
    /// Segments that are in the file already, though no commit refers to them; changed ones among
    /// them are out of date.
    fn written(&self) -> Option<&BTreeMap<u64, Written>> {
        None
    }
}

/// A column of a transaction.
pub(crate) trait ChangedColumn: WrittenColumn {
    /// Changed segments, ascending.
    fn changed(&self) -> Vec<u64>;
}

/// A column whose changed segments can be written before the commit.
pub(crate) trait EarlyColumn: ChangedColumn {
    /// Bytes of memory that changed segments occupy.
    fn changed_bytes(&self) -> u64;
    /// Notes where changed segments have been written, and drops them from memory.
    fn settle(&mut self, written: Vec<(u64, Written)>);
    /// See [`Column::bring_forward`].
    fn bring_forward(&mut self, tail: u64, turn: u64, budget: &mut u64);
}

impl<T: Record> WrittenColumn for Column<T> {
    fn table(&self) -> &Table {
        &self.table
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn bytes(&self, segment: u64) -> &[u8] {
        let rows: &[T] = self.segments.get(segment as usize).expect("a changed segment is loaded");
        rows.as_bytes()
    }

    fn written(&self) -> Option<&BTreeMap<u64, Written>> {
        Some(&self.written)
    }
}

impl<T: Record> ChangedColumn for Column<T> {
    fn changed(&self) -> Vec<u64> {
        self.changed_segments()
    }
}

impl<T: Record> EarlyColumn for Column<T> {
    fn changed_bytes(&self) -> u64 {
        let spec = &self.table.spec;
        self.changed.len() as u64 * spec.rows_per_segment * spec.row_bytes as u64
    }

    fn settle(&mut self, written: Vec<(u64, Written)>) {
        for (segment, place) in written {
            self.changed.remove(&segment);
            self.segments.clear(segment as usize);
            self.rechecked.get_mut().expect("no holder panics").remove(&segment);
            self.written.insert(segment, place);
        }
    }

    fn bring_forward(&mut self, tail: u64, turn: u64, budget: &mut u64) {
        Column::bring_forward(self, tail, turn, budget);
    }
}

impl WrittenColumn for &dyn ChangedColumn {
    fn table(&self) -> &Table {
        (**self).table()
    }

    fn rows(&self) -> u64 {
        (**self).rows()
    }

    fn bytes(&self, segment: u64) -> &[u8] {
        (**self).bytes(segment)
    }

    fn written(&self) -> Option<&BTreeMap<u64, Written>> {
        (**self).written()
    }
}
