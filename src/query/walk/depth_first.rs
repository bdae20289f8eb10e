//! To the nearest first by boxes, for the few dimensions that have them: straight down to the
//! nearest leaf, then back up, into every other child on the way whose box is within reach, the
//! nearest first.
//!
//! Boxes bound closely, so that the first leaf leaves little to be found: a queue of all nodes in
//! order would spare few visits, and cost more than those.

use super::visit::{Visits, Walk, is_leaf, small_subtree};
use crate::format::rows::{LinkRow, NONE};
use crate::query::sink::Sink;
use crate::space::{self, BOX_GROUP, Near};
use crate::tree::columns::{Links, ROOT, Range, Tree};
use crate::tree::extent;
use crate::values::error::ReadError;

/// Subtrees of at most so many rows are scanned as a whole.
const FLAT_ROWS: u32 = 256;

/// So many twins are scanned with the bucket of a leaf that they lie beside rather than looked at
/// apart.
const FEW_TWINS: u32 = 8;

/// Cache lines asked for of what a visit will read; the rest comes in order, which the processor
/// foresees. As many whatever there is, because a loop that ends now here, now there is
/// mispredicted.
const LINES: usize = 8;

/// Buffers, reused from one query to the next.
#[derive(Default)]
pub(super) struct Buffers {
    path: Vec<Step>,
    /// Children of one node within reach, with the filter sums (B3) of the gaps to their boxes.
    near: Vec<Near>,
    /// Nodes to be visited, of siblings the nearest last.
    pending: Vec<Near>,
}

/// A node on the way down.
struct Step {
    node: u32,
    /// Canonical distance from the query to the center.
    distance: f32,
    links: Links,
    /// The child that the way went on to; `NONE` at its end.
    next: u32,
}

impl<S: Sink> Walk<'_, S, Buffers> {
    /// Offers all that is within reach, the likely nearest first; false if that takes more than
    /// `most` evaluations.
    pub(super) fn run(mut self, most: u64) -> Result<bool, ReadError> {
        let most = self.visits.evaluations.saturating_add(most);
        let (tree, query) = (self.tree, self.query);
        self.buffers.pending.clear();
        self.descend()?;
        self.visits.met.reset_children();
        while let Some(Step { node, distance, links, next }) = self.buffers.path.pop() {
            self.visits.own_points(tree, query, node, &links, distance, self.sink)?;
            self.push_children(node, &links, next)?;
            if self.buffers.path.is_empty() {
                // Most of these are the answer; their ids come while the rest is looked at.
                self.sink.prefetch(tree);
            }
            let mut within = self.limit();
            while let Some(next) = self.buffers.pending.pop() {
                if next.value() > within {
                    continue;
                }
                self.visit(next.number())?;
                within = self.limit();
                if self.visits.evaluations > most {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// What the filter sum of a gap must not exceed.
    #[inline]
    fn limit(&self) -> f32 {
        self.tree.slack.filter_limit(self.sink.sum_limit())
    }

    /// Goes to the child with the nearest center until there is none, or until the subtree is small
    /// enough to scan, which is done. Children have larger numbers than their parents, so this
    /// ends.
    fn descend(&mut self) -> Result<(), ReadError> {
        let Walk { tree, query, sink, buffers, visits } = self;
        buffers.path.clear();
        visits.evaluations += 1;
        let sum = tree.kernel.sum(query, tree.centers.row(ROOT.into())?);
        let (mut node, mut distance) = (ROOT, space::distance(sum));
        loop {
            visits.visits += 1;
            let links = tree.link(node)?;
            if visits.pressure.is_felt() {
                ask_for(tree, &links);
            }
            if let Some(range) = small_subtree(&links, FLAT_ROWS) {
                return visits.scan(tree, query, range, *sink);
            }
            let nearest = visits.nearest_child(tree, query, node, &links)?;
            let next = nearest.map_or(NONE, Near::number);
            buffers.path.push(Step { node, distance, links, next });
            match nearest {
                Some(child) => (node, distance) = (child.number(), child.value()),
                None => return Ok(()),
            }
        }
    }

    /// Adds the children of a node that may hold something within reach, except for `skip`.
    fn push_children(&mut self, node: u32, links: &Links, skip: u32) -> Result<(), ReadError> {
        let within = self.limit();
        let (tree, query) = (self.tree, self.query);
        let Visits { evaluations, pressure, met, .. } = &mut *self.visits;
        let Buffers { near, pending, .. } = &mut *self.buffers;
        near.clear();
        met.runs(tree, node, links)?;
        tree.for_children(node, links, |block| {
            met.children(tree, node, block)?;
            *evaluations += u64::from(block.count);
            let (group, groups) = groups_of(block);
            tree.boxes.for_chunks(group, groups, |group, boxes| {
                let first = group as u32 * BOX_GROUP as u32;
                let wanted = block.start..block.start + block.count;
                tree.kernel.near_boxes(query, boxes, first, wanted, within, near);
            })
        })?;
        let first = pending.len();
        let mut nearest = (Near::NONE, first);
        for &child in &*near {
            if child.number() == skip {
                continue;
            }
            nearest = nearest.min((child, pending.len()));
            let links = tree.link(child.number())?;
            match pressure.is_felt() {
                true => ask_for(tree, &links),
                false => prefetch(tree, &links),
            }
            pending.push(child);
        }
        if pending.len() > first + 1 {
            let last = pending.len() - 1;
            pending.swap(nearest.1, last);
        }
        Ok(())
    }

    /// Offers the points of a node, and adds its children.
    fn visit(&mut self, node: u32) -> Result<(), ReadError> {
        let Walk { tree, query, sink, visits, .. } = self;
        visits.visits += 1;
        let links = &tree.link(node)?;
        if let Some(range) = small_subtree(links, FLAT_ROWS) {
            return visits.scan(tree, query, range, *sink);
        }
        if is_leaf(links) && links.row.twin_count <= FEW_TWINS {
            return visits.scan(tree, query, links.row.own_slots(), *sink);
        }
        let sum = tree.kernel.sum(query, tree.centers.row(node.into())?);
        visits.own_points(tree, query, node, links, space::distance(sum), *sink)?;
        self.push_children(node, links, NONE)
    }
}

/// Rows of the boxes of a block: the first, and how many.
#[inline]
fn groups_of(block: Range) -> (u64, u64) {
    let last = block.start.saturating_add(block.count).saturating_sub(1);
    let (first, last) = (extent::place(block.start).0, extent::place(last).0);
    (first, last.saturating_sub(first) + 1)
}

/// Asks for what a visit of a node will read first.
#[inline]
fn prefetch(tree: &Tree, links: &Links) {
    match small_subtree(links, FLAT_ROWS) {
        Some(range) => tree.coordinates.prefetch_lines::<LINES>(range.start.into()),
        None => tree.boxes.prefetch_lines::<LINES>(extent::place(links.row.child_start).0),
    }
}

/// Asks the system for what a visit of a node will read.
#[cold]
fn ask_for(tree: &Tree, links: &Links) {
    let own = small_subtree(links, FLAT_ROWS).unwrap_or_else(|| {
        let LinkRow { child_start, child_count, .. } = links.row;
        let (first, count) = groups_of(Range { start: child_start, count: child_count });
        tree.boxes.will_need(first, count);
        links.row.own_slots()
    });
    tree.coordinates.will_need(own.start.into(), own.count.into());
}
