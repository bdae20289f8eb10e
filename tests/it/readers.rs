//! Readers beside a writer that lets old versions go: what a reader has open stays as it was, and
//! nothing else is kept.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use treering::{AtError, Neighbor, PointId, Retention, Snapshot, Store, VersionId};

use crate::common::{Random, assert_sound, canonical_sum, threads, tiny};

/// Versions for which a point lives.
const LIFE: u64 = 20;
/// Points per version.
const BATCH: u64 = 4;

/// The points that version `version` inserts, by id.
fn batch(version: u64) -> BTreeMap<PointId, [f32; 2]> {
    let mut random = Random(version);
    let ids = (version - 1) * BATCH..version * BATCH;
    ids.map(|id| (id, [random.unit(), random.unit()])).collect()
}

/// What is live in a version.
fn model(version: u64) -> BTreeMap<PointId, [f32; 2]> {
    let first = version.saturating_sub(LIFE - 1).max(1);
    (first..=version).flat_map(batch).collect()
}

fn advance(store: &mut Store, version: u64) {
    let mut transaction = store.begin();
    let points: Vec<f32> = batch(version).into_values().flatten().collect();
    transaction.insert(&points).unwrap();
    if version > LIFE {
        let old: Vec<PointId> = batch(version - LIFE).into_keys().collect();
        transaction.delete(&old).unwrap();
    }
    assert_eq!(transaction.commit().unwrap().version.0, version);
}

/// The snapshot's answers are those of brute force over the points that its version must have.
fn assert_right(snapshot: &Snapshot, random: &mut Random) {
    let live = model(snapshot.version().0);
    let query = [random.unit(), random.unit()];
    let mut expected: Vec<Neighbor> = live
        .iter()
        .map(|(&id, point)| Neighbor { id, distance: canonical_sum(&query, point).sqrt() })
        .collect();
    expected.sort_by(|a, b| a.distance.total_cmp(&b.distance).then(a.id.cmp(&b.id)));
    expected.truncate(6);
    assert_eq!(snapshot.knn(&query, 6).unwrap(), expected, "version {}", snapshot.version());
    let mut found = BTreeMap::new();
    let mut add = |id, point: &[f32]| {
        found.insert(id, [point[0], point[1]]);
    };
    snapshot.for_each(&mut add).unwrap();
    assert_eq!(found, live, "version {}", snapshot.version());
}

fn last(count: u64) -> Retention {
    Retention::new().keep_last(count)
}

const CHILD: &str = "TREERING_READER_CHILD";

/// Not a test by itself: a process that `readers_are_right_whoever_is_killed` starts and kills.
#[test]
fn child_reader() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let mut random = Random(u64::from(std::process::id()));
    loop {
        let store = Store::open_with(&path, threads(1).read_only(true)).unwrap();
        for _ in 0..20 {
            let versions = store.versions().unwrap();
            let version = versions[random.below(versions.len() as u64) as usize].version;
            let snapshot = match store.at(version) {
                Ok(snapshot) => snapshot,
                // It has gone since it was listed.
                Err(AtError::Expired { .. }) => continue,
                Err(e) => panic!("{e}"),
            };
            assert_eq!(snapshot.version(), version);
            for _ in 0..3 {
                assert_right(&snapshot, &mut random);
                std::thread::sleep(Duration::from_micros(random.below(3000)));
            }
        }
    }
}

