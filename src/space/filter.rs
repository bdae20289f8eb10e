//! Many queries against many rows, only to tell which pairs may be near: the first half of a
//! filter-and-refine scan.
//!
//! Rows and queries are put as bytes ([`Grid`]), of which one instruction multiplies thirty-two or
//! sixty-four. Whole-number distances between bytes, and how far each row is from its bytes, tell
//! which pairs cannot be near (B4, `bounds.rs`). The pairs found are a superset, and the caller
//! computes the canonical sum of each.
//!
//! A row's bytes are x, a query's q, both below 2S, and S the shift; the query is stored as y = q -
//! S, which has a sign. |q - x|^2 <= p^2 is tested as x.y - h >= (|q|^2 - p^2) / 2 with h =
//! floor(sum of x (x - 2S) / 2), all in i32: with at most [`MAX_DIM`] components below 128, or 8192
//! below 256, every part is below 2^30 in magnitude and every sum below 2^31.
//!
//! Rows are laid out by sixteens ([`Panels`]). Queries go in groups whose sums stay in registers.
//! Octets are taken in the order of the grid, the most telling first, and only the first few of
//! them if those tell enough.
//!
//! [`MAX_DIM`]: super::MAX_DIM

use super::grid::Cells;
#[cfg(target_arch = "x86_64")]
use super::kernel;
#[cfg(target_arch = "x86_64")]
use super::lanes::{Job, Lanes};
#[cfg(target_arch = "x86_64")]
use super::panels::Octet;
use super::panels::{Panels, halves};
use super::scalar::LANES;
use super::{Grid, Kernel, Slack, portable};

/// Queries whose sums are in registers together.
pub(super) const GROUP: usize = 4;

/// The start of a row that passes whatever the query: above the highest limit by more than any sum
/// can take away.
const PASSES: i32 = 1 << 30;

/// Rows whose squared distance to their cells is above so many times the middle one's pass unseen,
/// so that the others have a smaller error to reckon with: but no more than one in so many.
const OUTLIER_RATIO: f32 = 4.0;
const MAX_OUTLIER_SHARE: usize = 256;

/// A query and a row that may be near each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pair {
    /// Index into the queries.
    pub(crate) query: u32,
    /// Index into the rows of the tile.
    pub(crate) row: u32,
}

/// Queries packed for filtering, and the panels of the rows they are put to.
pub(crate) struct Filter<'a> {
    grid: &'a Grid,
    kernel: Kernel,
    slack: Slack,
    /// `[groups][octets of the grid][GROUP]`; queries that the last group lacks are zeros.
    queries: Vec<[[i32; 2]; GROUP]>,
    query_count: usize,
    /// `[queries][octets of the grid + 1]`: the sum of the squared cells of the octets before.
    norms: Vec<i32>,
    /// E of each query (B4).
    errors: Vec<f64>,
    /// The rows of the tile.
    panels: Panels,
    cells: Cells,
}

/// What a filter works on, for one instruction set.
pub(super) struct ByteTile<'a> {
    pub(super) octets_per_query: usize,
    pub(super) queries: &'a [[[i32; 2]; GROUP]],
    pub(super) panels: &'a Panels,
    pub(super) row_count: usize,
    /// One for each query of every group: what its sums must be above.
    pub(super) limits: &'a [i32],
    pub(super) found: &'a mut Vec<Pair>,
}

/// Takes the rows of a panel whose bits are set for one query.
#[inline(never)]
pub(super) fn push_lanes(
    mut lanes: u16,
    query: usize,
    panel: usize,
    row_count: usize,
    found: &mut Vec<Pair>,
) {
    while lanes != 0 {
        let row = panel * LANES + lanes.trailing_zeros() as usize;
        lanes &= lanes - 1;
        if row < row_count {
            found.push(Pair { query: query as u32, row: row as u32 });
        }
    }
}

