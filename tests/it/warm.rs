//! A searcher that has warmed up asks the allocator for nothing.

use treering::{CreateOptions, Store};

use crate::allocation::allocations;
use crate::common::{Random, threads, tiny};

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
    assert_eq!(allocations(|| ()), 0);
}

/// Uniform rows with some twins, in several versions with deletes.
fn stores(dir: &std::path::Path) -> Vec<(&'static str, Store, Vec<f32>)> {
    let mut random = Random(77);
    let mut stores = Vec::new();
    for (name, dim, options) in [
        ("defaults", 3, CreateOptions::new(3)),
        ("tiny", 3, tiny(3, 2)),
        ("wide", 24, CreateOptions::new(24)),
    ] {
        let mut store = Store::create_with(dir.join(name), options, threads(1)).unwrap();
        let mut points = random.points(6_000, dim);
        for i in 0..500 {
            points.copy_within(0..dim, (i * 11 + 1) * dim);
        }
        for batch in points.chunks(2_000 * dim) {
            store.insert(batch).unwrap();
        }
        store.delete(&Vec::from_iter((0..600).map(|i| i * 7))).unwrap();
        stores.push((name, store, points));
    }
    stores
}

#[test]
fn a_warm_searcher_allocates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(5);
    for (name, store, points) in stores(dir.path()) {
        let snapshot = store.latest().unwrap();
        let dim = snapshot.dim();
        let mut queries = random.points(100, dim);
        queries.extend_from_slice(&points[..50 * dim]);
        for k in [0, 1, 10, 100, 10_000] {
            let mut searcher = snapshot.searcher();
            let mut round = || {
                for query in queries.chunks_exact(dim) {
                    std::hint::black_box(searcher.knn(query, k).unwrap());
                }
            };
            // Where scanning is cheaper, one query in 64 still tries the tree; after this many
            // rounds each of them has.
            (0..32).for_each(|_| round());
            assert_eq!(allocations(&mut round), 0, "{name}: knn, k {k}");
            assert_eq!(allocations(&mut round), 0, "{name}: knn, k {k}, again");
        }
        for radius in [0.0, 0.05, 0.3, f32::INFINITY] {
            let mut searcher = snapshot.searcher();
            let mut round = || {
                for query in queries.chunks_exact(dim) {
                    std::hint::black_box(searcher.within(query, radius).unwrap());
                }
            };
            round();
            assert_eq!(allocations(&mut round), 0, "{name}: within, radius {radius}");
            let round = || {
                for query in queries.chunks_exact(dim) {
                    std::hint::black_box(snapshot.count_within(query, radius).unwrap());
                }
            };
            round();
            assert_eq!(allocations(round), 0, "{name}: count_within, radius {radius}");
        }
    }
}

/// The scratch goes back to the snapshot: a new searcher, or a single query, starts warm.
#[test]
fn a_second_searcher_starts_warm() {
    let dir = tempfile::tempdir().unwrap();
    for (name, store, points) in stores(dir.path()) {
        let snapshot = store.latest().unwrap();
        let query = &points[..snapshot.dim()];
        let round = || {
            std::hint::black_box(snapshot.searcher().knn(query, 10).unwrap());
        };
        round();
        assert_eq!(allocations(round), 0, "{name}: knn by a searcher of its own");
        // The one allocation is the answer.
        assert_eq!(allocations(|| drop(snapshot.knn(query, 10).unwrap())), 1, "{name}: one knn");
    }
}
