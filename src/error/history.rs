//! Why a version could not be opened, and why history could not be changed.

use std::time::SystemTime;

use super::{CommitError, ReadError};
use crate::ids::VersionId;
use crate::retention::Retention;
use crate::when::rfc3339;

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
    #[error("there is no tag `{}`; {}", .name.escape_debug(), list(.tags))]
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
        tags.iter().take(SHOWN).map(|tag| tag.escape_debug().to_string()).collect();
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
    #[error("`{}` cannot be a tag: {why}", .name.escape_debug())]
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
