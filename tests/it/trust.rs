//! Trust: no acknowledged version is ever lost, and no damaged byte ever becomes a wrong neighbour or a panic.
//!
//! `cargo test --release --test it -- trust` runs all of it and prints what was counted; a debug build does a few percent
//! of the same. With `TREERING_TRUST=n` the seeded parts do n times as much, `TREERING_TRUST_SEED=n` runs one history alone.

mod bugs;
mod crashes;
mod damage;
mod decoders;
mod disk;
mod faults;
mod figures;
mod flips;
mod full_disk;
mod golden;
mod kills;
mod medium;
mod model;
mod policy;
mod preamble;
mod recover;
mod trees;
mod workload;
