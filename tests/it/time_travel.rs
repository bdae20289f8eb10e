//! Versions: what was true of one stays true, whatever is committed, refused, dropped or opened
//! beside it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use treering::{
    AtError, CancelToken, CommitError, CreateOptions, DeleteError, InsertError, Neighbor,
    OpenError, OpenOptions, PointId, PointsError, Provenance, QueryError, Report, Snapshot, Store,
    VerifyOptions, VersionId, VersionKind,
};

use crate::common::{Random, assert_exact, assert_sound, threads, tiny};

fn scratch_path() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    (dir, path)
}

/// Everything that a version says about some queries, as bits.
#[derive(Clone, Debug, PartialEq)]
struct Answers {
    found: Vec<Vec<(PointId, u32)>>,
    counts: Vec<u64>,
    listing: Vec<(PointId, Vec<u32>)>,
}

fn ask(snapshot: &Snapshot, queries: &[f32], radius: f32) -> Answers {
    let pairs = |found: Vec<Neighbor>| found.iter().map(|n| (n.id, n.distance.to_bits())).collect();
    let mut answers = Answers { found: Vec::new(), counts: Vec::new(), listing: Vec::new() };
    for query in queries.chunks_exact(snapshot.dim()) {
        answers.found.push(pairs(snapshot.knn(query, 10).unwrap()));
        answers.found.push(pairs(snapshot.within(query, radius).unwrap()));
        answers.counts.push(snapshot.count_within(query, radius).unwrap());
    }
    let list =
        |id, row: &[f32]| answers.listing.push((id, row.iter().map(|x| x.to_bits()).collect()));
    snapshot.for_each(list).unwrap();
    answers
}

#[test]
fn fifty_commits_do_not_change_an_older_version() {
    let (_dir, path) = scratch_path();
    let mut random = Random(1);
    let mut store = Store::create_with(&path, tiny(3, 8), threads(2)).unwrap();
    let queries = random.points(10, 3);
    let mut next: PointId = 0;
    let mut live: Vec<PointId> = Vec::new();
    let mut seen: Vec<(Snapshot, Answers)> = Vec::new();
    for commit in 0..56 {
        let inserted = if commit == 0 { 2000 } else { 5 + random.below(40) };
        let mut transaction = store.begin();
        if commit % 3 != 1 {
            transaction.insert(&random.points(inserted as usize, 3)).unwrap();
            live.extend(next..next + inserted);
            next += inserted;
        }
        if commit % 3 != 0 {
            let doomed: Vec<PointId> = (0..30)
                .map(|_| live.swap_remove(random.below(live.len() as u64) as usize))
                .collect();
            transaction.delete(&doomed).unwrap();
        }
        transaction.commit().unwrap();
        let snapshot = store.latest().unwrap();
        assert_eq!(snapshot.len(), live.len() as u64);
        let answers = ask(&snapshot, &queries, 0.2);
        assert!(seen.iter().all(|(_, earlier)| earlier.listing != answers.listing));
        seen.push((snapshot, answers));
        if commit % 11 == 0 {
            for (snapshot, answers) in &seen {
                assert!(ask(snapshot, &queries, 0.2) == *answers, "held {}", snapshot.version());
            }
        }
    }
    let reopened = Store::open_with(&path, threads(1).read_only(true)).unwrap();
    for (held, answers) in &seen {
        let version = held.version();
        assert!(ask(held, &queries, 0.2) == *answers, "held {version}");
        for store in [&store, &reopened] {
            assert!(ask(&store.at(version).unwrap(), &queries, 0.2) == *answers, "at {version}");
        }
    }
    // Snapshots outlive their store.
    drop((store, reopened));
    assert!(ask(&seen[0].0, &queries, 0.2) == seen[0].1);
}

