//! AVX2 and AVX-512F as sixteen lanes: thin instantiations of [`Lanes`], with no algorithm of their own.
//!
//! Invariants, cited by the SAFETY comments:
//!
//! - **X1 features**: `Avx2` and `Avx512` have a private field and are built only by `detect`, which asks the
//!   processor. A method of theirs therefore runs only where its instructions exist. (A process does not migrate to a
//!   lesser processor.)
//! - **X2 bounds**: a load or store of k floats is given a pointer from a slice or array of at least k floats, checked
//!   by type or by an assertion in the same function; lanes switched off by a mask are not accessed, by the
//!   instruction's definition. None of them needs alignment.
//! - **X3 environment**: Rust leaves rounding and denormal control at their defaults, so subnormals are kept (M2).
//!
//! The AVX2 vector is a pair: lanes 0 to 7 and lanes 8 to 15.
#![expect(unsafe_code, reason = "vector instructions; each block is discharged by X1 and X2")]

use std::arch::x86_64::*;

use super::lanes::{Job, Lanes, Spread};
use super::scalar::LANES;

/// Proof that the processor has AVX-512F (X1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx512f").then_some(Self(()))
    }
}

/// Each lane's own number.
static IOTA: [i32; LANES] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

impl Avx512 {
    /// Each index plus `by`.
    #[inline(always)]
    fn shifted(self, index: &[i32; LANES], by: usize) -> __m512i {
        // SAFETY:
        // - the processor has AVX-512F (X1);
        // - sixteen i32 are readable at `index` (X2, by its type).
        let index = unsafe { _mm512_loadu_epi32(index.as_ptr()) };
        // SAFETY: the processor has AVX-512F (X1).
        unsafe { _mm512_add_epi32(index, _mm512_set1_epi32(by as i32)) }
    }
}

/// Where the values of one column of three lie in three vectors.
struct Places {
    /// In the first two vectors together.
    first: [i32; LANES],
    /// In the last one, for the lanes of `in_last`.
    last: [i32; LANES],
    in_last: u16,
}

const fn places_of_three() -> [Places; 3] {
    let mut all = [const { Places { first: [0; LANES], last: [0; LANES], in_last: 0 } }; 3];
    let mut i = 0;
    while i < 3 * LANES {
        let (row, column) = (i / 3, i % 3);
        if i < 2 * LANES {
            all[column].first[row] = i as i32;
        } else {
            all[column].last[row] = (i - 2 * LANES) as i32;
            all[column].in_last |= 1 << row;
        }
        i += 1;
    }
    all
}

impl Lanes for Avx512 {
    type Vector = __m512;

    const WIDE_BLOCK: bool = true;

    #[inline(always)]
    fn vectorize<J: Job>(self, job: J) -> J::Output {
        #[target_feature(enable = "avx512f")]
        fn compiled<J: Job>(lanes: Avx512, job: J) -> J::Output {
            job.run(lanes)
        }
        // SAFETY: the processor has AVX-512F (X1).
        unsafe { compiled(self, job) }
    }

