//! One workload: builds, warm-up, rounds, checks, lines.

use std::error::Error;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Effort;
use crate::machine::{Machine, round, round_seconds};
use crate::scan::{Blocks, FLOP_PER_VALUE};
use crate::summary::{self, Outcome};
use crate::support::median;
use crate::systems::{self, Build, System, kd_tree, treering};
use crate::workloads::Workload;

/// Shorter batches are repeated until this much time has passed.
const LEAST: Duration = Duration::from_millis(100);
/// Queries that warm a system up, and tell how fast it is.
const WARM_UP: usize = 64;
/// Single queries of one round, at most so many and for at most so long.
const SINGLES: usize = 2_000;
const SINGLES_TIME: Duration = Duration::from_millis(500);
/// Relative difference of distances that the order of summation may make.
const TOLERANCE: f32 = 1e-5;

/// A system and all that was measured of it.
pub(crate) struct Measured {
    system: Box<dyn System>,
    /// Of every build; none if the system came with another one.
    pub(crate) builds: Vec<Build>,
    /// Queries in a batch, no more than the time allows.
    queries: usize,
    /// Queries per second of every round, on one thread and on two.
    pub(crate) rates: [Vec<f64>; 2],
    /// Microseconds of single queries, ascending in the end.
    singles: Vec<f64>,
    /// Queries whose distances differ from the scan's.
    pub(crate) mismatches: usize,
}

impl Measured {
    pub(crate) fn name(&self) -> &'static str {
        self.system.name()
    }

    /// Median seconds of a build.
    pub(crate) fn build_seconds(&self) -> f64 {
        median(self.builds.iter().map(|build| build.seconds).collect())
    }

    /// Median cores that a build kept busy.
    pub(crate) fn build_cpu(&self) -> f64 {
        median(self.builds.iter().map(|build| build.cpu_utilisation).collect())
    }

    /// A percentile of single queries in microseconds.
    pub(crate) fn single(&self, percent: usize) -> f64 {
        let at = self.singles.len() * percent / 100;
        self.singles.get(at).copied().unwrap_or(f64::NAN)
    }
}

/// Measures a workload and prints its lines.
pub(crate) fn run(
    workload: &Workload,
    effort: &Effort,
    machine: &Machine,
) -> Result<(), Box<dyn Error>> {
    if workload.query_count() == 0 {
        return Err("there are no queries".into());
    }
    let mut systems = build_all(workload, effort, machine);
    for measured in &mut systems {
        warm_up(measured, workload, effort.budget);
    }
    for round in 0..effort.rounds {
        // Each comes first in turn.
        for i in 0..systems.len() {
            let at = (round + i) % systems.len();
            ask(&mut systems[at], workload, round);
        }
    }
    check(&mut systems, workload);
    let mut exact = (0, 0);
    for measured in &mut systems {
        measured.singles.sort_unstable_by(f64::total_cmp);
        let line = line(measured, workload, machine);
        if let Some(mismatches) = line["exactness_mismatches"].as_u64() {
            exact = (line["exactness_queries"].as_u64().unwrap_or(0), mismatches);
        }
        println!("{line}");
    }
    let outcome = Outcome { name: &workload.name, systems: &systems, exact };
    println!("{}", summary::line(&outcome));
    Ok(())
}

/// Builds all systems in turn, several times; the last ones stay.
fn build_all(workload: &Workload, effort: &Effort, machine: &Machine) -> Vec<Measured> {
    let (points, dim) = (&workload.points, workload.dim);
    let pool = kd_tree::pool();
    let mut builds: [Vec<Build>; 3] = Default::default();
    let mut last: Vec<Box<dyn System>> = Vec::new();
    for _ in 0..effort.builds {
        last.clear();
        let (tree, scan_of_tree, build) = treering::new(points, dim, &effort.dir);
        builds[0].push(build);
        let kd_tree = kd_tree::new(points, dim, &pool);
        let (scan, build) = systems::build(|| Blocks::new(points, dim, machine.isa));
        builds[2].push(build);
        last.push(Box::new(tree));
        if let Some((kd_tree, build)) = kd_tree {
            builds[1].push(build);
            last.push(kd_tree);
        }
        last.push(Box::new(scan));
        last.push(Box::new(scan_of_tree));
    }
    let measured = |system: Box<dyn System>| {
        let builds = match system.name() {
            "treering" => builds[0].clone(),
            "kiddo" => builds[1].clone(),
            "scan" => builds[2].clone(),
            _ => Vec::new(),
        };
        let (rates, singles) = (Default::default(), Vec::new());
        Measured { system, builds, queries: 0, rates, singles, mismatches: 0 }
    };
    last.into_iter().map(measured).collect()
}

