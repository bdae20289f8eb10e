//! The data arrays of one version as typed columns, and the few ways in which the tree is read
//! through them.
//!
//! Numbers found in the file are checked where they are followed: a column refuses rows that do not
//! exist, and a child must have a larger number than its parent, so that no damaged link leads
//! round in a circle.

use std::sync::Arc;

use crate::arena::Access;
use crate::arena::watch::Watch;
use crate::format::arrays::{Array, ArrayRoot, DATA_ARRAYS};
pub(crate) use crate::format::rows::Range;
use crate::format::rows::{
    self, CountRow, IndexPieceRow, IndexRunRow, LinkRow, NodeRow, OwnerRow, RunRow,
};
use crate::space::{BOX_GROUP, Kernel, MAX_BOX_DIM, Slack};
use crate::values::error::ReadError;
use crate::values::memory;
use crate::version::column::{ChangedColumn, Column, EarlyColumn, Record};
use crate::version::database::Database;
use crate::version::table::Table;

use super::LEVELS;
use super::extent::{self, Extent};

/// A tree as it lies in the arrays of one version, or of a transaction.
pub(crate) struct Tree {
    pub(crate) dim: usize,
    /// Points per bucket, the center's own included.
    pub(crate) leaf_capacity: u32,
    pub(crate) seed: u64,
    pub(crate) kernel: Kernel,
    pub(crate) slack: Slack,
    /// Over what the columns have mapped.
    pub(crate) watch: Arc<Watch>,

    // By slot.
    pub(crate) coordinates: Column<f32>,
    pub(crate) ids: Column<u64>,
    /// 64 slots a row; a set bit is a slot that holds no live point.
    pub(crate) tombstones: Column<u64>,
    pub(crate) owners: Column<OwnerRow>,

    // By node number.
    pub(crate) centers: Column<f32>,
    pub(crate) radii: Column<f32>,
    pub(crate) nodes: Column<NodeRow>,
    pub(crate) links: Column<LinkRow>,
    pub(crate) counts: Column<CountRow>,
    pub(crate) runs: Column<RunRow>,
    pub(crate) level_counts: Column<u64>,
    /// By group of nodes; empty if the dimension has no boxes.
    pub(crate) boxes: Column<f32>,

    // By id.
    pub(crate) index_runs: Column<IndexRunRow>,
    pub(crate) index_pieces: Column<IndexPieceRow>,
    pub(crate) index_keys: Column<u64>,
    pub(crate) index_slots: Column<u32>,
}

/// The node every path begins at.
pub(crate) const ROOT: u32 = 0;

/// Where the children and the points of a node lie: the parts of its rows in `links` and in
/// `counts`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Links {
    pub(crate) row: LinkRow,
    pub(crate) span: u32,
    pub(crate) run_start: u32,
    pub(crate) run_count: u16,
    pub(crate) flags: u16,
}

impl Links {
    /// The slots of the subtree, if they are one range.
    #[inline]
    pub(crate) fn packed(&self) -> Option<Range> {
        (self.span > 0).then_some(Range { start: self.row.slot_start, count: self.span })
    }

    /// Every twin equals the center in value.
    #[inline]
    pub(crate) fn twins_equal(&self) -> bool {
        self.flags & rows::COUNT_UNEQUAL_TWINS == 0
    }
}

/// The error for a tree whose links reach some node twice.
pub(crate) fn too_many_nodes(node: u32) -> ReadError {
    ReadError::row("links", node as u64, "a node is reached twice")
}

/// The error for a tree in which two nodes have a later range.
#[cold]
pub(crate) fn too_many_runs(node: u32) -> ReadError {
    ReadError::row("counts", node.into(), "later ranges are reached twice")
}

/// The error for a tree in which two nodes have a slot.
pub(crate) fn too_many_slots(slot: u32) -> ReadError {
    ReadError::row("links", u64::from(slot), "a slot is reached twice")
}

