//! Values as rows: straight through in C order, transposed in Fortran order.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use zerocopy::IntoBytes;

use super::values::Values;
use crate::ingest::{IngestError, RowSource};
use treering::PointId;

/// Values in Fortran order that are kept in memory: 8 MiB.
const IN_MEMORY: usize = 1 << 21;
/// Values that are spilled at a time.
const PIECE: usize = 1 << 18;

/// Rows of an array in C order.
struct InOrder {
    values: Values,
    dim: usize,
    left: u64,
}

/// Rows of an array in Fortran order: value `(row, column)` is number `column * rows + row` of what was read.
struct Transposed {
    columns: Columns,
    rows: usize,
    dim: usize,
    next: usize,
    label: String,
}

/// The columns, one after the other, as f32.
enum Columns {
    Memory(Vec<f32>),
    /// Without a name, in the folder for temporary files.
    File(File),
}

/// A source over `rows x dim` values in C order.
pub(super) fn in_order(
    values: Values,
    rows: u64,
    dim: u64,
) -> Result<Box<dyn RowSource>, IngestError> {
    let dim = usize::try_from(dim).map_err(|_| values.too_large())?;
    Ok(Box::new(InOrder { values, dim, left: rows }))
}

/// A source over `rows x dim` values in Fortran order, which are read now: into memory if they are few, else into a
/// temporary file in `folder`, which goes away with its handle.
pub(super) fn transposed(
    mut values: Values,
    rows: u64,
    dim: u64,
    folder: &Path,
) -> Result<Box<dyn RowSource>, IngestError> {
    let size = |n: u64, values: &Values| usize::try_from(n).map_err(|_| values.too_large());
    let (rows, dim) = (size(rows, &values)?, size(dim, &values)?);
    let count = size(values.left(), &values)?;
    let label = values.label().to_owned();
    let columns = if count <= IN_MEMORY {
        let mut columns = Vec::new();
        values.read_f32(count, &mut columns)?;
        Columns::Memory(columns)
    } else {
        Columns::File(spilled(&mut values, count, folder)?)
    };
    Ok(Box::new(Transposed { columns, rows, dim, next: 0, label }))
}

fn spilled(values: &mut Values, count: usize, folder: &Path) -> Result<File, IngestError> {
    let fail = |source| IngestError::Temporary { folder: folder.to_path_buf(), source };
    let mut file = tempfile::tempfile_in(folder).map_err(fail)?;
    let (mut piece, mut left) = (Vec::new(), count);
    while left > 0 {
        let now = left.min(PIECE);
        piece.clear();
        values.read_f32(now, &mut piece)?;
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
        self.values.read_f32(count, into)?;
        self.left -= rows as u64;
        Ok(rows)
    }
}

impl RowSource for Transposed {
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
        let rows = at_most.min(self.rows - self.next);
        if rows == 0 {
            return Ok(0);
        }
        let start = into.len();
        into.resize(start + rows * self.dim, 0.0);
        let mut from_file =
            vec![0f32; if matches!(self.columns, Columns::File(_)) { rows } else { 0 }];
        for column in 0..self.dim {
            let first = column * self.rows + self.next;
            let values = match &mut self.columns {
                Columns::Memory(columns) => &columns[first..first + rows],
                Columns::File(file) => {
                    file.seek(SeekFrom::Start(4 * first as u64))
                        .and_then(|_| file.read_exact(from_file.as_mut_bytes()))
                        .map_err(|source| IngestError::Read { file: self.label.clone(), source })?;
                    &from_file
                }
            };
            let places = into[start + column..].iter_mut().step_by(self.dim);
            places.zip(values).for_each(|(place, value)| *place = *value);
        }
        self.next += rows;
        Ok(rows)
    }
}
