//! Versions that share their syncs: what a crash leaves is a beginning of the history, whole, and
//! what was synced is in it.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use treering::{
    CommitError, CreateOptions, Durability, InsertError, OpenOptions, Provenance, Retention, Store,
    TagError, VerifyOptions, VersionId,
};

use crate::common::{Random, assert_sound, threads, tiny};
use crate::format::{Spec, compare};

fn deferred(versions: u32) -> OpenOptions {
    threads(1).durability(Durability::Deferred { versions })
}

/// The file as it is now, as after a crash: nothing that the process knows is in it.
fn crashed(path: &Path) -> PathBuf {
    let copy = path.with_extension("crashed");
    let _ = std::fs::remove_file(&copy);
    std::fs::copy(path, &copy).unwrap();
    copy
}

fn listing(store: &Store, version: u64) -> Vec<(u64, Vec<f32>)> {
    let mut points = Vec::new();
    let snapshot = store.at(VersionId(version)).unwrap();
    snapshot.for_each(|id, point| points.push((id, point.to_vec()))).unwrap();
    points
}

#[test]
fn a_crash_loses_the_newest_and_nothing_else() {
    for group in [2, 3, 4, 5, 8, 13] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.tre");
        let mut store = Store::create_with(&path, tiny(2, 4), deferred(group)).unwrap();
        let reader = Store::open_with(&path, threads(1).read_only(true)).unwrap();
        let mut random = Random(u64::from(group));
        let mut truth = vec![Vec::new()];
        let mut promised = 0;
        let mut grouped = 0;
        for version in 1..=60 {
            let what = format!("groups of {group}, version {version}");
            match random.below(4) {
                0 if version > 2 => drop(store.restore(VersionId(version - 2)).unwrap()),
                1 if version > 2 => {
                    let live = listing(&store, version - 1);
                    let ids: Vec<u64> = live.iter().map(|p| p.0).filter(|id| id % 5 == 0).collect();
                    // With a message it is a version even if no id is chosen.
                    let mut transaction = store.begin();
                    transaction.delete(&ids).unwrap().message("a fifth");
                    transaction.commit().unwrap();
                }
                _ => drop(store.insert(&random.points(6, 2)).unwrap()),
            }
            truth.push(listing(&store, version));
            match random.below(15) {
                0 => store.sync().unwrap(),
                1 => store.tag("here", VersionId(version)).unwrap(),
                _ => {}
            }
            // Others see what is on the disk, and that is what a crash leaves.
            let seen = reader.latest().unwrap().version().0;
            let copy = crashed(&path);
            let left = Store::open_with(&copy, threads(1).read_only(true)).unwrap();
            assert_eq!(left.latest().unwrap().version().0, seen, "{what}");
            assert!(seen >= promised && seen <= version, "{what}: {seen} is left");
            assert!(version - seen < u64::from(group), "{what}: {seen} is left");
            grouped += u64::from(seen < version);
            promised = seen;
            for back in [seen, random.below(seen + 1)] {
                assert_eq!(listing(&left, back), truth[back as usize], "{what}: version {back}");
            }
            if seen > 0 {
                compare(&Spec::parse(), &std::fs::read(&copy).unwrap(), &left);
            }
            drop(left);
            if random.below(6) == 0 {
                // Whoever goes on from there finds everything in order.
                let mut left = Store::open_with(&copy, deferred(group)).unwrap();
                left.insert(&random.points(3, 2)).unwrap();
                left.insert(&random.points(3, 2)).unwrap();
                drop(left);
                let left = Store::open_with(&copy, threads(1)).unwrap();
                assert_eq!(left.latest().unwrap().version().0, seen + 2, "{what}");
                assert_sound(&left, &what);
            }
        }
        assert!(grouped > 10, "groups of {group}: {grouped}");
        // Dropped, the store is whole.
        drop(store);
        let mut store = Store::open_with(&path, deferred(group)).unwrap();
        for version in 0..=60 {
            assert_eq!(listing(&store, version), truth[version as usize]);
        }
        store.insert(&[0.5, 0.5]).unwrap();
        store.expire(Retention::new().keep_last(3)).unwrap();
        assert_eq!(crashed_versions(&path), store.versions().unwrap().len());
        assert_sound(&store, "after an expiry");
    }
}

