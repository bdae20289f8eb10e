//! Stage: the conflict graph of a block of candidates.
//!
//! Two candidates conflict at level k if their distance is at most 2^k: they cannot both be
//! children of one node at that level (T3). Candidates come in order of priority, a block at a
//! time, so that most are found to conflict with a winner of an earlier block, and need not be
//! compared with each other.

use super::scratch::Scratch;
use crate::space::{Kernel, Level};

/// Candidates of a block, at most: one to a bit.
pub(crate) const BLOCK: usize = u64::BITS as usize;

/// The candidates of a block that no earlier winner conflicts with, and which of them conflict with
/// each other.
pub(crate) struct Conflicts {
    /// Their places in the block, ascending.
    places: [u8; BLOCK],
    /// For each of them, a bit for each earlier one that it conflicts with.
    earlier: [u64; BLOCK],
    count: usize,
    pub(crate) edges: u64,
    pub(crate) evaluations: u64,
}

impl Conflicts {
    /// For each candidate left its place in the block, and a bit for each earlier one that it
    /// conflicts with.
    pub(crate) fn left(&self) -> impl Iterator<Item = (usize, u64)> {
        let left = self.places.iter().zip(&self.earlier).take(self.count);
        left.map(|(&place, &earlier)| (usize::from(place), earlier))
    }
}

/// Compares the candidates whose rows are `block`, at most [`BLOCK`], with the earlier winners,
/// whose rows lie in `scratch.centers`, and those that are left with each other.
pub(crate) fn conflicts(
    kernel: Kernel,
    dim: usize,
    level: Level,
    block: &[f32],
    scratch: &mut Scratch,
) -> Conflicts {
    let Scratch { centers, rivals, found, .. } = scratch;
    let reach = level.pow4();
    rivals.clear();
    let mut conflicts = Conflicts {
        places: [0; BLOCK],
        earlier: [0; BLOCK],
        count: 0,
        edges: 0,
        evaluations: (block.len() / dim * (centers.len() / dim)) as u64,
    };
    for (place, row) in block.chunks_exact(dim).enumerate() {
        found.clear();
        kernel.near(row, centers, reach, 0, found);
        conflicts.edges += found.len() as u64;
        if !found.is_empty() {
            continue;
        }
        kernel.near(row, rivals, reach, 0, found);
        let count = conflicts.count;
        conflicts.edges += found.len() as u64;
        conflicts.evaluations += count as u64;
        conflicts.places[count] = place as u8;
        conflicts.earlier[count] = found.iter().fold(0, |bits, rival| bits | 1 << rival.number());
        conflicts.count += 1;
        rivals.extend_from_slice(row);
    }
    conflicts
}