impl<'a> Filter<'a> {
    /// A filter for `queries`, row-major `[a x dim of the grid]`.
    pub(crate) fn new(grid: &'a Grid, kernel: Kernel, slack: Slack, queries: &[f32]) -> Self {
        let octets = grid.octets();
        let queries: Vec<&[f32]> = queries.chunks_exact(grid.dim()).collect();
        let mut cells = Cells::default();
        grid.quantize(kernel, &queries, octets, &mut cells);
        let query_count = cells.residuals.len();
        let mut packed = vec![[[0; 2]; GROUP]; query_count.div_ceil(GROUP) * octets];
        let mut norms = Vec::with_capacity(query_count * (octets + 1));
        for (q, query) in cells.octets.chunks_exact(octets).enumerate() {
            let mut norm = 0;
            let group = &mut packed[q / GROUP * octets..][..octets];
            for (to, octet) in group.iter_mut().zip(query) {
                norms.push(norm);
                let mut bytes = octet.to_le_bytes();
                for byte in &mut bytes {
                    norm += i32::from(*byte) * i32::from(*byte);
                    *byte = byte.wrapping_sub(grid.shift());
                }
                to[q % GROUP] = halves(u64::from_le_bytes(bytes));
            }
            norms.push(norm);
        }
        let errors = cells.residuals.iter().map(|&residual| slack.cell_error(residual)).collect();
        Filter {
            grid,
            kernel,
            slack,
            queries: packed,
            query_count,
            norms,
            errors,
            panels: Panels::default(),
            cells,
        }
    }

    /// Makes `rows`, each `[dim]`, the tile; distances will be made of the first `octets` octets.
    pub(crate) fn load(&mut self, rows: &[&[f32]], octets: usize) {
        assert!(0 < octets && octets <= self.grid.octets(), "distances are of some of the octets");
        self.grid.quantize(self.kernel, rows, octets, &mut self.cells);
        self.panels.lay(self.kernel, &self.cells.octets, octets, self.grid.shift());
    }

    /// Appends every pair of a query and a row of the tile whose canonical distance may be at most
    /// the query's radius to `found`.
    ///
    /// `radii`: one per query.
    pub(crate) fn near(
        &mut self,
        radii: impl ExactSizeIterator<Item = f32>,
        found: &mut Vec<Pair>,
    ) {
        assert_eq!(radii.len(), self.query_count, "one radius per query");
        let error = self.slack.cell_error(self.exempt_outliers());
        let stride = self.grid.octets() + 1;
        let mut limits: Vec<i32> = Vec::with_capacity(self.query_count.next_multiple_of(GROUP));
        for (q, radius) in radii.enumerate() {
            let reach = self.grid.in_cells(self.slack.true_distance(radius));
            let reach = (reach + self.errors[q] + error) * (1.0 + 2.0_f64.powi(-40));
            let norm = f64::from(self.norms[q * stride + self.panels.octets]);
            // The conversion saturates.
            let limit = ((norm - reach * reach) / 2.0).floor() as i32;
            limits.push(limit.saturating_sub(1));
        }
        // A place in the last group without a query takes nothing.
        limits.resize(self.query_count.next_multiple_of(GROUP), i32::MAX);
        let tile = ByteTile {
            octets_per_query: self.grid.octets(),
            queries: &self.queries,
            panels: &self.panels,
            row_count: self.cells.residuals.len(),
            limits: &limits,
            found,
        };
        super::dispatch!(self.kernel, portable::filter(tile), lanes => lanes.vectorize(tile));
    }

