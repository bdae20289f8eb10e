//! Columns as a compressed cover tree.
//!
//! Every point is stored once, in the *bucket* or the *twin list* of one node; nodes route. A
//! node's center is a copy of some point's coordinates and only a signpost: it is never reported,
//! so deleting points never breaks routing. Levels are integers, negative ones too, and fall along
//! every path; the base is 2.
//!
//! Invariants ("nearer" means a strictly smaller s, the canonical sum of squares). [`check`]
//! verifies them all.
//!
//! - **T1 root**: every point is within 2^l(root) of the root's center. l(root) is the largest
//!   level(s) + 1 of any batch since the center was chosen.
//! - **T2 cover**: a child c of p has l(c) < l(p) and d(c,p) <= 2^(l(c)+1). A point in p's bucket
//!   is within 2^l(p) of p.
//! - **T3 separation**: children a, b of p are farther apart than 2^min(l(a),l(b)), and a child c
//!   is farther than 2^l(c) from p.
//! - **T4 nearest**: a point in p's bucket is not nearer to a child of p that covers it (d <=
//!   2^l(child)) than to p.
//! - **T5 bound**: radius(p) is at least the canonical distance from p's center to every point of
//!   its subtree, and the own radius to every point of its bucket.
//! - **T6 capacity**: a bucket holds at most `leaf_capacity` - 1 rows (the center's own point makes
//!   up the rest), or flat_capacity(p) if p is flat. Tombstones count. Twins, rows with s = 0, do
//!   not: they lie in a list of their own.
//! - **T7 count**: every live point is in exactly one bucket or twin list, and counts add up along
//!   the tree.
//! - **T8 box**: up to [`crate::space::MAX_BOX_DIM`] dimensions, every live point of a subtree is
//!   in its box.
//!
//! Separation holds among siblings only, as in Izbicki & Shelton, "Faster cover trees" (ICML 2015).
//! Elkin & Kurlin's Definition 2.1 ("A new near-linear time algorithm for k-nearest neighbor search
//! using a compressed cover tree", ICML 2023) asks it of all nodes of a level. Keeping that costs
//! about ten times the distance evaluations to build and answers no faster, so we do not, and do
//! not claim their complexity bounds. Exactness does not depend on it.

pub(crate) mod check;
pub(crate) mod columns;
pub(crate) mod extent;
pub(crate) mod id_index;
mod sharing;
pub(crate) mod visit_limit;

use crate::space::Level;

/// Least and greatest level of a node, and the row of `level_counts` that belongs to a level.
pub(crate) const LEVELS: std::ops::RangeInclusive<i16> = -75..=64;

/// The level that the root needs to cover a point at this sum of squares (T1).
pub(crate) fn root_level(sum: f32) -> Level {
    match sum > 0.0 {
        true => Level::of_sum(sum).next_up(),
        false => Level::MIN,
    }
}

/// The row of `level_counts` that counts the nodes of a level; `None` for a level that no node can
/// have.
pub(crate) fn level_row(level: i16) -> Option<u64> {
    LEVELS.contains(&level).then(|| (level - LEVELS.start()) as u64)
}
