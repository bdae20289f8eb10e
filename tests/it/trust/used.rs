//! Bytes are checked where they are used: not only when they are first read, but when they are
//! copied to where they get another checksum; in the map, not beside it; and what a later check
//! finds bad answers nothing any more.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use treering::{
    Place, Problem, ScrubOptions, Snapshot, Store, VerifyOptions, VersionId, simulation,
};

use super::disk::Disk;
use super::figures::one_in;
use super::model::{State, agrees, check};
use super::preamble::small;
use super::workload::{Operation, Planned, open, options, seasoned};
use crate::common::{Random, threads};
use crate::format::{Image, Spec};

/// A store, what it holds, and where its data lies: a byte in the middle of each segment that
/// versions refer to.
fn story() -> (Vec<u8>, State, Vec<usize>) {
    let (disk, state) = seasoned(&mut Random(8), 6);
    let content = disk.content();
    let spec = Spec::parse();
    let mut image = Image::new(&spec, &content);
    image.check_all();
    let data = image.pieces.values().filter(|piece| piece.array < 16);
    let places = data.map(|piece| piece.range.start + piece.range.len() / 2).collect();
    (content, state, places)
}

/// Reads all there is, so that every segment has passed.
fn touch_everything(store: &Store) -> Vec<Snapshot> {
    let versions = store.versions().unwrap();
    let snapshots = versions.iter().map(|info| store.at(info.version).unwrap());
    snapshots
        .inspect(|snapshot| {
            assert!(ask(snapshot).is_ok());
        })
        .collect()
}

/// Asks so much that most of a small version is read.
fn ask(snapshot: &Snapshot) -> Result<(), String> {
    snapshot.for_each(|_, _| {}).map_err(|e| e.to_string())?;
    for query in Random(5).points(6, 2).chunks_exact(2) {
        snapshot.knn(query, 7).map_err(|e| e.to_string())?;
    }
    (0..60).try_for_each(|id| snapshot.get(id).map(drop)).map_err(|e| e.to_string())
}

fn hits(problems: &[Problem]) -> BTreeSet<VersionId> {
    problems.iter().flat_map(|problem| problem.versions.iter().copied()).collect()
}

#[test]
fn what_verify_reports_answers_nothing_any_more() {
    let (content, state, places) = story();
    let disk = Disk::with(content);
    let store = simulation::open(disk.handle(), options().read_only(true)).unwrap();
    let snapshots = touch_everything(&store);
    let mut refused = 0;
    for (round, &at) in places.iter().enumerate().step_by(one_in(3)) {
        disk.flip(at, 0x20);
        let problems = match round % 2 {
            0 => store.verify(VerifyOptions::all()).unwrap().problems,
            _ => store.scrub(ScrubOptions::new()).unwrap().problems,
        };
        let hit = hits(&problems);
        assert!(!hit.is_empty(), "byte {at}");
        // Who comes later meets the damage if an answer rests on it.
        let fresh = simulation::open(disk.handle(), options().read_only(true)).unwrap();
        // A table node has done its duty once what lies below it has been found.
        let is_node = problems.iter().any(|p| matches!(p.what.at, Place::TableNode { .. }));
        for snapshot in &snapshots {
            let version = snapshot.version();
            let rests_on_it = fresh.at(version).map_or(true, |fresh| ask(&fresh).is_err());
            assert!(hit.contains(&version) || !rests_on_it, "byte {at}, {version}");
            let found = ask(snapshot);
            let again = store.at(version).is_ok_and(|again| ask(&again).is_ok());
            assert_ne!(again, rests_on_it, "byte {at}, {version}: opened again");
            assert!(is_node || found.is_err() == rests_on_it, "byte {at}, {version}: {found:?}");
            refused += u32::from(found.is_err());
        }
        // Mended, and found whole: all is well again.
        disk.flip(at, 0x20);
        assert!(store.verify(VerifyOptions::all()).unwrap().is_ok());
        snapshots.iter().for_each(|snapshot| assert_eq!(ask(snapshot), Ok(())));
    }
    assert!(refused > 20, "{refused}");
    check(&store, &[state]).unwrap();
}

/// A segment passed, the device lost it since, and a commit copies or moves what is there: it must
/// not be sealed anew.
#[test]
pub(crate) fn what_went_bad_gets_no_fresh_checksum() {
    let (content, state, places) = story();
    let (mut refused, mut done) = (0, 0);
    for &at in places.iter().step_by(one_in(2)) {
        // A backup copies, too. In a handle of its own: what it finds bad, nothing else would use.
        let disk = Disk::with(content.clone());
        let store = simulation::open(disk.handle(), options().read_only(true)).unwrap();
        touch_everything(&store);
        disk.flip(at, 0x20);
        assert!(store.backup(None, &mut Vec::new()).is_err(), "byte {at}: backed up");
        for operation in [Operation::Insert, Operation::Delete, Operation::Compact] {
            let disk = Disk::with(content.clone());
            let mut store = open(&disk).unwrap();
            touch_everything(&store);
            disk.flip(at, 0x20);
            let plan = Planned::new(operation, &state, &mut Random(at as u64), None);
            let made = plan.run(&mut store);
            drop(store);
            if made.is_err() {
                refused += 1;
                continue;
            }
            done += 1;
            // What of the new version can be read is right.
            let after = plan.states.last().unwrap();
            let store = open(&disk).unwrap();
            let found = agrees(&store, after.newest(), &after.versions[&after.newest()]);
            assert!(
                !matches!(found, Err(super::model::Wrong::Answers(_))),
                "byte {at}, {operation:?}: {found:?}"
            );
        }
    }
    assert!(refused > 20 && done > 20, "{refused} refused, {done} done");
}

