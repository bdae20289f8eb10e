//! Sixteen f32 lanes: what an instruction set must offer for the kernels to be written once.
//!
//! Not a general vector library: only the operations of the canonical sum, and the few shuffles
//! that run its halving tree for many rows at once.
//!
//! Invariants:
//!
//! - **L1 token**: a value of a type that implements [`Lanes`] exists only where its instructions
//!   can run, so every method is safe to call.
//! - **L2 bounds**: no method touches memory outside the slices it is given.
//! - **L3 same bits**: every method does the arithmetic its documentation says, each operation
//!   rounded on its own (M2) unless it says otherwise.

use super::near::Near;
use super::scalar::LANES;
use super::sorted::PLACES;

/// Work to be compiled for one instruction set. `run` must be `#[inline(always)]`, as must all it
/// calls that takes a [`Lanes`]: that is what carries the instruction set into the body.
pub(super) trait Job {
    type Output;
    fn run<L: Lanes>(self, lanes: L) -> Self::Output;
}

/// An instruction set that works on sixteen lanes at a time.
pub(super) trait Lanes: Copy {
    type Vector: Copy;

    /// Sixteen i32.
    type Ints: Copy;

    /// Eight entries of a sorted list.
    type Entries: Copy;

    /// Whether registers hold the sixteen accumulators of a block of four queries by four rows.
    const WIDE_BLOCK: bool;

    /// The greatest byte that [`Self::add_dot`] takes of a row: 127, or 255.
    const LAST_CELL: u8;

    /// Runs `job` in a function compiled for this instruction set.
    fn vectorize<J: Job>(self, job: J) -> J::Output;

    fn zero(self) -> Self::Vector;
    fn splat(self, x: f32) -> Self::Vector;
    fn load(self, from: &[f32; LANES]) -> Self::Vector;
    fn store(self, v: Self::Vector, to: &mut [f32; LANES]);

    /// At most sixteen values; the lanes past them are +0. Meant for short rows: see
    /// [`Self::load_tail`].
    ///
    /// # Panics
    ///
    /// If there are more than sixteen.
    fn load_part(self, from: &[f32]) -> Self::Vector;

    /// The last `count` < 16 values of a row of at least sixteen; the lanes past them are +0.
    ///
    /// Whole vectors are read and shifted, here and in [`Self::spread_square`], because loads under
    /// a mask cost a factor of three where rows come from memory rather than from cache (measured
    /// on Zen 5).
    ///
    /// # Panics
    ///
    /// If the row is shorter than sixteen.
    fn load_tail(self, row: &[f32], count: usize) -> Self::Vector;

    /// The squared differences of `16 / p` rows of `N` components and the query, each row in a
    /// group of p lanes, p the least power of two not below `N`; the lanes of a group past its row
    /// are +0.
    ///
    /// `block`: sixteen rows end to end, of which vector `i` < p takes the i-th `16 / p`. `query`:
    /// repeated in every group.
    ///
    /// # Panics
    ///
    /// If `block` is not exactly `[16 x N]`, or `i` is out of range.
    fn spread_square<const N: usize>(
        self,
        block: &[f32],
        i: usize,
        query: Self::Vector,
    ) -> Self::Vector;

    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// Sixteen rows of three components as their columns.
    fn three_columns(self, rows: &[f32; 3 * LANES]) -> [Self::Vector; 3];

    /// sum + g^2, where g is the gap between x and the interval from low to high, 0 inside it. The
    /// difference is rounded, the square rounded or not: not for canonical sums.
    fn add_gap(
        self,
        sum: Self::Vector,
        low: Self::Vector,
        x: Self::Vector,
        high: Self::Vector,
    ) -> Self::Vector;

