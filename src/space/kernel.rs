//! The blocked kernels: canonical sums of one query against many rows, written once over [`Lanes`].
//! Those of many queries are in `tile.rs`.
//!
//! No unsafe and no instruction set here; `x86_64` supplies those. Nothing here decides anything by
//! a distance except [`Within`], which may stop early.
//!
//! Two shapes keep the canonical order (M1) while using every lane:
//!
//! - **across**: a row's sixteen lanes are a vector's sixteen lanes. Several rows go side by side,
//!   and their halving trees are run together, two rows to a vector after the first halving, four
//!   after the second, and so on.
//! - **down**: sixteen rows are transposed, a vector holds one component of all of them, and the
//!   halving tree is plain additions. It costs a transposition, so it pays where many queries meet
//!   the same rows.
//!
//! Where a count is no multiple of the block, the last block is moved back to overlap the one
//! before it: the same bits are written twice.

use super::STRIDE;
use super::lanes::{Job, Lanes, group};
use super::scalar::LANES;

/// A row, and its whole vectors.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    all: &'a [f32],
    whole: &'a [[f32; LANES]],
}

impl<'a> Row<'a> {
    #[inline(always)]
    fn new(all: &'a [f32]) -> Self {
        let (whole, _) = all.as_chunks();
        Self { all, whole }
    }

    /// Row `i` of row-major `rows`.
    #[inline(always)]
    fn of(rows: &'a [f32], dim: usize, i: usize) -> Self {
        Self::new(&rows[i * dim..][..dim])
    }

    /// Rows `i` to `i + 3`.
    #[inline(always)]
    pub(super) fn four_of(rows: &'a [f32], dim: usize, i: usize) -> [Self; 4] {
        let rows = &rows[i * dim..][..4 * dim];
        [
            Self::of(rows, dim, 0),
            Self::of(rows, dim, 1),
            Self::of(rows, dim, 2),
            Self::of(rows, dim, 3),
        ]
    }
}

/// Evaluates an expression with a dimension of 1 to 16 as the constant `$n`, so that each has its
/// own compiled body.
macro_rules! with_dim {
    ($dim:expr, $n:ident => $body:expr) => {
        with_dim!(@ $dim, $n => $body, 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16)
    };
    (@ $dim:expr, $n:ident => $body:expr, $($literal:literal)*) => {
        match $dim {
            $($literal => {
                const $n: usize = $literal;
                $body
            })*
            _ => unreachable!("the caller has checked that the dimension is at most 16"),
        }
    };
}

pub(super) use with_dim;

/// How the sums of sixteen rows come about.
pub(super) trait SixteenRows {
    /// What is made of the query once.
    type Prepared<V: Copy>;

    fn prepare<L: Lanes>(lanes: L, query: &[f32]) -> Self::Prepared<L::Vector>;

    /// The canonical sums of exactly sixteen rows.
    fn sixteen<L: Lanes>(
        lanes: L,
        query: &[f32],
        prepared: &Self::Prepared<L::Vector>,
        rows: &[f32],
    ) -> L::Vector;

    /// The same for fewer rows; the lanes past them hold anything.
    fn fewer<L: Lanes>(
        lanes: L,
        query: &[f32],
        prepared: &Self::Prepared<L::Vector>,
        rows: &[f32],
    ) -> L::Vector;
}

/// Rows of N <= 16 components.
pub(super) struct Narrow<const N: usize>;

impl<const N: usize> SixteenRows for Narrow<N> {
    type Prepared<V: Copy> = V;

    #[inline(always)]
    fn prepare<L: Lanes>(lanes: L, query: &[f32]) -> L::Vector {
        let mut repeated = [0.0; LANES];
        for lanes_of_row in repeated.chunks_exact_mut(const { group(N) }) {
            lanes_of_row[..N].copy_from_slice(query);
        }
        lanes.load(&repeated)
    }

    #[inline(always)]
    fn sixteen<L: Lanes>(lanes: L, query: &[f32], prepared: &L::Vector, rows: &[f32]) -> L::Vector {
        if N == 3
            && let (Some(rows), Some(query)) = (rows.first_chunk(), query.first_chunk())
        {
            return three(lanes, query, rows);
        }
        NarrowSums::<N>::sixteen(lanes, *prepared, rows)
    }

