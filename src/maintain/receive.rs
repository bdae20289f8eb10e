//! Receiving a backup stream: read through and checked first, then made into versions, each in a
//! commit of its own.
//!
//! A received version is the same version: its number, time, message and the lineage of the commit
//! that made it are those of the sender. What it says of its own writing (commit, bytes) is the
//! receiver's; and so is with whom it shares segments: only with a neighbour in the receiver's own
//! family, because expiry looks nowhere else. Where the sender has let versions go that the
//! receiver has, the stream may be relative to another; then its segments are copied.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, SeekFrom};

use zerocopy::{FromBytes, IntoBytes};

use crate::format::arrays::{self, Array, ArrayRoot, ArraySpec, DATA_ARRAYS};
use crate::format::header::Header;
use crate::format::page;
use crate::format::stream::{
    Begin, FRAME_BEGIN, FRAME_END, FRAME_SEGMENT, FRAME_TAGS, FRAME_VERSION, FrameHead,
    STREAM_MAGIC, STREAM_VERSION, SegmentHead,
};
use crate::format::tag_row::TagRow;
use crate::format::version_row::VersionRow;
use crate::values::error::{AtError, CommitError, ReadError, ReceiveError};
use crate::values::ids::VersionId;
use crate::values::memory;
use crate::values::options::CancelToken;
use crate::version::column::{ChangedColumn, EarlyColumn, Written, WrittenColumn};
use crate::version::commit::{Draft, NewVersion, commit};
use crate::version::database::Database;
use crate::version::early::Early;
use crate::version::pins::Pin;
use crate::version::sharing_graph::{SharingGraph, VersionSummary};
use crate::version::space_check::check_space;
use crate::version::table::Table;

/// What receiving a stream did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReceiveReport {
    /// The newest version afterwards.
    pub newest: VersionId,
    /// Versions that were added, expired ones not counted.
    pub versions: u64,
    /// Segments that were written.
    pub segments: u64,
    /// Bytes of the stream.
    pub bytes: u64,
}

/// Frames on their way in.
struct Frames<R> {
    input: R,
    before: u32,
    count: u64,
    /// Bytes that are left.
    left: u64,
    /// Bytes of the longest segment that the store of the stream can have.
    longest_segment: usize,
}

impl<R: Read + Seek> Frames<R> {
    /// From the beginning of the stream.
    fn new(mut input: R) -> Result<Self, ReceiveError> {
        let left = input.seek(SeekFrom::End(0))?;
        input.seek(SeekFrom::Start(0))?;
        Ok(Frames { input, before: 0, count: 0, left, longest_segment: 0 })
    }

    /// The next frame. A frame is as long as what it can hold, and tags are read one by one: the
    /// length of a stream, much of which may be a hole, says nothing of what it stores.
    fn next(&mut self) -> Result<(u32, Vec<u8>), ReceiveError> {
        let mut head = [0; size_of::<FrameHead>()];
        self.left = self.left.checked_sub(head.len() as u64).ok_or(ReceiveError::Truncated)?;
        self.input.read_exact(&mut head)?;
        let head = FrameHead::read_from_bytes(&head).expect("as long as a head");
        self.left = self.left.checked_sub(head.bytes).ok_or(ReceiveError::Truncated)?;
        let longest = match head.kind {
            FRAME_BEGIN => size_of::<Begin>(),
            FRAME_VERSION => size_of::<VersionRow>() + size_of::<u64>(),
            FRAME_SEGMENT => size_of::<SegmentHead>() + self.longest_segment,
            FRAME_TAGS => usize::MAX,
            _ => size_of::<u64>(),
        };
        if head.bytes > longest as u64 {
            return Err(match self.count {
                0 => ReceiveError::Foreign,
                frame => ReceiveError::Damaged { frame, what: "length of a frame" },
            });
        }
        let payload = match head.kind {
            FRAME_TAGS => self.tags(head.bytes)?,
            _ => {
                let mut payload = vec![0; head.bytes as usize];
                self.input.read_exact(&mut payload)?;
                payload
            }
        };
        if head.checksum(&[&payload], self.before) != head.crc {
            return Err(match self.count {
                0 => ReceiveError::Foreign,
                frame => ReceiveError::Damaged { frame, what: "checksum" },
            });
        }
        self.before = head.crc;
        self.count += 1;
        Ok((head.kind, payload))
    }

