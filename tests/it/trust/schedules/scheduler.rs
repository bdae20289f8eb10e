//! Decides, from a seed, which of several tasks goes on: one at a time, and at every step of a disk
//! another may be next.
//!
//! A task is a thread that plays processes, one after the other. It goes on until it asks its
//! handle of a simulated file for something; that is a *step*, at which the scheduler may let
//! another task go on, let the process die, let all of them stand still for a while, or let power
//! fail. Nothing else decides what happens, so a seed always gives the same.
//!
//! A process that has died gets errors from every handle and changes nothing any more; its locks
//! count for nothing. So it comes to an end by itself, as far as the rest of the world can see at
//! the moment of its death.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use treering::simulation::Hold;

use super::super::model::Wrong;
use crate::common::Random;

/// What a step is about to do. Offsets and lengths are bytes, for the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Len,
    Read(u64, usize),
    Write(u64, usize),
    /// A write to headers, slots or hint.
    Preamble(u64, usize),
    /// To grow, to cut, or to punch a hole.
    Resize(u64, u64),
    Sync,
    /// A range, and how it is to be held.
    Lock(u64, u64, Hold),
    /// Nothing: the process waits so many nanoseconds.
    Wait(u64),
}

impl Step {
    /// Nanoseconds that it takes on the simulated clock.
    fn takes(self) -> u64 {
        match self {
            Step::Len | Step::Read(..) | Step::Lock(..) => 500,
            Step::Write(..) | Step::Preamble(..) | Step::Resize(..) => 2_000,
            Step::Sync => 200_000,
            Step::Wait(_) => 0,
        }
    }

    /// True where what other processes do matters most.
    fn is_delicate(self) -> bool {
        matches!(self, Step::Preamble(..) | Step::Sync | Step::Lock(..) | Step::Resize(..))
    }
}

/// A life of a task.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) task: usize,
    alive: Arc<AtomicBool>,
}

impl Process {
    pub(crate) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::SeqCst)
    }
}

/// The process does not exist any more.
#[derive(Debug)]
pub(crate) struct Dead;

/// How the next task is chosen.
#[derive(Clone, Copy, Debug)]
enum Style {
    /// At one step in so many, any task.
    Walk(u64),
    /// At one delicate step in so many, and at few others, any task.
    Delicate(u64),
    /// Always the task of the highest priority, which it loses at a few steps. Few preemptions meet
    /// the rarest orders: Burckhardt, Kothari, Musuvathi, Nagarakatte, "A randomized scheduler with
    /// probabilistic guarantees of finding bugs", ASPLOS 2010.
    Priorities,
}

/// What may befall the processes, apart from each other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fortune {
    /// Processes that die.
    pub(crate) deaths: u64,
    /// Power fails.
    pub(crate) power: bool,
    /// Processes that stand still for minutes.
    pub(crate) freezes: u64,
}

struct Task {
    process: Process,
    /// Nothing to do before this time.
    wakes: u64,
    priority: u64,
    over: bool,
}

struct State {
    random: Random,
    style: Style,
    tasks: Vec<Task>,
    /// Whose turn it is.
    turn: Option<usize>,
    clock: u64,
    steps: u64,
    /// Steps of which the process dies, at which it stands still, at which its task falls behind;
    /// one of power failure.
    deaths: Vec<u64>,
    freezes: Vec<u64>,
    changes: Vec<u64>,
    power: Option<u64>,
    /// Power waits for a sync, and fails when the task goes on that was about to do it.
    power_at_sync: bool,
    power_failed: bool,
    /// Everything that was decided, in short.
    digest: u64,
    failure: Option<Wrong>,
    trace: bool,
}

struct Shared {
    state: Mutex<State>,
    turns: Vec<Condvar>,
    over: Condvar,
}

/// The scheduler. Clones are one.
#[derive(Clone)]
pub(crate) struct Scheduler(Arc<Shared>);

/// No schedule has more steps.
const MOST_STEPS: u64 = 2_000_000;

/// A schedule that takes longer is one in which tasks wait for each other where no scheduler sees
/// it.
const MOST_SECONDS: Duration = Duration::from_secs(120);

