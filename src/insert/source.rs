//! The points that a stage works on: rows of the batch, and rows already in the tree that are
//! moved.

use super::batch::Batch;
use crate::arena::cast::prefetch;
use crate::values::ids::PointId;

/// Rows read from the tree because their node changes.
#[derive(Default)]
pub(crate) struct Moved {
    /// Row-major.
    pub(crate) rows: Vec<f32>,
    pub(crate) ids: Vec<PointId>,
}

/// A point of a [`Source`]: first the batch's rows, then the moved ones.
pub(crate) type Point = u32;

/// Batch and moved rows under one numbering.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) dim: usize,
    pub(crate) seed: u64,
    pub(crate) batch: &'a Batch<'a>,
    pub(crate) moved: &'a Moved,
}

impl<'a> Source<'a> {
    /// Number of points.
    pub(crate) fn len(&self) -> usize {
        self.batch.ids.len() + self.moved.ids.len()
    }

    /// The coordinates of a point.
    #[inline]
    pub(crate) fn row(&self, point: Point) -> &'a [f32] {
        let point = point as usize;
        let batch = self.batch.ids.len();
        let (rows, at): (&'a [f32], usize) = match point < batch {
            true => (self.batch.points, point),
            false => (&self.moved.rows, point - batch),
        };
        &rows[at * self.dim..(at + 1) * self.dim]
    }

    /// The id of a point.
    #[inline]
    pub(crate) fn id(&self, point: Point) -> PointId {
        let point = point as usize;
        let batch = self.batch.ids.len();
        match point < batch {
            true => self.batch.ids[point],
            false => self.moved.ids[point - batch],
        }
    }

    /// The point's place in the order in which centers are chosen.
    #[inline]
    pub(crate) fn priority(&self, point: Point) -> u64 {
        Self::priority_of(self.id(point), self.seed)
    }

    /// The place of an id in that order: a seeded permutation of the ids (SplitMix64's finaliser,
    /// Steele, Lea & Flood, OOPSLA 2014), so that it depends neither on arrival nor on threads.
    #[inline]
    pub(crate) fn priority_of(id: PointId, seed: u64) -> u64 {
        let mut z = id.wrapping_add(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// The ids of as many of `points` as there is room for.
    pub(crate) fn copy_ids(&self, points: &[Point], out: &mut [PointId]) {
        let mut ahead = points.iter().skip(AHEAD);
        for (id, &point) in out.iter_mut().zip(points) {
            if let Some(id) = ahead.next().and_then(|&point| self.batch.ids.get(point as usize)) {
                prefetch(std::slice::from_ref(id));
            }
            *id = self.id(point);
        }
    }

    /// Copies the rows of `points` side by side.
    pub(crate) fn gather(
        &self,
        points: impl ExactSizeIterator<Item = Point> + Clone,
        out: &mut Vec<f32>,
    ) {
        out.clear();
        out.resize(points.len() * self.dim, 0.0);
        self.copy_rows(points, out);
    }

    /// The same into a slice, `[points x dim]`.
    pub(crate) fn copy_rows(&self, points: impl Iterator<Item = Point> + Clone, out: &mut [f32]) {
        match (self.dim, self.moved.ids.is_empty()) {
            (2, true) => copy_rows_of::<2>(self.batch.points, points, out),
            (3, true) => copy_rows_of::<3>(self.batch.points, points, out),
            (16, true) => copy_rows_of::<16>(self.batch.points, points, out),
            _ => {
                let mut ahead = points.clone().skip(AHEAD);
                for (row, point) in out.chunks_exact_mut(self.dim).zip(points) {
                    if let Some(point) = ahead.next() {
                        prefetch(self.row(point));
                    }
                    row.copy_from_slice(self.row(point));
                }
            }
        }
    }
}

/// So many rows are on their way from memory at a time.
const AHEAD: usize = 16;

/// Rows of a length that the compiler knows are a few moves each, not a call.
fn copy_rows_of<const N: usize>(
    rows: &[f32],
    points: impl Iterator<Item = Point> + Clone,
    out: &mut [f32],
) {
    let ((rows, _), (out, _)) = (rows.as_chunks::<N>(), out.as_chunks_mut::<N>());
    let mut ahead = points.clone().skip(AHEAD);
    for (to, point) in out.iter_mut().zip(points) {
        if let Some(row) = ahead.next().and_then(|point| rows.get(point as usize)) {
            prefetch(row);
        }
        *to = rows[point as usize];
    }
}

/// Copies row `from` to where row `to` is.
#[inline(always)]
pub(crate) fn copy_row(rows: &mut [f32], dim: usize, from: usize, to: usize) {
    let rows = &mut rows[to * dim..(from + 1) * dim];
    let from = (from - to) * dim;
    match dim {
        2 => rows.copy_within(from..from + 2, 0),
        3 => rows.copy_within(from..from + 3, 0),
        16 => rows.copy_within(from..from + 16, 0),
        _ => rows.copy_within(from.., 0),
    }
}
