//! The k best candidates so far, in a buffer that is reused: a sorted list up to a moderate k,
//! beyond it a binary heap of integers, distance first and then id.

use super::Neighbor;
use super::sink::{Admission, Reach, Sink};
use super::sorted_list::SortedList;
use crate::space::{MAX_SORTED, Near};
use crate::tree::columns::{Range, Tree};
use crate::values::error::ReadError;

/// Keeps the first k of all candidates offered, in the order (distance, id).
#[derive(Default)]
pub(crate) struct KBest {
    k: usize,
    admission: Admission,
    /// For small k, above 0.
    list: SortedList,
    /// For large k: a binary heap with the greatest first.
    heap: Vec<u128>,
    /// What a candidate must not exceed.
    reach: Reach,
    found: Vec<Neighbor>,
}

/// Distance, then id.
fn key_of(tree: &Tree, candidate: Near) -> Result<u128, ReadError> {
    let id = tree.ids.get(candidate.number().into())?;
    Ok(u128::from(candidate.value().to_bits()) << 64 | u128::from(id))
}

impl KBest {
    /// Empties the buffer and makes it one for the `k` best of a tree with so many `live` points.
    pub(crate) fn reset(&mut self, tree: &Tree, k: usize, live: u64) {
        self.k = usize::try_from(live).unwrap_or(usize::MAX).min(k);
        self.admission = Admission::new(tree, live);
        self.heap.clear();
        match self.k {
            0 => {}
            1..=MAX_SORTED => self.list.reset(self.k),
            _ => self.heap.reserve(self.k),
        }
        self.found.clear();
        self.found.reserve(self.k);
        let distance = if self.k == 0 { f32::NEG_INFINITY } else { f32::INFINITY };
        self.reach = Reach { distance, sum_limit: distance };
    }

    /// Takes a slot, at its distance, if it is live and among the k best so far.
    #[inline]
    pub(crate) fn offer(&mut self, tree: &Tree, candidate: Near) -> Result<(), ReadError> {
        let may_enter = self.k > 0 && candidate.value() <= self.reach.distance;
        match may_enter && self.admission.admits(tree, candidate.number())? {
            true => self.take(tree, candidate),
            false => Ok(()),
        }
    }

