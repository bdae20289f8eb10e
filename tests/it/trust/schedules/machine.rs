//! A file that processes of one machine share: a page cache, a medium below it, locks, and maps.
//!
//! What one process writes all others see at once, in parts if it is unlucky. When a process dies
//! its writes stay, and its locks are gone. Locks belong to a handle, as those of an open file
//! description do, and are gone with it.
//!
//! Two things are checked all the time, whoever does them. M1: no byte changes, and none is cut
//! off, to which a map refers that exists in a living process. M2: only a handle that holds the
//! writer's lock changes the file.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use treering::simulation::{self, Hold, Mapped};

use super::super::disk::{Change, Event};
use super::super::model::Wrong;
use super::super::packed::Packed;
use super::scheduler::{Dead, Process, Scheduler, Step};
use crate::common::Random;

/// The byte that the writer locks: format-spec.md, section 9.
const WRITER_BYTE: u64 = 1 << 62;

/// Where the preamble ends: format-spec.md, section 3.
const PREAMBLE_BYTES: u64 = 12 * 65_536;

/// A part of the lock bytes that a handle holds.
struct Held {
    handle: u64,
    process: Process,
    first: u64,
    /// Exclusive.
    end: u64,
    hold: Hold,
}

struct Map {
    process: Process,
    mapped: Mapped,
}

struct State {
    content: Packed,
    record: Vec<Event>,
    locks: Vec<Held>,
    /// By offset.
    maps: BTreeMap<u64, Vec<Map>>,
    longest_map: u64,
    handles: u64,
    /// Where writes are torn.
    random: Random,
}

struct Shared {
    scheduler: Scheduler,
    state: Mutex<State>,
}

/// The file. Clones are one.
#[derive(Clone)]
pub(crate) struct Machine(Arc<Shared>);

impl Machine {
    /// With a file on it that is durable as it is.
    pub(crate) fn new(scheduler: &Scheduler, content: Packed, seed: u64) -> Self {
        let state = State {
            content,
            record: Vec::new(),
            locks: Vec::new(),
            maps: BTreeMap::new(),
            longest_map: 0,
            handles: 0,
            random: Random(seed),
        };
        Machine(Arc::new(Shared { scheduler: scheduler.clone(), state: Mutex::new(state) }))
    }

    /// What `process` gets by opening the file. `kept`: it keeps nothing mapped that is not pinned,
    /// so M1 holds.
    pub(crate) fn open(&self, process: &Process, kept: bool) -> (Arc<Handle>, Syncs) {
        let mut state = self.state();
        state.handles += 1;
        let (number, machine, syncs) = (state.handles, self.clone(), Syncs::default());
        let process = process.clone();
        (Arc::new(Handle { machine, process, number, kept, syncs: syncs.clone() }), syncs)
    }

    /// What reading shows.
    pub(crate) fn content(&self) -> Packed {
        self.state().content.clone()
    }

    /// What was done to the file, in order.
    pub(crate) fn take_record(&self) -> Vec<Event> {
        std::mem::take(&mut self.state().record)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no holder panics")
    }
}

/// An open file description.
pub(crate) struct Handle {
    machine: Machine,
    process: Process,
    number: u64,
    kept: bool,
    syncs: Syncs,
}

/// Counts the syncs of a handle that have returned.
#[derive(Clone, Default)]
pub(crate) struct Syncs(Arc<AtomicU64>);

impl Syncs {
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Handle {
    fn step(&self, what: Step) -> io::Result<MutexGuard<'_, State>> {
        let step = self.machine.0.scheduler.step(&self.process, what);
        step.map_err(|Dead| io::Error::other("the process is dead"))?;
        Ok(self.machine.state())
    }

    fn change(&self, state: &mut State, change: Change) {
        if let Err(why) = state.check_change(self.number, &change) {
            let (task, number) = (self.process.task, self.number);
            let why = format!("handle {number} of task {task} {why}");
            self.machine.0.scheduler.fail(Wrong::Damaged(why));
        }
        change.apply(&mut state.content);
        state.record.push(Event::Change(change));
    }
}

impl State {
    /// M1 and M2.
    fn check_change(&mut self, handle: u64, change: &Change) -> Result<(), String> {
        let writes = |held: &Held| {
            held.handle == handle
                && held.hold == Hold::Exclusive
                && held.process.is_alive()
                && (held.first..held.end).contains(&WRITER_BYTE)
        };
        if !self.locks.iter().any(writes) {
            return Err("changes the file without the writer's lock".into());
        }
        let (from, to) = match change {
            Change::Write { offset, bytes } => (*offset as u64, (offset + bytes.len()) as u64),
            Change::Punch { offset, len } => (*offset as u64, (offset + len) as u64),
            Change::Resize(len) => (*len as u64, u64::MAX),
            Change::Grow(_) => return Ok(()),
        };
        let start = from.saturating_sub(self.longest_map);
        for maps in self.maps.range_mut(start..to).map(|(_, maps)| maps) {
            maps.retain(|map| map.process.is_alive() && map.mapped.bytes().is_some());
            for Map { mapped, process } in maps {
                let Some(bytes) = mapped.bytes() else { continue };
                let begin = mapped.offset();
                let end = begin + bytes.len() as u64;
                if end <= from || begin >= to {
                    continue;
                }
                let same = match change {
                    Change::Write { offset, bytes: new } => (from.max(begin)..to.min(end))
                        .all(|at| new[at as usize - offset] == bytes[(at - begin) as usize]),
                    Change::Punch { .. } => {
                        let (first, last) = (from.max(begin) - begin, to.min(end) - begin);
                        bytes[first as usize..last as usize].iter().all(|&byte| byte == 0)
                    }
                    _ => false,
                };
                if !same {
                    let what = match change {
                        Change::Write { .. } => "writes over",
                        Change::Punch { .. } => "punches a hole into",
                        _ => "cuts off",
                    };
                    let reader = process.task;
                    return Err(format!("{what} bytes {begin}..{end}, mapped by task {reader}"));
                }
            }
        }
        Ok(())
    }

