//! What a build costs on data of every kind, at n/4, n/2 and n points and at several units of
//! length, beside the bound that it must keep.
//!
//! A tree whose cost hangs on where a level boundary falls shows here: scales are from 1 to less
//! than 2, and the same points are built at each. Stores are in memory, so that nothing but the
//! building is measured.
//!
//! Columns of the CSV:
//!
//! | column | meaning |
//! |---|---|
//! | `data`, `points`, `dim`, `scale` | what was built; files are shuffled |
//! | `seconds`, `cpu_seconds` | of the build, on all threads |
//! | `evaluations_per_point`, `bound` | distances computed by the build, and what it may compute: 40 + 26 log2(n) |
//! | `nodes` | of the tree |
//! | `locate` | distances computed for each row of a second batch, of rows that the tree holds already |
//! | `tree_evaluations` | distances computed for a query that goes by the tree |
//! | `qps`, `scan_qps` | queries per second of a batch, by the way that is chosen and by scan |

#[path = "../support/mod.rs"]
mod support;

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use npyz::NpyFile;
use support::flags::{Flags, fail};
use support::made::{Made, Sheets, SplitMix64};
use treering::{CreateOptions, OpenOptions, Store};

const USAGE: &str = "cargo bench --bench growth -- [--data NAMES] [--n N] [--scales S] [--parts P] [--seed N] \
[--threads N] [--dir DIR] [--out FILE]
  --data NAMES    of uniformD, normalD, sphereD, mixCxD (C clusters), sheets16, sheets128, and files of --dir without
                  their ending; D is a dimension
  --n N           points of what is made; files are taken whole, unless they have more
  --scales S      1,1.07,1.19,1.41,1.68 unless given
  --parts P       4,2,1 unless given: n/4, n/2 and n points
  --seed N        of the shuffle and of what is made
  --threads N     one per core unless given
  --dir DIR       a folder of .npy files, $TREERING_TEST_DATA unless given
  --out FILE      CSV; standard output unless given";

const NAMES: &str = "uniform3,uniform20,normal64,sphere384,mix100x50,mix1000x128,sheets16";
const QUERIES: usize = 256;
const K: usize = 10;

/// Rows, and their dimension.
struct Rows {
    dim: usize,
    values: Vec<f32>,
}

impl Rows {
    fn count(&self) -> usize {
        self.values.len() / self.dim
    }
}

/// The numbers in a name behind `prefix`: `mix100x50` holds 100 and 50.
fn numbers<const N: usize>(name: &str, prefix: &str) -> Option<[usize; N]> {
    let parts: Result<Vec<usize>, _> =
        name.strip_prefix(prefix)?.split('x').map(str::parse).collect();
    parts.ok()?.try_into().ok()
}

fn made(name: &str, seed: u64) -> Option<Made> {
    if let Some([dim]) = numbers(name, "uniform") {
        return Some(Made::Uniform { dim });
    }
    if let Some([dim]) = numbers(name, "normal") {
        return Some(Made::Gaussian { dim });
    }
    if let Some([dim]) = numbers(name, "sphere") {
        return Some(Made::Sphere { dim });
    }
    if let Some([clusters, dim]) = numbers(name, "mix") {
        return Some(Made::Sheets(Sheets::new(clusters, dim, 0, 0.1, seed)));
    }
    match name {
        "sheets16" => Some(Made::Sheets(Sheets::new(100, 16, 4, 0.01, seed))),
        "sheets128" => Some(Made::Sheets(Sheets::new(100, 128, 8, 0.01, seed))),
        _ => None,
    }
}

/// A file's rows in a seeded order, or as many as are wanted of what is made.
fn rows(name: &str, most: usize, seed: u64, dir: Option<&Path>) -> Result<Rows, Box<dyn Error>> {
    if let Some(made) = made(name, seed) {
        return Ok(Rows { dim: made.dim(), values: made.rows(most + QUERIES, seed, 0) });
    }
    let dir = dir.unwrap_or_else(|| fail("--dir: files are wanted, and no folder is named"));
    let path = dir.join(name).with_extension("npy");
    let npy = NpyFile::new(std::io::BufReader::new(std::fs::File::open(&path)?))?;
    let dim = npy.shape()[1] as usize;
    let values: Vec<f32> = match name.ends_with("_u8") {
        true => npy.into_vec::<u8>()?.into_iter().map(f32::from).collect(),
        false => npy.into_vec::<f32>()?,
    };
    let mut order: Vec<usize> = (0..values.len() / dim).collect();
    let mut random = SplitMix64::new(seed, 1, 0);
    for i in (1..order.len()).rev() {
        order.swap(i, (random.next_u64() % (i as u64 + 1)) as usize);
    }
    order.truncate(most + QUERIES);
    let shuffled = order.iter().flat_map(|&row| &values[row * dim..][..dim]).copied();
    Ok(Rows { dim, values: shuffled.collect() })
}