fn start_reader(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["readers::child_reader", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn kill_reader(mut child: Child) {
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(9), "a reader failed by itself: {stderr}");
}

#[test]
fn readers_are_right_whoever_is_killed() {
    const ROUNDS: u64 = 500;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let mut store = Store::create_with(&path, tiny(2, 4), threads(1)).unwrap();
    advance(&mut store, 1);
    let mut random = Random(17);
    let mut readers: Vec<Child> = (0..4).map(|_| start_reader(&path)).collect();
    let (mut expired, mut pinned) = (0, 0);
    for round in 0..ROUNDS {
        advance(&mut store, round + 2);
        if random.below(3) == 0 {
            let report = store.expire(last(1 + random.below(8))).unwrap();
            expired += report.expired.len();
            pinned += report.pinned.len();
        }
        if random.below(2) == 0 {
            let old =
                std::mem::replace(&mut readers[random.below(4) as usize], start_reader(&path));
            kill_reader(old);
        }
        std::thread::sleep(Duration::from_micros(random.below(4000)));
    }
    readers.into_iter().for_each(kill_reader);
    // Nothing that was killed keeps anything.
    let report = store.expire(last(1)).unwrap();
    assert!(report.pinned.is_empty(), "{report:?}");
    assert_eq!(store.versions().unwrap().len(), 1);
    assert_right(&store.latest().unwrap(), &mut random);
    assert_sound(&store, "after the readers");
    println!("{expired} versions expired, {pinned} times one was pinned");
    assert!(expired > 100 && pinned > 20, "{expired} expired, {pinned} pinned");
}

#[test]
fn a_version_that_is_open_stays_while_five_hundred_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let mut writer = Store::create_with(&path, tiny(2, 4), threads(1)).unwrap();
    (1..=5).for_each(|version| advance(&mut writer, version));
    let reader = Store::open_with(&path, threads(1).read_only(true)).unwrap();
    let third = reader.at(VersionId(3)).unwrap();
    let mine = writer.at(VersionId(2)).unwrap();
    let mut random = Random(4);
    for version in 6..=505 {
        advance(&mut writer, version);
        if version % 25 == 0 {
            let report = writer.expire(last(2)).unwrap();
            assert_eq!(report.pinned, [VersionId(2), VersionId(3)]);
            assert_right(&third, &mut random);
            assert_right(&mine, &mut random);
        }
    }
    let left: Vec<u64> = writer.versions().unwrap().iter().map(|v| v.version.0).collect();
    assert!(left.starts_with(&[2, 3]) && left.len() == 9, "{left:?}");
    match reader.at(VersionId(4)).unwrap_err() {
        AtError::Expired { version, rule, oldest, .. } => {
            assert_eq!((version.0, rule, oldest.0), (4, last(2), 2));
        }
        e => panic!("{e}"),
    }
    // A clone keeps it, too; the last one to go releases it.
    let clone = third.clone();
    drop((third, mine));
    assert_eq!(writer.expire(last(2)).unwrap().pinned, [VersionId(3)]);
    drop(clone);
    assert_eq!(writer.expire(last(2)).unwrap().pinned, []);
    assert_eq!(writer.versions().unwrap().len(), 2);
    assert_sound(&writer, "in the end");
}

#[test]
fn space_goes_back_to_the_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let options = treering::CreateOptions::new(3);
    let mut store = Store::create_with(&path, options, threads(1)).unwrap();
    let mut random = Random(12);
    for _ in 0..60 {
        store.insert(&random.points(500, 3)).unwrap();
    }
    let usage = || {
        let metadata = std::fs::metadata(&path).unwrap();
        (metadata.len(), metadata.blocks() * 512)
    };
    let before = usage();
    let preview = store.expire_preview(last(3)).unwrap();
    assert_eq!(usage(), before);
    let answers = store.at(VersionId(58)).unwrap().brute_knn(&[0.5; 3], 9).unwrap();
    let report = store.expire(last(3)).unwrap();
    assert_eq!((report.expired.len(), report.bytes_freed), (57, preview.bytes_freed));
    let after = usage();
    assert_eq!(report.file_bytes, (before.0, after.0));
    let returned = before.1 - after.1;
    assert!(returned * 10 >= report.bytes_freed * 8, "{returned} of {} bytes", report.bytes_freed);
    assert_eq!(store.at(VersionId(58)).unwrap().knn(&[0.5; 3], 9).unwrap(), answers);
    assert_sound(&store, "with holes");

    // There is nothing more to give back; the accounts themselves may take a few blocks more.
    let again = store.expire(last(3)).unwrap();
    assert_eq!((again.expired.len(), again.bytes_freed), (0, 0));
    assert!(again.file_bytes.1 <= after.0 + (1 << 16), "{} after {}", again.file_bytes.1, after.0);
    // The holes are filled before the file grows: what two versions need was free twenty times
    // over.
    for _ in 0..2 {
        store.insert(&random.points(500, 3)).unwrap();
    }
    assert!(usage().0 <= after.0 + (1 << 20), "{} after {}", usage().0, after.0);
    assert_sound(&store, "with holes filled");
    drop(store);
    let store = Store::open_with(&path, threads(1)).unwrap();
    assert_sound(&store, "reopened");
}

#[test]
fn a_saved_rule_bounds_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let mut store = Store::create_with(&path, tiny(2, 8), threads(1)).unwrap();
    store.set_retention(last(5)).unwrap();
    let mut sizes = Vec::new();
    for version in 1..=400 {
        advance(&mut store, version);
        if version == 200 {
            // The rule is in the file.
            drop(store);
            store = Store::open_with(&path, threads(1)).unwrap();
            assert_eq!(store.retention().unwrap(), last(5));
        }
        sizes.push(store.file_bytes());
        assert_eq!(store.versions().unwrap().len() as u64, version.min(5));
    }
    // Rows of expired versions are all that grows: a kilobyte each.
    let (half, end) = (sizes[199], sizes[399]);
    assert!(end - half < 200 * 1024 * 2, "{half} bytes after 200 versions, {end} after 400");
    store.set_retention(Retention::new()).unwrap();
    (401..=410).for_each(|version| advance(&mut store, version));
    assert_eq!(store.versions().unwrap().len(), 15);
    assert_sound(&store, "without a rule");
}

