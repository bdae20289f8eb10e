//! Nodes still to visit, the one with the smallest lower bound first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::best_first::Candidate;

/// A priority queue whose keys are single integers.
#[derive(Default)]
pub(super) struct Frontier {
    /// Bits of the bound (which is not negative, so that they sort as it does), then the position
    /// in `nodes`.
    heap: BinaryHeap<Reverse<u64>>,
    nodes: Vec<Candidate>,
}

impl Frontier {
    pub(super) fn clear(&mut self) {
        self.heap.clear();
        self.nodes.clear();
    }

    /// Adds a node.
    #[inline]
    pub(super) fn push(&mut self, candidate: Candidate) {
        let key = (candidate.bound.to_bits() as u64) << 32 | self.nodes.len() as u64;
        self.heap.push(Reverse(key));
        self.nodes.push(candidate);
    }

    /// The node that [`Frontier::pop`] would return.
    #[inline]
    pub(super) fn peek(&self) -> Option<Candidate> {
        let &Reverse(key) = self.heap.peek()?;
        Some(self.nodes[key as u32 as usize])
    }

    /// The node with the smallest bound.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Candidate> {
        let Reverse(key) = self.heap.pop()?;
        Some(self.nodes[key as u32 as usize])
    }
}
