//! What can go wrong: one enum per verb, and the few kinds of failure that they share.
//!
//! Every message says what happened, where, and what to do. Unless a variant says otherwise the
//! store is unchanged: a refused batch writes nothing, and a failed commit leaves the last version
//! in place.

mod damage;
mod history;

use std::io;
use std::path::PathBuf;

use crate::values::ids::PointId;

pub use damage::{Corruption, Defect, Invariant, Place};
pub use history::{
    AtError, BackupError, ReceiveError, RecoverError, RestoreError, TagError, VacuumError,
};

/// The operating system refused to read, write, map or lock the file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} the store file: {source}")]
pub struct StorageError {
    /// What was being done: "read", "write", "allocate", "sync", "map", "lock", "open".
    pub operation: &'static str,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl StorageError {
    /// True if the cause is a full disk or an exhausted quota.
    pub fn is_disk_full(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        )
    }

    /// True if the device failed to read bytes that should be there. They count as damaged, like
    /// bytes that are there and wrong. Whatever else keeps one from reading (a lock, a signal, too
    /// little memory) passes, and says nothing of the bytes.
    pub fn is_unreadable(&self) -> bool {
        self.operation == "read"
            && self.source.raw_os_error().is_some_and(|errno| UNREADABLE.contains(&errno))
    }
}

/// EIO, and what some file systems say in its place: their own checksums or structures do not hold.
#[cfg(target_os = "linux")]
const UNREADABLE: [i32; 4] = {
    use nix::libc::{EBADMSG, EIO, ENODATA, EUCLEAN};
    [EIO, ENODATA, EBADMSG, EUCLEAN]
};
#[cfg(not(target_os = "linux"))]
const UNREADABLE: [i32; 1] = [nix::libc::EIO];

/// A temporary file of work that is larger than memory could not be made, written or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} a temporary file in {}: {source}; the store is as it was", .folder.display())]
pub struct TemporaryError {
    /// What was being done: "make", "write", "read".
    pub operation: &'static str,
    /// Where.
    pub folder: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Why bytes of the store could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The bytes are there and wrong.
    #[error(transparent)]
    Corrupt(#[from] Box<Corruption>),
    /// The file has become shorter while it was open.
    #[error(
        "the file has {found} bytes, its newest commit needs {needed}: it was truncated while it was open; restore it from a copy, or see what `treering recover` finds"
    )]
    Truncated {
        /// Bytes there are.
        found: u64,
        /// Bytes there should be.
        needed: u64,
    },
    /// Bytes that were there are not there any more, and zeros may have been read for them; nothing
    /// was answered or written that rests on them. The handle stays unusable. See
    /// [`crate::OpenOptions::catch_faults`].
    #[error(
        "bytes of {} are gone: it was truncated while it was open, or its device failed; see what `treering recover` finds, or restore it from a copy, and open it again",
        .path.display()
    )]
    Lost {
        /// The file.
        path: PathBuf,
    },
    /// The handle belongs to the process of which this one is a fork. Locks are shared over a fork,
    /// so nothing that this process did with it would be safe.
    #[error(
        "the store was opened before this process was forked, and belongs to the process that opened it; open it again here; nothing was read"
    )]
    OtherProcess,
    /// There is not enough memory for what the file has, or says that it has.
    #[error(
        "there is no room for {bytes} bytes of {what} in memory; allow the process more, or look at the file with `treering verify`"
    )]
    OutOfMemory {
        /// Bytes that were asked for.
        bytes: u64,
        /// What they were to hold.
        what: &'static str,
    },
    /// The bytes could not be had.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl ReadError {
    pub(crate) fn corrupt(at: Place, what: Defect) -> Self {
        ReadError::Corrupt(Box::new(Corruption { at, what }))
    }

    /// A row whose bytes are intact and whose content is not possible.
    pub(crate) fn row(array: &'static str, row: u64, what: &'static str) -> Self {
        Self::corrupt(Place::Row { array, row }, Defect::Invalid(what))
    }
}

/// Why options were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("option `{option}`: {why}")]
pub struct OptionsError {
    /// The option's name.
    pub option: &'static str,
    /// What it may be.
    pub why: String,
}

