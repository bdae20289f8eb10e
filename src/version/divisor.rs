//! Division by multiplying, because it is on the way to every row.

/// More than any file has rows.
pub(crate) const MOST_ROWS: u64 = 1 << 41;

/// More than any segment has rows, which is at most 1 MiB long.
const MOST_PER_SEGMENT: u64 = 1 << 20;

/// The number of rows of a segment, made ready to divide row numbers up to [`MOST_ROWS`] by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Divisor {
    per_segment: u64,
    /// 2^63 by that number, and more by at most 1.
    reciprocal: u64,
}

impl Divisor {
    pub(super) fn new(per_segment: u64) -> Self {
        assert!(0 < per_segment && per_segment <= MOST_PER_SEGMENT, "rows of a segment");
        Divisor { per_segment, reciprocal: (1 << 63) / per_segment + 1 }
    }

    /// The segment in which a row is, and which of its rows it is.
    ///
    /// For p rows to a segment, 2 row + 1 times the reciprocal by 2^64 is (row + 1/2) / p, and more
    /// by at most (2 row + 1) / 2^64. The former is at least 1 / 2p below the next whole number,
    /// the latter less than that, because (2 row + 1) 2p < 2^42 * 2^21 < 2^64. So the whole part is
    /// that of row / p.
    #[inline(always)]
    pub(super) fn divide(self, row: u64) -> (u64, u64) {
        let product = u128::from(2 * row + 1) * u128::from(self.reciprocal);
        let segment = (product >> 64) as u64;
        (segment, row - segment * self.per_segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exhaustive. The quotient is never too small, because the reciprocal is not. What it is too
    /// large by grows with the row, and the room for that is least in the last row of a segment: so
    /// for each number of rows there is, the last row of the last whole segment and the very last
    /// row decide for all.
    #[test]
    fn every_divisor_divides_every_row() {
        for per_segment in 1..=MOST_PER_SEGMENT {
            let divisor = Divisor::new(per_segment);
            let last = (MOST_ROWS + 1) / per_segment * per_segment - 1;
            for row in [last, MOST_ROWS, 0, per_segment - 1, per_segment] {
                let expected = (row / per_segment, row % per_segment);
                assert_eq!(divisor.divide(row), expected, "{row} by {per_segment}");
            }
        }
    }

    #[test]
    fn small_divisors_divide_small_rows() {
        for per_segment in 1..=300 {
            let divisor = Divisor::new(per_segment);
            for row in 0..5_000 {
                assert_eq!(divisor.divide(row), (row / per_segment, row % per_segment));
            }
        }
    }

    #[test]
    fn multiplying_divides() {
        let sizes = [1, 2, 3, 5, 7, 85, 102, 170, 341, 1023, 65_535, 99_999, MOST_PER_SEGMENT];
        for per_segment in (1..2000).chain(sizes) {
            let divisor = Divisor::new(per_segment);
            let multiples = [0, 1, 2, 3, 1000, 1 << 20, MOST_ROWS / per_segment];
            for row in multiples.map(|n| n * per_segment).into_iter().chain([MOST_ROWS]) {
                for row in [row.saturating_sub(1), row, row + 1].map(|row| row.min(MOST_ROWS)) {
                    assert_eq!(divisor.divide(row), (row / per_segment, row % per_segment));
                }
            }
        }
    }
}
