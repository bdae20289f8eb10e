//! What the processes do: a writer, one that expires, readers, one that sends copies, one that
//! receives them.
//!
//! Every call is judged by what was possible from its beginning to its end. An error of the library
//! is a failure, unless the process died in the middle of it, or the error is the only true answer.

use std::collections::{BTreeMap, VecDeque};
use std::io::Cursor;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use treering::simulation::{self, Disk as _};
use treering::{
    AtError, BackupError, Durability, OpenError, OpenOptions, Place, Provenance, ReceiveError,
    Retention, Snapshot, Store, Verify, VerifyOptions, VersionId,
};

use super::super::model::{Content, State, Wrong, agrees_with, open_options};
use super::super::workload::{Operation, Planned};
use super::ledger::{Ledger, Possible};
use super::machine::{Machine, Syncs};
use super::scheduler::{Process, Scheduler};
use crate::common::Random;

/// A store, and what it may be.
pub(crate) struct Side {
    pub(crate) machine: Machine,
    pub(crate) ledger: Ledger,
}

/// A stream on its way, and what it may be a copy of.
struct Package {
    bytes: Vec<u8>,
    since: u64,
    sent: Vec<Arc<Possible>>,
}

/// All that the tasks of a schedule share.
pub(crate) struct World {
    pub(crate) scheduler: Scheduler,
    pub(crate) original: Side,
    pub(crate) copy: Side,
    pub(crate) seed: u64,
    /// What each task may still do, over all its lives.
    pub(crate) budgets: Vec<AtomicU64>,
    lives: AtomicU64,
    wire: Mutex<VecDeque<Package>>,
}

type Done = Result<(), Wrong>;

fn damaged(what: &str, e: impl std::fmt::Display) -> Wrong {
    Wrong::Damaged(format!("{what}: {e}"))
}

fn wrong(what: String) -> Wrong {
    Wrong::Answers(what)
}

impl World {
    pub(crate) fn new(
        scheduler: Scheduler,
        (original, copy): (Side, Side),
        seed: u64,
        budgets: Vec<u64>,
    ) -> Self {
        let budgets = budgets.into_iter().map(AtomicU64::new).collect();
        let (lives, wire) = Default::default();
        World { scheduler, original, copy, seed, budgets, lives, wire }
    }

    /// Plays a process: what it finds wrong is the schedule's failure, unless it has died.
    pub(crate) fn play(&self, process: &Process, body: fn(&World, &Process, Life) -> Done) {
        let number = self.lives.fetch_add(1, Ordering::SeqCst);
        let random = Random(self.seed ^ (number + 1) << 32);
        match body(self, process, Life { number, random }) {
            _ if !process.is_alive() => {
                self.original.ledger.disturb();
                self.copy.ledger.disturb();
            }
            Err(wrong) => self.scheduler.fail(wrong),
            Ok(()) => {}
        }
    }

    /// Takes one from what the task may still do.
    fn may_go_on(&self, process: &Process) -> bool {
        let budget = &self.budgets[process.task];
        let left = budget.load(Ordering::SeqCst);
        budget.store(left.saturating_sub(1), Ordering::SeqCst);
        left > 0 && process.is_alive()
    }

    fn pause(&self, side: &Side, process: &Process, time: Duration) {
        side.machine.open(process, true).0.pause(time);
    }
}

/// A life of a task, and its chance.
pub(crate) struct Life {
    number: u64,
    random: Random,
}

impl Life {
    fn options(&mut self) -> OpenOptions {
        let start = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let verify = if self.random.below(8) == 0 { Verify::OnOpen } else { Verify::FirstTouch };
        // Two lives must not make commits of one lineage.
        let provenance = Provenance::Fixed { start, seed: 1_000 + self.number };
        open_options().provenance(provenance).verify(verify)
    }
}

fn keeping(rule: Option<u64>) -> Retention {
    rule.map_or(Retention::new(), |last| Retention::new().keep_last(last))
}

/// Versions, tags and rule, by three calls.
type Listing = (Vec<u64>, BTreeMap<String, u64>, Retention);

