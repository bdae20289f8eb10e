//! Receiving a backup stream: read through and checked first, then made into versions, each in a commit of its own.
//!
//! A received version is the same version: its number, time, message and the lineage of the commit that made it are
//! those of the sender. What it says of its own writing (commit, bytes) is the receiver's; and so is with whom it shares
//! segments: only with a neighbour in the receiver's own family, because expiry looks nowhere else. Where the sender has
//! let versions go that the receiver has, the stream may be relative to another; then its segments are copied.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, SeekFrom};

use zerocopy::{FromBytes, IntoBytes};

use crate::error::{AtError, ReadError, ReceiveError};
use crate::format::arrays::{self, Array, ArrayRoot, ArraySpec, DATA_ARRAYS};
use crate::format::header::Header;
use crate::format::page;
use crate::format::stream::{
    Begin, FRAME_BEGIN, FRAME_END, FRAME_SEGMENT, FRAME_TAGS, FRAME_VERSION, FrameHead,
    STREAM_MAGIC, STREAM_VERSION, SegmentHead,
};
use crate::format::tag_row::TagRow;
use crate::format::version_row::VersionRow;
use crate::ids::VersionId;
use crate::options::CancelToken;
use crate::version::column::{ChangedColumn, WrittenColumn};
use crate::version::commit::{Draft, NewVersion, commit};
use crate::version::database::Database;
use crate::version::family::{Brief, Family};
use crate::version::pins::Pin;
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
}

impl<R: Read + Seek> Frames<R> {
    /// From the beginning of the stream.
    fn new(mut input: R) -> Result<Self, ReceiveError> {
        let left = input.seek(SeekFrom::End(0))?;
        input.seek(SeekFrom::Start(0))?;
        Ok(Frames { input, before: 0, count: 0, left })
    }

    /// The next frame. No more is read, or allocated, than the stream has.
    fn next(&mut self) -> Result<(u32, Vec<u8>), ReceiveError> {
        let mut head = [0; size_of::<FrameHead>()];
        self.left = self.left.checked_sub(head.len() as u64).ok_or(ReceiveError::Truncated)?;
        self.input.read_exact(&mut head)?;
        let head = FrameHead::read_from_bytes(&head).expect("as long as a head");
        self.left = self.left.checked_sub(head.bytes).ok_or(ReceiveError::Truncated)?;
        let mut payload = vec![0; head.bytes as usize];
        self.input.read_exact(&mut payload)?;
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
        if Header::decode(&page(begin.header.as_bytes()), true).is_err() {
            return Err(self.damaged("header of the store"));
        }
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
}

impl ChangedColumn for Received {
    fn changed(&self) -> Vec<u64> {
        self.segments.keys().copied().collect()
    }
}

impl Received {
    /// Takes everything that the stream did not bring out of the base, and shares nothing with it.
    fn copy_base(&mut self) -> Result<(), ReadError> {
        let spec = self.table.spec;
        for segment in 0..spec.segments(self.rows) {
            if let Entry::Vacant(place) = self.segments.entry(segment) {
                let bytes = self.table.segment(segment)?;
                let used = spec.rows_in(segment, self.rows) as usize * spec.row_bytes;
                place.insert(bytes[..used].to_vec());
            }
        }
        self.table.root = ArrayRoot::default();
        Ok(())
    }

    fn new(db: &Database, array: Array, base: &[ArrayRoot; DATA_ARRAYS], rows: u64) -> Self {
        let mut table = db.data_table(array, base);
        if table.root.rows > rows {
            table.root = ArrayRoot::default();
        }
        Received { table, rows, segments: BTreeMap::new() }
    }

