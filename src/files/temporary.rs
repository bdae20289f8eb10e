//! Files that have no name until they are whole, so that nothing is left of one whose process is
//! killed.
//!
//! Where the system has no nameless files, or no way to name one later, a file has a name of its
//! own from the beginning, `.treering-*.tmp`, and is locked as long as its process lives; whoever
//! makes another beside it removes those that nobody holds. So does a file that takes the place of
//! another, for the moment in which it does: only a rename can replace.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use crate::files::publish::folder;

const PREFIX: &str = ".treering-";
const SUFFIX: &str = ".tmp";

/// A file without an owner that is younger than this may be on its way to one.
const YOUNG: Duration = Duration::from_secs(60);

/// Names that this process has given and not taken back.
static NAMES: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A file in the making, gone with this unless it is given a name.
pub struct Temporary {
    file: File,
    name: Option<Name>,
}

/// A name that goes when it is dropped.
struct Name(PathBuf);

impl Name {
    fn noted(path: PathBuf) -> Self {
        NAMES.lock().expect("no holder panics").insert(path.clone());
        Name(path)
    }

    fn forget(&self) {
        NAMES.lock().expect("no holder panics").remove(&self.0);
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let noted = NAMES.lock().expect("no holder panics").remove(&self.0);
        if noted {
            let _ = fs::remove_file(&self.0);
        }
    }
}

impl Temporary {
    /// An empty file that is to take the place `target`. `mode`: before the umask.
    pub fn beside(target: &Path, mode: u32) -> io::Result<Self> {
        let folder = folder(target);
        if let Some(file) = nameless(folder, mode) {
            return Ok(Temporary { file, name: None });
        }
        remove_stale(folder);
        let (file, path) = tempfile::Builder::new()
            .prefix(PREFIX)
            .suffix(SUFFIX)
            .permissions(fs::Permissions::from_mode(mode))
            .tempfile_in(folder)?
            .keep()
            .map_err(|e| e.error)?;
        let name = Some(Name::noted(path));
        // Only that nobody else takes it for forgotten.
        let _ = file.try_lock();
        Ok(Temporary { file, name })
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives it its name, if nothing has that.
    pub fn keep_new(self, target: &Path) -> io::Result<()> {
        let Some(name) = self.name else {
            return link(&self.file, target);
        };
        fs::hard_link(&name.0, target).or_else(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => Err(e),
            // A file system without links.
            _ if target.symlink_metadata().is_err() => fs::rename(&name.0, target),
            _ => Err(io::ErrorKind::AlreadyExists.into()),
        })
    }

    /// Puts it in the place of what has its name now.
    pub fn replace(self, target: &Path) -> io::Result<()> {
        let name = match self.name {
            Some(name) => name,
            None => named(&self.file, folder(target))?,
        };
        fs::rename(&name.0, target)?;
        name.forget();
        Ok(())
    }
}

/// A file without a name, if there can be one that is given a name later.
fn nameless(folder: &Path, mode: u32) -> Option<File> {
    #[cfg(target_os = "linux")]
    {
        let flags = nix::fcntl::OFlag::O_TMPFILE.bits();
        let mut options = OpenOptions::new();
        let file =
            options.read(true).write(true).mode(mode).custom_flags(flags).open(folder).ok()?;
        fs::metadata(by_number(&file)).is_ok().then_some(file)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (folder, mode, OpenOptions::new());
        None
    }
}

/// The path under which this process has a file open.
fn by_number(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// Gives a nameless file a name that nothing has.
fn link(file: &File, path: &Path) -> io::Result<()> {
    let flags = nix::fcntl::AtFlags::AT_SYMLINK_FOLLOW;
    let here = nix::fcntl::AT_FDCWD;
    Ok(nix::unistd::linkat(here, &by_number(file), here, path, flags)?)
}

/// Gives a nameless file some name in `folder`.
fn named(file: &File, folder: &Path) -> io::Result<Name> {
    let _ = file.try_lock();
    for number in 0..1 << 16 {
        let path = folder.join(format!("{PREFIX}{}-{number}{SUFFIX}", std::process::id()));
        let name = Name::noted(path);
        match link(file, &name.0) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => name.forget(),
            done => return done.map(|()| name),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Removes what processes that were killed have left in a folder.
fn remove_stale(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_ours = name.starts_with(PREFIX) && name.ends_with(SUFFIX);
        if !is_ours || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let Ok(file) = File::open(entry.path()) else { continue };
        let is_old = file
            .metadata()
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|time| time.elapsed().is_ok_and(|age| age > YOUNG));
        if is_old && file.try_lock().is_ok() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Removes what this process would leave if it ended now.
pub fn remove_all() {
    // If somebody holds it, he is about to name or to remove a file.
    if let Ok(mut names) = NAMES.try_lock() {
        while let Some(path) = names.pop_first() {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn entries(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a");
        drop(Temporary::beside(&target, 0o666).unwrap());
        assert!(entries(dir.path()).is_empty());
        let file = Temporary::beside(&target, 0o666).unwrap();
        file.file().write_all(b"1").unwrap();
        file.keep_new(&target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"1");
        let second = Temporary::beside(&target, 0o666).unwrap();
        let e = second.keep_new(&target).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::AlreadyExists);
        let third = Temporary::beside(&target, 0o666).unwrap();
        third.file().write_all(b"3").unwrap();
        third.replace(&target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"3");
        assert_eq!(entries(dir.path()), ["a"]);
    }

    #[test]
    fn what_nobody_holds_any_more_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let old = std::time::SystemTime::now() - 2 * YOUNG;
        let make = |name: &str, time| {
            let file = File::create(dir.path().join(name)).unwrap();
            file.set_modified(time).unwrap();
            file
        };
        make(".treering-a.tmp", old);
        make(".treering-b.tmp", std::time::SystemTime::now());
        let held = make(".treering-c.tmp", old);
        held.lock().unwrap();
        make("mine.tmp", old);
        remove_stale(dir.path());
        assert_eq!(entries(dir.path()), [".treering-b.tmp", ".treering-c.tmp", "mine.tmp"]);
    }
}
