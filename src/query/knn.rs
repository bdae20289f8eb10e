//! The k nearest neighbours: best-first descent by lower bound, with the slack that makes pruning exact.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Neighbor;
use super::heap::KBest;
use crate::error::ReadError;
use crate::format::rows::LINK_UNEQUAL_TWINS;

use crate::metric;
use crate::tree::columns::{ROOT, Range, Tree, too_many_nodes};

/// Subtrees of at most this many values are scanned flat while they are packed: a scan costs less than the cache misses
/// of a descent.
const FLAT_SCAN_VALUES: usize = 4096;

/// The same in rows: at least and at most.
const FLAT_SCAN_ROWS: std::ops::RangeInclusive<usize> = 32..=256;

/// Sums that are sifted at once.
const SIFT: usize = 16;

/// Rows scanned before the bound is looked at again.
const SCAN_STEP: u32 = 256;

/// Nodes to visit, the one with the smallest lower bound first.
#[derive(Default)]
struct Frontier {
    /// Bits of the bound (rounded down, not negative), then the position in `nodes`: one integer to compare.
    heap: BinaryHeap<Reverse<u64>>,
    nodes: Vec<Pending>,
}

/// A node to visit.
#[derive(Clone, Copy)]
struct Pending {
    node: u32,
    /// Canonical distance from the query to the center.
    distance: f32,
}

impl Frontier {
    fn clear(&mut self) {
        self.heap.clear();
        self.nodes.clear();
    }

    fn push(&mut self, bound: f64, pending: Pending) {
        let bound = (bound as f32).next_down().max(0.0);
        self.heap.push(Reverse((bound.to_bits() as u64) << 32 | self.nodes.len() as u64));
        self.nodes.push(pending);
    }

    /// The node with the smallest bound, and the bound.
    fn pop(&mut self) -> Option<(f32, Pending)> {
        let Reverse(key) = self.heap.pop()?;
        Some((f32::from_bits((key >> 32) as u32), self.nodes[key as u32 as usize]))
    }
}

/// Buffers of a query, reused from one to the next.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) best: KBest,
    frontier: Frontier,
    sums: Vec<f32>,
    /// Canonical distances computed since the scratch was made.
    pub(crate) evaluations: u64,
}

/// Finds the first min(k, live) points in the order (distance, id); they are left in `scratch.best`.
pub(crate) fn knn(
    tree: &Tree,
    query: &[f32],
    k: usize,
    scratch: &mut Scratch,
) -> Result<(), ReadError> {
    let live = tree.live()?;
    scratch.best.reset(k, live);
    if k == 0 || live == 0 {
        return Ok(());
    }
    scratch.frontier.clear();
    let sum = tree.kernel.sum(query, tree.centers.row(ROOT as u64)?);
    scratch.evaluations += 1;
    scratch.frontier.push(0.0, Pending { node: ROOT, distance: metric::distance(sum) });
    let mut budget = tree.node_rows();
    while let Some((bound, next)) = scratch.frontier.pop() {
        if bound > scratch.best.radius() {
            break;
        }
        budget = budget.checked_sub(1).ok_or_else(|| too_many_nodes(next.node))?;
        visit(tree, query, next, scratch)?;
    }
    Ok(())
}

/// Where in the packed order the answer to a query lies, roughly: the first slot of the node that a descent to the
/// nearest child ends at. Queries sorted by it find in the cache what the one before them read.
pub(crate) fn neighbourhood(
    tree: &Tree,
    query: &[f32],
    scratch: &mut Scratch,
) -> Result<u32, ReadError> {
    if tree.node_rows() == 0 {
        return Ok(0);
    }
    let mut node = ROOT;
    loop {
        let link = tree.link(node)?;
        let mut nearest = (f32::INFINITY, None);
        tree.for_children(node, &link, |block| {
            tree.sums(&tree.centers, block, query, &mut scratch.sums)?;
            scratch.evaluations += block.count as u64;
            for (child, &sum) in (block.start..).zip(&scratch.sums) {
                if sum < nearest.0 {
                    nearest = (sum, Some(child));
                }
            }
            Ok(())
        })?;
        match nearest.1 {
            Some(child) => node = child,
            None => return Ok(link.slot_start),
        }
    }
}

