//! The nearest of some queries to each row, one query after the other; and the nearest of some rows
//! to a query.

#[cfg(target_arch = "x86_64")]
use std::marker::PhantomData;

#[cfg(target_arch = "x86_64")]
use super::kernel::{Narrow, SixteenRows, Wide, with_dim};
#[cfg(target_arch = "x86_64")]
use super::lanes::{Job, Lanes};
#[cfg(target_arch = "x86_64")]
use super::scalar::LANES;

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

/// Rows of which the nearest is looked for together, at most.
#[cfg(target_arch = "x86_64")]
const TOGETHER: usize = 256;

/// Rows of one query's dimension.
#[cfg(target_arch = "x86_64")]
struct Nearest<'a, S> {
    query: &'a [f32],
    rows: &'a [f32],
    sums: PhantomData<S>,
}

/// The place of the nearest row, the first of them if several are, and its sum; (0, infinity) if
/// there is none. The caller has checked that the rows are whole.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn nearest<L: Lanes>(lanes: L, query: &[f32], rows: &[f32]) -> (usize, f32) {
    match query.len() {
        1..=LANES => with_dim!(query.len(), N => {
            lanes.vectorize(Nearest { query, rows, sums: PhantomData::<Narrow<N>> })
        }),
        _ => lanes.vectorize(Nearest { query, rows, sums: PhantomData::<Wide> }),
    }
}

#[cfg(target_arch = "x86_64")]
impl<S: SixteenRows> Job for Nearest<'_, S> {
    type Output = (usize, f32);

    /// The least sum first, without a branch; then where it is.
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> (usize, f32) {
        let Self { query, rows, .. } = self;
        let dim = query.len();
        let prepared = S::prepare(lanes, query);
        let mut sums = [[0.0; LANES]; TOGETHER / LANES];
        let mut first = (0, f32::INFINITY);
        for (i, rows) in rows.chunks(TOGETHER * dim).enumerate() {
            let mut least = lanes.splat(f32::INFINITY);
            let blocks = rows.chunks_exact(LANES * dim);
            let (rest, mut used) = (blocks.remainder(), 0);
            for (sums, block) in sums.iter_mut().zip(blocks) {
                let of_block = S::sixteen(lanes, query, &prepared, block);
                least = lanes.min(least, of_block);
                lanes.store(of_block, sums);
                used += 1;
            }
            if !rest.is_empty() {
                let last = &mut sums[used];
                lanes.store(S::fewer(lanes, query, &prepared, rest), last);
                last[rest.len() / dim..].fill(f32::INFINITY);
                least = lanes.min(least, lanes.load(last));
                used += 1;
            }
            let least = lanes.least(least);
            if least < first.1 {
                let limit = lanes.splat(least);
                let mut block = 0;
                let mut equal = lanes.at_most(lanes.load(&sums[0]), limit);
                while equal == 0 && block + 1 < used {
                    block += 1;
                    equal = lanes.at_most(lanes.load(&sums[block]), limit);
                }
                let place = block * LANES + equal.trailing_zeros() as usize;
                first = (i * TOGETHER + place, least);
            }
        }
        first
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
