//! Which rows the metric can take: whole, finite, and so small that no sum of squares overflows.

use rayon::prelude::*;

use crate::values::error::PointsError;
use crate::values::options::MAX_DIM;

/// The largest f32 that is at most 2^62 / sqrt(dim): the largest magnitude of a component that the
/// metric accepts.
///
/// # Panics
///
/// If `dim` is 0 or above [`MAX_DIM`].
pub(crate) fn domain_limit(dim: usize) -> f32 {
    assert!((1..=MAX_DIM).contains(&dim), "1 to {MAX_DIM} dimensions");
    // x <= 2^62 / sqrt(dim) iff x^2 dim <= 2^124, in whole numbers: an f32 this large is one.
    let fits = |x: f32| (x as u128).pow(2) * dim as u128 <= 1 << 124;
    let near = (2.0_f64.powi(62) / (dim as f64).sqrt()) as f32;
    [near.next_up(), near].into_iter().find(|&x| fits(x)).unwrap_or_else(|| near.next_down())
}

/// Values checked together.
const PIECE: usize = 1 << 13;

/// Checks that `points` are whole rows of `dim` values that the metric can take. Returns the number
/// of rows.
pub(crate) fn check_points(points: &[f32], dim: usize) -> Result<usize, PointsError> {
    if !points.len().is_multiple_of(dim) {
        return Err(PointsError::Ragged { values: points.len(), dim });
    }
    let limit = domain_limit(dim);
    // NaN is outside, too.
    let is_inside = |x: &f32| x.abs() <= limit;
    // Whole pieces without a branch, so that the compiler makes it vectors.
    let has_outside = |piece: &[f32]| !piece.iter().fold(true, |all, x| all & is_inside(x));
    // Only the store's own pool is used: elsewhere the calling thread does it.
    let pooled = rayon::current_thread_index().is_some();
    let first = match pooled {
        true => points.par_chunks(PIECE).position_first(has_outside),
        false => points.chunks(PIECE).position(has_outside),
    };
    let piece_start = first.map_or(points.len(), |piece| piece * PIECE);
    if let Some(place) = points[piece_start..].iter().position(|x| !is_inside(x)) {
        let at = piece_start + place;
        let (row, column, value) = (at / dim, at % dim, points[at]);
        return Err(match value.is_finite() {
            true => PointsError::OutOfDomain { row, column, value, limit },
            false => PointsError::NotFinite { row, column, value },
        });
    }
    Ok(points.len() / dim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domain_limit_is_the_largest() {
        assert_eq!(domain_limit(1), 2.0_f32.powi(62));
        assert_eq!(domain_limit(4), 2.0_f32.powi(61));
        assert_eq!(domain_limit(MAX_DIM), 2.0_f32.powi(54));
        for dim in (1..=MAX_DIM).step_by(37) {
            let limit = domain_limit(dim);
            let fits = |x: f32| (x as u128).pow(2) * dim as u128 <= 1 << 124;
            assert!(fits(limit) && !fits(limit.next_up()), "dimension {dim}");
        }
    }

    #[test]
    fn points_are_refused_with_row_and_column() {
        assert_eq!(check_points(&[1.0, 2.0, 3.0, 4.0], 2), Ok(2));
        assert_eq!(check_points(&[1.0; 5], 2), Err(PointsError::Ragged { values: 5, dim: 2 }));
        assert!(matches!(
            check_points(&[0.0, 1.0, 2.0, f32::NAN], 2),
            Err(PointsError::NotFinite { row: 1, column: 1, .. })
        ));
        assert!(matches!(
            check_points(&[0.0, 1.0, f32::NEG_INFINITY, 0.0], 2),
            Err(PointsError::NotFinite { row: 1, column: 0, .. })
        ));
        let limit = domain_limit(2);
        assert_eq!(check_points(&[limit, -limit], 2), Ok(1));
        assert!(matches!(
            check_points(&[0.0, limit.next_up()], 2),
            Err(PointsError::OutOfDomain { row: 0, column: 1, .. })
        ));
    }
}
