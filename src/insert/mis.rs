//! Stage: the lexicographically first maximal independent set of a conflict graph.

use super::conflict::Conflicts;

/// Places of the winners in the block, ascending: a candidate wins unless an earlier winner
/// conflicts with it. This is what a sequential greedy choice in order of priority gives.
pub(crate) fn maximal_independent_set(conflicts: &Conflicts) -> impl Iterator<Item = usize> {
    let mut winners = 0_u64;
    conflicts.left().enumerate().filter_map(move |(i, (place, earlier))| {
        let wins = earlier & winners == 0;
        winners |= u64::from(wins) << i;
        wins.then_some(place)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::insert::conflict::conflicts;
    use crate::insert::scratch::Scratch;
    use crate::space::{Kernel, Level};

    #[test]
    fn winners_are_those_of_the_sequential_greedy() {
        // On a line, with reach 1, and a winner of an earlier block at -1.
        let block = [-0.5, 0.5, 1.0, 2.0, 1.5, 3.5, 2.75, 0.25];
        let mut scratch = Scratch { centers: vec![-1.0], ..Scratch::default() };
        let graph = conflicts(Kernel::best(), 1, Level::new(0), &block, &mut scratch);
        let left: Vec<(usize, u64)> = graph.left().collect();
        let expected = [(1, 0), (2, 0b1), (3, 0b10), (4, 0b111), (5, 0), (6, 0b10100), (7, 0b11)];
        assert_eq!(left, expected);
        assert_eq!(graph.edges, 1 + 1 + 1 + 3 + 2 + 2);
        assert_eq!(maximal_independent_set(&graph).collect::<Vec<_>>(), [1, 3, 5]);
    }
}
