//! Comparing what the file holds with its checksums in the background: slowly, in the order in
//! which it lies there, and from where an earlier scrub stopped.
//!
//! Bytes are checked when they are first read, and not again: a device that loses them later is
//! seen when somebody looks. A scrub looks at everything, again and again, so it bounds how long
//! damage can go unseen: by the time of one round, which is the bytes in use divided by the rate.
//! What it finds bad answers no query of this store any more.
//!
//! Nothing is pinned while it waits. So what it finds bad is looked up once more: versions may have
//! expired meanwhile, and their space may hold something else.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::arena::{Name, name};
use crate::format::DATA_START;
use crate::format::arrays::{Array, DATA_ARRAYS, Entry};
use crate::maintain::verify::Problem;
use crate::store::Store;
use crate::store::core::Core;
use crate::values::error::ReadError;
use crate::values::ids::VersionId;
use crate::values::options::{CancelToken, OpenOptions};
use crate::version::database::Database;
use crate::version::table::{Table, Visit};

/// The pieces of so much of the file are listed at once.
const STRETCH_BYTES: u64 = 1 << 30;

/// Longest sleep before it is asked whether to stop.
const NAP: Duration = Duration::from_millis(50);

/// From where, how fast and how far a scrub goes.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ScrubOptions {
    from: u64,
    bytes_per_second: Option<u64>,
    at_most: u64,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        ScrubOptions { from: 0, bytes_per_second: None, at_most: u64::MAX }
    }
}

impl ScrubOptions {
    /// All of the file, as fast as can be.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on from [`ScrubReport::next`]: a place in the file. Any number will do, and stays good
    /// whatever is committed or expires.
    pub fn from(mut self, next: u64) -> Self {
        self.from = next;
        self
    }

    /// Reads no faster than this.
    pub fn bytes_per_second(mut self, bytes: u64) -> Self {
        self.bytes_per_second = Some(bytes.max(1));
        self
    }

    /// Stops after so many bytes.
    pub fn at_most(mut self, bytes: u64) -> Self {
        self.at_most = bytes;
        self
    }
}

/// What a scrub did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ScrubReport {
    /// Bytes compared with their checksums.
    pub bytes: u64,
    /// Where to go on; `None` if the end of the file was reached.
    pub next: Option<u64>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

impl Store {
    /// Compares everything that retained versions refer to with its checksums, in the order in
    /// which it lies in the file; at a rate, and in parts, if that is asked for. What is bad is
    /// reported, and no query of this store is answered from it any more. Stops early if the
    /// store's [`CancelToken`] is cancelled.
    ///
    /// Unlike [`Store::verify`] it keeps no version from expiring while it runs. See
    /// [`OpenOptions::scrub`] for one that runs by itself.
    ///
    /// # Errors
    ///
    /// The list of versions cannot be read, or the file is gone. Damage elsewhere is reported.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let mut store = treering::Store::create(dir.path().join("s.tre"), treering::CreateOptions::new(1))?;
    /// # store.insert(&[1.0])?;
    /// use treering::ScrubOptions;
    /// let mut next = Some(0);
    /// while let Some(from) = next {
    ///     let part = ScrubOptions::new().from(from).at_most(64 << 10).bytes_per_second(1 << 30);
    ///     let report = store.scrub(part)?;
    ///     assert!(report.problems.is_empty());
    ///     next = report.next; // to be written down, so that another process can go on
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn scrub(&self, options: ScrubOptions) -> Result<ScrubReport, ReadError> {
        let Core { db, options: open, .. } = &*self.core;
        db.confirm(scrub(db, options, open, &open.cancel))
    }
}

/// Something that a version or the store state refers to.
type Pieces = BTreeMap<u64, (Entry, Table, Visit)>;

fn scrub(
    db: &Database,
    options: ScrubOptions,
    open: &OpenOptions,
    cancel: &CancelToken,
) -> Result<ScrubReport, ReadError> {
    let mut report = ScrubReport::default();
    let start = Instant::now();
    let mut at = options.from;
    if at < DATA_START {
        let slot = db.newest()?;
        let copies = db.damaged_copies(&slot)?.into_iter();
        report.problems.extend(copies.map(|what| Problem { what, versions: Vec::new() }));
        at = DATA_START;
    }
    let mut told = 0;
    while at < db.newest()?.file_bytes && report.next.is_none() {
        let stretch = at..at.saturating_add(STRETCH_BYTES);
        let mut suspects = Vec::new();
        for (&address, (entry, table, visit)) in &pieces(db, &stretch)? {
            if cancel.is_cancelled() || report.bytes >= options.at_most {
                report.next = Some(address);
                break;
            }
            if table.recheck(entry, *visit).is_err() {
                suspects.push(*entry);
            }
            report.bytes += u64::from(entry.bytes);
            let (done, total) = (address, db.arena.limit().max(1));
            if done / total.div_ceil(100) != told {
                told = done / total.div_ceil(100);
                open.report("scrub", done, total);
            }
            if let Some(rate) = options.bytes_per_second {
                wait_until(
                    start + Duration::from_secs_f64(report.bytes as f64 / rate as f64),
                    cancel,
                );
            }
        }
        confirm(db, &suspects, &mut report.problems)?;
        at = stretch.end;
    }
    Ok(report)
}