    /// The rows of tags, which ascend by name: so what is read is stored.
    fn tags(&mut self, bytes: u64) -> Result<Vec<u8>, ReceiveError> {
        const ROW: usize = size_of::<TagRow>();
        let damaged = ReceiveError::Damaged { frame: self.count, what: "tags" };
        let (mut payload, mut last) = (Vec::new(), None);
        if !bytes.is_multiple_of(ROW as u64) {
            return Err(damaged);
        }
        for _ in 0..bytes / ROW as u64 {
            let mut row = [0; ROW];
            self.input.read_exact(&mut row)?;
            let tag = TagRow::read_from_bytes(&row).expect("as long as a row");
            let ascends = last.is_none_or(|last: TagRow| last.name() < tag.name());
            if !ascends || tag.check(u64::MAX).is_err() {
                return Err(damaged);
            }
            memory::reserve(&mut payload, ROW, "tags").map_err(AtError::from)?;
            payload.extend_from_slice(&row);
            last = Some(tag);
        }
        Ok(payload)
    }

    fn damaged(&self, what: &'static str) -> ReceiveError {
        ReceiveError::Damaged { frame: self.count - 1, what }
    }

    fn begin(&mut self) -> Result<Begin, ReceiveError> {
        let (kind, payload) = self.next().map_err(|e| match e {
            ReceiveError::Truncated => ReceiveError::Foreign,
            other => other,
        })?;
        let begin = Begin::read_from_bytes(&payload).map_err(|_| ReceiveError::Foreign)?;
        if kind != FRAME_BEGIN || begin.magic != STREAM_MAGIC {
            return Err(ReceiveError::Foreign);
        }
        if begin.stream_version != STREAM_VERSION {
            return Err(ReceiveError::StreamVersion { found: begin.stream_version });
        }
        let Ok(header) = Header::decode(&page(begin.header.as_bytes()), true) else {
            return Err(self.damaged("header of the store"));
        };
        let specs = Array::ALL[..DATA_ARRAYS].iter().map(|&array| header.geometry().spec(array));
        let longest = specs.map(|spec| spec.rows_per_segment as usize * spec.row_bytes).max();
        self.longest_segment = longest.expect("there are arrays");
        Ok(begin)
    }

    fn version(&self, payload: &[u8], expected: u64) -> Result<(VersionRow, u64), ReceiveError> {
        let parts = VersionRow::read_from_prefix(payload).ok();
        let parts = parts.and_then(|(row, rest)| Some((row, <[u8; 8]>::try_from(rest).ok()?)));
        let (row, relative) = parts.ok_or_else(|| self.damaged("length of a version"))?;
        row.check(expected).map_err(|what| self.damaged(what))?;
        let relative = u64::from_le_bytes(relative);
        let placed = row.roots.iter().any(|root| root.entry != arrays::Entry::default());
        if relative >= expected || placed {
            return Err(self.damaged("a version that refers to what is not in the stream"));
        }
        Ok((row, relative))
    }
}

/// What a first reading of a stream tells.
pub(crate) struct Survey {
    pub(crate) header: Header,
    base: u64,
    base_lineage: [u8; 16],
    newest: u64,
    lineages: BTreeMap<u64, [u8; 16]>,
    /// Versions that later ones are relative to.
    needed: BTreeSet<u64>,
    tags: Vec<TagRow>,
    bytes: u64,
}

/// Reads a whole stream and checks all that can be checked without a store.
pub(crate) fn survey(input: impl Read + Seek) -> Result<Survey, ReceiveError> {
    let mut frames = Frames::new(input)?;
    let bytes = frames.left;
    let begin = frames.begin()?;
    let mut survey = Survey {
        header: begin.header,
        base: begin.base,
        base_lineage: begin.base_lineage,
        newest: begin.newest,
        lineages: BTreeMap::new(),
        needed: BTreeSet::new(),
        tags: Vec::new(),
        bytes,
    };
    let mut version = begin.base;
    let mut time_ns = 0;
    loop {
        let (kind, payload) = frames.next()?;
        match kind {
            FRAME_VERSION if version < begin.newest => {
                version += 1;
                let (row, relative) = frames.version(&payload, version)?;
                if row.time_ns <= time_ns || version == begin.newest && row.is_expired() {
                    return Err(frames.damaged("times, or the newest version expired"));
                }
                time_ns = row.time_ns;
                survey.lineages.insert(version, row.commit_lineage);
                survey.needed.extend(Some(relative).filter(|&relative| relative > 0));
            }
            FRAME_SEGMENT if version > begin.base => {}
            FRAME_TAGS if version == begin.newest => {
                let rows = payload.chunks_exact(size_of::<TagRow>());
                let whole = rows.remainder().is_empty();
                let read = |row| TagRow::read_from_bytes(row).expect("as long as a row");
                survey.tags = rows.map(read).collect();
                let tags = &survey.tags;
                let sorted = tags.windows(2).all(|pair| pair[0].name() < pair[1].name());
                if !whole || !sorted || tags.iter().any(|tag| tag.check(version).is_err()) {
                    return Err(frames.damaged("tags"));
                }
                break;
            }
            _ => return Err(frames.damaged("a frame out of its place")),
        }
    }
    let (kind, payload) = frames.next()?;
    if kind != FRAME_END || payload != (frames.count - 1).to_le_bytes() || frames.left > 0 {
        return Err(frames.damaged("the end of the stream"));
    }
    Ok(survey)
}

