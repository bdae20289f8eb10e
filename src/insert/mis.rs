//! Stage: the lexicographically first maximal independent set of a conflict graph.

use super::conflict::Conflicts;

/// Indices of the winners, ascending: a candidate wins unless an earlier winner conflicts with it. This is what a
/// sequential greedy choice in order of priority gives.
pub(crate) fn maximal_independent_set(candidates: usize, conflicts: &Conflicts<'_>) -> Vec<u32> {
    let mut wins = vec![false; candidates];
    for i in 0..candidates {
        wins[i] = !conflicts.earlier(i).iter().any(|&j| wins[j as usize]);
    }
    (0..candidates as u32).filter(|&i| wins[i as usize]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::insert::conflict::conflicts;
    use crate::insert::scratch::Scratch;
    use crate::metric::{Kernel, Level};

    #[test]
    fn winners_are_those_of_the_sequential_greedy() {
        // On a line, with reach 1.
        let rows = vec![0.0, 0.5, 1.5, 1.0, 3.0, 2.25];
        let mut scratch = Scratch { rows, ..Scratch::default() };
        let graph = conflicts(Kernel::best(), 1, Level::new(0), &mut scratch);
        assert_eq!(graph.edges(), 7);
        assert_eq!(graph.earlier(3), [0, 1, 2]);
        assert_eq!(maximal_independent_set(6, &graph), [0, 2, 4]);
    }
}
