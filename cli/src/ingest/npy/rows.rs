//! Values as rows: straight through in C order, transposed in Fortran order.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use zerocopy::{FromBytes, IntoBytes};

use super::values::Values;
use crate::ingest::precision::Rounding;
use crate::ingest::{IngestError, Lost, RowSource, Watch};
use treering::PointId;

/// Bytes of values in Fortran order that are kept in memory.
const IN_MEMORY: usize = 8 << 20;
/// Values that are spilled, or watched, at a time.
const PIECE: usize = 1 << 18;
const WATCHED: usize = 1 << 17;

/// Rows of an array in C order.
struct InOrder {
    values: Values,
    dim: usize,
    left: u64,
    rounding: Option<Rounding>,
}

/// Rows of an array in Fortran order: value `(row, column)` is number `column * rows + row` of what
/// was read.
struct Transposed<T> {
    columns: Columns<T>,
    rows: usize,
    dim: usize,
    next: usize,
    label: String,
    rounding: Option<Rounding>,
    /// What was read, row-major, if rounding is watched.
    originals: Vec<f64>,
}

/// What columns are kept as: f64 as they are, so that what is lost by rounding can be seen row by
/// row, the rest as f32.
pub(super) trait Kept:
    FromBytes + IntoBytes + zerocopy::Immutable + Copy + Into<f64> + Send
{
    const ZERO: Self;

    fn read(values: &mut Values, count: usize, into: &mut Vec<Self>) -> Result<(), IngestError>;

    fn rounded(self) -> f32;
}

impl Kept for f32 {
    const ZERO: Self = 0.0;

    fn read(values: &mut Values, count: usize, into: &mut Vec<Self>) -> Result<(), IngestError> {
        values.read_f32(count, into, None)
    }

    fn rounded(self) -> f32 {
        self
    }
}

impl Kept for f64 {
    const ZERO: Self = 0.0;

    fn read(values: &mut Values, count: usize, into: &mut Vec<Self>) -> Result<(), IngestError> {
        values.read_f64(count, into)
    }

    fn rounded(self) -> f32 {
        self as f32
    }
}

/// The columns, one after the other.
enum Columns<T> {
    Memory(Vec<T>),
    /// Without a name, in the folder for temporary files.
    File(File),
}

/// A source over `rows x dim` values in C order.
pub(super) fn in_order(
    values: Values,
    rows: u64,
    dim: u64,
    watch: Option<Watch>,
) -> Result<Box<dyn RowSource>, IngestError> {
    let dim = usize::try_from(dim).map_err(|_| values.too_large())?;
    let rounding = watch.map(|watch| Rounding::new(dim, watch));
    Ok(Box::new(InOrder { values, dim, left: rows, rounding }))
}

/// A source over `rows x dim` values in Fortran order, which are read now: into memory if they are
/// few, else into a temporary file in `folder`, which goes away with its handle.
pub(super) fn transposed<T: Kept + 'static>(
    mut values: Values,
    rows: u64,
    dim: u64,
    folder: &Path,
    watch: Option<Watch>,
) -> Result<Box<dyn RowSource>, IngestError> {
    let size = |n: u64, values: &Values| usize::try_from(n).map_err(|_| values.too_large());
    let (rows, dim) = (size(rows, &values)?, size(dim, &values)?);
    let count = size(values.left(), &values)?;
    let label = values.label().to_owned();
    let columns: Columns<T> = if count <= IN_MEMORY / size_of::<T>() {
        let mut columns = Vec::new();
        T::read(&mut values, count, &mut columns)?;
        Columns::Memory(columns)
    } else {
        Columns::File(spilled::<T>(&mut values, count, folder)?)
    };
    let rounding = watch.map(|watch| Rounding::new(dim, watch));
    let originals = Vec::new();
    Ok(Box::new(Transposed { columns, rows, dim, next: 0, label, rounding, originals }))
}

fn spilled<T: Kept>(values: &mut Values, count: usize, folder: &Path) -> Result<File, IngestError> {
    let fail = |source| IngestError::Temporary { folder: folder.to_path_buf(), source };
    let mut file = tempfile::tempfile_in(folder).map_err(fail)?;
    let (mut piece, mut left) = (Vec::<T>::new(), count);
    while left > 0 {
        let now = left.min(PIECE);
        piece.clear();
        T::read(values, now, &mut piece)?;
        file.write_all(piece.as_bytes()).map_err(fail)?;
        left -= now;
    }
    Ok(file)
}

impl RowSource for InOrder {
    fn dim(&self) -> usize {
        self.dim
    }

    fn remaining(&self) -> Option<usize> {
        if self.values.vouched() || self.left == 0 { usize::try_from(self.left).ok() } else { None }
    }

    fn read(
        &mut self,
        at_most: usize,
        into: &mut Vec<f32>,
        _: &mut Vec<PointId>,
    ) -> Result<usize, IngestError> {
        let rows = self.left.min(at_most as u64) as usize;
        let count = rows.checked_mul(self.dim).ok_or_else(|| self.values.too_large())?;
        self.values.read_f32(count, into, self.rounding.as_mut())?;
        self.left -= rows as u64;
        Ok(rows)
    }

    fn rounded(&self) -> Option<Lost> {
        self.rounding.as_ref().and_then(Rounding::lost)
    }
}

impl<T: Kept> RowSource for Transposed<T> {
    fn dim(&self) -> usize {
        self.dim
    }

    fn remaining(&self) -> Option<usize> {
        Some(self.rows - self.next)
    }

    fn read(
        &mut self,
        at_most: usize,
        into: &mut Vec<f32>,
        _: &mut Vec<PointId>,
    ) -> Result<usize, IngestError> {
        let mut rows = at_most.min(self.rows - self.next);
        if self.rounding.is_some() {
            rows = rows.min((WATCHED / self.dim).max(1));
        }
        if rows == 0 {
            return Ok(0);
        }
        let start = into.len();
        into.resize(start + rows * self.dim, 0.0);
        if self.rounding.is_some() {
            self.originals.resize(rows * self.dim, 0.0);
        }
        let mut from_file =
            vec![T::ZERO; if matches!(self.columns, Columns::File(_)) { rows } else { 0 }];
        for column in 0..self.dim {
            let first = column * self.rows + self.next;
            let values = match &mut self.columns {
                Columns::Memory(columns) => &columns[first..first + rows],
                Columns::File(file) => {
                    file.seek(SeekFrom::Start((size_of::<T>() * first) as u64))
                        .and_then(|_| file.read_exact(from_file.as_mut_bytes()))
                        .map_err(|source| IngestError::Read { file: self.label.clone(), source })?;
                    &from_file
                }
            };
            let places = into[start + column..].iter_mut().step_by(self.dim);
            places.zip(values).for_each(|(place, value)| *place = value.rounded());
            if self.rounding.is_some() {
                let places = self.originals[column..].iter_mut().step_by(self.dim);
                places.zip(values).for_each(|(place, &value)| *place = value.into());
            }
        }
        if let Some(rounding) = &mut self.rounding {
            let pairs = self.originals.iter().zip(&into[start..]);
            pairs.for_each(|(&original, &rounded)| rounding.push(original, rounded));
        }
        self.next += rows;
        Ok(rows)
    }

    fn rounded(&self) -> Option<Lost> {
        self.rounding.as_ref().and_then(Rounding::lost)
    }
}