fn crashed_versions(path: &Path) -> usize {
    let store = Store::open_with(crashed(path), threads(1)).unwrap();
    store.versions().unwrap().len()
}

#[test]
fn a_commit_that_shared_its_syncs_is_confirmed_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let mut store = Store::create_with(&path, tiny(2, 4), deferred(50)).unwrap();
    let mut random = Random(7);
    for _ in 0..20 {
        store.insert(&random.points(10, 2)).unwrap();
    }
    store.sync().unwrap();
    drop(store);
    // As if the writer had died before it could leave its hint.
    let spec = Spec::parse();
    let mut image = std::fs::read(&path).unwrap();
    let hint = spec.hint_page();
    image[hint..hint + 4096].fill(0);
    std::fs::write(&path, image).unwrap();
    let mut store = Store::open_with(&path, threads(1)).unwrap();
    store.insert(&random.points(10, 2)).unwrap();
    assert_eq!(store.versions().unwrap().len(), 21);
    assert_sound(&store, "confirmed");
    drop(store);
    let store = Store::open_with(&path, threads(1)).unwrap();
    compare(&spec, &std::fs::read(&path).unwrap(), &store);
}

#[test]
fn a_saved_rule_waits_for_the_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let mut store = Store::create_with(&path, tiny(2, 4), deferred(10)).unwrap();
    store.set_retention(Retention::new().keep_last(4)).unwrap();
    let reader = Store::open_with(&path, threads(1).read_only(true)).unwrap();
    let mut random = Random(9);
    for version in 1..=100u64 {
        store.insert(&random.points(5, 2)).unwrap();
        let newest = reader.latest().unwrap().version().0;
        // Every version that another handle is told of can be opened by it.
        for info in reader.versions().unwrap() {
            assert_eq!(listing(&reader, info.version.0), listing(&store, info.version.0));
        }
        assert!(version - newest < 10 && store.versions().unwrap().len() <= 4 + 10 + 1);
    }
    store.sync().unwrap();
    assert_sound(&store, "in the end");
}

/// Versions that wait account for nothing, so a group costs what its versions cost one by one, or
/// less.
#[test]
fn a_large_group_costs_no_more_than_its_versions_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = [threads(1), deferred(10_000)].map(|open| {
        let path = dir.path().join("s.tre");
        let _ = std::fs::remove_file(&path);
        let mut store = Store::create_with(&path, CreateOptions::new(2), open).unwrap();
        let mut random = Random(3);
        for _ in 0..1_000 {
            store.insert(&random.points(1, 2)).unwrap();
        }
        store.sync().unwrap();
        assert_eq!(store.versions().unwrap().len(), 1_000);
        let report = store.verify(VerifyOptions::all()).unwrap();
        assert!(report.is_ok(), "{:?}", report.problems);
        std::fs::metadata(&path).unwrap().len()
    });
    println!("1,000 one-point versions: {} bytes one by one, {} in a group", sizes[0], sizes[1]);
    assert!(sizes[1] <= sizes[0], "{sizes:?}");
}

/// A group that has written much does not wait for more.
#[test]
fn a_group_ends_at_a_number_of_bytes_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let mut store = Store::create_with(&path, CreateOptions::new(64), deferred(10_000)).unwrap();
    let reader = Store::open_with(&path, threads(1).read_only(true)).unwrap();
    let mut random = Random(4);
    let mut written = 0;
    for version in 1..=40 {
        written += store.insert(&random.points(20_000, 64)).unwrap().bytes_written;
        let seen = reader.latest().unwrap().version().0;
        if seen > 0 {
            assert!(written > 64 << 20, "{written} bytes");
            return;
        }
        assert!(version < 40, "{written} bytes and still waiting");
    }
}

