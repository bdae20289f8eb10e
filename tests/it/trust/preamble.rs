//! Header, slots and hint, one by one: torn, flipped, stale or misplaced pages, cut ends, foreign
//! files. The store opens whole at the newest version that was promised, or says what is wrong. On
//! real files.

use std::path::PathBuf;

use treering::{
    CreateOptions, Defect, Neighbor, OpenError, OpenOptions, Place, ReadError, Store,
    VerifyOptions, VersionId,
};

use crate::common::crc32;
use crate::common::{Random, threads};
use crate::format::{Image, Spec};

pub(crate) fn small() -> CreateOptions {
    CreateOptions::new(2)
        .leaf_capacity(4)
        .block_bytes(128)
        .topology_segment_bytes(128)
        .coordinate_segment_bytes(256)
}

pub(crate) fn reading() -> OpenOptions {
    threads(1).read_only(true)
}

/// What a version answers: its points, and the neighbours of a few queries.
pub(crate) type Answers = (Vec<(u64, Vec<f32>)>, Vec<Vec<Neighbor>>, Vec<Neighbor>);

pub(crate) fn answers(store: &Store, version: u64) -> Result<Answers, String> {
    let snapshot = store.at(VersionId(version)).map_err(|e| e.to_string())?;
    let mut points = Vec::new();
    snapshot.for_each(|id, point| points.push((id, point.to_vec()))).map_err(|e| e.to_string())?;
    let mut random = Random(5);
    let queries = random.points(6, snapshot.dim());
    let near = snapshot.knn_batch(&queries, 7).map_err(|e| e.to_string())?;
    let near = near.iter().map(<[Neighbor]>::to_vec).collect();
    let within = snapshot.within(&queries[..snapshot.dim()], 0.3).map_err(|e| e.to_string())?;
    Ok((points, near, within))
}

/// A store of several versions: its file after each of them, and what each answers.
struct Story {
    spec: Spec,
    dir: tempfile::TempDir,
    /// File number c as of commit c.
    files: Vec<Vec<u8>>,
    answers: Vec<Answers>,
}

impl Story {
    fn new(versions: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("story.tre");
        let mut store = Store::create_with(&path, small(), threads(1)).unwrap();
        let mut random = Random(3);
        let mut files = vec![std::fs::read(&path).unwrap()];
        for version in 1..=versions {
            match version % 3 {
                0 => store.delete(&[2 * version as u64, 2 * version as u64 + 1]).unwrap(),
                _ => store.insert(&random.points(20, 2)).unwrap(),
            };
            files.push(std::fs::read(&path).unwrap());
        }
        let answers =
            (0..=versions as u64).map(|version| answers(&store, version).unwrap()).collect();
        Story { spec: Spec::parse(), dir, files, answers }
    }

    fn image(&self) -> Vec<u8> {
        self.files.last().unwrap().clone()
    }

    fn file_bytes(&self) -> usize {
        Image::new(&self.spec, self.files.last().unwrap()).file_bytes
    }

    fn write(&self, image: &[u8]) -> PathBuf {
        let path = self.dir.path().join("hurt.tre");
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, image).unwrap();
        path
    }

    /// The image opens, for reading and for writing, as the given version with everything before
    /// it.
    fn assert_whole(&self, image: &[u8], newest: u64, what: &str) {
        let path = self.write(image);
        for open in [reading(), threads(1)] {
            let store = Store::open_with(&path, open).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(store.latest().unwrap().version().0, newest, "{what}");
            assert_eq!(store.versions().unwrap().len() as u64, newest, "{what}");
            for version in 0..=newest {
                let expected = &self.answers[version as usize];
                assert_eq!(&answers(&store, version).unwrap(), expected, "{what}: {version}");
            }
            let mut problems = store.verify(VerifyOptions::all().deep(true)).unwrap().problems;
            // A bad copy of what is kept twice is told, and costs nothing.
            problems.retain(|p| {
                !matches!(p.what.at, Place::Header { .. } | Place::Slots | Place::Hint)
            });
            assert!(problems.is_empty(), "{what}: {problems:?}");
        }
    }

    /// The image does not open, for reading or for writing, and is not changed.
    fn assert_refused(&self, image: &[u8], what: &str, expected: impl Fn(&OpenError) -> bool) {
        let path = self.write(image);
        for open in [reading(), threads(1)] {
            match Store::open_with(&path, open) {
                Ok(_) => panic!("{what}: opened"),
                Err(e) => assert!(expected(&e), "{what}: {e:?}"),
            }
            assert!(std::fs::read(&path).unwrap() == image, "{what}: the file was changed");
        }
    }
}

