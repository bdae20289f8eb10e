//! Many queries against many rows, only to tell which pairs may be near: the first half of a filter-and-refine scan.
//!
//! A filter sum is not the canonical sum. Its terms are added in whatever order is fastest, in one rounding or two, and
//! those of some columns may be left out. B3 (`bounds.rs`) says up to which filter sum the canonical sum can be small,
//! so the pairs found are a superset, and the caller computes the canonical sum of each.
//!
//! Rows are transposed by sixteens into *panels*, so that every lane is a row and nothing is added across lanes. Queries
//! go in groups whose sums stay in registers. Columns are taken in an order of the caller's choice, the most telling
//! first, and only the first few of them if those tell enough.

#[cfg(target_arch = "x86_64")]
use super::kernel::with_dim;
#[cfg(target_arch = "x86_64")]
use super::lanes::{Job, Lanes};
use super::scalar::LANES;
use super::{Kernel, portable};

/// Queries whose sums are in registers together.
pub(super) const GROUP: usize = 4;

/// A query and a row that may be near each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pair {
    /// Index into the queries.
    pub(crate) query: u32,
    /// Index into the rows of the tile.
    pub(crate) row: u32,
}

/// One component of sixteen rows. Aligned, so that no load straddles two cache lines.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Column(pub(super) [f32; LANES]);

/// Queries packed for filtering, and the panels of the rows they are put to.
pub(crate) struct Filter {
    /// Every column once, the most telling first.
    order: Vec<u32>,
    /// `[groups][dim][GROUP]`, columns in that order; queries that the last group lacks are zeros.
    queries: Vec<[f32; GROUP]>,
    query_count: usize,
    /// Columns that sums are made of.
    columns: usize,
    /// `[panels][columns][LANES]`.
    panels: Vec<Column>,
    row_count: usize,
}

/// What a filter works on, for one instruction set.
pub(super) struct Tile<'a> {
    /// Columns per group of `queries`.
    pub(super) dim: usize,
    pub(super) queries: &'a [[f32; GROUP]],
    pub(super) columns: usize,
    pub(super) panels: &'a [Column],
    pub(super) row_count: usize,
    /// One for each query of every group.
    pub(super) limits: &'a [f32],
    pub(super) found: &'a mut Vec<Pair>,
}

impl Tile<'_> {
    /// Takes the rows of a panel whose bits are set for one query.
    #[inline(never)]
    pub(super) fn take(&mut self, query: usize, panel: usize, mut lanes: u16) {
        while lanes != 0 {
            let row = panel * LANES + lanes.trailing_zeros() as usize;
            lanes &= lanes - 1;
            if row < self.row_count {
                self.found.push(Pair { query: query as u32, row: row as u32 });
            }
        }
    }
}

impl Filter {
    /// A filter for `queries`, row-major `[a x order.len()]`.
    ///
    /// `order`: every column once.
    pub(crate) fn new(queries: &[f32], order: Vec<u32>) -> Self {
        let dim = order.len();
        let query_count = queries.len() / dim;
        let mut packed = Vec::with_capacity(query_count.div_ceil(GROUP) * dim);
        for group in queries.chunks(GROUP * dim) {
            packed.extend(order.iter().map(|&column| {
                std::array::from_fn(|q| {
                    group.get(q * dim + column as usize).copied().unwrap_or(0.0)
                })
            }));
        }
        let columns = dim;
        Filter { order, queries: packed, query_count, columns, panels: Vec::new(), row_count: 0 }
    }

    /// Begins a tile of about `row_count` rows, whose sums will be made of the first `columns` columns.
    pub(crate) fn begin(&mut self, row_count: usize, columns: usize) {
        assert!(0 < columns && columns <= self.order.len(), "sums are of some of the columns");
        self.columns = columns;
        self.row_count = 0;
        self.panels.clear();
        self.panels.reserve(row_count.div_ceil(LANES) * columns);
    }

    /// Brings in more rows of the tile, row-major `[b x dim]`.
    pub(crate) fn load(&mut self, rows: &[f32]) {
        let (dim, columns) = (self.order.len(), self.columns);
        let order = &self.order[..columns];
        for row in rows.chunks_exact(dim) {
            let lane = self.row_count % LANES;
            if lane == 0 {
                self.panels.resize(self.panels.len() + columns, Column([0.0; LANES]));
            }
            let start = self.panels.len() - columns;
            for (values, &column) in self.panels[start..].iter_mut().zip(order) {
                values.0[lane] = row[column as usize];
            }
            self.row_count += 1;
        }
    }

    /// Appends every pair whose filter sum is at most the query's limit to `found`.
    ///
    /// `limits`: one per query, from [`super::Slack::filter_limit`].
    pub(crate) fn near(&self, kernel: Kernel, limits: &[f32], found: &mut Vec<Pair>) {
        assert_eq!(limits.len(), self.query_count, "one limit per query");
        // A place in the last group without a query takes nothing.
        let mut padded = limits.to_vec();
        padded.resize(limits.len().next_multiple_of(GROUP), f32::NEG_INFINITY);
        let tile = Tile {
            dim: self.order.len(),
            queries: &self.queries,
            columns: self.columns,
            panels: &self.panels,
            row_count: self.row_count,
            limits: &padded,
            found,
        };
        super::dispatch!(kernel, portable::filter(tile), lanes => lanes.vectorize(tile));
    }
}

