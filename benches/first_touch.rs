//! What checking bytes on first touch costs: one `figure,value` per line on stdout.
//!
//! The same queries are asked of one store opened under each policy, in turn, several times over:
//! the first pass after opening, in which every segment is met for the first time, and later ones,
//! which find all of it checked.
//!
//! Run by anything but `cargo bench` (by `cargo test --benches`, say) it only shows that it works.

mod support;

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use support::flags::Flags;
use support::made::Made;
use support::median;
use treering::{CreateOptions, OpenOptions, Store, Verify};

const USAGE: &str =
    "cargo bench --bench first_touch -- [--points N] [--queries N] [--rounds N] [--dim N] [--dir DIR]
  --points N   points of the store, 1000000 unless given
  --queries N  queries per pass, 100000 unless given
  --rounds N   openings under each policy, 7 unless given
  --dim N      dimension, 3 unless given
  --dir DIR    where the file lies";

const SEED: u64 = 42;
const K: usize = 10;
/// Passes over the queries after the first.
const WARM: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let flags = Flags::read(&["points", "queries", "rounds", "dim", "dir"], &["bench"], USAGE);
    let full = flags.has("bench");
    let points: usize = flags.number("points", if full { 1_000_000 } else { 2_000 });
    let queries: usize = flags.number("queries", if full { 100_000 } else { 100 });
    let rounds: usize = flags.number("rounds", if full { 7 } else { 1 });
    let dim = flags.number("dim", 3);
    let made = Made::Uniform { dim };
    let dir = tempfile::tempdir_in(flags.text("dir").map_or(std::env::temp_dir(), Into::into))?;
    let path = dir.path().join("first_touch.tre");
    let rows = made.rows(points, SEED, 0);
    drop(Store::build(&path, CreateOptions::new(dim), OpenOptions::new(), &rows, None, "")?);
    let asked = made.rows(queries, SEED, 1);

    let policies = [("first_touch", Verify::FirstTouch), ("never", Verify::Never)];
    let (mut cold, mut warm) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for round in 0..rounds {
        for turn in 0..policies.len() {
            // Each goes first as often as the other.
            let which = (round + turn) % policies.len();
            let (first, later) = passes(&path, policies[which].1, &asked, dim)?;
            cold[which].push(first);
            warm[which].push(later);
        }
    }
    for (which, (name, _)) in policies.iter().enumerate() {
        println!("{name} first pass queries per second,{:.0}", median(cold[which].clone()));
        println!("{name} warm queries per second,{:.0}", median(warm[which].clone()));
    }
    let loss = 100.0 * (1.0 - median(warm[0].clone()) / median(warm[1].clone()));
    println!("loss of warm throughput percent,{loss:.2}");
    let start = Instant::now();
    let open = OpenOptions::new().read_only(true).verify(Verify::OnOpen);
    let store = Store::open_with(&path, open)?;
    drop(store.latest()?);
    println!("on_open seconds to open a version,{:.4}", start.elapsed().as_secs_f64());
    Ok(())
}

/// Queries per second on one thread: in the first pass after opening, and the best of the later
/// ones.
fn passes(
    path: &Path,
    policy: Verify,
    asked: &[f32],
    dim: usize,
) -> Result<(f64, f64), Box<dyn Error>> {
    let open = OpenOptions::new().read_only(true).threads(1).verify(policy);
    let store = Store::open_with(path, open)?;
    let snapshot = store.latest()?;
    let mut searcher = snapshot.searcher();
    let mut pass = || -> Result<f64, Box<dyn Error>> {
        let start = Instant::now();
        for query in asked.chunks_exact(dim) {
            std::hint::black_box(searcher.knn(query, K)?);
        }
        Ok((asked.len() / dim) as f64 / start.elapsed().as_secs_f64())
    };
    let first = pass()?;
    let mut best: f64 = 0.0;
    for _ in 0..WARM {
        best = best.max(pass()?);
    }
    Ok((first, best))
}
