//! The part of the suite of trust that needs the command: `cargo test --release --test it -- trust`
//! runs it beside that of the library (`tests/it/trust.rs`).

#[path = "../../../tests/it/trust/figures.rs"]
#[allow(dead_code, reason = "shared with the tests of the library, which use more of it")]
mod figures;
mod inputs;
mod libc_faults;
#[path = "../../../tests/it/trust/model.rs"]
#[allow(dead_code, reason = "shared with the tests of the library, which use more of it")]
mod model;

/// The suite of the library sums up.
const PARTS: u64 = u64::MAX;
