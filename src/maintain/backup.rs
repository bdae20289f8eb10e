//! Writing versions as a stream that another store can receive.
//!
//! A version is sent as the segments that it does not share with one that the receiver has, which
//! is its parent, or the nearest retained one above that. So at the receiver, too, versions share
//! along `parent` links only, which expiry relies on. The version counts as sent when the stream
//! is; nothing here keeps the writer waiting.

use std::io::{self, Write};

use zerocopy::IntoBytes;

use crate::format::arrays::{Array, ArrayRoot, DATA_ARRAYS, Entry};
use crate::format::stream::{
    Begin, FRAME_BEGIN, FRAME_END, FRAME_SEGMENT, FRAME_TAGS, FRAME_VERSION, FrameHead,
    STREAM_MAGIC, STREAM_VERSION, SegmentHead,
};
use crate::values::error::BackupError;
use crate::values::ids::VersionId;
use crate::values::options::CancelToken;
use crate::version::database::{Database, History};
use crate::version::table::Visit;

/// What a backup wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupReport {
    /// The version that the receiver must have; 0 if none.
    pub since: VersionId,
    /// The last version in the stream.
    pub newest: VersionId,
    /// Versions with their data.
    pub versions: u64,
    /// Segments in the stream.
    pub segments: u64,
    /// Bytes of the stream.
    pub bytes: u64,
}

/// Frames on their way out.
struct Frames<W> {
    out: W,
    before: u32,
    count: u64,
    bytes: u64,
}

impl<W: Write> Frames<W> {
    fn write(&mut self, kind: u32, payload: &[&[u8]]) -> io::Result<()> {
        let head = FrameHead::new(kind, payload, self.before);
        self.out.write_all(head.as_bytes())?;
        payload.iter().try_for_each(|part| self.out.write_all(part))?;
        self.before = head.crc;
        self.count += 1;
        self.bytes += size_of::<FrameHead>() as u64 + head.bytes;
        Ok(())
    }

    /// The segments that roots refer to and `others` do not; how many they were.
    fn segments(
        &mut self,
        db: &Database,
        roots: &[ArrayRoot; DATA_ARRAYS],
        others: &[ArrayRoot; DATA_ARRAYS],
    ) -> Result<u64, BackupError> {
        let mut sent = 0;
        for &array in &Array::ALL[..DATA_ARRAYS] {
            let table = db.data_table(array, roots);
            let mut other = db.data_table(array, others);
            if other.root.rows > table.root.rows {
                // An array that got shorter was made anew.
                other.root = ArrayRoot::default();
            }
            let mut segments = Vec::new();
            table.walk_unshared(&[other], &mut |_, visit| {
                if let Visit::Segment(segment) = visit {
                    segments.push(segment);
                }
            })?;
            for segment in segments {
                // A copy of its own, checked: the stream has checksums of its own.
                let bytes = table.reread(segment)?;
                let rows = table.spec.rows_in(segment, table.root.rows) as usize;
                let head = SegmentHead { array: array as u64, segment };
                let used = &bytes[..rows * table.spec.row_bytes];
                self.write(FRAME_SEGMENT, &[head.as_bytes(), used])?;
                sent += 1;
            }
        }
        Ok(sent)
    }
}

/// Writes every retained version after `since` (0: every one), rows of expired ones, and all tags.
pub(crate) fn backup(
    db: &Database,
    since: u64,
    out: impl Write,
    cancel: &CancelToken,
) -> Result<BackupReport, BackupError> {
    write(db, &db.history()?, since, out, cancel)
}

/// [`backup`] of a history that may know of fewer versions than the store, or of more that have
/// expired.
pub(crate) fn write(
    db: &Database,
    history: &History,
    since: u64,
    out: impl Write,
    cancel: &CancelToken,
) -> Result<BackupReport, BackupError> {
    let newest = history.rows.len() as u64;
    let base_lineage = match since {
        0 => [0; 16],
        _ => history.row(since).commit_lineage,
    };
    let mut frames = Frames { out, before: 0, count: 0, bytes: 0 };
    let begin = Begin {
        magic: STREAM_MAGIC,
        stream_version: STREAM_VERSION,
        reserved: 0,
        base: since,
        base_lineage,
        newest,
        header: db.header,
    };
    frames.write(FRAME_BEGIN, &[begin.as_bytes()])?;
    let mut report = BackupReport {
        since: VersionId(since),
        newest: VersionId(newest),
        ..BackupReport::default()
    };
    for version in since + 1..=newest {
        if cancel.is_cancelled() {
            return Err(BackupError::Interrupted);
        }
        let row = history.row(version);
        let relative = match row.is_expired() {
            true => 0,
            false => nearest(history, row.parent, since),
        };
        // Where segments lie here is of no use there; how many rows there are is.
        let mut sent = *row;
        sent.roots.iter_mut().for_each(|root| root.entry = Entry::default());
        frames.write(FRAME_VERSION, &[sent.as_bytes(), &relative.to_le_bytes()])?;
        if row.is_expired() {
            continue;
        }
        report.versions += 1;
        let nothing = [ArrayRoot::default(); DATA_ARRAYS];
        let roots = if relative > 0 { &history.row(relative).roots } else { &nothing };
        report.segments += frames.segments(db, &row.roots, roots)?;
    }
    // Without an end the stream is none.
    db.check_whole()?;
    frames.write(FRAME_TAGS, &[history.tags.as_bytes()])?;
    let count = frames.count;
    frames.write(FRAME_END, &[&count.to_le_bytes()])?;
    frames.out.flush()?;
    report.bytes = frames.bytes;
    Ok(report)
}

/// The version whose segments a child of `parent` is compared with: the nearest one above that is
/// retained, if it is in the stream or is what the stream is since; else 0.
fn nearest(history: &History, parent: u64, since: u64) -> u64 {
    let mut version = parent;
    while version > since && history.row(version).is_expired() {
        version = history.row(version).parent;
    }
    if version >= since { version } else { 0 }
}
