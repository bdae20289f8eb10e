//! The names of things: points, slots, nodes, versions.
//!
//! A *point id* is the user's and never changes. A *slot* is a row of the point arrays and a *node
//! number* a row of the node arrays; both move when the tree is packed, so neither ever leaves the
//! crate.

use std::fmt;

/// The number of a version: commits of data counted from 1, without gaps.
///
/// Version 0 is the store before its first batch. It holds no points, is not listed, and can be
/// opened like any other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionId(pub u64);

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The user's name for a point: any `u64`, given or assigned.
pub type PointId = u64;
