//! Rounding slack: how far a computed distance may be from the true one, and why pruning stays
//! exact all the same.
//!
//! Not the pruning itself. B1 and B2 take *computed* canonical distances, as f32, and reason about
//! computed distances; B3 takes sums that kernels add up in another order, of some components or of
//! the gaps to a box, and B4 bytes.
//!
//! # What is proved
//!
//! Write d for true distances and d^ for computed ones (the f32 root of the canonical sum s). Let c
//! be a center, q a query, x a point below c, D = d^(q,c), R a stored radius, R >= d^(c,x), and t
//! any computed distance, or infinity.
//!
//! - **B1 excludes**: if D(1-K) - R - b > t, then d^(q,x) > t.
//! - **B2 includes**: if (D+R)(1+K) + b <= t, then d^(q,x) <= t.
//! - **B3 filters**: let f be a sum of the squared differences of some components, or of lower
//!   bounds of their magnitudes, in any order, each square and its addition rounded together or
//!   apart. If f > L(1+F) + c, then the canonical sum s of the whole rows is above L. F = (n +
//!   ceil(n/16) + 10) 2^-23, c = n 2^-147.
//! - **B4 cells**: let the rows lie on a grid (`grid.rs`) of g cells per unit, and let b_x and b_q
//!   be the cells of x and of q in some components. With r the computed sum of the squared
//!   residuals of a row, over those components at least, and E(r) = sqrt(r) (1 + (n+10) 2^-24) +
//!   sqrt(n) 2^-14: if |b_q - b_x| > g (t(1+K) + b) + E(r_q) + E(r_x), then d^(q,x) > t.
//!
//! with K = (ceil(n/16) + 10) 2^-24 and b = sqrt(n) 2^-73, for n <= [`MAX_DIM`] and rows in the
//! domain (`domain.rs`), where nothing overflows: a difference is at most 2^63 / sqrt(n), so s <=
//! 2^126 (1 + tiny).
//!
//! # Error of one computed distance
//!
//! u = 2^-24, m = ceil(n/16) <= 4096. In f32, additions and subtractions err by a factor (1+e), |e|
//! <= u, even among subnormals, where they are exact; a product errs by such a factor or, where it
//! underflows, by an absolute h, |h| <= 2^-150; a root never underflows and errs by a factor.
//!
//! 1. A term fl(fl(a-b)^2) is (a-b)^2 (1+e)^2 (1+e') + h: three factors.
//! 2. It then passes at most m - 1 additions of its lane (the first, to 0, is exact) and 4 of the
//!    tree: m + 3 factors.
//! 3. So s is the sum of (a-b)^2 times m + 6 factors each, plus at most n 2^-150 (1+u)^(m+3).
//! 4. The root halves the exponents and adds a factor. With g = m/2 + 4, and sqrt(x) - sqrt(y) <=
//!    sqrt(x -+ y) <= sqrt(x) + sqrt(y) to split off the absolute part (read the left side as 0
//!    where it is negative),
//!
//!    d (1-u)^g - beta <= d^ <= d (1+u)^g + beta, beta = sqrt(n) 2^-75 (1+u)^((m+5)/2) <= sqrt(n)
//!    2^-75 (1 + 2^-12).
//!
//! 5. g u <= 2052 * 2^-24 < 2^-12.9, so (1+u)^g <= 1 + g u + (g u)^2 with (g u)^2 < u/3, and
//!    (1-u)^g >= 1 - g u. Hence, with k = (g + 1/3) u:
//!
//!    **d (1-k) - beta <= d^ <= d (1+k) + beta.**
//!
//! # B1
//!
//! d(q,c) >= (D - beta)/(1+k) and d(c,x) <= (R + beta)/(1-k), so by the triangle inequality
//!
//! d^(q,x) >= (1-k) (d(q,c) - d(c,x)) - beta >= D (1-k)/(1+k) - R - 3 beta >= D (1 - 2k) - R - 3
//! beta.
//!
//! 2k = (m + 8 + 2/3) u, which is K less 4/3 u; 3 beta < 4 sqrt(n) 2^-75 = b. So exactly D(1-K) -
//! R - b is below d^(q,x) by at least 4/3 u D. Evaluated in f64 (which holds every f32), the three
//! operations and K itself err by less than 2^-50 D altogether when R <= D, far inside that; when
//! R > D the computed value is at most 0 and excludes nothing.
//!
//! # B2
//!
//! d^(q,x) <= (1+k) (d(q,c) + d(c,x)) + beta <= (D + R + 2 beta) (1+k)/(1-k) + beta. Since
//! (1+k)/(1-k) = 1 + 2k + 2k^2/(1-k) and 2k^2/(1-k) < 0.6 u, the factor is below 1 + (m + 9.3) u <
//! 1 + K, by 0.7 u (D+R), which again covers the f64 rounding; and 3.01 beta < b.
//!
//! # B3
//!
//! Let P be the exact sum of what f sums up, and T >= P that of all squared differences. A term of
//! f passes at most n - 1 additions and has three factors of its own (fewer if fused), so f <= P
//! (1+u)^(n+2) + n 2^-150 (1+u)^(n+2); by 3. above, s >= T (1-u)^(m+6) - n 2^-150. Hence s >= f
//! (1 - (n+m+8) u) - 3 n 2^-150. If f > L(1+F) + c with F = 2 (n+m+10) u < 2^-6.8, then (1+F)(1 -
//! (n+m+8) u) > 1, because F - (n+m+8) u (1+F) > 0 as long as F < 1, with more to spare than the
//! few roundings of the limit take; and what c adds, c (1 - F/2) > n 2^-148, exceeds 3 n 2^-150. So
//! s > L.
//!
//! # B4
//!
//! In units of cells, a component x with origin o has the place p = (x - o) g and the computed
//! residual r^ = fl(p^ - c), p^ = fl(fl(x - o) g), c its cell, |p| <= |p - c| + 255. Two factors
//! lie between p and p^, and one more before r^, so |r^ - (p - c)| <= 2.01 u |p| + 1.01 u |p^ - c|
//! <= 3.1 u |p - c| + 513 u, underflow included. Hence |p - c| <= (|r^| + 513 u)(1 + 3.2 u). The
//! sum of the r^2 errs by at most n + 2 factors, so the norm of p - c over the components is at
//! most sqrt(r) (1 + (n+3) u / 2 (1 + 2^-8)) (1 + 3.2 u) + sqrt(n) 514 u <= E(r). An infinite r
//! says nothing.
//!
//! If d^(q,x) <= t then d(q,x) <= (t + beta)/(1-k) <= t(1+K) + b, since k/(1-k) < K and beta/(1-k)
//! < b (error of one distance, above). The places of q and x over some components are at most g
//! d(q,x) apart, those of a row and its cells at most E; the triangle inequality does the rest. The
//! f64 roundings of the right side are covered by a factor 1 + 2^-40.

