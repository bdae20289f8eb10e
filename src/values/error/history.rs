//! Why a version could not be opened, and why history could not be changed.

use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use super::{CommitError, CreateError, OpenError, ReadError};
use crate::values::ids::VersionId;
use crate::values::printable::Printable;
use crate::values::retention::Retention;
use crate::values::when::rfc3339;

/// Why a version could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AtError {
    /// The store has no such version.
    #[error("there is no version {asked}; the newest is {newest}")]
    NoSuchVersion {
        /// The version asked for.
        asked: VersionId,
        /// The newest there is.
        newest: VersionId,
    },
    /// The store has no such tag.
    #[error("there is no tag `{}`; {}", Printable(.name), list(.tags))]
    NoSuchTag {
        /// The tag asked for.
        name: String,
        /// Those there are.
        tags: Vec<String>,
    },
    /// The time is before the first version.
    #[error("the store had no version at {}; {}", rfc3339(*.time), first_was(.first))]
    BeforeFirst {
        /// The time asked for.
        time: SystemTime,
        /// The time of version 1, if there is one.
        first: Option<SystemTime>,
    },
    /// The version has been there, and is no more.
    #[error(
        "version {version} expired at {} by the rule \"{rule}\"; the oldest version left is {oldest}",
        rfc3339(*.time)
    )]
    Expired {
        /// The version asked for.
        version: VersionId,
        /// When it expired.
        time: SystemTime,
        /// The rule that did not keep it.
        rule: Retention,
        /// The oldest version that can be opened.
        oldest: VersionId,
    },
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Names shown in an error before it gets too long.
const SHOWN: usize = 20;

fn list(tags: &[String]) -> String {
    let shown: Vec<String> =
        tags.iter().take(SHOWN).map(|tag| Printable(tag).to_string()).collect();
    match tags.len() {
        0 => "there are no tags".to_string(),
        n if n > SHOWN => format!("there are {}, ... ({n})", shown.join(", ")),
        _ => format!("there are {}", shown.join(", ")),
    }
}

fn first_was(first: &Option<SystemTime>) -> String {
    match first {
        Some(time) => format!("version 1 is of {}", rfc3339(*time)),
        None => "it has none yet".to_string(),
    }
}

/// Why a tag was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TagError {
    /// No tag may have this name.
    #[error("`{}` cannot be a tag: {why}", Printable(.name))]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The version, or the tag, is not there.
    #[error(transparent)]
    At(#[from] AtError),
    /// The change could not be made durable.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Why an older version was not restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The version is not there.
    #[error(transparent)]
    At(#[from] AtError),
    /// The new version could not be made durable.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Why a backup was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The version that it should begin after cannot be opened, or the store could not be read.
    #[error(transparent)]
    At(#[from] AtError),
    /// Versions that were waiting to be durable could not be made so.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The stream could not be written.
    #[error("the stream could not be written: {0}")]
    Write(#[from] io::Error),
    /// Interrupted by the caller's [`crate::CancelToken`]. What has been written is no whole
    /// stream.
    #[error("interrupted; what has been written is no backup")]
    Interrupted,
}

impl From<ReadError> for BackupError {
    fn from(e: ReadError) -> Self {
        BackupError::At(e.into())
    }
}

/// Why a stream was not received. Unless a variant says otherwise the store is as it was, and where
/// there was none there is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The file does not begin as a backup stream does.
    #[error("this is not a backup stream of treering, or its beginning is damaged")]
    Foreign,
    /// The stream is of a kind that this program does not know.
    #[error("the stream has version {found}; use a newer treering")]
    StreamVersion {
        /// The version found.
        found: u32,
    },
    /// The stream ends too early.
    #[error("the stream was cut off; copy it again")]
    Truncated,
    /// A part of the stream is not what was written, or not in its place.
    #[error("frame {frame} of the stream is damaged or out of place: {what}; copy it again")]
    Damaged {
        /// Which frame, from 0.
        frame: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The stream is of another store.
    #[error("the stream is of another store; receive it into a new file")]
    OtherStore,
    /// The stream goes on from a version that the store does not have yet.
    #[error(
        "the stream goes on from version {base}, the store has {newest}; receive those in between first"
    )]
    MissingBase {
        /// The version that the stream goes on from.
        base: VersionId,
        /// The newest version of the store.
        newest: VersionId,
    },
    /// The store and the stream have different versions of one number: somebody has written into
    /// the copy.
    #[error(
        "version {version} of the store is not the one of the stream: one of the two was written to since; receive a full backup into a new file"
    )]
    Diverged {
        /// The first such version.
        version: VersionId,
    },
    /// A version lacks segments. Versions before it may have been received.
    #[error(
        "version {version} of the stream is not whole; versions before it may have been received"
    )]
    Incomplete {
        /// The version.
        version: VersionId,
    },
    /// A version that the stream builds on has expired here. Versions before may have been
    /// received.
    #[error(transparent)]
    At(#[from] AtError),
    /// The stream could not be read.
    #[error("the stream could not be read: {0}")]
    Read(#[from] io::Error),
    /// The store could not be made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The store could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A version could not be made durable. Those before it are.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<ReadError> for ReceiveError {
    fn from(e: ReadError) -> Self {
        ReceiveError::At(e.into())
    }
}

/// Why nothing could be recovered. The damaged file is as it was, and nothing is left at the path
/// of the new one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// The file has no header, or no commit that can be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// No version is whole.
    #[error("no version is whole, so there is nothing to write")]
    NothingLeft,
    /// No room for the copy on its way, in the folder of the new store.
    #[error("cannot make a temporary copy beside the new store: {source}")]
    Copy {
        /// What the system said.
        source: io::Error,
    },
    /// What is whole could not be read again.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The new store could not be made.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// Interrupted by the caller's [`crate::CancelToken`].
    #[error("interrupted; nothing was written")]
    Interrupted,
}

/// Why a store was not written anew. It is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VacuumError {
    /// It could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It could not be copied.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The new file could not be made.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// The saved rule could not be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The new file could not be verified.
    #[error(transparent)]
    Verify(#[from] AtError),
    /// The new file is not what it should be.
    #[error("the new file is not whole: {problem}; the store is as it was")]
    NotWhole {
        /// The first problem that was found.
        problem: String,
    },
    /// The file has other names, which would keep the old one.
    #[error(
        "{} has {names} names (hard links), and the others would keep the old file; remove them first",
        .path.display()
    )]
    OtherNames {
        /// The store.
        path: PathBuf,
        /// How many names.
        names: u64,
    },
    /// The new file could not be put in the place of the old one.
    #[error("cannot replace {}: {source}", .path.display())]
    Replace {
        /// The store.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Interrupted by the caller's [`crate::CancelToken`].
    #[error("interrupted; the store is as it was")]
    Interrupted,
}
