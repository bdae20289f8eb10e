//! The scan's loops for AVX-512, and for AVX2 with FMA.

#![expect(unsafe_code, reason = "loads and stores of vectors")]

use std::arch::x86_64::*;

use super::{BLOCK, Best, Column, take};

/// `sum` + `difference`^2, rounded once or twice.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_square_512<const FUSED: bool>(sum: __m512, difference: __m512) -> __m512 {
    match FUSED {
        true => _mm512_fmadd_ps(difference, difference, sum),
        false => _mm512_add_ps(sum, _mm512_mul_ps(difference, difference)),
    }
}

/// As [`add_square_512`].
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_square_256<const FUSED: bool>(sum: __m256, difference: __m256) -> __m256 {
    match FUSED {
        true => _mm256_fmadd_ps(difference, difference, sum),
        false => _mm256_add_ps(sum, _mm256_mul_ps(difference, difference)),
    }
}

/// As `Isa::pass`: 64 points x `Q` queries in 4 `Q` registers of 16.
#[target_feature(enable = "avx512f")]
pub(super) fn pass_avx512<const Q: usize, const FUSED: bool>(
    blocks: &[Column],
    first: u32,
    group: &[[f32; Q]],
    best: &mut [Best],
) {
    let k = best.len() / Q;
    let mut limits: [f32; Q] = std::array::from_fn(|q| best[q * k + k - 1].sum);
    for (i, block) in blocks.chunks_exact(group.len()).enumerate() {
        let mut sums = [[_mm512_setzero_ps(); 4]; Q];
        for (column, query) in block.iter().zip(group) {
            let start = column.0.as_ptr();
            // SAFETY: a column has 64 values, and is aligned to 64 bytes.
            let load = |part: usize| unsafe { _mm512_load_ps(start.add(16 * part)) };
            let values = [load(0), load(1), load(2), load(3)];
            for q in 0..Q {
                let coordinate = _mm512_set1_ps(query[q]);
                for part in 0..4 {
                    let difference = _mm512_sub_ps(values[part], coordinate);
                    sums[q][part] = add_square_512::<FUSED>(sums[q][part], difference);
                }
            }
        }
        for q in 0..Q {
            let limit = _mm512_set1_ps(limits[q]);
            let [a, b, c, d] = sums[q];
            // Rarely is one of them good enough.
            let least = _mm512_min_ps(_mm512_min_ps(a, b), _mm512_min_ps(c, d));
            if _mm512_cmp_ps_mask::<_CMP_LT_OQ>(least, limit) != 0 {
                let mut column = Column([0.0; BLOCK]);
                let mut lanes = 0;
                for (part, &sums) in sums[q].iter().enumerate() {
                    let below = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(sums, limit);
                    lanes |= u64::from(below) << (16 * part);
                    // SAFETY: as for the loads.
                    unsafe { _mm512_store_ps(column.0.as_mut_ptr().add(16 * part), sums) };
                }
                let first = first + (i * BLOCK) as u32;
                limits[q] = take(&mut best[q * k..(q + 1) * k], first, &column.0, lanes);
            }
        }
    }
}

/// As `Isa::pass`: 16 points x `Q` queries in 2 `Q` registers of 8.
#[target_feature(enable = "avx2,fma")]
pub(super) fn pass_avx2<const Q: usize, const FUSED: bool>(
    blocks: &[Column],
    first: u32,
    group: &[[f32; Q]],
    best: &mut [Best],
) {
    let k = best.len() / Q;
    let mut limits: [f32; Q] = std::array::from_fn(|q| best[q * k + k - 1].sum);
    for (i, block) in blocks.chunks_exact(group.len()).enumerate() {
        for quarter in 0..4 {
            let mut sums = [[_mm256_setzero_ps(); 2]; Q];
            for (column, query) in block.iter().zip(group) {
                let start = column.0.as_ptr();
                // SAFETY: a column has 64 values, and is aligned to 64 bytes.
                let load =
                    |part: usize| unsafe { _mm256_load_ps(start.add(16 * quarter + 8 * part)) };
                let values = [load(0), load(1)];
                for q in 0..Q {
                    let coordinate = _mm256_set1_ps(query[q]);
                    for part in 0..2 {
                        let difference = _mm256_sub_ps(values[part], coordinate);
                        sums[q][part] = add_square_256::<FUSED>(sums[q][part], difference);
                    }
                }
            }
            for q in 0..Q {
                let limit = _mm256_set1_ps(limits[q]);
                let below = |sums| _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(sums, limit));
                let [a, b] = sums[q];
                // Rarely is one of them good enough.
                if below(_mm256_min_ps(a, b)) != 0 {
                    let mut column = Column([0.0; BLOCK]);
                    let mut lanes = 0;
                    for (part, &sums) in sums[q].iter().enumerate() {
                        let at = 16 * quarter + 8 * part;
                        lanes |= (below(sums) as u64) << at;
                        // SAFETY: as for the loads.
                        unsafe { _mm256_store_ps(column.0.as_mut_ptr().add(at), sums) };
                    }
                    let first = first + (i * BLOCK) as u32;
                    limits[q] = take(&mut best[q * k..(q + 1) * k], first, &column.0, lanes);
                }
            }
        }
    }
}

/// As `Isa::arithmetic`: 12 chains, twice what the latency of an FMA asks for.
#[target_feature(enable = "avx512f")]
pub(super) fn arithmetic_avx512<const FUSED: bool>(values: u64) -> f32 {
    const CHAINS: usize = 12;
    let constants: [__m512; CHAINS] = std::array::from_fn(|i| _mm512_set1_ps(i as f32));
    let mut sums = [_mm512_setzero_ps(); CHAINS];
    let (mut value, step) = (_mm512_set1_ps(0.5), _mm512_set1_ps(0.25));
    for _ in 0..values.div_ceil(16 * CHAINS as u64) {
        for i in 0..CHAINS {
            let difference = _mm512_sub_ps(value, constants[i]);
            sums[i] = add_square_512::<FUSED>(sums[i], difference);
        }
        value = _mm512_add_ps(value, step);
    }
    sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum()
}

/// As `Isa::arithmetic`: 10 chains; the constants come from memory, as in the scan.
#[target_feature(enable = "avx2,fma")]
pub(super) fn arithmetic_avx2<const FUSED: bool>(values: u64) -> f32 {
    const CHAINS: usize = 10;
    let constants: [__m256; CHAINS] = std::array::from_fn(|i| _mm256_set1_ps(i as f32));
    let mut sums = [_mm256_setzero_ps(); CHAINS];
    let (mut value, step) = (_mm256_set1_ps(0.5), _mm256_set1_ps(0.25));
    for _ in 0..values.div_ceil(8 * CHAINS as u64) {
        for i in 0..CHAINS {
            let difference = _mm256_sub_ps(value, constants[i]);
            sums[i] = add_square_256::<FUSED>(sums[i], difference);
        }
        value = _mm256_add_ps(value, step);
    }
    let total = sums.into_iter().fold(_mm256_setzero_ps(), |a, b| _mm256_add_ps(a, b));
    _mm256_cvtss_f32(total)
}