use crate::values::options::MAX_DIM;
use crate::values::seeded_bug::SeededBug;

/// The slack of one dimension.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slack {
    /// K of the proof.
    relative: f64,
    /// b of the proof, in units of distance.
    absolute: f64,
    /// 1 + F and c of B3.
    filter: (f64, f64),
    /// 1 + (n+10) 2^-24 and sqrt(n) 2^-14 of B4.
    cells: (f64, f64),
}

impl Slack {
    /// # Panics
    ///
    /// If `dim` is above [`MAX_DIM`].
    pub(crate) fn new(dim: usize) -> Self {
        assert!(dim <= MAX_DIM, "at most {MAX_DIM} dimensions");
        if SeededBug::DropSlack.is_planted() {
            return Self { relative: 0.0, absolute: 0.0, filter: (1.0, 0.0), cells: (1.0, 0.0) };
        }
        Self {
            relative: (dim.div_ceil(16) + 10) as f64 * 2.0_f64.powi(-24),
            absolute: (dim as f64).sqrt() * 2.0_f64.powi(-73),
            filter: (
                1.0 + (dim + dim.div_ceil(16) + 10) as f64 * 2.0_f64.powi(-23),
                dim as f64 * 2.0_f64.powi(-147),
            ),
            cells: (
                1.0 + (dim + 10) as f64 * 2.0_f64.powi(-24),
                (dim as f64).sqrt() * 2.0_f64.powi(-14),
            ),
        }
    }