    #[inline(always)]
    fn fewer<L: Lanes>(lanes: L, query: &[f32], prepared: &L::Vector, rows: &[f32]) -> L::Vector {
        let mut padded = [[0.0; N]; LANES];
        let padded = padded.as_flattened_mut();
        padded[..rows.len()].copy_from_slice(rows);
        Self::sixteen(lanes, query, prepared, padded)
    }
}

/// Sixteen rows of three components, down. The halving tree adds the third term to the first, then
/// the second (M1).
#[inline(always)]
fn three<L: Lanes>(lanes: L, query: &[f32; 3], rows: &[f32; 3 * LANES]) -> L::Vector {
    let [x, y, z] = lanes.three_columns(rows);
    let x = lanes.square(lanes.splat(query[0]), x);
    let y = lanes.square(lanes.splat(query[1]), y);
    let z = lanes.square(lanes.splat(query[2]), z);
    lanes.add(lanes.add(x, z), y)
}

/// Rows of more than 16 components.
pub(super) struct Wide;

impl SixteenRows for Wide {
    type Prepared<V: Copy> = ();

    #[inline(always)]
    fn prepare<L: Lanes>(_: L, _: &[f32]) {}

    #[inline(always)]
    fn sixteen<L: Lanes>(lanes: L, query: &[f32], (): &(), rows: &[f32]) -> L::Vector {
        let mut begun = [lanes.zero(); 4];
        for (i, v) in begun.iter_mut().enumerate() {
            *v = four(lanes, Row::new(query), rows, query.len(), 4 * i);
        }
        lanes.fold2(begun)
    }

    #[inline(always)]
    fn fewer<L: Lanes>(lanes: L, query: &[f32], (): &(), rows: &[f32]) -> L::Vector {
        let mut sums = [0.0; LANES];
        let out = &mut sums[..rows.len() / query.len()];
        WideSums { query, rows, out }.run(lanes);
        lanes.load(&sums)
    }
}

/// `out[i]` = s(query, row i). The caller has checked that the lengths agree, and that nothing is
/// empty.
#[inline(always)]
pub(super) fn sums<L: Lanes>(lanes: L, query: &[f32], rows: &[f32], out: &mut [f32]) {
    match query.len() {
        1..=LANES => {
            with_dim!(query.len(), N => lanes.vectorize(NarrowSums::<N> { query, rows, out }))
        }
        _ => lanes.vectorize(WideSums { query, rows, out }),
    }
}

/// s of one pair.
pub(super) struct Sum<'a> {
    pub(super) a: &'a [f32],
    pub(super) b: &'a [f32],
}

impl Job for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> f32 {
        if self.a.len() < LANES {
            return short(lanes, self.a, self.b);
        }
        let [[total]] = block(lanes, [Row::new(self.a)], [Row::new(self.b)]);
        lanes.total(total)
    }
}

/// s of two rows of fewer than 16 components.
#[inline(always)]
pub(super) fn short<L: Lanes>(lanes: L, a: &[f32], b: &[f32]) -> f32 {
    lanes.total(lanes.square(lanes.load_part(a), lanes.load_part(b)))
}

/// [`within`], as a job of its own.
pub(super) struct Within<'a> {
    pub(super) a: &'a [f32],
    pub(super) b: &'a [f32],
    pub(super) limit: f32,
}

impl Job for Within<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> f32 {
        within(lanes, self.a, self.b, self.limit)
    }
}

/// s of one pair of at least 16 components if it is at most `bound`; else s, or infinity.
///
/// Every [`STRIDE`] components the lanes so far are put through the tree on the side. That partial
/// sum is never above s: all terms are >= +0 and rounding is monotone, so fl(x + y) >= fl(x) = x
/// whenever y >= 0; a lane total therefore never falls as terms are added, and by the same
/// monotonicity neither does any node of the tree when its inputs do not (M4). So partial > bound
/// implies s > bound, and the lanes themselves go on untouched: a sum that is returned has the
/// canonical bits.
#[inline(always)]
pub(super) fn within<L: Lanes>(lanes: L, a: &[f32], b: &[f32], bound: f32) -> f32 {
    let (a, b) = (Row::new(a), Row::new(b));
    let mut acc = lanes.zero();
    let strides = a.whole.chunks(STRIDE / LANES).zip(b.whole.chunks(STRIDE / LANES));
    for (i, (a, b)) in strides.enumerate() {
        if i > 0 && lanes.total(acc) > bound {
            return f32::INFINITY;
        }
        for (a, b) in a.iter().zip(b) {
            acc = lanes.add(acc, lanes.square(lanes.load(a), lanes.load(b)));
        }
    }
    let rest = a.all.len() % LANES;
    if rest > 0 {
        let (a, b) = (lanes.load_tail(a.all, rest), lanes.load_tail(b.all, rest));
        acc = lanes.add(acc, lanes.square(a, b));
    }
    lanes.total(acc)
}

