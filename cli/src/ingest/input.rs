//! One opened input: its bytes, the name that messages give it, and how many bytes it vouches for.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::IngestError;
use treering::CancelToken;
use treering::files::waiting::Wait;

/// A file that may be a pipe or a device, so that reading may wait for others. Its calls are made
/// again if a signal ended them before they read anything: not every library above does so.
struct Piped<R> {
    from: R,
    cancel: CancelToken,
}

impl<R: Read> Read for Piped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let _wait = Wait::begin(&self.cancel)?;
            match self.from.read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

/// Bytes to be read, with a name.
pub(super) struct Input {
    /// What messages call it.
    pub(super) label: String,
    /// Unbuffered.
    pub(super) bytes: Box<dyn Read + Send>,
    /// Length in bytes of a regular file; unknown for pipes and standard input.
    pub(super) length: Option<u64>,
}

impl Input {
    /// Opens `path`; `-` is standard input. Waits end with `cancel`.
    pub(super) fn open(path: &Path, cancel: &CancelToken) -> Result<Input, IngestError> {
        let label = label(path);
        let fail = |source| IngestError::Open { file: self::label(path), source };
        if is_stdin(path) {
            let bytes = piped(io::stdin(), cancel);
            return Ok(Input { label, bytes, length: None });
        }
        let file = open_waiting(path, cancel).map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        if metadata.is_dir() {
            return Err(fail(io::ErrorKind::IsADirectory.into()));
        }
        let length = metadata.is_file().then_some(metadata.len());
        Ok(Input { label, bytes: piped(file, cancel), length })
    }

    /// What `kept` holds, from its beginning, whoever else reads it.
    fn of_kept(label: String, file: Arc<File>) -> io::Result<Input> {
        let length = Some(file.metadata()?.len());
        Ok(Input { label, bytes: Box::new(Positioned { file, at: 0 }), length })
    }

    /// An input made of bytes at hand, which says how many they are unless it is `piped`.
    pub(super) fn from_bytes(label: &str, bytes: Vec<u8>, piped: bool) -> Input {
        let length = (!piped).then_some(bytes.len() as u64);
        Input { label: label.to_owned(), bytes: Box::new(io::Cursor::new(bytes)), length }
    }
}

/// Reads a file whose position others move.
struct Positioned {
    file: Arc<File>,
    at: u64,
}

impl Read for Positioned {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// An input that can be read several times.
pub(crate) struct Kept {
    label: String,
    file: Arc<File>,
}

impl Kept {
    /// What `path` holds; see [`open_seekable`].
    pub(crate) fn open(path: &Path, cancel: &CancelToken) -> Result<Kept, IngestError> {
        let label = label(path);
        match open_seekable(path, cancel) {
            Ok(file) => Ok(Kept { label, file: Arc::new(file) }),
            Err(source) => Err(IngestError::Open { file: label, source }),
        }
    }

    /// From the beginning.
    pub(super) fn input(&self) -> Result<Input, IngestError> {
        let read = |source| IngestError::Read { file: self.label.clone(), source };
        Input::of_kept(self.label.clone(), self.file.clone()).map_err(read)
    }
}

fn piped(from: impl Read + Send + 'static, cancel: &CancelToken) -> Box<dyn Read + Send> {
    Box::new(Piped { from, cancel: cancel.clone() })
}

/// Opens a file for reading; one that is a pipe opens when somebody writes to it.
fn open_waiting(path: &Path, cancel: &CancelToken) -> io::Result<File> {
    let _wait = Wait::begin(cancel)?;
    File::open(path)
}

/// What `path` holds, to be read more than once: standard input and pipes are copied to a temporary
/// file first.
pub(crate) fn open_seekable(path: &Path, cancel: &CancelToken) -> io::Result<File> {
    let mut from: Box<dyn Read + Send> = match is_stdin(path) {
        true => piped(io::stdin(), cancel),
        false => {
            let file = open_waiting(path, cancel)?;
            if file.metadata()?.is_file() {
                return Ok(file);
            }
            piped(file, cancel)
        }
    };
    let mut kept = tempfile::tempfile()?;
    io::copy(&mut from, &mut kept)?;
    kept.rewind()?;
    Ok(kept)
}

/// True for `-`.
pub(super) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The name that messages use.
pub(crate) fn label(path: &Path) -> String {
    if is_stdin(path) { "standard input".to_owned() } else { path.display().to_string() }
}
