//! Exact means exact: tree and full scan agree bit for bit, on data made to break that.

use treering::Store;

use crate::common::{assert_exact, assert_sound, shapes, threads, tiny};

#[test]
fn awkward_shapes_in_one_batch_and_in_many() {
    for leaf_capacity in [1, 2, 32] {
        for (name, dim, points) in shapes(1500) {
            for batch in [points.len(), 37 * dim, 400 * dim] {
                let what = format!("{name}, B = {leaf_capacity}, batches of {}", batch / dim);
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join("s.tre");
                let mut store =
                    Store::create_with(&path, tiny(dim, leaf_capacity), threads(2)).unwrap();
                for batch in points.chunks(batch) {
                    store.insert(batch).unwrap();
                }
                let snapshot = store.latest().unwrap();
                assert_eq!(snapshot.len() as usize, points.len() / dim, "{what}");
                assert_exact(&snapshot, &points, &what);
                let newest = treering::VerifyOptions::latest().deep(true);
                let report = store.verify(newest).unwrap();
                assert!(report.is_ok(), "{what}: {:#?}", report.problems);
            }
        }
    }
}

#[test]
fn small_sound() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let mut store = Store::create_with(&path, tiny(2, 2), threads(2)).unwrap();
    let mut random = crate::common::Random(3);
    for _ in 0..20 {
        store.insert(&random.points(30, 2)).unwrap();
    }
    assert_sound(&store, "small");
}
