//! What f32 takes away from an input: rows that differ and are equal once rounded, and rows that
//! differ and are at distance 0, because the squares of what they differ by are below all that f32
//! holds.
//!
//! Nothing is refused or changed here; rows are counted, so that whoever brings them is told. A
//! count is of rows that are known to be lost, never more: hashes stand for rows (64 bits; two that
//! differ and agree in both hashes are not to be expected), and a table of limited size keeps a
//! part of what rows become, whole classes of it, when there are too many.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

/// Classes that are kept if memory is not limited: 40 MiB of them.
const MOST_CLASSES: usize = 7 << 17;
/// If it is limited: a class for so many bytes of the limit, and no fewer than so many classes.
const BYTES_PER_CLASS: u64 = 2048;
const LEAST_CLASSES: usize = 3584;

/// Two values below this may differ by so little that the square of it is 0. From here on values
/// that differ do so by at least 2^-74, the step of f32, whose square is 2^-148.
const TINY: f32 = pow2(-51);
/// Values below [`TINY`] that agree once they are cut to multiples of this differ by less than
/// 2^-75, whose square f32 rounds to 0.
const CELL: f32 = pow2(-76);
/// Values below this differ by less than 2^-63, whose square is the least that f32 holds in full.
const SMALL: f32 = pow2(-64);

/// 2^exponent, from -126 up.
const fn pow2(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

/// How much is kept to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watch {
    classes: usize,
}

impl Watch {
    /// As much as a limit of the memory leaves room for.
    pub(crate) fn within(memory_limit: Option<u64>) -> Watch {
        let classes = match memory_limit {
            Some(bytes) => usize::try_from(bytes / BYTES_PER_CLASS).unwrap_or(usize::MAX),
            None => MOST_CLASSES,
        };
        Watch { classes: classes.clamp(LEAST_CLASSES, MOST_CLASSES) }
    }
}

/// Rows that were different from another row and are so no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    /// How many are known.
    pub(crate) rows: u64,
    /// There may be more.
    pub(crate) at_least: bool,
    /// The first that was found, and the row before it that it is not told from. From 0.
    pub(crate) first: (u64, u64),
}

/// What an input lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Precision {
    /// By rounding to f32.
    pub(crate) rounded: Option<Lost>,
    /// At distance 0 from a row that they differ from.
    pub(crate) at_zero: Option<Lost>,
    /// Rows so near to the origin that distances between them lose digits; how many, and the first.
    pub(crate) small: Option<(u64, u64)>,
}

/// A hash of a row, value by value.
#[derive(Clone, Copy, Debug, Default)]
struct RowHash(u64);

impl RowHash {
    fn push(&mut self, bits: u64) {
        self.0 = (self.0.rotate_left(29) ^ bits).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(self) -> u64 {
        let mixed = (self.0 ^ self.0 >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        (mixed ^ mixed >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93)
    }
}

/// Keys are hashes already. The halves change places, since of the upper one bits may be the same
/// in all keys.
#[derive(Default)]
struct Halves(u64);

impl Hasher for Halves {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key.rotate_left(32);
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are whole numbers")
    }
}

/// Rows that became the same.
#[derive(Debug)]
struct Class {
    /// The hash of what the first of them was.
    original: u64,
    first: u64,
    /// How many of them are not what they were, until they are counted.
    changed: u64,
    /// They were not all the same.
    is_mixed: bool,
}

/// Counts rows that become equal to rows that they differ from.
#[derive(Debug)]
struct Merges {
    /// By the hash of what rows became.
    classes: HashMap<u64, Class, BuildHasherDefault<Halves>>,
    most: usize,
    /// Only classes whose hash begins with so many zeros are kept.
    zeros: u32,
    rows: u64,
    first: Option<(u64, u64)>,
}

impl Merges {
    fn new(watch: Watch) -> Self {
        let (classes, most) = (HashMap::default(), watch.classes);
        Merges { classes, most, zeros: 0, rows: 0, first: None }
    }

    /// Takes a row of this hash that was one of the hash `original`; whether that is another.
    fn record(&mut self, became: u64, original: u64, is_changed: bool, row: u64) {
        while self.classes.len() >= self.most && became.leading_zeros() >= self.zeros {
            if self.classes.contains_key(&became) {
                break;
            }
            self.zeros += 1;
            let zeros = self.zeros;
            self.classes.retain(|hash, _| hash.leading_zeros() >= zeros);
        }
        if became.leading_zeros() < self.zeros {
            return;
        }
        let changed = u64::from(is_changed);
        match self.classes.entry(became) {
            Entry::Vacant(place) => {
                place.insert(Class { original, first: row, changed, is_mixed: false });
            }
            Entry::Occupied(mut class) => {
                let class = class.get_mut();
                class.changed += changed;
                if !class.is_mixed && class.original != original {
                    class.is_mixed = true;
                    self.first.get_or_insert((row, class.first));
                }
                if class.is_mixed {
                    self.rows += std::mem::take(&mut class.changed);
                }
            }
        }
    }

