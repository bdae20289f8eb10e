//! Real data: files of `.npy` in the folder that `TREERING_TEST_DATA` names. Unset, these tests say
//! so and pass.

use std::collections::HashSet;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use npyz::{NpyFile, Order};
use treering::{CreateOptions, PointId, Snapshot, Store, VerifyOptions, VersionId};

use crate::common::{Random, threads};

/// Rows of one set, at most: all of those that these tests were written for.
const ROWS: usize = 500_000;

fn file(name: &str) -> Option<NpyFile<BufReader<File>>> {
    let Some(folder) = std::env::var_os("TREERING_TEST_DATA") else {
        eprintln!("skipped: {name} is not read, because TREERING_TEST_DATA is not set");
        return None;
    };
    let path = PathBuf::from(folder).join(name).with_extension("npy");
    let open = || NpyFile::new(BufReader::new(File::open(&path)?));
    let npy: NpyFile<_> =
        open().unwrap_or_else(|e: std::io::Error| panic!("{}: {e}", path.display()));
    assert_eq!((npy.order(), npy.shape().len()), (Order::C, 2), "{}", path.display());
    Some(npy)
}

/// Dimension and rows, thinned evenly to [`ROWS`].
fn rows(name: &str) -> Option<(usize, Vec<f32>)> {
    let npy = file(name)?;
    let (n, dim) = (npy.shape()[0] as usize, npy.shape()[1] as usize);
    let values: Vec<f32> = match name.ends_with("_u8") {
        true => npy.into_vec::<u8>().unwrap().into_iter().map(f32::from).collect(),
        false => npy.into_vec::<f32>().unwrap(),
    };
    let stride = n.div_ceil(ROWS);
    Some((dim, values.chunks_exact(dim).step_by(stride).flatten().copied().collect()))
}

/// Data points and midpoints of pairs of them.
fn queries(points: &[f32], dim: usize, count: usize) -> Vec<f32> {
    let mut random = Random(13);
    let n = points.len() / dim;
    let mut queries = Vec::new();
    for i in 0..count {
        let mut row = || &points[random.below(n as u64) as usize * dim..][..dim];
        let (a, b) = (row(), row());
        match i % 2 {
            0 => queries.extend_from_slice(a),
            _ => queries.extend(a.iter().zip(b).map(|(a, b)| a * 0.5 + b * 0.5)),
        }
    }
    queries
}

fn assert_equals_brute_force(snapshot: &Snapshot, queries: &[f32], name: &str) {
    for k in [1, 10, 100] {
        let tree = snapshot.knn_batch(queries, k).unwrap();
        let scan = snapshot.brute_knn_batch(queries, k).unwrap();
        for (i, (tree, scan)) in tree.iter().zip(scan.iter()).enumerate() {
            assert_eq!(tree, scan, "{name}, {}: query {i}, k {k}", snapshot.version());
        }
    }
}

/// Most rows in bulk, the rest in batches, some deleted; the newest version and the first against
/// brute force.
fn exact_in_every_version(name: &str, query_count: usize) {
    let Some((dim, points)) = rows(name) else { return };
    let n = points.len() / dim;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let bulk = &points[..n * 7 / 10 * dim];
    let (mut store, _) =
        Store::build(&path, CreateOptions::new(dim), threads(2), bulk, None, name).unwrap();
    let rest = &points[bulk.len()..];
    for batch in rest.chunks((rest.len() / dim).div_ceil(4) * dim) {
        store.insert(batch).unwrap();
    }
    store.delete(&Vec::from_iter((0..n as PointId).filter(|id| id % 9 == 4))).unwrap();
    store.insert_with_ids(&points[4 * dim..5 * dim], &[4]).unwrap();
    let newest = store.latest().unwrap();
    assert_eq!(newest.len() as usize, n - (n + 4) / 9 + 1, "{name}");
    let queries = queries(&points, dim, query_count);
    assert_equals_brute_force(&newest, &queries, name);
    let first = store.at(VersionId(1)).unwrap();
    assert_eq!(first.len() as usize, bulk.len() / dim);
    assert_equals_brute_force(&first, &queries[..queries.len() / 4 / dim * dim], name);
    let report = store.verify(VerifyOptions::all().deep(true)).unwrap();
    assert!(report.is_ok(), "{name}: {:#?}", report.problems);
}

#[test]
fn gaia_bright_3d() {
    exact_in_every_version("gaia_bright_3d", 200);
}

#[test]
fn cities_latlon_2d() {
    exact_in_every_version("cities_latlon_2d", 200);
}

/// A laser scan: many distances tie.
#[test]
fn lion_scan_3d() {
    exact_in_every_version("lion_scan_3d", 200);
}

#[test]
fn bunny_3d() {
    exact_in_every_version("bunny_3d", 200);
}

/// Colours: four in five rows are duplicates.
#[test]
fn adb_skin_3d() {
    exact_in_every_version("adb_skin_3d", 200);
}

/// Columns of very different scale.
#[test]
fn hipparcos_9d() {
    exact_in_every_version("hipparcos_9d", 200);
}

#[test]
fn adb_shuttle_9d() {
    exact_in_every_version("adb_shuttle_9d", 200);
}

#[test]
fn adb_aloi_27d() {
    exact_in_every_version("adb_aloi_27d", 200);
}

#[test]
fn fashion_mnist10k_784d_u8() {
    exact_in_every_version("fashion_mnist10k_784d_u8", 60);
}

/// Neighbours that others computed, with exact integer arithmetic: ours are the same up to exact
/// ties.
#[test]
fn sift_bigann10k_128d_ground_truth() {
    const NAME: &str = "sift_bigann10k_128d";
    exact_in_every_version(NAME, 100);
    let Some((dim, points)) = rows(NAME) else { return };
    let queries = rows(&format!("{NAME}_queries")).unwrap().1;
    let truth = file(&format!("{NAME}_gt100_i64")).unwrap();
    let (count, k) = (truth.shape()[0] as usize, truth.shape()[1] as usize);
    let truth: Vec<i64> = truth.into_vec().unwrap();
    assert_eq!((count, k), (queries.len() / dim, 100));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let mut store = Store::create_with(&path, CreateOptions::new(dim), threads(2)).unwrap();
    for batch in points.chunks(3_000 * dim) {
        store.insert(batch).unwrap();
    }
    let table = store.latest().unwrap().knn_batch(&queries, k).unwrap();
    for (i, (truth, found)) in truth.chunks_exact(k).zip(table.iter()).enumerate() {
        let query = &queries[i * dim..(i + 1) * dim];
        // Components are whole numbers up to 255, so that the sum is exact, in f64 and in f32 too.
        let distance = |id: u64| {
            let row = &points[id as usize * dim..][..dim];
            let sum: f64 = row.iter().zip(query).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            (sum as f32).sqrt()
        };
        let mut right: Vec<f32> = truth.iter().map(|&id| distance(id as u64)).collect();
        right.sort_by(f32::total_cmp);
        let distances: Vec<f32> = found.iter().map(|n| n.distance).collect();
        assert_eq!(distances, right, "query {i}");
        assert!(found.iter().all(|n| n.distance == distance(n.id)), "query {i}");
        let boundary = right[k - 1];
        let truth: HashSet<u64> = truth.iter().map(|&id| id as u64).collect();
        let found: HashSet<u64> = found.iter().map(|n| n.id).collect();
        for id in truth.symmetric_difference(&found) {
            assert_eq!(distance(*id), boundary, "query {i}: id {id} is no tie");
        }
    }
}
