//! One query against many rows or boxes, of which only the near ones are wanted.
//!
//! Sums of sixteen rows are compared while they are still in a register; mostly none is near, and
//! nothing is stored. Distances of rows are canonical. Boxes have filter sums (B3 of `bounds.rs`).

use std::marker::PhantomData;
use std::ops::Range;

use super::MAX_BOX_DIM;
use super::kernel::{Narrow, SixteenRows, Wide, with_dim};
use super::lanes::{Job, Lanes};
use super::near::Near;
use super::scalar::LANES;

/// Which sums are wanted.
pub(super) trait Threshold: Copy {
    /// The most that the sums of rows `first` to `first + 15` may be. Rows that do not exist may
    /// have any.
    fn of<L: Lanes>(self, lanes: L, first: usize) -> L::Vector;
}

/// The same for all.
#[derive(Clone, Copy)]
pub(super) struct AtMost(pub(super) f32);

impl Threshold for AtMost {
    #[inline(always)]
    fn of<L: Lanes>(self, lanes: L, _: usize) -> L::Vector {
        lanes.splat(self.0)
    }
}

/// What a ball around each row reaches: factor (radius + reach)^2 + more.
#[derive(Clone, Copy)]
pub(super) struct Balls<'a> {
    pub(super) radii: &'a [f32],
    pub(super) reach: f32,
    pub(super) factor: f32,
    pub(super) more: f32,
}

impl Threshold for Balls<'_> {
    #[inline(always)]
    fn of<L: Lanes>(self, lanes: L, first: usize) -> L::Vector {
        let radii = &self.radii[first..];
        let radii = match radii.first_chunk() {
            Some(radii) => lanes.load(radii),
            None => lanes.load_part(radii),
        };
        let reach = lanes.add(radii, lanes.splat(self.reach));
        let square = lanes.mul(lanes.mul(reach, reach), lanes.splat(self.factor));
        lanes.add(square, lanes.splat(self.more))
    }
}

/// Rows of one query's dimension, numbered from `first` on, and what is wanted of them.
struct Sieve<'a, S, T> {
    query: &'a [f32],
    rows: &'a [f32],
    first: u32,
    threshold: T,
    found: &'a mut Vec<Near>,
    sums: PhantomData<S>,
}

/// Appends the rows that are wanted, by distance. The caller has checked that rows are whole and of
/// the query's dimension, which is not 0.
#[inline(always)]
pub(super) fn rows<L: Lanes>(
    lanes: L,
    query: &[f32],
    rows: &[f32],
    first: u32,
    threshold: impl Threshold,
    found: &mut Vec<Near>,
) {
    match query.len() {
        1..=LANES => with_dim!(query.len(), N => {
            let sums = PhantomData::<Narrow<N>>;
            lanes.vectorize(Sieve { query, rows, first, threshold, found, sums })
        }),
        _ => {
            let sums = PhantomData::<Wide>;
            lanes.vectorize(Sieve { query, rows, first, threshold, found, sums })
        }
    }
}

impl<S: SixteenRows, T: Threshold> Job for Sieve<'_, S, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self { query, rows, first, threshold, found, .. } = self;
        let dim = query.len();
        let prepared = S::prepare(lanes, query);
        let blocks = rows.chunks_exact(LANES * dim);
        let rest = blocks.remainder();
        let mut at = 0;
        for block in blocks {
            let sums = S::sixteen(lanes, query, &prepared, block);
            let near = lanes.at_most(sums, threshold.of(lanes, at));
            if near != 0 {
                lanes.append(lanes.sqrt(sums), first + at as u32, near, found);
            }
            at += LANES;
        }
        if rest.is_empty() {
            return;
        }
        let count = rest.len() / dim;
        // The rows before them once more rather than none, where there are such.
        let (sums, wanted) = match (at + count).checked_sub(LANES) {
            Some(start) => {
                at = start;
                let sums = S::sixteen(lanes, query, &prepared, &rows[at * dim..]);
                (sums, u16::MAX << (LANES - count))
            }
            None => (S::fewer(lanes, query, &prepared, rest), (1 << count) - 1),
        };
        let near = lanes.at_most(sums, threshold.of(lanes, at)) & wanted;
        if near != 0 {
            lanes.append(lanes.sqrt(sums), first + at as u32, near, found);
        }
    }
}

/// Boxes in groups of sixteen: `[groups][2 x N][LANES]`, first all lower bounds, then all upper
/// ones.
struct Boxes<'a, const N: usize> {
    query: &'a [f32; N],
    groups: &'a [f32],
    first: u32,
    wanted: Range<u32>,
    limit: f32,
    found: &'a mut Vec<Near>,
}

/// Appends the boxes wanted whose gap to the query has a filter sum of at most `limit`. The caller
/// has checked the lengths.
#[inline(always)]
pub(super) fn boxes<L: Lanes>(
    lanes: L,
    query: &[f32],
    groups: &[f32],
    first: u32,
    wanted: Range<u32>,
    limit: f32,
    found: &mut Vec<Near>,
) {
    const { assert!(MAX_BOX_DIM <= LANES) };
    with_dim!(query.len(), N => {
        let query: &[f32; N] = query.try_into().expect("matched by its length");
        lanes.vectorize(Boxes { query, groups, first, wanted, limit, found })
    });
}

impl<const N: usize> Job for Boxes<'_, N> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self { query, groups, mut first, wanted, limit, found } = self;
        let limit = lanes.splat(limit);
        for group in groups.chunks_exact(2 * N * LANES) {
            let (bounds, _) = group.as_chunks::<LANES>();
            let (low, high) = bounds.split_at(N);
            let mut sums = lanes.zero();
            for ((&value, low), high) in query.iter().zip(low).zip(high) {
                let value = lanes.splat(value);
                sums = lanes.add_gap(sums, lanes.load(low), value, lanes.load(high));
            }
            let near = lanes.at_most(sums, limit) & lanes_of(first, &wanted);
            lanes.append(sums, first, near, found);
            first += LANES as u32;
        }
    }
}

/// One bit for each lane whose number is wanted, the lowest having the number `first`.
#[inline(always)]
pub(super) fn lanes_of(first: u32, wanted: &Range<u32>) -> u16 {
    let before = wanted.start.saturating_sub(first).min(LANES as u32);
    let until = wanted.end.saturating_sub(first).min(LANES as u32);
    (((1_u32 << until) - 1) & !((1_u32 << before) - 1)) as u16
}
