//! The values after the header, in the order in which they are stored.

use std::io::{self, Read};

use super::header::Header;
use crate::ingest::precision::Rounding;
use crate::ingest::{IngestError, Input};

/// Bytes converted at a time.
const PIECE: usize = 1 << 20;

/// A type of values, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    F32,
    F64,
    U8,
    U64,
    I64,
}

impl Element {
    /// The type that a header calls `descr`, quotes included.
    pub(super) fn named(descr: &str) -> Option<Element> {
        Some(match descr {
            "'<f4'" => Element::F32,
            "'<f8'" => Element::F64,
            "'|u1'" | "'<u1'" => Element::U8,
            "'<u8'" => Element::U64,
            "'<i8'" => Element::I64,
            _ => return None,
        })
    }

    fn bytes(self) -> usize {
        match self {
            Element::U8 => 1,
            Element::F32 => 4,
            Element::F64 | Element::U64 | Element::I64 => 8,
        }
    }
}

/// Values of one type, read in order.
pub(super) struct Values {
    label: String,
    bytes: Box<dyn Read + Send>,
    element: Element,
    /// Values promised and not read yet.
    left: u64,
    /// Values read so far.
    done: u64,
    /// True if the file's length is known to hold what the header promises.
    vouched: bool,
    header_bytes: u64,
    rows: u64,
    columns: u64,
    /// The first axis runs fastest.
    fortran: bool,
    scratch: Vec<u8>,
}

impl Values {
    /// Takes over an input that stands behind its header, and compares the promise with the length
    /// of the file.
    pub(super) fn new(
        input: Input,
        header: &Header,
        element: Element,
    ) -> Result<Values, IngestError> {
        let rows = header.rows();
        let expected = header
            .count
            .checked_mul(element.bytes() as u64)
            .and_then(|bytes| bytes.checked_add(header.bytes));
        let Some(expected) = expected else {
            let why = "its shape is too large".to_owned();
            return Err(IngestError::NpyHeader { file: input.label, why });
        };
        match input.length {
            Some(found) if found < expected => {
                return Err(IngestError::NpyTruncated { file: input.label, rows, expected, found });
            }
            Some(found) if found > expected => {
                let extra = found - expected;
                return Err(IngestError::NpyTrailing { file: input.label, rows, extra });
            }
            _ => {}
        }
        let mut values = Values {
            label: input.label,
            bytes: input.bytes,
            element,
            left: header.count,
            done: 0,
            vouched: input.length.is_some(),
            header_bytes: header.bytes,
            rows,
            columns: header.shape.get(1).copied().unwrap_or(1).max(1),
            fortran: header.fortran,
            scratch: Vec::new(),
        };
        if values.left == 0 && !values.vouched {
            values.expect_end()?;
        }
        Ok(values)
    }

    /// Values still to come.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// True if `left` may decide the size of an allocation.
    pub(super) fn vouched(&self) -> bool {
        self.vouched
    }

    /// The name of the input, for messages.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// The error for a promise that memory cannot hold.
    pub(super) fn too_large(&self) -> IngestError {
        IngestError::TooLarge { file: self.label.clone() }
    }

