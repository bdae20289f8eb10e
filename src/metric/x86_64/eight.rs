//! What both instruction sets do with eight lanes.
#![expect(unsafe_code, reason = "vector instructions; each block is discharged by X1 and X2")]

use std::arch::x86_64::*;

/// The last three halvings of one row.
#[inline]
#[target_feature(enable = "avx")]
pub(super) fn total(v: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// What [`Lanes::Sums`](super::super::lanes::Lanes::Sums) holds, in eight parts.
#[derive(Clone, Copy)]
pub(in crate::metric) struct Sums {
    residuals: __m256,
    moments: __m256i,
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn no_sums() -> Sums {
    Sums { residuals: _mm256_setzero_ps(), moments: _mm256_setzero_si256() }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn quantize(sums: &mut Sums, values: &[f32; 8], origin: &[f32; 8], scale: f32) -> u64 {
    // SAFETY: eight floats are readable at `values` (X2, by its type).
    let values = unsafe { _mm256_loadu_ps(values.as_ptr()) };
    // SAFETY: eight floats are readable at `origin` (X2, by its type).
    let origin = unsafe { _mm256_loadu_ps(origin.as_ptr()) };
    let place = _mm256_mul_ps(_mm256_sub_ps(values, origin), _mm256_set1_ps(scale));
    let inside = _mm256_max_ps(place, _mm256_setzero_ps());
    let cell = _mm256_cvtps_epi32(_mm256_min_ps(inside, _mm256_set1_ps(127.0)));
    let residual = _mm256_sub_ps(place, _mm256_cvtepi32_ps(cell));
    sums.residuals = _mm256_fmadd_ps(residual, residual, sums.residuals);
    // The upper half of each cell is zero, so the sum of two products is the product of the lower halves.
    let moment = _mm256_madd_epi16(cell, _mm256_sub_epi32(cell, _mm256_set1_epi32(128)));
    sums.moments = _mm256_add_epi32(sums.moments, moment);
    let words = _mm_packs_epi32(_mm256_castsi256_si128(cell), _mm256_extracti128_si256::<1>(cell));
    _mm_cvtsi128_si64(_mm_packus_epi16(words, words)) as u64
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn totals(sums: Sums) -> (f32, i32) {
    let moments = sums.moments;
    let four =
        _mm_add_epi32(_mm256_castsi256_si128(moments), _mm256_extracti128_si256::<1>(moments));
    let two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    let one = _mm_add_epi32(two, _mm_shuffle_epi32::<1>(two));
    (total(sums.residuals), _mm_cvtsi128_si32(one))
}