    /// Takes those of some slots, all at one distance and by ascending id, that are live and among
    /// the k best so far.
    pub(super) fn offer_equals(
        &mut self,
        tree: &Tree,
        distance: f32,
        slots: impl IntoIterator<Item = u32>,
    ) -> Result<(), ReadError> {
        for slot in slots {
            if self.k == 0 || distance > self.reach.distance {
                break;
            }
            if self.admission.admits(tree, slot)? {
                let twin = Near::new(distance, slot);
                self.take(tree, twin)?;
                // Those behind it have greater ids.
                if !self.holds(tree, twin)? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Takes a live candidate that is within the radius, if it is among the k best.
    #[inline]
    fn take(&mut self, tree: &Tree, candidate: Near) -> Result<(), ReadError> {
        if self.k > MAX_SORTED {
            return self.offer_to_heap(tree, candidate);
        }
        self.list.offer(tree, &[candidate])?;
        self.reach = Reach::new(self.list.worst());
        Ok(())
    }

    /// Whether the candidate offered last is among the k best.
    fn holds(&self, tree: &Tree, candidate: Near) -> Result<bool, ReadError> {
        match self.heap.first() {
            Some(greatest) => Ok(key_of(tree, candidate)? <= *greatest),
            None => Ok(self.list.contains(candidate)),
        }
    }

    fn offer_to_heap(&mut self, tree: &Tree, candidate: Near) -> Result<(), ReadError> {
        let key = key_of(tree, candidate)?;
        let full = self.heap.len() == self.k;
        match full {
            true if key >= self.heap[0] => return Ok(()),
            true => self.sift_down(key),
            false => self.sift_up(key),
        }
        if self.heap.len() == self.k {
            self.reach = Reach::new(f32::from_bits((self.heap[0] >> 64) as u32));
        }
        Ok(())
    }

    fn sift_up(&mut self, key: u128) {
        self.heap.push(key);
        let mut at = self.heap.len() - 1;
        while at > 0 && self.heap[(at - 1) / 2] < key {
            self.heap[at] = self.heap[(at - 1) / 2];
            at = (at - 1) / 2;
        }
        self.heap[at] = key;
    }

    /// Replaces the greatest key of the heap.
    fn sift_down(&mut self, key: u128) {
        let mut at = 0;
        loop {
            let left = 2 * at + 1;
            let Some(&left_key) = self.heap.get(left) else { break };
            let (greater, greater_key) = match self.heap.get(left + 1) {
                Some(&right_key) if right_key > left_key => (left + 1, right_key),
                _ => (left, left_key),
            };
            if greater_key <= key {
                break;
            }
            self.heap[at] = greater_key;
            at = greater;
        }
        self.heap[at] = key;
    }

    /// The neighbours in order. Ends the search: nothing may be offered until the next reset.
    pub(crate) fn sorted(&mut self, tree: &Tree) -> Result<&[Neighbor], ReadError> {
        self.found.clear();
        if (1..=MAX_SORTED).contains(&self.k) {
            self.list.neighbors(tree, &mut self.found)?;
        }
        self.heap.sort_unstable();
        self.found.extend(
            self.heap.iter().map(|&key| Neighbor {
                id: key as u64,
                distance: f32::from_bits((key >> 64) as u32),
            }),
        );
        // Sorted by distance already.
        for ties in self.found.chunk_by_mut(|a, b| a.distance == b.distance) {
            if ties.len() > 1 {
                ties.sort_unstable_by_key(|neighbor| neighbor.id);
            }
        }
        Ok(&self.found)
    }
}

impl Sink for KBest {
    #[inline]
    fn bound(&self) -> Reach {
        self.reach
    }

    #[inline]
    fn offer_all(&mut self, tree: &Tree, found: &mut Vec<Near>) -> Result<(), ReadError> {
        if self.k == 0 || found.is_empty() {
            return Ok(());
        }
        self.admission.retain(tree, found)?;
        if self.k <= MAX_SORTED {
            self.list.offer(tree, found)?;
            self.reach = Reach::new(self.list.worst());
        } else {
            for &candidate in &*found {
                if candidate.value() <= self.reach.distance {
                    self.offer_to_heap(tree, candidate)?;
                }
            }
        }
        Ok(())
    }

    fn offer_twins(&mut self, tree: &Tree, distance: f32, twins: Range) -> Result<(), ReadError> {
        self.offer_equals(tree, distance, twins.start..twins.start + twins.count)
    }

    fn prefetch(&self, tree: &Tree) {
        if (1..=MAX_SORTED).contains(&self.k) {
            self.list.prefetch_ids(tree);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::values::options::{CreateOptions, OpenOptions};

    #[test]
    fn keeps_what_sorting_would() {
        let mut state = 7u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        };
        // Ids in no order of the slots.
        let ids: Vec<u64> = (0..100).map(|_| (random() << 7) | (random() % 128)).collect();
        let mut store = Store::in_memory(CreateOptions::new(1), OpenOptions::new()).unwrap();
        store.insert_with_ids(&[1.0; 100], &ids).unwrap();
        let snapshot = store.latest().unwrap();
        let tree = snapshot.tree();
        for k in [0, 1, 2, 4, 5, 12, 20, 31, 64, 68, 69, 90, 200] {
            for distances in [1, 4, 1000] {
                let mut best = KBest::default();
                best.reset(tree, k, 100);
                let mut all: Vec<Neighbor> = Vec::new();
                for i in 0..100 {
                    let slot = (i * 37 % 100) as u32;
                    let distance = (random() % distances) as f32;
                    let id = tree.ids.get(slot as u64).unwrap();
                    all.push(Neighbor { id, distance });
                    all.sort_unstable_by(Neighbor::order);
                    let enters = all.iter().take(k).any(|n| n.id == id);
                    let candidate = Near::new(distance, slot);
                    best.offer(tree, candidate).unwrap();
                    if enters || best.reach() >= distance {
                        assert_eq!(k > 0 && best.holds(tree, candidate).unwrap(), enters);
                    }
                    if all.len() >= k && k > 0 {
                        assert_eq!(best.reach(), all[k - 1].distance);
                    }
                }
                all.truncate(k);
                assert_eq!(best.sorted(tree).unwrap(), all);
            }
        }
    }
}