fn listing(store: &Store) -> Result<Listing, Wrong> {
    let versions = store.versions().map_err(|e| damaged("versions", e))?;
    let tags = store.tags().map_err(|e| damaged("tags", e))?;
    let rule = store.retention().map_err(|e| damaged("the saved rule", e))?;
    let versions = versions.iter().map(|info| info.version.0).collect();
    Ok((versions, tags.into_iter().map(|tag| (tag.name, tag.version.0)).collect(), rule))
}

/// Which of those that are possible a store is in, as its one writer sees it.
pub(crate) fn resolve(
    store: &Store,
    possible: &[Possible],
    random: &mut Random,
) -> Result<Possible, Wrong> {
    let (versions, tags, rule) = listing(store)?;
    let fits = possible.iter().filter_map(|possible| possible.as_listed(&versions, &tags));
    let fits: Vec<Possible> = fits.filter(|found| keeping(found.rule) == rule).collect();
    let told: Vec<String> = possible.iter().map(Possible::to_string).collect();
    let what = format!("versions {versions:?}, tags {tags:?}, rule {rule}; possible: {told:?}");
    let mut outcome = Err(match possible.iter().all(|p| p.state.newest() > newest(&versions)) {
        true => Wrong::Lost(format!("an acknowledged version is gone: {what}")),
        false => wrong(format!("a state that nobody made: {what}")),
    });
    // Several may list the same. One must have the contents.
    for found in fits {
        let some = random.below(2) + 1;
        let mut contents = found.state.versions.iter().rev().step_by(some as usize);
        outcome = contents
            .try_for_each(|(&version, content)| {
                let at = store.at(VersionId(version));
                agrees_with(&at.map_err(|e| damaged("at", e))?, content)
            })
            .map(|()| found);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

fn newest(versions: &[u64]) -> u64 {
    versions.last().copied().unwrap_or(0)
}

/// A store that a process has open for writing.
struct Writing<'a> {
    side: &'a Side,
    process: &'a Process,
    store: Store,
    syncs: Syncs,
    grouped: bool,
    /// Nothing was committed yet: the first commit may sync only to make sure of the one before it.
    fresh: bool,
    /// As this handle sees it.
    current: Possible,
    /// As others see it, and as a crash leaves it at least.
    settled: Possible,
    /// What came since.
    pending: Vec<Possible>,
    random: Random,
}

impl<'a> Writing<'a> {
    /// Opens a store; `None` if another process has it open for writing.
    fn open(side: &'a Side, process: &'a Process, life: &mut Life) -> Result<Option<Self>, Wrong> {
        let (handle, syncs) = side.machine.open(process, true);
        let group = life.random.below(3);
        let durability = match group {
            0 => Durability::Deferred { versions: 3 },
            _ => Durability::Full,
        };
        let store = match simulation::open(handle, life.options().durability(durability)) {
            Err(OpenError::Locked) => return Ok(None),
            store => store.map_err(|e| damaged("opening for writing", e))?,
        };
        let mut random = Random(life.random.next());
        let current = resolve(&store, &side.ledger.now(), &mut random)?;
        side.ledger.turn([current.clone()]);
        let (settled, pending, grouped) = (current.clone(), Vec::new(), group == 0);
        Ok(Some(Writing {
            side,
            process,
            store,
            syncs,
            grouped,
            fresh: true,
            current,
            settled,
            pending,
            random,
        }))
    }

    /// Does something that leads through some states; the last is the one after. `settles`: what it
    /// acknowledges, a crash does not take away.
    fn lead<T, E: std::fmt::Display>(
        &mut self,
        through: Vec<Possible>,
        settles: bool,
        what: &dyn std::fmt::Debug,
        operation: impl FnOnce(&mut Store) -> Result<T, E>,
    ) -> Result<T, Wrong> {
        let before = std::iter::once(&self.settled).chain(&self.pending).chain([&self.current]);
        self.side.ledger.turn(before.chain(&through).cloned().collect::<Vec<_>>());
        let syncs = self.syncs.count();
        let done = operation(&mut self.store)
            .map_err(|e| damaged(&format!("the writer's {what:?}"), e))?;
        let last = through.last().expect("there is one").clone();
        let synced = self.syncs.count() > syncs && !self.fresh;
        self.fresh &= last.state.newest() == self.current.state.newest();
        self.arrive(last, settles || synced)?;
        Ok(done)
    }

    fn arrive(&mut self, after: Possible, settles: bool) -> Done {
        let settles = settles || !self.grouped;
        if settles {
            self.side.ledger.turn([after.clone()]);
        }
        self.current = match after.doubtful.is_empty() {
            true => after,
            false => {
                let (versions, tags, _) = listing(&self.store)?;
                let found = after.as_listed(&versions, &tags);
                found.ok_or_else(|| wrong(format!("after a commit: {versions:?}, {tags:?}")))?
            }
        };
        if settles {
            self.pending.clear();
            self.settled = self.current.clone();
        } else {
            self.pending.push(self.current.clone());
        }
        self.side.ledger.turn([self.settled.clone()]);
        Ok(())
    }

    /// An operation of a single store's workload.
    fn operate(&mut self, operation: Operation) -> Done {
        let plan = Planned::new(operation, &self.current.state, &mut self.random, None);
        let mut after = Possible {
            state: plan.states.last().expect("there is one").clone(),
            ..self.current.clone()
        };
        let newest = self.current.state.newest();
        let makes_a_version = after.state.newest() > newest;
        if let Some(last) = after.rule.filter(|_| makes_a_version) {
            let base = if operation == Operation::Restore { plan.version } else { newest };
            after.doubtful = after.doomed(last, &[newest, base]);
        }
        let settles = matches!(operation, Operation::Tag | Operation::Untag)
            && after.state.tags != self.current.state.tags;
        self.lead(vec![after], settles, &operation, |store| plan.run(store))
    }

    /// Lets versions go, and checks that they went which had to; `save`: and so from now on.
    fn expire(&mut self, last: u64, save: bool, own: &[u64]) -> Done {
        let doomed = self.current.doomed(last, &[]);
        let rule = if save { Some(last) } else { self.current.rule };
        let after = Possible { doubtful: doomed.clone(), rule, ..self.current.clone() };
        let before = self.current.clone();
        let rule = keeping(Some(last));
        let through = vec![before, after];
        let report = self.lead(through, true, &("expire", last, save), |store| match save {
            true => store.set_retention(rule),
            false => store.expire(rule),
        })?;
        let numbers = |all: &[VersionId]| all.iter().map(|v| v.0).collect::<Vec<u64>>();
        let (expired, pinned) = (numbers(&report.expired), numbers(&report.pinned));
        let mut told = [&expired[..], &pinned].concat();
        told.sort_unstable();
        let kept = own.iter().all(|version| !expired.contains(version));
        let there = self.current.state.versions.keys();
        let left = there.filter(|version| doomed.contains(version)).copied();
        if !told.iter().eq(&doomed) || !kept || !left.eq(pinned.iter().copied()) {
            return Err(wrong(format!("expired down to {last}, own pins {own:?}: {report:?}")));
        }
        Ok(())
    }

    /// Makes durable what waits for it.
    fn sync(&mut self) -> Done {
        let current = self.current.clone();
        self.lead(vec![current], true, &"sync", |store| store.sync())
    }

    /// Closes the store in good order.
    fn close(self) {
        let Writing { side, process, store, current, settled, pending, .. } = self;
        let before = std::iter::once(&settled).chain(&pending).chain([&current]);
        side.ledger.turn(before.cloned().collect::<Vec<_>>());
        let moment = side.ledger.moment();
        drop(store);
        // Unless another writer has come meanwhile, and knows better.
        if process.is_alive() && side.ledger.moment() == moment {
            side.ledger.turn([current]);
        }
    }
}

/// Writes, in several openings, and lets versions go now and then.
pub(crate) fn writer(world: &World, process: &Process, mut life: Life) -> Done {
    while world.may_go_on(process) {
        let Some(mut writing) = Writing::open(&world.original, process, &mut life)? else {
            world.pause(&world.original, process, Duration::from_millis(1));
            continue;
        };
        let mut own: Vec<(Snapshot, Arc<Content>)> = Vec::new();
        for _ in 0..2 + life.random.below(5) {
            if !world.may_go_on(process) {
                break;
            }
            match life.random.below(20) {
                0..7 => writing.operate(Operation::Insert)?,
                7..9 => writing.operate(Operation::Delete)?,
                9..11 => writing.operate(Operation::Tag)?,
                11 => writing.operate(Operation::Untag)?,
                12..14 => writing.operate(Operation::Restore)?,
                14 => writing.operate(Operation::Compact)?,
                15..17 => {
                    let versions: Vec<u64> =
                        own.iter().map(|(snapshot, _)| snapshot.version().0).collect();
                    writing.expire(
                        1 + life.random.below(3),
                        life.random.below(2) == 0,
                        &versions,
                    )?;
                }
                17 => writing.sync()?,
                18 => own.clear(),
                _ => {
                    let all = &writing.current.state.versions;
                    let chosen = all.iter().nth(life.random.below(all.len() as u64 + 1) as usize);
                    if let Some((&version, content)) = chosen {
                        let snapshot = writing.store.at(VersionId(version));
                        let snapshot = snapshot.map_err(|e| damaged("the writer's at", e))?;
                        own.push((snapshot, content.clone()));
                    }
                }
            }
            for (snapshot, content) in &own {
                agrees_with(snapshot, content)?;
            }
        }
        own.clear();
        writing.close();
    }
    Ok(())
}

/// Lets versions go whenever it gets hold of the store.
pub(crate) fn expirer(world: &World, process: &Process, mut life: Life) -> Done {
    while world.may_go_on(process) {
        if let Some(mut writing) = Writing::open(&world.original, process, &mut life)? {
            writing.expire(1 + life.random.below(4), false, &[])?;
            if life.random.below(2) == 0 {
                writing.operate(Operation::Insert)?;
                writing.expire(1 + life.random.below(2), false, &[])?;
            }
            writing.close();
        }
        world.pause(&world.original, process, Duration::from_millis(1));
    }
    Ok(())
}

/// A snapshot that a reader holds, and what it may hold; once it was read, what it holds.
struct Open {
    snapshot: Snapshot,
    contents: Vec<Arc<Content>>,
}

impl Open {
    fn check(&mut self) -> Done {
        let mut outcome = Err(wrong("a version that nobody made".to_string()));
        for content in &self.contents {
            outcome = agrees_with(&self.snapshot, content);
            if outcome.is_ok() {
                self.contents = vec![content.clone()];
                break;
            }
        }
        outcome
    }
}

/// Reads, beside everything else, in several openings.
pub(crate) fn reader(world: &World, process: &Process, mut life: Life) -> Done {
    let side = if life.random.below(4) == 0 { &world.copy } else { &world.original };
    while world.may_go_on(process) {
        let forgets = life.random.below(4) > 0;
        let (handle, _) = side.machine.open(process, forgets);
        let store = simulation::open(handle, life.options().read_only(true));
        let store = store.map_err(|e| damaged("opening for reading", e))?;
        let mut open: Vec<Open> = Vec::new();
        for _ in 0..life.random.below(8) {
            if !world.may_go_on(process) {
                break;
            }
            read((&store, forgets), side, &mut open, &mut life.random)?;
            if life.random.below(2) == 0 {
                open.iter_mut().try_for_each(Open::check)?;
            }
        }
    }
    Ok(())
}

/// One thing that a reader does. `forgets`: it keeps nothing open by itself.
fn read(
    (store, forgets): (&Store, bool),
    side: &Side,
    open: &mut Vec<Open>,
    random: &mut Random,
) -> Done {
    let moment = side.ledger.moment();
    match random.below(12) {
        0..4 => {
            let snapshot = store.latest().map_err(|e| damaged("latest", e))?;
            if forgets {
                simulation::forget_latest(store);
            }
            let version = snapshot.version().0;
            let possible = side.ledger.since(moment);
            let contents = possible.iter().filter(|p| p.state.newest() == version);
            open.push(seen(side, snapshot, contents)?);
        }
        4..7 => {
            let newest = side.ledger.now().iter().map(|p| p.state.newest()).max().unwrap_or(0);
            open.extend(open_at(store, side, random.below(newest + 2))?);
        }
        7 => {
            let (versions, tags, rule) = listing(store)?;
            let possible = side.ledger.since(moment);
            let listed = |p: &Arc<Possible>| p.as_listed(&versions, &p.state.tags).is_some();
            let tagged = |p: &Arc<Possible>| p.state.tags == tags;
            let ruled = |p: &Arc<Possible>| keeping(p.rule) == rule;
            let mut all = possible.iter();
            if !all.any(listed) || !possible.iter().any(tagged) || !possible.iter().any(ruled) {
                let told: Vec<String> = possible.iter().map(|p| p.to_string()).collect();
                let what = format!("listed {versions:?}, {tags:?}, {rule}; possible: {told:?}");
                return Err(wrong(what));
            }
        }
        8 => {
            let report = store.verify(VerifyOptions::all()).map_err(|e| damaged("verify", e))?;
            let mut problems = report.problems.iter();
            let bad = problems.find(|p| !matches!(p.what.at, Place::Header { .. } | Place::Slots));
            bad.map_or(Ok(()), |problem| Err(damaged("verify beside a writer", problem)))?;
        }
        _ => {
            if !open.is_empty() {
                open.swap_remove(random.below(open.len() as u64) as usize);
            }
        }
    }
    if open.len() > 4 {
        open.remove(0);
    }
    Ok(())
}

/// What a snapshot that was got just now may hold.
fn seen<'a>(
    side: &Side,
    snapshot: Snapshot,
    possible: impl Iterator<Item = &'a Arc<Possible>>,
) -> Result<Open, Wrong> {
    let version = snapshot.version().0;
    let mut contents: Vec<Arc<Content>> = Vec::new();
    for content in possible.filter_map(|possible| possible.content(version)) {
        if !contents.iter().any(|other| Arc::ptr_eq(other, &content)) {
            contents.push(content);
        }
    }
    if contents.is_empty() {
        return Err(wrong(format!("version {version} was not to be seen then")));
    }
    side.ledger.see(version);
    Ok(Open { snapshot, contents })
}