pub(crate) const PAGE: usize = 4096;

type Damage = Box<dyn Fn(&mut [u8])>;

/// Ways in which a page comes to grief.
fn damages(random: &mut Random) -> Vec<(&'static str, Damage)> {
    let (bit, seed) = (random.below(8 * 60), random.next());
    let garbage = move |page: &mut [u8], from: usize| {
        let mut random = Random(seed);
        page[from..].iter_mut().for_each(|byte| *byte = random.next() as u8);
    };
    vec![
        ("zeros", Box::new(|page| page.fill(0))),
        ("one bit", Box::new(move |page| page[bit as usize / 8] ^= 1 << (bit % 8))),
        ("a bit behind the record", Box::new(|page| page[3000] ^= 1)),
        ("garbage", Box::new(move |page| garbage(page, 0))),
        ("torn: garbage from byte 100 on", Box::new(move |page| garbage(page, 100))),
        ("torn: zeros from byte 20 on", Box::new(|page| page[20..].fill(0))),
    ]
}

fn is_slots_damage(e: &OpenError) -> bool {
    matches!(e, OpenError::Read(ReadError::Corrupt(what)) if what.at == Place::Slots)
}

#[test]
pub(crate) fn one_bad_copy_of_a_slot_costs_nothing() {
    let story = Story::new(6);
    for at in story.spec.pages_of("slot") {
        for (what, damage) in damages(&mut Random(at as u64)) {
            let mut image = story.image();
            damage(&mut image[at..at + PAGE]);
            story.assert_whole(&image, 6, &format!("{what} in the slot page at {at}"));
        }
    }
    // A lost write: one copy still has what lay there four commits ago.
    for copy in 0..2 {
        let at = story.spec.slot_page(6, copy);
        let mut image = story.image();
        image[at..at + PAGE].copy_from_slice(&story.files[5][at..at + PAGE]);
        story.assert_whole(&image, 6, "stale copy");
    }
    // A slot that strayed into another place does not count.
    let (from, to) = (story.spec.slot_page(6, 0), story.spec.slot_page(5, 0));
    let mut image = story.image();
    image.copy_within(from..from + PAGE, to);
    story.assert_whole(&image, 6, "misdirected copy");
}

#[test]
pub(crate) fn without_both_slots_the_hint_decides() {
    let story = Story::new(6);
    let hint = story.spec.hint_page();
    let copies = [0, 1].map(|copy| story.spec.slot_page(6, copy));
    for (what, damage) in damages(&mut Random(1)) {
        let mut image = story.image();
        for at in copies {
            damage(&mut image[at..at + PAGE]);
        }
        let what = format!("{what} in both slots");
        story.assert_refused(&image, &what, is_slots_damage);
        // Never acknowledged as far as the file knows: the version before, whole.
        let mut unknown = image.clone();
        unknown[hint..hint + PAGE].fill(0);
        story.assert_whole(&unknown, 5, &format!("{what}, no hint"));
        let mut older = image.clone();
        older[hint..hint + PAGE].copy_from_slice(&story.files[5][hint..hint + PAGE]);
        story.assert_whole(&older, 5, &format!("{what}, hint of the commit before"));
        older[hint + 9] ^= 1;
        story.assert_whole(&older, 5, &format!("{what}, torn hint"));
        // And one more back: the ring keeps three whole states.
        for copy in 0..2 {
            let at = story.spec.slot_page(5, copy);
            damage(&mut unknown[at..at + PAGE]);
        }
        story.assert_whole(&unknown, 4, &format!("{what}, nor the commit before, no hint"));
    }
    let mut none = story.image();
    for at in story.spec.pages_of("slot") {
        none[at..at + PAGE].fill(0);
    }
    story.assert_refused(&none, "no slots at all", is_slots_damage);
}

#[test]
fn a_commit_that_nobody_confirmed_is_made_durable_by_the_next_writer() {
    let story = Story::new(6);
    let hint = story.spec.hint_page();
    let copy = story.spec.slot_page(6, 1);
    let mut image = story.image();
    image[hint..hint + PAGE].copy_from_slice(&story.files[5][hint..hint + PAGE]);
    image[copy..copy + PAGE].fill(0);
    let path = story.write(&image);
    let mut store = Store::open_with(&path, threads(1)).unwrap();
    store.insert(&[0.5, 0.5]).unwrap();
    for version in 0..=6 {
        assert_eq!(answers(&store, version).unwrap(), story.answers[version as usize]);
    }
    drop(store);
    let after = std::fs::read(&path).unwrap();
    assert!(after[copy..copy + PAGE] == story.image()[copy..copy + PAGE], "the slot is repaired");
    assert_eq!(Image::new(&story.spec, &after).commit, 7);
}