    /// Every segment has come, or is in the base at the same length; none has another length.
    fn is_whole(&self) -> bool {
        let spec: &ArraySpec = &self.table.spec;
        let fits = |(&segment, bytes): (&u64, &Vec<u8>)| {
            segment < spec.segments(self.rows)
                && bytes.len() as u64 == spec.rows_in(segment, self.rows) * spec.row_bytes as u64
        };
        // Only the last segment of the base may be shorter than it must be, and those behind it are not there.
        let shared = match self.table.root.rows {
            rows if rows == self.rows => spec.segments(rows),
            rows => rows / spec.rows_per_segment,
        };
        let mut missing =
            (shared..spec.segments(self.rows)).filter(|s| !self.segments.contains_key(s));
        self.segments.iter().all(fits) && missing.next().is_none()
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
    let mut report = ReceiveReport {
        newest: VersionId(newest.max(survey.newest)),
        bytes: survey.bytes,
        ..ReceiveReport::default()
    };
    if newest > survey.newest {
        return Ok(report);
    }
    // What later versions of the stream are relative to must not expire meanwhile.
    let mut pins: Vec<Pin> = Vec::new();
    let needed = |version: &u64| survey.needed.contains(version);
    for &version in survey.needed.range(..=newest) {
        // One that has expired here may be needed only by versions that are here already.
        pins.extend(retained(db, version)?);
    }
    let mut time_ns = rows.last().map_or(0, |row| row.time_ns);

    let mut family = Family::new(&rows.iter().map(Brief::of).collect::<Vec<_>>());
    let mut frames = Frames::new(input)?;
    frames.begin()?;
    let mut gone: Vec<VersionRow> = Vec::new();
    let mut pending: Option<(VersionRow, u64, Vec<Received>)> = None;
    let mut version = survey.base;
    loop {
        let (kind, payload) = frames.next()?;
        match kind {
            FRAME_VERSION => {
                if let Some((row, base, columns)) = pending.take() {
                    report.segments +=
                        commit_version(db, &mut family, row, base, columns, &mut gone, cancel)?;
                    report.versions += 1;
                    if needed(&row.version) {
                        pins.push(db.version(VersionId(row.version))?.1);
                    }
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
                let base = db.version(VersionId(relative))?.0.roots;
                let arrays = Array::ALL[..DATA_ARRAYS].iter().zip(&row.roots);
                let columns = arrays
                    .map(|(&array, root)| Received::new(db, array, &base, root.rows))
                    .collect();
                pending = Some((row, relative, columns));
            }
            FRAME_SEGMENT if version <= newest => {}
            FRAME_SEGMENT => {
                let parts = SegmentHead::read_from_prefix(&payload).ok();
                let place = parts.and_then(|(head, rows)| {
                    let column = pending.as_mut()?.2.get_mut(usize::try_from(head.array).ok()?)?;
                    column.segments.insert(head.segment, rows.to_vec()).is_none().then_some(())
                });
                place.ok_or_else(|| frames.damaged("a segment of nothing"))?;
            }
            FRAME_TAGS => {
                if let Some((row, base, columns)) = pending.take() {
                    report.segments +=
                        commit_version(db, &mut family, row, base, columns, &mut gone, cancel)?;
                    report.versions += 1;
                }
                set_tags(db, &survey.tags, cancel)?;
                return Ok(report);
            }
            _ => return Err(frames.damaged("a frame out of its place")),
        }
    }
}

fn commit_version(
    db: &Database,
    family: &mut Family,
    row: VersionRow,
    mut base: u64,
    mut columns: Vec<Received>,
    gone: &mut Vec<VersionRow>,
    cancel: &CancelToken,
) -> Result<u64, ReceiveError> {
    if !columns.iter().all(Received::is_whole) {
        return Err(ReceiveError::Incomplete { version: VersionId(row.version) });
    }
    for row in gone.iter() {
        family.push(row.parent);
        family.expire(row.version);
    }
    family.push(row.parent);
    if base > 0 && !family.neighbours(row.version).contains(&base) {
        columns.iter_mut().try_for_each(Received::copy_base)?;
        base = 0;
    }
    let segments = columns.iter().map(|column| column.segments.len() as u64).sum();
    let columns: Vec<&dyn ChangedColumn> =
        columns.iter().map(|column| column as &dyn ChangedColumn).collect();
    let columns = columns.try_into().ok().expect("one for each data array");
    let received = Some(std::mem::take(gone));
    let version = NewVersion { columns, row, base, received, early: None, watch: None };
    commit(db, Draft { version: Some(version), ..Draft::nothing(cancel) })?;
    Ok(segments)
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
