//! The segment table of an array: a copy-on-write radix tree from segment number to [`Entry`].
//!
//! A parent holds the address, birth and checksum of each child, so a lost, torn or misdirected
//! write is seen when the child is read. A table is immutable; [`TableUpdate`] builds the nodes
//! that differ in the next version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::column::Record;
use super::divisor::MOST_ROWS;
use crate::arena::cast::Typed;
use crate::arena::mapping::Bytes;
use crate::arena::{Access, Arena};
use crate::format::DATA_START;
use crate::format::arrays::{Array, ArrayRoot, ArraySpec, Entry};
use crate::format::checksum::Origin;
use crate::format::table_node::{self, fanout, height};
use crate::values::error::{Defect, Place, ReadError};

/// The table of one array in one version.
#[derive(Clone)]
pub(crate) struct Table {
    pub(crate) arena: Arc<Arena>,
    pub(crate) spec: ArraySpec,
    pub(crate) root: ArrayRoot,
    pub(crate) access: Access,
}

/// What a walk over a table meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visit {
    /// A table node: its level, from 1 up, and its position among the nodes of that level.
    Node(u8, u64),
    /// Segment number.
    Segment(u64),
}

impl Visit {
    /// Segments visited count as such in reports.
    pub(crate) fn is_segment(self) -> bool {
        matches!(self, Visit::Segment(_))
    }

    /// What was met, in the table of `array`.
    pub(crate) fn origin(self, array: Array) -> Origin {
        match self {
            Visit::Node(level, index) => Origin { array, level, index },
            Visit::Segment(segment) => Origin::segment(array, segment),
        }
    }
}

impl Table {
    /// Number of segments.
    pub(crate) fn segments(&self) -> u64 {
        self.spec.segments(self.root.rows)
    }

    /// Refuses a root that claims more than the file has. No two segments share a byte, so together
    /// they are at most as long as the file. That bounds what its rows cost, however many entries
    /// name one segment; for a file with holes, which is longer than what it stores, lists must
    /// grow as rows come in all the same.
    pub(crate) fn check_claim(&self) -> Result<(), ReadError> {
        let rows = self.root.rows;
        let file = self.arena.limit().saturating_sub(DATA_START);
        let full = self.spec.stored_bytes(self.spec.rows_per_segment) as u64;
        let last = self.segments().saturating_sub(1);
        let rest = self.spec.stored_bytes(self.spec.rows_in(last, rows)) as u64;
        let stored = last.saturating_mul(full).saturating_add(rest);
        for (value, limit) in [(rows, MOST_ROWS), (stored, file)] {
            if value > limit {
                return Err(ReadError::corrupt(
                    Place::Row { array: self.spec.array.name(), row: rows },
                    Defect::OutOfBounds { value, limit },
                ));
            }
        }
        Ok(())
    }

    fn height(&self) -> u8 {
        height(self.segments(), fanout(self.spec.block_bytes))
    }

    /// The entry of the table node (or, at level 0, the segment) with this level and index; `None`
    /// if there is none. Reads the nodes on the path.
    pub(crate) fn entry(&self, level: u8, index: u64) -> Result<Option<Entry>, ReadError> {
        let fanout = fanout(self.spec.block_bytes);
        let height = self.height();
        self.check_claim()?;
        if level > height || self.root.rows == 0 {
            return Ok(None);
        }
        let below = |l: u8| fanout.checked_pow((l - level) as u32);
        // Index 0 is all there is at the root's level.
        if below(height).is_some_and(|reach| index >= reach) {
            return Ok(None);
        }
        let mut entry = self.root.entry;
        for l in (level..height).rev() {
            // `entry` is a node of level l + 1; the child wanted is the ancestor of `index` at
            // level l.
            let ancestor = index / below(l).expect("a lower level reaches less than a higher one");
            let entries = self.node(&entry, l + 1, ancestor / fanout)?;
            entry = entries[(ancestor % fanout) as usize];
            if entry.address == 0 {
                return Ok(None);
            }
        }
        Ok((entry.address != 0).then_some(entry))
    }

    /// True if a segment lies at `address` or behind it, or a table node of which it is the first.
    pub(super) fn is_behind(&self, segment: u64, address: u64) -> Result<bool, ReadError> {
        let (mut index, fanout) = (segment, fanout(self.spec.block_bytes));
        for level in 0..=self.height() {
            if self.entry(level, index)?.is_some_and(|entry| entry.address >= address) {
                return Ok(true);
            }
            if index % fanout != 0 {
                return Ok(false);
            }
            index /= fanout;
        }
        Ok(false)
    }

