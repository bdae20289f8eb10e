//! What a version's tree has in common with one that has been checked, so that a check of many
//! versions walks what they share once.
//!
//! A node is *touched* if a row of its own differs between the two, or liveness of a slot of its
//! own, and so is each node above it. What hangs below an untouched node is the same in both, row
//! for row, because every change below it would have touched it: the checked tree's `parent` rows
//! are right. So its invariants hold still, but for those that look down from above: T1, T5 and T8
//! of the nodes on the path, which [`Shared::still_bounds`] compares.
//!
//! Rows that are only ever appended must be the same as far as both have them; where they are not
//! (a tree that was packed anew, or an older version gone back to), nothing is taken as shared.

use std::collections::HashSet;

use super::columns::{ROOT, Tree};
use super::extent::{self, Extent};
use crate::format::rows::NONE;
use crate::space::BOX_GROUP;
use crate::values::error::ReadError;
use crate::version::column::{Column, Record};

/// How a tree differs from one that has been checked.
pub(super) struct Shared<'a> {
    pub(super) old: &'a Tree,
    new: &'a Tree,
    touched: HashSet<u32>,
    /// Slots whose liveness differs; those that only the new tree has are not listed.
    pub(super) slots: Vec<u32>,
}

impl<'a> Shared<'a> {
    /// Compares two trees. `None` if they are not two states of one.
    pub(super) fn new(old: &'a Tree, new: &'a Tree) -> Result<Option<Self>, ReadError> {
        if old.node_rows() == 0 || !appended(old, new)? {
            return Ok(None);
        }
        let mut shared = Shared { old, new, touched: HashSet::new(), slots: Vec::new() };
        let mut rows: Vec<u64> = Vec::new();
        new.centers.for_changed(&old.centers, |row| rows.push(row))?;
        new.radii.for_changed(&old.radii, |row| rows.push(row))?;
        new.nodes.for_changed(&old.nodes, |row| rows.push(row))?;
        new.links.for_changed(&old.links, |row| rows.push(row))?;
        new.counts.for_changed(&old.counts, |row| rows.push(row))?;
        shared.boxes(&mut rows)?;
        for row in rows {
            // No array of nodes has more rows than fit.
            shared.touch(row as u32)?;
        }
        let mut words = Vec::new();
        new.tombstones.for_changed(&old.tombstones, |row| words.push(row))?;
        for word in words.into_iter().filter(|&word| word < old.tombstones.len()) {
            let (was, is) = (old.tombstones.get(word)?, new.tombstones.get(word)?);
            if was & !is != 0 {
                // A slot that lives again: who has a dead one is history, which nobody has checked.
                return Ok(None);
            }
            for bit in (0..64).filter(|bit| (was ^ is) >> bit & 1 == 1) {
                let slot = word as u32 * 64 + bit;
                if slot < old.slots() {
                    shared.slots.push(slot);
                    shared.touch(old.owner(slot)?)?;
                }
            }
        }
        Ok(Some(shared))
    }

    /// Nodes whose boxes differ.
    fn boxes(&self, rows: &mut Vec<u64>) -> Result<(), ReadError> {
        let (old, new) = (self.old, self.new);
        let mut groups = Vec::new();
        new.boxes.for_changed(&old.boxes, |group| groups.push(group))?;
        for group in groups {
            let first = group * BOX_GROUP as u64;
            let last = (first + BOX_GROUP as u64).min(new.node_rows().into());
            for node in first..last {
                let (row, lane) = extent::place(node as u32);
                let is = Extent::read(new.boxes.row(row)?, lane);
                let is_old = node < u64::from(old.node_rows());
                if !is_old || Extent::read(old.boxes.row(row)?, lane) != is {
                    rows.push(node);
                }
            }
        }
        Ok(())
    }

    /// Notes that a node differs, and with it those above.
    fn touch(&mut self, node: u32) -> Result<(), ReadError> {
        let mut next = vec![node];
        while let Some(node) = next.pop() {
            if !self.touched.insert(node) {
                continue;
            }
            // What a row says of its parent is checked only in the old tree; both are noted.
            let is_old = node < self.old.node_rows();
            let above = is_old.then(|| self.old.nodes.get(node.into())).transpose()?;
            let is = self.new.nodes.get(node.into())?.parent;
            let parents = above.map(|row| row.parent).into_iter().chain([is]);
            next.extend(parents.filter(|&parent| parent != NONE && parent < node));
        }
        Ok(())
    }

