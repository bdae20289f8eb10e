//! An open store file: its geometry, its newest commit, and the writer's private state.

use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::column::Column;
use super::family::{Brief, Family};
use super::pins::{Pin, Pins};
use super::recovery;
use super::table::Table;
use crate::arena::free_space::FreeSpace;
use crate::arena::lock::{Hold, LockRange};
use crate::arena::storage::Storage;
use crate::arena::watch::Watch;
use crate::arena::{Access, Arena};
use crate::error::{
    AtError, CommitError, Corruption, Defect, OpenError, Place, ReadError, StorageError,
};
use crate::format::arrays::{Array, ArrayRoot, DATA_ARRAYS, Geometry};
use crate::format::header::Header;
use crate::format::rows::FreedRow;
use crate::format::slot::{CommitSlot, Hint};
use crate::format::tag_row::TagRow;
use crate::format::version_row::VersionRow;
use crate::format::{COPY_DISTANCE, DATA_START, HINT_OFFSET, slot_offset};
use crate::ids::VersionId;
use crate::options::{CreateOptions, Provenance, Verify};
use crate::retention::Retention;
use crate::seeded_bug::SeededBug;

/// An open store file.
pub(crate) struct Database {
    pub(crate) arena: Arc<Arena>,
    pub(crate) header: Header,
    pub(crate) geometry: Geometry,
    newest: RwLock<CommitSlot>,
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

    pub(super) fn family(&self) -> Family {
        Family::new(&self.rows.iter().map(Brief::of).collect::<Vec<_>>())
    }
}

/// What only the one writer knows.
pub(super) struct Writer {
    /// Loaded from the free map by the first commit.
    pub(super) space: Option<FreeSpace>,
    /// What the newest commit freed: not to be written before the commit after the next.
    pub(super) freed: Vec<FreedRow>,
    /// All versions, if a rule of retention has made it necessary to know them.
    pub(super) past: Option<Vec<Brief>>,
    /// The newest commit whose slot is on the disk. Later ones share the syncs of a commit to come.
    pub(super) durable: u64,
    /// A failed sync has left the disk in an unknown state.
    pub(super) poisoned: bool,
    /// The newest commit is known to be durable.
    pub(super) confirmed: bool,
    provenance: Provenance,
}

