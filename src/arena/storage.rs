//! The one seam between the store and the disk: operations on a file, its locks, and waiting for
//! them; a real file, and memory for tests.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::fault;
use super::lock::{self, Hold, LockRange};
use super::mapping::{Bytes, Windows};
use super::process::Owner;
use crate::values::error::StorageError;

/// What a store needs of a disk. Offsets and lengths are bytes.
pub(crate) trait Storage: Send + Sync {
    /// Length of the file.
    fn len(&self) -> Result<u64, StorageError>;
    /// Bytes of the file that are not holes, or at least `enough` of them. What cannot tell holes
    /// from data has none.
    fn stored(&self, enough: u64) -> Result<u64, StorageError> {
        let _ = enough;
        self.len()
    }
    /// True if a range of the file is a hole, and so reads as zeros. What cannot tell says no.
    fn is_hole(&self, offset: u64, len: u64) -> Result<bool, StorageError> {
        let _ = (offset, len);
        Ok(false)
    }
    /// Fills `buffer` from `offset` on; a file that ends too early is an error.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), StorageError>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StorageError>;
    /// Makes the file at least `offset + len` long and reserves the space, so that writing there
    /// cannot run out of it.
    fn allocate(&self, offset: u64, len: u64) -> Result<(), StorageError>;
    /// Reserves `len` bytes behind the end of a file of `offset` bytes, whose length stays. Where
    /// that cannot be, nothing happens.
    fn reserve(&self, offset: u64, len: u64) -> Result<(), StorageError> {
        let _ = (offset, len);
        Ok(())
    }
    /// Whether the file is still found under the path by which it was opened; if not, the path.
    fn has_its_name(&self) -> Result<Result<(), PathBuf>, StorageError> {
        Ok(Ok(()))
    }
    /// Cuts or extends the file.
    fn set_len(&self, len: u64) -> Result<(), StorageError>;
    /// Returns when everything written so far is on the disk, the length included.
    fn sync(&self) -> Result<(), StorageError>;
    /// Bytes that will not change while the result exists.
    fn map(&self, offset: u64, len: usize) -> Result<Bytes, StorageError>;
    /// Makes sure that what is mapped from now on is what is read now. False if it is so already,
    /// as far as can be done.
    fn map_anew(&self) -> Result<bool, StorageError> {
        Ok(false)
    }
    /// The file, if bytes of it that were mapped have been lost since: they may have been read as
    /// zeros.
    fn lost(&self) -> Option<&Path> {
        None
    }
    /// Gives the space of a range back to the file system; it then reads as zeros. Where that
    /// cannot be, nothing happens.
    fn punch(&self, offset: u64, len: u64) -> Result<(), StorageError>;
    /// Changes how this handle holds a range; `false` if another handle's hold is in the way.
    fn lock(&self, range: LockRange, hold: Hold) -> Result<bool, StorageError>;
    /// True if another handle holds a part of a range.
    fn is_locked_elsewhere(&self, _: LockRange) -> Result<bool, StorageError> {
        Ok(false)
    }
    /// Time on a clock that never goes back. Only differences mean anything.
    fn clock(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }
    /// Waits for what another handle may do meanwhile. The only way to wait, so that a test decides
    /// who goes on.
    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// Reads, and once more if the device fails: a moment's failure is no damage.
pub(crate) fn read_twice(
    storage: &dyn Storage,
    buffer: &mut [u8],
    offset: u64,
) -> Result<(), StorageError> {
    match storage.read_at(buffer, offset) {
        Err(e) if e.is_unreadable() => storage.read_at(buffer, offset),
        done => done,
    }
}

fn failed(operation: &'static str) -> impl Fn(io::Error) -> StorageError {
    move |source| StorageError { operation, source }
}

/// A store in a real file.
pub(crate) struct FileStorage {
    file: File,
    path: PathBuf,
    /// The file was opened by its path, or has been seen there. A new one gets its name when it is
    /// whole.
    named: AtomicBool,
    windows: Windows,
    owner: Owner,
}

impl FileStorage {
    /// `path`: where the file was opened, or, if it `is_new`, where it will be. `catch_faults`: see
    /// [`crate::OpenOptions::catch_faults`].
    pub(crate) fn new(
        file: File,
        path: &Path,
        is_new: bool,
        catch_faults: bool,
    ) -> Result<Self, StorageError> {
        if catch_faults {
            fault::install().map_err(failed("catch faults of"))?;
        }
        // Absolute, because the program may go elsewhere.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let windows = Windows::new(catch_faults);
        let named = AtomicBool::new(!is_new);
        Ok(FileStorage { file, path, named, windows, owner: Owner::here() })
    }

