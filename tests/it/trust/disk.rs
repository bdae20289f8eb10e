//! A disk in memory that remembers, in order, what was asked of it, and that fails when told to.
//!
//! Reading shows what was written last, as a page cache does. What the medium holds meanwhile is for [`super::medium`] to
//! say, from the record.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use treering::simulation;

use super::packed::Packed;

/// Something that changes the file. Offsets and lengths are bytes.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Write {
        offset: usize,
        bytes: Arc<[u8]>,
    },
    /// The file is at least this long.
    Grow(usize),
    /// The file is exactly this long.
    Resize(usize),
    Punch {
        offset: usize,
        len: usize,
    },
}

impl Change {
    pub(crate) fn apply(&self, content: &mut Packed) {
        match self {
            Change::Write { offset, bytes } => content.write(*offset, bytes),
            Change::Grow(len) => content.resize(content.len().max(*len)),
            Change::Resize(len) => content.resize(*len),
            Change::Punch { offset, len } => content.zero(*offset, *len),
        }
    }

    pub(crate) fn is_write(&self) -> bool {
        matches!(self, Change::Write { .. })
    }
}

/// An entry of the record.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Change(Change),
    /// A sync that returned success. Without `length`, what the file's length was is not part of it.
    Synced {
        length: bool,
    },
    /// A sync that failed.
    Failed,
    /// From here on the test allows other outcomes: a number of its own.
    Mark(usize),
}

impl Event {
    /// Bytes that it writes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Event::Change(Change::Write { bytes, .. }) => bytes.len(),
            _ => 0,
        }
    }
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// EIO.
    Io,
    /// ENOSPC, from what needs space; EIO from the rest.
    Full,
    /// Half of a write is done, then EIO.
    Short,
}

/// A plan to fail: the operation with this number (from 0), and whether all later ones fail as well.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) at: u64,
    pub(crate) fault: Fault,
    pub(crate) for_good: bool,
}

#[derive(Default)]
struct State {
    content: Packed,
    record: Vec<Event>,
    plan: Option<Plan>,
    operations: u64,
    /// Operations that failed, and how many of them were syncs.
    failed: (u64, u64),
}

/// The disk. Clones are one disk.
#[derive(Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

impl Disk {
    /// A disk that holds a file already, all of it durable.
    pub(crate) fn with(content: Vec<u8>) -> Self {
        Disk::of(Packed::of(&content))
    }

    /// The same.
    pub(crate) fn of(content: Packed) -> Self {
        Disk(Arc::new(Mutex::new(State { content, ..State::default() })))
    }

    /// The same, to be handed to the library.
    pub(crate) fn handle(&self) -> Arc<dyn simulation::Disk> {
        Arc::new(self.clone())
    }

    pub(crate) fn fail(&self, plan: Option<Plan>) {
        self.state().plan = plan;
    }

    /// Takes the plan back for a while.
    pub(crate) fn pause(&self) -> Option<Plan> {
        self.state().plan.take()
    }

    /// Operations that failed so far, and how many of them were syncs.
    pub(crate) fn failed(&self) -> (u64, u64) {
        self.state().failed
    }

    /// Operations so far.
    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// What reading shows.
    pub(crate) fn content(&self) -> Vec<u8> {
        self.state().content.file()
    }

    /// The same, without the holes of the preamble.
    pub(crate) fn packed(&self) -> Packed {
        self.state().content.clone()
    }

    pub(crate) fn mark(&self, number: usize) {
        self.state().record.push(Event::Mark(number));
    }

    /// The record so far, which begins anew.
    pub(crate) fn take_record(&self) -> Vec<Event> {
        std::mem::take(&mut self.state().record)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder panics")
    }
}

impl State {
    /// Counts an operation; an error if it is to fail.
    fn begin(&mut self, needs_space: bool) -> io::Result<()> {
        let number = self.operations;
        self.operations += 1;
        match self.plan {
            Some(plan) if number == plan.at || number > plan.at && plan.for_good => {
                self.failed.0 += 1;
                Err(match plan.fault {
                    Fault::Full if needs_space => io::ErrorKind::StorageFull.into(),
                    _ => io::Error::other("simulated failure of the device"),
                })
            }
            _ => Ok(()),
        }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.content);
        self.record.push(Event::Change(change));
    }
}

impl simulation::Disk for Disk {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.state();
        state.begin(false)?;
        Ok(state.content.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.state();
        state.begin(false)?;
        let read = usize::try_from(offset).ok().and_then(|at| state.content.read(at, buffer));
        read.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state();
        let begun = state.begin(true);
        let short = state.plan.is_some_and(|plan| plan.fault == Fault::Short);
        let done = match &begun {
            Ok(()) => bytes.len(),
            Err(_) if short => bytes.len() / 2,
            Err(_) => 0,
        };
        if done > 0 {
            state.change(Change::Write { offset: offset as usize, bytes: bytes[..done].into() });
        }
        begun
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.begin(true)?;
        state.change(Change::Grow((offset + len) as usize));
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.begin(false)?;
        state.change(Change::Resize(len as usize));
        Ok(())
    }

    fn sync(&self, length: bool) -> io::Result<()> {
        let mut state = self.state();
        let begun = state.begin(false);
        state.failed.1 += u64::from(begun.is_err());
        state.record.push(match &begun {
            Ok(()) => Event::Synced { length },
            Err(_) => Event::Failed,
        });
        begun
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.begin(false)?;
        state.change(Change::Punch { offset: offset as usize, len: len as usize });
        Ok(())
    }
}
