//! To the nearest first by balls: first straight down to the nearest leaf, then best-first by
//! lower bound.
//!
//! Going down first means that the reach is small before any child is weighed: of the children met
//! on the way most are then cut by one comparison, and never see the queue.
//!
//! A bound is the distance to the center less the radius, with the slack that makes it exact (B1).

use super::frontier::Frontier;
use super::visit::{Visits, Walk, is_leaf, prefetch_links, small_subtree};
use crate::format::rows::NONE;
use crate::query::sink::Sink;
use crate::space::{self, Near};
use crate::tree::columns::{Links, ROOT, Range, Tree};
use crate::values::error::ReadError;

/// Subtrees of at most so many values, and rows, are scanned as a whole; those of few rows anyway.
const FLAT_VALUES: usize = 32_768;
const FLAT_ROWS: std::ops::RangeInclusive<usize> = 32..=512;

/// Bytes of rows asked for ahead; the rest comes in order, which the processor foresees.
const PREFETCHED_BYTES: usize = 6144;

/// Centers asked for ahead: after these the processor has seen where this goes.
const PREFETCHED_CENTERS: u32 = 12;

/// A node that may be worth a visit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) node: u32,
    /// No point below is nearer than this. Not negative.
    pub(super) bound: f32,
    /// Canonical distance from the query to the center.
    distance: f32,
}

/// Buffers, reused from one query to the next.
#[derive(Default)]
pub(super) struct Buffers {
    /// The most rows of a subtree that is scanned as a whole.
    flat_rows: u32,
    frontier: Frontier,
    swept: Vec<Candidate>,
    path: Vec<Step>,
    /// The children of every node on the path.
    path_children: Vec<Candidate>,
}

/// A node on the way down.
struct Step {
    at: Candidate,
    links: Links,
    /// Where its children begin in `path_children`.
    children: usize,
    /// The child that the way went on to; `NONE` at its end.
    next: u32,
}

