//! The same answers without the tree: a blocked scan of every slot. The oracle of the tests and of
//! `--brute-force`, and what batches fall back to ([`super::auto`]).
//!
//! A batch is scanned by filter and refine ([`super::refine`]). A few queries, or a few rows, go
//! row by row.

use rayon::prelude::*;

use super::Neighbor;
use super::ahead::Ahead;
use super::ball::List;
use super::k_best::KBest;
use super::refine;
use super::scan::scan;
use super::sink::Sink;
use crate::space::Near;
use crate::tree::columns::{Range, Tree};
use crate::values::error::ReadError;

/// Queries that share one pass over the rows, at most.
pub(super) const QUERIES_PER_PASS: usize = 512;

/// Fewer queries, or rows, than this do not repay laying a grid and putting the rows on it.
const FEW_QUERIES: usize = 4;
const FEW_ROWS: u32 = 256;

/// Rows scanned for one query at a time.
const ROWS_TOGETHER: u32 = 256;

/// For each of `queries` (row-major) its first min(k, live) neighbours, one query after the other.
pub(crate) fn knn_batch(
    tree: &Tree,
    queries: &[f32],
    k: usize,
) -> Result<Vec<Neighbor>, ReadError> {
    if k == 0 || tree.live()? == 0 {
        return Ok(Vec::new());
    }
    let count = queries.len() / tree.dim;
    let per_pass = count.div_ceil(rayon::current_num_threads()).clamp(1, QUERIES_PER_PASS);
    if per_pass < FEW_QUERIES || tree.slots() < FEW_ROWS {
        return in_parallel(tree, queries, k, per_pass, row_by_row);
    }
    let grid = refine::grid(tree, queries)?;
    in_parallel(tree, queries, k, per_pass, |tree, queries, best| {
        refine::filter_and_refine(tree, queries, grid.as_ref(), best, k)?;
        Ok(())
    })
}

/// Answers `per_pass` queries in each call of `scan`, which offers what is near to the best of
/// each.
fn in_parallel(
    tree: &Tree,
    queries: &[f32],
    k: usize,
    per_pass: usize,
    scan: impl Fn(&Tree, &[f32], &mut [KBest]) -> Result<(), ReadError> + Sync,
) -> Result<Vec<Neighbor>, ReadError> {
    let parts: Vec<Vec<Neighbor>> = queries
        .par_chunks(per_pass * tree.dim)
        .map(|queries| {
            let live = tree.live()?;
            let mut best: Vec<KBest> = Vec::new();
            best.resize_with(queries.len() / tree.dim, KBest::default);
            best.iter_mut().for_each(|best| best.reset(tree, k, live));
            scan(tree, queries, &mut best)?;
            let mut found = Vec::new();
            for best in &mut best {
                found.extend_from_slice(best.sorted(tree)?);
            }
            Ok(found)
        })
        .collect::<Result<_, ReadError>>()?;
    Ok(parts.concat())
}

fn row_by_row(tree: &Tree, queries: &[f32], best: &mut [KBest]) -> Result<(), ReadError> {
    let mut found = Vec::new();
    for (query, best) in queries.chunks_exact(tree.dim).zip(best) {
        scan_all(tree, query, best, &mut found)?;
    }
    Ok(())
}

/// Offers every row.
fn scan_all(
    tree: &Tree,
    query: &[f32],
    sink: &mut impl Sink,
    found: &mut Vec<Near>,
) -> Result<(), ReadError> {
    let slots = tree.slots();
    let mut ahead = Ahead::new(tree);
    for start in (0..slots).step_by(ROWS_TOGETHER as usize) {
        ahead.reach(tree, start.into());
        let rows = Range { start, count: ROWS_TOGETHER.min(slots - start) };
        scan(tree, query, rows, sink, found)?;
    }
    Ok(())
}

/// All live points with canonical distance at most `radius`, in the order (distance, id).
pub(crate) fn within(tree: &Tree, query: &[f32], radius: f32) -> Result<Vec<Neighbor>, ReadError> {
    let mut found = Vec::new();
    scan_all(tree, query, &mut List::new(tree, radius, &mut found)?, &mut Vec::new())?;
    found.sort_unstable_by(Neighbor::order);
    Ok(found)
}
