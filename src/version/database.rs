//! An open store file: its geometry, its newest commit, and the writer's private state.

use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use super::column::Column;
use super::newest::Newest;
use super::pins::{Patience, Pin, Pins};
use super::recovery;
use super::sharing_graph::{SharingGraph, VersionSummary};
use super::table::Table;
use super::writer::{Writer, lineage, time_ns};
use crate::arena::lock::{Hold, LockRange};
use crate::arena::storage::Storage;
use crate::arena::watch::Watch;
use crate::arena::{Access, Arena};
use crate::format::arrays::{Array, ArrayRoot, DATA_ARRAYS, Geometry};
use crate::format::header::Header;
use crate::format::slot::{CommitSlot, Hint};
use crate::format::tag_row::TagRow;
use crate::format::version_row::VersionRow;
use crate::format::{COPY_DISTANCE, DATA_START, HINT_OFFSET, PAGE_BYTES, SLOT_RING, slot_offset};
use crate::values::error::{
    AtError, CommitError, Corruption, Defect, Invariant, OpenError, Place, ReadError, StorageError,
};
use crate::values::ids::VersionId;
use crate::values::memory;
use crate::values::options::{CreateOptions, Provenance, Verify};
use crate::values::retention::Retention;
use crate::values::seeded_bug::SeededBug;

/// An open store file.
pub(crate) struct Database {
    pub(crate) arena: Arc<Arena>,
    pub(crate) header: Header,
    pub(crate) geometry: Geometry,
    pub(super) newest: Newest,
    /// Stays at the commit that it was given: for recovery.
    frozen: bool,
    pub(crate) pins: Arc<Pins>,
    /// `None` if open for reading only.
    pub(super) writer: Option<Mutex<Writer>>,
}

/// Versions and tags as of a commit. No version that was retained then expires while this exists.
pub(crate) struct History {
    /// Version v at position v - 1, expired ones included.
    pub(crate) rows: Vec<VersionRow>,
    pub(crate) tags: Vec<TagRow>,
    _pins: Vec<Pin>,
}

impl History {
    pub(crate) fn row(&self, version: u64) -> &VersionRow {
        &self.rows[version as usize - 1]
    }

    pub(super) fn family(&self) -> SharingGraph {
        SharingGraph::new(&self.rows.iter().map(VersionSummary::of).collect::<Vec<_>>())
    }
}

impl Drop for Database {
    /// Releases the writer's lock by name. Closing the file would do, but for a child process that
    /// is just being started by another thread: until it runs its own program, it holds a copy of
    /// the handle.
    fn drop(&mut self) {
        // In a child it is the parent's lock.
        if self.writer.is_some() && !self.arena.owner().is_elsewhere() {
            // If it fails, the file is closed next.
            let _ = self.arena.storage().lock(LockRange::Writer, Hold::Nothing);
        }
    }
}

impl Database {
    /// Writes an empty store (commit 0) into an empty file.
    pub(crate) fn format(
        storage: &dyn Storage,
        options: &CreateOptions,
        provenance: Provenance,
    ) -> Result<(), StorageError> {
        let lineage = lineage(provenance, u64::MAX)?;
        Self::format_as(storage, &Header::new(options, lineage, time_ns(provenance, 0)))
    }

    /// Writes an empty store with a given header into an empty file.
    pub(crate) fn format_as(storage: &dyn Storage, header: &Header) -> Result<(), StorageError> {
        let lineage = header.lineage;
        let mut slot = CommitSlot::blank();
        slot.store_lineage = lineage;
        slot.file_bytes = DATA_START;
        slot.time_ns = header.created_ns;
        let slot = slot.sealed();
        // The pages have their space from now on; what lies between them stays a hole.
        for copy in 0..2 {
            storage.allocate(copy * COPY_DISTANCE, PAGE_BYTES as u64)?;
            storage.write_at(&header.encode(), copy * COPY_DISTANCE)?;
            for commit in 0..SLOT_RING {
                storage.allocate(slot_offset(commit, copy), PAGE_BYTES as u64)?;
            }
            storage.write_at(&slot.encode(), slot_offset(0, copy))?;
        }
        storage.write_at(&Hint::new(0, lineage).encode(), HINT_OFFSET)?;
        storage.set_len(DATA_START)?;
        storage.sync()
    }

