//! A disk in memory that remembers, in order, what was asked of it, and that fails when told to.
//!
//! Reading shows what was written last, as a page cache does. What the medium holds meanwhile is
//! for [`super::medium`] to say, from the record.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use treering::simulation::{self, Hold};

use super::packed::Packed;
/// What Linux calls a failure of the device.
pub(crate) const EIO: i32 = 5;

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
    /// A sync that returned success. Without `length`, what the file's length was is not part of
    /// it.
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
    /// EIO, once more if it is asked again.
    Io,
    /// ENOSPC, from what needs space; an error without a number from the rest.
    Full,
    /// Half of a write is done, then EIO.
    Short,
}

/// A plan to fail: the operation with this number (from 0), and whether all later ones fail as
/// well.
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
    /// Sectors that the device does not read; what is written there is on it all the same.
    unreadable: Vec<Range<usize>>,
    /// What maps show, if that is not what reading shows, and whether that can be mended.
    stale: Option<(Vec<u8>, bool)>,
    /// How the next locks go: EINTR and so on as numbers, 0 for one that somebody holds.
    locks: Option<i32>,
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

    /// From now on these bytes cannot be read: EIO.
    pub(crate) fn make_unreadable(&self, ranges: impl IntoIterator<Item = Range<usize>>) {
        self.state().unreadable.extend(ranges);
    }

    /// Changes some bits behind the back of everybody.
    pub(crate) fn flip(&self, at: usize, mask: u8) {
        self.state().content.flip(at, mask);
    }

    /// Another process has written the file.
    pub(crate) fn replace(&self, content: Vec<u8>) {
        self.state().content = Packed::of(&content);
    }

    /// From now on maps show what the file is now, until somebody maps anew, if that `helps`.
    pub(crate) fn freeze_maps(&self, helps: bool) {
        let mut state = self.state();
        state.stale = Some((state.content.file(), helps));
    }

    /// From now on locks fail with this errno, or, with 0, are held by somebody else.
    pub(crate) fn fail_locks(&self, errno: Option<i32>) {
        self.state().locks = errno;
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
                    Fault::Io => io::Error::from_raw_os_error(EIO),
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
        let (from, to) = (offset as usize, (offset as usize).saturating_add(buffer.len()));
        if state.unreadable.iter().any(|range| range.start < to && from < range.end) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let read = usize::try_from(offset).ok().and_then(|at| state.content.read(at, buffer));
        read.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn mapped(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if let Some((stale, _)) = &self.state().stale {
            let end = stale.len().min(offset as usize + buffer.len());
            let bytes = stale.get(offset as usize..end).unwrap_or_default();
            buffer[..bytes.len()].copy_from_slice(bytes);
            return Ok(());
        }
        self.read_at(buffer, offset)
    }

    fn map_anew(&self) -> bool {
        let mut state = self.state();
        let helps = state.stale.as_ref().is_some_and(|(_, helps)| *helps);
        if helps {
            state.stale = None;
        }
        helps
    }

    fn lock(&self, _: u64, _: u64, _: Hold) -> io::Result<bool> {
        match self.state().locks {
            None => Ok(true),
            Some(0) => Ok(false),
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        }
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