#[test]
fn falling_back_and_going_on() {
    let story = Story::new(6);
    let mut image = story.image();
    for at in
        [0, 1].map(|copy| story.spec.slot_page(6, copy)).into_iter().chain([story.spec.hint_page()])
    {
        image[at..at + PAGE].fill(0xA5);
    }
    let path = story.write(&image);
    let mut store = Store::open_with(&path, threads(1)).unwrap();
    for _ in 0..5 {
        store.insert(&Random(8).points(9, 2)).unwrap();
    }
    drop(store);
    let store = Store::open_with(&path, threads(1)).unwrap();
    for version in 0..=5 {
        assert_eq!(answers(&store, version).unwrap(), story.answers[version as usize]);
    }
    let report = store.verify(VerifyOptions::all().deep(true)).unwrap();
    assert!(report.is_ok() && report.versions_checked == 10, "{:?}", report.problems);
}

#[test]
fn one_bad_copy_of_the_header_costs_nothing() {
    let story = Story::new(2);
    let pages = story.spec.pages_of("header");
    for (what, damage) in damages(&mut Random(2)) {
        for &at in &pages {
            let mut image = story.image();
            damage(&mut image[at..at + PAGE]);
            story.assert_whole(&image, 2, &format!("{what} in the header at {at}"));
            let store = Store::open_with(story.write(&image), reading()).unwrap();
            let problems = store.verify(VerifyOptions::latest()).unwrap().problems;
            assert_eq!(problems.len(), 1, "{what}: {problems:?}");
        }
        let mut image = story.image();
        for &at in &pages {
            damage(&mut image[at..at + PAGE]);
        }
        story.assert_refused(&image, &format!("{what} in both headers"), |e| match e {
            OpenError::NotTreering => image[..8] != *b"TREERING",
            OpenError::Read(ReadError::Corrupt(what)) => matches!(what.at, Place::Header { .. }),
            _ => false,
        });
    }
}

/// Changes a header field in both copies and repairs the checksum.
fn with_header(story: &Story, field: &str, value: u64) -> Vec<u8> {
    let header = &story.spec.records["header"];
    let (field, crc) = (header.field(field), header.field("crc"));
    let mut image = story.image();
    for at in story.spec.pages_of("header") {
        let place = at + field.offset;
        image[place..place + field.bytes].copy_from_slice(&value.to_le_bytes()[..field.bytes]);
        let sum = crc32(&image[at..at + crc.offset]);
        image[at + crc.offset..at + crc.offset + 4].copy_from_slice(&sum.to_le_bytes());
    }
    image
}

#[test]
fn features_of_the_future() {
    let story = Story::new(2);
    story.assert_whole(&with_header(&story, "features_compatible", 1 << 63), 2, "compatible");
    for (field, value) in [("features_incompatible", 4), ("format_version", 3)] {
        story.assert_refused(&with_header(&story, field, value), field, |e| {
            matches!(e, OpenError::UnknownFeatures { read_only_would_do: false, .. })
        });
    }
    story.assert_refused(&with_header(&story, "format_version", 1), "an older format", |e| {
        matches!(e, OpenError::OldFormat { format_version: 1 })
    });
    let image = with_header(&story, "features_read_only", 2);
    let path = story.write(&image);
    let refused = Store::open_with(&path, threads(1));
    assert!(matches!(
        refused,
        Err(OpenError::UnknownFeatures { mask: 2, read_only_would_do: true })
    ));
    let store = Store::open_with(&path, reading()).unwrap();
    assert_eq!(answers(&store, 2).unwrap(), story.answers[2]);
    assert!(std::fs::read(&path).unwrap() == image);

    for (field, value) in [
        ("metric", 1),
        ("dim", 0),
        ("dim", 70_000),
        ("block_bytes", 96),
        ("leaf_capacity", 0),
        ("topology_segment_bytes", 100),
        ("coordinate_segment_bytes", 1 << 21),
        ("header_bytes", 64),
    ] {
        story.assert_refused(&with_header(&story, field, value), field, |e| {
            matches!(e, OpenError::Read(ReadError::Corrupt(what))
                if matches!(what.what, Defect::Invalid(_)))
        });
    }
}