#[test]
fn snapshots_and_readers_are_used_from_threads_while_the_writer_commits() {
    fn shared_between_threads<T: Send + Sync>() {}
    shared_between_threads::<Snapshot>();
    shared_between_threads::<Store>();

    let (_dir, path) = scratch_path();
    let mut random = Random(2);
    let mut store = Store::create_with(&path, tiny(2, 3), threads(1)).unwrap();
    store.insert(&random.points(500, 2)).unwrap();
    let pinned = store.latest().unwrap();
    let queries = random.points(8, 2);
    let right = ask(&pinned, &queries, 0.1);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            let (pinned, right, queries, done) = (pinned.clone(), &right, &queries, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    assert!(ask(&pinned, queries, 0.1) == *right, "the pinned version changed");
                }
            });
        }
        let (path, done_flag, queries) = (&path, &done, &queries);
        let reader = scope.spawn(move || {
            // Sees whole versions only, in order, through a handle of its own.
            let reader = Store::open_with(path, threads(1).read_only(true)).unwrap();
            let mut versions = BTreeSet::new();
            loop {
                let last_round = done_flag.load(Ordering::Relaxed);
                let snapshot = reader.latest().unwrap();
                let version = snapshot.version().0;
                assert!(versions.last().is_none_or(|last| *last <= version), "went back");
                versions.insert(version);
                assert_eq!(snapshot.len(), 500 + 7 * (version - 1));
                let asked = ask(&snapshot, queries, 0.1);
                assert_eq!(asked.listing.len() as u64, snapshot.len());
                if last_round {
                    return versions;
                }
            }
        });
        for commit in 0..40u64 {
            let mut transaction = store.begin();
            transaction.insert(&random.points(10, 2)).unwrap();
            transaction.delete(&Vec::from_iter(commit * 3..commit * 3 + 3)).unwrap();
            transaction.commit().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        let versions = reader.join().unwrap();
        assert_eq!(versions.last(), Some(&41), "the reader sees the newest version");
    });
    assert_sound(&store, "after concurrent readers");
}

#[test]
fn version_zero_is_empty_and_versions_to_come_are_not_there() {
    let (_dir, path) = scratch_path();
    let mut store = Store::create(&path, CreateOptions::new(2)).unwrap();
    assert_eq!(store.latest().unwrap().version(), VersionId(0));
    assert!(store.versions().unwrap().is_empty());
    store.insert(&[1.0, 2.0]).unwrap();
    store.insert(&[3.0, 4.0]).unwrap();
    let zero = store.at(VersionId(0)).unwrap();
    assert!(zero.is_empty() && zero.info().is_none());
    assert!(zero.knn(&[0.0, 0.0], 3).unwrap().is_empty());
    assert!(zero.brute_knn(&[0.0, 0.0], 3).unwrap().is_empty());
    assert!(zero.within(&[0.0, 0.0], f32::INFINITY).unwrap().is_empty());
    assert_eq!(zero.count_within(&[0.0, 0.0], f32::INFINITY).unwrap(), 0);
    assert_eq!(zero.get(0).unwrap(), None);
    let table = zero.knn_batch(&[0.0, 0.0, 1.0, 1.0], 3).unwrap();
    assert_eq!((table.queries(), table.neighbors().len()), (2, 0));
    for asked in [3, 4, u64::MAX] {
        let e = store.at(VersionId(asked)).unwrap_err();
        let AtError::NoSuchVersion { asked: a, newest } = e else { panic!("{e}") };
        assert_eq!((a, newest), (VersionId(asked), VersionId(2)));
        let e = store.verify(VerifyOptions::version(VersionId(asked))).unwrap_err();
        assert!(matches!(e, AtError::NoSuchVersion { .. }), "{e}");
    }
}

#[test]
fn each_version_keeps_a_record_of_how_it_was_made() {
    let (_dir, path) = scratch_path();
    let started = SystemTime::now();
    let mut store = Store::create(&path, tiny(1, 4)).unwrap();
    let longest = "ä".repeat(128);
    let inserted = store.insert(&[0.0, 1.0, 2.0]).unwrap();
    store.delete(&[1]).unwrap();
    let mut transaction = store.begin();
    transaction.insert(&[5.0, 6.0]).unwrap().insert_with_ids(&[7.0], &[1]).unwrap();
    transaction.delete(&[0, 4]).unwrap();
    transaction.message(&longest);
    transaction.commit().unwrap();
    let mut transaction = store.begin();
    transaction.message("nothing at all");
    transaction.commit().unwrap();
    let finished = SystemTime::now();
    drop(store);
    let store = Store::open(&path).unwrap();
    let records = store.versions().unwrap();
    // (kind, added, removed, points, message)
    let right = [
        (VersionKind::Insert, 3, 0, 3, ""),
        (VersionKind::Delete, 0, 1, 2, ""),
        (VersionKind::Mixed, 3, 2, 3, &longest[..]),
        (VersionKind::Insert, 0, 0, 3, "nothing at all"),
    ];
    assert_eq!(records.len(), right.len());
    for (i, (record, (kind, added, removed, points, message))) in
        records.iter().zip(right).enumerate()
    {
        assert_eq!((record.version.0, record.parent.0), (i as u64 + 1, i as u64));
        assert_eq!(record.kind, kind);
        assert_eq!((record.added, record.removed, record.points), (added, removed, points));
        assert_eq!(record.message, message);
        assert!(record.bytes_written > 0);
        assert_eq!(record.counters.bytes_written, record.bytes_written);
        assert!(started <= record.time && record.time <= finished, "{:?}", record.time);
        let snapshot = store.at(record.version).unwrap();
        assert_eq!(format!("{:?}", snapshot.info().unwrap()), format!("{record:?}"));
    }
    assert!(records.is_sorted_by(|a, b| a.time < b.time));
    assert_eq!(records[0].bytes_written, inserted.bytes_written);
    // All but what depends on the number of threads, which no byte of the file may.
    let kept = records[0].counters.iter().zip(inserted.counters.iter());
    for (kept, reported) in kept.filter(|(kept, _)| !kept.0.starts_with("pool_")) {
        assert_eq!(kept, reported);
    }
}

