//! Planning the store state that a commit writes: version rows, tags, the free map, and the list of
//! what it retires.

use std::collections::{BTreeMap, BTreeSet};

use zerocopy::IntoBytes;

use super::column::{Column, Record, WrittenColumn};
use super::database::Database;
use super::placement::Placement;
use super::space_ledger::{Retired, coalesce};
use super::table::{Table, TableUpdate};
use crate::arena::Access;
use crate::arena::free_space::FreeSpace;
use crate::format::arrays::{Array, ArrayRoot, Class, DATA_ARRAYS, Entry, STATE_ARRAYS};
use crate::format::rows::FreedRow;
use crate::format::slot::CommitSlot;
use crate::format::tag_row::TagRow;
use crate::format::version_row::VersionRow;
use crate::values::error::{CommitError, ReadError};
use crate::values::seeded_bug::SeededBug;

/// What a commit changes in the store state, besides the accounts of space.
#[derive(Default)]
pub(super) struct StateChange {
    /// Rows of versions that expire, as they will be.
    pub(super) expired: Vec<VersionRow>,
    /// Rows of versions that are added. The last one is set when everything that it records is
    /// known.
    pub(super) added: Vec<VersionRow>,
    /// All tags from now on, if they change.
    pub(super) tags: Option<Vec<TagRow>>,
    /// Retired already: what only expired versions refer to, and what is held.
    pub(super) retired: Vec<FreedRow>,
    /// What the commit makes reusable: it is cleared in the new map, but nothing of this commit is
    /// put there.
    pub(super) released: Vec<FreedRow>,
    /// The commit waits, and so do the accounts: the free map and the list are not written.
    pub(super) waits: bool,
}

/// The store state of the next commit.
pub(super) struct StatePlan {
    versions: Placement<Column<VersionRow>>,
    /// `None`: as they were.
    tags: Option<Placement<Words<TagRow>>>,
    /// `None` if the commit waits.
    accounts: Option<Accounts>,
    /// Pieces of the old state that the new one replaces, those of the accounts not included.
    replaced: Vec<Entry>,
}

/// The free map and the list of what the commit retires.
struct Accounts {
    map: Placement<Words<u64>>,
    freed: Placement<Words<FreedRow>>,
}

/// An array that the commit computes as a whole.
pub(super) struct Words<T> {
    table: Table,
    words: Vec<T>,
}

impl<T: Record> WrittenColumn for Words<T> {
    fn table(&self) -> &Table {
        &self.table
    }

    fn rows(&self) -> u64 {
        self.words.len() as u64
    }

    fn bytes(&self, segment: u64) -> &[u8] {
        let per_segment = self.table.spec.rows_per_segment as usize;
        let start = segment as usize * per_segment;
        let end = self.words.len().min(start + per_segment);
        self.words[start..end].as_bytes()
    }
}

fn empty_table(db: &Database, array: Array) -> Table {
    Table {
        arena: db.arena.clone(),
        spec: db.geometry.spec(array),
        root: ArrayRoot::default(),
        access: Access::Copied,
    }
}

/// Space of one size given out in order, and kept over the rounds of planning.
#[derive(Default)]
struct Reservation {
    addresses: Vec<u64>,
    next: usize,
}

impl Reservation {
    fn take(&mut self, space: &mut FreeSpace, bytes: usize) -> u64 {
        if self.next == self.addresses.len() {
            self.addresses.push(space.allocate(bytes, Class::Topology));
        }
        self.next += 1;
        self.addresses[self.next - 1]
    }
}

/// Space reserved for one array: its segments and its table nodes.
#[derive(Default)]
struct Reserved {
    segments: Reservation,
    nodes: Reservation,
}

impl Reserved {
    /// Places whole segments of `table` and the nodes above them, from the beginning of what is
    /// reserved.
    fn place(
        &mut self,
        table: &Table,
        rows: u64,
        segments: impl Iterator<Item = u64> + Clone,
        space: &mut FreeSpace,
        replaced: impl FnMut(Entry),
    ) -> Result<(BTreeMap<u64, u64>, TableUpdate), ReadError> {
        (self.segments.next, self.nodes.next) = (0, 0);
        let bytes = table.spec.stored_bytes(table.spec.rows_per_segment);
        let places =
            segments.clone().map(|segment| (segment, self.segments.take(space, bytes))).collect();
        let nodes = &mut self.nodes;
        let block = table.spec.block_bytes;
        let allocate = || nodes.take(space, block);
        let update = TableUpdate::plan(table.clone(), rows, segments, allocate, replaced)?;
        Ok((places, update))
    }
}

/// What is taken out of use is in use, or the map is wrong.
fn check_used(rows: &[FreedRow], space: &FreeSpace) -> Result<(), ReadError> {
    match rows.iter().all(|row| space.is_range_used(row.address, row.bytes)) {
        true => Ok(()),
        false => Err(ReadError::row("free_map", 0, "a free block is referred to")),
    }
}