/// The lanes, before the halving tree, of Q queries against R rows of one length, at least 16. Q *
/// R accumulators stay in registers.
#[inline(always)]
pub(super) fn block<L: Lanes, const Q: usize, const R: usize>(
    lanes: L,
    queries: [Row<'_>; Q],
    rows: [Row<'_>; R],
) -> [[L::Vector; R]; Q] {
    // Slices of one common length let the compiler drop the bounds checks in the loop.
    let count = queries[0].whole.len();
    let q = queries.map(|row| &row.whole[..count]);
    let r = rows.map(|row| &row.whole[..count]);
    let mut acc = [[lanes.zero(); R]; Q];
    for i in 0..count {
        let mut row = [lanes.zero(); R];
        for (row, r) in row.iter_mut().zip(&r) {
            *row = lanes.load(&r[i]);
        }
        for (acc, q) in acc.iter_mut().zip(&q) {
            let query = lanes.load(&q[i]);
            for (acc, &row) in acc.iter_mut().zip(&row) {
                *acc = lanes.add(*acc, lanes.square(query, row));
            }
        }
    }
    let rest = queries[0].all.len() % LANES;
    if rest > 0 {
        let mut row = [lanes.zero(); R];
        for (row, r) in row.iter_mut().zip(&rows) {
            *row = lanes.load_tail(r.all, rest);
        }
        for (acc, q) in acc.iter_mut().zip(&queries) {
            let query = lanes.load_tail(q.all, rest);
            for (acc, &row) in acc.iter_mut().zip(&row) {
                *acc = lanes.add(*acc, lanes.square(query, row));
            }
        }
    }
    acc
}

/// Four rows halved to four lanes each.
#[inline(always)]
pub(super) fn fold_four<L: Lanes>(lanes: L, [a, b, c, d]: [L::Vector; 4]) -> L::Vector {
    lanes.fold4(lanes.fold8(a, b), lanes.fold8(c, d))
}

/// The sums of four rows that [`fold_four`] has begun.
#[inline(always)]
fn finish_four<L: Lanes>(lanes: L, v: L::Vector) -> [f32; 4] {
    let mut out = [0.0; LANES];
    lanes.store(lanes.fold2([v; 4]), &mut out);
    [out[0], out[1], out[2], out[3]]
}

/// Stores the first `to.len()` <= 16 lanes.
#[inline(always)]
pub(super) fn store_part<L: Lanes>(lanes: L, v: L::Vector, to: &mut [f32]) {
    if let Ok(to) = to.try_into() {
        lanes.store(v, to);
    } else {
        let mut all = [0.0; LANES];
        lanes.store(v, &mut all);
        to.copy_from_slice(&all[..to.len()]);
    }
}

/// One query of N <= 16 components, across: `16 / group(N)` rows to a vector, sixteen rows to a
/// block.
struct NarrowSums<'a, const N: usize> {
    query: &'a [f32],
    rows: &'a [f32],
    out: &'a mut [f32],
}

impl<const N: usize> NarrowSums<'_, N> {
    /// The squared differences of vector `i` of a block.
    #[inline(always)]
    fn one<L: Lanes>(lanes: L, query: L::Vector, rows: &[f32], i: usize) -> L::Vector {
        lanes.spread_square::<N>(rows, i, query)
    }

    /// Four rows of at most 8 lanes, from vector `i` on, halved to 4.
    #[inline(always)]
    fn two<L: Lanes>(lanes: L, query: L::Vector, rows: &[f32], i: usize) -> L::Vector {
        let a = Self::one(lanes, query, rows, i);
        lanes.fold4(a, Self::one(lanes, query, rows, i + 1))
    }

    /// Four rows of at most 16 lanes, from vector `i` on, halved to 4.
    #[inline(always)]
    fn four<L: Lanes>(lanes: L, query: L::Vector, rows: &[f32], i: usize) -> L::Vector {
        let a = Self::one(lanes, query, rows, i);
        let b = Self::one(lanes, query, rows, i + 1);
        let c = Self::one(lanes, query, rows, i + 2);
        fold_four(lanes, [a, b, c, Self::one(lanes, query, rows, i + 3)])
    }

    /// The sums of sixteen rows.
    #[inline(always)]
    fn sixteen<L: Lanes>(lanes: L, query: L::Vector, rows: &[f32]) -> L::Vector {
        let rows = &rows[..LANES * N];
        let mut quarters = [lanes.zero(); 4];
        match const { group(N) } {
            1 => return Self::one(lanes, query, rows, 0),
            2 => {
                let first = Self::one(lanes, query, rows, 0);
                return lanes.fold1(first, Self::one(lanes, query, rows, 1));
            }
            4 => {
                for (i, quarter) in quarters.iter_mut().enumerate() {
                    *quarter = Self::one(lanes, query, rows, i);
                }
            }
            8 => {
                for (i, quarter) in quarters.iter_mut().enumerate() {
                    *quarter = Self::two(lanes, query, rows, 2 * i);
                }
            }
            _ => {
                for (i, quarter) in quarters.iter_mut().enumerate() {
                    *quarter = Self::four(lanes, query, rows, 4 * i);
                }
            }
        }
        lanes.fold2(quarters)
    }
}