fn wait_until(due: Instant, cancel: &CancelToken) {
    while !cancel.is_cancelled() {
        match due.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => std::thread::sleep(NAP.min(left)),
            _ => return,
        }
    }
}

/// Every table there is: of the store state, and of each retained version with its number.
fn tables(db: &Database) -> Result<(Vec<(u64, Table)>, impl Sized), ReadError> {
    let slot = db.newest()?;
    let history = db.history()?;
    let state = Array::ALL[DATA_ARRAYS..].iter().map(|&array| (0, db.state_table(&slot, array)));
    let mut tables: Vec<(u64, Table)> = state.collect();
    for row in history.rows.iter().filter(|row| !row.is_expired()) {
        let of_version = Array::ALL[..DATA_ARRAYS].iter();
        tables.extend(of_version.map(|&a| (row.version, db.data_table(a, &row.roots))));
    }
    Ok((tables, history))
}

/// What lies in a stretch of the file.
fn pieces(db: &Database, stretch: &Range<u64>) -> Result<Pieces, ReadError> {
    let (tables, _pins) = tables(db)?;
    let (mut pieces, mut seen) = (Pieces::new(), HashSet::new());
    for (_, table) in &tables {
        let mut enter = |entry: &Entry, visit: Visit| {
            if stretch.contains(&entry.address) {
                pieces.insert(entry.address, (*entry, table.clone(), visit));
            }
            // A node that was met before has the same below it.
            visit.is_segment() || seen.insert((entry.address, entry.birth))
        };
        // A node that cannot be read is a piece itself, and told as such.
        table.walk(&mut enter, &mut |_| {});
    }
    Ok(pieces)
}

/// What is wrong with pieces that failed, as far as they are still in use, and who refers to them.
fn confirm(
    db: &Database,
    suspects: &[Entry],
    problems: &mut Vec<Problem>,
) -> Result<(), ReadError> {
    if suspects.is_empty() {
        return Ok(());
    }
    let (tables, _pins) = tables(db)?;
    let mut found: BTreeMap<Name, Option<(Entry, &Table, Visit)>> =
        suspects.iter().map(|entry| (name(entry), None)).collect();
    let mut versions: BTreeMap<Name, Vec<VersionId>> = BTreeMap::new();
    for (version, table) in &tables {
        let mut enter = |entry: &Entry, visit: Visit| {
            if let Some(place) = found.get_mut(&name(entry)) {
                *place = Some((*entry, table, visit));
                let versions = versions.entry(name(entry)).or_default();
                if *version > 0 && versions.last() != Some(&VersionId(*version)) {
                    versions.push(VersionId(*version));
                }
            }
            true
        };
        table.walk(&mut enter, &mut |_| {});
    }
    for (name, place) in found {
        match place.map(|(entry, table, visit)| table.recheck(&entry, visit)) {
            Some(Err(ReadError::Corrupt(what))) => {
                let versions = versions.remove(&name).unwrap_or_default();
                problems.push(Problem { what: *what, versions });
            }
            Some(Err(other)) => return Err(other),
            Some(Ok(())) | None => {}
        }
    }
    Ok(())
}

/// A scrub that goes round and round in a thread of its own until this is dropped.
pub(crate) struct Background {
    stop: CancelToken,
    thread: Option<JoinHandle<()>>,
    /// The process that has the thread: a fork of it has not.
    process: u32,
}

impl Background {
    /// Begins, if the options ask for it.
    pub(crate) fn begin(core: &Arc<Core>) -> std::io::Result<Option<Self>> {
        let Some(rate) = core.options.scrub else { return Ok(None) };
        let stop = CancelToken::default();
        let (core, token) = (core.clone(), stop.clone());
        let work = move || go_round(&core, rate, &token);
        let thread = std::thread::Builder::new().name("treering-scrub".into()).spawn(work)?;
        Ok(Some(Background { stop, thread: Some(thread), process: std::process::id() }))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take()
            && self.process == std::process::id()
        {
            thread.thread().unpark();
            // It has nothing to tell: what it found bad, queries tell.
            let _ = thread.join();
        }
    }
}

fn go_round(core: &Core, rate: u64, stop: &CancelToken) {
    /// Between rounds: a small file would be read all the time, and one that cannot be read tried
    /// all the time.
    const PAUSE: Duration = Duration::from_secs(1);
    let quiet = OpenOptions::default();
    // Each opening begins elsewhere, so that short ones, too, come by everything in time.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
    let mut from = u64::from(now).checked_rem(core.db.arena.limit()).unwrap_or(0);
    while !stop.is_cancelled() {
        let round = ScrubOptions::new().from(from).bytes_per_second(rate);
        // What it finds bad, queries tell. So they do if the file is gone.
        let _ = core.db.confirm(scrub(&core.db, round, &quiet, stop));
        from = 0;
        if !stop.is_cancelled() {
            std::thread::park_timeout(PAUSE);
        }
    }
}