fn freed_row(entry: Entry) -> FreedRow {
    FreedRow { address: entry.address, bytes: entry.bytes as u64 }
}

impl StatePlan {
    /// Plans the state that follows `old`, with `space` as the data has left it.
    pub(super) fn new(
        db: &Database,
        old: &CommitSlot,
        space: &mut FreeSpace,
        change: StateChange,
    ) -> Result<Self, ReadError> {
        check_used(&change.retired, space)?;
        let mut replaced = Vec::new();
        let Table { arena, spec, root, access } = db.state_table(old, Array::Versions);
        let mut column: Column<VersionRow> = Column::new(arena, spec, root, access)?;
        for row in &change.expired {
            column.edit(row.version - 1)?[0] = *row;
        }
        let tail = space.tail();
        if let Some(tail) = tail {
            column.bring_forward(tail, old.commit, &mut { FORWARD_BYTES });
        }
        column.push(&change.added)?;
        let changed = column.changed_segments();
        let versions = Placement::new(column, changed, space, |entry| replaced.push(entry))?;
        let tags = plan_tags(db, old, space, change.tags, tail, &mut replaced)?;
        let accounts = if change.waits {
            let own = replaced.iter().map(|&entry| freed_row(entry));
            let mut retired: Vec<FreedRow> = change.retired.iter().copied().chain(own).collect();
            check_used(&retired, space)?;
            coalesce(&mut retired)?;
            change.released.iter().for_each(|row| space.free(row.address, row.bytes));
            None
        } else {
            let old_list = pieces(&db.state_table(old, Array::Freed))?;
            let own = replaced.iter().chain(&old_list).map(|&entry| freed_row(entry));
            let retired = change.retired.iter().copied().chain(own).collect();
            Some(Accounts::new(db, old, space, retired, &change.released)?)
        };
        Ok(StatePlan { versions, tags, accounts, replaced })
    }

    /// Where its segments will lie.
    pub(super) fn places(&self) -> impl Iterator<Item = (u64, u64)> {
        let accounts = self.accounts.iter();
        let accounts = accounts.flat_map(|a| a.map.places().chain(a.freed.places()));
        let tags = self.tags.iter().flat_map(Placement::places);
        self.versions.places().chain(accounts).chain(tags)
    }

    /// Bytes that writing the state will write.
    pub(super) fn planned_bytes(&self) -> u64 {
        let accounts =
            self.accounts.as_ref().map(|a| a.map.planned_bytes() + a.freed.planned_bytes());
        self.versions.planned_bytes()
            + accounts.unwrap_or(0)
            + self.tags.as_ref().map_or(0, Placement::planned_bytes)
    }

    /// Writes it, and returns the roots for the slot. `old` is the commit before.
    pub(super) fn write(
        &self,
        db: &Database,
        old: &CommitSlot,
        commit: u64,
    ) -> Result<[ArrayRoot; STATE_ARRAYS], CommitError> {
        let mut roots = old.roots;
        let mut set = |array: Array, root| roots[array as usize - DATA_ARRAYS] = root;
        set(Array::Versions, self.versions.write(db, commit)?);
        if let Some(accounts) = &self.accounts {
            set(Array::FreeMap, accounts.map.write(db, commit)?);
            set(Array::Freed, accounts.freed.write(db, commit)?);
        }
        if let Some(tags) = &self.tags {
            set(Array::Tags, tags.write(db, commit)?);
        }
        Ok(roots)
    }

    /// Puts the finished version row in the place kept for it.
    pub(super) fn set_version(&mut self, row: &VersionRow) -> Result<(), ReadError> {
        let versions = &mut self.versions.column;
        let last = versions.len() - 1;
        versions.edit(last)?[0] = *row;
        Ok(())
    }

    /// What the commit retires.
    pub(super) fn retired(&self) -> Retired<'_> {
        match &self.accounts {
            Some(accounts) => {
                let rows = accounts.freed.column.words.iter().copied();
                Retired::Listed(rows.filter(|row| row.bytes > 0).collect())
            }
            None => Retired::Waiting(&self.replaced),
        }
    }
}

/// Bytes of version rows that a commit brings forward at most.
const FORWARD_BYTES: u64 = 1 << 17;

/// Where the tags go, if they change, or lie so far out that a file that is too long wants them
/// brought forward.
fn plan_tags(
    db: &Database,
    old: &CommitSlot,
    space: &mut FreeSpace,
    tags: Option<Vec<TagRow>>,
    tail: Option<u64>,
    replaced: &mut Vec<Entry>,
) -> Result<Option<Placement<Words<TagRow>>>, ReadError> {
    let is_behind = |entry: &Entry| tail.is_some_and(|tail| entry.address >= tail);
    let words = match tags {
        Some(words) => words,
        None => {
            // Those that cannot be read stay where they are: nobody has asked for them.
            let pieces = pieces_of_tags(db, old, tail).unwrap_or_default();
            match pieces.iter().any(is_behind).then(|| db.tags_of(old)) {
                Some(Ok(words)) => words,
                _ => return Ok(None),
            }
        }
    };
    // Written anew as a whole: there are few.
    replaced.extend(pieces(&db.state_table(old, Array::Tags))?);
    let table = empty_table(db, Array::Tags);
    let segments = (0..table.spec.segments(words.len() as u64)).collect();
    Placement::new(Words { table, words }, segments, space, |_| {}).map(Some)
}