    /// A private copy of a segment, checked even if it has passed before.
    pub(crate) fn reread(&self, segment: u64) -> Result<Bytes, ReadError> {
        let entry = self.locate(segment)?;
        self.arena.refetch(&entry, self.origin(segment))
    }

    /// The entry of a segment that is in use.
    pub(crate) fn locate(&self, segment: u64) -> Result<Entry, ReadError> {
        let Some(entry) = self.entry(0, segment)? else {
            return Err(ReadError::row(
                self.spec.array.name(),
                segment * self.spec.rows_per_segment,
                "a segment that is in use is missing from its table",
            ));
        };
        self.check_length(segment, &entry)?;
        Ok(entry)
    }

    /// The bytes of a segment that [`Table::locate`] found, verified on first touch.
    pub(crate) fn fetch(&self, segment: u64, entry: &Entry) -> Result<Bytes, ReadError> {
        self.arena.fetch(entry, self.origin(segment), self.access)
    }

    /// An error if a copy of a segment's used bytes is not what was written.
    pub(crate) fn check_copy(
        &self,
        segment: u64,
        entry: &Entry,
        content: &[u8],
    ) -> Result<(), ReadError> {
        self.arena.check_copy(entry, self.origin(segment), content)
    }

    /// What a segment must be.
    pub(crate) fn origin(&self, segment: u64) -> Origin {
        Origin::segment(self.spec.array, segment)
    }

    fn segment_place(&self, segment: u64, entry: &Entry) -> Place {
        self.origin(segment).place(entry)
    }

    /// A segment's length follows from the rows it holds, and it lies in the file.
    fn check_length(&self, segment: u64, entry: &Entry) -> Result<(), ReadError> {
        let rows = self.spec.rows_in(segment, self.root.rows);
        let defect = match entry.bytes as usize == self.spec.stored_bytes(rows) {
            true => self.arena.outside(entry),
            false => Some(Defect::Invalid("length of a segment does not match its rows")),
        };
        match defect {
            None => Ok(()),
            Some(what) => Err(ReadError::corrupt(self.segment_place(segment, entry), what)),
        }
    }

    fn node_place(&self, entry: &Entry) -> Place {
        Place::TableNode { array: self.spec.array.name(), address: entry.address }
    }

    /// A table node is one block.
    fn check_node_length(&self, entry: &Entry) -> Result<(), ReadError> {
        if entry.bytes as usize == self.spec.block_bytes {
            return Ok(());
        }
        Err(ReadError::corrupt(
            self.node_place(entry),
            Defect::Invalid("length of a table node is not one block"),
        ))
    }

    fn node(&self, entry: &Entry, level: u8, index: u64) -> Result<Vec<Entry>, ReadError> {
        let origin = Origin { array: self.spec.array, level, index };
        let place = || origin.place(entry);
        self.check_node_length(entry)?;
        let bytes = self.arena.fetch(entry, origin, self.access)?;
        if self.access == Access::Mapped {
            // Each time: a wrong entry could lead to something that has passed, and is something
            // else.
            self.arena.check_copy(entry, origin, &bytes)?;
        }
        let invalid = |what| ReadError::corrupt(place(), Defect::Invalid(what));
        let entries = table_node::decode(&bytes, self.spec.array, level, index).map_err(invalid)?;
        // As many children as the rows make, no more and no fewer.
        let fanout = entries.len() as u64;
        let below = self.segments().div_ceil(fanout.saturating_pow(level as u32 - 1));
        let here = below.saturating_sub(index.saturating_mul(fanout)).min(fanout) as usize;
        if entries[..here].iter().any(|entry| entry.address == 0) {
            return Err(invalid("an entry of a table node is missing"));
        }
        if entries[here..].iter().any(|entry| *entry != Entry::default()) {
            return Err(invalid("a table node has an entry for what does not exist"));
        }
        Ok(entries)
    }

    /// Calls `f` with the number of the first row and the rows of each segment, in order, and keeps
    /// none of them.
    pub(crate) fn for_segments<T: Record>(
        &self,
        mut f: impl FnMut(u64, &[T]) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let width = self.spec.row_bytes / size_of::<T>();
        let mut read = |entry: &Entry, segment: u64| {
            let bytes = self.fetch(segment, entry)?;
            let rows = self.spec.rows_in(segment, self.root.rows) as usize;
            let rows = Typed::new(bytes, rows * width).ok_or_else(|| {
                let array = self.spec.array.name();
                ReadError::row(array, segment, "segment is too short or not aligned")
            })?;
            f(segment * self.spec.rows_per_segment, &rows)
        };
        let (mut done, mut problem) = (Ok(()), None);
        self.walk(
            &mut |entry, visit| {
                if let (Ok(()), Visit::Segment(segment)) = (&done, visit) {
                    done = read(entry, segment);
                }
                done.is_ok()
            },
            &mut |e| problem = problem.take().or(Some(e)),
        );
        done.and(problem.map_or(Ok(()), Err))
    }

