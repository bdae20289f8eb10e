//! What a build costs, by counts: whatever the data, it stays within the bound of
//! `src/insert/credit.rs`; data with structure keep their trees.
//!
//! The long one goes over every file of the folder that `TREERING_TEST_DATA` names and all kinds of
//! made data: `cargo test --release --test it growth -- --include-ignored`.

use std::path::PathBuf;

use npyz::NpyFile;
use treering::{CreateOptions, OpenOptions, Provenance, Report, Snapshot, Store, VerifyOptions};

use crate::common::Random;

/// A tree must cost the same wherever the boundaries of levels fall.
const SCALES: [f32; 5] = [1.0, 1.07, 1.19, 1.41, 1.68];

/// Evaluations per point that a build of n points may take.
fn bound(points: usize) -> f64 {
    40.0 + 26.0 * (points as f64).log2()
}

impl Random {
    fn normal(&mut self) -> f32 {
        let (above_zero, turn) = (1.0 - self.unit(), self.unit());
        (-2.0 * above_zero.ln()).sqrt() * (std::f32::consts::TAU * turn).cos()
    }
}

/// Kinds of made data.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Cube,
    Normal,
    Sphere,
    /// So many clusters, each a hundredth or a tenth as wide as their centers are apart.
    Mixture(usize, f32),
    /// So many sheets, of so many dimensions.
    Sheets(usize, usize),
}

/// Rows of a kind.
fn made(kind: Kind, n: usize, dim: usize, seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    let mut rows = vec![0.0; n * dim];
    let (centers, axes) = match kind {
        Kind::Mixture(clusters, _) => (random.points(clusters, dim), Vec::new()),
        Kind::Sheets(sheets, flat) => {
            let axes = (0..sheets * flat * dim).map(|_| random.normal() / (dim as f32).sqrt());
            let axes = axes.collect();
            (random.points(sheets, dim), axes)
        }
        _ => (Vec::new(), Vec::new()),
    };
    for row in rows.chunks_exact_mut(dim) {
        match kind {
            Kind::Cube => row.fill_with(|| random.unit()),
            Kind::Normal => row.fill_with(|| random.normal()),
            Kind::Sphere => {
                row.fill_with(|| random.normal());
                let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
                row.iter_mut().for_each(|x| *x /= length);
            }
            Kind::Mixture(clusters, width) => {
                let cluster = random.below(clusters as u64) as usize;
                row.copy_from_slice(&centers[cluster * dim..][..dim]);
                row.iter_mut().for_each(|x| *x += width * random.normal());
            }
            Kind::Sheets(sheets, flat) => {
                let sheet = random.below(sheets as u64) as usize;
                row.copy_from_slice(&centers[sheet * dim..][..dim]);
                for axis in axes[sheet * flat * dim..][..flat * dim].chunks_exact(dim) {
                    let along = random.normal();
                    row.iter_mut().zip(axis).for_each(|(x, axis)| *x += along * axis);
                }
                row.iter_mut().for_each(|x| *x += 0.01 * random.normal());
            }
        }
    }
    rows
}

/// Dimension and rows of a file, in a seeded order; `None`, and why, if there is no folder.
fn shuffled(name: &str, seed: u64) -> Option<(usize, Vec<f32>)> {
    let Some(folder) = std::env::var_os("TREERING_TEST_DATA") else {
        eprintln!("skipped: {name} is not read, because TREERING_TEST_DATA is not set");
        return None;
    };
    let path = PathBuf::from(folder).join(name).with_extension("npy");
    let npy = NpyFile::new(std::fs::File::open(path).unwrap()).unwrap();
    let dim = npy.shape()[1] as usize;
    let values: Vec<f32> = match name.ends_with("_u8") {
        true => npy.into_vec::<u8>().unwrap().into_iter().map(f32::from).collect(),
        false => npy.into_vec::<f32>().unwrap(),
    };
    let mut random = Random(seed);
    let mut order: Vec<usize> = (0..values.len() / dim).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, random.below(i as u64 + 1) as usize);
    }
    Some((dim, order.iter().flat_map(|&row| &values[row * dim..][..dim]).copied().collect()))
}

