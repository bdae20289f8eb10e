//! Many queries against many rows, only to tell which pairs may be near: the first half of a filter-and-refine scan.
//!
//! Rows and queries are put as bytes ([`Grid`]), of which one instruction multiplies thirty-two. Whole-number distances
//! between bytes, and how far each row is from its bytes, tell which pairs cannot be near (B4, `bounds.rs`). The pairs
//! found are a superset, and the caller computes the canonical sum of each.
//!
//! A row's bytes are x, a query's q; the query is stored as y = q - 64, which has a sign. |q - x|^2 <= p^2 is tested as
//! x.y - h >= (|q|^2 - p^2) / 2 with h = floor(sum of x (x - 128) / 2), all in i32: with at most [`MAX_DIM`] components
//! of at most 127, every part is below 2^30 in magnitude and every sum below 2^31.
//!
//! Rows are laid out by sixteens in *panels*, so that every lane is a row and nothing is added across lanes. Queries
//! go in groups whose sums stay in registers. Octets are taken in the order of the grid, the most telling first, and
//! only the first few of them if those tell enough.
//!
//! [`MAX_DIM`]: super::MAX_DIM

use super::grid::{Cells, LAST_CELL};
#[cfg(target_arch = "x86_64")]
use super::kernel;
#[cfg(target_arch = "x86_64")]
use super::lanes::{Job, Lanes};
use super::scalar::LANES;
use super::{Grid, Kernel, Slack, portable};

/// Queries whose sums are in registers together.
pub(super) const GROUP: usize = 4;

/// What is taken from a query's cells, so that they fit a signed byte.
const SHIFT: u8 = LAST_CELL.div_ceil(2);

/// The start of a row that passes whatever the query: above the highest limit by more than any sum can take away.
const PASSES: i32 = 1 << 30;

/// Rows whose squared distance to their cells is above so many times the middle one's pass unseen, so that the others have
/// a smaller error to reckon with: but no more than one in so many.
const UNCOMMON: f32 = 4.0;
const UNSEEN: usize = 256;

/// A query and a row that may be near each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pair {
    /// Index into the queries.
    pub(crate) query: u32,
    /// Index into the rows of the tile.
    pub(crate) row: u32,
}

/// Eight cells of sixteen rows: the first four of each, then the last four. Aligned, so that no load straddles two cache
/// lines.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Octet(pub(super) [[i32; LANES]; 2]);

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
    /// Octets that distances are made of.
    octets: usize,
    /// `[panels][octets]`.
    panels: Vec<Octet>,
    /// Per panel: -h of its rows.
    starts: Vec<[i32; LANES]>,
    /// Of each row of the tile.
    residuals: Vec<f32>,
    cells: Cells,
}

