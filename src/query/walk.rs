//! Walks through the tree, each with any sink: what may be within its reach is offered, the rest is
//! left out by bounds.

mod best_first;
mod depth_first;
mod exhaustive;
mod frontier;
mod visit;

use super::sink::Sink;
use crate::tree::columns::{ROOT, Range, Tree};
use crate::values::error::ReadError;
use visit::{Visits, Walk};

/// Queries are sorted by subtrees of about this many points.
const SORTING_POINTS: u32 = 16_384;

/// Buffers of walks, reused from one to the next, and counts of what they took.
#[derive(Default)]
pub(crate) struct Scratch {
    best_first: best_first::Buffers,
    depth_first: depth_first::Buffers,
    exhaustive: exhaustive::Buffers,
    pub(super) visits: Visits,
}

impl Scratch {
    /// Canonical distances computed since the scratch was made; boxes count as one each.
    pub(crate) fn evaluations(&self) -> u64 {
        self.visits.evaluations
    }
}

/// For a sink whose reach shrinks: what is likely to be nearest comes first. False if it takes more
/// than `most` evaluations; then something is missing.
pub(super) fn nearest_first(
    tree: &Tree,
    query: &[f32],
    most: u64,
    sink: &mut impl Sink,
    scratch: &mut Scratch,
) -> Result<bool, ReadError> {
    let Scratch { best_first, depth_first, visits, .. } = scratch;
    visits.begin();
    match tree.has_boxes() {
        true => Walk { tree, query, sink, buffers: depth_first, visits }.run(most),
        false => Walk { tree, query, sink, buffers: best_first, visits }.run(most),
    }
}

/// For a sink whose reach stays: in any order.
pub(super) fn all_within_reach(
    tree: &Tree,
    query: &[f32],
    sink: &mut impl Sink,
    scratch: &mut Scratch,
) -> Result<(), ReadError> {
    let Scratch { exhaustive, visits, .. } = scratch;
    visits.begin();
    Walk { tree, query, sink, buffers: exhaustive, visits }.run()
}

/// Offers every point of a range of slots.
pub(super) fn scan(
    tree: &Tree,
    query: &[f32],
    range: Range,
    sink: &mut impl Sink,
    scratch: &mut Scratch,
) -> Result<(), ReadError> {
    scratch.visits.forget();
    scratch.visits.scan(tree, query, range, sink)
}

/// Where in the packed order the answer to a query lies, roughly: the first slot of the small
/// subtree that a descent to the nearest center ends at. Queries sorted by it find in the cache
/// what the one before them read.
pub(super) fn neighbourhood(
    tree: &Tree,
    query: &[f32],
    scratch: &mut Scratch,
) -> Result<u32, ReadError> {
    if tree.node_rows() == 0 {
        return Ok(0);
    }
    scratch.visits.forget();
    let mut node = ROOT;
    loop {
        let links = tree.link(node)?;
        if links.packed().is_some_and(|range| range.count <= SORTING_POINTS) {
            return Ok(links.row.slot_start);
        }
        match scratch.visits.nearest_child(tree, query, node, &links)? {
            Some(child) => node = child.number(),
            None => return Ok(links.row.slot_start),
        }
    }
}