/// A clock that stands still, or goes back between two openings, must not give two versions one
/// time or wrong order.
#[test]
fn times_increase_even_if_the_clock_does_not() {
    let (_dir, path) = scratch_path();
    let second = |s| UNIX_EPOCH + Duration::from_secs(s);
    drop(Store::create(&path, tiny(1, 4)).unwrap());
    let starts = [9_000_000_000, 9_000_000_000, 8_999_999_999, 8_999_999_998, 8_000_000_000, 1];
    for start in starts {
        let provenance = Provenance::Fixed { start: second(start), seed: 1 };
        let mut store = Store::open_with(&path, threads(1).provenance(provenance)).unwrap();
        store.insert(&[1.0]).unwrap();
        store.insert(&[1.0]).unwrap();
    }
    let records = Store::open(&path).unwrap().versions().unwrap();
    assert_eq!(records.len(), 2 * starts.len());
    assert!(records.is_sorted_by(|a, b| a.time < b.time), "{records:#?}");
    assert!(records[0].time >= second(9_000_000_000));
    assert!(records.last().unwrap().time < second(9_000_000_060));
}

#[test]
fn a_message_has_256_bytes_at_most() {
    let (_dir, path) = scratch_path();
    let mut store = Store::create(&path, tiny(1, 4)).unwrap();
    let mut transaction = store.begin();
    transaction.insert(&[1.0]).unwrap();
    transaction.message(&"m".repeat(256));
    transaction.commit().unwrap();
    let before = fs::read(&path).unwrap();
    // 257 bytes of 129 characters: bytes count.
    let mut transaction = store.begin();
    transaction.insert(&[2.0]).unwrap();
    transaction.message(&format!("{}m", "ä".repeat(128)));
    let e = transaction.commit().unwrap_err();
    assert!(matches!(e, CommitError::Message { bytes: 257, limit: 256 }), "{e}");
    assert!(fs::read(&path).unwrap() == before);
    assert_eq!(store.versions().unwrap()[0].message.len(), 256);
    assert_eq!(store.insert(&[2.0]).unwrap().version, VersionId(2));
}

#[test]
fn a_reader_beside_the_writer_sees_new_versions_and_writes_nothing() {
    let (_dir, path) = scratch_path();
    let mut writer = Store::create_with(&path, tiny(2, 4), threads(1)).unwrap();
    let mut reader = Store::open_with(&path, threads(1).read_only(true)).unwrap();
    assert!(reader.latest().unwrap().is_empty());
    let mut random = Random(8);
    for version in 1..=30 {
        // Grows the file far beyond what the reader mapped when it opened it.
        writer.insert(&random.points(200, 2)).unwrap();
        let (seen, newest) = (reader.latest().unwrap(), writer.latest().unwrap());
        assert_eq!(seen.version(), VersionId(version));
        let query = random.points(1, 2);
        assert_eq!(seen.knn(&query, 5).unwrap(), newest.knn(&query, 5).unwrap());
        assert_eq!(reader.versions().unwrap().len() as u64, version);
    }
    let before = fs::read(&path).unwrap();
    let read_only = |e: CommitError| assert!(matches!(e, CommitError::ReadOnly), "{e}");
    for result in [reader.insert(&[0.5, 0.5]), reader.insert_with_ids(&[0.5, 0.5], &[1 << 50])] {
        let InsertError::Commit(e) = result.unwrap_err() else { panic!() };
        read_only(e);
    }
    let DeleteError::Commit(e) = reader.delete(&[0]).unwrap_err() else { panic!() };
    read_only(e);
    read_only(reader.begin().commit().unwrap_err());
    assert!(reader.verify(VerifyOptions::all().deep(true)).unwrap().is_ok());
    assert!(fs::read(&path).unwrap() == before);
    // The writer goes on, readers or not.
    writer.insert(&[0.5, 0.5]).unwrap();
    drop(writer);
    assert_eq!(reader.latest().unwrap().len(), 6001);
}

