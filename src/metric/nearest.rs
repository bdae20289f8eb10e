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

#[cfg(test)]
mod tests {
    use super::super::Kernel;
    use super::super::tests::Random;

    #[test]
    fn every_instruction_set_keeps_the_first_of_the_nearest() {
        let mut random = Random(41);
        for kernel in Kernel::available() {
            for rows in [1, 7, 16, 61] {
                // Few values, so that there are ties; numbers in no order.
                let mut sums = || -> Vec<f32> {
                    random.uniform(rows, 1.0).iter().map(|x| (x * 4.0).round().abs()).collect()
                };
                let owned = sums();
                let offered: Vec<(u32, Vec<f32>)> =
                    [3, 1, 4, 2].into_iter().map(|number| (number, sums())).collect();
                let (mut least, mut numbers) = (owned.clone(), vec![0; rows]);
                for (number, sums) in &offered {
                    kernel.keep_nearest(sums, *number, &mut least, &mut numbers);
                }
                for row in 0..rows {
                    let all = offered.iter().map(|(number, sums)| (sums[row], *number));
                    let first = all
                        .chain([(owned[row], 0)])
                        .min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                    assert_eq!(Some((least[row], numbers[row])), first);
                }
            }
        }
    }
}
