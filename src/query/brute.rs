//! The same answers without the tree: a blocked scan of every slot. The oracle of the tests and of `--brute-force`, and
//! what batches fall back to ([`super::auto`]).
//!
//! A batch is scanned by filter and refine: distances between rows as bytes tell which rows may be near a query, and only
//! those get their canonical sum ([`Filter`]). A few queries, or a few rows, go row by row.

use rayon::prelude::*;

use super::Neighbor;
use super::heap::KBest;
use super::scan::scan;
use crate::error::ReadError;
use crate::metric::{self, Filter, Grid, Pair};
use crate::tree::columns::{Range, Tree};

/// Queries that share one pass over the rows, at most.
const QUERIES_PER_PASS: usize = 512;

/// Fewer queries, or rows, than this do not repay laying a grid and putting the rows on it.
const FEW_QUERIES: usize = 4;
const FEW_ROWS: u32 = 256;

/// Rows of the first tile, which passes whole, for want of limits. Each of the first tiles is half as long as all before it.
const FIRST_TILE_ROWS: u32 = 16;

/// Bytes of a tile: what the second-level cache holds well.
const TILE_BYTES: usize = 128 * 1024;

/// Rows, and queries, for which the grid is laid.
const SAMPLE_ROWS: usize = 96;
const SAMPLE_QUERIES: usize = 32;

/// What it costs when a row passes the filter, over what filtering costs per component.
const PASSING_COST: f64 = 2000.0;

/// Fewer rows than this for each of the first ones, and all rows are first ones.
const LEAST_STEP: f64 = 3.0;

/// A filter that lets one pair in so many through is of no use.
const MANY: usize = 8;

/// Queries whose sums are computed together without a filter, and sums that are looked at together.
const QUERIES_PER_TILE: usize = 16;
const SUMS_TOGETHER: usize = 16;

/// From this dimension on it is worth asking whether a part of the row tells enough.
const LONG_ROW: usize = 32;

/// Refining one pair costs as much as filtering by this many octets, and by this many more for each octet of a row.
const REFINE_COST: usize = 200;
const REFINE_OCTET: usize = 6;

/// For each of `queries` (row-major) its first min(k, live) neighbours, one query after the other.
pub(crate) fn knn_batch(
    tree: &Tree,
    queries: &[f32],
    k: usize,
) -> Result<Vec<Neighbor>, ReadError> {
    let count = queries.len() / tree.dim;
    let per_pass = count.div_ceil(rayon::current_num_threads()).clamp(1, QUERIES_PER_PASS);
    if per_pass < FEW_QUERIES || tree.slots() < FEW_ROWS {
        return in_parallel(tree, queries, k, per_pass, row_by_row);
    }
    let grid = Grid::new(tree.kernel, &sample(tree, queries)?, tree.dim);
    in_parallel(tree, queries, k, per_pass, |tree, queries, best| {
        filter_and_refine(tree, queries, &grid, best, k)
    })
}

/// Answers `per_pass` queries in each call of `scan`, which offers what is near to the best of each.
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
            best.iter_mut().for_each(|best| best.reset(k, live));
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
    let all = Range { start: 0, count: tree.slots() };
    for (query, best) in queries.chunks_exact(tree.dim).zip(best) {
        scan(tree, query, all, best, &mut found)?;
    }
    Ok(())
}

/// The canonical sum of every pair: where a filter lets too many through.
fn tile_by_tile(tree: &Tree, queries: &[f32], best: &mut [KBest]) -> Result<(), ReadError> {
    let dim = tree.dim;
    let rows_per_tile = (TILE_BYTES / 4 / (4 * dim)).clamp(16, 1024) as u64;
    let slots = u64::from(tree.slots());
    let mut sums = Vec::new();
    let mut first = 0;
    while first < slots {
        let rows = tree.coordinates.chunk(first, rows_per_tile.min(slots - first))?;
        let count = rows.len() / dim;
        let groups = queries.chunks(QUERIES_PER_TILE * dim);
        for (queries, best) in groups.zip(best.chunks_mut(QUERIES_PER_TILE)) {
            sums.clear();
            sums.resize(best.len() * count, 0.0);
            tree.kernel.tile(queries, rows, dim, &mut sums);
            for (best, sums) in best.iter_mut().zip(sums.chunks_exact(count)) {
                offer_near(tree, best, first as u32, sums)?;
            }
        }
        first += count as u64;
    }
    Ok(())
}

