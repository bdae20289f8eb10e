//! A blocked scan by hand: the distances of all pairs, and the best k of each query.
//!
//! Points lie in blocks of 64, one column of 64 values after the other, the last block filled up
//! with infinity. A batch goes through the points in tiles that stay in the cache while groups of
//! [`GROUP`] queries pass; each group keeps its sums in registers. A single query streams all
//! points once. Sums are of squared differences, in f32, so they are right to rounding, and in
//! another order of summation than treering's.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86_64;

/// Points per block.
const BLOCK: usize = 64;
/// Queries whose sums are in registers together.
const GROUP: usize = 6;
/// Bytes of points that stay in the cache while all groups pass.
const TILE_BYTES: usize = 256 << 10;
/// Operations per value of a pair: subtract, multiply, add.
pub(crate) const FLOP_PER_VALUE: u64 = 3;

/// One coordinate of the points of a block.
#[derive(Clone)]
#[repr(align(64))]
struct Column([f32; BLOCK]);

/// A candidate.
#[derive(Clone, Copy)]
struct Best {
    sum: f32,
    point: u32,
}

/// The instructions that a scan runs on.
#[derive(Clone, Copy)]
pub(crate) enum Isa {
    #[cfg(target_arch = "x86_64")]
    Avx512 {
        fused: bool,
    },
    #[cfg(target_arch = "x86_64")]
    Avx2 {
        fused: bool,
    },
    Portable,
}

impl Isa {
    /// The best that this processor has; with or without fused multiply-add, which rounds once
    /// where treering's distances, the same on every processor, round twice.
    pub(crate) fn best(fused: bool) -> Self {
        #[cfg(not(target_arch = "x86_64"))]
        let _ = fused;
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Isa::Avx512 { fused };
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Isa::Avx2 { fused };
            }
        }
        Isa::Portable
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 { fused: true } => "avx512f, fused",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 { fused: false } => "avx512f",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 { fused: true } => "avx2, fused",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 { fused: false } => "avx2",
            Isa::Portable => "portable",
        }
    }

    /// Subtract, square and add for at least `values` values, all in registers. Returns something
    /// that depends on it.
    pub(crate) fn arithmetic(self, values: u64) -> f32 {
        match self {
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "a call of a function for other instructions")]
            // SAFETY: the variant exists only after `best` found its features.
            Isa::Avx512 { fused } => unsafe {
                match fused {
                    true => x86_64::arithmetic_avx512::<true>(values),
                    false => x86_64::arithmetic_avx512::<false>(values),
                }
            },
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "a call of a function for other instructions")]
            // SAFETY: as above.
            Isa::Avx2 { fused } => unsafe {
                match fused {
                    true => x86_64::arithmetic_avx2::<true>(values),
                    false => x86_64::arithmetic_avx2::<false>(values),
                }
            },
            Isa::Portable => portable::arithmetic(values),
        }
    }

    /// Puts every point of `blocks` to `Q` queries. `first`: the first block's first point.
    /// `group`: `Q` queries, coordinate by coordinate. `best`: the best of each query so far, worst
    /// last, equally many for each.
    fn pass<const Q: usize>(
        self,
        blocks: &[Column],
        first: u32,
        group: &[[f32; Q]],
        best: &mut [Best],
    ) {
        match self {
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "a call of a function for other instructions")]
            // SAFETY: the variant exists only after `best` found its features.
            Isa::Avx512 { fused } => unsafe {
                match fused {
                    true => x86_64::pass_avx512::<Q, true>(blocks, first, group, best),
                    false => x86_64::pass_avx512::<Q, false>(blocks, first, group, best),
                }
            },
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "a call of a function for other instructions")]
            // SAFETY: as above.
            Isa::Avx2 { fused } => unsafe {
                match fused {
                    true => x86_64::pass_avx2::<Q, true>(blocks, first, group, best),
                    false => x86_64::pass_avx2::<Q, false>(blocks, first, group, best),
                }
            },
            Isa::Portable => portable::pass(blocks, first, group, best),
        }
    }
}

/// Points in the order that the scan wants.
pub(crate) struct Blocks {
    dim: usize,
    columns: Vec<Column>,
    isa: Isa,
}

impl Blocks {
    /// Copies `points`, row-major `[n x dim]`, on two threads.
    pub(crate) fn new(points: &[f32], dim: usize, isa: Isa) -> Self {
        let blocks = (points.len() / dim).div_ceil(BLOCK);
        let mut columns = vec![Column([f32::INFINITY; BLOCK]); blocks * dim];
        let share = blocks.div_ceil(2).max(1) * dim;
        std::thread::scope(|scope| {
            let shares = columns.chunks_mut(share).zip(points.chunks(share * BLOCK));
            for (columns, points) in shares {
                scope.spawn(move || {
                    let rows = points.chunks(BLOCK * dim);
                    for (block, rows) in columns.chunks_exact_mut(dim).zip(rows) {
                        for (lane, row) in rows.chunks_exact(dim).enumerate() {
                            for (column, value) in block.iter_mut().zip(row) {
                                column.0[lane] = *value;
                            }
                        }
                    }
                });
            }
        });
        Blocks { dim, columns, isa }
    }

