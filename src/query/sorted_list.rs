//! The k best candidates so far, for a moderate k: a list sorted by distance.
//!
//! A candidate is a slot at a distance. Its id decides only between equal distances, and reading it is a cache miss as a
//! rule; so ids are read where two tie for the last place, and in the end.
//!
//! A candidate is put in its place by comparing it with several others at once: that takes no branch that could be
//! mispredicted.

use super::Neighbor;
use crate::error::ReadError;
use crate::tree::columns::Tree;

/// Places that are compared together.
const BLOCK: usize = 8;

/// Distances, as bits: they are not negative, so that these sort as they do.
type Bits = i32;

/// The distance in a place without a candidate.
const NONE: Bits = Bits::MAX;

/// Place 0 is before all candidates; those from k + 1 on hold candidates that have been dropped, or none.
#[derive(Default)]
pub(super) struct SortedList {
    k: usize,
    count: usize,
    distances: Vec<Bits>,
    /// In any order among equal distances.
    slots: Vec<u32>,
}

/// The places of a block and the one before it, which stays as it is.
///
/// Masks of all ones or none, on copies, so that a compiler makes vectors of them rather than branches.
#[inline(always)]
fn insert_in_block(
    distances: &mut [Bits; BLOCK + 1],
    slots: &mut [u32; BLOCK + 1],
    distance: Bits,
    slot: u32,
) {
    let (old, old_slots) = (*distances, *slots);
    for i in 0..BLOCK {
        let stays = -i32::from(old[i + 1] <= distance);
        let comes = -i32::from(old[i] <= distance);
        let moved = distance & comes | old[i] & !comes;
        let moved_slot = slot & comes as u32 | old_slots[i] & !comes as u32;
        distances[i + 1] = old[i + 1] & stays | moved & !stays;
        slots[i + 1] = old_slots[i + 1] & stays as u32 | moved_slot & !stays as u32;
    }
}

impl SortedList {
    /// Empties the list and makes it one for `k` > 0 candidates.
    pub(super) fn reset(&mut self, k: usize) {
        assert!(k > 0, "a list has a last place");
        (self.k, self.count) = (k, 0);
        let places = 1 + k.next_multiple_of(BLOCK);
        self.distances.clear();
        self.distances.resize(places, NONE);
        self.distances[0] = Bits::MIN;
        self.slots.resize(places, 0);
    }

    /// The distance in the last place, infinite if that is empty.
    fn worst(&self) -> f32 {
        match self.distances[self.k] {
            NONE => f32::INFINITY,
            bits => f32::from_bits(bits as u32),
        }
    }

    /// Takes a candidate that is not farther than the worst. Returns the worst distance from now on; `None` if the
    /// candidate ties with it and has a greater id.
    #[inline]
    pub(super) fn offer(
        &mut self,
        tree: &Tree,
        distance: f32,
        slot: u32,
    ) -> Result<Option<f32>, ReadError> {
        let distance = distance.to_bits() as Bits;
        if self.count == self.k {
            let worst = self.distances[self.k];
            let tie = distance == worst || self.distances[self.k - 1] == worst;
            if tie && !self.make_room(tree, distance, slot)? {
                return Ok(None);
            }
        } else {
            self.count += 1;
        }
        self.insert(distance, slot);
        Ok(Some(self.worst()))
    }

    /// Puts a candidate behind those that are as near; those farther move on by one place.
    #[inline]
    fn insert(&mut self, distance: Bits, slot: u32) {
        // From the last block on, so that each still finds the place before it as it was.
        for block in (0..self.distances.len() / BLOCK).rev() {
            let start = block * BLOCK;
            let distances = self.distances[start..].first_chunk_mut().expect("whole blocks");
            let slots = self.slots[start..].first_chunk_mut().expect("as many slots");
            insert_in_block(distances, slots, distance, slot);
        }
    }

    /// Among those that tie for the last place, drops the one with the greatest id. False if that is the candidate.
    #[cold]
    #[inline(never)]
    fn make_room(&mut self, tree: &Tree, distance: Bits, slot: u32) -> Result<bool, ReadError> {
        let SortedList { distances, slots, .. } = self;
        let worst = distances[self.k];
        let first = distances[..=self.k].partition_point(|&other| other < worst);
        let mut greatest = (0, first);
        for (at, &slot) in (first..).zip(&slots[first..=self.k]) {
            greatest = greatest.max((tree.ids.get(slot.into())?, at));
        }
        if distance == worst && tree.ids.get(slot.into())? > greatest.0 {
            return Ok(false);
        }
        slots.swap(greatest.1, self.k);
        distances[self.k] = NONE;
        Ok(true)
    }

    /// The candidates by distance, in any order among equal ones.
    pub(super) fn neighbors(
        &self,
        tree: &Tree,
    ) -> impl Iterator<Item = Result<Neighbor, ReadError>> {
        let places = 1..=self.count;
        let candidates = self.distances[places.clone()].iter().zip(&self.slots[places]);
        candidates.map(|(&distance, &slot)| {
            let id = tree.ids.get(slot.into())?;
            Ok(Neighbor { id, distance: f32::from_bits(distance as u32) })
        })
    }
}
