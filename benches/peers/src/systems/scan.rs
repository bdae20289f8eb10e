//! The blocked scan as a system.

use std::time::Duration;

use super::{System, time};
use crate::scan::Blocks;

impl System for Blocks {
    fn name(&self) -> &'static str {
        "scan"
    }

    fn batch(&mut self, queries: &[f32], k: usize, threads: usize) -> Duration {
        time(|| Blocks::batch(self, queries, k, threads))
    }

    fn single(&mut self, query: &[f32], k: usize) -> Duration {
        time(|| Blocks::single(self, query, k))
    }

    fn distances(&mut self, queries: &[f32], k: usize) -> Vec<f32> {
        Blocks::batch(self, queries, k, 2)
    }
}
