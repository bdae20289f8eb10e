//! The integration tests, one binary; each file is a story.

mod common;
mod exactness;