impl Scheduler {
    /// For so many tasks, of about `length` steps together.
    pub(crate) fn new(seed: u64, tasks: usize, length: u64, fortune: Fortune, trace: bool) -> Self {
        let mut random = Random(seed);
        let style = match random.below(6) {
            0 => Style::Walk(2),
            1 => Style::Walk(20),
            2 => Style::Delicate(2),
            3 => Style::Delicate(8),
            _ => Style::Priorities,
        };
        let mut some =
            |count: u64| -> Vec<u64> { (0..count).map(|_| 1 + random.below(length)).collect() };
        let (deaths, freezes, power) =
            (some(fortune.deaths), some(fortune.freezes), some(u64::from(fortune.power)));
        let count = some(1)[0] % 12;
        let changes = some(count);
        let power_at_sync = random.below(2) == 0;
        let tasks_of = |random: &mut Random| {
            let mut all: Vec<Task> = (0..tasks)
                .map(|task| Task {
                    process: Process { task, alive: Arc::new(AtomicBool::new(true)) },
                    wakes: 0,
                    priority: (1 << 32) + random.below(1 << 31),
                    over: false,
                })
                .collect();
            all.iter_mut().enumerate().for_each(|(i, task)| task.priority += i as u64);
            all
        };
        let tasks = tasks_of(&mut random);
        let turns = tasks.iter().map(|_| Condvar::new()).collect();
        let state = State {
            random,
            style,
            tasks,
            turn: None,
            clock: 0,
            steps: 0,
            deaths,
            freezes,
            changes,
            power: power.first().copied(),
            power_at_sync,
            power_failed: false,
            digest: 0,
            failure: None,
            trace,
        };
        Scheduler(Arc::new(Shared { state: Mutex::new(state), turns, over: Condvar::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no holder panics")
    }

    /// Runs all tasks, one at a time, to their end. Each is called once for each of its processes:
    /// again if the one before died, unless power has failed.
    pub(crate) fn run(&self, tasks: &[&(dyn Fn(&Process) + Sync)]) {
        std::thread::scope(|scope| {
            for (number, body) in tasks.iter().enumerate() {
                scope.spawn(move || self.live(number, *body));
            }
            let mut state = self.state();
            let first = state.choose(0, true);
            state.turn = Some(first);
            self.0.turns[first].notify_all();
            while !state.tasks.iter().all(|task| task.over) {
                let steps = state.steps;
                let (next, waited) =
                    self.0.over.wait_timeout(state, MOST_SECONDS).expect("no holder panics");
                state = next;
                if waited.timed_out() && state.steps == steps && !state.tasks.iter().all(|t| t.over)
                {
                    // Threads that wait for each other cannot be ended.
                    eprintln!("task {:?} neither goes on nor ends", state.turn);
                    std::process::abort();
                }
            }
        });
    }

    /// A task from its first process to its last.
    fn live(&self, task: usize, body: &(dyn Fn(&Process) + Sync)) {
        let mut state = self.state();
        while state.turn != Some(task) {
            state = self.0.turns[task].wait(state).expect("no holder panics");
        }
        let mut process = state.tasks[task].process.clone();
        drop(state);
        loop {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(&process))) {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()));
                let why = format!("task {task} panicked: {}", text.unwrap_or_default());
                self.fail(Wrong::Damaged(why));
            }
            let mut state = self.state();
            if process.is_alive() || state.power_failed {
                break;
            }
            process = Process { task, alive: Arc::new(AtomicBool::new(true)) };
            state.tasks[task].process = process.clone();
        }
        let mut state = self.state();
        state.tasks[task].over = true;
        state.turn = match state.tasks.iter().all(|task| task.over) {
            true => None,
            false => Some(state.choose(task, true)),
        };
        match state.turn {
            Some(next) => self.0.turns[next].notify_all(),
            None => self.0.over.notify_all(),
        }
    }

    /// The process is about to do something. Returns when it may.
    pub(crate) fn step(&self, process: &Process, what: Step) -> Result<(), Dead> {
        if !process.is_alive() {
            return Err(Dead);
        }
        let mut state = self.state();
        let me = process.task;
        if state.turn != Some(me) {
            let why = format!("task {me} does several things at once: {what:?}");
            state.failure.get_or_insert(Wrong::Damaged(why));
            state.power_fails();
            return Err(Dead);
        }
        state.steps += 1;
        state.clock += what.takes();
        state.digest = (state.digest ^ state.steps ^ (me as u64) << 40)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(17);
        if state.trace {
            eprintln!("{:6} {:>12} ns task {me} {what:?}", state.steps, state.clock);
        }
        if state.steps > MOST_STEPS {
            let why = format!("no end after {MOST_STEPS} steps");
            state.failure.get_or_insert(Wrong::Damaged(why));
            state.power_fails();
            return Err(Dead);
        }
        let steps = state.steps;
        let is_due = state.power.is_some_and(|power| power <= steps);
        if is_due && !state.power_at_sync {
            state.power_fails();
        }
        let dies = state.deaths.contains(&steps);
        // At once, or after others have gone on while it holds what it holds.
        if dies && state.random.below(2) == 0 {
            process.alive.store(false, Ordering::SeqCst);
        }
        if !process.is_alive() {
            return Err(Dead);
        }
        if let Step::Wait(time) = what {
            state.tasks[me].wakes = state.clock + time;
        }
        if state.freezes.contains(&steps) {
            state.tasks[me].wakes = state.clock + 100_000_000_000;
        }
        let next = state.choose(me, what.is_delicate());
        if next != me {
            state.turn = Some(next);
            self.0.turns[next].notify_all();
            while state.turn != Some(me) {
                state = self.0.turns[me].wait(state).expect("no holder panics");
            }
        }
        if is_due && what == Step::Sync {
            state.power_fails();
        }
        if dies {
            process.alive.store(false, Ordering::SeqCst);
        }
        // Power may have failed meanwhile.
        if process.is_alive() { Ok(()) } else { Err(Dead) }
    }

    /// Nothing goes on after this.
    pub(crate) fn fail(&self, wrong: Wrong) {
        let mut state = self.state();
        state.failure.get_or_insert(wrong);
        state.power_fails();
    }

    pub(crate) fn failure(&self) -> Option<Wrong> {
        self.state().failure.clone()
    }

    pub(crate) fn power_failed(&self) -> bool {
        self.state().power_failed
    }

    /// Nanoseconds on the simulated clock.
    pub(crate) fn clock(&self) -> u64 {
        self.state().clock
    }

    /// Steps so far.
    pub(crate) fn steps(&self) -> u64 {
        self.state().steps
    }

    /// The same if everything was decided in the same way.
    pub(crate) fn digest(&self) -> u64 {
        self.state().digest
    }
}