    /// An error in any process but the one that opened the file: whatever is forgotten above, a
    /// child does not write.
    fn check_process(&self, operation: &'static str) -> Result<(), StorageError> {
        match self.owner.is_elsewhere() {
            true => Err(failed(operation)(io::Error::other("it belongs to the parent process"))),
            false => Ok(()),
        }
    }

    /// Another handle of the file. It shares the locks of this one.
    pub(crate) fn handle(&self) -> Result<File, StorageError> {
        self.file.try_clone().map_err(failed("open"))
    }
}

impl Storage for FileStorage {
    fn len(&self) -> Result<u64, StorageError> {
        self.file.metadata().map(|m| m.len()).map_err(failed("inspect"))
    }

    #[cfg(target_os = "linux")]
    fn stored(&self, enough: u64) -> Result<u64, StorageError> {
        use nix::errno::Errno;
        use nix::unistd::{Whence, lseek};
        let (mut stored, mut at) = (0, 0);
        while stored < enough {
            // The position of the file is nothing that anybody reads from.
            let data = match lseek(&self.file, at, Whence::SeekData) {
                Ok(data) => data,
                // Nothing but a hole follows.
                Err(Errno::ENXIO) => break,
                Err(_) => return self.len(),
            };
            let Ok(hole) = lseek(&self.file, data, Whence::SeekHole) else { return self.len() };
            if hole <= at {
                return self.len();
            }
            stored += (hole - data) as u64;
            at = hole;
        }
        Ok(stored)
    }

    #[cfg(target_os = "linux")]
    fn is_hole(&self, offset: u64, len: u64) -> Result<bool, StorageError> {
        use nix::errno::Errno;
        use nix::unistd::{Whence, lseek};
        let end = offset + len;
        Ok(match lseek(&self.file, offset as i64, Whence::SeekData) {
            Ok(data) => data as u64 >= end,
            // Nothing but a hole follows, or the file ends before.
            Err(Errno::ENXIO) => self.len()? >= end,
            Err(_) => false,
        })
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), StorageError> {
        self.file.read_exact_at(buffer, offset).map_err(failed("read"))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StorageError> {
        self.check_process("write")?;
        self.file.write_all_at(bytes, offset).map_err(failed("write"))
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<(), StorageError> {
        self.check_process("allocate")?;
        #[cfg(target_os = "linux")]
        {
            use nix::errno::Errno;
            use nix::fcntl::{FallocateFlags, fallocate};
            loop {
                match fallocate(&self.file, FallocateFlags::empty(), offset as i64, len as i64) {
                    Ok(()) => return Ok(()),
                    Err(Errno::EINTR) => {}
                    // Not every file system can reserve; the write itself will then report a full
                    // disk.
                    Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => break,
                    Err(errno) => return Err(failed("allocate")(errno.into())),
                }
            }
        }
        if self.len()? < offset + len {
            self.set_len(offset + len)?;
        }
        Ok(())
    }

    fn reserve(&self, offset: u64, len: u64) -> Result<(), StorageError> {
        #[cfg(target_os = "linux")]
        {
            use nix::errno::Errno;
            use nix::fcntl::{FallocateFlags, fallocate};
            let flags = FallocateFlags::FALLOC_FL_KEEP_SIZE;
            loop {
                match fallocate(&self.file, flags, offset as i64, len as i64) {
                    Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => return Ok(()),
                    Err(Errno::EINTR) => {}
                    Err(errno) => return Err(failed("reserve space for")(errno.into())),
                }
            }
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (offset, len);
            Ok(())
        }
    }

    fn has_its_name(&self) -> Result<Result<(), PathBuf>, StorageError> {
        let own = self.file.metadata().map_err(failed("inspect"))?;
        let there = std::fs::metadata(&self.path);
        let same = there.is_ok_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino()));
        if same {
            self.named.store(true, Ordering::Relaxed);
        }
        match same || !self.named.load(Ordering::Relaxed) {
            true => Ok(Ok(())),
            false => Ok(Err(self.path.clone())),
        }
    }

