//! The k nearest neighbours: first straight down to the nearest leaf, then best-first by lower bound, with the slack that
//! makes pruning exact.
//!
//! Going down first means that the radius is small before any child is weighed: of the children met on the way most
//! are then cut by one comparison, and never see the queue.

use super::Neighbor;
use super::auto::History;
use super::frontier::{Frontier, Pending};
use super::heap::KBest;
use super::sift::sift;
use crate::error::ReadError;
use crate::format::rows::{LINK_UNEQUAL_TWINS, LinkRow, NONE};
use crate::metric;
use crate::tree::columns::{ROOT, Range, Tree, too_many_nodes};

/// Subtrees of at most this many values are scanned flat while they are packed: a scan costs less than the cache misses
/// of a descent.
const FLAT_SCAN_VALUES: usize = 4096;

/// The same in rows: at least and at most.
const FLAT_SCAN_ROWS: std::ops::RangeInclusive<usize> = 32..=256;

/// Rows scanned before the bound is looked at again.
const SCAN_STEP: u32 = 256;

/// Buffers of a query, reused from one to the next.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) best: KBest,
    frontier: Frontier,
    pub(crate) sums: Vec<f32>,
    path: Vec<Step>,
    /// Sums to the centers of the children of every node on the path.
    path_sums: Vec<f32>,
    /// Canonical distances computed since the scratch was made.
    pub(crate) evaluations: u64,
    /// Nodes visited since the scratch was made.
    pub(crate) visits: u64,
    pub(crate) history: History,
}

