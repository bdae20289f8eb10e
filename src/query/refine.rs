//! Filter and refine: distances between rows as bytes ([`Filter`]), or sums in any order where
//! bytes do not tell ([`ValueFilter`]), say which rows may be near a query, and only those get
//! their canonical sum.

use super::ahead::Ahead;
use super::equal_rows::EqualRows;
use super::k_best::KBest;
use super::sink::Sink;
use crate::space::{self, Filter, Grid, Near, OCTET, Pair, ValueFilter};
use crate::tree::columns::Tree;
use crate::values::error::ReadError;

/// Bytes of a tile: what the second-level cache holds well.
const TILE_BYTES: usize = 128 * 1024;

/// Rows of a tile at most, since all of them pass for each query that has no k candidates yet.
const TILE_ROWS: usize = 2048;

/// Rows of the first tile, which passes whole, for want of limits. Each of the first tiles is half
/// as long as all before it.
const FIRST_TILE_ROWS: u32 = 16;

/// Rows, and queries, for which the grid is laid.
const SAMPLE_ROWS: usize = 96;
const SAMPLE_QUERIES: usize = 32;

/// What it costs when a row passes the filter, over what filtering costs per component.
const PASSING_COST: f64 = 2000.0;

/// Fewer rows than this for each of the first ones, and all rows are first ones.
const LEAST_STEP: f64 = 3.0;

/// From this dimension on it is worth asking whether a part of the row tells enough.
const LONG_ROW: usize = 32;

/// Up to this dimension the values themselves are compared at once: an octet of bytes would be half
/// empty.
const SHORT_ROW: usize = 5;

/// Filtering a pair by the values costs as much as filtering by so many times the bytes.
const VALUES_COST: usize = 7;

/// Refining one pair costs as much as filtering by this many octets, and by this many more for each
/// octet of a row.
const REFINE_COST: usize = 600;
const REFINE_OCTET: usize = 6;

/// A grid for the rows and the queries, chosen by some of both; `None` if rows are too short to be
/// put on one.
pub(super) fn grid(tree: &Tree, queries: &[f32]) -> Result<Option<Grid>, ReadError> {
    let (slots, dim) = (tree.slots() as usize, tree.dim);
    if dim <= SHORT_ROW {
        return Ok(None);
    }
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
    Ok(Some(Grid::new(tree.kernel, &rows, &some_queries, dim)))
}

/// What a pass took.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "the tests of this file look at it"))]
pub(super) struct Work {
    /// In the end the values filtered.
    pub(super) by_values: bool,
    /// Pairs of a query and a row, or a group of equal rows, that the filter let through.
    pub(super) refined: u64,
}

/// Offers every row that the filter lets through.
///
/// A few rows from everywhere come first, so that there are limits when all the others come, in the
/// order in which they lie: there neighbours follow each other, and without limits all of a
/// neighbourhood would pass.
pub(super) fn filter_and_refine(
    tree: &Tree,
    queries: &[f32],
    grid: Option<&Grid>,
    best: &mut [KBest],
    k: usize,
) -> Result<Work, ReadError> {
    let (slots, tile_rows) = (tree.slots(), tile_rows(tree.dim));
    let step = first_rows_step(slots, tree.dim, k);
    let mut pass = Pass::new(tree, queries, grid, best, k);
    let first_rows = slots.div_ceil(step);
    let hop = coprime(first_rows);
    let first_row = |i: u32| (u64::from(i) * u64::from(hop) % u64::from(first_rows)) as u32 * step;
    let mut seen = 0;
    while seen < first_rows {
        let count = FIRST_TILE_ROWS.max(seen / 2).min(tile_rows).min(first_rows - seen);
        pass.clear();
        for i in seen..seen + count {
            let slot = first_row(i);
            pass.rows.push(tree.coordinates.row(slot.into())?);
            pass.slots.push(slot);
        }
        pass.take_rows()?;
        seen += count;
    }
    let mut first = if step == 1 { slots } else { 0 };
    let mut ahead = Ahead::new(tree);
    while first < slots {
        ahead.reach(tree, first.into());
        let end = first + tile_rows.min(slots - first);
        pass.clear();
        while first < end {
            let rows = tree.coordinates.chunk(first.into(), (end - first).into())?;
            for row in rows.chunks_exact(tree.dim) {
                // The others have been first rows.
                if !first.is_multiple_of(step) {
                    pass.rows.push(row);
                    pass.slots.push(first);
                }
                first += 1;
            }
        }
        pass.take_rows()?;
    }
    Ok(Work { by_values: matches!(pass.sieve, FirstPass::Values(_)), refined: pass.refined })
}

