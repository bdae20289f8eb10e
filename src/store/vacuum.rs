//! A store written anew: all that it retains, and none of the holes that versions have left which
//! are gone.
//!
//! Expiry gives the space of holes back to the file system, but the file stays as long as its last
//! block is far out, and whoever copies it copies the holes. Here a fresh file takes its name in
//! the end; until then nothing has changed.

use std::fs;
use std::io::{BufReader, BufWriter};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::files::publish::folder;
use crate::maintain::verify::{VerifyOptions, verify};
use crate::maintain::{backup, receive};
use crate::store::Store;
use crate::store::new_file::NewFile;
use crate::values::error::{CreateError, OpenError, VacuumError};
use crate::values::options::OpenOptions;
use crate::version::commit::{Draft, commit};

/// What writing a store anew has come to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VacuumReport {
    /// Versions, all of which are in the new file.
    pub versions: u64,
    /// Bytes of the file before, and after.
    pub file_bytes: (u64, u64),
}

impl Store {
    /// Writes a store anew, with all retained versions, their numbers, times and tags, and the
    /// saved rule, verifies that, and puts it in the place of the old file. Readers of the old one
    /// go on with it, and see no newer versions until they open the store again; a writer that
    /// waits ([`OpenOptions::wait`]) gets the new one.
    ///
    /// Takes the writer's lock, space for two copies in the folder, and time in proportion to the
    /// file. Nobody needs it for speed: see [`crate::Transaction::compact`].
    ///
    /// # Errors
    ///
    /// Another writer; damage; no room; a file with several names (hard links), under the others of
    /// which the old one would go on; interrupted. The store is as it was.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("s.tre");
    /// use treering::{CreateOptions, OpenOptions, Retention, Store};
    /// let mut store = Store::create(&path, CreateOptions::new(1))?;
    /// for i in 0..50 {
    ///     store.insert(&[i as f32])?;
    /// }
    /// store.expire(Retention::new().keep_last(1))?;
    /// drop(store);
    /// let report = Store::vacuum(&path, OpenOptions::new())?;
    /// assert!(report.file_bytes.1 <= report.file_bytes.0);
    /// assert_eq!(Store::open(&path)?.latest()?.version().0, 50);
    /// # Ok(())
    /// # }
    /// ```
    pub fn vacuum(path: impl AsRef<Path>, open: OpenOptions) -> Result<VacuumReport, VacuumError> {
        let path = path.as_ref();
        let failed = |source| OpenError::Path { path: path.to_path_buf(), source };
        // Where a link leads, so that the link stays.
        let target = fs::canonicalize(path).map_err(failed)?;
        let open = OpenOptions { read_only: false, ..open };
        let old = Store::open_with(&target, open.clone())?;
        // Under another name the old file would go on, and with it a second history.
        let names = fs::metadata(&target).map_err(failed)?.nlink();
        if names > 1 {
            return Err(VacuumError::OtherNames { path: target, names });
        }
        let db = &old.core.db;
        let history = db.history()?;
        let versions = history.rows.iter().filter(|row| !row.is_expired()).count() as u64;
        let mut stream = tempfile::tempfile_in(folder(&target)).map_err(failed)?;
        backup::write(db, &history, 0, BufWriter::new(&stream), &open.cancel)?;
        let survey = receive::survey(BufReader::new(&mut stream))?;

        let new = NewFile::with_header_of(&target, &db.header).map_err(made)?;
        let store = Store::from_new(&new, open.clone()).map_err(made)?;
        let core = &store.core;
        receive::receive(&core.db, &survey, BufReader::new(&stream), &open.cancel)?;
        let rule = old.retention()?;
        if !rule.keeps_all() {
            let draft = Draft { saved: Some(rule), ..Draft::nothing(&open.cancel) };
            commit(&core.db, draft)?;
        }
        let found = verify(&core.db, VerifyOptions::all(), &core.options)?;
        if open.is_cancelled() {
            return Err(VacuumError::Interrupted);
        }
        if let Some(problem) = found.problems.first() {
            return Err(VacuumError::NotWhole { problem: problem.to_string() });
        }
        let file_bytes = (old.file_bytes(), store.file_bytes());
        drop(store);
        new.replace().map_err(|source| VacuumError::Replace { path: target, source })?;
        // Until here nobody else could write.
        drop(old);
        Ok(VacuumReport { versions, file_bytes })
    }
}

fn made(e: CreateError) -> VacuumError {
    VacuumError::Receive(e.into())
}