    #[inline(always)]
    fn zero(self) -> __m512 {
        // SAFETY: the processor has AVX-512F (X1).
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: the processor has AVX-512F (X1).
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> __m512 {
        // SAFETY:
        // - the processor has AVX-512F (X1);
        // - sixteen floats are readable at `from` (X2, by its type).
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, v: __m512, to: &mut [f32; LANES]) {
        // SAFETY:
        // - the processor has AVX-512F (X1);
        // - sixteen floats are writable at `to` (X2, by its type).
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn load_part(self, from: &[f32]) -> __m512 {
        assert!(from.len() <= LANES);
        let mask = ((1_u32 << from.len()) - 1) as u16;
        // SAFETY:
        // - the processor has AVX-512F (X1);
        // - the mask has the low `from.len()` bits set, so only the floats of `from` are read (X2).
        unsafe { _mm512_maskz_loadu_ps(mask, from.as_ptr()) }
    }

    #[inline(always)]
    fn load_tail(self, row: &[f32], count: usize) -> __m512 {
        assert!(count < LANES);
        let last = row.last_chunk().expect("rows with a tail have at least sixteen components");
        let index = self.shifted(&IOTA, LANES - count);
        let mask = ((1_u32 << count) - 1) as u16;
        let v = self.load(last);
        // SAFETY: the processor has AVX-512F (X1).
        unsafe { _mm512_maskz_permutexvar_ps(mask, index, v) }
    }

    #[inline(always)]
    fn spread_square<const N: usize>(self, block: &[f32], i: usize, query: __m512) -> __m512 {
        assert!(block.len() == LANES * N && i < Spread::<N>::VECTORS);
        // Near its end the block is read from a little before the vector's place, and shifted.
        let place = i * Spread::<N>::STEP;
        let from = place.min(block.len() - LANES);
        let mut v = self.load(block[from..].first_chunk().expect("sixteen floats are left"));
        if place > from || N < LANES / 2 && !N.is_power_of_two() {
            let index = self.shifted(const { &Spread::<N>::INDEX }, place - from);
            // SAFETY: the processor has AVX-512F (X1).
            v = unsafe { _mm512_permutexvar_ps(index, v) };
        }
        // SAFETY: the processor has AVX-512F (X1).
        let difference = unsafe { _mm512_sub_ps(v, query) };
        // SAFETY: the processor has AVX-512F (X1).
        unsafe { _mm512_maskz_mul_ps(Spread::<N>::MASK, difference, difference) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the processor has AVX-512F (X1).
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn square(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the processor has AVX-512F (X1).
        let difference = unsafe { _mm512_sub_ps(a, b) };
        // SAFETY: the processor has AVX-512F (X1).
        unsafe { _mm512_mul_ps(difference, difference) }
    }

    #[inline(always)]
    fn three_columns(self, rows: &[f32; 3 * LANES]) -> [__m512; 3] {
        let (vectors, _) = rows.as_chunks::<LANES>();
        let (a, b, c) = (self.load(&vectors[0]), self.load(&vectors[1]), self.load(&vectors[2]));
        let mut columns = [self.zero(); 3];
        for (column, places) in columns.iter_mut().zip(const { &places_of_three() }) {
            // SAFETY:
            // - the processor has AVX-512F (X1);
            // - sixteen i32 are readable at the index (X2, by its type).
            let first = unsafe { _mm512_loadu_epi32(places.first.as_ptr()) };
            // SAFETY: as above.
            let last = unsafe { _mm512_loadu_epi32(places.last.as_ptr()) };
            // SAFETY: the processor has AVX-512F (X1).
            let found = unsafe { _mm512_permutex2var_ps(a, first, b) };
            // SAFETY: the processor has AVX-512F (X1).
            *column = unsafe { _mm512_mask_permutexvar_ps(found, places.in_last, last, c) };
        }
        columns
    }

    #[inline(always)]
    fn add_square(self, sum: __m512, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the processor has AVX-512F (X1).
        let difference = unsafe { _mm512_sub_ps(a, b) };
        // SAFETY: the processor has AVX-512F (X1).
        unsafe { _mm512_fmadd_ps(difference, difference, sum) }
    }

    #[inline(always)]
    fn add_gap(self, sum: __m512, low: __m512, x: __m512, high: __m512) -> __m512 {
        // SAFETY: the processor has AVX-512F (X1).
        let below = unsafe { _mm512_sub_ps(low, x) };
        // SAFETY: the processor has AVX-512F (X1).
        let above = unsafe { _mm512_sub_ps(x, high) };
        // SAFETY: the processor has AVX-512F (X1).
        let gap = unsafe { _mm512_max_ps(_mm512_max_ps(below, above), _mm512_setzero_ps()) };
        // SAFETY: the processor has AVX-512F (X1).
        unsafe { _mm512_fmadd_ps(gap, gap, sum) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the processor has AVX-512F (X1).
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn at_most(self, a: __m512, b: __m512) -> u16 {
        // SAFETY: the processor has AVX-512F (X1).
        unsafe { _mm512_cmp_ps_mask::<_CMP_LE_OQ>(a, b) }
    }

    #[inline(always)]
    fn fold8(self, a: __m512, b: __m512) -> __m512 {
        // In quarters of four lanes: (a0 a1 b0 b1) + (a2 a3 b2 b3).
        // SAFETY: the processor has AVX-512F (X1).
        let low = unsafe { _mm512_shuffle_f32x4::<0x44>(a, b) };
        // SAFETY: the processor has AVX-512F (X1).
        let high = unsafe { _mm512_shuffle_f32x4::<0xEE>(a, b) };
        self.add(low, high)
    }

    #[inline(always)]
    fn fold4(self, a: __m512, b: __m512) -> __m512 {
        // In quarters: (a0 a2 b0 b2) + (a1 a3 b1 b3).
        // SAFETY: the processor has AVX-512F (X1).
        let low = unsafe { _mm512_shuffle_f32x4::<0x88>(a, b) };
        // SAFETY: the processor has AVX-512F (X1).
        let high = unsafe { _mm512_shuffle_f32x4::<0xDD>(a, b) };
        self.add(low, high)
    }

    #[inline(always)]
    fn fold2(self, [a, b, c, d]: [__m512; 4]) -> __m512 {
        // Within each quarter, so that quarter k ends with rows k, k + 4, k + 8, k + 12.
        // SAFETY: the processor has AVX-512F (X1).
        let low = unsafe { _mm512_shuffle_ps::<0x44>(a, b) };
        // SAFETY: the processor has AVX-512F (X1).
        let high = unsafe { _mm512_shuffle_ps::<0xEE>(a, b) };
        let ab = self.add(low, high);
        // SAFETY: the processor has AVX-512F (X1).
        let low = unsafe { _mm512_shuffle_ps::<0x44>(c, d) };
        // SAFETY: the processor has AVX-512F (X1).
        let high = unsafe { _mm512_shuffle_ps::<0xEE>(c, d) };
        let cd = self.add(low, high);
        // SAFETY: the processor has AVX-512F (X1).
        let even = unsafe { _mm512_shuffle_ps::<0x88>(ab, cd) };
        // SAFETY: the processor has AVX-512F (X1).
        let odd = unsafe { _mm512_shuffle_ps::<0xDD>(ab, cd) };
        let sums = self.add(even, odd);
        // SAFETY: the processor has AVX-512F (X1).
        let order =
            unsafe { _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15) };
        // SAFETY: the processor has AVX-512F (X1).
        unsafe { _mm512_permutexvar_ps(order, sums) }
    }

    #[inline(always)]
    fn fold1(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the processor has AVX-512F (X1).
        let evens =
            unsafe { _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) };
        // SAFETY: the processor has AVX-512F (X1).
        let odds =
            unsafe { _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31) };
        // SAFETY: the processor has AVX-512F (X1).
        let even = unsafe { _mm512_permutex2var_ps(a, evens, b) };
        // SAFETY: the processor has AVX-512F (X1).
        let odd = unsafe { _mm512_permutex2var_ps(a, odds, b) };
        self.add(even, odd)
    }

    #[inline(always)]
    fn total(self, v: __m512) -> f32 {
        // SAFETY: the processor has AVX-512F (X1).
        let low = unsafe { _mm512_castps512_ps256(v) };
        // SAFETY: the processor has AVX-512F (X1).
        let high = unsafe { _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(v)) };
        // SAFETY: the processor has AVX, which AVX-512F includes (X1).
        let eight = unsafe { _mm256_add_ps(low, _mm256_castpd_ps(high)) };
        // SAFETY: the processor has AVX, which AVX-512F includes (X1).
        unsafe { total_of_eight(eight) }
    }
}

/// The last three halvings of one row.
#[inline]
#[target_feature(enable = "avx")]
fn total_of_eight(v: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// Eight lanes of ones, then eight of zeros: read from 8 - k, a mask of k lanes.
static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// Proof that the processor has AVX2 and FMA, which all but the oddest have together (X1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        let both = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        both.then_some(Self(()))
    }

    /// At most eight floats; the lanes past them are +0.
    #[inline(always)]
    fn load_eight(self, from: &[f32]) -> __m256 {
        assert!(from.len() <= 8);
        let mask = &MASKS[8 - from.len()..][..8];
        // SAFETY:
        // - the processor has AVX2 (X1);
        // - eight i32 are readable at `mask` (X2, by its length).
        let mask = unsafe { _mm256_loadu_si256(mask.as_ptr().cast()) };
        // SAFETY:
        // - the processor has AVX2 (X1);
        // - the mask has the low `from.len()` lanes set, so only the floats of `from` are read (X2).
        unsafe { _mm256_maskload_ps(from.as_ptr(), mask) }
    }

    /// Eight floats.
    #[inline(always)]
    fn load8(self, from: &[f32; 8]) -> __m256 {
        // SAFETY:
        // - the processor has AVX2 (X1);
        // - eight floats are readable at `from` (X2, by its type).
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }

    /// Lane k of the result is lane k + `by` of v, the lanes being in a ring.
    #[inline(always)]
    fn rotate8(self, v: __m256, by: usize) -> __m256 {
        // SAFETY: the processor has AVX2 (X1).
        let iota = unsafe { _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7) };
        // SAFETY: the processor has AVX2 (X1). The permutation uses the low three bits of an index.
        unsafe { _mm256_permutevar8x32_ps(v, _mm256_add_epi32(iota, _mm256_set1_epi32(by as i32))) }
    }

