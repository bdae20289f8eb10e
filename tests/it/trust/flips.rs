//! Every single byte of a store of more than twenty versions is flipped; every segment is replaced
//! by something else; the file is cut at every sector. What is damaged is reported, with its place
//! and exactly the versions that it hits; what is not reported is referred to by nothing, and all
//! answers are as they were. No panic, no endless loop, no allocation larger than the file.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use treering::{Place, Problem, Store, VerifyOptions, simulation};

use super::disk::Disk;
use super::figures::{Tally, finished, in_parallel, one_in, one_in_by_night, say};
use super::model::{State, Wrong, agrees};
use super::packed::is_hole;
use super::preamble::PAGE;
use super::workload::{LOCAL, Operation, Planned, formatted, open, options};
use crate::allocation;
use crate::common::Random;
use crate::format::{Image, Spec};

/// A segment or table node, and who refers to it.
pub(super) struct Piece {
    pub(super) range: Range<usize>,
    pub(super) array: String,
    pub(super) is_segment: bool,
    /// Empty if it belongs to the store state.
    pub(super) versions: BTreeSet<u64>,
}

/// The store that is hurt.
struct Victim {
    image: Vec<u8>,
    /// What the file was after each commit.
    older: Vec<Vec<u8>>,
    state: State,
    pieces: BTreeMap<usize, Piece>,
    /// The headers and both copies of the newest slot.
    copies: Vec<usize>,
}

impl Victim {
    fn new() -> Self {
        let disk = formatted();
        let mut store = open(&disk).unwrap();
        let mut state = State::default();
        let mut random = Random(20);
        let mut older = Vec::new();
        let picked = [Operation::Insert, Operation::Tag, Operation::Delete, Operation::Restore];
        for round in 0.. {
            let operation = match round {
                12 | 20 => Operation::Expire,
                15 => Operation::Compact,
                _ if round > 20 && state.versions.len() > 21 => break,
                _ => picked[round % picked.len()],
            };
            assert!(LOCAL.contains(&operation));
            let plan = Planned::new(operation, &state, &mut random, None);
            plan.run(&mut store).unwrap();
            state = plan.states.last().unwrap().clone();
            older.push(disk.content());
        }
        drop(store);
        let mut image = disk.content();
        let spec = Spec::parse();
        let (pieces, commit, file_bytes) = pieces(&spec, &image);
        image.truncate(file_bytes);
        let slots = [0, 1].map(|copy| spec.slot_page(commit, copy));
        let copies = spec.pages_of("header").into_iter().chain(slots).collect();
        assert!(state.versions.len() > 20, "{} versions", state.versions.len());
        Victim { image, older, state, pieces, copies }
    }

    fn piece_at(&self, at: usize) -> Option<&Piece> {
        let (_, piece) = self.pieces.range(..=at).next_back()?;
        piece.range.contains(&at).then_some(piece)
    }

    /// Opens a hurt image, verifies it and asks every version. `hurt`: what was changed. Unless it
    /// `asks`, versions are asked only if nothing was to be reported.
    fn examine(&self, image: Vec<u8>, hurt: &Hurt<'_>, asks: bool) -> Result<(), Wrong> {
        let bytes = image.len();
        let disk = Disk::with(image);
        let examined = catch_unwind(AssertUnwindSafe(|| {
            let reading = options().read_only(true);
            let store = match simulation::open(disk.handle(), reading) {
                Ok(store) => store,
                Err(_) if hurt.may_not_open() => return Ok(()),
                Err(e) => return Err(Wrong::Damaged(format!("does not open: {e}"))),
            };
            self.examine_open(&store, hurt, asks)
        }));
        let largest = allocation::largest();
        if largest != usize::MAX && largest > bytes {
            return Err(Wrong::Damaged(format!("asked for {largest} bytes at once")));
        }
        examined.unwrap_or_else(|_| Err(Wrong::Damaged("panicked".into())))
    }

    fn examine_open(&self, store: &Store, hurt: &Hurt<'_>, asks: bool) -> Result<(), Wrong> {
        let problems = match store.verify(VerifyOptions::all()) {
            Ok(report) => report.problems,
            Err(_) if hurt.is_state() => return Ok(()),
            Err(e) => return Err(Wrong::Damaged(format!("cannot verify: {e}"))),
        };
        hurt.check_report(&problems)?;
        if !asks && hurt.versions().is_some() {
            return Ok(());
        }
        // The answers of versions that are not hit are as they were; of the others, what comes is
        // right or an error.
        for (&version, content) in &self.state.versions {
            let is_hit = hurt.versions().is_some_and(|versions| versions.contains(&version));
            match agrees(store, version, content) {
                Err(Wrong::Damaged(_)) if is_hit || hurt.is_state() => {}
                outcome => outcome?,
            }
        }
        Ok(())
    }
}

