//! A store taken apart, lied about and written anew; then read, sent, received, recovered and
//! changed. Run it under limits: `cargo +nightly fuzz run hostile -- -rss_limit_mb=512
//! -malloc_limit_mb=128 -timeout=20`.

#![no_main]
#![allow(dead_code, unused_imports, reason = "the modules are shared with the integration tests, which use more of them")]

#[path = "../../tests/it/common.rs"]
mod common;
#[path = "../../tests/it/format.rs"]
mod format;
#[path = "../trust.rs"]
mod trust;

libfuzzer_sys::fuzz_target!(|data: &[u8]| trust::hostile::store(data));