/// Rows of a tile, at most; however long they are, some.
fn tile_rows(dim: usize) -> u32 {
    let rows = (TILE_BYTES / (4 * dim)).clamp(1, TILE_ROWS);
    rows.next_multiple_of(FIRST_TILE_ROWS as usize) as u32
}

/// The stride of the rows that come first. Of m first rows each costs a little, and of all rows
/// about k/m pass for want of a better limit, each of which costs much: the sum is least where both
/// are equal.
fn first_rows_step(slots: u32, dim: usize, k: usize) -> u32 {
    let first_rows = (k as f64 * f64::from(slots) * PASSING_COST / dim as f64).sqrt();
    let step = f64::from(slots) / first_rows;
    if step < LEAST_STEP { 1 } else { step as u32 }
}

/// A number coprime to `n` > 0, near its golden section: its multiples, modulo n, come by
/// everywhere soon.
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
    k: usize,
    sieve: FirstPass<'a>,
    best: &'a mut [KBest],
    /// Rows of all tiles so far.
    seen: u64,
    /// Pairs found so far.
    refined: u64,
    /// Of the tile, and their slots.
    rows: Vec<&'a [f32]>,
    slots: Vec<u32>,
    equal_rows: EqualRows,
    equals: Equals,
    limits: Vec<f32>,
    found: Vec<Pair>,
    sums: Vec<f32>,
}

/// What tells which rows may be near.
enum FirstPass<'a> {
    /// So many octets of a row's bytes.
    Bytes { filter: Filter<'a>, octets: usize },
    /// Where bytes do not tell.
    Values(ValueFilter),
}

/// Whether equal rows are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Equals {
    Together,
    /// Not before so many rows were seen, since at the last look there were few.
    Alone {
        until: u64,
    },
}

impl<'a> Pass<'a> {
    fn new(
        tree: &'a Tree,
        queries: &'a [f32],
        grid: Option<&'a Grid>,
        best: &'a mut [KBest],
        k: usize,
    ) -> Self {
        let sieve = match grid {
            Some(grid) => FirstPass::Bytes {
                filter: Filter::new(grid, tree.kernel, tree.slack, queries),
                octets: grid.octets(),
            },
            None => FirstPass::by_values(tree, queries),
        };
        let k = k.min(tree.slots() as usize);
        let (rows, slots, equal_rows, limits, found, sums) = Default::default();
        Pass {
            tree,
            queries,
            k,
            sieve,
            best,
            seen: 0,
            refined: 0,
            rows,
            slots,
            equal_rows,
            equals: Equals::Alone { until: 0 },
            limits,
            found,
            sums,
        }
    }

    /// A tile of no rows.
    fn clear(&mut self) {
        self.rows.clear();
        self.slots.clear();
    }

    /// Offers those of the tile's rows that the filter lets through.
    fn take_rows(&mut self) -> Result<(), ReadError> {
        let together = self.equals == Equals::Together;
        if together {
            self.equal_rows.group(self.tree, &mut self.rows, &self.slots)?;
        }
        let Pass { tree, queries, sieve, best, rows, limits, found, sums, .. } = self;
        found.clear();
        sums.clear();
        limits.clear();
        limits.extend(best.iter().map(KBest::sum_limit));
        if !rows.is_empty() {
            match sieve {
                FirstPass::Bytes { filter, octets } => {
                    filter.load(rows, *octets);
                    filter.near(best.iter().map(KBest::reach), found);
                }
                FirstPass::Values(filter) => {
                    filter.load(rows);
                    filter.near(limits, found);
                }
            }
        }
        tree.kernel.pair_sums(queries, rows, limits, found, sums);
        for (pair, &sum) in found.iter().zip(&*sums) {
            let best = &mut best[pair.query as usize];
            if sum > best.sum_limit() {
                continue;
            }
            let distance = space::distance(sum);
            match together {
                true => self.equal_rows.offer(tree, best, distance, pair.row)?,
                false => {
                    best.offer(tree, Near::new(distance, self.slots[pair.row as usize]))?;
                }
            }
        }
        self.adapt();
        self.refined += self.found.len() as u64;
        self.seen += self.slots.len() as u64;
        Ok(())
    }