#[test]
fn one_writer_at_a_time() {
    let (_dir, path) = scratch_path();
    let store = Store::create(&path, tiny(1, 4)).unwrap();
    let before = fs::read(&path).unwrap();
    for _ in 0..2 {
        let e = Store::open(&path).unwrap_err();
        assert!(matches!(e, OpenError::Locked), "{e}");
    }
    let e = thread::scope(|s| s.spawn(|| Store::open(&path).unwrap_err()).join().unwrap());
    assert!(matches!(e, OpenError::Locked), "{e}");
    assert!(fs::read(&path).unwrap() == before);
    // A reader neither takes the lock nor, when it goes, gives away the writer's.
    drop(Store::open_with(&path, threads(1).read_only(true)).unwrap());
    assert!(matches!(Store::open(&path).unwrap_err(), OpenError::Locked));
    drop(store);
    let mut store = Store::open(&path).unwrap();
    store.insert(&[1.0]).unwrap();
    drop(store);
    let (store, _) =
        Store::build(path.with_extension("2"), tiny(1, 4), OpenOptions::new(), &[1.0], None, "")
            .unwrap();
    assert!(matches!(Store::open(path.with_extension("2")).unwrap_err(), OpenError::Locked));
    drop(store);
    Store::open(path.with_extension("2")).unwrap();
}

#[test]
fn a_dropped_transaction_leaves_no_trace() {
    let (_dir, path) = scratch_path();
    let mut store = Store::create(&path, tiny(2, 2)).unwrap();
    let mut random = Random(3);
    store.insert(&random.points(300, 2)).unwrap();
    let before = fs::read(&path).unwrap();
    let mut transaction = store.begin();
    transaction.insert(&random.points(1000, 2)).unwrap();
    transaction.delete(&Vec::from_iter(100..700)).unwrap();
    assert!(!transaction.contains(100).unwrap() && transaction.contains(700).unwrap());
    drop(transaction);
    assert!(fs::read(&path).unwrap() == before);
    // Its ids are free again.
    let report = store.insert(&[0.5, 0.5]).unwrap();
    assert_eq!((report.version, report.points), (VersionId(2), 301));
    assert!(store.latest().unwrap().contains(300).unwrap());
    assert_sound(&store, "after a dropped transaction");
}

/// Ids 0..40 and 1000, in two dimensions; 7 is dead.
fn small_store(path: &Path) -> Store {
    let mut store = Store::create_with(path, tiny(2, 4), threads(1)).unwrap();
    store.insert(&Random(9).points(40, 2)).unwrap();
    store.insert_with_ids(&[0.5, 0.5], &[1000]).unwrap();
    store.delete(&[7]).unwrap();
    store
}