/// Offers what may enter of the slots from `first` on, whose sums these are.
fn offer_near(tree: &Tree, best: &mut KBest, first: u32, sums: &[f32]) -> Result<(), ReadError> {
    for (first, sums) in (first..).step_by(SUMS_TOGETHER).zip(sums.chunks(SUMS_TOGETHER)) {
        // Mostly none is near; that is seen for all at once.
        let least = sums.iter().copied().fold(f32::INFINITY, f32::min);
        if least > best.sum_limit() {
            continue;
        }
        for (slot, &sum) in (first..).zip(sums) {
            if sum <= best.sum_limit() {
                let distance = metric::distance(sum);
                if distance <= best.radius() && tree.is_live(slot)? {
                    best.offer(tree, distance, slot)?;
                }
            }
        }
    }
    Ok(())
}

/// Some rows and some queries, row-major. Any gives the same answers.
fn sample(tree: &Tree, queries: &[f32]) -> Result<Vec<f32>, ReadError> {
    let (slots, dim) = (tree.slots() as usize, tree.dim);
    let count = queries.len() / dim;
    let mut sample = Vec::with_capacity((SAMPLE_ROWS + SAMPLE_QUERIES) * dim);
    for i in 0..SAMPLE_ROWS {
        sample.extend_from_slice(tree.coordinates.row((i * slots / SAMPLE_ROWS) as u64)?);
    }
    for i in 0..SAMPLE_QUERIES.min(count) {
        sample.extend_from_slice(&queries[i * count / SAMPLE_QUERIES.min(count) * dim..][..dim]);
    }
    Ok(sample)
}

/// A few rows from everywhere come first, so that there are limits when all the others come, in the order in which they
/// lie: there neighbours follow each other, and without limits all of a neighbourhood would pass.
fn filter_and_refine(
    tree: &Tree,
    queries: &[f32],
    grid: &Grid,
    best: &mut [KBest],
    k: usize,
) -> Result<(), ReadError> {
    let slots = tree.slots();
    let step = first_rows_step(slots, tree.dim, k);
    let mut pass = Pass::new(tree, queries, grid, best);
    let (mut seen, first_rows) = (0, slots.div_ceil(step));
    let hop = coprime(first_rows);
    let first_row = |i: u32| (u64::from(i) * u64::from(hop) % u64::from(first_rows)) as u32 * step;
    while seen < first_rows {
        let count = FIRST_TILE_ROWS.max(seen / 2).min(pass.tile_rows()).min(first_rows - seen);
        pass.rows.clear();
        for i in seen..seen + count {
            pass.rows.push(tree.coordinates.row(first_row(i).into())?);
        }
        pass.take_rows(|row| Some(first_row(seen + row)))?;
        seen += count;
    }
    let mut first = if step == 1 { slots } else { 0 };
    while first < slots {
        let count = pass.tile_rows().min(slots - first);
        pass.rows.clear();
        let (start, end) = (first, first + count);
        while first < end {
            let rows = tree.coordinates.chunk(first.into(), (end - first).into())?;
            pass.rows.extend(rows.chunks_exact(tree.dim));
            first += (rows.len() / tree.dim) as u32;
        }
        let found =
            pass.take_rows(|row| Some(start + row).filter(|slot| !slot.is_multiple_of(step)))?;
        let pairs = pass.best.len() * count as usize;
        if found > pairs / MANY && pass.octets == grid.octets() {
            let live = tree.live()?;
            best.iter_mut().for_each(|best| best.reset(k, live));
            return tile_by_tile(tree, queries, best);
        }
        if tree.dim >= LONG_ROW {
            pass.octets = next_octets(grid.octets(), pass.octets, found, pairs);
        }
    }
    Ok(())
}