    /// A number that no computed distance from the query to a point of the subtree is below. May be
    /// negative.
    ///
    /// `center`: computed distance from the query to the subtree's center. `radius`: the stored
    /// radius.
    #[inline]
    pub(crate) fn lower_bound(self, center: f32, radius: f32) -> f64 {
        f64::from(center) * (1.0 - self.relative) - f64::from(radius) - self.absolute
    }

    /// A sum of squares to the center above which [`Slack::excludes`] holds for certain: a cheap
    /// first look that needs no root.
    ///
    /// If D(1-K) <= t + R + b then the sum s whose rounded root is D has s <= (t+R+b)^2 (1-K)^-2
    /// (1+2^-23) to first order. With K <= 4106 * 2^-24 the last two factors are below 1 + 5 *
    /// 10^-4; the margin covers them and the f32 rounding of the product, and the last term
    /// rounding where the square is subnormal.
    #[inline]
    pub(crate) fn sum_reach(self, radius: f32, t: f32) -> f32 {
        let (reach, factor, more) = self.reach_terms(t);
        let reach = radius + reach;
        reach * reach * factor + more
    }

    /// [`Slack::sum_reach`] in parts: with (reach, factor, more), factor (radius + reach)^2 + more.
    #[inline]
    pub(crate) fn reach_terms(self, t: f32) -> (f32, f32, f32) {
        const MARGIN: f32 = 1.001;
        const TINY: f32 = f32::from_bits(4);
        (t + self.absolute as f32, MARGIN, TINY)
    }

    /// A filter sum above this proves that the canonical sum is above `sum` (B3). Infinities stay
    /// what they are.
    #[inline]
    pub(crate) fn filter_limit(self, sum: f32) -> f32 {
        let (factor, more) = self.filter;
        ((f64::from(sum) * factor + more) as f32).next_up()
    }

    /// A true distance that no point at computed distance `t` or nearer is beyond. Infinity stays
    /// what it is.
    #[inline]
    pub(crate) fn true_distance(self, t: f32) -> f64 {
        f64::from(t) * (1.0 + self.relative) + self.absolute
    }

    /// E of B4.
    #[inline]
    pub(super) fn cell_error(self, residual: f32) -> f64 {
        let (relative, absolute) = self.cells;
        f64::from(residual).sqrt() * relative + absolute
    }

    /// Whether no point of the subtree is at computed distance `t` or nearer (B1).
    #[inline]
    pub(crate) fn excludes(self, center: f32, radius: f32, t: f32) -> bool {
        self.lower_bound(center, radius) > f64::from(t)
    }

