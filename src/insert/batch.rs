//! Checking a batch: rows finite and inside the domain, ids distinct and not live. A batch is
//! refused whole.

use std::collections::HashMap;

use rayon::prelude::*;

use crate::space;
use crate::tree::columns::Tree;
use crate::tree::id_index;
use crate::values::error::{InsertError, PointsError, ReadError};
use crate::values::ids::PointId;

/// A checked batch.
pub(crate) struct Batch<'a> {
    /// Row-major `[n x dim]`.
    pub(crate) points: &'a [f32],
    /// One per row, distinct, none live.
    pub(crate) ids: Vec<PointId>,
}

/// The next automatic id; `None` after `u64::MAX` was used.
pub(crate) type NextId = Option<PointId>;

/// Values checked together.
const PIECE: usize = 1 << 13;

/// Checks that `points` are whole rows of `dim` values that the metric can take. Returns the number
/// of rows.
pub(crate) fn check_points(points: &[f32], dim: usize) -> Result<usize, PointsError> {
    if !points.len().is_multiple_of(dim) {
        return Err(PointsError::Ragged { values: points.len(), dim });
    }
    let limit = space::domain_limit(dim);
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

/// Checks a batch against a tree, and names its points: with `ids`, or automatically from `next`
/// on. `next` moves beyond every id used.
pub(crate) fn check<'a>(
    tree: &Tree,
    points: &'a [f32],
    ids: Option<&[PointId]>,
    next: &mut NextId,
) -> Result<Batch<'a>, InsertError> {
    let rows = check_points(points, tree.dim)?;
    let limit = u32::MAX as u64 - 1;
    let needed = tree.slots() as u64 + rows as u64;
    if needed > limit {
        return Err(InsertError::SlotsExhausted { needed, limit });
    }
    let ids = match ids {
        None => {
            let mut ids = Vec::new();
            automatic(rows, next, &mut ids)?;
            ids
        }
        Some(ids) => {
            if ids.len() != rows {
                return Err(InsertError::IdCount { ids: ids.len(), points: rows });
            }
            if let Some((first, row)) = first_duplicate(ids) {
                return Err(InsertError::DuplicateId { row, first, id: ids[row] });
            }
            let live: Result<Vec<bool>, ReadError> = ids
                .par_iter()
                .map(|&id| id_index::find_live(tree, id).map(|slot| slot.is_some()))
                .collect();
            if let Some(row) = live?.iter().position(|&live| live) {
                return Err(InsertError::AlreadyLive { row, id: ids[row] });
            }
            move_beyond(next, ids);
            ids.to_vec()
        }
    };
    Ok(Batch { points, ids })
}

/// Moves beyond ids that are used.
pub(crate) fn move_beyond(next: &mut NextId, ids: &[PointId]) {
    let last = ids.iter().max();
    *next =
        last.map_or(*next, |&last| next.and_then(|n| n.max(last).checked_add((n <= last) as u64)));
}

/// Appends the next automatic ids.
pub(crate) fn automatic(
    rows: usize,
    next: &mut NextId,
    ids: &mut Vec<PointId>,
) -> Result<(), InsertError> {
    if rows == 0 {
        return Ok(());
    }
    let first = next.ok_or(InsertError::IdsExhausted { last: PointId::MAX })?;
    let last = first
        .checked_add(rows as u64 - 1)
        .ok_or(InsertError::IdsExhausted { last: first.saturating_sub(1) })?;
    *next = last.checked_add(1);
    ids.extend(first..=last);
    Ok(())
}

/// The earliest position whose id stands at an earlier one too, with that earlier one first.
pub(crate) fn first_duplicate(ids: &[PointId]) -> Option<(usize, usize)> {
    if ids.windows(2).all(|pair| pair[0] < pair[1]) {
        return None;
    }
    let mut seen = HashMap::with_capacity(ids.len());
    ids.iter().enumerate().find_map(|(row, id)| seen.insert(*id, row).map(|first| (first, row)))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let limit = space::domain_limit(2);
        assert_eq!(check_points(&[limit, -limit], 2), Ok(1));
        assert!(matches!(
            check_points(&[0.0, limit.next_up()], 2),
            Err(PointsError::OutOfDomain { row: 0, column: 1, .. })
        ));
    }

    #[test]
    fn automatic_ids_end_at_the_largest() {
        let mut next = Some(u64::MAX - 1);
        let mut ids = Vec::new();
        automatic(2, &mut next, &mut ids).unwrap();
        assert_eq!(ids, [u64::MAX - 1, u64::MAX]);
        assert_eq!(next, None);
        let refused = automatic(1, &mut next, &mut ids);
        assert!(matches!(refused, Err(InsertError::IdsExhausted { .. })));
        automatic(0, &mut next, &mut ids).unwrap();
        let mut next = Some(u64::MAX - 1);
        assert!(automatic(3, &mut next, &mut ids).is_err());
        assert_eq!(ids.len(), 2);
    }

    #[test]
    fn duplicates_are_found_in_any_order() {
        assert_eq!(first_duplicate(&[1, 2, 3]), None);
        assert_eq!(first_duplicate(&[3, 1, 2]), None);
        assert_eq!(first_duplicate(&[3, 1, 3, 1]), Some((0, 2)));
        assert_eq!(first_duplicate(&[5, 5]), Some((0, 1)));
    }
}
