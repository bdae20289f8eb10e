//! New nodes and points in *packed order*, as rows to append.
//!
//! The children of a node are one block of consecutive node numbers, blocks follow by subtree, and
//! slots follow the same walk, so that the points of a new subtree are one range of slots. The
//! layout is worked out as a whole; what is large in it is then written by all threads.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::journal::Journal;
use super::source::{Point, Source};
use super::split::{Body, Branch};
use crate::format::rows::{COUNT_UNEQUAL_TWINS, CountRow, LinkRow, NONE, NodeRow, OwnerRow};
use crate::space::BOX_GROUP;
use crate::tree::columns::{ROOT, Range, Tree};
use crate::tree::extent::{self, Extent};
use crate::values::error::ReadError;

/// Rows that will be appended to the arrays of a tree.
pub(crate) struct Layout {
    first_slot: u32,
    first_node: u32,
    /// By slot.
    points: Vec<Point>,
    owners: Vec<OwnerRow>,
    /// By node.
    centers: Vec<Point>,
    radii: Vec<f32>,
    nodes: Vec<NodeRow>,
    links: Vec<LinkRow>,
    counts: Vec<CountRow>,
}

impl Layout {
    /// An empty layout behind the rows that the tree has.
    pub(crate) fn behind(tree: &Tree) -> Self {
        Layout {
            first_slot: tree.slots(),
            first_node: tree.node_rows(),
            points: Vec::new(),
            owners: Vec::new(),
            centers: Vec::new(),
            radii: Vec::new(),
            nodes: Vec::new(),
            links: Vec::new(),
            counts: Vec::new(),
        }
    }

    fn next_slot(&self) -> u32 {
        self.first_slot + self.points.len() as u32
    }

    fn next_node(&self) -> u32 {
        self.first_node + self.nodes.len() as u32
    }

    /// Lays out a whole tree.
    pub(crate) fn root(&mut self, root: &Branch) {
        let (points, nodes) = (root.body.points as usize, root.body.nodes as usize + 1);
        self.points.reserve_exact(points);
        self.owners.reserve_exact(nodes);
        self.centers.reserve_exact(nodes);
        self.radii.reserve_exact(nodes);
        self.nodes.reserve_exact(nodes);
        self.links.reserve_exact(nodes);
        self.counts.reserve_exact(nodes);
        let below = Range { start: ROOT + 1, count: root.body.children.len() as u32 };
        self.node(NONE, root, 0, below);
        self.own_rows(ROOT, &root.body);
        self.children(ROOT, &root.body.children);
    }

    /// Lays out the twins and the bucket of a node.
    pub(crate) fn own_rows(&mut self, owner: u32, body: &Body) -> Range {
        let start = self.next_slot();
        let count = (body.twins.len() + body.bucket.len()) as u32;
        if count > 0 {
            self.owners.push(OwnerRow { start, owner });
        }
        self.points.extend_from_slice(&body.twins);
        self.points.extend_from_slice(&body.bucket);
        Range { start, count }
    }

    /// Lays out the children of a node as one block, then what is below each of them in turn.
    /// Returns the block.
    pub(crate) fn children(&mut self, parent: u32, children: &[Branch]) -> Range {
        let block = Range { start: self.next_node(), count: children.len() as u32 };
        let mut below = block.start + block.count;
        let mut slot = self.next_slot();
        for child in children {
            let count = child.body.children.len() as u32;
            self.node(parent, child, slot, Range { start: below, count });
            below += child.body.nodes;
            slot += child.body.points;
        }
        for (node, child) in (block.start..).zip(children) {
            self.own_rows(node, &child.body);
            self.children(node, &child.body.children);
        }
        block
    }

    /// Lays out one node, whose points begin at slot `slot_start` and whose children are `below`.
    fn node(&mut self, parent: u32, branch: &Branch, slot_start: u32, below: Range) {
        let Branch { center, level, radius, body } = branch;
        self.centers.push(*center);
        self.radii.push(*radius);
        self.nodes.push(NodeRow {
            parent,
            built: body.points,
            flat_capacity: body.flat_capacity,
            level: level.get(),
            reserved: 0,
        });
        self.links.push(LinkRow {
            child_start: below.start,
            child_count: below.count,
            slot_start,
            twin_count: body.twins.len() as u32,
            bucket_count: body.bucket.len() as u32,
            own_radius: body.stored_own_radius(body.children.is_empty()),
        });
        self.counts.push(CountRow {
            live: body.points,
            span: body.points,
            run_start: 0,
            run_count: 0,
            flags: if body.twins_equal { 0 } else { COUNT_UNEQUAL_TWINS },
        });
    }