    /// Visits every node and segment for which `enter` says yes, parents first; below a refused
    /// node nothing is read. An error is handed to `problem`, and the walk goes on beside it.
    pub(crate) fn walk(
        &self,
        enter: &mut dyn FnMut(&Entry, Visit) -> bool,
        problem: &mut dyn FnMut(ReadError),
    ) {
        if let Err(e) = self.check_claim() {
            problem(e);
        } else if self.root.rows > 0 {
            self.walk_below(&self.root.entry, self.height(), 0, enter, problem);
        }
    }

    fn walk_below(
        &self,
        entry: &Entry,
        level: u8,
        index: u64,
        enter: &mut dyn FnMut(&Entry, Visit) -> bool,
        problem: &mut dyn FnMut(ReadError),
    ) {
        if level == 0 {
            if index < self.segments() {
                if let Err(e) = self.check_length(index, entry) {
                    problem(e);
                } else {
                    enter(entry, Visit::Segment(index));
                }
            }
            return;
        }
        if !enter(entry, Visit::Node(level, index)) {
            return;
        }
        match self.node(entry, level, index) {
            Err(e) => problem(e),
            Ok(entries) => {
                let fanout = entries.len() as u64;
                for (i, child) in entries.iter().enumerate().filter(|(_, e)| e.address != 0) {
                    self.walk_below(child, level - 1, index * fanout + i as u64, enter, problem);
                }
            }
        }
    }

    /// Visits the nodes and segments of this table that none of `others` has, parents first. What
    /// two tables of one array have in common lies in the same place of both, so all are descended
    /// at once, and below an entry that another has as well nothing is read.
    pub(crate) fn walk_unshared(
        &self,
        others: &[Table],
        visit: &mut dyn FnMut(&Entry, Visit),
    ) -> Result<(), ReadError> {
        self.check_claim()?;
        if self.root.rows == 0 {
            return Ok(());
        }
        let height = self.height();
        let mut beside = Vec::new();
        for table in others.iter().filter(|table| table.root.rows > 0) {
            let entry = match table.height() >= height {
                true => table.entry(height, 0)?,
                false => None,
            };
            if entry.is_some() || table.height() < height {
                beside.push(Beside { table, entry });
            }
        }
        self.unshared_below(&self.root.entry, height, 0, &beside, visit)
    }

    fn unshared_below(
        &self,
        entry: &Entry,
        level: u8,
        index: u64,
        beside: &[Beside<'_>],
        visit: &mut dyn FnMut(&Entry, Visit),
    ) -> Result<(), ReadError> {
        let same = |other: &Entry| (other.address, other.birth) == (entry.address, entry.birth);
        if beside.iter().any(|other| other.entry.as_ref().is_some_and(same)) {
            return Ok(());
        }
        if level == 0 {
            if index < self.segments() {
                self.check_length(index, entry)?;
                visit(entry, Visit::Segment(index));
            }
            return Ok(());
        }
        visit(entry, Visit::Node(level, index));
        let children = self.node(entry, level, index)?;
        let fanout = children.len() as u64;
        let mut nodes = Vec::with_capacity(beside.len());
        for other in beside {
            nodes.push(match &other.entry {
                Some(entry) => Some(other.table.node(entry, level, index)?),
                None => None,
            });
        }
        let mut below = Vec::with_capacity(beside.len());
        for (i, child) in children.iter().enumerate().filter(|(_, child)| child.address != 0) {
            let index = index * fanout + i as u64;
            below.clear();
            for (other, node) in beside.iter().zip(&nodes) {
                let (table, height) = (other.table, other.table.height());
                match node {
                    Some(node) if node[i].address != 0 => {
                        below.push(Beside { table, entry: Some(node[i]) });
                    }
                    // A smaller table lies below the first entries of a larger one.
                    None if index == 0 && height == level - 1 => {
                        below.push(Beside { table, entry: Some(table.root.entry) });
                    }
                    None if index == 0 && height < level - 1 => {
                        below.push(Beside { table, entry: None });
                    }
                    _ => {}
                }
            }
            self.unshared_below(child, level - 1, index, &below, visit)?;
        }
        Ok(())
    }

    /// Checks the bytes of a segment against its entry, whether or not they have passed before.
    pub(crate) fn recheck(&self, entry: &Entry, visit: Visit) -> Result<(), ReadError> {
        self.arena.refetch(entry, visit.origin(self.spec.array)).map(drop)
    }

    /// Checks the bytes of a segment against its entry, unless they have passed before.
    pub(crate) fn check_once(&self, entry: &Entry, visit: Visit) -> Result<(), ReadError> {
        self.arena.fetch(entry, visit.origin(self.spec.array), self.access).map(drop)
    }

    /// What an entry leads to, for an error.
    pub(crate) fn place(&self, entry: &Entry, visit: Visit) -> Place {
        visit.origin(self.spec.array).place(entry)
    }
}

/// Another table in a descent: its entry at the place where the descent is, or none yet if it
/// begins further down.
struct Beside<'a> {
    table: &'a Table,
    entry: Option<Entry>,
}

