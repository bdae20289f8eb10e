//! Stage: the node that each new point belongs to, found against the tree as it is.
//!
//! From the root: among the children that cover the point take the nearest (the smaller number if
//! two are equally near); if it is nearer than the node itself, descend, else stop. In a bulk-built
//! tree this finds every point where it lies, because splitting hands points out by the same rule.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::batch::Batch;
use super::report::Work;
use super::{Context, Stop};
use crate::space::{self, Level};
use crate::tree::columns::{ROOT, Tree};
use crate::tree::extent::Extent;
use crate::tree::root_level;
use crate::tree::visit_limit::VisitLimit;
use crate::values::error::ReadError;

/// Where each point of a batch goes.
pub(crate) struct Placements {
    /// Target node of each row; empty if the tree is.
    pub(crate) nodes: Vec<u32>,
    /// Sum of squares to that node's center.
    pub(crate) sums: Vec<f32>,
    /// Radii that must grow, because a new point below is farther away (T5): node to distance.
    pub(crate) radii: BTreeMap<u32, f32>,
    /// Boxes that must grow (T8): node to what they must hold.
    pub(crate) extents: BTreeMap<u32, Extent>,
    /// Level that the root needs to cover the batch (T1).
    pub(crate) root_level: Level,
}

/// Rows located by one task.
const ROWS_PER_TASK: usize = 256;

/// Locates every row of a batch.
pub(crate) fn locate(
    tree: &Tree,
    context: &Context<'_>,
    batch: &Batch<'_>,
    work: &mut Work,
) -> Result<Placements, Stop> {
    let mut placements = Placements {
        nodes: Vec::new(),
        sums: Vec::new(),
        radii: BTreeMap::new(),
        extents: BTreeMap::new(),
        root_level: Level::MIN,
    };
    if tree.node_rows() == 0 {
        return Ok(placements);
    }
    let rows = batch.ids.len();
    placements.nodes.reserve_exact(rows);
    placements.sums.reserve_exact(rows);
    let parts: Vec<Part> = batch
        .points
        .par_chunks(ROWS_PER_TASK * tree.dim)
        .map(|points| {
            context.check()?;
            let mut part = Part::default();
            for point in points.chunks_exact(tree.dim) {
                part.locate(tree, point)?;
            }
            Ok(part)
        })
        .collect::<Result<_, Stop>>()?;
    let mut root_sum: f32 = 0.0;
    for part in parts {
        for (node, sum) in part.found {
            placements.nodes.push(node);
            placements.sums.push(sum);
        }
        for (node, distance) in part.radii {
            let radius = placements.radii.entry(node).or_insert(0.0);
            *radius = radius.max(distance);
        }
        for (node, extent) in part.extents {
            placements.extents.entry(node).or_insert(Extent::EMPTY).merge(&extent);
        }
        root_sum = root_sum.max(part.root_sum);
        work.counters.distance_evaluations += part.evaluations;
    }
    placements.root_level = root_level(root_sum);
    context.options.report("locate", rows as u64, rows as u64);
    Ok(placements)
}

#[derive(Default)]
struct Part {
    found: Vec<(u32, f32)>,
    radii: BTreeMap<u32, f32>,
    extents: BTreeMap<u32, Extent>,
    root_sum: f32,
    evaluations: u64,
    sums: Vec<f32>,
}

impl Part {
    fn locate(&mut self, tree: &Tree, point: &[f32]) -> Result<(), ReadError> {
        let mut node = ROOT;
        let mut sum = tree.kernel.sum(point, tree.centers.row(ROOT as u64)?);
        self.evaluations += 1;
        if !sum.is_finite() {
            return Err(ReadError::row("centers", ROOT as u64, "a center that is no point"));
        }
        self.root_sum = self.root_sum.max(sum);
        let mut met = VisitLimit::default();
        loop {
            let distance = space::distance(sum);
            if tree.has_boxes() && !tree.extent(node)?.covers(point) {
                self.extents.entry(node).or_insert(Extent::EMPTY).include(point);
            }
            if distance > tree.radii.get(node as u64)? {
                let radius = self.radii.entry(node).or_insert(0.0);
                *radius = radius.max(distance);
            }
            // Nothing is nearer than a center that the point coincides with.
            let next = if sum > 0.0 {
                self.nearest_child(tree, node, point, sum, &mut met)?
            } else {
                None
            };
            match next {
                Some((child, nearer)) => (node, sum) = (child, nearer),
                None => break,
            }
        }
        self.found.push((node, sum));
        Ok(())
    }

