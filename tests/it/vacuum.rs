//! A store written anew: nothing of it is lost, readers go on, who waits gets the new file, and the
//! file is as short as it can be.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use treering::{OpenOptions, Retention, Store, VacuumError, VersionId};

use crate::common::{Random, assert_sound, threads, tiny};

/// Points, times and numbers of all versions, tags and the rule.
fn everything(store: &Store) -> String {
    let rows = |version| {
        let mut rows = BTreeMap::new();
        let snapshot = store.at(version).unwrap();
        snapshot.for_each(|id, row| drop(rows.insert(id, row.to_vec()))).unwrap();
        rows
    };
    let versions = store.versions().unwrap();
    let versions: Vec<_> =
        versions.iter().map(|v| (v.version, v.time, v.message.clone(), rows(v.version))).collect();
    let tags = store.tags().unwrap();
    format!("{versions:?} {tags:?} {}", store.retention().unwrap())
}

fn length_and_space(path: &Path) -> (u64, u64) {
    let metadata = path.metadata().unwrap();
    (metadata.len(), metadata.blocks() * 512)
}

#[test]
fn nothing_is_lost_and_the_holes_are() {
    let dir = tempfile::tempdir().unwrap();
    let (path, link) = (dir.path().join("s.tre"), dir.path().join("link.tre"));
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let mut store = Store::create_with(&path, tiny(2, 4), threads(1)).unwrap();
    let mut random = Random(1);
    store.set_retention(Retention::new().keep_last(5)).unwrap();
    for round in 0..80 {
        let ids: Vec<u64> = {
            let mut ids = Vec::new();
            store.latest().unwrap().for_each(|id, _| ids.push(id)).unwrap();
            ids.into_iter().filter(|id| id % 3 == round % 3).collect()
        };
        let mut transaction = store.begin();
        transaction.insert(&random.points(40, 2)).unwrap();
        transaction.delete(&ids).unwrap().message("round");
        transaction.commit().unwrap();
    }
    store.tag("kept", VersionId(79)).unwrap();
    let before = everything(&store);
    let held = Store::open_with(&path, threads(1).read_only(true)).unwrap();
    let snapshot = held.at(VersionId(78)).unwrap();
    let answers = snapshot.knn(&[0.5, 0.5], 9).unwrap();

    // Another writer keeps it away.
    assert!(Store::vacuum(&path, threads(1)).is_err());
    drop(store);
    // So does another name, under which the old file would go on beside the new one.
    let other = dir.path().join("other.tre");
    std::fs::hard_link(&path, &other).unwrap();
    let e = Store::vacuum(&path, threads(1)).unwrap_err();
    assert!(matches!(e, VacuumError::OtherNames { names: 2, .. }), "{e}");
    std::fs::remove_file(&other).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    let report = Store::vacuum(&link, threads(1)).unwrap();
    assert_eq!(report.versions, 5);
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o640);
    let mut store = Store::open_with(&path, threads(1)).unwrap();
    assert_sound(&store, "written anew");
    assert!(everything(&store) == before);
    assert_eq!(
        (report.file_bytes.1, store.file_bytes()),
        (store.file_bytes(), report.file_bytes.1)
    );
    // Whoever has the old file open goes on.
    assert_eq!(snapshot.knn(&[0.5, 0.5], 9).unwrap(), answers);
    assert_eq!(held.at(VersionId(78)).unwrap().knn(&[0.5, 0.5], 9).unwrap(), answers);
    store.insert(&random.points(40, 2)).unwrap();
    assert_sound(&store, "and gone on with");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left");
}

#[test]
fn a_writer_that_waits_gets_the_new_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    drop(Store::create_with(&path, tiny(2, 4), threads(1)).unwrap());
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|seed| {
                let path = &path;
                scope.spawn(move || {
                    let open = || threads(1).wait(Duration::from_secs(60));
                    for _ in 0..15 {
                        let mut store = Store::open_with(path, open()).unwrap();
                        store.insert(&Random(seed).points(3, 2)).unwrap();
                    }
                })
            })
            .collect();
        let mut done = 0;
        while !writers.iter().all(|writer| writer.is_finished()) {
            let open: OpenOptions = threads(1).wait(Duration::from_secs(60));
            Store::vacuum(&path, open).unwrap();
            done += 1;
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        assert!(done > 1);
    });
    let store = Store::open_with(&path, threads(1)).unwrap();
    assert_eq!((store.latest().unwrap().version().0, store.latest().unwrap().len()), (45, 135));
    assert_sound(&store, "all are there");
}