fn times(rows: &[f32], scale: f32) -> Vec<f32> {
    rows.iter().map(|x| x * scale).collect()
}

/// A store in memory that is the same whenever it is made.
fn store(dim: usize, threads: usize) -> Store {
    let start = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let open = OpenOptions::new().threads(threads).provenance(Provenance::Fixed { start, seed: 5 });
    Store::in_memory(CreateOptions::new(dim), open).unwrap()
}

fn built(rows: &[f32], dim: usize) -> (Store, Report) {
    let mut store = store(dim, 2);
    let report = store.insert(rows).unwrap();
    (store, report)
}

fn per_point(report: &Report) -> f64 {
    report.counters.distance_evaluations as f64 / report.added as f64
}

/// Evaluations that a query by the tree takes, on average, for neighbours of the first rows.
fn per_query(snapshot: &Snapshot, rows: &[f32], dim: usize) -> f64 {
    const QUERIES: usize = 200;
    let mut evaluations = 0;
    for row in rows.chunks_exact(dim).take(QUERIES) {
        let query: Vec<f32> = row.iter().map(|x| x * 1.001).collect();
        // The first query of a searcher goes by the tree.
        let mut searcher = snapshot.searcher();
        searcher.knn(&query, 10).unwrap();
        evaluations += searcher.distance_evaluations();
    }
    evaluations as f64 / QUERIES as f64
}

fn assert_bounded(name: &str, rows: &[f32], dim: usize, scale: f32) -> Store {
    let (store, report) = built(&times(rows, scale), dim);
    let (took, bound) = (per_point(&report), bound(rows.len() / dim));
    assert!(took <= bound, "{name} x {scale}: {took:.0} evaluations per point, {bound:.0} allowed");
    store
}

#[test]
fn a_build_stays_within_its_bound() {
    let kinds = [
        (Kind::Normal, 16),
        (Kind::Normal, 64),
        (Kind::Sphere, 384),
        (Kind::Cube, 20),
        (Kind::Cube, 3),
        (Kind::Mixture(10, 0.1), 20),
        (Kind::Mixture(1000, 0.01), 48),
        (Kind::Mixture(100, 0.1), 256),
        (Kind::Sheets(100, 4), 16),
    ];
    for (i, (kind, dim)) in kinds.into_iter().enumerate() {
        let rows = made(kind, 20_000, dim, i as u64);
        let scales = if dim < 100 { &SCALES[..] } else { &SCALES[2..3] };
        for &scale in scales {
            let store = assert_bounded(&format!("{kind:?} {dim}-d"), &rows, dim, scale);
            if scale == SCALES[2] && dim < 100 {
                let report = store.verify(VerifyOptions::all().deep(true)).unwrap();
                assert!(report.is_ok(), "{kind:?}: {:?}", report.problems);
            }
        }
    }
}

/// Files of at least 20,000 rows.
const FILES: [&str; 10] = [
    "adb_aloi_27d",
    "adb_shuttle_9d",
    "adb_skin_3d",
    "bunny_3d",
    "cities_latlon_2d",
    "gaia_bright_3d",
    "glove_100k_50d",
    "hipparcos_9d",
    "lion_scan_3d",
    "minilm_wordpiece_384d",
];

