//! Power fails at every point of every operation, and again while the store recovers, and again
//! after that.

use std::sync::atomic::Ordering;

use treering::{CreateOptions, Retention, Store, simulation};

use super::disk::{Disk, Event};
use super::figures::{Tally, finished, in_parallel, one_in, one_in_by_night, say, scale};
use super::medium::{Fate, Medium, Seen};
use super::model::{Content, DIM, Points, State, Wrong, check, points};
use super::packed::Packed;
use super::workload::{
    COPY, LOCAL, Operation, Planned, Source, deferred, formatted, open, options, seasoned,
};
use crate::common::Random;
use crate::format::Spec;

/// The crash from which nobody goes on.
const LAST_CRASH: u32 = 3;

/// Looks at crash images, and counts.
pub(crate) struct Crashes<'a> {
    pub(crate) tally: &'a Tally,
    seen: Seen,
    random: Random,
    /// Of the images tried, one in so many is recovered from, with crashes on the way.
    recover: u64,
    /// What sees the same again.
    label: String,
}

/// A record of what was done to a disk that held `base`, and what may be found after each mark in
/// it.
struct Recorded {
    base: Medium,
    events: Vec<Event>,
    allowed: Vec<Vec<State>>,
}

impl<'a> Crashes<'a> {
    pub(crate) fn new(tally: &'a Tally, seed: u64, recover: u64, label: String) -> Self {
        Crashes { tally, seen: Seen::default(), random: Random(seed), recover, label }
    }

    /// Tries what a crash at any point of a record can leave, or one in `thin` of it. `crash`
    /// counts from 1: the first crash, one during recovery from it, one during recovery from that.
    fn try_record(&mut self, recorded: Recorded, crash: u32, thin: u64, before: &str) {
        let Recorded { base: mut medium, events, allowed } = recorded;
        let mut mark = 0;
        for (number, event) in events.iter().enumerate() {
            medium.follow(event);
            if let Event::Mark(next) = event {
                mark = *next;
            }
            let slot = medium.is_slot_on_its_way();
            if crash == 1 && self.random.below(if slot { 3 } else { 40 }) == 0 {
                let what = format!("{before}, event {number}");
                self.kill_and_go_on(&medium, &allowed[mark], &what);
            }
            for fate in medium.fates(&mut self.random) {
                if thin > 1 && self.random.below(thin) > 0 {
                    continue;
                }
                let image = medium.image(fate);
                if !self.seen.is_new(&image, mark as u64) {
                    continue;
                }
                let counter = match crash {
                    1 => &self.tally.images,
                    _ => &self.tally.recoveries,
                };
                Tally::count(counter);
                let what = format!("{before}, event {number}, {fate:?}");
                self.try_image(image, &allowed[mark], crash, &what);
            }
        }
    }

    /// The writer is killed, the machine goes on, and so does another writer; then power fails.
    fn kill_and_go_on(&mut self, medium: &Medium, allowed: &[State], what: &str) {
        let disk = Disk::of(medium.everything());
        let found = open(&disk)
            .map_err(Wrong::Damaged)
            .and_then(|store| check(&store, allowed).map(|found| (store, found)));
        match found {
            Err(wrong) => self.tally.failed(&wrong, || format!("{}{what}, killed", self.label)),
            Ok((store, found)) => {
                let what = format!("{what}, killed");
                self.go_on(&disk, store, medium.clone(), (allowed, found), 1, &what);
            }
        }
    }

    fn try_image(&mut self, image: Packed, allowed: &[State], crash: u32, what: &str) {
        let disk = Disk::of(image.clone());
        let found = open(&disk)
            .map_err(|e| Wrong::Damaged(format!("does not open: {e}")))
            .and_then(|store| check(&store, allowed).map(|found| (store, found)));
        match found {
            Err(wrong) => self.tally.failed(&wrong, || format!("{}{what}", self.label)),
            Ok((store, found)) if crash < LAST_CRASH && self.random.below(self.recover) == 0 => {
                self.go_on(&disk, store, Medium::new(image), (allowed, found), crash, what);
            }
            Ok(_) => {}
        }
    }

