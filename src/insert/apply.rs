//! Stage: the plan is written into the columns: new rows at the tail, changed rows through the journal.
//!
//! New nodes and slots are laid out in *packed order*: the children of a node are one block of consecutive node
//! numbers, blocks follow by subtree, and slots follow the same walk, so that the points of a new subtree are one range.

use std::time::Instant;

use super::batch::Batch;
use super::journal::Journal;
use super::locate::Placements;
use super::plan::{Change, Changes, Keep, new_link};
use super::report::Work;
use super::source::{Moved, Point, Source};
use super::split::{Body, Branch};
use crate::error::{InsertError, ReadError};
use crate::format::rows::{
    CountRow, LINK_UNEQUAL_TWINS, LinkRow, NONE, NodeRow, OwnerRow, RadiusRow,
};
use crate::ids::PointId;
use crate::tree::columns::{ROOT, Range, Tree};
use crate::tree::id_index;

/// Applies a plan. New points must be counted where they were placed; moved ones are counted there already.
pub(crate) fn apply(
    tree: &mut Tree,
    batch: &Batch<'_>,
    placements: &Placements,
    changes: Changes,
    work: &mut Work,
) -> Result<(), InsertError> {
    let mut journal = Journal::default();
    let mut entries = Vec::new();
    match changes {
        Changes::Root(root) => {
            let nothing = Moved::default();
            let mut writer = Writer::new(tree, batch, &nothing, &mut journal, &mut entries);
            writer.root(&root)?;
            work.counters.splice_count += 1;
        }
        Changes::Nodes(changes) => {
            check_slots(tree, batch, &changes)?;
            for (&node, &distance) in &placements.radii {
                let row = tree.radii.get(node as u64)?;
                journal.set_radii(node, RadiusRow { radius: distance.max(row.radius), ..row });
            }
            let root = tree.nodes.get(ROOT as u64)?;
            if placements.root_level.get() > root.level {
                journal.node(tree, ROOT)?.level = placements.root_level.get();
                journal.add_level(root.level, -1);
                journal.add_level(placements.root_level.get(), 1);
            }
            for change in &changes {
                journal.add_live(tree, change.node, change.added as i64)?;
                apply_change(tree, batch, placements, change, &mut journal, &mut entries, work)?;
            }
        }
    }
    journal.apply(tree, work)?;
    let start = Instant::now();
    id_index::insert(tree, entries)?;
    work.times.build_cow += start.elapsed();
    Ok(())
}

fn check_slots(tree: &Tree, batch: &Batch<'_>, changes: &[Change]) -> Result<(), InsertError> {
    let moved: u64 = changes.iter().map(|change| change.moved.ids.len() as u64).sum();
    let slots = tree.slots() as u64 + batch.ids.len() as u64 + moved;
    // A change adds at most three ranges to those it keeps.
    let runs: u64 = changes.iter().map(|change| change.kept_runs.len() as u64 + 3).sum();
    let needed = slots.max(tree.runs.len() + runs);
    let limit = NONE as u64 - 1;
    match needed > limit {
        true => Err(InsertError::SlotsExhausted { needed, limit }),
        false => Ok(()),
    }
}

fn apply_change(
    tree: &mut Tree,
    batch: &Batch<'_>,
    placements: &Placements,
    change: &Change,
    journal: &mut Journal,
    entries: &mut Vec<(PointId, u32)>,
    work: &mut Work,
) -> Result<(), ReadError> {
    let node = change.node;
    for range in &change.retired {
        for slot in range.start..range.start + range.count {
            journal.bury(slot);
        }
    }
    let old = tree.link(node)?;
    let built = {
        let mut has_children = false;
        tree.for_children(node, &old, |_| {
            has_children = true;
            Ok(())
        })?;
        change.keep == Keep::Nothing || !has_children
    };
    let (slots, children) = {
        let mut writer = Writer::new(tree, batch, &change.moved, journal, entries);
        let slots = writer.own_rows(node, &change.body)?;
        let first_child = writer.tree.node_rows();
        writer.children(node, &change.body.children, slots.start + slots.count)?;
        let count = change.body.children.len() as u32;
        (slots, Range { start: first_child, count })
    };
    if children.count > 0 {
        work.counters.splice_count += 1;
    }
    let mut runs = Vec::new();
    let mut link = new_link(&old, change, slots, children, &mut runs);
    if change.keep != Keep::Nothing {
        // The node's later ranges are kept side by side, so they are written as a whole.
        link.run_start = tree.runs.len() as u32;
        link.run_count = u16::try_from(runs.len())
            .map_err(|_| ReadError::row("links", node as u64, "too many runs at one node"))?;
        tree.runs.push(&runs)?;
    }
    journal.set_link(node, link);
    for &level in &change.dropped {
        journal.add_level(level, -1);
    }

    // T5: the own radius bounds the whole bucket, old rows included if they stay.
    let mut radii = tree.radii.get(node as u64)?;
    if let Some(&distance) = placements.radii.get(&node) {
        radii.radius = radii.radius.max(distance);
    }
    radii.own_radius = match change.keep {
        Keep::All => radii.own_radius.max(change.body.own_radius),
        _ => change.body.own_radius,
    };
    radii.radius = change.radius.unwrap_or(radii.radius);
    journal.set_radii(node, radii);

    let points = change.body.points();
    if change.keep != Keep::All {
        let flat_capacity = change.body.flat_capacity;
        // Without earlier children this was a build of the whole subtree.
        let live = match change.keep {
            Keep::Nothing => points,
            _ => tree.counts.get(node as u64)?.live + change.added,
        };
        let row = journal.node(tree, node)?;
        row.flat_capacity = flat_capacity;
        row.built = if built { live } else { row.built };
    }
    match (change.keep, tree.parent(node)?) {
        (Keep::Nothing, parent) => {
            if let Some(parent) = parent {
                journal.unpack(tree, parent)?;
            }
            journal.set_span(node, points);
        }
        _ => journal.unpack(tree, node)?,
    }
    Ok(())
}

