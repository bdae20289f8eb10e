//! The canonical sum in plain Rust, laid out so that a compiler can vectorise it for any processor.
//!
//! Not the definition (`scalar.rs` is) and not tuned: it serves processors for which there is no
//! ISA file. It keeps M1 and M2 by doing the same additions in the same order, sixteen at a time.

use std::ops::Range;

use super::filter::{ByteTile, GROUP, push_lanes};
use super::grid::OCTET;
use super::near::Near;
use super::scalar::{LANES, tree};
use super::{STRIDE, values};

/// `out[i * b + j]` = s(query i, row j), for b rows. The caller has checked that the lengths agree,
/// and dim > 0.
pub(super) fn tile(queries: &[f32], rows: &[f32], dim: usize, out: &mut [f32]) {
    /// Rows of a long dimension that are passed over all queries while they are in cache.
    const BLOCK: usize = 32;
    let row_count = rows.len() / dim;
    let block = if dim <= LANES { LANES } else { BLOCK };
    let mut panel = [[0.0; LANES]; LANES];
    for first in (0..row_count).step_by(block) {
        let end = (first + block).min(row_count);
        let rows = &rows[first * dim..end * dim];
        if dim <= LANES {
            transpose(rows, dim, &mut panel);
        }
        for (query, out) in queries.chunks_exact(dim).zip(out.chunks_exact_mut(row_count)) {
            let out = &mut out[first..end];
            if dim <= LANES {
                out.copy_from_slice(&down(query, &panel)[..out.len()]);
            } else {
                for (out, row) in out.iter_mut().zip(rows.chunks_exact(dim)) {
                    *out = sum(query, row);
                }
            }
        }
    }
}

/// `panel[c][i]` = component c of row i, for at most sixteen rows. Columns of missing rows keep
/// what they held.
fn transpose(rows: &[f32], dim: usize, panel: &mut [[f32; LANES]; LANES]) {
    for (i, row) in rows.chunks_exact(dim).enumerate() {
        for (column, x) in panel.iter_mut().zip(row) {
            column[i] = *x;
        }
    }
}

/// The sums of one query of at most sixteen components against the rows of a panel. Lanes without a
/// component are skipped (M3).
fn down(query: &[f32], panel: &[[f32; LANES]; LANES]) -> [f32; LANES] {
    let mut lanes = [[0.0_f32; LANES]; LANES];
    for ((lane, column), q) in lanes.iter_mut().zip(panel).zip(query) {
        for (term, x) in lane.iter_mut().zip(column) {
            let difference = q - x;
            *term = difference * difference;
        }
    }
    for half in [8, 4, 2, 1] {
        if half < query.len() {
            let (low, high) = lanes.split_at_mut(half);
            for (low, high) in low.iter_mut().zip(&high[..half.min(query.len() - half)]) {
                for (low, high) in low.iter_mut().zip(high) {
                    *low += high;
                }
            }
        }
    }
    lanes[0]
}

/// s of one pair.
pub(super) fn sum(a: &[f32], b: &[f32]) -> f32 {
    tree(accumulate([0.0; LANES], a, b))
}

/// s of one pair if it is at most `bound`; else s, or infinity. Why it may stop early: M4, as for
/// the vector kernels.
pub(super) fn within(a: &[f32], b: &[f32], bound: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let mut strides = a.chunks(STRIDE).zip(b.chunks(STRIDE)).peekable();
    while let Some((a, b)) = strides.next() {
        lanes = accumulate(lanes, a, b);
        if strides.peek().is_some() && tree(lanes) > bound {
            return f32::INFINITY;
        }
    }
    tree(lanes)
}

/// The place of the nearest row, the first of them if several are, and its sum; (0, infinity) if
/// there is none.
pub(super) fn nearest(query: &[f32], rows: &[f32]) -> (usize, f32) {
    let dim = query.len();
    let mut first = (0, f32::INFINITY);
    let mut sums = [0.0; LANES];
    for (i, rows) in rows.chunks(LANES * dim).enumerate() {
        let sums = &mut sums[..rows.len() / dim];
        tile(query, rows, dim, sums);
        for (j, &sum) in sums.iter().enumerate() {
            if sum < first.1 {
                first = (i * LANES + j, sum);
            }
        }
    }
    first
}