    /// Goes on with what was found after a crash, on a medium that held `base`, and lets power fail
    /// on the way.
    fn go_on(
        &mut self,
        disk: &Disk,
        mut store: Store,
        base: Medium,
        (allowed, found): (&[State], usize),
        crash: u32,
        what: &str,
    ) {
        let operation = LOCAL[self.random.below(LOCAL.len() as u64) as usize];
        let plan = Planned::new(operation, &allowed[found], &mut self.random, None);
        let result = plan.run(&mut store);
        drop(store);
        let what = format!("{what}, then {operation:?}");
        if let Err(e) = result {
            let wrong = Wrong::Damaged(format!("cannot go on: {e}"));
            return self.tally.failed(&wrong, || format!("{}{what}", self.label));
        }
        let after = plan.states.last().expect("there is one").clone();
        let on_the_way: Vec<State> = allowed.iter().chain(&plan.states[1..]).cloned().collect();
        let mut events = disk.take_record();
        // A call that had nothing to do has made nothing durable.
        let is_settled = events.iter().any(|event| matches!(event, Event::Synced { .. }));
        events.push(Event::Mark(usize::from(is_settled)));
        let recorded = Recorded { base, events, allowed: vec![on_the_way, vec![after]] };
        self.try_record(recorded, crash + 1, 8, &what);
    }
}

/// Does `operations` to a store on `disk` that is in `state`, and crashes at every point of those
/// from number `from` on. Of what a crash can leave, one in `thin` is tried.
fn run_and_crash(
    crashes: &mut Crashes<'_>,
    (disk, mut state): (Disk, State),
    operations: &[Operation],
    (from, thin): (usize, u64),
    mut source: Option<Source>,
) {
    let mut store = open(&disk).unwrap();
    let mut medium = Medium::new(disk.packed());
    for (number, &operation) in operations.iter().enumerate() {
        if number == from {
            disk.take_record().iter().for_each(|event| medium.follow(event));
        }
        let plan = Planned::new(operation, &state, &mut crashes.random, source.as_mut());
        plan.run(&mut store).unwrap_or_else(|e| panic!("{}{operation:?}: {e}", crashes.label));
        disk.mark(1);
        state = plan.states.last().expect("there is one").clone();
        if number >= from {
            let events = disk.take_record();
            let recorded = Recorded {
                base: medium.clone(),
                events: events.clone(),
                allowed: vec![plan.states, vec![state.clone()]],
            };
            crashes.try_record(recorded, 1, thin, &format!("{:?}", &operations[..=number]));
            events.iter().for_each(|event| medium.follow(event));
        }
    }
    // The run itself is as the model says.
    if let Err(wrong) = check(&store, &[state]) {
        crashes.tally.failed(&wrong, || format!("{}{operations:?}, no crash", crashes.label));
    }
}

/// Operations of the longest sequences of which all are tried.
const LONGEST: usize = 3;

/// All sequences of up to [`LONGEST`] operations.
fn sequences(alphabet: &[Operation]) -> Vec<Vec<Operation>> {
    let mut all: Vec<Vec<Operation>> = vec![Vec::new()];
    let mut longest = all.clone();
    for _ in 0..LONGEST {
        let longer = longest.iter().flat_map(|sequence: &Vec<Operation>| {
            alphabet.iter().map(|&next| [&sequence[..], &[next]].concat())
        });
        longest = longer.collect();
        all.extend(longest.iter().cloned());
    }
    all.remove(0);
    all
}

/// Every sequence of up to three operations, on a store with some history. Crashes in the last
/// operation of each; those in the ones before belong to a shorter sequence.
pub(crate) fn every_short_sequence(tally: &Tally, one_in: usize) {
    let local = sequences(&LOCAL).into_iter().map(|sequence| (sequence, false));
    let copy = sequences(&COPY).into_iter().map(|sequence| (sequence, true));
    let all: Vec<(Vec<Operation>, bool)> = local.chain(copy).step_by(one_in).collect();
    in_parallel(all.len(), |unit| {
        let (operations, is_copy) = &all[unit];
        let mut crashes = Crashes::new(tally, unit as u64, 400, String::new());
        let start = match is_copy {
            true => (formatted(), State::default()),
            false => seasoned(&mut Random(1), 3),
        };
        let source = is_copy.then(Source::new);
        let thin = if operations.len() == LONGEST { one_in_by_night(3) as u64 } else { 1 };
        run_and_crash(&mut crashes, start, operations, (operations.len() - 1, thin), source);
    });
}

