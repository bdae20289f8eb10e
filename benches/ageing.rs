//! What a store loses by being filled in many batches: CSV on stdout, one row per data, order and
//! number of batches.
//!
//! Each store is filled with the same points as a bulk-built one, in equal batches, each durable;
//! the points come at random or sorted by their first coordinate. Then the same queries are put to
//! both, and the distances that they compute are compared: `ratio`, and `ratio_compacted` once the
//! store is packed. `file_bytes` is the file's length before that, every old version included.
//!
//! Run by anything but `cargo bench` (by `cargo test --benches`, say) it only shows that it works.

mod support;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Instant;

use support::flags::{self, Flags};
use support::made::{Made, Sheets};
use treering::{CreateOptions, OpenOptions, Store};

const USAGE: &str = "cargo bench --bench ageing -- [--n N] [--batches B,B,...] [--dir DIR]
  --n N          points per store, 200000 unless given
  --batches ...  numbers of equal batches, 100,5000 unless given
  --dir DIR      where the files lie";

const QUERIES: usize = 2_000;
const K: usize = 10;
const SEED: u64 = 42;

fn main() -> Result<(), Box<dyn Error>> {
    let flags = Flags::read(&["n", "batches", "dir"], &["bench"], USAGE);
    let (n, batches) = match flags.has("bench") {
        true => (flags.number("n", 200_000), flags.list("batches", "100,5000")),
        false => (2_000, vec!["10".to_string()]),
    };
    let count = |text: &String| match text.parse() {
        Ok(count) if (1..=n).contains(&count) => count,
        _ => flags::fail("--batches: not numbers from 1 to n"),
    };
    let batches: Vec<usize> = batches.iter().map(count).collect();
    let dir = tempfile::tempdir_in(flags.text("dir").map_or(std::env::temp_dir(), Into::into))?;
    let path = dir.path().join("aged.tre");
    println!(
        "data,order,batches,seconds,total_bytes_written,file_bytes,evaluations_per_query,evaluations_per_query_bulk,\
         ratio,ratio_compacted"
    );
    let sheets = Sheets::new(100, 16, 4, 0.01, SEED);
    for (name, made) in
        [("uniform_3d", Made::Uniform { dim: 3 }), ("sheets_4d_in_16d", Made::Sheets(sheets))]
    {
        let dim = made.dim();
        let mut points = made.rows(n, SEED, 0);
        let queries = made.rows(QUERIES, SEED, 1);
        for order in ["random", "sorted"] {
            if order == "sorted" {
                points = sorted(&points, dim);
            }
            // Of the same points under the same ids: others make another tree, better or worse by
            // some per cent.
            let options = CreateOptions::new(dim);
            let (store, _) = Store::build(&path, options, OpenOptions::new(), &points, None, "")?;
            let bulk = evaluations(&store, &queries)?;
            drop(store);
            fs::remove_file(&path)?;
            for &count in &batches {
                let aged = fill(&path, dim, &points, count, &queries)?;
                let Aged { seconds, bytes_written, file_bytes, evaluations, compacted } = aged;
                println!(
                    "{name},{order},{count},{seconds:.2},{bytes_written},{file_bytes},{evaluations:.1},{bulk:.1},{:.4},{:.4}",
                    evaluations / bulk,
                    compacted / bulk
                );
                fs::remove_file(&path)?;
            }
        }
    }
    Ok(())
}

/// A store that was filled in batches.
struct Aged {
    seconds: f64,
    bytes_written: u64,
    file_bytes: u64,
    evaluations: f64,
    /// The same once the store is packed.
    compacted: f64,
}

fn fill(
    path: &Path,
    dim: usize,
    points: &[f32],
    batches: usize,
    queries: &[f32],
) -> Result<Aged, Box<dyn Error>> {
    let n = points.len() / dim;
    let mut store = Store::create(path, CreateOptions::new(dim))?;
    let start = Instant::now();
    let mut bytes_written = 0;
    for batch in 0..batches {
        let rows = n * batch / batches..n * (batch + 1) / batches;
        let report = store.insert(&points[rows.start * dim..rows.end * dim])?;
        bytes_written += report.bytes_written;
    }
    let seconds = start.elapsed().as_secs_f64();
    let file_bytes = fs::metadata(path)?.len();
    let evaluations = |store: &Store| evaluations(store, queries);
    let aged = evaluations(&store)?;
    store.compact()?;
    let compacted = evaluations(&store)?;
    Ok(Aged { seconds, bytes_written, file_bytes, evaluations: aged, compacted })
}

/// Distances computed per query.
fn evaluations(store: &Store, queries: &[f32]) -> Result<f64, Box<dyn Error>> {
    let answers = store.latest()?.knn_batch(queries, K)?;
    Ok(answers.distance_evaluations() as f64 / answers.queries() as f64)
}

/// The rows by ascending first coordinate.
fn sorted(points: &[f32], dim: usize) -> Vec<f32> {
    let mut rows: Vec<&[f32]> = points.chunks_exact(dim).collect();
    rows.sort_by(|a, b| a[0].total_cmp(&b[0]));
    rows.concat()
}