/// The boxes wanted whose gap to the query has a filter sum of at most `limit`, as
/// `Kernel::near_boxes` wants it.
pub(super) fn boxes(
    query: &[f32],
    groups: &[f32],
    first: u32,
    wanted: Range<u32>,
    limit: f32,
    found: &mut Vec<Near>,
) {
    let dim = query.len();
    for (first, group) in (first..).step_by(LANES).zip(groups.chunks_exact(2 * dim * LANES)) {
        let (bounds, _) = group.as_chunks::<LANES>();
        let (low, high) = bounds.split_at(dim);
        let mut sums = [0.0_f32; LANES];
        for ((&value, low), high) in query.iter().zip(low).zip(high) {
            for ((sum, low), high) in sums.iter_mut().zip(low).zip(high) {
                let gap = (low - value).max(value - high).max(0.0);
                *sum += gap * gap;
            }
        }
        let near =
            (first..).zip(&sums).filter(|(number, sum)| **sum <= limit && wanted.contains(number));
        found.extend(near.map(|(number, &sum)| Near::new(sum, number)));
    }
}

/// The cells of eight values, as [`Lanes::quantize`](super::lanes::Lanes::quantize) finds them, and
/// the sum.
pub(super) fn quantize(
    values: &[f32; OCTET],
    origin: &[f32; OCTET],
    scale: f32,
    last: f32,
) -> (u64, f32) {
    let (mut cells, mut residuals) = ([0; OCTET], 0.0);
    for ((to, value), origin) in cells.iter_mut().zip(values).zip(origin) {
        let place = (value - origin) * scale;
        let cell = place.clamp(0.0, last).round_ties_even();
        let residual = place - cell;
        residuals += residual * residual;
        *to = cell as u8;
    }
    (u64::from_le_bytes(cells), residuals)
}

/// A filter, one panel after the other.
pub(super) fn filter(tile: ByteTile<'_>) {
    let panels = tile.panels;
    for (group, queries) in tile.queries.chunks_exact(tile.octets_per_query).enumerate() {
        let rows = panels.cells.chunks_exact(panels.octets).zip(&panels.starts);
        for (p, (panel, start)) in rows.enumerate() {
            let mut sums = [*start; GROUP];
            for (query, rows) in queries.iter().zip(panel) {
                for (sums, query) in sums.iter_mut().zip(query) {
                    for (rows, query) in rows.0.iter().zip(query) {
                        for (sum, row) in sums.iter_mut().zip(rows) {
                            for (cell, query) in
                                row.to_le_bytes().into_iter().zip(query.to_le_bytes())
                            {
                                *sum += i32::from(cell) * i32::from(query as i8);
                            }
                        }
                    }
                }
            }
            for (q, sums) in sums.iter().enumerate() {
                let query = group * GROUP + q;
                let limit = tile.limits[query];
                let near = (0..LANES).filter(|&lane| sums[lane] > limit);
                let lanes = near.fold(0, |lanes, lane| lanes | 1 << lane);
                push_lanes(lanes, query, p, tile.row_count, tile.found);
            }
        }
    }
}

/// The same by the values themselves.
pub(super) fn filter_values(tile: values::ValueTile<'_>) {
    let dim = tile.dim;
    for (group, queries) in tile.queries.chunks_exact(dim).enumerate() {
        for (p, panel) in tile.panels.chunks_exact(dim).enumerate() {
            let mut sums = [[0.0_f32; LANES]; GROUP];
            for (query, column) in queries.iter().zip(panel) {
                for (sums, query) in sums.iter_mut().zip(query) {
                    for (sum, value) in sums.iter_mut().zip(&column.0) {
                        *sum += (value - query) * (value - query);
                    }
                }
            }
            for (q, sums) in sums.iter().enumerate() {
                let query = group * GROUP + q;
                let near = (0..LANES).filter(|&lane| sums[lane] <= tile.limits[query]);
                let lanes = near.fold(0, |lanes, lane| lanes | 1 << lane);
                push_lanes(lanes, query, p, tile.row_count, tile.found);
            }
        }
    }
}

/// Adds the terms of a and b, of one length, to the lanes, from lane 0.
#[inline(always)]
fn accumulate(mut lanes: [f32; LANES], a: &[f32], b: &[f32]) -> [f32; LANES] {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            let difference = a - b;
            *lane += difference * difference;
        }
    }
    for ((lane, a), b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
        let difference = a - b;
        *lane += difference * difference;
    }
    lanes
}
