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
pub(crate) mod process;
pub(crate) mod storage;
pub(crate) mod watch;

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Defect, ReadError, StorageError};
use crate::format::DATA_START;
use crate::format::arrays::Entry;
use crate::format::checksum::Origin;
use crate::options::Verify;
use crate::seeded_bug::SeededBug;
use mapping::{Bytes, WINDOW_BYTES};
use process::Owner;
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
    /// What has passed its checksum already: address to birth. Birth is part of it because space is reused.
    verified: Mutex<HashMap<u64, u64>>,
    policy: Verify,
    owner: Owner,
}

impl Arena {
    pub(crate) fn new(storage: Box<dyn Storage>, block_bytes: u32, policy: Verify) -> Self {
        Arena {
            storage,
            block_bytes: block_bytes as u64,
            limit: AtomicU64::new(0),
            verified: Mutex::new(HashMap::new()),
            policy,
            owner: Owner::here(),
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

    /// The bytes that `entry` refers to, checked against its checksum the first time they are touched. `origin` is what
    /// they must be.
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

    fn fetch_with(
        &self,
        entry: &Entry,
        origin: Origin,
        access: Access,
        again: bool,
    ) -> Result<Bytes, ReadError> {
        let Entry { address, birth, crc, bytes } = *entry;
        let limit = self.limit();
        let end = address.checked_add(bytes as u64);
        if address < DATA_START
            || address % self.block_bytes != 0
            || bytes == 0
            || end
                .is_none_or(|end| end > limit || (end - 1) / WINDOW_BYTES != address / WINDOW_BYTES)
        {
            let what = Defect::OutOfBounds { value: address, limit };
            return Err(ReadError::corrupt(origin.place(entry), what));
        }
        let passed = access == Access::Mapped && !again && self.has_passed(address, birth);
        if passed {
            return Ok(self.storage.map(address, bytes as usize)?);
        }
        // Read, not mapped: a device that fails, or a file that has been cut, is then an error and no signal.
        let mut copy = Bytes::zeroed(bytes as usize);
        self.storage.read_at(copy.bytes_mut(), address)?;
        let content = copy.freeze();
        let found = origin.checksum(birth, &content, content.len());
        if found != crc && !SeededBug::SkipChecksums.is_planted() {
            let what = Defect::Checksum { expected: crc, found };
            return Err(ReadError::corrupt(origin.place(entry), what));
        }
        if access == Access::Copied {
            return Ok(content);
        }
        self.verified.lock().expect("no holder panics").insert(address, birth);
        Ok(self.storage.map(address, bytes as usize)?)
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
