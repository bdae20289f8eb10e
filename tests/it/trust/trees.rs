//! Data on which a tree that is slightly wrong gives wrong answers: whole numbers, which meet
//! powers of two, points that arrive far outside, near-duplicates on the way to a center, and
//! distances at the edge of what f32 can tell.

use treering::{OpenOptions, Store};

use crate::common::{Random, assert_exact, assert_sound, threads, tiny};

#[test]
pub(crate) fn awkward_data_stays_exact() {
    whole_numbers();
    points_outside(threads(1));
    rounded_distances();
}

/// Sums on a lattice are powers of four again and again; a level too high there breaks cover or
/// separation.
fn whole_numbers() {
    let mut store = Store::in_memory(tiny(3, 2), threads(1)).unwrap();
    let lattice: Vec<f32> =
        (0..512).flat_map(|i| [i % 8, i / 8 % 8, i / 64]).map(|x| x as f32).collect();
    for batch in lattice.chunks(150) {
        store.insert(batch).unwrap();
    }
    assert_sound(&store, "whole numbers");
    assert_exact(&store.latest().unwrap(), &lattice, "whole numbers");
}

/// Each batch lies farther out than the ones before, so radii of nodes near the root must grow.
fn points_outside(open: OpenOptions) {
    let mut store = Store::in_memory(tiny(9, 4), open).unwrap();
    let mut random = Random(6);
    let mut all = random.points(300, 9);
    store.insert(&all).unwrap();
    for round in 1..8 {
        let batch: Vec<f32> = random.points(3, 9).iter().map(|x| x * (round + 1) as f32).collect();
        store.insert(&batch).unwrap();
        all.extend(batch);
        assert_exact(&store.latest().unwrap(), &all, "points outside");
    }
    assert_sound(&store, "points outside");
}

/// A bound that forgets about rounding loses near-duplicates of the query that lie on the way to a
/// far center.
fn rounded_distances() {
    let mut random = Random(8);
    for (dim, scale) in [(1, 1e-21), (3, 1e-21), (16, 1.0), (24, 1.0), (12, 1e-22)] {
        let mut store = Store::in_memory(tiny(dim, 2), threads(1)).unwrap();
        let mut points: Vec<f32> = random.points(60, dim).iter().map(|x| x * scale).collect();
        // Many points just inside the radius of some node: on the segment between two others, very
        // near its end.
        for _ in 0..600 {
            let (a, b) = (random.below(60) as usize * dim, random.below(60) as usize * dim);
            let t = 1.0 - random.unit() * 2e-7;
            let between = (0..dim).map(|i| points[a + i] + (points[b + i] - points[a + i]) * t);
            let row: Vec<f32> = between.collect();
            points.extend(row);
        }
        store.insert(&points).unwrap();
        let snapshot = store.latest().unwrap();
        assert_exact(&snapshot, &points, &format!("rounding, {dim} dimensions, scale {scale}"));
        for query in points.chunks_exact(dim) {
            let found = snapshot.knn(query, 2).unwrap();
            assert_eq!(found, snapshot.brute_knn(query, 2).unwrap(), "{dim} dimensions, {scale}");
        }
    }
}
