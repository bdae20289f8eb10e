//! Distances: the canonical sum, the kernels that compute it fast, and what rounding does to bounds
//! on it.
//!
//! Depends on nothing but slices: it knows of no tree, no file and no thread. Euclidean only;
//! whatever reduces to it (chords of normalised rows) is reduced by the caller.
//!
//! Invariants: M1 to M4 in `scalar.rs` define the sum; every method of [`Kernel`] returns those
//! bits on every instruction set, for all finite rows whose components are at most
//! [`domain_limit`]. L1 to L3 (`lanes.rs`) and X1 to X3 (`x86_64/mod.rs`) say why the vector code
//! is sound, B1 to B4 (`bounds.rs`) why pruning is exact, V1 and V2 (`level.rs`) what a level is.

mod bounds;
mod domain;
mod filter;
mod grid;
#[cfg(target_arch = "x86_64")]
mod kernel;
#[cfg(target_arch = "x86_64")]
mod lanes;
mod level;
mod near;
mod nearest;
mod panels;
mod portable;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod sieve;
mod sorted;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod tile;
mod values;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub(crate) use bounds::Slack;
pub(crate) use domain::{check_points, domain_limit};
pub(crate) use filter::{Filter, Pair};
pub(crate) use grid::{Grid, OCTET};
pub(crate) use level::Level;
pub(crate) use near::Near;
pub(crate) use scalar::distance;
#[cfg(test)]
use scalar::sum as scalar_sum;
pub(crate) use sorted::{MAX_SORTED, PLACES, is_undecided, sorted_list};
pub(crate) use values::ValueFilter;

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use lanes::Lanes;

/// Components between two tests of a sum that may stop early: rare enough to cost little, and a
/// whole number of turns of the lanes, so that each stretch starts at lane 0.
const STRIDE: usize = 8 * scalar::LANES;

/// Rows from this dimension on are compared one by one, so that most need not be summed up to the
/// end.
const EARLY_EXIT_DIM: usize = 256;

/// Most dimensions for which boxes are kept: beyond, they bound little and weigh much.
pub(crate) const MAX_BOX_DIM: usize = 8;

/// Boxes that lie side by side, one to a lane.
pub(crate) const BOX_GROUP: usize = scalar::LANES;

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isa {
    /// What the build's target guarantees.
    Portable,
    /// 256-bit x86 vectors.
    Avx2,
    /// 512-bit x86 vectors: AVX-512F and VNNI, and POPCNT.
    Avx512,
}

/// The kernels of one instruction set that this processor has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel {
    chosen: Chosen,
}

/// The tokens are the proof that the processor has the instructions (L1).
#[derive(Clone, Copy, Debug)]
enum Chosen {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(x86_64::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(x86_64::Avx512),
}

/// Evaluates one expression for plain Rust, and another with the token of a vector instruction set.
macro_rules! dispatch {
    ($kernel:expr, $portable:expr, $lanes:ident => $vector:expr) => {
        match $kernel.chosen {
            $crate::space::Chosen::Portable => $portable,
            #[cfg(target_arch = "x86_64")]
            $crate::space::Chosen::Avx2($lanes) => $vector,
            #[cfg(target_arch = "x86_64")]
            $crate::space::Chosen::Avx512($lanes) => $vector,
        }
    };
}
use dispatch;

impl Kernel {
    /// The widest instruction set of this processor. The standard library caches what it detects.
    pub(crate) fn best() -> Self {
        Self::available().last().expect("plain Rust is always there")
    }

    /// The kernels of one instruction set; `None` if this processor lacks it.
    pub(crate) fn with(isa: Isa) -> Option<Self> {
        let chosen = match isa {
            Isa::Portable => Chosen::Portable,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Chosen::Avx2(x86_64::Avx2::detect()?),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Chosen::Avx512(x86_64::Avx512::detect()?),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => return None,
        };
        Some(Self { chosen })
    }

    /// Every instruction set that this processor has, narrowest first.
    pub(crate) fn available() -> impl Iterator<Item = Self> {
        [Isa::Portable, Isa::Avx2, Isa::Avx512].into_iter().filter_map(Self::with)
    }

    #[cfg(test)]
    pub(crate) fn isa(self) -> Isa {
        match self.chosen {
            Chosen::Portable => Isa::Portable,
            #[cfg(target_arch = "x86_64")]
            Chosen::Avx2(_) => Isa::Avx2,
            #[cfg(target_arch = "x86_64")]
            Chosen::Avx512(_) => Isa::Avx512,
        }
    }

