//! A handle belongs to the process that opened it. Locks are shared over a fork, so a child that
//! gave one back would give back its parent's: in a child nothing is written, released or answered,
//! and nothing hangs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use treering::{
    AtError, CommitError, DeleteError, Durability, InsertError, OpenError, QueryError, ReadError,
    RestoreError, Retention, Snapshot, Store, TagError, VerifyOptions, VersionId, When,
};

use crate::common::{assert_sound, threads, tiny};

/// Runs `work` in a forked child and asserts that it returns, without panicking and soon.
#[expect(
    unsafe_code,
    reason = "a fork is what is tested, and it is unsafe where there are threads"
)]
fn in_a_child(what: &str, work: impl FnOnce()) {
    // SAFETY: the child calls what may allocate, which glibc allows after a fork, and takes no lock
    // that another thread of the test may hold: the stores are this test's own. It ends without
    // running what is registered for exit.
    let child = match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let done = catch_unwind(AssertUnwindSafe(work));
            // SAFETY: ends the process.
            unsafe { nix::libc::_exit(if done.is_ok() { 0 } else { 1 }) }
        }
    };
    let start = Instant::now();
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)).unwrap() {
            WaitStatus::StillAlive if start.elapsed() > Duration::from_secs(20) => {
                kill(child, Signal::SIGKILL).unwrap();
                waitpid(child, None).unwrap();
                panic!("{what}: the child hangs");
            }
            WaitStatus::StillAlive => std::thread::sleep(Duration::from_millis(2)),
            status => {
                assert_eq!(status, WaitStatus::Exited(child, 0), "{what}");
                return;
            }
        }
    }
}

/// A store with three versions and a tag, open for writing.
fn store(dir: &tempfile::TempDir) -> (std::path::PathBuf, Store) {
    let path = dir.path().join("s.tre");
    let mut store = Store::create_with(&path, tiny(1, 4), threads(2)).unwrap();
    for i in 0..3 {
        store.insert(&[i as f32, i as f32 + 0.5]).unwrap();
    }
    store.tag("first", VersionId(1)).unwrap();
    (path, store)
}

#[test]
fn a_child_that_drops_a_writer_does_not_let_another_in() {
    let dir = tempfile::tempdir().unwrap();
    let (path, mut writer) = store(&dir);
    let mut inherited = Some(writer);
    in_a_child("drop", || drop(inherited.take()));
    writer = inherited.take().unwrap();
    let second = Store::open(&path).map(drop).unwrap_err();
    assert!(matches!(second, OpenError::Locked), "{second}");
    writer.insert(&[7.0]).unwrap();
    assert_sound(&writer, "after the child");
    drop(writer);
    assert_eq!(Store::open(&path).unwrap().latest().unwrap().version(), VersionId(4));
}

#[test]
fn a_child_that_drops_a_reader_leaves_what_it_has_pinned() {
    let dir = tempfile::tempdir().unwrap();
    let (path, mut writer) = store(&dir);
    writer.delete_tag("first").unwrap();
    let reader = Store::open_with(&path, threads(1).read_only(true)).unwrap();
    let mut inherited = Some((reader.at(VersionId(1)).unwrap(), reader));
    in_a_child("drop", || drop(inherited.take()));
    let report = writer.expire(Retention::new().keep_last(1)).unwrap();
    assert_eq!(
        (&report.expired[..], &report.pinned[..]),
        (&[VersionId(2)][..], &[VersionId(1)][..])
    );
    let (snapshot, _reader) = inherited.as_ref().unwrap();
    assert_eq!(snapshot.knn(&[9.0], 1).unwrap()[0].id, 1);
}

#[test]
fn a_child_that_drops_what_is_not_yet_durable_leaves_the_file_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let open = threads(1).durability(Durability::Deferred { versions: 1000 });
    let mut writer = Store::create_with(&path, tiny(1, 4), open).unwrap();
    writer.insert(&[1.0]).unwrap();
    let before = std::fs::read(&path).unwrap();
    let mut inherited = Some(writer);
    in_a_child("drop", || drop(inherited.take()));
    assert!(std::fs::read(&path).unwrap() == before, "the child wrote");
    drop(inherited);
    assert_eq!(Store::open(&path).unwrap().latest().unwrap().len(), 1);

    // A transaction larger than memory has written into the file already, and would cut it back.
    let path = dir.path().join("large.tre");
    let open = threads(1).memory_limit(44 << 20);
    let mut writer = Store::create_with(&path, tiny(1, 4), open).unwrap();
    let points: Vec<f32> = (0..150_000).map(|i| i as f32).collect();
    let mut transaction = writer.begin();
    transaction.insert(&points).unwrap();
    let len = || std::fs::metadata(&path).unwrap().len();
    let before = len();
    assert!(before > 1 << 20, "nothing was written early: {before} bytes");
    let mut inherited = Some(transaction);
    in_a_child("drop a transaction", || drop(inherited.take()));
    assert_eq!(len(), before);
    inherited.unwrap().commit().unwrap();
    assert_sound(&writer, "after the child");
}

fn not_here(e: &CommitError) -> bool {
    matches!(e, CommitError::OtherProcess)
}

