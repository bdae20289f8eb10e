//! Stage: the conflict graph of a prefix of candidates.
//!
//! Two candidates conflict at level k if their distance is at most 2^k: they cannot both be children of one node at
//! that level (T3). Only the edge to the earlier candidate is kept, which is all that the greedy set needs.

use super::scratch::Scratch;
use crate::metric::{Kernel, Level};

/// Compressed rows: the earlier candidates that candidate `i` conflicts with.
pub(crate) struct Conflicts<'a> {
    offsets: &'a [u32],
    targets: &'a [u32],
}

impl Conflicts<'_> {
    /// Earlier candidates in conflict with candidate `i`.
    pub(crate) fn earlier(&self, i: usize) -> &[u32] {
        &self.targets[self.offsets[i] as usize..self.offsets[i + 1] as usize]
    }

    /// Number of edges.
    pub(crate) fn edges(&self) -> u64 {
        self.targets.len() as u64
    }
}

/// Builds the graph of the candidates whose rows lie in `scratch.rows`, in order of priority. Costs n(n-1)/2 distance
/// evaluations for n candidates.
pub(crate) fn conflicts<'a>(
    kernel: Kernel,
    dim: usize,
    level: Level,
    scratch: &'a mut Scratch,
) -> Conflicts<'a> {
    let Scratch { rows, sums, offsets, targets, .. } = scratch;
    let reach = level.pow4();
    offsets.clear();
    targets.clear();
    offsets.push(0);
    for (i, row) in rows.chunks_exact(dim).enumerate() {
        sums.clear();
        sums.resize(i, 0.0);
        kernel.sums(row, &rows[..i * dim], sums);
        targets.reserve(sums.iter().filter(|&&s| s <= reach).count());
        targets.extend((0..i as u32).filter(|&j| sums[j as usize] <= reach));
        offsets.push(targets.len() as u32);
    }
    Conflicts { offsets, targets }
}