/// What a filter works on, for one instruction set.
pub(super) struct Tile<'a> {
    pub(super) octets_per_query: usize,
    pub(super) queries: &'a [[[i32; 2]; GROUP]],
    pub(super) octets: usize,
    pub(super) panels: &'a [Octet],
    pub(super) starts: &'a [[i32; LANES]],
    pub(super) row_count: usize,
    /// One for each query of every group: what its sums must be above.
    pub(super) limits: &'a [i32],
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
                    *byte = byte.wrapping_sub(SHIFT);
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
            octets,
            panels: Vec::new(),
            starts: Vec::new(),
            residuals: Vec::new(),
            cells,
        }
    }

    /// Begins a tile of rows, whose distances will be made of the first `octets` octets.
    pub(crate) fn begin(&mut self, octets: usize) {
        assert!(0 < octets && octets <= self.grid.octets(), "distances are of some of the octets");
        self.octets = octets;
        self.panels.clear();
        self.starts.clear();
        self.residuals.clear();
    }

    /// Brings in more rows of the tile, each `[dim]`.
    pub(crate) fn load(&mut self, rows: &[&[f32]]) {
        let (octets, mut cells) = (self.octets, std::mem::take(&mut self.cells));
        self.grid.quantize(self.kernel, rows, octets, &mut cells);
        let rows = cells.octets.chunks_exact(octets).zip(&cells.moments);
        for (place, (row, moment)) in (self.residuals.len()..).zip(rows) {
            let lane = place % LANES;
            if lane == 0 {
                self.panels.resize(self.panels.len() + octets, Octet([[0; LANES]; 2]));
                self.starts.push([0; LANES]);
            }
            let panel = self.panels.len() - octets;
            for (to, &octet) in self.panels[panel..].iter_mut().zip(row) {
                let [first, second] = halves(octet);
                to.0[0][lane] = first;
                to.0[1][lane] = second;
            }
            self.starts[place / LANES][lane] = -(moment >> 1);
        }
        self.residuals.extend_from_slice(&cells.residuals);
        self.cells = cells;
    }

    /// Appends every pair of a query and a row of the tile whose canonical distance may be at most the query's radius to
    /// `found`.
    ///
    /// `radii`: one per query.
    pub(crate) fn near(
        &mut self,
        radii: impl ExactSizeIterator<Item = f32>,
        found: &mut Vec<Pair>,
    ) {
        assert_eq!(radii.len(), self.query_count, "one radius per query");
        let error = self.slack.cell_error(self.let_the_farthest_pass());
        let stride = self.grid.octets() + 1;
        let mut limits: Vec<i32> = Vec::with_capacity(self.query_count.next_multiple_of(GROUP));
        for (q, radius) in radii.enumerate() {
            let reach = self.grid.in_cells(self.slack.true_distance(radius));
            let reach = (reach + self.errors[q] + error) * (1.0 + 2.0_f64.powi(-40));
            let norm = f64::from(self.norms[q * stride + self.octets]);
            // The conversion saturates.
            let limit = ((norm - reach * reach) / 2.0).floor() as i32;
            limits.push(limit.saturating_sub(1));
        }
        // A place in the last group without a query takes nothing.
        limits.resize(self.query_count.next_multiple_of(GROUP), i32::MAX);
        let tile = Tile {
            octets_per_query: self.grid.octets(),
            queries: &self.queries,
            octets: self.octets,
            panels: &self.panels,
            starts: &self.starts,
            row_count: self.residuals.len(),
            limits: &limits,
            found,
        };
        super::dispatch!(self.kernel, portable::filter(tile), lanes => lanes.vectorize(tile));
    }

    /// Lets the few rows pass that are uncommonly far from their cells; the greatest residual of the others.
    fn let_the_farthest_pass(&mut self) -> f32 {
        let residuals = &mut self.cells.residuals;
        residuals.clear();
        residuals.extend_from_slice(&self.residuals);
        let count = residuals.len();
        if count == 0 {
            return 0.0;
        }
        let (_, &mut middle, above) = residuals.select_nth_unstable_by(count / 2, f32::total_cmp);
        let mut limit = middle * UNCOMMON;
        let farthest = count / UNSEEN;
        if above.iter().filter(|&&residual| residual > limit).count() > farthest {
            let (_, &mut last, _) =
                residuals.select_nth_unstable_by(count - 1 - farthest, f32::total_cmp);
            limit = last;
        }
        // Without a limit nothing could be told of any row.
        let limit = limit.min(f32::MAX);
        for (row, &residual) in self.residuals.iter().enumerate() {
            if residual > limit {
                self.starts[row / LANES][row % LANES] = PASSES;
            }
        }
        limit
    }
}

/// The first and the last four cells.
#[inline]
fn halves(octet: u64) -> [i32; 2] {
    [octet as i32, (octet >> 32) as i32]
}

#[cfg(target_arch = "x86_64")]
impl Job for Tile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        match self.octets {
            1 => short::<L, 1>(lanes, self),
            2 => short::<L, 2>(lanes, self),
            _ => long(lanes, self),
        }
    }
}