    fn lost(&self) -> Option<Lost> {
        let at_least = self.zeros > 0;
        self.first.map(|first| Lost { rows: self.rows, at_least, first })
    }
}

/// Finds what becomes equal when values are rounded to f32, value by value in the order of the
/// rows.
#[derive(Debug)]
pub(super) struct Rounding {
    dim: usize,
    /// Of the row that is being taken: values so far, and what they hash to.
    column: usize,
    rounded: RowHash,
    original: RowHash,
    is_changed: bool,
    /// Whole rows so far.
    row: u64,
    merges: Merges,
}

impl Rounding {
    /// For rows of `dim` > 0 values.
    pub(super) fn new(dim: usize, watch: Watch) -> Self {
        Rounding {
            dim,
            column: 0,
            rounded: RowHash::default(),
            original: RowHash::default(),
            is_changed: false,
            row: 0,
            merges: Merges::new(watch),
        }
    }

    /// Takes the next value. 0.0 and -0.0 are the same here.
    pub(super) fn push(&mut self, original: f64, rounded: f32) {
        self.rounded.push((rounded + 0.0).to_bits().into());
        self.original.push((original + 0.0).to_bits());
        self.is_changed |= f64::from(rounded) != original;
        self.column += 1;
        if self.column == self.dim {
            let (rounded, original) = (self.rounded.finish(), self.original.finish());
            self.merges.record(rounded, original, self.is_changed, self.row);
            (self.rounded, self.original) = Default::default();
            (self.column, self.is_changed) = (0, false);
            self.row += 1;
        }
    }

    /// What is known of the rows so far.
    pub(super) fn lost(&self) -> Option<Lost> {
        self.merges.lost()
    }
}

/// Finds rows that are at distance 0 and differ, or so near to 0 that distances lose digits.
///
/// Of what differs by less than 2^-75 in each component it finds what lies in the same cells, so
/// there may be more. It costs a look at each value where no value is that small.
#[derive(Debug)]
pub(super) struct Underflow {
    row: u64,
    has_zero: bool,
    small: u64,
    first_small: Option<u64>,
    merges: Merges,
}

impl Underflow {
    pub(super) fn new(watch: Watch) -> Self {
        let merges = Merges::new(watch);
        Underflow { row: 0, has_zero: false, small: 0, first_small: None, merges }
    }

    /// Takes the next rows, row-major `[a x dim]`.
    pub(super) fn take(&mut self, rows: &[f32], dim: usize) {
        // All of them, without a way out, is what vectorises.
        let has_tiny = rows.iter().fold(false, |tiny, &x| tiny | is_tiny(x));
        for (number, row) in (self.row..).zip(rows.chunks_exact(dim)) {
            if has_tiny && row.iter().any(|&x| is_tiny(x)) {
                self.take_tiny(row, number);
            } else if !self.has_zero && row.iter().all(|&x| x == 0.0) {
                self.has_zero = true;
                self.record(row, number);
            } else if !has_tiny && self.has_zero {
                break;
            }
        }
        self.row += (rows.len() / dim) as u64;
    }

    fn take_tiny(&mut self, row: &[f32], number: u64) {
        self.record(row, number);
        if row.iter().all(|x| x.abs() < SMALL) {
            self.small += 1;
            self.first_small.get_or_insert(number);
        }
    }

    fn record(&mut self, row: &[f32], number: u64) {
        let (mut cut, mut original, mut is_changed) =
            (RowHash::default(), RowHash::default(), false);
        for &x in row {
            let cell = if x.abs() < TINY { (x / CELL).trunc() * CELL } else { x };
            cut.push((cell + 0.0).to_bits().into());
            original.push((x + 0.0).to_bits().into());
            is_changed |= cell != x;
        }
        self.merges.record(cut.finish(), original.finish(), is_changed, number);
    }

