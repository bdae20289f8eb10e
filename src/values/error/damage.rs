//! Damage: where it is, and what is wrong there.

use std::fmt;

use crate::values::ids::VersionId;

/// A place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// A copy of the static header (0 or 1).
    Header {
        /// Which of the two copies.
        copy: u8,
    },
    /// The commit slots as a whole.
    Slots,
    /// The hint, without which the next writer does a little more, and which is written anew by
    /// every commit.
    Hint,
    /// A segment of a logical array.
    Segment {
        /// The array's name in `format-spec.md`.
        array: &'static str,
        /// Index of the segment in the array.
        segment: u64,
        /// Byte offset in the file.
        address: u64,
    },
    /// A node of an array's segment table.
    TableNode {
        /// The array's name in `format-spec.md`.
        array: &'static str,
        /// Byte offset in the file.
        address: u64,
    },
    /// A row of a logical array, whose bytes are as they were written but whose content makes no
    /// sense.
    Row {
        /// The array's name in `format-spec.md`.
        array: &'static str,
        /// Index of the row.
        row: u64,
    },
    /// The row that describes a version.
    Version(VersionId),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Header { copy } => write!(f, "header copy {copy}"),
            Place::Slots => write!(f, "commit slots"),
            Place::Hint => write!(f, "hint"),
            Place::Segment { array, segment, address } => {
                write!(f, "segment {segment} of array `{array}` at byte {address}")
            }
            Place::TableNode { array, address } => {
                write!(f, "table node of array `{array}` at byte {address}")
            }
            Place::Row { array, row } => write!(f, "row {row} of array `{array}`"),
            Place::Version(version) => write!(f, "the row of version {version}"),
        }
    }
}

/// What is wrong at a [`Place`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Defect {
    /// The bytes are not those that were written.
    Checksum {
        /// CRC-32 recorded in the parent.
        expected: u32,
        /// CRC-32 of the bytes found.
        found: u32,
    },
    /// A field points, or a length reaches, outside what exists.
    OutOfBounds {
        /// The value found.
        value: u64,
        /// The first value that is too large.
        limit: u64,
    },
    /// A field has a value that no writer writes.
    Invalid(&'static str),
    /// Each part is what some writer writes, but they do not fit together.
    Invariant {
        /// What does not hold.
        invariant: Invariant,
        /// Where it does not, and how.
        what: String,
    },
    /// The device does not give the bytes, asked twice.
    Unreadable {
        /// What the system said.
        why: String,
    },
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Defect::Checksum { expected, found } => {
                write!(f, "checksum is {found:08x}, should be {expected:08x}")
            }
            Defect::OutOfBounds { value, limit } => {
                write!(f, "value {value} is out of bounds (limit {limit})")
            }
            Defect::Invalid(what) => f.write_str(what),
            Defect::Invariant { invariant: Invariant::Other, what } => f.write_str(what),
            Defect::Invariant { invariant, what } => write!(f, "{invariant}: {what}"),
            Defect::Unreadable { why } => write!(f, "the device cannot read it: {why}"),
        }
    }
}

/// What the parts of a store have in common, as far as it has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Invariant {
    /// T1: the root covers every point.
    Root,
    /// T2: a node covers its children and its bucket.
    Cover,
    /// T3: siblings, and a child and its parent, are apart.
    Separation,
    /// T4: a point is in the bucket of the nearest node that covers it.
    Nearest,
    /// T5: radii reach as far as what they bound.
    Bound,
    /// T6: a bucket holds no more than it may, and twins lie apart from it.
    Capacity,
    /// T7: every live point is in one place, and counts add up.
    Count,
    /// T8: boxes hold what lies below them.
    Box,
    /// What names something else (a parent, an owner, an id, a level) names the right one.
    Reference,
    /// Every block of the file is free or belongs to one thing (C1 and C2).
    Space,
    /// Any other.
    Other,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Invariant::Root => "T1",
            Invariant::Cover => "T2",
            Invariant::Separation => "T3",
            Invariant::Nearest => "T4",
            Invariant::Bound => "T5",
            Invariant::Capacity => "T6",
            Invariant::Count => "T7",
            Invariant::Box => "T8",
            Invariant::Reference => "references",
            Invariant::Space => "space",
            Invariant::Other => "other",
        })
    }
}

/// Damage found in the file: where, and what.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the store is damaged: {at}: {what}; run `treering verify --all` to see which versions it hits"
)]
pub struct Corruption {
    /// Where.
    pub at: Place,
    /// What.
    pub what: Defect,
}
