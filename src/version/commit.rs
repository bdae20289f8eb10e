//! The commit: changed columns become a durable version, or nothing happens.
//!
//! [`commit`] is the only function that writes into a store after its creation. It writes data only into space to which
//! no commit of the last two refers, and makes it visible by one checksummed slot.

use std::collections::{BTreeMap, BTreeSet};

use zerocopy::IntoBytes;

use super::column::{ChangedColumn, Column};
use super::database::{Database, Writer};
use super::table::{Table, TableUpdate, Visit};
use crate::arena::free_space::FreeSpace;
use crate::arena::{Access, Piece};
use crate::error::{CommitError, ReadError, StorageError};
use crate::format::arrays::{Array, ArrayRoot, ArraySpec, Class, DATA_ARRAYS, Entry};
use crate::format::checksum::crc32_padded;
use crate::format::rows::FreedRow;
use crate::format::slot::{CommitSlot, Hint};
use crate::format::version_row::VersionRow;
use crate::format::{HINT_OFFSET, PAGE_BYTES, slot_offset};
use crate::options::CancelToken;

/// What a transaction wants to become the next version.
pub(crate) struct Draft<'a> {
    /// The data arrays, by number.
    pub(crate) columns: [&'a dyn ChangedColumn; DATA_ARRAYS],
    /// The version row, complete but for `version`, `commit`, `commit_lineage`, `time_ns`, `bytes_written` and `roots`.
    pub(crate) row: VersionRow,
    pub(crate) cancel: &'a CancelToken,
}

/// Where a column's changed segments and table nodes will lie.
struct Placement<'a> {
    column: &'a dyn ChangedColumn,
    /// Segment number to address.
    segments: BTreeMap<u64, u64>,
    update: TableUpdate,
}

