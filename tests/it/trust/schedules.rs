//! Many processes at once: a writer, one that expires, readers, one that sends and one that
//! receives, on simulated disks, in thousands of orders of their steps, with deaths, standstills
//! and power failures.
//!
//! `TREERING_TRUST_SCHEDULE=n cargo test --test it -- trust::schedules --nocapture` plays one
//! schedule again and lists its steps.

mod ledger;
mod machine;
mod scheduler;
mod tasks;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use treering::{Retention, Store};

use super::disk::Disk;
use super::figures::{Tally, finished, in_parallel, say, scale};
use super::medium::{Fate, Medium};
use super::model::{Content, State, Wrong, check};
use super::packed::Packed;
use super::workload::{formatted, open, seasoned};
use crate::common::Random;
use ledger::{Ledger, Possible};
use machine::Machine;
use scheduler::{Fortune, Process, Scheduler};
use tasks::{Side, World, resolve, states_of};

/// Steps of a schedule, about.
const LENGTH: u64 = 6_000;

/// Crash images that are looked at for each power failure.
const FATES: u64 = 3;

/// Steps of all schedules so far.
static STEPS: AtomicU64 = AtomicU64::new(0);

/// A store and its state, before a schedule begins.
#[derive(Clone)]
struct Start {
    image: Packed,
    possible: Possible,
}

/// Some stores to begin with, made once.
fn start(random: &mut Random) -> Start {
    static STARTS: OnceLock<Vec<Start>> = OnceLock::new();
    let starts = STARTS.get_or_init(|| {
        let make = |i: u64| {
            let (disk, state) = match i {
                0 => (formatted(), State::default()),
                _ => seasoned(&mut Random(i), i as usize),
            };
            let possible = Possible { state, ..Possible::default() };
            Start { image: Packed::of(&disk.content()), possible }
        };
        (0..6).map(make).collect()
    });
    starts[random.below(starts.len() as u64) as usize].clone()
}

/// A copy that has received nothing yet.
fn empty_copy() -> Start {
    Start { image: Packed::of(&formatted().content()), possible: Possible::default() }
}

/// Plays a schedule; what it has decided, in short.
fn play(seed: u64, trace: bool) -> Result<u64, Wrong> {
    let mut random = Random(seed);
    let mut stores = (start(&mut random), empty_copy());
    let mut digest = 0;
    for round in 0..2 {
        let power = round == 0 && random.below(2) == 0;
        let (found, decided) = play_round(random.next(), stores, power, trace)?;
        digest ^= decided;
        match found {
            Some(after_crash) => stores = after_crash,
            None => break,
        }
    }
    Ok(digest)
}

/// Until all tasks are done, or power fails; then the stores as they are after it.
fn play_round(
    seed: u64,
    (original, copy): (Start, Start),
    power: bool,
    trace: bool,
) -> Result<(Option<(Start, Start)>, u64), Wrong> {
    let mut random = Random(seed);
    let bodies = [
        tasks::writer,
        tasks::expirer,
        tasks::reader,
        tasks::reader,
        tasks::sender,
        tasks::receiver,
    ];
    let deaths = random.below(3) * random.below(2);
    let fortune = Fortune { deaths, power, freezes: 0 };
    let scheduler = Scheduler::new(random.next(), bodies.len(), LENGTH, fortune, trace);
    let bases = [Medium::new(original.image.clone()), Medium::new(copy.image.clone())];
    let side = |start: Start, seed| Side {
        machine: Machine::new(&scheduler, start.image, seed),
        ledger: Ledger::new(start.possible),
    };
    let sides = (side(original, random.next()), side(copy, random.next()));
    let budgets = vec![14, 4, 14, 14, 4, 12];
    let world = World::new(scheduler.clone(), sides, random.next(), budgets);
    let world = &world;
    let lives = bodies.map(|body| move |process: &Process| world.play(process, body));
    let lives: Vec<&(dyn Fn(&Process) + Sync)> = lives.iter().map(|life| life as _).collect();
    scheduler.run(&lives);
    STEPS.fetch_add(scheduler.steps(), Ordering::Relaxed);
    if let Some(wrong) = scheduler.failure() {
        return Err(wrong);
    }
    let digest = scheduler.digest();
    if scheduler.power_failed() {
        let [first, second] = bases;
        let original = after_crash(&world.original, first, &mut random)?;
        let copy = after_crash(&world.copy, second, &mut random)?;
        let copy = fitting(copy, &original);
        return Ok((Some((original, copy)), digest));
    }
    for side in [&world.original, &world.copy] {
        let image = side.machine.content();
        let (mut store, _) = find(image, &side.ledger.now(), &mut random)?;
        let report = store.expire(Retention::new().keep_last(1));
        let report = report.map_err(|e| Wrong::Damaged(format!("expire in the end: {e}")))?;
        let problems = store.verify(treering::VerifyOptions::all().deep(true));
        let problems = problems.map_err(|e| Wrong::Damaged(format!("verify in the end: {e}")))?;
        if !report.pinned.is_empty() || !problems.is_ok() {
            return Err(Wrong::Damaged(format!("in the end: {report:?}, {problems:?}")));
        }
    }
    Ok((None, digest))
}

