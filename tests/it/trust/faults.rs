//! The device fails at the first operation, at the second, at the third, ... until the run
//! completes. Whatever fails is a typed error; a writer whose sync failed refuses to go on; and
//! what was acknowledged is there afterwards, whether the machine goes on or loses power.

use std::sync::atomic::Ordering;

use treering::simulation;

use super::disk::{Disk, Event, Fault, Plan};
use super::figures::{Tally, finished, in_parallel, one_in, say};
use super::medium::{Fate, Medium};
use super::model::{State, Wrong, check};
use super::workload::{Operation, Planned, Source, deferred, formatted, open, options, seasoned};
use crate::common::Random;

/// What is done; failures may make it shorter.
const OPERATIONS: [Operation; 10] = [
    Operation::Insert,
    Operation::Tag,
    Operation::Delete,
    Operation::Insert,
    Operation::Restore,
    Operation::Expire,
    Operation::Insert,
    Operation::Compact,
    Operation::Untag,
    Operation::Insert,
];

/// What is done to a copy that receives from another store.
const TO_A_COPY: [Operation; 5] =
    [Operation::Receive, Operation::Tag, Operation::Receive, Operation::Expire, Operation::Receive];

/// A run with one plan of failure.
struct Run<'a> {
    tally: &'a Tally,
    operations: &'static [Operation],
    source: Option<Source>,
    label: String,
    disk: Disk,
    medium: Medium,
    random: Random,
}