    pub(super) fn is_touched(&self, node: u32) -> bool {
        self.touched.contains(&node)
    }

    /// The children that a node of the old tree had, ascending.
    pub(super) fn old_children(&self, node: u32) -> Result<Vec<u32>, ReadError> {
        children(self.old, node)
    }

    /// Whether all that a node of both trees bounded is within its bounds still.
    pub(super) fn still_bounds(&self, node: u32) -> Result<bool, ReadError> {
        let (old, new) = (self.old, self.new);
        let row = u64::from(node);
        let bits = |row: &[f32]| row.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
        let mut holds = bits(old.centers.row(row)?) == bits(new.centers.row(row)?)
            && new.radii.get(row)? >= old.radii.get(row)?
            && (node != ROOT || new.nodes.get(row)?.level >= old.nodes.get(row)?.level);
        if new.has_boxes() {
            let is = new.extent(node)?;
            let mut both = is;
            both.merge(&old.extent(node)?);
            holds &= both == is;
        }
        Ok(holds)
    }
}

/// The children of a node, ascending.
pub(super) fn children(tree: &Tree, node: u32) -> Result<Vec<u32>, ReadError> {
    let mut children = Vec::new();
    tree.for_children(node, &tree.link(node)?, |block| {
        children.extend(block.start..block.start + block.count);
        Ok(())
    })?;
    children.sort_unstable();
    Ok(children)
}

