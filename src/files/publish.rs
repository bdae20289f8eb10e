//! Where files come from: every file that the library or the command writes under a name is made
//! here.
//!
//! Invariants. P1: a file appears whole or not at all: it is written beside its place, synced,
//! renamed, and its folder is synced. P2: a store is never replaced, nor what the same work reads,
//! whatever name or link leads there. P3: links are followed and stay; a pipe or a character device
//! is written to and not replaced. P4: a file that was there keeps its mode, and may be replaced
//! only by who may write to it.
//!
//! Not for the file of a store itself, which replaces nothing: that is `store/new_file.rs`, made of
//! the same parts.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::files::temporary::Temporary;
use crate::files::waiting::Wait;
use crate::format::COPY_DISTANCE;
use crate::format::header::MAGIC;
use crate::values::options::CancelToken;

/// How often a wait for the reader of a pipe looks whether it is still wanted.
const PAUSE: Duration = Duration::from_millis(50);

/// Links that a path may lead through, as the system has it.
const MOST_LINKS: usize = 40;

/// Why an output was not written. What was there before is there still.
#[derive(Debug)]
pub enum OutputError {
    /// It is not to be written to; the message says what it is.
    Refused(String),
    /// The system would not.
    Io { name: String, source: io::Error },
    /// Cancelled while it waited for the reader of a pipe.
    Interrupted,
}

/// The file system's name for a file: device and inode.
type FileId = (u64, u64);

fn id_of(found: &Metadata) -> FileId {
    (found.dev(), found.ino())
}

/// What one piece of work reads and writes, so that it does not write to what it reads, or to one
/// file twice.
pub struct Outputs {
    inputs: Vec<FileId>,
    targets: Vec<PathBuf>,
    cancel: CancelToken,
}

impl Outputs {
    /// Nothing yet. `cancel` ends waits for the reader of a pipe.
    pub fn new(cancel: CancelToken) -> Self {
        Outputs { inputs: Vec::new(), targets: Vec::new(), cancel }
    }

    /// Adds a file that is read; `-` is standard input. One that is not there is for its reader to
    /// report.
    pub fn input(mut self, path: &Path) -> Self {
        let found = match path.as_os_str() == "-" {
            true => standard(io::stdin()),
            false => fs::metadata(path),
        };
        self.inputs.extend(found.ok().filter(Metadata::is_file).as_ref().map(id_of));
        self
    }

    /// An output at `path`, or standard output for `-`. Nothing is there before [`Output::finish`],
    /// except in a pipe or a device, for whose reader this waits.
    pub fn create(&mut self, path: &Path) -> Result<Output, OutputError> {
        if is_standard_output(path) {
            return self.standard_output();
        }
        let name = path.display().to_string();
        let to = self.open(path, &name)?;
        Ok(Output { name, to, held: None, cancel: self.cancel.clone() })
    }

    /// [`Outputs::create`] of one whose start is written last. For a pipe or a device it is put
    /// together elsewhere.
    pub fn create_rewritable(&mut self, path: &Path) -> Result<Output, OutputError> {
        let mut output = self.create(path)?;
        if !matches!(output.to, To::File(_)) {
            let held = tempfile::tempfile().map_err(|source| output.failure(source))?;
            output.held = Some(held);
        }
        Ok(output)
    }

    /// Standard output, unless it has been sent into a store or an input.
    pub fn standard_output(&self) -> Result<Output, OutputError> {
        let name = "standard output".to_owned();
        let is_input = |found: Metadata| found.is_file() && self.inputs.contains(&id_of(&found));
        if standard(io::stdout()).is_ok_and(is_input) {
            return Err(refused(&name, "is an input of the same command"));
        }
        Ok(Output { name, to: To::Stdout, held: None, cancel: self.cancel.clone() })
    }

    fn open(&mut self, path: &Path, name: &str) -> Result<To, OutputError> {
        let failed = |source| OutputError::Io { name: name.to_owned(), source };
        let found = match fs::metadata(path) {
            Ok(found) => Some(found),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(failed(e)),
        };
        let kind = found.as_ref().map(Metadata::file_type);
        if kind.is_some_and(|kind| kind.is_fifo() || kind.is_char_device()) {
            if kind.is_some_and(|kind| kind.is_fifo())
                && let Ok(target) = fs::canonicalize(path)
            {
                self.claim(target, name)?;
            }
            return self.open_stream(path).map_err(|e| e.unwrap_or_else(failed));
        }
        if let Some(kind) = kind.filter(|kind| !kind.is_file()) {
            let e = match kind.is_dir() {
                true => io::ErrorKind::IsADirectory.into(),
                false => io::Error::other("neither a file nor a pipe or character device"),
            };
            return Err(failed(e));
        }
        let target =
            self.target(path, found.as_ref(), name).map_err(|e| e.unwrap_or_else(failed))?;
        // A file that takes the place of another is its owner's alone until it has the other's
        // mode.
        let mode = if found.is_some() { 0o600 } else { 0o666 };
        let file = Temporary::beside(&target, mode).map_err(failed)?;
        self.claim(target.clone(), name)?;
        Ok(To::File(Box::new(Draft { file, target, replaces: found })))
    }