    /// The nearest child that covers the point and is nearer than `sum`.
    fn nearest_child(
        &mut self,
        tree: &Tree,
        node: u32,
        point: &[f32],
        sum: f32,
        met: &mut VisitLimit,
    ) -> Result<Option<(u32, f32)>, ReadError> {
        let mut best = None;
        let mut best_sum = sum;
        let link = tree.link(node)?;
        met.runs(tree, node, &link)?;
        tree.for_children(node, &link, |block| {
            met.children(tree, node, block)?;
            tree.sums(&tree.centers, block, point, &mut self.sums)?;
            self.evaluations += block.count as u64;
            let mut i = 0;
            tree.nodes.for_chunks(block.start as u64, block.count as u64, |_, rows| {
                for row in rows {
                    let sum = self.sums[i];
                    // Blocks come in ascending order, so that "<" leaves ties to the smaller
                    // number.
                    if sum < best_sum && Level::new(row.level).covers(sum) {
                        best_sum = sum;
                        best = Some(block.start + i as u32);
                    }
                    i += 1;
                }
            })
        })?;
        Ok(best.map(|child| (child, best_sum)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::insert::scratch::ScratchPool;
    use crate::store::Store;
    use crate::tree::columns::Range;
    use crate::values::options::{CreateOptions, OpenOptions};

    /// Points on a small lattice with some noise: ties, duplicates and exact powers of two between
    /// them.
    fn points(n: usize, dim: usize) -> Vec<f32> {
        let mut state = 5u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        };
        let noise = |r: u64| {
            if r.is_multiple_of(3) { 0.0 } else { (r % 1000) as f32 / 1000.0 }
        };
        (0..n * dim).map(|_| (next() % 8) as f32 + noise(next())).collect()
    }

    #[test]
    fn finds_every_point_of_a_bulk_built_tree_where_it_lies() {
        for (leaf_capacity, dim) in [(1, 1), (1, 3), (2, 2), (32, 3), (32, 12), (8, 40)] {
            let points = points(3000, dim);
            let options = CreateOptions::new(dim).leaf_capacity(leaf_capacity);
            let mut store = Store::in_memory(options, OpenOptions::new().threads(2)).unwrap();
            store.insert(&points).unwrap();
            let snapshot = store.latest().unwrap();
            let tree = snapshot.tree();
            let ids: Vec<u64> = (0..3000).collect();
            let batch = Batch { points: &points, ids };
            let open = OpenOptions::new();
            let scratch = ScratchPool::new(1);
            let context = Context { options: &open, scratch: &scratch, most_rebuilt: u64::MAX };
            let found = locate(tree, &context, &batch, &mut Work::default()).unwrap();
            assert!(found.radii.is_empty(), "every point is inside every radius (T5)");
            assert!(found.extents.is_empty(), "and inside every box (T8)");
            for slot in 0..tree.slots() {
                let point = tree.ids.get(slot as u64).unwrap() as usize;
                assert_eq!(found.nodes[point], tree.owner(slot).unwrap(), "B = {leaf_capacity}");
            }
        }
    }

    #[test]
    fn a_capacity_of_one_gives_every_distinct_point_a_node() {
        let options = CreateOptions::new(2).leaf_capacity(1);
        let mut store = Store::in_memory(options, OpenOptions::new()).unwrap();
        let points = points(2000, 2);
        for batch in points.chunks(2 * 300) {
            store.insert(batch).unwrap();
        }
        let snapshot = store.latest().unwrap();
        let tree = snapshot.tree();
        for slot in 0..tree.slots() {
            let owner = tree.owner(slot).unwrap();
            if tree.is_live(slot).unwrap() {
                let center = tree.centers.row(owner as u64).unwrap();
                assert_eq!(center, tree.coordinates.row(slot as u64).unwrap());
            }
        }
        let mut buckets = Vec::new();
        for node in 0..tree.node_rows() {
            let link = tree.link(node).unwrap();
            tree.for_bucket(node, &link, |range: Range| {
                buckets.push(range);
                Ok(())
            })
            .unwrap();
        }
        assert!(buckets.is_empty());
    }
}