/// Makes a draft the newest version and returns its row.
///
/// Crash outcomes, by step: 1 to 4, the store is as before, with space behind its end that the next writer drops; 5
/// and 6, either as before or with the new version whole; 7 and later, with the new version.
pub(crate) fn commit(db: &Database, draft: Draft<'_>) -> Result<VersionRow, CommitError> {
    let mut writer = db
        .writer
        .as_ref()
        .ok_or(CommitError::ReadOnly)?
        .lock()
        .expect("unpoisoned");
    if writer.poisoned {
        return Err(CommitError::Poisoned);
    }
    let old = db.newest()?;
    confirm(db, &mut writer, &old)?;
    if writer.space.is_none() {
        let (space, freed) = db.load_space(&old)?;
        writer.space = Some(space);
        writer.freed = freed;
    }
    let mut space = writer.space.clone().expect("loaded above");
    let number = old.commit + 1;

    // 1. Plan the space. Nothing is written; a failure costs nothing.
    let mut row = draft.row;
    row.version = old.newest_version + 1;
    row.commit = number;
    row.commit_lineage = writer.lineage(number)?;
    row.time_ns = writer.time_ns(number, old.time_ns);
    let mut data = Vec::new();
    for column in draft.columns {
        let placement = place(column, &mut space, |_| {})?;
        data.push(placement);
    }
    let state = StatePlan::new(db, &old, &mut space, &writer.freed)?;
    let StatePlan {
        mut versions,
        map,
        freed,
        freed_rows,
        map_words,
    } = state;

    // 2. Reserve growth, so that a full disk shows here.
    let storage = db.arena.storage();
    let file_bytes = space.used_end();
    let old_len = storage.len()?;
    if file_bytes > old_len
        && let Err(e) = storage.allocate(old_len, file_bytes - old_len)
    {
        return Err(abort(db, old_len, file_bytes, e));
    }

    // 3. Write segments and tables, bottom up. Nothing refers to them yet.
    let planned = |placement: &Placement<'_>| placement.planned_bytes();
    let map_column = Words {
        table: map.table,
        words: map_words,
        changed: map.segments,
    };
    let freed_column = Words {
        table: freed.table,
        words: freed_rows,
        changed: freed.segments,
    };
    row.bytes_written = data.iter().map(planned).sum::<u64>()
        + versions.planned_bytes()
        + map.planned_bytes
        + freed.planned_bytes
        + 3 * PAGE_BYTES as u64;
    let write = || -> Result<[ArrayRoot; 3], CommitError> {
        for (array, placement) in data.iter().enumerate() {
            row.roots[array] = write_column(db, number, placement)?;
        }
        versions.push(&[row])?;
        let versions = Placement {
            segments: versions.segments,
            update: versions.update,
            column: &versions.column,
        };
        let map = Placement {
            column: &map_column,
            segments: map.places,
            update: map.update,
        };
        let freed = Placement {
            column: &freed_column,
            segments: freed.places,
            update: freed.update,
        };
        Ok([
            write_column(db, number, &versions)?,
            write_column(db, number, &map)?,
            write_column(db, number, &freed)?,
        ])
    };
    let roots = match write() {
        Ok(roots) => roots,
        Err(CommitError::Storage(e)) => return Err(abort(db, old_len, file_bytes, e)),
        Err(e) => {
            let _ = storage.set_len(old_len);
            return Err(e);
        }
    };
    if draft.cancel.is_cancelled() {
        let _ = storage.set_len(old_len);
        return Err(CommitError::Interrupted);
    }

    // 4. F1: everything that the slot will refer to is on the disk, and the file is long enough.
    if let Err(e) = storage.sync() {
        writer.poisoned = true;
        return Err(CommitError::Storage(e));
    }

    // 5. The slot, twice. Torn, it is not valid, and the commit before it is still the newest.
    let mut slot = CommitSlot::blank();
    slot.commit = number;
    slot.store_lineage = db.header.lineage;
    slot.commit_lineage = row.commit_lineage;
    slot.file_bytes = file_bytes;
    slot.time_ns = row.time_ns;
    slot.newest_version = row.version;
    slot.roots = roots;
    let slot = slot.sealed();
    // 6. F2: the commit is durable.
    if let Err(source) = write_slot(db, &slot) {
        writer.poisoned = true;
        return Err(CommitError::Unknown {
            commit: number,
            source,
        });
    }

    // 7. Publish, and leave the unsynced proof that F2 returned.
    writer.space = Some(space);
    writer.freed = freed_column
        .words
        .iter()
        .copied()
        .filter(|row| row.bytes > 0)
        .collect();
    db.publish(slot);
    leave_hint(db, number);
    Ok(row)
}

/// Gives back what was reserved. No commit refers to it, so the store is as it was.
fn abort(db: &Database, old_len: u64, file_bytes: u64, e: StorageError) -> CommitError {
    let _ = db.arena.storage().set_len(old_len);
    match e.is_disk_full() {
        true => CommitError::DiskFull {
            needed: file_bytes.saturating_sub(old_len),
            source: e,
        },
        false => CommitError::Storage(e),
    }
}

fn write_slot(db: &Database, slot: &CommitSlot) -> Result<(), StorageError> {
    let storage = db.arena.storage();
    for copy in 0..2 {
        storage.write_at(&slot.encode(), slot_offset(slot.commit, copy))?;
    }
    storage.sync()
}

fn leave_hint(db: &Database, commit: u64) {
    // Only a hint: without it the next writer does a little more.
    let _ = db
        .arena
        .storage()
        .write_at(&Hint::new(commit, db.header.lineage).encode(), HINT_OFFSET);
}

