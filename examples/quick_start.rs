//! A store from nothing: points in, neighbours out, and the same again after the program has ended.
//!
//! `cargo run --release --example quick_start`

use treering::{CreateOptions, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("points.tre");

    // A grid of 100 x 100 points; their ids are 0, 1, 2, ...
    let points: Vec<f32> = (0..10_000).flat_map(|i| [(i % 100) as f32, (i / 100) as f32]).collect();
    let mut store = Store::create(&path, CreateOptions::new(2))?;
    let report = store.insert(&points)?;
    println!("version {} has {} points", report.version, report.points);

    // The nearest first; of those equally near, the one with the least id.
    for neighbor in store.latest()?.knn(&[41.6, 17.2], 3)? {
        println!("{} at distance {}", neighbor.id, neighbor.distance);
    }

    // What was acknowledged is on the disk, whatever becomes of this process.
    drop(store);
    let snapshot = Store::open(&path)?.latest()?;
    let queries = [0.0, 0.0, 99.0, 99.0];
    for answer in snapshot.knn_batch(&queries, 2)?.iter() {
        println!("{answer:?}");
    }
    assert_eq!(snapshot.count_within(&[50.0, 50.0], 1.0)?, 5);
    Ok(())
}
