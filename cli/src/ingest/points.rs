//! An input as the library wants it: rows, with ids if they bring them or there is a file of them.

use super::precision::{Precision, Underflow, Watch};
use super::{IdSource, RowSource};
use treering::{PointId, PointSource, SourceError};

/// Rows of coordinates, and their ids.
pub(crate) struct Points {
    rows: Box<dyn RowSource>,
    /// Only if the rows have none.
    ids: Option<Box<dyn IdSource>>,
    underflow: Underflow,
}

impl Points {
    /// `ids`: only if the rows have none.
    pub(crate) fn new(
        rows: Box<dyn RowSource>,
        ids: Option<Box<dyn IdSource>>,
        watch: Watch,
    ) -> Points {
        Points { rows, ids, underflow: Underflow::new(watch) }
    }

    /// What is lost of the rows that have been read.
    pub(crate) fn precision(&self) -> Precision {
        Precision { rounded: self.rows.rounded(), ..self.underflow.precision() }
    }
}

impl PointSource for Points {
    fn dim(&self) -> usize {
        self.rows.dim()
    }

    fn has_ids(&self) -> bool {
        self.ids.is_some() || self.rows.has_ids()
    }

    fn remaining(&self) -> Option<u64> {
        self.rows.remaining().map(|rows| rows as u64)
    }

    fn read(
        &mut self,
        at_most: usize,
        points: &mut Vec<f32>,
        ids: &mut Vec<PointId>,
    ) -> Result<usize, SourceError> {
        let start = points.len();
        let rows = self.rows.read(at_most, points, ids)?;
        self.underflow.take(&points[start..], self.rows.dim());
        if let Some(source) = &mut self.ids {
            // At the end one id more is asked for, so that too many are noticed.
            let mut left = rows.max(1);
            while left > 0 {
                match source.read(left, ids)? {
                    0 => break,
                    count => left -= count,
                }
            }
        }
        Ok(rows)
    }
}
