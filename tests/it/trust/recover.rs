//! What `recover` finds in damaged stores, and what it makes of it.

use std::path::Path;

use treering::{OpenOptions, RecoverError, RecoverReport, Store, VersionId};

use super::preamble::{PAGE, answers, small};
use crate::common::{Random, assert_sound, threads};
use crate::format::{Image, Spec, compare};

/// Six versions and two tags.
fn story(path: &Path) -> Store {
    let mut store = Store::create_with(path, small(), threads(1)).unwrap();
    let mut random = Random(4);
    for version in 1..=6u64 {
        match version % 3 {
            0 => store.delete(&[2 * version, 2 * version + 1]).unwrap(),
            _ => store.insert(&random.points(20, 2)).unwrap(),
        };
    }
    store.tag("old", VersionId(2)).unwrap();
    store.tag("new", VersionId(6)).unwrap();
    store
}

fn numbers(versions: &[VersionId]) -> Vec<u64> {
    versions.iter().map(|version| version.0).collect()
}

/// Recovers without and with writing. The damaged file stays as it is, and what is written is
/// whole.
fn recover(path: &Path) -> RecoverReport {
    let before = std::fs::read(path).unwrap();
    let looked = Store::recover(path, None, threads(1)).unwrap();
    assert!(looked.written.is_none());
    let new = path.with_extension("new");
    let report = Store::recover(path, Some(&new), threads(1)).unwrap();
    assert!(std::fs::read(path).unwrap() == before, "the damaged file was changed");
    assert_eq!((&report.intact, &report.lost), (&looked.intact, &looked.lost));
    let store = Store::open_with(&new, threads(1)).unwrap();
    assert_sound(&store, "recovered");
    let versions: Vec<VersionId> = store.versions().unwrap().iter().map(|v| v.version).collect();
    assert_eq!(versions, report.intact);
    compare(&Spec::parse(), &std::fs::read(&new).unwrap(), &store);
    report
}

#[test]
fn a_whole_store_is_all_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let store = story(&path);
    let truth: Vec<_> = (1..=6).map(|version| answers(&store, version).unwrap()).collect();
    drop(store);
    let report = recover(&path);
    assert_eq!((numbers(&report.intact), numbers(&report.lost)), ((1..=6).collect(), vec![]));
    let new = path.with_extension("new");
    let mut store = Store::open_with(&new, threads(1)).unwrap();
    for version in 1..=6 {
        assert_eq!(answers(&store, version).unwrap(), truth[version as usize - 1]);
    }
    assert_eq!(store.tags().unwrap().len(), 2);
    // And life goes on there.
    assert_eq!(store.insert(&[0.5, 0.5]).unwrap().version, VersionId(7));
    let again = Store::recover(&path, Some(&new), threads(1));
    assert!(matches!(again, Err(RecoverError::Receive(_))), "nothing is replaced");
}

#[test]
fn a_bad_segment_costs_the_versions_that_it_hits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let store = story(&path);
    let truth: Vec<_> = (1..=6).map(|version| answers(&store, version).unwrap()).collect();
    drop(store);
    let mut bytes = std::fs::read(&path).unwrap();
    let spec = Spec::parse();
    let mut image = Image::new(&spec, &bytes);
    let versions = image.versions();
    // A segment that came with version 4 and that later ones share.
    let (third, fourth) = (versions[2], versions[3]);
    let old = image.data(third, "ids").at;
    let at = *image.data(fourth, "ids").at.iter().find(|at| !old.contains(at)).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let report = recover(&path);
    assert_eq!((numbers(&report.intact), numbers(&report.lost)), (vec![1, 2, 3], vec![4, 5, 6]));
    assert_eq!(report.problems.len(), 1);
    let store = Store::open_with(path.with_extension("new"), threads(1)).unwrap();
    for version in 1..=3 {
        assert_eq!(answers(&store, version).unwrap(), truth[version as usize - 1]);
    }
    let tags: Vec<String> = store.tags().unwrap().into_iter().map(|tag| tag.name).collect();
    assert_eq!(tags, ["old"]);
}

#[test]
fn without_the_newest_slot_the_one_before_is_taken_if_somebody_asks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    drop(story(&path));
    let spec = Spec::parse();
    let mut bytes = std::fs::read(&path).unwrap();
    let commit = Image::new(&spec, &bytes).commit;
    for copy in 0..2 {
        let at = spec.slot_page(commit, copy);
        bytes[at..at + PAGE].fill(0x5A);
    }
    std::fs::write(&path, &bytes).unwrap();
    assert!(Store::open(&path).is_err());
    let report = recover(&path);
    assert_eq!((report.commit, report.newest_commit), (commit - 1, commit));
    // The commit that is gone moved a tag; the versions are all there.
    assert_eq!(numbers(&report.intact), [1, 2, 3, 4, 5, 6]);
    let store = Store::open(path.with_extension("new")).unwrap();
    assert_eq!(store.tags().unwrap().len(), 1);
}

#[test]
fn a_truncated_store_keeps_what_lies_before_the_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let mut store = Store::create_with(&path, small(), threads(1)).unwrap();
    let mut random = Random(5);
    let mut lengths = Vec::new();
    for _ in 0..5 {
        store.insert(&random.points(30, 2)).unwrap();
        lengths.push(store.file_bytes());
    }
    drop(store);
    let whole = std::fs::read(&path).unwrap();
    let mut before = 0;
    for len in (lengths[2]..=lengths[4]).step_by(256) {
        std::fs::write(&path, &whole[..len as usize]).unwrap();
        let _ = std::fs::remove_file(path.with_extension("new"));
        let report = recover(&path);
        let intact = report.intact.len();
        assert!(intact >= 3 && intact + report.lost.len() >= intact, "{report:?}");
        assert!(intact >= before || intact >= 3, "{len}: {intact}");
        before = intact;
        assert_eq!(report.file_bytes.0, len);
    }
}

#[test]
fn what_cannot_be_recovered_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let recover = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Store::recover(&path, None, OpenOptions::new()).map(|report| report.intact.len())
    };
    drop(story(&path));
    let whole = std::fs::read(&path).unwrap();
    assert!(recover(b"notes").is_err());
    assert!(recover(&whole[..40_000]).is_err());
    let mut none = whole.clone();
    for at in Spec::parse().pages_of("slot") {
        none[at..at + PAGE].fill(0);
    }
    assert!(recover(&none).is_err());
    // Everything behind the preamble is noise.
    let mut noise = whole;
    noise[786_432..].iter_mut().for_each(|byte| *byte ^= 0x5A);
    assert!(recover(&noise).is_err());
}
