//! Temporary files for work that is larger than memory: chains of rows, and an external sort.
//!
//! A temporary file has no name: it is gone when its handle is, however the process ends.

mod chains;
mod sort;

pub(crate) use chains::{ChainId, Chains, Taken};
pub(crate) use sort::{Key, Sorter};

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::TemporaryError;

/// A nameless file that is written at its end and read anywhere.
pub(crate) struct SpillFile {
    file: File,
    folder: PathBuf,
    end: u64,
}

impl SpillFile {
    /// An empty file in `folder`.
    pub(crate) fn new(folder: &Path) -> Result<Self, TemporaryError> {
        let file = tempfile::tempfile_in(folder).map_err(|source| TemporaryError {
            operation: "make",
            folder: folder.to_path_buf(),
            source,
        })?;
        Ok(SpillFile { file, folder: folder.to_path_buf(), end: 0 })
    }

    fn failed(&self, operation: &'static str) -> impl Fn(std::io::Error) -> TemporaryError {
        let folder = self.folder.clone();
        move |source| TemporaryError { operation, folder: folder.clone(), source }
    }

    /// Appends bytes and returns where they begin.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<u64, TemporaryError> {
        let offset = self.end;
        self.file.write_all_at(bytes, offset).map_err(self.failed("write"))?;
        self.end += bytes.len() as u64;
        Ok(offset)
    }

    /// Fills `buffer` from `offset` on.
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), TemporaryError> {
        self.file.read_exact_at(buffer, offset).map_err(self.failed("read"))
    }

    /// Gives the space of a long range back to the file system, where that can be done. Short ranges wait for the end of the
    /// file: where freed blocks are discarded on the device, each takes as long as a write.
    pub(crate) fn release(&self, offset: u64, len: u64) {
        const LONG: u64 = 4 << 20;
        if len < LONG {
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