#[test]
fn foreign_files() {
    let story = Story::new(1);
    let foreign = |e: &OpenError| matches!(e, OpenError::NotTreering);
    let mut random = Random(9);
    let noise: Vec<u8> = (0..100_000).map(|_| random.next() as u8).collect();
    let text = "query,rank,id,distance\n".repeat(5000);
    for (what, content) in [
        ("an empty file", &b""[..]),
        ("a short file", b"TREE"),
        ("a text file", text.as_bytes()),
        ("a short text file", b"# notes\n"),
        ("noise", &noise),
        ("zeros", &[0; 200_000]),
    ] {
        story.assert_refused(content, what, foreign);
    }
    let nowhere = story.dir.path().join("nowhere.tre");
    assert!(matches!(Store::open(&nowhere), Err(OpenError::Path { .. })));
    assert!(Store::open(story.dir.path()).is_err(), "a folder");
}

#[test]
fn a_file_that_is_too_short_is_truncated() {
    let story = Story::new(4);
    let needed = story.file_bytes();
    for len in [needed - 1, needed - 128, 786_432, 786_431, 65_536, 40_000, 4096, 100, 8] {
        let what = format!("cut to {len} of {needed} bytes");
        story.assert_refused(&story.image()[..len], &what, |e| match e {
            OpenError::Truncated { found, needed: asked } => {
                *found == len as u64 && (*asked == needed as u64 || len < 786_432)
            }
            _ => false,
        });
    }
}

#[test]
fn what_lies_behind_the_end_is_ignored_and_dropped() {
    let story = Story::new(4);
    let needed = story.file_bytes();
    let mut random = Random(4);
    let mut image = story.image();
    image.truncate(needed);
    image.extend((0..50_001).map(|_| random.next() as u8));
    let path = story.write(&image);
    let store = Store::open_with(&path, reading()).unwrap();
    assert_eq!(answers(&store, 4).unwrap(), story.answers[4]);
    drop(store);
    assert!(std::fs::read(&path).unwrap() == image, "a reader changes nothing");
    let mut store = Store::open_with(&path, threads(1)).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), needed as u64);
    store.insert(&random.points(50, 2)).unwrap();
    drop(store);
    let after = std::fs::read(&path).unwrap();
    let mut image = Image::new(&story.spec, &after);
    image.check_all();
    story.assert_whole(&story.image(), 4, "untouched");
}

/// A commit may need less of the file than the one before. Until it is known to be durable, the
/// rest must stay: power may fail and bring the older commit back.
#[test]
fn the_end_is_not_cut_before_the_newest_commit_is_durable() {
    let spec = Spec::parse();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let mut store = Store::create_with(&path, small(), threads(1)).unwrap();
    store.insert(&Random(3).points(300, 2)).unwrap();
    drop(store);
    let mut before = std::fs::read(&path).unwrap();
    let (commit, after) = (2..100)
        .find_map(|commit| {
            let mut store = Store::open_with(&path, threads(1)).unwrap();
            store.delete(&[commit]).unwrap();
            let after = std::fs::read(&path).unwrap();
            let shorter =
                Image::new(&spec, &after).file_bytes < Image::new(&spec, &before).file_bytes;
            if !shorter {
                before.clone_from(&after);
            }
            shorter.then_some((commit, after))
        })
        .expect("some commit needs less than the one before");

    // The writer dies after it wrote the slot and before the sync returns; another one opens the
    // store.
    let hint = spec.hint_page();
    let mut image = after;
    image[hint..hint + PAGE].copy_from_slice(&before[hint..hint + PAGE]);
    std::fs::write(&path, &image).unwrap();
    let store = Store::open_with(&path, threads(1)).unwrap();
    assert_eq!(store.latest().unwrap().version().0, commit);
    drop(store);
    // Then power fails. The cut has reached the disk, the slot has not.
    let mut image = std::fs::read(&path).unwrap();
    for at in [0, 1].map(|copy| spec.slot_page(commit, copy)) {
        image[at..at + PAGE].copy_from_slice(&before[at..at + PAGE]);
    }
    std::fs::write(&path, &image).unwrap();
    let store = Store::open_with(&path, threads(1)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(store.latest().unwrap().version().0, commit - 1);
    let report = store.verify(VerifyOptions::all().deep(true)).unwrap();
    assert!(report.is_ok(), "{:?}", report.problems);
}
