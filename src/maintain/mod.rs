//! Looking after a store: checking it, saying what it holds and what changed, and carrying it
//! elsewhere.

pub(crate) mod backup;
pub(crate) mod diff;
pub(crate) mod receive;
pub(crate) mod stats;
pub(crate) mod verify;
