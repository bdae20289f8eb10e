//! One file as an arena of segments: reading verified bytes, and knowing which space is free.
//!
//! The arena knows nothing of trees, points, metrics or versions. It is told where something lies,
//! how long it is and what its checksum must be, and hands out bytes that match.

pub(crate) mod cast;
mod checked;
mod fault;
mod fault_table;
pub(crate) mod free_space;
pub(crate) mod lock;
pub(crate) mod mapping;
pub(crate) mod pressure;
pub(crate) mod process;
pub(crate) mod storage;
pub(crate) mod sync;
pub(crate) mod watch;

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::format::DATA_START;
use crate::format::arrays::Entry;
use crate::format::checksum::{Origin, crc32};
use crate::values::error::{Corruption, Defect, Place, ReadError, StorageError};
use crate::values::options::Verify;
use crate::values::seeded_bug::SeededBug;
use checked::Checked;
pub(crate) use checked::{Name, name};
use mapping::{Bytes, WINDOW_BYTES};
use process::Owner;
use storage::{Storage, read_twice};

/// How bytes are brought in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Through the map: for data, which is never overwritten while a version that refers to it
    /// exists.
    Mapped,
    /// As a private copy: for store state, whose old blocks a writer may reuse after two commits.
    Copied,
}

/// A store file, read and written by segment.
pub(crate) struct Arena {
    storage: Box<dyn Storage>,
    block_bytes: u64,
    /// Length of the file as far as the newest known commit needs it. Nothing beyond is ever read.
    limit: AtomicU64,
    /// So many bytes of the file are known not to be holes.
    stored: AtomicU64,
    checked: Checked,
    policy: Verify,
    owner: Owner,
    zeros: Zeros,
}

/// The checksum of as many zeros as were last asked for. A store has segments of two lengths.
#[derive(Default)]
struct Zeros(Mutex<(u32, u32)>);

impl Zeros {
    fn checksum(&self, bytes: u32) -> u32 {
        let mut known = self.0.lock().expect("no holder panics");
        if known.0 != bytes {
            *known = (bytes, crc32(&vec![0; bytes as usize]));
        }
        known.1
    }
}

impl Arena {
    pub(crate) fn new(storage: Box<dyn Storage>, block_bytes: u32, policy: Verify) -> Self {
        Arena {
            storage,
            block_bytes: block_bytes as u64,
            limit: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            checked: Checked::default(),
            policy,
            owner: Owner::here(),
            zeros: Zeros::default(),
        }
    }

    /// The process that opened the file.
    pub(crate) fn owner(&self) -> &Owner {
        &self.owner
    }

    /// An error in any process but the one that opened the file.
    pub(crate) fn check_process(&self) -> Result<(), ReadError> {
        if self.owner.seems_elsewhere() { Err(ReadError::OtherProcess) } else { Ok(()) }
    }

