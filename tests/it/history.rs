//! The past by name and by time: tags that outlive everything, times that find their version,
//! versions gone back to.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use treering::{
    AtError, CommitError, CreateOptions, Diff, Neighbor, OpenOptions, PointId, Provenance,
    Snapshot, Store, TagError, VerifyOptions, VersionId, VersionKind, When,
};

use crate::common::{Random, assert_exact, assert_sound, threads, tiny};

/// A clock that starts here and advances one second per commit.
fn start() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn clocked() -> OpenOptions {
    threads(1).provenance(Provenance::Fixed { start: start(), seed: 1 })
}

fn listing(snapshot: &Snapshot) -> Vec<(PointId, Vec<f32>)> {
    let mut points = Vec::new();
    snapshot.for_each(|id, point| points.push((id, point.to_vec()))).unwrap();
    points
}

fn answers(snapshot: &Snapshot) -> Vec<Vec<Neighbor>> {
    let queries = Random(99).points(10, snapshot.dim());
    let table = snapshot.knn_batch(&queries, 5).unwrap();
    table.iter().map(<[_]>::to_vec).collect()
}

#[test]
fn a_time_finds_the_newest_version_not_after_it() {
    let mut store = Store::in_memory(tiny(2, 4), clocked()).unwrap();
    let now = start() + Duration::from_secs(100);
    assert!(matches!(store.as_of(now), Err(AtError::BeforeFirst { first: None, .. })));
    let mut random = Random(1);
    for version in 1..=9u64 {
        store.insert(&random.points(3, 2)).unwrap();
        // Tags take commits of their own, and so seconds of the clock.
        store.tag(&format!("v{version}"), VersionId(version)).unwrap();
    }
    let infos = store.versions().unwrap();
    for info in &infos {
        assert_eq!(store.as_of(info.time).unwrap().version(), info.version);
        let before = info.time - Duration::from_nanos(1);
        match info.version.0 {
            1 => match store.as_of(before) {
                Err(AtError::BeforeFirst { first: Some(first), .. }) => {
                    assert_eq!(first, info.time)
                }
                other => panic!("{other:?}"),
            },
            version => assert_eq!(store.as_of(before).unwrap().version().0, version - 1),
        }
        let later = info.time + Duration::from_millis(1500);
        assert_eq!(store.as_of(later).unwrap().version(), info.version);
    }
    assert_eq!(store.as_of(now).unwrap().version().0, 9);
    let far = [UNIX_EPOCH, UNIX_EPOCH - Duration::from_secs(1)];
    assert!(far.iter().all(|&time| store.as_of(time).is_err()));
    let end: When = "9999-12-30T00:00:00Z".parse().unwrap();
    assert_eq!(store.find(&end).unwrap().0, 9);
    assert_eq!(store.find(&VersionId(3).into()).unwrap().0, 3);
}

#[test]
fn tags_are_set_moved_and_taken_away_and_make_no_version() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let mut store = Store::create_with(&path, tiny(2, 4), threads(1)).unwrap();
    let mut random = Random(2);
    for _ in 0..4 {
        store.insert(&random.points(50, 2)).unwrap();
    }
    let reader = Store::open_with(&path, threads(1).read_only(true)).unwrap();
    // Against a model, in random order, with more names than one segment holds.
    let mut model = std::collections::BTreeMap::new();
    for _ in 0..120 {
        let name = format!("tag {}", random.below(30));
        if random.below(3) == 0 {
            assert_eq!(store.delete_tag(&name).is_ok(), model.remove(&name).is_some());
        } else {
            let version = VersionId(1 + random.below(4));
            store.tag(&name, version).unwrap();
            model.insert(name, version);
        }
        for store in [&store, &reader] {
            let tags = store.tags().unwrap();
            assert!(tags.iter().map(|tag| (&tag.name, &tag.version)).eq(&model));
        }
    }
    assert_eq!(store.versions().unwrap().len(), 4);
    store.insert(&random.points(50, 2)).unwrap();
    drop((store, reader));
    let mut store = Store::open_with(&path, threads(1)).unwrap();
    for (name, version) in &model {
        assert_eq!(store.at_tag(name).unwrap().version(), *version);
    }
    assert_sound(&store, "after tags");
    while let Some(tag) = store.tags().unwrap().pop() {
        store.delete_tag(&tag.name).unwrap();
    }
    assert!(
        matches!(store.at_tag("tag 1"), Err(AtError::NoSuchTag { tags, .. }) if tags.is_empty())
    );
    assert_sound(&store, "without tags");
}

