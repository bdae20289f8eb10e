//! The scan's loops for any processor, as the compiler vectorises them.

use super::{BLOCK, Best, Column, take};

/// Points whose sums are in registers together.
const LANES: usize = 8;

/// As `Isa::pass`.
pub(super) fn pass<const Q: usize>(
    blocks: &[Column],
    first: u32,
    group: &[[f32; Q]],
    best: &mut [Best],
) {
    let k = best.len() / Q;
    let mut limits: [f32; Q] = std::array::from_fn(|q| best[q * k + k - 1].sum);
    for (i, block) in blocks.chunks_exact(group.len()).enumerate() {
        let mut sums = [[0.0f32; BLOCK]; Q];
        for part in (0..BLOCK).step_by(LANES) {
            let mut partial = [[0.0f32; LANES]; Q];
            for (column, query) in block.iter().zip(group) {
                let values: [f32; LANES] = std::array::from_fn(|lane| column.0[part + lane]);
                for (partial, q) in partial.iter_mut().zip(query) {
                    for (sum, value) in partial.iter_mut().zip(values) {
                        let difference = value - q;
                        *sum += difference * difference;
                    }
                }
            }
            for (sums, partial) in sums.iter_mut().zip(partial) {
                sums[part..part + LANES].copy_from_slice(&partial);
            }
        }
        for (q, sums) in sums.iter().enumerate() {
            if sums.iter().fold(false, |any, sum| any | (*sum < limits[q])) {
                let first = first + (i * BLOCK) as u32;
                limits[q] = take(&mut best[q * k..(q + 1) * k], first, sums, u64::MAX);
            }
        }
    }
}

/// As `Isa::arithmetic`.
pub(super) fn arithmetic(values: u64) -> f32 {
    const CHAINS: usize = 32;
    let constants: [f32; CHAINS] = std::array::from_fn(|i| i as f32);
    let (mut sums, mut value) = ([0.0f32; CHAINS], 0.5f32);
    for _ in 0..values.div_ceil(CHAINS as u64) {
        for (sum, constant) in sums.iter_mut().zip(constants) {
            let difference = value - constant;
            *sum += difference * difference;
        }
        value += 0.25;
    }
    sums.iter().sum()
}