/// Every piece of an image and the versions that refer to it, by the specification; the newest
/// commit, and the length that it needs.
pub(super) fn pieces(spec: &Spec, image: &[u8]) -> (BTreeMap<usize, Piece>, u64, usize) {
    let mut read = Image::new(spec, image);
    read.check_all();
    let name = |array: usize| spec.array_name(array).to_string();
    let piece = |found: &crate::format::Piece| Piece {
        range: found.range.clone(),
        array: name(found.array),
        is_segment: found.level == 0,
        versions: BTreeSet::new(),
    };
    let mut pieces: BTreeMap<usize, Piece> =
        read.pieces.iter().map(|(&at, found)| (at, piece(found))).collect();
    for version in read.retained() {
        read.pieces.clear();
        for number in 0..spec.data_arrays() {
            read.data(version, spec.array_name(number));
        }
        let number = read.number(version);
        for at in read.pieces.keys() {
            pieces.get_mut(at).expect("all were read above").versions.insert(number);
        }
    }
    (pieces, read.commit, read.file_bytes)
}

/// What was done to an image.
enum Hurt<'a> {
    /// A piece is not what it was.
    Piece(&'a Piece),
    /// One of two copies is not.
    Copy,
    /// Something that nothing refers to.
    Nothing,
}

impl Hurt<'_> {
    fn versions(&self) -> Option<&BTreeSet<u64>> {
        match self {
            Hurt::Piece(piece) => Some(&piece.versions),
            _ => None,
        }
    }

    fn is_state(&self) -> bool {
        self.versions().is_some_and(BTreeSet::is_empty)
    }

    fn may_not_open(&self) -> bool {
        self.is_state()
    }

    /// The report names the place and the versions, or there is nothing to report.
    fn check_report(&self, problems: &[Problem]) -> Result<(), Wrong> {
        let told = || format!("{:?}", problems.iter().map(ToString::to_string).collect::<Vec<_>>());
        let fits = |problem: &Problem| match (self, &problem.what.at) {
            (Hurt::Copy, Place::Header { .. } | Place::Slots) => problem.versions.is_empty(),
            (Hurt::Piece(piece), Place::Segment { array, address, .. }) => {
                piece.is_segment && piece.is_at(array, *address)
            }
            (Hurt::Piece(piece), Place::TableNode { array, address }) => {
                !piece.is_segment && piece.is_at(array, *address)
            }
            _ => false,
        };
        let named = |piece: &Piece| {
            let numbers = |problem: &Problem| problem.versions.iter().map(|v| v.0).collect();
            let versions: BTreeSet<u64> = problems.first().map(numbers).unwrap_or_default();
            versions == piece.versions
        };
        let is_right = match self {
            Hurt::Nothing => problems.is_empty(),
            Hurt::Copy => problems.len() == 1 && problems.iter().all(fits),
            // What lies below damaged state is told as well.
            Hurt::Piece(_) if self.is_state() => problems.iter().any(fits),
            Hurt::Piece(piece) => problems.len() == 1 && fits(&problems[0]) && named(piece),
        };
        match is_right {
            true => Ok(()),
            false if problems.is_empty() => Err(Wrong::Answers("not reported".into())),
            false => Err(Wrong::Damaged(format!("reported as {}", told()))),
        }
    }
}

impl Piece {
    fn is_at(&self, array: &str, address: u64) -> bool {
        self.array == array && self.range.start as u64 == address
    }
}

/// Flips a bit of one byte in `step`. Returns how many.
fn flip(victim: &Victim, tally: &Tally, step: usize) -> u64 {
    const CHUNK: usize = 1024;
    let asked_of = one_in_by_night(5);
    let flipped = AtomicU64::new(0);
    in_parallel(victim.image.len().div_ceil(CHUNK), |chunk| {
        let chunk = chunk * CHUNK..victim.image.len().min((chunk + 1) * CHUNK);
        for at in chunk.filter(|&at| (at + at / 64) % step == 0 && !is_hole(at)) {
            let hurt = match victim.piece_at(at) {
                Some(piece) => Hurt::Piece(piece),
                None if victim.copies.iter().any(|page| (*page..page + PAGE).contains(&at)) => {
                    Hurt::Copy
                }
                None => Hurt::Nothing,
            };
            let mut image = victim.image.clone();
            image[at] ^= 1 << (at % 8);
            // What a damaged piece answers does not hang on which of its bytes is another.
            if let Err(wrong) = victim.examine(image, &hurt, at % asked_of == 0) {
                tally.failed(&wrong, || format!("bit {} of byte {at}", at % 8));
            }
            flipped.fetch_add(1, Ordering::Relaxed);
        }
    });
    flipped.into_inner()
}