fn warm_up(measured: &mut Measured, workload: &Workload, budget: Duration) {
    let count = WARM_UP.min(workload.query_count());
    let (first, k) = (workload.first(count), workload.k);
    measured.system.batch(first, k, 2);
    let time = measured.system.batch(first, k, 1);
    let within_budget = count as f64 * budget.as_secs_f64() / time.as_secs_f64();
    measured.queries = (within_budget as usize).clamp(count, workload.query_count());
    for threads in [1, 2] {
        measured.system.batch(workload.first(measured.queries), k, threads);
    }
}

/// One round of one system.
fn ask(measured: &mut Measured, workload: &Workload, round: usize) {
    let k = workload.k;
    let queries = workload.first(measured.queries);
    for threads in [1, 2] {
        let (mut time, mut batches) = (Duration::ZERO, 0);
        while time < LEAST {
            time += measured.system.batch(queries, k, threads);
            batches += 1;
        }
        let rate = (batches * measured.queries) as f64 / time.as_secs_f64();
        measured.rates[threads - 1].push(rate);
    }
    let start = Instant::now();
    for i in 0..SINGLES {
        let time = measured.system.single(workload.query(round * SINGLES + i), k);
        measured.singles.push(time.as_secs_f64() * 1e6);
        if start.elapsed() > SINGLES_TIME {
            break;
        }
    }
}

/// Compares every system's distances with the scan's.
fn check(systems: &mut [Measured], workload: &Workload) {
    let k = workload.k;
    let scan = systems.iter_mut().find(|measured| measured.name() == "scan");
    let scan = scan.expect("the scan is always there").system.distances(&workload.queries, k);
    for measured in systems {
        // A fast system answers all queries, a slow one those that it was timed with.
        let found = measured.system.distances(workload.first(measured.queries), k);
        let same = |(a, b): (&f32, &f32)| (a - b).abs() <= TOLERANCE * a.max(*b);
        let rows = found.chunks(k).zip(scan.chunks(k));
        measured.mismatches = rows
            .filter(|(found, scan)| found.len() != k || !found.iter().zip(*scan).all(same))
            .count();
        measured.mismatches += measured.queries - found.len() / k;
    }
}

fn line(measured: &mut Measured, workload: &Workload, machine: &Machine) -> Value {
    let built = !measured.builds.is_empty();
    // Later builds find memory that the allocator has kept from those before.
    let first = measured.builds.first();
    let rate = |threads: usize| median(measured.rates[threads - 1].clone());
    let mut line = json!({
        "kind": "system",
        "workload": workload.name,
        "system": measured.name(),
        "n": workload.n(),
        "dim": workload.dim,
        "k": workload.k,
        "build_s": built.then(|| round_seconds(measured.build_seconds())),
        "cpu_utilisation": built.then(|| round(measured.build_cpu())),
        "rss_before_mb": first.and_then(|build| build.rss_before).map(round),
        "peak_rss_mb": first.and_then(|build| build.rss_peak).map(round),
        "queries_per_batch": measured.queries,
        "queries_per_second": round(rate(1)),
        "queries_per_second_2_threads": round(rate(2)),
        "single_us_p50": round(measured.single(50)),
        "single_us_p99": round(measured.single(99)),
        "mismatches": measured.mismatches,
    });
    if measured.name().ends_with("scan") {
        let values = (workload.n() * workload.dim) as f64;
        let read = 4.0 * values / (measured.single(50) / 1e6);
        let flop = rate(1) * values * FLOP_PER_VALUE as f64;
        line["single_gb_s"] = json!(round(read / 1e9));
        line["single_by_read_bandwidth"] = json!(round(read / machine.read[0]));
        line["batch_gflop_s"] = json!(round(flop / 1e9));
        line["batch_by_arithmetic"] = json!(round(flop / machine.arithmetic));
    }
    let figures = measured.system.figures(&workload.queries, workload.k);
    if let Value::Object(line) = &mut line {
        line.extend(figures);
    }
    line
}