#[cfg(target_arch = "x86_64")]
impl Job for Tile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        // A number of columns that the compiler knows is a loop that it unrolls.
        match self.columns {
            1..=LANES => with_dim!(self.columns, N => run(lanes, self, N)),
            columns => run(lanes, self, columns),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn run<L: Lanes>(lanes: L, mut tile: Tile<'_>, columns: usize) {
    let panel_count = tile.row_count.div_ceil(LANES);
    for (group, queries) in tile.queries.chunks_exact(tile.dim).enumerate() {
        let queries = &queries[..columns];
        let limits = &tile.limits[group * GROUP..][..GROUP];
        let limits: [f32; GROUP] = std::array::from_fn(|q| limits[q]);
        let mut panel = 0;
        while L::WIDE_BLOCK && panel + 4 <= panel_count {
            block::<L, 4>(lanes, &mut tile, queries, limits, group, panel);
            panel += 4;
        }
        while panel < panel_count {
            block::<L, 1>(lanes, &mut tile, queries, limits, group, panel);
            panel += 1;
        }
    }
}

/// One group of queries against `P` panels from `first` on.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn block<L: Lanes, const P: usize>(
    lanes: L,
    tile: &mut Tile<'_>,
    queries: &[[f32; GROUP]],
    limits: [f32; GROUP],
    group: usize,
    first: usize,
) {
    let columns = queries.len();
    let panels: [&[Column]; P] =
        std::array::from_fn(|p| &tile.panels[(first + p) * columns..][..columns]);
    let mut sums = [[lanes.zero(); P]; GROUP];
    for (c, query) in queries.iter().enumerate() {
        let mut rows = [lanes.zero(); P];
        for (row, panel) in rows.iter_mut().zip(&panels) {
            *row = lanes.load(&panel[c].0);
        }
        for (sums, &value) in sums.iter_mut().zip(query) {
            let value = lanes.splat(value);
            for (sum, &row) in sums.iter_mut().zip(&rows) {
                *sum = lanes.add_square(*sum, row, value);
            }
        }
    }
    // Mostly none is near; that is seen for all at once.
    let mut near = [[0; P]; GROUP];
    let mut any = 0;
    for ((near, sums), limit) in near.iter_mut().zip(&sums).zip(limits) {
        let limit = lanes.splat(limit);
        for (near, &sum) in near.iter_mut().zip(sums) {
            *near = lanes.at_most(sum, limit);
            any |= *near;
        }
    }
    if any != 0 {
        for (q, near) in near.iter().enumerate() {
            for (p, &near) in near.iter().enumerate() {
                tile.take(group * GROUP + q, first + p, near);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scalar::sum;
    use super::super::tests::Random;
    use super::super::{Isa, Slack};
    use super::*;

    /// Pairs whose canonical sum is at most the limit, by the definition.
    fn near(queries: &[f32], rows: &[f32], dim: usize, limits: &[f32]) -> Vec<Pair> {
        let mut pairs = Vec::new();
        for (q, query) in queries.chunks_exact(dim).enumerate() {
            for (r, row) in rows.chunks_exact(dim).enumerate() {
                if sum(query, row) <= limits[q] {
                    pairs.push(Pair { query: q as u32, row: r as u32 });
                }
            }
        }
        pairs
    }

    fn check(isa: Isa) {
        let Some(kernel) = Kernel::with(isa) else {
            return eprintln!("skipped: no {isa:?} here");
        };
        let mut random = Random(31);
        for dim in [1, 2, 3, 7, 8, 16, 17, 40, 128, 300] {
            let slack = Slack::new(dim);
            for scale in [1.0, 1e15, 1e-19, 1e-21, 1e-22, 1e-30] {
                for (a, b) in [(1, 1), (5, 15), (6, 16), (7, 17), (13, 130)] {
                    let queries = random.uniform(a * dim, scale);
                    let rows = random.uniform(b * dim, scale);
                    // A limit that is some row's own sum: the case where a rounding decides.
                    let limits: Vec<f32> = (0..a)
                        .map(|q| {
                            let row = (q * 7) % b;
                            sum(&queries[q * dim..][..dim], &rows[row * dim..][..dim])
                        })
                        .collect();
                    let expected = near(&queries, &rows, dim, &limits);
                    assert!(expected.len() >= a);
                    let wide: Vec<f32> = limits.iter().map(|&s| slack.filter_limit(s)).collect();
                    let order: Vec<u32> = (0..dim as u32).rev().collect();
                    let mut filter = Filter::new(&queries, order);
                    for columns in [dim, dim.div_ceil(2)] {
                        let mut found = Vec::new();
                        filter.begin(b, columns);
                        let (some, more) = rows.split_at(b / 3 * dim);
                        filter.load(some);
                        filter.load(more);
                        filter.near(kernel, &wide, &mut found);
                        found.sort_unstable();
                        let has = |pair: &Pair| found.binary_search(pair).is_ok();
                        assert!(expected.iter().all(has), "{isa:?} dim {dim} scale {scale:e}");
                        if columns == dim && scale == 1.0 {
                            let loose: Vec<f32> = limits.iter().map(|s| s * 1.02).collect();
                            assert!(found.len() <= near(&queries, &rows, dim, &loose).len());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn finds_every_near_pair() {
        [Isa::Portable, Isa::Avx2, Isa::Avx512].into_iter().for_each(check);
    }

    #[test]
    fn limits_without_bound_take_all_and_none() {
        let queries = [0.0, 1.0];
        let rows = [0.0, 0.5, 2.0];
        let mut filter = Filter::new(&queries, vec![0]);
        filter.begin(3, 1);
        filter.load(&rows);
        let mut found = Vec::new();
        filter.near(Kernel::best(), &[f32::INFINITY, f32::NEG_INFINITY], &mut found);
        let all: Vec<Pair> = (0..3).map(|row| Pair { query: 0, row }).collect();
        assert_eq!(found, all);
    }
}