/// Why a store could not be created. Nothing is left behind at the path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// Something is there already; it is not touched.
    #[error("{} exists already; choose another path or remove it", .path.display())]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// An option is out of range.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The file could not be made.
    #[error("cannot create {}: {source}", .path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file was made and could not be written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The new file could not be opened as a store.
    #[error(transparent)]
    Open(#[from] Box<OpenError>),
    /// The first batch was refused.
    #[error(transparent)]
    Insert(#[from] InsertError),
}

/// Why a store could not be opened. The file is not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No such file, or no permission.
    #[error("cannot open {}: {source}", .path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder, a pipe, a device: a store is a regular file. It was not waited for, and not
    /// written to.
    #[error("{} is {kind} and not a regular file, so it is not a store", .path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What is there: "a folder", "a pipe", "a device", "a socket".
        kind: &'static str,
    },
    /// The file does not begin as a treering file does.
    #[error("this is not a treering file")]
    NotTreering,
    /// The file has a format of which this release knows only that it is older.
    #[error(
        "the store has format {format_version}, which treering 0.1 reads; `treering export` of that release writes its points, and `treering build` of this one makes a new store of them (without its history)"
    )]
    OldFormat {
        /// The format's number.
        format_version: u32,
    },
    /// The file uses features that this program does not know.
    #[error(
        "the store has a format or features ({mask:#x}) that this version of treering does not know; use a newer treering{}",
        if *.read_only_would_do { ", or open it read-only" } else { "" }
    )]
    UnknownFeatures {
        /// The unknown bits.
        mask: u64,
        /// True if reading is possible and only writing is not.
        read_only_would_do: bool,
    },
    /// The file is shorter than its newest commit says: it was truncated after that commit.
    #[error(
        "the file has {found} bytes, its newest commit needs {needed}: it was truncated; restore it from a copy, or see what `treering recover` finds"
    )]
    Truncated {
        /// Bytes there are.
        found: u64,
        /// Bytes there should be.
        needed: u64,
    },
    /// Another writer, in this process or another, has the store open.
    #[error("another writer has the store open; wait for it, or open read-only")]
    Locked,
    /// An option is out of range.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// Damage, or an I/O failure.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<StorageError> for OpenError {
    fn from(e: StorageError) -> Self {
        OpenError::Read(e.into())
    }
}

/// Why points were refused. The first offending row is named; no row of the batch is taken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PointsError {
    /// The rows do not have the store's dimension.
    #[error("points have {found} dimensions, the store has {expected}")]
    Dimension {
        /// The store's.
        expected: usize,
        /// The input's.
        found: usize,
    },
    /// The number of values is not a multiple of the dimension.
    #[error("{values} values do not make whole rows of {dim}")]
    Ragged {
        /// Number of values.
        values: usize,
        /// Dimension.
        dim: usize,
    },
    /// NaN or infinity.
    #[error("row {row}, column {column}: {value} is not finite")]
    NotFinite {
        /// Row, from 0.
        row: usize,
        /// Column, from 0.
        column: usize,
        /// The value.
        value: f32,
    },
    /// A magnitude whose squares could overflow.
    #[error("row {row}, column {column}: |{value:e}| is beyond {limit:e}; scale the data down")]
    OutOfDomain {
        /// Row, from 0.
        row: usize,
        /// Column, from 0.
        column: usize,
        /// The value.
        value: f32,
        /// The largest magnitude accepted in this dimension.
        limit: f32,
    },
}

