//! The integration tests, one binary; each file is a story.

mod allocation;
mod backup;
#[cfg(feature = "cli")]
mod cli;
mod common;
mod data;
mod determinism;
mod durability;
mod exactness;
mod format;
mod growth;
mod history;
#[cfg(feature = "cli")]
mod limits;
mod model;
mod read_only;
mod readers;
#[cfg(feature = "cli")]
mod real_size;
mod time_travel;
mod trust;
