//! Reading points that may not fit into memory: checked, named, and put aside in a temporary file.

use super::{Resources, Spooled};
use crate::external::spill::{Chains, Key, Sorter};
use crate::insert::batch::{NextId, move_beyond};
use crate::space::check_points;
use crate::tree::columns::Tree;
use crate::tree::id_index;
use crate::values::error::{InsertError, PointsError};
use crate::values::ids::PointId;
use crate::values::source::PointSource;

/// Reads all of a source. Its ids are distinct and not live in `tree`; without ids they go on from
/// `next`, which moves beyond every id used.
pub(crate) fn read(
    tree: &Tree,
    means: &Resources<'_>,
    source: &mut dyn PointSource,
    next: &mut NextId,
) -> Result<Spooled, InsertError> {
    if source.dim() != tree.dim {
        let error = PointsError::Dimension { expected: tree.dim, found: source.dim() };
        return Err(error.into());
    }
    let expected = source.remaining().unwrap_or(0);
    let budget = means.budget(tree.dim, tree.slots() as u64 + expected)?;
    let mut chains = Chains::new(means.folder, tree.dim, budget.spill)?;
    let chain = chains.add();
    let mut names = Sorter::new(means.folder, 0, budget.sort);
    let has_ids = source.has_ids();
    let mut after = *next;
    let (mut points, mut ids) = (Vec::new(), Vec::new());
    let mut rows = 0u64;
    loop {
        means.context.check()?;
        points.clear();
        ids.clear();
        let count =
            source.read(budget.chunk_rows, &mut points, &mut ids).map_err(InsertError::Source)?;
        if count == 0 && ids.is_empty() {
            break;
        }
        let checked = check_points(&points, tree.dim).map_err(|e| later(e, rows))?;
        assert_eq!(checked, count, "a source gives as many rows as it says");
        let limit = u32::MAX as u64 - 1;
        let needed = rows + count as u64;
        if needed > limit {
            return Err(InsertError::SlotsExhausted { needed, limit });
        }
        if has_ids {
            if ids.len() != count {
                return Err(count_all(source, rows as usize + ids.len(), needed as usize));
            }
            for (row, &id) in (rows as u32..).zip(&ids) {
                names.push(Key::wide_first(id, row), &[])?;
            }
            move_beyond(&mut after, &ids);
        } else {
            crate::insert::batch::automatic(count, &mut after, &mut ids)?;
        }
        for (&id, row) in ids.iter().zip(points.chunks_exact(tree.dim)) {
            chains.push(chain, id, row)?;
        }
        rows = needed;
        means.context.options.report("1/3 read", rows, expected.max(rows));
    }
    check_names(tree, means, names)?;
    *next = after;
    Ok(Spooled { chains, chain, points: rows })
}

/// The error for a source with more ids than points or the other way round, which is read to its
/// end.
fn count_all(source: &mut dyn PointSource, mut ids: usize, mut points: usize) -> InsertError {
    const ROWS: usize = 4096;
    let (mut some_points, mut some_ids) = (Vec::new(), Vec::new());
    loop {
        some_points.clear();
        some_ids.clear();
        match source.read(ROWS, &mut some_points, &mut some_ids) {
            Ok(0) if some_ids.is_empty() => return InsertError::IdCount { ids, points },
            Ok(count) => {
                points += count;
                ids += some_ids.len();
            }
            Err(e) => return InsertError::Source(e),
        }
    }
}

/// The same error for a row of a later piece.
fn later(e: PointsError, rows: u64) -> PointsError {
    let rows = rows as usize;
    match e {
        PointsError::NotFinite { row, column, value } => {
            PointsError::NotFinite { row: rows + row, column, value }
        }
        PointsError::OutOfDomain { row, column, value, limit } => {
            PointsError::OutOfDomain { row: rows + row, column, value, limit }
        }
        other => other,
    }
}

/// That ids are distinct and not live. The first row at fault is named.
fn check_names(tree: &Tree, means: &Resources<'_>, names: Sorter) -> Result<(), InsertError> {
    let mut sorted = names.finish()?;
    let mut last: Option<(PointId, u32)> = None;
    let mut twice: Option<(u32, u32, PointId)> = None;
    let mut live: Option<(u32, PointId)> = None;
    let mut seen = 0u64;
    while let Some((key, _)) = sorted.next()? {
        let (id, row) = key.as_wide_first();
        match last {
            Some((same, first)) if same == id => {
                let fault = (row, first, id);
                twice = Some(twice.map_or(fault, |other| other.min(fault)));
            }
            _ => {
                last = Some((id, row));
                if id_index::find_live(tree, id)?.is_some() {
                    live = Some(live.map_or((row, id), |other| other.min((row, id))));
                }
            }
        }
        seen += 1;
        if seen.is_multiple_of(1 << 16) {
            means.context.check()?;
        }
    }
    match (twice, live) {
        (Some((row, first, id)), _) => {
            Err(InsertError::DuplicateId { row: row as usize, first: first as usize, id })
        }
        (None, Some((row, id))) => Err(InsertError::AlreadyLive { row: row as usize, id }),
        (None, None) => Ok(()),
    }
}

/// Puts the live points of a tree aside as well.
pub(crate) fn append_live(
    tree: &Tree,
    means: &Resources<'_>,
    spooled: &mut Spooled,
) -> Result<(), InsertError> {
    /// Slots after which what was copied is checked, while it is still in memory.
    const CHECKED: u64 = 1 << 16;
    let total = tree.slots() as u64;
    for slot in 0..tree.slots() {
        if tree.is_live(slot)? {
            let slot = slot as u64;
            let (id, row) = (tree.ids.get(slot)?, tree.coordinates.row(slot)?);
            spooled.chains.push(spooled.chain, id, row)?;
            spooled.points += 1;
        }
        let slot = slot as u64;
        if slot.is_multiple_of(CHECKED) {
            tree.check_copied(slot.saturating_sub(CHECKED), CHECKED)?;
            means.context.check()?;
            means.context.options.report("1/3 read", slot, total);
        }
    }
    tree.check_copied(total.saturating_sub(CHECKED), CHECKED)?;
    Ok(())
}

/// The live points of a tree.
pub(crate) fn live(tree: &Tree, means: &Resources<'_>) -> Result<Spooled, InsertError> {
    let budget = means.budget(tree.dim, tree.slots() as u64)?;
    let mut chains = Chains::new(means.folder, tree.dim, budget.spill)?;
    let chain = chains.add();
    let mut spooled = Spooled { chains, chain, points: 0 };
    append_live(tree, means, &mut spooled)?;
    Ok(spooled)
}