impl<S: Sink> Walk<'_, S, Buffers> {
    /// Offers all that is within reach, the likely nearest first; false if that takes more than
    /// `most` evaluations.
    pub(super) fn run(mut self, most: u64) -> Result<bool, ReadError> {
        let tree = self.tree;
        let most = self.visits.evaluations.saturating_add(most);
        self.buffers.flat_rows =
            (FLAT_VALUES / tree.dim).clamp(*FLAT_ROWS.start(), *FLAT_ROWS.end()) as u32;
        self.buffers.frontier.clear();
        self.descend()?;
        self.unwind()?;
        // Most of these are the answer; their ids come while the rest is looked at.
        self.sink.prefetch(tree);
        let mut foreseen: Option<(u32, Links)> = None;
        while let Some(next) = self.buffers.frontier.pop() {
            if next.bound > self.sink.reach() {
                break;
            }
            let links = match foreseen {
                Some((node, links)) if node == next.node => links,
                _ => tree.link(next.node)?,
            };
            if let Some(after) = self.buffers.frontier.peek() {
                let links = tree.link(after.node)?;
                prefetch_node(tree, after.node, &links, self.buffers.flat_rows);
                foreseen = Some((after.node, links));
            }
            self.visit(next, &links)?;
            if self.visits.evaluations > most {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Goes to the nearest child until there is none, or until the subtree is small enough to scan,
    /// which is done. Children have larger numbers than their parents, so this ends.
    fn descend(&mut self) -> Result<(), ReadError> {
        let (tree, query) = (self.tree, self.query);
        self.buffers.path.clear();
        self.buffers.path_children.clear();
        self.visits.evaluations += 1;
        let sum = tree.kernel.sum(query, tree.centers.row(ROOT.into())?);
        let mut at = Candidate { node: ROOT, bound: 0.0, distance: space::distance(sum) };
        loop {
            self.visits.visits += 1;
            let links = tree.link(at.node)?;
            if self.visits.pressure.is_felt() {
                ask_for(tree, &links, self.buffers.flat_rows);
            }
            if let Some(range) = small_subtree(&links, self.buffers.flat_rows) {
                return self.scan_small(at, &links, range);
            }
            let children = self.buffers.path_children.len();
            let nearest = self.nearest_child(at.node, &links)?;
            let next = nearest.map_or(NONE, |child| child.node);
            self.buffers.path.push(Step { at, links, children, next });
            match nearest {
                Some(child) => at = child,
                None => return Ok(()),
            }
        }
    }

    /// The child with the nearest center. Appends all children to `path_children`.
    fn nearest_child(&mut self, node: u32, links: &Links) -> Result<Option<Candidate>, ReadError> {
        let (tree, query) = (self.tree, self.query);
        let Visits { found, evaluations, met, .. } = &mut *self.visits;
        let path_children = &mut self.buffers.path_children;
        let first = path_children.len();
        met.runs(tree, node, links)?;
        tree.for_children(node, links, |block| {
            met.children(tree, node, block)?;
            *evaluations += u64::from(block.count);
            sweep(tree, query, block, f32::INFINITY, found, path_children)
        })?;
        let mut nearest: Option<Candidate> = None;
        for &child in &path_children[first..] {
            if nearest.is_none_or(|nearest| child.distance < nearest.distance) {
                nearest = Some(child);
            }
        }
        Ok(nearest)
    }

    /// Visits the nodes of the way down in full, the last first, except for what the way has been
    /// through.
    fn unwind(&mut self) -> Result<(), ReadError> {
        let Walk { tree, query, sink, buffers, visits } = self;
        while let Some(Step { at, links, children, next }) = buffers.path.pop() {
            visits.own_points(tree, query, at.node, &links, at.distance, *sink)?;
            let reach = sink.reach();
            let Buffers { flat_rows, frontier, path_children, .. } = &mut **buffers;
            for &child in &path_children[children..] {
                if child.bound <= reach && child.node != next {
                    prefetch_links(tree, child.node);
                    if visits.pressure.is_felt() {
                        ask_for(tree, &tree.link(child.node)?, *flat_rows);
                    }
                    frontier.push(child);
                }
            }
            path_children.truncate(children);
        }
        Ok(())
    }

    /// Offers the points of a node, and queues the children that may hold something within reach.
    fn visit(&mut self, at: Candidate, links: &Links) -> Result<(), ReadError> {
        self.visits.visits += 1;
        if let Some(range) = small_subtree(links, self.buffers.flat_rows) {
            return self.scan_small(at, links, range);
        }
        let Walk { tree, query, sink, buffers, visits } = self;
        visits.own_points(tree, query, at.node, links, at.distance, *sink)?;
        let reach = sink.reach();
        let Visits { found, evaluations, pressure, met, .. } = &mut **visits;
        let Buffers { flat_rows, frontier, swept, .. } = &mut **buffers;
        swept.clear();
        met.runs(tree, at.node, links)?;
        tree.for_children(at.node, links, |block| {
            met.children(tree, at.node, block)?;
            *evaluations += u64::from(block.count);
            sweep(tree, query, block, reach, found, swept)
        })?;
        for &child in &*swept {
            prefetch_links(tree, child.node);
            if pressure.is_felt() {
                ask_for(tree, &tree.link(child.node)?, *flat_rows);
            }
            frontier.push(child);
        }
        Ok(())
    }

    /// Offers the points of a small subtree. The twins of a leaf are as far as its center, which is
    /// known.
    fn scan_small(&mut self, at: Candidate, links: &Links, range: Range) -> Result<(), ReadError> {
        let Walk { tree, query, sink, visits, .. } = self;
        match is_leaf(links) {
            true => visits.own_points(tree, query, at.node, links, at.distance, *sink),
            false => visits.scan(tree, query, range, *sink),
        }
    }
}

/// Appends the children of one block that may hold something within reach, in order.
fn sweep(
    tree: &Tree,
    query: &[f32],
    block: Range,
    reach: f32,
    found: &mut Vec<Near>,
    out: &mut Vec<Candidate>,
) -> Result<(), ReadError> {
    let end = block.start as u64 + block.count as u64;
    let mut first = block.start as u64;
    while first < end {
        let centers = tree.centers.chunk(first, end - first)?;
        let radii = tree.radii.chunk(first, (centers.len() / tree.dim) as u64)?;
        let centers = &centers[..radii.len() * tree.dim];
        found.clear();
        tree.kernel.near_balls(query, centers, radii, tree.slack, reach, first as u32, found);
        for child in &*found {
            let (node, distance) = (child.number(), child.value());
            let radius = radii[(node - first as u32) as usize];
            let bound = tree.slack.lower_bound(distance, radius);
            if bound <= f64::from(reach) {
                // Rounded down.
                let bound = (bound as f32).next_down().max(0.0);
                out.push(Candidate { node, bound, distance });
            }
        }
        first += radii.len() as u64;
    }
    Ok(())
}

/// Asks for what a visit of a node will read first, while something else is being done.
#[inline]
fn prefetch_node(tree: &Tree, node: u32, links: &Links, flat_rows: u32) {
    match small_subtree(links, flat_rows) {
        Some(range) => {
            let rows = (PREFETCHED_BYTES / (4 * tree.dim)).max(1) as u64;
            tree.coordinates.prefetch(range.start as u64, rows.min(range.count as u64));
        }
        None => {
            let (first, count) = (links.row.child_start.into(), links.row.child_count);
            tree.centers.prefetch(node.into(), 1);
            tree.radii.prefetch(first, count.into());
            tree.centers.prefetch(first, count.min(PREFETCHED_CENTERS).into());
        }
    }
}

/// Asks the system for what a visit of a node will read.
#[cold]
fn ask_for(tree: &Tree, links: &Links, flat_rows: u32) {
    let own = small_subtree(links, flat_rows).unwrap_or_else(|| {
        let (first, count) = (links.row.child_start.into(), links.row.child_count.into());
        tree.radii.will_need(first, count);
        tree.centers.will_need(first, count);
        links.row.own_slots()
    });
    tree.coordinates.will_need(own.start.into(), own.count.into());
}