/// Makes sure that the newest commit is durable before another builds on it. After a failed sync the page cache can
/// show what the disk lacks, so the commit's blocks are written again, word for word, and synced.
fn confirm(db: &Database, writer: &mut Writer, newest: &CommitSlot) -> Result<(), CommitError> {
    if writer.confirmed {
        return Ok(());
    }
    let state = Array::ALL[DATA_ARRAYS..].iter();
    let mut tables: Vec<Table> = state.map(|&a| db.state_table(newest, a)).collect();
    if newest.newest_version > 0 {
        let row = db.newest_version()?;
        tables.extend(
            Array::ALL[..DATA_ARRAYS]
                .iter()
                .map(|&a| db.data_table(a, &row.roots)),
        );
    }
    let storage = db.arena.storage();
    for table in &tables {
        let mut failure: Option<CommitError> = None;
        let mut found = Vec::new();
        table.walk(
            &mut |entry, visit| {
                let new = entry.birth == newest.commit;
                if new {
                    found.push((*entry, visit));
                }
                new
            },
            &mut |e| failure = Some(e.into()),
        );
        if let Some(e) = failure {
            return Err(e);
        }
        for (entry, visit) in found {
            table.recheck(&entry, visit)?;
            let mut bytes = vec![0; entry.bytes as usize];
            storage.read_at(&mut bytes, entry.address)?;
            storage.write_at(&bytes, entry.address)?;
        }
    }
    let synced = storage.sync().and_then(|()| write_slot(db, newest));
    if let Err(e) = synced {
        writer.poisoned = true;
        return Err(CommitError::Storage(e));
    }
    writer.confirmed = true;
    leave_hint(db, newest.commit);
    Ok(())
}

fn place<'a>(
    column: &'a dyn ChangedColumn,
    space: &mut FreeSpace,
    replaced: impl FnMut(Entry),
) -> Result<Placement<'a>, ReadError> {
    let spec = column.table().spec;
    let changed = column.changed();
    let segments: BTreeMap<u64, u64> = changed
        .iter()
        .map(|&s| {
            (
                s,
                space.allocate(
                    spec.stored_bytes(spec.rows_in(s, column.rows())),
                    spec.class,
                ),
            )
        })
        .collect();
    let block = spec.block_bytes;
    let update = TableUpdate::plan(
        column.table().clone(),
        column.rows(),
        changed.into_iter(),
        || space.allocate(block, Class::Topology),
        replaced,
    )?;
    Ok(Placement {
        column,
        segments,
        update,
    })
}

impl Placement<'_> {
    fn planned_bytes(&self) -> u64 {
        let spec = self.column.table().spec;
        planned_bytes(
            &spec,
            self.column.rows(),
            self.segments.keys().copied(),
            &self.update,
        )
    }
}

fn planned_bytes(
    spec: &ArraySpec,
    rows: u64,
    segments: impl Iterator<Item = u64>,
    update: &TableUpdate,
) -> u64 {
    let segments: u64 = segments
        .map(|s| spec.stored_bytes(spec.rows_in(s, rows)) as u64)
        .sum();
    segments + update.planned_nodes() * spec.block_bytes as u64
}