#[test]
#[ignore = "over two hundred builds, a quarter of an hour"]
fn every_build_stays_within_its_bound() {
    let (mut cases, mut large) = (0, 0);
    let mut check = |name: &str, rows: &[f32], dim: usize, scales: &[f32]| {
        for &scale in scales {
            assert_bounded(name, rows, dim, scale);
            cases += 1;
            large += usize::from(rows.len() / dim >= 200_000);
        }
    };
    for name in FILES {
        for seed in 1..=3 {
            if let Some((dim, rows)) = shuffled(name, seed) {
                check(&format!("{name}, seed {seed}"), &rows, dim, &SCALES);
            }
        }
    }
    for dim in [2, 8, 20, 64, 384, 1536] {
        for kind in [Kind::Normal, Kind::Sphere, Kind::Cube] {
            check(&format!("{kind:?} {dim}-d"), &made(kind, 20_000, dim, 4), dim, &SCALES[1..4]);
        }
    }
    for (clusters, width) in [(10, 0.01), (100, 0.1), (300, 0.03), (1000, 0.01), (1000, 0.1)] {
        for dim in [2, 16, 128, 768, 1536] {
            let kind = Kind::Mixture(clusters, width);
            check(&format!("{kind:?} {dim}-d"), &made(kind, 20_000, dim, 5), dim, &SCALES[2..4]);
        }
    }
    let many =
        [(Kind::Cube, 20), (Kind::Normal, 16), (Kind::Sheets(100, 4), 16), (Kind::Sphere, 50)];
    for (kind, dim) in many.into_iter().chain([(Kind::Mixture(1000, 0.03), 32)]) {
        let rows = made(kind, 200_000, dim, 6);
        check(&format!("{kind:?} {dim}-d, many"), &rows, dim, &SCALES);
    }
    println!("{cases} cases, {large} of them with 200,000 points or more");
    assert!(cases >= 129 && large >= 25);
}

/// What queries took when builds got their bound, in evaluations: made data, then files.
#[test]
fn data_with_structure_keep_their_trees() {
    let kinds = [
        (Kind::Cube, 2, 365.4),
        (Kind::Cube, 3, 591.4),
        (Kind::Cube, 8, 6354.7),
        (Kind::Mixture(300, 0.01), 32, 963.8),
    ];
    let files = [("bunny_3d", 328.1), ("adb_shuttle_9d", 1748.8), ("adb_aloi_27d", 1956.9)];
    let kinds = kinds.into_iter().map(|(kind, dim, before)| {
        let rows = made(kind, 30_000, dim, 7);
        (format!("{kind:?} {dim}-d"), Some((dim, rows)), before)
    });
    let files = files.into_iter().map(|(name, b)| (name.to_string(), shuffled(name, 1), b));
    let mut lost = 0;
    for (name, data, before) in kinds.chain(files) {
        let Some((dim, rows)) = data else { continue };
        let (store, _) = built(&rows, dim);
        let took = per_query(&store.latest().unwrap(), &rows, dim);
        println!("{name}: {took:.1} evaluations per query, {before:.1} before");
        lost += usize::from(took > 1.05 * before);
    }
    assert_eq!(lost, 0, "kinds of data whose queries take more than before");
}

/// Later batches pay for themselves, and not for the rows of the flat nodes that they fall into.
#[test]
fn batches_into_flat_nodes_cost_in_proportion_to_themselves() {
    for (kind, dim, scale) in [(Kind::Normal, 64, 1.0), (Kind::Normal, 64, 1.19)] {
        let rows = times(&made(kind, 20_500, dim, 8), scale);
        let (first, later) = rows.split_at(20_000 * dim);
        let (mut store, _) = built(first, dim);
        for batch in later.chunks(25 * dim) {
            let report = store.insert(batch).unwrap();
            let took = per_point(&report);
            assert!(took <= bound(20_000), "{kind:?} x {scale}: {took:.0} evaluations per point");
            assert!(report.counters.splits == 0, "{kind:?} x {scale}: a flat node is split again");
        }
        let report = store.verify(VerifyOptions::all().deep(true)).unwrap();
        assert!(report.is_ok(), "{kind:?}: {:?}", report.problems);
    }
}

