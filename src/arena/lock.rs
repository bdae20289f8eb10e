//! Byte-range locks that the kernel drops with the process.
//!
//! Locks belong to an open file description: two handles of one process exclude each other just as
//! two processes do, and closing another handle of the same file releases nothing. Holds of one
//! description never exclude each other, so who shares a handle must count for himself.
//!
//! All ranges lie far beyond any store, so that they never collide with data.

use std::fs::File;
use std::io;

/// What can be locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockRange {
    /// Held exclusively by the one writer, as long as it has the store open; shared by who rescues
    /// what is left of it.
    Writer,
    /// Held for a moment by whoever comes to the gate, and by a writer as long as it waits there:
    /// so readers who come and go cannot keep a writer out.
    Turn,
    /// Shared by readers while they choose and pin a version; exclusive while a commit becomes
    /// visible and while space is given back.
    Gate,
    /// One byte per version, shared by the readers that have it open.
    Versions {
        /// The first version.
        first: u64,
        /// The last version, inclusive.
        last: u64,
    },
}

/// How a range is held.
#[cfg_attr(not(feature = "simulation"), expect(unreachable_pub, reason = "simulated disks see it"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// By any number of descriptions.
    Shared,
    /// By one.
    Exclusive,
    /// Not at all, or not any more.
    Nothing,
}

const WRITER_BYTE: i64 = 1 << 62;
const VERSION_BYTES: i64 = WRITER_BYTE + (1 << 61);

impl LockRange {
    /// First byte and length. Version numbers beyond 2^61 cannot exist in a file of 2^62 bytes.
    #[cfg(any(target_os = "linux", feature = "simulation"))]
    pub(crate) fn bytes(self) -> (i64, i64) {
        let version_byte = |version: u64| VERSION_BYTES + version.min((1 << 61) - 2) as i64;
        match self {
            LockRange::Writer => (WRITER_BYTE, 1),
            LockRange::Turn => (WRITER_BYTE + 1, 1),
            LockRange::Gate => (WRITER_BYTE + 2, 1),
            LockRange::Versions { first, last } => {
                (version_byte(first), version_byte(last) - version_byte(first) + 1)
            }
        }
    }
}

#[cfg(target_os = "linux")]
fn flock(range: LockRange, hold: Hold) -> nix::libc::flock {
    use nix::libc;
    let (l_start, l_len) = range.bytes();
    let kind = match hold {
        Hold::Shared => libc::F_RDLCK,
        Hold::Exclusive => libc::F_WRLCK,
        Hold::Nothing => libc::F_UNLCK,
    };
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start,
        l_len,
        l_pid: 0,
    }
}

/// Changes how a range is held, without waiting; `false` if somebody else's hold is in the way.
#[cfg(target_os = "linux")]
pub(crate) fn try_lock(file: &File, range: LockRange, hold: Hold) -> io::Result<bool> {
    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, fcntl};
    let wanted = flock(range, hold);
    match uninterrupted(|| fcntl(file, FcntlArg::F_OFD_SETLK(&wanted))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(explained(errno)),
    }
}

/// True if somebody else holds a part of a range.
#[cfg(target_os = "linux")]
pub(crate) fn is_locked_elsewhere(file: &File, range: LockRange) -> io::Result<bool> {
    use nix::fcntl::{FcntlArg, fcntl};
    let mut wanted = flock(range, Hold::Exclusive);
    match uninterrupted(|| fcntl(file, FcntlArg::F_OFD_GETLK(&mut wanted))) {
        Ok(_) => Ok(i32::from(wanted.l_type) != nix::libc::F_UNLCK),
        Err(errno) => Err(explained(errno)),
    }
}

/// True if somebody else holds a part of a range. Readers cannot be seen.
#[cfg(not(target_os = "linux"))]
pub(crate) fn is_locked_elsewhere(_: &File, _: LockRange) -> io::Result<bool> {
    Ok(false)
}

/// Makes a call again that a signal ended before it did anything. File systems on other machines
/// let that happen even to calls that do not wait.
#[cfg(target_os = "linux")]
fn uninterrupted(mut call: impl FnMut() -> nix::Result<i32>) -> nix::Result<i32> {
    loop {
        match call() {
            Err(nix::errno::Errno::EINTR) => {}
            result => return result,
        }
    }
}

#[cfg(target_os = "linux")]
fn explained(errno: nix::errno::Errno) -> io::Error {
    use nix::errno::Errno;
    match errno {
        Errno::ENOLCK | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL => io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "the file system has no byte-range locks ({errno}), without which readers and the writer cannot see each \
                 other; copy the store to a local disk"
            ),
        ),
        _ => errno.into(),
    }
}

/// Changes how a range is held. Without byte-range locks only the writer's is one; readers cannot
/// be seen, so that nothing expires.
#[cfg(not(target_os = "linux"))]
pub(crate) fn try_lock(file: &File, range: LockRange, hold: Hold) -> io::Result<bool> {
    let _ = (WRITER_BYTE, VERSION_BYTES);
    let locked = match (range, hold) {
        (LockRange::Writer, Hold::Exclusive) => file.try_lock(),
        (LockRange::Writer, Hold::Shared) => file.try_lock_shared(),
        (LockRange::Versions { .. }, Hold::Exclusive) => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this system has no open-file-description locks, so readers cannot be seen and nothing is expired",
            ));
        }
        _ => return Ok(true),
    };
    match locked {
        Ok(()) => Ok(true),
        Err(std::fs::TryLockError::WouldBlock) => Ok(false),
        Err(std::fs::TryLockError::Error(e)) => Err(e),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_without_locks_is_an_error_that_says_so() {
        use nix::errno::Errno;
        for errno in [Errno::ENOLCK, Errno::EOPNOTSUPP] {
            let error = explained(errno);
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
            assert!(error.to_string().contains("copy the store to a local disk"));
        }
        assert_eq!(explained(Errno::EIO).raw_os_error(), Some(Errno::EIO as i32));
    }
}
