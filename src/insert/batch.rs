//! Checking a batch: rows that the metric can take, ids distinct and not live. A batch is refused
//! whole.

use std::collections::HashMap;

use rayon::prelude::*;

use crate::space::check_points;
use crate::tree::columns::Tree;
use crate::tree::id_index;
use crate::values::error::{InsertError, ReadError};
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
