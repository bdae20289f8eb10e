//! A `.npy` array with bytes changed, read as rows and as ids, from a file and from a pipe.

#![no_main]
#![allow(dead_code, unused_imports, reason = "the modules are shared with the integration tests, which use more of them")]

#[path = "../../tests/it/common.rs"]
mod common;
#[path = "../../tests/it/format.rs"]
mod format;
#[path = "../trust.rs"]
mod trust;

libfuzzer_sys::fuzz_target!(|data: &[u8]| trust::inputs::npy(data));
