//! Nodes still to visit, the one with the smallest lower bound first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A node to visit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    pub(crate) node: u32,
    /// Canonical distance from the query to the center.
    pub(crate) distance: f32,
}

/// A priority queue whose keys are single integers.
#[derive(Default)]
pub(crate) struct Frontier {
    /// Bits of the bound (rounded down, not negative, so that they sort as it does), then the position in `nodes`.
    heap: BinaryHeap<Reverse<u64>>,
    nodes: Vec<Pending>,
}

impl Frontier {
    pub(crate) fn clear(&mut self) {
        self.heap.clear();
        self.nodes.clear();
    }

    /// Adds a node below which nothing is nearer than `bound`.
    pub(crate) fn push(&mut self, bound: f64, pending: Pending) {
        let bound = (bound as f32).next_down().max(0.0);
        self.heap.push(Reverse((bound.to_bits() as u64) << 32 | self.nodes.len() as u64));
        self.nodes.push(pending);
    }

    /// The node with the smallest bound, and the bound.
    pub(crate) fn pop(&mut self) -> Option<(f32, Pending)> {
        let Reverse(key) = self.heap.pop()?;
        Some((f32::from_bits((key >> 32) as u32), self.nodes[key as u32 as usize]))
    }
}