/// A data array of a received version: segments as they came, above a table that the store has.
struct Received {
    table: Table,
    rows: u64,
    segments: BTreeMap<u64, Vec<u8>>,
    /// Those that are in the file by now.
    written: BTreeMap<u64, Written>,
}

impl WrittenColumn for Received {
    fn table(&self) -> &Table {
        &self.table
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn bytes(&self, segment: u64) -> &[u8] {
        &self.segments[&segment]
    }

    fn written(&self) -> Option<&BTreeMap<u64, Written>> {
        Some(&self.written)
    }
}

impl ChangedColumn for Received {
    fn changed(&self) -> Vec<u64> {
        self.segments.keys().copied().collect()
    }
}

impl EarlyColumn for Received {
    fn changed_bytes(&self) -> u64 {
        self.segments.values().map(|rows| rows.len() as u64).sum()
    }

    fn settle(&mut self, written: Vec<(u64, Written)>) {
        for (segment, place) in written {
            self.segments.remove(&segment);
            self.written.insert(segment, place);
        }
    }

    /// Nothing but what has come: whom it shares with is for the sender.
    fn bring_forward(&mut self, _: u64, _: u64, _: &mut u64) {}
}

impl Received {
    /// Takes the next segment that the stream did not bring out of the base, from number `from` on.
    /// Returns its number and its bytes; `None` if there is none left, and nothing is shared with
    /// the base from then on.
    fn copy_next(&mut self, from: u64) -> Result<Option<(u64, u64)>, ReadError> {
        let spec = self.table.spec;
        let has_come = |s: &u64| self.segments.contains_key(s) || self.written.contains_key(s);
        let Some(segment) = (from..spec.segments(self.rows)).find(|s| !has_come(s)) else {
            self.table.root = ArrayRoot::default();
            return Ok(None);
        };
        let bytes = self.table.reread(segment)?;
        let used = spec.rows_in(segment, self.rows) as usize * spec.row_bytes;
        self.segments.insert(segment, bytes[..used].to_vec());
        Ok(Some((segment, used as u64)))
    }

    fn new(db: &Database, array: Array, base: &[ArrayRoot; DATA_ARRAYS], rows: u64) -> Self {
        let mut table = db.data_table(array, base);
        if table.root.rows > rows {
            table.root = ArrayRoot::default();
        }
        Received { table, rows, segments: BTreeMap::new(), written: BTreeMap::new() }
    }

    /// Takes a segment that has come. False if it is none of the array, or has come before.
    fn take(&mut self, segment: u64, rows: &[u8]) -> bool {
        let spec = &self.table.spec;
        let bytes = spec.rows_in(segment, self.rows) * spec.row_bytes as u64;
        segment < spec.segments(self.rows)
            && rows.len() as u64 == bytes
            && !self.written.contains_key(&segment)
            && self.segments.insert(segment, rows.to_vec()).is_none()
    }

