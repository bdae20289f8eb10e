//! The blocked kernels of many queries against many rows: a tile of canonical sums.
//!
//! Across, a register block of queries and rows at a time; down, where rows are short, all queries
//! over rows that have been transposed (`kernel.rs` says what that means). Where a count is no
//! multiple of the block, the last block is moved back to overlap the one before it: the same bits
//! are written twice.

use super::kernel::{Row, block, fold_four, store_part, sums, with_dim};
use super::lanes::{Job, Lanes};
use super::scalar::LANES;

/// Bytes of rows that a tile going across passes all queries over: a share of a small L2 cache.
const ROW_BLOCK_BYTES: usize = 192 << 10;

/// `out[i * b + j]` = s(query i, row j), for b rows. The caller has checked that the lengths agree,
/// and that nothing is empty.
#[inline(always)]
pub(super) fn tile<L: Lanes>(lanes: L, queries: &[f32], rows: &[f32], dim: usize, out: &mut [f32]) {
    /// Fewer queries than this do not repay a transposition, and fewer queries or rows do not fill
    /// a register block.
    const FEW: usize = 4;
    let row_count = rows.len() / dim;
    if queries.len() / dim < FEW || row_count < FEW {
        for (query, out) in queries.chunks_exact(dim).zip(out.chunks_exact_mut(row_count)) {
            sums(lanes, query, rows, out);
        }
        return;
    }
    match dim {
        1..=LANES => {
            with_dim!(dim, N => lanes.vectorize(DownTile::<N> { queries, rows, dim, out }));
        }
        17..=20 => lanes.vectorize(DownTile::<20> { queries, rows, dim, out }),
        21..=24 => lanes.vectorize(DownTile::<24> { queries, rows, dim, out }),
        25..=28 => lanes.vectorize(DownTile::<28> { queries, rows, dim, out }),
        _ => lanes.vectorize(AcrossTile { queries, rows, dim, out }),
    }
}

/// Rows transposed by sixteens: panel p holds, for each component, that component of rows 16 p to
/// 16 p + 15. All queries of a tile pass over them before the next rows are brought in.
#[repr(align(64))]
struct ValuePanels([[f32; LANES]; ValuePanels::COLUMNS]);

impl ValuePanels {
    /// A few panels even of the longest rows, and still a small part of a first-level cache: 8 KiB.
    const COLUMNS: usize = 128;
}

/// Many queries of `dim` <= N components, down. Every lane of the canonical sum has one term or,
/// from 17 components on, two. Rows and queries are padded with zeros up to N (M3).
struct DownTile<'a, const N: usize> {
    queries: &'a [f32],
    rows: &'a [f32],
    dim: usize,
    out: &'a mut [f32],
}

impl<const N: usize> Job for DownTile<'_, N> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self { queries, rows, dim, out } = self;
        // Known to the compiler where nothing is padded.
        let dim = if N <= LANES { N } else { dim };
        let row_count = rows.len() / dim;
        let capacity = const { ValuePanels::COLUMNS / N * LANES };
        let mut panels = ValuePanels([[0.0; LANES]; ValuePanels::COLUMNS]);
        for (block, rows) in rows.chunks(capacity * dim).enumerate() {
            let (panels, _) = panels.0.as_chunks_mut::<N>();
            for (panel, rows) in panels.iter_mut().zip(rows.chunks(LANES * dim)) {
                transpose(rows, dim, panel);
            }
            let first = block * capacity;
            let end = first + rows.len() / dim;
            for (i, out) in out.chunks_exact_mut(row_count).enumerate() {
                let query = padded(&queries[i * dim..], dim);
                for (out, panel) in out[first..end].chunks_mut(LANES).zip(&*panels) {
                    store_part(lanes, down(lanes, &query, panel), out);
                }
            }
        }
    }
}

/// The first `dim` <= N values, then zeros.
#[inline(always)]
fn padded<const N: usize>(values: &[f32], dim: usize) -> [f32; N] {
    let mut query = [0.0; N];
    // A copy of a length that the compiler knows is a few moves, and the last query alone may lack
    // it.
    if let Some(more) = values.first_chunk() {
        query = *more;
        query[dim..].fill(0.0);
    } else {
        query[..dim].copy_from_slice(&values[..dim]);
    }
    query
}

