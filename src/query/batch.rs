//! Many queries at once: sorted along the tree, so that each finds in the cache what the one before
//! it read, and shared out among the threads; or scanned for together, where the tree cannot prune.

use rayon::prelude::*;

use super::auto::{self, Verdict};
use super::knn::{self, Scratch};
use super::{Neighbor, brute, walk};
use crate::tree::columns::Tree;
use crate::values::error::ReadError;

/// Queries that one task answers in turn.
const QUERIES_PER_TASK: usize = 64;

/// Fewer queries than this are answered by the tree without asking whether it prunes.
const FEW_QUERIES: usize = 12;

/// The answers of all queries, in the order of the queries, and the distances computed for them.
pub(crate) fn knn_batch(
    tree: &Tree,
    queries: &[f32],
    k: usize,
) -> Result<(Vec<Neighbor>, u64), ReadError> {
    let rows = queries.len() / tree.dim;
    let mut verdict = if rows < FEW_QUERIES { Verdict::Descend } else { Verdict::Unclear };
    let mut scratch = Scratch::default();
    let (mut found, mut rest, mut tried) = (Vec::new(), queries, 0);
    while verdict == Verdict::Unclear {
        let (query, more) = rest.split_at(tree.dim);
        let most = if tried == 0 { auto::most_evaluations(tree, rows) } else { u64::MAX };
        if !knn::knn_within_budget(tree, query, k, most, &mut scratch)? {
            verdict = Verdict::Scan;
            break;
        }
        rest = more;
        found.extend_from_slice(scratch.best.sorted(tree)?);
        tried += 1;
        verdict = auto::judge_batch(tree, rows, tried, scratch.visits(), scratch.evaluations());
    }
    let evaluations = scratch.evaluations();
    if verdict == Verdict::Scan {
        found.extend(brute::knn_batch(tree, rest, k)?);
        let scanned = (rest.len() / tree.dim) as u64 * u64::from(tree.slots());
        return Ok((found, evaluations + scanned));
    }
    let (rest, more) = knn_by_tree(tree, rest, k)?;
    found.extend(rest);
    Ok((found, evaluations + more))
}

/// Answers by the tree, found in the order in which they lie there.
pub(crate) fn knn_by_tree(
    tree: &Tree,
    queries: &[f32],
    k: usize,
) -> Result<(Vec<Neighbor>, u64), ReadError> {
    let query = |row: usize| &queries[row * tree.dim..(row + 1) * tree.dim];
    let rows = queries.len() / tree.dim;
    let mut order: Vec<(u32, usize, u64)> = (0..rows)
        .into_par_iter()
        .with_min_len(QUERIES_PER_TASK)
        .map_init(walk::Scratch::default, |scratch, row| {
            let before = scratch.evaluations();
            let key = walk::neighbourhood(tree, query(row), scratch)?;
            Ok((key, row, scratch.evaluations() - before))
        })
        .collect::<Result<_, ReadError>>()?;
    order.par_sort_unstable();
    let parts: Vec<(Vec<Neighbor>, u64)> = order
        .par_chunks(QUERIES_PER_TASK)
        .map_init(Scratch::default, |scratch, part| {
            let before = scratch.evaluations();
            let mut found = Vec::new();
            for &(_, row, _) in part {
                knn::knn(tree, query(row), k, scratch)?;
                found.extend_from_slice(scratch.best.sorted(tree)?);
            }
            Ok((found, scratch.evaluations() - before))
        })
        .collect::<Result<_, ReadError>>()?;
    let evaluations = parts.iter().map(|part| part.1).sum::<u64>();
    let evaluations = evaluations + order.iter().map(|entry| entry.2).sum::<u64>();
    let found: Vec<Neighbor> = parts.into_iter().flat_map(|part| part.0).collect();
    let per_query = found.len() / rows.max(1);
    let mut answers = vec![Neighbor { id: 0, distance: 0.0 }; found.len()];
    for (i, &(_, row, _)) in order.iter().enumerate() {
        answers[row * per_query..][..per_query]
            .copy_from_slice(&found[i * per_query..][..per_query]);
    }
    Ok((answers, evaluations))
}
