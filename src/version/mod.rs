//! Segments become versions that appear whole or not at all.
//!
//! A version row roots the segment tables of the data arrays; a commit slot roots the store state,
//! which is the version rows, the tags, the free map and the list of space freed last. Reading goes
//! slot, version row, table, segment; writing goes columns, [`commit`], slot.

mod accounts;
mod cells;
pub(crate) mod column;
pub(crate) mod commit;
mod commit_plan;
mod confirm;
pub(crate) mod database;
mod divisor;
pub(crate) mod early;
pub(crate) mod expire;
mod newest;
pub(crate) mod past;
pub(crate) mod pins;
mod placement;
pub(crate) mod recovery;
mod ring;
pub(crate) mod sharing_graph;
pub(crate) mod space_check;
mod space_ledger;
mod state_plan;
pub(crate) mod table;
mod writer;
