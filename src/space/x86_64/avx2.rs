//! AVX2: a pair of registers, lanes 0 to 7 and lanes 8 to 15.
#![expect(unsafe_code, reason = "vector instructions; each block is discharged by X1 and X2")]

use std::arch::x86_64::*;

use super::super::lanes::{Job, Lanes, Spread};
use super::super::near::Near;
use super::super::scalar::LANES;
use super::super::sorted::PLACES;
use super::eight;

/// Eight lanes of ones, then eight of zeros: read from 8 - k, a mask of k lanes.
static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// For each set of eight lanes, which they are, side by side; then zeros.
static PACKED: [[i32; 8]; 256] = {
    let mut packed = [[0; 8]; 256];
    let mut set = 0;
    while set < 256 {
        let (mut lane, mut count) = (0, 0);
        while lane < 8 {
            if set >> lane & 1 == 1 {
                packed[set][count] = lane;
                count += 1;
            }
            lane += 1;
        }
        set += 1;
    }
    packed
};

/// Proof that the processor has AVX2 and FMA, which all but the oddest have together (X1).
#[derive(Clone, Copy, Debug)]
pub(in crate::space) struct Avx2(());

impl Avx2 {
    pub(in crate::space) fn detect() -> Option<Self> {
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
        // - the mask has the low `from.len()` lanes set, so only the floats of `from` are read
        //   (X2).
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

    /// Four floats of `block` from `place` on; where only three are left, anything in the last
    /// lane.
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

    /// Appends the lanes whose bit is set, numbered from `first` on, if there is room for eight.
    #[inline(always)]
    fn append8(self, values: __m256, first: u32, lanes: u8, found: &mut Vec<Near>) {
        let places = &PACKED[usize::from(lanes)];
        // SAFETY:
        // - the processor has AVX2 (X1);
        // - eight i32 are readable at `places` (X2, by its type).
        let pairs = unsafe {
            let places = _mm256_loadu_si256(places.as_ptr().cast());
            let values = _mm256_castps_si256(_mm256_permutevar8x32_ps(values, places));
            let numbers = _mm256_add_epi32(places, _mm256_set1_epi32(first as i32));
            let evens = _mm256_unpacklo_epi32(numbers, values);
            let odds = _mm256_unpackhi_epi32(numbers, values);
            [
                _mm256_permute2x128_si256::<0x20>(evens, odds),
                _mm256_permute2x128_si256::<0x31>(evens, odds),
            ]
        };
        let (to, len) = (found.spare_capacity_mut(), lanes.count_ones() as usize);
        let to = to[..8].as_mut_ptr().cast::<__m256i>();
        // SAFETY:
        // - the processor has AVX (X1);
        // - eight entries of eight bytes are writable at `to` (X2, by the length of the slice);
        // - of those the first `len` <= 8 become part of the list, and each is an i64.
        unsafe {
            _mm256_storeu_si256(to, pairs[0]);
            _mm256_storeu_si256(to.add(1), pairs[1]);
            found.set_len(found.len() + len);
        }
    }

    #[inline(always)]
    fn square8(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the processor has AVX2 (X1).
        let difference = unsafe { _mm256_sub_ps(a, b) };
        // SAFETY: the processor has AVX2 (X1).
        unsafe { _mm256_mul_ps(difference, difference) }
    }

    /// Eight rows of three components as their columns. The values of a column lie in lanes that
    /// are all different, so three vectors are blended into one, and that is put in order.
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
pub(in crate::space) struct Pair(__m256, __m256);

/// Lanes 0 to 7 and lanes 8 to 15.
#[derive(Clone, Copy)]
pub(in crate::space) struct IntPair(__m256i, __m256i);

/// sum + the dot products of eight bytes, in eight lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn add_dot8(sum: __m256i, rows: [__m256i; 2], query: [__m256i; 2]) -> __m256i {
    let first = _mm256_maddubs_epi16(rows[0], query[0]);
    let second = _mm256_maddubs_epi16(rows[1], query[1]);
    let fours = _mm256_add_epi16(first, second);
    _mm256_add_epi32(sum, _mm256_madd_epi16(fours, _mm256_set1_epi16(1)))
}

/// sum + the sum of c (c - 128) over eight bytes c, in eight lanes. What is subtracted flips the
/// upper bit.
#[inline]
#[target_feature(enable = "avx2")]
fn add_moments8(sum: __m256i, cells: [__m256i; 2]) -> __m256i {
    let flip = _mm256_set1_epi8(i8::MIN);
    add_dot8(sum, cells, [_mm256_xor_si256(cells[0], flip), _mm256_xor_si256(cells[1], flip)])
}

/// [`Lanes::quantize`] of eight values.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn quantize8(sum: __m256, values: __m256, origin: __m256, scale: f32, last: f32) -> (__m256, u64) {
    let place = _mm256_mul_ps(_mm256_sub_ps(values, origin), _mm256_set1_ps(scale));
    let inside = _mm256_max_ps(place, _mm256_setzero_ps());
    let cells = _mm256_cvtps_epi32(_mm256_min_ps(inside, _mm256_set1_ps(last)));
    let off = _mm256_sub_ps(place, _mm256_cvtepi32_ps(cells));
    let sum = _mm256_fmadd_ps(off, off, sum);
    let (low, high) = (_mm256_castsi256_si128(cells), _mm256_extracti128_si256::<1>(cells));
    let words = _mm_packs_epi32(low, high);
    (sum, _mm_cvtsi128_si64(_mm_packus_epi16(words, words)) as u64)
}

