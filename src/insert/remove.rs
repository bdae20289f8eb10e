//! Deleting points: a tombstone each, and smaller counts along the path from the owner to the root.
//! The rows stay until their bucket is rewritten or the store is compacted; radii stay what they
//! are, which is an upper bound still (T5).

use rayon::prelude::*;

use super::batch::first_duplicate;
use super::journal::Journal;
use super::report::Work;
use crate::tree::columns::Tree;
use crate::tree::id_index;
use crate::values::error::{DeleteError, ReadError};
use crate::values::ids::PointId;

/// Deletes the points with these ids. After an error the tree is as it was.
pub(crate) fn remove(tree: &mut Tree, ids: &[PointId], work: &mut Work) -> Result<(), DeleteError> {
    if let Some((first, index)) = first_duplicate(ids) {
        return Err(DeleteError::DuplicateId { index, first, id: ids[index] });
    }
    let slots: Vec<Option<u32>> = ids
        .par_iter()
        .map(|&id| id_index::find_live(tree, id))
        .collect::<Result<_, ReadError>>()?;
    if let Some(index) = slots.iter().position(Option::is_none) {
        return Err(DeleteError::UnknownId { index, id: ids[index] });
    }
    let before = tree.live()?;
    let mut journal = Journal::default();
    for slot in slots.into_iter().flatten() {
        journal.bury(slot);
        journal.add_live(tree, tree.owner(slot)?, -1)?;
    }
    journal.apply(tree, work)?;
    if tree.live()? + ids.len() as u64 != before {
        return Err(super::miscounted().into());
    }
    Ok(())
}