    /// Every segment has come, or is in the base at the same length.
    fn is_whole(&self) -> bool {
        let spec: &ArraySpec = &self.table.spec;
        // Only the last segment of the base may be shorter than it must be, and those behind it are
        // not there.
        let shared = match self.table.root.rows {
            rows if rows == self.rows => spec.segments(rows),
            rows => rows / spec.rows_per_segment,
        };
        (shared..spec.segments(self.rows))
            .all(|s| self.segments.contains_key(&s) || self.written.contains_key(&s))
    }
}

/// The store has what the stream goes on from, and has no other version under a number of the
/// stream.
fn check_base(survey: &Survey, rows: &[VersionRow]) -> Result<(), ReceiveError> {
    let newest = rows.len() as u64;
    let lineage = |version: u64| rows.get(version as usize - 1).map(|row| row.commit_lineage);
    if survey.base > newest {
        return Err(ReceiveError::MissingBase {
            base: VersionId(survey.base),
            newest: VersionId(newest),
        });
    }
    let base = (survey.base > 0).then_some((survey.base, survey.base_lineage));
    let known = survey.lineages.range(..=newest).map(|(&version, &lineage)| (version, lineage));
    for (version, expected) in base.into_iter().chain(known) {
        if lineage(version) != Some(expected) {
            return Err(ReceiveError::Diverged { version: VersionId(version) });
        }
    }
    Ok(())
}

/// Keeps the versions that later ones of the stream are relative to from expiring meanwhile.
fn pins_of_bases(db: &Database, survey: &Survey, newest: u64) -> Result<Vec<Pin>, ReceiveError> {
    let mut pins = Vec::new();
    for &version in survey.needed.range(..=newest) {
        // One that has expired here may be needed only by versions that are here already.
        pins.extend(retained(db, version)?);
    }
    Ok(pins)
}

/// Whatever the stream said of what is shared, nothing here has two owners.
fn one_owner_each(db: &Database) -> Result<(), ReceiveError> {
    match check_space(db)?.into_iter().next() {
        Some(what) => Err(ReadError::Corrupt(Box::new(what)).into()),
        None => Ok(()),
    }
}

/// Makes the versions of a stream that has passed [`survey`] versions of a store.
pub(crate) fn receive(
    db: &Database,
    survey: &Survey,
    input: impl Read + Seek,
    cancel: &CancelToken,
) -> Result<ReceiveReport, ReceiveError> {
    if survey.header.lineage != db.header.lineage {
        return Err(ReceiveError::OtherStore);
    }
    let rows = db.history()?.rows;
    let newest = rows.len() as u64;
    check_base(survey, &rows)?;
    let mut report = ReceiveReport {
        newest: VersionId(newest.max(survey.newest)),
        bytes: survey.bytes,
        ..ReceiveReport::default()
    };
    if newest > survey.newest {
        return Ok(report);
    }
    let mut pins = pins_of_bases(db, survey, newest)?;
    let mut time_ns = rows.last().map_or(0, |row| row.time_ns);

    let mut family = SharingGraph::new(&rows.iter().map(VersionSummary::of).collect::<Vec<_>>());
    let mut commit =
        |pending: Option<Pending>, gone: &mut Vec<VersionRow>, report: &mut ReceiveReport| {
            let Some(pending) = pending else { return Ok(None) };
            let version = pending.row.version;
            report.segments += pending.commit(db, &mut family, gone, cancel)?;
            report.versions += 1;
            Ok::<_, ReceiveError>(Some(version))
        };
    let mut frames = Frames::new(input)?;
    frames.begin()?;
    let mut gone: Vec<VersionRow> = Vec::new();
    let mut pending: Option<Pending> = None;
    let mut version = survey.base;
    loop {
        let (kind, payload) = frames.next()?;
        match kind {
            FRAME_VERSION => {
                if let Some(version) = commit(pending.take(), &mut gone, &mut report)?
                    && survey.needed.contains(&version)
                {
                    pins.push(db.version(VersionId(version))?.1);
                }
                version += 1;
                let (row, relative) = frames.version(&payload, version)?;
                if version <= newest {
                    continue;
                }
                if row.time_ns <= time_ns {
                    return Err(frames.damaged("a version that is older than one before it"));
                }
                time_ns = row.time_ns;
                if row.is_expired() {
                    gone.push(row);
                    continue;
                }
                pending = Some(Pending::new(db, row, relative)?);
            }
            FRAME_SEGMENT if version <= newest => {}
            FRAME_SEGMENT => {
                let parts = SegmentHead::read_from_prefix(&payload).ok();
                let taken = match (parts, pending.as_mut()) {
                    (Some((head, rows)), Some(pending)) => pending.take(db, head, rows)?,
                    _ => false,
                };
                if !taken {
                    return Err(frames.damaged("a segment of nothing"));
                }
            }
            FRAME_TAGS => {
                commit(pending.take(), &mut gone, &mut report)?;
                set_tags(db, &survey.tags, cancel)?;
                return one_owner_each(db).map(|()| report);
            }
            _ => return Err(frames.damaged("a frame out of its place")),
        }
    }
}

/// Bytes of segments that are held back before they are written.
const HELD_BYTES: u64 = 16 << 20;

/// A version that is coming in.
struct Pending {
    row: VersionRow,
    /// The version that its segments are relative to.
    base: u64,
    columns: Vec<Received>,
    segments: u64,
    held_bytes: u64,
    early: Option<Early>,
}

impl Pending {
    fn new(db: &Database, row: VersionRow, base: u64) -> Result<Self, AtError> {
        let roots = db.version(VersionId(base))?.0.roots;
        let arrays = Array::ALL[..DATA_ARRAYS].iter().zip(&row.roots);
        let columns =
            arrays.map(|(&array, root)| Received::new(db, array, &roots, root.rows)).collect();
        Ok(Pending { row, base, columns, segments: 0, held_bytes: 0, early: None })
    }