/// The nodes that must be written so that a table refers to new segments. Made in two steps,
/// because the space for nodes is planned before the checksums of their children are known.
pub(crate) struct TableUpdate {
    old: Table,
    rows: u64,
    /// For each level from 1 up: node index to address, ascending.
    nodes: Vec<BTreeMap<u64, u64>>,
}

impl TableUpdate {
    /// Finds which nodes change when the segments in `changed` do and the array has `rows` rows,
    /// and places each of them with `allocate`. `replaced` is told every entry of the old table
    /// that the new one no longer refers to, the old segments included.
    pub(crate) fn plan(
        old: Table,
        rows: u64,
        changed: impl Iterator<Item = u64>,
        mut allocate: impl FnMut() -> u64,
        mut replaced: impl FnMut(Entry),
    ) -> Result<Self, ReadError> {
        // Read and checked each time: what a commit writes must not rest on bytes that have passed
        // before.
        let old = Table { access: Access::Copied, ..old };
        let fanout = fanout(old.spec.block_bytes);
        let new_height = height(old.spec.segments(rows), fanout);
        let old_height = old.height();
        let mut below: BTreeSet<u64> = BTreeSet::new();
        for segment in changed {
            if let Some(entry) = old.entry(0, segment)? {
                old.check_length(segment, &entry)?;
                replaced(entry);
            }
            below.insert(segment);
        }
        let mut nodes = Vec::new();
        for level in 1..=new_height {
            let mut here: BTreeSet<u64> = below.iter().map(|index| index / fanout).collect();
            // The old root hangs below the first node of the level above it.
            if level == old_height + 1 && old.root.rows > 0 {
                here.insert(0);
            }
            for &index in &here {
                if let Some(entry) = old.entry(level, index)? {
                    old.check_node_length(&entry)?;
                    replaced(entry);
                }
            }
            nodes.push(here.iter().map(|&index| (index, allocate())).collect());
            below = here;
        }
        Ok(TableUpdate { old, rows, nodes })
    }

    /// Encodes the planned nodes, given the entries of the changed segments, and returns the new
    /// root. Each node goes to `write` as (address, bytes).
    pub(crate) fn encode(
        &self,
        commit: u64,
        segments: BTreeMap<u64, Entry>,
        mut write: impl FnMut(u64, Vec<u8>),
    ) -> Result<ArrayRoot, ReadError> {
        let spec = &self.old.spec;
        let fanout = fanout(spec.block_bytes);
        let old_height = self.old.height();
        let mut below = segments;
        for (i, nodes) in self.nodes.iter().enumerate() {
            let level = i as u8 + 1;
            let mut here = BTreeMap::new();
            for (&index, &address) in nodes {
                let mut entries = match self.old.entry(level, index)? {
                    Some(entry) => self.old.node(&entry, level, index)?,
                    None => vec![Entry::default(); fanout as usize],
                };
                if level == old_height + 1 && index == 0 && self.old.root.rows > 0 {
                    entries[0] = self.old.root.entry;
                }
                for (&child, &entry) in below.range(index * fanout..(index + 1) * fanout) {
                    entries[(child % fanout) as usize] = entry;
                }
                let mut block = vec![0; spec.block_bytes];
                table_node::encode(&mut block, spec.array, level, index, &entries);
                let origin = Origin { array: spec.array, level, index };
                let crc = origin.checksum(commit, &block, block.len());
                here.insert(
                    index,
                    Entry { address, birth: commit, crc, bytes: spec.block_bytes as u32 },
                );
                write(address, block);
            }
            below = here;
        }
        let entry = below.get(&0).copied().unwrap_or(self.old.root.entry);
        Ok(ArrayRoot { entry, rows: self.rows })
    }
    /// Number of nodes that will be written.
    pub(crate) fn planned_nodes(&self) -> u64 {
        self.nodes.iter().map(|level| level.len() as u64).sum()
    }
}
