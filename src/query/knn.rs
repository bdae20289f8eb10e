//! The k nearest neighbours: first straight down to the nearest leaf, then best-first by lower bound.
//!
//! Going down first means that the reach is small before any child is weighed: of the children met on the way most are
//! then cut by one comparison, and never see the queue.

use super::auto::History;
use super::frontier::Frontier;
use super::heap::KBest;
use super::prune::{Balls, Boxes, Candidate, Prune, Reach};
use super::scan::{offer_twins, scan};
use crate::arena::pressure::Pressure;
use crate::error::ReadError;
use crate::format::rows::{LinkRow, NONE};
use crate::metric::Found;
use crate::tree::columns::{Links, Range, Tree, too_many_nodes};

/// Subtrees of at most this many values are scanned flat while they are packed: a scan costs less than the cache misses
/// of a descent.
const FLAT_SCAN_VALUES: usize = 4096;

/// The same in rows: at least and at most.
const FLAT_SCAN_ROWS: std::ops::RangeInclusive<usize> = 32..=128;

/// So many twins are scanned with the bucket that they lie beside rather than looked at apart.
const FEW_TWINS: u32 = 8;

/// Queries are sorted by subtrees of about this many points.
const SORTING_POINTS: u32 = 16_384;

/// Bytes of a range asked for ahead; the rest comes in order, which the processor foresees.
const PREFETCHED_BYTES: usize = 6144;

/// Buffers of a query, reused from one to the next.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) best: KBest,
    frontier: Frontier,
    found: Vec<Found>,
    swept: Vec<Candidate>,
    path: Vec<Step>,
    /// The children of every node on the path.
    path_children: Vec<Candidate>,
    /// Canonical distances computed since the scratch was made; boxes count as one each.
    pub(crate) evaluations: u64,
    /// Nodes visited since the scratch was made.
    pub(crate) visits: u64,
    pub(crate) history: History,
    pressure: Pressure,
}

/// A node on the way down.
struct Step {
    at: Candidate,
    links: Links,
    /// Where its children begin in `path_children`, if they are kept.
    children: usize,
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
    knn_unless_dear(tree, query, k, u64::MAX, scratch)?;
    Ok(())
}

