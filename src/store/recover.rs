//! What is left of a damaged or truncated store: the newest commit whose list of versions can be
//! read, and of its versions those that are whole. Only reads the damaged file; what is rescued
//! goes into a new one.
//!
//! Opening never falls back to an older commit by itself, because that would undo what was
//! acknowledged. Here somebody has asked.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::arena::lock::{Hold, LockRange};
use crate::arena::storage::{FileStorage, Storage};
use crate::files::publish::folder;
use crate::format::slot::CommitSlot;
use crate::maintain::backup;
use crate::maintain::receive::{self, ReceiveReport};
use crate::maintain::verify::{Problem, VerifyOptions, verify};
use crate::store::Store;
use crate::store::new_file::NewFile;
use crate::store::open::open_file;
use crate::values::error::{
    AtError, CreateError, OpenError, ReadError, RecoverError, StorageError,
};
use crate::values::ids::VersionId;
use crate::values::options::OpenOptions;
use crate::version::database::Database;
use crate::version::recovery::{self, Candidates};

/// What a damaged store still holds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RecoverReport {
    /// The commit whose versions were looked at.
    pub commit: u64,
    /// The newest commit that the file knows of; larger than `commit` if that one cannot be read.
    pub newest_commit: u64,
    /// True if the device cannot read a place where a newer commit may have been, of which nothing
    /// else is known.
    pub in_doubt: bool,
    /// Bytes of the file, and bytes that the commit needs: fewer of the former mean that the file
    /// was truncated.
    pub file_bytes: (u64, u64),
    /// Versions that are whole, oldest first.
    pub intact: Vec<VersionId>,
    /// Versions that were retained and are not whole, or are known of by number only, oldest first.
    pub lost: Vec<VersionId>,
    /// Every defect found in that commit.
    pub problems: Vec<Problem>,
    /// What was written to the new file, if that was asked for.
    pub written: Option<ReceiveReport>,
}

impl RecoverReport {
    /// True if nothing is lost: every version that the store had is whole, and the commit is the
    /// newest there was.
    pub fn is_complete(&self) -> bool {
        self.lost.is_empty() && self.commit == self.newest_commit && !self.in_doubt
    }
}

impl Store {
    /// Looks for what is left of a damaged or truncated store: takes the newest commit whose list
    /// of versions can be read, and reads every version of it. Nothing is written, unless `write`
    /// names a new file: that becomes a store of the versions that are whole, under their numbers,
    /// with their tags. The damaged file is never changed.
    ///
    /// Costs reading the file once, and with `write` room for a second copy of what is rescued, in
    /// the new file's folder. No writer can open the store meanwhile.
    ///
    /// # Errors
    ///
    /// A writer has the store open ([`OpenError::Locked`]), or whether one has cannot be told; the
    /// header is gone, or no commit can be read; with `write`, no version is whole, something
    /// exists at that path, or it cannot be written. What only failed for a moment is an error too,
    /// never taken for a loss.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let (path, new) = (dir.path().join("s.tre"), dir.path().join("rescued.tre"));
    /// use treering::{CreateOptions, OpenOptions, Store, VersionId};
    /// let mut store = Store::create(&path, CreateOptions::new(1))?;
    /// store.insert(&[1.0])?;
    /// let whole = store.file_bytes();
    /// store.insert(&[2.0])?;
    /// drop(store);
    /// std::fs::File::options().write(true).open(&path)?.set_len(whole)?; // an accident
    ///
    /// assert!(Store::open(&path).is_err());
    /// let report = Store::recover(&path, Some(&new), OpenOptions::new())?;
    /// assert_eq!((&report.intact[..], &report.lost[..]), (&[VersionId(1)][..], &[VersionId(2)][..]));
    /// assert_eq!(Store::open(&new)?.latest()?.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn recover(
        path: impl AsRef<Path>,
        write: Option<&Path>,
        open: OpenOptions,
    ) -> Result<RecoverReport, RecoverError> {
        let path = path.as_ref();
        let file = open_file(path, false)?;
        let open_storage = |file| -> Result<Box<dyn Storage>, StorageError> {
            Ok(Box::new(FileStorage::new(file, path, false, open.catch_faults)?))
        };
        let storage = FileStorage::new(file, path, false, open.catch_faults)?;
        let again = || open_storage(storage.handle()?);
        recover(&storage, &again, write, &open)
    }
}

