//! The canonical sum and distance, one component at a time: the definition, and the oracle of every
//! test.
//!
//! Not fast, and not meant to be: nothing but tests and very short rows should come here. Every
//! kernel of this folder returns these bits.
//!
//! Invariants, cited by number elsewhere in this folder:
//!
//! - **M1 order**: lane j of sixteen adds up components j, j + 16, j + 32, ... in that order,
//!   starting from 0. The lanes are then halved: 16 to 8, 8 to 4, 4 to 2, 2 to 1, lane i taking in
//!   lane i + half.
//! - **M2 rounding**: each difference, square and addition is rounded to `f32` on its own. Nothing
//!   is fused and nothing is flushed to zero.
//! - **M3 zeros**: every term is at least +0, so adding a lane that holds no component changes no
//!   bit. Kernels may pad rows with zeros, or skip the lanes past the end.
//! - **M4 monotone**: every term is at least +0 and rounding is monotone, so leaving terms out
//!   never makes s larger.

/// Number of lanes of the canonical sum.
pub(crate) const LANES: usize = 16;

/// s: the canonical sum of squared differences of two rows of equal length.
///
/// # Panics
///
/// If the lengths differ.
#[cfg(test)]
pub(crate) fn sum(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "rows of one sum have one length");
    let mut lanes = [0.0_f32; LANES];
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        let difference = x - y;
        lanes[i % LANES] += difference * difference;
    }
    tree(lanes)
}

/// Most components of a row whose sum is taken where it is wanted: a call of a vector kernel costs
/// more.
pub(super) const SHORT: usize = 4;

/// s of rows of at most [`SHORT`] components: of the halving tree only what adds more than zeros
/// (M3).
#[inline]
pub(super) fn short_sum(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; SHORT];
    for (lane, (x, y)) in lanes.iter_mut().zip(a.iter().zip(b)) {
        let difference = x - y;
        *lane = difference * difference;
    }
    (lanes[0] + lanes[2]) + (lanes[1] + lanes[3])
}

/// The four-level halving tree of M1.
#[inline(always)]
pub(crate) fn tree(mut lanes: [f32; LANES]) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}

/// The canonical Euclidean distance of two rows whose canonical sum is `sum`.
#[inline]
pub(crate) fn distance(sum: f32) -> f32 {
    sum.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_sums() {
        assert_eq!(sum(&[], &[]).to_bits(), 0);
        assert_eq!(sum(&[1.0, 2.0, 3.0], &[1.0, 0.0, 0.0]), 13.0);
        assert_eq!(distance(sum(&[3.0, 0.0], &[0.0, 4.0])), 5.0);
        assert_eq!(sum(&[-0.0], &[0.0]).to_bits(), 0, "a zero sum is +0");
    }

    #[test]
    fn order_is_by_lane_then_by_halves() {
        // Worked by hand: in a lane the large term comes first and swallows two halves of its last
        // place one by one; in the tree lanes 0 and 8 meet before lane 1.
        let big = 4096.0_f32; // its square is 2^24, where the spacing of f32 is 2
        let mut a = vec![0.0_f32; 48];
        (a[0], a[16], a[32]) = (big, 1.0, 1.0);
        assert_eq!(sum(&a, &[0.0; 48]), big * big);
        let mut a = vec![0.0_f32; 16];
        (a[0], a[1], a[9]) = (big, 1.0, 1.0);
        assert_eq!(sum(&a, &[0.0; 16]), big * big + 2.0);
        let mut a = vec![0.0_f32; 16];
        (a[0], a[8], a[1]) = (big, 1.0, 1.0);
        assert_eq!(sum(&a, &[0.0; 16]), big * big);
    }

    #[test]
    fn subnormal_squares_survive() {
        let x = 2.0_f32.powi(-74);
        assert_eq!(sum(&[x], &[0.0]).to_bits(), 2, "2^-148 is two units of the least subnormal");
    }
}
