//! Trust: no acknowledged version is ever lost, and no damaged byte ever becomes a wrong neighbour or a panic.
//!
//! `cargo test --release --test it -- trust` runs all of it and prints what was counted; a debug build does a few percent
//! of the same. `TREERING_TRUST=1` makes any build do all of it, a larger number the seeded parts so many times, `TREERING_TRUST_SEED=n` runs one history alone.

mod bugs;
mod crashes;
mod cuts;
mod damage;
mod decoders;
mod disk;
mod faults;
mod figures;
mod flips;
mod full_disk;
mod golden;
#[cfg(feature = "cli")]
mod inputs;
mod kills;
mod medium;
mod model;
mod policy;
mod preamble;
mod recover;
mod schedules;
mod trees;
mod workload;
