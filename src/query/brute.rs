//! The same answers without the tree: a blocked scan of every slot. The oracle of the tests and of `--brute-force`, and
//! what batches fall back to ([`super::auto`]).

use rayon::prelude::*;

use super::Neighbor;
use super::heap::KBest;
use super::sift::sift;
use crate::error::ReadError;
use crate::metric;
use crate::tree::columns::Tree;

/// Queries that share one pass over the rows.
const QUERIES_PER_PASS: usize = 32;

/// Rows per tile: what the second-level cache holds well.
fn rows_per_tile(dim: usize) -> usize {
    (64 * 1024 / (4 * dim)).clamp(4, 1024)
}

/// For each of `queries` (row-major) its first min(k, live) neighbours, one query after the other.
pub(crate) fn knn_batch(
    tree: &Tree,
    queries: &[f32],
    k: usize,
) -> Result<Vec<Neighbor>, ReadError> {
    let parts: Vec<Vec<Neighbor>> = queries
        .par_chunks(QUERIES_PER_PASS * tree.dim)
        .map(|queries| pass(tree, queries, k))
        .collect::<Result<_, ReadError>>()?;
    Ok(parts.concat())
}

fn pass(tree: &Tree, queries: &[f32], k: usize) -> Result<Vec<Neighbor>, ReadError> {
    let live = tree.live()?;
    let mut best: Vec<KBest> = Vec::new();
    best.resize_with(queries.len() / tree.dim, KBest::default);
    best.iter_mut().for_each(|best| best.reset(k, live));
    for_tiles(tree, queries, |query, first, sums| sift(tree, first, sums, &mut best[query]))?;
    Ok(best.iter_mut().flat_map(|best| best.sorted().to_vec()).collect())
}

/// All live points with canonical distance at most `radius`, in the order (distance, id).
pub(crate) fn within(tree: &Tree, query: &[f32], radius: f32) -> Result<Vec<Neighbor>, ReadError> {
    let mut found = Vec::new();
    for_tiles(tree, query, |_, first, sums| {
        for (slot, &sum) in (first..).zip(sums) {
            let distance = metric::distance(sum);
            if distance <= radius && tree.is_live(slot)? {
                found.push(Neighbor { id: tree.ids.get(slot as u64)?, distance });
            }
        }
        Ok(())
    })?;
    found.sort_unstable_by(Neighbor::order);
    Ok(found)
}

/// Calls `f` with (query, first slot, sums from there on) for every query and every tile of rows.
fn for_tiles(
    tree: &Tree,
    queries: &[f32],
    mut f: impl FnMut(usize, u32, &[f32]) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let dim = tree.dim;
    let count = queries.len() / dim;
    let tile = rows_per_tile(dim) as u64;
    let slots = tree.slots() as u64;
    let mut sums = Vec::new();
    let mut first = 0;
    while first < slots {
        let rows = tree.coordinates.chunk(first, tile.min(slots - first))?;
        let rows_here = rows.len() / dim;
        sums.clear();
        sums.resize(count * rows_here, 0.0);
        match count {
            1 => tree.kernel.sums(queries, rows, &mut sums),
            _ => tree.kernel.tile(queries, rows, dim, &mut sums),
        }
        for (query, sums) in sums.chunks_exact(rows_here).enumerate() {
            f(query, first as u32, sums)?;
        }
        first += rows_here as u64;
    }
    Ok(())
}