/// Longer histories by seed. `TREERING_TRUST_SEED=n` runs that one alone.
pub(crate) fn histories(tally: &Tally, seeds: usize) {
    let only = std::env::var("TREERING_TRUST_SEED").ok();
    let only: Option<usize> = only.map(|text| text.parse().expect("TREERING_TRUST_SEED: a number"));
    in_parallel(only.map_or(seeds, |_| 1), |unit| history(tally, only.unwrap_or(unit)));
}

/// Like [`histories`], those of versions that share their syncs only.
pub(crate) fn histories_with_shared_syncs(tally: &Tally, numbers: std::ops::Range<usize>) {
    in_parallel(numbers.len(), |unit| history(tally, 4 * (numbers.start + unit) + 3));
}

fn history(tally: &Tally, seed: usize) {
    let label = format!("TREERING_TRUST_SEED={seed}: ");
    let mut crashes = Crashes::new(tally, 1000 + seed as u64, 600, label);
    match seed % 4 {
        3 => shared_syncs(&mut crashes),
        kind => {
            let alphabet = if kind == 2 { &COPY[..] } else { &LOCAL[..] };
            let mut pick = || alphabet[crashes.random.below(alphabet.len() as u64) as usize];
            let operations: Vec<Operation> = (0..8).map(|_| pick()).collect();
            let source = (kind == 2).then(Source::new);
            // Enough history that space is used again.
            let start = match kind {
                0 => seasoned(&mut Random(seed as u64), 12),
                _ => (formatted(), State::default()),
            };
            run_and_crash(&mut crashes, start, &operations, (0, 1), source);
        }
    }
}

/// Versions that share their syncs: what a crash leaves is a beginning of the history, at least up
/// to the last sync.
fn shared_syncs(crashes: &mut Crashes<'_>) {
    // With few holes in the file or many: what a group takes out of use is the first that fits, or
    // one of several.
    let seasons = crashes.random.below(7) as usize;
    let (disk, mut state) = seasoned(&mut crashes.random, seasons);
    let group = 4 << crashes.random.below(2);
    let mut store = simulation::open(disk.handle(), deferred(group)).unwrap();
    let (base, mut allowed) = (Medium::new(disk.packed()), Vec::new());
    // The states since the last one that is known to be durable, that one included.
    let mut open_states = vec![state.clone()];
    let mut events = Vec::new();
    for number in 0..12 {
        let operation = match crashes.random.below(8) {
            0 => Operation::Expire,
            1 => Operation::Tag,
            2 => Operation::Delete,
            _ => Operation::Insert,
        };
        let plan = Planned::new(operation, &state, &mut crashes.random, None);
        disk.mark(allowed.len());
        allowed.push([&open_states[..], &plan.states[1..]].concat());
        plan.run(&mut store).unwrap_or_else(|e| panic!("{}{operation:?}: {e}", crashes.label));
        if number % 5 == 4 {
            store.sync().unwrap();
        }
        state = plan.states.last().expect("there is one").clone();
        let record = disk.take_record();
        match record.iter().any(|event| matches!(event, Event::Synced { .. })) {
            true => open_states = vec![state.clone()],
            false => open_states.push(state.clone()),
        }
        events.extend(record);
        events.push(Event::Mark(allowed.len()));
        allowed.push(open_states.clone());
    }
    crashes.try_record(Recorded { base, events, allowed }, 1, 1, "shared syncs");
    drop(store);
}

#[test]
fn power_fails_at_every_point() {
    let tally = Tally::default();
    let start = std::time::Instant::now();
    every_short_sequence(&tally, one_in(9));
    histories(&tally, scale(8, 24));
    tally.assert_clean();
    let images = tally.images.load(Ordering::Relaxed);
    let recoveries = tally.recoveries.load(Ordering::Relaxed);
    say("crash images", images);
    say("recovery crashes", recoveries);
    say("seconds for both", start.elapsed().as_secs());
    finished(Some(&tally));
    assert!(images > 5_000 && recoveries > 500, "{images} images, {recoveries} recoveries");
}