impl Tree {
    /// The tree that `roots` describes. Nothing is read.
    pub(crate) fn open(db: &Database, roots: &[ArrayRoot; DATA_ARRAYS]) -> Result<Self, ReadError> {
        fn column<T: Record>(
            db: &Database,
            watch: &Arc<Watch>,
            roots: &[ArrayRoot; DATA_ARRAYS],
            array: Array,
        ) -> Result<Column<T>, ReadError> {
            let Table { arena, spec, root, .. } = db.data_table(array, roots);
            Ok(Column::new(arena, spec, root, Access::Mapped)?.watched(watch))
        }
        let watch = &Arc::new(Watch::new(db.arena.clone()));
        let dim = db.header.dim as usize;
        let tree = Tree {
            dim,
            leaf_capacity: db.header.leaf_capacity,
            seed: db.header.seed,
            kernel: Kernel::best(),
            slack: Slack::new(dim),
            watch: watch.clone(),
            coordinates: column(db, watch, roots, Array::Coordinates)?,
            ids: column(db, watch, roots, Array::Ids)?,
            tombstones: column(db, watch, roots, Array::Tombstones)?,
            owners: column(db, watch, roots, Array::Owners)?,
            centers: column(db, watch, roots, Array::Centers)?,
            radii: column(db, watch, roots, Array::Radii)?,
            nodes: column(db, watch, roots, Array::Nodes)?,
            links: column(db, watch, roots, Array::Links)?,
            counts: column(db, watch, roots, Array::Counts)?,
            runs: column(db, watch, roots, Array::Runs)?,
            level_counts: column(db, watch, roots, Array::LevelCounts)?,
            boxes: column(db, watch, roots, Array::Boxes)?,
            index_runs: column(db, watch, roots, Array::IndexRuns)?,
            index_pieces: column(db, watch, roots, Array::IndexPieces)?,
            index_keys: column(db, watch, roots, Array::IndexKeys)?,
            index_slots: column(db, watch, roots, Array::IndexSlots)?,
        };
        let nodes = tree.links.len();
        let node_arrays =
            [tree.centers.len(), tree.radii.len(), tree.nodes.len(), tree.counts.len()];
        let slots = tree.ids.len();
        let consistent = node_arrays.iter().all(|&len| len == nodes)
            && nodes <= rows::NONE as u64
            && slots <= rows::NONE as u64
            && tree.coordinates.len() == slots
            && tree.tombstones.len() == slots.div_ceil(64)
            && tree.boxes.len() == tree.box_groups(nodes)
            && [0, LEVELS.count() as u64].contains(&tree.level_counts.len())
            && (nodes == 0) == (slots == 0);
        if !consistent {
            return Err(ReadError::row("links", nodes, "arrays of one tree differ in length"));
        }
        // Ids differ, and so do parents and slots: none of these arrays can be holes of the file.
        // So whatever is done row by row is in proportion to what is stored.
        let rows = [8 * slots, 16 * nodes, 4 * tree.index_slots.len(), 8 * tree.index_keys.len()];
        let bytes = rows.into_iter().fold(0, u64::saturating_add);
        match db.arena.has_stored(bytes)? {
            true => Ok(tree),
            false => Err(ReadError::row("ids", slots, "arrays claim more than the file stores")),
        }
    }

    /// The data columns by array number, for the commit.
    pub(crate) fn columns(&self) -> [&dyn ChangedColumn; DATA_ARRAYS] {
        [
            &self.coordinates,
            &self.ids,
            &self.tombstones,
            &self.owners,
            &self.centers,
            &self.radii,
            &self.nodes,
            &self.links,
            &self.counts,
            &self.runs,
            &self.level_counts,
            &self.index_runs,
            &self.index_pieces,
            &self.index_keys,
            &self.index_slots,
            &self.boxes,
        ]
    }

    /// Takes some of what keeps the file long along, if it is much longer than what is in use: see
    /// [`Column::bring_forward`]. Costs no more than has changed anyway, or a few segments.
    pub(crate) fn bring_forward(&mut self, tail: u64, turn: u64) {
        const AT_LEAST: u64 = 1 << 18;
        let mut budget = self.changed_bytes().max(AT_LEAST);
        for column in self.early_columns() {
            column.bring_forward(tail, turn, &mut budget);
        }
    }

    /// The data columns, to be written early.
    pub(crate) fn early_columns(&mut self) -> [&mut dyn EarlyColumn; DATA_ARRAYS] {
        [
            &mut self.coordinates,
            &mut self.ids,
            &mut self.tombstones,
            &mut self.owners,
            &mut self.centers,
            &mut self.radii,
            &mut self.nodes,
            &mut self.links,
            &mut self.counts,
            &mut self.runs,
            &mut self.level_counts,
            &mut self.index_runs,
            &mut self.index_pieces,
            &mut self.index_keys,
            &mut self.index_slots,
            &mut self.boxes,
        ]
    }

    /// Bytes of changed segments in memory.
    pub(crate) fn changed_bytes(&mut self) -> u64 {
        self.early_columns().iter().map(|column| column.changed_bytes()).sum()
    }

