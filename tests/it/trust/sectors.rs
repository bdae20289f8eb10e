//! Sectors that the device does not read, and failures that pass: what is unreadable costs what the
//! same bytes, readable and wrong, would cost, and no more; what only fails for a moment costs
//! nothing, and `recover` never takes it for a loss.

use std::collections::BTreeSet;
use std::ops::Range;

use treering::{
    Defect, OpenError, Place, ReadError, RecoverError, RecoverReport, Store, VerifyOptions,
    VersionId, simulation,
};

use super::disk::{Disk, EIO, Fault, Plan};
use super::medium::Medium;
use super::model::{State, check};
use super::packed::Packed;
use super::preamble::PAGE;
use super::workload::{Operation, Planned, open, options, seasoned};
use crate::common::{Random, assert_sound};
use crate::format::{Image, Spec};

/// Both copies of everything, and the hint.
fn pages(spec: &Spec) -> Vec<Range<usize>> {
    let all = ["header", "slot", "hint"].iter().flat_map(|content| spec.pages_of(content));
    all.map(|at| at..at + PAGE).collect()
}

/// A store with more commits than there are places.
fn story() -> (Vec<u8>, State) {
    let (disk, state) = seasoned(&mut Random(8), 6);
    (disk.content(), state)
}

fn with_unreadable(content: &[u8], ranges: impl IntoIterator<Item = Range<usize>>) -> Disk {
    let disk = Disk::with(content.to_vec());
    disk.make_unreadable(ranges);
    disk
}

/// Recovers into a file, and returns what is in it as well.
fn recover(disk: &Disk) -> (Result<RecoverReport, RecoverError>, Option<Store>) {
    let dir = tempfile::tempdir().unwrap();
    let new = dir.path().join("new.tre");
    let before = disk.content();
    let report = simulation::recover(&disk.handle(), Some(&new), &options());
    assert!(disk.content() == before, "the damaged file was changed");
    let left = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, usize::from(report.is_ok()), "nothing is left of what failed");
    let store = report.is_ok().then(|| Store::open_with(&new, options()).unwrap());
    if let (Ok(report), Some(store)) = (&report, &store) {
        assert_sound(store, "recovered");
        let kept: Vec<_> = store.versions().unwrap().iter().map(|v| v.version).collect();
        assert_eq!(kept, report.intact);
    }
    (report, store)
}

#[test]
pub(crate) fn one_unreadable_page_that_is_kept_twice_costs_nothing() {
    let spec = Spec::parse();
    let (content, state) = story();
    for page in pages(&spec) {
        let disk = with_unreadable(&content, [page.clone()]);
        let reader = simulation::open(disk.handle(), options().read_only(true)).unwrap();
        assert!(check(&reader, std::slice::from_ref(&state)).is_ok(), "{page:?}");
        let found = reader.verify(VerifyOptions::all()).unwrap().problems;
        assert_eq!(found.len(), 1, "{page:?}: told once: {found:?}");
        assert!(matches!(found[0].what.what, Defect::Unreadable { .. }), "{found:?}");

        let (report, rescued) = recover(&disk);
        assert!(report.unwrap().is_complete(), "{page:?}");
        check(&rescued.unwrap(), std::slice::from_ref(&state)).unwrap();

        let mut store = open(&disk).unwrap();
        let mut now = state.clone();
        for operation in [Operation::Insert, Operation::Tag, Operation::Delete, Operation::Expire] {
            let plan = Planned::new(operation, &now, &mut Random(1), None);
            plan.run(&mut store).unwrap_or_else(|e| panic!("{page:?}: {operation:?}: {e}"));
            now = plan.states.last().unwrap().clone();
        }
        drop(store);
        check(&open(&disk).unwrap(), &[now]).unwrap();
    }
}

fn is_refused(disk: &Disk, what: &str) {
    let before = disk.content();
    for reading in [true, false] {
        match simulation::open(disk.handle(), options().read_only(reading)) {
            Ok(_) => panic!("{what}: opened, maybe as of an older commit"),
            Err(OpenError::Read(ReadError::Corrupt(found))) => {
                assert!(matches!(found.at, Place::Slots | Place::Header { .. }), "{what}: {found}")
            }
            Err(e) => panic!("{what}: {e}"),
        }
    }
    assert!(disk.content() == before, "{what}: the file was changed");
}