/// Replaces each piece by what lay there before, by another, and by zeros. Returns how often.
fn replace(victim: &Victim, tally: &Tally) -> u64 {
    let pieces: Vec<&Piece> = victim.pieces.values().collect();
    let replaced = AtomicU64::new(0);
    in_parallel(pieces.len(), |number| {
        let piece = pieces[number];
        let range = piece.range.clone();
        let current = &victim.image[range.clone()];
        let older = victim.older.iter().rev().filter_map(|image| image.get(range.clone()));
        let older = older.filter(|bytes| bytes != &current).take(2).map(<[u8]>::to_vec);
        let others = (1..pieces.len()).map(|i| pieces[(number + i) % pieces.len()]);
        let mut others = others.filter(|other| other.range.len() == range.len());
        let another = others.find_map(|other| {
            let bytes = &victim.image[other.range.clone()];
            (bytes != current).then(|| bytes.to_vec())
        });
        let zeros = vec![0; current.len()];
        for content in older.chain(another).chain([zeros]).filter(|bytes| bytes != current) {
            let mut image = victim.image.clone();
            image[range.clone()].copy_from_slice(&content);
            if let Err(wrong) = victim.examine(image, &Hurt::Piece(piece), true) {
                tally.failed(&wrong, || format!("{} at {range:?} replaced", piece.array));
            }
            replaced.fetch_add(1, Ordering::Relaxed);
        }
    });
    replaced.into_inner()
}

/// Cuts the file at every sector, and lengthens it. Returns how often.
fn cut(victim: &Victim, tally: &Tally) -> u64 {
    let needed = victim.image.len();
    let lengths: Vec<usize> = (0..needed).step_by(512).collect();
    in_parallel(lengths.len(), |number| {
        let image = victim.image[..lengths[number]].to_vec();
        for reading in [true, false] {
            let disk = Disk::with(image.clone());
            let opened = catch_unwind(AssertUnwindSafe(|| {
                simulation::open(disk.handle(), options().read_only(reading)).is_ok()
            }));
            if opened.unwrap_or(true) || disk.content() != image {
                let wrong = Wrong::Damaged("opened, panicked or changed".into());
                tally.failed(&wrong, || format!("cut to {} bytes", lengths[number]));
            }
        }
    });
    for extra in [1, 511, 512, 70_000] {
        let mut random = Random(extra);
        // No more than is needed: blocks of this process are watched.
        let mut image = Vec::with_capacity(needed + extra as usize);
        image.extend_from_slice(&victim.image);
        image.extend((0..extra).map(|_| random.next() as u8));
        if let Err(wrong) = victim.examine(image, &Hurt::Nothing, true) {
            tally.failed(&wrong, || format!("{extra} bytes of garbage at the end"));
        }
    }
    lengths.len() as u64 + 4
}

/// For the bugs that must be caught.
pub(crate) fn a_few() {
    let (victim, tally) = (Victim::new(), Tally::default());
    flip(&victim, &tally, 101);
    tally.assert_clean();
}

const CHILD: &str = "TREERING_TRUST_FLIPS";

/// The process in which allocations are watched.
#[test]
fn in_its_own_process() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    // A loop without end would be one here; nothing of this takes minutes.
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(900));
        eprintln!("does not come to an end");
        std::process::abort();
    });
    let (victim, tally) = (Victim::new(), Tally::default());
    victim.examine(victim.image.clone(), &Hurt::Nothing, true).expect("whole");
    allocation::watch();
    let flipped = flip(&victim, &tally, one_in(16));
    let replaced = replace(&victim, &tally);
    let cuts = cut(&victim, &tally);
    tally.assert_clean();
    say("flipped", flipped);
    say("replaced", replaced);
    say("cut", cuts);
}

#[test]
fn every_damaged_byte_is_reported_or_harmless() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["trust::flips::in_its_own_process", "--exact", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let figure = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.and_then(|number| number.parse::<u64>().ok()).expect("a figure")
    };
    say("bytes flipped", figure("flipped"));
    say("segments replaced", figure("replaced"));
    say("lengths tried", figure("cut"));
    finished(None);
    assert!(figure("flipped") > 5_000 && figure("replaced") > 200);
}
