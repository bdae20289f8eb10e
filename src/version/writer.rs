//! What the one writer of a store keeps for itself from commit to commit, and its clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::database::Database;
use super::past::Past;
use super::space_ledger::SpaceLedger;
use crate::arena::lock::{Hold, LockRange};
use crate::format::slot::CommitSlot;
use crate::values::error::{CommitError, Defect, Place, ReadError, StorageError};
use crate::values::options::Provenance;

/// Space that is kept reserved behind the end of the file, in blocks: enough for what must work on
/// a full disk, which is to make waiting versions durable, to let versions expire, and to delete
/// points.
const RESERVE_BLOCKS: u64 = 96;

/// What only the one writer knows.
pub(super) struct Writer {
    /// Loaded from the free map by the first commit.
    pub(super) ledger: Option<SpaceLedger>,
    /// All versions, if a rule of retention has made it necessary to know them.
    pub(super) past: Option<Past>,
    /// The newest commit whose slot is on the disk. Later ones share the syncs of a commit to come.
    pub(super) durable: u64,
    /// Bytes that the later ones have written.
    pub(super) unsynced_bytes: u64,
    /// Up to where space is known to be reserved behind the end of the file; 0 if it is not known.
    pub(super) reserved_end: u64,
    /// A failed sync has left the disk in an unknown state.
    pub(super) poisoned: bool,
    /// The newest commit is known to be durable.
    pub(super) confirmed: bool,
    pub(super) provenance: Provenance,
}

/// When a commit is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// What the clock says.
    pub(super) now_ns: u64,
    /// What the commit is stamped with: later than the one before, even if the clock is not.
    pub(super) stamp_ns: u64,
}

impl Writer {
    pub(super) fn moment(&self, commit: u64, last: &CommitSlot) -> Result<Moment, CommitError> {
        let later = last.time_ns.checked_add(1).ok_or_else(|| {
            let what = Defect::Invalid("the last commit bears the last time that there is");
            ReadError::corrupt(Place::Slots, what)
        })?;
        let now_ns = time_ns(self.provenance, commit);
        Ok(Moment { now_ns, stamp_ns: now_ns.max(later) })
    }

    /// Lineage of the next commit.
    pub(super) fn lineage(&self, commit: u64) -> Result<[u8; 16], StorageError> {
        lineage(self.provenance, commit)
    }

    /// Makes sure that space is reserved behind a file of `file_bytes`. Asks for twice what is
    /// needed first, so as to ask rarely.
    pub(super) fn keep_reserve(
        &mut self,
        db: &Database,
        file_bytes: u64,
    ) -> Result<(), StorageError> {
        let reserve = RESERVE_BLOCKS * u64::from(db.header.block_bytes);
        if self.reserved_end >= file_bytes + reserve {
            return Ok(());
        }
        let storage = db.arena.storage();
        let enough = match storage.reserve(file_bytes, 2 * reserve) {
            Ok(()) => 2 * reserve,
            Err(_) => storage.reserve(file_bytes, reserve).map(|()| reserve)?,
        };
        self.reserved_end = file_bytes + enough;
        Ok(())
    }
}

impl Database {
    /// Lets another writer in, while snapshots of this one go on. Where that cannot be, because a
    /// version of theirs is not on the disk, the lock stays until they are gone.
    pub(crate) fn end_writing(&self) {
        let Some(writer) = &self.writer else { return };
        let writer = writer.lock().expect("unpoisoned");
        let newest = self.newest.get().commit;
        let is_durable = !writer.poisoned && writer.durable == newest;
        if is_durable && self.pins.hand_over().unwrap_or(false) {
            // If it fails, it is released with the file.
            let _ = self.arena.storage().lock(LockRange::Writer, Hold::Nothing);
        }
    }

    /// Reserves space behind the end anew: what was reserved there goes with an end that is cut
    /// off. As well as it can be done; the next commit sees to it again.
    pub(super) fn renew_reserve(&self, file_bytes: u64) {
        if let Some(writer) = &self.writer {
            let mut writer = writer.lock().expect("unpoisoned");
            writer.reserved_end = 0;
            let _ = writer.keep_reserve(self, file_bytes);
        }
    }

    /// The reserve is no longer what it was; the next commit makes it anew.
    pub(super) fn forget_reserve(&self) {
        if let Some(writer) = &self.writer {
            writer.lock().expect("unpoisoned").reserved_end = 0;
        }
    }

    /// Where the tail of the file begins that should come forward, see [`FreeSpace::tail`]; `None`
    /// if there is none, or if this handle has not committed yet.
    pub(crate) fn tail(&self) -> Option<u64> {
        let writer = self.writer.as_ref()?.lock().expect("unpoisoned");
        writer.ledger.as_ref().and_then(SpaceLedger::tail)
    }

    /// True if every commit is durable, or nothing can be done about it.
    pub(crate) fn is_settled(&self) -> bool {
        let newest = self.newest.get().commit;
        self.writer.as_ref().is_none_or(|writer| {
            let writer = writer.lock().expect("unpoisoned");
            writer.poisoned || writer.durable == newest
        })
    }

    /// The time of a commit made now.
    pub(super) fn moment(&self, newest: &CommitSlot) -> Result<Moment, CommitError> {
        let writer = self.writer.as_ref().ok_or(CommitError::ReadOnly)?.lock().expect("unpoisoned");
        writer.moment(newest.commit.saturating_add(1), newest)
    }

    /// The same for a preview, which a reader may make too.
    pub(super) fn moment_for_telling(&self, newest: &CommitSlot) -> Result<Moment, ReadError> {
        if self.writer.is_none() {
            let now_ns = time_ns(Provenance::System, 0);
            return Ok(Moment { now_ns, stamp_ns: now_ns });
        }
        self.moment(newest).map_err(|e| match e {
            CommitError::Read(e) => e,
            other => unreachable!("only reading fails: {other}"),
        })
    }
}

pub(super) fn time_ns(provenance: Provenance, commit: u64) -> u64 {
    let time = match provenance {
        Provenance::System => SystemTime::now(),
        Provenance::Fixed { start, .. } => start + Duration::from_secs(commit),
    };
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}

pub(super) fn lineage(provenance: Provenance, commit: u64) -> Result<[u8; 16], StorageError> {
    let mut id = [0; 16];
    match provenance {
        Provenance::System => getrandom::fill(&mut id).map_err(|e| StorageError {
            operation: "find random numbers for",
            source: std::io::Error::other(e),
        })?,
        Provenance::Fixed { seed, .. } => {
            id[..8].copy_from_slice(&seed.to_le_bytes());
            id[8..].copy_from_slice(&commit.to_le_bytes());
        }
    }
    Ok(id)
}