impl<const N: usize> Job for NarrowSums<'_, N> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self { query, rows, out } = self;
        let prepared = Narrow::<N>::prepare(lanes, query);
        let count = out.len();
        if count < LANES {
            return store_part(lanes, Narrow::<N>::fewer(lanes, query, &prepared, rows), out);
        }
        let (blocks, rest) = out.as_chunks_mut::<LANES>();
        for (out, rows) in blocks.iter_mut().zip(rows.chunks_exact(LANES * N)) {
            lanes.store(Narrow::<N>::sixteen(lanes, query, &prepared, rows), out);
        }
        if !rest.is_empty() {
            let last = &rows[(count - LANES) * N..];
            let v = Narrow::<N>::sixteen(lanes, query, &prepared, last);
            store_part(lanes, v, &mut out[count - LANES..]);
        }
    }
}

/// One query of more than 16 components, across: four rows at a time, trees of sixteen rows
/// together.
struct WideSums<'a> {
    query: &'a [f32],
    rows: &'a [f32],
    out: &'a mut [f32],
}

/// Rows `i` to `i + 3` against one query, halved to four lanes each.
#[inline(always)]
fn four<L: Lanes>(lanes: L, query: Row<'_>, rows: &[f32], dim: usize, i: usize) -> L::Vector {
    let [lanes_of_rows] = block(lanes, [query], Row::four_of(rows, dim, i));
    fold_four(lanes, lanes_of_rows)
}

impl Job for WideSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self { query, rows, out } = self;
        let dim = query.len();
        let query = Row::new(query);
        let count = out.len();
        let (blocks, rest) = out.as_chunks_mut::<LANES>();
        let mut first = 0;
        for out in blocks {
            let sixteen = &rows[first * dim..][..LANES * dim];
            lanes.store(Wide::sixteen(lanes, query.all, &(), sixteen), out);
            first += LANES;
        }
        let (fours, rest) = rest.as_chunks_mut::<4>();
        for out in fours {
            *out = finish_four(lanes, four(lanes, query, rows, dim, first));
            first += 4;
        }
        if count >= 4 && !rest.is_empty() {
            let sums = finish_four(lanes, four(lanes, query, rows, dim, count - 4));
            out[count - 4..].copy_from_slice(&sums);
        } else {
            for (i, out) in rest.iter_mut().enumerate() {
                let [[v]] = block(lanes, [query], [Row::of(rows, dim, i)]);
                *out = lanes.total(v);
            }
        }
    }
}
