//! Expiry: choosing versions that a rule does not keep, finding what only they refer to, and giving
//! the space back.
//!
//! Invariants. What a version frees is found in no retained version
//! ([`super::sharing_graph::SharingGraph`] says why its neighbours are enough). It goes the way of
//! all retired space, see [`super::space_ledger`]. Holes are punched and the end is cut only when
//! the commit that makes it reusable is durable. Readers are kept out of the versions that go, and
//! of nothing else.

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use super::column::Column;
use super::commit::{Draft, commit};
use super::database::{Database, cut_back};
use super::past::{Doomed, Past};
use super::pins::Condemned;
use super::sharing_graph::{SharingGraph, VersionSummary};
use super::space_ledger::coalesce;
use super::table::Table;
use super::writer::Moment;
use crate::arena::Access;
use crate::format::DATA_START;
use crate::format::arrays::{Array, ArrayRoot, DATA_ARRAYS};
use crate::format::rows::FreedRow;
use crate::format::slot::CommitSlot;
use crate::format::version_row::VersionRow;
use crate::values::error::{CommitError, Defect, Place, ReadError};
use crate::values::ids::VersionId;
use crate::values::options::CancelToken;
use crate::values::retention::{ClockLeap, Retention};

/// Free bytes that may stay with the file: one in so many, of those that are free and of those that
/// are in use.
const ONE_IN_KEPT: u64 = 20;

/// What a commit is to let go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExpireRequest {
    pub(crate) rule: Retention,
    /// At most so many versions, the oldest first.
    pub(crate) at_most: usize,
}

/// Versions that are about to expire, and what that frees.
#[derive(Default)]
pub(crate) struct Expiry {
    /// Their rows as they will be, oldest first.
    pub(crate) rows: Vec<VersionRow>,
    /// What no other version refers to.
    pub(crate) freed: Vec<FreedRow>,
    /// Versions that would expire if nobody had them open.
    pub(crate) pinned: Vec<u64>,
    /// A step of the clock that was not believed, from and to, and keeps versions.
    leap: Option<(u64, u64)>,
    /// Versions that the rule does not keep and that a later commit will let go.
    pub(crate) left: usize,
    /// Keeps readers out until it is done.
    pub(super) condemned: Option<Condemned>,
}

impl Expiry {
    pub(crate) fn bytes(&self) -> u64 {
        self.freed.iter().map(|row| row.bytes).sum()
    }

    /// A step of the clock that keeps versions.
    pub(crate) fn leap(&self) -> Option<ClockLeap> {
        let time = |ns| UNIX_EPOCH + Duration::from_nanos(ns);
        self.leap.map(|(from, to)| ClockLeap { from: time(from), to: time(to) })
    }

    /// Adds what a later commit let go.
    fn extend(&mut self, later: Expiry) {
        self.rows.extend(later.rows);
        self.freed.extend(later.freed);
        (self.pinned, self.leap, self.left) = (later.pinned, later.leap, later.left);
    }
}

/// Version rows, read one by one.
pub(crate) struct Rows(Column<VersionRow>);

impl Rows {
    pub(crate) fn get(&self, version: u64) -> Result<VersionRow, ReadError> {
        let row = self.0.get(version - 1)?;
        row.check(version).map_err(|what| {
            let place = Place::Version(VersionId(version));
            ReadError::corrupt(place, Defect::Invalid(what))
        })?;
        Ok(row)
    }
}

impl Database {
    /// The rows of all versions as of a commit.
    pub(crate) fn rows(&self, slot: &CommitSlot) -> Result<Rows, ReadError> {
        let Table { arena, spec, root, access } = self.state_table(slot, Array::Versions);
        Ok(Rows(Column::new(arena, spec, root, access)?))
    }

    /// What must be known of all versions to find who shares with whom.
    pub(super) fn past(&self, slot: &CommitSlot) -> Result<Vec<VersionSummary>, ReadError> {
        let rows = self.rows(slot)?;
        (1..=slot.newest_version)
            .map(|version| Ok(VersionSummary::of(&rows.get(version)?)))
            .collect()
    }

