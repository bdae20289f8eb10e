//! Temporary files for work that is larger than memory: chains of rows, and an external sort.
//!
//! A temporary file has no name: it is gone when its handle is, however the process ends. What
//! becomes part of a store passes through it, so it is checked like the store: bytes are written in
//! *blocks*, each sealed by a checksum of its content and its place, and a block is read as a whole
//! and compared before any of it is used.

mod chains;
mod sort;

pub(crate) use chains::{ChainId, Chains, Taken};
pub(crate) use sort::{Key, Sorter};

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::values::error::TemporaryError;
use crate::values::seeded_bug::SeededBug;

/// A nameless file that is written at its end and read anywhere.
pub(crate) struct SpillFile {
    file: File,
    folder: PathBuf,
    end: u64,
    /// A block on its way out.
    buffer: Vec<u8>,
}

/// Shorter ranges are not given back one by one.
const RELEASED_BYTES: u64 = 4 << 20;

/// Bytes of the checksum behind each block.
const SEAL: usize = 4;

/// Longest block, but for a row that is longer. As long as that, a write or read costs more than
/// its call, and none takes up much memory.
const BLOCK_BYTES: usize = 1 << 18;

fn seal(offset: u64, content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(content);
    hasher.update(&offset.to_le_bytes());
    hasher.finalize()
}

impl SpillFile {
    /// An empty file in `folder`.
    pub(crate) fn new(folder: &Path) -> Result<Self, TemporaryError> {
        let file = tempfile::tempfile_in(folder).map_err(|source| TemporaryError {
            operation: "make",
            folder: folder.to_path_buf(),
            source,
        })?;
        Ok(SpillFile { file, folder: folder.to_path_buf(), end: 0, buffer: Vec::new() })
    }

    fn failed(&self, operation: &'static str) -> impl Fn(std::io::Error) -> TemporaryError {
        let folder = self.folder.clone();
        move |source| TemporaryError { operation, folder: folder.clone(), source }
    }

    /// Appends a block of some parts, one after the other, and returns where it begins.
    pub(crate) fn append(&mut self, parts: &[&[u8]]) -> Result<u64, TemporaryError> {
        let offset = self.end;
        self.buffer.clear();
        parts.iter().for_each(|part| self.buffer.extend_from_slice(part));
        self.buffer.extend_from_slice(&seal(offset, &self.buffer).to_le_bytes());
        self.file.write_all_at(&self.buffer, offset).map_err(self.failed("write"))?;
        self.end += self.buffer.len() as u64;
        Ok(offset)
    }

    /// Reads the block of `len` bytes that begins at `offset`.
    pub(crate) fn read(
        &self,
        offset: u64,
        len: usize,
        block: &mut Vec<u8>,
    ) -> Result<(), TemporaryError> {
        block.resize(len + SEAL, 0);
        self.file.read_exact_at(block, offset).map_err(self.failed("read"))?;
        let found = block.split_off(len);
        if found == seal(offset, block).to_le_bytes() || SeededBug::SkipChecksums.is_planted() {
            return Ok(());
        }
        let what = "the bytes are not those that were written there; do not trust the disk";
        Err(self.failed("read")(std::io::Error::new(std::io::ErrorKind::InvalidData, what)))
    }

    /// Gives the space of a long range back to the file system, where that can be done. Short
    /// ranges wait for the end of the file: where freed blocks are discarded on the device, each
    /// takes as long as a write.
    pub(crate) fn release(&self, offset: u64, len: u64) {
        if len < RELEASED_BYTES {
            return;
        }
        #[cfg(target_os = "linux")]
        {
            use nix::fcntl::{FallocateFlags, fallocate};
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            // Only thrift: the whole file goes in the end.
            let _ = fallocate(&self.file, flags, offset as i64, len as i64);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (offset, len);
    }
}

/// Blocks that have been read and are not needed any more, until they make a range worth giving
/// back.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    start: u64,
    end: u64,
}

impl Done {
    /// Adds a block.
    fn add(&mut self, file: &SpillFile, offset: u64, len: usize) {
        if offset != self.end {
            self.flush(file);
            *self = Done { start: offset, end: offset };
        }
        self.end += (len + SEAL) as u64;
        if self.end - self.start >= RELEASED_BYTES {
            self.flush(file);
        }
    }

    fn flush(&mut self, file: &SpillFile) {
        file.release(self.start, self.end - self.start);
        self.start = self.end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_is_not_what_was_written_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = SpillFile::new(folder.path()).unwrap();
        let block = [7u8; 100];
        let offsets: Vec<u64> =
            (0..3).map(|_| file.append(&[&block[..30], &block[30..]]).unwrap()).collect();
        let read = |file: &SpillFile, at| {
            let mut found = Vec::new();
            file.read(offsets[at], 100, &mut found).map(|()| found)
        };
        assert_eq!(read(&file, 1).unwrap(), block);
        for byte in 0..104 {
            let at = offsets[1] + byte;
            let mut one = [0];
            file.file.read_exact_at(&mut one, at).unwrap();
            file.file.write_all_at(&[one[0] ^ 1], at).unwrap();
            let e = read(&file, 1).unwrap_err();
            assert_eq!((e.operation, e.source.kind()), ("read", std::io::ErrorKind::InvalidData));
            file.file.write_all_at(&one, at).unwrap();
        }
        // A lost write, which leaves zeros; and one that went elsewhere.
        file.file.write_all_at(&[0; 104], offsets[0]).unwrap();
        assert!(read(&file, 0).is_err());
        let mut sealed = [0; 104];
        file.file.read_exact_at(&mut sealed, offsets[2]).unwrap();
        file.file.write_all_at(&sealed, offsets[1]).unwrap();
        assert!(read(&file, 1).is_err());
        assert_eq!(read(&file, 2).unwrap(), block);
    }
}
