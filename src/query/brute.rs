//! The same answers without the tree: a blocked scan of every slot. The oracle of the tests and of `--brute-force`, and
//! what batches fall back to ([`super::auto`]).
//!
//! A batch is scanned by filter and refine: fast sums of the most telling columns tell which rows may be near a query,
//! and only those get their canonical sum ([`Filter`]). Fewer queries than fill a register block go row by row.

use rayon::prelude::*;

use super::Neighbor;
use super::heap::KBest;
use super::scan::scan;
use crate::error::ReadError;
use crate::metric::{self, Filter};
use crate::tree::columns::{Range, Tree};

/// Queries that share one pass over the rows, at most.
const QUERIES_PER_PASS: usize = 512;

/// Fewer queries than this do not repay the transposition of the rows.
const FEW_QUERIES: usize = 4;

/// Rows of the first tile, which passes whole, for want of limits. Each tile is twice as long as the one before it.
const FIRST_TILE_ROWS: usize = 16;

/// Bytes of a tile: what the second-level cache holds well.
const TILE_BYTES: usize = 128 * 1024;

/// Rows from which the spread of a column is estimated.
const SAMPLE_ROWS: u64 = 256;

/// From this dimension on it is worth asking whether a part of the columns tells enough.
const LONG_ROW: usize = 32;

/// Refining one pair costs as much as filtering this many times its columns, and this many columns more.
const REFINE_FACTOR: usize = 3;
const REFINE_COLUMNS: usize = 64;

/// For each of `queries` (row-major) its first min(k, live) neighbours, one query after the other.
pub(crate) fn knn_batch(
    tree: &Tree,
    queries: &[f32],
    k: usize,
) -> Result<Vec<Neighbor>, ReadError> {
    let count = queries.len() / tree.dim;
    let per_pass = count.div_ceil(rayon::current_num_threads()).clamp(1, QUERIES_PER_PASS);
    let order = match per_pass < FEW_QUERIES {
        true => Vec::new(),
        false => telling_columns(tree)?,
    };
    let parts: Vec<Vec<Neighbor>> = queries
        .par_chunks(per_pass * tree.dim)
        .map(|queries| {
            let live = tree.live()?;
            let mut best: Vec<KBest> = Vec::new();
            best.resize_with(queries.len() / tree.dim, KBest::default);
            best.iter_mut().for_each(|best| best.reset(k, live));
            match best.len() < FEW_QUERIES {
                true => row_by_row(tree, queries, &mut best)?,
                false => filter_and_refine(tree, queries, &order, &mut best)?,
            }
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
    let all = Range { start: 0, count: tree.slots() };
    for (query, best) in queries.chunks_exact(tree.dim).zip(best) {
        scan(tree, query, all, best, &mut found)?;
    }
    Ok(())
}

/// The columns, those first in which the points differ most, judging by a sample. Any order gives the same answers.
fn telling_columns(tree: &Tree) -> Result<Vec<u32>, ReadError> {
    let dim = tree.dim;
    let mut order: Vec<u32> = (0..dim as u32).collect();
    if dim < LONG_ROW || tree.slots() == 0 {
        return Ok(order);
    }
    let (mut sum, mut squares) = (vec![0.0_f64; dim], vec![0.0_f64; dim]);
    let slots = tree.slots() as u64;
    let sample = slots.min(SAMPLE_ROWS);
    for i in 0..sample {
        let row = tree.coordinates.row(i * slots / sample)?;
        for (column, &value) in row.iter().enumerate() {
            sum[column] += value as f64;
            squares[column] += value as f64 * value as f64;
        }
    }
    let spread: Vec<f64> =
        sum.iter().zip(&squares).map(|(sum, square)| square - sum * sum / sample as f64).collect();
    order.sort_by(|&a, &b| spread[b as usize].total_cmp(&spread[a as usize]));
    Ok(order)
}

fn filter_and_refine(
    tree: &Tree,
    queries: &[f32],
    order: &[u32],
    best: &mut [KBest],
) -> Result<(), ReadError> {
    let dim = tree.dim;
    let most = (TILE_BYTES / (4 * dim)).next_multiple_of(FIRST_TILE_ROWS);
    let mut filter = Filter::new(queries, order.to_vec());
    let mut columns = dim;
    let mut limits = Vec::new();
    let mut found = Vec::new();
    let slots = tree.slots() as u64;
    let (mut first, mut tile) = (0, FIRST_TILE_ROWS);
    while first < slots {
        let count = (tile as u64).min(slots - first);
        filter.begin(count as usize, columns);
        tree.coordinates.for_chunks(first, count, |_, rows| filter.load(rows))?;
        limits.clear();
        limits.extend(best.iter().map(|best| tree.slack.filter_limit(best.sum_limit())));
        found.clear();
        filter.near(tree.kernel, &limits, &mut found);
        for pair in &found {
            let best = &mut best[pair.query as usize];
            let query = &queries[pair.query as usize * dim..][..dim];
            let slot = first + pair.row as u64;
            let row = tree.coordinates.row(slot)?;
            let Some(sum) = tree.kernel.sum_within(query, row, best.sum_limit()) else { continue };
            let distance = metric::distance(sum);
            if distance <= best.radius() && tree.is_live(slot as u32)? {
                best.offer(tree, distance, slot as u32)?;
            }
        }
        first += count;
        if tile < most {
            tile = (2 * tile).min(most);
        } else if dim >= LONG_ROW {
            columns = next_columns(dim, columns, found.len(), best.len() * count as usize);
        }
    }
    Ok(())
}

/// How many columns to filter by next: fewer while refining what they let through costs little, more when it costs
/// much. Counts decide, not clocks.
fn next_columns(dim: usize, columns: usize, found: usize, pairs: usize) -> usize {
    let step = dim.div_ceil(16);
    let refining = found * (REFINE_FACTOR * dim + REFINE_COLUMNS);
    let filtering = pairs * columns;
    if refining * 8 < filtering {
        columns.saturating_sub(step).max(step)
    } else if refining * 3 > filtering {
        (columns + step).min(dim)
    } else {
        columns
    }
}

/// All live points with canonical distance at most `radius`, in the order (distance, id).
pub(crate) fn within(tree: &Tree, query: &[f32], radius: f32) -> Result<Vec<Neighbor>, ReadError> {
    let mut found = Vec::new();
    for_tiles(tree, query, |first, sums| {
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

/// Calls `f` with (first slot, sums from there on) for every tile of rows.
fn for_tiles(
    tree: &Tree,
    query: &[f32],
    mut f: impl FnMut(u32, &[f32]) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let rows_per_tile = (TILE_BYTES / 2 / (4 * tree.dim)).clamp(4, 1024) as u64;
    let slots = tree.slots() as u64;
    let mut sums = Vec::new();
    let mut first = 0;
    while first < slots {
        let rows = tree.coordinates.chunk(first, rows_per_tile.min(slots - first))?;
        sums.clear();
        sums.resize(rows.len() / tree.dim, 0.0);
        tree.kernel.sums(query, rows, &mut sums);
        f(first as u32, &sums)?;
        first += sums.len() as u64;
    }
    Ok(())
}