    /// Segments and bytes that changes have copied so far.
    pub(crate) fn copied(&self) -> (u64, u64) {
        let all = [
            self.coordinates.copied(),
            self.ids.copied(),
            self.tombstones.copied(),
            self.owners.copied(),
            self.centers.copied(),
            self.radii.copied(),
            self.nodes.copied(),
            self.links.copied(),
            self.counts.copied(),
            self.runs.copied(),
            self.level_counts.copied(),
            self.index_runs.copied(),
            self.index_pieces.copied(),
            self.index_keys.copied(),
            self.index_slots.copied(),
            self.boxes.copied(),
        ];
        all.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// Whether nodes have boxes (T8).
    #[inline]
    pub(crate) fn has_boxes(&self) -> bool {
        self.dim <= MAX_BOX_DIM
    }

    /// Rows of the boxes of so many nodes.
    pub(crate) fn box_groups(&self, nodes: u64) -> u64 {
        if self.has_boxes() { nodes.div_ceil(BOX_GROUP as u64) } else { 0 }
    }

    /// The box of a node.
    pub(crate) fn extent(&self, node: u32) -> Result<Extent, ReadError> {
        let (row, lane) = extent::place(node);
        Ok(Extent::read(self.boxes.row(row)?, lane))
    }

    /// Rows of the node arrays, reachable or not.
    pub(crate) fn node_rows(&self) -> u32 {
        self.links.len() as u32
    }

    /// Rows of the point arrays, live or not.
    pub(crate) fn slots(&self) -> u32 {
        self.ids.len() as u32
    }

    /// Live points.
    pub(crate) fn live(&self) -> Result<u64, ReadError> {
        match self.node_rows() {
            0 => Ok(0),
            _ => match self.counts.get(ROOT as u64)?.live {
                live if live <= self.slots() => Ok(live as u64),
                _ => Err(ReadError::row("counts", ROOT as u64, "more live points than slots")),
            },
        }
    }

    /// True if the slot holds a live point.
    #[inline]
    pub(crate) fn is_live(&self, slot: u32) -> Result<bool, ReadError> {
        Ok(self.tombstones.get(slot as u64 / 64)? >> (slot % 64) & 1 == 0)
    }

    /// Live points in a range of slots.
    pub(crate) fn live_in(&self, range: Range) -> Result<u64, ReadError> {
        let (mut slot, end) = (range.start as u64, range.start as u64 + range.count as u64);
        let mut live = 0;
        while slot < end {
            let low = slot % 64;
            let count = (64 - low).min(end - slot);
            let mask = if count == 64 { u64::MAX } else { ((1 << count) - 1) << low };
            live += (!self.tombstones.get(slot / 64)? & mask).count_ones() as u64;
            slot += count;
        }
        Ok(live)
    }

    /// Calls `f` with the id and the coordinates of every live point, by ascending id.
    pub(crate) fn for_each_live(&self, mut f: impl FnMut(u64, &[f32])) -> Result<(), ReadError> {
        let mut live: Vec<(u64, u32)> = Vec::new();
        for slot in 0..self.slots() {
            if self.is_live(slot)? {
                memory::reserve(&mut live, 1, "the points of a version")?;
                live.push((self.ids.get(slot as u64)?, slot));
            }
        }
        live.sort_unstable();
        for (id, slot) in live {
            f(id, self.coordinates.row(slot as u64)?);
        }
        Ok(())
    }

    /// Checks that points which have been copied out of some slots were those that were written.
    pub(crate) fn check_copied(&self, start: u64, count: u64) -> Result<(), ReadError> {
        self.tombstones.check_copied(start / 64, count.div_ceil(64) + 1)?;
        self.ids.check_copied(start, count)?;
        self.coordinates.check_copied(start, count)
    }

    /// The links of a node.
    #[inline(always)]
    pub(crate) fn link(&self, node: u32) -> Result<Links, ReadError> {
        let CountRow { span, run_start, run_count, flags, .. } = self.counts.get(node as u64)?;
        Ok(Links { row: self.links.get(node as u64)?, span, run_start, run_count, flags })
    }

    /// The later ranges of a node, oldest first.
    pub(crate) fn later_runs(&self, link: &Links) -> Result<Vec<RunRow>, ReadError> {
        let mut runs = Vec::with_capacity(link.run_count as usize);
        self.runs.for_chunks(link.run_start as u64, link.run_count as u64, |_, chunk| {
            runs.extend_from_slice(chunk)
        })?;
        Ok(runs)
    }

    /// Calls `f` with each block of children of a node, in ascending order of node numbers.
    #[inline]
    pub(crate) fn for_children(
        &self,
        node: u32,
        link: &Links,
        mut f: impl FnMut(Range) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        if link.row.child_count > 0 {
            f(self.checked_block(node, link.row.child_start, link.row.child_count)?)?;
        }
        // However many ranges a node has, they are not the same children again and again.
        let mut met = u64::from(link.row.child_count);
        for i in 0..link.run_count {
            let run = self.runs.get(link.run_start as u64 + i as u64)?;
            if run.kind > rows::RUN_TWINS {
                return Err(ReadError::row("runs", link.run_start as u64 + i as u64, "kind"));
            }
            if run.kind == rows::RUN_CHILDREN {
                met += u64::from(run.count);
                if run.count == 0 || met > u64::from(self.node_rows()) {
                    return Err(too_many_nodes(node));
                }
                f(self.checked_block(node, run.start, run.count)?)?;
            }
        }
        Ok(())
    }

    fn checked_block(&self, node: u32, start: u32, count: u32) -> Result<Range, ReadError> {
        if start <= node || count > self.node_rows() || start > self.node_rows() - count {
            return Err(ReadError::row("links", node as u64, "children are not later nodes"));
        }
        Ok(Range { start, count })
    }

    /// Calls `f` with each range of slots in the bucket of a node.
    #[inline]
    pub(crate) fn for_bucket(
        &self,
        node: u32,
        link: &Links,
        f: impl FnMut(Range) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let primary = link.row.slot_start.checked_add(link.row.twin_count);
        self.for_slots(node, link, primary, link.row.bucket_count, rows::RUN_BUCKET, f)
    }

    /// Calls `f` with each range of slots in the twin list of a node. Each is sorted by id.
    #[inline]
    pub(crate) fn for_twins(
        &self,
        node: u32,
        link: &Links,
        f: impl FnMut(Range) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        self.for_slots(
            node,
            link,
            Some(link.row.slot_start),
            link.row.twin_count,
            rows::RUN_TWINS,
            f,
        )
    }

    #[inline]
    fn for_slots(
        &self,
        node: u32,
        link: &Links,
        primary: Option<u32>,
        count: u32,
        kind: u32,
        mut f: impl FnMut(Range) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let checked = |start: Option<u32>, count: u32| match start {
            Some(start) if count <= self.slots() && start <= self.slots() - count => {
                Ok(Range { start, count })
            }
            _ => Err(ReadError::row("links", node as u64, "slots that do not exist")),
        };
        if count > 0 {
            f(checked(primary, count)?)?;
        }
        let mut met = u64::from(count);
        for i in 0..link.run_count {
            let run = self.runs.get(link.run_start as u64 + i as u64)?;
            if run.kind == kind {
                met += u64::from(run.count);
                if run.count == 0 || met > u64::from(self.slots()) {
                    return Err(too_many_slots(run.start));
                }
                f(checked(Some(run.start), run.count)?)?;
            }
        }
        Ok(())
    }

    /// The parent of a node; `None` for the root.
    pub(crate) fn parent(&self, node: u32) -> Result<Option<u32>, ReadError> {
        match self.nodes.get(node as u64)?.parent {
            rows::NONE if node == ROOT => Ok(None),
            parent if parent < node => Ok(Some(parent)),
            _ => Err(ReadError::row("nodes", node as u64, "parent is not an earlier node")),
        }
    }

    /// The node in whose bucket or twin list a slot lies (or lay, if the slot is not live).
    pub(crate) fn owner(&self, slot: u32) -> Result<u32, ReadError> {
        // The last row that begins at or before the slot.
        let (mut low, mut high) = (0, self.owners.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.owners.get(middle)?.start <= slot {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        match low {
            0 => Err(ReadError::row("owners", 0, "a slot has no owner")),
            _ => Ok(self.owners.get(low - 1)?.owner),
        }
    }

    /// Sums of squares from `query` to a range of rows of `points` (coordinates or centers).
    #[inline]
    pub(crate) fn sums(
        &self,
        points: &Column<f32>,
        range: Range,
        query: &[f32],
        out: &mut Vec<f32>,
    ) -> Result<(), ReadError> {
        out.clear();
        out.resize(range.count as usize, 0.0);
        let first = range.start as u64;
        points.for_chunks(first, range.count as u64, |row, chunk| {
            let at = (row - first) as usize;
            self.kernel.sums(query, chunk, &mut out[at..at + chunk.len() / self.dim]);
        })
    }
}
