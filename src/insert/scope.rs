//! How far from its center a node with children keeps rows in its bucket.

use super::report::Work;
use crate::space::Level;
use crate::tree::columns::{Links, Tree};
use crate::values::error::ReadError;

/// A node that links so many later ranges waits for one more row out of scope before it links
/// another.
const RUNS_PER_STRANGER: usize = 16;

/// The largest sum to its center that a row in the bucket of a node should have: 4^l for the level
/// l of the lowest child. A split leaves none beyond. If later rows were let in from anywhere up to
/// the node's own level, the own radius would grow to that, and every query that passes would scan
/// the bucket: they become children instead.
pub(super) fn bucket_scope(tree: &Tree, node: u32, link: &Links) -> Result<f32, ReadError> {
    let mut lowest = None;
    tree.for_children(node, link, |block| {
        tree.nodes.for_chunks(block.start as u64, block.count as u64, |_, rows| {
            lowest = rows.iter().map(|row| row.level).chain(lowest).min();
        })
    })?;
    Ok(lowest.map_or(f32::INFINITY, |level| Level::new(level).pow4()))
}

/// True if so many new rows out of scope, and those that the bucket has already, make it worth
/// linking one more range of children. A few ranges cost nothing; where there are many, rows wait
/// for others in the bucket.
pub(super) fn justify_children(
    tree: &Tree,
    node: u32,
    link: &Links,
    center: &[f32],
    strangers: usize,
    scope: f32,
    work: &mut Work,
) -> Result<bool, ReadError> {
    let wanted = usize::from(link.run_count) / RUNS_PER_STRANGER;
    let (mut strangers, mut sums) = (strangers, Vec::new());
    if strangers <= wanted {
        tree.for_bucket(node, link, |range| {
            tree.sums(&tree.coordinates, range, center, &mut sums)?;
            work.counters.distance_evaluations += sums.len() as u64;
            strangers += sums.iter().filter(|&&sum| sum > scope).count();
            Ok(())
        })?;
    }
    Ok(strangers > wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::tree::columns::ROOT;
    use crate::values::options::{CreateOptions, OpenOptions};

    /// Rows in buckets of nodes with children, and how many of them are out of scope.
    fn out_of_scope(tree: &Tree) -> (u64, u64) {
        let (mut rows, mut out) = (0, 0);
        let mut pending = vec![ROOT];
        let mut sums = Vec::new();
        while let Some(node) = pending.pop() {
            let link = tree.link(node).unwrap();
            let scope = bucket_scope(tree, node, &link).unwrap();
            tree.for_children(node, &link, |block| {
                pending.extend(block.start..block.start + block.count);
                Ok(())
            })
            .unwrap();
            let center = tree.centers.row(node as u64).unwrap();
            tree.for_bucket(node, &link, |range| {
                tree.sums(&tree.coordinates, range, center, &mut sums)?;
                if scope < f32::INFINITY {
                    rows += sums.len() as u64;
                    out += sums.iter().filter(|&&sum| sum > scope).count() as u64;
                }
                Ok(())
            })
            .unwrap();
        }
        (rows, out)
    }

    #[test]
    fn batches_leave_buckets_about_as_wide_as_a_split_does() {
        let mut state = 3_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        for (dim, leaf_capacity) in [(2, 8), (3, 32), (12, 16)] {
            let mut points: Vec<Vec<f32>> =
                (0..6000).map(|_| (0..dim).map(|_| uniform()).collect()).collect();
            points.sort_by(|a, b| a[0].total_cmp(&b[0]));
            let options = CreateOptions::new(dim).leaf_capacity(leaf_capacity);
            let mut store = Store::in_memory(options, OpenOptions::new()).unwrap();
            // Sorted, then more of the same everywhere.
            let more: Vec<Vec<f32>> =
                (0..2000).map(|_| (0..dim).map(|_| uniform()).collect()).collect();
            for batch in points.chunks(500).chain(more.chunks(40)) {
                store.insert(&batch.concat()).unwrap();
            }
            let snapshot = store.latest().unwrap();
            let (rows, out) = out_of_scope(snapshot.tree());
            assert!(rows > 10, "dimension {dim}: {rows} rows");
            assert!(out * 20 <= rows, "dimension {dim}: {out} of {rows} rows");
        }
    }

    /// Points that come one by one, each where no child reaches: they must not make a list as long
    /// as they are many.
    #[test]
    fn points_out_of_scope_do_not_lengthen_the_list_of_ranges_one_by_one() {
        let mut state = 11_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        let dim = 40;
        let options = CreateOptions::new(dim).leaf_capacity(8);
        let mut store = Store::in_memory(options, OpenOptions::new()).unwrap();
        // A cluster below the root, which so has children, and corners of a cube, far from each
        // other.
        let cluster: Vec<f32> = (0..400 * dim).map(|_| 0.1 * uniform()).collect();
        store.insert(&cluster).unwrap();
        let points = 1500;
        for _ in 0..points {
            let corner: Vec<f32> = (0..dim).map(|_| (2.0 * uniform()).floor()).collect();
            store.insert(&corner).unwrap();
        }
        let snapshot = store.latest().unwrap();
        let tree = snapshot.tree();
        let most = (0..tree.node_rows()).map(|node| tree.link(node).unwrap().run_count).max();
        assert!(most.unwrap() < 300, "{most:?} ranges for {points} points");
        assert!(crate::tree::check::check(tree).unwrap().is_empty());
    }
}