    /// sum + (a - b)^2. The difference is rounded, the square not: not for canonical sums.
    fn add_square(self, sum: Self::Vector, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// The smaller of a and b, neither being a NaN.
    fn min(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// One bit for each lane in which a is at most b, lane 0 the lowest.
    fn at_most(self, a: Self::Vector, b: Self::Vector) -> u16;

    /// The root of each lane, rounded.
    fn sqrt(self, a: Self::Vector) -> Self::Vector;

    /// The least lane, none being a NaN.
    fn least(self, a: Self::Vector) -> f32;

    /// Appends the lanes whose bit is set, numbered from `first` on. Takes no branch that depends
    /// on which are.
    fn append(self, values: Self::Vector, first: u32, lanes: u16, found: &mut Vec<Near>);

    /// Whether in any lane a sum is at most its limit.
    fn any_at_most(self, sums: &[Self::Vector; 4], limits: &[f32; 4]) -> bool;

    /// (a - b)^2, difference and square rounded.
    fn square(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// One row in each argument: a and b, halved from 16 lanes to 8, side by side.
    fn fold8(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// Two rows of 8 lanes in each argument: all four, halved to 4 lanes, in order.
    fn fold4(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// Four rows of 4 lanes in each argument: the last two halvings of all sixteen, in order.
    fn fold2(self, rows: [Self::Vector; 4]) -> Self::Vector;

    /// Eight rows of 2 lanes in each argument: the last halving of all sixteen, in order.
    fn fold1(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// The whole halving tree of one row.
    fn total(self, v: Self::Vector) -> f32;

    fn load_near(self, from: &[Near; PLACES]) -> Self::Entries;
    fn store_near(self, entries: Self::Entries, to: &mut [Near; PLACES]);

    /// Puts `new` into its place among entries that ascend: those behind it move on by one, the
    /// last is dropped. If it belongs before the first, that place is taken by the last of those
    /// `before` instead, where there are any.
    fn insert(
        self,
        entries: Self::Entries,
        new: Near,
        before: Option<Self::Entries>,
    ) -> Self::Entries;

    fn load_ints(self, from: &[i32; LANES]) -> Self::Ints;
    fn store_ints(self, v: Self::Ints, to: &mut [i32; LANES]);

    /// In each lane, sum + the dot product of eight bytes of a row and of the query.
    ///
    /// `rows`: the first four bytes of sixteen rows, one in each lane, then their last four; from 0
    /// to [`Self::LAST_CELL`]. `query`: likewise, but less half of the number of such bytes, so
    /// that they have a sign.
    fn add_dot(self, sum: Self::Ints, rows: &[[i32; LANES]; 2], query: &[i32; 2]) -> Self::Ints;

    /// In each lane, sum + the sum of c (c - 2 shift) over the eight bytes c of a row, laid as
    /// above.
    ///
    /// `shift`: half of the number of bytes that there can be.
    fn add_moments(self, sum: Self::Ints, rows: &[[i32; LANES]; 2], shift: u8) -> Self::Ints;

    /// One bit for each lane in which a is above the limit, lane 0 the lowest.
    fn above(self, a: Self::Ints, limit: i32) -> u16;

    /// Whether [`Self::above`] has a bit for any of them.
    fn any_above(self, sums: &[Self::Ints; 4], limits: &[i32; 4]) -> bool;

    /// The four columns of sixteen rows of four i32, which are given as two u64, the first the
    /// lower half.
    fn columns(self, rows: &[&[u64; 2]; LANES]) -> [Self::Ints; 4];

    /// Two times eight values.
    fn load_halves(self, low: &[f32; 8], high: &[f32; 8]) -> Self::Vector;

    /// The cells of sixteen values: (value - origin) scale, to the nearest whole number from 0 to
    /// `last`, one in each byte, the first the lowest. Also sum + the squares of what they differ
    /// from the cell by, with roundings in any order.
    fn quantize(
        self,
        sum: Self::Vector,
        values: Self::Vector,
        origin: Self::Vector,
        scale: f32,
        last: f32,
    ) -> (Self::Vector, [u64; 2]);
}

/// Number of lanes a row of `dim` <= 16 components takes in [`Lanes::spread_square`].
pub(super) const fn group(dim: usize) -> usize {
    assert!(1 <= dim && dim <= LANES);
    dim.next_power_of_two()
}

/// Where the lanes of [`Lanes::spread_square`] come from, for rows of `N` components.
pub(super) struct Spread<const N: usize>;

impl<const N: usize> Spread<N> {
    /// Number of floats that one vector takes.
    pub(super) const STEP: usize = LANES / group(N) * N;

    /// Number of vectors that sixteen rows take.
    pub(super) const VECTORS: usize = group(N);

    /// For each lane, the place of its component among the floats of the vector; 0 for the lanes
    /// past a row.
    pub(super) const INDEX: [i32; LANES] = {
        let mut index = [0; LANES];
        let mut i = 0;
        while i < LANES {
            if i % group(N) < N {
                index[i] = (i / group(N) * N + i % group(N)) as i32;
            }
            i += 1;
        }
        index
    };

    /// All ones in the lanes that hold a component, zero in those past a row.
    pub(super) const KEEP: [i32; LANES] = {
        let mut keep = [0; LANES];
        let mut i = 0;
        while i < LANES {
            keep[i] = if i % group(N) < N { -1 } else { 0 };
            i += 1;
        }
        keep
    };

    /// [`Self::KEEP`] as one bit a lane.
    pub(super) const MASK: u16 = {
        let mut mask = 0;
        let mut i = 0;
        while i < LANES {
            mask |= ((Self::KEEP[i] & 1) as u16) << i;
            i += 1;
        }
        mask
    };
}
