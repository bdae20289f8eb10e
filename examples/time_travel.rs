//! Versions: each batch makes one, and every one goes on giving the answers that it gave.
//!
//! `cargo run --release --example time_travel`

use treering::{CreateOptions, Retention, Store, VersionId};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let mut store = Store::create(folder.path().join("points.tre"), CreateOptions::new(1))?;
    store.insert(&[0.0, 10.0, 20.0])?; // version 1: ids 0, 1, 2
    store.tag("before the move", VersionId(1))?;

    // Several changes that become one version together, or not at all.
    let mut change = store.begin();
    change.delete(&[1])?.insert(&[11.0])?.message("point 1 moved");
    change.commit()?; // version 2: ids 0, 2, 3

    let nearest = |snapshot: treering::Snapshot| -> Result<u64, treering::QueryError> {
        Ok(snapshot.knn(&[10.4], 1)?[0].id)
    };
    assert_eq!(nearest(store.latest()?)?, 3);
    assert_eq!(nearest(store.at(VersionId(1))?)?, 1);
    assert_eq!(nearest(store.at_tag("before the move")?)?, 1);

    for info in store.versions()? {
        println!("{} {:?}: {} points {}", info.version, info.kind, info.points, info.message);
    }
    let diff = store.diff(VersionId(1), VersionId(2))?;
    println!("added {:?}, removed {:?}", diff.added, diff.removed);

    // Going back costs a few blocks; what nobody keeps is let go.
    store.restore(VersionId(1))?;
    assert_eq!(nearest(store.latest()?)?, 1);
    let report = store.expire(Retention::new().keep_last(1))?;
    println!("expired {:?}; the tag keeps version 1", report.expired);
    assert_eq!(store.at_tag("before the move")?.len(), 3);
    Ok(())
}