    /// Opens a store: reads headers and slots. With `provenance` as its writer, which takes the
    /// lock first.
    pub(crate) fn open(
        storage: Box<dyn Storage>,
        writer: Option<Provenance>,
        verify: Verify,
        patience: Patience,
    ) -> Result<Self, OpenError> {
        // Foreign files are told from stores before anything is locked.
        let header = recovery::read_header(&*storage, writer.is_some())?;
        if writer.is_some() && !storage.lock(LockRange::Writer, Hold::Exclusive)? {
            return Err(OpenError::Locked);
        }
        let newest = recovery::newest_commit(&*storage, header.lineage)?;
        let may_cut = newest.confirmed || SeededBug::CutBeforeConfirmation.is_planted();
        if writer.is_some() && may_cut {
            cut_back(&*storage, newest.slot.file_bytes)?;
        }
        let arena = Arc::new(Arena::new(storage, header.block_bytes, verify));
        arena.set_limit(newest.slot.file_bytes);
        Ok(Database {
            pins: Pins::new(arena.clone(), writer.is_none(), patience),
            arena,
            geometry: header.geometry(),
            header,
            newest: Newest::new(newest.slot),
            frozen: false,
            writer: writer.map(|provenance| {
                Mutex::new(Writer {
                    ledger: None,
                    past: None,
                    durable: newest.slot.commit,
                    unsynced_bytes: 0,
                    reserved_end: 0,
                    poisoned: false,
                    confirmed: newest.confirmed,
                    provenance,
                })
            }),
        })
    }

    /// A file as of one of its commits, for reading only. `len`: length of the file, which may be
    /// shorter than the commit needs; what lies behind it cannot be read. The caller keeps writers
    /// out, so that there is no gate to go through and nothing to pin.
    pub(crate) fn as_of(
        storage: Box<dyn Storage>,
        header: Header,
        slot: CommitSlot,
        len: u64,
    ) -> Self {
        let arena = Arc::new(Arena::new(storage, header.block_bytes, Verify::FirstTouch));
        arena.set_limit(slot.file_bytes.min(len));
        Database {
            pins: Pins::new(arena.clone(), false, Patience::default()),
            arena,
            geometry: header.geometry(),
            header,
            newest: Newest::new(slot),
            frozen: true,
            writer: None,
        }
    }

    /// The newest commit: for a writer its own last one, for a reader what the file says now.
    pub(crate) fn newest(&self) -> Result<CommitSlot, ReadError> {
        if self.pins.is_reader() && !self.frozen {
            match recovery::newest_commit(self.arena.storage(), self.header.lineage) {
                Ok(found) => self.publish(found.slot),
                Err(e) => {
                    // Even the slots may have been cut off.
                    let cut = self.arena.check_reach(DATA_START).err();
                    return Err(cut.unwrap_or_else(|| not_open(e)));
                }
            }
        }
        Ok(self.newest.get())
    }

    /// An error if this is another process, or if bytes of the file are gone: from the map, or from
    /// its end.
    pub(crate) fn check_whole(&self) -> Result<(), ReadError> {
        self.arena.check_process()?;
        self.arena.check_maps()?;
        match self.arena.check_length() {
            // A writer shortens the file when versions expire; the newest commit says what it
            // needs.
            Err(_) => self.newest().and_then(|_| self.arena.check_length()),
            whole => whole,
        }
    }

    /// That bytes of the file are gone, if they are.
    fn loss(&self) -> Option<ReadError> {
        use ReadError::{Lost, OtherProcess, Truncated};
        let loss = |e: &ReadError| matches!(e, Lost { .. } | Truncated { .. } | OtherProcess);
        self.check_whole().err().filter(loss)
    }

    /// `answer`, unless bytes of the file are gone: then it may rest on zeros, or fail because of
    /// them.
    pub(crate) fn confirm<T, E: From<ReadError>>(&self, answer: Result<T, E>) -> Result<T, E> {
        match self.loss() {
            Some(e) => Err(e.into()),
            None => answer,
        }
    }

    /// Why a commit could not read what it builds on: because bytes of the file are gone, if they
    /// are.
    pub(crate) fn explain(&self, e: CommitError) -> CommitError {
        match e {
            CommitError::Read(e) => CommitError::Read(self.loss().unwrap_or(e)),
            other => other,
        }
    }

    /// [`Database::confirm`] for an answer that rests only on what `watch` knows of, at the cost of
    /// two loads.
    #[inline]
    pub(crate) fn confirm_watched<T, E: From<ReadError>>(
        &self,
        watch: &Watch,
        answer: Result<T, E>,
    ) -> Result<T, E> {
        match answer {
            Ok(answer) => Ok(watch.check().map(|()| answer)?),
            failed => self.confirm(failed),
        }
    }

    pub(super) fn publish(&self, slot: CommitSlot) {
        self.newest.publish(slot, || self.arena.set_limit(slot.file_bytes));
    }

