//! Which points of a batch are planned together: those for one node, or for one subtree that is to
//! be rebuilt.
//!
//! A subtree that has grown too much since it was built is built anew, the topmost one first,
//! because many small batches leave a worse tree than one large one.

use std::collections::{BTreeMap, BTreeSet};

use super::locate::Placements;
use super::source::Point;
use crate::tree::columns::Tree;
use crate::values::error::ReadError;

/// A subtree is rebuilt when it holds more than 3 points for every 2 that it was built with. At
/// twice as many, sheets of 4 dimensions that come sorted cost a query a tenth more, and a hundred
/// batches write a fifth less.
const REBUILD_GROWTH: (u64, u64) = (3, 2);

/// A batch rebuilds at most this many times its own points, or this many buckets of points if that
/// is more. So a version costs in proportion to its batch, and no batch pays for all before it.
/// Larger subtrees are left as they are: it is the structure near the leaves that ages.
const REBUILT_PER_POINT: u64 = 96;
const REBUILT_BUCKETS: u64 = 64;

/// A subtree is also rebuilt when its node links this many later ranges, which are rewritten as a
/// whole.
const REBUILD_RUNS: u16 = 4096;

/// With more than this many it is rebuilt even if that takes more memory than there should be.
const LAST_RUNS: u16 = 60_000;

/// Points of the batch for one node, or for one subtree that is rebuilt.
pub(super) struct Group {
    pub(super) node: u32,
    pub(super) rebuild: bool,
    pub(super) points: Vec<Point>,
}

/// Groups the batch by node, and merges the groups below each node that is to be rebuilt, which
/// come to `most` points in all, or fewer.
pub(super) fn group(
    tree: &Tree,
    placements: &Placements,
    most: u64,
) -> Result<Vec<Group>, ReadError> {
    let mut by_node: BTreeMap<u32, Vec<Point>> = BTreeMap::new();
    for (point, &node) in placements.nodes.iter().enumerate() {
        by_node.entry(node).or_default().push(point as Point);
    }
    let mut gained: BTreeMap<u32, u64> = BTreeMap::new();
    for (&target, points) in &by_node {
        let mut node = Some(target);
        while let Some(n) = node {
            *gained.entry(n).or_insert(0) += points.len() as u64;
            node = tree.parent(n)?;
        }
    }
    let batch = placements.nodes.len() as u64;
    let mut budget = (REBUILT_PER_POINT * batch).max(REBUILT_BUCKETS * tree.leaf_capacity as u64);
    budget = budget.min(most);
    // Parents come before their children.
    let mut overgrown = BTreeSet::new();
    for (&node, &gain) in &gained {
        let live = tree.counts.get(node as u64)?.live as u64 + gain;
        let built = tree.nodes.get(node as u64)?.built as u64;
        let link = tree.link(node)?;
        let mut has_children = false;
        tree.for_children(node, &link, |_| {
            has_children = true;
            Ok(())
        })?;
        let (now, then) = REBUILD_GROWTH;
        let grown = then * live > now * built && live >= 2 * tree.leaf_capacity as u64;
        let full = link.run_count >= REBUILD_RUNS && (live <= most || link.run_count > LAST_RUNS);
        let due = full || (grown && live <= budget);
        if has_children && due && ancestor_in(tree, node, &overgrown)?.is_none() {
            budget = budget.saturating_sub(live);
            overgrown.insert(node);
        }
    }
    let mut groups: BTreeMap<u32, Group> = BTreeMap::new();
    for (target, points) in by_node {
        let rebuilt = ancestor_in(tree, target, &overgrown)?;
        let node = rebuilt.unwrap_or(target);
        let rebuild = rebuilt.is_some();
        let group = groups.entry(node).or_insert(Group { node, rebuild, points: Vec::new() });
        group.points.extend(points);
    }
    Ok(groups.into_values().collect())
}

/// The node itself or the one above it that is in `nodes`, of which none is above another.
fn ancestor_in(tree: &Tree, node: u32, nodes: &BTreeSet<u32>) -> Result<Option<u32>, ReadError> {
    let mut node = Some(node);
    while let Some(n) = node.filter(|_| !nodes.is_empty()) {
        if nodes.contains(&n) {
            return Ok(node);
        }
        node = tree.parent(n)?;
    }
    Ok(None)
}