/// Processor time of this process.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    use nix::sys::resource::{UsageWho, getrusage};
    let time = getrusage(UsageWho::RUSAGE_SELF)?.user_time();
    Ok(time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6)
}

/// Builds from `points` and asks `queries`. Returns the figures of one line of the CSV.
fn measure(
    points: &[f32],
    queries: &[f32],
    dim: usize,
    threads: usize,
) -> Result<String, Box<dyn Error>> {
    let n = points.len() / dim;
    let mut store = Store::in_memory(CreateOptions::new(dim), OpenOptions::new().threads(threads))?;
    let (start, cpu) = (Instant::now(), cpu_seconds()?);
    let report = store.insert(points)?;
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    let evaluations = report.counters.distance_evaluations as f64 / n as f64;
    let bound = 40.0 + 26.0 * (n as f64).log2();

    let snapshot = store.latest()?;
    let nodes = store.stats(&snapshot)?.nodes;
    let rows = queries.len() / dim;
    let mut by_tree = 0;
    for query in queries.chunks_exact(dim) {
        // The first query of a searcher always goes by the tree.
        let mut searcher = snapshot.searcher();
        searcher.knn(query, K)?;
        by_tree += searcher.distance_evaluations();
    }
    let by_tree = by_tree as f64 / rows as f64;
    let start = Instant::now();
    snapshot.knn_batch(queries, K)?;
    let qps = rows as f64 / start.elapsed().as_secs_f64();
    let start = Instant::now();
    snapshot.brute_knn_batch(queries, K)?;
    let scan_qps = rows as f64 / start.elapsed().as_secs_f64();
    drop(snapshot);
    let again = n.min(500);
    let report = store.insert(&points[..again * dim])?;
    let locate = report.counters.distance_evaluations as f64 / again as f64;
    Ok(format!(
        "{seconds:.3},{cpu:.3},{evaluations:.1},{bound:.1},{nodes},{locate:.0},{by_tree:.0},{qps:.0},{scan_qps:.0}"
    ))
}

fn main() -> Result<(), Box<dyn Error>> {
    let names = ["data", "n", "scales", "parts", "seed", "threads", "dir", "out"];
    let flags = Flags::read(&names, &["bench"], USAGE);
    let most = flags.number("n", if flags.has("bench") { 100_000 } else { 500 });
    let seed = flags.number("seed", 1);
    let data = std::env::var_os("TREERING_TEST_DATA").map(PathBuf::from);
    let dir = flags.text("dir").map(PathBuf::from).or(data);
    let mut csv = String::from(
        "data,points,dim,scale,seconds,cpu_seconds,evaluations_per_point,bound,nodes,locate,tree_evaluations,qps,scan_qps\n",
    );
    print!("{csv}");
    for name in flags.list("data", NAMES) {
        let Rows { dim, values } = rows(&name, most, seed, dir.as_deref())?;
        let all = Rows { dim, values };
        let n = all.count() - QUERIES.min(all.count() / 2);
        for scale in flags.list("scales", "1,1.07,1.19,1.41,1.68") {
            let factor: f32 = scale.parse()?;
            let scaled: Vec<f32> = all.values.iter().map(|value| value * factor).collect();
            let (points, queries) = scaled.split_at(n * dim);
            for part in flags.list("parts", "4,2,1") {
                let count = n / part.parse::<usize>()?;
                let figures =
                    measure(&points[..count * dim], queries, dim, flags.number("threads", 0))?;
                let mut line = String::new();
                writeln!(line, "{name},{count},{dim},{scale},{figures}")?;
                print!("{line}");
                csv += &line;
            }
        }
    }
    if let Some(out) = flags.text("out") {
        std::fs::write(out, csv)?;
    }
    Ok(())
}