    /// Damaged copies of what is kept twice, if the other copy had to be used.
    pub(crate) fn damaged_copies(&self, slot: &CommitSlot) -> Result<Vec<Corruption>, ReadError> {
        Ok(recovery::damaged_copies(self.arena.storage(), slot)?)
    }

    /// The table of an array of the store state.
    pub(crate) fn state_table(&self, slot: &CommitSlot, array: Array) -> Table {
        let root = slot.roots[array as usize - DATA_ARRAYS];
        self.table(array, root, Access::Copied)
    }

    /// The table of a data array.
    pub(crate) fn data_table(&self, array: Array, roots: &[ArrayRoot; DATA_ARRAYS]) -> Table {
        self.table(array, roots[array as usize], Access::Mapped)
    }

    pub(super) fn table(&self, array: Array, root: ArrayRoot, access: Access) -> Table {
        Table { arena: self.arena.clone(), spec: self.geometry.spec(array), root, access }
    }

    fn version_rows(&self, slot: &CommitSlot) -> Result<Column<VersionRow>, ReadError> {
        let Table { arena, spec, root, access } = self.state_table(slot, Array::Versions);
        Column::new(arena, spec, root, access)
    }

    /// The rows of versions `from..=to` as of a commit, checked.
    fn read_versions(
        &self,
        slot: &CommitSlot,
        from: u64,
        to: u64,
    ) -> Result<Vec<VersionRow>, ReadError> {
        let column = self.version_rows(slot)?;
        if to > column.len() {
            let what = Defect::OutOfBounds { value: to, limit: column.len() + 1 };
            return Err(ReadError::corrupt(Place::Slots, what));
        }
        let mut rows = Vec::new();
        for version in from..=to {
            let row = column.get(version - 1)?;
            row.check(version).map_err(|what| {
                let place = Place::Version(VersionId(version));
                ReadError::corrupt(place, Defect::Invalid(what))
            })?;
            rows.push(row);
        }
        Ok(rows)
    }

    /// Runs `read` on the newest commit, inside the gate. A reader beside a busy writer may find
    /// that the state it reads has been reused meanwhile; then there is a newer commit, and it
    /// tries again with that.
    pub(crate) fn with_newest<R>(
        &self,
        read: impl Fn(&CommitSlot) -> Result<R, ReadError>,
    ) -> Result<R, ReadError> {
        self.with_pins(|slot| read(slot).map(Some))
    }

    /// [`Database::with_newest`] for what pins versions. If one of them is condemned there is no
    /// answer yet: outside the gate it waits until it is gone, or stays after all.
    pub(super) fn with_pins<R>(
        &self,
        read: impl Fn(&CommitSlot) -> Result<Option<R>, ReadError>,
    ) -> Result<R, ReadError> {
        self.arena.check_process()?;
        self.pins.retry(|| {
            let gate = self.pins.enter()?;
            let mut slot = self.newest()?;
            let _gate = gate.filter(|_| !SeededBug::PinOutsideGate.is_planted());
            loop {
                let found = read(&slot);
                let again = match &found {
                    Ok(None) => return Ok(None),
                    // Inside the gate there is no newer commit, but for threads of the writer's own
                    // handle.
                    Ok(Some(_)) if self.writer.is_none() => return found,
                    _ => self.newest()?,
                };
                if again.commit == slot.commit {
                    return found.map_err(|e| self.loss().unwrap_or(e));
                }
                slot = again;
            }
        })
    }

    /// The row of a version, and a pin that keeps it from expiring; for version 0 the row of the
    /// empty store.
    pub(crate) fn version(&self, version: VersionId) -> Result<(VersionRow, Pin), AtError> {
        self.with_pins(|slot| {
            if version.0 > slot.newest_version {
                let newest = VersionId(slot.newest_version);
                return Ok(Some(Err(AtError::NoSuchVersion { asked: version, newest })));
            }
            let row = match version.0 {
                0 => VersionRow::empty(),
                number => self.read_versions(slot, number, number)?[0],
            };
            if row.is_expired() {
                return Ok(Some(Err(AtError::Expired {
                    version,
                    time: UNIX_EPOCH + Duration::from_nanos(row.expired_ns),
                    rule: Retention::from_fields(row.expired_keep_last, row.expired_keep_for_ns),
                    oldest: VersionId(slot.oldest_version),
                })));
            }
            Ok(self.pins.pin(version.0)?.map(|pin| Ok((row, pin))))
        })?
    }