/// [`Store::recover`] of a store on any disk; `again` gives another handle of the same.
pub(crate) fn recover(
    storage: &dyn Storage,
    again: &dyn Fn() -> Result<Box<dyn Storage>, StorageError>,
    write: Option<&Path>,
    open: &OpenOptions,
) -> Result<RecoverReport, RecoverError> {
    let header = recovery::read_header(storage, false)?;
    // What a writer is about to change is not damage, and none may begin. Released when the file is
    // closed.
    if !storage.lock(LockRange::Writer, Hold::Shared)? {
        return Err(OpenError::Locked.into());
    }
    // Told before the file is read for hours.
    let stage = write.map(Stage::new).transpose()?;
    let Candidates { slots, known, doubt } = recovery::candidates(storage, header.lineage)?;
    let len = storage.len()?;
    let mut first: Option<ReadError> = None;
    for slot in &slots {
        let db = Database::as_of(again()?, header, *slot, len);
        match db.history() {
            Ok(_) => {
                let mut report = db.confirm(survey(&db, slot, &slots, open))?;
                report.newest_commit = known.max(slot.commit);
                report.file_bytes = (len, slot.file_bytes);
                report.in_doubt = doubt.is_some();
                if let Some(stage) = stage {
                    report.written = Some(rescue(&db, &report, stage, open)?);
                }
                return Ok(report);
            }
            // Only damage is a reason to go back; anything else may be over in a moment.
            Err(e @ (ReadError::Corrupt(_) | ReadError::Truncated { .. })) => {
                first = first.or(Some(e));
            }
            Err(e) => return Err(e.into()),
        }
    }
    Err(first.map_or_else(recovery::no_slot, OpenError::from).into())
}

/// Reads every version of a commit.
fn survey(
    db: &Database,
    slot: &CommitSlot,
    slots: &[CommitSlot],
    open: &OpenOptions,
) -> Result<RecoverReport, RecoverError> {
    let found = verify(db, VerifyOptions::all(), open).map_err(|e| match e {
        AtError::Read(e) => OpenError::from(e),
        other => unreachable!("only versions that exist are asked for: {other}"),
    })?;
    if open.is_cancelled() {
        return Err(RecoverError::Interrupted);
    }
    let retained = db.versions()?.into_iter().map(|row| row.version);
    let hit: BTreeSet<u64> =
        found.problems.iter().flat_map(|problem| &problem.versions).map(|v| v.0).collect();
    let (lost, intact): (Vec<u64>, Vec<u64>) = retained.partition(|version| hit.contains(version));
    // Commits that cannot be read have told their number of versions.
    let newest = slots.iter().map(|slot| slot.newest_version).max().unwrap_or(0);
    let later = slot.newest_version + 1..=newest;
    Ok(RecoverReport {
        commit: slot.commit,
        newest_commit: slot.commit,
        in_doubt: false,
        file_bytes: (0, 0),
        intact: intact.into_iter().map(VersionId).collect(),
        lost: lost.into_iter().chain(later).map(VersionId).collect(),
        problems: found.problems,
        written: None,
    })
}

/// Where what is rescued goes: beside its target, where there is room for that as well.
struct Stage<'a> {
    new: &'a Path,
    /// Without a name.
    stream: File,
}

impl<'a> Stage<'a> {
    fn new(new: &'a Path) -> Result<Self, RecoverError> {
        if new.symlink_metadata().is_ok() {
            return Err(receive_error(CreateError::Exists { path: new.to_path_buf() }));
        }
        let stream =
            tempfile::tempfile_in(folder(new)).map_err(|source| RecoverError::Copy { source })?;
        Ok(Stage { new, stream })
    }
}

/// Makes a new store of the versions that are whole. The others become expired ones there.
fn rescue(
    db: &Database,
    report: &RecoverReport,
    stage: Stage<'_>,
    open: &OpenOptions,
) -> Result<ReceiveReport, RecoverError> {
    let Some(newest) = report.intact.last() else {
        return Err(RecoverError::NothingLeft);
    };
    let mut history = db.history()?;
    history.rows.truncate(newest.0 as usize);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
    let is_lost = |version: u64| report.lost.binary_search(&VersionId(version)).is_ok();
    for row in history.rows.iter_mut().filter(|row| is_lost(row.version)) {
        *row = row.expired(now.max(1), 0, 0);
    }
    history.tags.retain(|tag| tag.version <= newest.0 && !is_lost(tag.version));

    let Stage { new, mut stream } = stage;
    backup::write(db, &history, 0, BufWriter::new(&stream), &open.cancel)?;
    let survey = receive::survey(BufReader::new(&mut stream))?;
    let target = NewFile::with_header(new, &db.header).map_err(receive_error)?;
    let store = Store::from_new(&target, open.clone()).map_err(receive_error)?;
    let core = &store.core;
    let written =
        receive::receive(&core.db, &survey, BufReader::new(&stream), &core.options.cancel)?;
    target.keep().map_err(receive_error)?;
    Ok(written)
}

fn receive_error(e: CreateError) -> RecoverError {
    RecoverError::Receive(e.into())
}

impl From<ReadError> for RecoverError {
    fn from(e: ReadError) -> Self {
        RecoverError::Open(e.into())
    }
}

impl From<StorageError> for RecoverError {
    fn from(e: StorageError) -> Self {
        RecoverError::Open(e.into())
    }
}