    /// The last `count` <= 8 values of a row of at least eight; the lanes past them are +0.
    #[inline(always)]
    fn last_of(self, row: &[f32], count: usize) -> __m256 {
        let last = row.last_chunk().expect("rows with a tail have at least sixteen components");
        let v = self.rotate8(self.load8(last), 8 - count);
        self.keep8(v, MASKS[8 - count..].first_chunk().expect("eight lanes of a mask"))
    }

    /// The floats of `block` from `place` on; where they end, anything in the lanes past them.
    #[inline(always)]
    fn eight_from(self, block: &[f32], place: usize) -> __m256 {
        let from = place.min(block.len() - 8);
        let v = self.load8(block[from..].first_chunk().expect("eight floats are left"));
        if place > from { self.rotate8(v, place - from) } else { v }
    }

    /// Four floats of `block` from `place` on; where only three are left, anything in the last lane.
    #[inline(always)]
    fn four_from(self, block: &[f32], place: usize) -> __m128 {
        let from = place.min(block.len() - 4);
        let four: &[f32; 4] = block[from..].first_chunk().expect("four floats are left");
        // SAFETY:
        // - the processor has AVX2 (X1);
        // - four floats are readable at `four` (X2, by its type).
        let v = unsafe { _mm_loadu_ps(four.as_ptr()) };
        if place > from {
            // SAFETY: the processor has AVX2 (X1).
            unsafe { _mm_permute_ps::<0x39>(v) }
        } else {
            v
        }
    }

