//! A buffered destination: standard output, or a file.
//!
//! A file is written under a temporary name beside its place and renamed by [`Sink::finish`]; dropped before that, it
//! leaves nothing behind. Only what exists and is no regular file (a pipe, a terminal, `/dev/null`) is written to directly.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::cli::failure::Failure;

/// Bytes that are gathered before any is written. A verb that fails before it has produced more than this prints
/// nothing.
const BUFFER: usize = 16 << 20;

/// A buffered destination.
pub(crate) struct Sink {
    name: String,
    buffer: Vec<u8>,
    to: To,
}

enum To {
    Stdout,
    Special(File),
    Temporary { file: NamedTempFile, path: PathBuf },
}

impl Sink {
    /// Standard output.
    pub(crate) fn stdout() -> Sink {
        Sink { name: "standard output".to_owned(), buffer: Vec::new(), to: To::Stdout }
    }

    /// A file, or standard output for `-`.
    pub(crate) fn create(path: &Path) -> Result<Sink, Failure> {
        if path.as_os_str() == "-" {
            return Ok(Sink::stdout());
        }
        let name = path.display().to_string();
        let to =
            Self::open(path).map_err(|source| Failure::Output { name: name.clone(), source })?;
        Ok(Sink { name, buffer: Vec::new(), to })
    }

    fn open(path: &Path) -> io::Result<To> {
        // A link is followed, so that its target is replaced and not the link.
        let path = match fs::canonicalize(path) {
            Ok(path) => path,
            Err(e) if e.kind() == io::ErrorKind::NotFound => path.to_path_buf(),
            Err(e) => return Err(e),
        };
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(found) if !found.is_file() => {
                return Ok(To::Special(OpenOptions::new().write(true).open(&path)?));
            }
            _ => {}
        }
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(".treering-").suffix(".tmp");
        if let Some(permissions) = usual_permissions() {
            builder.permissions(permissions);
        }
        Ok(To::Temporary { file: builder.tempfile_in(folder)?, path })
    }

    /// True if [`Sink::overwrite_start`] is possible.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self.to, To::Temporary { .. })
    }

    /// Appends bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() < BUFFER { Ok(()) } else { self.flush() }
    }

    /// Replaces the first bytes of what was written.
    pub(crate) fn overwrite_start(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.flush()?;
        let To::Temporary { file, .. } = &mut self.to else {
            unreachable!("only asked of files, see is_file");
        };
        let done = file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(bytes));
        done.map_err(|source| self.failure(source))
    }

    /// Writes what is buffered and puts the file in its place.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.flush()?;
        match self.to {
            To::Temporary { file, path } => match file.persist(path) {
                Ok(_) => Ok(()),
                Err(e) => Err(Failure::Output { name: self.name, source: e.error }),
            },
            To::Stdout | To::Special(_) => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let bytes = &self.buffer;
        let done = match &mut self.to {
            To::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes).and_then(|()| stdout.flush())
            }
            To::Special(file) => file.write_all(bytes),
            To::Temporary { file, .. } => file.write_all(bytes),
        };
        self.buffer.clear();
        done.map_err(|source| self.failure(source))
    }

    fn failure(&self, source: io::Error) -> Failure {
        Failure::Output { name: self.name.clone(), source }
    }
}

/// What `File::create` would give, where a temporary file would be the owner's alone.
#[cfg(unix)]
fn usual_permissions() -> Option<Permissions> {
    use std::os::unix::fs::PermissionsExt;
    Some(Permissions::from_mode(0o666))
}

#[cfg(not(unix))]
fn usual_permissions() -> Option<Permissions> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.csv");
        fs::write(&path, "old").unwrap();
        let mut sink = Sink::create(&path).unwrap();
        sink.write(b"new").unwrap();
        drop(sink);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        let mut sink = Sink::create(&path).unwrap();
        sink.write(b"new").unwrap();
        sink.overwrite_start(b"N").unwrap();
        sink.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"New");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn devices_are_not_replaced() {
        let mut sink = Sink::create(Path::new("/dev/null")).unwrap();
        assert!(!sink.is_file());
        sink.write(b"gone").unwrap();
        sink.finish().unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
}
