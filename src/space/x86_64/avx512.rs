//! AVX-512: one register is sixteen lanes.
#![expect(unsafe_code, reason = "vector instructions; each block is discharged by X1 and X2")]

use std::arch::x86_64::*;

use super::super::lanes::{Job, Lanes, Spread};
use super::super::near::Near;
use super::super::scalar::LANES;
use super::super::sorted::PLACES;
use super::eight;

/// Proof that the processor has AVX-512F, AVX-512 VNNI and POPCNT (X1). The few that have only the
/// first are served by AVX2.
#[derive(Clone, Copy, Debug)]
pub(in crate::space) struct Avx512(());

impl Avx512 {
    pub(in crate::space) fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("popcnt");
        all.then_some(Self(()))
    }
}

/// Each lane's own number.
static IOTA: [i32; LANES] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// Each lane of one vector followed by the same of another.
static PAIRS: [[i32; LANES]; 2] = [
    [0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23],
    [8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31],
];

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

impl Avx512 {
    /// Rows i, i + 4, i + 8 and i + 12, in order.
    #[inline(always)]
    fn every_fourth(self, rows: &[&[u64; 2]; LANES], i: usize) -> __m512i {
        let [a, b, c, d] = [rows[i], rows[i + 4], rows[i + 8], rows[i + 12]];
        // SAFETY:
        // - the processor has AVX-512F (X1);
        // - sixteen bytes are readable at each row (X2, by their types).
        unsafe {
            let v = _mm512_castsi128_si512(_mm_loadu_si128(a.as_ptr().cast()));
            let v = _mm512_inserti32x4::<1>(v, _mm_loadu_si128(b.as_ptr().cast()));
            let v = _mm512_inserti32x4::<2>(v, _mm_loadu_si128(c.as_ptr().cast()));
            _mm512_inserti32x4::<3>(v, _mm_loadu_si128(d.as_ptr().cast()))
        }
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
    type Ints = __m512i;
    type Entries = __m512i;

    const WIDE_BLOCK: bool = true;
    const LAST_CELL: u8 = 255;

    #[inline(always)]
    fn vectorize<J: Job>(self, job: J) -> J::Output {
        #[target_feature(enable = "avx512f,avx512vnni,popcnt")]
        fn compiled<J: Job>(lanes: Avx512, job: J) -> J::Output {
            job.run(lanes)
        }
        // SAFETY: the processor has AVX-512F, AVX-512 VNNI and POPCNT (X1).
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
    fn add_square(self, sum: __m512, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the processor has AVX-512F (X1).
        let difference = unsafe { _mm512_sub_ps(a, b) };
        // SAFETY: the processor has AVX-512F (X1).
        unsafe { _mm512_fmadd_ps(difference, difference, sum) }
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the processor has AVX-512F (X1).
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn sqrt(self, a: __m512) -> __m512 {
        // SAFETY: the processor has AVX-512F (X1).
        unsafe { _mm512_sqrt_ps(a) }
    }

    #[inline(always)]
    fn least(self, a: __m512) -> f32 {
        // SAFETY: the processor has AVX-512F (X1).
        unsafe { _mm512_reduce_min_ps(a) }
    }

    #[inline(always)]
    fn append(self, values: __m512, first: u32, lanes: u16, found: &mut Vec<Near>) {
        let numbers = self.shifted(&IOTA, first as usize);
        let (low, high) = (self.load_ints(&PAIRS[0]), self.load_ints(&PAIRS[1]));
        // SAFETY: the processor has AVX-512F (X1).
        let (numbers, values) = unsafe {
            let values = _mm512_maskz_compress_epi32(lanes, _mm512_castps_si512(values));
            (_mm512_maskz_compress_epi32(lanes, numbers), values)
        };
        // SAFETY: the processor has AVX-512F (X1).
        let pairs = unsafe {
            [
                _mm512_permutex2var_epi32(numbers, low, values),
                _mm512_permutex2var_epi32(numbers, high, values),
            ]
        };
        found.reserve(LANES);
        let (to, len) = (found.spare_capacity_mut(), lanes.count_ones() as usize);
        let to = to[..LANES].as_mut_ptr().cast::<__m512i>();
        // SAFETY:
        // - the processor has AVX-512F (X1);
        // - sixteen entries of eight bytes are writable at `to` (X2, by the length of the slice);
        // - of those the first `len` <= 16 become part of the list, and each is an i64.
        unsafe {
            _mm512_storeu_si512(to, pairs[0]);
            _mm512_storeu_si512(to.add(1), pairs[1]);
            found.set_len(found.len() + len);
        }
    }

    #[inline(always)]
    fn load_near(self, from: &[Near; PLACES]) -> __m512i {
        // SAFETY:
        // - the processor has AVX-512F (X1);
        // - eight entries of eight bytes are readable at `from` (X2, by its type).
        unsafe { _mm512_loadu_epi64(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store_near(self, entries: __m512i, to: &mut [Near; PLACES]) {
        // SAFETY:
        // - the processor has AVX-512F (X1);
        // - eight entries of eight bytes, each an i64, are writable at `to` (X2, by its type).
        unsafe { _mm512_storeu_epi64(to.as_mut_ptr().cast(), entries) }
    }

    #[inline(always)]
    fn insert(self, entries: __m512i, new: Near, before: Option<__m512i>) -> __m512i {
        // SAFETY: the processor has AVX-512F (X1).
        unsafe {
            let before = before.unwrap_or(_mm512_set1_epi64(i64::MIN));
            let moved = _mm512_alignr_epi64::<7>(entries, before);
            _mm512_max_epi64(moved, _mm512_min_epi64(entries, _mm512_set1_epi64(new.0)))
        }
    }

    #[inline(always)]
    fn any_at_most(self, sums: &[__m512; 4], limits: &[f32; 4]) -> bool {
        let mut any = 0;
        for (&sum, &limit) in sums.iter().zip(limits) {
            any |= self.at_most(sum, self.splat(limit));
        }
        any != 0
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
        unsafe { eight::total(eight) }
    }

    #[inline(always)]
    fn load_ints(self, from: &[i32; LANES]) -> __m512i {
        // SAFETY:
        // - the processor has AVX-512F (X1);
        // - sixteen i32 are readable at `from` (X2, by its type).
        unsafe { _mm512_loadu_epi32(from.as_ptr()) }
    }

    #[inline(always)]
    fn store_ints(self, v: __m512i, to: &mut [i32; LANES]) {
        // SAFETY:
        // - the processor has AVX-512F (X1);
        // - sixteen i32 are writable at `to` (X2, by its type).
        unsafe { _mm512_storeu_epi32(to.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn add_dot(self, sum: __m512i, rows: &[[i32; LANES]; 2], query: &[i32; 2]) -> __m512i {
        let (first, second) = (self.load_ints(&rows[0]), self.load_ints(&rows[1]));
        // SAFETY: the processor has AVX-512F (X1).
        let queries = unsafe { [_mm512_set1_epi32(query[0]), _mm512_set1_epi32(query[1])] };
        // SAFETY: the processor has AVX-512 VNNI (X1).
        let sum = unsafe { _mm512_dpbusd_epi32(sum, first, queries[0]) };
        // SAFETY: the processor has AVX-512 VNNI (X1).
        unsafe { _mm512_dpbusd_epi32(sum, second, queries[1]) }
    }

    #[inline(always)]
    fn add_moments(self, sum: __m512i, rows: &[[i32; LANES]; 2], shift: u8) -> __m512i {
        // c (c - 128) and c (128 - 2 shift). What is subtracted from a byte flips its upper bit.
        let bytes = |byte: i32| i32::from_le_bytes([byte as u8; 4]);
        // SAFETY: the processor has AVX-512F (X1).
        let flip = unsafe { _mm512_set1_epi32(bytes(128)) };
        // SAFETY: the processor has AVX-512F (X1).
        let rest = unsafe { _mm512_set1_epi32(bytes(128 - 2 * i32::from(shift))) };
        let mut sum = sum;
        for cells in rows {
            let cells = self.load_ints(cells);
            // Apart, so that only an addition waits for the one before.
            // SAFETY: the processor has AVX-512F and AVX-512 VNNI (X1).
            let dot = unsafe {
                let dot = _mm512_dpbusd_epi32(_mm512_setzero_si512(), cells, rest);
                _mm512_dpbusd_epi32(dot, cells, _mm512_xor_si512(cells, flip))
            };
            // SAFETY: the processor has AVX-512F (X1).
            sum = unsafe { _mm512_add_epi32(sum, dot) };
        }
        sum
    }

    #[inline(always)]
    fn above(self, a: __m512i, limit: i32) -> u16 {
        // SAFETY: the processor has AVX-512F (X1).
        unsafe { _mm512_cmpgt_epi32_mask(a, _mm512_set1_epi32(limit)) }
    }

    #[inline(always)]
    fn any_above(self, sums: &[__m512i; 4], limits: &[i32; 4]) -> bool {
        let mut any = 0;
        for (&sum, &limit) in sums.iter().zip(limits) {
            any |= self.above(sum, limit);
        }
        any != 0
    }

    #[inline(always)]
    fn columns(self, rows: &[&[u64; 2]; LANES]) -> [__m512i; 4] {
        let (a, b) = (self.every_fourth(rows, 0), self.every_fourth(rows, 1));
        let (c, d) = (self.every_fourth(rows, 2), self.every_fourth(rows, 3));
        // Within each quarter, which holds four rows.
        // SAFETY: the processor has AVX-512F (X1).
        let (ab, cd) = unsafe { (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d)) };
        // SAFETY: the processor has AVX-512F (X1).
        let (first, second) =
            unsafe { (_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd)) };
        // SAFETY: the processor has AVX-512F (X1).
        let (ab, cd) = unsafe { (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d)) };
        // SAFETY: the processor has AVX-512F (X1).
        let (third, fourth) =
            unsafe { (_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd)) };
        [first, second, third, fourth]
    }

    #[inline(always)]
    fn load_halves(self, low: &[f32; 8], high: &[f32; 8]) -> __m512 {
        // SAFETY:
        // - the processor has AVX, which AVX-512F includes (X1);
        // - eight floats are readable at either (X2, by their types).
        let (low, high) =
            unsafe { (_mm256_loadu_ps(low.as_ptr()), _mm256_loadu_ps(high.as_ptr())) };
        // SAFETY: the processor has AVX-512F (X1).
        unsafe {
            let v = _mm512_castps_pd(_mm512_castps256_ps512(low));
            _mm512_castpd_ps(_mm512_insertf64x4::<1>(v, _mm256_castps_pd(high)))
        }
    }

    #[inline(always)]
    fn quantize(
        self,
        sum: __m512,
        values: __m512,
        origin: __m512,
        scale: f32,
        last: f32,
    ) -> (__m512, [u64; 2]) {
        // SAFETY: the processor has AVX-512F (X1).
        let place = unsafe { _mm512_mul_ps(_mm512_sub_ps(values, origin), _mm512_set1_ps(scale)) };
        // SAFETY: the processor has AVX-512F (X1).
        let inside = unsafe { _mm512_max_ps(place, _mm512_setzero_ps()) };
        // SAFETY: the processor has AVX-512F (X1).
        let cells = unsafe { _mm512_cvtps_epi32(_mm512_min_ps(inside, _mm512_set1_ps(last))) };
        // SAFETY: the processor has AVX-512F (X1).
        let off = unsafe { _mm512_sub_ps(place, _mm512_cvtepi32_ps(cells)) };
        // SAFETY: the processor has AVX-512F (X1).
        let sum = unsafe { _mm512_fmadd_ps(off, off, sum) };
        let mut bytes = [0; 2];
        // SAFETY:
        // - the processor has AVX-512F (X1);
        // - sixteen bytes are writable at `bytes` (X2, by its type).
        unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(cells)) }
        (sum, bytes)
    }
}