/// A writer died before it could leave its hint, so the next one makes sure of the commit. It wrote
/// the blocks of the commit again, in place, to be sure that the medium had them; power that failed
/// during that with garbage left hurt an acknowledged version. Nothing that a commit refers to is
/// written a second time, but its slot, one copy after the other.
#[test]
fn confirming_a_commit_does_not_put_it_at_stake() {
    let (disk, state) = seasoned(&mut Random(1), 3);
    let mut image = disk.packed();
    image.zero(Spec::parse().hint_page(), 4096);
    let tally = Tally::default();
    let mut crashes = Crashes::new(&tally, 2, u64::MAX, "hint lost".into());
    let disk = Disk::of(image.clone());
    let mut store = open(&disk).unwrap();
    let plan = Planned::new(Operation::Insert, &state, &mut Random(3), None);
    plan.run(&mut store).unwrap();
    drop(store);
    let mut medium = Medium::new(image);
    for event in disk.take_record() {
        medium.follow(&event);
        // Whatever is garbage: what was acknowledged before is there.
        for seed in 0..medium.uncertain() {
            let image = medium.image(Fate::Garbage(seed, 5));
            crashes.try_image(image, &plan.states, 3, &format!("{event:?}"));
        }
    }
    tally.assert_clean();
}

/// Ordinary commits bring forward what lies far out in a file that is too long, and cut its end.
/// Power fails at every step of that.
#[test]
fn power_fails_while_a_file_gets_shorter() {
    const MANY: usize = 60_000;
    let disk = Disk::default();
    simulation::format(disk.handle(), &CreateOptions::new(DIM), &options()).unwrap();
    let mut random = Random(4);
    let kept = points(&mut random, 20);
    let mut store = open(&disk).unwrap();
    store.insert(&[&kept[..], &random.points(MANY, DIM)[..]].concat()).unwrap();
    store.delete(&(20..20 + MANY as u64).collect::<Vec<u64>>()).unwrap();
    store.compact().unwrap();
    // What is left lies at the end, behind the room of all that has gone.
    store.set_retention(Retention::new().keep_last(1)).unwrap();
    let mut state = State::default();
    let content = (0..).zip(kept.chunks(DIM)).map(|(id, row)| (id, [row[0], row[1]]));
    let mut content: Points = content.collect();
    state.versions.insert(3, Content::new(content.clone()));

    let tally = Tally::default();
    let mut crashes = Crashes::new(&tally, 5, u64::MAX, String::new());
    let before = store.file_bytes();
    disk.take_record();
    let mut medium = Medium::new(disk.packed());
    for version in 4..16 {
        let rows = points(&mut random, 3);
        let report = store.insert(&rows).unwrap();
        assert_eq!(report.version.0, version);
        let first = (MANY + 20 + 3 * (version as usize - 4)) as u64;
        content.extend((first..).zip(rows.chunks(DIM)).map(|(id, row)| (id, [row[0], row[1]])));
        // The version that one is made from goes with the commit after it.
        let mut after = state.clone();
        after.versions.insert(version, Content::new(content.clone()));
        after.expire(2);
        disk.mark(1);
        let events = disk.take_record();
        let allowed = vec![vec![state, after.clone()], vec![after.clone()]];
        let recorded = Recorded { base: medium.clone(), events: events.clone(), allowed };
        // Nobody goes on from what is found, because the model of that knows no saved rule.
        crashes.try_record(recorded, LAST_CRASH, one_in(8) as u64, &format!("version {version}"));
        events.iter().for_each(|event| medium.follow(event));
        state = after;
    }
    tally.assert_clean();
    let (after, images) = (store.file_bytes(), tally.recoveries.load(Ordering::Relaxed));
    println!("{before} bytes, then {after}; {images} images");
    assert!(after + (1 << 20) < before, "{before} bytes, then {after}");
    assert!(images > 100, "{images}");
}
