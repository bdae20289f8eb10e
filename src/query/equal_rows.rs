//! Equal rows of a tile, told together: a query meets their values once, and takes of their slots
//! what it has room for.
//!
//! Rows that are equal are equally near, so no filter tells them apart: where one passes, all pass.
//! Rows count as equal if their bits are, so -0.0 and 0.0 are two values here. That two equal rows
//! are not found to be costs time only.

use super::k_best::KBest;
use crate::space::Near;
use crate::tree::columns::Tree;
use crate::values::error::ReadError;

/// Places of the table that are looked at for one row: more, and the row is told alone.
const MOST_PROBES: usize = 8;

/// Places of the table for each row.
const PLACES_PER_ROW: usize = 2;

/// The groups of equal rows of one tile. Its buffers are reused from tile to tile.
#[derive(Default)]
pub(super) struct EqualRows {
    /// The number of a group, and 1; 0 where there is none.
    table: Vec<u32>,
    /// Of each row that is live, in the order of the tile: its group, and its slot.
    places: Vec<(u32, u32)>,
    /// Where the slots of each group end.
    ends: Vec<u32>,
    /// The live slots, group after group, by ascending id within each.
    slots: Vec<u32>,
    /// The members of one group, by id.
    by_id: Vec<(u64, u32)>,
}

impl EqualRows {
    /// Leaves one row of each group in `rows`, whose slots are `slots`, and forgets those of dead
    /// points.
    pub(super) fn group(
        &mut self,
        tree: &Tree,
        rows: &mut Vec<&[f32]>,
        slots: &[u32],
    ) -> Result<(), ReadError> {
        assert_eq!(rows.len(), slots.len(), "each row has its slot");
        self.table.clear();
        self.table.resize((rows.len() * PLACES_PER_ROW).next_power_of_two(), 0);
        self.places.clear();
        let mut groups: usize = 0;
        let mut last: Option<usize> = None;
        for (i, &slot) in slots.iter().enumerate() {
            if !tree.is_live(slot)? {
                continue;
            }
            let row = rows[i];
            // Most equal rows follow each other.
            let group = match last {
                Some(last) if are_equal(rows[last], row) => last,
                _ => self.group_of(&rows[..groups], row).unwrap_or_else(|free| {
                    if let Some(place) = free {
                        self.table[place] = groups as u32 + 1;
                    }
                    groups
                }),
            };
            if group == groups {
                rows[group] = row;
                groups += 1;
            }
            self.places.push((group as u32, slot));
            last = Some(group);
        }
        rows.truncate(groups);
        self.sort(tree, groups)
    }

    /// The group of a row equal to this one; else where the table has room for it, if it has.
    fn group_of(&self, groups: &[&[f32]], row: &[f32]) -> Result<usize, Option<usize>> {
        let mask = self.table.len() - 1;
        let first = hash(row) as usize;
        for place in (first..first + MOST_PROBES).map(|place| place & mask) {
            match self.table[place] {
                0 => return Err(Some(place)),
                group if are_equal(groups[group as usize - 1], row) => {
                    return Ok(group as usize - 1);
                }
                _ => {}
            }
        }
        Err(None)
    }

    /// Slots by group and id.
    fn sort(&mut self, tree: &Tree, groups: usize) -> Result<(), ReadError> {
        let EqualRows { places, ends, slots, by_id, .. } = self;
        ends.clear();
        ends.resize(groups, 0);
        places.iter().for_each(|&(group, _)| ends[group as usize] += 1);
        let mut sum = 0;
        for end in ends.iter_mut() {
            sum += std::mem::replace(end, sum);
        }
        slots.clear();
        slots.resize(places.len(), 0);
        for &(group, slot) in &*places {
            let end = &mut ends[group as usize];
            slots[*end as usize] = slot;
            *end += 1;
        }
        let mut start = 0;
        for &end in &*ends {
            let group = &mut slots[start..end as usize];
            start = end as usize;
            if group.len() < 2 {
                continue;
            }
            by_id.clear();
            for &slot in &*group {
                by_id.push((tree.ids.get(slot.into())?, slot));
            }
            if !by_id.is_sorted() {
                by_id.sort_unstable();
                group.iter_mut().zip(&*by_id).for_each(|(slot, &(_, sorted))| *slot = sorted);
            }
        }
        Ok(())
    }

    /// Offers the slots of a group at a distance.
    pub(super) fn offer(
        &self,
        tree: &Tree,
        best: &mut KBest,
        distance: f32,
        group: u32,
    ) -> Result<(), ReadError> {
        let group = group as usize;
        let start = if group == 0 { 0 } else { self.ends[group - 1] };
        match &self.slots[start as usize..self.ends[group] as usize] {
            &[slot] => best.offer(tree, Near::new(distance, slot)),
            slots => best.offer_equals(tree, distance, slots.iter().copied()),
        }
    }
}

#[inline]
fn are_equal(a: &[f32], b: &[f32]) -> bool {
    a.iter().map(|x| x.to_bits()).eq(b.iter().map(|x| x.to_bits()))
}

/// Two values at a time, so that a row costs less than putting it on a grid.
#[inline]
fn hash(row: &[f32]) -> u64 {
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
    let mix = |hash: u64, bits: u64| (hash.rotate_left(29) ^ bits).wrapping_mul(FACTOR);
    let (pairs, last) = row.as_chunks::<2>();
    let mut hash = 0;
    for [a, b] in pairs {
        hash = mix(hash, u64::from(a.to_bits()) << 32 | u64::from(b.to_bits()));
    }
    if let &[last] = last {
        hash = mix(hash, last.to_bits().into());
    }
    // The high bits are the well-mixed ones.
    hash >> 32
}