#[test]
fn a_file_that_has_lost_its_name_gets_no_commits() {
    let dir = tempfile::tempdir().unwrap();
    let [path, other] = ["s.tre", "other.tre"].map(|name| dir.path().join(name));
    let build = |path: &Path, open: OpenOptions| {
        let mut store = Store::create_with(path, tiny(2, 4), open).unwrap();
        store.insert(&Random(1).points(20, 2)).unwrap();
        store
    };
    type Loss = fn(&Path, &Path);
    let losses: [(&str, Loss); 3] = [
        ("deleted", |path, _| std::fs::remove_file(path).unwrap()),
        ("replaced", |path, other| std::fs::rename(other, path).unwrap()),
        ("renamed", |path, other| std::fs::rename(path, other).unwrap()),
    ];
    for (what, lose) in losses {
        for open in [threads(1), deferred(10)] {
            let _ = (std::fs::remove_file(&path), std::fs::remove_file(&other));
            drop(build(&other, threads(1)));
            let mut store = build(&path, open);
            lose(&path, &other);
            let there = std::fs::read(&path).ok();
            let refused = store.insert(&[0.5, 0.5]).map(drop).unwrap_err();
            let is_gone = matches!(refused, InsertError::Commit(CommitError::FileGone { .. }));
            assert!(is_gone, "{what}: {refused}");
            let refused = store.tag("x", VersionId(1)).unwrap_err();
            assert!(matches!(refused, TagError::Commit(CommitError::FileGone { .. })), "{what}");
            assert_eq!(store.latest().unwrap().version().0, 1, "{what}: reading goes on");
            if what == "replaced" {
                // Whoever opens the name writes to the file that has it.
                let mut second = Store::open_with(&path, threads(1)).unwrap();
                assert_eq!(second.insert(&[0.1, 0.1]).unwrap().version.0, 2);
                assert_sound(&second, what);
            } else {
                assert_eq!(std::fs::read(&path).ok(), there, "{what}");
            }
        }
    }
}

/// One wrong time, with a rule that keeps by age: nothing goes, the store says so, and goes on when
/// the clock is right.
#[test]
fn a_leap_of_the_clock_lets_nothing_expire() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let year = |year: u64| UNIX_EPOCH + Duration::from_secs((year - 1970) * 31_556_952);
    let at = |start| threads(1).provenance(Provenance::Fixed { start, seed: 1 });
    let mut store = Store::create_with(&path, tiny(2, 4), at(year(2026))).unwrap();
    store.set_retention(Retention::new().keep_for(Duration::from_secs(30 * 86_400))).unwrap();
    let mut random = Random(5);
    for _ in 0..5 {
        let report = store.insert(&random.points(5, 2)).unwrap();
        assert!(report.clock_behind.is_zero() && report.clock_leap.is_none());
    }
    drop(store);
    let mut store = Store::open_with(&path, at(year(2090))).unwrap();
    let report = store.insert(&random.points(5, 2)).unwrap();
    let leap = report.clock_leap.expect("told of");
    assert!(leap.from < year(2027) && leap.to >= year(2090));
    store.insert(&random.points(5, 2)).unwrap();
    assert_eq!(store.versions().unwrap().len(), 7);
    let report = store.expire(Retention::new().keep_for(Duration::from_secs(600))).unwrap();
    assert!(report.expired.is_empty() && report.clock_leap.is_some());
    drop(store);
    let mut store = Store::open_with(&path, at(year(2026))).unwrap();
    let report = store.insert(&random.points(5, 2)).unwrap();
    assert!(report.clock_behind > Duration::from_secs(60 * 31_556_952));
    let versions = store.versions().unwrap();
    assert_eq!(versions.len(), 8);
    let step = versions[7].time.duration_since(versions[6].time).unwrap();
    assert!(!step.is_zero() && step < Duration::from_secs(60), "{step:?} after the one before");
    // By number, versions go as ever.
    assert_eq!(store.expire(Retention::new().keep_last(2)).unwrap().expired.len(), 6);
    assert_sound(&store, "in the end");
}

/// A store is verified while another thread makes its waiting versions durable: what is compared is
/// of one commit.
#[test]
fn a_verification_beside_a_sync_finds_nothing() {
    let mut store = Store::in_memory(CreateOptions::new(2), deferred(100)).unwrap();
    let mut random = Random(3);
    for round in 0..600 {
        store.insert(&random.points(20, 2)).unwrap();
        store.insert(&random.points(20, 2)).unwrap();
        let (shared, pause) = (&store, Duration::from_micros(random.below(1500)));
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let start = std::time::Instant::now();
                while start.elapsed() < pause {
                    std::hint::spin_loop();
                }
                shared.sync().unwrap();
            });
            for _ in 0..6 {
                let report = shared.verify(VerifyOptions::all()).unwrap();
                assert!(report.is_ok(), "round {round}: {:?}", report.problems.first());
            }
        });
        // So that verifying stays cheap.
        if round % 5 == 4 {
            store.expire(Retention::new().keep_last(1)).unwrap();
        }
    }
}
