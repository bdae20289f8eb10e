//! When bytes are checked, what a failing read is, and what a file does that is cut under its
//! reader.

use std::path::Path;
use std::process::Command;

use treering::{
    OpenOptions, QueryError, ReadError, Store, Verify, VerifyOptions, VersionId, simulation,
};

use super::disk::{Disk, Fault, Plan};
use super::preamble::small;
use super::workload::{geometry, options};
use crate::common::{Random, threads};
use crate::format::{Image, Spec, busy_store};

fn with(policy: Verify) -> OpenOptions {
    threads(1).read_only(true).verify(policy)
}

/// A store of two versions, one byte of the coordinates of which is wrong; the second shares it.
fn hurt(path: &Path) {
    let mut store = Store::create_with(path, small(), threads(1)).unwrap();
    store.insert(&Random(2).points(200, 2)).unwrap();
    store.insert(&Random(3).points(4, 2)).unwrap();
    drop(store);
    let mut bytes = std::fs::read(path).unwrap();
    let spec = Spec::parse();
    let mut image = Image::new(&spec, &bytes);
    let newest = *image.versions().last().unwrap();
    let at = image.data(newest, "coordinates").at[100];
    bytes[at] ^= 4;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn on_open_finds_it_at_once_first_touch_when_it_is_met_and_never_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    hurt(&path);
    let everything = |store: &Store| {
        let snapshot = store.at(VersionId(2)).unwrap();
        snapshot.brute_knn(&[0.5, 0.5], 3).map(drop)
    };
    let store = Store::open_with(&path, with(Verify::OnOpen)).unwrap();
    for version in [1, 2] {
        let e = store.at(VersionId(version)).unwrap_err().to_string();
        assert!(e.contains("array `coordinates`"), "{e}");
    }
    let store = Store::open_with(&path, with(Verify::FirstTouch)).unwrap();
    let e = everything(&store).unwrap_err();
    assert!(matches!(&e, QueryError::Read(ReadError::Corrupt(_))), "{e}");
    // Asked again, it is still an error: what failed has not passed.
    assert!(everything(&store).is_err());
    let store = Store::open_with(&path, with(Verify::Never)).unwrap();
    everything(&store).unwrap();
    // Whatever the policy, verification reads.
    assert_eq!(store.verify(VerifyOptions::all()).unwrap().problems.len(), 1);
}

#[test]
fn progress_is_told_in_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    hurt(&path);
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = seen.clone();
    let open = with(Verify::FirstTouch)
        .progress(move |progress| log.lock().unwrap().push((progress.done, progress.total)));
    let store = Store::open_with(&path, open).unwrap();
    let problems = store.verify(VerifyOptions::all()).unwrap().problems;
    assert_eq!(problems[0].versions, [VersionId(1), VersionId(2)]);
    let seen = seen.lock().unwrap();
    assert!(seen.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{seen:?}");
    let (done, total) = *seen.last().unwrap();
    assert!(done == total && total > 0, "{seen:?}");
}

#[test]
fn what_versions_share_is_read_once_and_each_can_be_checked_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    drop(busy_store(&path, small(), 6));
    let bytes = std::fs::read(&path).unwrap();
    let spec = Spec::parse();
    let mut image = Image::new(&spec, &bytes);
    image.check_all();
    let segments = image.pieces.values().filter(|piece| piece.level == 0).count() as u64;
    let store = Store::open_with(&path, with(Verify::FirstTouch)).unwrap();
    let all = store.verify(VerifyOptions::all()).unwrap();
    assert_eq!((all.segments_checked, all.is_ok()), (segments, true));
    let mut sum = 0;
    for info in store.versions().unwrap() {
        let one = store.verify(VerifyOptions::version(info.version)).unwrap();
        assert!(one.is_ok() && one.versions_checked == 1);
        sum += one.segments_checked;
    }
    assert!(sum > 2 * segments, "{sum} segments one by one, {segments} in all");

    // Whichever version is checked, all that share what is bad are named.
    hurt(&path.with_extension("hurt"));
    let store = Store::open_with(path.with_extension("hurt"), with(Verify::FirstTouch)).unwrap();
    for version in [1, 2].map(VersionId) {
        let report = store.verify(VerifyOptions::version(version)).unwrap();
        assert_eq!((report.versions_checked, report.problems.len()), (1, 1));
        assert_eq!(report.problems[0].versions, [VersionId(1), VersionId(2)]);
    }
}

/// A device that does not give its bytes is an error of the query, not a signal.
#[test]
fn a_read_that_the_device_refuses_is_an_error() {
    let disk = Disk::default();
    simulation::format(disk.handle(), &geometry(), &options()).unwrap();
    let mut store = simulation::open(disk.handle(), options()).unwrap();
    store.insert(&Random(2).points(200, 2)).unwrap();
    drop(store);
    let store = simulation::open(disk.handle(), options()).unwrap();
    let snapshot = store.latest().unwrap();
    disk.fail(Some(Plan { at: 0, fault: Fault::Io, for_good: true }));
    let e = snapshot.knn(&[0.5, 0.5], 3).unwrap_err();
    assert!(matches!(&e, QueryError::Read(ReadError::Storage(_))), "{e}");
    disk.fail(None);
    assert_eq!(snapshot.knn(&[0.5, 0.5], 3).unwrap(), snapshot.brute_knn(&[0.5, 0.5], 3).unwrap());
}

const CHILD: &str = "TREERING_TRUST_CUT";

/// Not a test by itself: a reader under whom the file is cut. A signal would end this process.
#[test]
fn child_reader() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    for warm in [false, true] {
        let mut writer = Store::create_with(&path, small(), threads(1)).unwrap();
        writer.insert(&Random(2).points(3000, 2)).unwrap();
        drop(writer);
        let store = Store::open_with(&path, with(Verify::FirstTouch)).unwrap();
        let snapshot = store.latest().unwrap();
        if warm {
            snapshot.brute_knn(&[0.5, 0.5], 3).unwrap();
        }
        let mut searcher = snapshot.searcher();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(70_000).unwrap();
        let refused = |e: QueryError| matches!(e, QueryError::Read(ReadError::Truncated { .. }));
        assert!(refused(searcher.knn(&[0.5, 0.5], 3).unwrap_err()));
        assert!(refused(snapshot.knn(&[0.5, 0.5], 3).unwrap_err()));
        assert!(refused(snapshot.knn_batch(&[0.5, 0.5], 3).unwrap_err()));
        assert!(refused(snapshot.brute_knn(&[0.5, 0.5], 3).unwrap_err()));
        assert!(refused(snapshot.within(&[0.5, 0.5], 0.1).unwrap_err()));
        assert!(snapshot.get(5).is_err() && snapshot.for_each(|_, _| ()).is_err());
        assert!(store.latest().is_err() && store.verify(VerifyOptions::all()).is_err());
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_file_that_is_cut_under_a_reader_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["trust::policy::child_reader", "--exact", "--nocapture"])
        .env(CHILD, dir.path().join("s.tre"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {text}", output.status);
}
