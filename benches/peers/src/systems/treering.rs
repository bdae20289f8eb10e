//! treering: built durably into a file, asked through stores of one thread and of two; and its own
//! scan.

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use treering::{CreateOptions, NeighborTable, OpenOptions, Searcher, Snapshot, Store};

use super::{Build, System, build, time};
use crate::machine::round;

/// The comparison with treering's own scan stops at about this time.
const EXACTNESS: Duration = Duration::from_secs(20);
/// Queries per part of it.
const EXACTNESS_PART: usize = 64;

/// A file, and the version in it as seen by stores of one thread and of two.
struct Opened {
    one: Snapshot,
    two: Snapshot,
    file_bytes: u64,
    evaluations: u64,
    _dir: TempDir,
}

impl Opened {
    fn threads(&self, threads: usize) -> &Snapshot {
        if threads == 1 { &self.one } else { &self.two }
    }
}

/// The tree.
pub(crate) struct Tree {
    opened: Rc<Opened>,
    searcher: Searcher,
    /// Single queries asked so far.
    singles: u64,
}

/// The scan of the same file.
pub(crate) struct Scan(Rc<Opened>);

/// Builds on two threads, in a new directory under `dir`.
pub(crate) fn new(points: &[f32], dim: usize, dir: &Path) -> (Tree, Scan, Build) {
    let dir = tempfile::tempdir_in(dir).expect("the directory can be written to");
    let path = dir.path().join("peers.tre");
    let ((store, report), build) = build(|| {
        let options = CreateOptions::new(dim);
        let threads = OpenOptions::new().threads(2);
        Store::build(&path, options, threads, points, None, "").expect("finite points make a store")
    });
    drop(store);
    let open = |threads| {
        let options = OpenOptions::new().read_only(true).threads(threads);
        let store = Store::open_with(&path, options).expect("it was built");
        store.latest().expect("it was built")
    };
    let file_bytes = std::fs::metadata(&path).expect("it was built").len();
    let (one, two) = (open(1), open(2));
    let searcher = one.searcher();
    let evaluations = report.counters.distance_evaluations;
    let opened = Rc::new(Opened { one, two, file_bytes, evaluations, _dir: dir });
    (Tree { opened: opened.clone(), searcher, singles: 0 }, Scan(opened), build)
}

fn distances(table: &NeighborTable) -> Vec<f32> {
    table.iter().flatten().map(|neighbor| neighbor.distance).collect()
}

impl System for Tree {
    fn name(&self) -> &'static str {
        "treering"
    }

    fn batch(&mut self, queries: &[f32], k: usize, threads: usize) -> Duration {
        time(|| self.opened.threads(threads).knn_batch(queries, k).expect("a sound file"))
    }

    fn single(&mut self, query: &[f32], k: usize) -> Duration {
        self.singles += 1;
        let start = Instant::now();
        std::hint::black_box(self.searcher.knn(query, k).expect("a sound file"));
        start.elapsed()
    }

    fn distances(&mut self, queries: &[f32], k: usize) -> Vec<f32> {
        distances(&self.opened.two.knn_batch(queries, k).expect("a sound file"))
    }

    fn figures(&mut self, queries: &[f32], k: usize) -> Map<String, Value> {
        let snapshot = &self.opened.two;
        let table = snapshot.knn_batch(queries, k).expect("a sound file");
        let n = snapshot.len() as f64;
        let evaluations = table.distance_evaluations() as f64 / table.queries() as f64;
        let (asked, mismatches) = exactness(snapshot, queries, k, &table);
        let mut figures = Map::new();
        let mut add = |name: &str, value| figures.insert(name.to_string(), value);
        add("distance_evaluations_per_query", json!(round(evaluations)));
        let single = self.searcher.distance_evaluations() as f64 / self.singles.max(1) as f64;
        add("distance_evaluations_per_single_query", json!(round(single)));
        add("distance_evaluations_per_point", json!(round(self.opened.evaluations as f64 / n)));
        add("file_bytes_per_point", json!(round(self.opened.file_bytes as f64 / n)));
        add("exactness_queries", json!(asked));
        add("exactness_mismatches", json!(mismatches));
        figures
    }
}

/// Compares answers with treering's own scan, bit for bit: the queries compared, and those that
/// differ.
fn exactness(
    snapshot: &Snapshot,
    queries: &[f32],
    k: usize,
    table: &NeighborTable,
) -> (usize, usize) {
    let (start, mut asked, mut mismatches) = (Instant::now(), 0, 0);
    for part in queries.chunks(EXACTNESS_PART * snapshot.dim()) {
        if start.elapsed() > EXACTNESS {
            break;
        }
        let scanned = snapshot.brute_knn_batch(part, k).expect("a sound file");
        for row in scanned.iter() {
            mismatches += usize::from(row != table.row(asked));
            asked += 1;
        }
    }
    (asked, mismatches)
}

impl System for Scan {
    fn name(&self) -> &'static str {
        "treering_scan"
    }

    fn batch(&mut self, queries: &[f32], k: usize, threads: usize) -> Duration {
        time(|| self.0.threads(threads).brute_knn_batch(queries, k).expect("a sound file"))
    }

    fn single(&mut self, query: &[f32], k: usize) -> Duration {
        time(|| self.0.one.brute_knn(query, k).expect("a sound file"))
    }

    fn distances(&mut self, queries: &[f32], k: usize) -> Vec<f32> {
        distances(&self.0.two.brute_knn_batch(queries, k).expect("a sound file"))
    }
}