    /// True if another living handle has a hold on the range that does not go with `hold`.
    fn is_in_the_way(&self, handle: u64, first: u64, end: u64, hold: Hold) -> bool {
        self.locks.iter().any(|held| {
            held.handle != handle
                && held.process.is_alive()
                && held.first < end
                && first < held.end
                && (hold == Hold::Exclusive || held.hold == Hold::Exclusive)
        })
    }
}

impl Drop for Handle {
    /// Closing the file releases what is held on it.
    fn drop(&mut self) {
        self.machine.state().locks.retain(|held| held.handle != self.number);
    }
}

fn writing(offset: u64, len: usize) -> Step {
    match offset < PREAMBLE_BYTES {
        true => Step::Preamble(offset, len),
        false => Step::Write(offset, len),
    }
}

impl simulation::Disk for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.step(Step::Len)?.content.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.step(Step::Read(offset, buffer.len()))?;
        let found = usize::try_from(offset).ok().and_then(|at| state.content.read(at, buffer));
        Ok(found.ok_or(io::ErrorKind::UnexpectedEof)?)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.step(writing(offset, bytes.len()))?;
        // Others may see a write half done, and a process may die in the middle of it.
        let torn = match state.random.below(4) {
            0 => state.random.below(bytes.len().min(300) as u64 + 1) as usize,
            1 => state.random.below(bytes.len() as u64 + 1) as usize,
            _ => 0,
        };
        if torn > 0 {
            let first = Change::Write { offset: offset as usize, bytes: bytes[..torn].into() };
            self.change(&mut state, first);
            drop(state);
            state = self.step(writing(offset + torn as u64, bytes.len() - torn))?;
        }
        let rest = Change::Write { offset: offset as usize + torn, bytes: bytes[torn..].into() };
        self.change(&mut state, rest);
        Ok(())
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut state = self.step(Step::Resize(offset, len))?;
        self.change(&mut state, Change::Grow((offset + len) as usize));
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.step(Step::Resize(len, 0))?;
        self.change(&mut state, Change::Resize(len as usize));
        Ok(())
    }

    fn sync(&self, length: bool) -> io::Result<()> {
        let mut state = self.step(Step::Sync)?;
        state.record.push(Event::Synced { length });
        self.syncs.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut state = self.step(Step::Resize(offset, len))?;
        self.change(&mut state, Change::Punch { offset: offset as usize, len: len as usize });
        Ok(())
    }

    fn lock(&self, first: u64, len: u64, hold: Hold) -> io::Result<bool> {
        let mut state = self.step(Step::Lock(first, len, hold))?;
        let end = first + len;
        if hold != Hold::Nothing && state.is_in_the_way(self.number, first, end, hold) {
            return Ok(false);
        }
        // What this handle holds of the range already is replaced; what lies beside it stays.
        let mut kept = Vec::new();
        for held in state.locks.drain(..) {
            if held.handle != self.number || held.end <= first || end <= held.first {
                kept.push(held);
                continue;
            }
            for (from, to) in [(held.first, first), (end, held.end)] {
                if from < to {
                    let process = held.process.clone();
                    kept.push(Held { process, first: from, end: to, ..held });
                }
            }
        }
        if hold != Hold::Nothing {
            let (handle, process) = (self.number, self.process.clone());
            kept.push(Held { handle, process, first, end, hold });
        }
        state.locks = kept;
        Ok(true)
    }

    fn clock(&self) -> Duration {
        Duration::from_nanos(self.machine.0.scheduler.clock())
    }

    fn pause(&self, time: Duration) {
        // That the process is dead the next step says.
        let _ = self.machine.0.scheduler.step(&self.process, Step::Wait(time.as_nanos() as u64));
    }

    fn has_mapped(&self, mapped: Mapped) {
        if !self.kept {
            return;
        }
        let mut state = self.machine.state();
        state.longest_map = state.longest_map.max(mapped.len() as u64);
        let map = Map { process: self.process.clone(), mapped };
        let maps = state.maps.entry(map.mapped.offset()).or_default();
        maps.retain(|map| map.process.is_alive() && map.mapped.bytes().is_some());
        maps.push(map);
    }
}
