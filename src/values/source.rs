//! Where points come from when they are not in memory.

use crate::values::error::SourceError;
use crate::values::ids::PointId;

/// Rows of points that are read piece by piece, so that there may be more of them than fit into
/// memory.
///
/// # Examples
///
/// ```
/// use treering::{PointId, PointSource, SourceError};
///
/// /// A million points that are made as they are asked for.
/// struct Counting(u64);
///
/// impl PointSource for Counting {
///     fn dim(&self) -> usize {
///         2
///     }
///     fn read(
///         &mut self,
///         at_most: usize,
///         points: &mut Vec<f32>,
///         _ids: &mut Vec<PointId>,
///     ) -> Result<usize, SourceError> {
///         let rows = at_most.min(1_000_000 - self.0 as usize);
///         points.extend((self.0..self.0 + rows as u64).flat_map(|i| [i as f32, 0.5]));
///         self.0 += rows as u64;
///         Ok(rows)
///     }
/// }
/// assert_eq!(Counting(0).read(3, &mut Vec::new(), &mut Vec::new()).unwrap(), 3);
/// ```
pub trait PointSource: Send {
    /// Components of a point.
    fn dim(&self) -> usize;

    /// True if each row comes with an id of its own.
    fn has_ids(&self) -> bool {
        false
    }

    /// Rows still to come, if that is known. Only progress and estimates depend on it.
    fn remaining(&self) -> Option<u64> {
        None
    }

    /// Appends up to `at_most` rows to `points`, and as many ids to `ids` if there are ids, and
    /// says how many rows; 0 means that there are no more.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from reading on. The operation fails with it and changes nothing.
    fn read(
        &mut self,
        at_most: usize,
        points: &mut Vec<f32>,
        ids: &mut Vec<PointId>,
    ) -> Result<usize, SourceError>;
}

/// Rows in memory.
pub(crate) struct Slice<'a> {
    pub(crate) dim: usize,
    pub(crate) points: &'a [f32],
    pub(crate) ids: Option<&'a [PointId]>,
}

impl PointSource for Slice<'_> {
    fn dim(&self) -> usize {
        self.dim
    }

    fn has_ids(&self) -> bool {
        self.ids.is_some()
    }

    fn remaining(&self) -> Option<u64> {
        Some((self.points.len() / self.dim) as u64)
    }

    fn read(
        &mut self,
        at_most: usize,
        points: &mut Vec<f32>,
        ids: &mut Vec<PointId>,
    ) -> Result<usize, SourceError> {
        let rows = at_most.min(self.points.len() / self.dim);
        let (now, rest) = self.points.split_at(rows * self.dim);
        points.extend_from_slice(now);
        self.points = rest;
        if let Some(all) = &mut self.ids {
            let (now, rest) = all.split_at(rows.min(all.len()));
            ids.extend_from_slice(now);
            *all = rest;
        }
        Ok(rows)
    }
}