/// Writes a column's changed segments and table nodes, and returns its new root.
fn write_column(
    db: &Database,
    number: u64,
    placement: &Placement<'_>,
) -> Result<ArrayRoot, CommitError> {
    use rayon::prelude::*;
    let Placement {
        column,
        segments,
        update,
    } = placement;
    let spec = column.table().spec;
    let pieces: Vec<(u64, Piece<'_>)> = segments
        .iter()
        .map(|(&segment, &address)| {
            let stored = spec.stored_bytes(spec.rows_in(segment, column.rows()));
            (
                segment,
                Piece {
                    address,
                    bytes: column.bytes(segment),
                    stored,
                },
            )
        })
        .collect();
    let entries: BTreeMap<u64, Entry> = pieces
        .par_iter()
        .map(|(segment, piece)| {
            let crc = crc32_padded(piece.bytes, piece.stored);
            let bytes = piece.stored as u32;
            (
                *segment,
                Entry {
                    address: piece.address,
                    birth: number,
                    crc,
                    bytes,
                },
            )
        })
        .collect::<Vec<_>>()
        .into_iter()
        .collect();
    let mut nodes = Vec::new();
    let root = update.encode(number, entries, |address, block| {
        nodes.push((address, block))
    })?;
    let mut pieces: Vec<Piece<'_>> = pieces.into_iter().map(|(_, piece)| piece).collect();
    pieces.extend(nodes.iter().map(|(address, block)| Piece {
        address: *address,
        bytes: block,
        stored: block.len(),
    }));
    db.arena.write_pieces(pieces)?;
    Ok(root)
}

/// The store state's part of the plan. Its own blocks change the free map that it describes, so placing goes round
/// until nothing new is touched.
struct StatePlan {
    versions: VersionsPlan,
    map: WordsPlan,
    freed: WordsPlan,
    freed_rows: Vec<FreedRow>,
    map_words: Vec<u64>,
}

struct VersionsPlan {
    column: Column<VersionRow>,
    segments: BTreeMap<u64, u64>,
    update: TableUpdate,
}

impl VersionsPlan {
    fn planned_bytes(&self) -> u64 {
        let spec = self.column.table().spec;
        planned_bytes(
            &spec,
            self.column.rows(),
            self.segments.keys().copied(),
            &self.update,
        )
    }

    /// Replaces the row that was only a placeholder while space was planned.
    fn push(&mut self, rows: &[VersionRow; 1]) -> Result<(), ReadError> {
        let last = self.column.len() - 1;
        self.column.edit(last)?.copy_from_slice(rows);
        Ok(())
    }
}

struct WordsPlan {
    table: Table,
    segments: Vec<u64>,
    places: BTreeMap<u64, u64>,
    update: TableUpdate,
    planned_bytes: u64,
}

/// Blocks given out in order and kept over the rounds of planning.
#[derive(Default)]
struct Pool {
    addresses: Vec<u64>,
    next: usize,
}

impl Pool {
    fn take(&mut self, space: &mut FreeSpace, bytes: usize, class: Class) -> u64 {
        if self.next == self.addresses.len() {
            self.addresses.push(space.allocate(bytes, class));
        }
        self.next += 1;
        self.addresses[self.next - 1]
    }
}

impl StatePlan {
    fn new(
        db: &Database,
        old: &CommitSlot,
        space: &mut FreeSpace,
        released: &[FreedRow],
    ) -> Result<Self, ReadError> {
        let mut out_of_use: Vec<FreedRow> = Vec::new();
        let row_of = |e: Entry| FreedRow {
            address: e.address,
            bytes: e.bytes as u64,
        };

        let Table {
            arena,
            spec,
            root,
            access,
        } = db.state_table(old, Array::Versions);
        let mut column: Column<VersionRow> = Column::new(arena, spec, root, access)?;
        column.push(&[VersionRow::empty()])?;
        let placement = place(&column, space, |e| out_of_use.push(row_of(e)))?;
        let Placement {
            segments, update, ..
        } = placement;
        let versions = VersionsPlan {
            segments,
            update,
            column,
        };

        // The list of freed space is written anew by each commit; the old one goes out of use as a whole.
        let freed_spec = db.geometry.spec(Array::Freed);
        let mut problem = None;
        db.state_table(old, Array::Freed).walk(
            &mut |entry, _| {
                out_of_use.push(row_of(*entry));
                true
            },
            &mut |e| problem = Some(e),
        );
        if let Some(e) = problem {
            return Err(e);
        }

        let map_table = db.state_table(old, Array::FreeMap);
        let map_spec = map_table.spec;
        let per_segment = map_spec.rows_per_segment;
        let block = map_spec.block_bytes as u64;
        // Words in which space released by this commit lies. It must not be given out yet, so it is marked last.
        let mut touched: BTreeSet<u64> = released
            .iter()
            .flat_map(|row| row.address / block / 64..=(row.address + row.bytes - 1) / block / 64)
            .map(|word| word / per_segment)
            .collect();
        let [
            mut map_segments,
            mut map_nodes,
            mut freed_segments,
            mut freed_nodes,
        ] = std::array::from_fn(|_| Pool::default());
        let mut freed_len = 0usize;
        loop {
            touched.extend(
                space
                    .take_changes()
                    .into_iter()
                    .map(|w| w as u64 / per_segment),
            );
            // Both arrays are padded to whole segments, so that growing does not change a segment's length.
            let map_rows = (space.words().len() as u64).next_multiple_of(per_segment);
            let map_rows = map_rows.max(map_table.root.rows);
            touched.extend(map_table.segments()..map_spec.segments(map_rows));
            let mut freed_now = out_of_use.clone();
            for pool in [
                &mut map_segments,
                &mut map_nodes,
                &mut freed_segments,
                &mut freed_nodes,
            ] {
                pool.next = 0;
            }
            let map_bytes = map_spec.stored_bytes(per_segment);
            let map_places: BTreeMap<u64, u64> = touched
                .iter()
                .map(|&s| (s, map_segments.take(space, map_bytes, Class::Topology)))
                .collect();
            let map_update = TableUpdate::plan(
                map_table.clone(),
                map_rows,
                touched.iter().copied(),
                || map_nodes.take(space, block as usize, Class::Topology),
                |e| freed_now.push(row_of(e)),
            )?;
            freed_len = freed_len.max(freed_now.len());
            let freed_rows = (freed_len as u64).next_multiple_of(freed_spec.rows_per_segment);
            let freed_bytes = freed_spec.stored_bytes(freed_spec.rows_per_segment);
            let freed_table = Table {
                arena: db.arena.clone(),
                spec: freed_spec,
                root: ArrayRoot::default(),
                access: Access::Copied,
            };
            let freed_numbers: Vec<u64> = (0..freed_spec.segments(freed_rows)).collect();
            let freed_places = freed_numbers
                .iter()
                .map(|&s| (s, freed_segments.take(space, freed_bytes, Class::Topology)))
                .collect();
            let freed_update = TableUpdate::plan(
                freed_table.clone(),
                freed_rows,
                freed_numbers.iter().copied(),
                || freed_nodes.take(space, block as usize, Class::Topology),
                |_| {},
            )?;
            let before = touched.len();
            touched.extend(
                space
                    .take_changes()
                    .into_iter()
                    .map(|w| w as u64 / per_segment),
            );
            let words = (space.words().len() as u64).next_multiple_of(per_segment);
            if touched.len() != before || words > map_rows {
                continue;
            }
            // Nothing new was touched: the plan describes itself.
            for row in released {
                space.free(row.address, row.bytes);
            }
            space.take_changes();
            freed_now.resize(freed_rows as usize, FreedRow::default());
            let mut map_words = space.words().to_vec();
            map_words.resize(map_rows as usize, 0);
            let planned = |spec, rows, numbers: &[u64], update: &TableUpdate| {
                planned_bytes(spec, rows, numbers.iter().copied(), update)
            };
            let map_numbers: Vec<u64> = touched.into_iter().collect();
            return Ok(StatePlan {
                versions,
                map: WordsPlan {
                    planned_bytes: planned(&map_spec, map_rows, &map_numbers, &map_update),
                    table: map_table,
                    segments: map_numbers,
                    places: map_places,
                    update: map_update,
                },
                freed: WordsPlan {
                    planned_bytes: planned(&freed_spec, freed_rows, &freed_numbers, &freed_update),
                    table: freed_table,
                    segments: freed_numbers,
                    places: freed_places,
                    update: freed_update,
                },
                freed_rows: freed_now,
                map_words,
            });
        }
    }
}

/// An array of the store state that the commit computes as a whole.
struct Words<T> {
    table: Table,
    words: Vec<T>,
    changed: Vec<u64>,
}

impl<T: super::column::Record> ChangedColumn for Words<T> {
    fn table(&self) -> &Table {
        &self.table
    }

    fn rows(&self) -> u64 {
        self.words.len() as u64
    }

    fn changed(&self) -> Vec<u64> {
        self.changed.clone()
    }

    fn bytes(&self, segment: u64) -> &[u8] {
        let per_segment = self.table.spec.rows_per_segment as usize;
        let start = segment as usize * per_segment;
        let end = self.words.len().min(start + per_segment);
        self.words[start..end].as_bytes()
    }
}

impl Visit {
    /// Segments visited count as such in reports.
    pub(crate) fn is_segment(self) -> bool {
        matches!(self, Visit::Segment(_))
    }
}