/// How the rounds go.
struct Mix {
    name: &'static str,
    dim: usize,
    /// Points that come first, of which every fiftieth stays; 0: none.
    first: usize,
    /// Points that a round inserts at most.
    at_most: u64,
    /// Of how many points a round deletes one.
    one_in: u64,
    keep_last: u64,
    /// Rounds from one call of `expire` to the next, and from one compaction to the next. Otherwise
    /// the rule is left to commits.
    expires_every: u64,
    compacts_every: u64,
}

const MIXES: [Mix; 5] = [
    Mix {
        name: "grows and shrinks",
        dim: 4,
        first: 0,
        at_most: 400,
        one_in: 3,
        keep_last: 3,
        expires_every: 10,
        compacts_every: u64::MAX,
    },
    Mix {
        name: "by the rule alone",
        dim: 4,
        first: 0,
        at_most: 400,
        one_in: 3,
        keep_last: 3,
        expires_every: u64::MAX,
        compacts_every: u64::MAX,
    },
    Mix {
        name: "large, then small",
        dim: 16,
        first: 400_000,
        at_most: 100,
        one_in: 20,
        keep_last: 3,
        expires_every: 10,
        compacts_every: 50,
    },
    Mix {
        name: "large, then small, by the rule alone",
        dim: 16,
        first: 400_000,
        at_most: 100,
        one_in: 20,
        keep_last: 3,
        expires_every: u64::MAX,
        compacts_every: 50,
    },
    Mix {
        name: "one point at a time",
        dim: 16,
        first: 100_000,
        at_most: 1,
        one_in: 2_000,
        keep_last: 50,
        expires_every: u64::MAX,
        compacts_every: u64::MAX,
    },
];

#[test]
fn a_file_does_not_grow_for_ever() {
    lengths_stay_in_bounds(120);
}

/// `cargo test --test it vacuum -- --include-ignored --nocapture` prints the figures.
#[test]
#[ignore = "some minutes: a thousand rounds of each mix"]
fn a_file_does_not_grow_for_ever_in_a_thousand_rounds() {
    lengths_stay_in_bounds(1_000);
}

/// However a store is used, its file is not much longer than what is in use, and after `vacuum` as
/// short as that.
fn lengths_stay_in_bounds(rounds: u64) {
    // Pages between the copies of header and slots are holes, which matters only to small stores.
    const HOLES: u64 = 720 << 10;
    const SPARE: u64 = 2 << 20;
    let mut faults = Vec::new();
    for mix in &MIXES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.tre");
        let options = treering::CreateOptions::new(mix.dim);
        let mut store = Store::create_with(&path, options, threads(2)).unwrap();
        store.set_retention(Retention::new().keep_last(mix.keep_last)).unwrap();
        let mut random = Random(7);
        let mut live: Vec<u64> = Vec::new();
        let mut next = mix.first as u64;
        if mix.first > 0 {
            store.insert(&random.points(mix.first, mix.dim)).unwrap();
            let (kept, gone): (Vec<u64>, Vec<u64>) = (0..next).partition(|id| id % 50 == 0);
            store.delete(&gone).unwrap();
            store.compact().unwrap();
            live = kept;
        }
        let mut longest = (0, 0);
        for round in 1..=rounds {
            let count = 1 + random.below(mix.at_most);
            store.insert(&random.points(count as usize, mix.dim)).unwrap();
            live.extend(next..next + count);
            next += count;
            let gone: Vec<u64> =
                live.iter().copied().filter(|_| random.below(mix.one_in) == 0).collect();
            live.retain(|id| gone.binary_search(id).is_err());
            store.delete(&gone).unwrap();
            if round % mix.compacts_every == 0 {
                store.compact().unwrap();
            }
            if round % mix.expires_every == 0 {
                store.expire(Retention::new().keep_last(mix.keep_last)).unwrap();
            }
            longest = longest.max(length_and_space(&path));
        }
        let stats = store.stats(&store.latest().unwrap()).unwrap();
        let used = stats.live_bytes + stats.pinned_bytes;
        assert_sound(&store, mix.name);
        drop(store);
        let (len, space) = length_and_space(&path);
        Store::vacuum(&path, threads(1)).unwrap();
        let after = length_and_space(&path);
        println!(
            "{}, {rounds} rounds: {len} bytes long, {space} taken, {used} in use; at the longest {} and {}; after vacuum {} and {}",
            mix.name, longest.0, longest.1, after.0, after.1
        );
        if len > 2 * space || len > 2 * used + SPARE {
            faults.push(mix.name);
        }
        assert!(20 * (after.0 - HOLES) <= 21 * after.1, "{}: {after:?} after vacuum", mix.name);
    }
    assert!(faults.is_empty(), "too long: {faults:?}");
}