/// What tags take, if there is a tail in which they may lie.
fn pieces_of_tags(
    db: &Database,
    old: &CommitSlot,
    tail: Option<u64>,
) -> Result<Vec<Entry>, ReadError> {
    tail.map_or(Ok(Vec::new()), |_| pieces(&db.state_table(old, Array::Tags)))
}

/// Every segment and table node of an array.
fn pieces(table: &Table) -> Result<Vec<Entry>, ReadError> {
    let (mut found, mut problem) = (Vec::new(), None);
    table.walk(
        &mut |entry, _| {
            found.push(*entry);
            true
        },
        &mut |e| problem = Some(e),
    );
    problem.map_or(Ok(found), Err)
}

/// Segments of the map that change whatever else does: those in which released space lies, and
/// those that lie where the file should end.
fn segments_of_map(
    map: &Table,
    space: &FreeSpace,
    released: &[FreedRow],
) -> Result<BTreeSet<u64>, ReadError> {
    let block = map.spec.block_bytes as u64;
    let mut segments: BTreeSet<u64> = released
        .iter()
        .flat_map(|row| row.address / block / 64..=(row.address + row.bytes - 1) / block / 64)
        .map(|word| word / map.spec.rows_per_segment)
        .collect();
    if let Some(tail) = space.tail() {
        for segment in 0..map.segments() {
            if map.is_behind(segment, tail)? {
                segments.insert(segment);
            }
        }
    }
    Ok(segments)
}

impl Accounts {
    /// Plans the accounts. They occupy space that the map describes, and replace pieces that the
    /// list describes; so planning goes round until nothing new is touched. Every round only adds.
    fn new(
        db: &Database,
        old: &CommitSlot,
        space: &mut FreeSpace,
        retired: Vec<FreedRow>,
        released: &[FreedRow],
    ) -> Result<Self, ReadError> {
        if SeededBug::ReuseAtOnce.is_planted() {
            retired.iter().for_each(|row| space.free(row.address, row.bytes));
        }
        let map_table = db.state_table(old, Array::FreeMap);
        let map_segment = map_table.spec.rows_per_segment;
        let freed_table = empty_table(db, Array::Freed);
        let freed_segment = freed_table.spec.rows_per_segment;
        let mut touched = segments_of_map(&map_table, space, released)?;
        let (mut map_reserved, mut freed_reserved) = (Reserved::default(), Reserved::default());
        let mut freed_rows = 0;
        loop {
            touched.extend(space.take_changes().into_iter().map(|word| word as u64 / map_segment));
            // Both arrays are padded to whole segments, so that growing does not change a segment's
            // length.
            let map_rows = (space.words().len() as u64).next_multiple_of(map_segment);
            let map_rows = map_rows.max(map_table.root.rows);
            touched.extend(map_table.segments()..map_table.spec.segments(map_rows));
            let mut freed = retired.clone();
            let (map_places, map_update) = map_reserved.place(
                &map_table,
                map_rows,
                touched.iter().copied(),
                space,
                |entry| freed.push(freed_row(entry)),
            )?;
            coalesce(&mut freed)?;
            freed_rows = freed_rows.max((freed.len() as u64).next_multiple_of(freed_segment));
            let freed_segments = 0..freed_table.spec.segments(freed_rows);
            let (freed_places, freed_update) =
                freed_reserved.place(&freed_table, freed_rows, freed_segments, space, |_| {})?;

            let before = touched.len();
            touched.extend(space.take_changes().into_iter().map(|word| word as u64 / map_segment));
            if touched.len() != before || space.words().len() as u64 > map_rows {
                continue;
            }
            // Nothing new was touched: the plan describes itself. What is taken out of use was in
            // use, or the map is wrong.
            if !SeededBug::ReuseAtOnce.is_planted() {
                check_used(&freed, space)?;
            }
            released.iter().for_each(|row| space.free(row.address, row.bytes));
            space.take_changes();
            freed.resize(freed_rows as usize, FreedRow::default());
            let mut words = space.words().to_vec();
            words.resize(map_rows as usize, 0);
            let map = Words { table: map_table, words };
            let list = Words { table: freed_table, words: freed };
            return Ok(Accounts {
                map: Placement { column: map, segments: map_places, update: map_update },
                freed: Placement { column: list, segments: freed_places, update: freed_update },
            });
        }
    }
}
