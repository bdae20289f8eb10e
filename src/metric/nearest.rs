//! The nearest of some queries to each row, one query after the other.

#[cfg(target_arch = "x86_64")]
use super::lanes::{Job, Lanes};

/// [`super::Kernel::keep_nearest`].
pub(super) struct Keep<'a> {
    pub(super) sums: &'a [f32],
    pub(super) number: u32,
    pub(super) least: &'a mut [f32],
    pub(super) numbers: &'a mut [u32],
}

impl Keep<'_> {
    /// Without a branch, so that the compiler makes it vectors of whatever it compiles for.
    #[inline(always)]
    pub(super) fn portable(self) {
        for ((&sum, least), number) in self.sums.iter().zip(self.least).zip(self.numbers) {
            let nearer = (sum < *least) | ((sum == *least) & (self.number < *number));
            *least = if nearer { sum } else { *least };
            *number = if nearer { self.number } else { *number };
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Job for Keep<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        self.portable();
    }
}
