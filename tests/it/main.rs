//! The integration tests of the library, one binary; each file is a story. Those of the command are
//! in `cli/tests/it`.

mod allocation;
mod asking;
mod backup;
mod common;
mod data;
mod determinism;
mod durability;
mod exactness;
#[cfg(target_os = "linux")]
mod fork;
mod format;
mod growth;
mod history;
mod model;
mod readers;
mod space;
mod tidy;
mod time_travel;
mod trust;
mod vacuum;
mod warm;
