//! Checking what the file holds against its checksums, and, if asked, every tree against its
//! invariants.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use crate::format::arrays::{Array, DATA_ARRAYS, Entry};
use crate::format::slot::CommitSlot;
use crate::format::version_row::VersionRow;
use crate::query::{brute, knn};
use crate::tree::check::{self, Checked, Sound};
use crate::tree::columns::Tree;
use crate::values::error::{AtError, Corruption, Defect, Invariant, Place, ReadError};
use crate::values::ids::VersionId;
use crate::values::options::OpenOptions;
use crate::version::database::Database;
use crate::version::pins::Pin;
use crate::version::space_check::check_space;
use crate::version::table::{Table, Visit};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Newest,
    All,
    One(VersionId),
}

/// What to verify.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct VerifyOptions {
    scope: Scope,
    deep: bool,
}

impl VerifyOptions {
    /// The newest version and the store state.
    pub fn latest() -> Self {
        VerifyOptions { scope: Scope::Newest, deep: false }
    }

    /// Every version, and whether the accounts of space agree with what the versions refer to; a
    /// segment that several share is read once.
    pub fn all() -> Self {
        VerifyOptions { scope: Scope::All, deep: false }
    }

    /// One version and the store state.
    pub fn version(version: VersionId) -> Self {
        VerifyOptions { scope: Scope::One(version), deep: false }
    }

    /// Also checks the tree's invariants and a sample of answers against a full scan.
    pub fn deep(mut self, deep: bool) -> Self {
        self.deep = deep;
        self
    }
}

/// One defect, and the versions that it hits; none if it hits only the store state.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Problem {
    /// The defect and its place.
    pub what: Corruption,
    /// Versions that refer to the place, oldest first: all of them, whichever were checked.
    pub versions: Vec<VersionId>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what.at, self.what.what)?;
        match &self.versions[..] {
            [] => write!(f, " (store state)"),
            [one] => write!(f, " (version {one})"),
            [first, .., last] => {
                write!(f, " ({} versions, {first} to {last})", self.versions.len())
            }
        }
    }
}

/// What a verification found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Versions checked.
    pub versions_checked: u64,
    /// Distinct segments read and compared with their checksums.
    pub segments_checked: u64,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

impl VerifyReport {
    /// True if nothing is wrong.
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Queries compared per version by a deep verification, those of a version that shares most with
/// one that was checked, and neighbours of each.
const SAMPLE_QUERIES: u64 = 16;
const SAMPLE_QUERIES_SHARED: u64 = 1;
const SAMPLE_K: usize = 10;

pub(crate) fn verify(
    db: &Database,
    options: VerifyOptions,
    open: &OpenOptions,
) -> Result<VerifyReport, AtError> {
    let mut slot = db.newest()?;
    let mut verifier = loop {
        let verifier = Verifier::of_state(db, open, &slot);
        let newest = db.newest()?;
        // Beside a busy writer the state may have been reused, or cut off, while it was read. Then
        // it is no longer the state.
        let is_ok = verifier.as_ref().is_ok_and(|verifier| verifier.report.is_ok());
        if is_ok || newest.commit == slot.commit {
            break verifier?;
        }
        slot = newest;
    };
    let versions: Vec<u64> = match options.scope {
        Scope::Newest => Vec::from_iter((slot.newest_version > 0).then_some(slot.newest_version)),
        Scope::All => db.versions()?.iter().map(|row| row.version).collect(),
        Scope::One(version) => vec![version.0],
    };
    verifier.meter.total = match options.scope {
        Scope::All => slot.file_bytes,
        _ => versions.first().map_or(Ok(0), |&version| bytes_of(db, version))?,
    };
    for &version in &versions {
        if open.cancel.is_cancelled() {
            break;
        }
        match db.version(VersionId(version)) {
            Ok((row, pin)) => verifier.version(&row, pin, options.deep)?,
            Err(AtError::Read(e)) => verifier.problem(e, Some(version))?,
            // A writer has let it go since it was listed.
            Err(AtError::Expired { .. }) if matches!(options.scope, Scope::All) => continue,
            Err(other) => return Err(other),
        }
        verifier.report.versions_checked += 1;
    }
    if options.scope == Scope::All && verifier.bad.is_empty() && !open.is_cancelled() {
        match check_space(db) {
            Ok(problems) => verifier
                .report
                .problems
                .extend(problems.into_iter().map(|what| Problem { what, versions: Vec::new() })),
            Err(e) => verifier.problem(e, None)?,
        }
    }
    let total = verifier.meter.total;
    open.report("verify", total, total);
    verifier.blame(&versions);
    Ok(verifier.report)
}

/// Compares everything that a version refers to with its checksums, but for what this store has
/// compared before.
pub(crate) fn check_once(db: &Database, row: &VersionRow) -> Result<(), ReadError> {
    for &array in &Array::ALL[..DATA_ARRAYS] {
        let table = db.data_table(array, &row.roots);
        let (mut segments, mut problem) = (Vec::new(), None);
        table.walk(
            &mut |entry, visit| {
                segments.extend(visit.is_segment().then_some((*entry, visit)));
                true
            },
            &mut |e| problem = problem.take().or(Some(e)),
        );
        if let Some(e) = problem {
            return Err(e);
        }
        segments.par_iter().try_for_each(|(entry, visit)| table.check_once(entry, *visit))?;
    }
    Ok(())
}

/// Bytes of the segments of a version, or a little more.
fn bytes_of(db: &Database, version: u64) -> Result<u64, AtError> {
    let (row, _pin) = match db.version(VersionId(version)) {
        // It is reported as damaged later.
        Err(AtError::Read(_)) => return Ok(0),
        found => found?,
    };
    let tables = Array::ALL[..DATA_ARRAYS].iter().map(|&array| db.data_table(array, &row.roots));
    let bytes = tables.map(|table| {
        let whole = table.spec.stored_bytes(table.spec.rows_per_segment) as u64;
        table.segments().saturating_mul(whole)
    });
    Ok(bytes.fold(0, u64::saturating_add))
}

/// Tells how many bytes have been compared, a hundred times at most.
struct Meter<'a> {
    open: &'a OpenOptions,
    total: u64,
    done: AtomicU64,
    told: Mutex<u64>,
}

