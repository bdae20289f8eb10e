//! The k best candidates so far, in a buffer that is reused.
//!
//! A candidate is one integer: the bits of its distance (which is not negative, so that they sort as it does), then its
//! id. Few candidates are kept as a sorted list, which for small k beats a heap; many as a binary heap.

use super::{Neighbor, sum_limit};

/// Up to this k the candidates are a sorted list.
const SORTED_LIST: usize = 64;

/// Keeps the first k of all neighbours offered, in the order (distance, id).
#[derive(Default)]
pub(crate) struct KBest {
    k: usize,
    /// Sorted ascending for small k, else a binary heap with the greatest first.
    keys: Vec<u128>,
    /// No candidate farther than this can enter.
    radius: f32,
    /// No sum of squares above this can enter.
    sum_limit: f32,
    found: Vec<Neighbor>,
}

fn key(distance: f32, id: u64) -> u128 {
    (distance.to_bits() as u128) << 64 | id as u128
}

fn neighbor(key: u128) -> Neighbor {
    Neighbor { id: key as u64, distance: f32::from_bits((key >> 64) as u32) }
}

impl KBest {
    /// Empties the buffer and makes it one for `k`. At most `live` neighbours will ever be offered.
    pub(crate) fn reset(&mut self, k: usize, live: u64) {
        self.k = usize::try_from(live).unwrap_or(usize::MAX).min(k);
        self.keys.clear();
        self.keys.reserve(self.k);
        self.found.clear();
        self.found.reserve(self.k);
        self.radius = if self.k == 0 { f32::NEG_INFINITY } else { f32::INFINITY };
        self.sum_limit = self.radius;
    }

    /// The distance that a candidate must not exceed.
    #[inline]
    pub(crate) fn radius(&self) -> f32 {
        self.radius
    }

    /// The sum of squares that a candidate must not exceed. It may pass a few that [`KBest::offer`] will refuse.
    #[inline]
    pub(crate) fn sum_limit(&self) -> f32 {
        self.sum_limit
    }

    /// Takes the candidate if it is among the k best so far; false if not.
    pub(crate) fn offer(&mut self, candidate: Neighbor) -> bool {
        let key = key(candidate.distance, candidate.id);
        let full = self.keys.len() == self.k;
        if full && self.worst().is_none_or(|worst| key >= worst) {
            return false;
        }
        match self.k <= SORTED_LIST {
            true => self.insert_sorted(key, full),
            false => self.insert_heap(key, full),
        }
        if self.keys.len() == self.k
            && let Some(worst) = self.worst()
        {
            self.radius = neighbor(worst).distance;
            self.sum_limit = sum_limit(self.radius);
        }
        true
    }

    #[inline]
    fn worst(&self) -> Option<u128> {
        match self.k <= SORTED_LIST {
            true => self.keys.last().copied(),
            false => self.keys.first().copied(),
        }
    }

    fn insert_sorted(&mut self, key: u128, full: bool) {
        if !full {
            self.keys.push(key);
        }
        let mut at = self.keys.len() - 1;
        while at > 0 && self.keys[at - 1] > key {
            self.keys[at] = self.keys[at - 1];
            at -= 1;
        }
        self.keys[at] = key;
    }

    fn insert_heap(&mut self, key: u128, full: bool) {
        if full {
            self.sift_down(key);
            return;
        }
        self.keys.push(key);
        let mut at = self.keys.len() - 1;
        while at > 0 && self.keys[(at - 1) / 2] < key {
            self.keys[at] = self.keys[(at - 1) / 2];
            at = (at - 1) / 2;
        }
        self.keys[at] = key;
    }

    /// Replaces the greatest key of the heap.
    fn sift_down(&mut self, key: u128) {
        let mut at = 0;
        loop {
            let left = 2 * at + 1;
            let Some(&left_key) = self.keys.get(left) else { break };
            let (greater, greater_key) = match self.keys.get(left + 1) {
                Some(&right_key) if right_key > left_key => (left + 1, right_key),
                _ => (left, left_key),
            };
            if greater_key <= key {
                break;
            }
            self.keys[at] = greater_key;
            at = greater;
        }
        self.keys[at] = key;
    }

    /// The neighbours in order. Ends the search: nothing may be offered until the next reset.
    pub(crate) fn sorted(&mut self) -> &[Neighbor] {
        if self.k > SORTED_LIST {
            self.keys.sort_unstable();
        }
        self.found.clear();
        self.found.extend(self.keys.iter().map(|&key| neighbor(key)));
        &self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_sorting_would() {
        let mut state = 7u64;
        for k in [0, 1, 2, 5, 31, 64, 65, 90, 200] {
            let mut best = KBest::default();
            best.reset(k, 100);
            let mut all = Vec::new();
            for _ in 0..100 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let candidate = Neighbor { id: state >> 40, distance: (state >> 33 & 7) as f32 };
                all.push(candidate);
                all.sort_unstable_by(Neighbor::order);
                let enters = all.iter().take(k).any(|n| *n == candidate);
                assert_eq!(best.offer(candidate), enters);
                if all.len() >= k && k > 0 {
                    assert_eq!(best.radius(), all[k - 1].distance);
                }
            }
            all.truncate(k);
            assert_eq!(best.sorted(), all);
        }
    }
}