/// Appends rows for the points of one source.
struct Writer<'a> {
    tree: &'a mut Tree,
    source: Source<'a>,
    journal: &'a mut Journal,
    /// Id and slot of every row appended.
    entries: &'a mut Vec<(PointId, u32)>,
}

impl<'a> Writer<'a> {
    fn new(
        tree: &'a mut Tree,
        batch: &'a Batch<'a>,
        moved: &'a Moved,
        journal: &'a mut Journal,
        entries: &'a mut Vec<(PointId, u32)>,
    ) -> Self {
        let source = Source { dim: tree.dim, seed: tree.seed, batch, moved };
        Writer { tree, source, journal, entries }
    }

    fn root(&mut self, root: &Branch) -> Result<(), ReadError> {
        let below = Range { start: ROOT + 1, count: root.body.children.len() as u32 };
        self.node(NONE, root, 0, below)?;
        let slots = self.own_rows(ROOT, &root.body)?;
        self.children(ROOT, &root.body.children, slots.count)
    }

    /// Appends the twins and the bucket of a node.
    fn own_rows(&mut self, owner: u32, body: &Body) -> Result<Range, ReadError> {
        let start = self.tree.slots();
        let count = (body.twins.len() + body.bucket.len()) as u32;
        if count > 0 {
            self.tree.owners.push(&[OwnerRow { start, owner }])?;
        }
        for (i, &point) in body.twins.iter().chain(&body.bucket).enumerate() {
            self.point(point, start + i as u32)?;
        }
        Ok(Range { start, count })
    }

    fn point(&mut self, point: Point, slot: u32) -> Result<(), ReadError> {
        let id = self.source.id(point);
        self.tree.coordinates.push(self.source.row(point))?;
        self.tree.ids.push(&[id])?;
        if slot.is_multiple_of(64) {
            self.tree.tombstones.push(&[0])?;
        }
        self.entries.push((id, slot));
        Ok(())
    }

    /// Appends the children of a node as one block, then what is below each of them in turn. `slot` is where the rows
    /// of the first child will lie.
    fn children(&mut self, parent: u32, children: &[Branch], slot: u32) -> Result<(), ReadError> {
        let first = self.tree.node_rows();
        let mut below = first + children.len() as u32;
        let mut start = slot;
        for child in children {
            let count = child.body.children.len() as u32;
            self.node(parent, child, start, Range { start: below, count })?;
            below += child.body.nodes();
            start += child.body.points();
        }
        for (node, child) in (first..).zip(children) {
            let rows = self.own_rows(node, &child.body)?;
            self.children(node, &child.body.children, rows.start + rows.count)?;
        }
        Ok(())
    }

    /// Appends the rows of one node, whose points begin at slot `slot_start` and whose children are `below`.
    fn node(
        &mut self,
        parent: u32,
        branch: &Branch,
        slot_start: u32,
        below: Range,
    ) -> Result<(), ReadError> {
        let Branch { center, level, radius, body } = branch;
        let points = body.points();
        let tree = &mut *self.tree;
        tree.centers.push(self.source.row(*center))?;
        tree.radii.push(&[RadiusRow { radius: *radius, own_radius: body.own_radius }])?;
        tree.nodes.push(&[NodeRow {
            parent,
            built: points,
            flat_capacity: body.flat_capacity,
            level: level.get(),
            reserved: 0,
        }])?;
        tree.links.push(&[LinkRow {
            child_start: below.start,
            child_count: below.count,
            slot_start,
            twin_count: body.twins.len() as u32,
            bucket_count: body.bucket.len() as u32,
            run_start: 0,
            run_count: 0,
            flags: if body.twins_equal { 0 } else { LINK_UNEQUAL_TWINS },
        }])?;
        tree.counts.push(&[CountRow { live: points, span: points }])?;
        self.journal.add_level(level.get(), 1);
        Ok(())
    }
}