impl State {
    fn power_fails(&mut self) {
        self.power_failed = true;
        for task in &mut self.tasks {
            task.process.alive.store(false, Ordering::SeqCst);
            task.wakes = 0;
        }
    }

    /// Who goes on after `me` has come to a step.
    fn choose(&mut self, me: usize, delicate: bool) -> usize {
        let earliest = self.tasks.iter().filter(|task| !task.over).map(|task| task.wakes).min();
        self.clock = self.clock.max(earliest.expect("not all are over"));
        let clock = self.clock;
        let ready = |task: &Task| !task.over && task.wakes <= clock;
        let all: Vec<usize> =
            (0..self.tasks.len()).filter(|&task| ready(&self.tasks[task])).collect();
        let stays = ready(&self.tasks[me]);
        let one_in = match self.style {
            Style::Walk(n) => n,
            Style::Delicate(n) if delicate => n,
            Style::Delicate(n) => 40 * n,
            Style::Priorities => {
                if self.changes.contains(&self.steps) {
                    let least = self.tasks.iter().map(|task| task.priority).min();
                    self.tasks[me].priority = least.expect("there are tasks") - 1;
                }
                let highest = all.into_iter().max_by_key(|&task| self.tasks[task].priority);
                return highest.expect("somebody is ready");
            }
        };
        if stays && self.random.below(one_in) != 0 {
            return me;
        }
        all[self.random.below(all.len() as u64) as usize]
    }
}