impl Meter<'_> {
    fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let Some(percent) = done.saturating_mul(100).checked_div(self.total) else { return };
        if let Ok(mut told) = self.told.try_lock()
            && percent > *told
        {
            *told = percent;
            self.open.report("verify", done.min(self.total), self.total);
        }
    }
}

struct Verifier<'a> {
    db: &'a Database,
    meter: Meter<'a>,
    report: VerifyReport,
    /// Address to birth of what was compared with its checksum. One place bears one birth, whatever
    /// leads to it: so each is read once.
    checked: HashMap<u64, u64>,
    /// Address of something bad to its problem.
    bad: BTreeMap<u64, usize>,
    /// The last version whose tree was found sound, with what it refers to.
    sound: Option<(Sound, Pin)>,
}

impl<'a> Verifier<'a> {
    /// Has checked the slot and the store state.
    fn of_state(
        db: &'a Database,
        open: &'a OpenOptions,
        slot: &CommitSlot,
    ) -> Result<Self, ReadError> {
        let (done, told) = Default::default();
        let mut verifier = Verifier {
            db,
            meter: Meter { open, total: 0, done, told },
            report: VerifyReport::default(),
            checked: HashMap::new(),
            bad: BTreeMap::new(),
            sound: None,
        };
        for what in db.damaged_copies(slot)? {
            verifier.report.problems.push(Problem { what, versions: Vec::new() });
        }
        for &array in &Array::ALL[DATA_ARRAYS..] {
            verifier.table(&db.state_table(slot, array), None)?;
        }
        if verifier.report.is_ok()
            && let Err(e) = db.tags()
        {
            verifier.problem(e, None)?;
        }
        // Beside a writer its place may belong to a later version by now.
        verifier.checked.clear();
        Ok(verifier)
    }

    fn problem(&mut self, e: ReadError, version: Option<u64>) -> Result<(), ReadError> {
        match e {
            ReadError::Corrupt(what) => {
                let address = match what.at {
                    Place::Segment { address, .. } | Place::TableNode { address, .. } => {
                        Some(address)
                    }
                    _ => None,
                };
                if address.is_some_and(|address| self.bad.contains_key(&address)) {
                    return Ok(());
                }
                if let Some(address) = address {
                    self.bad.insert(address, self.report.problems.len());
                }
                let versions = version.map(VersionId).into_iter().collect();
                self.report.problems.push(Problem { what: *what, versions });
                Ok(())
            }
            other => Err(other),
        }
    }

    fn version(&mut self, row: &VersionRow, pin: Pin, deep: bool) -> Result<(), ReadError> {
        let problems = self.report.problems.len();
        for &array in &Array::ALL[..DATA_ARRAYS] {
            self.table(&self.db.data_table(array, &row.roots), Some(row.version))?;
        }
        if !deep || self.report.problems.len() > problems {
            return Ok(());
        }
        let before = self.sound.take();
        let (before, _old_pin) =
            before.map_or((None, None), |(sound, pin)| (Some(sound), Some(pin)));
        match self.db.confirm(deep_check(self.db, row, before)) {
            Ok((violations, sound)) => {
                self.sound = sound.map(|sound| (sound, pin));
                let versions = vec![VersionId(row.version)];
                self.report.problems.extend(
                    violations.into_iter().map(|what| Problem { what, versions: versions.clone() }),
                );
                Ok(())
            }
            Err(e) => self.problem(e, Some(row.version)),
        }
    }