    /// Filters more or less finely from now on, by what the last tile let through. Counts decide,
    /// not clocks.
    fn adapt(&mut self) {
        let (queries, rows) = (self.best.len(), self.rows.len());
        let pairs = queries * rows;
        let all = self.tree.dim.div_ceil(OCTET);
        // Of r rows after s others k r/s are among the k best so far, if they come in any order.
        let due = 2 * self.k * rows / (self.seen as usize).max(1);
        let refining = |found: usize| found * (REFINE_COST + REFINE_OCTET * all);
        let wrongly = self.found.len().saturating_sub(queries * due.min(rows));
        let filtering = match self.sieve {
            FirstPass::Bytes { octets, .. } => pairs * octets,
            FirstPass::Values(_) => pairs * all * VALUES_COST,
        };
        match self.equals {
            Equals::Together if rows * 4 > self.slots.len() * 3 => {
                self.equals = Equals::Alone { until: 2 * self.seen };
            }
            Equals::Alone { until } if self.seen >= until && refining(wrongly) > filtering => {
                // First see whether that is because rows are equal.
                self.equals = Equals::Together;
                return;
            }
            _ => {}
        }
        let FirstPass::Bytes { octets, .. } = &mut self.sieve else { return };
        if *octets == all && refining(wrongly) > VALUES_COST * pairs * all {
            self.sieve = FirstPass::by_values(self.tree, self.queries);
        } else if self.tree.dim >= LONG_ROW && due < self.k {
            *octets = next_octets(all, *octets, refining(self.found.len()), pairs * *octets);
        }
    }
}

impl FirstPass<'_> {
    fn by_values(tree: &Tree, queries: &[f32]) -> Self {
        FirstPass::Values(ValueFilter::new(tree.kernel, tree.slack, queries, tree.dim))
    }
}