    /// The box of each node laid out (T8).
    fn extents(&self, tree: &Tree) -> Result<Vec<Extent>, ReadError> {
        let own = self.links.par_iter().map(|link| extent_of_rows(tree, link.own_slots()));
        let mut extents: Vec<Extent> = own.collect::<Result<_, ReadError>>()?;
        // Children come after their parents.
        for node in (0..extents.len()).rev() {
            let LinkRow { child_start, child_count, .. } = self.links[node];
            if child_count == 0 {
                continue;
            }
            let first = (child_start - self.first_node) as usize;
            let (up_to, below) = extents.split_at_mut(node + 1);
            let children = below.iter().skip(first - node - 1).take(child_count as usize);
            children.for_each(|child| up_to[node].merge(child));
        }
        Ok(extents)
    }

    /// Appends the boxes of the nodes laid out, whose points are written, and returns, for each of
    /// `subtrees`, that of its own slots and children together, which are laid out too.
    pub(crate) fn write_boxes(
        &self,
        tree: &mut Tree,
        subtrees: &[(Range, Range)],
    ) -> Result<Vec<Extent>, ReadError> {
        if !tree.has_boxes() {
            return Ok(vec![Extent::EMPTY; subtrees.len()]);
        }
        let extents = self.extents(tree)?;
        let whole = subtrees.iter().map(|&(slots, children)| {
            let mut whole = extent_of_rows(tree, slots)?;
            let first_child = (children.start - self.first_node) as usize;
            let children = extents[first_child..].iter().take(children.count as usize);
            children.for_each(|e| whole.merge(e));
            Ok(whole)
        });
        let whole = whole.collect::<Result<_, ReadError>>()?;

        // The nodes that share a group with earlier ones, then whole groups.
        let (row, lane) = extent::place(self.first_node);
        let shared = if lane > 0 { extents.len().min(BOX_GROUP - lane) } else { 0 };
        let (in_shared, rest) = extents.split_at(shared);
        if !in_shared.is_empty() {
            let group = tree.boxes.edit(row)?;
            (lane..).zip(in_shared).for_each(|(lane, extent)| extent.write(group, lane));
        }
        let group_len = 2 * BOX_GROUP * tree.dim;
        tree.boxes.push_with(rest.len().div_ceil(BOX_GROUP), |first, groups| {
            let extents = rest[first * BOX_GROUP..].chunks(BOX_GROUP);
            for (group, extents) in groups.chunks_exact_mut(group_len).zip(extents) {
                (0..).zip(extents).for_each(|(lane, extent)| extent.write(group, lane));
            }
        })?;
        Ok(whole)
    }

    /// The slots of the points laid out.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (Point, u32)> {
        self.points.iter().copied().zip(self.first_slot..)
    }

    /// Appends the rows of all but the boxes.
    pub(crate) fn write(
        &self,
        tree: &mut Tree,
        source: &Source<'_>,
        journal: &mut Journal,
    ) -> Result<(), ReadError> {
        let mut levels: BTreeMap<i16, i64> = BTreeMap::new();
        for row in &self.nodes {
            *levels.entry(row.level).or_insert(0) += 1;
        }
        levels.into_iter().for_each(|(level, count)| journal.add_level(level, count));

        let rows_of = |points: &[Point], first: usize, rows: &mut [f32]| {
            source.copy_rows(points[first..].iter().copied(), rows);
        };
        let points = &self.points;
        tree.coordinates.push_with(points.len(), |first, rows| rows_of(points, first, rows))?;
        tree.centers
            .push_with(self.centers.len(), |first, rows| rows_of(&self.centers, first, rows))?;
        tree.ids.push_with(points.len(), |first, ids| source.copy_ids(&points[first..], ids))?;
        let words = (tree.slots() as u64).div_ceil(64) - tree.tombstones.len();
        tree.tombstones.push_with(words as usize, |_, _| {})?;
        tree.owners.push(&self.owners)?;
        tree.radii.push(&self.radii)?;
        tree.nodes.push(&self.nodes)?;
        tree.links.push(&self.links)?;
        tree.counts.push(&self.counts)?;
        Ok(())
    }
}

/// The box around the points of some slots.
fn extent_of_rows(tree: &Tree, slots: Range) -> Result<Extent, ReadError> {
    let mut extent = Extent::EMPTY;
    tree.coordinates.for_chunks(slots.start.into(), slots.count.into(), |_, rows| {
        rows.chunks_exact(tree.dim).for_each(|row| extent.include(row));
    })?;
    Ok(extent)
}
