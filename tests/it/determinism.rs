//! The same calls give the same bytes, whatever the number of threads; the same points give the
//! same answers, whatever the way they came in.

use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use treering::{CreateOptions, OpenOptions, PointId, Provenance, Snapshot, Store};

use crate::common::{Random, assert_sound, threads, tiny};

/// Data large enough for the parallel paths: (name, dimension, rows).
fn large_shapes() -> Vec<(&'static str, usize, Vec<f32>)> {
    let mut random = Random(21);
    let uniform = random.points(20_000, 3);
    let mut duplicates = random.points(20_000, 3);
    for i in 0..20_000 {
        // Half of the rows stand twice or more; one row stands thousands of times.
        let from = match random.below(10) {
            0..2 => 0,
            2..5 => random.below(i as u64 + 1) as usize,
            _ => continue,
        };
        duplicates.copy_within(from * 3..from * 3 + 3, i * 3);
    }
    let lattice = (0..20_000).flat_map(|i| [i % 27, i / 27 % 27, i / 729]).map(|x| x as f32);
    vec![
        ("uniform 3-d", 3, uniform),
        ("duplicates 3-d", 3, duplicates),
        ("lattice 3-d", 3, lattice.collect()),
        ("uniform 20-d", 20, random.points(6_000, 20)),
    ]
}

/// A bulk load, batches, deletes, a mixed transaction, with a reopening in between.
fn history(path: &Path, create: CreateOptions, threads: usize, points: &[f32]) -> Store {
    let dim = create.dim();
    let n = points.len() / dim;
    let start = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let open = || {
        let provenance = Provenance::Fixed { start, seed: 5 };
        OpenOptions::new().threads(threads).provenance(provenance)
    };
    let row = |i: usize| i * dim;
    let bulk = &points[..row(n * 3 / 4)];
    let (mut store, _) = Store::build(path, create, open(), bulk, None, "bulk").unwrap();
    for i in 0..4 {
        store.insert(&points[row(n * (75 + 5 * i) / 100)..row(n * (80 + 5 * i) / 100)]).unwrap();
        let ids: Vec<PointId> = (0..n as u64 / 2).filter(|id| id % 11 == i as u64).collect();
        store.delete(&ids).unwrap();
    }
    drop(store);
    let mut store = Store::open_with(path, open()).unwrap();
    let mut transaction = store.begin();
    transaction.delete(&[10, 21, 43]).unwrap();
    transaction.insert(&points[row(n * 95 / 100)..]).unwrap();
    transaction
        .insert_with_ids(&points[..row(50)], &Vec::from_iter(1 << 40..(1 << 40) + 50))
        .unwrap();
    transaction.message("mixed");
    transaction.commit().unwrap();
    store
}

#[test]
fn the_number_of_threads_leaves_no_trace_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    for (name, dim, points) in large_shapes() {
        for (geometry, create) in [("defaults", CreateOptions::new(dim)), ("tiny", tiny(dim, 3))] {
            if geometry == "tiny" && name != "duplicates 3-d" {
                continue;
            }
            let runs = [1, 2, 4].map(|threads| {
                let path = dir.path().join(format!("{name} {geometry} {threads}.tre"));
                let store = history(&path, create.clone(), threads, &points);
                let versions = store.versions().unwrap();
                drop(store);
                (versions, fs::read(&path).unwrap())
            });
            let [(versions, bytes), others @ ..] = &runs;
            for (other_versions, other) in others {
                // Says more than the bytes below if it is a record that differs.
                for (one, other) in versions.iter().zip(other_versions) {
                    let what = format!("{name}, {geometry}: version {}", one.version);
                    assert_eq!(format!("{one:#?}"), format!("{other:#?}"), "{what}");
                }
                assert_eq!(bytes.len(), other.len(), "{name}, {geometry}: length of the file");
                let differ: Vec<usize> =
                    (0..other.len()).filter(|&i| bytes[i] != other[i]).collect();
                assert!(
                    differ.is_empty(),
                    "{name}, {geometry}: {} bytes differ, the first at {:?}",
                    differ.len(),
                    &differ[..differ.len().min(16)]
                );
            }
        }
    }
}