fn visit(
    tree: &Tree,
    query: &[f32],
    Pending { distance, node, .. }: Pending,
    scratch: &mut Scratch,
) -> Result<(), ReadError> {
    let link = tree.link(node)?;
    let span = tree.counts.get(node as u64)?.span;
    let flat = (FLAT_SCAN_VALUES / tree.dim).clamp(*FLAT_SCAN_ROWS.start(), *FLAT_SCAN_ROWS.end());
    if span > 0 && span as usize <= flat {
        return scan(tree, query, Range { start: link.slot_start, count: span }, scratch);
    }
    if link.flags & LINK_UNEQUAL_TWINS != 0 {
        tree.for_twins(node, &link, |range| scan(tree, query, range, scratch))?;
    } else if distance <= scratch.best.radius() {
        tree.for_twins(node, &link, |range| offer_twins(tree, distance, range, &mut scratch.best))?;
    }
    let own_radius = tree.radii.get(node as u64)?.own_radius;
    if !tree.slack.excludes(distance, own_radius, scratch.best.radius()) {
        tree.for_bucket(node, &link, |range| scan(tree, query, range, scratch))?;
    }
    tree.for_children(node, &link, |block| {
        tree.sums(&tree.centers, block, query, &mut scratch.sums)?;
        scratch.evaluations += block.count as u64;
        push_children(tree, block, scratch)
    })
}

/// Puts the children that may hold a neighbour on the heap, given the sums to their centers.
fn push_children(tree: &Tree, block: Range, scratch: &mut Scratch) -> Result<(), ReadError> {
    let Scratch { best, frontier, sums, .. } = scratch;
    let reach = best.radius();
    let mut at = 0;
    tree.radii.for_chunks(block.start as u64, block.count as u64, |_, rows| {
        let sums = &sums[at..at + rows.len()];
        for (row, &sum) in rows.iter().zip(sums) {
            // Most children are too far away by so much that neither root nor slack is needed to see it.
            if sum <= tree.slack.sum_reach(row.radius, reach) {
                let distance = metric::distance(sum);
                let bound = tree.slack.lower_bound(distance, row.radius);
                if bound <= reach as f64 {
                    frontier.push(bound, Pending { node: block.start + at as u32, distance });
                }
            }
            at += 1;
        }
    })
}

/// Offers every live point of a range of slots. In steps, so that what is found in one bounds the sums of the next.
fn scan(tree: &Tree, query: &[f32], range: Range, scratch: &mut Scratch) -> Result<(), ReadError> {
    let end = range.start + range.count;
    let mut start = range.start;
    while start < end {
        let step = Range { start, count: (end - start).min(SCAN_STEP) };
        let limit = scratch.best.sum_limit();
        tree.sums_within(&tree.coordinates, step, query, limit, &mut scratch.sums)?;
        scratch.evaluations += step.count as u64;
        let Scratch { best, sums, .. } = scratch;
        for (i, sums) in sums.chunks(SIFT).enumerate() {
            let limit = best.sum_limit();
            // Mostly none is near enough; that is found for several at once.
            if !sums.iter().fold(false, |near, &sum| near | (sum <= limit)) {
                continue;
            }
            for (slot, &sum) in (start + (i * SIFT) as u32..).zip(sums) {
                if sum <= best.sum_limit() {
                    let distance = metric::distance(sum);
                    if distance <= best.radius() && tree.is_live(slot)? {
                        best.offer(Neighbor { id: tree.ids.get(slot as u64)?, distance });
                    }
                }
            }
        }
        start += step.count;
    }
    Ok(())
}

/// Offers the live twins of a range, which all are at the same distance and are sorted by id.
fn offer_twins(
    tree: &Tree,
    distance: f32,
    range: Range,
    best: &mut KBest,
) -> Result<(), ReadError> {
    for slot in range.start..range.start + range.count {
        if tree.is_live(slot)? {
            let twin = Neighbor { id: tree.ids.get(slot as u64)?, distance };
            if !best.offer(twin) {
                break;
            }
        }
    }
    Ok(())
}