#[test]
fn a_reader_beside_a_busy_writer_sees_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let mut store = Store::create_with(&path, tiny(2, 4), threads(1)).unwrap();
    let reader = Store::open_with(&path, threads(1).read_only(true)).unwrap();
    let (sender, receiver) = mpsc::channel::<()>();
    let reading = std::thread::spawn(move || {
        let (mut reads, mut errors) = (0, Vec::new());
        let mut before = 0;
        while receiver.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
            reads += 1;
            match reader.latest() {
                Ok(snapshot) => {
                    assert!(snapshot.version().0 >= before, "a version went away");
                    before = snapshot.version().0;
                    assert_eq!(snapshot.len(), before);
                }
                Err(e) => errors.push(e.to_string()),
            }
        }
        (reads, errors)
    });
    for i in 0..700 {
        store.insert(&[i as f32, 1.0]).unwrap();
    }
    drop(sender);
    let (reads, errors) = reading.join().unwrap();
    assert!(errors.is_empty(), "{} of {reads} reads, first: {}", errors.len(), errors[0]);
}

#[test]
fn a_snapshot_that_is_dropped_keeps_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let mut writer = Store::create_with(&path, tiny(2, 4), threads(1)).unwrap();
    advance(&mut writer, 1);
    let reader = Store::open_with(&path, threads(1).read_only(true)).unwrap();
    // The handles remember what they have opened last, but not so that it stays.
    drop((reader.latest().unwrap(), writer.latest().unwrap()));
    let (kept, searcher) = (reader.latest().unwrap(), reader.latest().unwrap().searcher());
    (2..=4).for_each(|version| advance(&mut writer, version));
    assert_eq!(writer.expire(last(1)).unwrap().pinned, [VersionId(1)]);
    drop(kept);
    assert_eq!(writer.expire(last(1)).unwrap().pinned, [VersionId(1)], "a searcher has it open");
    drop(searcher);
    let report = writer.expire(last(1)).unwrap();
    assert_eq!((&report.pinned[..], &report.expired[..]), (&[][..], &[VersionId(1)][..]));
    let mut random = Random(1);
    assert_right(&reader.latest().unwrap(), &mut random);
    drop(writer.latest().unwrap());
    advance(&mut writer, 5);
    assert_eq!(writer.expire(last(1)).unwrap().pinned, []);
    assert_right(&reader.latest().unwrap(), &mut random);
    assert_right(&writer.latest().unwrap(), &mut random);
}

#[test]
fn a_snapshot_outlives_its_store_and_keeps_its_version_but_not_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let mut first = Store::create_with(&path, tiny(2, 4), threads(1)).unwrap();
    (1..=3).for_each(|version| advance(&mut first, version));
    let second = first.at(VersionId(2)).unwrap();
    let third = [first.at(VersionId(3)).unwrap(), first.latest().unwrap()];
    assert!(Store::open(&path).is_err(), "one writer at a time");
    drop(first);
    let mut random = Random(2);
    let mut writer = Store::open_with(&path, threads(1)).unwrap();
    for version in 4..=200 {
        advance(&mut writer, version);
        if version % 20 == 0 {
            let report = writer.expire(last(1)).unwrap();
            assert_eq!(report.pinned, [VersionId(2), VersionId(3)]);
            assert_right(&second, &mut random);
            assert_right(&third[0], &mut random);
        }
    }
    drop(second);
    let [a, b] = third;
    drop(a);
    assert_eq!(writer.expire(last(1)).unwrap().pinned, [VersionId(3)]);
    assert_right(&b, &mut random);
    drop(b);
    assert_eq!(writer.expire(last(1)).unwrap().pinned, []);
    assert_sound(&writer, "in the end");
}

#[test]
fn a_store_that_is_dropped_is_durable_before_it_gives_the_lock_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let open = threads(1).durability(treering::Durability::Deferred { versions: 100 });
    let mut store = Store::create_with(&path, tiny(2, 4), open).unwrap();
    advance(&mut store, 1);
    let snapshot = store.latest().unwrap();
    drop(store);
    // Dropping made it durable, so another may write.
    let writer = Store::open(&path).unwrap();
    assert_right(&snapshot, &mut Random(3));
    assert_eq!(writer.latest().unwrap().version(), VersionId(1));
}
