//! The integration tests, one binary; each file is a story.

#[cfg(feature = "cli")]
mod cli;
mod common;
mod exactness;
mod model;