fn open_at(store: &Store, side: &Side, version: u64) -> Result<Option<Open>, Wrong> {
    let moment = side.ledger.moment();
    let result = store.at(VersionId(version));
    let possible = side.ledger.since(moment);
    match result {
        Ok(snapshot) => seen(side, snapshot, possible.iter()).map(Some),
        Err(AtError::Expired { .. }) if possible.iter().any(|p| p.may_be_gone(version)) => Ok(None),
        Err(AtError::NoSuchVersion { .. })
            if possible.iter().any(|p| p.state.newest() < version) =>
        {
            Ok(None)
        }
        Err(e) => Err(damaged(&format!("at {version}"), e)),
    }
}

/// Sends the original, whole or what is new.
pub(crate) fn sender(world: &World, process: &Process, mut life: Life) -> Done {
    let side = &world.original;
    while world.may_go_on(process) {
        let (handle, _) = side.machine.open(process, true);
        let store = simulation::open(handle, life.options().read_only(true));
        let store = store.map_err(|e| damaged("opening to send", e))?;
        let there = world.copy.ledger.now()[0].state.newest();
        let since = if life.random.below(3) > 0 { there } else { 0 };
        let moment = side.ledger.moment();
        let mut bytes = Vec::new();
        let result = store.backup((since > 0).then_some(VersionId(since)), &mut bytes);
        let mut possible = side.ledger.since(moment);
        match result {
            Ok(report) => {
                possible.retain(|p| p.state.newest() == report.newest.0);
                if possible.is_empty() {
                    return Err(wrong(format!("sent what was never there: {report:?}")));
                }
                let package = Package { bytes, since, sent: possible };
                world.wire.lock().expect("no holder panics").push_back(package);
            }
            Err(BackupError::At(AtError::Expired { .. } | AtError::NoSuchVersion { .. }))
                if possible.iter().any(|p| p.may_be_gone(since) || p.state.newest() < since) => {}
            Err(e) => return Err(damaged("backup", e)),
        }
        drop(store);
        world.pause(side, process, Duration::from_millis(life.random.below(4)));
    }
    Ok(())
}