/// Why a batch of points was refused, or could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InsertError {
    /// The points are not acceptable.
    #[error(transparent)]
    Points(#[from] PointsError),
    /// There are not as many ids as points.
    #[error("{ids} ids for {points} points")]
    IdCount {
        /// Number of ids.
        ids: usize,
        /// Number of points.
        points: usize,
    },
    /// One id appears twice in the batch.
    #[error("row {row}: id {id} already appears in row {first} of the same batch")]
    DuplicateId {
        /// The later row, from 0.
        row: usize,
        /// The earlier row.
        first: usize,
        /// The id.
        id: PointId,
    },
    /// The id names a live point already.
    #[error("row {row}: id {id} is live already; delete it first, or replace it")]
    AlreadyLive {
        /// Row, from 0.
        row: usize,
        /// The id.
        id: PointId,
    },
    /// Automatic ids have come to the end of `u64`.
    #[error("no automatic ids are left above {last}; give ids")]
    IdsExhausted {
        /// The largest id ever used.
        last: PointId,
    },
    /// The store has no rows left (2^32 - 2).
    #[error(
        "the store would need {needed} rows, it can have {limit}; compact it or split the data"
    )]
    SlotsExhausted {
        /// Rows needed.
        needed: u64,
        /// Rows possible.
        limit: u64,
    },
    /// The work cannot be done in so little memory.
    #[error(
        "a memory limit of {limit} bytes is too small for this: at least {minimum} ({} MiB) are needed",
        .minimum.div_ceil(1 << 20)
    )]
    MemoryLimit {
        /// The limit.
        limit: u64,
        /// The least limit with which it can be done.
        minimum: u64,
    },
    /// A temporary file failed.
    #[error(transparent)]
    Temporary(#[from] TemporaryError),
    /// The source of the points failed.
    #[error("{0}")]
    Source(#[source] SourceError),
    /// Interrupted by the caller's [`crate::CancelToken`] before anything was written.
    #[error("interrupted; the store is as it was")]
    Interrupted,
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The version could not be made durable.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Whatever kept a [`crate::PointSource`] from giving points.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Why points could not be deleted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeleteError {
    /// No live point has this id.
    #[error("no live point has id {id} (number {index} of the list)")]
    UnknownId {
        /// Position in the list given, from 0.
        index: usize,
        /// The id.
        id: PointId,
    },
    /// One id appears twice in the list.
    #[error("id {id} appears twice in the list (numbers {first} and {index})")]
    DuplicateId {
        /// The later position, from 0.
        index: usize,
        /// The earlier one.
        first: usize,
        /// The id.
        id: PointId,
    },
    /// Interrupted by the caller's [`crate::CancelToken`] before anything was written.
    #[error("interrupted; the store is as it was")]
    Interrupted,
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The version could not be made durable.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

fn bytes_needed(needed: u64) -> String {
    match needed {
        0 => String::new(),
        1 => ": 1 more byte is needed".to_owned(),
        _ => format!(": {needed} more bytes are needed"),
    }
}

/// Why a commit failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The store was opened read-only.
    #[error("the store is open read-only")]
    ReadOnly,
    /// An earlier failure left this handle unable to tell what the disk holds.
    #[error(
        "an earlier write failed in a way that leaves the disk's state unknown; reopen the store"
    )]
    Poisoned,
    /// The handle belongs to the process of which this one is a fork; see
    /// [`ReadError::OtherProcess`].
    #[error(
        "the store was opened before this process was forked, and belongs to the process that opened it; open it again here; nothing was written"
    )]
    OtherProcess,
    /// The store has had as many commits as can be numbered.
    #[error("the store has had 2^62 commits, the most that can be numbered; build a new one")]
    TooManyCommits,
    /// An earlier step of the transaction failed half-way, so it cannot be committed.
    #[error("an earlier step of this transaction failed; begin a new one")]
    Broken,
    /// The message is too long.
    #[error("the message has {bytes} bytes, at most {limit} are kept")]
    Message {
        /// Bytes given.
        bytes: usize,
        /// Bytes possible.
        limit: usize,
    },
    /// Interrupted by the caller's [`crate::CancelToken`] before the commit became visible.
    #[error("interrupted; the store is as it was")]
    Interrupted,
    /// The disk is full. What was reserved has been given back; the store is as it was.
    #[error("the disk is full{}; the store is as it was", bytes_needed(*needed))]
    DiskFull {
        /// Bytes that had to be added to the file; 0 if only the space of its holes is needed, or a
        /// larger file is not allowed.
        needed: u64,
        /// What the system said.
        source: StorageError,
    },
    /// The file has been deleted, renamed or replaced since it was opened. A commit to it would be
    /// lost.
    #[error(
        "{} is no longer the file that was opened: it has been deleted, renamed or replaced; nothing was committed; open the store anew",
        .path.display()
    )]
    FileGone {
        /// Where the store was.
        path: std::path::PathBuf,
    },
    /// Writing failed before the commit became visible; the store is as it was.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The last sync failed: the commit may or may not be durable. Reopen the store to see.
    #[error(
        "the last sync failed, commit {commit} may or may not be on disk; reopen the store to see: {source}"
    )]
    Unknown {
        /// The commit's number.
        commit: u64,
        /// What the system said.
        source: StorageError,
    },
    /// The state that the commit builds on could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why a query could not be answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The query is not acceptable.
    #[error("query: {0}")]
    Query(#[from] PointsError),
    /// The radius is NaN or negative.
    #[error("radius {0} is not a number from 0 up")]
    Radius(f32),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}
