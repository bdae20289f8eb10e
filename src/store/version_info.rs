//! What a version says of itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::format::version_row::{
    KIND_COMPACT, KIND_DELETE, KIND_INSERT, KIND_RESTORE, VersionRow,
};
use crate::insert::report::Counters;
use crate::values::ids::VersionId;

/// What made a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VersionKind {
    /// Inserts only.
    Insert,
    /// Deletes only.
    Delete,
    /// Inserts and deletes in one transaction.
    Mixed,
    /// The same points, packed.
    Compact,
    /// The points of its parent, an older version.
    Restore,
}

impl std::fmt::Display for VersionKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            VersionKind::Insert => "insert",
            VersionKind::Delete => "delete",
            VersionKind::Mixed => "mixed",
            VersionKind::Compact => "compact",
            VersionKind::Restore => "restore",
        })
    }
}

/// The record of a version.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VersionInfo {
    /// Its number.
    pub version: VersionId,
    /// The version it was made from.
    pub parent: VersionId,
    /// When; strictly later than the version before, even if the clock was not.
    pub time: SystemTime,
    /// What made it.
    pub kind: VersionKind,
    /// Live points.
    pub points: u64,
    /// Points inserted, compared with the parent.
    pub added: u64,
    /// Points deleted, compared with the parent.
    pub removed: u64,
    /// Bytes that making it wrote to the file.
    pub bytes_written: u64,
    /// The caller's message; may be empty.
    pub message: String,
    /// Counts of the work that making it took.
    pub counters: Counters,
}

impl VersionInfo {
    pub(crate) fn from_row(row: &VersionRow) -> Self {
        VersionInfo {
            version: VersionId(row.version),
            parent: VersionId(row.parent),
            time: UNIX_EPOCH + Duration::from_nanos(row.time_ns),
            kind: match row.kind {
                KIND_INSERT => VersionKind::Insert,
                KIND_DELETE => VersionKind::Delete,
                KIND_COMPACT => VersionKind::Compact,
                KIND_RESTORE => VersionKind::Restore,
                _ => VersionKind::Mixed,
            },
            points: row.points,
            added: row.added,
            removed: row.removed,
            bytes_written: row.bytes_written,
            message: row.message().to_string(),
            counters: Counters {
                bytes_written: row.bytes_written,
                ..Counters::from_array(row.counters)
            },
        }
    }
}