    /// The canonical sums of one query against many rows: `out[i]` = s(query, row i).
    ///
    /// `query`: `[dim]`. `rows`: row-major `[m x dim]`. `out`: `[m]`.
    ///
    /// # Panics
    ///
    /// If the lengths do not agree.
    pub(crate) fn sums(self, query: &[f32], rows: &[f32], out: &mut [f32]) {
        assert_eq!(query.len() * out.len(), rows.len(), "rows are [out x dim]");
        if out.is_empty() || query.is_empty() {
            return out.fill(0.0);
        }
        dispatch!(self, portable::tile(query, rows, query.len(), out), lanes => {
            kernel::sums(lanes, query, rows, out)
        });
    }

    /// The canonical sums of every query against every row: `out[i * b + j]` = s(query i, row j).
    ///
    /// `queries`: row-major `[a x dim]`. `rows`: row-major `[b x dim]`. `out`: row-major `[a x b]`.
    ///
    /// # Panics
    ///
    /// If the lengths do not agree, or `dim` is 0.
    pub(crate) fn tile(self, queries: &[f32], rows: &[f32], dim: usize, out: &mut [f32]) {
        assert!(dim > 0, "rows have components");
        assert_eq!(queries.len() % dim, 0, "queries are [a x dim]");
        assert_eq!(rows.len() % dim, 0, "rows are [b x dim]");
        assert_eq!((queries.len() / dim) * (rows.len() / dim), out.len(), "out is [a x b]");
        if out.is_empty() {
            return;
        }
        dispatch!(self, portable::tile(queries, rows, dim, out), lanes => {
            tile::tile(lanes, queries, rows, dim, out)
        });
    }

    /// Appends the rows whose canonical sum is at most `limit`, in order, with their distance.
    ///
    /// `query`: `[dim]`. `rows`: row-major `[m x dim]`, numbered from `first` on.
    ///
    /// # Panics
    ///
    /// If `dim` is 0.
    pub(crate) fn near(
        self,
        query: &[f32],
        rows: &[f32],
        limit: f32,
        first: u32,
        found: &mut Vec<Near>,
    ) {
        debug_assert!(rows.len().is_multiple_of(query.len()), "rows are [m x dim]");
        if query.len() >= EARLY_EXIT_DIM && limit < f32::INFINITY {
            for (number, row) in (first..).zip(rows.chunks_exact(query.len())) {
                let sum = self.within(query, row, limit);
                if sum <= limit {
                    found.push(Near::new(distance(sum), number));
                }
            }
            return;
        }
        dispatch!(self, self.sieve(query, rows, first, |_| limit, found), lanes => {
            sieve::rows(lanes, query, rows, first, sieve::AtMost(limit), found)
        });
    }

    /// Appends the centers whose ball may hold something within `t` of the query
    /// ([`Slack::sum_reach`]), in order, with the distance to the center.
    ///
    /// `query`: `[dim]`. `centers`: row-major `[m x dim]`, numbered from `first` on. `radii`:
    /// `[m]`.
    ///
    /// # Panics
    ///
    /// If the lengths do not agree, or `dim` is 0.
    #[expect(clippy::too_many_arguments, reason = "one kernel, one call")]
    pub(crate) fn near_balls(
        self,
        query: &[f32],
        centers: &[f32],
        radii: &[f32],
        slack: Slack,
        t: f32,
        first: u32,
        found: &mut Vec<Near>,
    ) {
        assert_eq!(query.len() * radii.len(), centers.len(), "centers are [radii x dim]");
        let limit = |i: usize| slack.sum_reach(radii[i], t);
        dispatch!(self, self.sieve(query, centers, first, limit, found), lanes => {
            let (reach, factor, more) = slack.reach_terms(t);
            let balls = sieve::Balls { radii, reach, factor, more };
            sieve::rows(lanes, query, centers, first, balls, found)
        });
    }

    /// [`Kernel::near`] by way of [`Kernel::sums`], for processors without a vector kernel.
    fn sieve(
        self,
        query: &[f32],
        rows: &[f32],
        first: u32,
        limit: impl Fn(usize) -> f32,
        found: &mut Vec<Near>,
    ) {
        const TOGETHER: usize = 64;
        let mut sums = [0.0; TOGETHER];
        for (i, rows) in rows.chunks(TOGETHER * query.len()).enumerate() {
            let sums = &mut sums[..rows.len() / query.len()];
            self.sums(query, rows, sums);
            for (j, &sum) in sums.iter().enumerate() {
                let index = i * TOGETHER + j;
                if sum <= limit(index) {
                    found.push(Near::new(distance(sum), first + index as u32));
                }
            }
        }
    }