/// Receives what was sent, and lets versions of the copy go.
pub(crate) fn receiver(world: &World, process: &Process, mut life: Life) -> Done {
    while world.may_go_on(process) {
        let package = world.wire.lock().expect("no holder panics").pop_front();
        let Some(package) = package else {
            world.pause(&world.copy, process, Duration::from_millis(2));
            continue;
        };
        let writing = Writing::open(&world.copy, process, &mut life)?;
        let mut writing = writing.ok_or_else(|| wrong("nobody else writes to the copy".into()))?;
        writing.receive(&package)?;
        if life.random.below(3) == 0 {
            writing.expire(1 + life.random.below(3), false, &[])?;
        }
        writing.close();
    }
    Ok(())
}

impl Writing<'_> {
    fn receive(&mut self, package: &Package) -> Done {
        let mut through = Vec::new();
        let mut outcomes = Vec::new();
        for sent in &package.sent {
            outcomes.push(self.received(sent, &mut through));
        }
        let before = self.current.clone();
        let all = [before.clone()].into_iter().chain(through.clone());
        self.side.ledger.turn(all.clone());
        let result = simulation::receive(&self.store, Cursor::new(&package.bytes));
        let (versions, tags, _) = match self.process.is_alive() {
            true => listing(&self.store)?,
            false => return Err(wrong("dead".into())),
        };
        let lacks = |version: u64| before.may_be_gone(version);
        let allowed: Vec<Possible> = match &result {
            Ok(_) => outcomes,
            Err(ReceiveError::MissingBase { base, .. }) if base.0 > before.state.newest() => {
                vec![before]
            }
            Err(ReceiveError::At(AtError::Expired { version, .. })) if lacks(version.0) => {
                all.collect()
            }
            Err(e) => return Err(damaged(&format!("receive since {}", package.since), e)),
        };
        let found: Vec<Possible> =
            allowed.iter().filter_map(|p| p.as_listed(&versions, &tags)).collect();
        if found.is_empty() {
            return Err(wrong(format!("received {versions:?}, tags {tags:?}; {result:?}")));
        }
        let found = resolve(&self.store, &found, &mut self.random)?;
        self.current = found.clone();
        self.settled = found.clone();
        self.pending.clear();
        self.side.ledger.turn([found]);
        Ok(())
    }

    /// The store after all of a stream is received; on the way there it is in the states of
    /// `through`.
    fn received(&self, sent: &Possible, through: &mut Vec<Possible>) -> Possible {
        let mut after = self.current.clone();
        let newest = after.state.newest();
        if sent.state.newest() < newest {
            return after;
        }
        for (&version, content) in sent.state.versions.range(newest + 1..) {
            if sent.doubtful.contains(&version) {
                // It may have gone before it was sent; then the next one comes without it.
                through.push(after.clone());
                after.doubtful.insert(version);
            }
            after.state.versions.insert(version, content.clone());
            through.push(after.clone());
        }
        after.state.tags = sent.state.tags.clone();
        after.state.tags.retain(|_, version| after.state.versions.contains_key(version));
        through.push(after.clone());
        after
    }
}

/// Those states, for who knows nothing of doubts.
pub(crate) fn states_of(possible: &[Possible]) -> Vec<State> {
    possible.iter().map(|possible| possible.state.clone()).collect()
}