/// What is wrong, a call that must be refused, and whether it was refused for that.
type Refused<E> = (&'static str, fn(&mut Store) -> Result<Report, E>, fn(&E) -> bool);

#[test]
fn a_refused_batch_leaves_the_file_byte_for_byte() {
    const BAD: f32 = 1e19;
    let (_dir, path) = scratch_path();
    let mut store = small_store(&path);
    let before = fs::read(&path).unwrap();
    let inserts: [Refused<InsertError>; 16] = [
        (
            "ragged",
            |s| s.insert(&[1.0, 2.0, 3.0]),
            |e| matches!(e, InsertError::Points(PointsError::Ragged { values: 3, dim: 2 })),
        ),
        (
            "NaN",
            |s| s.insert(&[1.0, 2.0, 3.0, f32::NAN]),
            |e| {
                let InsertError::Points(PointsError::NotFinite { row: 1, column: 1, value }) = e
                else {
                    return false;
                };
                value.is_nan()
            },
        ),
        (
            "infinity",
            |s| s.insert(&[1.0, 2.0, f32::INFINITY, 0.0, f32::NAN, 0.0]),
            |e| {
                matches!(
                    e,
                    InsertError::Points(PointsError::NotFinite {
                        row: 1,
                        column: 0,
                        value: f32::INFINITY
                    })
                )
            },
        ),
        (
            "-infinity with ids",
            |s| s.insert_with_ids(&[f32::NEG_INFINITY, 0.0], &[5000]),
            |e| matches!(e, InsertError::Points(PointsError::NotFinite { row: 0, column: 0, .. })),
        ),
        (
            "out of the domain",
            |s| s.insert(&[0.0, 0.0, 0.0, -BAD]),
            |e| {
                let InsertError::Points(PointsError::OutOfDomain {
                    row: 1,
                    column: 1,
                    value,
                    limit,
                }) = e
                else {
                    return false;
                };
                *value == -BAD && *limit < BAD && *limit > 1e15
            },
        ),
        (
            "too few ids",
            |s| s.insert_with_ids(&[1.0; 4], &[2000]),
            |e| matches!(e, InsertError::IdCount { ids: 1, points: 2 }),
        ),
        (
            "too many ids",
            |s| s.insert_with_ids(&[1.0; 4], &[2000, 2001, 2002]),
            |e| matches!(e, InsertError::IdCount { ids: 3, points: 2 }),
        ),
        (
            "ids without points",
            |s| s.insert_with_ids(&[], &[2000]),
            |e| matches!(e, InsertError::IdCount { ids: 1, points: 0 }),
        ),
        (
            "points without ids",
            |s| s.insert_with_ids(&[1.0, 1.0], &[]),
            |e| matches!(e, InsertError::IdCount { ids: 0, points: 1 }),
        ),
        (
            "id twice",
            |s| s.insert_with_ids(&[1.0; 8], &[2000, 2001, 2002, 2001]),
            |e| matches!(e, InsertError::DuplicateId { row: 3, first: 1, id: 2001 }),
        ),
        (
            "id twice, and again",
            |s| s.insert_with_ids(&[1.0; 8], &[9, 8000, 8000, 9]),
            |e| matches!(e, InsertError::DuplicateId { row: 2, first: 1, id: 8000 }),
        ),
        (
            "live id",
            |s| s.insert_with_ids(&[1.0; 6], &[2000, 7, 1000]),
            |e| matches!(e, InsertError::AlreadyLive { row: 2, id: 1000 }),
        ),
        (
            "live automatic id",
            |s| s.insert_with_ids(&[1.0; 2], &[39]),
            |e| matches!(e, InsertError::AlreadyLive { row: 0, id: 39 }),
        ),
        (
            "two live ids",
            |s| s.insert_with_ids(&[1.0; 6], &[7, 12, 11]),
            |e| matches!(e, InsertError::AlreadyLive { row: 1, id: 12 }),
        ),
        (
            "live in the transaction",
            |s| {
                let mut transaction = s.begin();
                transaction.insert_with_ids(&[1.0; 2], &[3000])?;
                transaction.insert_with_ids(&[2.0; 2], &[3000])?;
                unreachable!()
            },
            |e| matches!(e, InsertError::AlreadyLive { row: 0, id: 3000 }),
        ),
        (
            "too few automatic ids",
            |s| {
                let mut transaction = s.begin();
                transaction.insert_with_ids(&[1.0; 2], &[u64::MAX - 1])?;
                transaction.insert(&[2.0; 4])?;
                unreachable!()
            },
            |e| matches!(e, InsertError::IdsExhausted { last } if *last == u64::MAX - 1),
        ),
    ];
    for (what, call, right) in inserts {
        let e = call(&mut store).unwrap_err();
        assert!(right(&e), "{what}: {e:?}");
        assert!(!e.to_string().is_empty());
        assert!(fs::read(&path).unwrap() == before, "{what}: the file changed");
    }
    let deletes: [Refused<DeleteError>; 6] = [
        (
            "unknown",
            |s| s.delete(&[0, 1, 99, 98]),
            |e| matches!(e, DeleteError::UnknownId { index: 2, id: 99 }),
        ),
        ("dead", |s| s.delete(&[7]), |e| matches!(e, DeleteError::UnknownId { index: 0, id: 7 })),
        (
            "largest",
            |s| s.delete(&[3, u64::MAX]),
            |e| matches!(e, DeleteError::UnknownId { index: 1, id: u64::MAX }),
        ),
        (
            "twice",
            |s| s.delete(&[3, 4, 5, 4]),
            |e| matches!(e, DeleteError::DuplicateId { index: 3, first: 1, id: 4 }),
        ),
        (
            "deleted in the transaction",
            |s| {
                let mut transaction = s.begin();
                transaction.delete(&[1, 2])?;
                transaction.delete(&[3, 2])?;
                unreachable!()
            },
            |e| matches!(e, DeleteError::UnknownId { index: 1, id: 2 }),
        ),
        (
            "two transactions' worth",
            |s| {
                let mut transaction = s.begin();
                transaction.insert_with_ids(&[1.0; 2], &[3000]).unwrap();
                transaction.delete(&[3000])?.delete(&[3000])?;
                unreachable!()
            },
            |e| matches!(e, DeleteError::UnknownId { index: 0, id: 3000 }),
        ),
    ];
    for (what, call, right) in deletes {
        let e = call(&mut store).unwrap_err();
        assert!(right(&e), "{what}: {e:?}");
        assert!(fs::read(&path).unwrap() == before, "{what}: the file changed");
    }
    assert_eq!(store.latest().unwrap().len(), 40);
    let report = store.insert(&[1.0, 1.0]).unwrap();
    assert_eq!(report.version, VersionId(4));
    assert!(store.latest().unwrap().contains(1001).unwrap(), "no refused id was used up");
    assert_sound(&store, "after refusals");
}

#[test]
fn a_refused_step_leaves_the_transaction_as_it_was() {
    let (_dir, path) = scratch_path();
    let mut store = small_store(&path);
    let mut transaction = store.begin();
    transaction.insert_with_ids(&[0.25, 0.25], &[50]).unwrap();
    assert!(transaction.insert(&[f32::NAN, 0.0]).is_err());
    assert!(transaction.insert_with_ids(&[1.0; 4], &[51, 50]).is_err());
    assert!(transaction.delete(&[0, 1, 51]).is_err());
    assert!(transaction.delete(&[0, 0]).is_err());
    assert!(transaction.contains(0).unwrap() && !transaction.contains(51).unwrap());
    transaction.delete(&[0]).unwrap();
    let report = transaction.commit().unwrap();
    assert_eq!((report.added, report.removed, report.points), (1, 1, 40));
    assert_sound(&store, "after refused steps");
}

#[test]
fn automatic_ids_end_at_the_largest() {
    let (_dir, path) = scratch_path();
    let mut store = Store::create_with(&path, tiny(1, 4), threads(1)).unwrap();
    store.insert_with_ids(&[1.0], &[u64::MAX - 3]).unwrap();
    let e = store.insert(&[1.0; 4]).unwrap_err();
    assert!(matches!(e, InsertError::IdsExhausted { last } if last == u64::MAX - 3), "{e:?}");
    store.insert(&[2.0, 3.0, 4.0]).unwrap();
    assert!(store.latest().unwrap().contains(u64::MAX).unwrap());
    // The end is kept in the file, and the death of the last id does not bring it back.
    for round in 0..3 {
        let before = fs::read(&path).unwrap();
        let e = store.insert(&[5.0]).unwrap_err();
        assert!(matches!(e, InsertError::IdsExhausted { last: u64::MAX }), "{round}: {e:?}");
        assert!(fs::read(&path).unwrap() == before);
        match round {
            0 => drop(store.delete(&[u64::MAX]).unwrap()),
            _ => {
                drop(store);
                store = Store::open(&path).unwrap();
            }
        }
    }
    store.insert(&[]).unwrap();
    store.insert_with_ids(&[6.0, 7.0], &[u64::MAX, 12]).unwrap();
    assert_eq!(store.latest().unwrap().knn(&[6.0], 1).unwrap()[0].id, u64::MAX);
    assert_eq!(store.latest().unwrap().len(), 5);
    assert_sound(&store, "ids at the end");
}

/// Interrupted before writing, or while writing what no version refers to: the file keeps its
/// length, its versions and its answers, and in the first case every byte.
#[test]
fn a_cancelled_operation_leaves_the_store_as_it_was() {
    let (_dir, path) = scratch_path();
    let queries = Random(2).points(5, 2);
    let right = ask(&small_store(&path).latest().unwrap(), &queries, 0.2);
    let before = fs::read(&path).unwrap();
    let token = CancelToken::default();
    let mut store = Store::open_with(&path, threads(2).cancel(token.clone())).unwrap();
    token.cancel();
    let e = store.insert(&Random(1).points(5000, 2)).unwrap_err();
    assert!(matches!(e, InsertError::Interrupted), "{e:?}");
    assert!(fs::read(&path).unwrap() == before);
    let e = store.delete(&[1, 2, 3]).unwrap_err();
    match e {
        DeleteError::Interrupted => assert!(fs::read(&path).unwrap() == before),
        DeleteError::Commit(CommitError::Interrupted) => {
            assert_eq!(fs::read(&path).unwrap().len(), before.len());
        }
        e => panic!("{e:?}"),
    }
    assert!(ask(&store.latest().unwrap(), &queries, 0.2) == right);
    drop(store);
    let mut store = Store::open(&path).unwrap();
    assert_eq!(store.latest().unwrap().version(), VersionId(3));
    assert!(ask(&store.latest().unwrap(), &queries, 0.2) == right);
    assert_eq!(store.delete(&[1, 2, 3]).unwrap().version, VersionId(4));
    assert!(ask(&store.at(VersionId(3)).unwrap(), &queries, 0.2) == right);
    assert_sound(&store, "after cancelled operations");
}

#[test]
fn questions_that_make_no_sense_are_refused() {
    let (_dir, path) = scratch_path();
    let snapshot = small_store(&path).latest().unwrap();
    let nan = f32::NAN;
    let dimension = |e: QueryError| {
        let right = QueryError::Query(PointsError::Dimension { expected: 2, found: 0 });
        let shape = std::mem::discriminant(&e) == std::mem::discriminant(&right);
        assert!(shape && e.to_string().contains("dimensions"), "{e:?}");
    };
    for query in [&[][..], &[0.0], &[0.0; 3], &[0.0; 4]] {
        dimension(snapshot.knn(query, 1).unwrap_err());
        dimension(snapshot.brute_knn(query, 1).unwrap_err());
        dimension(snapshot.within(query, 1.0).unwrap_err());
        dimension(snapshot.brute_within(query, 1.0).unwrap_err());
        dimension(snapshot.count_within(query, 1.0).unwrap_err());
        dimension(snapshot.searcher().knn(query, 1).unwrap_err());
        dimension(snapshot.searcher().within(query, 1.0).unwrap_err());
    }
    let e = snapshot.knn(&[0.0, nan], 1).unwrap_err();
    assert!(matches!(e, QueryError::Query(PointsError::NotFinite { row: 0, column: 1, .. })));
    let e = snapshot.knn(&[1e30, 0.0], 1).unwrap_err();
    assert!(matches!(e, QueryError::Query(PointsError::OutOfDomain { row: 0, column: 0, .. })));
    for radius in [-1.0, -f32::MIN_POSITIVE, f32::NEG_INFINITY, nan] {
        for e in [
            snapshot.within(&[0.0, 0.0], radius).unwrap_err(),
            snapshot.brute_within(&[0.0, 0.0], radius).unwrap_err(),
            snapshot.searcher().within(&[0.0, 0.0], radius).map(drop).unwrap_err(),
            snapshot.count_within(&[0.0, 0.0], radius).unwrap_err(),
        ] {
            assert!(matches!(e, QueryError::Radius(_)), "{radius}: {e:?}");
        }
    }
    assert_eq!(snapshot.count_within(&[0.0, 0.0], -0.0).unwrap(), 0, "-0 is 0");
    for queries in [&[0.0, 0.0, 1.0][..], &[0.0, 0.0, 0.0, nan]] {
        assert!(snapshot.knn_batch(queries, 1).is_err());
        assert!(snapshot.brute_knn_batch(queries, 1).is_err());
    }
    assert_eq!(snapshot.knn_batch(&[], 1).unwrap().queries(), 0);
    assert_eq!(snapshot.knn(&[0.0, 0.0], usize::MAX).unwrap().len(), 40);
}

#[test]
fn a_hundred_points_into_a_hundred_thousand_write_little() {
    let (_dir, path) = scratch_path();
    let mut random = Random(6);
    let points = random.points(100_000, 3);
    let (mut store, built) =
        Store::build(&path, CreateOptions::new(3), threads(2), &points, None, "").unwrap();
    assert!(built.bytes_written > 1_200_000, "all coordinates are written");
    assert_eq!(built.counters.cow_segments, 0, "there was nothing to copy");
    let queries = random.points(10, 3);
    let mut answers = vec![ask(&store.latest().unwrap(), &queries, 0.02)];
    // The same shape twice over: each new point lies beside a point that was there, the same one
    // each time.
    let places = random.points(100, 3);
    for round in 0..4 {
        let before = fs::read(&path).unwrap();
        let length = store.file_bytes() as usize;
        let batch: Vec<f32> = places.iter().map(|x| x + random.unit() * 1e-6).collect();
        let report = store.insert(&batch).unwrap();
        assert_eq!((report.added, report.points), (100, 100_100 + 100 * round));
        assert!(report.bytes_written < 1_310_720, "{} bytes written", report.bytes_written);
        assert_eq!(report.counters.bytes_written, report.bytes_written);
        let (segments, copied) = (report.counters.cow_segments, report.counters.cow_bytes_copied);
        assert!((1..=320).contains(&segments), "{segments} segments copied");
        assert!(copied > 0 && copied < report.bytes_written, "{copied} bytes copied");
        if round > 0 {
            assert_eq!(report.counters.pool_grow_bytes, 0, "scratch grew in round {round}");
        }
        assert!(report.counters.pool_reuse_hits > 0 || report.counters.splits == 0);
        // What was there is shared: no more of the old file changed than was written, and far from
        // all of it.
        let after = fs::read(&path).unwrap();
        let old = before[..length].chunks(4096).zip(after.chunks(4096));
        let changed = old.filter(|(before, after)| !after.starts_with(before)).count() as u64;
        assert!(changed * 4096 <= report.bytes_written + 4 * 4096, "{changed} blocks changed");
        let grown = store.file_bytes() as usize - length.min(store.file_bytes() as usize);
        assert!(grown < 1_310_720, "the file grew by {grown} bytes");
        for (version, right) in answers.iter().enumerate() {
            let snapshot = store.at(VersionId(version as u64 + 1)).unwrap();
            assert!(ask(&snapshot, &queries, 0.02) == *right, "version {}", version + 1);
        }
        answers.push(ask(&store.latest().unwrap(), &queries, 0.02));
    }
    let deleted = store.delete(&Vec::from_iter((0..100).map(|i| i * 997))).unwrap();
    assert!(deleted.bytes_written < 1_310_720, "{} bytes written", deleted.bytes_written);
    for (version, right) in answers.iter().enumerate() {
        let snapshot = store.at(VersionId(version as u64 + 1)).unwrap();
        assert!(ask(&snapshot, &queries, 0.02) == *right, "version {}", version + 1);
    }
    assert_exact(&store.latest().unwrap(), &points, "100,300 points");
}

/// Points that are all equal: nothing but the id tells them apart, and no split can separate them.
#[test]
fn thousands_of_twins() {
    for leaf_capacity in [1, 32] {
        let (_dir, path) = scratch_path();
        let options = CreateOptions::new(3).leaf_capacity(leaf_capacity);
        let mut store = Store::create_with(&path, options, threads(2)).unwrap();
        let here = [0.5, -2.0, 1e9];
        let beside = [0.5, -2.0, 0.0];
        let mut live: BTreeSet<PointId> = (0..5000).collect();
        let mut histories = Vec::new();
        store.insert(&here.repeat(5000)).unwrap();
        histories.push(live.clone());
        for round in 0..4u64 {
            let first = 5000 + round * 300;
            let doomed: Vec<PointId> =
                live.iter().copied().filter(|id| id % 7 == round || *id == first - 1).collect();
            let mut transaction = store.begin();
            transaction.insert(&here.repeat(300)).unwrap();
            transaction.delete(&doomed).unwrap();
            transaction.commit().unwrap();
            live.extend(first..first + 300);
            live.retain(|id| doomed.binary_search(id).is_err());
            histories.push(live.clone());
        }
        // Some of the dead come back, as twins again.
        let back: Vec<PointId> = (0..5000).filter(|id| !live.contains(id)).step_by(3).collect();
        store.insert_with_ids(&here.repeat(back.len()), &back).unwrap();
        live.extend(back);
        histories.push(live.clone());
        for (version, live) in histories.iter().enumerate() {
            let what = format!("B = {leaf_capacity}, version {}", version + 1);
            let snapshot = store.at(VersionId(version as u64 + 1)).unwrap();
            let live: Vec<PointId> = live.iter().copied().collect();
            let n = live.len();
            assert_eq!(snapshot.len(), n as u64, "{what}");
            for (query, distance) in [(here, 0.0), (beside, 1e9)] {
                for k in [0, 1, 2, 31, 32, 33, n / 2, n - 1, n, n + 1] {
                    let found = snapshot.knn(&query, k).unwrap();
                    let ids: Vec<PointId> = found.iter().map(|n| n.id).collect();
                    assert_eq!(ids, live[..k.min(n)], "{what}, k {k}");
                    assert!(found.iter().all(|n| n.distance == distance), "{what}, k {k}");
                }
                let all = snapshot.within(&query, distance).unwrap();
                assert!(all.iter().map(|n| n.id).eq(live.iter().copied()), "{what}");
                assert_eq!(snapshot.count_within(&query, distance).unwrap(), n as u64, "{what}");
            }
            let nearly = 1e9f32.next_down();
            assert_eq!(snapshot.count_within(&beside, nearly).unwrap(), 0, "{what}");
        }
        let e = store.insert_with_ids(&here, &[live.first().copied().unwrap()]).unwrap_err();
        assert!(matches!(e, InsertError::AlreadyLive { .. }), "{e}");
        store.delete(&Vec::from_iter(live)).unwrap();
        assert!(store.latest().unwrap().knn(&here, 3).unwrap().is_empty());
        assert_sound(&store, "twins");
    }
}