    /// Where a path leads, if a file may be put there. `found`: what is there.
    fn target(
        &self,
        path: &Path,
        found: Option<&Metadata>,
        name: &str,
    ) -> Result<PathBuf, Fallible> {
        let Some(found) = found else {
            return Ok(end_of_links(path)?);
        };
        let target = fs::canonicalize(path)?;
        if is_store(&target)? {
            return Err(refused(name, "is a treering store").into());
        }
        if self.inputs.contains(&id_of(found)) {
            return Err(refused(name, "is an input of the same command").into());
        }
        // Replacing a file asks nobody but its folder; so the file is asked here.
        OpenOptions::new().write(true).open(&target)?;
        Ok(target)
    }

    fn claim(&mut self, target: PathBuf, name: &str) -> Result<(), OutputError> {
        if self.targets.contains(&target) {
            return Err(refused(name, "would be both outputs of the command"));
        }
        self.targets.push(target);
        Ok(())
    }

    /// Opens a pipe or a device without being held up by it: whoever waits can be told to stop.
    fn open_stream(&self, path: &Path) -> Result<To, Fallible> {
        let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
        loop {
            match OpenOptions::new().write(true).custom_flags(flags).open(path) {
                Ok(file) if file.metadata()?.is_file() => {
                    return Err(io::Error::other("it became a file meanwhile").into());
                }
                Ok(file) => return Ok(To::Stream(file)),
                // Nobody reads from the pipe yet.
                Err(e) if e.raw_os_error() == Some(nix::libc::ENXIO) => {
                    if self.cancel.is_cancelled() {
                        return Err(OutputError::Interrupted.into());
                    }
                    std::thread::sleep(PAUSE);
                }
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// An error that has its final form, or one of the system's.
enum Fallible {
    Told(OutputError),
    Io(io::Error),
}

impl Fallible {
    fn unwrap_or_else(self, failed: impl FnOnce(io::Error) -> OutputError) -> OutputError {
        match self {
            Fallible::Told(e) => e,
            Fallible::Io(e) => failed(e),
        }
    }
}

impl From<OutputError> for Fallible {
    fn from(e: OutputError) -> Self {
        Fallible::Told(e)
    }
}

impl From<io::Error> for Fallible {
    fn from(e: io::Error) -> Self {
        Fallible::Io(e)
    }
}

fn refused(name: &str, why: &str) -> OutputError {
    OutputError::Refused(format!("{name} {why}; nothing was written, give another name"))
}

/// A file that is being written.
pub struct Output {
    name: String,
    to: To,
    /// Takes what is written until its start is known, if it goes where nothing can be written
    /// over.
    held: Option<File>,
    cancel: CancelToken,
}

enum To {
    Stdout,
    Stream(File),
    File(Box<Draft>),
}

/// A file beside the place that it will take.
struct Draft {
    file: Temporary,
    target: PathBuf,
    /// What is in that place now.
    replaces: Option<Metadata>,
}

impl Output {
    /// Writes over the first bytes of a [`Outputs::create_rewritable`] one.
    pub fn overwrite_start(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        let file = match (&self.held, &self.to) {
            (Some(held), _) => held,
            (None, To::File(draft)) => draft.file.file(),
            (None, To::Stdout | To::Stream(_)) => unreachable!("it is held back"),
        };
        file.write_all_at(bytes, 0).map_err(|source| self.failure(source))
    }

    /// Puts the file in its place. What was there before is gone only now.
    pub fn finish(mut self) -> Result<(), OutputError> {
        self.deliver().map_err(|source| self.failure(source))?;
        let Output { name, to: To::File(draft), .. } = self else {
            return Ok(());
        };
        let Draft { file, target, replaces } = *draft;
        let failed = |source| OutputError::Io { name: name.clone(), source };
        if let Some(old) = &replaces {
            take_after(file.file(), old).map_err(failed)?;
        }
        file.file().sync_all().map_err(failed)?;
        // It may have come there in the meantime.
        if is_store(&target).map_err(failed)? {
            return Err(refused(&name, "is a treering store"));
        }
        file.replace(&target).map_err(failed)?;
        sync_folder(&target).map_err(failed)
    }

    /// What has been held back goes out.
    fn deliver(&mut self) -> io::Result<()> {
        let Some(mut held) = self.held.take() else { return self.flush() };
        held.seek(SeekFrom::Start(0))?;
        io::copy(&mut held, self)?;
        self.flush()
    }

    /// The failure that an error in writing to this is.
    pub fn failure(&self, source: io::Error) -> OutputError {
        match self.cancel.is_cancelled() {
            true => OutputError::Interrupted,
            false => OutputError::Io { name: self.name.clone(), source },
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(held) = &mut self.held {
            return held.write(bytes);
        }
        match &mut self.to {
            To::Stdout => {
                let _wait = Wait::begin(&self.cancel)?;
                io::stdout().write(bytes)
            }
            To::File(draft) => draft.file.file().write(bytes),
            To::Stream(file) => write_stream(file, bytes, &self.cancel),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.to {
            To::Stdout => {
                let _wait = Wait::begin(&self.cancel)?;
                io::stdout().flush()
            }
            To::File(_) | To::Stream(_) => Ok(()),
        }
    }
}

/// Writes to a pipe or a device that was opened without blocking, and waits as long as nobody
/// cancels.
fn write_stream(file: &mut File, bytes: &[u8], cancel: &CancelToken) -> io::Result<usize> {
    loop {
        match file.write(bytes) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
        if cancel.is_cancelled() {
            return Err(io::Error::other("interrupted"));
        }
        let mut waiting = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
        let pause = PollTimeout::try_from(PAUSE).unwrap_or(PollTimeout::ZERO);
        match poll(&mut waiting, pause) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Gives a file the mode of the one whose place it takes and, if possible, its owner.
pub fn take_after(file: &File, old: &Metadata) -> io::Result<()> {
    let mut mode = old.mode() & 0o7777;
    let new = file.metadata()?;
    if (new.uid(), new.gid()) != (old.uid(), old.gid())
        && std::os::unix::fs::fchown(file, Some(old.uid()), Some(old.gid())).is_err()
    {
        // Rights that were given on somebody else's behalf.
        mode &= 0o777;
    }
    file.set_permissions(Permissions::from_mode(mode))
}

/// True if the file at `path` begins as a store does, or as one does whose first header is damaged.
fn is_store(path: &Path) -> io::Result<bool> {
    let flags = OFlag::O_NONBLOCK.bits();
    let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    if !file.metadata()?.is_file() {
        return Ok(false);
    }
    for copy in 0..2 {
        let mut magic = [0; MAGIC.len()];
        file.seek(SeekFrom::Start(copy * COPY_DISTANCE))?;
        match file.read_exact(&mut magic) {
            Ok(()) if magic == MAGIC => return Ok(true),
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => return Err(e),
            _ => {}
        }
    }
    Ok(false)
}

/// True if what the command prints would go into a store: `treering log s >> s`.
pub fn prints_into_a_store() -> bool {
    let goes = |found: io::Result<Metadata>, path: &str| {
        found.is_ok_and(|found| found.is_file()) && is_store(Path::new(path)).unwrap_or(false)
    };
    goes(standard(io::stdout()), "/dev/stdout") || goes(standard(io::stderr()), "/dev/stderr")
}

/// What a standard stream is connected with.
fn standard(stream: impl AsFd) -> io::Result<Metadata> {
    File::from(stream.as_fd().try_clone_to_owned()?).metadata()
}

/// `-`, and the names that the system has for the same thing. It is not opened anew, because a file
/// that it was sent to would be written from its start.
pub fn is_standard_output(path: &Path) -> bool {
    ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"]
        .iter()
        .any(|name| path.as_os_str() == *name)
}

/// Where a path that leads to nothing leads: to itself, or to what the last of its links names.
fn end_of_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&path) {
            Ok(next) => path = folder(&path).join(next),
            Err(_) => {
                let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
                return Ok(fs::canonicalize(folder(&path))?.join(name));
            }
        }
    }
    Err(io::Error::other("too many links"))
}

/// Makes the name of a file durable.
pub fn sync_folder(target: &Path) -> io::Result<()> {
    File::open(folder(target))?.sync_all()
}

/// The folder that a file lies in.
pub fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs() -> Outputs {
        Outputs::new(CancelToken::default())
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.csv");
        fs::write(&path, "old").unwrap();
        let mut output = outputs().create(&path).unwrap();
        output.write_all(b"new").unwrap();
        drop(output);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        let mut output = outputs().create_rewritable(&path).unwrap();
        output.write_all(b"new").unwrap();
        output.overwrite_start(b"N").unwrap();
        output.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"New");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_store_that_came_meanwhile_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.csv");
        let output = outputs().create(&path).unwrap();
        drop(crate::Store::create(&path, crate::CreateOptions::new(1)).unwrap());
        assert!(matches!(output.finish(), Err(OutputError::Refused(_))));
        assert!(crate::Store::open(&path).is_ok());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
