//! One file as an arena of segments: reading verified bytes, and knowing which space is free.
//!
//! The arena knows nothing of trees, points, metrics or versions. It is told where something lies, how long it is and
//! what its checksum must be, and hands out bytes that match.

pub(crate) mod cast;
mod fault;
pub(crate) mod free_space;
pub(crate) mod lock;
pub(crate) mod mapping;
pub(crate) mod pressure;
pub(crate) mod storage;
pub(crate) mod watch;

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Defect, Place, ReadError, StorageError};
use crate::format::DATA_START;
use crate::format::arrays::Entry;
use crate::format::checksum::{crc32, crc32_padded};
use crate::options::Verify;
use crate::seeded_bug::SeededBug;
use mapping::{Bytes, WINDOW_BYTES};
use storage::Storage;

/// How bytes are brought in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Through the map: for data, which is never overwritten while a version that refers to it exists.
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
    /// What has passed its checksum already: address to birth. Birth is part of it because space is reused.
    verified: Mutex<HashMap<u64, u64>>,
    policy: Verify,
    zeros: Zeros,
}

/// The checksum of as many zeros as were last asked for. A store has segments of two lengths.
#[derive(Default)]
struct Zeros(Mutex<(u32, u32)>);

impl Zeros {
    fn checksum(&self, bytes: u32) -> u32 {
        let mut known = self.0.lock().expect("no holder panics");
        if known.0 != bytes {
            *known = (bytes, crc32_padded(&[], bytes as usize));
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
            verified: Mutex::new(HashMap::new()),
            policy,
            zeros: Zeros::default(),
        }
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

    /// Whether at least half of `bytes` can be in the file and no hole; if it is little, it is not asked. For what claims to
    /// have so many bytes of which hardly any are zero.
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

    /// The bytes that `entry` refers to, checked against its checksum the first time they are touched. `place` names
    /// them in an error.
    pub(crate) fn fetch(
        &self,
        entry: &Entry,
        access: Access,
        place: impl FnOnce() -> Place,
    ) -> Result<Bytes, ReadError> {
        self.fetch_with(entry, access, false, place)
    }

    /// Like [`Arena::fetch`], but reads and checks the bytes even if they have passed before.
    pub(crate) fn refetch(
        &self,
        entry: &Entry,
        place: impl FnOnce() -> Place,
    ) -> Result<Bytes, ReadError> {
        self.fetch_with(entry, Access::Copied, true, place)
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
        access: Access,
        again: bool,
        place: impl FnOnce() -> Place,
    ) -> Result<Bytes, ReadError> {
        let Entry { address, birth, crc, bytes } = *entry;
        if let Some(outside) = self.outside(entry) {
            return Err(ReadError::corrupt(place(), outside));
        }
        let passed = access == Access::Mapped && !again && self.has_passed(address, birth);
        if passed {
            return Ok(self.storage.map(address, bytes as usize)?);
        }
        // Read, not mapped: a device that fails, or a file that has been cut, is then an error and no signal.
        let mut copy = Bytes::zeroed(bytes as usize);
        let (content, found) = match self.is_hole(address, bytes)? {
            true => (copy.freeze(), self.zeros.checksum(bytes)),
            false => {
                self.storage.read_at(copy.bytes_mut(), address)?;
                let content = copy.freeze();
                let found = crc32(&content);
                (content, found)
            }
        };
        if found != crc && !SeededBug::SkipChecksums.is_planted() {
            return Err(ReadError::corrupt(place(), Defect::Checksum { expected: crc, found }));
        }
        if access == Access::Copied {
            return Ok(content);
        }
        self.verified.lock().expect("no holder panics").insert(address, birth);
        Ok(self.storage.map(address, bytes as usize)?)
    }

    /// True if all of a long range is a hole, which need not be read to be known: a file of holes could have any number of
    /// them. To ask for a short one costs as much as to read it.
    fn is_hole(&self, address: u64, bytes: u32) -> Result<bool, StorageError> {
        Ok(bytes >= LONG_BYTES && self.storage.is_hole(address, bytes.into())?)
    }

    fn has_passed(&self, address: u64, birth: u64) -> bool {
        let verified = || self.verified.lock().expect("no holder panics");
        self.policy == Verify::Never || verified().get(&address) == Some(&birth)
    }

    /// Bytes that this process has written and no commit refers to yet; the file is long enough for them.
    pub(crate) fn unchecked(&self, address: u64, bytes: u32) -> Result<Bytes, StorageError> {
        self.storage.map(address, bytes as usize)
    }

    /// Writes `pieces` (address, bytes, stored length) in large writes; pieces that lie side by side go out together,
    /// the space up to the stored length as zeros.
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
