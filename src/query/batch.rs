//! Many queries at once: sorted along the tree, so that each finds in the cache what the one before it read, and shared
//! out among the threads.

use rayon::prelude::*;

use super::Neighbor;
use super::knn::{self, Scratch};
use crate::error::ReadError;
use crate::tree::columns::Tree;

/// Queries that one task answers in turn.
const QUERIES_PER_TASK: usize = 64;

/// The answers of all queries, in the order of the queries, and the distances computed for them.
pub(crate) fn knn_batch(
    tree: &Tree,
    queries: &[f32],
    k: usize,
) -> Result<(Vec<Neighbor>, u64), ReadError> {
    let query = |row: usize| &queries[row * tree.dim..(row + 1) * tree.dim];
    let rows = queries.len() / tree.dim;
    let mut order: Vec<(u32, usize)> = (0..rows)
        .into_par_iter()
        .with_min_len(QUERIES_PER_TASK)
        .map_init(Scratch::default, |scratch, row| {
            knn::neighbourhood(tree, query(row), scratch).map(|key| (key, row))
        })
        .collect::<Result<_, ReadError>>()?;
    order.par_sort_unstable();
    let parts: Vec<(Vec<Neighbor>, u64)> = order
        .par_chunks(QUERIES_PER_TASK)
        .map_init(Scratch::default, |scratch, part| {
            let before = scratch.evaluations;
            let mut found = Vec::new();
            for &(_, row) in part {
                knn::knn(tree, query(row), k, scratch)?;
                found.extend_from_slice(scratch.best.sorted());
            }
            Ok((found, scratch.evaluations - before))
        })
        .collect::<Result<_, ReadError>>()?;
    let evaluations = parts.iter().map(|part| part.1).sum();
    let found: Vec<Neighbor> = parts.into_iter().flat_map(|part| part.0).collect();
    if rows == 0 {
        return Ok((found, evaluations));
    }
    let per_query = found.len() / rows;
    let mut answers = vec![Neighbor { id: 0, distance: 0.0 }; found.len()];
    for (i, &(_, row)) in order.iter().enumerate() {
        answers[row * per_query..][..per_query]
            .copy_from_slice(&found[i * per_query..][..per_query]);
    }
    Ok((answers, evaluations))
}