    /// Appends the next `count` values, each as the nearest f32; `rounding` is told of those that
    /// were f64.
    pub(super) fn read_f32(
        &mut self,
        mut count: usize,
        into: &mut Vec<f32>,
        mut rounding: Option<&mut Rounding>,
    ) -> Result<(), IngestError> {
        let piece = PIECE / self.element.bytes();
        while count > 0 {
            let now = count.min(piece);
            let first = self.done;
            self.fill(now)?;
            let bytes = &self.scratch;
            match self.element {
                Element::F32 => {
                    into.extend(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)));
                }
                Element::U8 => into.extend(bytes.iter().map(|&b| f32::from(b))),
                Element::F64 => {
                    let start = into.len();
                    into.extend(self.doubles().map(|double| double as f32));
                    self.check_range(first)?;
                    if let Some(rounding) = &mut rounding {
                        let pairs = self.doubles().zip(&into[start..]);
                        pairs.for_each(|(double, &float)| rounding.push(double, float));
                    }
                }
                Element::U64 | Element::I64 => unreachable!("ids are not coordinates"),
            }
            count -= now;
        }
        Ok(())
    }

    /// Appends the next `count` values, which are f64 and within the range of f32.
    pub(super) fn read_f64(
        &mut self,
        mut count: usize,
        into: &mut Vec<f64>,
    ) -> Result<(), IngestError> {
        assert_eq!(self.element, Element::F64, "the caller knows the type");
        while count > 0 {
            let now = count.min(PIECE / Element::F64.bytes());
            let first = self.done;
            self.fill(now)?;
            into.extend(self.doubles());
            self.check_range(first)?;
            count -= now;
        }
        Ok(())
    }

    /// What was filled, as f64.
    fn doubles(&self) -> impl Iterator<Item = f64> {
        self.scratch.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b))
    }

    /// An error if of what was filled, from value number `first` on, one is beyond what an f32 can
    /// be.
    fn check_range(&self, first: u64) -> Result<(), IngestError> {
        let is_beyond = |value: f64| (value as f32).is_infinite() && value.is_finite();
        let Some((value, index)) = self.doubles().zip(first..).find(|&(value, _)| is_beyond(value))
        else {
            return Ok(());
        };
        let (row, column) = match self.fortran {
            true => (index % self.rows, index / self.rows),
            false => (index / self.columns, index % self.columns),
        };
        Err(IngestError::NpyRange { file: self.label.clone(), row, column, value })
    }

    /// Appends up to `at_most` values as ids, and says how many.
    pub(super) fn read_ids(
        &mut self,
        at_most: usize,
        into: &mut Vec<u64>,
    ) -> Result<usize, IngestError> {
        let mut count = self.left.min(at_most as u64) as usize;
        let read = count;
        while count > 0 {
            let now = count.min(PIECE / 8);
            let first = self.done;
            self.fill(now)?;
            let ids = self.scratch.as_chunks().0.iter().map(|b| u64::from_le_bytes(*b));
            let start = into.len();
            into.extend(ids);
            if self.element == Element::I64
                && let Some(i) = into[start..].iter().position(|&id| id > i64::MAX as u64)
            {
                return Err(IngestError::NpyNegativeId {
                    file: self.label.clone(),
                    index: first + i as u64,
                    value: into[start + i] as i64,
                });
            }
            count -= now;
        }
        Ok(read)
    }

    /// Fills `scratch` with the next `count` values, at most [`PIECE`] bytes. After the last one
    /// the input must be at its end.
    fn fill(&mut self, count: usize) -> Result<(), IngestError> {
        assert!(count as u64 <= self.left, "no caller asks for more than is left");
        let width = self.element.bytes();
        self.scratch.resize(count * width, 0);
        let mut filled = 0;
        while filled < self.scratch.len() {
            match self.bytes.read(&mut self.scratch[filled..]) {
                Ok(0) => {
                    return Err(IngestError::NpyTruncated {
                        file: self.label.clone(),
                        rows: self.rows,
                        expected: self.header_bytes + (self.done + self.left) * width as u64,
                        found: self.header_bytes + self.done * width as u64 + filled as u64,
                    });
                }
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(IngestError::Read { file: self.label.clone(), source });
                }
            }
        }
        self.done += count as u64;
        self.left -= count as u64;
        if self.left == 0 && !self.vouched {
            self.expect_end()?;
        }
        Ok(())
    }

    fn expect_end(&mut self) -> Result<(), IngestError> {
        let extra = io::copy(&mut self.bytes, &mut io::sink())
            .map_err(|source| IngestError::Read { file: self.label.clone(), source })?;
        if extra > 0 {
            return Err(IngestError::NpyTrailing {
                file: self.label.clone(),
                rows: self.rows,
                extra,
            });
        }
        Ok(())
    }
}