/// Every how manieth row comes first. Of m first rows each costs a little, and of all rows about k/m pass for want of a
/// better limit, each of which costs much: the sum is least where both are equal.
fn first_rows_step(slots: u32, dim: usize, k: usize) -> u32 {
    let first_rows = (k as f64 * f64::from(slots) * PASSING_COST / dim as f64).sqrt();
    let step = f64::from(slots) / first_rows;
    if step < LEAST_STEP { 1 } else { step as u32 }
}

/// A number coprime to `n` > 0, near its golden section: its multiples, modulo n, come by everywhere soon.
fn coprime(n: u32) -> u32 {
    let gcd = |mut a: u32, mut b: u32| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let golden = (f64::from(n) * 0.618) as u32;
    (golden.max(1)..).find(|&hop| gcd(hop, n) == 1).expect("there are primes above any number")
}

/// A set of queries on its way through the rows.
struct Pass<'a> {
    tree: &'a Tree,
    queries: &'a [f32],
    filter: Filter<'a>,
    /// Octets to filter by.
    octets: usize,
    best: &'a mut [KBest],
    /// Of the tile.
    rows: Vec<&'a [f32]>,
    limits: Vec<f32>,
    found: Vec<Pair>,
    sums: Vec<f32>,
}

impl<'a> Pass<'a> {
    fn new(tree: &'a Tree, queries: &'a [f32], grid: &'a Grid, best: &'a mut [KBest]) -> Self {
        let filter = Filter::new(grid, tree.kernel, tree.slack, queries);
        let (rows, limits, found, sums) = Default::default();
        Pass { tree, queries, filter, octets: grid.octets(), best, rows, limits, found, sums }
    }

    /// Rows of a tile, at most.
    fn tile_rows(&self) -> u32 {
        (TILE_BYTES / (4 * self.tree.dim)).next_multiple_of(FIRST_TILE_ROWS as usize) as u32
    }

    /// Offers those of the tile's rows that the filter lets through; how many these were. `slot_of`: a row's slot, if it
    /// is to be looked at.
    fn take_rows(&mut self, slot_of: impl Fn(u32) -> Option<u32>) -> Result<usize, ReadError> {
        let Pass { tree, queries, filter, octets, best, rows, limits, found, sums } = self;
        found.clear();
        sums.clear();
        limits.clear();
        filter.begin(*octets);
        filter.load(rows);
        filter.near(best.iter().map(KBest::radius), found);
        limits.extend(best.iter().map(KBest::sum_limit));
        tree.kernel.pair_sums(queries, rows, limits, found, sums);
        for (pair, &sum) in found.iter().zip(&*sums) {
            let best = &mut best[pair.query as usize];
            if sum > best.sum_limit() {
                continue;
            }
            let (distance, slot) = (metric::distance(sum), slot_of(pair.row));
            if let Some(slot) = slot
                && distance <= best.radius()
                && tree.is_live(slot)?
            {
                best.offer(tree, distance, slot)?;
            }
        }
        Ok(found.len())
    }
}

/// How many octets to filter by next: fewer while refining what they let through costs little, more when it costs much.
/// Counts decide, not clocks.
fn next_octets(all: usize, octets: usize, found: usize, pairs: usize) -> usize {
    let step = all.div_ceil(16);
    let refining = found * (REFINE_COST + REFINE_OCTET * all);
    let filtering = pairs * octets;
    if refining * 8 < filtering {
        octets.saturating_sub(step).max(step)
    } else if refining * 3 > filtering {
        (octets + step).min(all)
    } else {
        octets
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