#[test]
fn a_difference_costs_what_differs() {
    let mut store = Store::in_memory(CreateOptions::new(3), threads(2)).unwrap();
    let mut random = Random(6);
    store.insert(&random.points(60_000, 3)).unwrap();
    let deleted: Vec<PointId> = (0..3).map(|i| i * 19_999).collect();
    store.delete(&deleted).unwrap();
    store.insert(&random.points(60, 3)).unwrap();
    let diff = store.diff(VersionId(1), VersionId(3)).unwrap();
    assert_eq!(diff.removed, deleted);
    assert!(diff.added.iter().copied().eq(60_000..60_060) && diff.replaced.is_empty());
    let segments = store.verify(VerifyOptions::all()).unwrap().segments_checked;
    assert!(
        diff.segments_read * 8 < segments,
        "{} of {segments} segments were read",
        diff.segments_read
    );
    // The way back, and between equals.
    let back = store.diff(VersionId(3), VersionId(1)).unwrap();
    assert_eq!((back.added, back.removed), (diff.removed, diff.added));
    store.restore(VersionId(1)).unwrap();
    let none = store.diff(VersionId(1), VersionId(4)).unwrap();
    assert_eq!(none, Diff::default());
}

#[test]
fn a_tag_that_is_refused_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let mut store = Store::create_with(&path, tiny(1, 4), threads(1)).unwrap();
    store.insert(&[1.0]).unwrap();
    store.tag("x", VersionId(1)).unwrap();
    let before = std::fs::read(&path).unwrap();
    for name in ["", "12", "a\u{1b}b", "2026-11-25T22:00:00Z", &"n".repeat(113)] {
        let refused = store.tag(name, VersionId(1));
        assert!(matches!(refused, Err(TagError::Name { .. })), "{name:?}");
    }
    for version in [0, 2] {
        let refused = store.tag("y", VersionId(version));
        assert!(matches!(refused, Err(TagError::At(AtError::NoSuchVersion { .. }))));
    }
    assert!(matches!(store.delete_tag("y"), Err(TagError::At(AtError::NoSuchTag { .. }))));
    // Setting what is set already writes nothing.
    store.tag("x", VersionId(1)).unwrap();
    drop(store);
    let mut reader = Store::open_with(&path, threads(1).read_only(true)).unwrap();
    for refused in [reader.tag("y", VersionId(1)), reader.delete_tag("x")] {
        assert!(matches!(refused, Err(TagError::Commit(CommitError::ReadOnly))));
    }
    assert!(reader.restore(VersionId(1)).is_err());
    assert!(std::fs::read(&path).unwrap() == before);
}

#[test]
fn going_back_costs_a_few_blocks_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let mut store = Store::create_with(&path, tiny(3, 8), threads(1)).unwrap();
    let mut random = Random(3);
    store.insert(&random.points(3000, 3)).unwrap();
    store.insert(&random.points(300, 3)).unwrap();
    store.delete(&(0..1500).collect::<Vec<_>>()).unwrap();
    let seen: Vec<_> = (1..=3)
        .map(|version| {
            let snapshot = store.at(VersionId(version)).unwrap();
            (listing(&snapshot), answers(&snapshot))
        })
        .collect();

    let report = store.restore(VersionId(1)).unwrap();
    assert_eq!((report.version.0, report.points), (4, 3000));
    assert!(report.bytes_written < 40_000, "{} bytes for a restore", report.bytes_written);
    let restored = store.latest().unwrap();
    assert_eq!((listing(&restored), answers(&restored)), seen[0]);
    let info = restored.info().unwrap();
    assert_eq!((info.parent.0, info.kind), (1, VersionKind::Restore));
    assert_eq!((info.added, info.removed), (0, 0));

    // Ids of the time in between are not given out again.
    let report = store.insert(&random.points(10, 3)).unwrap();
    assert_eq!((report.version.0, report.points), (5, 3010));
    let ids: Vec<PointId> = listing(&store.latest().unwrap()).iter().map(|p| p.0).collect();
    assert!(ids[3000..].iter().copied().eq(3300..3310));

    // A transaction may go back first and go on from there; what it did before is dropped.
    let mut transaction = store.begin();
    transaction.insert(&random.points(7, 3)).unwrap();
    transaction.restore(VersionId(3)).unwrap();
    transaction.delete(&[1500]).unwrap();
    let report = transaction.commit().unwrap();
    assert_eq!((report.points, report.added, report.removed), (1799, 0, 1));
    let info = store.latest().unwrap().info().unwrap().clone();
    assert_eq!((info.parent.0, info.kind), (3, VersionKind::Delete));
    // Version 0 is the empty store.
    assert_eq!(store.restore(VersionId(0)).unwrap().points, 0);
    assert!(store.restore(VersionId(99)).is_err());
    store.restore(VersionId(6)).unwrap();

    for (version, seen) in (1..=3).zip(&seen) {
        let snapshot = store.at(VersionId(version)).unwrap();
        assert_eq!((&listing(&snapshot), &answers(&snapshot)), (&seen.0, &seen.1));
    }
    assert_exact(&store.latest().unwrap(), &random.points(100, 3), "restored");
    assert_sound(&store, "after going back and forth");
}
