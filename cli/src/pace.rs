//! How many queries are answered at once: as many as a moment is enough for, so that a signal is
//! soon heard, whatever a query costs. Answers do not depend on it.

use std::time::{Duration, Instant};

/// Queries of the first piece.
const FIRST: usize = 64;

/// A piece that takes longer is halved, and one that takes a quarter of it doubled.
const MOMENT: Duration = Duration::from_millis(200);

/// The pieces of a run of queries.
pub(super) struct Pace {
    piece: usize,
    most: usize,
    begin: Instant,
}

impl Pace {
    /// Pieces of at most `most` queries, which is at least one.
    pub(super) fn new(most: usize) -> Self {
        let most = most.max(1);
        Pace { piece: most.min(FIRST), most, begin: Instant::now() }
    }

    /// Queries that the next piece may have.
    pub(super) fn rows(&self) -> usize {
        self.piece
    }

    /// The queries of the piece are there; they are answered from now on.
    pub(super) fn start(&mut self) {
        self.begin = Instant::now();
    }

    /// A piece of `rows` queries has been answered.
    pub(super) fn end(&mut self, rows: usize) {
        self.after(rows, self.begin.elapsed());
    }

    fn after(&mut self, rows: usize, took: Duration) {
        if took > MOMENT {
            self.piece = (self.piece / 2).max(1);
        } else if rows == self.piece && took < MOMENT / 4 {
            self.piece = (self.piece * 2).min(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_what_they_cost() {
        let mut pace = Pace::new(1000);
        let fast = Duration::from_millis(1);
        assert_eq!(pace.rows(), 64);
        for expected in [128, 256, 512, 1000, 1000] {
            pace.after(pace.piece, fast);
            assert_eq!(pace.rows(), expected);
        }
        pace.after(10, fast);
        assert_eq!(pace.rows(), 1000, "no more came");
        for _ in 0..20 {
            pace.after(pace.piece, Duration::from_secs(1));
        }
        assert_eq!(pace.rows(), 1);
        assert_eq!(Pace::new(0).rows(), 1);
    }
}