/// The same, unless it takes more than `most` evaluations: false then, and what has been found is of no use.
pub(crate) fn knn_unless_dear(
    tree: &Tree,
    query: &[f32],
    k: usize,
    most: u64,
    scratch: &mut Scratch,
) -> Result<bool, ReadError> {
    let live = tree.live()?;
    scratch.best.reset(tree, k, live);
    scratch.pressure.step();
    match (k == 0 || live == 0, tree.has_boxes()) {
        (true, _) => Ok(true),
        (false, true) => search::<Boxes>(tree, query, most, scratch),
        (false, false) => search::<Balls>(tree, query, most, scratch),
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
    scan_counted(tree, query, Range { start: 0, count: tree.slots() }, scratch)
}

fn search<P: Prune>(
    tree: &Tree,
    query: &[f32],
    most: u64,
    scratch: &mut Scratch,
) -> Result<bool, ReadError> {
    let most = scratch.evaluations.saturating_add(most);
    scratch.frontier.clear();
    descend::<P>(tree, query, scratch)?;
    unwind::<P>(tree, query, scratch)?;
    // Most of these are the answer; their ids come while the rest is looked at.
    scratch.best.prefetch_ids(tree);
    let mut budget = tree.node_rows();
    let mut foreseen: Option<(u32, Links)> = None;
    while let Some(next) = scratch.frontier.pop() {
        if next.bound > P::limit(tree, Reach::of(&scratch.best)) {
            break;
        }
        budget = budget.checked_sub(1).ok_or_else(|| too_many_nodes(next.node))?;
        let links = match foreseen {
            Some((node, links)) if node == next.node => links,
            _ => tree.link(next.node)?,
        };
        if let Some(after) = scratch.frontier.peek() {
            let links = tree.link(after.node)?;
            prefetch_node::<P>(tree, after.node, &links);
            foreseen = Some((after.node, links));
        }
        visit::<P>(tree, query, next, &links, scratch)?;
        if scratch.evaluations > most {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Asks for what a visit of a node will read first, while something else is being done.
#[inline]
fn prefetch_node<P: Prune>(tree: &Tree, node: u32, links: &Links) {
    match small_subtree(tree, links) {
        Some(range) => {
            let rows = (PREFETCHED_BYTES / (4 * tree.dim)).max(1) as u64;
            tree.coordinates.prefetch(range.start as u64, rows.min(range.count as u64));
        }
        None => {
            tree.centers.prefetch(node as u64, 1);
            let row = links.row;
            P::prefetch_children(tree, Range { start: row.child_start, count: row.child_count });
        }
    }
}

/// Asks for the links of a node that may be visited.
#[inline]
fn prefetch_links(tree: &Tree, node: u32) {
    tree.links.prefetch(node as u64, 1);
    tree.counts.prefetch(node as u64, 1);
}

/// Asks the system for what a visit of a node will read.
#[cold]
fn ask_for<P: Prune>(tree: &Tree, links: &Links) {
    let LinkRow { child_start, child_count, .. } = links.row;
    let own = small_subtree(tree, links).unwrap_or_else(|| {
        P::ask_for_children(tree, Range { start: child_start, count: child_count });
        links.row.own_slots()
    });
    tree.coordinates.will_need(own.start.into(), own.count.into());
}

/// Goes to the nearest child until there is none, or until the subtree is small enough to scan, which is done. Children
/// have larger numbers than their parents, so this ends.
fn descend<P: Prune>(tree: &Tree, query: &[f32], scratch: &mut Scratch) -> Result<(), ReadError> {
    scratch.path.clear();
    scratch.path_children.clear();
    scratch.evaluations += 1;
    let mut at = P::root(tree, query)?;
    loop {
        scratch.visits += 1;
        let links = tree.link(at.node)?;
        if scratch.pressure.is_felt() {
            ask_for::<P>(tree, &links);
        }
        if let Some(range) = small_subtree(tree, &links) {
            return scan_small::<P>(tree, query, at, &links, range, scratch);
        }
        let children = scratch.path_children.len();
        let nearest = nearest_child::<P>(tree, query, at.node, &links, scratch)?;
        if P::SWEEPS_TWICE {
            scratch.path_children.truncate(children);
        }
        let next = nearest.map_or(NONE, |child| child.node);
        scratch.path.push(Step { at, links, children, next });
        match nearest {
            Some(child) => at = child,
            None => return Ok(()),
        }
    }
}

/// The child below which something near is found soonest. Appends the children looked at to `path_children`, all of
/// them unless a few hold the query.
fn nearest_child<P: Prune>(
    tree: &Tree,
    query: &[f32],
    node: u32,
    links: &Links,
    scratch: &mut Scratch,
) -> Result<Option<Candidate>, ReadError> {
    let Scratch { found, path_children, evaluations, .. } = scratch;
    let first = path_children.len();
    let narrow = if P::SWEEPS_TWICE { Some(Reach::HERE) } else { None };
    for reach in narrow.into_iter().chain([Reach::EVERYTHING]) {
        if path_children.len() == first {
            tree.for_children(node, links, |block| {
                *evaluations += block.count as u64;
                P::sweep(tree, query, block, reach, found, path_children)
            })?;
        }
    }
    let nearest = P::nearest(tree, query, &mut path_children[first..])?;
    Ok(nearest.map(|i| path_children[first + i]))
}

/// Visits the nodes of the way down in full, the last first, except for what the way has been through.
fn unwind<P: Prune>(tree: &Tree, query: &[f32], scratch: &mut Scratch) -> Result<(), ReadError> {
    while let Some(Step { at, links, children, next }) = scratch.path.pop() {
        own_points::<P>(tree, query, at, &links, scratch)?;
        if P::SWEEPS_TWICE {
            push_children::<P>(tree, query, at.node, &links, next, scratch)?;
            continue;
        }
        let Scratch { best, frontier, path_children, pressure, .. } = scratch;
        let limit = P::limit(tree, Reach::of(best));
        for &child in &path_children[children..] {
            if child.bound <= limit && child.node != next {
                prefetch_links(tree, child.node);
                if pressure.is_felt() {
                    ask_for::<P>(tree, &tree.link(child.node)?);
                }
                frontier.push(child);
            }
        }
        path_children.truncate(children);
    }
    Ok(())
}

/// Queues the children of a node that may hold something within reach, except for `skip`.
fn push_children<P: Prune>(
    tree: &Tree,
    query: &[f32],
    node: u32,
    links: &Links,
    skip: u32,
    scratch: &mut Scratch,
) -> Result<(), ReadError> {
    let Scratch { best, frontier, found, swept, evaluations, pressure, .. } = scratch;
    let reach = Reach::of(best);
    swept.clear();
    tree.for_children(node, links, |block| {
        *evaluations += block.count as u64;
        P::sweep(tree, query, block, reach, found, swept)
    })?;
    for &child in swept.iter().filter(|child| child.node != skip) {
        prefetch_links(tree, child.node);
        if pressure.is_felt() {
            ask_for::<P>(tree, &tree.link(child.node)?);
        }
        frontier.push(child);
    }
    Ok(())
}

/// The slots of a subtree that is packed and so small that a scan costs less than a descent.
#[inline]
fn small_subtree(tree: &Tree, links: &Links) -> Option<Range> {
    let rows = (FLAT_SCAN_VALUES / tree.dim).clamp(*FLAT_SCAN_ROWS.start(), *FLAT_SCAN_ROWS.end());
    links.packed().filter(|range| range.count as usize <= rows)
}

fn visit<P: Prune>(
    tree: &Tree,
    query: &[f32],
    at: Candidate,
    links: &Links,
    scratch: &mut Scratch,
) -> Result<(), ReadError> {
    scratch.visits += 1;
    if let Some(range) = small_subtree(tree, links) {
        return scan_small::<P>(tree, query, at, links, range, scratch);
    }
    own_points::<P>(tree, query, at, links, scratch)?;
    push_children::<P>(tree, query, at.node, links, NONE, scratch)
}

/// Offers the points of a small subtree. Where the distance to the center is known, the twins of a leaf need no other.
fn scan_small<P: Prune>(
    tree: &Tree,
    query: &[f32],
    at: Candidate,
    links: &Links,
    range: Range,
    scratch: &mut Scratch,
) -> Result<(), ReadError> {
    if !P::SCANS_LEAVES && links.row.child_count == 0 && links.run_count == 0 {
        return own_points::<P>(tree, query, at, links, scratch);
    }
    scan_counted(tree, query, range, scratch)
}

/// Offers the points of a node's own twin list and bucket.
fn own_points<P: Prune>(
    tree: &Tree,
    query: &[f32],
    at: Candidate,
    links: &Links,
    scratch: &mut Scratch,
) -> Result<(), ReadError> {
    let leaf = links.row.child_count == 0 && links.run_count == 0;
    if P::SCANS_LEAVES && leaf && links.row.twin_count <= FEW_TWINS {
        return scan_counted(tree, query, links.row.own_slots(), scratch);
    }
    let distance = P::distance(tree, query, at)?;
    if !links.twins_equal() {
        tree.for_twins(at.node, links, |range| scan_counted(tree, query, range, scratch))?;
    } else if distance <= scratch.best.radius() {
        let best = &mut scratch.best;
        tree.for_twins(at.node, links, |range| offer_twins(tree, distance, range, best))?;
    }
    if !tree.slack.excludes(distance, links.row.own_radius, scratch.best.radius()) {
        tree.for_bucket(at.node, links, |range| scan_counted(tree, query, range, scratch))?;
    }
    Ok(())
}

fn scan_counted(
    tree: &Tree,
    query: &[f32],
    range: Range,
    scratch: &mut Scratch,
) -> Result<(), ReadError> {
    scratch.evaluations += range.count as u64;
    scan(tree, query, range, &mut scratch.best, &mut scratch.found)
}

/// Where in the packed order the answer to a query lies, roughly: the first slot of the small subtree that a descent to
/// the nearest child ends at. Queries sorted by it find in the cache what the one before them read.
pub(crate) fn neighbourhood(
    tree: &Tree,
    query: &[f32],
    scratch: &mut Scratch,
) -> Result<u32, ReadError> {
    match (tree.node_rows(), tree.has_boxes()) {
        (0, _) => Ok(0),
        (_, true) => neighbourhood_by::<Boxes>(tree, query, scratch),
        (_, false) => neighbourhood_by::<Balls>(tree, query, scratch),
    }
}

fn neighbourhood_by<P: Prune>(
    tree: &Tree,
    query: &[f32],
    scratch: &mut Scratch,
) -> Result<u32, ReadError> {
    let mut at = P::root(tree, query)?;
    loop {
        let links = tree.link(at.node)?;
        if links.packed().is_some_and(|range| range.count <= SORTING_POINTS) {
            return Ok(links.row.slot_start);
        }
        scratch.path_children.clear();
        match nearest_child::<P>(tree, query, at.node, &links, scratch)? {
            Some(child) => at = child,
            None => return Ok(links.row.slot_start),
        }
    }
}
