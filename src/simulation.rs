//! Stores on disks that a test makes up: the seam for simulated crashes, failing disks and
//! simulated processes, whose locks and waits a test decides. Compiled only with the feature
//! `simulation`, which exists for this crate's own tests and fuzz targets; no part of the public
//! interface.

use std::io::{self, Read, Seek};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::arena::lock::LockRange;
use crate::arena::mapping::Bytes;
use crate::arena::storage::Storage;
use crate::maintain::receive::{self, ReceiveReport};
use crate::store::Store;
use crate::store::recover::{self, RecoverReport};
use crate::values::error::{CreateError, OpenError, ReceiveError, RecoverError, StorageError};
use crate::values::options::{CreateOptions, OpenOptions};
use crate::version::database::Database;

pub use crate::arena::lock::Hold;
pub use crate::values::seeded_bug::SeededBug;

/// A disk with one file on it. Offsets and lengths are bytes.
#[expect(
    clippy::len_without_is_empty,
    reason = "a length in bytes; nobody asks whether it is zero"
)]
pub trait Disk: Send + Sync {
    /// Length of the file.
    fn len(&self) -> io::Result<u64>;
    /// Fills `buffer` from `offset` on.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the file at least `offset + len` long.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Cuts or extends the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes durable what was written so far, the length included if `length`.
    fn sync(&self, length: bool) -> io::Result<()>;
    /// Turns a range into zeros.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Changes how this handle holds the lock bytes `first..first + len`; `false` if another
    /// handle's hold is in the way.
    fn lock(&self, _first: u64, _len: u64, _hold: Hold) -> io::Result<bool> {
        Ok(true)
    }
    /// Time on a clock that never goes back.
    fn clock(&self) -> Duration {
        Duration::ZERO
    }
    /// Waits.
    fn pause(&self, _time: Duration) {}
    /// Is told of bytes that were mapped. As long as they exist, the file must hold the same.
    fn has_mapped(&self, _bytes: Mapped) {}
    /// Fills `buffer` with what a map shows from `offset` on.
    fn mapped(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_at(buffer, offset)
    }
    /// Makes maps show what reading shows; false if nothing can be done about it.
    fn map_anew(&self) -> bool {
        false
    }
}

/// Bytes that a store has mapped. A simulated map is a copy, made when it was asked for; that the
/// file goes on holding the same, as a real map takes for granted, is for the disk to check
/// whenever it is written to.
#[derive(Clone, Debug)]
pub struct Mapped {
    offset: u64,
    len: usize,
    words: Weak<[u64]>,
}

impl Mapped {
    /// Where they lie in the file.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How many they are.
    #[expect(clippy::len_without_is_empty, reason = "nobody maps nothing")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The bytes; `None` once nothing refers to them any more.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let words = self.words.upgrade()?;
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.truncate(self.len);
        Some(bytes)
    }
}

/// Formats an empty file as a store.
///
/// # Errors
///
/// An option is out of range, or the disk fails.
pub fn format(
    disk: Arc<dyn Disk>,
    options: &CreateOptions,
    open: &OpenOptions,
) -> Result<(), CreateError> {
    options.check()?;
    Ok(Database::format(&Simulated(disk), options, open.provenance)?)
}

/// Opens a store.
///
/// # Errors
///
/// As for [`Store::open`].
pub fn open(disk: Arc<dyn Disk>, open: OpenOptions) -> Result<Store, OpenError> {
    Store::from_storage(Box::new(Simulated(disk)), open, &std::env::temp_dir())
}

/// [`Store::recover`].
///
/// # Errors
///
/// As for [`Store::recover`].
pub fn recover(
    disk: &Arc<dyn Disk>,
    write: Option<&Path>,
    open: &OpenOptions,
) -> Result<RecoverReport, RecoverError> {
    let again = || -> Result<Box<dyn Storage>, _> { Ok(Box::new(Simulated(disk.clone()))) };
    recover::recover(&Simulated(disk.clone()), &again, write, open)
}

/// [`Store::receive`] into a store that exists.
///
/// # Errors
///
/// As for [`Store::receive`].
pub fn receive(
    store: &Store,
    mut stream: impl Read + Seek + Send,
) -> Result<ReceiveReport, ReceiveError> {
    let survey = receive::survey(&mut stream)?;
    let core = &store.core;
    // In its own threads, of which there may be one: then its steps have an order.
    core.pool.install(|| receive::receive(&core.db, &survey, stream, &core.options.cancel))
}

/// Lets go of the newest version, which a store keeps open, without a pin, so that asking for it
/// again is cheap. What it has mapped may then change any time.
pub fn forget_latest(store: &Store) {
    *store.latest.lock().expect("no holder panics") = None;
}

/// A disk as the store sees it.
struct Simulated(Arc<dyn Disk>);

fn failed<T>(operation: &'static str, result: io::Result<T>) -> Result<T, StorageError> {
    result.map_err(|source| StorageError { operation, source })
}

impl Storage for Simulated {
    fn len(&self) -> Result<u64, StorageError> {
        failed("inspect", self.0.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), StorageError> {
        failed("read", self.0.read_at(buffer, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StorageError> {
        failed("write", self.0.write_at(bytes, offset))
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<(), StorageError> {
        failed("allocate", self.0.allocate(offset, len))
    }

    fn set_len(&self, len: u64) -> Result<(), StorageError> {
        failed("resize", self.0.set_len(len))
    }

    fn sync(&self) -> Result<(), StorageError> {
        failed("sync", self.0.sync(!SeededBug::SyncWithoutLength.is_planted()))
    }

    fn map(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        let mut copy = Bytes::zeroed(len);
        // What a page fault would do: the kernel, too, tries again.
        let again = self.0.mapped(copy.bytes_mut(), offset);
        failed("read", again.or_else(|_| self.0.mapped(copy.bytes_mut(), offset)))?;
        let bytes = copy.freeze();
        if let Some(words) = bytes.buffer() {
            self.0.has_mapped(Mapped { offset, len, words });
        }
        Ok(bytes)
    }

    fn map_anew(&self) -> Result<bool, StorageError> {
        Ok(self.0.map_anew())
    }

    fn punch(&self, offset: u64, len: u64) -> Result<(), StorageError> {
        failed("punch", self.0.punch(offset, len))
    }

    fn lock(&self, range: LockRange, hold: Hold) -> Result<bool, StorageError> {
        let (first, len) = range.bytes();
        failed("lock", self.0.lock(first as u64, len as u64, hold))
    }

    fn clock(&self) -> Duration {
        self.0.clock()
    }

    fn pause(&self, time: Duration) {
        self.0.pause(time);
    }
}