#[test]
fn every_write_in_a_child_is_an_error_that_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let (path, mut writer) = store(&dir);
    let before = std::fs::read(&path).unwrap();
    in_a_child("write", || {
        let writer = &mut writer;
        let insert = |e| matches!(e, InsertError::Commit(e) if not_here(&e));
        assert!(insert(writer.insert(&[1.0]).unwrap_err()));
        assert!(insert(writer.compact().unwrap_err()));
        assert!(matches!(writer.delete(&[0]).unwrap_err(), DeleteError::Commit(e) if not_here(&e)));
        let restored = writer.restore(VersionId(1)).unwrap_err();
        assert!(matches!(restored, RestoreError::At(AtError::Read(ReadError::OtherProcess))));
        for e in [writer.tag("x", VersionId(1)), writer.delete_tag("first")] {
            assert!(matches!(e.unwrap_err(), TagError::Commit(e) if not_here(&e)));
        }
        let rule = Retention::new().keep_last(1);
        assert!(not_here(&writer.expire(rule).unwrap_err()));
        assert!(not_here(&writer.expire_preview(rule).unwrap_err()));
        assert!(not_here(&writer.set_retention(rule).unwrap_err()));
        assert!(not_here(&writer.begin().commit().unwrap_err()));
        let said = writer.sync().unwrap_err();
        assert!(not_here(&said) && said.to_string().contains("open it again"));
    });
    // A transaction that the parent began.
    let mut transaction = writer.begin();
    transaction.insert(&[5.0]).unwrap();
    let mut inherited = Some(transaction);
    in_a_child("commit", || {
        assert!(not_here(&inherited.take().unwrap().commit().unwrap_err()));
    });
    assert!(std::fs::read(&path).unwrap() == before, "the child wrote");
    inherited.unwrap().commit().unwrap();
    assert_sound(&writer, "after the children");
}

/// Asks everything that can be asked, and returns what did not fail as it must.
fn answered(store: &Store, snapshot: &Snapshot) -> Vec<&'static str> {
    let read = |e: &ReadError| matches!(e, ReadError::OtherProcess);
    let at = |e: &AtError| matches!(e, AtError::Read(e) if read(e));
    let query = |e: &QueryError| matches!(e, QueryError::Read(e) if read(e));
    let mut answered = Vec::new();
    let mut must = |what, fails: bool| {
        if !fails {
            answered.push(what);
        }
    };
    must("latest", store.latest().is_err_and(|e| at(&e)));
    must("at", store.at(VersionId(1)).is_err_and(|e| at(&e)));
    must("at_tag", store.at_tag("first").is_err_and(|e| at(&e)));
    must("find", store.find(&When::Tag("first".into())).is_err_and(|e| at(&e)));
    must("versions", store.versions().is_err_and(|e| read(&e)));
    must("tags", store.tags().is_err_and(|e| read(&e)));
    must("retention", store.retention().is_err_and(|e| read(&e)));
    must("stats", store.stats(snapshot).is_err_and(|e| read(&e)));
    must("unique", store.unique_bytes().is_err_and(|e| read(&e)));
    must("diff", store.diff(VersionId(1), VersionId(2)).is_err_and(|e| at(&e)));
    must("verify", store.verify(VerifyOptions::all()).is_err_and(|e| at(&e)));
    must("backup", store.backup(None, std::io::sink()).is_err());
    must("knn", snapshot.knn(&[0.0], 1).is_err_and(|e| query(&e)));
    must("within", snapshot.within(&[0.0], 1.0).is_err_and(|e| query(&e)));
    must("count_within", snapshot.count_within(&[0.0], 1.0).is_err_and(|e| query(&e)));
    must("knn_batch", snapshot.knn_batch(&[0.0], 1).is_err_and(|e| query(&e)));
    must("brute_knn", snapshot.brute_knn(&[0.0], 1).is_err_and(|e| query(&e)));
    must("brute_knn_batch", snapshot.brute_knn_batch(&[0.0], 1).is_err_and(|e| query(&e)));
    must("brute_within", snapshot.brute_within(&[0.0], 1.0).is_err_and(|e| query(&e)));
    must("get", snapshot.get(0).is_err_and(|e| read(&e)));
    must("contains", snapshot.contains(0).is_err_and(|e| read(&e)));
    must("for_each", snapshot.for_each(|_, _| ()).is_err_and(|e| read(&e)));
    must("clone", snapshot.clone().knn(&[0.0], 1).is_err_and(|e| query(&e)));
    answered
}

#[test]
fn nothing_is_answered_in_a_child_and_nothing_hangs_and_it_may_open_the_store_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (path, writer) = store(&dir);
    let reader = Store::open_with(&path, threads(2).read_only(true)).unwrap();
    for store in [&writer, &reader] {
        let snapshot = store.latest().unwrap();
        let mut searcher = snapshot.searcher();
        for _ in 0..5 {
            assert_eq!(searcher.knn(&[0.4], 1).unwrap()[0].id, 1);
        }
        in_a_child("read", || {
            // From the first query on, and not once in so many.
            assert!(matches!(
                searcher.knn(&[0.0], 1),
                Err(QueryError::Read(ReadError::OtherProcess))
            ));
            assert!(searcher.within(&[0.0], 1.0).is_err());
            assert_eq!(answered(store, &snapshot), [""; 0]);
            let own = Store::open_with(&path, threads(2).read_only(true)).unwrap();
            let answers = own.latest().unwrap().knn_batch(&[0.4], 2).unwrap();
            assert_eq!(answers.row(0)[0].id, 1);
            // That there is a handle of the child's own makes no other one its.
            assert!(snapshot.knn(&[0.0], 1).is_err() && store.latest().is_err());
        });
        assert_eq!(searcher.knn(&[0.4], 1).unwrap()[0].id, 1);
    }
}

#[test]
fn a_store_in_memory_belongs_to_its_process_too() {
    let mut store = Store::in_memory(tiny(1, 4), threads(2)).unwrap();
    store.insert(&[1.0, 2.0]).unwrap();
    let snapshot = store.latest().unwrap();
    in_a_child("memory", || {
        assert!(snapshot.knn_batch(&[0.0], 1).is_err());
        assert!(store.insert(&[1.0]).is_err());
    });
    assert_eq!(store.insert(&[3.0]).unwrap().points, 3);
}
