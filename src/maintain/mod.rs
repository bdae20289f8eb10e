//! Looking after a store: checking it, and saying what it holds.

pub(crate) mod stats;
pub(crate) mod verify;