    /// v where `keep` is all ones, +0 where it is zero.
    #[inline(always)]
    fn keep8(self, v: __m256, keep: &[i32; 8]) -> __m256 {
        // SAFETY:
        // - the processor has AVX2 (X1);
        // - eight i32 are readable at `keep` (X2, by its type).
        let keep = unsafe { _mm256_loadu_si256(keep.as_ptr().cast()) };
        // SAFETY: the processor has AVX2 (X1).
        unsafe { _mm256_and_ps(v, _mm256_castsi256_ps(keep)) }
    }

    /// Two rows of three floats from `place` on, each followed by anything.
    #[inline(always)]
    fn two_of_three(self, block: &[f32], place: usize) -> __m256 {
        let (low, high) = (self.four_from(block, place), self.four_from(block, place + 3));
        // SAFETY: the processor has AVX2 (X1).
        unsafe { _mm256_set_m128(high, low) }
    }

    #[inline(always)]
    fn square8(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the processor has AVX2 (X1).
        let difference = unsafe { _mm256_sub_ps(a, b) };
        // SAFETY: the processor has AVX2 (X1).
        unsafe { _mm256_mul_ps(difference, difference) }
    }

    /// Eight rows of three components as their columns. The values of a column lie in lanes that are all different, so
    /// three vectors are blended into one, and that is put in order.
    #[inline(always)]
    fn three_columns8(self, rows: &[f32; 24]) -> [__m256; 3] {
        let (vectors, _) = rows.as_chunks::<8>();
        let (a, b, c) = (self.load8(&vectors[0]), self.load8(&vectors[1]), self.load8(&vectors[2]));
        // SAFETY: the processor has AVX2 (X1).
        let blended = unsafe {
            [
                _mm256_blend_ps::<0x24>(_mm256_blend_ps::<0x92>(a, b), c),
                _mm256_blend_ps::<0x49>(_mm256_blend_ps::<0x24>(a, b), c),
                _mm256_blend_ps::<0x92>(_mm256_blend_ps::<0x49>(a, b), c),
            ]
        };
        // SAFETY: the processor has AVX2 (X1).
        let order = unsafe {
            [
                _mm256_setr_epi32(0, 3, 6, 1, 4, 7, 2, 5),
                _mm256_setr_epi32(1, 4, 7, 2, 5, 0, 3, 6),
                _mm256_setr_epi32(2, 5, 0, 3, 6, 1, 4, 7),
            ]
        };
        let mut columns = blended;
        for (column, order) in columns.iter_mut().zip(order) {
            // SAFETY: the processor has AVX2 (X1).
            *column = unsafe { _mm256_permutevar8x32_ps(*column, order) };
        }
        columns
    }