impl Run<'_> {
    fn fail(&self, wrong: &Wrong, what: &str) {
        self.tally.failed(wrong, || format!("{}: {what}", self.label));
    }

    fn follow(&mut self) {
        self.disk.take_record().iter().for_each(|event| self.medium.follow(event));
    }

    /// What power failing now would leave is in one of the states allowed.
    fn check_power_loss(&mut self, allowed: &[State], what: &str) {
        let mut fates = self.medium.fates(&mut self.random);
        fates.truncate(1);
        let seed = self.random.next();
        fates.extend([Fate::Prefix(0), Fate::Subset(seed), Fate::Reordered(seed ^ 1)]);
        for fate in fates {
            let image = Disk::of(self.medium.image(fate));
            let found = simulation::open(image.handle(), options())
                .map_err(|e| Wrong::Damaged(format!("does not open: {e}")))
                .and_then(|store| check(&store, allowed));
            if let Err(wrong) = found {
                self.fail(&wrong, &format!("{what}, then power fails: {fate:?}"));
            }
        }
    }

    /// Opens the store again, as the page cache shows it, without failures, and goes on.
    fn check_reopened(&mut self, allowed: &[State], what: &str) {
        self.disk.fail(None);
        let reopened = open(&self.disk).map_err(Wrong::Damaged).and_then(|store| {
            let found = check(&store, allowed)?;
            Ok((store, found))
        });
        let (mut store, found) = match reopened {
            Ok(reopened) => reopened,
            Err(wrong) => return self.fail(&wrong, &format!("{what}, opened again")),
        };
        if self.disk.failed().1 > 0 && self.random.below(2) == 0 {
            drop(store);
            return self.go_on_deferred(allowed, found, what);
        }
        let plan = Planned::new(Operation::Insert, &allowed[found], &mut self.random, None);
        let done = plan.run(&mut store).map_err(Wrong::Damaged);
        let after = [plan.states.last().expect("there is one").clone()];
        if let Err(wrong) = done.and_then(|()| check(&store, &after)) {
            self.fail(&wrong, &format!("{what}, opened again, gone on"));
        }
        drop(store);
        self.follow();
        // Whatever was in doubt, what was acknowledged by now is on the disk.
        self.check_power_loss(&after, &format!("{what}, opened again, gone on"));
    }

    /// Each of `writers` but the last meets a sync that fails, every one in turn; the last meets
    /// none, and power fails at every step of it.
    fn fail_in_a_row(&self, writers: &[Operation], allowed: &[State]) {
        let (&operation, rest) = writers.split_first().expect("the last one ends it");
        for at in 0.. {
            let disk = Disk::of(self.disk.packed());
            let mut run = Run {
                tally: self.tally,
                operations: self.operations,
                source: None,
                label: format!("{}, {at}", self.label),
                medium: self.medium.clone(),
                disk,
                random: Random(self.random.0 ^ at),
            };
            let mut allowed = allowed.to_vec();
            let done = run.write_once(operation, &mut allowed, (!rest.is_empty()).then_some(at));
            let (failures, syncs) = run.disk.failed();
            match done {
                Err(wrong) => return run.fail(&wrong, &format!("{operation:?}")),
                Ok(_) if rest.is_empty() => return run.check_each_step(&allowed),
                Ok(_) if failures == 0 => return,
                Ok(_) if syncs == 0 => {}
                Ok(acknowledged) => {
                    Tally::count(&self.tally.faults);
                    run.follow();
                    let known = if acknowledged { &allowed[allowed.len() - 1..] } else { &allowed };
                    run.fail_in_a_row(rest, known);
                }
            }
        }
    }

    /// Opens the store and does one thing, the operation of the disk with number `at` of which
    /// fails; what it may lead to is then allowed as well. True if it was acknowledged.
    fn write_once(
        &mut self,
        operation: Operation,
        allowed: &mut Vec<State>,
        at: Option<u64>,
    ) -> Result<bool, Wrong> {
        let mut store = open(&self.disk).map_err(Wrong::Damaged)?;
        let found = check(&store, allowed)?;
        let plan = Planned::new(operation, &allowed[found], &mut self.random, None);
        let so_far = self.disk.operations();
        self.disk.fail(at.map(|at| Plan { at: so_far + at, fault: Fault::Io, for_good: false }));
        let done = plan.run(&mut store);
        allowed.extend_from_slice(&plan.states[1..]);
        match done {
            Err(e) if self.disk.failed().0 == 0 => {
                Err(Wrong::Damaged(format!("{e}, and nothing failed")))
            }
            done => Ok(done.is_ok()),
        }
    }

    /// Power fails at every step of what was recorded.
    fn check_each_step(&mut self, allowed: &[State]) {
        for (number, event) in self.disk.take_record().iter().enumerate() {
            self.medium.follow(event);
            if self.random.below(2) == 0 {
                self.check_power_loss(allowed, &format!("event {number}"));
            }
        }
        let newest = &allowed[allowed.len() - 1..];
        self.check_power_loss(newest, "in the end");
    }

    /// Goes on with versions that share their syncs: until they do, what is on the disk is what was
    /// there before.
    fn go_on_deferred(&mut self, allowed: &[State], found: usize, what: &str) {
        let mut store = simulation::open(self.disk.handle(), deferred(20)).unwrap();
        let (mut allowed, mut state) = (allowed.to_vec(), allowed[found].clone());
        for number in 0..12 {
            let operation = if number == 0 { Operation::Delete } else { Operation::Insert };
            let plan = Planned::new(operation, &state, &mut self.random, None);
            if let Err(e) = plan.run(&mut store) {
                return self.fail(&Wrong::Damaged(e), &format!("{what}, gone on deferred"));
            }
            state = plan.states.last().expect("there is one").clone();
            allowed.push(state.clone());
            self.follow();
            self.check_power_loss(&allowed, &format!("{what}, gone on deferred"));
        }
    }

    /// Runs until the plan is over or the writer refuses to go on. Returns false if nothing failed.
    fn run(mut self, mut state: State) -> bool {
        let mut allowed = vec![state.clone()];
        let mut store = match open(&self.disk) {
            Ok(store) => store,
            Err(_) => {
                self.follow();
                self.check_power_loss(&allowed, "opening fails");
                self.check_reopened(&allowed, "opening fails");
                return true;
            }
        };
        let mut refused = false;
        for (number, &operation) in self.operations.iter().enumerate() {
            let source = self.source.as_mut();
            let plan = Planned::new(operation, &state, &mut self.random, source);
            let before = self.disk.failed();
            let what = format!("operation {number}, {operation:?}");
            let result = plan.run(&mut store);
            let after = self.disk.failed();
            self.follow();
            match result {
                Ok(()) => {
                    state = plan.states.last().expect("there is one").clone();
                    allowed = vec![state.clone()];
                }
                Err(e) if after == before => {
                    self.fail(&Wrong::Damaged(format!("{e}, and nothing failed")), &what);
                    break;
                }
                Err(e) => {
                    allowed.extend_from_slice(&plan.states[1..]);
                    self.check_power_loss(&allowed, &what);
                    refused = after.1 > before.1 || e.contains("reopen the store");
                    if refused {
                        break;
                    }
                    // It may have got further than it says; without failures the handle can tell.
                    if let Some(now) = self.look(&store, &allowed, &what) {
                        allowed = vec![now.clone()];
                        state = now;
                    }
                }
            }
        }
        if refused {
            self.check_refusal(&mut store, &state);
        }
        drop(store);
        self.follow();
        let any = self.disk.failed().0 > 0;
        self.check_reopened(&allowed, "in the end");
        any
    }

    /// The state that the handle shows, read without failures.
    fn look(&mut self, store: &treering::Store, allowed: &[State], what: &str) -> Option<State> {
        let plan = self.disk.pause();
        let found = check(store, allowed);
        self.disk.fail(plan);
        match found {
            Ok(found) => Some(allowed[found].clone()),
            Err(wrong) => {
                self.fail(&wrong, &format!("{what}, the same handle"));
                None
            }
        }
    }

    /// After a failed sync nothing is written any more, even if the device has recovered.
    fn check_refusal(&mut self, store: &mut treering::Store, state: &State) {
        self.disk.fail(None);
        let plan = Planned::new(Operation::Insert, state, &mut self.random, None);
        let refused = plan.run(store);
        let wrote = self.disk.take_record().iter().any(|event| matches!(event, Event::Change(_)));
        if refused.is_ok() || wrote {
            self.fail(&Wrong::Answers("a writer went on after a failed sync".into()), "refusal");
        }
    }
}

