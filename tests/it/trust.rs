//! Trust: no acknowledged version is ever lost, and no damaged byte ever becomes a wrong neighbour
//! or a panic.
//!
//! `cargo test --release --test it -- trust` runs all of it and prints what was counted; a debug
//! build does a few percent of the same. `TREERING_TRUST=1` makes any build do all of it, a larger
//! number the seeded parts so many times, `TREERING_TRUST_SEED=n` runs one history alone.
//!
//! By night, with more time, more rights or another toolchain:
//!
//! - `TREERING_TRUST=4 cargo test --release --test it -- libc_faults`: faults at real system calls.
//! - `cargo test --release --test it -- trust --ignored --nocapture`: power failures below ext4,
//!   xfs and btrfs (as root); histories of 100,000 versions and tags; groups of 10,000.
//! - `cargo test --manifest-path tests/orders/Cargo.toml`: orders of events between threads, all of
//!   them for the table of guarded maps, random ones for pins, the newest commit, and what was
//!   checked.
//! - `MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test --lib --no-default-features --
//!   arena::`: the unsafe code that is not a system call or a vector kernel, under an interpreter
//!   that sees undefined behaviour.

#[cfg(target_os = "linux")]
mod block_layer;
mod bounds;
mod bugs;
mod copies;
mod crashes;
mod cuts;
mod damage;
pub(crate) mod decoders;
mod disk;
mod faults;
mod figures;
mod flips;
mod forge;
mod full_disk;
mod golden;
mod hostile;
mod kills;
mod long_history;
mod medium;
mod model;
mod overlay;
mod packed;
mod policy;
mod preamble;
mod recover;
mod schedules;
mod sectors;
mod trees;
mod used;
mod workload;

/// The parts of the suite that this process runs, if it runs all: crashes, faults, flips, kills,
/// bugs, schedules.
const PARTS: u64 = 6;
