//! A store file that appears under its name whole, or not at all.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::arena::storage::FileStorage;
use crate::files::publish::{sync_folder, take_after};
use crate::files::temporary::Temporary;
use crate::format::header::Header;
use crate::values::error::{CreateError, StorageError};
use crate::values::options::{CreateOptions, OpenOptions};
use crate::version::database::Database;

/// A store file in the making: gone unless it is kept.
pub(crate) struct NewFile {
    target: PathBuf,
    file: Temporary,
}

impl NewFile {
    pub(crate) fn beside(
        target: &Path,
        options: &CreateOptions,
        open: &OpenOptions,
    ) -> Result<Self, CreateError> {
        options.check()?;
        Self::filled(target, |storage| Database::format(storage, options, open.provenance))
    }

    /// An empty store with the header of another.
    pub(crate) fn with_header(target: &Path, header: &Header) -> Result<Self, CreateError> {
        Self::filled(target, |storage| Database::format_as(storage, header))
    }

    /// The same, to take the place of that other.
    pub(crate) fn with_header_of(target: &Path, header: &Header) -> Result<Self, CreateError> {
        Self::formatted(target, |storage| Database::format_as(storage, header))
    }

    fn filled(
        target: &Path,
        format: impl FnOnce(&FileStorage) -> Result<(), StorageError>,
    ) -> Result<Self, CreateError> {
        // Told early; keeping the file checks again, and does not replace.
        if target.symlink_metadata().is_ok() {
            return Err(CreateError::Exists { path: target.to_path_buf() });
        }
        Self::formatted(target, format)
    }

    fn formatted(
        target: &Path,
        format: impl FnOnce(&FileStorage) -> Result<(), StorageError>,
    ) -> Result<Self, CreateError> {
        let failed = |source| CreateError::Path { path: target.to_path_buf(), source };
        let file = Temporary::beside(target, 0o666).map_err(failed)?;
        let handle = file.file().try_clone().map_err(failed)?;
        format(&FileStorage::new(handle, target, true, false)?)?;
        Ok(NewFile { target: target.to_path_buf(), file })
    }

    /// Another handle of the file, which stays good when the file is kept.
    pub(crate) fn handle(&self) -> Result<File, CreateError> {
        let failed = |source| CreateError::Path { path: self.target.clone(), source };
        self.file.file().try_clone().map_err(failed)
    }

    /// Where the file will be.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Puts the file in the place of the one that has its name, with the mode and the owner of
    /// that.
    pub(crate) fn replace(self) -> std::io::Result<()> {
        let NewFile { target, file } = self;
        take_after(file.file(), &target.metadata()?)?;
        file.file().sync_all()?;
        file.replace(&target)?;
        sync_folder(&target)
    }

    /// Gives the file its name without replacing anything, and makes the name durable.
    pub(crate) fn keep(self) -> Result<(), CreateError> {
        let NewFile { target, file } = self;
        file.keep_new(&target).map_err(|source| match source.kind() {
            std::io::ErrorKind::AlreadyExists => CreateError::Exists { path: target.clone() },
            _ => CreateError::Path { path: target.clone(), source },
        })?;
        sync_folder(&target)
            .map_err(|source| StorageError { operation: "sync the folder of", source })?;
        Ok(())
    }
}