/// Every operation of a run fails in every way, once or for good.
pub(crate) fn every_operation_fails(tally: &Tally, step: u64) {
    let kinds: Vec<(Fault, bool)> = [Fault::Io, Fault::Full, Fault::Short]
        .into_iter()
        .flat_map(|fault| [(fault, false), (fault, true)])
        .collect();
    in_parallel(2 * kinds.len(), |unit| {
        let (kind, is_copy) = (unit / 2, unit % 2 == 1);
        let (fault, for_good) = kinds[kind];
        let (disk, state) = match is_copy {
            true => (formatted(), State::default()),
            false => seasoned(&mut Random(3), 3),
        };
        let start = disk.packed();
        // From the first operation on, until a run in which nothing fails. Every single one fails
        // once with EIO.
        let step = if kind == 0 { 1 } else { step };
        for number in (kind as u64 % step..).step_by(step as usize) {
            let disk = Disk::of(start.clone());
            let plan = Plan { at: number, fault, for_good };
            disk.fail(Some(plan));
            let run = Run {
                tally,
                operations: if is_copy { &TO_A_COPY } else { &OPERATIONS },
                source: is_copy.then(Source::new),
                label: format!("{}{plan:?}", if is_copy { "a copy, " } else { "" }),
                medium: Medium::new(start.clone()),
                disk,
                random: Random(number),
            };
            if !run.run(state.clone()) {
                break;
            }
            Tally::count(&tally.faults);
        }
    });
}

/// Two writers in a row meet a sync that fails, and power fails while a third one works: the page
/// cache shows what they committed, the medium may never get it, so none of them may build on the
/// one before until it has seen to that. Two, because what a commit takes out of use outlives one
/// commit that the medium lacks.
pub(crate) fn syncs_fail_in_a_row(tally: &Tally) {
    const PAIR: [Operation; 2] = [Operation::Insert, Operation::Expire];
    let all = PAIR.iter().flat_map(|&a| PAIR.iter().flat_map(move |&b| PAIR.map(|c| [a, b, c])));
    let all: Vec<[Operation; 3]> = all.collect();
    in_parallel(all.len(), |unit| {
        let (disk, state) = seasoned(&mut Random(3), 3);
        let start = disk.packed();
        let run = Run {
            tally,
            operations: &[],
            source: None,
            label: format!("{:?}", all[unit]),
            medium: Medium::new(start.clone()),
            disk: Disk::of(start),
            random: Random(unit as u64),
        };
        run.fail_in_a_row(&all[unit], &[state]);
    });
}

#[test]
fn the_device_fails_at_every_operation() {
    let tally = Tally::default();
    syncs_fail_in_a_row(&tally);
    every_operation_fails(&tally, one_in(9) as u64);
    tally.assert_clean();
    let faults = tally.faults.load(Ordering::Relaxed);
    say("io faults", faults);
    finished(Some(&tally));
    assert!(faults > 500, "{faults} faults");
}

/// A read that failed while a copy looked whether the versions that tags name are there: the tag
/// was taken for one of an expired version and dropped, and the copy said that it had received
/// everything.
#[test]
fn no_tag_is_dropped_because_a_read_fails() {
    let mut source = Source::new();
    let (nothing, mut random) = (State::default(), Random(1));
    let plan = Planned::new(Operation::Receive, &nothing, &mut random, Some(&mut source));
    let whole = plan.states.last().expect("there is one");
    assert!(!whole.tags.is_empty());
    let mut failed = 0;
    for at in 0..200 {
        let disk = formatted();
        let mut store = open(&disk).unwrap();
        disk.fail(Some(Plan { at, fault: Fault::Io, for_good: false }));
        let received = plan.run(&mut store);
        disk.fail(None);
        failed += disk.failed().0;
        match received {
            Ok(()) => assert!(check(&store, std::slice::from_ref(whole)).is_ok(), "at {at}"),
            Err(_) => assert!(check(&store, &plan.states).is_ok(), "at {at}"),
        }
    }
    assert!(failed > 30, "{failed} operations failed");
}
