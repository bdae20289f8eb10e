//! How a memory limit is spent.
//!
//! The limit is on anonymous memory: everything but the page cache, which the system takes back
//! when it needs it. The shares do not depend on the number of threads, because the shape of the
//! tree depends on them.

use crate::values::error::InsertError;
use crate::values::options::default_coordinate_segment_bytes;

/// Threads whose scratch is always allowed for. More of them must fit into the reserve.
const THREADS: u64 = 4;

/// What the program takes before it does anything.
const PROGRAM: u64 = 14 << 20;

/// Fewest points that are worth splitting at once.
const CLUSTER_ROWS: u64 = 4096;

/// Bytes per point of planning beside the coordinates: shares, candidates, layout, rows of
/// topology, entries of the id index. Measured, and rounded up.
const PLANNING: u64 = 400;

/// The shares of a limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Points that may be in memory to be split.
    pub(crate) cluster_rows: usize,
    /// Points in a sample.
    pub(crate) sample_rows: usize,
    /// Points that are read, located and passed on at a time.
    pub(crate) chunk_rows: usize,
    /// Points of a batch that is inserted into a tree, if each of them touches segments of its own.
    pub(crate) scattered_rows: usize,
    /// Bytes of rows on their way to temporary files.
    pub(crate) spill: usize,
    /// Bytes of records being sorted.
    pub(crate) sort: usize,
    /// Bytes of changed segments beyond which they are written.
    pub(crate) changed: u64,
}

impl Budget {
    /// Divides a limit for work on `points` points in all.
    ///
    /// # Errors
    ///
    /// The limit is too small; the error names the least one that would do.
    pub(crate) fn new(
        limit: u64,
        dim: usize,
        threads: usize,
        points: u64,
    ) -> Result<Self, InsertError> {
        let row = 4 * dim as u64;
        let scratch = (3 << 20) + 2048 * row;
        // Where each segment lies: 4 KiB of topology, and of coordinates what is usual.
        let segment = u64::from(default_coordinate_segment_bytes(dim));
        let tables = points / 4096 * 32 * 160 + points.saturating_mul(row) / segment * 160;
        let fixed = PROGRAM + THREADS * scratch + tables;
        // Coordinates as they are read and as they are written, and centers, in the tree and on top
        // of it.
        let per_point = 2 * row + row / 2 + PLANNING;
        let more_threads = (threads as u64).saturating_sub(THREADS) * scratch;
        let least = (2 * CLUSTER_ROWS * per_point).max(16 << 20).max(8 * more_threads);
        let minimum = fixed + least;
        if limit < minimum {
            return Err(InsertError::MemoryLimit { limit, minimum });
        }
        let usable = limit - fixed;
        let cluster_rows = (usable / 2 / per_point).min(1 << 24);
        Ok(Budget {
            cluster_rows: cluster_rows as usize,
            sample_rows: cluster_rows.min(1 << 18) as usize,
            chunk_rows: (usable / 64 / (row + 32)).clamp(64, 1 << 16) as usize,
            scattered_rows: (usable / 4 / (6 * 4096 + 3 * row)).clamp(64, 1 << 20) as usize,
            spill: (usable / 10) as usize,
            sort: (usable / 16) as usize,
            changed: usable / 10,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minimum_is_enough_and_one_byte_less_is_not() {
        for (dim, threads, points) in [(3, 1, 0), (128, 2, 8_000_000), (1000, 64, 1 << 30)] {
            let Err(InsertError::MemoryLimit { minimum, .. }) =
                Budget::new(0, dim, threads, points)
            else {
                panic!("nothing is not enough");
            };
            assert!(Budget::new(minimum - 1, dim, threads, points).is_err());
            let budget = Budget::new(minimum, dim, threads, points).unwrap();
            assert!(budget.cluster_rows as u64 >= CLUSTER_ROWS && budget.sample_rows > 0);
        }
    }
}
