//! A file system that is really full: a small tmpfs, filled, failed on, freed by expiry, and filled
//! again.
//!
//! Mounting one needs a namespace of one's own or the rights of root; where neither can be had,
//! this says so and passes.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use treering::{
    CommitError, CreateOptions, Durability, InsertError, Retention, Store, VersionId, simulation,
};

use super::disk::{Change, Disk, Event, Fault, Plan};
use super::figures::{say, scale};
use super::flips::{Piece, pieces};
use super::workload::{deferred, options};
use crate::common::{Random, assert_sound, threads, with_a_mount};
use crate::format::Spec;

const CHILD: &str = "TREERING_TRUST_TMPFS";
const MOUNTED: &str = "rounds on a full disk: ";

/// Not a test by itself: the process in which `TREERING_TRUST_TMPFS` is a mounted tmpfs of 4 MiB.
#[test]
fn child_on_a_small_disk() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let (path, ballast) = (Path::new(&folder).join("s.tre"), Path::new(&folder).join("ballast"));
    let rounds = scale(10, 50);
    let mut store = Store::create_with(&path, CreateOptions::new(3), threads(1)).unwrap();
    let mut random = Random(9);
    let (mut acknowledged, mut points) = (0, 0);
    for round in 0..rounds {
        let what = format!("round {round}");
        std::fs::write(&ballast, vec![1; 64 << 10]).unwrap();
        // Fill, until it fails.
        let e = loop {
            match store.insert(&random.points(200, 3)) {
                Ok(report) => (acknowledged, points) = (report.version.0, report.points),
                Err(e) => break e,
            }
        };
        assert!(matches!(&e, InsertError::Commit(CommitError::DiskFull { .. })), "{what}: {e}");
        // What was acknowledged is there, in this handle and in another.
        let reader = Store::open_with(&path, threads(1).read_only(true)).unwrap();
        for latest in [store.latest().unwrap(), reader.latest().unwrap()] {
            assert_eq!((latest.version().0, latest.len()), (acknowledged, points), "{what}");
        }
        drop(reader);
        if round % 7 == 0 {
            drop(store);
            store = Store::open_with(&path, threads(1)).unwrap();
        }
        // Make room, and go on.
        let rule = Retention::new().keep_last(1);
        match store.expire(rule) {
            // Not even room for the accounts: nothing has changed, and any other room will do.
            Err(CommitError::DiskFull { .. }) => {
                std::fs::remove_file(&ballast).unwrap();
                store.expire(rule).unwrap_or_else(|e| panic!("{what}: {e}"));
            }
            expired => drop(expired.unwrap_or_else(|e| panic!("{what}: {e}"))),
        }
        let mut ids = Vec::new();
        store.latest().unwrap().for_each(|id, _| ids.push(id)).unwrap();
        ids.truncate(ids.len() * 9 / 10);
        store.delete(&ids).unwrap_or_else(|e| panic!("{what}: {e}"));
        store.expire(rule).unwrap_or_else(|e| panic!("{what}: {e}"));
        let report = store.compact().unwrap_or_else(|e| panic!("{what}: {e}"));
        (acknowledged, points) = (report.version.0, report.points);
        store.expire(rule).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_sound(&store, &what);
    }
    println!("{MOUNTED}{rounds}");
}

/// Not a test by itself, like the one above: a group of versions meets the full disk, and then what
/// must work on it.
#[test]
fn child_on_a_disk_full_to_the_last_byte() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let [path, ballast] = ["s.tre", "ballast"].map(|name| Path::new(&folder).join(name));
    for round in 0..4u64 {
        let what = format!("round {round}");
        let group = Durability::Deferred { versions: 10_000 };
        let open = || threads(1).durability(group);
        let mut store = Store::create_with(&path, CreateOptions::new(3), open()).unwrap();
        let mut random = Random(round);
        let mut acknowledged = 0;
        let e = loop {
            match store.insert(&random.points(1 + 50 * round as usize, 3)) {
                Ok(report) => acknowledged = report.version.0,
                Err(e) => break e,
            }
        };
        assert!(matches!(&e, InsertError::Commit(CommitError::DiskFull { .. })), "{what}: {e}");
        fill(&ballast);
        if round % 2 == 0 {
            store.sync().unwrap_or_else(|e| panic!("{what}: {e}"));
        }
        drop(store);
        let mut store = Store::open_with(&path, threads(1)).unwrap();
        assert_eq!(store.latest().unwrap().version().0, acknowledged, "{what}");
        assert_sound(&store, &what);
        // Every operation that must work. The first to give space back is expiry.
        store.tag("here", VersionId(acknowledged)).unwrap_or_else(|e| panic!("{what}: {e}"));
        store.delete(&[0, 1, 2]).unwrap_or_else(|e| panic!("{what}: {e}"));
        let report = store.expire(Retention::new().keep_last(1));
        let report = report.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(report.expired.len() as u64, acknowledged - 1, "{what}");
        assert_sound(&store, &what);
        store.insert(&random.points(10, 3)).unwrap_or_else(|e| panic!("{what}: {e}"));
        // Once more: what is kept for a full disk did not go with the end that expiry has cut off.
        let again = format!("{what}, filled again");
        while store.insert(&random.points(1 + 50 * round as usize, 3)).is_ok() {}
        fill(&Path::new(&folder).join("more ballast"));
        store.tag("there", store.latest().unwrap().version()).expect(&again);
        store.delete(&[4, 5, 6]).expect(&again);
        store.expire(Retention::new().keep_last(1)).expect(&again);
        assert_sound(&store, &again);
        store.insert(&random.points(10, 3)).expect(&again);
        drop(store);
        std::fs::remove_file(Path::new(&folder).join("more ballast")).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::remove_file(&ballast).unwrap();
    }
    println!("{MOUNTED}4");
}