/// A copy that has got what the original has lost can receive no more; then there is a new one.
fn fitting(copy: Start, original: &Start) -> Start {
    let State { versions, .. } = &original.possible.state;
    let newest = original.possible.state.newest();
    let same = |(version, content): (&u64, &Arc<Content>)| {
        *version <= newest && versions.get(version).is_none_or(|other| Arc::ptr_eq(other, content))
    };
    match copy.possible.state.versions.iter().all(same) {
        true => copy,
        false => empty_copy(),
    }
}

/// Looks at some of what power failure can leave, and takes one of it.
fn after_crash(side: &Side, mut medium: Medium, random: &mut Random) -> Result<Start, Wrong> {
    side.machine.take_record().iter().for_each(|event| medium.follow(event));
    let possible = side.ledger.after_crash();
    let fates = medium.fates(random);
    let mut found = None;
    for number in 0..FATES {
        let fate = match number {
            // Nothing since the last sync, or all of it up to some point.
            0 => Fate::Prefix(0),
            1 => Fate::Prefix(random.below(medium.uncertain() as u64 + 1) as usize),
            _ => fates[random.below(fates.len() as u64) as usize],
        };
        let image = medium.image(fate);
        let (store, possible) = find(image.clone(), &possible, random).map_err(|wrong| {
            let told = |why: String| format!("power failed, {fate:?}: {why}");
            match wrong {
                Wrong::Damaged(why) => Wrong::Damaged(told(why)),
                Wrong::Lost(why) => Wrong::Lost(told(why)),
                Wrong::Answers(why) => Wrong::Answers(told(why)),
            }
        })?;
        drop(store);
        found = Some(Start { image, possible });
    }
    Ok(found.expect("at least one"))
}

/// Opens a store and looks at all of it; which of those possible it is.
fn find(
    image: Packed,
    possible: &[Possible],
    random: &mut Random,
) -> Result<(Store, Possible), Wrong> {
    let store = open(&Disk::of(image)).map_err(Wrong::Damaged)?;
    let found = resolve(&store, possible, random)?;
    check(&store, &states_of(std::slice::from_ref(&found)))?;
    Ok((store, found))
}

/// Plays schedules by seed. `TREERING_TRUST_SCHEDULE=n` plays that one alone.
pub(crate) fn schedules(tally: &Tally, seeds: std::ops::Range<u64>) {
    let only = std::env::var("TREERING_TRUST_SCHEDULE").ok();
    let only: Option<u64> = only.map(|n| n.parse().expect("TREERING_TRUST_SCHEDULE: a number"));
    let seeds = only.map_or(seeds, |seed| seed..seed + 1);
    in_parallel((seeds.end - seeds.start) as usize, |unit| {
        let seed = seeds.start + unit as u64;
        Tally::count(&tally.schedules);
        if let Err(wrong) = play(seed, only.is_some()) {
            tally.failed(&wrong, || format!("TREERING_TRUST_SCHEDULE={seed}"));
        }
    });
}

#[test]
fn processes_in_many_orders() {
    let tally = Tally::default();
    let start = std::time::Instant::now();
    schedules(&tally, 0..scale(1_500, 2_000) as u64);
    say("schedules", tally.schedules.load(Ordering::Relaxed));
    say("steps of schedules", STEPS.load(Ordering::Relaxed));
    say("seconds for them", start.elapsed().as_secs());
    tally.assert_clean();
    finished(Some(&tally));
}

#[test]
fn a_schedule_is_played_again_in_the_same_order() {
    for seed in 0..20 {
        let [first, second] = [(); 2].map(|()| play(seed, false));
        assert_eq!(first.ok(), second.ok(), "schedule {seed}");
    }
}
