//! Levels: whole powers of two that distances are compared with, found from canonical sums without
//! a root.
//!
//! Not a distance: a level is the exponent of one. Level l stands for the distance 2^l, that is for
//! the sum 4^l, which is a power of two and therefore exact.
//!
//! Invariants:
//!
//! - **V1**: for s > 0, `of_sum(s)` is the largest l with 4^l < s, strictly. Powers of four fall
//!   one lower: grids of whole numbers meet them all the time.
//! - **V2**: 4^l counts as 0 at and below [`Level::MIN`], where f32 has no such number, and as
//!   infinity from 64 on.

use crate::values::seeded_bug::SeededBug;

/// The exponent l of a distance 2^l. Any `i16` is a level, so a damaged file cannot make an invalid
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Level(i16);

impl Level {
    /// The least level that a sum can have: that of 2^-149, the least positive f32. A node with
    /// nothing but twins has it.
    pub(crate) const MIN: Self = Self(-75);

    pub(crate) const fn new(level: i16) -> Self {
        Self(level)
    }

    pub(crate) const fn get(self) -> i16 {
        self.0
    }

    /// The largest level l with 4^l < s (V1); [`Level::MIN`] for s = 0, which has none.
    pub(crate) fn of_sum(s: f32) -> Self {
        debug_assert!(s >= 0.0 && s.is_finite(), "a sum in the domain is finite and not negative");
        let bits = s.to_bits();
        let fraction = bits & 0x007F_FFFF;
        let biased = (bits >> 23) as i16;
        // s lies in [2^exponent, 2^(exponent + 1)).
        let (exponent, is_power) = if biased > 0 {
            (biased - 127, fraction == 0)
        } else if fraction > 0 {
            // Subnormal: s = fraction * 2^-149.
            (fraction.ilog2() as i16 - 149, fraction.is_power_of_two())
        } else {
            return Self::MIN;
        };
        // 2^(2l) < s iff 2l <= exponent, or < if s is that power itself. The shift rounds down for
        // negatives too.
        let lower = match is_power {
            true if SeededBug::LevelAtPowersOfTwo.is_planted() => 3,
            is_power => is_power as i16,
        };
        Self((exponent - lower) >> 1)
    }

    /// 4^l, exact, with the ends of V2.
    pub(crate) const fn pow4(self) -> f32 {
        match self.0 {
            i16::MIN..=-75 => 0.0,
            -74..=-64 => f32::from_bits(1 << (2 * self.0 + 149)),
            -63..=63 => f32::from_bits(((2 * self.0 + 127) as u32) << 23),
            64.. => f32::INFINITY,
        }
    }

    /// Whether a point at sum s is within 2^l.
    #[inline]
    pub(crate) const fn covers(self, s: f32) -> bool {
        s <= self.pow4()
    }

    /// Whether a child of this level may stand at sum s from its parent: within 2^(l + 1).
    #[inline]
    pub(crate) const fn covers_child(self, s: f32) -> bool {
        s <= self.next_up().pow4()
    }

    /// l + 1.
    #[inline]
    pub(crate) const fn next_up(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// V1 in f64, where every 4^l in question is a normal number.
    fn by_definition(s: f32) -> i16 {
        (-80..=64).rev().find(|&l| 4.0_f64.powi(l) < f64::from(s)).unwrap() as i16
    }

    #[test]
    fn every_power_of_two_and_its_neighbours() {
        let mut checked = 0;
        for exponent in -149..=127 {
            let power = 2.0_f64.powi(exponent) as f32;
            assert_eq!(f64::from(power), 2.0_f64.powi(exponent), "the power is exact");
            for s in [power.next_down(), power, power.next_up()] {
                if s > 0.0 {
                    let level = Level::of_sum(s);
                    assert_eq!(level.get(), by_definition(s), "s = {s:e}");
                    assert!(!level.covers(s), "4^l < s at {s:e}");
                    assert!(level.covers_child(s), "s <= 4^(l+1) at {s:e}");
                    checked += 1;
                }
            }
        }
        assert_eq!(checked, 277 * 3 - 1);
    }

    #[test]
    fn ends() {
        assert_eq!(Level::of_sum(0.0), Level::MIN);
        assert_eq!(Level::of_sum(f32::from_bits(1)), Level::MIN);
        assert_eq!(Level::of_sum(f32::MAX).get(), 63);
        assert_eq!(Level::of_sum(1.0).get(), -1);
        assert_eq!(Level::of_sum(4.0).get(), 0);
        assert_eq!(Level::of_sum(4.0_f32.next_up()).get(), 1);
        assert!(Level::MIN.covers(0.0) && !Level::MIN.covers(f32::from_bits(1)));
        assert!(Level::new(64).covers(f32::MAX) && Level::new(i16::MAX).covers_child(f32::MAX));
        assert_eq!(Level::new(i16::MIN).pow4(), 0.0);
    }

    #[test]
    fn pow4_is_exact() {
        for l in -74..=63 {
            assert_eq!(f64::from(Level::new(l).pow4()), 4.0_f64.powi(i32::from(l)), "level {l}");
        }
        assert_eq!(Level::new(-75).pow4().to_bits(), 0);
        assert_eq!(Level::new(64).pow4(), f32::INFINITY);
    }

    #[test]
    fn order() {
        assert!(Level::MIN < Level::new(0));
        assert_eq!(Level::new(3).min(Level::new(-3)), Level::new(-3));
        assert_eq!(Level::new(-1).next_up(), Level::new(0));
    }
}
