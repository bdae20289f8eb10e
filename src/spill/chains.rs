//! Many growing lists of rows in one temporary file.
//!
//! A chain's newest rows are in memory. When these come to too much in all, every chain's are written side by side: one
//! long write, an *extent* for each chain. Rows come out in the order in which they went in.

use std::path::Path;

use zerocopy::IntoBytes;

use super::SpillFile;
use crate::error::TemporaryError;
use crate::ids::PointId;

/// Names a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChainId(usize);

/// Rows in the file: ids, then coordinates.
#[derive(Clone, Copy, Debug)]
struct Extent {
    offset: u64,
    rows: usize,
}

#[derive(Default)]
struct Chain {
    extents: Vec<Extent>,
    ids: Vec<PointId>,
    points: Vec<f32>,
    rows: u64,
}

/// Lists of rows of one dimension.
pub(crate) struct Chains {
    file: SpillFile,
    dim: usize,
    chains: Vec<Chain>,
    /// Bytes in memory, and how many there may be.
    buffered: usize,
    budget: usize,
}

/// The rows of a chain, on their way out.
pub(crate) struct Taken {
    chain: Chain,
    next_extent: usize,
    /// Rows of that extent, or else of what was in memory, that are out already.
    done: usize,
    keep: bool,
}

impl Taken {
    /// Rows left.
    pub(crate) fn rows(&self) -> u64 {
        self.chain.rows
    }
}

impl Chains {
    /// No chains yet, in a temporary file in `folder`; `budget` bytes of rows stay in memory.
    pub(crate) fn new(folder: &Path, dim: usize, budget: usize) -> Result<Self, TemporaryError> {
        let file = SpillFile::new(folder)?;
        Ok(Chains { file, dim, chains: Vec::new(), buffered: 0, budget })
    }

    /// A new, empty chain.
    pub(crate) fn add(&mut self) -> ChainId {
        self.chains.push(Chain::default());
        ChainId(self.chains.len() - 1)
    }

    /// Rows in a chain.
    pub(crate) fn rows(&self, chain: ChainId) -> u64 {
        self.chains[chain.0].rows
    }

    /// Appends a row.
    pub(crate) fn push(
        &mut self,
        chain: ChainId,
        id: PointId,
        point: &[f32],
    ) -> Result<(), TemporaryError> {
        let Chain { ids, points, rows, .. } = &mut self.chains[chain.0];
        let before = 8 * ids.capacity() + 4 * points.capacity();
        ids.push(id);
        points.extend_from_slice(point);
        *rows += 1;
        self.buffered += 8 * ids.capacity() + 4 * points.capacity() - before;
        match self.buffered > self.budget {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Writes what is in memory.
    fn flush(&mut self) -> Result<(), TemporaryError> {
        for chain in self.chains.iter_mut().filter(|chain| !chain.ids.is_empty()) {
            // Their memory goes as well: other chains may need it next.
            let (ids, points) = (std::mem::take(&mut chain.ids), std::mem::take(&mut chain.points));
            let offset = self.file.append(ids.as_bytes())?;
            self.file.append(points.as_bytes())?;
            chain.extents.push(Extent { offset, rows: ids.len() });
        }
        self.buffered = 0;
        Ok(())
    }

    /// Empties a chain: its rows come out by [`Chains::next`].
    pub(crate) fn take(&mut self, chain: ChainId) -> Taken {
        let chain = std::mem::take(&mut self.chains[chain.0]);
        self.buffered -= 8 * chain.ids.capacity() + 4 * chain.points.capacity();
        Taken { chain, next_extent: 0, done: 0, keep: false }
    }

    /// The rows of a chain, which keeps them.
    pub(crate) fn look(&mut self, chain: ChainId) -> Result<Taken, TemporaryError> {
        self.flush()?;
        let Chain { extents, rows, .. } = &self.chains[chain.0];
        let chain = Chain { extents: extents.clone(), rows: *rows, ..Chain::default() };
        Ok(Taken { chain, next_extent: 0, done: 0, keep: true })
    }

    /// Appends at least one and at most `at_most` rows to `ids` and `points`, and says how many; 0 at the end.
    pub(crate) fn next(
        &self,
        taken: &mut Taken,
        at_most: usize,
        ids: &mut Vec<PointId>,
        points: &mut Vec<f32>,
    ) -> Result<usize, TemporaryError> {
        let Taken { chain, next_extent, done, keep } = taken;
        let Some(&Extent { offset, rows }) = chain.extents.get(*next_extent) else {
            let now = at_most.min(chain.ids.len() - *done);
            ids.extend_from_slice(&chain.ids[*done..*done + now]);
            points.extend_from_slice(&chain.points[*done * self.dim..(*done + now) * self.dim]);
            *done += now;
            chain.rows -= now as u64;
            return Ok(now);
        };
        let now = at_most.min(rows - *done);
        let (first_id, first_value) = (ids.len(), points.len());
        ids.resize(first_id + now, 0);
        points.resize(first_value + now * self.dim, 0.0);
        self.file.read(offset + 8 * *done as u64, ids[first_id..].as_mut_bytes())?;
        let row_bytes = 4 * self.dim as u64;
        let first_point = offset + 8 * rows as u64;
        let at = first_point + row_bytes * *done as u64;
        self.file.read(at, points[first_value..].as_mut_bytes())?;
        *done += now;
        if *done == rows {
            if !*keep {
                self.file.release(offset, (8 + row_bytes) * rows as u64);
            }
            *next_extent += 1;
            *done = 0;
        }
        chain.rows -= now as u64;
        Ok(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_out_as_they_went_in() {
        let folder = tempfile::tempdir().unwrap();
        let mut chains = Chains::new(folder.path(), 3, 4000).unwrap();
        let names: Vec<ChainId> = (0..5).map(|_| chains.add()).collect();
        let row = |i: u64| [i as f32, -(i as f32), 0.5];
        for i in 0..3000 {
            chains.push(names[(i % 7 % 5) as usize], i, &row(i)).unwrap();
        }
        for (n, &name) in names.iter().enumerate() {
            let expected: Vec<u64> = (0..3000).filter(|i| (i % 7 % 5) as usize == n).collect();
            assert_eq!(chains.rows(name), expected.len() as u64);
            for keep in [true, false] {
                let mut taken = if keep { chains.look(name).unwrap() } else { chains.take(name) };
                let (mut ids, mut points) = (Vec::new(), Vec::new());
                while chains.next(&mut taken, 11, &mut ids, &mut points).unwrap() > 0 {}
                assert_eq!((taken.rows(), &ids), (0, &expected));
                assert_eq!(points, expected.iter().flat_map(|&i| row(i)).collect::<Vec<f32>>());
            }
            assert_eq!(chains.rows(name), 0);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "no name is left");
    }
}
