//! Backups: a received store is the same store, version by version and bit by bit, and a bad stream
//! changes nothing.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use treering::{
    AtError, BackupError, CreateOptions, OpenOptions, PointId, ReceiveError, ReceiveReport,
    Retention, Store, VersionId,
};

use crate::common::{Random, assert_sound, threads, tiny};
use crate::format::{Image, Spec, compare, contents, frames};

fn stream(store: &Store, since: Option<u64>) -> Vec<u8> {
    let mut out = Vec::new();
    let report = store.backup(since.map(VersionId), &mut out).unwrap();
    assert_eq!(report.bytes, out.len() as u64);
    assert_eq!(report.since.0, since.unwrap_or(0));
    out
}

fn receive(path: &Path, stream: &[u8]) -> Result<ReceiveReport, ReceiveError> {
    Store::receive(path, Cursor::new(stream), threads(1))
}

/// Both files hold the same versions and tags: rows of every array, records, answers.
fn assert_same(a: &Path, b: &Path, what: &str) {
    let spec = Spec::parse();
    let images = [a, b].map(|path| std::fs::read(path).unwrap());
    let [ours, theirs] = [0, 1].map(|i| contents(&spec, &images[i]));
    assert_eq!(ours.len(), theirs.len(), "{what}");
    assert!(ours == theirs, "{what}: the contents differ");
    let stores = [a, b].map(|path| Store::open_with(path, threads(1).read_only(true)).unwrap());
    assert_eq!(stores[0].tags().unwrap(), stores[1].tags().unwrap(), "{what}");
    for info in stores[0].versions().unwrap() {
        let checksums = stores.each_ref().map(|store| {
            let snapshot = store.at(info.version).unwrap();
            (store.stats(&snapshot).unwrap().checksum, snapshot.version())
        });
        assert_eq!(checksums[0], checksums[1], "{what}");
        let [ours, theirs] = [0, 1].map(|i| {
            let snapshot = stores[i].at(info.version).unwrap();
            let queries = Random(info.version.0).points(8, snapshot.dim());
            let table = snapshot.knn_batch(&queries, 7).unwrap();
            table.iter().map(<[_]>::to_vec).collect::<Vec<_>>()
        });
        assert_eq!(ours, theirs, "{what}: version {}", info.version);
    }
    for (store, image) in stores.iter().zip(&images) {
        compare(&spec, image, store);
    }
    assert_sound(&stores[1], what);
}

fn paths() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.tre"), dir.path().join("b.tre"));
    (dir, a, b)
}

#[test]
fn a_full_backup_and_twenty_increments() {
    let (_dir, path, copy) = paths();
    let mut store = Store::create_with(&path, tiny(2, 4), threads(1)).unwrap();
    let mut random = Random(1);
    for _ in 0..3 {
        store.insert(&random.points(60, 2)).unwrap();
    }
    store.tag("a", VersionId(2)).unwrap();
    let full = stream(&store, None);
    assert_eq!(receive(&copy, &full).unwrap().versions, 3);
    assert_same(&path, &copy, "full");
    for round in 0..20 {
        let since = store.latest().unwrap().version().0;
        match round % 5 {
            0 => drop(store.delete(&[round * 3, round * 3 + 1]).unwrap()),
            1 => drop(store.compact().unwrap()),
            2 => drop(store.restore(VersionId(since - 1)).unwrap()),
            3 => {}
            _ => store.tag(&format!("round {round}"), VersionId(since)).unwrap(),
        }
        store.insert(&random.points(20, 2)).unwrap();
        let increment = stream(&store, Some(since));
        assert!(increment.len() < stream(&store, None).len() / 2);
        receive(&copy, &increment).unwrap();
        assert_same(&path, &copy, &format!("increment {round}"));
        // Received twice, it does nothing.
        let spec = Spec::parse();
        let commit = || Image::new(&spec, &std::fs::read(&copy).unwrap()).commit;
        let before = commit();
        assert_eq!(receive(&copy, &increment).unwrap().versions, 0);
        assert_eq!(commit(), before);
    }
    // The whole again, into the copy and into a new file.
    let full = stream(&store, None);
    assert_eq!(receive(&copy, &full).unwrap().versions, 0);
    let other = path.with_file_name("c.tre");
    receive(&other, &full).unwrap();
    assert_same(&path, &other, "all at once");
    // The copy is a store like any other.
    drop(store);
    let mut store = Store::open_with(&copy, threads(1)).unwrap();
    store.insert(&random.points(5, 2)).unwrap();
    assert_sound(&store, "written to");
}