#[test]
fn a_batch_of_queries_answers_as_single_ones_on_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    for (name, dim, points) in large_shapes() {
        let path = dir.path().join(format!("{name}.tre"));
        drop(history(&path, CreateOptions::new(dim), 2, &points));
        // Not a multiple of what one task takes.
        let queries: Vec<f32> =
            points.chunks_exact(dim * 97).flat_map(|c| &c[..dim]).copied().collect();
        let one = Store::open_with(&path, threads(1).read_only(true)).unwrap().latest().unwrap();
        for k in [1, 10] {
            let right = one.knn_batch(&queries, k).unwrap();
            for n in [2, 5] {
                let store = Store::open_with(&path, threads(n).read_only(true)).unwrap();
                let table = store.latest().unwrap().knn_batch(&queries, k).unwrap();
                assert_eq!(table, right, "{name}: k {k}, {n} threads");
            }
            for (query, row) in queries.chunks_exact(dim).zip(right.iter()) {
                assert_eq!(one.knn(query, k).unwrap(), row, "{name}: k {k}");
            }
        }
    }
}

/// Answers to questions that have many ties.
fn answers(snapshot: &Snapshot, queries: &[f32]) -> Vec<Vec<(PointId, u32)>> {
    let mut answers = Vec::new();
    for query in queries.chunks_exact(snapshot.dim()) {
        for k in [1, 7, 40] {
            answers.push(snapshot.knn(query, k).unwrap());
        }
        answers.push(snapshot.within(query, 0.05).unwrap());
    }
    answers
        .iter()
        .map(|found| found.iter().map(|n| (n.id, n.distance.to_bits())).collect())
        .collect()
}

#[test]
fn neither_order_nor_batches_nor_geometry_change_an_answer() {
    const N: usize = 3000;
    let mut random = Random(4);
    let lattice: Vec<f32> = (0..N * 2).map(|_| random.below(30) as f32).collect();
    for (name, dim, points) in [("lattice", 2, lattice), ("uniform", 3, random.points(N, 3))] {
        let doomed: Vec<PointId> = (0..N as u64).filter(|_| random.below(5) == 0).collect();
        let mut queries = points[..40 * dim].to_vec();
        queries.extend(points[..20 * dim].iter().map(|x| x + 0.5));
        let mut right = None;
        for (order, batch, leaf_capacity) in [
            ("ascending", N, 32),
            ("descending", N, 32),
            ("shuffled", N, 32),
            ("shuffled", 700, 8),
            ("ascending", 61, 1),
            ("descending", 500, 2),
        ] {
            let mut ids: Vec<PointId> = (0..N as u64).collect();
            match order {
                "ascending" => {}
                "descending" => ids.reverse(),
                _ => (1..N).for_each(|i| ids.swap(i, random.below(i as u64 + 1) as usize)),
            }
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("s.tre");
            let mut store =
                Store::create_with(&path, tiny(dim, leaf_capacity), threads(2)).unwrap();
            for ids in ids.chunks(batch) {
                let rows: Vec<f32> = (ids.iter())
                    .flat_map(|&id| &points[id as usize * dim..][..dim])
                    .copied()
                    .collect();
                store.insert_with_ids(&rows, ids).unwrap();
            }
            let what = format!("{name}, {order}, batches of {batch}, B = {leaf_capacity}");
            let mut found = answers(&store.latest().unwrap(), &queries);
            store.delete(&doomed).unwrap();
            found.extend(answers(&store.latest().unwrap(), &queries));
            if batch == N {
                assert_sound(&store, &what);
            }
            assert!(*right.get_or_insert_with(|| found.clone()) == found, "{what}");
        }
    }
}
