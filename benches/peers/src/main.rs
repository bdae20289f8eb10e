//! treering, an in-memory kd-tree (kiddo) and a blocked scan, side by side in one process: JSON
//! lines on stdout.
//!
//! All systems hold the same points at the same time. Measurements alternate: every round asks each
//! system in turn, and ratios are medians over rounds of the ratio within one round, so that a
//! machine that slows down slows all. The first line describes the machine; then comes one line per
//! workload and system, and a summary per workload.

mod machine;
mod measure;
mod scan;
mod summary;
mod systems;
mod workloads;

#[path = "../../support/mod.rs"]
mod support;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use support::flags::Flags;

const USAGE: &str = "treering-peers [--only W1,W1b,W2,W3,W4] [--rounds N] [--builds N] [--budget SECONDS] \
[--dir DIR] [--unfused] [--quick]
treering-peers --npy POINTS [--queries QUERIES] [--k K] ...
  --only ...         workloads, all unless given
  --npy, --queries   points and queries of f32 or u8 instead; without queries, rows held out of the points
  --k K              neighbours per query of --npy, 10 unless given
  --rounds N         rounds of queries, 5 unless given
  --builds N         builds of each system, 3 unless given
  --budget SECONDS   longest batch: a slower system answers the first queries only, 3 unless given
  --dir DIR          where the store lies: on a disk, or its builds are not durable
  --unfused          the scan multiplies and adds in two steps, as treering must
  --quick            small data and few rounds: shows that it works";

/// How much to measure.
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    pub(crate) builds: usize,
    pub(crate) budget: Duration,
    pub(crate) dir: PathBuf,
}

fn main() -> Result<(), Box<dyn Error>> {
    let names = ["only", "npy", "queries", "k", "rounds", "builds", "budget", "dir"];
    let flags = Flags::read(&names, &["quick", "unfused"], USAGE);
    let quick = flags.has("quick");
    let (rounds, builds, seconds) = if quick { (2, 1, 0.2) } else { (5, 3, 3.0) };
    let effort = Effort {
        rounds: flags.number("rounds", rounds).max(1),
        builds: flags.number("builds", builds).max(1),
        budget: Duration::from_secs_f64(flags.number("budget", seconds)),
        dir: flags.text("dir").map_or(std::env::temp_dir(), Into::into),
    };
    let machine = machine::Machine::measure(quick, !flags.has("unfused"));
    println!("{}", machine.line(&effort.dir));
    if let Some(points) = flags.text("npy") {
        let workload = workloads::read(points, flags.text("queries"), flags.number("k", 10))?;
        return measure::run(&workload, &effort, &machine);
    }
    for name in flags.list("only", &workloads::NAMES.join(",")) {
        measure::run(&workloads::make(&name, quick), &effort, &machine)?;
    }
    Ok(())
}