/// Batch by batch, what a store costs in all is some times the bound of a build, whatever the data.
#[test]
fn many_batches_cost_some_builds_at_most() {
    for (kind, dim) in [(Kind::Normal, 48), (Kind::Cube, 3), (Kind::Mixture(200, 0.02), 24)] {
        let rows = made(kind, 20_000, dim, 9);
        let mut store = store(dim, 2);
        let mut took = 0;
        for batch in rows.chunks(500 * dim) {
            took += store.insert(batch).unwrap().counters.distance_evaluations;
        }
        let took = took as f64 / 20_000.0;
        println!("{kind:?} {dim}-d in 40 batches: {took:.0} evaluations per point");
        assert!(took <= 4.0 * bound(20_000), "{kind:?}: {took:.0} evaluations per point");
    }
}

/// The ways to answer a row of queries by: the tree, a scan of all rows, and what is taken if
/// nobody says. By counted cost the last is within half as much again of the better of the others,
/// a query that looks whether that holds included.
#[test]
fn the_way_that_is_taken_is_nearly_the_cheaper_one() {
    const QUERIES: usize = 100;
    let kinds = [
        (Kind::Normal, 64, SCALES[0]),
        (Kind::Normal, 64, SCALES[2]),
        (Kind::Cube, 20, SCALES[0]),
        (Kind::Sphere, 384, SCALES[3]),
        (Kind::Mixture(100, 0.1), 128, SCALES[0]),
        (Kind::Cube, 3, SCALES[0]),
    ];
    let kinds = kinds.into_iter().map(|(kind, dim, scale)| {
        (format!("{kind:?} {dim}-d x {scale}"), Some((dim, made(kind, 20_000, dim, 13))), scale)
    });
    let files = ["glove_100k_50d", "minilm_wordpiece_384d"];
    let files = files.into_iter().flat_map(|name| {
        [SCALES[0], SCALES[2]].map(|scale| (format!("{name} x {scale}"), shuffled(name, 1), scale))
    });
    for (name, data, scale) in kinds.chain(files) {
        let Some((dim, rows)) = data else { continue };
        let rows = times(&rows, scale);
        let (store, _) = built(&rows, dim);
        let snapshot = store.latest().unwrap();
        let tree = per_query(&snapshot, &rows, dim);
        let scan = (rows.len() / dim) as f64;
        let mut searcher = snapshot.searcher();
        for row in rows.chunks_exact(dim).take(QUERIES) {
            let query: Vec<f32> = row.iter().map(|x| x * 1.001).collect();
            searcher.knn(&query, 10).unwrap();
        }
        let taken = searcher.distance_evaluations() as f64 / QUERIES as f64;
        println!("{name}: {taken:.0} evaluations per query; by tree {tree:.0}, by scan {scan:.0}");
        assert!(taken <= 1.5 * tree.min(scan), "{name}");
    }
}

#[test]
fn a_flat_node_that_gains_structure_is_split() {
    let dim = 32;
    let (mut store, _) = built(&made(Kind::Sphere, 5_000, dim, 10), dim);
    let nodes = |store: &Store| store.stats(&store.latest().unwrap()).unwrap().nodes;
    let flat = nodes(&store);
    // So far apart that all there was becomes one cluster more.
    let clusters = times(&made(Kind::Mixture(100, 0.001), 8_000, dim, 11), 10.0);
    for batch in clusters.chunks(1_000 * dim) {
        store.insert(batch).unwrap();
    }
    assert!(nodes(&store) > flat + 100, "{flat} nodes, then {}", nodes(&store));
    let took = per_query(&store.latest().unwrap(), &clusters, dim);
    assert!(took < 13_000.0 / 4.0, "{took:.0} evaluations");
}

#[test]
fn what_is_closed_does_not_depend_on_threads() {
    for (kind, dim) in [(Kind::Normal, 16), (Kind::Mixture(1000, 0.05), 40)] {
        let rows = made(kind, 20_000, dim, 12);
        let checksum = |threads| {
            let mut store = store(dim, threads);
            for batch in rows.chunks(12_000 * dim) {
                store.insert(batch).unwrap();
            }
            store.stats(&store.latest().unwrap()).unwrap().checksum
        };
        let one = checksum(1);
        assert!([2, 5].into_iter().all(|threads| checksum(threads) == one), "{kind:?}");
    }
}
