//! What both instruction sets do with eight lanes.

use std::arch::x86_64::*;

/// The last three halvings of one row.
#[inline]
#[target_feature(enable = "avx")]
pub(super) fn total(v: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// The least lane.
#[inline]
#[target_feature(enable = "avx")]
pub(super) fn least(v: __m256) -> f32 {
    let four = _mm_min_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let two = _mm_min_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_min_ss(two, _mm_movehdup_ps(two)))
}
