//! The k best candidates so far: a binary heap with the worst on top, in a buffer that is reused.

use super::{Neighbor, sum_limit};

/// Keeps the first k of all neighbours offered, in the order (distance, id).
#[derive(Default)]
pub(crate) struct KBest {
    k: usize,
    heap: Vec<Neighbor>,
    /// No candidate farther than this can enter.
    radius: f32,
    /// No sum of squares above this can enter.
    sum_limit: f32,
}

impl KBest {
    /// Empties the heap and makes it one for `k`. At most `live` neighbours will ever be offered.
    pub(crate) fn reset(&mut self, k: usize, live: u64) {
        self.k = usize::try_from(live).unwrap_or(usize::MAX).min(k);
        self.heap.clear();
        self.heap.reserve(self.k);
        self.radius = if self.k == 0 { f32::NEG_INFINITY } else { f32::INFINITY };
        self.sum_limit = self.radius;
    }

    /// The distance that a candidate must not exceed.
    pub(crate) fn radius(&self) -> f32 {
        self.radius
    }

    /// The sum of squares that a candidate must not exceed. It may pass a few that [`KBest::offer`] will refuse.
    pub(crate) fn sum_limit(&self) -> f32 {
        self.sum_limit
    }

    /// True if the candidate would enter.
    pub(crate) fn admits(&self, candidate: &Neighbor) -> bool {
        self.heap.len() < self.k || self.heap.first().is_some_and(|worst| candidate.before(worst))
    }

    /// Takes the candidate if it is among the k best so far.
    pub(crate) fn offer(&mut self, candidate: Neighbor) {
        if !self.admits(&candidate) {
            return;
        }
        if self.heap.len() < self.k {
            self.heap.push(candidate);
            self.sift_up(self.heap.len() - 1);
        } else {
            self.heap[0] = candidate;
            self.sift_down();
        }
        if self.heap.len() == self.k {
            self.radius = self.heap[0].distance;
            self.sum_limit = sum_limit(self.radius);
        }
    }

    /// The neighbours in order.
    pub(crate) fn sorted(&mut self) -> &[Neighbor] {
        self.heap.sort_unstable_by(Neighbor::order);
        &self.heap
    }

    fn sift_up(&mut self, mut at: usize) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if !self.heap[parent].before(&self.heap[at]) {
                break;
            }
            self.heap.swap(parent, at);
            at = parent;
        }
    }

    fn sift_down(&mut self) {
        let mut at = 0;
        loop {
            let left = 2 * at + 1;
            if left >= self.heap.len() {
                break;
            }
            let right = left + 1;
            let worse = match right < self.heap.len() && self.heap[left].before(&self.heap[right]) {
                true => right,
                false => left,
            };
            if !self.heap[at].before(&self.heap[worse]) {
                break;
            }
            self.heap.swap(at, worse);
            at = worse;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_sorting_would() {
        let mut state = 7u64;
        for k in [0, 1, 2, 5, 31, 200] {
            let mut best = KBest::default();
            best.reset(k, 100);
            let mut all = Vec::new();
            for _ in 0..100 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let candidate = Neighbor { id: state >> 40, distance: (state >> 33 & 7) as f32 };
                all.push(candidate);
                best.offer(candidate);
            }
            all.sort_unstable_by(Neighbor::order);
            all.truncate(k);
            assert_eq!(best.sorted(), all);
        }
    }
}
