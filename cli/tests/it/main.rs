//! The integration tests of the command, one binary; each file is a story.

#[path = "../../../tests/it/allocation.rs"]
#[allow(dead_code, reason = "shared with the tests of the library, which use more of it")]
mod allocation;
mod cli;
#[path = "../../../tests/it/common.rs"]
#[allow(dead_code, reason = "shared with the tests of the library, which use more of it")]
mod common;
mod limits;
mod memory;
#[cfg(target_os = "linux")]
mod not_files;
#[cfg(target_os = "linux")]
mod outputs;
mod precision;
mod read_only;
mod real_size;
#[cfg(target_os = "linux")]
mod signals;
mod texts;
mod trust;
