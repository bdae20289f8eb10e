//! What a build of more points than fit into memory may spend.
//!
//! The rule is that of [`crate::insert::credit`], with one account for the whole build, because
//! points are placed one neighbourhood after the other: n c(n) evaluations to begin with, of which
//! every point that is not placed yet has an equal part. Work on m points is charged beforehand,
//! and to the part of m points:
//!
//! - the split of a sample, of what is a node's own, or of what fits into memory, by its credit;
//! - a pass over points that locates them again, by what [`Top`](super::top::Top) has to look at
//!   for each.
//!
//! A node whose part does not pay for further children closes. Only one thing cannot be refused:
//! before points are placed they are read once more, and compared with the centers on their path,
//! for the radii. That is held back, at most [`MOST_DEPTH`] + 1 for each. Where there is no more
//! than that, points stay with the child that they were handed to, even if a later one is nearer,
//! and win no children: T1 to T8 do not ask for more.
//!
//! So no more is ever spent than n c(n). What is spent was charged beforehand, either to a part of
//! what is left beyond what is held back for all, or, once for each point, to what is held back for
//! it: after that the part of these points is nothing or more, they are placed, and nothing is held
//! back for them.

use crate::insert::credit::Credit;

/// Nodes of the top lie at most so deep. Deeper ones are split in memory, or closed.
pub(super) const MOST_DEPTH: usize = 62;

/// What each point that is not placed will cost for certain.
const HELD_BACK: u64 = MOST_DEPTH as u64 + 2;

/// What is left, and for how many points.
pub(super) struct Account {
    evaluations: u64,
    unplaced: u64,
    breadth: u64,
}

impl Account {
    pub(super) fn of_build(points: u64) -> Self {
        let Credit { evaluations, breadth } = Credit::of_build(points);
        Account { evaluations, unplaced: points, breadth }
    }

    /// The part of so many points that are not placed yet.
    pub(super) fn part(&self, points: u64) -> Credit {
        let free = self.evaluations.saturating_sub(HELD_BACK * self.unplaced);
        let part = u128::from(free) * u128::from(points) / u128::from(self.unplaced.max(1));
        Credit { evaluations: part as u64, breadth: self.breadth }
    }

    /// Takes what was spent.
    pub(super) fn pay(&mut self, spent: u64) {
        debug_assert!(spent <= self.evaluations, "{spent} of {}", self.evaluations);
        self.evaluations = self.evaluations.saturating_sub(spent);
    }

    /// Notes points that have got their place.
    pub(super) fn place(&mut self, points: u64) {
        self.unplaced = self.unplaced.saturating_sub(points);
    }
}