    /// Compares everything in a table that has not been compared yet with its checksum.
    fn table(&mut self, table: &Table, version: Option<u64>) -> Result<(), ReadError> {
        let mut new: Vec<(Entry, Visit)> = Vec::new();
        let mut problems = Vec::new();
        let mut disagree = Vec::new();
        let (checked, meter) = (&mut self.checked, &self.meter);
        table.walk(
            &mut |entry, visit| {
                let birth = checked.get(&entry.address).copied();
                match birth {
                    None => {
                        checked.insert(entry.address, entry.birth);
                        new.push((*entry, visit));
                    }
                    Some(birth) if birth != entry.birth => disagree.push((*entry, visit)),
                    Some(_) => {}
                }
                birth.is_none()
            },
            &mut |e| problems.push(e),
        );
        problems.extend(disagree.iter().map(|(entry, visit)| {
            let what = Defect::Invalid("entries that lead here name different commits");
            ReadError::corrupt(table.place(entry, *visit), what)
        }));
        self.report.segments_checked += new.iter().filter(|(_, v)| v.is_segment()).count() as u64;
        problems.extend(
            new.par_iter()
                .filter(|_| !meter.open.is_cancelled())
                .filter_map(|(entry, visit)| {
                    let problem = table.recheck(entry, *visit).err();
                    meter.add(u64::from(entry.bytes));
                    problem
                })
                .collect::<Vec<_>>(),
        );
        problems.into_iter().try_for_each(|e| self.problem(e, version))
    }

    /// Names, for every bad place, all versions that refer to it, those that were not to be checked
    /// included.
    fn blame(&mut self, checked: &[u64]) {
        if self.bad.is_empty() {
            return;
        }
        for problem in self.bad.values() {
            self.report.problems[*problem].versions.clear();
        }
        // If their list is damaged, it is about those that were checked.
        let all = self.db.versions().map(|rows| rows.iter().map(|row| row.version).collect());
        for version in all.unwrap_or(checked.to_vec()) {
            let Ok((row, _pin)) = self.db.version(VersionId(version)) else {
                continue;
            };
            for &array in &Array::ALL[..DATA_ARRAYS] {
                let mut hit = |entry: &Entry, _| {
                    if let Some(&problem) = self.bad.get(&entry.address) {
                        let versions = &mut self.report.problems[problem].versions;
                        if versions.last() != Some(&VersionId(version)) {
                            versions.push(VersionId(version));
                        }
                    }
                    true
                };
                self.db.data_table(array, &row.roots).walk(&mut hit, &mut |_| {});
            }
        }
    }
}

/// The tree's invariants, its row's counts, and a sample of answers against a full scan. What the
/// tree shares with a sound one is not walked again. Returns what is wrong, or the tree, if nothing
/// is.
fn deep_check(
    db: &Database,
    row: &VersionRow,
    before: Option<Sound>,
) -> Result<(Vec<Corruption>, Option<Sound>), ReadError> {
    let Checked { mut violations, whole, sound } =
        check::check_after(before, Tree::open(db, &row.roots)?)?;
    let tree = Tree::open(db, &row.roots)?;
    let queries = if whole { SAMPLE_QUERIES } else { SAMPLE_QUERIES_SHARED };
    let mut expect = |holds: bool, invariant: Invariant, what: &str| {
        if !holds {
            violations.push(Corruption {
                at: Place::Version(VersionId(row.version)),
                what: Defect::Invariant { invariant, what: what.to_string() },
            });
        }
    };
    expect(
        tree.live()? == row.points,
        Invariant::Count,
        "live count of the row differs from the tree's",
    );
    let slots = tree.slots() as u64;
    let mut scratch = knn::Scratch::default();
    for i in 0..queries.min(slots) {
        // From one version to the next another row, where there is one only.
        let place = i * slots / queries.min(slots) + row.version % slots.div_ceil(queries);
        let query = tree.coordinates.row(place % slots)?;
        knn::knn(&tree, query, SAMPLE_K, &mut scratch)?;
        let answer = scratch.best.sorted(&tree)?;
        expect(
            answer == brute::knn_batch(&tree, query, SAMPLE_K)?,
            Invariant::Other,
            "an answer differs from that of a full scan",
        );
    }
    Ok((violations, sound))
}