    pub(crate) fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    /// Bytes that the newest known commit needs the file to have.
    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Acquire)
    }

    /// Makes bytes up to `limit` readable; the file must be at least that long.
    pub(crate) fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Release);
    }

    /// An error if the file is shorter than the newest known commit needs.
    pub(crate) fn check_length(&self) -> Result<(), ReadError> {
        self.check_reach(self.limit())
    }

    /// An error if the file is shorter than `needed`.
    pub(crate) fn check_reach(&self, needed: u64) -> Result<(), ReadError> {
        match self.storage.len()? {
            found if found < needed => Err(ReadError::Truncated { found, needed }),
            _ => Ok(()),
        }
    }

    /// Whether at least half of `bytes` can be in the file and no hole; if it is little, it is not
    /// asked. For what claims to have so many bytes of which hardly any are zero.
    pub(crate) fn has_stored(&self, bytes: u64) -> Result<bool, StorageError> {
        let needed = bytes / 2;
        if bytes <= FEW_BYTES || needed <= self.stored.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let stored = self.storage.stored(needed)?;
        self.stored.fetch_max(stored, Ordering::Relaxed);
        Ok(stored >= needed)
    }

    /// True if a fault has turned mapped bytes into zeros.
    pub(crate) fn is_damaged(&self) -> bool {
        self.storage.lost().is_some()
    }

    /// An error if a fault has turned mapped bytes into zeros.
    pub(crate) fn check_maps(&self) -> Result<(), ReadError> {
        match self.storage.lost() {
            Some(path) => Err(ReadError::Lost { path: path.to_path_buf() }),
            None => Ok(()),
        }
    }

    /// The bytes that `entry` refers to, checked against its checksum the first time they are
    /// touched. `origin` is what they must be.
    pub(crate) fn fetch(
        &self,
        entry: &Entry,
        origin: Origin,
        access: Access,
    ) -> Result<Bytes, ReadError> {
        self.fetch_with(entry, origin, access, false)
    }

    /// Like [`Arena::fetch`], but reads and checks the bytes even if they have passed before.
    pub(crate) fn refetch(&self, entry: &Entry, origin: Origin) -> Result<Bytes, ReadError> {
        self.fetch_with(entry, origin, Access::Copied, true)
    }

    /// Like [`Arena::fetch`] of mapped bytes, for those that this process has written and no commit
    /// refers to yet. They are checked each time: their space may have held others before.
    pub(crate) fn fetch_early(&self, entry: &Entry, origin: Origin) -> Result<Bytes, ReadError> {
        self.first_touch(entry, origin).map_err(|unfit| unfit.at(origin.place(entry)))
    }

    /// What is wrong with the place that an entry names, if anything is.
    pub(crate) fn outside(&self, entry: &Entry) -> Option<Defect> {
        let Entry { address, bytes, .. } = *entry;
        let limit = self.limit();
        let end = address.checked_add(bytes as u64);
        let is_outside = address < DATA_START
            || address % self.block_bytes != 0
            || bytes == 0
            || end.is_none_or(|end| {
                end > limit || (end - 1) / WINDOW_BYTES != address / WINDOW_BYTES
            });
        is_outside.then_some(Defect::OutOfBounds { value: address, limit })
    }

    fn fetch_with(
        &self,
        entry: &Entry,
        origin: Origin,
        access: Access,
        again: bool,
    ) -> Result<Bytes, ReadError> {
        let Entry { address, bytes, .. } = *entry;
        if let Some(outside) = self.outside(entry) {
            return Err(ReadError::corrupt(origin.place(entry), outside));
        }
        if access == Access::Mapped && !again && self.has_passed(entry) {
            return Ok(self.storage.map(address, bytes as usize)?);
        }
        let found = match access {
            Access::Mapped => self.first_touch(entry, origin).inspect(|_| self.checked.pass(entry)),
            Access::Copied => self.checked_copy(entry, origin).inspect(|_| {
                self.checked.absolve(entry);
            }),
        };
        found.map_err(|unfit| {
            let e = unfit.at(origin.place(entry));
            // Of store state beside a writer this says nothing: its space may be in use again.
            if let ReadError::Corrupt(what) = &e
                && (again || access == Access::Mapped)
            {
                self.checked.fail(entry, Corruption::clone(what));
            }
            e
        })
    }

    fn checked_copy(&self, entry: &Entry, origin: Origin) -> Result<Bytes, Unfit> {
        if self.is_hole(entry)? {
            self.compare_zeros(entry, origin)?;
            return Ok(Bytes::zeroed(entry.bytes as usize).freeze());
        }
        let bytes = self.copy(entry)?;
        compare(entry, origin, &bytes)?;
        Ok(bytes)
    }

    /// True if all of a long segment is a hole, which need not be read to be known: a file of holes
    /// could have any number of them. To ask for a short one costs as much as to read it.
    fn is_hole(&self, entry: &Entry) -> Result<bool, StorageError> {
        Ok(entry.bytes >= LONG_BYTES && self.storage.is_hole(entry.address, entry.bytes.into())?)
    }

    fn compare_zeros(&self, entry: &Entry, origin: Origin) -> Result<(), Unfit> {
        let zeros = self.zeros.checksum(entry.bytes);
        matches(entry, origin.checksum_of(entry.birth, zeros, entry.bytes))
    }

    /// A private copy of bytes, unchecked.
    fn copy(&self, entry: &Entry) -> Result<Bytes, Unfit> {
        let mut copy = Bytes::zeroed(entry.bytes as usize);
        read_twice(&*self.storage, copy.bytes_mut(), entry.address)?;
        Ok(copy.freeze())
    }

    /// Mapped bytes, checked where they are used: in the map.
    fn first_touch(&self, entry: &Entry, origin: Origin) -> Result<Bytes, Unfit> {
        if self.is_hole(entry)? {
            self.compare_zeros(entry, origin)?;
            return Ok(self.storage.map(entry.address, entry.bytes as usize)?);
        }
        // Read before it is touched: a device that fails, or a file that has been cut, is then an
        // error and no signal.
        let copy = self.copy(entry)?;
        let mapped = self.storage.map(entry.address, entry.bytes as usize)?;
        if mapped.are_present() && compare(entry, origin, &mapped).is_ok() {
            return Ok(mapped);
        }
        compare(entry, origin, &copy)?;
        // What is read is right and what is mapped is not. On overlay file systems a file that is
        // written to for the first time moves, and maps made before go on showing the old place.
        if self.storage.map_anew()? {
            let mapped = self.storage.map(entry.address, entry.bytes as usize)?;
            if mapped.are_present() && compare(entry, origin, &mapped).is_ok() {
                return Ok(mapped);
            }
        }
        let what = "the file that is mapped is not the one that is read; open the store again";
        Err(Unfit::Defect(Defect::Invalid(what)))
    }

    /// An error if a copy of mapped bytes, the zeros behind it left out, is not what was written.
    /// For bytes that passed before and are to become part of something that gets a checksum of its
    /// own.
    pub(crate) fn check_copy(
        &self,
        entry: &Entry,
        origin: Origin,
        content: &[u8],
    ) -> Result<(), ReadError> {
        compare(entry, origin, content).map_err(|unfit| unfit.at(origin.place(entry)))
    }

    fn has_passed(&self, entry: &Entry) -> bool {
        match self.policy {
            Verify::Never => !self.checked.has_failed(entry),
            _ => self.checked.has_passed(entry),
        }
    }

    /// Changes whenever bytes fail a later check than their first, or no longer do. 0: none ever
    /// did.
    #[inline]
    pub(crate) fn failures(&self) -> u64 {
        self.checked.failures()
    }

    /// What is wrong with one of `names`, if a later check has found something.
    pub(crate) fn failure_of(&self, names: &HashSet<Name>) -> Option<Corruption> {
        self.checked.failure_of(names)
    }

    /// Writes `pieces` (address, bytes, stored length) in large writes; pieces that lie side by
    /// side go out together, the space up to the stored length as zeros.
    pub(crate) fn write_pieces(&self, mut pieces: Vec<Piece<'_>>) -> Result<(), StorageError> {
        use rayon::prelude::*;
        pieces.sort_unstable_by_key(|piece| piece.address);
        let mut batches: Vec<&[Piece<'_>]> = Vec::new();
        let mut start = 0;
        for i in 1..=pieces.len() {
            let joins = i < pieces.len()
                && pieces[i - 1].end() == pieces[i].address
                && pieces[i].end() - pieces[start].address <= WRITE_BYTES as u64;
            if !joins {
                batches.push(&pieces[start..i]);
                start = i;
            }
        }
        batches.par_iter().filter(|batch| !batch.is_empty()).try_for_each_init(
            Vec::new,
            |buffer: &mut Vec<u8>, batch| {
                if let [piece] = batch
                    && piece.bytes.len() == piece.stored
                {
                    return self.storage.write_at(piece.bytes, piece.address);
                }
                buffer.clear();
                for piece in batch.iter() {
                    buffer.extend_from_slice(piece.bytes);
                    buffer.resize(buffer.len() + piece.stored - piece.bytes.len(), 0);
                }
                self.storage.write_at(buffer, batch[0].address)
            },
        )
    }
}