    /// Distances of the best `k` of every query, ascending, query by query.
    pub(crate) fn batch(&self, queries: &[f32], k: usize, threads: usize) -> Vec<f32> {
        let dim = self.dim;
        let count = queries.len() / dim;
        let mut distances = vec![0.0; count * k];
        let share = count.div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            let shares = queries.chunks(share * dim).zip(distances.chunks_mut(share * k));
            for (queries, distances) in shares {
                let mut run = move || self.batch_on_one(queries, k, distances);
                if threads == 1 {
                    run();
                } else {
                    scope.spawn(run);
                }
            }
        });
        distances
    }

    fn batch_on_one(&self, queries: &[f32], k: usize, distances: &mut [f32]) {
        let dim = self.dim;
        let mut packed = Vec::with_capacity(queries.len() + GROUP * dim);
        let mut best = Vec::with_capacity(distances.len() + GROUP * k);
        for group in queries.chunks(GROUP * dim) {
            packed.extend((0..dim).map(|j| {
                std::array::from_fn::<f32, GROUP, _>(|q| {
                    group.get(q * dim + j).copied().unwrap_or(0.0)
                })
            }));
            // A place in the last group without a query takes nothing.
            let here = group.len() / dim;
            best.extend((0..GROUP * k).map(|i| Best {
                sum: if i / k < here { f32::INFINITY } else { f32::NEG_INFINITY },
                point: u32::MAX,
            }));
        }
        let tile = (TILE_BYTES / size_of::<Column>() / dim).max(1);
        for (i, blocks) in self.columns.chunks(tile * dim).enumerate() {
            let first = (i * tile * BLOCK) as u32;
            let groups = packed.chunks_exact(dim).zip(best.chunks_exact_mut(GROUP * k));
            for (group, best) in groups {
                self.isa.pass::<GROUP>(blocks, first, group, best);
            }
        }
        for (distance, best) in distances.iter_mut().zip(best) {
            *distance = best.sum.sqrt();
        }
    }

    /// Points and distances of the best `k` of one query, ascending.
    pub(crate) fn single(&self, query: &[f32], k: usize) -> Vec<(u32, f32)> {
        let group: Vec<[f32; 1]> = query.iter().map(|&value| [value]).collect();
        let mut best = vec![Best { sum: f32::INFINITY, point: u32::MAX }; k];
        self.isa.pass::<1>(&self.columns, 0, &group, &mut best);
        best.iter().map(|best| (best.point, best.sum.sqrt())).collect()
    }
}

/// Takes the points of one block whose bit in `lanes` is set into one query's best, as far as they
/// are better than the worst of them. Returns the sum that the next ones must be below.
#[cold]
#[inline(never)]
fn take(best: &mut [Best], first: u32, sums: &[f32; BLOCK], mut lanes: u64) -> f32 {
    let last = best.len() - 1;
    while lanes != 0 {
        let lane = lanes.trailing_zeros();
        lanes &= lanes - 1;
        let sum = sums[lane as usize];
        if sum < best[last].sum {
            let mut at = last;
            while at > 0 && sum < best[at - 1].sum {
                best[at] = best[at - 1];
                at -= 1;
            }
            best[at] = Best { sum, point: first + lane };
        }
    }
    best[last].sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::made::Made;

    /// The definition: all sums, sorted.
    fn defined(points: &[f32], query: &[f32], k: usize) -> Vec<f32> {
        let mut distances: Vec<f32> = points
            .chunks_exact(query.len())
            .map(|row| row.iter().zip(query).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt())
            .collect();
        distances.sort_unstable_by(f32::total_cmp);
        distances.truncate(k);
        distances
    }

    fn close(found: &[f32], defined: &[f32]) -> bool {
        found.len() == defined.len()
            && found.iter().zip(defined).all(|(a, b)| (a - b).abs() <= 1e-6 * b)
    }

    #[test]
    fn every_instruction_set_finds_what_is_defined() {
        let mut all = vec![Isa::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                all.extend([true, false].map(|fused| Isa::Avx512 { fused }));
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                all.extend([true, false].map(|fused| Isa::Avx2 { fused }));
            }
        }
        for isa in all {
            for (dim, n, count, k) in [(1, 64, 5, 3), (3, 1_000, 13, 10), (17, 65, 6, 65)] {
                let made = Made::Gaussian { dim };
                let (points, queries) = (made.rows(n, 1, 0), made.rows(count, 1, 1));
                let blocks = Blocks::new(&points, dim, isa);
                for threads in [1, 2] {
                    let found = blocks.batch(&queries, k, threads);
                    for (query, found) in queries.chunks_exact(dim).zip(found.chunks_exact(k)) {
                        let defined = defined(&points, query, k);
                        assert!(close(found, &defined), "{} {dim}", isa.name());
                        let single: Vec<f32> =
                            blocks.single(query, k).iter().map(|best| best.1).collect();
                        assert!(close(&single, &defined), "{} {dim}", isa.name());
                    }
                }
            }
        }
    }
}