    /// The segments and table nodes of a version that are in none of its retained neighbours.
    /// Mapped only if all of them are pinned: the end of the file may go with one that is not.
    pub(crate) fn unshared(
        &self,
        access: Access,
        roots: impl Fn(u64) -> Result<[ArrayRoot; DATA_ARRAYS], ReadError>,
        family: &mut SharingGraph,
        version: u64,
        mut found: impl FnMut(FreedRow),
    ) -> Result<(), ReadError> {
        let own = roots(version)?;
        let neighbours = family.neighbours(version);
        let others: Vec<[ArrayRoot; DATA_ARRAYS]> =
            neighbours.iter().map(|&other| roots(other)).collect::<Result<_, _>>()?;
        for &array in &Array::ALL[..DATA_ARRAYS] {
            let table =
                |roots: &[ArrayRoot; DATA_ARRAYS]| self.table(array, roots[array as usize], access);
            let others: Vec<Table> = others.iter().map(table).collect();
            table(&own).walk_unshared(&others, &mut |entry, _| {
                found(FreedRow { address: entry.address, bytes: entry.bytes as u64 });
            })?;
        }
        Ok(())
    }

    /// Bytes that a retained version has for itself.
    pub(crate) fn unique_bytes_of(&self, version: u64) -> Result<u64, ReadError> {
        if version == 0 {
            return Ok(0);
        }
        let history = self.history()?;
        let mut bytes = 0;
        let roots = |version| Ok(history.row(version).roots);
        self.unshared(Access::Mapped, roots, &mut history.family(), version, |range| {
            bytes += range.bytes
        })?;
        Ok(bytes)
    }

    /// Bytes that each retained version has for itself: those that expiring it alone would free.
    /// Oldest first.
    pub(crate) fn unique_bytes(&self) -> Result<Vec<(u64, u64)>, ReadError> {
        let history = self.history()?;
        let mut family = history.family();
        let roots = |version| Ok(history.row(version).roots);
        let unique = |row: &VersionRow| {
            let mut bytes = 0;
            self.unshared(Access::Mapped, roots, &mut family, row.version, |range| {
                bytes += range.bytes
            })?;
            Ok((row.version, bytes))
        };
        history.rows.iter().filter(|row| !row.is_expired()).map(unique).collect()
    }
}

/// Chooses the versions that a rule does not keep, keeps readers out of them, and finds what they
/// free. Costs in proportion to what expires. `added`: the version from which one is about to be
/// made. It stays this time, because what the new one shares with it is not yet written down.
pub(super) fn plan(
    db: &Database,
    slot: &CommitSlot,
    past: &mut Past,
    request: ExpireRequest,
    moment: Moment,
    added: Option<u64>,
) -> Result<Expiry, CommitError> {
    let tagged: BTreeSet<u64> = db.tags_of(slot)?.iter().map(|tag| tag.version).collect();
    let spared = |version| {
        version == slot.newest_version || added == Some(version) || tagged.contains(&version)
    };
    let rule = request.rule;
    let Doomed { versions, leap } =
        past.doomed(rule, moment.now_ns, added.is_some().into(), spared);
    let mut expiry = Expiry { leap, ..Expiry::default() };
    if versions.is_empty() {
        return Ok(expiry);
    }
    let mut condemned = match db.writer {
        Some(_) => db.pins.condemn(&versions)?,
        None => db.pins.look(&versions)?,
    };
    expiry.pinned = std::mem::take(&mut condemned.pinned);
    expiry.left = condemned.versions.len().saturating_sub(request.at_most);
    let doomed = &condemned.versions[..condemned.versions.len() - expiry.left];

    let rows = db.rows(slot)?;
    let access = if db.writer.is_some() { Access::Mapped } else { Access::Copied };
    let (keep_last, keep_for_ns) = rule.to_fields();
    for &version in doomed {
        let roots = |version| Ok(rows.get(version)?.roots);
        db.unshared(access, roots, past.family(), version, |range| expiry.freed.push(range))?;
        past.expire(version);
        let row = rows.get(version)?;
        expiry.rows.push(row.expired(moment.stamp_ns, keep_last, keep_for_ns));
    }
    coalesce(&mut expiry.freed)?;
    expiry.condemned = Some(condemned);
    Ok(expiry)
}