/// Rows of so few octets that the loop over them is unrolled.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn short<L: Lanes, const N: usize>(lanes: L, mut tile: Tile<'_>) {
    let (panels, _) = tile.panels.as_chunks::<N>();
    for (group, queries) in tile.queries.chunks_exact(tile.octets_per_query).enumerate() {
        let queries: &[_; N] = queries.first_chunk().expect("octets are some of the query's");
        let limits = *tile.limits[group * GROUP..].first_chunk().expect("one limit per place");
        for (p, (panel, start)) in panels.iter().zip(tile.starts).enumerate() {
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
fn long<L: Lanes>(lanes: L, mut tile: Tile<'_>) {
    let groups = tile.limits.len() / GROUP;
    let mut group = 0;
    // Two groups where registers hold their sums: more additions that need not wait for each other.
    while L::WIDE_BLOCK && group + 2 <= groups {
        groups_at_once::<L, 2>(lanes, &mut tile, group);
        group += 2;
    }
    while group < groups {
        groups_at_once::<L, 1>(lanes, &mut tile, group);
        group += 1;
    }
}

/// All panels for M groups of queries, from `group` on.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn groups_at_once<L: Lanes, const M: usize>(lanes: L, tile: &mut Tile<'_>, group: usize) {
    let (octets, stride) = (tile.octets, tile.octets_per_query);
    let mut queries: [&[[[i32; 2]; GROUP]]; M] = [&[]; M];
    let mut limits = [[0; GROUP]; M];
    for m in 0..M {
        queries[m] = &tile.queries[(group + m) * stride..][..octets];
        limits[m] = *tile.limits[(group + m) * GROUP..].first_chunk().expect("one per place");
    }
    for (p, (panel, start)) in tile.panels.chunks_exact(octets).zip(tile.starts).enumerate() {
        let mut sums = [[lanes.load_ints(start); GROUP]; M];
        for (octet, rows) in panel.iter().enumerate() {
            for m in 0..M {
                add_dots(lanes, &mut sums[m], rows, &queries[m][octet]);
            }
        }
        for m in 0..M {
            take(lanes, tile, group + m, p, &sums[m], &limits[m]);
        }
    }
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
    tile: &mut Tile<'_>,
    group: usize,
    panel: usize,
    sums: &[L::Ints; GROUP],
    limits: &[i32; GROUP],
) {
    if lanes.any_above(sums, limits) {
        for (q, (&sum, &limit)) in sums.iter().zip(limits).enumerate() {
            let near = lanes.above(sum, limit);
            if near != 0 {
                tile.take(group * GROUP + q, panel, near);
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
                    let grid = Grid::new(kernel, &rows[rows.len().min(dim * 20) - dim..], dim);
                    let mut filter = Filter::new(&grid, kernel, slack, &queries);
                    for octets in [grid.octets(), grid.octets().div_ceil(2)] {
                        let mut found = Vec::new();
                        filter.begin(octets);
                        let rows: Vec<&[f32]> = rows.chunks_exact(dim).collect();
                        let (some, more) = rows.split_at(b / 3);
                        filter.load(some);
                        filter.load(more);
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

    /// Rows and queries on a grid of the data's own, so that there is no error to speak of: the filter finds what is near
    /// and nothing else, on every instruction set, up to the greatest cells and the most octets.
    #[test]
    fn whole_numbers_are_told_exactly() {
        let mut random = Random(32);
        for kernel in Kernel::available() {
            for dim in [1, 8, 20, 500] {
                let whole = |values: Vec<f32>| -> Vec<f32> {
                    values
                        .into_iter()
                        .map(|x| ((x + 1.0) * 64.0).floor().clamp(0.0, 127.0))
                        .collect()
                };
                let mut rows = whole(random.uniform(200 * dim, 1.0));
                let mut queries = whole(random.uniform(9 * dim, 1.0));
                rows[..dim].fill(127.0);
                queries[..dim].fill(127.0);
                rows[dim..2 * dim].fill(0.0);
                queries[dim..2 * dim].fill(0.0);
                let limits: Vec<f32> = (0..9)
                    .map(|q| sum(&queries[q * dim..][..dim], &rows[(20 + q) * dim..][..dim]))
                    .collect();
                let grid = Grid::whole(dim);
                let mut filter = Filter::new(&grid, kernel, Slack::new(dim), &queries);
                let mut found = Vec::new();
                filter.begin(grid.octets());
                filter.load(&rows.chunks_exact(dim).collect::<Vec<_>>());
                filter.near(limits.iter().map(|&s| distance(s)), &mut found);
                found.sort_unstable();
                // A unit is lost on either side of the comparison, and what the error allows for.
                let wider: Vec<f32> =
                    limits.iter().map(|s| (s.sqrt() + 0.1).powi(2) + 3.0).collect();
                let (least, most) =
                    (near(&queries, &rows, dim, &limits), near(&queries, &rows, dim, &wider));
                assert!(found.len() < 9 * 200 || dim == 1);
                assert!(least.iter().all(|pair| found.binary_search(pair).is_ok()));
                assert!(found.iter().all(|pair| most.binary_search(pair).is_ok()));
            }
        }
    }

    #[test]
    fn radii_without_bound_take_all() {
        let (queries, rows) = ([0.0, 1.0], [0.0, 0.5, 2.0]);
        let kernel = Kernel::best();
        let grid = Grid::new(kernel, &rows, 1);
        let mut filter = Filter::new(&grid, kernel, Slack::new(1), &queries);
        filter.begin(1);
        filter.load(&[&rows[..1], &rows[1..2], &rows[2..]]);
        let mut found = Vec::new();
        filter.near([f32::INFINITY, 0.0].into_iter(), &mut found);
        let all: Vec<Pair> = (0..3).map(|row| Pair { query: 0, row }).collect();
        assert_eq!(found, all);
    }
}
