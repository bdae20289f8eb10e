//! Stage: the point that the root stands on.
//!
//! Any would do, and some do better. If the farthest point is a little farther than 2^k, or a
//! little nearer than 2^(k+1), the first children reach half as far as the root; in between they
//! reach nearly as far, and one level of the tree tells little apart (up to 15 % more distances a
//! query for the sheets of `benches`).

use rayon::prelude::*;

use super::source::{Point, Source};
use super::split::greatest;
use crate::space::Kernel;

/// Points that may become the root.
const CANDIDATES: usize = 32;

/// Points that they are measured against: the first in priority order, so many values or so many
/// rows.
const SAMPLE_VALUES: usize = 1 << 20;
const SAMPLE_ROWS: std::ops::RangeInclusive<usize> = 64..=4096;

/// Values of rows that are copied side by side at a time.
const PIECE_VALUES: usize = 1 << 14;

/// The point of a source that makes the best root, as far as a sample tells. Depends on the points
/// and their ids, and neither on their order nor on threads. Costs a distance evaluation for each
/// pair of a candidate and a point of the sample; their number is returned too.
///
/// # Panics
///
/// If the source is empty.
pub(crate) fn choose_root(kernel: Kernel, source: &Source<'_>) -> (Point, u64) {
    let sample = sample(source);
    let candidates = &sample[..sample.len().min(CANDIDATES)];
    let mut farthest = [0.0_f32; CANDIDATES];
    let (mut rows, mut sums) = (Vec::new(), Vec::new());
    for piece in sample.chunks((PIECE_VALUES / source.dim).max(1)) {
        source.gather(piece.iter().copied(), &mut rows);
        sums.resize(piece.len(), 0.0);
        for (&candidate, farthest) in candidates.iter().zip(&mut farthest) {
            kernel.sums(source.row(candidate), &rows, &mut sums);
            *farthest = farthest.max(greatest(&sums));
        }
    }
    let mut best = (sample[0], f64::INFINITY);
    for (&candidate, &farthest) in candidates.iter().zip(&farthest) {
        let loss = loss(farthest);
        if loss < best.1 {
            best = (candidate, loss);
        }
    }
    (best.0, (candidates.len() * sample.len()) as u64)
}

/// The first points in priority order.
fn sample(source: &Source<'_>) -> Vec<Point> {
    let wanted = SAMPLE_VALUES / source.dim;
    let wanted = wanted.clamp(*SAMPLE_ROWS.start(), *SAMPLE_ROWS.end());
    let prioritized = |point| (source.priority(point), point);
    let all = 0..source.len() as Point;
    // Priorities are spread evenly, unless somebody has chosen the ids against it.
    let limit = (u64::MAX / all.len() as u64).saturating_mul(2 * wanted as u64);
    let below = all.clone().into_par_iter().map(prioritized).filter(|(first, _)| *first <= limit);
    let mut sample: Vec<(u64, Point)> = below.collect();
    if sample.len() < wanted {
        sample = all.map(prioritized).collect();
    }
    sample.sort_unstable();
    sample.into_iter().map(|(_, point)| point).take(wanted).collect()
}

/// From 1, if the square root of the sum is a power of two, to 2, if it is as far as can be from
/// any.
fn loss(sum: f32) -> f64 {
    let bits = f64::from(sum).to_bits();
    if bits == 0 {
        return 2.0;
    }
    // Every positive f32 is a normal f64: from 1 to 2, times a power of two, which is one of four
    // if its exponent is even.
    let exponent = (bits >> 52) as i32 - 1023;
    let fraction = f64::from_bits(bits & (u64::MAX >> 12) | 1023 << 52);
    let fours = fraction * if exponent.rem_euclid(2) == 0 { 1.0 } else { 2.0 };
    fours.min(4.0 / fours)
}

#[cfg(test)]
mod tests {
    use super::super::batch::Batch;
    use super::super::source::Moved;
    use super::*;

    #[test]
    fn loss_is_least_at_powers_of_two() {
        for exponent in -74..=63 {
            let power = 4.0_f64.powi(exponent) as f32;
            assert_eq!(loss(power), 1.0);
            assert!(loss(1.1 * power) < 1.2 && loss(0.9 * power) < 1.2);
        }
        assert_eq!(loss(2.0), 2.0);
        assert_eq!(loss(f32::from_bits(1)), 2.0, "2^-149 is halfway between powers of four");
        assert_eq!(loss(0.0), 2.0);
    }

    #[test]
    fn order_does_not_matter() {
        let n = 20_000_u64;
        let point = |id: u64| ((id * 7919) % 10_007) as f32;
        let chosen = |ids: Vec<u64>| {
            let points: Vec<f32> = ids.iter().map(|&id| point(id)).collect();
            let batch = Batch { points: &points, ids };
            let source = Source { dim: 1, seed: 3, batch: &batch, moved: &Moved::default() };
            source.id(choose_root(Kernel::best(), &source).0)
        };
        let root = chosen((0..n).collect());
        assert_eq!(chosen((0..n).rev().collect()), root);
        // The farthest of the others is 8192 away, more or less.
        let reach = point(root).max(10_006.0 - point(root));
        assert!((7000.0..9500.0).contains(&reach), "{reach}");
    }

    #[test]
    fn ids_chosen_against_it_cost_time_only() {
        let seed = 3;
        let late = (0..).filter(|&id| Source::priority_of(id, seed) > u64::MAX / 16 * 15);
        let ids: Vec<u64> = late.take(10_000).collect();
        let points: Vec<f32> = ids.iter().map(|&id| id as f32).collect();
        let batch = Batch { points: &points, ids };
        let source = Source { dim: 1, seed, batch: &batch, moved: &Moved::default() };
        assert_eq!(sample(&source).len(), *SAMPLE_ROWS.end());
    }
}
