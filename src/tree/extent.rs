//! The box of a subtree: between which bounds each coordinate of its points lies.
//!
//! Boxes are kept for up to [`MAX_BOX_DIM`] dimensions, where they bound more closely than balls.
//! They lie in groups of [`BOX_GROUP`] node numbers, one node to a lane, so that a query is put to
//! the boxes of siblings sixteen at a time.

use crate::format::arrays;
use crate::space::{BOX_GROUP, MAX_BOX_DIM};

const _: () = assert!(BOX_GROUP == arrays::BOX_GROUP, "the file has the groups that kernels read");

/// Bounds of up to [`MAX_BOX_DIM`] coordinates; those that a point does not have are never looked
/// at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Extent {
    low: [f32; MAX_BOX_DIM],
    high: [f32; MAX_BOX_DIM],
}

/// The row of the boxes in which a node's is, and its lane.
pub(crate) fn place(node: u32) -> (u64, usize) {
    (node as u64 / BOX_GROUP as u64, node as usize % BOX_GROUP)
}

impl Extent {
    /// Around nothing.
    pub(crate) const EMPTY: Extent =
        Extent { low: [f32::INFINITY; MAX_BOX_DIM], high: [f32::NEG_INFINITY; MAX_BOX_DIM] };

    /// Grows so as to hold a point.
    pub(crate) fn include(&mut self, point: &[f32]) {
        for ((low, high), &x) in self.low.iter_mut().zip(&mut self.high).zip(point) {
            *low = low.min(x);
            *high = high.max(x);
        }
    }

    /// Grows so as to hold another box.
    pub(crate) fn merge(&mut self, other: &Extent) {
        for c in 0..MAX_BOX_DIM {
            self.low[c] = self.low[c].min(other.low[c]);
            self.high[c] = self.high[c].max(other.high[c]);
        }
    }

    pub(crate) fn covers(&self, point: &[f32]) -> bool {
        let bounds = self.low.iter().zip(&self.high).zip(point);
        bounds.fold(true, |inside, ((low, high), x)| inside & (low <= x) & (x <= high))
    }

    /// The box in a lane of a group, `[2 x dim][BOX_GROUP]`.
    pub(crate) fn read(group: &[f32], lane: usize) -> Self {
        let dim = group.len() / (2 * BOX_GROUP);
        let mut extent = Extent::EMPTY;
        for c in 0..dim {
            extent.low[c] = group[c * BOX_GROUP + lane];
            extent.high[c] = group[(dim + c) * BOX_GROUP + lane];
        }
        extent
    }

    /// Puts the box into a lane of a group.
    pub(crate) fn write(&self, group: &mut [f32], lane: usize) {
        let dim = group.len() / (2 * BOX_GROUP);
        for c in 0..dim {
            group[c * BOX_GROUP + lane] = self.low[c];
            group[(dim + c) * BOX_GROUP + lane] = self.high[c];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_hold_what_was_written() {
        let mut group = vec![0.0; 2 * 3 * BOX_GROUP];
        let mut extent = Extent::EMPTY;
        extent.include(&[1.0, -2.0, 3.0]);
        extent.include(&[0.0, 5.0, 3.0]);
        extent.write(&mut group, 7);
        assert_eq!(Extent::read(&group, 7), extent);
        assert!(extent.covers(&[0.5, 5.0, 3.0]) && !extent.covers(&[0.5, 5.0, 3.5]));
        let mut other = Extent::EMPTY;
        assert!(!other.covers(&[0.0, 0.0, 0.0]));
        other.merge(&extent);
        assert_eq!(other, extent);
        other.merge(&Extent::EMPTY);
        assert_eq!(other, extent);
        assert_eq!(place(35), (2, 3));
    }
}