    /// Whether every point of the subtree is at computed distance `t` or nearer (B2).
    #[inline]
    pub(crate) fn includes(self, center: f32, radius: f32, t: f32) -> bool {
        (f64::from(center) + f64::from(radius)) * (1.0 + self.relative) + self.absolute
            <= f64::from(t)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::domain_limit;
    use crate::space::scalar;
    use crate::space::tests::Random;

    fn computed(a: &[f32], b: &[f32]) -> f32 {
        scalar::distance(scalar::sum(a, b))
    }

    fn exact(a: &[f32], b: &[f32]) -> f64 {
        let squares = a.iter().zip(b).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2));
        squares.sum::<f64>().sqrt()
    }

    #[test]
    fn one_distance_errs_no_more_than_proved() {
        let mut random = Random(1);
        let mut worst = 0.0_f64;
        for dim in [1_usize, 2, 3, 4, 8, 16, 17, 33, 100, 128, 784, 4096] {
            let g = dim.div_ceil(16) as f64 / 2.0 + 4.0;
            let k = (g + 1.0 / 3.0) * 2.0_f64.powi(-24);
            let beta = (dim as f64).sqrt() * 2.0_f64.powi(-75) * (1.0 + 2.0_f64.powi(-12));
            for scale in [1.0, 1e15, 1e-15, 1e-19, 1e-21, 1e-22, 3e-23, 1e-30] {
                for _ in 0..20 {
                    let a = random.uniform(dim, scale);
                    let b = random.uniform(dim, scale);
                    let d = exact(&a, &b);
                    let error = (f64::from(computed(&a, &b)) - d).abs();
                    // The oracle itself errs by a few thousand units of 2^-53.
                    let allowed = (k + 1e-12) * d + beta;
                    assert!(error <= allowed, "dim {dim} scale {scale:e}: {error:e} > {allowed:e}");
                    worst = worst.max(error / allowed);
                }
            }
        }
        assert!(worst > 0.1, "the data come near the bound: {worst}");
    }

    /// Checks B1, B2 and consistency on one triple; returns whether pruning without slack would be
    /// wrong.
    fn check_triple(slack: Slack, q: &[f32], c: &[f32], x: &[f32]) -> bool {
        let (center, own, t) = (computed(q, c), computed(c, x), computed(q, x));
        assert!(!slack.excludes(center, own, t), "{q:?} {c:?} {x:?}");
        assert!(slack.lower_bound(center, own) <= f64::from(t));
        let sum = super::super::scalar::sum(q, c);
        assert!(sum <= slack.sum_reach(own, t), "the first look cuts what the bound keeps");
        if t > 0.0 {
            assert!(!slack.includes(center, own, t.next_down()));
        }
        assert!(!slack.excludes(center, own, f32::INFINITY));
        assert!(slack.includes(center, own, f32::INFINITY));
        let (center, own, t) = (f64::from(center), f64::from(own), f64::from(t));
        center - own > t || own - center > t
    }

    #[test]
    fn without_slack_a_near_point_would_be_lost() {
        // The squares of 2^-74 and 0.75 * 2^-74 are 2 and 1.125 units of the least subnormal, that
        // of 2^-76 is a quarter of one: x counts as equal to q, yet c seems farther from q than
        // from x.
        let unit = 2.0_f32.powi(-76);
        let (q, c, x) = ([0.0], [4.0 * unit], [unit]);
        assert_eq!(computed(&q, &x), 0.0);
        assert!(computed(&q, &c) - computed(&c, &x) > 0.0);
        assert!(check_triple(Slack::new(1), &q, &c, &x));

        // At ordinary scales a near-duplicate of the query on the segment to the center does it.
        let mut random = Random(2);
        for dim in [2, 3, 16, 128] {
            let mut wrong = 0;
            for _ in 0..2000 {
                let q = random.uniform(dim, 1.0);
                let c = random.uniform(dim, 1.0);
                let step = random.uniform(1, 1.0)[0].abs() * 1e-3;
                let x: Vec<f32> = q.iter().zip(&c).map(|(q, c)| q + step * (c - q)).collect();
                wrong += usize::from(check_triple(Slack::new(dim), &q, &c, &x));
            }
            assert!(wrong > 0, "dimension {dim} has a case");
        }
    }

    #[test]
    fn holds_on_adversarial_triples() {
        let mut random = Random(3);
        for dim in [1, 2, 3, 5, 16, 17, 100] {
            let slack = Slack::new(dim);
            for scale in [1.0, 1e15, 1e-19, 1e-21, 1e-22, 1e-30] {
                for _ in 0..200 {
                    let [q, c, x] = [(); 3].map(|()| random.uniform(dim, scale));
                    check_triple(slack, &q, &c, &x);
                    check_triple(slack, &q, &c, &q);
                    check_triple(slack, &q, &q, &x);
                }
            }
        }
    }

    #[test]
    fn clear_cases_are_decided() {
        let slack = Slack::new(3);
        assert!(slack.excludes(10.0, 2.0, 7.9) && !slack.excludes(10.0, 2.0, 8.0));
        assert!(slack.includes(1.0, 2.0, 3.1) && !slack.includes(1.0, 2.0, 3.0));
        assert!(!slack.excludes(0.0, 0.0, 0.0));
    }

    #[test]
    fn sums_at_the_domain_limit_are_finite() {
        for dim in [1, 3, 16, 17, 784] {
            let limit = domain_limit(dim);
            let s = scalar::sum(&vec![limit; dim], &vec![-limit; dim]);
            assert!(s.is_finite() && s > 2.0_f32.powi(125), "dimension {dim}: {s:e}");
        }
    }
}
