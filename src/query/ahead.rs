//! A scan that keeps ahead of itself: where pages have to be read again, it asks for the next rows
//! while it looks at some.

use crate::arena::pressure::Pressure;
use crate::tree::columns::Tree;

/// Bytes of rows asked for at a time, and looked at in one step.
const STEP_BYTES: usize = 256 * 1024;

/// Steps that the asking is ahead.
const STEPS_AHEAD: u64 = 4;

/// How far a scan has come.
pub(super) struct Ahead {
    pressure: Pressure,
    step_rows: u64,
    /// Row at which the next step begins.
    next: u64,
    /// Rows before this one have been asked for, or are not worth it.
    asked: u64,
}

impl Ahead {
    pub(super) fn new(tree: &Tree) -> Self {
        let step_rows = (STEP_BYTES / (4 * tree.dim)).max(1) as u64;
        Ahead { pressure: Pressure::default(), step_rows, next: 0, asked: 0 }
    }

    /// Notes that the scan has come to `row`.
    #[inline]
    pub(super) fn reach(&mut self, tree: &Tree, row: u64) {
        if row >= self.next {
            self.next = row + self.step_rows;
            self.pressure.step();
            if self.pressure.is_felt() {
                let (from, to) = (self.asked.max(row), self.next + STEPS_AHEAD * self.step_rows);
                tree.coordinates.will_need(from, to.saturating_sub(from));
                self.asked = to;
            }
        }
    }
}