/// How many octets to filter by next: fewer while refining what they let through costs little, more
/// when it costs much.
fn next_octets(all: usize, octets: usize, refining: usize, filtering: usize) -> usize {
    let step = all.div_ceil(16);
    if refining * 8 < filtering {
        octets.saturating_sub(step).max(step)
    } else if refining * 3 > filtering {
        (octets + step).min(all)
    } else {
        octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Neighbor;
    use crate::store::Store;
    use crate::values::options::MAX_DIM;
    use crate::values::options::{CreateOptions, OpenOptions};

    #[test]
    fn a_tile_has_rows_whatever_the_dimension() {
        for dim in 1..=MAX_DIM {
            let rows = tile_rows(dim);
            assert!(rows >= FIRST_TILE_ROWS && rows.is_multiple_of(FIRST_TILE_ROWS), "{dim}");
        }
        assert_eq!(tile_rows(128), 256);
    }

    /// The longest rows there can be, enough of them and of queries to be filtered.
    #[test]
    fn the_longest_rows_are_scanned() {
        let row = |i: usize| (0..MAX_DIM).map(move |c| ((i * 31 + c * 7) % 53) as f32);
        let rows: Vec<f32> = (0..260).flat_map(row).collect();
        // One thread, so that the queries stay together.
        let options = OpenOptions::new().threads(1);
        let mut store = Store::in_memory(CreateOptions::new(MAX_DIM), options).unwrap();
        store.insert(&rows).unwrap();
        let snapshot = store.latest().unwrap();
        let queries = &rows[100 * MAX_DIM..108 * MAX_DIM];
        let scanned = snapshot.brute_knn_batch(queries, 3).unwrap();
        for (query, found) in queries.chunks_exact(MAX_DIM).zip(scanned.iter()) {
            assert_eq!(found, snapshot.knn(query, 3).unwrap());
        }
    }

    /// Values of a kind, `[rows][dim]`.
    fn rows(kind: &str, rows: usize, dim: usize, state: &mut u64) -> Vec<f32> {
        let mut unit = || {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (*state >> 40) as f32 / (1 << 24) as f32
        };
        let value = |_| match kind {
            "even" => unit(),
            "lattice" => (unit() * 200.0).floor() / 255.0,
            "few" => (unit() * 3.0).floor(),
            // Most near 0 and some far out: bytes do not tell them apart.
            "skewed" => unit().powi(40) * 1e6 + unit() * 1e-3,
            _ => unreachable!("{kind}"),
        };
        (0..rows * dim).map(value).collect()
    }

    /// The first of all live points by distance and id, without any filter. `points`: by id.
    fn naive(tree: &Tree, query: &[f32], points: &[(u64, &[f32])], k: usize) -> Vec<Neighbor> {
        let distance = |row| space::distance(tree.kernel.sum(query, row));
        let mut all: Vec<Neighbor> =
            points.iter().map(|&(id, row)| Neighbor { id, distance: distance(row) }).collect();
        all.sort_by(Neighbor::order);
        all.truncate(k);
        all
    }

    /// Scans for `queries`, compares with the naive answers, and says what the scan took.
    fn assert_exact(
        tree: &Tree,
        points: &[(u64, &[f32])],
        queries: &[f32],
        grid: Option<&Grid>,
        k: usize,
        what: &str,
    ) -> Work {
        let mut best: Vec<KBest> = Vec::new();
        best.resize_with(queries.len() / tree.dim, KBest::default);
        best.iter_mut().for_each(|b| b.reset(tree, k, tree.live().unwrap()));
        let work = filter_and_refine(tree, queries, grid, &mut best, k).unwrap();
        for (query, best) in queries.chunks_exact(tree.dim).zip(&mut best) {
            let expected = naive(tree, query, points, k);
            assert_eq!(best.sorted(tree).unwrap(), expected, "{what}, dim {}, k {k}", tree.dim);
        }
        work
    }

    /// By bytes as well as by values, dead points and all: the first of all live points by distance
    /// and id.
    #[test]
    fn whatever_tells_rows_apart_the_answer_is_exact() {
        let mut state = 17;
        let mut gave_way = 0;
        for kind in ["even", "lattice", "few", "skewed"] {
            for dim in [1, 3, 6, 9, 33, 130] {
                let points = rows(kind, 1200, dim, &mut state);
                let create = CreateOptions::new(dim).leaf_capacity(16);
                let mut store = Store::in_memory(create, OpenOptions::new().threads(1)).unwrap();
                store.insert(&points).unwrap();
                store.delete(&(0..1200).filter(|id| id % 3 == 0).collect::<Vec<_>>()).unwrap();
                let snapshot = store.latest().unwrap();
                let tree = snapshot.tree();
                let queries = [&points[..10 * dim], &rows(kind, 9, dim, &mut state)].concat();
                let grid = Grid::new(tree.kernel, &points, &queries, dim);
                let live: Vec<(u64, &[f32])> =
                    (0..).zip(points.chunks_exact(dim)).filter(|(id, _)| id % 3 > 0).collect();
                for k in [1, 10, 65, 2000] {
                    for grid in [Some(&grid), None] {
                        let work = assert_exact(tree, &live, &queries, grid, k, kind);
                        gave_way += usize::from(grid.is_some() && work.by_values);
                    }
                }
            }
        }
        assert!(gave_way > 3, "bytes gave way {gave_way} times");
    }

    /// Row after row of a few values, by ids in no order, some dead: `distinct` values in all,
    /// those of even rows the first one.
    fn repeated(
        dim: usize,
        distinct: usize,
        count: usize,
        state: &mut u64,
    ) -> (Vec<f32>, Vec<u64>) {
        let values = rows("even", distinct, dim, state);
        let mut points = Vec::new();
        for row in 0..count {
            let value = if row % 2 == 0 { 0 } else { row * 7919 % distinct };
            points.extend_from_slice(&values[value * dim..][..dim]);
        }
        // 1009 is a prime that does not divide the counts of the tests.
        let ids = (0..count as u64).map(|row| row * 1009 % count as u64).collect();
        (points, ids)
    }

    /// Of equal rows those with the smallest ids are the answer, wherever they lie, and a scan does
    /// not meet each of them with each query.
    #[test]
    fn equal_rows_cost_no_more_than_others() {
        const COUNT: usize = 12_000;
        let mut state = 29;
        for dim in [1, 3, 8, 33] {
            let mut refined = Vec::new();
            for distinct in [COUNT, 1, 2, 40, 3000] {
                let (points, ids) = match distinct {
                    COUNT => (rows("even", COUNT, dim, &mut state), (0..COUNT as u64).collect()),
                    _ => repeated(dim, distinct, COUNT, &mut state),
                };
                let create = CreateOptions::new(dim);
                let mut store = Store::in_memory(create, OpenOptions::new().threads(1)).unwrap();
                store.insert_with_ids(&points, &ids).unwrap();
                store
                    .delete(&(0..COUNT as u64).filter(|id| id % 5 == 0).collect::<Vec<_>>())
                    .unwrap();
                let snapshot = store.latest().unwrap();
                let tree = snapshot.tree();
                let queries = [&points[..20 * dim], &rows("even", 20, dim, &mut state)].concat();
                let grid =
                    (dim > SHORT_ROW).then(|| Grid::new(tree.kernel, &points, &queries, dim));
                let mut live: Vec<(u64, &[f32])> =
                    ids.iter().copied().zip(points.chunks_exact(dim)).collect();
                live.retain(|(id, _)| id % 5 > 0);
                let what = format!("{distinct} values");
                for k in [1, 10, 90] {
                    let work = assert_exact(tree, &live, &queries, grid.as_ref(), k, &what);
                    if k == 10 {
                        refined.push(work.refined);
                    }
                }
                // And query by query.
                for query in queries.chunks_exact(dim).step_by(7) {
                    let found = snapshot.brute_knn(query, 10).unwrap();
                    assert_eq!(found, naive(tree, query, &live, 10), "{what} dim {dim}");
                }
            }
            println!("dim {dim}: {refined:?}");
            let all_pairs = (40 * COUNT) as u64;
            assert!(refined.iter().all(|&refined| refined < all_pairs / 10), "{dim}: {refined:?}");
        }
    }
}