/// Why bytes cannot be used.
enum Unfit {
    Defect(Defect),
    Storage(StorageError),
}

impl From<StorageError> for Unfit {
    fn from(e: StorageError) -> Self {
        match e.is_unreadable() {
            true => Unfit::Defect(Defect::Unreadable { why: e.source.to_string() }),
            false => Unfit::Storage(e),
        }
    }
}

impl Unfit {
    fn at(self, place: Place) -> ReadError {
        match self {
            Unfit::Defect(what) => ReadError::corrupt(place, what),
            Unfit::Storage(e) => e.into(),
        }
    }
}

/// Compares bytes with their checksum. `content` may leave out zeros at the end.
fn compare(entry: &Entry, origin: Origin, content: &[u8]) -> Result<(), Unfit> {
    matches(entry, origin.checksum(entry.birth, content, entry.bytes as usize))
}

fn matches(entry: &Entry, found: u32) -> Result<(), Unfit> {
    match found == entry.crc || SeededBug::SkipChecksums.is_planted() {
        true => Ok(()),
        false => Err(Unfit::Defect(Defect::Checksum { expected: entry.crc, found })),
    }
}

/// What claims no more is not held against what is stored.
const FEW_BYTES: u64 = 16 << 20;

/// Segments from this length on are looked at for being holes.
const LONG_BYTES: u32 = 1 << 15;

/// Largest single write.
const WRITE_BYTES: usize = 1 << 20;

/// Bytes on their way to the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    pub(crate) address: u64,
    pub(crate) bytes: &'a [u8],
    pub(crate) stored: usize,
}

impl Piece<'_> {
    fn end(&self) -> u64 {
        self.address + self.stored as u64
    }
}