/// A file below an overlay moves when it is first written to: reads follow, maps do not.
#[test]
fn what_is_mapped_is_what_is_checked() {
    for helps in [true, false] {
        let (content, mut state, _) = story();
        let disk = Disk::with(content);
        let reader = simulation::open(disk.handle(), options().read_only(true)).unwrap();
        check(&reader, std::slice::from_ref(&state)).unwrap();
        disk.freeze_maps(helps);
        let mut random = Random(4);
        let mut refused = 0;
        for operation in
            [Operation::Insert, Operation::Delete, Operation::Expire, Operation::Insert]
        {
            // A writer opened later sees what is there.
            let own = Disk::with(disk.content());
            let mut writer = open(&own).unwrap();
            let plan = Planned::new(operation, &state, &mut random, None);
            plan.run(&mut writer).unwrap();
            drop(writer);
            state = plan.states.last().unwrap().clone();
            disk.replace(own.content());
            match check(&reader, std::slice::from_ref(&state)) {
                Ok(_) => {}
                Err(e @ super::model::Wrong::Answers(_)) => panic!("{helps}: {operation:?}: {e:?}"),
                Err(e) => {
                    assert!(!helps, "{operation:?}: {e:?}");
                    refused += 1;
                }
            }
        }
        assert_eq!(refused > 0, !helps);
    }
}

#[test]
fn a_scrub_finds_what_verify_finds() {
    let (content, _, places) = story();
    for &at in places.iter().step_by(one_in(3)) {
        let disk = Disk::with(content.clone());
        disk.flip(at, 1);
        let found = |scrub: bool| {
            let store = simulation::open(disk.handle(), options().read_only(true)).unwrap();
            let problems = match scrub {
                true => store.scrub(ScrubOptions::new()).unwrap().problems,
                false => store.verify(VerifyOptions::all()).unwrap().problems,
            };
            let named = problems.into_iter().map(|p| (p.what.to_string(), p.versions));
            named.collect::<Vec<_>>()
        };
        assert_eq!(found(true), found(false), "byte {at}");
    }
}

#[test]
fn a_scrub_goes_on_where_it_stopped_and_keeps_to_its_rate() {
    let (content, _, _) = story();
    let disk = Disk::with(content);
    let store = simulation::open(disk.handle(), options().read_only(true)).unwrap();
    let whole = store.scrub(ScrubOptions::new()).unwrap();
    assert_eq!((whole.next, whole.problems.len()), (None, 0));
    let (mut bytes, mut next, mut parts) = (0, Some(0), 0);
    while let Some(from) = next {
        let report = store.scrub(ScrubOptions::new().from(from).at_most(1000)).unwrap();
        assert!(report.next.is_none_or(|next| next > from));
        (bytes, next, parts) = (bytes + report.bytes, report.next, parts + 1);
    }
    assert_eq!(bytes, whole.bytes);
    assert!(parts as u64 >= bytes / 1200, "{parts} parts");
    assert_eq!(store.scrub(ScrubOptions::new().from(u64::MAX)).unwrap().bytes, 0);

    let start = Instant::now();
    let slow = ScrubOptions::new().at_most(2000).bytes_per_second(5000);
    let bytes = store.scrub(slow).unwrap().bytes;
    assert!(start.elapsed() >= Duration::from_secs_f64(bytes as f64 / 5000.0));
}

/// On a real file: nobody calls anything, and the answers stop.
#[test]
fn a_scrub_in_the_background_finds_what_goes_bad() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let mut store = Store::create_with(&path, small(), threads(1)).unwrap();
    store.insert(&Random(3).points(200, 2)).unwrap();
    drop(store);
    let store = Store::open_with(&path, threads(1).read_only(true).scrub(1 << 20)).unwrap();
    let snapshot = store.latest().unwrap();
    ask(&snapshot).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let spec = Spec::parse();
    let mut image = Image::new(&spec, &bytes);
    let version = *image.versions().last().unwrap();
    let at = image.data(version, "coordinates").at[5];
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
    let start = Instant::now();
    while ask(&snapshot).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(60), "not found");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop((snapshot, store));
    // The thread has ended: the file is nobody's.
    drop(Store::open_with(&path, threads(1).scrub(1)).unwrap());
    drop(Store::open_with(&path, threads(1)).unwrap());
}