    #[inline(always)]
    fn add_square8(self, sum: __m256, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the processor has AVX2 (X1).
        let difference = unsafe { _mm256_sub_ps(a, b) };
        // SAFETY: the processor has FMA (X1).
        unsafe { _mm256_fmadd_ps(difference, difference, sum) }
    }

    #[inline(always)]
    fn add_gap8(self, sum: __m256, low: __m256, x: __m256, high: __m256) -> __m256 {
        // SAFETY: the processor has AVX2 (X1).
        let below = unsafe { _mm256_sub_ps(low, x) };
        // SAFETY: the processor has AVX2 (X1).
        let above = unsafe { _mm256_sub_ps(x, high) };
        // SAFETY: the processor has AVX2 (X1).
        let gap = unsafe { _mm256_max_ps(_mm256_max_ps(below, above), _mm256_setzero_ps()) };
        // SAFETY: the processor has FMA (X1).
        unsafe { _mm256_fmadd_ps(gap, gap, sum) }
    }

    #[inline(always)]
    fn mul8(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the processor has AVX2 (X1).
        unsafe { _mm256_mul_ps(a, b) }
    }

    /// One bit for each lane in which a is at most b.
    #[inline(always)]
    fn at_most8(self, a: __m256, b: __m256) -> u8 {
        // SAFETY: the processor has AVX2 (X1).
        let mask = unsafe { _mm256_cmp_ps::<_CMP_LE_OQ>(a, b) };
        // SAFETY: the processor has AVX2 (X1).
        unsafe { _mm256_movemask_ps(mask) as u8 }
    }

    #[inline(always)]
    fn add8(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the processor has AVX2 (X1).
        unsafe { _mm256_add_ps(a, b) }
    }

    /// One row of 8 lanes in each argument: both, halved to 4 lanes.
    #[inline(always)]
    fn halve4(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the processor has AVX2 (X1).
        let low = unsafe { _mm256_permute2f128_ps::<0x20>(a, b) };
        // SAFETY: the processor has AVX2 (X1).
        let high = unsafe { _mm256_permute2f128_ps::<0x31>(a, b) };
        self.add8(low, high)
    }