    /// The nearest of some rows, the first of them if several are: its place, and the canonical
    /// sum. (0, infinity) if there is none.
    ///
    /// `query`: `[dim]`. `rows`: row-major `[m x dim]`.
    ///
    /// # Panics
    ///
    /// If `dim` is 0.
    pub(crate) fn nearest(self, query: &[f32], rows: &[f32]) -> (usize, f32) {
        debug_assert!(rows.len().is_multiple_of(query.len()), "rows are [m x dim]");
        dispatch!(self, portable::nearest(query, rows), lanes => {
            nearest::nearest(lanes, query, rows)
        })
    }

    /// Appends the boxes wanted whose gap to the query has a filter sum (B3) of at most `limit`, in
    /// order, with that sum.
    ///
    /// `query`: `[dim]`, at most [`MAX_BOX_DIM`]. `groups`: `[m][2 x dim][BOX_GROUP]`, first the
    /// lower bounds of the boxes of a group, then the upper ones. They are numbered from `first`
    /// on.
    ///
    /// # Panics
    ///
    /// If the dimension is out of range.
    pub(crate) fn near_boxes(
        self,
        query: &[f32],
        groups: &[f32],
        first: u32,
        wanted: Range<u32>,
        limit: f32,
        found: &mut Vec<Near>,
    ) {
        assert!((1..=MAX_BOX_DIM).contains(&query.len()), "no boxes of this dimension");
        debug_assert!(groups.len().is_multiple_of(2 * BOX_GROUP * query.len()), "whole groups");
        dispatch!(self, portable::boxes(query, groups, first, wanted, limit, found), lanes => {
            sieve::boxes(lanes, query, groups, first, wanted, limit, found)
        });
    }

    /// Puts what has been found into a list of the `k` nearest, one after the other, until it is
    /// undecided which the k-th is ([`is_undecided`]) or all have been put in. Returns how many
    /// have. Those that stay out are behind the k nearest.
    ///
    /// `list`: as [`sorted_list`] makes it, ascending, and not undecided.
    ///
    /// # Panics
    ///
    /// If there is no room behind the k-th.
    #[inline]
    pub(crate) fn insert_sorted(
        self,
        list: &mut [[Near; PLACES]],
        k: usize,
        found: &[Near],
    ) -> usize {
        assert!(0 < k && k < list.len() * PLACES, "there is room behind the k-th");
        debug_assert!(!is_undecided(list.as_flattened(), k), "the caller decides");
        let work = sorted::Insert { list, k, found };
        dispatch!(self, work.portable(), lanes => lanes.vectorize(work))
    }

    /// Keeps for each row the least sum so far and the number of the query that has it, on a tie
    /// the smaller number.
    ///
    /// `sums`: `[m]`, of the query `number` and every row. `least`, `numbers`: `[m]`.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub(crate) fn keep_nearest(
        self,
        sums: &[f32],
        number: u32,
        least: &mut [f32],
        numbers: &mut [u32],
    ) {
        assert!(sums.len() == least.len() && sums.len() == numbers.len(), "one of each per row");
        let work = nearest::Keep { sums, number, least, numbers };
        dispatch!(self, work.portable(), lanes => lanes.vectorize(work));
    }

    /// The canonical sum of one pair of rows.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub(crate) fn sum(self, a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len(), "rows of one sum have one length");
        if a.len() <= scalar::SHORT {
            return scalar::short_sum(a, b);
        }
        dispatch!(self, portable::sum(a, b), lanes => lanes.vectorize(kernel::Sum { a, b }))
    }

    /// The canonical sum of a pair of long rows if it is at most `limit`; if not, the sum or
    /// infinity.
    fn within(self, a: &[f32], b: &[f32], limit: f32) -> f32 {
        dispatch!(self, portable::within(a, b, limit), lanes => {
            lanes.vectorize(kernel::Within { a, b, limit })
        })
    }

    /// For each of the pairs its canonical sum, if that is at most the query's limit; if not, the
    /// sum or infinity: in long rows it is often not summed up to the end.
    ///
    /// `queries`: row-major `[a x dim]`. `rows`: each `[dim]`. `limits`: one per query.
    ///
    /// # Panics
    ///
    /// If a pair is of other queries or rows.
    pub(crate) fn pair_sums(
        self,
        queries: &[f32],
        rows: &[&[f32]],
        limits: &[f32],
        pairs: &[Pair],
        out: &mut Vec<f32>,
    ) {
        let dim = queries.len() / limits.len().max(1);
        let work = filter::PairSums { queries, rows, dim, limits, pairs, out };
        dispatch!(self, work.portable(), lanes => lanes.vectorize(work));
    }
}