    /// What is known of the rows so far.
    pub(super) fn precision(&self) -> Precision {
        let at_zero = self.merges.lost().map(|lost| Lost { at_least: true, ..lost });
        // One alone has no distance to lose.
        let small = self.first_small.filter(|_| self.small > 1).map(|first| (self.small, first));
        Precision { rounded: None, at_zero, small }
    }
}

/// Below [`TINY`], and not 0.
fn is_tiny(x: f32) -> bool {
    (x.to_bits() & !(1 << 31)).wrapping_sub(1) < TINY.to_bits() - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The distance of a store, of one or two components.
    fn distance(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt()
    }

    fn watch(classes: usize) -> Watch {
        Watch { classes }
    }

    fn rounded(rows: &[&[f64]], classes: usize) -> Option<Lost> {
        let mut rounding = Rounding::new(rows[0].len(), watch(classes));
        rows.iter().copied().flatten().for_each(|&x| rounding.push(x, x as f32));
        rounding.lost()
    }

    #[test]
    fn only_rows_that_differed_are_lost() {
        let lost = |rows, first| Some(Lost { rows, at_least: false, first });
        let big = 16_777_216.0;
        assert_eq!(rounded(&[&[0.1], &[0.2], &[0.1]], 10), None);
        assert_eq!(rounded(&[&[big], &[big + 1.0]], 10), lost(1, (1, 0)));
        assert_eq!(rounded(&[&[big + 1.0], &[5.0], &[big], &[big + 1.0]], 10), lost(2, (2, 0)));
        assert_eq!(rounded(&[&[0.1], &[0.1 + 1e-12], &[0.1]], 10), lost(3, (1, 0)));
        assert_eq!(rounded(&[&[0.0, 1.0], &[-0.0, 1.0]], 10), None);
        assert_eq!(rounded(&[&[0.0, 1.0], &[-1e-60, 1.0]], 10), lost(1, (1, 0)));
        assert_eq!(rounded(&[&[1.0, 0.1], &[0.1, 1.0]], 10), None);
    }

    /// What is counted is lost indeed, and the table keeps to its size.
    #[test]
    fn too_many_classes_make_it_a_lower_bound() {
        let mut rounding = Rounding::new(1, watch(100));
        for i in 0..20_000 {
            let value = f64::from(i / 2) + f64::from(i % 2) * 1e-12;
            rounding.push(value, value as f32);
            assert!(rounding.merges.classes.len() <= 100);
        }
        let lost = rounding.lost().unwrap();
        assert!(lost.at_least && (100..10_000).contains(&lost.rows), "{lost:?}");
        assert_eq!(lost.first, (3, 2));
    }

    #[test]
    fn rows_at_distance_zero_are_so() {
        let underflow = |rows: &[[f32; 2]]| {
            let mut underflow = Underflow::new(watch(1000));
            underflow.take(rows.as_flattened(), 2);
            underflow.precision()
        };
        let lost = |rows, first| Some(Lost { rows, at_least: true, first });
        assert_eq!(underflow(&[[0.0, 0.0], [1.0, 2.0], [0.0, -0.0]]), Precision::default());
        let found = underflow(&[[1.0, 2.0], [0.0, 0.0], [1e-30, -1e-30], [1.0, 1e-40]]);
        assert_eq!((found.at_zero, found.small), (lost(1, (2, 1)), None));
        let found = underflow(&[[1.0, 1e-30], [1.0, 2e-30], [1.0, 1e-30], [2.0, 1e-30]]);
        assert_eq!((found.at_zero, found.small), (lost(3, (1, 0)), None));
        let found = underflow(&[[1e-20, 2e-21], [1e-22, 1e-21], [0.0, 0.0]]);
        assert_eq!((found.at_zero, found.small), (None, Some((2, 0))));

        // Of all pairs, those told are at distance 0; and about the edge of it some are told.
        let mut told = 0;
        for a in 0..300 {
            let step = |n: i32| n as f32 * pow2(-78) * if a % 2 == 0 { 1.0 } else { -1.0 };
            for b in -12..12 {
                let pair = [[1.0, step(a - 150)], [1.0, step(a - 150 + b)]];
                if underflow(&pair).at_zero.is_some() {
                    told += 1;
                    assert_eq!(distance(&pair[0], &pair[1]), 0.0, "{pair:?}");
                    assert_ne!(pair[0], pair[1]);
                }
            }
        }
        assert!(told > 300, "{told}");
        // Where values are not told tiny, the least step between them has a square.
        for x in [TINY, TINY.next_up(), 1.0] {
            assert!(distance(&[x], &[x.next_up()]) > 0.0);
        }
        assert_eq!(distance(&[TINY], &[TINY.next_down()]), 0.0);
    }
}