/// Whether there was a newer commit where nothing can be read, nobody can tell: not without the
/// hint, which may be lost, and not with one that names an older commit.
#[test]
pub(crate) fn a_place_that_cannot_be_read_at_all_is_never_passed_over() {
    let spec = Spec::parse();
    let (content, state) = story();
    let commit = Image::new(&spec, &content).commit;
    let page = |at: usize| at..at + PAGE;
    let both = |commit| [0, 1].map(|copy| page(spec.slot_page(commit, copy)));
    let hint = page(spec.hint_page());
    let headers = spec.pages_of("header").into_iter().map(page);
    is_refused(&with_unreadable(&content, headers), "both headers");
    for place in commit - 3..=commit {
        let what = format!("both copies of {place} of {commit}");
        is_refused(&with_unreadable(&content, both(place)), &what);
        let disk = with_unreadable(&content, both(place).into_iter().chain([hint.clone()]));
        is_refused(&disk, &format!("{what}, and the hint"));
        let (report, rescued) = recover(&disk);
        let report = report.unwrap();
        assert!(report.in_doubt && !report.is_complete(), "{what}: {report:?}");
        if place != commit {
            check(&rescued.unwrap(), std::slice::from_ref(&state)).unwrap();
        }
        // One copy cannot be read and the other is damaged: the same.
        for copy in 0..2 {
            let mut hurt = content.clone();
            hurt[hint.clone()].fill(0);
            hurt[both(place)[copy].clone()][100] ^= 1;
            let disk = with_unreadable(&hurt, [both(place)[1 - copy].clone()]);
            is_refused(&disk, &format!("{what}, {copy} damaged, no hint"));
        }
    }
    // What the hint would have to explain.
    let mut hurt = content.clone();
    both(commit).into_iter().for_each(|page| hurt[page][100] ^= 1);
    is_refused(&with_unreadable(&hurt, [hint]), "the hint, where both copies are damaged");
}

/// What is known of a damaged store.
#[derive(Debug, PartialEq)]
struct Findings {
    verify: Result<BTreeSet<(String, Vec<VersionId>)>, ()>,
    recover: Result<(u64, Vec<VersionId>, Vec<VersionId>), ()>,
}

fn findings(disk: &Disk) -> Findings {
    let verify = simulation::open(disk.handle(), options().read_only(true)).map_err(drop);
    let verify = verify.and_then(|store| store.verify(VerifyOptions::all()).map_err(drop));
    let verify = verify.map(|report| {
        let problems = report.problems.into_iter();
        problems.map(|problem| (problem.what.at.to_string(), problem.versions)).collect()
    });
    let (report, _) = recover(disk);
    let recover = report.map(|r| (r.commit, r.intact, r.lost)).map_err(drop);
    Findings { verify, recover }
}

#[test]
fn an_unreadable_sector_costs_what_wrong_bytes_cost() {
    let spec = Spec::parse();
    let (content, _) = story();
    let mut image = Image::new(&spec, &content);
    image.check_all();
    let mut lost_some = 0;
    for piece in image.pieces.values() {
        let at = piece.range.start + piece.range.len() / 2;
        let mut hurt = content.clone();
        hurt[at] ^= 0x10;
        let wrong = findings(&Disk::with(hurt));
        let unreadable = findings(&with_unreadable(&content, std::iter::once(at..at + 1)));
        assert_eq!(unreadable, wrong, "{piece:?}");
        lost_some += usize::from(matches!(&wrong.recover, Ok((_, intact, lost))
            if !intact.is_empty() && !lost.is_empty()));
    }
    assert!(lost_some > 30, "{lost_some} of {}", image.pieces.len());
}

