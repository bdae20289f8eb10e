//! Exact answers from one version: nearest neighbours and balls, from the tree or by a full scan,
//! with the same bits.
//!
//! Nothing here writes, and nothing here is imported by [`crate::insert`].

mod ahead;
pub(crate) mod auto;
pub(crate) mod ball;
pub(crate) mod batch;
pub(crate) mod brute;
mod equal_rows;
mod k_best;
pub(crate) mod knn;
mod refine;
mod scan;
mod sink;
mod sorted_list;
pub(crate) mod walk;

use crate::values::ids::PointId;

/// A point found, and how far it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbor {
    /// The point's id.
    pub id: PointId,
    /// Canonical distance from the query, in the metric's own unit (not squared).
    pub distance: f32,
}

impl Neighbor {
    /// The total order of answers: distance, then id.
    pub(crate) fn order(&self, other: &Neighbor) -> std::cmp::Ordering {
        self.distance.total_cmp(&other.distance).then(self.id.cmp(&other.id))
    }
}

/// Largest sum of squares whose rounded root can be at most `distance`: a filter that spares the
/// root of most rows. It lets a little more through; the caller compares distances.
///
/// If the f32 root of s is at most t, then s <= t^2 (1 + 2^-23) to first order. The product below
/// is at least that: its factor exceeds 1 + 2^-20, and 2^-147 covers rounding where t^2 is
/// subnormal.
pub(crate) fn sum_limit(distance: f32) -> f32 {
    const MARGIN: f32 = 1.0 + 1.0 / (1 << 19) as f32;
    const TINY: f32 = f32::from_bits(4);
    distance * distance * MARGIN + TINY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_never_cuts_a_sum_with_an_admissible_root() {
        let mut bits = 1u32;
        while bits < f32::INFINITY.to_bits() {
            let s = f32::from_bits(bits);
            let t = s.sqrt();
            assert!(s <= sum_limit(t), "{s:e}");
            assert!(s.next_up().sqrt() > t || s.next_up() <= sum_limit(t));
            bits += 40_503;
        }
        for tiny in 0..5000 {
            let s = f32::from_bits(tiny);
            assert!(s <= sum_limit(s.sqrt()));
        }
        assert_eq!(sum_limit(f32::INFINITY), f32::INFINITY);
    }
}