    fn is_locked_elsewhere(&self, range: LockRange) -> Result<bool, StorageError> {
        lock::is_locked_elsewhere(&self.file, range).map_err(failed("look for locks of"))
    }

    fn set_len(&self, len: u64) -> Result<(), StorageError> {
        self.check_process("resize")?;
        self.file.set_len(len).map_err(failed("resize"))
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.check_process("sync")?;
        self.file.sync_data().map_err(failed("sync"))
    }

    fn map(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        // Touching what is not there any more would end the process.
        if self.len()? < offset + len as u64 {
            return Err(failed("map")(io::ErrorKind::UnexpectedEof.into()));
        }
        self.windows.get(&self.file, offset, len)
    }

    fn map_anew(&self) -> Result<bool, StorageError> {
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd;
            // The file itself, wherever it has moved and whatever its name is by now.
            let again = || File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
            self.windows.renew(again).map_err(failed("open"))?;
            Ok(true)
        }
        #[cfg(not(target_os = "linux"))]
        Ok(false)
    }

    fn lost(&self) -> Option<&Path> {
        self.windows.are_damaged().then_some(&self.path)
    }

    fn punch(&self, offset: u64, len: u64) -> Result<(), StorageError> {
        self.check_process("punch")?;
        #[cfg(target_os = "linux")]
        {
            use nix::errno::Errno;
            use nix::fcntl::{FallocateFlags, fallocate};
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            loop {
                match fallocate(&self.file, flags, offset as i64, len as i64) {
                    // Not every file system can; the space stays in the file and is used again.
                    Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => return Ok(()),
                    Err(Errno::EINTR) => {}
                    Err(errno) => return Err(failed("punch")(errno.into())),
                }
            }
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (offset, len);
            Ok(())
        }
    }

    fn lock(&self, range: LockRange, hold: Hold) -> Result<bool, StorageError> {
        // A lock that a child gives back is gone in its parent, too.
        self.check_process("lock")?;
        lock::try_lock(&self.file, range, hold).map_err(failed("lock"))
    }
}

/// A store in memory. Clones share the content, as two handles of one file do; there is no lock.
#[derive(Clone, Default)]
pub(crate) struct MemoryStorage {
    content: Arc<Mutex<Vec<u8>>>,
}

impl Storage for MemoryStorage {
    fn len(&self) -> Result<u64, StorageError> {
        Ok(self.content.lock().expect("no holder panics").len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), StorageError> {
        let content = self.content.lock().expect("no holder panics");
        let range = offset as usize..offset as usize + buffer.len();
        let bytes = content
            .get(range)
            .ok_or_else(|| failed("read")(io::ErrorKind::UnexpectedEof.into()))?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StorageError> {
        let mut content = self.content.lock().expect("no holder panics");
        let end = offset as usize + bytes.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<(), StorageError> {
        let mut content = self.content.lock().expect("no holder panics");
        let end = (offset + len) as usize;
        if content.len() < end {
            content.resize(end, 0);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), StorageError> {
        self.content.lock().expect("no holder panics").resize(len as usize, 0);
        Ok(())
    }

    fn sync(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn map(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        let mut copy = Bytes::zeroed(len);
        self.read_at(copy.bytes_mut(), offset)?;
        Ok(copy.freeze())
    }

    fn punch(&self, offset: u64, len: u64) -> Result<(), StorageError> {
        let mut content = self.content.lock().expect("no holder panics");
        let end = content.len().min((offset + len) as usize);
        content[end.min(offset as usize)..end].fill(0);
        Ok(())
    }

    fn lock(&self, _: LockRange, _: Hold) -> Result<bool, StorageError> {
        Ok(true)
    }
}