/// Applies a rule, saves it for the commits to come if `save`, and gives space back to the file
/// system. Returns what expired, and the length of the file before.
///
/// On a full disk the versions go in portions, each of which makes room for the next.
///
/// Crash outcomes: before a commit is visible, as before; then its versions are expired; space that
/// was not given back is free in the file, and given back by the next call.
pub(crate) fn expire(
    db: &Database,
    rule: Retention,
    save: bool,
    cancel: &CancelToken,
) -> Result<(Expiry, u64), CommitError> {
    if !db.is_settled() {
        commit(db, Draft::nothing(cancel))?;
    }
    let before = db.newest()?.file_bytes;
    let mut all = Expiry::default();
    let mut at_most = usize::MAX;
    loop {
        let request = ExpireRequest { rule, at_most };
        let saved = save.then_some(rule);
        let draft = Draft { expire: Some(request), saved, ..Draft::nothing(cancel) };
        match commit(db, draft) {
            Ok(done) => all.extend(done.expiry),
            Err(CommitError::DiskFull { .. }) if at_most > 1 => {
                at_most = at_most.min(db.newest()?.newest_version as usize) / 2;
                at_most = at_most.max(1);
                continue;
            }
            Err(e) => return Err(e),
        }
        // From here on the versions are gone, whoever asks to stop. This commit makes reusable what
        // the one before it retired, and makes sure that it is durable.
        let patient = CancelToken::default();
        commit(db, Draft::nothing(&patient))?;
        give_back(db)?;
        if all.left == 0 {
            return Ok((all, before));
        }
    }
}

/// What [`expire`] would do.
pub(crate) fn preview(db: &Database, rule: Retention) -> Result<Expiry, CommitError> {
    let request = ExpireRequest { rule, at_most: usize::MAX };
    loop {
        // Outside the gate, where a reader would keep the writer waiting for as long as this takes.
        let slot = db.newest()?;
        let told = db.moment_for_telling(&slot).map_err(CommitError::from).and_then(|moment| {
            let mut past = Past::new(db.past(&slot)?);
            plan(db, &slot, &mut past, request, moment, None)
        });
        // What a reader has read beside a writer holds if no commit has come meanwhile.
        if db.writer.is_some() || db.newest()?.commit == slot.commit {
            return told;
        }
    }
}

/// Punches the free blocks of the newest commit, which is durable, and cuts off the file's end.
///
/// A hole costs the file system the same whatever its length, and half of them are a twentieth of
/// the bytes: so the longest are punched, as many as it takes until little is left
/// ([`ONE_IN_KEPT`]). The others stay free in the file, to be used again. A file that has long had
/// more holes than bytes must not keep a part of those: hence the second measure.
fn give_back(db: &Database) -> Result<(), CommitError> {
    let slot = db.newest()?;
    let (space, _) = db.load_space(&slot)?;
    let storage = db.arena.storage();
    let runs = space.free_runs(DATA_START, slot.file_bytes);
    let shortest = shortest_given_back(runs.iter().map(|run| run.1).collect(), space.used_bytes());
    for (offset, len) in runs.into_iter().filter(|run| run.1 >= shortest) {
        storage.punch(offset, len)?;
    }
    cut_back(storage, slot.file_bytes)?;
    db.renew_reserve(slot.file_bytes);
    Ok(())
}

/// The length from which on runs are given back, of a file in which so many bytes are in use.
fn shortest_given_back(mut lengths: Vec<u64>, used: u64) -> u64 {
    lengths.sort_unstable();
    let free: u64 = lengths.iter().sum();
    let mut kept = free.min(used) / ONE_IN_KEPT;
    for len in lengths {
        match kept.checked_sub(len) {
            Some(rest) => kept = rest,
            None => return len,
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_holes_are_given_back() {
        let shortest = |lengths: &[u64]| shortest_given_back(lengths.to_vec(), 1000);
        assert_eq!(shortest(&[]), 0);
        assert_eq!(shortest(&[4096]), 4096);
        assert_eq!(shortest(&[8; 100]), 8);
        assert_eq!(shortest(&[1, 90, 1, 1, 7, 1]), 7);
        assert_eq!(shortest(&[1, 95, 1, 1, 1, 1]), 95);
        // Of old holes nothing is kept: 50 bytes of a million that are free.
        assert_eq!(shortest(&[40, 20, 1_000_000, 9]), 40);
    }
}
