//! Filter and refine: distances between rows as bytes tell which rows may be near a query, and only those get their
//! canonical sum ([`Filter`]).

use super::ahead::Ahead;
use super::heap::KBest;
use crate::error::ReadError;
use crate::metric::{self, Filter, Grid, Pair};
use crate::tree::columns::Tree;

/// Bytes of a tile: what the second-level cache holds well.
const TILE_BYTES: usize = 128 * 1024;

/// Rows of the first tile, which passes whole, for want of limits. Each of the first tiles is half as long as all before it.
const FIRST_TILE_ROWS: u32 = 16;

/// Rows, and queries, for which the grid is laid.
const SAMPLE_ROWS: usize = 96;
const SAMPLE_QUERIES: usize = 32;

/// What it costs when a row passes the filter, over what filtering costs per component.
const PASSING_COST: f64 = 2000.0;

/// Fewer rows than this for each of the first ones, and all rows are first ones.
const LEAST_STEP: f64 = 3.0;

/// A filter that lets one pair in so many through is of no use.
const MANY: usize = 8;

/// From this dimension on it is worth asking whether a part of the row tells enough.
const LONG_ROW: usize = 32;

/// Refining one pair costs as much as filtering by this many octets, and by this many more for each octet of a row.
const REFINE_COST: usize = 600;
const REFINE_OCTET: usize = 6;

/// A grid for the rows and the queries, chosen by some of both.
pub(super) fn grid(tree: &Tree, queries: &[f32]) -> Result<Grid, ReadError> {
    let (slots, dim) = (tree.slots() as usize, tree.dim);
    let count = queries.len() / dim;
    let mut rows = Vec::with_capacity(SAMPLE_ROWS * dim);
    for i in 0..SAMPLE_ROWS {
        rows.extend_from_slice(tree.coordinates.row((i * slots / SAMPLE_ROWS) as u64)?);
    }
    let mut some_queries = Vec::with_capacity(SAMPLE_QUERIES * dim);
    for i in 0..SAMPLE_QUERIES.min(count) {
        let query = i * count / SAMPLE_QUERIES.min(count);
        some_queries.extend_from_slice(&queries[query * dim..][..dim]);
    }
    Ok(Grid::new(tree.kernel, &rows, &some_queries, dim))
}

/// Offers every row that the filter lets through; false if that would be too many, and nothing has come of it.
///
/// A few rows from everywhere come first, so that there are limits when all the others come, in the order in which they
/// lie: there neighbours follow each other, and without limits all of a neighbourhood would pass.
pub(super) fn filter_and_refine(
    tree: &Tree,
    queries: &[f32],
    grid: &Grid,
    best: &mut [KBest],
    k: usize,
) -> Result<bool, ReadError> {
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
    let mut ahead = Ahead::new(tree);
    while first < slots {
        ahead.reach(tree, first.into());
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
            best.iter_mut().for_each(|best| best.reset(tree, k, live));
            return Ok(false);
        }
        if tree.dim >= LONG_ROW {
            pass.octets = next_octets(grid.octets(), pass.octets, found, pairs);
        }
    }
    Ok(true)
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
        filter.load(rows, *octets);
        filter.near(best.iter().map(KBest::radius), found);
        limits.extend(best.iter().map(KBest::sum_limit));
        tree.kernel.pair_sums(queries, rows, limits, found, sums);
        for (pair, &sum) in found.iter().zip(&*sums) {
            let best = &mut best[pair.query as usize];
            if sum > best.sum_limit() {
                continue;
            }
            if let Some(slot) = slot_of(pair.row) {
                best.offer(tree, metric::distance(sum), slot)?;
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