    /// Two rows of 4 lanes in each argument: all four halved to 2 lanes, in the order a0 b0 a1 b1.
    #[inline(always)]
    fn halve2(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the processor has AVX2 (X1).
        let low = unsafe { _mm256_shuffle_ps::<0x44>(a, b) };
        // SAFETY: the processor has AVX2 (X1).
        let high = unsafe { _mm256_shuffle_ps::<0xEE>(a, b) };
        self.add8(low, high)
    }

    /// Four rows of 2 lanes in each argument: all eight sums, in the order a0 a1 b0 b1 a2 a3 b2 b3.
    #[inline(always)]
    fn halve1(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the processor has AVX2 (X1).
        let even = unsafe { _mm256_shuffle_ps::<0x88>(a, b) };
        // SAFETY: the processor has AVX2 (X1).
        let odd = unsafe { _mm256_shuffle_ps::<0xDD>(a, b) };
        self.add8(even, odd)
    }

    /// Eight rows of 2 lanes: their sums, in order.
    #[inline(always)]
    fn finish_pairs(self, v: Pair) -> __m256 {
        let sums = self.halve1(v.0, v.1);
        // SAFETY: the processor has AVX2 (X1).
        unsafe { _mm256_castpd_ps(_mm256_permute4x64_pd::<0xD8>(_mm256_castps_pd(sums))) }
    }

    /// Eight rows of 4 lanes, two in each part of the arguments: their sums, in order.
    #[inline(always)]
    fn finish_eight(self, a: Pair, b: Pair) -> __m256 {
        // Rows 0 2 4 6 1 3 5 7.
        let sums = self.halve1(self.halve2(a.0, a.1), self.halve2(b.0, b.1));
        // SAFETY: the processor has AVX2 (X1).
        let order = unsafe { _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7) };
        // SAFETY: the processor has AVX2 (X1).
        unsafe { _mm256_permutevar8x32_ps(sums, order) }
    }
}

/// Lanes 0 to 7 and lanes 8 to 15.
#[derive(Clone, Copy)]
pub(super) struct Pair(__m256, __m256);

impl Lanes for Avx2 {
    type Vector = Pair;

    const WIDE_BLOCK: bool = false;

    #[inline(always)]
    fn vectorize<J: Job>(self, job: J) -> J::Output {
        #[target_feature(enable = "avx2,fma")]
        fn compiled<J: Job>(lanes: Avx2, job: J) -> J::Output {
            job.run(lanes)
        }
        // SAFETY: the processor has AVX2 (X1).
        unsafe { compiled(self, job) }
    }