    /// Lets the few rows pass that are uncommonly far from their cells; the greatest residual of
    /// the others.
    fn exempt_outliers(&mut self) -> f32 {
        let residuals = &self.cells.residuals;
        let count = residuals.len();
        let greatest = residuals.iter().copied().fold(0.0, f32::max);
        let sum = residuals.iter().sum::<f32>();
        if greatest.is_finite() && greatest * count as f32 <= sum * OUTLIER_RATIO {
            return greatest;
        }
        let mut sorted = residuals.clone();
        let (_, &mut middle, above) = sorted.select_nth_unstable_by(count / 2, f32::total_cmp);
        let mut limit = middle * OUTLIER_RATIO;
        let farthest = count / MAX_OUTLIER_SHARE;
        if above.iter().filter(|&&residual| residual > limit).count() > farthest {
            let (_, &mut last, _) =
                sorted.select_nth_unstable_by(count - 1 - farthest, f32::total_cmp);
            limit = last;
        }
        // Without a limit nothing could be told of any row.
        let limit = limit.min(f32::MAX);
        for (row, &residual) in residuals.iter().enumerate() {
            if residual > limit {
                self.panels.starts[row / LANES][row % LANES] = PASSES;
            }
        }
        limit
    }
}

#[cfg(target_arch = "x86_64")]
impl Job for ByteTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        match self.panels.octets {
            1 => short::<L, 1>(lanes, self),
            2 => short::<L, 2>(lanes, self),
            _ => long(lanes, self),
        }
    }
}

/// Rows of so few octets that the loop over them is unrolled.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn short<L: Lanes, const N: usize>(lanes: L, mut tile: ByteTile<'_>) {
    let all = tile.panels;
    let (panels, _) = all.cells.as_chunks::<N>();
    for (group, queries) in tile.queries.chunks_exact(tile.octets_per_query).enumerate() {
        let queries: &[_; N] = queries.first_chunk().expect("octets are some of the query's");
        let limits = *tile.limits[group * GROUP..].first_chunk().expect("one limit per place");
        for (p, (panel, start)) in panels.iter().zip(&all.starts).enumerate() {
            let mut sums = [lanes.load_ints(start); GROUP];
            for i in 0..N {
                add_dots(lanes, &mut sums, &panel[i], &queries[i]);
            }
            take(lanes, &mut tile, group, p, &sums, &limits);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn long<L: Lanes>(lanes: L, mut tile: ByteTile<'_>) {
    for group in 0..tile.limits.len() / GROUP {
        // Several panels where registers hold their sums: more additions that need not wait for
        // each other.
        let rest =
            if L::WIDE_BLOCK { panels_at_once::<L, 4>(lanes, &mut tile, group, 0) } else { 0 };
        panels_at_once::<L, 1>(lanes, &mut tile, group, rest);
    }
}

/// One group of queries for the panels from `first` on, P at a time; the first panel that is left.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn panels_at_once<L: Lanes, const P: usize>(
    lanes: L,
    tile: &mut ByteTile<'_>,
    group: usize,
    first: usize,
) -> usize {
    let (panels, octets) = (tile.panels, tile.panels.octets);
    let queries = &tile.queries[group * tile.octets_per_query..][..octets];
    let limits = *tile.limits[group * GROUP..].first_chunk().expect("one limit per place");
    let (starts, rest) = panels.starts[first..].as_chunks::<P>();
    let cells = panels.cells[first * octets..].chunks_exact(P * octets);
    for (i, (cells, starts)) in cells.zip(starts).enumerate() {
        let mut sums = [[lanes.load_ints(&starts[0]); GROUP]; P];
        let mut rows: [&[Octet]; P] = [&[]; P];
        for (p, cells) in cells.chunks_exact(octets).enumerate() {
            sums[p] = [lanes.load_ints(&starts[p]); GROUP];
            rows[p] = cells;
        }
        for (octet, queries) in queries.iter().enumerate() {
            for p in 0..P {
                add_dots(lanes, &mut sums[p], &rows[p][octet], queries);
            }
        }
        for (p, sums) in sums.iter().enumerate() {
            take(lanes, tile, group, first + i * P + p, sums, &limits);
        }
    }
    panels.starts.len() - rest.len()
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn add_dots<L: Lanes>(
    lanes: L,
    sums: &mut [L::Ints; GROUP],
    rows: &Octet,
    queries: &[[i32; 2]; GROUP],
) {
    for (sum, query) in sums.iter_mut().zip(queries) {
        *sum = lanes.add_dot(*sum, &rows.0, query);
    }
}

/// Takes what is above the limits. Mostly nothing is; that is seen for all at once.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn take<L: Lanes>(
    lanes: L,
    tile: &mut ByteTile<'_>,
    group: usize,
    panel: usize,
    sums: &[L::Ints; GROUP],
    limits: &[i32; GROUP],
) {
    if lanes.any_above(sums, limits) {
        for (q, (&sum, &limit)) in sums.iter().zip(limits).enumerate() {
            let near = lanes.above(sum, limit);
            if near != 0 {
                push_lanes(near, group * GROUP + q, panel, tile.row_count, tile.found);
            }
        }
    }
}

/// The canonical sums of pairs that a filter let through: [`Kernel::pair_sums`].
pub(super) struct PairSums<'a> {
    pub(super) queries: &'a [f32],
    pub(super) rows: &'a [&'a [f32]],
    pub(super) dim: usize,
    pub(super) limits: &'a [f32],
    pub(super) pairs: &'a [Pair],
    pub(super) out: &'a mut Vec<f32>,
}