    /// Takes a segment; false if the version has none there. When many have come they are written,
    /// so that a version may be larger than memory.
    fn take(&mut self, db: &Database, head: SegmentHead, rows: &[u8]) -> Result<bool, CommitError> {
        let column = usize::try_from(head.array).ok().and_then(|array| self.columns.get_mut(array));
        if !column.is_some_and(|column| column.take(head.segment, rows)) {
            return Ok(false);
        }
        self.segments += 1;
        self.hold(db, rows.len() as u64)?;
        Ok(true)
    }

    /// Accounts for bytes that have come, and writes what has if it is much.
    fn hold(&mut self, db: &Database, bytes: u64) -> Result<(), CommitError> {
        self.held_bytes += bytes;
        if self.held_bytes > HELD_BYTES {
            let early = match &mut self.early {
                Some(early) => early,
                none => none.insert(Early::new(db)?),
            };
            let mut columns: Vec<&mut dyn EarlyColumn> =
                self.columns.iter_mut().map(|column| column as &mut dyn EarlyColumn).collect();
            early.flush(&mut columns)?;
            self.held_bytes = columns.iter().map(|column| column.changed_bytes()).sum();
        }
        Ok(())
    }

    /// Takes everything that the stream did not bring out of the base, and shares nothing with it.
    fn copy_base(&mut self, db: &Database) -> Result<(), CommitError> {
        for array in 0..self.columns.len() {
            let mut from = 0;
            while let Some((segment, bytes)) = self.columns[array].copy_next(from)? {
                from = segment + 1;
                self.hold(db, bytes)?;
            }
        }
        self.base = 0;
        Ok(())
    }

    /// Makes it a version, after those of `gone`. Returns how many segments came.
    fn commit(
        mut self,
        db: &Database,
        family: &mut SharingGraph,
        gone: &mut Vec<VersionRow>,
        cancel: &CancelToken,
    ) -> Result<u64, ReceiveError> {
        let row = self.row;
        if !self.columns.iter().all(Received::is_whole) {
            return Err(ReceiveError::Incomplete { version: VersionId(row.version) });
        }
        for row in gone.iter() {
            family.push(row.parent);
            family.expire(row.version);
        }
        family.push(row.parent);
        if self.base > 0 && !family.neighbours(row.version).contains(&self.base) {
            self.copy_base(db)?;
        }
        let Pending { base, columns, segments, early, .. } = self;
        let columns: Vec<&dyn ChangedColumn> =
            columns.iter().map(|column| column as &dyn ChangedColumn).collect();
        let columns = columns.try_into().ok().expect("one for each data array");
        let received = Some(std::mem::take(gone));
        let version = NewVersion { columns, row, base, received, early, watch: None };
        commit(db, Draft { version: Some(version), ..Draft::nothing(cancel) })?;
        Ok(segments)
    }
}

/// A pin on a version, unless it has expired.
fn retained(db: &Database, version: u64) -> Result<Option<Pin>, AtError> {
    match db.version(VersionId(version)) {
        Ok((_, pin)) => Ok(Some(pin)),
        Err(AtError::Expired { .. }) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Tags become those of the stream, but for versions that have expired here.
fn set_tags(db: &Database, tags: &[TagRow], cancel: &CancelToken) -> Result<(), ReceiveError> {
    let mut kept = Vec::with_capacity(tags.len());
    for tag in tags {
        kept.extend(retained(db, tag.version)?.map(|_| *tag));
    }
    if kept != db.tags()? {
        commit(db, Draft { tags: Some(kept), ..Draft::nothing(cancel) })?;
    }
    Ok(())
}