impl Drop for Database {
    /// Releases the writer's lock by name. Closing the file would do, but for a child process that is just being started
    /// by another thread: until it runs its own program, it holds a copy of the handle.
    fn drop(&mut self) {
        if self.writer.is_some() {
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
        storage.allocate(0, DATA_START)?;
        for copy in 0..2 {
            storage.write_at(&header.encode(), copy * COPY_DISTANCE)?;
            storage.write_at(&slot.encode(), slot_offset(0, copy))?;
        }
        storage.write_at(&Hint::new(0, lineage).encode(), HINT_OFFSET)?;
        storage.sync()
    }

    /// Opens a store: reads headers and slots. With `provenance` as its writer, which takes the lock first.
    pub(crate) fn open(
        storage: Box<dyn Storage>,
        writer: Option<Provenance>,
        verify: Verify,
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
            pins: Pins::new(arena.clone(), writer.is_none()),
            arena,
            geometry: header.geometry(),
            header,
            newest: RwLock::new(newest.slot),
            frozen: false,
            writer: writer.map(|provenance| {
                Mutex::new(Writer {
                    space: None,
                    freed: Vec::new(),
                    past: None,
                    durable: newest.slot.commit,
                    poisoned: false,
                    confirmed: newest.confirmed,
                    provenance,
                })
            }),
        })
    }

    /// A file as of one of its commits, for reading only. `len`: length of the file, which may be shorter than the commit
    /// needs; what lies behind it cannot be read.
    pub(crate) fn as_of(
        storage: Box<dyn Storage>,
        header: Header,
        slot: CommitSlot,
        len: u64,
    ) -> Self {
        let arena = Arc::new(Arena::new(storage, header.block_bytes, Verify::FirstTouch));
        arena.set_limit(slot.file_bytes.min(len));
        Database {
            pins: Pins::new(arena.clone(), true),
            arena,
            geometry: header.geometry(),
            header,
            newest: RwLock::new(slot),
            frozen: true,
            writer: None,
        }
    }

    /// The newest commit: for a writer its own last one, for a reader what the file says now.
    pub(crate) fn newest(&self) -> Result<CommitSlot, ReadError> {
        if self.writer.is_none() && !self.frozen {
            match recovery::newest_commit(self.arena.storage(), self.header.lineage) {
                Ok(found) => self.publish(found.slot),
                Err(e) => {
                    // Even the slots may have been cut off.
                    let cut = self.arena.check_reach(DATA_START).err();
                    return Err(cut.unwrap_or_else(|| not_open(e)));
                }
            }
        }
        Ok(*self.newest.read().expect("no holder panics"))
    }

    /// An error if bytes of the file are gone: from the map, or from its end.
    pub(crate) fn check_whole(&self) -> Result<(), ReadError> {
        self.arena.check_maps()?;
        match self.arena.check_length() {
            // A writer shortens the file when versions expire; the newest commit says what it needs.
            Err(_) => self.newest().and_then(|_| self.arena.check_length()),
            whole => whole,
        }
    }

    /// That bytes of the file are gone, if they are.
    fn loss(&self) -> Option<ReadError> {
        let loss =
            |e: &ReadError| matches!(e, ReadError::Lost { .. } | ReadError::Truncated { .. });
        self.check_whole().err().filter(loss)
    }

    /// `answer`, unless bytes of the file are gone: then it may rest on zeros, or fail because of them.
    pub(crate) fn confirm<T, E: From<ReadError>>(&self, answer: Result<T, E>) -> Result<T, E> {
        match self.loss() {
            Some(e) => Err(e.into()),
            None => answer,
        }
    }

    /// Why a commit could not read what it builds on: because bytes of the file are gone, if they are.
    pub(crate) fn explain(&self, e: CommitError) -> CommitError {
        match e {
            CommitError::Read(e) => CommitError::Read(self.loss().unwrap_or(e)),
            other => other,
        }
    }

    /// [`Database::confirm`] for an answer that rests only on what `watch` knows of, at the cost of two loads.
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
        let mut newest = self.newest.write().expect("no holder panics");
        // Another thread may have seen a later one meanwhile.
        if slot.commit >= newest.commit {
            self.arena.set_limit(slot.file_bytes);
            *newest = slot;
        }
    }

    /// Damaged copies of what is kept twice, if the other copy had to be used.
    pub(crate) fn damaged_copies(&self, slot: &CommitSlot) -> Result<Vec<Corruption>, ReadError> {
        let what = Defect::Invalid("one of the two copies is damaged; the other is in use");
        let places = recovery::damaged_copies(self.arena.storage(), slot).map_err(not_open)?;
        Ok(places.into_iter().map(|at| Corruption { at, what: what.clone() }).collect())
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

    fn table(&self, array: Array, root: ArrayRoot, access: Access) -> Table {
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

    /// Runs `read` on the newest commit, inside the gate. A reader beside a busy writer may find that the state it reads has been
    /// reused meanwhile; then there is a newer commit, and it tries again with that.
    pub(crate) fn with_newest<R>(
        &self,
        read: impl Fn(&CommitSlot) -> Result<R, ReadError>,
    ) -> Result<R, ReadError> {
        let gate = self.pins.enter()?;
        let mut slot = self.newest()?;
        let _gate = gate.filter(|_| !SeededBug::PinOutsideGate.is_planted());
        loop {
            match read(&slot) {
                Err(e) => {
                    let again = self.newest()?;
                    if again.commit == slot.commit {
                        return Err(self.loss().unwrap_or(e));
                    }
                    slot = again;
                }
                done => return done,
            }
        }
    }

    /// The row of a version, and a pin that keeps it from expiring; for version 0 the row of the empty store.
    pub(crate) fn version(&self, version: VersionId) -> Result<(VersionRow, Pin), AtError> {
        self.with_newest(|slot| {
            if version.0 > slot.newest_version {
                let newest = VersionId(slot.newest_version);
                return Ok(Err(AtError::NoSuchVersion { asked: version, newest }));
            }
            let row = match version.0 {
                0 => VersionRow::empty(),
                number => self.read_versions(slot, number, number)?[0],
            };
            if row.is_expired() {
                return Ok(Err(AtError::Expired {
                    version,
                    time: UNIX_EPOCH + Duration::from_nanos(row.expired_ns),
                    rule: Retention::from_fields(row.expired_keep_last, row.expired_keep_for_ns),
                    oldest: VersionId(slot.oldest_version),
                }));
            }
            Ok(Ok((row, self.pins.pin(version.0)?)))
        })?
    }

    /// The row of the newest version, and a pin.
    pub(crate) fn newest_version(&self) -> Result<(VersionRow, Pin), ReadError> {
        self.with_newest(|slot| {
            let row = match slot.newest_version {
                0 => VersionRow::empty(),
                newest => self.read_versions(slot, newest, newest)?[0],
            };
            Ok((row, self.pins.pin(row.version)?))
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
        self.with_newest(|slot| {
            let rows = self.read_versions(slot, 1, slot.newest_version)?;
            let retained = rows.iter().filter(|row| !row.is_expired());
            let _pins = retained
                .map(|row| self.pins.pin(row.version))
                .collect::<Result<_, StorageError>>()?;
            Ok(History { rows, tags: self.tags_of(slot)?, _pins })
        })
    }

    /// The saved rule of retention.
    pub(crate) fn retention(&self) -> Result<Retention, ReadError> {
        self.with_newest(|slot| Ok(Retention::from_fields(slot.keep_last, slot.keep_for_ns)))
    }

    /// True if every commit is durable, or nothing can be done about it.
    pub(crate) fn is_settled(&self) -> bool {
        let newest = self.newest.read().expect("no holder panics").commit;
        self.writer.as_ref().is_none_or(|writer| {
            let writer = writer.lock().expect("unpoisoned");
            writer.poisoned || writer.durable == newest
        })
    }

    /// The time that the next commit would bear if it were made now.
    pub(super) fn next_time_ns(&self, newest: &CommitSlot) -> Result<u64, CommitError> {
        let writer = self.writer.as_ref().ok_or(CommitError::ReadOnly)?.lock().expect("unpoisoned");
        Ok(writer.time_ns(newest.commit + 1, newest.time_ns))
    }

    /// All tags, by name, checked.
    pub(crate) fn tags(&self) -> Result<Vec<TagRow>, ReadError> {
        self.with_newest(|slot| self.tags_of(slot))
    }

    /// All tags as of a commit.
    pub(super) fn tags_of(&self, slot: &CommitSlot) -> Result<Vec<TagRow>, ReadError> {
        let Table { arena, spec, root, access } = self.state_table(slot, Array::Tags);
        let column: Column<TagRow> = Column::new(arena, spec, root, access)?;
        let mut tags: Vec<TagRow> = Vec::new();
        column.for_chunks(0, root.rows, |_, chunk| tags.extend_from_slice(chunk))?;
        for (i, tag) in tags.iter().enumerate() {
            let checked = tag.check(slot.newest_version);
            checked.map_err(|what| ReadError::row("tags", i as u64, what))?;
            if i > 0 && tags[i - 1].name() >= tag.name() {
                return Err(ReadError::row("tags", i as u64, "tags are not in order"));
            }
        }
        Ok(tags)
    }

    /// The newest version whose time is not after `time_ns`, and if there is none, the time of the first.
    pub(crate) fn version_at(&self, time_ns: u64) -> Result<Result<u64, Option<u64>>, ReadError> {
        self.with_newest(|slot| {
            let time_of = |version| -> Result<u64, ReadError> {
                Ok(self.read_versions(slot, version, version)?[0].time_ns)
            };
            // Times strictly increase: the versions up to `low` are not after it, those from `high` on are.
            let (mut low, mut high) = (0, slot.newest_version + 1);
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                match time_of(middle)? <= time_ns {
                    true => low = middle,
                    false => high = middle,
                }
            }
            match (low, slot.newest_version) {
                (0, 0) => Ok(Err(None)),
                (0, _) => Ok(Err(Some(time_of(1)?))),
                _ => Ok(Ok(low)),
            }
        })
    }

    /// Bytes of the file that are in use, and bytes that the next commits may reuse.
    pub(crate) fn space(&self) -> Result<(u64, u64), ReadError> {
        self.with_newest(|slot| {
            let (space, freed) = self.load_space(slot)?;
            let freed: u64 = freed.iter().map(|row| row.bytes).sum();
            let used = space.used_bytes() - freed;
            Ok((used, slot.file_bytes - used))
        })
    }

    /// The free map and the freed list of a commit.
    pub(crate) fn load_space(
        &self,
        slot: &CommitSlot,
    ) -> Result<(FreeSpace, Vec<FreedRow>), ReadError> {
        let Table { arena, spec, root, access } = self.state_table(slot, Array::FreeMap);
        let column: Column<u64> = Column::new(arena, spec, root, access)?;
        let mut words = Vec::with_capacity(root.rows as usize);
        column.for_chunks(0, root.rows, |_, chunk| words.extend_from_slice(chunk))?;
        let Table { arena, spec, root, access } = self.state_table(slot, Array::Freed);
        let column: Column<FreedRow> = Column::new(arena, spec, root, access)?;
        let mut freed = Vec::new();
        column.for_chunks(0, root.rows, |_, chunk| freed.extend_from_slice(chunk))?;
        freed.retain(|row| row.bytes > 0);
        let block = self.header.block_bytes as u64;
        for (i, row) in freed.iter().enumerate() {
            let end = row.address.checked_add(row.bytes);
            let fits = end.is_some_and(|end| end <= slot.file_bytes)
                && row.address >= DATA_START
                && row.address % block == 0
                && row.bytes % block == 0;
            if !fits {
                return Err(ReadError::row("freed", i as u64, "range outside the file"));
            }
        }
        let space = FreeSpace::new(self.header.block_bytes, words, DATA_START);
        let mut sorted = freed.clone();
        sorted.sort_unstable_by_key(|row| row.address);
        let apart =
            sorted.windows(2).all(|pair| pair[0].address + pair[0].bytes <= pair[1].address);
        if !apart || !sorted.iter().all(|row| space.is_range_used(row.address, row.bytes)) {
            return Err(ReadError::row("freed", 0, "ranges overlap, or are free already"));
        }
        if space.used_end() > slot.file_bytes {
            return Err(ReadError::row("free_map", 0, "blocks in use beyond the end of the file"));
        }
        Ok((space, freed))
    }
}

/// What keeps an open store from being read again.
fn not_open(e: OpenError) -> ReadError {
    match e {
        OpenError::Read(e) => e,
        OpenError::Truncated { found, needed } => ReadError::Truncated { found, needed },
        other => ReadError::corrupt(Place::Slots, Defect::Invariant(other.to_string())),
    }
}

/// Cuts off what lies beyond the end of a commit: it belongs to one that never became visible. The commit must be known
/// to be durable, because the one before it may have needed a longer file. A file that is shorter is left as it is, so
/// that it shows.
pub(super) fn cut_back(storage: &dyn Storage, file_bytes: u64) -> Result<(), StorageError> {
    match storage.len()? > file_bytes {
        true => storage.set_len(file_bytes),
        false => Ok(()),
    }
}

impl Writer {
    /// Goes on from a commit that has been written.
    pub(super) fn follow(
        &mut self,
        space: FreeSpace,
        freed: Vec<FreedRow>,
        gone: &[u64],
        added: Vec<Brief>,
    ) {
        self.space = Some(space);
        self.freed = freed;
        if let Some(past) = &mut self.past {
            gone.iter().for_each(|&version| past[version as usize - 1].expired = true);
            past.extend(added);
        }
    }

    /// Time stamp of the next commit: later than the last one's even if the clock is not.
    pub(super) fn time_ns(&self, commit: u64, last_ns: u64) -> u64 {
        time_ns(self.provenance, commit).max(last_ns + 1)
    }

    /// Lineage of the next commit.
    pub(super) fn lineage(&self, commit: u64) -> Result<[u8; 16], StorageError> {
        lineage(self.provenance, commit)
    }
}

fn time_ns(provenance: Provenance, commit: u64) -> u64 {
    let time = match provenance {
        Provenance::System => SystemTime::now(),
        Provenance::Fixed { start, .. } => start + Duration::from_secs(commit),
    };
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}

fn lineage(provenance: Provenance, commit: u64) -> Result<[u8; 16], StorageError> {
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