impl Avx2 {
    /// The low half and the high half.
    #[inline(always)]
    fn both(self, low: &[u64; 2], high: &[u64; 2]) -> __m256i {
        // SAFETY:
        // - the processor has AVX2 (X1);
        // - sixteen bytes are readable at either (X2, by their types).
        unsafe { _mm256_loadu2_m128i(high.as_ptr().cast(), low.as_ptr().cast()) }
    }

    /// [`Lanes::columns`] of eight rows: the four columns of four bytes.
    #[inline(always)]
    fn columns8(self, rows: &[&[u64; 2]; 8]) -> [__m256i; 4] {
        let (a, b) = (self.both(rows[0], rows[4]), self.both(rows[1], rows[5]));
        let (c, d) = (self.both(rows[2], rows[6]), self.both(rows[3], rows[7]));
        // Within each half, which holds four rows.
        // SAFETY: the processor has AVX2 (X1).
        let (ab, cd) = unsafe { (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d)) };
        // SAFETY: the processor has AVX2 (X1).
        let first = unsafe { [_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd)] };
        // SAFETY: the processor has AVX2 (X1).
        let (ab, cd) = unsafe { (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d)) };
        // SAFETY: the processor has AVX2 (X1).
        let second = unsafe { [_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd)] };
        [first[0], first[1], second[0], second[1]]
    }

    #[inline(always)]
    fn above8(self, a: __m256i, limit: i32) -> __m256i {
        // SAFETY: the processor has AVX2 (X1).
        unsafe { _mm256_cmpgt_epi32(a, _mm256_set1_epi32(limit)) }
    }

    /// One bit for each lane that is negative.
    #[inline(always)]
    fn negative(self, a: __m256i) -> u8 {
        // SAFETY: the processor has AVX2 (X1).
        unsafe { _mm256_movemask_ps(_mm256_castsi256_ps(a)) as u8 }
    }
}

/// `new` in its place among four entries; those behind it move on by one. Before the first comes
/// the last of `before`.
#[inline]
#[target_feature(enable = "avx2")]
fn insert_in_four(entries: __m256i, new: __m256i, before: __m256i) -> __m256i {
    let moved = _mm256_permute4x64_epi64::<0x93>(_mm256_blend_epi32::<0xC0>(entries, before));
    let stays = _mm256_cmpgt_epi64(new, entries);
    let comes = _mm256_cmpgt_epi64(new, moved);
    let arrives = _mm256_blendv_epi8(moved, new, comes);
    _mm256_blendv_epi8(arrives, entries, stays)
}

impl Lanes for Avx2 {
    type Vector = Pair;
    type Ints = IntPair;
    type Entries = [__m256i; 2];

    const WIDE_BLOCK: bool = false;
    // Sums of two products of greater bytes would not fit.
    const LAST_CELL: u8 = 127;