/// Histories with everything that moves versions about, at both ends.
#[test]
fn copies_keep_up_whatever_expires_where() {
    for seed in 0..40 {
        let (_dir, path, copy) = paths();
        let mut random = Random(seed);
        let mut store = Store::create_with(&path, tiny(1, 2), threads(1)).unwrap();
        let mut sent = 0;
        for step in 0..30 {
            let what = format!("history {seed}, step {step}");
            let newest = store.latest().unwrap().version().0;
            let any = VersionId(random.below(newest + 1));
            match random.below(9) {
                0..3 => drop(store.insert(&random.points(8, 1)).unwrap()),
                3 => {
                    let mut live: Vec<PointId> = Vec::new();
                    store.latest().unwrap().for_each(|id, _| live.push(id)).unwrap();
                    live.retain(|id| id % 3 == 0);
                    store.delete(&live).unwrap();
                }
                4 => drop(store.restore(any)),
                5 if random.below(3) == 0 => drop(store.compact().unwrap()),
                5 => drop(store.tag(&format!("t{}", random.below(3)), any)),
                6 => drop(store.expire(Retention::new().keep_last(1 + random.below(5))).unwrap()),
                7 if sent > 0 => {
                    let mut store = Store::open_with(&copy, threads(1)).unwrap();
                    let rule = Retention::new().keep_last(1 + random.below(4));
                    match random.below(3) {
                        0 => store.set_retention(rule).unwrap(),
                        _ => store.expire(rule).unwrap(),
                    };
                }
                _ if newest > 0 => {
                    let since = store.at(VersionId(sent)).ok().map(|s| s.version().0);
                    let bytes = stream(&store, since.filter(|&since| since > 0));
                    match receive(&copy, &bytes) {
                        Ok(report) => sent = report.newest.0,
                        // What it builds on has expired there: the way out is a new copy.
                        Err(ReceiveError::At(AtError::Expired { .. })) => {
                            std::fs::remove_file(&copy).unwrap();
                            receive(&copy, &stream(&store, None)).unwrap();
                            sent = newest;
                        }
                        Err(e) => panic!("{what}: {e}"),
                    }
                    assert_eq!(sent, newest, "{what}");
                }
                _ => {}
            }
            if sent == 0 {
                continue;
            }
            let received = Store::open_with(&copy, threads(1).read_only(true)).unwrap();
            compare(&Spec::parse(), &std::fs::read(&copy).unwrap(), &received);
            for info in received.versions().unwrap() {
                let Ok(ours) = store.at(info.version) else { continue };
                let theirs = received.at(info.version).unwrap();
                let [ours, theirs] = [ours, theirs].map(|snapshot| {
                    let mut points = Vec::new();
                    let mut add = |id, point: &[f32]| points.push((id, point.to_vec()));
                    snapshot.for_each(&mut add).unwrap();
                    points
                });
                assert_eq!(ours, theirs, "{what}: version {}", info.version);
            }
        }
    }
}

/// Where the frames of a stream begin, and where it ends.
fn starts_of(stream: &[u8]) -> Vec<usize> {
    let frames = frames(&Spec::parse(), stream);
    std::iter::once(0).chain(frames.into_iter().map(|frame| frame.1.end)).collect()
}

