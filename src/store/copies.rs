//! The store in other files: backup streams, whole and in increments.

use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::maintain::backup::{self, BackupReport};
use crate::maintain::receive::{self, ReceiveReport};
use crate::store::Store;
use crate::store::new_file::NewFile;
use crate::values::error::{BackupError, CreateError, ReceiveError};
use crate::values::ids::VersionId;
use crate::values::options::OpenOptions;

impl Store {
    /// Writes every version that can be opened, and all tags, as a stream for [`Store::receive`];
    /// with `since`, those after a version that the receiver has. Beside a writer, whom it does not
    /// keep waiting: what it reads is pinned.
    ///
    /// # Errors
    ///
    /// `since` cannot be opened; damage or I/O failure; interrupted. What has been written is then
    /// no whole stream, and is refused by the receiver.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store, VersionId};
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("copy.tre");
    /// # let mut store = Store::in_memory(CreateOptions::new(1), OpenOptions::new())?;
    /// use std::io::Cursor;
    /// store.insert(&[1.0])?;
    /// let mut full = Vec::new();
    /// store.backup(None, &mut full)?;
    /// store.insert(&[2.0])?;
    /// let mut increment = Vec::new();
    /// store.backup(Some(VersionId(1)), &mut increment)?;
    ///
    /// Store::receive(&path, Cursor::new(&full), OpenOptions::new())?;
    /// let report = Store::receive(&path, Cursor::new(&increment), OpenOptions::new())?;
    /// assert_eq!((report.newest, report.versions), (VersionId(2), 1));
    /// assert_eq!(Store::open(&path)?.at(VersionId(2))?.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn backup(
        &self,
        since: Option<VersionId>,
        out: impl Write,
    ) -> Result<BackupReport, BackupError> {
        let since = since.unwrap_or(VersionId(0));
        // A copy must not have what the original can lose.
        self.sync()?;
        let _pinned = self.at(since)?;
        let db = &self.core.db;
        db.confirm(backup::backup(db, since.0, out, &self.core.options.cancel))
    }

    /// Receives a stream into the store at `path`, which is made if there is none. The whole stream
    /// is checked before anything is written. Versions that the store has already are passed over;
    /// each of the others is made durable by a commit of its own, and answers with the same bits as
    /// at the sender. Tags become those of the stream.
    ///
    /// Versions may be larger than memory: what has come of one is written when it is more than 16
    /// MiB.
    ///
    /// # Errors
    ///
    /// The stream is damaged, of another store, or does not go on from what the store has; the
    /// store is open for writing elsewhere. See [`ReceiveError`].
    ///
    /// # Examples
    ///
    /// See [`Store::backup`].
    pub fn receive(
        path: impl AsRef<Path>,
        mut stream: impl Read + Seek,
        open: OpenOptions,
    ) -> Result<ReceiveReport, ReceiveError> {
        let path = path.as_ref();
        let open = open.read_only(false);
        let survey = receive::survey(&mut stream)?;
        let (store, new) = match path.symlink_metadata() {
            Ok(_) => (Self::open_with(path, open)?, None),
            Err(_) => {
                let new = NewFile::with_header(path, &survey.header)?;
                let store = Self::from_new(&new, open)?;
                (store, Some(new))
            }
        };
        let core = &store.core;
        let report = receive::receive(&core.db, &survey, stream, &core.options.cancel)?;
        new.map_or(Ok(()), |new| new.keep().map_err(|e: CreateError| e.into())).map(|()| report)
    }
}
