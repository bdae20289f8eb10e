//! Many queries against many rows by the values themselves, only to tell which pairs may be near:
//! what is left where bytes do not tell rows apart (`filter.rs`), and what costs least where rows
//! are short.
//!
//! Sums of squared differences in any order, each square and its addition rounded together, bound
//! the canonical sum from below (B3, `bounds.rs`). The pairs found are a superset, and the caller
//! computes the canonical sum of each.
//!
//! Rows are laid out by sixteens in panels, so that every lane is a row and nothing is added across
//! lanes. Queries go in groups whose sums stay in registers.

use super::filter::{GROUP, Pair, push_lanes};
#[cfg(target_arch = "x86_64")]
use super::lanes::{Job, Lanes};
use super::scalar::LANES;
use super::{Kernel, Slack, portable};

/// One component of sixteen rows. Aligned, so that no load straddles two cache lines.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Column(pub(super) [f32; LANES]);

/// Queries, and the panels of the rows they are put to.
pub(crate) struct ValueFilter {
    kernel: Kernel,
    slack: Slack,
    dim: usize,
    /// `[groups][dim]`; queries that the last group lacks are zeros.
    queries: Vec<[f32; GROUP]>,
    query_count: usize,
    /// `[panels][dim]`.
    panels: Vec<Column>,
    row_count: usize,
}

/// What a filter works on, for one instruction set.
pub(super) struct ValueTile<'a> {
    pub(super) dim: usize,
    pub(super) queries: &'a [[f32; GROUP]],
    pub(super) panels: &'a [Column],
    pub(super) row_count: usize,
    /// One for each query of every group: what its sums must not be above.
    pub(super) limits: &'a [f32],
    pub(super) found: &'a mut Vec<Pair>,
}

impl ValueFilter {
    /// A filter for `queries`, row-major `[a x dim]`.
    pub(crate) fn new(kernel: Kernel, slack: Slack, queries: &[f32], dim: usize) -> Self {
        let query_count = queries.len() / dim;
        let mut packed = vec![[0.0; GROUP]; query_count.div_ceil(GROUP) * dim];
        for (q, query) in queries.chunks_exact(dim).enumerate() {
            for (to, &value) in packed[q / GROUP * dim..].iter_mut().zip(query) {
                to[q % GROUP] = value;
            }
        }
        let (queries, panels, row_count) = (packed, Vec::new(), 0);
        ValueFilter { kernel, slack, dim, queries, query_count, panels, row_count }
    }

    /// Makes `rows`, each `[dim]`, the tile.
    pub(crate) fn load(&mut self, rows: &[&[f32]]) {
        let dim = self.dim;
        self.row_count = rows.len();
        self.panels.clear();
        self.panels.resize(rows.len().div_ceil(LANES) * dim, Column([0.0; LANES]));
        for (panel, rows) in self.panels.chunks_exact_mut(dim).zip(rows.chunks(LANES)) {
            for (lane, row) in rows.iter().enumerate() {
                for (column, &value) in panel.iter_mut().zip(*row) {
                    column.0[lane] = value;
                }
            }
        }
    }

    /// Appends every pair of a query and a row of the tile whose canonical sum is at most the
    /// query's limit to `found`, and few others.
    ///
    /// `limits`: one per query.
    pub(crate) fn near(&mut self, limits: &[f32], found: &mut Vec<Pair>) {
        assert_eq!(limits.len(), self.query_count, "one limit per query");
        let mut limits: Vec<f32> = limits.iter().map(|&s| self.slack.filter_limit(s)).collect();
        // A place in the last group without a query takes nothing.
        limits.resize(self.query_count.next_multiple_of(GROUP), -1.0);
        let ValueFilter { dim, queries, panels, row_count, .. } = self;
        let (dim, row_count, limits) = (*dim, *row_count, &limits);
        let tile = ValueTile { dim, queries, panels, row_count, limits, found };
        super::dispatch!(self.kernel, portable::filter_values(tile), lanes => lanes.vectorize(tile));
    }
}

#[cfg(target_arch = "x86_64")]
impl Job for ValueTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self, lanes: L) {
        for group in 0..self.limits.len() / GROUP {
            // Several panels where registers hold their sums: more additions that need not wait for
            // each other.
            let rest =
                if L::WIDE_BLOCK { panels_at_once::<L, 4>(lanes, &mut self, group, 0) } else { 0 };
            panels_at_once::<L, 1>(lanes, &mut self, group, rest);
        }
    }
}