/// Up to sixteen rows into the first `dim` columns of a panel. What stands for missing rows is
/// left: it only reaches lanes that are not stored.
#[inline(always)]
fn transpose<const N: usize>(rows: &[f32], dim: usize, panel: &mut [[f32; LANES]; N]) {
    for (lane, row) in rows.chunks_exact(dim).enumerate() {
        for (column, x) in panel.iter_mut().zip(row) {
            column[lane] = *x;
        }
    }
}

/// The sums of one query against the sixteen rows of a panel: N terms, then the halving tree, from
/// which lanes past the N-th are left out (M3).
#[inline(always)]
fn down<L: Lanes, const N: usize>(
    lanes: L,
    query: &[f32; N],
    panel: &[[f32; LANES]; N],
) -> L::Vector {
    let mut v = [lanes.zero(); LANES];
    // Two short loops, because the compiler must unroll both for v to live in registers.
    for (v, (&query, column)) in v.iter_mut().zip(query.iter().zip(panel)) {
        *v = lanes.square(lanes.splat(query), lanes.load(column));
    }
    for (v, c) in v.iter_mut().zip(LANES..N) {
        *v = lanes.add(*v, lanes.square(lanes.splat(query[c]), lanes.load(&panel[c])));
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            if i + half < N {
                v[i] = lanes.add(v[i], v[i + half]);
            }
        }
    }
    v[0]
}

/// Four or more long queries against four or more rows, across: a register block of each at a time.
struct AcrossTile<'a> {
    queries: &'a [f32],
    rows: &'a [f32],
    dim: usize,
    out: &'a mut [f32],
}

impl Job for AcrossTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self { queries, rows, dim, out } = self;
        let row_count = rows.len() / dim;
        let query_count = queries.len() / dim;
        // A multiple of four, so that the overlapping last block of rows appears once.
        let step = (ROW_BLOCK_BYTES / 4 / dim / 4 * 4).max(4);
        for first in (0..row_count).step_by(step) {
            let end = (first + step).min(row_count);
            for q in (0..query_count).step_by(4) {
                let q = q.min(query_count - 4);
                for r in (first..end).step_by(4) {
                    across_block(lanes, queries, rows, dim, q, r.min(row_count - 4), out);
                }
            }
        }
    }
}

/// Four queries against four rows, into their sixteen places of `out`.
#[inline(always)]
fn across_block<L: Lanes>(
    lanes: L,
    queries: &[f32],
    rows: &[f32],
    dim: usize,
    q: usize,
    r: usize,
    out: &mut [f32],
) {
    let row_count = rows.len() / dim;
    let (q_cut, r_cut) = (Row::four_of(queries, dim, q), Row::four_of(rows, dim, r));
    let begun = if L::WIDE_BLOCK {
        let [a, b, c, d] = block(lanes, q_cut, r_cut);
        [fold_four(lanes, a), fold_four(lanes, b), fold_four(lanes, c), fold_four(lanes, d)]
    } else {
        // Two by two, four times: sixteen accumulators would not stay in registers.
        let [q0, q1, q2, q3] = q_cut;
        let [r0, r1, r2, r3] = r_cut;
        let mut begun = [lanes.zero(); 4];
        for (begun, q) in begun.chunks_exact_mut(2).zip([[q0, q1], [q2, q3]]) {
            let left = block(lanes, q, [r0, r1]);
            let right = block(lanes, q, [r2, r3]);
            for ((begun, left), right) in begun.iter_mut().zip(left).zip(right) {
                *begun = fold_four(lanes, [left[0], left[1], right[0], right[1]]);
            }
        }
        begun
    };
    let mut sums = [0.0; LANES];
    lanes.store(lanes.fold2(begun), &mut sums);
    for (k, sums) in sums.chunks_exact(4).enumerate() {
        out[(q + k) * row_count + r..][..4].copy_from_slice(sums);
    }
}