/// Every failure that there can be while somebody recovers, and what comes of it.
#[test]
fn recover_takes_no_moments_failure_for_a_loss() {
    let (content, state) = story();
    const ENOLCK: i32 = 37;
    const EINTR: i32 = 4;
    for errno in [0, ENOLCK, EINTR, EIO] {
        let disk = Disk::with(content.clone());
        disk.fail_locks(Some(errno));
        match (recover(&disk).0, errno) {
            (Err(RecoverError::Open(OpenError::Locked)), 0) => {}
            (Err(RecoverError::Open(OpenError::Read(ReadError::Storage(e)))), 1..) => {
                assert_eq!((e.operation, e.source.raw_os_error()), ("lock", Some(errno)));
            }
            (other, _) => panic!("lock, {errno}: {other:?}"),
        }
    }
    let (mut refused, mut whole) = (0, 0);
    for (fault, for_good) in
        [(Fault::Io, false), (Fault::Full, false), (Fault::Io, true), (Fault::Full, true)]
    {
        for at in 0.. {
            let disk = Disk::with(content.clone());
            disk.fail(Some(Plan { at, fault, for_good }));
            let (report, rescued) = recover(&disk);
            let what = format!("{fault:?}, {for_good}, operation {at}");
            match report {
                Ok(report) if report.is_complete() => {
                    check(&rescued.unwrap(), std::slice::from_ref(&state)).unwrap();
                    whole += 1;
                }
                // Only a device that fails for good has lost something, and that is said.
                Ok(report) => {
                    assert!((fault, for_good) == (Fault::Io, true), "{what}: {report:?}");
                }
                Err(e) => {
                    // A read that fails once is done again; what else fails is an error.
                    let is_read = e.to_string().contains("cannot read");
                    assert!((fault, for_good, is_read) != (Fault::Io, false, true), "{what}: {e}");
                    refused += 1;
                }
            }
            if disk.failed().0 == 0 {
                break;
            }
        }
    }
    assert!(refused > 100 && whole > 100, "{refused}, {whole}");
}

/// The newest slot has one good copy and the hint is gone: the next writer writes the copies again,
/// the bad one first, so that power may fail at any moment.
#[test]
pub(crate) fn the_only_good_copy_of_a_slot_is_never_at_stake() {
    let spec = Spec::parse();
    let (content, state) = story();
    let commit = Image::new(&spec, &content).commit;
    for bad in 0..2 {
        for is_unreadable in [false, true] {
            let mut hurt = content.clone();
            hurt[spec.hint_page()..][..PAGE].fill(0);
            let at = spec.slot_page(commit, bad);
            hurt[at + 100] ^= 1;
            let disk = Disk::with(hurt.clone());
            if is_unreadable {
                disk.make_unreadable(std::iter::once(at..at + PAGE));
            }
            let mut store = open(&disk).unwrap();
            let plan = Planned::new(Operation::Insert, &state, &mut Random(2), None);
            plan.run(&mut store).unwrap();
            let allowed = [state.clone(), plan.states.last().unwrap().clone()];
            let (mut medium, mut random) = (Medium::new(Packed::of(&hurt)), Random(3));
            for event in disk.take_record() {
                medium.follow(&event);
                for fate in medium.fates(&mut random) {
                    let image = Disk::of(medium.image(fate));
                    let found = open(&image).map(|store| check(&store, &allowed));
                    assert!(matches!(found, Ok(Ok(_))), "copy {bad}, {fate:?}: {found:?}");
                }
            }
        }
    }
}

/// A device that fails for a moment is asked again.
#[test]
fn a_moments_failure_to_read_is_no_damage() {
    let (content, _) = story();
    let mut whole = 0;
    for at in 0..200 {
        let disk = Disk::with(content.clone());
        disk.fail(Some(Plan { at, fault: Fault::Io, for_good: false }));
        let store = simulation::open(disk.handle(), options().read_only(true));
        match store
            .map_err(|e| e.to_string())
            .and_then(|store| store.verify(VerifyOptions::all()).map_err(|e| e.to_string()))
        {
            Ok(report) => {
                assert!(report.is_ok(), "{at}: {:?}", report.problems);
                whole += 1;
            }
            Err(e) => assert!(e.contains("cannot inspect"), "{at}: {e}"),
        }
    }
    assert!(whole > 150, "{whole}");
}