    #[inline(always)]
    fn zero(self) -> Pair {
        self.splat(0.0)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Pair {
        // SAFETY: the processor has AVX2 (X1).
        let half = unsafe { _mm256_set1_ps(x) };
        Pair(half, half)
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Pair {
        let (halves, _) = from.as_chunks::<8>();
        // SAFETY:
        // - the processor has AVX2 (X1);
        // - eight floats are readable at the first half (X2, by its type).
        let low = unsafe { _mm256_loadu_ps(halves[0].as_ptr()) };
        // SAFETY: as above, for the second half.
        let high = unsafe { _mm256_loadu_ps(halves[1].as_ptr()) };
        Pair(low, high)
    }

    #[inline(always)]
    fn store(self, v: Pair, to: &mut [f32; LANES]) {
        let (halves, _) = to.as_chunks_mut::<8>();
        // SAFETY:
        // - the processor has AVX2 (X1);
        // - eight floats are writable at the first half (X2, by its type).
        unsafe { _mm256_storeu_ps(halves[0].as_mut_ptr(), v.0) }
        // SAFETY: as above, for the second half.
        unsafe { _mm256_storeu_ps(halves[1].as_mut_ptr(), v.1) }
    }

    #[inline(always)]
    fn load_part(self, from: &[f32]) -> Pair {
        let (low, high) = from.split_at(from.len().min(8));
        Pair(self.load_eight(low), self.load_eight(high))
    }

    #[inline(always)]
    fn load_tail(self, row: &[f32], count: usize) -> Pair {
        assert!(count < LANES && row.len() >= LANES);
        let high = count.saturating_sub(8);
        Pair(self.last_of(&row[..row.len() - high], count - high), self.last_of(row, high))
    }

    #[inline(always)]
    fn spread_square<const N: usize>(self, block: &[f32], i: usize, query: Pair) -> Pair {
        assert!(block.len() == LANES * N && i < Spread::<N>::VECTORS);
        let place = i * Spread::<N>::STEP;
        let v = if N == 3 {
            Pair(self.two_of_three(block, place), self.two_of_three(block, place + 6))
        } else {
            // The second half holds the second row of two, or goes on where the first half stops.
            let second = if 4 < N && N < 8 { N } else { 8 };
            Pair(self.eight_from(block, place), self.eight_from(block, place + second))
        };
        let squares = self.square(v, query);
        if N.is_power_of_two() {
            return squares;
        }
        let (keep, _) = const { &Spread::<N>::KEEP }.as_chunks();
        Pair(self.keep8(squares.0, &keep[0]), self.keep8(squares.1, &keep[1]))
    }

    #[inline(always)]
    fn add(self, a: Pair, b: Pair) -> Pair {
        Pair(self.add8(a.0, b.0), self.add8(a.1, b.1))
    }

    #[inline(always)]
    fn square(self, a: Pair, b: Pair) -> Pair {
        Pair(self.square8(a.0, b.0), self.square8(a.1, b.1))
    }

    #[inline(always)]
    fn three_columns(self, rows: &[f32; 3 * LANES]) -> [Pair; 3] {
        let (halves, _) = rows.as_chunks::<24>();
        let low = self.three_columns8(&halves[0]);
        let high = self.three_columns8(&halves[1]);
        [Pair(low[0], high[0]), Pair(low[1], high[1]), Pair(low[2], high[2])]
    }

    #[inline(always)]
    fn add_square(self, sum: Pair, a: Pair, b: Pair) -> Pair {
        Pair(self.add_square8(sum.0, a.0, b.0), self.add_square8(sum.1, a.1, b.1))
    }

    #[inline(always)]
    fn add_gap(self, sum: Pair, low: Pair, x: Pair, high: Pair) -> Pair {
        let first = self.add_gap8(sum.0, low.0, x.0, high.0);
        Pair(first, self.add_gap8(sum.1, low.1, x.1, high.1))
    }

    #[inline(always)]
    fn mul(self, a: Pair, b: Pair) -> Pair {
        Pair(self.mul8(a.0, b.0), self.mul8(a.1, b.1))
    }

    #[inline(always)]
    fn at_most(self, a: Pair, b: Pair) -> u16 {
        self.at_most8(a.0, b.0) as u16 | (self.at_most8(a.1, b.1) as u16) << 8
    }

    #[inline(always)]
    fn fold8(self, a: Pair, b: Pair) -> Pair {
        Pair(self.add8(a.0, a.1), self.add8(b.0, b.1))
    }

    #[inline(always)]
    fn fold4(self, a: Pair, b: Pair) -> Pair {
        Pair(self.halve4(a.0, a.1), self.halve4(b.0, b.1))
    }

    #[inline(always)]
    fn fold2(self, [a, b, c, d]: [Pair; 4]) -> Pair {
        Pair(self.finish_eight(a, b), self.finish_eight(c, d))
    }

    #[inline(always)]
    fn fold1(self, a: Pair, b: Pair) -> Pair {
        Pair(self.finish_pairs(a), self.finish_pairs(b))
    }

    #[inline(always)]
    fn total(self, v: Pair) -> f32 {
        let eight = self.add8(v.0, v.1);
        // SAFETY: the processor has AVX, which AVX2 includes (X1).
        unsafe { total_of_eight(eight) }
    }
}