#[test]
fn bad_streams_change_nothing() {
    let (dir, path, copy) = paths();
    let mut store = Store::create_with(&path, tiny(2, 4), threads(1)).unwrap();
    let mut random = Random(2);
    for _ in 0..3 {
        store.insert(&random.points(30, 2)).unwrap();
    }
    let full = stream(&store, None);
    receive(&copy, &full).unwrap();
    store.insert(&random.points(30, 2)).unwrap();
    let fourth = stream(&store, Some(3));
    store.insert(&random.points(30, 2)).unwrap();
    let fifth = stream(&store, Some(4));
    let both = stream(&store, Some(3));
    // What a writer cuts off the end when it opens the file is not meant here.
    drop(Store::open_with(&copy, threads(1)).unwrap());
    let image = std::fs::read(&copy).unwrap();
    let new = dir.path().join("new.tre");
    let refused = |bytes: &[u8], what: &str| -> ReceiveError {
        let error = receive(&copy, bytes).map(|_| panic!("{what}: received")).unwrap_err();
        assert!(std::fs::read(&copy).unwrap() == image, "{what}: the store was changed");
        assert!(receive(&new, bytes).is_err() && !new.exists(), "{what}: a store was made");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "{what}: left behind");
        error
    };
    let starts = starts_of(&both);
    for &cut in starts[..starts.len() - 1].iter().chain(&[1, 15, 100, both.len() - 1]) {
        let error = refused(&both[..cut], &format!("cut at {cut}"));
        let expected = matches!(error, ReceiveError::Truncated | ReceiveError::Foreign);
        assert!(expected, "cut at {cut}: {error:?}");
    }
    for _ in 0..200 {
        let at = random.below(both.len() as u64) as usize;
        let mut hurt = both.clone();
        hurt[at] ^= 1 << random.below(8);
        refused(&hurt, &format!("byte {at}"));
    }
    for i in 1..starts.len() - 2 {
        let (a, b, c) = (starts[i], starts[i + 1], starts[i + 2]);
        let swapped = [&both[..a], &both[b..c], &both[a..b], &both[c..]].concat();
        if swapped != both {
            let error = refused(&swapped, &format!("frames {i} and {} swapped", i + 1));
            assert!(matches!(error, ReceiveError::Damaged { .. } | ReceiveError::Truncated));
        }
        refused(&[&both[..a], &both[b..]].concat(), &format!("frame {i} missing"));
    }
    let (a, b) = (starts_of(&fourth), starts_of(&fifth));
    refused(&[&fourth[..a[3]], &fifth[b[3]..]].concat(), "two streams joined");
    refused(&[&both[..], &[0]].concat(), "a byte too many");
    assert!(matches!(refused(b"", "nothing"), ReceiveError::Foreign));
    assert!(matches!(refused(&image, "a store"), ReceiveError::Foreign));
    match refused(&fifth, "out of order") {
        ReceiveError::MissingBase { base, newest } => assert_eq!((base.0, newest.0), (4, 3)),
        e => panic!("{e:?}"),
    }
    // Of another store, and of the same store after a fork.
    let mut other = Store::in_memory(tiny(2, 4), threads(1)).unwrap();
    other.insert(&[0.5, 0.5]).unwrap();
    let foreign = stream(&other, None);
    assert!(matches!(receive(&copy, &foreign), Err(ReceiveError::OtherStore)));
    assert!(std::fs::read(&copy).unwrap() == image);
    let mut fork = Store::open_with(&copy, threads(1)).unwrap();
    fork.insert(&[0.5, 0.5]).unwrap();
    assert!(matches!(receive(&copy, &fourth), Err(ReceiveError::Open(_))), "two writers");
    drop(fork);
    for bytes in [&fourth, &fifth, &both] {
        match receive(&copy, bytes) {
            Err(ReceiveError::Diverged { version }) => assert_eq!(version.0, 4),
            other => panic!("{other:?}"),
        }
    }
    let missing = store.backup(Some(VersionId(9)), Vec::new());
    assert!(matches!(missing, Err(BackupError::At(AtError::NoSuchVersion { .. }))));
}

#[test]
fn streams_carry_every_geometry() {
    for (dim, scale) in [(1, 300), (7, 200), (300, 40)] {
        let (_dir, path, copy) = paths();
        let options = CreateOptions::new(dim);
        let mut store = Store::create_with(&path, options, OpenOptions::new().threads(2)).unwrap();
        let mut random = Random(3);
        store.insert(&random.points(scale, dim)).unwrap();
        store.insert(&random.points(scale / 10, dim)).unwrap();
        receive(&copy, &stream(&store, None)).unwrap();
        assert_same(&path, &copy, &format!("{dim} dimensions"));
    }
}
