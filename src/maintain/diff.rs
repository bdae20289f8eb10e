//! What changed between two versions: ids, by comparing what the versions do not share.
//!
//! A slot that lies in the same place of both versions, in shared segments, is the same in both. So
//! only slots in which the segments of ids, tombstones or coordinates differ are looked at; a point
//! that is live in such a slot of one version and is found under its id, with the same coordinates,
//! in such a slot of the other has only moved.

use std::collections::{BTreeMap, BTreeSet};

use crate::format::arrays::{Array, ArrayRoot, DATA_ARRAYS};
use crate::tree::columns::Tree;
use crate::values::error::ReadError;
use crate::values::ids::PointId;
use crate::version::database::Database;
use crate::version::table::Visit;

/// What changed from one version to another. Each list is sorted by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diff {
    /// Ids that only the second version has.
    pub added: Vec<PointId>,
    /// Ids that only the first version has.
    pub removed: Vec<PointId>,
    /// Ids that both have, with other coordinates.
    pub replaced: Vec<PointId>,
    /// Segments that were read; the cost.
    pub segments_read: u64,
}

/// One version, as the comparison reads it.
pub(crate) struct Side<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) roots: &'a [ArrayRoot; DATA_ARRAYS],
    /// Segments of ids, tombstones and coordinates that were read.
    read: BTreeSet<(Array, u64)>,
}

impl<'a> Side<'a> {
    pub(crate) fn new(tree: &'a Tree, roots: &'a [ArrayRoot; DATA_ARRAYS]) -> Self {
        Side { tree, roots, read: BTreeSet::new() }
    }

    fn read(&mut self, db: &Database, array: Array, row: u64) {
        self.read.insert((array, row / db.geometry.spec(array).rows_per_segment));
    }

    /// The word of tombstones that holds a slot's bit, with slots that do not exist dead.
    fn dead(&mut self, db: &Database, word: u64) -> Result<u64, ReadError> {
        let slots = self.tree.slots() as u64;
        if word * 64 >= slots {
            return Ok(u64::MAX);
        }
        self.read(db, Array::Tombstones, word);
        let beyond = match slots - word * 64 {
            64.. => 0,
            held => u64::MAX << held,
        };
        Ok(self.tree.tombstones.get(word)? | beyond)
    }

    fn id(&mut self, db: &Database, slot: u64) -> Result<PointId, ReadError> {
        self.read(db, Array::Ids, slot);
        self.tree.ids.get(slot)
    }

    fn point(&mut self, db: &Database, slot: u64) -> Result<&'a [f32], ReadError> {
        self.read(db, Array::Coordinates, slot);
        self.tree.coordinates.row(slot)
    }
}

/// Compares `old` with `new`, two versions of one store.
pub(crate) fn diff(db: &Database, mut old: Side<'_>, mut new: Side<'_>) -> Result<Diff, ReadError> {
    // Slots that may differ: words of 64, and which bits of them.
    let mut suspects: BTreeMap<u64, u64> = BTreeMap::new();
    for array in [Array::Ids, Array::Coordinates] {
        let spec = db.geometry.spec(array);
        for segment in unshared(db, array, old.roots, new.roots)? {
            let first = segment * spec.rows_per_segment;
            let limit = old.tree.slots().max(new.tree.slots()) as u64;
            for slot in first..(first + spec.rows_per_segment).min(limit) {
                *suspects.entry(slot / 64).or_insert(0) |= 1 << (slot % 64);
            }
        }
    }
    let per_segment = db.geometry.spec(Array::Tombstones).rows_per_segment;
    for segment in unshared(db, Array::Tombstones, old.roots, new.roots)? {
        for word in segment * per_segment..(segment + 1) * per_segment {
            let changed = old.dead(db, word)? ^ new.dead(db, word)?;
            if changed != 0 {
                *suspects.entry(word).or_insert(0) |= changed;
            }
        }
    }

    // Those that are live on one side only, or with another id or other coordinates, by id.
    let mut before: BTreeMap<PointId, u64> = BTreeMap::new();
    let mut after: BTreeMap<PointId, u64> = BTreeMap::new();
    for (word, mut bits) in suspects {
        let (dead_before, dead_after) = (old.dead(db, word)?, new.dead(db, word)?);
        while bits != 0 {
            let bit = bits.trailing_zeros() as u64;
            bits &= bits - 1;
            let slot = word * 64 + bit;
            let was = dead_before >> bit & 1 == 0;
            let is = dead_after >> bit & 1 == 0;
            let was = if was { Some(old.id(db, slot)?) } else { None };
            let is = if is { Some(new.id(db, slot)?) } else { None };
            if was == is && was.is_some() && same(old.point(db, slot)?, new.point(db, slot)?) {
                continue;
            }
            was.map(|id| before.insert(id, slot));
            is.map(|id| after.insert(id, slot));
        }
    }

    let mut diff = Diff::default();
    for (&id, &slot) in &before {
        match after.get(&id) {
            None => diff.removed.push(id),
            Some(&now) if !same(old.point(db, slot)?, new.point(db, now)?) => {
                diff.replaced.push(id)
            }
            Some(_) => {}
        }
    }
    diff.added.extend(after.keys().filter(|id| !before.contains_key(id)));
    diff.segments_read = (old.read.len() + new.read.len()) as u64;
    Ok(diff)
}

/// Bit for bit: -0 and +0 are two values.
fn same(a: &[f32], b: &[f32]) -> bool {
    a.iter().map(|x| x.to_bits()).eq(b.iter().map(|x| x.to_bits()))
}

/// Numbers of the segments of an array that the two versions do not share.
fn unshared(
    db: &Database,
    array: Array,
    old: &[ArrayRoot; DATA_ARRAYS],
    new: &[ArrayRoot; DATA_ARRAYS],
) -> Result<BTreeSet<u64>, ReadError> {
    let (old, new) = (db.data_table(array, old), db.data_table(array, new));
    let mut segments = BTreeSet::new();
    for (table, other) in [(&old, &new), (&new, &old)] {
        table.walk_unshared(std::slice::from_ref(other), &mut |_, visit| {
            if let Visit::Segment(segment) = visit {
                segments.insert(segment);
            }
        })?;
    }
    Ok(segments)
}