    /// The row of the newest version, and a pin.
    pub(crate) fn newest_version(&self) -> Result<(VersionRow, Pin), ReadError> {
        self.with_pins(|slot| {
            let row = match slot.newest_version {
                0 => VersionRow::empty(),
                newest => self.read_versions(slot, newest, newest)?[0],
            };
            Ok(self.pins.pin(row.version)?.map(|pin| (row, pin)))
        })
    }

    /// The rows of all versions that are retained, oldest first.
    pub(crate) fn versions(&self) -> Result<Vec<VersionRow>, ReadError> {
        self.with_newest(|slot| {
            let oldest = slot.oldest_version.max(1);
            let mut rows = self.read_versions(slot, oldest, slot.newest_version)?;
            rows.retain(|row| !row.is_expired());
            Ok(rows)
        })
    }

    /// All that is known of versions and tags, with every retained version pinned.
    pub(crate) fn history(&self) -> Result<History, ReadError> {
        self.with_pins(|slot| self.history_of(slot))
    }

    pub(super) fn history_of(&self, slot: &CommitSlot) -> Result<Option<History>, ReadError> {
        let rows = self.read_versions(slot, 1, slot.newest_version)?;
        let retained = rows.iter().filter(|row| !row.is_expired());
        let pins = retained
            .map(|row| self.pins.pin(row.version))
            .collect::<Result<Option<_>, StorageError>>()?;
        let Some(_pins) = pins else { return Ok(None) };
        Ok(Some(History { rows, tags: self.tags_of(slot)?, _pins }))
    }

    /// The saved rule of retention.
    pub(crate) fn retention(&self) -> Result<Retention, ReadError> {
        self.with_newest(|slot| Ok(Retention::from_fields(slot.keep_last, slot.keep_for_ns)))
    }

    /// All tags, by name, checked.
    pub(crate) fn tags(&self) -> Result<Vec<TagRow>, ReadError> {
        self.with_newest(|slot| self.tags_of(slot))
    }

    /// All tags as of a commit.
    pub(super) fn tags_of(&self, slot: &CommitSlot) -> Result<Vec<TagRow>, ReadError> {
        let mut tags: Vec<TagRow> = Vec::new();
        // Names ascend, so none is met twice, and the list cannot grow beyond what is stored.
        self.state_table(slot, Array::Tags).for_segments(|_, rows: &[TagRow]| {
            memory::reserve(&mut tags, rows.len(), "tags")?;
            for tag in rows {
                let row = tags.len() as u64;
                let checked = tag.check(slot.newest_version);
                checked.map_err(|what| ReadError::row("tags", row, what))?;
                if tags.last().is_some_and(|last| last.name() >= tag.name()) {
                    return Err(ReadError::row("tags", row, "tags are not in order"));
                }
                tags.push(*tag);
            }
            Ok(())
        })?;
        Ok(tags)
    }

    /// The newest version whose time is not after `time_ns`.
    pub(crate) fn version_at(&self, time_ns: u64) -> Result<VersionAt, ReadError> {
        self.with_newest(|slot| {
            let time_of = |version| -> Result<u64, ReadError> {
                Ok(self.read_versions(slot, version, version)?[0].time_ns)
            };
            // Times strictly increase: the versions up to `low` are not after it, those from `high`
            // on are.
            let (mut low, mut high) = (0, slot.newest_version + 1);
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                match time_of(middle)? <= time_ns {
                    true => low = middle,
                    false => high = middle,
                }
            }
            match (low, slot.newest_version) {
                (0, 0) => Ok(VersionAt::NoVersions),
                (0, _) => Ok(VersionAt::BeforeFirst(time_of(1)?)),
                _ => Ok(VersionAt::Version(low)),
            }
        })
    }
}

/// The newest version that is not after some time.
pub(crate) enum VersionAt {
    Version(u64),
    /// The first one is of this time.
    BeforeFirst(u64),
    NoVersions,
}

/// What keeps an open store from being read again.
fn not_open(e: OpenError) -> ReadError {
    match e {
        OpenError::Read(e) => e,
        OpenError::Truncated { found, needed } => ReadError::Truncated { found, needed },
        other => {
            let (invariant, what) = (Invariant::Other, other.to_string());
            ReadError::corrupt(Place::Slots, Defect::Invariant { invariant, what })
        }
    }
}

/// Cuts off what lies beyond the end of a commit: it belongs to one that never became visible. The
/// commit must be known to be durable, because the one before it may have needed a longer file. A
/// file that is shorter is left as it is, so that it shows.
pub(super) fn cut_back(storage: &dyn Storage, file_bytes: u64) -> Result<(), StorageError> {
    match storage.len()? > file_bytes {
        true => storage.set_len(file_bytes),
        false => Ok(()),
    }
}
