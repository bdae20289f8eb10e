//! Many growing lists of rows in one temporary file.
//!
//! A chain's newest rows are in memory. When these come to too much in all, every chain's are
//! written side by side, as one or more blocks for each chain. Rows come out in the order in which
//! they went in.

use std::path::Path;

use zerocopy::IntoBytes;

use super::{BLOCK_BYTES, Done, SpillFile};
use crate::values::error::TemporaryError;
use crate::values::ids::PointId;

/// Names a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChainId(usize);

/// A block of rows in the file: ids, then coordinates.
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
    /// That extent as it was read, once any of it is out.
    block: Vec<u8>,
    /// What need not be kept any more; `None` if all is kept.
    read: Option<Done>,
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
        let rows = (BLOCK_BYTES / (8 + 4 * self.dim)).max(1);
        for chain in self.chains.iter_mut().filter(|chain| !chain.ids.is_empty()) {
            // Their memory goes as well: other chains may need it next.
            let (ids, points) = (std::mem::take(&mut chain.ids), std::mem::take(&mut chain.points));
            for (ids, points) in ids.chunks(rows).zip(points.chunks(rows * self.dim)) {
                let offset = self.file.append(&[ids.as_bytes(), points.as_bytes()])?;
                chain.extents.push(Extent { offset, rows: ids.len() });
            }
        }
        self.buffered = 0;
        Ok(())
    }

    /// Empties a chain: its rows come out by [`Chains::next`].
    pub(crate) fn take(&mut self, chain: ChainId) -> Taken {
        let chain = std::mem::take(&mut self.chains[chain.0]);
        self.buffered -= 8 * chain.ids.capacity() + 4 * chain.points.capacity();
        Taken { chain, next_extent: 0, done: 0, block: Vec::new(), read: Some(Done::default()) }
    }

    /// The rows of a chain, which keeps them.
    pub(crate) fn look(&mut self, chain: ChainId) -> Result<Taken, TemporaryError> {
        self.flush()?;
        let Chain { extents, rows, .. } = &self.chains[chain.0];
        let chain = Chain { extents: extents.clone(), rows: *rows, ..Chain::default() };
        Ok(Taken { chain, next_extent: 0, done: 0, block: Vec::new(), read: None })
    }

    /// Appends at least one and at most `at_most` rows to `ids` and `points`, and says how many; 0
    /// at the end.
    pub(crate) fn next(
        &self,
        taken: &mut Taken,
        at_most: usize,
        ids: &mut Vec<PointId>,
        points: &mut Vec<f32>,
    ) -> Result<usize, TemporaryError> {
        let Taken { chain, next_extent, done, block, read } = taken;
        let Some(&Extent { offset, rows }) = chain.extents.get(*next_extent) else {
            let now = at_most.min(chain.ids.len() - *done);
            ids.extend_from_slice(&chain.ids[*done..*done + now]);
            points.extend_from_slice(&chain.points[*done * self.dim..(*done + now) * self.dim]);
            *done += now;
            chain.rows -= now as u64;
            return Ok(now);
        };
        let (row_bytes, len) = (4 * self.dim, (8 + 4 * self.dim) * rows);
        if *done == 0 {
            self.file.read(offset, len, block)?;
        }
        let now = at_most.min(rows - *done);
        let (first_id, first_value) = (ids.len(), points.len());
        ids.resize(first_id + now, 0);
        points.resize(first_value + now * self.dim, 0.0);
        let (block_ids, block_points) = block.split_at(8 * rows);
        ids[first_id..].as_mut_bytes().copy_from_slice(&block_ids[8 * *done..8 * (*done + now)]);
        points[first_value..]
            .as_mut_bytes()
            .copy_from_slice(&block_points[row_bytes * *done..row_bytes * (*done + now)]);
        *done += now;
        if *done == rows {
            if let Some(read) = read {
                read.add(&self.file, offset, len);
            }
            *next_extent += 1;
            *done = 0;
            if *next_extent == chain.extents.len() {
                *block = Vec::new();
            }
        }
        chain.rows -= now as u64;
        Ok(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_byte_is_an_error() {
        use std::os::unix::fs::FileExt;
        let folder = tempfile::tempdir().unwrap();
        let mut chains = Chains::new(folder.path(), 2, 500).unwrap();
        let names = [chains.add(), chains.add()];
        for i in 0..100u64 {
            chains.push(names[i as usize % 2], i, &[i as f32, 0.5]).unwrap();
        }
        let len = chains.file.end;
        assert!(len > 1000, "{len} bytes in the file");
        for at in 0..len {
            let flip = || {
                let mut byte = [0];
                chains.file.file.read_exact_at(&mut byte, at).unwrap();
                chains.file.file.write_all_at(&[byte[0] ^ 4], at).unwrap();
            };
            flip();
            let failed = names.iter().any(|name| {
                let Chain { extents, rows, .. } = &chains.chains[name.0];
                let chain = Chain { extents: extents.clone(), rows: *rows, ..Chain::default() };
                let mut taken =
                    Taken { chain, next_extent: 0, done: 0, block: Vec::new(), read: None };
                let (mut ids, mut points) = (Vec::new(), Vec::new());
                loop {
                    match chains.next(&mut taken, 7, &mut ids, &mut points) {
                        Ok(0) => break false,
                        Ok(_) => {}
                        Err(_) => break true,
                    }
                }
            });
            assert!(failed, "byte {at}");
            flip();
        }
    }

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
