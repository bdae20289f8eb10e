//! Values as rows: straight through in C order, transposed in memory in Fortran order.

use super::values::Values;
use crate::ingest::{IngestError, RowSource};

/// Rows of an array in C order.
struct InOrder {
    values: Values,
    dim: usize,
    left: u64,
}

/// Rows that have been put in order in memory.
struct Transposed {
    values: Vec<f32>,
    dim: usize,
    next: usize,
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

/// A source over `rows x dim` values in Fortran order, which are read now.
pub(super) fn transposed(
    mut values: Values,
    rows: u64,
    dim: u64,
) -> Result<Box<dyn RowSource>, IngestError> {
    let size = |n: u64, values: &Values| usize::try_from(n).map_err(|_| values.too_large());
    let (rows, dim) = (size(rows, &values)?, size(dim, &values)?);
    let count = size(values.left(), &values)?;
    let mut columns = Vec::new();
    if values.vouched() {
        columns.try_reserve_exact(count).map_err(|_| values.too_large())?;
    }
    values.read_f32(count, &mut columns)?;
    let mut ordered = Vec::new();
    ordered.try_reserve_exact(count).map_err(|_| values.too_large())?;
    for row in 0..rows {
        ordered.extend(columns[row..].iter().step_by(rows));
    }
    assert_eq!(ordered.len(), rows * dim, "one value from each column for each row");
    Ok(Box::new(Transposed { values: ordered, dim, next: 0 }))
}

impl RowSource for InOrder {
    fn dim(&self) -> usize {
        self.dim
    }

    fn remaining(&self) -> Option<usize> {
        if self.values.vouched() || self.left == 0 { usize::try_from(self.left).ok() } else { None }
    }

    fn read(&mut self, at_most: usize, into: &mut Vec<f32>) -> Result<usize, IngestError> {
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
        Some(self.values.len() / self.dim - self.next)
    }

    fn read(&mut self, at_most: usize, into: &mut Vec<f32>) -> Result<usize, IngestError> {
        let rows = at_most.min(self.values.len() / self.dim - self.next);
        into.extend_from_slice(&self.values[self.next * self.dim..][..rows * self.dim]);
        self.next += rows;
        Ok(rows)
    }
}