/// True if rows were only added to the arrays to which rows are only added.
fn appended(old: &Tree, new: &Tree) -> Result<bool, ReadError> {
    fn grew<T: Record>(old: &Column<T>, new: &Column<T>) -> Result<bool, ReadError> {
        let mut grew = new.len() >= old.len();
        if grew {
            new.for_changed(old, |row| grew &= row >= old.len())?;
        }
        Ok(grew)
    }
    if new.node_rows() < old.node_rows() || new.slots() < old.slots() {
        return Ok(false);
    }
    let same = grew(&old.coordinates, &new.coordinates)?
        && grew(&old.ids, &new.ids)?
        && grew(&old.owners, &new.owners)?
        && grew(&old.runs, &new.runs)?
        && grew(&old.index_pieces, &new.index_pieces)?
        && grew(&old.index_keys, &new.index_keys)?
        && grew(&old.index_slots, &new.index_slots)?;
    if !same {
        return Ok(false);
    }
    // Owners of slots that were there stay the same.
    for row in old.owners.len()..new.owners.len() {
        if new.owners.get(row)?.start < old.slots() {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::rows::RunRow;
    use crate::store::Store;
    use crate::tree::check::{Sound, check, check_after};
    use crate::values::options::{CreateOptions, OpenOptions};

    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 =
                self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1442695040888963407);
            (self.0 >> 33) % limit.max(1)
        }
    }

    /// Versions of a store that grows and shrinks, with a tree that is packed anew and one that is
    /// gone back to.
    fn store(dim: usize, leaf_capacity: u32) -> Store {
        let mut random = Random(dim as u64);
        let options = CreateOptions::new(dim).leaf_capacity(leaf_capacity).block_bytes(256);
        let options = options.topology_segment_bytes(256).coordinate_segment_bytes(512);
        let mut store = Store::in_memory(options, OpenOptions::new().threads(1)).unwrap();
        let mut ids: Vec<u64> = Vec::new();
        for round in 0..24u64 {
            let rows = [120, 1, 7, 30, 2][round as usize % 5];
            let points: Vec<f32> =
                (0..rows * dim).map(|_| random.below(1 << 12) as f32 / 64.0).collect();
            let new: Vec<u64> = (0..rows as u64).map(|i| round * 1000 + i * 7).collect();
            store.insert_with_ids(&points, &new).unwrap();
            ids.extend(new);
            let gone: Vec<u64> =
                (0..3).map(|_| ids.swap_remove(random.below(ids.len() as u64) as usize)).collect();
            store.delete(&gone).unwrap();
        }
        store.compact().unwrap();
        store.insert_with_ids(&vec![0.5; dim], &[1 << 40]).unwrap();
        store.restore(crate::VersionId(9)).unwrap();
        store.insert_with_ids(&vec![0.5; dim], &[1 << 41]).unwrap();
        store
    }

    fn tree(store: &Store, version: u64) -> Tree {
        let (row, _pin) = store.core.db.version(crate::VersionId(version)).unwrap();
        Tree::open(&store.core.db, &row.roots).unwrap()
    }

    fn sound(store: &Store, version: u64) -> Sound {
        check_after(None, tree(store, version)).unwrap().sound.expect("no violations")
    }

    #[test]
    fn sound_versions_are_walked_by_what_differs() {
        for (dim, leaf_capacity) in [(2, 4), (3, 1), (12, 8)] {
            let store = store(dim, leaf_capacity);
            let newest = store.versions().unwrap().len() as u64;
            let (mut before, mut walked) = (None, 0);
            for version in 1..=newest {
                let checked = check_after(before, tree(&store, version)).unwrap();
                assert!(checked.violations.is_empty(), "{version}: {:?}", checked.violations);
                walked += u64::from(checked.whole);
                before = checked.sound;
            }
            assert!(walked <= 8, "{walked} of {newest} trees were walked as a whole");
        }
    }

    /// Changes some row of a tree.
    fn damage(tree: &mut Tree, random: &mut Random) -> Result<(), ReadError> {
        let (nodes, slots) = (u64::from(tree.node_rows()), u64::from(tree.slots()));
        let node = random.below(nodes);
        let other = random.below(nodes) as u32;
        match random.below(14) {
            0 => {
                let mut row = tree.nodes.get(node)?;
                row.parent = other;
                tree.nodes.set(node, row)
            }
            1 => {
                let mut row = tree.nodes.get(node)?;
                row.level += random.below(3) as i16 - 1;
                tree.nodes.set(node, row)
            }
            2 => {
                let mut row = tree.links.get(node)?;
                row.child_start = other;
                tree.links.set(node, row)
            }
            3 => {
                let row = tree.links.get(random.below(nodes))?;
                tree.links.set(node, row)
            }
            4 => {
                let mut row = tree.links.get(node)?;
                row.bucket_count = row.bucket_count.wrapping_add(random.below(3) as u32);
                tree.links.set(node, row)
            }
            5 => {
                let radius = tree.radii.get(node)?;
                tree.radii.set(node, radius * 0.9)
            }
            6 => {
                let mut row = tree.counts.get(node)?;
                row.live = row.live.wrapping_add(random.below(3) as u32);
                tree.counts.set(node, row)
            }
            7 => {
                let mut row = tree.counts.get(node)?;
                row.span *= random.below(3) as u32;
                tree.counts.set(node, row)
            }
            8 => {
                tree.centers.edit(node)?[0] += 1.0;
                Ok(())
            }
            9 => {
                let word = random.below(tree.tombstones.len());
                let bits = tree.tombstones.get(word)?;
                tree.tombstones.set(word, bits ^ 1 << random.below(64))
            }
            10 => {
                let slot = random.below(slots);
                tree.ids.set(slot, random.below(20_000))
            }
            11 => {
                let row = random.below(tree.index_slots.len());
                tree.index_slots.set(row, random.below(slots) as u32)
            }
            12 => {
                let row = random.below(tree.owners.len());
                let mut owner = tree.owners.get(row)?;
                owner.owner = other;
                tree.owners.set(row, owner)
            }
            _ if tree.runs.len() > 0 => {
                let row = random.below(tree.runs.len());
                let run: RunRow = tree.runs.get(random.below(tree.runs.len()))?;
                tree.runs.set(row, run)
            }
            _ => {
                let coordinate = random.below(slots);
                tree.coordinates.edit(coordinate)?[0] += 0.5;
                Ok(())
            }
        }
    }

    /// Whatever is wrong with a tree, that it shares much with a sound one hides nothing.
    #[test]
    fn nothing_wrong_is_taken_as_shared() {
        let mut random = Random(99);
        let mut wrong = 0;
        for (dim, leaf_capacity) in [(2, 4), (3, 1), (12, 8)] {
            let store = store(dim, leaf_capacity);
            for _ in 0..80 {
                let version = 2 + random.below(46);
                let mut damaged = tree(&store, version);
                for _ in 0..=random.below(2) {
                    damage(&mut damaged, &mut random).unwrap();
                }
                let whole = check(&damaged).map(|violations| violations.is_empty());
                let after = check_after(Some(sound(&store, version - 1)), damaged);
                let after = after.map(|checked| checked.violations.is_empty());
                let whole = whole.unwrap_or(false);
                assert_eq!(whole, after.unwrap_or(false), "version {version}");
                wrong += u32::from(!whole);
            }
        }
        assert!(wrong > 120, "{wrong} trees were wrong");
    }
}