    #[inline(always)]
    fn vectorize<J: Job>(self, job: J) -> J::Output {
        #[target_feature(enable = "avx2,fma")]
        fn compiled<J: Job>(lanes: Avx2, job: J) -> J::Output {
            job.run(lanes)
        }
        // SAFETY: the processor has AVX2 and FMA (X1).
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
    fn add_square(self, sum: Pair, a: Pair, b: Pair) -> Pair {
        // SAFETY: the processor has AVX2 (X1).
        let (low, high) = unsafe { (_mm256_sub_ps(a.0, b.0), _mm256_sub_ps(a.1, b.1)) };
        // SAFETY: the processor has AVX2 and FMA (X1).
        unsafe { Pair(_mm256_fmadd_ps(low, low, sum.0), _mm256_fmadd_ps(high, high, sum.1)) }
    }

    #[inline(always)]
    fn min(self, a: Pair, b: Pair) -> Pair {
        // SAFETY: the processor has AVX (X1).
        unsafe { Pair(_mm256_min_ps(a.0, b.0), _mm256_min_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn sqrt(self, a: Pair) -> Pair {
        // SAFETY: the processor has AVX (X1).
        unsafe { Pair(_mm256_sqrt_ps(a.0), _mm256_sqrt_ps(a.1)) }
    }

    #[inline(always)]
    fn least(self, a: Pair) -> f32 {
        // SAFETY: the processor has AVX (X1).
        unsafe { eight::least(_mm256_min_ps(a.0, a.1)) }
    }

    #[inline(always)]
    fn append(self, values: Pair, first: u32, lanes: u16, found: &mut Vec<Near>) {
        found.reserve(LANES);
        let [low, high] = lanes.to_le_bytes();
        self.append8(values.0, first, low, found);
        self.append8(values.1, first.wrapping_add(8), high, found);
    }

    #[inline(always)]
    fn load_near(self, from: &[Near; PLACES]) -> [__m256i; 2] {
        let from = from.as_ptr().cast::<__m256i>();
        // SAFETY:
        // - the processor has AVX (X1);
        // - eight entries of eight bytes are readable at `from` (X2, by its type).
        unsafe { [_mm256_loadu_si256(from), _mm256_loadu_si256(from.add(1))] }
    }

    #[inline(always)]
    fn store_near(self, entries: [__m256i; 2], to: &mut [Near; PLACES]) {
        let to = to.as_mut_ptr().cast::<__m256i>();
        // SAFETY:
        // - the processor has AVX (X1);
        // - eight entries of eight bytes, each an i64, are writable at `to` (X2, by its type).
        unsafe {
            _mm256_storeu_si256(to, entries[0]);
            _mm256_storeu_si256(to.add(1), entries[1]);
        }
    }

    #[inline(always)]
    fn insert(
        self,
        entries: [__m256i; 2],
        new: Near,
        before: Option<[__m256i; 2]>,
    ) -> [__m256i; 2] {
        let [low, high] = entries;
        // SAFETY: the processor has AVX2 (X1).
        unsafe {
            let before = before.map_or(_mm256_set1_epi64x(i64::MIN), |before| before[1]);
            let new = _mm256_set1_epi64x(new.0);
            [insert_in_four(low, new, before), insert_in_four(high, new, low)]
        }
    }

    #[inline(always)]
    fn any_at_most(self, sums: &[Pair; 4], limits: &[f32; 4]) -> bool {
        // SAFETY: the processor has AVX2 (X1).
        let mut any = unsafe { _mm256_setzero_ps() };
        for (sum, &limit) in sums.iter().zip(limits) {
            let limit = self.splat(limit);
            // SAFETY: the processor has AVX2 (X1).
            any = unsafe {
                let low = _mm256_cmp_ps::<_CMP_LE_OQ>(sum.0, limit.0);
                let high = _mm256_cmp_ps::<_CMP_LE_OQ>(sum.1, limit.1);
                _mm256_or_ps(any, _mm256_or_ps(low, high))
            };
        }
        // SAFETY: the processor has AVX2 (X1).
        unsafe { _mm256_movemask_ps(any) != 0 }
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
        unsafe { eight::total(eight) }
    }

    #[inline(always)]
    fn load_ints(self, from: &[i32; LANES]) -> IntPair {
        let (halves, _) = from.as_chunks::<8>();
        // SAFETY:
        // - the processor has AVX2 (X1);
        // - eight i32 are readable at the first half (X2, by its type).
        let low = unsafe { _mm256_loadu_si256(halves[0].as_ptr().cast()) };
        // SAFETY: as above, of the second half.
        let high = unsafe { _mm256_loadu_si256(halves[1].as_ptr().cast()) };
        IntPair(low, high)
    }

    #[inline(always)]
    fn store_ints(self, v: IntPair, to: &mut [i32; LANES]) {
        let (halves, _) = to.as_chunks_mut::<8>();
        // SAFETY:
        // - the processor has AVX2 (X1);
        // - eight i32 are writable at the first half (X2, by its type).
        unsafe { _mm256_storeu_si256(halves[0].as_mut_ptr().cast(), v.0) }
        // SAFETY: as above, for the second half.
        unsafe { _mm256_storeu_si256(halves[1].as_mut_ptr().cast(), v.1) }
    }

    #[inline(always)]
    fn add_moments(self, sum: IntPair, rows: &[[i32; LANES]; 2], shift: u8) -> IntPair {
        assert!(shift == Self::LAST_CELL / 2 + 1, "no other bytes can be multiplied");
        let (first, second) = (self.load_ints(&rows[0]), self.load_ints(&rows[1]));
        // SAFETY: the processor has AVX2 (X1).
        let low = unsafe { add_moments8(sum.0, [first.0, second.0]) };
        // SAFETY: the processor has AVX2 (X1).
        let high = unsafe { add_moments8(sum.1, [first.1, second.1]) };
        IntPair(low, high)
    }

    #[inline(always)]
    fn add_dot(self, sum: IntPair, rows: &[[i32; LANES]; 2], query: &[i32; 2]) -> IntPair {
        let (first, second) = (self.load_ints(&rows[0]), self.load_ints(&rows[1]));
        // SAFETY: the processor has AVX2 (X1).
        let query = unsafe { [_mm256_set1_epi32(query[0]), _mm256_set1_epi32(query[1])] };
        // SAFETY: the processor has AVX2 (X1).
        let low = unsafe { add_dot8(sum.0, [first.0, second.0], query) };
        // SAFETY: the processor has AVX2 (X1).
        let high = unsafe { add_dot8(sum.1, [first.1, second.1], query) };
        IntPair(low, high)
    }

    #[inline(always)]
    fn above(self, a: IntPair, limit: i32) -> u16 {
        let low = self.negative(self.above8(a.0, limit));
        let high = self.negative(self.above8(a.1, limit));
        u16::from_le_bytes([low, high])
    }

    #[inline(always)]
    fn any_above(self, sums: &[IntPair; 4], limits: &[i32; 4]) -> bool {
        // SAFETY: the processor has AVX (X1).
        let mut any = unsafe { _mm256_setzero_si256() };
        for (sum, &limit) in sums.iter().zip(limits) {
            let (low, high) = (self.above8(sum.0, limit), self.above8(sum.1, limit));
            // SAFETY: the processor has AVX2 (X1).
            any = unsafe { _mm256_or_si256(any, _mm256_or_si256(low, high)) };
        }
        self.negative(any) != 0
    }

    #[inline(always)]
    fn columns(self, rows: &[&[u64; 2]; LANES]) -> [IntPair; 4] {
        let (rows, _) = rows.as_chunks::<8>();
        let (low, high) = (self.columns8(&rows[0]), self.columns8(&rows[1]));
        let ([a, b, c, d], [e, f, g, h]) = (low, high);
        [IntPair(a, e), IntPair(b, f), IntPair(c, g), IntPair(d, h)]
    }

    #[inline(always)]
    fn load_halves(self, low: &[f32; 8], high: &[f32; 8]) -> Pair {
        Pair(self.load8(low), self.load8(high))
    }

    #[inline(always)]
    fn quantize(
        self,
        sum: Pair,
        values: Pair,
        origin: Pair,
        scale: f32,
        last: f32,
    ) -> (Pair, [u64; 2]) {
        // SAFETY: the processor has AVX2 and FMA (X1).
        let (low, first) = unsafe { quantize8(sum.0, values.0, origin.0, scale, last) };
        // SAFETY: the processor has AVX2 and FMA (X1).
        let (high, second) = unsafe { quantize8(sum.1, values.1, origin.1, scale, last) };
        (Pair(low, high), [first, second])
    }
}
