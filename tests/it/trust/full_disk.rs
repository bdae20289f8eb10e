//! A file system that is really full: a small tmpfs, filled, failed on, freed by expiry, and filled again.
//!
//! Mounting one needs a namespace of one's own or the rights of root; where neither can be had, this says so and passes.

use std::path::Path;
use std::process::Command;

use treering::{CommitError, InsertError, Retention, Store};

use super::figures::{say, scale};
use crate::common::{Random, assert_sound, threads, with_a_mount};
use treering::CreateOptions;

const CHILD: &str = "TREERING_TRUST_TMPFS";
const MOUNTED: &str = "rounds on a full disk: ";

/// Not a test by itself: the process in which `TREERING_TRUST_TMPFS` is a mounted tmpfs of 1 MiB.
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

#[test]
fn a_full_disk_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let test = std::env::current_exe().unwrap();
    let script = "mount -t tmpfs -o size=1m tmpfs \"$1\" || exit 77; shift; exec \"$@\"";
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--mount", "--map-root-user", "sh", "-c", script, "sh"])
        .arg(dir.path())
        .arg(test)
        .args(["trust::full_disk::child_on_a_small_disk", "--exact", "--nocapture"])
        .env(CHILD, dir.path());
    let Some(output) = with_a_mount(&mut unshare) else { return };
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    let rounds = text.lines().find_map(|line| line.split(MOUNTED).nth(1)).expect("a figure");
    say("rounds on a full disk", rounds);
}
