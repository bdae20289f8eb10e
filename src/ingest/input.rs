//! One opened input: its bytes, the name that messages give it, and how many bytes it vouches for.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::IngestError;

/// A reader whose calls are made again if a signal ended them before they read anything: not every library above does so.
struct Uninterrupted<R>(R);

impl<R: Read> Read for Uninterrupted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
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
    /// Opens `path`; `-` is standard input.
    pub(super) fn open(path: &Path) -> Result<Input, IngestError> {
        let label = label(path);
        if is_stdin(path) {
            return Ok(Input { label, bytes: Box::new(Uninterrupted(io::stdin())), length: None });
        }
        let fail = |source| IngestError::Open { file: self::label(path), source };
        let file = File::open(path).map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        if metadata.is_dir() {
            return Err(fail(io::ErrorKind::IsADirectory.into()));
        }
        let length = metadata.is_file().then_some(metadata.len());
        Ok(Input { label, bytes: Box::new(Uninterrupted(file)), length })
    }

    /// An input made of bytes at hand, which says how many they are unless it is `piped`.
    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn from_bytes(label: &str, bytes: Vec<u8>, piped: bool) -> Input {
        let length = (!piped).then_some(bytes.len() as u64);
        Input { label: label.to_owned(), bytes: Box::new(io::Cursor::new(bytes)), length }
    }
}

/// True for `-`.
pub(super) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The name that messages use.
pub(crate) fn label(path: &Path) -> String {
    if is_stdin(path) { "standard input".to_owned() } else { path.display().to_string() }
}
