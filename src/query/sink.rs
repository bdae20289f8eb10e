//! What walks and scans end in: a sink says how far it still reaches, and takes what is found.
//!
//! Any walk works with any sink. What is too far is left out by the walk, as far as it can tell; a
//! sink keeps of the rest what belongs to its answer.

use super::sum_limit;
use crate::space::Near;
use crate::tree::columns::{Range, Tree};
use crate::values::error::ReadError;

/// Takes the points that a walk or a scan comes upon.
pub(crate) trait Sink {
    /// What a point must not exceed. It never grows.
    fn bound(&self) -> Reach;

    /// The distance that a point must not exceed.
    #[inline]
    fn reach(&self) -> f32 {
        self.bound().distance
    }

    /// The sum of squares that a point must not exceed. It may let a few more through.
    #[inline]
    fn sum_limit(&self) -> f32 {
        self.bound().sum_limit
    }

    /// Takes those of some slots, at their distances, that belong to the answer so far. Those that
    /// are not admitted are struck out.
    fn offer_all(&mut self, tree: &Tree, found: &mut Vec<Near>) -> Result<(), ReadError>;

    /// Takes those of some slots, all at one distance and by ascending id, that belong to the
    /// answer so far.
    fn offer_twins(&mut self, tree: &Tree, distance: f32, twins: Range) -> Result<(), ReadError>;

    /// Takes a subtree that lies wholly within reach; false if it must be walked through.
    fn offer_subtree(&mut self, _tree: &Tree, _node: u32) -> Result<bool, ReadError> {
        Ok(false)
    }

    /// Asks for what it will read in the end, when most of what it has is likely to stay.
    fn prefetch(&self, _tree: &Tree) {}
}

/// Which slots an answer may have: those of live points. Every sink asks it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Admission {
    /// Every slot of the tree is live, so that none need be looked up.
    all: bool,
}

impl Admission {
    /// Of a tree with so many live points.
    pub(super) fn new(tree: &Tree, live: u64) -> Self {
        Admission { all: live == u64::from(tree.slots()) }
    }

    #[inline]
    pub(super) fn admits(self, tree: &Tree, slot: u32) -> Result<bool, ReadError> {
        Ok(self.all || tree.is_live(slot)?)
    }

    /// Strikes out what is not admitted.
    #[inline]
    pub(super) fn retain(self, tree: &Tree, found: &mut Vec<Near>) -> Result<(), ReadError> {
        if self.all { Ok(()) } else { retain_live(tree, found) }
    }
}

#[cold]
#[inline(never)]
fn retain_live(tree: &Tree, found: &mut Vec<Near>) -> Result<(), ReadError> {
    let mut kept = 0;
    for i in 0..found.len() {
        if tree.is_live(found[i].number())? {
            found[kept] = found[i];
            kept += 1;
        }
    }
    found.truncate(kept);
    Ok(())
}

/// The reach of a sink, as a distance and as a sum of squares.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reach {
    pub(super) distance: f32,
    pub(super) sum_limit: f32,
}

impl Reach {
    #[inline]
    pub(super) fn new(distance: f32) -> Self {
        Reach { distance, sum_limit: sum_limit(distance) }
    }
}
