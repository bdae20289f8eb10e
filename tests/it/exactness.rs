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

/// A store filled in many batches answers, once compacted, with the work of one that was loaded at
/// once.
#[test]
fn compacting_packs_and_changes_no_answer() {
    for (name, dim, points) in shapes(1500) {
        let dir = tempfile::tempdir().unwrap();
        let open = || threads(1);
        let mut store = Store::create_with(dir.path().join("s"), tiny(dim, 8), open()).unwrap();
        for batch in points.chunks(100 * dim) {
            store.insert(batch).unwrap();
        }
        let rows = points.len() / dim;
        let dead: Vec<u64> = (0..rows as u64).filter(|id| id % 5 == 0).collect();
        store.delete(&dead).unwrap();
        let before = store.latest().unwrap();
        let report = store.compact().unwrap();
        let after = store.latest().unwrap();
        assert_eq!((report.added, report.removed, report.points), (0, 0, before.len()));
        assert_eq!(after.info().unwrap().kind, treering::VersionKind::Compact);
        let stats = store.stats(&after).unwrap();
        assert_eq!((stats.points, stats.live), (after.len(), after.len()), "no dead rows: {name}");

        let (ids, kept): (Vec<u64>, Vec<&[f32]>) =
            (0..).zip(points.chunks_exact(dim)).filter(|(id, _)| id % 5 != 0).unzip();
        let mut bulk = Store::in_memory(tiny(dim, 8), open()).unwrap();
        bulk.insert_with_ids(&kept.concat(), &ids).unwrap();
        let bulk = bulk.latest().unwrap();
        for k in [1, 10] {
            let packed = after.knn_batch(&points, k).unwrap();
            let loaded = bulk.knn_batch(&points, k).unwrap();
            assert_eq!(packed, loaded, "{name}: the same tree, so the same work");
            for (old, new) in before.knn_batch(&points, k).unwrap().iter().zip(packed.iter()) {
                assert_eq!(old, new, "{name}");
            }
        }
        assert_exact(&after, &points, name);
        // Life goes on, and older versions stay what they were.
        store.insert(&points[..dim]).unwrap();
        assert_eq!(before.len(), store.at(before.version()).unwrap().len());
        assert_sound(&store, name);
    }
    let mut store = Store::in_memory(tiny(2, 8), threads(1)).unwrap();
    store.insert(&[1.0, 2.0]).unwrap();
    store.delete(&[0]).unwrap();
    store.compact().unwrap();
    assert!(store.latest().unwrap().knn(&[0.0, 0.0], 3).unwrap().is_empty());
    store.insert(&[3.0, 4.0]).unwrap();
    assert_eq!(store.latest().unwrap().knn(&[0.0, 0.0], 3).unwrap()[0].id, 1);
    assert_sound(&store, "emptied, compacted, filled");
}
