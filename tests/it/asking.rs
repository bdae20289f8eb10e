//! A question is put in many ways: whatever is narrowed, and whichever way is taken, the answer is
//! that of sorting all distances.

use treering::{CreateOptions, Method, Neighbor, QueryError, Snapshot, Store};

use crate::common::{Random, canonical_sum, threads};

const METHODS: [Method; 3] = [Method::Auto, Method::Tree, Method::Scan];

/// Points with many ties and some that are deleted, and what lives.
fn store(dim: usize, count: usize, seed: u64) -> (Store, Vec<(u64, Vec<f32>)>) {
    let mut random = Random(seed);
    let mut store = Store::in_memory(CreateOptions::new(dim), threads(2)).unwrap();
    let points: Vec<f32> = (0..count * dim).map(|_| random.below(7) as f32).collect();
    store.insert(&points).unwrap();
    let gone: Vec<u64> = (0..count as u64).filter(|id| id % 5 == 3).collect();
    store.delete(&gone).unwrap();
    let live = (0..).zip(points.chunks(dim)).filter(|(id, _)| id % 5 != 3);
    let live = live.map(|(id, row): (u64, &[f32])| (id, row.to_vec())).collect();
    (store, live)
}

/// All neighbours of a query, in order.
fn sorted(live: &[(u64, Vec<f32>)], query: &[f32]) -> Vec<Neighbor> {
    let neighbor = |(id, row): &(u64, Vec<f32>)| Neighbor {
        id: *id,
        distance: canonical_sum(query, row).sqrt(),
    };
    let mut all: Vec<Neighbor> = live.iter().map(neighbor).collect();
    all.sort_by(|a, b| a.distance.total_cmp(&b.distance).then(a.id.cmp(&b.id)));
    all
}

/// What is asked, and what must come.
fn check(snapshot: &Snapshot, live: &[(u64, Vec<f32>)], queries: &[f32]) {
    let dim = snapshot.dim();
    let all: Vec<Vec<Neighbor>> = queries.chunks(dim).map(|query| sorted(live, query)).collect();
    for method in METHODS {
        for k in [None, Some(0), Some(1), Some(10), Some(live.len() + 1)] {
            for radius in [None, Some(0.0), Some(2.0), Some(3.0), Some(f32::INFINITY)] {
                let what = format!("{method:?}, k {k:?}, radius {radius:?}");
                let ask = || {
                    let query = snapshot.query(queries).method(method);
                    let query = k.map_or(query.clone(), |k| query.k(k));
                    radius.map_or(query.clone(), |radius| query.within(radius))
                };
                let expected: Vec<&[Neighbor]> = all
                    .iter()
                    .map(|row| {
                        let far = |n: &Neighbor| radius.is_none_or(|radius| n.distance <= radius);
                        &row[..row.partition_point(far).min(k.unwrap_or(usize::MAX))]
                    })
                    .collect();
                let table = ask().run().unwrap();
                assert!(table.iter().eq(expected.iter().copied()), "{what}");
                assert_eq!(table.queries(), all.len(), "{what}");
                assert_eq!(table.offsets().len(), all.len() + 1, "{what}");
                assert_eq!(table.neighbors(), expected.concat(), "{what}");
                let counts: Vec<u64> = expected.iter().map(|row| row.len() as u64).collect();
                assert_eq!(ask().count().unwrap(), counts, "{what}");
                let mut unsorted: Vec<Vec<Neighbor>> =
                    ask().unsorted().run().unwrap().iter().map(<[_]>::to_vec).collect();
                let order = |a: &Neighbor, b: &Neighbor| {
                    a.distance.total_cmp(&b.distance).then(a.id.cmp(&b.id))
                };
                unsorted.iter_mut().for_each(|row| row.sort_by(order));
                assert!(unsorted.iter().eq(expected.iter().copied()), "{what}, unsorted");
            }
        }
    }
}

#[test]
fn every_way_of_asking_gives_what_sorting_gives() {
    for (dim, count, asked) in [(1, 50, 3), (3, 700, 17), (9, 400, 40), (2, 0, 2), (4, 4, 1)] {
        let (store, live) = store(dim, count, dim as u64);
        let queries: Vec<f32> = (0..asked * dim).map(|i| ((i * 37) % 29) as f32 / 4.0).collect();
        check(&store.latest().unwrap(), &live, &queries);
        check(&store.latest().unwrap(), &live, &[]);
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let (store, _) = store(3, 20, 1);
    let snapshot = store.latest().unwrap();
    for radius in [-1.0, f32::NAN] {
        let asked = snapshot.query(&[0.0; 3]).within(radius);
        assert!(matches!(asked.run(), Err(QueryError::Radius(_))));
        assert!(matches!(asked.count(), Err(QueryError::Radius(_))));
    }
    assert!(snapshot.query(&[0.0; 4]).k(1).run().is_err());
    assert!(snapshot.query(&[f32::NAN; 3]).k(1).run().is_err());
    assert!(snapshot.query(&[f32::INFINITY; 3]).count().is_err());
}
