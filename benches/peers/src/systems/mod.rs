//! The systems behind one interface. Times are of the system's own call, with its own kind of
//! answer.

pub(crate) mod kd_tree;
pub(crate) mod scan;
pub(crate) mod treering;

use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::machine;

/// Something that answers nearest-neighbour queries about the points it was built of.
pub(crate) trait System {
    fn name(&self) -> &'static str;

    /// Time of one batch of queries on one thread or two.
    fn batch(&mut self, queries: &[f32], k: usize, threads: usize) -> Duration;

    /// Time of one query.
    fn single(&mut self, query: &[f32], k: usize) -> Duration;

    /// Distances of the best `k` of every query, ascending, query by query. Not timed.
    fn distances(&mut self, queries: &[f32], k: usize) -> Vec<f32>;

    /// Figures that only this system has.
    fn figures(&mut self, _queries: &[f32], _k: usize) -> Map<String, Value> {
        Map::new()
    }
}

/// What a build took.
#[derive(Clone, Copy)]
pub(crate) struct Build {
    pub(crate) seconds: f64,
    /// Processor time by wall time: 2 is two cores.
    pub(crate) cpu_utilisation: f64,
    /// Resident set before the build, and at most during it, in MB.
    pub(crate) rss_before: Option<f64>,
    pub(crate) rss_peak: Option<f64>,
}

/// Runs a build and measures it.
pub(crate) fn build<S>(make: impl FnOnce() -> S) -> (S, Build) {
    machine::reset_peak();
    let rss_before = machine::resident_mb(false);
    let (cpu, start) = (machine::cpu_time(), Instant::now());
    let system = make();
    let seconds = start.elapsed().as_secs_f64();
    let cpu = machine::cpu_time() - cpu;
    let cpu_utilisation = cpu.as_secs_f64() / seconds;
    let rss_peak = machine::resident_mb(true);
    (system, Build { seconds, cpu_utilisation, rss_before, rss_peak })
}

fn time<R>(run: impl FnOnce() -> R) -> Duration {
    let start = Instant::now();
    let result = std::hint::black_box(run());
    let time = start.elapsed();
    drop(result);
    time
}
