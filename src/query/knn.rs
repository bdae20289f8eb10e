//! The k nearest neighbours from the tree: what both ways of searching it share, and which of them
//! a tree has.

use super::auto::Trials;
use super::heap::KBest;
use super::scan::scan;
use super::{best_first, depth_first};
use crate::arena::pressure::Pressure;
use crate::space::{self, Near};
use crate::tree::columns::{Links, ROOT, Range, Tree};
use crate::tree::visit_limit::VisitLimit;
use crate::values::error::ReadError;

/// Queries are sorted by subtrees of about this many points.
const SORTING_POINTS: u32 = 16_384;

/// Buffers of a query, reused from one to the next.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) best: KBest,
    pub(super) found: Vec<Near>,
    pub(super) best_first: best_first::Buffers,
    pub(super) depth_first: depth_first::Buffers,
    /// Canonical distances computed since the scratch was made; boxes count as one each.
    pub(crate) evaluations: u64,
    /// Nodes visited since the scratch was made.
    pub(crate) visits: u64,
    pub(crate) history: Trials,
    pub(super) pressure: Pressure,
    pub(super) met: VisitLimit,
}

/// Finds the first min(k, live) points in the order (distance, id); they are left in
/// `scratch.best`.
pub(crate) fn knn(
    tree: &Tree,
    query: &[f32],
    k: usize,
    scratch: &mut Scratch,
) -> Result<(), ReadError> {
    knn_within_budget(tree, query, k, u64::MAX, scratch)?;
    Ok(())
}

/// The same, unless it takes more than `most` evaluations: false then, and what has been found is
/// of no use.
pub(crate) fn knn_within_budget(
    tree: &Tree,
    query: &[f32],
    k: usize,
    most: u64,
    scratch: &mut Scratch,
) -> Result<bool, ReadError> {
    let live = tree.live()?;
    scratch.best.reset(tree, k, live);
    scratch.met = VisitLimit::default();
    scratch.pressure.step();
    match (k == 0 || live == 0, tree.has_boxes()) {
        (true, _) => Ok(true),
        (false, true) => depth_first::search(tree, query, most, scratch),
        (false, false) => best_first::search(tree, query, most, scratch),
    }
}

/// What [`knn`] finds, by a scan of every slot.
pub(crate) fn scan_all(
    tree: &Tree,
    query: &[f32],
    k: usize,
    scratch: &mut Scratch,
) -> Result<(), ReadError> {
    scratch.best.reset(tree, k, tree.live()?);
    scratch.met = VisitLimit::default();
    scan_counted(tree, query, Range { start: 0, count: tree.slots() }, scratch)
}

/// Where in the packed order the answer to a query lies, roughly: the first slot of the small
/// subtree that a descent to the nearest center ends at. Queries sorted by it find in the cache
/// what the one before them read.
pub(crate) fn neighbourhood(
    tree: &Tree,
    query: &[f32],
    scratch: &mut Scratch,
) -> Result<u32, ReadError> {
    if tree.node_rows() == 0 {
        return Ok(0);
    }
    scratch.met = VisitLimit::default();
    let mut node = ROOT;
    loop {
        let links = tree.link(node)?;
        if links.packed().is_some_and(|range| range.count <= SORTING_POINTS) {
            return Ok(links.row.slot_start);
        }
        match nearest_child(tree, query, node, &links, scratch)? {
            Some(child) => node = child.number(),
            None => return Ok(links.row.slot_start),
        }
    }
}

/// The child with the nearest center, and its distance.
#[inline]
pub(super) fn nearest_child(
    tree: &Tree,
    query: &[f32],
    node: u32,
    links: &Links,
    scratch: &mut Scratch,
) -> Result<Option<Near>, ReadError> {
    let mut nearest = Near::NONE;
    scratch.met.runs(tree, node, links)?;
    tree.for_children(node, links, |block| {
        scratch.met.children(tree, node, block)?;
        scratch.evaluations += u64::from(block.count);
        tree.centers.for_chunks(block.start.into(), block.count.into(), |first, centers| {
            let (place, sum) = tree.kernel.nearest(query, centers);
            let child = Near::new(space::distance(sum), first as u32 + place as u32);
            nearest = nearest.min(child);
        })
    })?;
    Ok(Some(nearest).filter(|&child| child != Near::NONE))
}

/// Asks for the links of a node that may be visited.
#[inline]
pub(super) fn prefetch_links(tree: &Tree, node: u32) {
    tree.links.prefetch(node.into(), 1);
    tree.counts.prefetch(node.into(), 1);
}

/// Whether a node has no children and no later ranges.
#[inline]
pub(super) fn is_leaf(links: &Links) -> bool {
    links.row.child_count == 0 && links.run_count == 0
}

/// The slots of a subtree that is packed and has at most `rows` of them: a scan costs less than a
/// descent then.
#[inline]
pub(super) fn small_subtree(links: &Links, rows: u32) -> Option<Range> {
    links.packed().filter(|range| range.count <= rows)
}

/// Offers the points of a node's own twin list and bucket. `distance`: from the query to its
/// center.
pub(super) fn own_points(
    tree: &Tree,
    query: &[f32],
    node: u32,
    links: &Links,
    distance: f32,
    scratch: &mut Scratch,
) -> Result<(), ReadError> {
    if !links.twins_equal() {
        tree.for_twins(node, links, |range| scan_counted(tree, query, range, scratch))?;
    } else if distance <= scratch.best.radius() {
        let Scratch { best, met, .. } = scratch;
        tree.for_twins(node, links, |range| {
            met.slots(tree, range)?;
            best.offer_twins(tree, distance, range.start..range.start + range.count)
        })?;
    }
    if !tree.slack.excludes(distance, links.row.own_radius, scratch.best.radius()) {
        tree.for_bucket(node, links, |range| scan_counted(tree, query, range, scratch))?;
    }
    Ok(())
}

/// Offers every point of a range of slots.
pub(super) fn scan_counted(
    tree: &Tree,
    query: &[f32],
    range: Range,
    scratch: &mut Scratch,
) -> Result<(), ReadError> {
    scratch.met.slots(tree, range)?;
    scratch.evaluations += u64::from(range.count);
    scan(tree, query, range, &mut scratch.best, &mut scratch.found)
}
