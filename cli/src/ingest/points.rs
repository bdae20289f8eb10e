//! An input as the library wants it: rows, with ids if they bring them or there is a file of them.

use super::{IdSource, RowSource};
use treering::{PointId, PointSource, SourceError};

/// Rows of coordinates, and their ids.
pub(crate) struct Points {
    pub(crate) rows: Box<dyn RowSource>,
    /// Only if the rows have none.
    pub(crate) ids: Option<Box<dyn IdSource>>,
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
        let rows = self.rows.read(at_most, points, ids)?;
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
