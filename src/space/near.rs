//! What a sieve lets through: a number, and how near what bears it is, as one integer that sorts by
//! nearness.

/// A distance or a filter sum, not negative, and the number of a row, a slot or a node. Sorts by
/// the first, then by the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub(crate) struct Near(
    /// The bits of the value above (they sort as it does, since it is not negative), the number
    /// below.
    pub(super) i64,
);

impl Near {
    /// Behind all others.
    pub(crate) const NONE: Near = Near(i64::MAX);

    #[inline(always)]
    pub(crate) fn new(value: f32, number: u32) -> Self {
        Near(i64::from(value.to_bits()) << 32 | i64::from(number))
    }

    #[inline(always)]
    pub(crate) fn value(self) -> f32 {
        f32::from_bits((self.0 >> 32) as u32)
    }

    #[inline(always)]
    pub(crate) fn number(self) -> u32 {
        self.0 as u32
    }

    /// Whether both are as near.
    #[inline(always)]
    pub(crate) fn ties_with(self, other: Near) -> bool {
        self.0 >> 32 == other.0 >> 32
    }
}