/// A node on the way down.
struct Step {
    at: Pending,
    link: LinkRow,
    /// Where the sums of its children begin in `path_sums`.
    sums: usize,
    /// The child that the way went on to; `NONE` at its end.
    next: u32,
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
    descend(tree, query, scratch)?;
    unwind(tree, query, scratch)?;
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

/// What [`knn`] finds, by a scan of every slot.
pub(crate) fn scan_all(
    tree: &Tree,
    query: &[f32],
    k: usize,
    scratch: &mut Scratch,
) -> Result<(), ReadError> {
    scratch.best.reset(k, tree.live()?);
    scan(tree, query, Range { start: 0, count: tree.slots() }, scratch)
}

/// Goes to the nearest child until there is none, or until the subtree is small enough to scan, which is done. Children
/// have larger numbers than their parents, so this ends.
fn descend(tree: &Tree, query: &[f32], scratch: &mut Scratch) -> Result<(), ReadError> {
    scratch.path.clear();
    scratch.path_sums.clear();
    let sum = tree.kernel.sum(query, tree.centers.row(ROOT as u64)?);
    scratch.evaluations += 1;
    let mut at = Pending { node: ROOT, distance: metric::distance(sum) };
    loop {
        scratch.visits += 1;
        let link = tree.link(at.node)?;
        if let Some(range) = small_subtree(tree, at.node, &link)? {
            return scan(tree, query, range, scratch);
        }
        let sums = scratch.path_sums.len();
        let nearest = sweep_children(tree, query, at.node, &link, &mut scratch.path_sums)?;
        scratch.evaluations += (scratch.path_sums.len() - sums) as u64;
        let next = nearest.map_or(NONE, |(child, _)| child);
        scratch.path.push(Step { at, link, sums, next });
        match nearest {
            Some((node, sum)) => at = Pending { node, distance: metric::distance(sum) },
            None => return Ok(()),
        }
    }
}

/// Appends the sums to the centers of a node's children, and returns the nearest child with its sum.
fn sweep_children(
    tree: &Tree,
    query: &[f32],
    node: u32,
    link: &LinkRow,
    sums: &mut Vec<f32>,
) -> Result<Option<(u32, f32)>, ReadError> {
    let mut nearest = None;
    let mut least = f32::INFINITY;
    tree.for_children(node, link, |block| {
        let start = sums.len();
        tree.add_sums(&tree.centers, block, query, sums)?;
        for (child, &sum) in (block.start..).zip(&sums[start..]) {
            if sum < least {
                least = sum;
                nearest = Some((child, sum));
            }
        }
        Ok(())
    })?;
    Ok(nearest)
}

/// Visits the nodes of the way down in full, the last first, except for what the way has been through.
fn unwind(tree: &Tree, query: &[f32], scratch: &mut Scratch) -> Result<(), ReadError> {
    while let Some(Step { at, link, sums, next }) = scratch.path.pop() {
        own_points(tree, query, at, &link, scratch)?;
        let Scratch { best, frontier, path_sums, .. } = scratch;
        let mut start = sums;
        tree.for_children(at.node, &link, |block| {
            let end = start + block.count as usize;
            push_children(tree, block, &path_sums[start..end], next, best.radius(), frontier)?;
            start = end;
            Ok(())
        })?;
    }
    Ok(())
}

/// The slots of a subtree that is packed and so small that a scan costs less than a descent.
#[inline]
fn small_subtree(tree: &Tree, node: u32, link: &LinkRow) -> Result<Option<Range>, ReadError> {
    let span = tree.counts.get(node as u64)?.span;
    let rows = (FLAT_SCAN_VALUES / tree.dim).clamp(*FLAT_SCAN_ROWS.start(), *FLAT_SCAN_ROWS.end());
    let small = span > 0 && span as usize <= rows;
    if small && link.slot_start > tree.slots().saturating_sub(span) {
        return Err(ReadError::row("counts", node as u64, "a span of slots that do not exist"));
    }
    Ok(small.then_some(Range { start: link.slot_start, count: span }))
}

fn visit(tree: &Tree, query: &[f32], at: Pending, scratch: &mut Scratch) -> Result<(), ReadError> {
    scratch.visits += 1;
    let link = tree.link(at.node)?;
    if let Some(range) = small_subtree(tree, at.node, &link)? {
        return scan(tree, query, range, scratch);
    }
    own_points(tree, query, at, &link, scratch)?;
    let Scratch { best, frontier, sums, evaluations, .. } = scratch;
    tree.for_children(at.node, &link, |block| {
        tree.sums(&tree.centers, block, query, sums)?;
        *evaluations += block.count as u64;
        push_children(tree, block, sums, NONE, best.radius(), frontier)
    })
}

/// Offers the points of a node's own twin list and bucket.
fn own_points(
    tree: &Tree,
    query: &[f32],
    Pending { node, distance }: Pending,
    link: &LinkRow,
    scratch: &mut Scratch,
) -> Result<(), ReadError> {
    if link.flags & LINK_UNEQUAL_TWINS != 0 {
        tree.for_twins(node, link, |range| scan(tree, query, range, scratch))?;
    } else if distance <= scratch.best.radius() {
        tree.for_twins(node, link, |range| offer_twins(tree, distance, range, &mut scratch.best))?;
    }
    let own_radius = tree.radii.get(node as u64)?.own_radius;
    if !tree.slack.excludes(distance, own_radius, scratch.best.radius()) {
        tree.for_bucket(node, link, |range| scan(tree, query, range, scratch))?;
    }
    Ok(())
}

/// Queues the children that may hold a neighbour within `reach`, given the sums to their centers, except for `skip`.
fn push_children(
    tree: &Tree,
    block: Range,
    sums: &[f32],
    skip: u32,
    reach: f32,
    frontier: &mut Frontier,
) -> Result<(), ReadError> {
    let mut at = 0;
    tree.radii.for_chunks(block.start as u64, block.count as u64, |_, rows| {
        for (row, &sum) in rows.iter().zip(&sums[at..at + rows.len()]) {
            let node = block.start + at as u32;
            at += 1;
            // Most children are too far away by so much that neither root nor slack is needed to see it.
            if sum <= tree.slack.sum_reach(row.radius, reach) && node != skip {
                let distance = metric::distance(sum);
                let bound = tree.slack.lower_bound(distance, row.radius);
                if bound <= reach as f64 {
                    frontier.push(bound, Pending { node, distance });
                }
            }
        }
    })
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
        scratch.sums.clear();
        let nearest = sweep_children(tree, query, node, &link, &mut scratch.sums)?;
        scratch.evaluations += scratch.sums.len() as u64;
        match nearest {
            Some((child, _)) => node = child,
            None => return Ok(link.slot_start),
        }
    }
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
        sift(tree, start, &scratch.sums, &mut scratch.best)?;
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
