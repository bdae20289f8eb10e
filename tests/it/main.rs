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
#[cfg(target_os = "linux")]
mod fork;
mod format;
mod growth;
mod history;
#[cfg(feature = "cli")]
mod limits;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod memory;
mod model;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod not_files;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod outputs;
mod read_only;
mod readers;
#[cfg(feature = "cli")]
mod real_size;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod signals;
mod space;
#[cfg(feature = "cli")]
mod texts;
mod time_travel;
mod trust;
mod vacuum;