impl PairSums<'_> {
    #[inline(always)]
    fn parts(&self, pair: Pair) -> (&[f32], &[f32], f32) {
        let (query, row) = (pair.query as usize, pair.row as usize);
        let query_row = &self.queries[query * self.dim..][..self.dim];
        (query_row, self.rows[row], self.limits[query])
    }

    pub(super) fn portable(self) {
        for &pair in self.pairs {
            let (a, b, limit) = self.parts(pair);
            let sum = portable::within(a, b, limit);
            self.out.push(sum);
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Job for PairSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        self.out.reserve(self.pairs.len());
        for &pair in self.pairs {
            let (a, b, limit) = self.parts(pair);
            let sum = match self.dim < LANES {
                true => kernel::short(lanes, a, b),
                false => kernel::within(lanes, a, b, limit),
            };
            self.out.push(sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scalar::{distance, sum};
    use super::super::tests::Random;
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

    fn check(kernel: Kernel) {
        let isa = kernel.isa();
        let mut random = Random(31);
        for dim in [1, 2, 3, 7, 8, 9, 16, 17, 40, 128, 300] {
            let slack = Slack::new(dim);
            for scale in [1.0, 1e15, 1e-19, 1e-21, 1e-22, 1e-30] {
                for (a, b) in [(1, 1), (5, 15), (6, 16), (7, 17), (13, 130), (3, 600)] {
                    let mut queries = random.uniform(a * dim, scale);
                    let mut rows = random.uniform(b * dim, scale);
                    if b > 100 {
                        // Far off the grid, near each other.
                        queries[0] = (1e4 * scale) as f32;
                        rows[0] = (1e4 * scale) as f32;
                    }
                    // A radius that is some row's own distance: the case where a rounding decides.
                    let limits: Vec<f32> = (0..a)
                        .map(|q| {
                            let row = (q * 7) % b;
                            sum(&queries[q * dim..][..dim], &rows[row * dim..][..dim])
                        })
                        .collect();
                    let expected = near(&queries, &rows, dim, &limits);
                    assert!(expected.len() >= a);
                    let sample = &rows[rows.len().min(dim * 20) - dim..];
                    let grid = Grid::new(kernel, sample, &queries, dim);
                    let mut filter = Filter::new(&grid, kernel, slack, &queries);
                    for octets in [grid.octets(), grid.octets().div_ceil(2)] {
                        let mut found = Vec::new();
                        filter.load(&rows.chunks_exact(dim).collect::<Vec<_>>(), octets);
                        filter.near(limits.iter().map(|&s| distance(s)), &mut found);
                        found.sort_unstable();
                        let has = |pair: &Pair| found.binary_search(pair).is_ok();
                        assert!(expected.iter().all(has), "{isa:?} dim {dim} scale {scale:e}");
                    }
                }
            }
        }
    }

    #[test]
    fn finds_every_near_pair() {
        Kernel::available().for_each(check);
    }

    /// Rows and queries on a grid of the data's own, so that there is no error to speak of: the
    /// filter finds what is near and nothing else, on every instruction set, up to the greatest
    /// cells and the most octets.
    #[test]
    fn whole_numbers_are_told_exactly() {
        let mut random = Random(32);
        for kernel in Kernel::available() {
            for (dim, count) in
                [(1, 200), (8, 200), (20, 200), (500, 200), (8192, 40), (65_536, 32)]
            {
                let last = f32::from(kernel.last_cell(dim));
                let whole = |values: Vec<f32>| -> Vec<f32> {
                    let cells = (last + 1.0) / 2.0;
                    values.into_iter().map(|x| ((x + 1.0) * cells).floor().min(last)).collect()
                };
                let mut rows = whole(random.uniform(count * dim, 1.0));
                let mut queries = whole(random.uniform(9 * dim, 1.0));
                rows[..dim].fill(last);
                queries[..dim].fill(last);
                rows[dim..2 * dim].fill(0.0);
                queries[dim..2 * dim].fill(0.0);
                let limits: Vec<f32> = (0..9)
                    .map(|q| sum(&queries[q * dim..][..dim], &rows[(20 + q) * dim..][..dim]))
                    .collect();
                let grid = Grid::whole(kernel, dim);
                let slack = Slack::new(dim);
                let mut filter = Filter::new(&grid, kernel, slack, &queries);
                let mut found = Vec::new();
                filter.load(&rows.chunks_exact(dim).collect::<Vec<_>>(), grid.octets());
                filter.near(limits.iter().map(|&s| distance(s)), &mut found);
                found.sort_unstable();
                // A unit is lost on either side of the comparison, and what the error allows for.
                let wider = limits.iter().map(|&s| slack.true_distance(distance(s)) + 0.1);
                let wider: Vec<f32> = wider.map(|reach| (reach * reach + 3.0) as f32).collect();
                let (least, most) =
                    (near(&queries, &rows, dim, &limits), near(&queries, &rows, dim, &wider));
                assert!(found.len() < 9 * count || dim == 1);
                assert!(least.iter().all(|pair| found.binary_search(pair).is_ok()));
                assert!(found.iter().all(|pair| most.binary_search(pair).is_ok()));
            }
        }
    }

    /// However far a query is from it, up to the greatest cells and the most octets.
    #[test]
    fn a_row_far_off_the_grid_passes() {
        for kernel in Kernel::available() {
            for dim in [1, 40, 8192, 65_536] {
                let grid = Grid::whole(kernel, dim);
                let queries = [vec![0.0; dim], vec![kernel.last_cell(dim).into(); dim]].concat();
                let mut filter = Filter::new(&grid, kernel, Slack::new(dim), &queries);
                for far in [-1e6, 1e6] {
                    let (near, far) = (vec![1.0; dim], vec![far; dim]);
                    let mut rows = [&near[..]; 300];
                    rows[70] = &far;
                    let mut found = Vec::new();
                    filter.load(&rows, grid.octets());
                    filter.near([0.0, 0.0].into_iter(), &mut found);
                    assert!(found.len() < 600 || dim == 1);
                    for query in 0..2 {
                        assert!(found.contains(&Pair { query, row: 70 }), "dim {dim} {query}");
                    }
                }
            }
        }
    }

    #[test]
    fn radii_without_bound_take_all() {
        let (queries, rows) = ([0.0, 1.0], [0.0, 0.25, 2.0]);
        let kernel = Kernel::best();
        let grid = Grid::new(kernel, &rows, &queries, 1);
        let mut filter = Filter::new(&grid, kernel, Slack::new(1), &queries);
        filter.load(&[&rows[..1], &rows[1..2], &rows[2..]], 1);
        let mut found = Vec::new();
        filter.near([f32::INFINITY, 0.0].into_iter(), &mut found);
        let all: Vec<Pair> = (0..3).map(|row| Pair { query: 0, row }).collect();
        assert_eq!(found, all);
    }
}