/// Leaves not a byte.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    for size in [1 << 16, 4096, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

/// Versions wait for their sync; an insert that is written early, because it is larger than the
/// memory limit, fails at its end for want of space. What waits is then made durable, and nothing
/// that is cut off afterwards belongs to it.
#[test]
fn what_waits_outlasts_an_insert_that_was_written_early() {
    const MANY: usize = 300_000;
    /// Operations at the end of the insert of which each fails once.
    const LAST: u64 = 24;
    let open = || deferred(10_000).memory_limit(48 << 20);
    let large = Random(5).points(MANY, 2);
    let start = || {
        let disk = Disk::default();
        simulation::format(disk.handle(), &CreateOptions::new(2), &options()).unwrap();
        let mut store = simulation::open(disk.handle(), open()).unwrap();
        for seed in 0..3 {
            store.insert(&Random(seed).points(50, 2)).unwrap();
        }
        (disk, store)
    };
    let (disk, mut store) = start();
    let first = disk.operations();
    disk.take_record();
    store.insert(&large).unwrap();
    let end = disk.operations();
    let is_growth = |event: &Event| matches!(event, Event::Change(Change::Grow(_)));
    let grown = disk.take_record().iter().filter(|&event| is_growth(event)).count();
    assert!(end - first > LAST && grown > 1, "the file grows {grown} times, early and at the end");
    let mut full = 0;
    for at in end - LAST..end {
        let (disk, mut store) = start();
        disk.fail(Some(Plan { at, fault: Fault::Full, for_good: false }));
        let result = store.insert(&large);
        let kept = 3 + u64::from(result.is_ok());
        full +=
            usize::from(matches!(result, Err(InsertError::Commit(CommitError::DiskFull { .. }))));
        disk.fail(None);
        drop(store);
        let store = simulation::open(disk.handle(), options());
        let store = store.unwrap_or_else(|e| panic!("operation {at}: {e}"));
        let versions = store.versions().unwrap_or_else(|e| panic!("operation {at}: {e}"));
        assert_eq!(versions.len() as u64, kept, "operation {at}");
        assert_sound(&store, &format!("operation {at}"));
    }
    assert!(full > 0, "none of the last operations wants space");
}

/// What lies far out in a file that is too long is brought forward if it can be read. If not, that
/// is no affair of a commit that does not need it.
#[test]
fn what_cannot_be_brought_forward_stops_nobody() {
    const MANY: usize = 60_000;
    let disk = Disk::default();
    simulation::format(disk.handle(), &CreateOptions::new(2), &options()).unwrap();
    let mut store = simulation::open(disk.handle(), options()).unwrap();
    store.insert(&Random(6).points(MANY, 2)).unwrap();
    store.delete(&(5_000..MANY as u64).collect::<Vec<u64>>()).unwrap();
    store.compact().unwrap();
    store.expire(Retention::new().keep_last(1)).unwrap();
    drop(store);
    let image = disk.content();
    let before = pieces(&Spec::parse(), &image).0;
    let insert = |disk: &Disk| {
        let mut store = simulation::open(disk.handle(), options()).unwrap();
        // The first commit of a handle learns what is in use; the next ones look at the tail.
        (0..4).all(|i| store.insert(&[90.0 + i as f32, 90.0]).is_ok())
    };
    let whole = Disk::with(image.clone());
    assert!(insert(&whole));
    let newest = |piece: &Piece| piece.versions.last().copied();
    let after = pieces(&Spec::parse(), &whole.content()).0;
    let last = after.values().filter_map(newest).max();
    let stays = |at: &usize| after.get(at).is_some_and(|piece| newest(piece) == last);
    // What the newest version has no more was changed by the inserts, or brought forward.
    let moved = before
        .iter()
        .filter(|(at, piece)| piece.is_segment && newest(piece).is_some() && !stays(at));
    let (mut tried, mut done) = (0, 0);
    for (&at, piece) in moved {
        let disk = Disk::with(image.clone());
        disk.flip(at + piece.range.len() / 2, 1);
        (tried, done) = (tried + 1, done + usize::from(insert(&disk)));
    }
    assert!(done > 0 && tried > done, "{done} of {tried}");
}

#[test]
fn a_full_disk_loses_nothing() {
    let rounds = on_a_small_disk("trust::full_disk::child_on_a_small_disk");
    rounds.into_iter().for_each(|rounds| say("rounds on a full disk", rounds));
}

#[test]
fn on_a_disk_full_to_the_last_byte_sync_delete_and_expire_work() {
    on_a_small_disk("trust::full_disk::child_on_a_disk_full_to_the_last_byte");
}

/// Runs a test in a process of its own, with a small disk; how many rounds it made.
fn on_a_small_disk(name: &str) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let test = std::env::current_exe().unwrap();
    let script = "mount -t tmpfs -o size=4m tmpfs \"$1\" || exit 77; shift; exec \"$@\"";
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--mount", "--map-root-user", "sh", "-c", script, "sh"])
        .arg(dir.path())
        .arg(test)
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, dir.path());
    let output = with_a_mount(&mut unshare)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    let rounds = text.lines().find_map(|line| line.split(MOUNTED).nth(1)).expect("a figure");
    Some(rounds.to_string())
}