/// One group of queries for the panels from `first` on, P at a time; the first panel that is left.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn panels_at_once<L: Lanes, const P: usize>(
    lanes: L,
    tile: &mut ValueTile<'_>,
    group: usize,
    first: usize,
) -> usize {
    let dim = tile.dim;
    let queries = &tile.queries[group * dim..][..dim];
    let limits: [f32; GROUP] =
        *tile.limits[group * GROUP..].first_chunk().expect("one limit per place");
    let panels = tile.panels[first * dim..].chunks_exact(P * dim);
    let rest = panels.remainder().len() / dim;
    for (i, panels) in panels.enumerate() {
        let mut sums = [[lanes.zero(); GROUP]; P];
        for (c, query) in queries.iter().enumerate() {
            for (p, sums) in sums.iter_mut().enumerate() {
                let column = lanes.load(&panels[p * dim + c].0);
                for (sum, &value) in sums.iter_mut().zip(query) {
                    *sum = lanes.add_square(*sum, column, lanes.splat(value));
                }
            }
        }
        // Mostly none is near; that is seen for all at once.
        let mut least = sums[0];
        for sums in &sums[1..] {
            for (least, &sum) in least.iter_mut().zip(sums) {
                *least = lanes.min(*least, sum);
            }
        }
        if !lanes.any_at_most(&least, &limits) {
            continue;
        }
        for (p, sums) in sums.iter().enumerate() {
            if lanes.any_at_most(sums, &limits) {
                for (q, (&sum, &limit)) in sums.iter().zip(&limits).enumerate() {
                    let near = lanes.at_most(sum, lanes.splat(limit));
                    let (query, panel) = (group * GROUP + q, first + i * P + p);
                    push_lanes(near, query, panel, tile.row_count, tile.found);
                }
            }
        }
    }
    tile.panels.len() / dim - rest
}

#[cfg(test)]
mod tests {
    use super::super::scalar::sum;
    use super::super::tests::Random;
    use super::*;

    /// All that is near is found, whatever the scale, and hardly anything else.
    #[test]
    fn finds_every_near_pair_and_few_others() {
        let mut random = Random(51);
        for kernel in Kernel::available() {
            for dim in [1, 2, 3, 9, 16, 17, 40, 300] {
                for scale in [1.0, 1e15, 1e-19, 1e-22, 1e-30] {
                    for (a, b) in [(1, 1), (4, 16), (5, 15), (7, 17), (13, 130)] {
                        let queries = random.uniform(a * dim, scale);
                        let rows = random.uniform(b * dim, scale);
                        let of = |q: usize, r: usize| {
                            sum(&queries[q * dim..][..dim], &rows[r * dim..][..dim])
                        };
                        // A row's own sum: the case where a rounding decides. None is near the last
                        // query.
                        let mut limits: Vec<f32> = (0..a).map(|q| of(q, q * 7 % b)).collect();
                        if a > 1 {
                            limits[a - 1] = f32::NEG_INFINITY;
                        }
                        let mut filter = ValueFilter::new(kernel, Slack::new(dim), &queries, dim);
                        filter.load(&rows.chunks_exact(dim).collect::<Vec<_>>());
                        let mut found = Vec::new();
                        filter.near(&limits, &mut found);
                        let mut wrong = 0;
                        for (q, &limit) in limits.iter().enumerate() {
                            for r in 0..b {
                                let pair = Pair { query: q as u32, row: r as u32 };
                                let (has, sum) = (found.contains(&pair), of(q, r));
                                assert!(has || sum > limit, "{:?} {dim} {scale:e}", kernel.isa());
                                wrong += usize::from(has && sum > limit * 1.001 + 1e-40);
                            }
                        }
                        assert_eq!(wrong, 0, "{:?} {dim} {scale:e}", kernel.isa());
                    }
                }
            }
        }
    }

    #[test]
    fn limits_without_bound_take_all() {
        let (queries, rows) = ([0.0, 1.0], [0.0, 0.25, 2.0]);
        let mut filter = ValueFilter::new(Kernel::best(), Slack::new(1), &queries, 1);
        filter.load(&[&rows[..1], &rows[1..2], &rows[2..]]);
        let mut found = Vec::new();
        filter.near(&[f32::INFINITY, 0.0], &mut found);
        let all: Vec<Pair> = (0..3).map(|row| Pair { query: 0, row }).collect();
        assert_eq!(found, all);
    }
}
