//! The k best candidates so far, for a moderate k: a list sorted by distance.
//!
//! A candidate is a slot at a distance. Its id decides only between equal distances, and reading it is a cache miss as a
//! rule; so ids are read where two tie for the last place, and in the end.

use super::Neighbor;
use crate::error::ReadError;
use crate::metric::PLACES;
use crate::tree::columns::Tree;

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

impl SortedList {
    /// Empties the list and makes it one for `k` > 0 candidates.
    pub(super) fn reset(&mut self, k: usize) {
        assert!(k > 0, "a list has a last place");
        (self.k, self.count) = (k, 0);
        let places = 1 + k.next_multiple_of(PLACES);
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
        tree.kernel.insert_sorted(&mut self.distances, &mut self.slots, distance, slot);
        Ok(Some(self.worst()))
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

    /// Asks for the ids of the candidates.
    pub(super) fn prefetch_ids(&self, tree: &Tree) {
        for &slot in &self.slots[1..=self.count] {
            tree.ids.prefetch(slot.into(), 1);
        }
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
