//! The same answers without the tree: a blocked scan of every slot. The oracle of the tests and of `--brute-force`, and
//! as fast as memory allows.

use rayon::prelude::*;

use super::Neighbor;
use super::heap::KBest;
use crate::error::ReadError;
use crate::metric;
use crate::tree::columns::Tree;

/// Queries that share one pass over the rows.
const QUERIES_PER_PASS: usize = 16;

/// Rows per tile.
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
    let mut failure = None;
    for_tiles(tree, queries, |query, slot, sum| {
        let best = &mut best[query];
        if sum <= best.sum_limit() && failure.is_none() {
            let distance = metric::distance(sum);
            match live_id(tree, slot) {
                Ok(Some(id)) => {
                    best.offer(Neighbor { id, distance });
                }
                Ok(None) => {}
                Err(e) => failure = Some(e),
            }
        }
    })?;
    match failure {
        Some(e) => Err(e),
        None => Ok(best.iter_mut().flat_map(|best| best.sorted().to_vec()).collect()),
    }
}

/// All live points with canonical distance at most `radius`, in the order (distance, id).
pub(crate) fn within(tree: &Tree, query: &[f32], radius: f32) -> Result<Vec<Neighbor>, ReadError> {
    let mut found = Vec::new();
    let mut failure = None;
    for_tiles(tree, query, |_, slot, sum| {
        let distance = metric::distance(sum);
        if distance <= radius && failure.is_none() {
            match live_id(tree, slot) {
                Ok(Some(id)) => found.push(Neighbor { id, distance }),
                Ok(None) => {}
                Err(e) => failure = Some(e),
            }
        }
    })?;
    found.sort_unstable_by(Neighbor::order);
    match failure {
        Some(e) => Err(e),
        None => Ok(found),
    }
}

fn live_id(tree: &Tree, slot: u32) -> Result<Option<u64>, ReadError> {
    match tree.is_live(slot)? {
        true => Ok(Some(tree.ids.get(slot as u64)?)),
        false => Ok(None),
    }
}

/// Calls `f` with (query, slot, sum) for every pair, tile by tile.
fn for_tiles(
    tree: &Tree,
    queries: &[f32],
    mut f: impl FnMut(usize, u32, f32),
) -> Result<(), ReadError> {
    let dim = tree.dim;
    let count = queries.len() / dim;
    let mut sums = Vec::new();
    tree.coordinates.for_chunks(0, tree.slots() as u64, |first, chunk| {
        for (i, rows) in chunk.chunks(rows_per_tile(dim) * dim).enumerate() {
            let first = first as u32 + (i * rows_per_tile(dim)) as u32;
            let rows_here = rows.len() / dim;
            sums.clear();
            sums.resize(count * rows_here, 0.0);
            match count {
                1 => tree.kernel.sums(queries, rows, &mut sums),
                _ => tree.kernel.tile(queries, rows, dim, &mut sums),
            }
            for (query, sums) in sums.chunks_exact(rows_here).enumerate() {
                for (slot, &sum) in (first..).zip(sums) {
                    f(query, slot, sum);
                }
            }
        }
    })
}
